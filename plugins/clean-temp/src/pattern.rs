//! Patterns on file names: `*` stands for any run of characters, `?` for any one; everything else for itself.

/// A checked pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    /// Checks a pattern; the error says what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty and matches nothing: remove it, or write \"*\"".to_owned());
        }
        if text.contains('/') {
            return Err(format!("{text:?} has a /: a pattern is matched with the file's name, not its path"));
        }
        if text.contains(['[', ']', '{', '}', '\0']) {
            return Err(format!(
                "{text:?}: only * and ? are special here: write ? for any other such character"
            ));
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    /// Whether the whole name matches. Takes time of at most pattern × name.
    pub(crate) fn matches(&self, name: &[u8]) -> bool {
        let pattern = self.0.as_slice();
        let (mut p, mut n) = (0, 0);
        // Where the last star was, and up to where it reaches: the only place to go back to.
        let mut star: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, n));
                    p += 1;
                }
                Some(b'?') => {
                    p += 1;
                    n += character(&name[n..]);
                }
                Some(byte) if *byte == name[n] => {
                    p += 1;
                    n += 1;
                }
                _ => match &mut star {
                    Some((at, reach)) => {
                        *reach += 1;
                        (p, n) = (*at + 1, *reach);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }
}

/// Length in bytes of the UTF-8 character that begins here; a byte that begins none is one by itself.
fn character(bytes: &[u8]) -> usize {
    let length = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    bytes.get(..length).map_or(1, |bytes| if std::str::from_utf8(bytes).is_ok() { length } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_and_question_mark_match_the_whole_name() {
        for (pattern, name, matches) in [
            ("*", "anything", true),
            ("*", ".hidden", true),
            ("*.tmp", "a.tmp", true),
            ("*.tmp", ".tmp", true),
            ("*.tmp", "a.tmp.gz", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "x", true),
            ("?", "", false),
            ("?", "ü", true),
            ("??", "ü", false),
            ("session-??", "session-01", true),
            ("session-??", "session-001", false),
            ("core.*", "core.123", true),
            ("plain", "plain", true),
            ("plain", "plainer", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(
                Pattern::parse(pattern).expect(pattern).matches(name.as_bytes()),
                matches,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn names_need_not_be_utf8() {
        assert!(Pattern::parse("a?b").expect("fine").matches(b"a\xffb"));
        assert!(Pattern::parse("*b").expect("fine").matches(b"\xff\xc3b"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = Pattern::parse(&"*a".repeat(100)).expect("fine");
        assert!(!pattern.matches("a".repeat(99).as_bytes()));
        assert!(!pattern.matches(&[b"a".repeat(5_000), b"b".to_vec()].concat()));
    }

    #[test]
    fn patterns_that_would_surprise_are_refused() {
        for pattern in ["", "a/b", "[ab]", "*.{tmp,bak}"] {
            assert!(Pattern::parse(pattern).is_err(), "{pattern}");
        }
    }
}
