//! What is remembered of one queue, and for how long. Pure: the time is passed in.
//!
//! Fingerprints are kept in segments. A new one begins after half the window, or when the newest is full; one is
//! forgotten whole when its newest fingerprint is older than the window. So each is remembered for the window at
//! least, for one and a half at most, and none has to be looked at to be forgotten.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

/// Fingerprints in a segment: what a hash table of 2^20 places holds, 18 MB. Twenty million bytes on disk.
pub(super) const MAX_PER_SEGMENT: usize = 7 << 17;

/// Segments that can be within the window at the same time; more there are only when they fill up early, and then
/// the oldest goes before its time.
const SEGMENTS: usize = 3;

/// The memory of one queue. Times are in milliseconds since 1970, so that they mean the same after a restart.
#[derive(Debug)]
pub(super) struct Window {
    length: u64,
    max_per_segment: usize,
    /// The newest last.
    segments: VecDeque<Segment>,
    /// The number of the next segment.
    next: u64,
}

/// Fingerprints that are forgotten together.
#[derive(Debug, Default)]
pub struct Segment {
    /// Counts up over the life of a queue's memory; its file is named by it.
    pub(super) number: u64,
    /// When the first one was recorded.
    pub(super) first: u64,
    /// When the last one was.
    pub(super) newest: u64,
    pub(super) fingerprints: HashSet<u128, BuildHasherDefault<Front>>,
}

/// Where a fingerprint went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recorded {
    /// The segment that has it.
    pub(super) segment: u64,
    /// The clock as it was taken: it never runs backwards within a segment.
    pub(super) at: u64,
    /// The oldest segment that is left.
    pub(super) oldest: u64,
    /// One was forgotten before its time, for want of room.
    pub(super) crowded: bool,
}

impl Window {
    /// With what an earlier daemon left, in any order.
    pub(super) fn new(length: Duration, max_per_segment: usize, mut found: Vec<Segment>) -> Self {
        found.sort_unstable_by_key(|segment| segment.number);
        let next = found.last().map_or(1, |newest| newest.number + 1);
        let mut window = Self { length: 0, max_per_segment, segments: found.into(), next };
        window.resize(length);
        while window.segments.len() > SEGMENTS {
            window.segments.pop_front();
        }
        window
    }

    /// The operator changed the length.
    pub(super) fn resize(&mut self, length: Duration) {
        self.length = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    }

    /// How many fingerprints are remembered.
    pub(super) fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.fingerprints.len()).sum()
    }

    /// Whether this one is.
    pub(super) fn contains(&self, fingerprint: u128, now: u64) -> bool {
        let live = |segment: &&Segment| !segment.is_over(self.length, now);
        self.segments.iter().rev().filter(live).any(|segment| segment.fingerprints.contains(&fingerprint))
    }

    /// Remembers one.
    pub(super) fn record(&mut self, fingerprint: u128, now: u64) -> Recorded {
        let now = self.segments.back().map_or(now, |newest| now.max(newest.newest));
        while self.segments.front().is_some_and(|oldest| oldest.is_over(self.length, now)) {
            self.segments.pop_front();
        }
        let fits = |newest: &Segment| {
            now < newest.first.saturating_add(self.length / 2)
                && newest.fingerprints.len() < self.max_per_segment
        };
        if !self.segments.back().is_some_and(fits) {
            let number = self.next;
            self.next += 1;
            self.segments.push_back(Segment { number, first: now, newest: now, ..Segment::default() });
        }
        let crowded = self.segments.len() > SEGMENTS;
        if crowded {
            self.segments.pop_front();
        }
        let oldest = self.segments.front().map_or(self.next, |oldest| oldest.number);
        let Some(newest) = self.segments.back_mut() else { unreachable!("one was made if there was none") };
        newest.fingerprints.insert(fingerprint);
        newest.newest = now;
        Recorded { segment: newest.number, at: now, oldest, crowded }
    }
}

impl Segment {
    /// As it is read from a store.
    #[cfg(any(test, feature = "simulate"))]
    pub(crate) fn found(
        number: u64,
        first: u64,
        newest: u64,
        fingerprints: impl Iterator<Item = u128>,
    ) -> Self {
        Self { number, first, newest, fingerprints: fingerprints.collect() }
    }

