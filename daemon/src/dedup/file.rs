//! One segment on disk: a magic word, then a record for each fingerprint, 16 bytes of it and 8 of its time, both
//! little-endian. Records are only appended, their times never fall. What does not fit that is damage, from the end of
//! the machine or of the disk's room: what stands before it is used.

use std::fs::File;
use std::io::{self, BufReader, Read as _};
use std::path::Path;
use std::time::Duration;

use super::window::Segment;

/// What a file begins with.
pub(super) const MAGIC: [u8; 16] = *b"warren: done 1\n\0";
/// Bytes of a record.
pub(super) const RECORD: usize = 24;
/// How far a record's time may be ahead of the clock: it may have been set back, but no further than this.
const SKEW: Duration = Duration::from_secs(24 * 3600);

/// What a file holds.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) segment: Segment,
    /// Bytes that could be read; what is after them cannot.
    pub(super) good: u64,
    /// How many bytes cannot.
    pub(super) bad: u64,
}

pub(super) fn record(fingerprint: u128, at: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..16].copy_from_slice(&fingerprint.to_le_bytes());
    record[16..].copy_from_slice(&at.to_le_bytes());
    record
}

/// Where a file of this length can be continued.
pub(super) fn whole_records(length: u64) -> u64 {
    let (head, record) = (MAGIC.len() as u64, RECORD as u64);
    length.checked_sub(head).map_or(0, |records| head + records / record * record)
}

/// Reads a file, as far as it can be read.
pub(super) fn read(path: &Path, number: u64, now: u64) -> io::Result<SegmentFile> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut segment = Segment { number, ..Segment::default() };
    let mut good = 0;
    let mut magic = [0; MAGIC.len()];
    if length >= MAGIC.len() as u64 {
        file.read_exact(&mut magic)?;
    }
    if magic == MAGIC {
        good = MAGIC.len() as u64;
        let latest = now.saturating_add(SKEW.as_millis() as u64);
        let mut record = [0; RECORD];
        for _ in 0..(length - good) / RECORD as u64 {
            file.read_exact(&mut record)?;
            let (fingerprint, at) = parse(&record);
            if at < segment.newest.max(1) || at > latest {
                break;
            }
            if segment.fingerprints.is_empty() {
                segment.first = at;
            }
            segment.newest = at;
            segment.fingerprints.insert(fingerprint);
            good += RECORD as u64;
        }
    }
    Ok(SegmentFile { segment, good, bad: length - good })
}

fn parse(record: &[u8; RECORD]) -> (u128, u64) {
    let [fingerprint @ .., t0, t1, t2, t3, t4, t5, t6, t7] = *record;
    (u128::from_le_bytes(fingerprint), u64::from_le_bytes([t0, t1, t2, t3, t4, t5, t6, t7]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn written(records: &[(u128, u64)], tail: &[u8]) -> SegmentFile {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.1");
        let mut bytes = MAGIC.to_vec();
        bytes.extend(records.iter().flat_map(|(fingerprint, at)| record(*fingerprint, *at)));
        bytes.extend(tail);
        std::fs::write(&path, bytes).unwrap();
        read(&path, 1, NOW).unwrap()
    }

    #[test]
    fn what_was_written_is_read() {
        let found = written(&[(1, NOW - 9), (u128::MAX, NOW - 9), (2, NOW)], &[]);
        let Segment { number, first, newest, fingerprints } = found.segment;
        assert_eq!((number, first, newest, fingerprints.len()), (1, NOW - 9, NOW, 3));
        assert!(fingerprints.contains(&u128::MAX));
        assert_eq!((found.good, found.bad), (16 + 3 * 24, 0));
    }

    #[test]
    fn a_damaged_end_costs_what_is_damaged() {
        let garbage = [0xA5; 60];
        let lower = [record(3, NOW - 8).as_slice(), record(4, NOW).as_slice()].concat();
        let tails = [&[0; 23][..], &[0; 48], &garbage, &lower, &record(3, NOW * 2)];
        for tail in tails {
            let found = written(&[(1, NOW - 9), (2, NOW - 7)], tail);
            assert_eq!(found.segment.fingerprints.len(), 2, "{tail:?}");
            assert_eq!((found.good, found.bad), (16 + 2 * 24, tail.len() as u64), "{tail:?}");
        }
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_bad_from_its_beginning() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("q.1");
        for text in ["", "short", "long enough, but something else altogether"] {
            std::fs::write(&path, text).unwrap();
            let found = read(&path, 1, NOW).unwrap();
            assert_eq!((found.good, found.bad), (0, text.len() as u64));
            assert!(found.segment.fingerprints.is_empty());
        }
    }

    #[test]
    fn a_file_is_continued_behind_its_last_whole_record() {
        for (length, whole) in [(0, 0), (15, 0), (16, 16), (39, 16), (40, 40), (63, 40), (64, 64)] {
            assert_eq!(whole_records(length), whole, "{length}");
        }
    }
}
