//! The recent past of one queue or handler: its totals at each sample, and the rates and spans between them. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use warren::model::status::{BUCKETS_S, Counts, Histogram};

/// How far back spans are summed up.
const WINDOW: Duration = Duration::from_secs(60);
/// Samples kept: the window at the fastest pace, and more than a terminal has columns for.
const KEPT: usize = 256;

/// Totals at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    /// When they were read.
    pub(super) at: Instant,
    pub(super) counts: Counts,
    /// The spans: waits of a queue, durations of a handler.
    pub(super) spans: Histogram,
}

/// Points in the order of their time.
#[derive(Debug, Default)]
pub(super) struct Track {
    points: VecDeque<Point>,
}

/// What tasks a second have come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Done, a second.
    pub(super) done_per_s: f64,
    /// Retried or dead, a second.
    pub(super) failed_per_s: f64,
}

/// How long tasks took, or waited.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spans {
    /// The mean, in seconds.
    pub(super) mean_s: f64,
    /// What 95 of 100 stayed below, in seconds: read off the histogram, evenly within a bucket; that of the last bucket,
    /// which has no end, is where it begins.
    pub(super) p95_s: f64,
}

impl Track {
    pub(super) fn push(&mut self, point: Point) {
        if self.points.len() == KEPT {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Of the last interval; zero before there is one.
    pub(super) fn rates(&self) -> Rates {
        self.intervals().next().map_or_else(Rates::default, |(before, after)| {
            let seconds = after.at.duration_since(before.at).as_secs_f64();
            let rate = |of: fn(&Counts) -> u64| {
                let count = of(&after.counts).saturating_sub(of(&before.counts));
                if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
            };
            Rates {
                done_per_s: rate(|counts| counts.done),
                failed_per_s: rate(|counts| counts.retried + counts.dead),
            }
        })
    }

    /// Of the last minute; `None` where nothing ended in it.
    pub(super) fn spans(&self) -> Option<Spans> {
        let last = self.points.back()?;
        let is_old = |point: &&Point| last.at.duration_since(point.at) > WINDOW;
        // What ended before the window began is in the last point before it.
        let first = self.points.iter().rev().find(is_old).or(self.points.front())?;
        let spans = difference(&first.spans, &last.spans);
        Some(Spans { mean_s: mean(&spans)?, p95_s: quantile(&spans, 0.95)? })
    }

    /// Tasks done in each interval, in thousandths a second; the newest first.
    pub(super) fn done(&self) -> impl Iterator<Item = u64> {
        self.intervals().map(|(before, after)| {
            let ms = after.at.duration_since(before.at).as_millis().max(1) as u64;
            after.counts.done.saturating_sub(before.counts.done) * 1_000_000 / ms
        })
    }

    /// The mean span of each interval in microseconds, the newest first; `None` where nothing ended.
    pub(super) fn means(&self) -> impl Iterator<Item = Option<u64>> {
        self.intervals().map(|(before, after)| {
            mean(&difference(&before.spans, &after.spans)).map(|seconds| (seconds * 1e6) as u64)
        })
    }

    fn intervals(&self) -> impl Iterator<Item = (&Point, &Point)> {
        self.points.iter().rev().skip(1).zip(self.points.iter().rev())
    }
}

fn difference(before: &Histogram, after: &Histogram) -> Histogram {
    let mut difference = *after;
    for (count, before) in difference.counts.iter_mut().zip(before.counts) {
        *count = count.saturating_sub(before);
    }
    difference.sum_s = (after.sum_s - before.sum_s).max(0.0);
    difference
}

fn mean(spans: &Histogram) -> Option<f64> {
    let count = spans.count();
    (count > 0).then(|| spans.sum_s / count as f64)
}

/// As Prometheus' `histogram_quantile` does it: <https://prometheus.io/docs/prometheus/latest/querying/functions/>.
fn quantile(spans: &Histogram, share: f64) -> Option<f64> {
    let wanted = share * spans.count() as f64;
    let mut below = 0.0;
    let mut from = 0.0;
    for (&count, to) in spans.counts.iter().zip(BUCKETS_S) {
        let count = count as f64;
        if count > 0.0 && below + count >= wanted {
            return Some(from + (to - from) * (wanted - below) / count);
        }
        below += count;
        from = to;
    }
    (spans.counts[BUCKETS_S.len()] > 0).then_some(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Points a second apart, with so many tasks done, dead, and the spans of those that ended since the one before.
    fn track(points: &[(u64, u64, &[f64])]) -> Track {
        let start = Instant::now();
        let mut track = Track::default();
        let mut spans = Histogram::default();
        for (second, (done, dead, ended)) in (0..).zip(points) {
            for seconds in *ended {
                spans.observe(Duration::from_secs_f64(*seconds));
            }
            let counts = Counts { done: *done, dead: *dead, ..Counts::default() };
            track.push(Point { at: start + Duration::from_secs(second), counts, spans });
        }
        track
    }

    #[test]
    fn rates_are_of_the_last_interval() {
        assert_eq!(track(&[]).rates(), Rates::default());
        assert_eq!(track(&[(5, 1, &[])]).rates(), Rates::default());
        let track = track(&[(0, 0, &[]), (10, 0, &[]), (14, 3, &[])]);
        assert_eq!(track.rates(), Rates { done_per_s: 4.0, failed_per_s: 3.0 });
        assert_eq!(track.done().collect::<Vec<_>>(), [4_000, 10_000]);
    }

    #[test]
    fn spans_have_a_mean_and_a_bound() {
        let idle = track(&[(0, 0, &[1.0]), (0, 0, &[])]);
        assert_eq!(idle.spans(), None, "what ended before the first point is not of the last minute");
        let track = track(&[(0, 0, &[]), (0, 0, &[0.2, 0.4]), (0, 0, &[]), (0, 0, &[0.3])]);
        let spans = track.spans().unwrap();
        assert!((spans.mean_s - 0.3).abs() < 1e-9, "{spans:?}");
        // All three in the bucket from 0.1 to 0.5.
        assert!((spans.p95_s - 0.48).abs() < 1e-9, "{spans:?}");
        assert_eq!(track.means().collect::<Vec<_>>(), [Some(300_000), None, Some(300_000)]);
    }

    #[test]
    fn spans_are_of_the_last_minute_only() {
        let mut points = vec![(0, 0, &[][..]), (0, 0, &[10.0][..])];
        points.extend([(0, 0, &[][..]); 70]);
        points.push((0, 0, &[0.01]));
        let spans = track(&points).spans().unwrap();
        assert!((spans.mean_s - 0.01).abs() < 1e-9, "{spans:?}");
    }

    #[test]
    fn what_took_longer_than_every_bucket_is_where_the_last_one_begins() {
        let spans = track(&[(0, 0, &[]), (0, 0, &[5000.0])]).spans().unwrap();
        assert!((spans.mean_s - 5000.0).abs() < 1e-9 && (spans.p95_s - 3600.0).abs() < 1e-9, "{spans:?}");
    }

    #[test]
    fn a_bounded_number_of_points_is_kept() {
        let track = track(&[(0, 0, &[][..]); 2 * KEPT]);
        assert_eq!(track.done().count(), KEPT - 1);
    }
}
