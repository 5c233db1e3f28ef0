//! The boxes themselves: several at once, and what is left of them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use warren_tests::{machine, wait};

/// A box that is up, and the process id of its systemd.
fn keep(directory: &Path) -> (Child, String) {
    let mut keeper = Command::new(machine::systemd_box())
        .arg("keep")
        .env("TMPDIR", directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("systemd-box");
    let mut pid = String::new();
    BufReader::new(keeper.stdout.take().expect("piped")).read_line(&mut pid).expect("a line");
    (keeper, pid.trim().to_owned())
}

fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "systemd")
}

/// The control groups of the boxes of these keepers.
fn groups(keepers: &[u32]) -> Vec<String> {
    let wanted: Vec<String> = keepers.iter().map(|keeper| format!("warren-box-{keeper}")).collect();
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-maxdepth", "6", "-type", "d", "-name", "warren-box-*"])
        .output()
        .expect("find");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    found.lines().filter(|path| wanted.iter().any(|name| path.ends_with(name))).map(str::to_owned).collect()
}

#[test]
fn a_box_is_gone_with_its_keeper_however_that_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let boxes: Vec<_> = (0..4).map(|_| keep(directory.path())).collect();
    let keepers: Vec<u32> = boxes.iter().map(|(keeper, _)| keeper.id()).collect();
    assert!(boxes.iter().all(|(_, pid)| is_alive(pid)), "side by side");
    assert_eq!(groups(&keepers).len(), 4);

    let ends = [None, Some(Signal::TERM), Some(Signal::INT), Some(Signal::KILL)];
    for ((mut keeper, pid), end) in boxes.into_iter().zip(ends) {
        match end {
            None => drop(keeper.stdin.take()),
            Some(signal) => kill_process(Pid::from_child(&keeper), signal).expect("it is there"),
        }
        keeper.wait().expect("its end");
        wait::until("the end of the box", || (!is_alive(&pid)).then_some(()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(directory.path().to_str().expect("text")), "no mount was ever here: {mounts}");
    let left: Vec<_> = fs::read_dir(directory.path()).expect("read").collect();
    assert_eq!(left.len(), 1, "that of the killed one: {left:?}");
    // The next box removes what a killed one had to leave.
    let (mut keeper, _) = keep(directory.path());
    assert_eq!(groups(&keepers), Vec::<String>::new());
    drop(keeper.stdin.take());
    assert!(keeper.wait().expect("its end").success());
}

#[test]
fn a_command_runs_in_a_box_of_its_own_and_its_exit_status_comes_out() {
    let run =
        |command: &[&str]| Command::new(machine::systemd_box()).args(command).output().expect("systemd-box");
    let output = run(&["run", "sh", "-c", "systemctl is-system-running; cat /proc/1/comm; exit 7"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(7), "running\nsystemd\n"));
    let own = std::process::id().to_string();
    for refused in [&["exec", &own, "true"][..], &["run"], &["run", "--no-such-option", "true"], &["stay"]] {
        let code = run(refused).status.code();
        assert!(code == Some(64) || (refused[0] == "exec" && code == Some(69)), "{refused:?}: {code:?}");
    }
}

#[test]
fn without_root_it_says_so() {
    // Where everybody may read it.
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("systemd-box");
    fs::copy(machine::systemd_box(), &script).expect("copy");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups"])
        .arg(&script)
        .args(["run", "true"])
        .output()
        .expect("setpriv");
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("needs root"), "{said}");
}
