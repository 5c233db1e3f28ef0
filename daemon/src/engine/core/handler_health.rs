//! Whether a handler may be given tasks: paused by an operator, suspended because its hosts keep dying, or resting
//! because it fails almost always.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::Breaker;
use crate::model::duration::format_duration;
use crate::model::status::HandlerState;

/// Different tasks, one after another, whose host died: so many say more about the plugin than about the tasks. One
/// poisonous task that is tried again and again is a single victim.
const VICTIMS: usize = 3;

/// First and longest suspension; doubled each time the first task after one kills its host again.
const SUSPENSION: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5 * 60));

/// A breaker's window is counted in so many parts: the oldest part is forgotten as a whole.
const PARTS: usize = 16;

/// The health of one handler, over all its generations.
#[derive(Debug, Default)]
pub(super) struct HandlerHealth {
    paused: bool,
    timed: Option<Timed>,
    /// Different tasks whose host died, since the last one that did not cost it. At most [`VICTIMS`].
    victims: Vec<Option<Arc<str>>>,
    /// Suspensions since a host last survived a task. While there are any, one host at a time is tried.
    suspensions: u32,
    ends: Ends,
}

/// A pause that ends by itself.
#[derive(Debug)]
struct Timed {
    state: HandlerState,
    why: Arc<str>,
    until: Instant,
}

/// Why a handler is given no tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pause {
    /// How the status shows it.
    pub(super) state: HandlerState,
    /// For people.
    pub(super) why: Arc<str>,
    /// When it ends by itself; `None`: only an operator ends it.
    pub(super) left: Option<Duration>,
}

impl HandlerHealth {
    /// What keeps the handler from being given tasks now.
    pub(super) fn pause_at(&self, now: Instant) -> Option<Pause> {
        if self.paused {
            return Some(Pause {
                state: HandlerState::Paused,
                why: "an operator paused it".into(),
                left: None,
            });
        }
        let Timed { state, why, until } = self.timed.as_ref().filter(|timed| now < timed.until)?;
        Some(Pause { state: *state, why: why.clone(), left: Some(until.saturating_duration_since(now)) })
    }

    /// After a suspension the plugin has to show first that a host survives.
    pub(super) fn is_on_trial(&self) -> bool {
        self.suspensions > 0
    }

    /// A host died under this task, or, with `None`, before it could take one. True: the handler is suspended now.
    pub(super) fn host_died(&mut self, victim: Option<&Arc<str>>, why: &str, now: Instant) -> bool {
        let known = victim.is_some() && self.victims.iter().any(|other| other.as_ref() == victim);
        if !known && self.victims.len() < VICTIMS {
            self.victims.push(victim.cloned());
        }
        if self.victims.len() < VICTIMS && !self.is_on_trial() {
            return false;
        }
        let length = SUSPENSION
            .0
            .saturating_mul(1_u32.checked_shl(self.suspensions).unwrap_or(u32::MAX))
            .min(SUSPENSION.1);
        self.suspensions = self.suspensions.saturating_add(1);
        self.victims.clear();
        let why = format!("its plugin hosts died repeatedly; last cause: {why}").into();
        self.timed = Some(Timed { state: HandlerState::Suspended, why, until: now + length });
        true
    }

    /// A task ended and its host lives. True: the handler rests now, because too many failed.
    pub(super) fn task_ended(&mut self, failed: bool, breaker: Option<&Breaker>, now: Instant) -> bool {
        self.victims.clear();
        self.suspensions = 0;
        self.count(failed, breaker, now)
    }

    /// A task ended, whatever became of its host, and counts for the breaker. True: the handler rests now.
    pub(super) fn count(&mut self, failed: bool, breaker: Option<&Breaker>, now: Instant) -> bool {
        let Some(breaker) = breaker else { return false };
        self.ends.add(failed, breaker.window, now);
        let (ended, failed) = self.ends.totals();
        if self.pause_at(now).is_some()
            || ended < breaker.tasks
            || f64::from(failed) < breaker.rate * f64::from(ended)
        {
            return false;
        }
        let why =
            format!("{failed} of its last {ended} tasks failed within {}", format_duration(breaker.window));
        self.timed = Some(Timed { state: HandlerState::Resting, why: why.into(), until: now + breaker.rest });
        self.ends = Ends::default();
        true
    }

    /// An operator pauses it.
    pub(super) fn pause(&mut self) {
        self.paused = true;
    }

    /// An operator lifts whatever keeps tasks from it.
    pub(super) fn resume(&mut self) {
        *self = Self::default();
    }

    /// Another plugin or other settings took over: what the old ones did is not held against them.
    pub(super) fn replaced(&mut self) {
        *self = Self { paused: self.paused, ..Self::default() };
    }
}

/// Ends of tasks within a sliding window.
#[derive(Debug, Default)]
struct Ends {
    /// Ended and failed, by part of the window; `at` is the newest.
    parts: [(u32, u32); PARTS],
    at: usize,
    /// When the newest part began.
    began: Option<Instant>,
}

