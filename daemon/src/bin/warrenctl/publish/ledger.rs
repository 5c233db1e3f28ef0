//! Which lines are confirmed, which may be in the queue, and which never left: pure, and of constant size however
//! many lines there are.

use std::collections::BTreeMap;

use serde::Serialize;

/// What became of one line that was handed to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// The broker has it.
    Confirmed,
    /// The broker said that it does not have it.
    Refused(String),
    /// It was sent, and no answer came.
    Unknown(String),
}

/// What is known of each line of one run. Lines are numbered from 1 and taken in order; those never taken in between
/// were blank.
#[derive(Debug, Default)]
pub(super) struct PublishLedger {
    /// Confirmed lines, and blank ones between them, as first → last. At most one more entry than there are open
    /// and failed lines.
    settled: BTreeMap<u64, u64>,
    /// Lines at the broker, with their message ids. At most one per channel.
    open: BTreeMap<u64, String>,
    refused: Vec<Unconfirmed>,
    unknown: Vec<Unconfirmed>,
    taken: u64,
    confirmed: u64,
}

/// A line that is not confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Unconfirmed {
    pub(super) line: u64,
    /// The message id it was sent with.
    pub(super) id: String,
    /// Why it is not confirmed.
    pub(super) why: String,
}

/// What there is to say at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PublishReport {
    /// Tasks that the broker confirmed.
    pub(super) confirmed: u64,
    /// The same as ranges of lines, first and last; blank lines between them are inside.
    pub(super) confirmed_lines: Vec<(u64, u64)>,
    /// Not in the queue: the broker refused them.
    pub(super) refused: Vec<Unconfirmed>,
    /// Perhaps in the queue: no answer came.
    pub(super) unknown: Vec<Unconfirmed>,
    /// No line after this one was sent.
    pub(super) last_line: u64,
}

impl PublishLedger {
    /// A line is about to be sent.
    pub(super) fn take(&mut self, line: u64, id: &str) {
        if self.taken + 1 < line {
            self.settle(self.taken + 1, line - 1);
        }
        self.taken = line;
        self.open.insert(line, id.to_owned());
    }

    /// Its fate is known.
    pub(super) fn close(&mut self, line: u64, fate: Fate) {
        let Some(id) = self.open.remove(&line) else { return };
        match fate {
            Fate::Confirmed => {
                self.confirmed += 1;
                self.settle(line, line);
            }
            Fate::Refused(why) => self.refused.push(Unconfirmed { line, id, why }),
            Fate::Unknown(why) => self.unknown.push(Unconfirmed { line, id, why }),
        }
    }

    /// How many are confirmed so far.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Closes the ledger; lines still open are unknown, for this reason.
    pub(super) fn report(mut self, why_open: &str) -> PublishReport {
        for (line, id) in std::mem::take(&mut self.open) {
            self.unknown.push(Unconfirmed { line, id, why: why_open.to_owned() });
        }
        self.refused.sort_by_key(|line| line.line);
        self.unknown.sort_by_key(|line| line.line);
        PublishReport {
            confirmed: self.confirmed,
            confirmed_lines: self.settled.into_iter().collect(),
            refused: self.refused,
            unknown: self.unknown,
            last_line: self.taken,
        }
    }

    fn settle(&mut self, mut first: u64, mut last: u64) {
        if let Some((&before, &end)) = self.settled.range(..first).next_back()
            && end + 1 == first
        {
            first = before;
        }
        if let Some(end) = self.settled.remove(&(last + 1)) {
            last = end;
        }
        self.settled.insert(first, last);
    }
}

impl PublishReport {
    /// Every line that was sent is confirmed.
    pub(super) fn is_complete(&self) -> bool {
        self.refused.is_empty() && self.unknown.is_empty()
    }

    /// The report in words, a line per kind. `unit` is `line` or `task`.
    pub(super) fn text(&self, unit: &str) -> String {
        let mut parts = vec![match self.confirmed {
            0 => format!("confirmed: no {unit}"),
            count => format!("confirmed: {unit}s {} ({count} in all)", spell(&self.confirmed_lines)),
        }];
        for (name, lines) in [
            ("refused, not in the queue", &self.refused),
            ("no answer, may or may not be in the queue", &self.unknown),
        ] {
            if !lines.is_empty() {
                let whys: std::collections::BTreeSet<&str> = lines.iter().map(|line| &*line.why).collect();
                let whys = whys.into_iter().collect::<Vec<_>>().join("; ");
                parts.push(format!("{name}: {unit}s {} ({whys})", spell(&ranges(lines))));
            }
        }
        parts.push(match self.last_line {
            0 => format!("no {unit} was sent"),
            last => format!("not sent: any {unit} after {last}"),
        });
        parts.join("\n")
    }
}

/// Neighbouring lines as ranges.
fn ranges(lines: &[Unconfirmed]) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &Unconfirmed { line, .. } in lines {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == line => *last = line,
            _ => ranges.push((line, line)),
        }
    }
    ranges
}

fn spell(ranges: &[(u64, u64)]) -> String {
    let one = |&(first, last): &(u64, u64)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Fate {
        Fate::Unknown("link lost".to_owned())
    }

    #[test]
    fn ranges_say_exactly_what_is_confirmed() {
        let mut ledger = PublishLedger::default();
        for line in 1..=10 {
            ledger.take(line, &format!("id-{line}"));
        }
        for line in [3, 1, 2, 9, 7, 8, 5] {
            ledger.close(line, Fate::Confirmed);
        }
        ledger.close(4, Fate::Refused("queue is full".to_owned()));
        ledger.close(10, unknown());
        let report = ledger.report("interrupted");
        assert_eq!(report.confirmed_lines, [(1, 3), (5, 5), (7, 9)]);
        assert_eq!(
            report.text("line"),
            "confirmed: lines 1-3, 5, 7-9 (7 in all)\n\
             refused, not in the queue: lines 4 (queue is full)\n\
             no answer, may or may not be in the queue: lines 6, 10 (interrupted; link lost)\n\
             not sent: any line after 10"
        );
        assert_eq!(report.unknown[0].id, "id-6");
        assert!(!report.is_complete());
    }

    #[test]
    fn blank_lines_do_not_split_ranges() {
        let mut ledger = PublishLedger::default();
        for line in [2, 5, 6] {
            ledger.take(line, "id");
            ledger.close(line, Fate::Confirmed);
        }
        let report = ledger.report("");
        assert_eq!((report.confirmed, &*report.confirmed_lines), (3, &[(1, 6)][..]));
        assert!(report.is_complete());
    }

    #[test]
    fn a_million_lines_take_no_more_room_than_the_window() {
        let mut ledger = PublishLedger::default();
        let window = 32;
        for line in 1..=1_000_000_u64 {
            ledger.take(line, "id");
            // Every other one is confirmed late, so that holes stay open as long as they can.
            if line > window {
                let late = line - window;
                ledger.close(if late % 2 == 0 { late } else { late + window / 2 * 2 }, Fate::Confirmed);
                ledger.close(late, Fate::Confirmed);
            }
            assert!(ledger.settled.len() <= ledger.open.len() + 1);
            assert!(ledger.open.len() <= window as usize);
        }
        assert_eq!(ledger.taken, 1_000_000);
    }

    #[test]
    fn nothing_sent_says_so() {
        let report = PublishLedger::default().report("");
        assert_eq!(report.text("task"), "confirmed: no task\nno task was sent");
    }
}
