//! journald's native protocol: one datagram of named fields per record. Written here rather than through a
//! `tracing` layer, because the layers send from the thread that logs, and a journal that is behind would hold up
//! the data path.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::Level;

use super::record::Record;
use crate::config::Environment;

/// Where journald listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// journald's bound on the length of a field's name.
const MAX_NAME: usize = 64;

/// A connection to the journal.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

/// Whether stderr leads to the journal: systemd names the device and inode of the stream it connected.
pub(super) fn is_stderr(environment: &Environment) -> bool {
    let Some((device, inode)) = environment.get("JOURNAL_STREAM").and_then(|s| s.split_once(':')) else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

impl Journal {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Sends one record. When journald has restarted meanwhile, it is connected to anew; an error means that the
    /// record is lost.
    pub(super) fn send(&mut self, record: &Record) -> io::Result<()> {
        let datagram = encode(record);
        if self.socket.send(&datagram).is_ok() {
            return Ok(());
        }
        *self = Self::connect(&self.path)?;
        self.socket.send(&datagram).map(drop)
    }
}

fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let priority = match record.level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    put(&mut out, "MESSAGE", &record.message);
    put(&mut out, "PRIORITY", priority);
    put(&mut out, "SYSLOG_IDENTIFIER", "warrend");
    put(&mut out, "TARGET", record.target);
    record.each_field(|name, value| put(&mut out, &field_name("", name), value));
    for (name, value) in &record.foreign {
        put(&mut out, &field_name("F_", name), value);
    }
    out
}

/// The form that holds any value, newlines included: name, newline, 64-bit little-endian length, value, newline.
fn put(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// A name that journald accepts: capitals, digits and `_`, a letter first.
fn field_name(prefix: &str, name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let name: String = name.chars().map(clean).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphabetic() && prefix.is_empty());
    let name = if name.is_empty() { "FIELD" } else { name };
    prefix.chars().chain(name.chars()).take(MAX_NAME).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_are_what_journald_accepts() {
        let table = [
            ("", "duration_ms", "DURATION_MS"),
            ("", "log.target", "LOG_TARGET"),
            ("", "_1a", "A"),
            ("", "é", "FIELD"),
            ("F_", "message", "F_MESSAGE"),
            ("F_", "1", "F_1"),
            ("F_", "", "F_FIELD"),
        ];
        for (prefix, name, expected) in table {
            assert_eq!(field_name(prefix, name), expected);
        }
        assert_eq!(field_name("F_", &"x".repeat(100)).len(), 64);
    }

    #[test]
    fn only_a_stream_that_is_stderr_counts() {
        let environment = |value: &str| Environment::from([("JOURNAL_STREAM".to_owned(), value.to_owned())]);
        let stat = rustix::fs::fstat(std::io::stderr()).expect("stderr is open");
        assert!(is_stderr(&environment(&format!("{}:{}", stat.st_dev, stat.st_ino))));
        for other in [format!("{}:{}", stat.st_dev, stat.st_ino + 1), String::new(), "x:y".to_owned()] {
            assert!(!is_stderr(&environment(&other)), "{other}");
        }
        assert!(!is_stderr(&Environment::new()));
    }
}
