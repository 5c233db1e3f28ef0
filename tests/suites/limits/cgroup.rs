//! Hosts in groups of their own, where a version 2 hierarchy can be written to: as root. Which controllers it has is the
//! machine's business; killing works without any.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use rustix::fs::XattrFlags;
use rustix::process::Signal;
use warren_tests::{Daemon, wait};

use super::stage::{brood, host_of, signal, stage, wait_gone};

/// A delegated group, removed with what is in it.
struct Delegated(PathBuf);

impl Delegated {
    /// Below the group that this process is in. The error says why there can be none here.
    fn new(name: &str) -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let (cgroup, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mounts")?);
        let own =
            cgroup.lines().find_map(|line| line.strip_prefix("0::/")).ok_or("no version 2 hierarchy")?;
        let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
        let root = mount.and_then(|line| line.split(' ').nth(1)).ok_or("no cgroup2 is mounted")?;
        let path = Path::new(root).join(own).join(format!("warren-test-{}-{name}", std::process::id()));
        let fault = |error: std::io::Error| format!("{}: {error}", path.display());
        fs::create_dir(&path).map_err(fault)?;
        let group = Self(path);
        // As systemd marks what it delegates.
        rustix::fs::setxattr(&group.0, "user.delegate", b"1", XattrFlags::empty())
            .map_err(|error| format!("user.delegate: {error}"))?;
        Ok(group)
    }

    /// A group below it with a process in it.
    fn with_sleeper(&self, name: &str) -> Child {
        let path = self.0.join(name);
        if !path.exists() {
            fs::create_dir(&path).expect("a group");
        }
        let sleeper = Command::new("sleep").arg("600").spawn().expect("sleep");
        fs::write(path.join("cgroup.procs"), sleeper.id().to_string()).expect("moved");
        sleeper
    }

    fn children(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the group is there").flatten();
        let groups = entries.filter(|entry| entry.path().is_dir());
        groups.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        wait::until("the end of what is in the group", || {
            let events = fs::read_to_string(self.0.join("cgroup.events")).unwrap_or_default();
            events.contains("populated 0").then_some(())
        });
        for name in self.children() {
            let _ = fs::remove_dir(self.0.join(name));
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it is there");
    text.lines().find_map(|line| line.strip_prefix("0::")).expect("version 2").to_owned()
}

/// The id of a process that is gone.
fn nobody() -> u32 {
    let mut child = Command::new("true").spawn().expect("true");
    child.wait().expect("wait");
    child.id()
}

#[test]
fn a_host_has_a_group_of_its_own_and_nothing_in_it_survives_it() {
    let delegated = match Delegated::new("hosts") {
        Ok(delegated) => delegated,
        Err(why) => return eprintln!("not tested: a cgroup of our own cannot be had: {why}"),
    };
    let leftover = format!("host-{}-1-scenario", nobody());
    let mut left = delegated.with_sleeper(&leftover);

    let (home, broker) = stage("limits_groups", "scenario", "", "retry = { attempts = 1 }");
    let path = delegated.0.to_str().expect("UTF-8");
    let enter = ["sh", "-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"", path];
    let mut daemon = Daemon::spawn_by(&enter, &home, &[]);
    daemon.wait_notified(0, "READY=1");
    daemon.wait_log(0, &["INFO", "each plugin host gets a cgroup of its own"]);
    left.wait().expect("what an earlier daemon left is killed");
    assert_eq!(delegated.children(), ["daemon"], "and the probe's group is gone");
    assert!(group_of(daemon.pid().cast_signed()).ends_with("/daemon"));

    broker.publish(home.queue(), "bad", "Scenario brood");
    let (host, brood) = (host_of(&daemon, "bad"), brood(&home));
    let group = group_of(host);
    let name = group.rsplit('/').next().expect("a name").to_owned();
    assert!(name.starts_with(&format!("host-{}-", daemon.pid())) && name.ends_with("-scenario"), "{group}");
    assert!(brood.iter().all(|pid| group_of(*pid) == group), "what it starts is in its group");
    // Nobody's descendant: only the group says that it belongs to the host.
    let mut stranger = delegated.with_sleeper(&name);
    signal(host, Signal::KILL);
    daemon.wait_count("dead", 1);
    stranger.wait().expect("killed with the group");
    brood.into_iter().for_each(wait_gone);
    wait::until("the end of the host's group", || (!delegated.children().contains(&name)).then_some(()));

    broker.publish(home.queue(), "good", "Scenario ok");
    daemon.wait_count("done", 1);
    assert!(daemon.terminate().success());
    assert_eq!(delegated.children(), ["daemon"]);
}
