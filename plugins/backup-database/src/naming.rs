//! What backups are called, and which of a directory's files are ours: decided from names alone.

use crate::source;
use jiff::{Timestamp, civil, tz::TimeZone};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How a moment is written: `20261123T224633.123Z`.
const FORMAT: &str = "%Y%m%dT%H%M%S.%3fZ";
/// Length of a moment.
const TIME_LENGTH: usize = 20;
/// The longest template, so that with time, compression and temporary suffix a name stays inside 255 bytes.
const MAX_TEMPLATE: usize = 150;
/// What a name may end in once its database is compressed.
const GZIP: &str = ".gz";
/// The files one backup makes on its way; `-journal` and the like are SQLite's, beside the first.
const TEMPORARY: [&str; 6] =
    [".copy.tmp", ".gz.tmp", ".check.tmp", ".copy.tmp-journal", ".copy.tmp-wal", ".copy.tmp-shm"];

/// A name template with `{database}` filled in: what stands before and after the time and the source's digest, which
/// are written as `20261123T224633.123Z-1f0c88a2d7`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Naming {
    before: String,
    after: String,
    /// The [`source::digest`].
    source: String,
}

/// Whose backup a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This naming's and this source's.
    Ours(Moment),
    /// It has a name of this naming with the digest of another source, or with none, as version 0.1 wrote it.
    Unproven,
}

/// A moment, in milliseconds since 1970, as it stands in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

