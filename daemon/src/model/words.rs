//! Enums that are words in JSON, in logs and on the command line.

/// Defines an enum whose variants are words; the first one is its default.
macro_rules! words {
    (
        $(#[$about:meta])*
        $name:ident { $(#[$what:meta])* $first:ident = $first_word:literal, $($(#[$each:meta])* $variant:ident = $word:literal,)* }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(#[$what])*
            #[default]
            #[serde(rename = $first_word)]
            $first,
            $($(#[$each])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// Every value there is.
            pub const ALL: &[Self] = &[Self::$first, $(Self::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self {
                    Self::$first => $first_word,
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(super) use words;
