//! Which files some process has open, as far as /proc shows: of every process to root, else of the own user's. What cannot
//! be seen is a file that another user's process has open, one open on another machine, and one that is only mapped.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::{fs, io};

use rustix::fs::Statx;

/// The open files there were when they were first asked for in a run.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(Option<HashSet<(u64, u64)>>);

impl OpenFiles {
    /// Whether a process has this file open.
    pub(crate) fn contain(&mut self, stat: &Statx) -> bool {
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        self.0.get_or_insert_with(look).contains(&(device, stat.stx_ino))
    }
}

/// Device and inode of each. A process that ends meanwhile is none that has a file open.
fn look() -> HashSet<(u64, u64)> {
    let mut open = HashSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit)) {
        let descriptors = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        open.extend(descriptors.filter_map(|descriptor| regular(&descriptor.path()).ok()?));
    }
    open
}

/// Device and inode of what a descriptor is open on, if that has a name in the file system.
fn regular(descriptor: &std::path::Path) -> io::Result<Option<(u64, u64)>> {
    if !fs::read_link(descriptor)?.as_os_str().as_bytes().starts_with(b"/") {
        return Ok(None);
    }
    let metadata = fs::metadata(descriptor)?;
    Ok(metadata.is_file().then(|| (metadata.dev(), metadata.ino())))
}
