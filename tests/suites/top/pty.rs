//! A program on a pseudo-terminal, and the picture it makes there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::num::NonZero;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use warren_tests::wait;

/// How soon the reader notices that it is to stop.
const TICK: Duration = Duration::from_millis(20);

/// A program in a session of its own, with the terminal as its controlling one.
pub(crate) struct Pty {
    program: Child,
    master: Arc<File>,
    before: Termios,
    picture: Arc<Mutex<vt100::Parser>>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Pty {
    /// Starts a program on a terminal of 24 lines and 80 columns.
    pub(crate) fn start(words: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
            .expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("its other end");
        let name = ptsname(&master, Vec::new()).expect("its name").into_string().expect("UTF-8");
        let slave = OpenOptions::new().read(true).write(true).open(name).expect("its other end");
        let before = tcgetattr(&slave).expect("its modes");
        let end = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let mut command = Command::new("setsid");
        command.arg("--ctty").args(words).env("TERM", "xterm-256color");
        let picture = Arc::new(Mutex::new(vt100::Parser::default()));
        let master = Arc::new(File::from(master));
        set_size(&master, 24, 80);
        let program = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid");
        let stop = Arc::new(AtomicBool::new(false));
        let reader = std::thread::spawn({
            let (master, picture, stop) = (Arc::clone(&master), Arc::clone(&picture), Arc::clone(&stop));
            move || read(&master, &picture, &stop)
        });
        Self { program, master, before, picture, stop, reader: Some(reader) }
    }

    /// What the terminal shows.
    pub(crate) fn picture(&self) -> MutexGuard<'_, vt100::Parser> {
        self.picture.lock().expect("a picture")
    }

    /// Waits until the terminal shows all of these.
    pub(crate) fn wait(&self, parts: &[&str]) {
        let shown = || self.picture().screen().contents();
        let found =
            wait::ask_within(wait::BOUND, || parts.iter().all(|part| shown().contains(part)).then_some(()));
        assert!(found.is_some(), "not all of {parts:?} in\n{}", shown());
    }

    /// Types keys.
    pub(crate) fn keys(&self, keys: &str) {
        (&*self.master).write_all(keys.as_bytes()).expect("keys");
    }

    /// Changes the terminal's size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let some = |count| NonZero::new(count).expect("a size");
        self.picture().screen_mut().set_size(some(rows), some(columns));
        set_size(&self.master, rows, columns);
    }

    /// Sends the program a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.program.id()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("a signal");
    }

    /// Waits until the program has ended.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        wait::until("the program ends", || self.program.try_wait().expect("a child"))
    }

    /// Whether the terminal is as it was before the program: main screen, cursor, modes.
    pub(crate) fn assert_given_back(&self) {
        wait::until("the terminal is given back", || {
            let parser = self.picture();
            let screen = parser.screen();
            (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())
        });
        let now = tcgetattr(&*self.master).expect("its modes");
        assert_eq!(
            (now.input_modes, now.output_modes, now.local_modes),
            (self.before.input_modes, self.before.output_modes, self.before.local_modes)
        );
    }

    /// Closes the terminal's other end, as a connection that breaks does.
    pub(crate) fn hang_up(&mut self) {
        self.stop_reader();
        let gone = Arc::new(File::open("/dev/null").expect("/dev/null"));
        drop(std::mem::replace(&mut self.master, gone));
    }

    fn stop_reader(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader");
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        // It has ended already if the test came to its end.
        let _ = self.program.kill();
        let _ = self.program.wait();
        self.stop_reader();
    }
}

fn set_size(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).expect("a size");
}

fn read(mut master: &File, picture: &Mutex<vt100::Parser>, stop: &AtomicBool) {
    let mut bytes = [0; 4096];
    let tick = Timespec { tv_sec: 0, tv_nsec: TICK.as_nanos() as _ };
    while !stop.load(Ordering::Relaxed) {
        let ready = poll(&mut [PollFd::new(&master, PollFlags::IN)], Some(&tick)).expect("a poll");
        if ready == 0 {
            continue;
        }
        // When nobody has the other end open any more it is EIO.
        let Ok(count) = master.read(&mut bytes) else { return };
        picture.lock().expect("a picture").process(&bytes[..count]);
    }
}
