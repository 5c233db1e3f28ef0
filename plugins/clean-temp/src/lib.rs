//! Warren handler `clean-temp`: deletes files older than an age below configured directories. By default it takes
//! the tasks that begin with `Clean up temp files`; what follows in the task is not used, so that no producer can
//! choose what is deleted.
//!
//! ```toml
//! [handlers.clean-temp.settings]
//! directories = ["/var/tmp/uploads", "/srv/app/cache"]
//! older_than  = "7d"
//! patterns    = ["*.tmp", "upload-????"]
//! dry_run     = true                         # look at the result first, then remove this line
//! ```
//!
//! # Settings
//!
//! | key | default | |
//! | --- | --- | --- |
//! | `directories` | required | absolute paths without symbolic links; never `/` and such |
//! | `older_than` | required | delete what was last touched longer ago: `"90m"`, `"24h"`, `"7d"` |
//! | `age_by` | `"changed"` | what counts as touching: `"changed"`, `"used"` or `"modified"`, see below |
//! | `patterns` | all files | names to delete: `*` any characters, `?` any one |
//! | `remove_empty_directories` | `false` | also remove directories (never the configured ones) that are empty and have not been changed for `older_than` |
//! | `dry_run` | `false` | delete nothing, only report |
//! | `max_files` | `100000` | most files deleted in one run; the next run goes on |
//!
//! # Age
//!
//! `"changed"`: the newest of the times of modification and of change (mtime, ctime). What was just unpacked, copied with
//! its times or moved here is new, whatever its mtime says; so is what somebody gave another owner, mode or link. `"used"`:
//! reading counts as well (atime, as exactly as the mount keeps it), which keeps what is in use, and also what a backup
//! or a search reads each night. `"modified"`: mtime alone, for trees whose files are changed in mode or owner all the time.
//!
//! # What is safe
//!
//! Left alone, and counted as `in_use`, is a file or directory that a program holds a BSD lock on (`flock`, as for
//! systemd-tmpfiles), a directory with all below it, and a file that a process has open. Not seen are files that processes
//! of other users have open (unless the daemon runs as root) or of other machines, files that are only mapped, locks on
//! what the daemon's user may not read, and what is opened after the run looked.
//!
//! Only regular files are deleted. No symbolic link is followed or deleted, no other mount is entered, and the walk
//! goes by open directories, so that a directory that is moved or replaced by a link meanwhile leads nowhere else.
//! What vanishes meanwhile is no error. A run that is stopped or repeated harms nothing.
//!
//! # What becomes of the task
//!
//! Done, with a result such as `{"files":12,"bytes":34567,"directories":0,"kept":3,"in_use":0,"skipped":1,"missing":0,
//! "errors":0,"dry_run":false,"stopped_at_max_files":false,"examples":["/var/tmp/uploads/a.tmp"],
//! "error_examples":[]}`. Files that cannot be deleted are counted in `errors` and are a warning in the log. Retried as
//! `unreadable` when none of the directories can be opened although one is there.

mod open_files;
mod pattern;
mod rules;
mod top;
mod walk;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use warren_plugin::{Call, Done, Failure, Handler, Host, Outcome, Task, reject, retry};

use crate::pattern::Pattern;
use crate::rules::{AgeBy, Rules, Summary};
use crate::top::{NotOpened, Top};

/// `[handlers.NAME.settings]`; what each key means stands in the crate's documentation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    directories: Vec<PathBuf>,
    #[serde(with = "warren_plugin::duration")]
    older_than: Duration,
    #[serde(default)]
    age_by: AgeBy,
    #[serde(default)]
    patterns: Option<Vec<String>>,
    #[serde(default)]
    remove_empty_directories: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default = "files_100_000")]
    max_files: u64,
}

fn files_100_000() -> u64 {
    100_000
}

/// Deletes old files.
pub struct CleanTemp {
    directories: Vec<Top>,
    patterns: Vec<Pattern>,
    settings: Settings,
}

