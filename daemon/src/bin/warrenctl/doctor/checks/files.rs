//! The files of the configuration: the daemon can read them, nobody else can change them, and secrets are nobody else's.

use super::super::facts::{FileFact, Role, Stat, Who};
use super::super::finding::{Area, Finding, Severity};

pub(super) fn check(files: &[(Role, FileFact)], who: &Who) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (role, file) in files {
        let before = findings.len();
        // One that cannot be looked at is an error of the configuration, and stands there.
        if let Ok(stat) = &file.stat {
            findings.extend(one(*role, file, *stat, who));
        }
        if findings.len() == before && file.stat.is_ok() {
            findings.push(Finding::ok(
                Area::Files,
                file.path.display().to_string(),
                "owner and mode are fine",
            ));
        }
    }
    findings
}

fn one(role: Role, file: &FileFact, stat: Stat, who: &Who) -> Vec<Finding> {
    let path = file.path.display().to_string();
    let mut findings = Vec::new();
    let mut find = |severity, what: String, remedy: String| {
        findings.push(Finding::new(severity, Area::Files, &path, what, remedy));
    };
    if !stat.allows(who, 4) {
        let what = format!("warrend's user {} may not read it (mode {})", who.name, stat.octal());
        find(Severity::Error, what, format!("chgrp {} {path} && chmod g+r {path}", who.name));
    }
    if stat.mode & 0o002 != 0 {
        let what = format!("everyone may change it (mode {})", stat.octal());
        find(Severity::Error, what, format!("chmod o-w {path}"));
    } else if stat.mode & 0o020 != 0 && stat.group != 0 {
        let what = format!("its group may change it, and with it what warrend runs (mode {})", stat.octal());
        find(Severity::Warning, what, format!("chmod g-w {path}"));
    }
    if stat.user != 0 && stat.user != who.user {
        let what =
            format!("it belongs to user id {}, who can change it and with it what warrend runs", stat.user);
        find(Severity::Warning, what, format!("chown root {path}"));
    }
    let secret = match role {
        Role::Config { has_secret: false } => None,
        Role::Config { has_secret: true } => Some("what looks like a password"),
        Role::Uris => Some("the broker's URI"),
        Role::Key => Some("the private key"),
    };
    if let Some(secret) = secret
        && stat.mode & 0o004 != 0
    {
        let what = format!("everyone may read {secret} in it (mode {})", stat.octal());
        find(Severity::Warning, what, format!("chmod o-r {path}, or LoadCredential= in the unit"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_nobody_else_s_and_what_is_run_is_root_s() {
        let who = Who { name: "warren".into(), user: 7, groups: vec![7] };
        let (plain, secret) = (Role::Config { has_secret: false }, Role::Config { has_secret: true });
        let ok = (Severity::Ok, "fine");
        let table = [
            (plain, 0o644, 0, 0, vec![ok]),
            (secret, 0o640, 0, 7, vec![ok]),
            (secret, 0o644, 0, 0, vec![(Severity::Warning, "everyone may read what looks like a password")]),
            (Role::Uris, 0o644, 7, 7, vec![(Severity::Warning, "everyone may read the broker's URI")]),
            (Role::Key, 0o600, 7, 7, vec![ok]),
            (plain, 0o600, 0, 0, vec![(Severity::Error, "user warren may not read it")]),
            (plain, 0o666, 0, 0, vec![(Severity::Error, "everyone may change it")]),
            (plain, 0o664, 0, 7, vec![(Severity::Warning, "its group may change it")]),
            (plain, 0o664, 0, 0, vec![ok]),
            (plain, 0o644, 9, 0, vec![(Severity::Warning, "belongs to user id 9")]),
        ];
        for (role, mode, user, group, expected) in table {
            let file = FileFact { path: "/f".into(), stat: Ok(Stat { mode, user, group }) };
            let findings = check(&[(role, file)], &who);
            assert_eq!(findings.len(), expected.len(), "{role:?} {mode:o}: {findings:?}");
            for (finding, (severity, part)) in findings.iter().zip(expected) {
                assert_eq!(finding.severity, severity, "{finding:?}");
                assert!(finding.what.contains(part), "{finding:?}");
            }
        }
    }
}
