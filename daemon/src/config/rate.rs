//! `rate` and `burst` of `[handlers.NAME]`: how many tasks of a handler may start in a time.

use std::time::Duration;

use super::Rate;
use super::reader::TableReader;

/// What a rate may look like, for messages.
const FORMS: &str = r#"a whole number from 1 and a unit of time, such as "10/s", "300/m" or "1000/h""#;
const UNITS: [(&str, u32); 3] = [("s", 1), ("m", 60), ("h", 3600)];
/// More than one daemon starts in a second.
const MAX_PER_SECOND: u32 = 100_000;

pub(super) fn read(table: &mut TableReader) -> Option<Rate> {
    let burst = table.integer::<u32>("burst", 1..=1_000_000);
    let Some((text, node)) = table.text("rate", &format!("a rate as text: {FORMS}")) else {
        if let (Some(_), Some(node), None) = (burst, table.node("burst"), table.node("rate")) {
            table.error(
                &node.place,
                "burst",
                "means nothing without a rate",
                "state rate as well, or leave burst out",
            );
        }
        return None;
    };
    let Some((tasks, unit)) = parse(text) else {
        table.error(&node.place, "rate", format!("{text:?} is not a rate"), format!("write {FORMS}"));
        return None;
    };
    if tasks > MAX_PER_SECOND.saturating_mul(unit) {
        table.error(&node.place, "rate", format!("{text:?} is out of range"), "write at most \"100000/s\"");
        return None;
    }
    Some(Rate { tasks, unit: Duration::from_secs(unit.into()), burst: burst.unwrap_or(1) })
}

fn parse(text: &str) -> Option<(u32, u32)> {
    let (number, unit) = text.split_once('/')?;
    let number = number.trim();
    let tasks = number.parse().ok().filter(|n| *n > 0 && number.bytes().all(|b| b.is_ascii_digit()))?;
    let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit.trim())?;
    Some((tasks, unit))
}

impl std::fmt::Display for Rate {
    /// As it is written in a configuration.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unit = UNITS.into_iter().find(|(_, seconds)| self.unit == Duration::from_secs((*seconds).into()));
        write!(f, "{}/{}", self.tasks, unit.map_or("s", |(name, _)| name))
    }
}