impl Handler for CleanTemp {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        let mut errors = Vec::new();
        let directories = directories(&settings.directories, &mut errors);
        let patterns = patterns(settings.patterns.as_deref(), &mut errors);
        if settings.older_than.is_zero() {
            errors.push(
                "older_than: 0 would delete files that are being written: write an age such as \"24h\""
                    .to_owned(),
            );
        }
        if settings.max_files == 0 {
            errors.push("max_files: 0 would delete nothing: write at least 1, or use dry_run".to_owned());
        }
        if !errors.is_empty() {
            return Err(reject("bad-settings", errors.join("; ")));
        }
        for directory in directories.iter().filter(|directory| !directory.path().exists()) {
            host.warn(&format!("{} is not there (yet): nothing to clean", directory.path().display()));
        }
        Ok(Self { directories, patterns, settings })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        if !task.argument().is_empty() {
            call.logger().info("what follows the prefix is not used: the settings say what is cleaned");
        }
        let rules = self.rules();
        let mut summary = Summary { dry_run: rules.dry_run, ..Summary::default() };
        let mut opened = 0;
        for (index, directory) in self.directories.iter().enumerate() {
            call.check()?;
            let done = index * 1000 / self.directories.len();
            call.progress(done as u32, &directory.path().display().to_string());
            match directory.open() {
                Ok(top) => {
                    opened += 1;
                    walk::clean(top, directory.path(), &rules, &mut summary, &mut || call.check())?;
                }
                Err(NotOpened::Missing) => summary.missing += 1,
                Err(NotOpened::Failed(why)) => summary.error(why),
            }
            if summary.stopped_at_max_files {
                break;
            }
        }
        if opened == 0 && summary.errors > 0 {
            return Err(retry(
                "unreadable",
                format!("no directory could be opened: {}", summary.error_examples.join("; ")),
            ));
        }
        for error in &summary.error_examples {
            call.logger().warn(error);
        }
        Done::json(&summary)
    }
}

warren_plugin::export_plugin!(
    CleanTemp,
    name = "clean-temp",
    prefixes = ["Clean up temp files"],
    settings = [
        "directories",
        "older_than",
        "age_by",
        "patterns",
        "remove_empty_directories",
        "dry_run",
        "max_files"
    ],
    exclusive = ["directories", "patterns"],
    clears = ["directories"],
);

impl CleanTemp {
    /// The rules of a run that starts now.
    fn rules(&self) -> Rules {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Rules {
            before: now.as_secs().cast_signed() - self.settings.older_than.as_secs().cast_signed(),
            age_by: self.settings.age_by,
            patterns: self.patterns.clone(),
            remove_empty_directories: self.settings.remove_empty_directories,
            dry_run: self.settings.dry_run,
            max_files: self.settings.max_files,
        }
    }
}

fn directories(paths: &[PathBuf], errors: &mut Vec<String>) -> Vec<Top> {
    if paths.is_empty() {
        errors.push("directories: it is empty: name at least one directory".to_owned());
    }
    let mut tops: Vec<Top> = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match Top::parse(path) {
            Ok(top) => {
                let overlaps = |other: &Path| other.starts_with(top.path()) || top.path().starts_with(other);
                if let Some(other) = tops.iter().find(|other| overlaps(other.path())) {
                    let (path, other) = (path.display(), other.path().display());
                    errors.push(format!(
                        "directories[{index}]: {path} and {other} overlap: name the outer one only"
                    ));
                } else {
                    tops.push(top);
                }
            }
            Err(error) => errors.push(format!("directories[{index}]: {error}")),
        }
    }
    tops
}

fn patterns(texts: Option<&[String]>, errors: &mut Vec<String>) -> Vec<Pattern> {
    if texts.is_some_and(<[String]>::is_empty) {
        errors.push(
            "patterns: it is empty and would match nothing: remove the key to match every name".to_owned(),
        );
    }
    let mut patterns = Vec::new();
    for (index, text) in texts.unwrap_or_default().iter().enumerate() {
        match Pattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => errors.push(format!("patterns[{index}]: {error}")),
        }
    }
    patterns
}
