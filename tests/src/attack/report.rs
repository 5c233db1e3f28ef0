//! The outcome for people, and the check of it.

use std::fmt;
use std::time::Duration;

use super::barrage::Tally;
use super::canaries::Times;
use super::stage::Account;

/// What an attack came to.
#[derive(Debug)]
pub struct Report {
    pub(super) seed: u64,
    pub(super) tally: Tally,
    pub(super) account: Account,
    /// Publications that the daemon repeated because no confirm came in time.
    pub(super) doubtful: u64,
    /// Links that the daemon made.
    pub(super) connects: u64,
    /// The broker has the daemon's consumers on the same channels as at the start.
    pub(super) same_consumers: bool,
    pub(super) peak_rss_kib: u64,
    /// Of the canaries before and during the attack.
    pub(super) before: Times,
    pub(super) during: Times,
    /// Canaries that were not done exactly once, with how often they were started.
    pub(super) canaries: Vec<(String, usize)>,
}

impl Report {
    /// # Panics
    /// When a link was lost, a message is missing, or a canary was not done exactly once.
    pub fn assert_clean(&self) {
        let Tally { taken, unknown, purged, .. } = self.tally;
        assert!(taken > 0 && !self.during.waits.is_empty(), "nothing happened: {self}");
        assert_eq!((self.connects, self.same_consumers), (1, true), "a link was lost: {self}");
        assert_eq!(self.canaries, [], "canaries that were not done exactly once: {self}");
        let settled = self.account.settled();
        let twice = self.doubtful;
        assert!(
            (taken..=taken + unknown + twice).contains(&settled),
            "{settled} messages are settled: {self}"
        );
        let dead = self.account.dead;
        assert!((dead..=dead + twice).contains(&purged), "{dead} dead letters are not {purged}: {self}");
    }

    /// # Panics
    /// When the daemon's memory ever was larger.
    pub fn assert_memory(&self, max_kib: u64) {
        assert!(self.peak_rss_kib <= max_kib, "{} KiB, {max_kib} are allowed: {self}", self.peak_rss_kib);
    }

    /// # Panics
    /// When the slowest hundredth of the canaries waited more than twice as long as before the attack, and longer than
    /// `least`, beyond what the broker itself took for them.
    pub fn assert_waits(&self, least: Duration) {
        let [before, during] = [&self.before, &self.during].map(|times| percentile(&times.beyond, 99));
        assert!(during <= least.max(before * 2), "canaries waited {during:?}, before {before:?}: {self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { sent, kinds, taken, refused, unknown, why, .. } = &self.tally;
        let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        let Account { done, dead, held } = self.account;
        writeln!(f, "seed        {}", self.seed)?;
        writeln!(f, "messages    {sent} sent: {}", kinds.join(", "))?;
        writeln!(f, "broker      {taken} taken, {refused} refused, {unknown} unknown {why}")?;
        let twice = self.doubtful;
        writeln!(f, "daemon      {done} done, {dead} dead, {held} held, {twice} publications repeated")?;
        let consumers = if self.same_consumers { "the same consumers" } else { "OTHER CONSUMERS" };
        writeln!(f, "links       {}, {consumers}", self.connects)?;
        writeln!(f, "memory      {} KiB at most", self.peak_rss_kib)?;
        for (when, times) in [("before", &self.before), ("during", &self.during)] {
            writeln!(f, "canaries    {when}: {}", times.waits.len())?;
            let Times { confirms, waits, beyond } = times;
            for (what, times) in [("started", waits), ("confirmed", confirms), ("beyond that", beyond)] {
                let (half, most) = (percentile(times, 50), percentile(times, 99));
                writeln!(f, "            {what:12}p50 {half:.1?}, p99 {most:.1?}")?;
            }
        }
        write!(f, "            not done exactly once: {:?}", self.canaries)
    }
}

/// Of sorted times.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_least_that_so_many_do_not_exceed() {
        let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        let found = [50, 99, 100].map(|percent| percentile(&times, percent).as_millis());
        assert_eq!((found, percentile(&[], 99)), ([100, 198, 200], Duration::ZERO));
    }
}
