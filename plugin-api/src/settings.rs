//! The operator's settings: JSON from the host, parsed into the handler's type with an error that names the key.

use crate::{Failure, reject};
use serde::de::DeserializeOwned;

/// Parses settings; none at all are an empty table. The failure has the code `bad-settings`.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    let json = if json.is_empty() { &b"{}"[..] } else { json };
    serde_json::from_slice(json).map_err(|error| {
        let path = path_at(json, offset(json, error.line(), error.column()));
        let what = what(&error);
        let last = path.rsplit('.').next().unwrap_or_default().to_lowercase();
        reject(
            "bad-settings",
            match path.as_str() {
                "" => what,
                _ if SECRETS.iter().any(|word| last.contains(word)) => {
                    format!("settings.{path}: not the kind of value expected (not shown: it may be secret)")
                }
                _ => format!("settings.{path}: {what}"),
            },
        )
    })
}

/// Keys whose values must not be quoted in an error.
const SECRETS: [&str; 7] = ["password", "secret", "token", "key", "credential", "uri", "url"];

/// The error without its "at line 1 column 20", which means nothing to someone who wrote TOML.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// serde_json counts lines from 1, and columns in bytes; line 0 means that it does not know.
fn offset(json: &[u8], line: usize, column: usize) -> usize {
    let Some(before) = line.checked_sub(1) else { return 0 };
    json.split_inclusive(|byte| *byte == b'\n').take(before).map(<[u8]>::len).sum::<usize>() + column
}

/// The path of keys and indices that the parser had entered after reading `end` bytes of valid JSON, e.g.
/// `smtp.port` or `columns[2].name`. Empty at the top level.
fn path_at(json: &[u8], end: usize) -> String {
    let mut open: Vec<Step> = Vec::new();
    let mut rest = json.get(..end).unwrap_or(json).iter().enumerate();
    let mut expects_key = false;
    while let Some((at, byte)) = rest.next() {
        match byte {
            b'{' => {
                open.push(Step::Key(String::new()));
                expects_key = true;
            }
            b'[' => open.push(Step::Index(0)),
            b'}' | b']' => {
                open.pop();
                expects_key = false;
            }
            b':' => expects_key = false,
            b',' => match open.last_mut() {
                Some(Step::Index(index)) => *index += 1,
                _ => expects_key = true,
            },
            b'"' => {
                let mut last = at;
                while let Some((at, byte)) = rest.next() {
                    last = at;
                    match byte {
                        b'\\' => drop(rest.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
                if let (true, Some(Step::Key(key))) = (expects_key, open.last_mut()) {
                    *key = serde_json::from_slice(&json[at..=last]).unwrap_or_default();
                }
            }
            _ => {}
        }
    }
    open.iter().fold(String::new(), |path, step| match step {
        Step::Key(key) if path.is_empty() || key.is_empty() => path + key,
        Step::Key(key) => path + "." + key,
        Step::Index(index) => format!("{path}[{index}]"),
    })
}

/// One level of nesting, and where in it the parser is.
enum Step {
    Key(String),
    Index(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Settings {
        directory: String,
        #[serde(default)]
        keep: u32,
        smtp: Option<Smtp>,
        #[serde(default)]
        columns: Vec<Smtp>,
        #[serde(default)]
        environment: BTreeMap<String, String>,
        #[serde(default, with = "crate::duration")]
        timeout: std::time::Duration,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Smtp {
        port: u16,
        password: Option<String>,
    }

    fn error(json: &str) -> String {
        let failure = parse::<Settings>(json.as_bytes()).unwrap_err();
        assert_eq!((failure.code(), failure.is_reject()), ("bad-settings", true));
        failure.message().to_owned()
    }

    #[test]
    fn good_settings_parse_and_none_are_an_empty_table() {
        assert_eq!(parse::<Settings>(br#"{"directory":"/var","keep":3}"#).unwrap().keep, 3);
        assert!(parse::<crate::NoSettings>(b"").is_ok());
        assert!(parse::<crate::NoSettings>(b"{}").is_ok());
    }

    #[test]
    fn a_bad_value_is_named_by_its_key() {
        let table = [
            (r#"{"directory":7}"#, "settings.directory: invalid type: integer `7`, expected a string"),
            (
                r#"{"directory":"/","keep":"many"}"#,
                "settings.keep: invalid type: string \"many\", expected u32",
            ),
            (
                r#"{"directory":"/","keep":-1,"smtp":null}"#,
                "settings.keep: invalid value: integer `-1`, expected u32",
            ),
            (
                r#"{"directory":"/a,\"b","smtp":{"port":70000}}"#,
                "settings.smtp.port: invalid value: integer `70000`, expected u16",
            ),
            (
                r#"{"directory":"/","columns":[{"port":1},{"port":true}]}"#,
                "settings.columns[1].port: invalid type: boolean `true`, expected u16",
            ),
            (
                r#"{"directory":"/","environment":{"A:B":"x","C\u0041":[]}}"#,
                "settings.environment.CA: invalid type: sequence, expected a string",
            ),
        ];
        for (json, expected) in table {
            assert_eq!(error(json), expected, "{json}");
        }
    }

    #[test]
    fn a_missing_or_unknown_key_is_named() {
        assert_eq!(error("{}"), "missing field `directory`");
        assert!(
            error(r#"{"directory":"/","kep":3}"#)
                .contains("unknown field `kep`, expected one of `directory`")
        );
        assert_eq!(error(r#"{"directory":"/","smtp":{}}"#), "settings.smtp: missing field `port`");
    }

    #[test]
    fn a_bad_duration_is_named_by_its_key() {
        let error = error(r#"{"directory":"/","timeout":"5 parsecs"}"#);
        assert!(error.starts_with("settings.timeout: \"5 parsecs\" is not a duration"), "{error}");
    }

    #[test]
    fn a_secret_is_never_quoted() {
        let error = error(r#"{"directory":"/","smtp":{"port":1,"password":12345}}"#);
        assert!(error.starts_with("settings.smtp.password: ") && !error.contains("12345"), "{error}");
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for json in ["{", "[]", "7", "{\"directory\":", "\u{0}"] {
            assert!(parse::<Settings>(json.as_bytes()).is_err(), "{json:?}");
        }
    }

    #[test]
    fn places_in_any_text_are_found_without_panic() {
        let json = br#"{"a":{"b":[1,{"c":"}]\""},2]},"d" : true}"#;
        let paths: Vec<String> = (0..=json.len() + 2).map(|end| path_at(json, end)).collect();
        assert_eq!(paths[14], "a.b[1]");
        assert_eq!(paths[20], "a.b[1].c");
        assert_eq!(paths[27], "a.b[2]");
        assert_eq!(paths[json.len() - 1], "d");
        assert_eq!(paths[json.len()], "");
    }
}
