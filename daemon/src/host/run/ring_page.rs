//! The host's end of the ring (`host::ring`): plain stores into a page that the daemon reads after the host's
//! death.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags};

use crate::host::Seq;
use crate::host::ring::{ENDED_AT, ENTRIES, ENTRIES_AT, ENTRY_LEN, LEN, OTHER_END, PLAIN_DONE, STARTED_AT};

/// The mapped page. Never unmapped: it is to survive the process.
pub(super) struct RingPage {
    words: &'static [AtomicU64],
}

impl RingPage {
    pub(super) fn map(ring: impl AsFd) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that the daemon made `LEN`
        // long.
        let page = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                ring,
                0,
            )?
        };
        // SAFETY: the mapping is page-aligned, `LEN` bytes long, never unmapped, and only ever used as
        // atomics here.
        let words = unsafe { std::slice::from_raw_parts(page.cast::<AtomicU64>(), LEN / 8) };
        Ok(Self { words })
    }

    /// The task is about to be started.
    pub(super) fn start(&self, seq: Seq) {
        self.words[STARTED_AT / 8].store(seq, Ordering::Release);
    }

    /// The task ended; `plain_done`: done, and there is nothing to be sent.
    pub(super) fn end(&self, seq: Seq, plain_done: bool) {
        let entry = (ENTRIES_AT + (seq as usize % ENTRIES) * ENTRY_LEN) / 8;
        self.words[entry + 1].store(if plain_done { PLAIN_DONE } else { OTHER_END }, Ordering::Release);
        self.words[entry].store(seq, Ordering::Release);
        self.words[ENDED_AT / 8].store(seq, Ordering::Release);
    }
}
