//! The plugins directories and the plugins in them: there, whole, nobody else's, and enough for the handlers.

use warren::plugin::{WantedHandler, route_entries};
use warren::router::Router;

use super::super::facts::{FileFact, PluginDirectories, PluginFact, Who};
use super::super::finding::{Area, Finding, Severity};

pub(super) fn check(plugin_dirs: &PluginDirectories, handlers: &[WantedHandler], who: &Who) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        plugin_dirs.directories.iter().filter_map(|file| directory(file, who)).collect();
    if let Some(fault) = &plugin_dirs.fault {
        findings.push(error("plugins", fault.clone(), ""));
        return findings;
    }
    let bad = findings.len();
    findings.extend(plugin_dirs.plugins.iter().filter_map(|plugin| file(plugin, who)));
    let good = plugin_dirs.plugins.len() - (findings.len() - bad);
    if plugin_dirs.plugins.is_empty() {
        let what = "there is no plugin: every task would be dead-lettered as unroutable";
        let remedy = "put plugins into one of the directories of `plugins.dir`";
        findings.push(Finding::new(Severity::Warning, Area::Plugins, places(plugin_dirs), what, remedy));
    } else if good > 0 {
        findings.push(Finding::ok(
            Area::Plugins,
            places(plugin_dirs),
            format!("{good} plugins can be loaded"),
        ));
    }
    findings.extend(handlers.iter().filter_map(handler));
    let (_, conflicts) = Router::build(route_entries(handlers));
    for conflict in conflicts {
        let message = conflict.message(|index| &*handlers[index].name);
        let remedy = "give one of them other `prefixes`, or narrow it with `queues`";
        findings.push(error(&handlers[conflict.handler].name, message, remedy));
    }
    findings
}

fn directory(file: &FileFact, who: &Who) -> Option<Finding> {
    let path = file.path.display().to_string();
    let stat = match &file.stat {
        Ok(stat) => *stat,
        Err(why) => {
            return Some(error(&path, why.clone(), "create it, mount it, or correct `plugins.dir`"));
        }
    };
    let mode = stat.octal();
    let warn = |what: String, remedy: String| {
        Some(Finding::new(Severity::Warning, Area::Plugins, &path, what, remedy))
    };
    if stat.mode & 0o1002 == 0o002 {
        let what = format!("everyone may replace plugins in it (mode {mode}): warrend loads none of them");
        return Some(error(&path, what, &format!("chmod o-w {path}")));
    }
    if !stat.allows(who, 5) {
        let what = format!("warrend's user {} may not list it (mode {mode})", who.name);
        return Some(error(&path, what, &format!("chmod a+rx {path}")));
    }
    if stat.user != 0 && stat.user != who.user {
        let what = format!("it belongs to user id {}, who can put plugins there", stat.user);
        return warn(what, format!("chown root {path}"));
    }
    if stat.mode & 0o002 != 0 || (stat.mode & 0o020 != 0 && stat.group != 0) {
        let what = format!("others than its owner may put plugins there (mode {mode})");
        return warn(what, format!("chmod go-w {path}"));
    }
    None
}

fn file(plugin: &PluginFact, who: &Who) -> Option<Finding> {
    let path = plugin.file.path.display().to_string();
    match (&plugin.manifest, &plugin.file.stat) {
        // It is whoever asks that would not load it; warrend would.
        (Err(refusal), _) if refusal.owner.is_some_and(|owner| owner == who.user) => None,
        (Err(refusal), _) => Some(error(&path, refusal.why.clone(), "")),
        (Ok(_), Ok(stat)) if !stat.allows(who, 4) => {
            let what = format!("warrend's user {} may not read it (mode {})", who.name, stat.octal());
            Some(error(&path, what, &format!("chmod a+r {path}")))
        }
        _ => None,
    }
}

/// What follows when nothing tells the prefixes of a handler.
const UNKNOWN: &str = ", and no prefixes are stated: where its file does not tell them, tasks that no handler takes are \
                       parked";

fn handler(handler: &WantedHandler) -> Option<Finding> {
    match &handler.origin {
        Some(origin) if handler.is_missing => Some(error(
            &format!("handlers.{}", handler.name),
            format!(
                "{origin}: there is no plugin `{}` that can be loaded{}",
                handler.plugin,
                if handler.prefixes.is_empty() { UNKNOWN } else { "" }
            ),
            "put its .so into the plugins directory, mend that, or correct the name; and state `prefixes`",
        )),
        Some(origin) if handler.prefixes.is_empty() => Some(Finding::new(
            Severity::Warning,
            Area::Plugins,
            format!("handlers.{}", handler.name),
            format!("{origin}: neither the table nor the plugin has prefixes: no task ever comes to it"),
            "state `prefixes`",
        )),
        None if handler.prefixes.is_empty() => Some(Finding::new(
            Severity::Note,
            Area::Plugins,
            &handler.plugin,
            "it is not used: no [handlers.*] table names it, and it has no prefixes of its own",
            "",
        )),
        _ => None,
    }
}

