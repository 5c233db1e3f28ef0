//! The command's environment: a stated base, the settings' `env`, and the task's fields. Nothing else of the
//! host's environment reaches the command.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::template::Fields;

/// What the command inherits from the host, where the host has it.
const BASE: [&str; 9] = ["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];

/// `PATH` when the host has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Every variable of a task begins with this.
const TASK: &str = "WARREN_TASK_";

/// Longest value of a task's field in the environment, in bytes. The kernel takes 128 KiB per string, and a longer
/// one would make the command impossible to start although it may not even look at the variable.
const MAX_VALUE: usize = 32 * 1024;

/// Most that a task's headers may take in the environment together, in bytes; same reason.
const MAX_HEADERS: usize = 64 * 1024;

/// The variables that are the same for every task: the base and the settings' own.
pub(crate) fn base(
    host: impl Iterator<Item = (OsString, OsString)>,
    own: &BTreeMap<String, String>,
) -> Result<BTreeMap<OsString, OsString>, String> {
    let inherited =
        |name: &OsString| name.to_str().is_some_and(|name| BASE.contains(&name) || name.starts_with("LC_"));
    let mut variables: BTreeMap<_, _> = host.filter(|(name, _)| inherited(name)).collect();
    variables.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    for (name, value) in own {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("env: {name:?} cannot be a variable's name: use letters, digits and _"));
        }
        if name.starts_with(TASK) {
            return Err(format!("env: {name} would hide a field of the task: choose a name without {TASK}"));
        }
        if value.contains('\0') {
            return Err(format!("env: the value of {name} has a NUL byte: remove it"));
        }
        variables.insert(name.into(), value.into());
    }
    Ok(variables)
}

/// The task's fields as variables. A value that cannot be passed (a NUL byte, or too long) is left out.
pub(crate) fn of_task(fields: &Fields<'_>) -> Vec<(String, String)> {
    let mut variables = vec![
        (format!("{TASK}ID"), fields.id.to_owned()),
        (format!("{TASK}ATTEMPT"), fields.attempt.to_string()),
        (format!("{TASK}REDELIVERED"), u8::from(fields.redelivered).to_string()),
        (format!("{TASK}QUEUE"), fields.queue.to_owned()),
        (format!("{TASK}PREFIX"), fields.prefix.to_owned()),
        (format!("{TASK}ARGUMENT"), fields.argument.to_owned()),
        (format!("{TASK}CONTENT_TYPE"), fields.content_type.to_owned()),
    ];
    let mut room = MAX_HEADERS;
    for (name, value) in fields.headers {
        let size = name.len() + value.len();
        if size <= room {
            room -= size;
            variables.push((format!("{TASK}HEADER_{}", variable_name(name)), (*value).to_owned()));
        }
    }
    variables.retain(|(_, value)| value.len() <= MAX_VALUE && !value.contains('\0'));
    variables
}

/// `x-trace-id` becomes `X_TRACE_ID`.
fn variable_name(header: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    header.chars().map(upper).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn own(name: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn only_the_base_and_the_settings_own_variables_are_passed() {
        let host = host(&[
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("NOTIFY_SOCKET", "/n"),
        ]);
        let variables = base(host.into_iter(), &own("MODE", "fast")).expect("good names");
        let names: Vec<_> = variables.keys().filter_map(|name| name.to_str()).collect();
        assert_eq!(names, ["LC_ALL", "MODE", "PATH"]);
    }

    #[test]
    fn settings_override_the_base_and_a_path_is_always_there() {
        let path = |host: &[(&str, &str)], own: &BTreeMap<_, _>| {
            base(self::host(host).into_iter(), own).expect("good names").remove(&OsString::from("PATH"))
        };
        assert_eq!(path(&[("PATH", "/bin")], &own("PATH", "/opt/bin")), Some("/opt/bin".into()));
        assert_eq!(path(&[], &BTreeMap::new()), Some(DEFAULT_PATH.into()));
    }

    #[test]
    fn names_that_cannot_be_or_would_hide_a_field_are_refused() {
        for (name, value, part) in [
            ("", "x", "cannot be a variable's name"),
            ("A=B", "x", "cannot be a variable's name"),
            ("WARREN_TASK_ID", "x", "would hide a field of the task"),
            ("A", "x\0y", "NUL byte"),
        ] {
            let error = base(std::iter::empty(), &own(name, value)).expect_err(name);
            assert!(error.starts_with("env: ") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_task_is_passed_as_variables_and_what_cannot_be_passed_is_left_out() {
        let long = "x".repeat(MAX_VALUE + 1);
        let fields = Fields {
            id: "t-1",
            attempt: 3,
            redelivered: true,
            argument: &long,
            headers: &[("x-trace.id", "abc"), ("nul", "a\0b")],
            ..Fields::default()
        };
        let variables: BTreeMap<_, _> = of_task(&fields).into_iter().collect();
        let value = |name: &str| variables.get(name).map(String::as_str);
        assert_eq!(value("WARREN_TASK_ID"), Some("t-1"));
        assert_eq!(value("WARREN_TASK_ATTEMPT"), Some("3"));
        assert_eq!(value("WARREN_TASK_REDELIVERED"), Some("1"));
        assert_eq!(value("WARREN_TASK_HEADER_X_TRACE_ID"), Some("abc"));
        assert_eq!(value("WARREN_TASK_ARGUMENT"), None);
        assert_eq!(value("WARREN_TASK_HEADER_NUL"), None);
    }

    #[test]
    fn headers_together_are_bounded() {
        let value = "x".repeat(30 * 1024);
        let headers = [("a", value.as_str()), ("b", &value), ("c", &value), ("d", "small")];
        let fields = Fields { headers: &headers, ..Fields::default() };
        let names: Vec<_> = of_task(&fields)
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.contains("HEADER"))
            .collect();
        assert_eq!(names, ["WARREN_TASK_HEADER_A", "WARREN_TASK_HEADER_B", "WARREN_TASK_HEADER_D"]);
    }
}
