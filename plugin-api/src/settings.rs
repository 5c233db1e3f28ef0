//! The operator's settings: JSON from the host, parsed into the handler's type with an error that names the key.

use crate::{Failure, reject};
use serde::de::DeserializeOwned;

/// Parses settings; none at all are an empty table. The failure has the code `bad-settings`.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Failure> {
    let json = if json.is_empty() { &b"{}"[..] } else { json };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let settings = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        (path, error.into_inner())
    });
    let whole = settings
        .and_then(|settings| deserializer.end().map(|()| settings).map_err(|error| (String::new(), error)));
    whole.map_err(|(path, error)| reject("bad-settings", described(&path, &error)))
}

fn described(path: &str, error: &serde_json::Error) -> String {
    let last = path.rsplit('.').next().unwrap_or_default().to_lowercase();
    match path {
        "" | "." => what(error),
        _ if SECRETS.iter().any(|word| last.contains(word)) => {
            format!("settings.{path}: not the kind of value expected (not shown: it may be secret)")
        }
        _ => format!("settings.{path}: {}", what(error)),
    }
}

/// Keys whose values must not be quoted in an error.
const SECRETS: [&str; 7] = ["password", "secret", "token", "key", "credential", "uri", "url"];

/// The error without its "at line 1 column 20", which means nothing to someone who wrote TOML.
fn what(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
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
}
