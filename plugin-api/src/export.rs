//! [`export_plugin!`](crate::export_plugin): the exported symbol and the manifest, which is an ELF note written
//! at compile time, so that it can be read without running anything.

/// Makes a plugin of a [`Handler`](crate::Handler); once per crate, whose `crate-type` has `cdylib`.
///
/// ```
/// # use warren_plugin::{Call, Done, Failure, Handler, Host, NoSettings, Outcome, Task};
/// # struct Backup;
/// # impl Handler for Backup {
/// #     type Settings = NoSettings;
/// #     fn new(_: NoSettings, _: &Host) -> Result<Self, Failure> { Ok(Self) }
/// #     fn handle(&mut self, _: &Task<'_>, _: &Call<'_>) -> Outcome { Ok(Done::empty()) }
/// # }
/// warren_plugin::export_plugin!(
///     Backup,
///     name = "backup-database",                  // default: the package's name
///     prefixes = ["Backup database"],            // which tasks it takes, unless the operator says otherwise
///     timeout = "15m",                           // optional: "250ms", "5s", "10m", "1h30m"
///     settings = ["directory", "keep"],          // optional: the keys its settings know, for `warrenctl`
///     exclusive = ["directory"],                 // optional, see below
///     stores = ["directory"],
/// );
/// ```
///
/// The last lists name settings, so that `warrenctl config check`, `doctor` and the daemon can warn of two handlers that
/// are in each other's way. `exclusive`: two handlers of this plugin that agree in all of these replace or remove what the
/// other made. `clears`: directories in which old files are deleted, whosever they are. `stores`: directories in which the
/// handler keeps what it makes. Any of them can be left out, in this order.
///
/// The version is the package's. A manifest that cannot be right (a prefix with blanks round it, a
/// timeout that is no duration) does not compile, and neither does `panic = "abort"`: a panic could not be caught
/// then, and would cost the host.
#[macro_export]
macro_rules! export_plugin {
    ($handler:ty, prefixes = $($rest:tt)*) => {
        $crate::export_plugin!($handler, name = ::core::env!("CARGO_PKG_NAME"), prefixes = $($rest)*);
    };
    (
        $handler:ty, name = $name:expr, prefixes = [$($prefix:expr),* $(,)?]
        $(, timeout = $timeout:expr)? $(, settings = [$($key:expr),* $(,)?])?
        $(, exclusive = [$($exclusive:expr),* $(,)?])? $(, clears = [$($clears:expr),* $(,)?])?
        $(, stores = [$($stores:expr),* $(,)?])? $(,)?
    ) => {
        const _: () = {
            #[cfg(panic = "abort")]
            ::core::compile_error!(
                "a Warren plugin cannot be built with panic = \"abort\": a panic must stay inside the plugin. \
                 Remove `panic` from the profile in Cargo.toml"
            );

            const MANIFEST: $crate::note::Manifest<'static> = $crate::note::Manifest {
                name: $name,
                version: ::core::env!("CARGO_PKG_VERSION"),
                prefixes: &[$($prefix),*],
                timeout: $crate::export_plugin!(@timeout $($timeout)?),
                settings: &[$($($key),*)?],
                exclusive: &[$($($exclusive),*)?],
                clears: &[$($($clears),*)?],
                stores: &[$($($stores),*)?],
            };
            const LENGTH: usize = MANIFEST.json_length();

            #[used]
            #[unsafe(link_section = ".note.warren")]
            static NOTE: $crate::note::Note<{ LENGTH.next_multiple_of(4) }> =
                $crate::note::Note::new(&MANIFEST, LENGTH);

            impl $crate::note::Exported for $handler {
                const MANIFEST: $crate::note::Manifest<'static> = MANIFEST;
            }

            static PLUGIN: $crate::abi::Plugin = $crate::shim::vtable::<$handler>();

            #[unsafe(no_mangle)]
            extern "C" fn warren_plugin_v1() -> *const $crate::abi::Plugin {
                &raw const PLUGIN
            }
        };
    };
    (@timeout) => { ::core::option::Option::None };
    (@timeout $timeout:expr) => { ::core::option::Option::Some($timeout) };
}
