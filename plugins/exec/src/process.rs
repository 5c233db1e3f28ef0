//! One run of the command: its own process group, its three pipes and its pidfd in one `poll` loop together with
//! the task's cancel fd. Nothing here waits without a bound once the command should stop, and nothing of its
//! process group is left when a run ends, however it ends.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// After the command has exited: how long its pipes may be silent before nobody is waited for any more. What is
/// in a pipe at that moment has been read; only a descendant that holds the pipe could still write.
const QUIET: Duration = Duration::from_millis(50);

/// After the command has exited: how long a descendant that keeps writing is listened to.
const DRAIN: Duration = Duration::from_secs(1);

/// Read from a pipe at once, in bytes: a quarter of what a pipe holds by default, as it stands on the stack.
const CHUNK: usize = 16 * 1024;

/// When and how a run is stopped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stop<'a> {
    /// Becomes readable when the command should stop.
    pub(crate) cancel: Option<BorrowedFd<'a>>,
    /// When it should stop in any case.
    pub(crate) deadline: Option<Instant>,
    /// From the request (SIGTERM) to the order (SIGKILL).
    pub(crate) kill_after: Duration,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The command's exit status.
    pub(crate) status: ExitStatus,
    /// It was told to stop before it had exited.
    pub(crate) stopped: bool,
}

