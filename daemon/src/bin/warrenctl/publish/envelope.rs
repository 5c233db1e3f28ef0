//! What every task of a run is sent with, and where one goes first. Pure.

use std::time::Duration;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use warren::broker::copy::{with_deadline, with_expiration};
use warren::broker::hops;
use warren::config::Queue;
use warren::model::UnixMs;

use super::PublishArgs;
use super::when::When;

/// What every task of a run has in common.
#[derive(Debug, Clone)]
pub(super) struct Envelope {
    /// Where it is to run.
    pub(super) queue: Queue,
    /// The message id, where the user gave one; else each task gets a new one.
    pub(super) id: Option<String>,
    properties: BasicProperties,
    when: When,
    expires: Option<Duration>,
}

impl Envelope {
    /// As the command line says; results are wanted at `reply_to`.
    pub(super) fn new(args: &PublishArgs, queue: Queue, reply_to: Option<&str>, now: UnixMs) -> Self {
        let mut properties = BasicProperties::default().with_delivery_mode(2).with_timestamp(now.0 / 1000);
        if let Some(name) = &args.message_type {
            properties = properties.with_type(name.as_str().into());
        }
        if let Some(priority) = args.priority {
            properties = properties.with_priority(priority);
        }
        if let Some(content_type) = &args.content_type {
            properties = properties.with_content_type(content_type.as_str().into());
        }
        if let Some(reply_to) = reply_to {
            properties = properties.with_reply_to(reply_to.into());
        }
        if !args.headers.is_empty() {
            let mut table = FieldTable::default();
            for (name, value) in &args.headers {
                table.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
            }
            properties = properties.with_headers(table);
        }
        Self { queue, id: args.id.clone(), properties, when: args.when(), expires: args.expires }
    }

    /// A task's properties, and how long it waits before it reaches its queue for the first time; zero: it goes there
    /// at once.
    pub(super) fn seal(&self, id: &str, now: UnixMs) -> (BasicProperties, Duration) {
        let properties = self.properties.clone().with_message_id(id.into());
        let wait = self.when.wait(now);
        let properties = match self.expires {
            None => properties,
            Some(expires) if wait.due == now => with_expiration(properties, expires, now),
            // The property would end it in its delay queue, and a delay queue's end is the work queue.
            Some(expires) => with_deadline(properties, wait.due.plus(expires)),
        };
        hops::put_off(properties, wait, now)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use warren::task::own::{HEADER_DEADLINE, HEADER_DUE, HEADER_SENT};

    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_500);

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: PublishArgs,
    }

    fn sealed(arguments: &[&str]) -> (BasicProperties, Duration) {
        let line = Line::parse_from([&["publish", "text"], arguments].concat());
        Envelope::new(&line.args, Queue::new("tasks"), None, NOW).seal("o-1", NOW)
    }

    fn number(properties: &BasicProperties, name: &str) -> Option<u64> {
        match properties.headers().as_ref()?.inner().get(name)? {
            AMQPValue::LongLongInt(number) => u64::try_from(*number).ok(),
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_task_expires_from_when_it_is_due() {
        let later = Some(NOW.0 + 90 * 60_000);
        let past = "2001-01-01T00:00:00Z";
        let table = [
            // arguments, first wait in ms, due, deadline, expiration
            (&[][..], 0, None, None, None),
            (&["--expires", "1m"], 0, None, None, Some("60000")),
            (&["--delay", "1s"], 1_000, Some(NOW.0 + 1_000), None, None),
            (&["--delay", "1s", "--expires", "1m"], 1_000, Some(NOW.0 + 1_000), Some(NOW.0 + 61_000), None),
            (&["--delay", "90m", "--expires", "1m"], 3_600_000, later, later.map(|due| due + 60_000), None),
            (&["--at", past, "--expires", "1m"], 0, None, None, Some("60000")),
        ];
        for (arguments, wait, due, deadline, expiration) in table {
            let (properties, first) = sealed(arguments);
            assert_eq!(first, Duration::from_millis(wait), "{arguments:?}");
            assert_eq!(number(&properties, HEADER_DUE), due, "{arguments:?}");
            assert_eq!(number(&properties, HEADER_DEADLINE), deadline, "{arguments:?}");
            let found = properties.expiration().as_ref().map(lapin::types::ShortString::as_str);
            assert_eq!(found, expiration, "{arguments:?}");
        }
    }

    #[test]
    fn headers_of_the_user_stay_beside_those_of_a_delay() {
        let (properties, _) = sealed(&["--header", "tenant=acme", "--delay", "7s", "--expires", "1m"]);
        let headers = properties.headers().clone().expect("some");
        let names: Vec<_> = headers.inner().keys().map(lapin::types::ShortString::as_str).collect();
        assert_eq!(names, ["tenant", HEADER_DEADLINE, HEADER_DUE, HEADER_SENT]);
    }
}
