//! Warren handler: back up an SQLite database, while it is in use.
//!
//! `Backup database` makes one backup; what follows the prefix is not looked at. The backup is a consistent copy by
//! SQLite's online backup, compressed, then read back: decompressed, checked with `PRAGMA integrity_check` and
//! counted in pages. Only then does it get its name, and only then are old backups removed. To restore:
//! `gunzip -c shop-20261123T224633.123Z-1f0c88a2d7.db.gz > shop.db`.
//!
//! # Settings
//!
//! ```toml
//! [handlers.backup-database]
//! plugin  = "backup-database"
//! workers = 1
//! timeout = "15m"
//!
//! [handlers.backup-database.settings]
//! database  = "/var/lib/shop/shop.db"   # required: the SQLite file
//! directory = "/var/backups/shop"       # required: must exist and be writable for the daemon's user
//! name      = "{database}-{time}.db"    # {database}: the file's name without extension; {time}: UTC and the
//!                                       # source's digest, required
//! compress  = "gzip"                    # or "none"; gzip adds .gz to the name
//! keep      = 30                        # at most so many backups; all, if left out
//! keep_for  = "90d"                     # none older than this; of any age, if left out
//! host      = "shop-1"                  # which machine this is; its id and name, if left out
//! ```
//!
//! # What to expect
//!
//! - A database with a write-ahead log is copied from one moment while writers go on. One without has its writers
//!   wait a few milliseconds at a time; if they keep changing it, they wait once for a whole copy.
//! - While a backup is made the directory holds the copy and its compressed form. Both are temporary files (a dot
//!   before the name, `.tmp` after it, readable by the daemon's user only) which go whatever happens: at the end, or
//!   when the next backup begins if the process was killed. The name appears whole, and survives a power failure.
//! - Each name has ten digits of a digest of machine, `database` as it is written, and `name`. Retention removes regular
//!   files whose name is exactly one of this naming's and has this digest, and never the backup just verified. So
//!   databases of one file name, and machines that share a directory, do not touch each other's backups. Age is reckoned
//!   by the time in the name. With `keep` and `keep_for`, either makes a backup go.
//! - Whatever changes the digest (the path, the template, the machine's id or name) leaves earlier backups where they
//!   are, and so does the upgrade from 0.1, whose names had none. They are counted in the result as `unproven`, and are
//!   yours to remove, or to rename to the digest that new backups show: retention counts them then. Where a machine's
//!   name changes with each start, as a container's does, set `host`.
//! - Two handlers that agree in `database`, `directory` and `name` share one set of backups, and the smaller `keep` wins;
//!   `warrenctl config check` and `doctor` warn of it.
//! - A file `.….lock` in the directory keeps two backups of the same set from running at once; the second waits.
//! - A database in WAL mode that no program has open can be read only where SQLite may make two files beside it: the
//!   daemon's user needs to write its directory then. (Reading it as immutable would need nothing, and copy nonsense as
//!   soon as a writer comes.)
//! - Everything that goes wrong is a retry, also a database that is not there: it may be mounted or put back
//!   meanwhile, and the handler's attempts are bounded. Start-up only warns of it. A directory that is not there
//!   stops start-up: a backup must not begin to fill the disk below a missing mount.
//! - The result is JSON: `file`, `bytes`, `pages`, `check`, `removed`, `unproven`, `duration_ms`. A repeated task makes another
//!   backup. `check` is `full`; where the schema uses collations, functions or modules that only the application has,
//!   and SQLite therefore cannot check them, it is `pages`: what was read back is what was copied, page for page.

mod copy;
mod directory;
mod failures;
mod naming;
mod retention;
mod source;
mod verify;

use directory::Directory;
use naming::{Moment, Naming};
use retention::Retention;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use verify::Verdict;
use warren_plugin::{Call, Done, Failure, Handler, Host, Level, Outcome, Task, reject};

/// The handler: its checked settings.
pub struct BackupDatabase {
    database: PathBuf,
    directory: PathBuf,
    naming: Naming,
    gzip: bool,
    retention: Retention,
}

/// `[handlers.NAME.settings]`; the crate's documentation says what each is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    database: PathBuf,
    directory: PathBuf,
    #[serde(default = "default_name")]
    name: String,
    #[serde(default)]
    compress: Compress,
    keep: Option<u32>,
    #[serde(default, with = "warren_plugin::duration::option")]
    keep_for: Option<Duration>,
    host: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Compress {
    #[default]
    Gzip,
    None,
}

/// What the producer and the log are told.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    file: &'a Path,
    bytes: u64,
    pages: i32,
    check: Verdict,
    removed: usize,
    unproven: usize,
    duration_ms: u64,
}

warren_plugin::export_plugin!(
    BackupDatabase,
    name = "backup-database",
    prefixes = ["Backup database"],
    timeout = "15m",
    settings = ["database", "directory", "name", "compress", "keep", "keep_for", "host"],
    exclusive = ["database", "directory", "name", "host"],
    stores = ["directory"],
);

