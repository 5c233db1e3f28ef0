//! Whatever the start finds (environment, arguments, descriptors, limits, files), `warrend` does not panic: it starts,
//! or it ends with the exit code that says why.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The exit code of a daemon that started and has no broker.
const STARTED: i32 = 69;
const REFUSED: i32 = 78;

/// A directory with a configuration in it whose broker is away.
struct Bed {
    directory: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { directory: tempfile::tempdir().unwrap() };
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        fs::create_dir(bed.path("plugins")).unwrap();
        let config = format!(
            "[broker]\nuri = \"amqp://u:p@{unused}/%2f\"\n[queues.q]\n[plugins]\ndir = \"plugins\"\n\
             [daemon]\nsocket = \"control.sock\"\nstate_dir = \"state\"\nstart_wait = \"100ms\"\nrequire_broker = true\n\
             [log]\ntarget = \"stderr\"\n"
        );
        fs::write(bed.path("warren.toml"), config).unwrap();
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The daemon, by way of a command that ends by executing what is appended to it.
    fn launch(&self, launcher: &[&str]) -> Command {
        let mut command = Command::new(launcher.first().copied().unwrap_or(env!("CARGO_BIN_EXE_warrend")));
        if !launcher.is_empty() {
            command.args(&launcher[1..]).arg(env!("CARGO_BIN_EXE_warrend"));
        }
        command.arg("--config").arg(self.path("warren.toml")).stdin(Stdio::null());
        command
    }

    fn daemon(&self) -> Command {
        self.launch(&[])
    }
}

fn bytes(text: &[u8]) -> OsString {
    OsStr::from_bytes(text).to_owned()
}

#[track_caller]
fn assert_ends(what: &str, output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked"), "{what}: {text}");
    assert_eq!(output.status.code(), Some(code), "{what}: {} {text}", output.status);
    for part in parts {
        assert!(text.contains(part), "{what} names {part}: {text}");
    }
}

#[test]
fn variables_that_are_no_text_keep_nobody_from_starting_but_warrens_own_are_named() {
    let bed = Bed::new();
    let odd = bytes(b"/caf\xe9");
    for name in [
        "X",
        "HOME",
        "XDG_CONFIG_HOME",
        "PATH",
        "TZ",
        "LANG",
        "TMPDIR",
        "NO_COLOR",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "LISTEN_PID",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "RUNTIME_DIRECTORY",
        "STATE_DIRECTORY",
        "CREDENTIALS_DIRECTORY",
        "RUST_LOG",
        "SSL_CERT_FILE",
        "WARREN_",
        "WARREN_X",
    ] {
        let output = bed.daemon().env(name, &odd).output().unwrap();
        assert_ends(name, &output, STARTED, &[]);
    }
    let output = bed.daemon().env(bytes(b"caf\xe9"), "x").output().unwrap();
    assert_ends("an odd name", &output, STARTED, &[]);
    for (name, value, parts) in [
        (&b"WARREN_BROKER__URI"[..], &b"\xe9"[..], ["WARREN_BROKER__URI", "is not UTF-8"]),
        (b"WARREN_HANDLERS__X__SETTINGS__Y", b"\xe9", ["WARREN_HANDLERS__X__SETTINGS__Y", "is not UTF-8"]),
        (b"WARREN_BROKER__UR\xe9", b"x", ["WARREN_BROKER__UR", "unknown key"]),
    ] {
        let output = bed.daemon().env(bytes(name), bytes(value)).output().unwrap();
        assert_ends(&parts.join(" "), &output, REFUSED, &parts);
    }
}

#[test]
fn a_notify_socket_that_leads_nowhere_is_warned_of_and_no_more() {
    let bed = Bed::new();
    for name in
        [&b"/nonexistent/notify"[..], b"@nobody-listens-here", b"vsock:2:1", b"/\xff", b"x", &[b'/'; 200]]
    {
        let output = bed.daemon().env("NOTIFY_SOCKET", bytes(name)).output().unwrap();
        assert_ends("NOTIFY_SOCKET", &output, STARTED, &["WARN", "NOTIFY_SOCKET is not usable"]);
    }
}

