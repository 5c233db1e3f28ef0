//! Which statuses are tried again and which reject the task: the table, and what the operator's settings change of it.

use serde::Deserialize;
use std::ops::RangeInclusive;

/// An operator's entry: `404`, `"404"`, `"4xx"` or `"500-503"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    Status(u16),
    Text(String),
}

/// What becomes of a task whose request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Retry,
    Reject,
}

/// The operator's entries, single statuses before ranges: the narrowest decides.
#[derive(Debug, Clone, Default)]
pub(crate) struct Classes(Vec<(RangeInclusive<u16>, Class)>);

impl Classes {
    /// Reads both lists; the errors are all there are, each with its key.
    pub(crate) fn new(retry_on: &[Entry], reject_on: &[Entry], errors: &mut Vec<String>) -> Self {
        let mut entries: Vec<(RangeInclusive<u16>, Class)> = Vec::new();
        for (key, list, class) in
            [("retry_on", retry_on, Class::Retry), ("reject_on", reject_on, Class::Reject)]
        {
            for (index, entry) in list.iter().enumerate() {
                match range(entry) {
                    Some(range) if entries.iter().any(|(other, of)| *other == range && *of != class) => {
                        errors.push(format!(
                            "{key}[{index}]: {} stands in retry_on as well: remove one of them",
                            shown(entry)
                        ));
                    }
                    Some(range) => entries.push((range, class)),
                    None => errors.push(format!(
                        "{key}[{index}]: {} is no status that refuses: write 404, \"4xx\" or \"500-503\", from 300 on",
                        shown(entry)
                    )),
                }
            }
        }
        entries.sort_by_key(|(range, _)| range.end() - range.start());
        Self(entries)
    }

    pub(crate) fn of(&self, status: u16) -> Class {
        let own = self.0.iter().find(|(range, _)| range.contains(&status));
        own.map_or_else(|| usual(status), |(_, class)| *class)
    }
}

/// Where a status says something of the address, the login or the server, an operator can correct it, and every task fares
/// the same until then: retry, so that an expired token does not turn a queue into dead letters. Where it says something
/// of what was sent, the task will never do: reject.
fn usual(status: u16) -> Class {
    match status {
        // The address has moved, or is that of a page for people: `url` is to be corrected.
        300..=399
        // The login, the account, the rights, the proxy's login.
        | 401..=403 | 407
        // The address, the method and the formats: the same for every task of this handler.
        | 404..=406 | 415 | 426
        // For now only: too slow, misdirected, locked, depends on something else, too early, too often.
        | 408 | 421 | 423..=425 | 429
        | 500..=599 => Class::Retry,
        // The rest is about this request: malformed, done already, too large; or "gone", which a receiver says on purpose.
        _ => Class::Reject,
    }
}

fn range(entry: &Entry) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| text.trim().parse::<u16>().ok();
    let range = match entry {
        Entry::Status(status) => *status..=*status,
        Entry::Text(text) => match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(hundreds), _) => {
                let hundreds = status(hundreds).filter(|hundreds| *hundreds < 10)?;
                hundreds * 100..=hundreds * 100 + 99
            }
            (_, Some((from, to))) => status(from)?..=status(to)?,
            _ => status(text)?..=status(text)?,
        },
    };
    (!range.is_empty() && *range.start() >= 300 && *range.end() <= 999).then_some(range)
}

fn shown(entry: &Entry) -> String {
    match entry {
        Entry::Status(status) => status.to_string(),
        Entry::Text(text) => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_settings_what_an_operator_can_correct_is_tried_again() {
        let classes = Classes::default();
        let retried: Vec<u16> = (300..1000).filter(|status| classes.of(*status) == Class::Retry).collect();
        let mut expected: Vec<u16> = (300..400).collect();
        expected.extend([401, 402, 403, 404, 405, 406, 407, 408, 415, 421, 423, 424, 425, 426, 429]);
        expected.extend(500..600);
        assert_eq!(retried, expected);
        for rejected in [400, 409, 410, 411, 412, 413, 414, 416, 417, 418, 422, 428, 431, 451, 600] {
            assert_eq!(classes.of(rejected), Class::Reject, "{rejected}");
        }
    }

    fn classes(retry_on: &str, reject_on: &str) -> Result<Classes, Vec<String>> {
        let list = |json: &str| serde_json::from_str::<Vec<Entry>>(json).expect("entries");
        let mut errors = Vec::new();
        let classes = Classes::new(&list(retry_on), &list(reject_on), &mut errors);
        if errors.is_empty() { Ok(classes) } else { Err(errors) }
    }

    #[test]
    fn the_operators_narrowest_entry_decides() {
        let classes =
            classes(r#"["410", 409, "4xx"]"#, r#"[404, "500-503", "5xx", "401-404"]"#).expect("good");
        for (status, class) in [
            (404, Class::Reject),
            (401, Class::Reject),
            (400, Class::Retry),
            (409, Class::Retry),
            (410, Class::Retry),
            (451, Class::Retry),
            (503, Class::Reject),
            (599, Class::Reject),
            (302, Class::Retry),
        ] {
            assert_eq!(classes.of(status), class, "{status}");
        }
    }

    #[test]
    fn entries_that_cannot_be_meant_are_refused_by_key_and_place() {
        for (retry_on, reject_on, expected) in [
            ("[200]", "[]", "retry_on[0]: 200 is no status that refuses"),
            ("[]", r#"[404, "2xx"]"#, "reject_on[1]: \"2xx\""),
            ("[]", r#"["503-500"]"#, "reject_on[0]: \"503-500\""),
            (r#"["4x"]"#, "[]", "retry_on[0]: \"4x\""),
            (r#"["all"]"#, "[]", "retry_on[0]: \"all\""),
            (r#"["299-300"]"#, "[]", "retry_on[0]"),
            ("[1000]", "[]", "retry_on[0]: 1000"),
            (r#"["404"]"#, "[404]", "reject_on[0]: 404 stands in retry_on as well"),
        ] {
            let errors = classes(retry_on, reject_on).expect_err(expected);
            assert!(errors.len() == 1 && errors[0].starts_with(expected), "{expected}: {errors:?}");
        }
    }
}
