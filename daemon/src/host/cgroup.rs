//! A control group for each host, where one is delegated to the daemon: bounds that hold for a host together with
//! all that it starts, and one write that kills all of it. Without one, rlimits, the process group and the sweep
//! for strays have to do.
//!
//! Below the delegated group, in which no process may be once controllers are enabled for its children:
//!
//! | group | what is in it |
//! | --- | --- |
//! | `daemon` | the daemon itself |
//! | `host-PID-N-HANDLER` | a host: the daemon's process id, a number, the handler's name |
//! | `.control` | systemd's own, for `ExecReload=` |
//!
//! systemd's rules for this: <https://systemd.io/CGROUP_DELEGATION>.

use std::fs;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Access;
use rustix::process::Pid;

use crate::config::Bounds;

/// How long strays may take to die of a SIGKILL before the next request is served: one in uninterruptible
/// sleep is left to the next sweep.
pub(super) const SWEEP_WITHIN: Duration = Duration::from_secs(1);
/// The group that the daemon moves into.
const DAEMON: &str = "daemon";
/// What the names of hosts' groups begin with.
const HOST: &str = "host-";
/// Which extended attribute marks a delegated group: systemd 251 and later set the first, earlier ones the second,
/// which only root can read.
const MARKS: [&str; 2] = ["user.delegate", "trusted.delegate"];
/// The kernel's own default; quotas are per this.
const CPU_PERIOD_US: u64 = 100_000;

/// The delegated group, with the daemon out of its way.
#[derive(Debug)]
pub struct Groups {
    root: PathBuf,
    controllers: Controllers,
}

/// What groups can bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Controllers {
    /// Memory of a host and all that it starts.
    pub memory: bool,
    /// CPUs in use at a time.
    pub cpu: bool,
    /// Processes and threads.
    pub pids: bool,
}

/// One host's group.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Groups {
    /// Takes over the group that this process is in: moves into a leaf of it, enables what controllers it can
    /// for the others and removes what an earlier daemon left. The error says why there is none to take.
    pub fn take() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let root = group_of(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
            .ok_or("there is no version 2 hierarchy")?;
        if !is_delegated(&root) {
            return Err(format!("{} is not delegated to this process", root.display()));
        }
        Self::take_at(root)
    }

    fn take_at(root: PathBuf) -> Result<Self, String> {
        let step = |what: &str, error: &io::Error| format!("{}: {what}: {error}", root.display());
        let leaf = root.join(DAEMON);
        create(&leaf).map_err(|error| step("no group for the daemon", &error))?;
        if !leaf.join("cgroup.kill").exists() {
            return Err("this kernel has no cgroup.kill, which came with 5.14".to_owned());
        }
        fs::write(leaf.join("cgroup.procs"), "0")
            .map_err(|error| step("the daemon cannot move out of it", &error))?;
        // A controller that cannot be had (others' processes are in the group, or it is not delegated) is one
        // bound less; killing works anyway.
        let available = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let enable = |name: &str| {
            available.split_whitespace().any(|has| has == name)
                && fs::write(root.join("cgroup.subtree_control"), format!("+{name}")).is_ok()
        };
        let controllers = Controllers { memory: enable("memory"), cpu: enable("cpu"), pids: enable("pids") };
        let groups = Self { root, controllers };
        groups.remove_leftovers();
        Ok(groups)
    }

    /// What these groups can bound.
    pub fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// Makes the group of a host, with its bounds. `number` is not used twice by one daemon.
    pub(super) fn create(&self, number: u64, handler: &str, bounds: &Bounds) -> io::Result<Group> {
        let path = self.root.join(format!("{HOST}{}-{number}-{handler}", std::process::id()));
        create(&path)?;
        let group = Group { path };
        match group.bound(self.controllers, bounds) {
            Ok(()) => Ok(group),
            Err(error) => {
                let _ = fs::remove_dir(&group.path);
                Err(error)
            }
        }
    }

    /// Groups of daemons that are gone, killed before they could remove them.
    fn remove_leftovers(&self) {
        for path in children(&self.root) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let owner = name.strip_prefix(HOST).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
            let Some(owner) = owner else { continue };
            if owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists() {
                Group { path }.clear(Instant::now() + SWEEP_WITHIN);
            }
        }
    }
}

impl Group {
    fn bound(&self, controllers: Controllers, bounds: &Bounds) -> io::Result<()> {
        let set = |file: &str, value: String| {
            let path = self.path.join(file);
            fs::write(&path, value)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        };
        if controllers.memory && bounds.memory > 0 {
            set("memory.max", bounds.memory.to_string())?;
            // The task fails as a whole, not one of its processes behind its back.
            set("memory.oom.group", "1".to_owned())?;
            // Or what is over the bound goes there, and slows everybody. Missing where swap is not accounted.
            let _ = set("memory.swap.max", "0".to_owned());
        }
        if controllers.cpu && bounds.millicpus > 0 {
            let quota = u64::from(bounds.millicpus) * CPU_PERIOD_US / 1000;
            set("cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
        }
        if controllers.pids && bounds.max_processes > 0 {
            set("pids.max", bounds.max_processes.to_string())?;
        }
        Ok(())
    }

    /// Moves a process in. What it starts from then on is in it, too.
    pub(super) fn admit(&self, pid: Pid) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.as_raw_nonzero().to_string())
    }

    /// Kills what is left in it and removes it, or gives up at `until`. Whether the kernel had to kill something
    /// in it for memory.
    pub(super) fn clear(self, until: Instant) -> bool {
        let events = fs::read_to_string(self.path.join("memory.events")).unwrap_or_default();
        if remove(&self.path).is_err() {
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
            wait_empty(&self.path, until);
            if let Err(error) = remove(&self.path) {
                tracing::warn!(group = %self.path.display(), %error, "the group of a plugin host cannot be removed");
            }
        }
        oom_kills(&events) > 0
    }
}

