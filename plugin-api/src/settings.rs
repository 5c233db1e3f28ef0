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