impl Naming {
    /// Reads a template such as `{database}-{time}.db`. The error says what is wrong with it.
    pub(crate) fn new(template: &str, database: &str, source: String) -> Result<Self, &'static str> {
        let filled = template.replace("{database}", database);
        let (before, after) = filled.split_once("{time}").ok_or("has no {time}")?;
        if template.matches("{time}").count() > 1 {
            return Err("has {time} more than once");
        }
        if template.replace("{database}", "").replace("{time}", "").contains(['{', '}']) {
            return Err("has a placeholder that is neither {database} nor {time}");
        }
        if filled.contains('/') || filled.contains(|c: char| c.is_control()) {
            return Err("has a slash or a control character");
        }
        if filled.starts_with('.') {
            return Err("begins with a dot, as only temporary files do");
        }
        if filled.len() > MAX_TEMPLATE {
            return Err("is longer than 150 bytes");
        }
        if after.ends_with(GZIP) {
            return Err("ends in .gz, which is added when settings.compress is gzip");
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned(), source })
    }

    /// The digest that every name has.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The name of the backup of this moment.
    pub(crate) fn backup(&self, moment: Moment, gzip: bool) -> String {
        let end = if gzip { GZIP } else { "" };
        format!("{}{}-{}{}{end}", self.before, moment.text(), self.source, self.after)
    }

    /// The name of one of its temporary files; `stage` is `copy`, `gz` or `check`.
    pub(crate) fn temporary(&self, moment: Moment, stage: &str) -> String {
        format!(".{}.{stage}.tmp", self.backup(moment, false))
    }

    /// The file whose lock says that a backup of this naming and source is running.
    pub(crate) fn lock(&self) -> String {
        format!(".{}time-{}{}.lock", self.before, self.source, self.after)
    }

    /// Whose backup has this name; `None` if it is no backup of this naming.
    pub(crate) fn owner_of(&self, name: &str) -> Option<Owner> {
        let name = name.strip_suffix(GZIP).unwrap_or(name);
        let middle = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        let (time, source) = middle.split_at_checked(TIME_LENGTH)?;
        let moment = Moment::parse(time)?;
        match source.strip_prefix('-') {
            Some(digest) if digest == self.source => Some(Owner::Ours(moment)),
            Some(digest) if is_digest(digest) => Some(Owner::Unproven),
            None if source.is_empty() => Some(Owner::Unproven),
            _ => None,
        }
    }

    /// Whether this is a temporary file of this naming and source.
    pub(crate) fn is_temporary(&self, name: &str) -> bool {
        let is_ours = |backup: &str| matches!(self.owner_of(backup), Some(Owner::Ours(_)));
        name.strip_prefix('.')
            .is_some_and(|rest| TEMPORARY.iter().any(|end| rest.strip_suffix(end).is_some_and(is_ours)))
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == source::DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

impl Moment {
    pub(crate) fn of(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64))
    }

    /// The next one that a name can tell apart.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// How long ago it was; zero if it lies ahead.
    pub(crate) fn age(self, now: Self) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }

    /// UTC, in the basic format of ISO 8601, so that names sort by time.
    fn text(self) -> String {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX).strftime(FORMAT).to_string()
    }

    fn parse(text: &str) -> Option<Self> {
        let time = civil::DateTime::strptime(FORMAT, text).ok()?.to_zoned(TimeZone::UTC).ok()?;
        let moment = Self(u64::try_from(time.timestamp().as_millisecond()).ok()?);
        // Whatever is not exactly what we would write (a 61st second, other marks) is not ours.
        (moment.text() == text).then_some(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "0123456789";

    fn naming() -> Naming {
        Naming::new("{database}-{time}.db", "shop", SOURCE.into()).expect("a good template")
    }

    #[test]
    fn a_moment_is_written_as_utc_and_read_back() {
        for (milliseconds, text) in [
            (0, "19700101T000000.000Z"),
            (951_782_399_999, "20000228T235959.999Z"),
            (951_782_400_000, "20000229T000000.000Z"),
            (1_798_761_599_000, "20261231T235959.000Z"),
            (4_107_542_400_000, "21000301T000000.000Z"),
        ] {
            assert_eq!(Moment(milliseconds).text(), text);
            assert_eq!(Moment::parse(text), Some(Moment(milliseconds)), "{text}");
        }
        for milliseconds in (0..60_000 * 86_400_000).step_by(86_399_999) {
            assert_eq!(Moment::parse(&Moment(milliseconds).text()), Some(Moment(milliseconds)));
        }
    }

    #[test]
    fn only_names_we_would_write_are_ours() {
        let naming = naming();
        let ours = naming.backup(Moment(1_700_000_000_123), true);
        assert_eq!(ours, "shop-20231114T221320.123Z-0123456789.db.gz");
        let mine = Some(Owner::Ours(Moment(1_700_000_000_123)));
        assert_eq!(naming.owner_of(&ours), mine);
        assert_eq!(
            naming.owner_of("shop-20231114T221320.123Z-0123456789.db"),
            mine,
            "made without compression"
        );
        for unproven in [
            "shop-20231114T221320.123Z-9876543210.db.gz",
            "shop-20231114T221320.123Z-9876543210.db",
            "shop-20231114T221320.123Z.db.gz",
            "shop-20231114T221320.123Z.db",
        ] {
            assert_eq!(naming.owner_of(unproven), Some(Owner::Unproven), "{unproven}");
        }
        for other in [
            "shop-20231114T221320.123Z-0123456789.db.gz.old",
            "shop-20231314T221320.123Z-0123456789.db.gz",
            "shop-20230230T221320.123Z-0123456789.db.gz",
            "shop-20231114T221360.123Z-0123456789.db.gz",
            "shop-20231114 221320.123Z-0123456789.db.gz",
            "shop-20231114T221320.123Z-012345678.db.gz",
            "shop-20231114T221320.123Z-012345678X.db.gz",
            "shop-20231114T221320.123Z0123456789.db.gz",
            "shop-20231114T221320.123Z-.db.gz",
            "shop-eu-20231114T221320.123Z-0123456789.db.gz",
            "shop-latest.db",
            "shop.db",
            "shop-",
            "shop-ääääääääääääääääääää.db",
            ".shop-20231114T221320.123Z-0123456789.db.copy.tmp",
        ] {
            assert_eq!(naming.owner_of(other), None, "{other}");
        }
    }

    #[test]
    fn temporary_files_are_told_from_backups_and_from_others() {
        let naming = naming();
        let moment = Moment(1_700_000_000_123);
        for stage in ["copy", "gz", "check"] {
            assert!(naming.is_temporary(&naming.temporary(moment, stage)), "{stage}");
        }
        assert!(naming.is_temporary(&format!("{}-wal", naming.temporary(moment, "copy"))));
        let another = Naming { source: "9876543210".into(), ..naming.clone() }.temporary(moment, "copy");
        for other in
            [naming.backup(moment, true), naming.lock(), another, ".shop.copy.tmp".into(), ".tmp".into()]
        {
            assert!(!naming.is_temporary(&other), "{other}");
        }
    }

    #[test]
    fn templates_that_could_lose_files_are_refused() {
        for (template, problem) in [
            ("{database}.db", "has no {time}"),
            ("{time}-{time}", "more than once"),
            ("{database}-{time}-{host}", "placeholder"),
            ("../{time}", "slash"),
            (".{time}", "dot"),
            ("{time}.db.gz", "ends in .gz"),
        ] {
            let error = Naming::new(template, "shop", SOURCE.into()).expect_err(template);
            assert!(error.contains(problem), "{template}: {error}");
        }
        assert!(Naming::new(&format!("{}{{time}}", "x".repeat(150)), "shop", SOURCE.into()).is_err());
    }
}
