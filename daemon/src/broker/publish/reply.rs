//! What the sender of a task with `reply_to` is told once the task has ended. Pure.
//!
//! Its headers count and identify under other names than a task's copies do: a reply may go to a queue that Warren
//! consumes, and is a new task there, with its first attempt before it.

use std::borrow::Cow;

use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};
use serde::Serialize;
use serde_json::json;

use super::copy::PERSISTENT;
use super::direct_reply::is_nowhere;
use crate::model::{DeadReason, TaskId, TaskResult, UnixMs};
use crate::task::own::{
    self, Failure, HEADER_ATTEMPTS, HEADER_OUTCOME, HEADER_TASK, RecordedFailure, count_value, put, text,
};
use crate::task::trace;

/// [`HEADER_OUTCOME`] of a task that is done.
pub const OUTCOME_DONE: &str = "done";

/// A task that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    pub id: &'a TaskId,
    /// The handler; empty when none took it.
    pub handler: &'a str,
    /// The attempt that was its last, from 1.
    pub attempt: u32,
    pub ending: Ending<'a>,
}

/// How a task ended for good.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// Done, perhaps with a result.
    Done(Option<&'a TaskResult>),
    Dead(DeadReason, Failure<'a>),
}

/// A reply, ready to be sent through the default exchange.
#[derive(Debug, PartialEq)]
pub struct Reply<'a> {
    pub to: &'a str,
    pub properties: BasicProperties,
    /// The handler's result, or what went wrong as JSON.
    pub body: Cow<'a, [u8]>,
}

/// Whether the sender of a task wants to know how it ends.
pub fn is_wanted(task: &BasicProperties) -> bool {
    wanted_at(task).is_some()
}

/// The reply that a task owes its sender, if it asked for one.
pub fn reply<'a>(task: &'a BasicProperties, ended: &Ended<'a>, now: UnixMs) -> Option<Reply<'a>> {
    let to = wanted_at(task)?;
    let mut headers = FieldTable::default();
    trace::inherit(&mut headers, task.headers().as_ref());
    put(&mut headers, HEADER_TASK, text(&ended.id.text));
    put(&mut headers, HEADER_ATTEMPTS, count_value(ended.attempt));
    let mut failed = Failure { handler: ended.handler, ..Failure::default() };
    let (outcome, content_type, body) = match &ended.ending {
        Ending::Done(Some(result)) => {
            (OUTCOME_DONE, result.content_type.as_str(), Cow::Borrowed(&*result.body))
        }
        Ending::Done(None) => (OUTCOME_DONE, "", Cow::Borrowed(&b""[..])),
        Ending::Dead(reason, failure) => {
            failed = Failure { handler: ended.handler, ..*failure };
            (reason.as_str(), "application/json", Cow::Owned(explanation(ended, *reason, failure)))
        }
    };
    failed.put(&mut headers);
    put(&mut headers, HEADER_OUTCOME, text(outcome));
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now.seconds())
        .with_headers(headers);
    // A task's id has at most 255 bytes, as the property has.
    let own = || ShortString::try_new(&*ended.id.text).ok();
    if let Some(correlation) = task.correlation_id().clone().or_else(own) {
        properties = properties.with_correlation_id(correlation);
    }
    if let Some(content_type) =
        ShortString::try_new(content_type).ok().filter(|text| !text.as_str().is_empty())
    {
        properties = properties.with_content_type(content_type);
    }
    Some(Reply { to, properties, body })
}

/// What a reply says, as its receiver reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReceivedReply {
    /// [`OUTCOME_DONE`] or why the task is a dead letter; `None`: the reply is not Warren's.
    pub outcome: Option<String>,
    pub handler: Option<String>,
    pub attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The failure in a line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Reads a reply's outcome from its headers.
pub fn read_reply(reply: &BasicProperties) -> ReceivedReply {
    let failure = RecordedFailure::read(reply);
    let attempts = own::count(reply.headers().as_ref(), HEADER_ATTEMPTS);
    ReceivedReply {
        outcome: own::note(reply, HEADER_OUTCOME),
        handler: failure.handler,
        attempts: (attempts > 0).then_some(attempts),
        code: failure.code,
        message: failure.message,
    }
}

fn wanted_at(task: &BasicProperties) -> Option<&str> {
    let to = task.reply_to().as_ref().filter(|to| !is_nowhere(to))?.as_str();
    (!to.is_empty()).then_some(to)
}

