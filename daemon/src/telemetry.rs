//! Logs: journald's native protocol under systemd, human text on stderr otherwise.

use std::str::FromStr;

use tracing_subscriber::filter::LevelFilter;

/// Checks a `log.level`: a level, or a list such as `info,lapin=debug`.
///
/// # Errors
/// What is wrong with it, in words for an operator.
pub fn check_level(text: &str) -> Result<(), String> {
    for part in text.split(',') {
        let (module, level) = part.split_once('=').map_or((None, part), |(m, l)| (Some(m), l));
        if LevelFilter::from_str(level.trim()).is_err() || level.trim().parse::<usize>().is_ok() {
            return Err(format!("{level:?} is not a level"));
        }
        if module.is_some_and(|m| m.is_empty() || m.contains(|c: char| c.is_whitespace() || c.is_control())) {
            return Err(format!("{part:?} names no module"));
        }
    }
    Ok(())
}
