//! `tracing` events → records. Nothing is rendered or written on the thread that logs.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::record::LogRecord;
use super::writer::{RecordQueue, RecordSource};

/// Puts every event that passes the filter into the log queue.
pub(super) struct Forward {
    queue: RecordQueue,
}

impl Forward {
    pub(super) fn new(queue: RecordQueue) -> Self {
        Self { queue }
    }
}

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields { message: String::new(), record: LogRecord::new(metadata, "") };
        event.record(&mut fields);
        let Fields { message, record } = fields;
        self.queue.push(RecordSource::Own, record.with_message(message));
    }
}

struct Fields {
    message: String,
    record: LogRecord,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.record.field(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a String cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.record.field(field.name(), format!("{value:?}"));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.record.field(field.name(), text);
    }
}