/// Runs the command to its end. `stdin` is what it is given to read; `on_stdout` and `on_stderr` get what it
/// writes, as it comes. The error is that it could not be started, or that the system refused to wait for it.
pub(crate) fn run(
    command: &mut Command,
    stdin: Option<&[u8]>,
    stop: Stop<'_>,
    on_stdout: &mut dyn FnMut(&[u8]),
    on_stderr: &mut dyn FnMut(&[u8]),
) -> std::io::Result<Ended> {
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut process = Process::start(command)?;
    let mut input = stdin.unwrap_or_default();
    let mut state = State::Running;
    loop {
        let ready = process.poll(&state, stop)?;
        if ready.stdin {
            process.feed(&mut input);
        }
        if ready.stdout {
            pump(&mut process.stdout, on_stdout);
        }
        if ready.stderr {
            pump(&mut process.stderr, on_stderr);
        }
        state = match state {
            State::Exited { until, stopped } => {
                let over = Instant::now() >= until || !(ready.stdout || ready.stderr);
                if over || (process.stdout.is_none() && process.stderr.is_none()) {
                    return Ok(Ended { status: process.end()?, stopped });
                }
                state
            }
            _ if ready.exited => {
                State::Exited { until: Instant::now() + DRAIN, stopped: !matches!(state, State::Running) }
            }
            State::Running if ready.cancelled || stop.deadline.is_some_and(|at| Instant::now() >= at) => {
                process.signal_group(Signal::TERM);
                State::Stopping { kill_at: Instant::now() + stop.kill_after }
            }
            State::Stopping { kill_at } if Instant::now() >= kill_at => {
                process.signal_group(Signal::KILL);
                State::Killed
            }
            State::Running | State::Stopping { .. } | State::Killed => state,
        };
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
enum State {
    Running,
    /// SIGTERM was sent.
    Stopping {
        kill_at: Instant,
    },
    /// SIGKILL was sent.
    Killed,
    /// The command is a zombie; its pipes are read to their end, or `until`.
    Exited {
        until: Instant,
        stopped: bool,
    },
}

impl State {
    /// How long `poll` may wait.
    fn timeout(&self, deadline: Option<Instant>) -> Option<Duration> {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        match self {
            Self::Running => deadline.map(left),
            Self::Stopping { kill_at } => Some(left(*kill_at)),
            Self::Killed => None,
            Self::Exited { until, .. } => Some(QUIET.min(left(*until))),
        }
    }
}

/// What `poll` found. A pipe that was hung up counts as ready: reading tells.
#[derive(Debug, Default)]
struct Ready {
    exited: bool,
    cancelled: bool,
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

/// A started command, not reaped yet: its pid, and so its process group's id, cannot mean anybody else.
/// Dropping it kills the group.
struct Process {
    child: Child,
    reaped: bool,
    group: Pid,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Process {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.spawn()?;
        let group = Pid::from_child(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let opened = rustix::process::pidfd_open(group, PidfdFlags::empty()).and_then(|pidfd| {
            let fds = [
                stdin.as_ref().map(AsFd::as_fd),
                stdout.as_ref().map(AsFd::as_fd),
                stderr.as_ref().map(AsFd::as_fd),
            ];
            fds.into_iter().flatten().try_for_each(|fd| rustix::io::ioctl_fionbio(fd, true))?;
            Ok(pidfd)
        });
        match opened {
            Ok(pidfd) => Ok(Self { child, reaped: false, group, pidfd, stdin, stdout, stderr }),
            Err(error) => {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
                child.wait()?;
                Err(error.into())
            }
        }
    }

    /// Waits until something happens or the state's time is up.
    fn poll(&self, state: &State, stop: Stop<'_>) -> std::io::Result<Ready> {
        let exited = matches!(state, State::Exited { .. });
        let cancel = stop.cancel.filter(|_| matches!(state, State::Running));
        let watched = [
            (!exited).then_some((self.pidfd.as_fd(), PollFlags::IN)),
            cancel.map(|fd| (fd, PollFlags::IN)),
            self.stdin.as_ref().filter(|_| !exited).map(|pipe| (pipe.as_fd(), PollFlags::OUT)),
            self.stdout.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN)),
            self.stderr.as_ref().map(|pipe| (pipe.as_fd(), PollFlags::IN)),
        ];
        let mut fds: Vec<_> =
            watched.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = state.timeout(stop.deadline).and_then(|timeout| Timespec::try_from(timeout).ok());
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut results = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |watched: bool| watched && results.next().unwrap_or(false);
        let [exited, cancelled, stdin, stdout, stderr] = watched.map(|watch| next(watch.is_some()));
        Ok(Ready { exited, cancelled, stdin, stdout, stderr })
    }

    /// Writes what the command's stdin takes, and closes it when all is written. A command that does not read its
    /// input is its own affair: its exit status says whether that mattered.
    fn feed(&mut self, input: &mut &[u8]) {
        let Some(pipe) = &mut self.stdin else { return };
        while !input.is_empty() {
            match pipe.write(input) {
                Ok(written) => *input = &input[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.stdin = None;
    }

    fn signal_group(&self, signal: Signal) {
        // It fails only when no process of the group is left, which is what is wanted.
        let _ = rustix::process::kill_process_group(self.group, signal);
    }

    /// Ends what is left of the group, then reaps the command. In this order: as long as the command is a zombie,
    /// its group's id is not given to anybody else.
    fn end(&mut self) -> std::io::Result<ExitStatus> {
        self.signal_group(Signal::KILL);
        self.reaped = true;
        self.child.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.end();
        }
    }
}

/// Reads once from a pipe; closes it at its end.
fn pump(pipe: &mut Option<impl Read>, on_bytes: &mut dyn FnMut(&[u8])) {
    let Some(reader) = pipe else { return };
    let mut buffer = [0; CHUNK];
    match reader.read(&mut buffer) {
        Ok(0) => *pipe = None,
        Ok(read) => on_bytes(&buffer[..read]),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// What a test waits for at most; far above what it takes.
    const BOUND: Duration = Duration::from_secs(20);

    struct Ran {
        status: ExitStatus,
        stopped: bool,
        stdout: String,
        took: Duration,
    }

    /// Runs a shell script; it is cancelled when it prints `ready`.
    fn run_script(
        script: &str,
        stdin: Option<&[u8]>,
        kill_after: Duration,
        deadline: Option<Duration>,
    ) -> Ran {
        let (cancel, mut asked) = std::io::pipe().expect("a pipe");
        let started = Instant::now();
        let stop = Stop {
            cancel: Some(cancel.as_fd()),
            deadline: Some(started + deadline.unwrap_or(BOUND)),
            kill_after,
        };
        let mut stdout = String::new();
        let mut on_stdout = |bytes: &[u8]| {
            if stdout.len() < 100_000 {
                stdout.push_str(&String::from_utf8_lossy(bytes));
            }
            if stdout == "ready\n" {
                asked.write_all(b"x").expect("the pipe has room");
            }
        };
        let mut command = Command::new("/bin/sh");
        let ended =
            run(command.arg("-c").arg(script), stdin, stop, &mut on_stdout, &mut |_| {}).expect("sh runs");
        Ran { status: ended.status, stopped: ended.stopped, stdout, took: started.elapsed() }
    }

    fn pid(text: &str) -> Pid {
        Pid::from_raw(text.trim().parse().expect("a pid")).expect("not 0")
    }

    /// Whether the process ends within the bound. It may be gone altogether.
    fn ends(pid: Pid) -> bool {
        let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return true };
        let timeout = Timespec::try_from(BOUND).expect("fits");
        rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) == Ok(1)
    }

    #[test]
    fn stdin_stdout_and_exit_status_pass_through() {
        let big = b"0123456789abcdef".repeat(20_000);
        let ran = run_script("wc -c; exit 7", Some(&big), BOUND, None);
        assert_eq!((ran.stdout.trim(), ran.status.code(), ran.stopped), ("320000", Some(7), false));
    }

    #[test]
    fn a_command_that_does_not_read_its_stdin_ends_as_it_likes() {
        let big = vec![b'x'; 1 << 20];
        let ran = run_script("exec 0<&-; echo done", Some(&big), BOUND, None);
        assert_eq!((ran.stdout.trim(), ran.status.code()), ("done", Some(0)));
    }

    #[test]
    fn cancel_sends_sigterm_to_the_whole_group() {
        let ran = run_script("sleep 1000 & echo ready; wait", None, BOUND, None);
        assert_eq!((ran.status.signal(), ran.stopped), (Some(15), true));
        assert!(ran.took < BOUND, "{:?}", ran.took);
    }

    #[test]
    fn a_command_that_ignores_sigterm_is_killed() {
        let ran =
            run_script("trap '' TERM; echo ready; while :; do sleep 1000; done", None, Duration::ZERO, None);
        assert_eq!((ran.status.signal(), ran.stopped), (Some(9), true));
    }

    #[test]
    fn the_deadline_stops_like_a_cancel() {
        let ran = run_script("sleep 1000", None, BOUND, Some(Duration::from_millis(50)));
        assert_eq!((ran.status.signal(), ran.stopped), (Some(15), true));
    }

    #[test]
    fn a_command_that_exits_0_on_sigterm_was_stopped() {
        let ran = run_script("trap 'exit 0' TERM; sleep 1000 & echo ready; wait", None, BOUND, None);
        assert_eq!((ran.status.code(), ran.stopped), (Some(0), true));
    }

    #[test]
    fn what_is_left_of_the_group_is_killed_when_the_command_exits() {
        let ran = run_script("sleep 1000 & echo $!", None, BOUND, None);
        assert_eq!((ran.status.code(), ran.stopped), (Some(0), false));
        assert!(ends(pid(&ran.stdout)), "the background process outlived the command");
    }

    #[test]
    fn a_descendant_that_holds_stdout_open_holds_nothing_up() {
        let ran = run_script("setsid sleep 1000 & echo $!", None, BOUND, None);
        let escaped = pid(&ran.stdout);
        rustix::process::kill_process(escaped, Signal::KILL).expect("it left the group, so it still runs");
        assert!(ran.took < BOUND / 2, "{:?}", ran.took);
        assert!(ends(escaped));
    }

    #[test]
    fn a_descendant_that_never_stops_writing_holds_nothing_up() {
        let ran = run_script("echo $$; (while :; do echo x; done) & exit 3", None, BOUND, None);
        assert_eq!(ran.status.code(), Some(3));
        assert!(ran.took < BOUND / 2, "{:?}", ran.took);
    }

    #[test]
    fn all_output_of_a_command_that_exits_at_once_is_read() {
        let ran = run_script("head -c 90000 /dev/zero | tr '\\0' x", None, BOUND, None);
        assert_eq!((ran.stdout.len(), ran.status.code()), (90_000, Some(0)));
    }
}