/// The directory of a process's group in the version 2 hierarchy, from its `/proc/PID/cgroup` and `mountinfo`.
fn group_of(cgroup: &str, mountinfo: &str) -> Option<PathBuf> {
    let group = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let fields: Vec<&str> = mount.split(' ').collect();
        let (root, point) = (*fields.get(3)?, *fields.get(4)?);
        if kind.split(' ').next() != Some("cgroup2") || group.contains("/../") {
            return None;
        }
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

/// Whether the group is ours to divide. Being able to write to it is not enough: root can everywhere, and a user in
/// all that his own service manager manages.
fn is_delegated(group: &Path) -> bool {
    let marked = |name: &&str| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(group, &**name, &mut value).is_ok_and(|n| value[..n] == *b"1")
    };
    let writable = |path: &Path| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    let is_boundary = || {
        !rustix::process::geteuid().is_root()
            && ["", "cgroup.procs", "cgroup.subtree_control"].iter().all(|file| writable(&group.join(file)))
            && group.parent().is_some_and(|parent| !writable(parent))
    };
    MARKS.iter().any(marked) || is_boundary()
}

fn create(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let is_group = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries.flatten().filter(is_group).map(|entry| entry.path()).collect()
}

/// Removes a group with the groups that were made in it.
fn remove(path: &Path) -> io::Result<()> {
    for child in children(path) {
        remove(&child)?;
    }
    fs::remove_dir(path)
}

/// Waits until no live process is in the group, or `until`. The kernel tells of a change by `POLLPRI`.
fn wait_empty(group: &Path, until: Instant) {
    let Ok(mut events) = fs::File::open(group.join("cgroup.events")) else { return };
    loop {
        let mut text = String::new();
        if events.rewind().and_then(|()| events.read_to_string(&mut text)).is_err() || !is_populated(&text) {
            return;
        }
        let Ok(left) = until.saturating_duration_since(Instant::now()).try_into() else { return };
        match rustix::event::poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(1) | Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

fn is_populated(events: &str) -> bool {
    events.lines().any(|line| line == "populated 1")
}

/// Processes that the kernel killed, by a group's `memory.events`.
fn oom_kills(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n\
        32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";

    #[test]
    fn the_own_group_is_found_in_every_kind_of_hierarchy() {
        let unified = "24 23 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        let bound = "24 23 0:22 /pod/box /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let service = "0::/system.slice/warrend.service\n";
        let table = [
            (service, unified, Some("/sys/fs/cgroup/system.slice/warrend.service")),
            ("4:memory:/x\n0::/a/b\n", HYBRID, Some("/sys/fs/cgroup/unified/a/b")),
            ("0::/\n", HYBRID, Some("/sys/fs/cgroup/unified")),
            ("0::/pod/box/inner\n", bound, Some("/sys/fs/cgroup/inner")),
            ("0::/elsewhere\n", bound, None),
            ("0::/../outside\n", unified, None),
            ("4:memory:/x\n", HYBRID, None),
            (service, "32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n", None),
        ];
        for (cgroup, mountinfo, expected) in table {
            assert_eq!(
                group_of(cgroup, mountinfo).as_deref(),
                expected.map(Path::new),
                "{cgroup} {mountinfo}"
            );
        }
    }

    #[test]
    fn events_are_read_by_their_names() {
        assert!(is_populated("populated 1\nfrozen 0\n") && !is_populated("populated 0\nfrozen 1\n"));
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n"), 2);
        assert_eq!(oom_kills(""), 0);
    }

    #[test]
    fn bounds_are_written_as_the_kernel_reads_them_and_only_those_that_are_set() {
        let directory = tempfile::tempdir().unwrap();
        let controllers = Controllers { memory: true, cpu: true, pids: true };
        let groups = Groups { root: directory.path().to_owned(), controllers };
        let bounds = Bounds { memory: 64 << 20, millicpus: 1500, max_processes: 32, ..Bounds::default() };
        let group = groups.create(1, "orders", &bounds).unwrap();
        let read = |file: &str| fs::read_to_string(group.path.join(file)).ok();
        assert_eq!(read("memory.max").as_deref(), Some("67108864"));
        assert_eq!(read("memory.oom.group").as_deref(), Some("1"));
        assert_eq!(read("cpu.max").as_deref(), Some("150000 100000"));
        assert_eq!(read("pids.max").as_deref(), Some("32"));
        let group = groups.create(2, "orders", &Bounds::default()).unwrap();
        assert_eq!(
            fs::read_to_string(group.path.join("pids.max")).unwrap(),
            "512",
            "there is no bound but this"
        );
        assert_eq!(fs::read_dir(&group.path).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_that_nobody_marked_is_not_delegated() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_delegated(directory.path()));
    }
}
