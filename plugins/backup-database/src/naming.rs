//! What backups are called, and which of a directory's files are ours: decided from names alone.

use crate::source;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Length of `20261123T224633.123Z`.
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
        let (seconds, milliseconds) = (self.0 / 1000, self.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = date_of(days);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{milliseconds:03}Z")
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| {
            let digits = text.get(from..to)?;
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok())?
        };
        let days = days_of(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
        let seconds = days * 86_400 + number(9, 11)? * 3600 + number(11, 13)? * 60 + number(13, 15)?;
        let moment = Self(seconds * 1000 + number(16, 19)?);
        // Whatever is not exactly what we would write (32 January, a 61st second, other marks) is not ours.
        (moment.text() == text).then_some(moment)
    }
}

/// Days since 1970 as year, month and day, in the proleptic Gregorian calendar.
fn date_of(days: u64) -> (u64, u64, u64) {
    // Count from 1 March of year 0, so that the leap day is a year's last; 400 years are 146097 days.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`date_of`]; `None` before 1970 or for a month or day that cannot be.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + day_of_year).checked_sub(719_468)
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
        for day in 0..60_000 {
            let (year, month, date) = date_of(day);
            assert_eq!(days_of(year, month, date), Some(day));
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
