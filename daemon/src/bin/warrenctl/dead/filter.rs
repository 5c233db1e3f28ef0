//! Which letters are meant: by id, handler, reason, age and text. Pure.

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use warren::broker::dead::DeadLetter;
use warren::model::duration::{DURATION_FORMS, parse_duration};
use warren::model::{DeadReason, UnixMs};

/// The filters of the command line.
#[derive(Debug, Args, Default)]
pub(super) struct FilterArgs {
    /// Only the letter with this id; may be repeated
    #[arg(long = "id", value_name = "ID")]
    pub(super) ids: Vec<String>,
    /// Only letters of this handler
    #[arg(long, value_name = "HANDLER")]
    handler: Option<String>,
    /// Only letters that died for this reason
    #[arg(long, value_name = "REASON", value_parser = PossibleValuesParser::new(DeadReason::ALL.map(DeadReason::as_str)))]
    reason: Option<String>,
    /// Only letters that failed last longer ago than this, e.g. 90s, 10m, 1h, 7d
    #[arg(long, value_name = "DURATION", value_parser = age)]
    older_than: Option<Duration>,
    /// Only letters that failed last within this time
    #[arg(long, value_name = "DURATION", value_parser = age)]
    newer_than: Option<Duration>,
    /// Only letters with this text somewhere in their body
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// At most this many letters, the oldest ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// The same with its bounds in time, for one run.
#[derive(Debug, Default)]
pub(super) struct LetterFilter {
    /// None: any.
    pub(super) ids: Vec<String>,
    /// After so many matching letters there is an end.
    pub(super) limit: Option<u64>,
    handler: Option<String>,
    reason: Option<String>,
    before: Option<UnixMs>,
    after: Option<UnixMs>,
    text: Option<String>,
}

impl FilterArgs {
    /// The filter as of now; `limit` counts where the command line has none.
    pub(super) fn at(&self, now: UnixMs, limit: Option<u64>) -> LetterFilter {
        let ago =
            |age: Duration| UnixMs(now.0.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        LetterFilter {
            ids: self.ids.clone(),
            limit: self.limit.or(limit),
            handler: self.handler.clone(),
            reason: self.reason.clone(),
            before: self.older_than.map(ago),
            after: self.newer_than.map(ago),
            text: self.text.clone(),
        }
    }

    /// It leaves something out, or may do.
    pub(super) fn is_any(&self) -> bool {
        let Self { ids, handler, reason, older_than, newer_than, text, limit } = self;
        !ids.is_empty()
            || handler.is_some()
            || reason.is_some()
            || older_than.is_some()
            || newer_than.is_some()
            || text.is_some()
            || limit.is_some()
    }
}

impl LetterFilter {
    /// Whether a letter is meant, the limit aside. One that does not say what is asked for is not.
    pub(super) fn matches(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let id = letter.id.as_ref().map(|id| &*id.text);
        (self.ids.is_empty() || self.ids.iter().any(|wanted| Some(wanted.as_str()) == id))
            && is(&self.handler, &letter.handler)
            && is(&self.reason, &letter.reason)
            && self.before.is_none_or(|before| letter.last_failure.is_some_and(|time| time < before))
            && self.after.is_none_or(|after| letter.last_failure.is_some_and(|time| time >= after))
            && self.text.as_ref().is_none_or(|text| contains(&letter.body, text.as_bytes()))
    }
}

/// Byte by byte: a body need not be text, and the text looked for is short.
fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

fn age(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("a duration is {DURATION_FORMS}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lapin::BasicProperties;
    use warren::model::TaskId;

    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_000);

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: FilterArgs,
    }

    fn args(words: &str) -> Result<FilterArgs, clap::Error> {
        Line::try_parse_from(["filter"].into_iter().chain(words.split_whitespace())).map(|line| line.filter)
    }

    fn letter() -> DeadLetter {
        DeadLetter {
            id: Some(TaskId { text: "o-1".into(), generated: false }),
            handler: Some("backup".to_owned()),
            reason: Some("timeout".to_owned()),
            last_failure: Some(UnixMs(NOW.0 - 3_600_000)),
            ..DeadLetter::read(BasicProperties::default(), b"Backup database \xff shop".to_vec())
        }
    }

    #[test]
    fn every_filter_takes_and_leaves_and_all_must_agree() {
        let table = [
            ("", true),
            ("--limit 1", true),
            ("--id o-1", true),
            ("--id o-2", false),
            ("--id o-2 --id o-1", true),
            ("--id o", false),
            ("--handler backup", true),
            ("--handler back", false),
            ("--reason timeout", true),
            ("--reason poison", false),
            ("--older-than 59m", true),
            ("--older-than 1h", false),
            ("--newer-than 1h", true),
            ("--newer-than 59m", false),
            ("--older-than 30m --newer-than 2h", true),
            ("--older-than 3650d", false),
            ("--text database", true),
            ("--text shop", true),
            ("--text Database", false),
            ("--id o-1 --handler backup --reason timeout --older-than 1m --text Backup", true),
            ("--id o-1 --handler backup --reason timeout --older-than 1m --text restore", false),
        ];
        for (words, expected) in table {
            let args = args(words).expect(words);
            assert_eq!(args.at(NOW, None).matches(&letter()), expected, "{words}");
            assert_eq!(args.is_any(), !words.is_empty(), "{words}");
        }
    }

    #[test]
    fn a_letter_that_says_nothing_is_only_meant_where_nothing_is_asked() {
        let silent = DeadLetter::read(BasicProperties::default(), Vec::new());
        for words in
            ["--id o-1", "--handler h", "--reason poison", "--older-than 1s", "--newer-than 1h", "--text t"]
        {
            assert!(!args(words).expect(words).at(NOW, None).matches(&silent), "{words}");
        }
        assert!(args("").expect("no words").at(NOW, None).matches(&silent));
    }

    #[test]
    fn the_limit_of_the_command_line_comes_before_the_verb_s() {
        assert_eq!(args("--limit 7").expect("a limit").at(NOW, Some(100)).limit, Some(7));
        assert_eq!(args("").expect("no words").at(NOW, Some(100)).limit, Some(100));
        assert_eq!(args("").expect("no words").at(NOW, None).limit, None);
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_values_allowed() {
        for (words, part) in [
            ("--reason bored", "too_large"),
            ("--older-than 1", "whole number"),
            ("--newer-than 1w", "whole number"),
            ("--limit 0", "limit"),
        ] {
            let error = args(words).expect_err(words).to_string();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