impl Handler for BackupDatabase {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        let handler = settings.check()?;
        if !handler.database.exists() {
            let path = handler.database.display().to_string();
            host.log(Level::Warn, "there is no database to back up yet", &[("DATABASE", &path)]);
        }
        Ok(handler)
    }

    fn handle(&mut self, _task: &Task<'_>, call: &Call<'_>) -> Outcome {
        let begun = Instant::now();
        let directory = Directory::lock(&self.directory, &self.naming, call)?;
        let (moment, path) = directory.free_name(Moment::of(SystemTime::now()), self.gzip);
        let (bytes, pages, check) = self.back_up(&directory, moment, &path, call)?;
        let retained = directory.retain(self.retention, moment);
        for failed in retained.failed {
            // The backup is good; the task is done. What could not be removed is tried again by the next one.
            call.logger().log(Level::Warn, "an expired backup could not be removed", &[("FILE", &failed)]);
        }
        let (removed, unproven) = (retained.removed, retained.unproven);
        if unproven > 0 && self.retention.is_limited() {
            call.logger().log(
                Level::Info,
                "backups of the same name were made on another host, of another path or by an earlier version: retention \
                 does not count them",
                &[("FILES", &unproven.to_string()), ("SOURCE", self.naming.source())],
            );
        }
        let duration_ms = begun.elapsed().as_millis() as u64;
        Done::json(&Summary { file: &path, bytes, pages, check, removed, unproven, duration_ms })
    }
}

impl BackupDatabase {
    /// Makes, verifies and publishes one backup; gives its size in bytes and in pages, and how it was checked.
    fn back_up(
        &self,
        directory: &Directory<'_>,
        moment: Moment,
        path: &Path,
        call: &Call<'_>,
    ) -> Result<(u64, i32, Verdict), Failure> {
        let phase = |from: u32, to: u32, note: &'static str| {
            move |permille: u32| call.progress(from + permille * (to - from) / 1000, note)
        };
        let copy = directory.temporary(moment, "copy")?;
        let pages = copy::copy(&self.database, &copy.path, call, &phase(0, 500, "copying"))?;
        let size = verify::length(&copy.path)?;
        let (finished, verdict) = if self.gzip {
            let compressed = directory.temporary(moment, "gz")?;
            verify::compress(&copy.path, &compressed.file, call, &phase(500, 800, "compressing"))?;
            drop(copy); // Its room is needed for what is read back.
            let mut restored = directory.temporary(moment, "check")?;
            let report = phase(800, 900, "reading back");
            verify::restore(&compressed.path, &mut restored.file, size, call, &report)?;
            call.progress(900, "checking");
            (compressed, verify::check(&restored.path, pages, call)?)
        } else {
            call.progress(800, "checking");
            let verdict = verify::check(&copy.path, pages, call)?;
            (copy, verdict)
        };
        let bytes = verify::length(&finished.path)?;
        directory.publish(&finished, path)?;
        call.progress(1000, "published");
        Ok((bytes, pages, verdict))
    }
}

impl Settings {
    fn check(self) -> Result<BackupDatabase, Failure> {
        let bad = |problem: String| Err(reject("bad-settings", format!("settings.{problem}")));
        let Some(stem) = self.database.file_stem().and_then(|stem| stem.to_str()) else {
            return bad("database must be the path of an SQLite file, in UTF-8".into());
        };
        if !self.database.is_absolute() {
            return bad("database must be an absolute path, such as \"/var/lib/shop/shop.db\"".into());
        }
        if !self.directory.is_absolute() {
            return bad("directory must be an absolute path, such as \"/var/backups/shop\"".into());
        }
        if !self.directory.is_dir() {
            let directory = self.directory.display();
            return bad(format!("directory: {directory} is not a directory; make it, for the daemon's user"));
        }
        if self.keep == Some(0) {
            return bad("keep must be at least 1; leave it out to keep every backup".into());
        }
        if self.keep_for.is_some_and(|limit| limit < Duration::from_secs(60)) {
            return bad("keep_for must be at least 1m; leave it out to keep backups of any age".into());
        }
        if self.host.as_ref().is_some_and(|host| host.trim().is_empty()) {
            return bad("host is empty; leave it out for this machine's id and name".into());
        }
        let host = self.host.clone().unwrap_or_else(source::this_host);
        let source = source::digest(&host, &self.database, &self.name);
        let naming = match Naming::new(&self.name, stem, source) {
            Ok(naming) => naming,
            Err(problem) => {
                return bad(format!("name {problem}; write for example \"{{database}}-{{time}}.db\""));
            }
        };
        if let Err(error) = directory::open_lock(&self.directory, &naming) {
            return bad(format!(
                "directory: {} cannot be written ({error}); give it to the daemon's user",
                self.directory.display()
            ));
        }
        Ok(BackupDatabase {
            naming,
            gzip: self.compress == Compress::Gzip,
            retention: Retention { keep: self.keep, keep_for: self.keep_for },
            database: self.database,
            directory: self.directory,
        })
    }
}

fn default_name() -> String {
    "{database}-{time}.db".into()
}