#[test]
fn arguments_and_files_of_any_kind_are_refused_by_name() {
    let bed = Bed::new();
    let file = |name: &str, text: &[u8]| {
        fs::write(bed.path(name), text).unwrap();
        bed.path(name).into_os_string()
    };
    fs::create_dir(bed.path("beside")).unwrap();
    fs::write(bed.path("beside/conf.d"), "no directory").unwrap();
    let beside = file("beside/warren.toml", b"[queues.q]\n");
    let latin1 = file("latin1.toml", b"[queues.q]\n# caf\xe9\n");
    let directory = bed.path("plugins").into_os_string();
    let config = || OsString::from("--config");
    let table = [
        (vec![bytes(b"--\xff")], "Usage"),
        (vec!["--colour".into()], "Usage"),
        (vec![config()], "--config"),
        (vec![config(), bytes(b"/caf\xe9")], "cannot read"),
        (vec![config(), "".into()], "--config"),
        (vec![config(), directory], "plugins: cannot read"),
        (vec![config(), beside], "conf.d: cannot read"),
        (vec![config(), latin1], "latin1.toml:2: is not UTF-8"),
        (vec![config(), "/dev/zero".into()], "over 4 MiB"),
    ];
    for (arguments, part) in table {
        let output = Command::new(env!("CARGO_BIN_EXE_warrend")).args(&arguments).output().unwrap();
        assert_ends(&format!("{arguments:?}"), &output, REFUSED, &[part]);
    }
}

/// A program whose standard error takes nothing, in each way that there is.
fn muted(program: &str) -> [(&'static str, Command); 4] {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", program]);
        command
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut broken = Command::new(program);
    broken.stderr(writer);
    [
        ("closed", shell("exec \"$@\" 2>&-")),
        ("all closed", shell("exec \"$@\" <&- >&- 2>&-")),
        ("full", shell("exec \"$@\" 2>/dev/full")),
        ("a broken pipe", broken),
    ]
}

#[test]
fn the_exit_code_is_the_same_when_standard_error_takes_nothing() {
    let bed = Bed::new();
    let bad = bed.path("bad.toml");
    fs::write(&bad, "[queues.q]\nprefetch = 0\n").unwrap();
    let (good, bad) = (bed.path("warren.toml"), bad.as_path());
    let (warrend, warrenctl) = (env!("CARGO_BIN_EXE_warrend"), env!("CARGO_BIN_EXE_warrenctl"));
    let table: [(&str, &[&str], &Path, i32); 4] = [
        (warrend, &["--colour"], bad, REFUSED),
        (warrend, &[], bad, REFUSED),
        (warrend, &[], &good, STARTED),
        (warrenctl, &["config", "check"], bad, REFUSED),
    ];
    for (program, arguments, config, code) in table {
        for (what, mut command) in muted(program) {
            let status = command.args(arguments).arg("--config").arg(config).status().unwrap();
            assert_eq!(status.code(), Some(code), "{what}: {program} {arguments:?}");
        }
    }
}

#[test]
fn a_pipe_that_nobody_reads_does_not_hold_up_a_refusal() {
    let bed = Bed::new();
    let (_reader, writer) = std::io::pipe().unwrap();
    // More errors than a pipe holds.
    let table = |n: usize| format!("[queues.\"{n}-{}\"]\nprefetch = 0\n", "q".repeat(200));
    fs::write(bed.path("warren.toml"), (0..900).map(table).collect::<String>()).unwrap();
    let status = bed.daemon().stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(REFUSED));
}

#[test]
fn a_working_directory_that_is_gone_and_no_proc_keep_nobody_from_starting() {
    let bed = Bed::new();
    let script = format!("mkdir {0:?} && cd {0:?} && rmdir {0:?} && exec \"$@\"", bed.path("gone"));
    let output = bed.launch(&["sh", "-c", &script, "sh"]).output().unwrap();
    assert_ends("no working directory", &output, STARTED, &[]);
    if rustix::process::geteuid().is_root() {
        let hide = ["unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"];
        assert_ends("no /proc", &bed.launch(&hide).output().unwrap(), STARTED, &[]);
    }
}

#[test]
fn limits_that_leave_too_little_are_an_error_and_no_panic() {
    let bed = Bed::new();
    let codes = |what: &str, output: &Output, codes: &[i32]| {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("panicked"), "{what}: {text}");
        assert!(
            output.status.code().is_some_and(|code| codes.contains(&code)),
            "{what}: {} {text}",
            output.status
        );
    };
    // The loader of shared libraries needs one descriptor more than the three.
    for files in (4..=24).chain([63, 64, 65]) {
        let output = bed.launch(&["prlimit", &format!("--nofile={files}:{files}")]).output().unwrap();
        codes(&format!("{files} files"), &output, &[if files < 64 { REFUSED } else { STARTED }]);
    }
    codes("no file size", &bed.launch(&["prlimit", "--fsize=0"]).output().unwrap(), &[STARTED]);
    // Root has no limit on processes, and another user's would count what else runs: so a user that nobody is.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let program = bed.path("warrend");
    fs::copy(env!("CARGO_BIN_EXE_warrend"), &program).unwrap();
    fs::set_permissions(bed.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let user = (1 << 20) + std::process::id();
    for processes in 1..=8 {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
        command.args(["prlimit".to_owned(), format!("--nproc={processes}:{processes}")]).arg(&program);
        let output = command.arg("--config").arg(bed.path("warren.toml")).output().unwrap();
        codes(&format!("{processes} processes"), &output, &[70, STARTED]);
    }
}
