//! Delays that no delay queue has: in hops from one queue to the next. Pure.
//!
//! A message that is not due when its first wait is over says in a header when it is. It comes back to its work queue
//! all the same, because a delay queue leads nowhere else, and the daemon sends it on: the next wait is the longest
//! that is not too long, and the last one the shortest there is, so that a task is never early and at most
//! [`RESOLUTION`] late, however long it waits. A delay for which there is a queue needs no header and no daemon.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, ShortString};

use super::copy::{UnixMs, milliseconds, milliseconds_value};
use super::topology;
use crate::task::header;

/// When a task is due, in milliseconds since 1970. Any producer may set it on a task for a queue that Warren consumes.
pub const HEADER_DUE: &str = "x-warren-due";

/// A task is at most this late on account of its waits: what the last one may be too long by.
pub const RESOLUTION: Duration = topology::SHORTEST;

/// How long a task must still be kept from its handler.
pub fn time_left(properties: &BasicProperties, now: UnixMs) -> Option<Duration> {
    due(properties)?.since(now).filter(|left| !left.is_zero())
}

/// Keeps a message back until it is due: its properties, and how long it waits first. Zero: it is due.
pub fn put_off(properties: BasicProperties, due: UnixMs, now: UnixMs) -> (BasicProperties, Duration) {
    let Some(left) = due.since(now).filter(|left| !left.is_zero()) else {
        return (properties, Duration::ZERO);
    };
    let first = topology::hop(left);
    if first >= left {
        return (properties, first);
    }
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(ShortString::from(HEADER_DUE), milliseconds_value(due));
    (properties.with_headers(headers), first)
}

/// The header that a copy of a task which is not due yet carries on.
pub(super) fn carried_on(original: &BasicProperties, now: UnixMs) -> Option<AMQPValue> {
    time_left(original, now).and_then(|_| due(original)).map(milliseconds_value)
}

fn due(properties: &BasicProperties) -> Option<UnixMs> {
    header(properties, HEADER_DUE).and_then(milliseconds)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_000);

    /// The waits of a message, when each takes `late` longer than its queue's name says, and how late it is at the end.
    fn waits(delay: Duration, late: Duration) -> (Vec<u128>, Duration) {
        let due = NOW.plus(delay);
        let (mut properties, mut wait) = put_off(BasicProperties::default(), due, NOW);
        let (mut now, mut waits) = (NOW, Vec::new());
        while !wait.is_zero() {
            waits.push(wait.as_millis());
            now = now.plus(wait + late);
            // What the daemon does with it.
            let left = time_left(&properties, now);
            (properties, wait) = left.map_or((properties.clone(), Duration::ZERO), |left| {
                put_off(properties.clone(), now.plus(left), now)
            });
        }
        (waits, now.since(due).expect("never early"))
    }

    #[test]
    fn a_delay_is_the_largest_waits_that_fit_and_one_of_the_shortest() {
        let day = 86_400_000;
        let table: [(u64, &[u128]); 10] = [
            (0, &[]),
            (1, &[250]),
            (250, &[250]),
            (251, &[250, 250]),
            (750, &[500, 250]),
            (1_000, &[1_000]),
            (90 * 60_000, &[3_600_000, 1_800_000]),
            (59_900, &[30_000, 20_000, 8_000, 1_000, 500, 250, 250]),
            (day, &[86_400_000]),
            (
                7 * day + 1,
                &[86_400_000, 86_400_000, 86_400_000, 86_400_000, 86_400_000, 86_400_000, 86_400_000, 250],
            ),
        ];
        for (delay, expected) in table {
            assert_eq!(waits(Duration::from_millis(delay), Duration::ZERO).0, expected, "{delay} ms");
        }
    }

    #[test]
    fn only_a_message_with_more_than_one_wait_says_when_it_is_due() {
        for (delay, marked) in [(0, false), (200, false), (5_000, false), (5_001, true), (86_400_001, true)] {
            let due = NOW.plus(Duration::from_millis(delay));
            let (properties, _) = put_off(BasicProperties::default(), due, NOW);
            assert_eq!(properties.headers().is_some(), marked, "{delay} ms");
            assert!(!marked || time_left(&properties, NOW) == due.since(NOW));
        }
    }

    #[test]
    fn what_is_no_time_to_come_holds_nothing_back() {
        let with = |value| {
            let mut headers = lapin::types::FieldTable::default();
            headers.insert(HEADER_DUE.into(), value);
            BasicProperties::default().with_headers(headers)
        };
        let number = |ms: u64| AMQPValue::LongLongInt(ms.cast_signed());
        for value in
            [number(NOW.0), number(0), AMQPValue::LongLongInt(-1), AMQPValue::LongString("later".into())]
        {
            assert_eq!(time_left(&with(value), NOW), None);
        }
        assert_eq!(time_left(&BasicProperties::default(), NOW), None);
        assert_eq!(time_left(&with(number(NOW.0 + 1)), NOW), Some(Duration::from_millis(1)));
    }

    proptest! {
        #[test]
        fn a_task_is_never_early_and_late_by_less_than_the_resolution_and_one_hop(
            delay in 0..40 * 86_400_000_u64,
            late in 0..100_u64,
        ) {
            let (waits, late_by) = waits(Duration::from_millis(delay), Duration::from_millis(late));
            prop_assert!(late_by < RESOLUTION + Duration::from_millis(late), "late by {late_by:?}: {waits:?}");
            let days = usize::try_from(delay / 86_400_000).expect("few");
            prop_assert!(waits.len() <= days + 24, "{waits:?}");
        }
    }
}
