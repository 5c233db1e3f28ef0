//! Delays: what a copy that waits says of its due time, and what an arrival makes of that. Pure.
//!
//! Every copy that waits says in a header when it is due, and one that arrives earlier waits again: a policy that matches
//! a delay queue may shorten its time to live, and another client may move messages. A delay that no delay queue has is
//! waited for in hops from one queue to the next: a message comes back to its work queue after each, because a delay
//! queue leads nowhere else, and the daemon sends it on. The next wait is the longest that is not too long, and the last
//! one the shortest there is, so that a task is never early and at most [`RESOLUTION`] late, however long it waits.
//!
//! A due time is compared with this machine's clock. One that another machine reckoned from its own clock as "so long
//! from now" says when that was ([`HEADER_SENT`](own::HEADER_SENT)), because the clocks may differ:
//!
//! - A message that its delay queue had to keep for the whole delay is due [`tolerance`] early: clocks and timers differ by
//!   milliseconds, and another wait would cost a quarter of a second.
//! - One that was written in the future comes from a clock that is ahead. Its delay queue is believed instead.
//! - A clock that is ahead by less than the delay makes a message late by as much: by less than its delay again.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use super::topology;
use crate::model::UnixMs;
use crate::task::header;
use crate::task::own::{self, Due};

/// A task is at most this late on account of its waits: what the last one may be too long by.
pub const RESOLUTION: Duration = topology::SHORTEST;

/// What a due time is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// A time of the day, the same for everybody.
    Clock,
    /// So long after the copy was written, by the clock of who wrote it.
    Delay,
}

/// A message has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// How it has to wait on; `None`: it is due.
    pub wait: Option<Wait>,
    /// What an operator should know.
    pub odd: Option<Odd>,
}

/// A message waits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    pub due: UnixMs,
    pub basis: Basis,
}

/// A delay queue that does not do what it is for, or clocks that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Odd {
    /// It gave a message back too early.
    Shortened {
        queue: String,
        /// How long it kept the message.
        kept: Duration,
        /// How long it should have.
        rung: Duration,
    },
    /// The message was written in the future.
    Clocks {
        /// By at least so much its writer's clock is ahead.
        ahead: Duration,
    },
}

/// Keeps a message back until it is due: its properties, and how long it waits first. Zero: it is due.
pub fn put_off(properties: BasicProperties, wait: Wait, now: UnixMs) -> (BasicProperties, Duration) {
    let Some(left) = wait.due.since(now).filter(|left| !left.is_zero()) else {
        return (properties, Duration::ZERO);
    };
    (mark(properties, wait, now), topology::hop(left))
}

/// The same message, saying when it is due.
pub fn mark(properties: BasicProperties, wait: Wait, now: UnixMs) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    own::put_due(&mut headers, wait.due, (wait.basis == Basis::Delay).then_some(now));
    properties.with_headers(headers)
}

/// What becomes of a message with this due time.
pub fn arrival(due: Option<Due>, properties: &BasicProperties, now: UnixMs) -> Arrival {
    let on_time = |odd| Arrival { wait: None, odd };
    let Some(Due { at, sent }) = due else { return on_time(None) };
    let Some(left) = at.since(now).filter(|left| !left.is_zero()) else { return on_time(None) };
    let until = |due, basis, odd| Arrival { wait: Some(Wait { due, basis }), odd };
    let Some(sent) = sent else { return until(at, Basis::Clock, None) };
    let Some((queue, rung)) = left_delay_queue(properties) else { return until(at, Basis::Delay, None) };
    let delay = at.since(sent).unwrap_or_default();
    if let Some(ahead) = sent.since(now).filter(|ahead| !ahead.is_zero()) {
        let odd = Some(Odd::Clocks { ahead });
        let rest = delay.saturating_sub(rung);
        return if rest.is_zero() { on_time(odd) } else { until(now.plus(rest), Basis::Delay, odd) };
    }
    if delay <= rung && left <= tolerance(delay) {
        return on_time(None);
    }
    let kept = now.since(sent).unwrap_or_default();
    let is_early = kept + tolerance(rung) < rung;
    let odd = is_early.then(|| Odd::Shortened { queue: queue.to_owned(), kept, rung });
    until(at, Basis::Delay, odd)
}

/// How early counts as on time, for a delay that one queue waits for: a twentieth of it, at most a second.
pub fn tolerance(delay: Duration) -> Duration {
    (delay / 20).min(Duration::from_secs(1))
}