fn explanation(ended: &Ended<'_>, reason: DeadReason, failure: &Failure<'_>) -> Vec<u8> {
    let explanation = json!({
        "outcome": reason.as_str(),
        "task": &*ended.id.text,
        "handler": ended.handler,
        "attempts": ended.attempt,
        "code": failure.code,
        "message": failure.message,
    });
    explanation.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;

    use super::*;
    use crate::task::own::{HEADER_ERROR, HEADER_ERROR_CODE, HEADER_HANDLER};

    const NOW: UnixMs = UnixMs(1_700_000_000_500);
    const FAILURE: Failure<'static> =
        Failure { handler: "mail", code: "no-such-user", message: "gone \"away\"" };

    fn given(text: &str) -> TaskId {
        TaskId { text: text.into(), generated: false }
    }

    fn asking() -> BasicProperties {
        BasicProperties::default().with_reply_to("answers".into())
    }

    fn headers(reply: &Reply<'_>) -> Vec<(String, String)> {
        let table = reply.properties.headers().clone().unwrap_or_default();
        let words = |value: &AMQPValue| match value {
            AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
            AMQPValue::LongInt(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        table.inner().iter().map(|(name, value)| (name.as_str().to_owned(), words(value))).collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_result_is_sent_as_the_handler_gave_it() {
        let id = given("o-1");
        let result = TaskResult { content_type: "text/plain".to_owned(), body: b"\x00 words \xff".to_vec() };
        let ended = Ended { id: &id, handler: "count", attempt: 2, ending: Ending::Done(Some(&result)) };
        let task = asking();
        let reply = reply(&task, &ended, NOW).expect("asked for");
        assert_eq!((reply.to, &*reply.body), ("answers", &*result.body));
        let expected = pairs(&[
            (HEADER_ATTEMPTS, "2"),
            (HEADER_HANDLER, "count"),
            (HEADER_OUTCOME, "done"),
            (HEADER_TASK, "o-1"),
        ]);
        assert_eq!(headers(&reply), expected);
        let with = BasicProperties::default()
            .with_delivery_mode(2)
            .with_timestamp(1_700_000_000)
            .with_correlation_id("o-1".into())
            .with_content_type("text/plain".into())
            .with_headers(reply.properties.headers().clone().expect("some"));
        assert_eq!(reply.properties, with);
    }

    #[test]
    fn every_ending_names_itself() {
        let id = given("o-1");
        let table = [
            (Ending::Done(None), "done"),
            (Ending::Dead(DeadReason::Rejected, FAILURE), "rejected"),
            (Ending::Dead(DeadReason::Attempts, FAILURE), "attempts"),
            (Ending::Dead(DeadReason::Timeout, FAILURE), "timeout"),
            (Ending::Dead(DeadReason::Poison, FAILURE), "poison"),
            (Ending::Dead(DeadReason::Expired, FAILURE), "expired"),
            (Ending::Dead(DeadReason::Unroutable, Failure { handler: "", ..FAILURE }), "unroutable"),
        ];
        for (ending, expected) in table {
            let task = asking();
            let ended = Ended { id: &id, handler: "mail", attempt: 3, ending };
            let reply = reply(&task, &ended, NOW).expect("asked for");
            let outcome = headers(&reply).into_iter().find(|(name, _)| name == HEADER_OUTCOME);
            assert_eq!(outcome.map(|(_, value)| value).as_deref(), Some(expected));
            let Ending::Dead(..) = ending else {
                assert!(reply.body.is_empty() && reply.properties.content_type().is_none());
                continue;
            };
            let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
            let said = json!({"outcome": expected, "task": "o-1", "handler": "mail", "attempts": 3,
                "code": "no-such-user", "message": "gone \"away\""});
            assert_eq!(body, said);
            let failure = pairs(&[(HEADER_ERROR, FAILURE.message), (HEADER_ERROR_CODE, FAILURE.code)]);
            assert!(failure.iter().all(|field| headers(&reply).contains(field)), "{reply:?}");
        }
    }

    #[test]
    fn a_reply_is_read_as_it_was_written() {
        let id = given("o-1");
        let task = asking();
        let read = |ending| {
            let ended = Ended { id: &id, handler: "mail", attempt: 3, ending };
            read_reply(&reply(&task, &ended, NOW).expect("asked for").properties)
        };
        let said = |outcome: &str| ReceivedReply {
            outcome: Some(outcome.to_owned()),
            handler: Some("mail".to_owned()),
            attempts: Some(3),
            ..ReceivedReply::default()
        };
        assert_eq!(read(Ending::Done(None)), said("done"));
        let (code, message) = (Some(FAILURE.code.to_owned()), Some(FAILURE.message.to_owned()));
        let rejected = read(Ending::Dead(DeadReason::Rejected, FAILURE));
        assert_eq!(rejected, ReceivedReply { code, message, ..said("rejected") });
        assert_eq!(read_reply(&asking()), ReceivedReply::default(), "not every reply is Warren's");
    }

    #[test]
    fn the_senders_correlation_id_goes_before_the_tasks_id() {
        let id = given("o-1");
        let ended = Ended { id: &id, handler: "", attempt: 1, ending: Ending::Done(None) };
        let task = asking().with_correlation_id("c-9".into()).with_message_id("o-1".into());
        let reply = reply(&task, &ended, NOW).expect("asked for");
        assert_eq!(reply.properties.correlation_id(), &Some("c-9".into()));
        assert!(reply.properties.reply_to().is_none() && reply.properties.message_id().is_none());
    }

    #[test]
    fn a_reply_goes_where_somebody_can_be_and_nowhere_else() {
        let to = |to: &str| is_wanted(&BasicProperties::default().with_reply_to(to.into()));
        assert!(!is_wanted(&BasicProperties::default()));
        for (name, wanted) in [
            ("answers", true),
            ("amq.rabbitmq.reply-to.g1h2", true),
            ("amq.rabbitmq.reply-to", false),
            ("", false),
        ] {
            assert_eq!(to(name), wanted, "{name}");
        }
    }

    #[test]
    fn a_reply_is_a_new_task_where_warren_consumes_its_queue() {
        let id = given("o-1");
        let task = asking();
        let ended = Ended {
            id: &id,
            handler: "mail",
            attempt: 5,
            ending: Ending::Dead(DeadReason::Attempts, FAILURE),
        };
        let reply = reply(&task, &ended, NOW).expect("asked for");
        let seen = crate::task::identified(&reply.properties);
        assert!(seen.id.generated && &*seen.id.text != "o-1");
        assert_eq!((seen.attempt, seen.redeliveries), (1, 0));
    }
}