    /// Whether all of it is older than the window.
    pub(super) fn is_over(&self, length: u64, now: u64) -> bool {
        now >= self.newest.saturating_add(length)
    }
}

/// Takes the front of a fingerprint, which is a digest already, for its hash.
#[derive(Debug, Default)]
pub(super) struct Front(u64);

impl Hasher for Front {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |front| u64::from_ne_bytes(*front));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const LENGTH: u64 = 1000;

    fn window(max: usize) -> Window {
        Window::new(Duration::from_millis(LENGTH), max, Vec::new())
    }

    #[test]
    fn a_fingerprint_is_remembered_for_the_window_and_forgotten_after_it() {
        let mut window = window(100);
        window.record(7, 5_000);
        assert!(window.contains(7, 5_999) && !window.contains(8, 5_000));
        assert!(!window.contains(7, 6_000));
        assert_eq!(window.record(8, 6_000), Recorded { segment: 2, at: 6_000, oldest: 2, crowded: false });
        assert_eq!(window.len(), 1);
    }

    #[test]
    fn when_there_is_no_room_the_oldest_go_first() {
        let mut window = window(2);
        let crowded: Vec<bool> = (0..8).map(|n| window.record(n, 5_000).crowded).collect();
        assert_eq!(crowded, [false, false, false, false, false, false, true, false]);
        let left: Vec<bool> = (0..8).map(|n| window.contains(n, 5_000)).collect();
        assert_eq!(left, [false, false, true, true, true, true, true, true]);
    }

    #[test]
    fn what_was_found_is_continued_under_its_numbers() {
        let segment = |number, first, fingerprint: u128| Segment {
            number,
            first,
            newest: first + 100,
            fingerprints: [fingerprint].into_iter().collect(),
        };
        let found = vec![segment(8, 5_000, 2), segment(7, 4_400, 1)];
        let mut window = Window::new(Duration::from_millis(LENGTH), 100, found);
        assert!(window.contains(1, 5_200) && window.contains(2, 5_200));
        assert_eq!(window.record(3, 5_200), Recorded { segment: 8, at: 5_200, oldest: 7, crowded: false });
        assert_eq!(window.record(4, 5_500), Recorded { segment: 9, at: 5_500, oldest: 8, crowded: false });
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_nothing() {
        let mut window = window(100);
        window.record(1, 5_000);
        assert_eq!(window.record(2, 3_000).at, 5_000);
        assert!(window.contains(1, 3_000) && window.contains(2, 5_999));
    }

    proptest! {
        /// Against a list of everything with its time.
        #[test]
        fn it_remembers_at_least_the_window_and_at_most_half_of_it_more(
            steps in prop::collection::vec((0_u128..20, 0_u64..400), 1..200),
        ) {
            let mut window = window(1000);
            let mut last: HashMap<u128, u64> = HashMap::new();
            let mut now = 10_000;
            for (fingerprint, passed) in steps {
                now += passed;
                for (fingerprint, at) in &last {
                    let age = now - at;
                    let known = window.contains(*fingerprint, now);
                    prop_assert!(known || age >= LENGTH, "{fingerprint} is forgotten after {age}");
                    prop_assert!(!known || age < LENGTH + LENGTH / 2, "{fingerprint} is known after {age}");
                }
                if !window.contains(fingerprint, now) {
                    let recorded = window.record(fingerprint, now);
                    prop_assert!(!recorded.crowded && recorded.at == now);
                    last.insert(fingerprint, now);
                }
                prop_assert!(window.segments.len() <= SEGMENTS);
            }
        }

        #[test]
        fn it_never_holds_more_than_its_bound(fingerprints in prop::collection::vec(any::<u128>(), 1..300)) {
            let mut window = window(10);
            for fingerprint in fingerprints {
                window.record(fingerprint, 10_000);
                prop_assert!(window.contains(fingerprint, 10_000) && window.len() <= 10 * SEGMENTS);
            }
        }
    }
}