fn error(place: &str, what: String, remedy: &str) -> Finding {
    Finding::new(Severity::Error, Area::Plugins, place, what, remedy)
}

fn places(plugin_dirs: &PluginDirectories) -> String {
    let names: Vec<String> =
        plugin_dirs.directories.iter().map(|file| file.path.display().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use warren::config::Limits;
    use warren::plugin::{Manifest, Targets};

    use super::super::super::facts::{PluginRefusal, Stat};
    use super::*;

    fn warren() -> Who {
        Who { name: "warren".into(), user: 7, groups: vec![7] }
    }

    fn stat(mode: u32, user: u32) -> FileFact {
        FileFact { path: "/p".into(), stat: Ok(Stat { mode, user, group: 7 }) }
    }

    fn found(findings: &[Finding]) -> Vec<(Severity, &str)> {
        findings.iter().map(|finding| (finding.severity, &*finding.what)).collect()
    }

    #[test]
    fn a_directory_where_others_put_code_is_found() {
        let table = [
            (0o755, 0, None),
            (0o755, 7, None),
            (0o775, 0, Some((Severity::Warning, "others than its owner"))),
            (0o1777, 0, Some((Severity::Warning, "others than its owner"))),
            (0o777, 0, Some((Severity::Error, "loads none of them"))),
            (0o700, 0, Some((Severity::Error, "may not list it"))),
            (0o755, 9, Some((Severity::Warning, "user id 9"))),
        ];
        for (mode, user, expected) in table {
            let finding = directory(&stat(mode, user), &warren());
            let seen = finding.as_ref().map(|finding| (finding.severity, finding.what.as_str()));
            match (seen, expected) {
                (None, None) => {}
                (Some((severity, what)), Some((wanted, part))) => {
                    assert!(severity == wanted && what.contains(part), "{mode:o}: {what}");
                }
                other => panic!("{mode:o} {user}: {other:?}"),
            }
        }
        let gone = FileFact { path: "/p".into(), stat: Err("cannot look at it: no such file".into()) };
        assert_eq!(directory(&gone, &warren()).map(|finding| finding.severity), Some(Severity::Error));
    }

    fn manifest(name: &str, prefixes: &[&str]) -> Manifest {
        Manifest {
            name: name.into(),
            version: "1".into(),
            abi_major: 1,
            abi_minor: 0,
            prefixes: prefixes.iter().map(|&prefix| prefix.into()).collect(),
            timeout: None,
            settings: Vec::new(),
            targets: Targets::default(),
        }
    }

    fn rostered(name: &str, plugin: &str, is_missing: bool, prefixes: &[&str]) -> WantedHandler {
        WantedHandler {
            name: name.into(),
            plugin: plugin.into(),
            origin: Some("warren.toml:9".into()),
            is_missing,
            prefixes: prefixes.iter().map(|&prefix| prefix.into()).collect(),
            queues: None,
            settings_json: "{}".into(),
            limits: Limits::default(),
            timeout: Limits::DEFAULT_TIMEOUT,
        }
    }

    #[test]
    fn files_that_are_no_plugins_and_handlers_without_one_are_found() {
        let refusal = |owner| PluginRefusal { why: "it is broken".into(), owner };
        let plugin = |mode, manifest| PluginFact { file: stat(mode, 0), manifest };
        let plugin_dirs = PluginDirectories {
            directories: vec![stat(0o755, 0)],
            fault: None,
            plugins: vec![
                plugin(0o644, Ok(manifest("good", &["Do good"]))),
                plugin(0o600, Ok(manifest("hidden", &[]))),
                plugin(0o644, Err(refusal(None))),
                plugin(0o644, Err(refusal(Some(7)))),
                plugin(0o644, Err(refusal(Some(9)))),
            ],
        };
        let handlers = [
            rostered("a", "good", false, &["Same"]),
            rostered("b", "good", false, &["Same"]),
            rostered("c", "gone", true, &[]),
        ];
        let findings = check(&plugin_dirs, &handlers, &warren());
        let seen = found(&findings);
        for (severity, part, times) in [
            (Severity::Error, "warren may not read it", 1),
            (Severity::Error, "it is broken", 2),
            (Severity::Ok, "2 plugins can be loaded", 1),
            (Severity::Error, "there is no plugin `gone`", 1),
            (Severity::Error, "Same", 2),
        ] {
            let count = seen.iter().filter(|(is, what)| *is == severity && what.contains(part)).count();
            assert_eq!(count, times, "{part}: {seen:?}");
        }
    }
}
