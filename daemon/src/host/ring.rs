//! What a host started and ended, in a page of memory that survives it. The host maps the page and stores
//! into it (`run::ring_page`); the daemon reads it with `pread` once the host is dead, so that only the task
//! that was running pays for the death. Reports alone cannot tell: they are written in batches, and a batch
//! dies with its host.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::MemfdFlags;

use super::Seq;

/// Bytes of the page that are used.
pub(super) const LEN: usize = ENTRIES_AT + ENTRIES * ENTRY_LEN;
/// Tasks remembered: twice what may be queued in one host, so that none of those is ever overwritten.
pub(super) const ENTRIES: usize = 2 * super::QUEUE_LIMIT;
/// Offset of the highest sequence number started.
pub(super) const STARTED_AT: usize = 0;
/// Offset of the highest sequence number ended.
pub(super) const ENDED_AT: usize = 8;
/// Offset of the entries: the task `seq` uses entry `seq % ENTRIES`.
pub(super) const ENTRIES_AT: usize = 64;
/// An entry: the sequence number, then one word that is [`PLAIN_DONE`] or not.
pub(super) const ENTRY_LEN: usize = 16;
/// The task is done and has neither follow-ups nor a result that is waited for: nothing is missing to settle it.
pub(super) const PLAIN_DONE: u64 = 1;
/// Any other end.
pub(super) const OTHER_END: u64 = 2;

/// What the page says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct RingContents {
    /// Highest task started; 0: none.
    pub(super) started: Seq,
    /// Highest task ended; 0: none.
    pub(super) ended: Seq,
    /// The remembered tasks that are done and left nothing to be sent, in order.
    pub(super) plain_done: Vec<Seq>,
}

impl RingContents {
    /// What it says, as far as a host that was given `sent` tasks can say it: a handler may have written over the page.
    pub(super) fn within(self, sent: Seq) -> Self {
        if self.ended <= self.started && self.started <= sent { self } else { Self::default() }
    }
}

/// Makes the page.
pub(super) fn create() -> std::io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("warren-ring", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, LEN as u64)?;
    Ok(fd)
}

/// Reads the two counters only: started, ended.
pub(super) fn counters(fd: impl AsFd) -> std::io::Result<(Seq, Seq)> {
    let mut page = [0; ENDED_AT + 8];
    read_exact(fd, &mut page)?;
    Ok((word(&page, STARTED_AT), word(&page, ENDED_AT)))
}

/// Reads it all. Sensible only once the host is dead.
pub(super) fn read(fd: impl AsFd) -> std::io::Result<RingContents> {
    let mut page = [0; LEN];
    read_exact(fd, &mut page)?;
    let (started, ended) = (word(&page, STARTED_AT), word(&page, ENDED_AT));
    let mut plain_done: Vec<Seq> = (0..ENTRIES)
        .map(|i| ENTRIES_AT + i * ENTRY_LEN)
        .filter(|&at| word(&page, at + 8) == PLAIN_DONE)
        .map(|at| word(&page, at))
        .filter(|&seq| seq > 0 && seq <= ended)
        .collect();
    plain_done.sort_unstable();
    Ok(RingContents { started, ended, plain_done })
}

fn word(page: &[u8], at: usize) -> u64 {
    page[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn read_exact(fd: impl AsFd, page: &mut [u8]) -> std::io::Result<()> {
    match rustix::io::pread(fd, &mut *page, 0)? {
        n if n == page.len() => Ok(()),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_page_says_that_nothing_happened() {
        assert_eq!(read(create().unwrap()).unwrap(), RingContents::default());
    }

    #[test]
    fn a_page_that_cannot_be_true_says_nothing() {
        let contents = |started, ended| RingContents { started, ended, plain_done: vec![1] };
        for (started, ended, sent, is_true) in
            [(0, 0, 0, true), (3, 2, 3, true), (3, 3, 9, true), (4, 3, 3, false), (2, 3, 9, false)]
        {
            let expected = if is_true { contents(started, ended) } else { RingContents::default() };
            assert_eq!(contents(started, ended).within(sent), expected, "{started} {ended} {sent}");
        }
    }

    #[test]
    fn entries_above_the_ended_counter_and_other_ends_do_not_count() {
        let fd = create().unwrap();
        let mut page = [0_u8; LEN];
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(STARTED_AT, 36);
        put(ENDED_AT, 35);
        for (seq, end) in [(33, PLAIN_DONE), (34, OTHER_END), (35, PLAIN_DONE), (36, PLAIN_DONE)] {
            let at = ENTRIES_AT + (seq as usize % ENTRIES) * ENTRY_LEN;
            put(at, seq);
            put(at + 8, end);
        }
        rustix::io::pwrite(&fd, &page, 0).unwrap();
        assert_eq!(counters(&fd).unwrap(), (36, 35));
        assert_eq!(read(&fd).unwrap(), RingContents { started: 36, ended: 35, plain_done: vec![33, 35] });
    }
}
