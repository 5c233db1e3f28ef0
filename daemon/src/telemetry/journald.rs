//! Records → the journal, through `tracing-journald`'s layer.
//!
//! The layer is not the process's own: it sends from the thread that logs, and a journal that is behind would hold
//! up the data path. Here it sits under a subscriber that only the log thread calls, and calls directly: as any
//! thread's default subscriber, one without a filter would have `tracing` ask about every disabled event of the
//! whole process.

use std::borrow::Cow;
use std::io;

use tracing::field::Value;
use tracing::{Event, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use super::record::{LogRecord, MAX_FIELDS};
use super::site::HANDLER_FIELDS;
use super::text;
use crate::config::Environment;

/// More than a record can have: its own fields, the nine of its task, the message, and the handler's as one.
const MAX_VALUES: usize = MAX_FIELDS + 16;

/// The way into the journal.
pub(super) struct Journal {
    subscriber: Box<dyn Subscriber + Send + Sync>,
}

/// Whether stderr leads to the journal: systemd names the device and inode of the stream it connected.
pub(super) fn is_stderr(environment: &Environment) -> bool {
    let Some((device, inode)) = environment.text("JOURNAL_STREAM").and_then(|s| s.split_once(':')) else {
        return false;
    };
    rustix::fs::fstat(std::io::stderr())
        .is_ok_and(|stat| device.parse() == Ok(stat.st_dev) && inode.parse() == Ok(stat.st_ino))
}

impl Journal {
    /// The journal of this machine. Each record is sent to journald's socket by its path, so a journald that
    /// restarts is found again; what is logged while there is none is lost.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) fn connect() -> io::Result<Self> {
        // No prefix: handlers cannot make up names of fields, so nothing can be mistaken for another's.
        let layer = tracing_journald::layer()?
            .with_field_prefix(None)
            .with_syslog_identifier("warrend".to_owned())
            .with_priority_mappings(priorities());
        Ok(Self::through(layer))
    }

    /// Whatever takes events in the place of the journal.
    pub(super) fn through(layer: impl Layer<Registry> + Send + Sync) -> Self {
        Self { subscriber: Box::new(Registry::default().with(layer)) }
    }

    /// Sends one record, or loses it: a log has nowhere to complain about that.
    pub(super) fn send(&self, record: &LogRecord) {
        let fields = record.metadata.fields();
        let mut texts = Vec::with_capacity(16);
        let mut put = |name: &str, text: Cow<'_, str>| {
            texts.extend(fields.field(name).map(|field| (field, text.into_owned())));
        };
        // What `journalctl -u warrend` shows is the message alone: so it tells the fields as well, as on stderr. The
        // generation's number stands for the digest's 64 digits.
        let mut message = record.message.to_string();
        text::fields(record, Some("plugin_sha256"), &mut message);
        put("message", Cow::Owned(message));
        record.each_field(|name, value| put(name, Cow::Borrowed(value)));
        if !record.foreign.is_empty() {
            put(HANDLER_FIELDS, Cow::Owned(json(&record.foreign)));
        }
        // The length of the list is part of its type. What is over belongs to the first field and has no value.
        let Some((first, _)) = texts.first() else { return };
        let mut values = [(first, None); MAX_VALUES];
        for (slot, (field, text)) in values.iter_mut().zip(&texts) {
            *slot = (field, Some(text as &dyn Value));
        }
        self.subscriber.event(&Event::new(record.metadata, &fields.value_set(&values)));
    }
}

/// As syslog understands the words: `info` is not worth a "notice", and there is nothing below "debug".
fn priorities() -> PriorityMappings {
    PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() }
}

fn json(fields: &[(String, String)]) -> String {
    let object: serde_json::Map<_, _> =
        fields.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
    serde_json::Value::Object(object).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_those_of_syslog() {
        let PriorityMappings { error, warn, info, debug, trace } = priorities();
        let numbers = [error, warn, info, debug, trace].map(|priority| char::from(priority as u8));
        assert_eq!(numbers, ['3', '4', '6', '7', '7']);
    }

    #[test]
    fn only_a_stream_that_is_stderr_counts() {
        let environment = |value: &str| Environment::from_iter([("JOURNAL_STREAM", value)]);
        let stat = rustix::fs::fstat(std::io::stderr()).expect("stderr is open");
        assert!(is_stderr(&environment(&format!("{}:{}", stat.st_dev, stat.st_ino))));
        for other in [format!("{}:{}", stat.st_dev, stat.st_ino + 1), String::new(), "x:y".to_owned()] {
            assert!(!is_stderr(&environment(&other)), "{other}");
        }
        assert!(!is_stderr(&Environment::new()));
    }
}
