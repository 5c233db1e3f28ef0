//! Reads process, unit and machine facts from /proc and systemd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use warren::config::Config;

use super::super::facts::{Clock, MachineFacts, ProcessLimits, Space, Unit};
use super::files_of;

/// systemctl answers in milliseconds, or waits for a manager that is stuck.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(5);

/// What of a unit is asked for.
const PROPERTIES: &str = "LoadState,User,Type,NotifyAccess,KillMode,TimeoutStopUSec";

/// The unit that the process runs in, else the installed one, by its name.
pub(super) fn unit(pid: Option<u32>, installed: Option<String>) -> Option<Unit> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let running = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/cgroup")).ok());
    let name = running.as_deref().and_then(service_of).or(installed)?;
    let shown = systemctl(&["show", &name, "--property", PROPERTIES])?;
    parse_unit(&name, &shown)
}

fn systemctl(arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    let (answer, answered) = mpsc::channel();
    // Nobody waits for it when it is late.
    std::thread::Builder::new().spawn(move || answer.send(command.output())).ok()?;
    let output = answered.recv_timeout(SYSTEMCTL_LIMIT).ok()?.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `0::/system.slice/warrend.service/main` → `warrend.service`.
fn service_of(cgroup: &str) -> Option<String> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').find(|part| part.starts_with("warrend") && part.ends_with(".service")).map(str::to_owned)
}

fn parse_unit(name: &str, shown: &str) -> Option<Unit> {
    let value = |key: &str| {
        shown.lines().find_map(|line| line.split_once('=').filter(|(found, _)| *found == key)).map(|(_, v)| v)
    };
    if value("LoadState")? != "loaded" {
        return None;
    }
    let text = |key: &str| value(key).unwrap_or_default().to_owned();
    Some(Unit {
        name: name.to_owned(),
        user: text("User"),
        kind: text("Type"),
        notify_access: text("NotifyAccess"),
        kill_mode: text("KillMode"),
        timeout_stop: parse_span(value("TimeoutStopUSec")?),
    })
}

/// A span as systemctl shows it: `1min 30s`; `None` for `infinity`.
fn parse_span(text: &str) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for word in text.split_whitespace() {
        let unit = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = word.split_at(unit);
        let seconds = match unit {
            "us" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "month" => 2_629_800.0,
            "y" => 31_557_600.0,
            _ => return None,
        };
        sum += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
    }
    Some(sum)
}

/// User and groups of a process.
pub(super) fn credentials(pid: u32) -> Option<(u32, Vec<u32>)> {
    parse_credentials(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse_credentials(status: &str) -> Option<(u32, Vec<u32>)> {
    let numbers = |key: &str| -> Option<Vec<u32>> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.split_whitespace().map(|word| word.parse().ok()).collect()
    };
    // Real, effective, saved, and that for files.
    let (user, group) = (*numbers("Uid:")?.get(1)?, *numbers("Gid:")?.get(1)?);
    let mut groups = numbers("Groups:")?;
    groups.push(group);
    Some((user, groups))
}

/// The soft limits of a process; only root and its own user may see them.
pub(super) fn limits(pid: u32) -> Option<ProcessLimits> {
    parse_limits(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

fn parse_limits(text: &str) -> Option<ProcessLimits> {
    let soft = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        // The outer one: there is no such line or no number in it. The inner one: unlimited.
        match line.split_whitespace().next()? {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        }
    };
    Some(ProcessLimits { files: soft("Max open files")?, processes: soft("Max processes")? })
}

/// Clock, disk, memory.
pub(super) fn machine(config_file: &Path, config: Option<&Config>, daemon: Option<u32>) -> MachineFacts {
    let mut past = files_of(config_file, config);
    past.extend(std::env::current_exe());
    let written = |path: PathBuf| Some((path.clone(), fs::metadata(&path).ok()?.modified().ok()?));
    MachineFacts {
        now: SystemTime::now(),
        past: past.into_iter().filter_map(written).collect(),
        clock: clock(),
        state_dir: config.map(|config| space(&config.daemon.state_dir)),
        memory: memory(daemon),
    }
}

fn clock() -> Clock {
    const OTHERS: [&str; 4] =
        ["/run/chrony/chronyd.pid", "/run/chronyd.pid", "/run/ntpd.pid", "/run/openntpd.pid"];
    let exists = |path: &str| Path::new(path).exists();
    if exists("/run/systemd/timesync/synchronized") {
        Clock::Synchronized
    } else if OTHERS.into_iter().any(exists) {
        Clock::Another
    } else if exists("/run/systemd/timesync") {
        Clock::NotYet
    } else {
        Clock::Nobody
    }
}

fn space(path: &Path) -> Result<Space, String> {
    let stat = rustix::fs::statvfs(path).map_err(|errno| std::io::Error::from(errno).to_string())?;
    Ok(Space {
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        size: stat.f_blocks.saturating_mul(stat.f_frsize),
        files: (stat.f_files > 0).then_some(stat.f_favail),
    })
}

/// The machine's memory, or the least that a cgroup around the daemon allows (`MemoryMax=`, a container).
fn memory(daemon: Option<u32>) -> Option<u64> {
    let all = fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_memory(&text))?;
    let process = daemon.map_or("self".to_owned(), |pid| pid.to_string());
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let bounds = groups_of(&groups).filter_map(|group| {
        fs::read_to_string(group.join("memory.max")).ok()?.trim().parse::<u64>().ok() // or the word `max`
    });
    Some(bounds.fold(all, u64::min))
}

/// The directories of a process's cgroup and of those around it.
fn groups_of(cgroup: &str) -> impl Iterator<Item = PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/"));
    let ancestors: Vec<PathBuf> =
        path.map(|path| Path::new(path).ancestors().map(Path::to_owned).collect()).unwrap_or_default();
    ancestors.into_iter().map(|group| Path::new("/sys/fs/cgroup").join(group))
}

