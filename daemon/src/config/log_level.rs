//! `log.level` → what passes.

use std::str::FromStr;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The target of lines about the life of tasks.
pub(crate) const TASK: &str = "task";
/// The target of what handlers log and print.
pub(crate) const HANDLER: &str = "handler";
/// The targets that a bare level is for.
const OWN: [&str; 3] = ["warren", TASK, HANDLER];

/// A parsed `log.level`.
pub(crate) struct LogFilter {
    pub(crate) targets: Targets,
    pub(crate) task: LevelFilter,
    pub(crate) handler: LevelFilter,
}

/// Checks a `log.level`: a level, or a list such as `info,lapin=debug`.
///
/// # Errors
/// What is wrong with it, in words for an operator.
pub fn check_level(text: &str) -> Result<(), String> {
    LogFilter::parse(text).map(drop)
}

impl LogFilter {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut own = LevelFilter::INFO;
        let mut named = Vec::new();
        for part in text.split(',').map(str::trim) {
            match part.split_once('=') {
                None => own = level(part)?,
                Some((module, _)) if module.is_empty() || module.contains(char::is_whitespace) => {
                    return Err(format!("{part:?} names no module"));
                }
                Some((module, text)) => named.push((module.to_owned(), level(text)?)),
            }
        }
        let targets = Targets::new()
            .with_default(own.min(LevelFilter::WARN))
            // What it reports as an error reaches the broker's supervisor as well, which says what becomes of it.
            .with_target("lapin", LevelFilter::OFF)
            .with_targets(OWN.map(|target| (target, own)))
            .with_targets(named);
        let highest = |target| {
            let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
            levels.into_iter().find(|l| targets.would_enable(target, l)).map_or(LevelFilter::OFF, Into::into)
        };
        Ok(Self { task: highest(TASK), handler: highest(HANDLER), targets })
    }
}

fn level(text: &str) -> Result<LevelFilter, String> {
    // `LevelFilter` takes numbers and the empty text too, which nobody means.
    let named = text.chars().all(|c| c.is_ascii_alphabetic()) && !text.is_empty();
    LevelFilter::from_str(text).ok().filter(|_| named).ok_or_else(|| format!("{text:?} is not a level"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_for_warren_and_libraries_stay_at_warn() {
        let table = [
            ("info", "warren::daemon", Level::INFO, true),
            ("info", "warrend", Level::DEBUG, false),
            ("debug", "task", Level::DEBUG, true),
            ("debug", "lapin::channel", Level::ERROR, false),
            ("debug", "hyper", Level::INFO, false),
            ("debug", "hyper", Level::WARN, true),
            ("error", "hyper", Level::WARN, false),
            ("info,lapin=debug", "lapin::channel", Level::DEBUG, true),
            ("info,task=warn", "task", Level::INFO, false),
            ("info, task=warn", "handler", Level::INFO, true),
            ("off", "warren", Level::ERROR, false),
        ];
        for (text, target, level, passes) in table {
            let filter = LogFilter::parse(text).expect(text);
            assert_eq!(filter.targets.would_enable(target, &level), passes, "{text} {target} {level}");
        }
        let filter = LogFilter::parse("info,task=off,handler=trace").expect("good");
        assert_eq!((filter.task, filter.handler), (LevelFilter::OFF, LevelFilter::TRACE));
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for text in ["", "loud", "info,", "3", "lapin", "=info", "lapin=", "a b=info", "lapin=debug=info"] {
            assert!(check_level(text).is_err(), "{text:?}");
        }
    }
}
