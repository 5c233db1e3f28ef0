//! `sd_notify`: readiness, reload, drain and watchdog.
//!
//! The protocol is a datagram of `KEY=value` lines. It is spoken directly, over one socket opened at start:
//! the environment is read once, so that plugin hosts cannot inherit it, and telling costs one system call.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::net::SendFlags;
use rustix::time::{ClockId, clock_gettime};

use crate::config::Environment;
use crate::text;

/// How long a change of state may wait for a service manager that is behind. Status lines and watchdog pings do
/// not wait: the next one says the same.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest status line, in bytes; `systemctl status` shows one line.
const MAX_STATUS: usize = 512;

/// Tells the service manager. Without one (no `NOTIFY_SOCKET`) every method does nothing.
///
/// Failures are logged here and nowhere else: whoever notifies could do nothing about them.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, once, at start.
    ///
    /// A socket that is named and cannot be reached is logged and not used: the variable may be left over from another
    /// service (a shell that one of them started, a container's image).
    pub fn from_environment(environment: &Environment) -> Self {
        let Some(name) = environment.get("NOTIFY_SOCKET") else { return Self::default() };
        let connected = connect(name).and_then(|socket| {
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(socket)
        });
        match connected {
            Ok(socket) => Self { socket: Some(socket), watchdog: watchdog(environment, std::process::id()) },
            Err(error) => {
                tracing::warn!(
                    socket = %name.display(),
                    %error,
                    "NOTIFY_SOCKET is not usable: systemd will not learn that warrend is ready; unset it where none waits for that"
                );
                Self::default()
            }
        }
    }

    /// `READY=1`, with the status line of the moment. Also ends [`Notifier::reloading`].
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)), SendFlags::empty());
    }

    /// `RELOADING=1` with `MONOTONIC_USEC`. [`Notifier::ready`] must follow on every way out.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reloading"), SendFlags::empty());
    }

    /// `STOPPING=1`, with the status line of the moment.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)), SendFlags::empty());
    }

    /// The line that `systemctl status` shows. Never blocks.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", one_line(text)), SendFlags::DONTWAIT);
    }

    /// `WATCHDOG=1`: the loop that calls this is alive. Never blocks.
    pub fn watchdog(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1", SendFlags::DONTWAIT);
        }
    }

    /// How often [`Notifier::watchdog`] is to be called: half of what systemd allows; `None`: no watchdog.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// `EXTEND_TIMEOUT_USEC`: starting, reloading or stopping goes on for up to `time` from now.
    pub fn extend_timeout(&self, time: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", time.as_micros()), SendFlags::DONTWAIT);
    }

    fn send(&self, message: &str, flags: SendFlags) {
        let Some(socket) = &self.socket else { return };
        match rustix::net::send(socket, message.as_bytes(), flags | SendFlags::NOSIGNAL) {
            // Not an event worth a line each second: the manager is behind, and will be told again.
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) if flags.contains(SendFlags::DONTWAIT) => {}
            Err(error) => {
                let what = message.lines().next().unwrap_or_default();
                tracing::warn!(%error, what, "cannot notify systemd");
            }
        }
    }
}

/// A path, or an abstract name written with `@` first.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// The watchdog's limit, when it is meant for this process.
fn watchdog(environment: &Environment, pid: u32) -> Option<Duration> {
    let number = |name: &str| environment.text(name).map(|text| text.parse::<u64>().ok());
    match (number("WATCHDOG_USEC")??, number("WATCHDOG_PID")) {
        (0, _) => None,
        (micros, None) => Some(Duration::from_micros(micros)),
        (micros, Some(meant)) => (meant == Some(u64::from(pid))).then(|| Duration::from_micros(micros)),
    }
}