fn parse_memory(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_a_cgroup_are_its_own_and_those_around_it() {
        let groups: Vec<PathBuf> = groups_of("1:name=x:/y\n0::/system.slice/warrend.service\n").collect();
        let all = ["system.slice/warrend.service", "system.slice", ""];
        assert_eq!(groups, all.map(|group| Path::new("/sys/fs/cgroup").join(group)));
        assert_eq!(groups_of("1:name=x:/y\n").count(), 0);
        assert!(memory(None).is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn a_process_names_its_unit() {
        let table = [
            ("0::/system.slice/warrend.service\n", Some("warrend.service")),
            (
                "0::/system.slice/system-warrend.slice/warrend@mail.service/main\n",
                Some("warrend@mail.service"),
            ),
            ("1:name=systemd:/\n0::/user.slice/user-0.slice/session-1.scope\n", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(service_of(text).as_deref(), expected);
        }
    }

    #[test]
    fn a_unit_is_read_as_systemctl_shows_it() {
        let shown = "LoadState=loaded\nUser=warren\nType=notify\nNotifyAccess=main\nKillMode=mixed\n\
                     TimeoutStopUSec=1min 30s\n";
        let unit = parse_unit("warrend.service", shown).expect("a unit");
        assert_eq!((unit.user.as_str(), unit.kind.as_str()), ("warren", "notify"));
        assert_eq!(unit.timeout_stop, Some(Duration::from_secs(90)));
        assert_eq!(parse_unit("x", "LoadState=not-found\nTimeoutStopUSec=1min\n"), None);
    }

    #[test]
    fn spans_are_read_as_systemctl_shows_them() {
        let table = [
            ("1min 30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1h 2min 3s 4ms", Some(3_723_004)),
            ("1.5s", Some(1_500)),
            ("infinity", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_span(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn soft_limits_and_credentials_are_read_as_the_kernel_shows_them() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             unlimited            unlimited            processes\n\
                    Max open files            1024                 524288               files\n";
        let expected = ProcessLimits { files: Some(1024), processes: None };
        assert_eq!(parse_limits(text), Some(expected));
        assert_eq!(parse_limits("Max open files  many"), None);
        let status = "Name:\twarrend\nUid:\t0\t7\t0\t7\nGid:\t0\t8\t0\t8\nGroups:\t4 24 \n";
        assert_eq!(parse_credentials(status), Some((7, vec![4, 24, 8])));
        assert_eq!(parse_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16_384 << 10));
    }
}