/// The delay queue that the message came from last, as the broker records it, and how long that keeps a message.
fn left_delay_queue(properties: &BasicProperties) -> Option<(&str, Duration)> {
    let AMQPValue::FieldArray(deaths) = header(properties, "x-death")? else { return None };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
    let AMQPValue::LongString(queue) = last.inner().get("queue")? else { return None };
    let queue = std::str::from_utf8(queue.as_bytes()).ok()?;
    Some((queue, topology::delay_of(queue)?))
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldTable;
    use proptest::prelude::*;

    use super::*;
    use crate::task::own::{self, text};

    const NOW: UnixMs = UnixMs(1_700_000_000_000);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// As a message comes back from a delay queue.
    fn back_from(properties: BasicProperties, rung: Duration) -> BasicProperties {
        let mut death = FieldTable::default();
        death.insert("queue".into(), text(&topology::delay_name("tasks", rung)));
        death.insert("reason".into(), text("expired"));
        let mut headers = properties.headers().clone().unwrap_or_default();
        headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        properties.with_headers(headers)
    }

    fn arrives(properties: &BasicProperties, now: UnixMs) -> Arrival {
        let due = own::times(properties, now).expect("our own").due;
        arrival(due, properties, now)
    }

    /// The waits of a message, when each takes `late` longer than its queue's name says, and how late it is at the end.
    fn waits(delay: Duration, basis: Basis, late: Duration) -> (Vec<u128>, Duration) {
        let due = NOW.plus(delay);
        let (mut properties, mut wait) = put_off(BasicProperties::default(), Wait { due, basis }, NOW);
        let (mut now, mut waits) = (NOW, Vec::new());
        while !wait.is_zero() {
            waits.push(wait.as_millis());
            now = now.plus(wait + late);
            let Arrival { wait: on, odd } = arrives(&back_from(properties.clone(), wait), now);
            assert_eq!(odd, None);
            (properties, wait) = on.map_or((properties.clone(), Duration::ZERO), |on| {
                assert_eq!(on, Wait { due, basis });
                put_off(properties.clone(), on, now)
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
            for basis in [Basis::Clock, Basis::Delay] {
                assert_eq!(waits(ms(delay), basis, Duration::ZERO).0, expected, "{delay} ms");
            }
        }
    }

    #[test]
    fn every_message_that_waits_says_when_it_is_due() {
        for (delay, marked) in [(0, false), (200, true), (5_000, true), (86_400_001, true)] {
            let wait = Wait { due: NOW.plus(ms(delay)), basis: Basis::Delay };
            let (properties, _) = put_off(BasicProperties::default(), wait, NOW);
            let due = own::times(&properties, NOW).expect("our own").due;
            assert_eq!(due, marked.then_some(Due { at: wait.due, sent: Some(NOW) }), "{delay} ms");
        }
        let wait = Wait { due: NOW.plus(ms(5_000)), basis: Basis::Clock };
        let (properties, _) = put_off(BasicProperties::default(), wait, NOW);
        assert_eq!(
            own::times(&properties, NOW).expect("our own").due,
            Some(Due { at: wait.due, sent: None })
        );
    }

    #[test]
    fn what_comes_early_waits_on_and_what_another_clock_wrote_is_not_late_by_more_than_its_delay() {
        // (delay, rung, on the writer's clock it is this much later than here, back after, what is left, odd)
        let shortened = |kept, rung| {
            Some(Odd::Shortened {
                queue: topology::delay_name("tasks", ms(rung)),
                kept: ms(kept),
                rung: ms(rung),
            })
        };
        let clocks = |ahead| Some(Odd::Clocks { ahead: ms(ahead) });
        let table = [
            (30_000, 30_000, 0_i64, 30_000, None, None),
            (30_000, 30_000, 0, 29_000, None, None),
            (30_000, 30_000, 0, 28_900, Some(1_100), shortened(28_900, 30_000)),
            (30_000, 30_000, 0, 4_000, Some(26_000), shortened(4_000, 30_000)),
            (7_000, 8_000, 0, 4_000, Some(3_000), shortened(4_000, 8_000)),
            (250, 250, 0, 240, None, None),
            (250, 250, 0, 100, Some(150), shortened(100, 250)),
            // In two waits: strictly, and the rest is as planned.
            (1_250, 1_000, 0, 1_000, Some(250), None),
            (30_300, 30_000, 0, 30_000, Some(300), None),
            (30_300, 30_000, 0, 4_000, Some(26_300), shortened(4_000, 30_000)),
            // The writer's clock is ahead by less than the delay, by more, and behind.
            (30_000, 30_000, 500, 30_000, None, None),
            (30_000, 30_000, 10_000, 30_000, Some(10_000), shortened(20_000, 30_000)),
            (30_000, 30_000, 3_600_000, 30_000, None, clocks(3_570_000)),
            (5_400_000, 3_600_000, 86_400_000, 3_600_000, Some(1_800_000), clocks(82_800_000)),
            (30_000, 30_000, -3_600_000, 30_000, None, None),
        ];
        for (delay, rung, ahead, back, left, odd) in table {
            let there = UnixMs(NOW.0.checked_add_signed(ahead).expect("in range"));
            let wait = Wait { due: there.plus(ms(delay)), basis: Basis::Delay };
            let properties = back_from(mark(BasicProperties::default(), wait, there), ms(rung));
            let now = NOW.plus(ms(back));
            let arrival = arrives(&properties, now);
            let expected = left.map(|left| Wait { due: now.plus(ms(left)), basis: Basis::Delay });
            assert_eq!(arrival, Arrival { wait: expected, odd }, "{delay} {rung} {ahead} {back}");
        }
    }

    #[test]
    fn a_time_of_the_day_is_kept_to_whatever_brought_the_message() {
        let wait = Wait { due: NOW.plus(ms(1)), basis: Basis::Clock };
        let plain = mark(BasicProperties::default(), wait, NOW);
        for properties in [plain.clone(), back_from(plain, ms(30_000))] {
            assert_eq!(arrives(&properties, NOW), Arrival { wait: Some(wait), odd: None });
            assert_eq!(arrives(&properties, wait.due), Arrival { wait: None, odd: None });
        }
        assert_eq!(arrives(&BasicProperties::default(), NOW), Arrival { wait: None, odd: None });
    }

    proptest! {
        #[test]
        fn a_task_is_never_early_and_late_by_less_than_the_resolution_and_one_hop(
            delay in 0..40 * 86_400_000_u64,
            late in 0..100_u64,
        ) {
            for basis in [Basis::Clock, Basis::Delay] {
                let (waits, late_by) = waits(ms(delay), basis, ms(late));
                prop_assert!(late_by < RESOLUTION + ms(late), "late by {late_by:?}: {waits:?}");
                let days = usize::try_from(delay / 86_400_000).expect("few");
                prop_assert!(waits.len() <= days + 24, "{waits:?}");
            }
        }
    }
}