/// A newline in a status would begin another assignment.
fn one_line(status: &str) -> String {
    let mut line = text::one_line(status);
    line.truncate(line.floor_char_boundary(MAX_STATUS));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().copied().collect()
    }

    fn receive(socket: &UnixDatagram) -> String {
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).expect("a datagram");
        String::from_utf8(buffer[..length].to_vec()).expect("text")
    }

    fn assert_tells_everything(manager: &UnixDatagram, name: &str) {
        let pid = std::process::id().to_string();
        let variables = [("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", &pid)];
        let notifier = Notifier::from_environment(&environment(&variables));
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_millis(1500)));
        notifier.ready("2 queues");
        assert_eq!(receive(manager), "READY=1\nSTATUS=2 queues");
        notifier.reloading();
        let message = receive(manager);
        let micros = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("reloading");
        let micros: i64 =
            micros.strip_suffix("\nSTATUS=Reloading").expect("a status").parse().expect("a number");
        let now = clock_gettime(ClockId::Monotonic);
        assert!((0..60_000_000).contains(&(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000 - micros)));
        notifier.status("a\nREADY=1");
        assert_eq!(receive(manager), "STATUS=a READY=1");
        notifier.watchdog();
        assert_eq!(receive(manager), "WATCHDOG=1");
        notifier.extend_timeout(Duration::from_secs(5));
        assert_eq!(receive(manager), "EXTEND_TIMEOUT_USEC=5000000");
        notifier.stopping("draining");
        assert_eq!(receive(manager), "STOPPING=1\nSTATUS=draining");
    }

    #[test]
    fn a_socket_on_a_path_is_told_everything() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("a socket");
        assert_tells_everything(&manager, path.to_str().expect("text"));
    }

    #[test]
    fn an_abstract_socket_is_told_everything() {
        let name = format!("warren-test-{}-{}", std::process::id(), fastrand::u64(..));
        let address = SocketAddr::from_abstract_name(&name).expect("an address");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        assert_tells_everything(&manager, &format!("@{name}"));
    }

    #[test]
    fn without_a_service_manager_nothing_happens() {
        for variables in [&[][..], &[("NOTIFY_SOCKET", ""), ("WATCHDOG_USEC", "1000")]] {
            let notifier = Notifier::from_environment(&environment(variables));
            notifier.ready("x");
            notifier.watchdog();
            assert_eq!(notifier.watchdog_interval(), None);
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_not_used() {
        for name in ["/nonexistent/notify", "vsock:2:1234", "@warren-test-nobody-listens-here", "notify"] {
            let variables = [("NOTIFY_SOCKET", name), ("WATCHDOG_USEC", "1000")];
            let notifier = Notifier::from_environment(&environment(&variables));
            notifier.ready("x");
            assert_eq!(notifier.watchdog_interval(), None, "{name}");
        }
    }

    #[test]
    fn the_watchdog_is_fed_only_where_it_is_meant_for_this_process() {
        let table = [
            (&[("WATCHDOG_USEC", "20"), ("WATCHDOG_PID", "7")][..], Some(20)),
            (&[("WATCHDOG_USEC", "20")], Some(20)),
            (&[("WATCHDOG_USEC", "20"), ("WATCHDOG_PID", "8")], None),
            (&[("WATCHDOG_USEC", "20"), ("WATCHDOG_PID", "x")], None),
            (&[("WATCHDOG_USEC", "0")], None),
            (&[("WATCHDOG_PID", "7")], None),
        ];
        for (variables, micros) in table {
            assert_eq!(
                watchdog(&environment(variables), 7),
                micros.map(Duration::from_micros),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_manager_that_does_not_read_blocks_neither_status_nor_watchdog() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let _manager = UnixDatagram::bind(&path).expect("a socket");
        let variables = [("NOTIFY_SOCKET", path.to_str().expect("text")), ("WATCHDOG_USEC", "1000")];
        let notifier = Notifier::from_environment(&environment(&variables));
        let start = std::time::Instant::now();
        for _ in 0..2000 {
            notifier.status("more than its queue holds");
            notifier.watchdog();
        }
        assert!(start.elapsed() < PATIENCE * 5, "took {:?}", start.elapsed());
    }

    #[test]
    fn a_long_status_is_cut_at_a_character() {
        assert_eq!(one_line(&"é".repeat(400)), "é".repeat(256));
    }
}