impl Ends {
    fn add(&mut self, failed: bool, window: Duration, now: Instant) {
        let length = (window / PARTS as u32).max(Duration::from_millis(1));
        let mut began = *self.began.get_or_insert(now);
        let mut turned = 0;
        while now.saturating_duration_since(began) >= length && turned < PARTS {
            self.at = (self.at + 1) % PARTS;
            self.parts[self.at] = (0, 0);
            began += length;
            turned += 1;
        }
        self.began = Some(if turned == PARTS { now } else { began });
        let part = &mut self.parts[self.at];
        part.0 = part.0.saturating_add(1);
        part.1 = part.1.saturating_add(u32::from(failed));
    }

    fn totals(&self) -> (u32, u32) {
        self.parts.iter().fold((0, 0), |(ended, failed), part| {
            (ended.saturating_add(part.0), failed.saturating_add(part.1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Arc<str> {
        Arc::from(text)
    }

    #[test]
    fn three_different_victims_in_a_row_suspend_and_one_alone_never_does() {
        let now = Instant::now();
        let mut health = HandlerHealth::default();
        for _ in 0..50 {
            assert!(!health.host_died(Some(&id("poison")), "SIGSEGV", now));
        }
        assert!(!health.host_died(Some(&id("b")), "SIGSEGV", now));
        assert_eq!(health.pause_at(now), None);
        assert!(health.host_died(Some(&id("c")), "SIGSEGV", now));
        let pause = health.pause_at(now).expect("suspended");
        assert_eq!((pause.state, pause.left), (HandlerState::Suspended, Some(SUSPENSION.0)));
        assert!(pause.why.contains("SIGSEGV"));
        assert_eq!(health.pause_at(now + SUSPENSION.0), None, "it ends by itself");
    }

    #[test]
    fn a_task_that_leaves_its_host_alive_starts_the_count_anew() {
        let now = Instant::now();
        let mut health = HandlerHealth::default();
        for round in 0..20 {
            health.host_died(Some(&id(&format!("a{round}"))), "exit", now);
            health.host_died(Some(&id(&format!("b{round}"))), "exit", now);
            health.task_ended(round % 2 == 0, None, now);
        }
        assert_eq!(health.pause_at(now), None);
    }

    #[test]
    fn after_a_suspension_one_death_is_enough_and_each_lasts_twice_as_long() {
        let mut now = Instant::now();
        let mut health = HandlerHealth::default();
        let mut lengths = Vec::new();
        for round in 0..12 {
            while !health.host_died(None, "did not start", now) {}
            let left = health.pause_at(now).and_then(|pause| pause.left).expect("suspended");
            lengths.push(left.as_secs());
            now += left;
            assert_eq!((health.pause_at(now), health.is_on_trial()), (None, true), "{round}");
        }
        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        health.task_ended(false, None, now);
        assert!(!health.is_on_trial());
        assert!(!health.host_died(Some(&id("x")), "exit", now));
    }

    fn breaker() -> Breaker {
        let rest = Duration::from_secs(30);
        Breaker { rate: 0.75, window: Duration::from_secs(16), tasks: 4, rest }
    }

    #[test]
    fn a_handler_that_fails_almost_always_rests() {
        let now = Instant::now();
        let table: [(&str, &[bool], bool); 5] = [
            ("too few", &[true, true, true], false),
            ("all of them", &[true, true, true, true], true),
            ("just enough", &[false, true, true, true], true),
            ("not enough", &[false, false, true, true, true], false),
            ("enough later", &[false, false, true, true, true, true, true, true], true),
        ];
        for (what, ends, rests) in table {
            let mut health = HandlerHealth::default();
            let tripped: Vec<bool> =
                ends.iter().map(|failed| health.task_ended(*failed, Some(&breaker()), now)).collect();
            assert_eq!(tripped.last(), Some(&rests), "{what}");
            assert_eq!(
                health.pause_at(now).map(|pause| pause.state),
                rests.then_some(HandlerState::Resting),
                "{what}"
            );
            assert_eq!(health.pause_at(now + breaker().rest), None, "{what}: it ends by itself");
        }
    }

    #[test]
    fn ends_that_left_the_window_do_not_count() {
        let start = Instant::now();
        let mut health = HandlerHealth::default();
        for second in 0..200 {
            let now = start + Duration::from_secs(second * 6);
            assert!(!health.task_ended(true, Some(&breaker()), now), "three a window are too few");
        }
        let late = start + Duration::from_secs(100_000);
        for _ in 0..3 {
            assert!(!health.task_ended(true, Some(&breaker()), late));
        }
        assert!(health.task_ended(true, Some(&breaker()), late));
    }

    #[test]
    fn a_pause_outlasts_a_replacement_and_resume_lifts_everything() {
        let now = Instant::now();
        let mut health = HandlerHealth::default();
        while !health.host_died(None, "did not start", now) {}
        health.pause();
        assert_eq!(
            health.pause_at(now).map(|pause| (pause.state, pause.left)),
            Some((HandlerState::Paused, None))
        );
        health.replaced();
        assert_eq!(health.pause_at(now).map(|pause| pause.state), Some(HandlerState::Paused));
        health.resume();
        assert_eq!((health.pause_at(now), health.is_on_trial()), (None, false));
    }
}
