//! What a fresh host does before it loads anything: leave the daemon's signals, descriptors and limits
//! behind, and fetch its own.

use std::ffi::{CString, OsStr};
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Resource, Rlimit, Signal};

use super::input::RequestReader;
use super::rlimits;
use crate::host::frame::Init;
use crate::host::spawn::{ARGV0_PREFIX, HELLO};

unsafe extern "C" {
    /// The C library's standard output, shared with every C handler.
    static stdout: *mut libc::FILE;
}

/// A host's own descriptors.
pub(super) struct Channel {
    /// Frames, both ways.
    pub(super) socket: OwnedFd,
    /// The sealed plugin. Must stay open for the life of the process: glibc caches libraries by name, and the
    /// next library under this number would be the old one.
    pub(super) plugin: OwnedFd,
    pub(super) ring: OwnedFd,
    /// Cancels.
    pub(super) control: OwnedFd,
    /// The frames' reader, the initial one read already.
    pub(super) input: RequestReader,
}

/// Lowest number for a host's own descriptors: handlers get the low ones, which is what they are used to.
const OWN_FDS_FROM: u64 = 100;
/// Descriptors that a host has itself, and some: where the daemon's limit is low, they are the last below it.
const OWN_FDS: u64 = 16;

/// Moves a descriptor of ours out of the handlers' way, as far as the limit that holds now allows it.
pub(super) fn move_up(fd: impl AsFd) -> io::Result<OwnedFd> {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let from = OWN_FDS_FROM.min(limit.saturating_sub(OWN_FDS)).max(3);
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, from as i32)?)
}

/// Standard input of a host that could not be set up: the daemon's socket, for saying why.
pub(super) fn socket_of_a_new_host() -> OwnedFd {
    // SAFETY: the process ends next, and nothing else of it uses standard input, which `prepare` replaces last of all.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Whether the arguments are those of a host: nothing but `argv[0]`, which names it.
pub(super) fn is_host() -> bool {
    let mut args = std::env::args_os();
    let name = args.next();
    let is_host = |name: &OsStr| name.as_bytes().starts_with(ARGV0_PREFIX.as_bytes());
    args.next().is_none() && name.is_some_and(|name| is_host(&name))
}

/// Leaves the daemon behind and fetches the descriptors and the initial frame.
pub(super) fn prepare() -> io::Result<(Channel, Init)> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    default_signals();
    // SAFETY: this process owns no descriptor but its standard streams yet; what else is open was inherited.
    unsafe { close_from(3) };
    let (plugin, ring, control) = receive_descriptors()?;
    let socket = move_up(rustix::stdio::stdin())?;
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    line_buffered_stdout();
    let mut input = RequestReader::new(move_up(&socket)?);
    let init = input.init()?;
    // Had the daemon ended before the death signal was asked for, it would never come.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32) != Some(init.parent) {
        return Err(io::Error::other("the daemon that started it is gone"));
    }
    rlimits::set(&init)?;
    let name = CString::new(format!("warren:{}", init.handler)).unwrap_or_default();
    rustix::thread::set_name(&name)?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok((Channel { socket, plugin, ring, control, input }, init))
}

/// Writes a line to the log by way of standard error; when that is closed, too, nobody is left to read it.
pub(super) fn complain(what: &str) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Ends the process at once: no destructors, no `atexit`, which are a plugin's code.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` touches no memory of this process.
    unsafe { libc::_exit(code) }
}

/// Writes out what a C handler printed without a newline.
pub(super) fn flush_stdout() {
    // SAFETY: `stdout` is the C library's, initialised before `main`; `fflush` locks it.
    unsafe { libc::fflush(stdout) };
}

/// A pipe makes C's standard output fully buffered: lines would reach the log much later than they were
/// printed.
fn line_buffered_stdout() {
    // SAFETY: nothing has been written to `stdout` yet; a null buffer lets the C library allocate one.
    unsafe { libc::setvbuf(stdout, std::ptr::null_mut(), libc::_IOLBF, 0) };
}

/// Ignored signals survive an exec, and so the daemon's parent decides. Handlers get the defaults, except for
/// `SIGPIPE` (see the module) and for the two that report a stack overflow.
fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        if matches!(signal, libc::SIGPIPE | libc::SIGSEGV | libc::SIGBUS | libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // SAFETY: the default disposition runs no code of ours; the C library refuses the signals it keeps
        // for itself.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// # Safety
/// Nothing in this process owns a descriptor from `first` on.
unsafe fn close_from(first: u32) {
    // SAFETY: the caller's promise.
    unsafe { libc::close_range(first, u32::MAX, 0) };
}

/// The spawner's first message on standard input: a fixed word, with the plugin, the ring and the control
/// socket.
fn receive_descriptors() -> io::Result<(OwnedFd, OwnedFd, OwnedFd)> {
    let mut word = [0; HELLO.len()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut iov = [IoSliceMut::new(&mut word)];
    rustix::net::recvmsg(rustix::stdio::stdin(), &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let mut fds = fds.next().into_iter().flatten();
    let mut next = || -> io::Result<OwnedFd> {
        let fd = fds.next().ok_or_else(|| io::Error::other("it was not started by a Warren daemon"))?;
        move_up(fd)
    };
    let (plugin, ring, control) = (next()?, next()?, next()?);
    if word != *HELLO {
        return Err(io::Error::other("it was not started by a Warren daemon"));
    }
    Ok((plugin, ring, control))
}
