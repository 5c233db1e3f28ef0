//! `--wait`: the results of what was published, in the order of the tasks.
//!
//! They come to a queue of this run's own, which goes with its connection: a daemon that finds it gone settles the task
//! all the same.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use serde::Serialize;
use warren::broker::reply::{OUTCOME_DONE, ReceivedReply, read_reply};

use crate::exit::{Code, VerbError};
use crate::interrupt::Interrupt;
use crate::output::print_bytes;

/// Tasks whose results one run waits for. Each is kept until those before it are printed, and a result has up to
/// 256 KiB.
pub(super) const MOST: usize = 256;
/// Declaring the queue and subscribing to it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the results are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// As long as it takes: `--wait` without a value.
    Forever,
    /// So long from when the last task is published.
    After(Duration),
}

/// What `--wait` without a value stands for.
pub(super) const FOREVER: &str = "forever";

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == FOREVER { Ok(Self::Forever) } else { super::duration(text).map(Self::After) }
    }
}

/// Where the results come to.
pub(super) struct Inbox {
    queue: String,
    consumer: Consumer,
    /// The consumer's; it would end with it.
    _channel: Channel,
}

/// The tasks that are waited for, and what has come of them.
#[derive(Debug, Default)]
pub(super) struct AwaitedTasks {
    tasks: Vec<Awaited>,
    by_id: HashMap<String, usize>,
    /// Tasks before this one are printed.
    printed: usize,
}

/// One task that is waited for.
#[derive(Debug)]
struct Awaited {
    line: u64,
    id: String,
    answer: Option<TaskAnswer>,
}

/// What came of one task.
#[derive(Debug, Serialize)]
pub(super) struct TaskAnswer {
    line: u64,
    id: String,
    #[serde(flatten)]
    reply: ReceivedReply,
    content_type: Option<String>,
    #[serde(serialize_with = "text_or_numbers")]
    body: Vec<u8>,
}

/// A task without a result.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Outstanding {
    line: u64,
    id: String,
}

/// How the waiting ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WaitEnd {
    /// Every task has its result.
    Complete,
    /// Time is up.
    Timeout,
    /// Ctrl-C or SIGTERM.
    Interrupted,
    /// The connection is gone, and the queue with it.
    Lost(String),
}

impl Inbox {
    /// Makes the queue, on the connection that is to publish.
    pub(super) async fn open(link: &Connection) -> Result<Self, VerbError> {
        let opening = async {
            let channel = link.create_channel().await?;
            let options =
                QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
            let queue = channel.queue_declare("".into(), options, FieldTable::default()).await?;
            let queue = queue.name().as_str().to_owned();
            // What is lost on its way to here is lost with the connection, acknowledged or not.
            let options =
                BasicConsumeOptions { no_ack: true, exclusive: true, ..BasicConsumeOptions::default() };
            let consumer = channel
                .basic_consume(queue.as_str().into(), "".into(), options, FieldTable::default())
                .await?;
            Ok::<_, lapin::Error>(Self { queue, consumer, _channel: channel })
        };
        let unavailable = |why: String| {
            let text = format!("cannot make a queue for the results, so nothing was sent: {why}");
            VerbError::text(Code::Unavailable, text)
        };
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(opened) => opened.map_err(|error| unavailable(error.to_string())),
            Err(_) => Err(unavailable("the broker does not answer".to_owned())),
        }
    }

    /// The queue's name.
    pub(super) fn queue(&self) -> &str {
        &self.queue
    }

    /// Waits for the results; prints those of tasks that are done as soon as those before them are.
    pub(super) async fn collect(
        &mut self,
        waiting: &mut AwaitedTasks,
        limit: Limit,
        interrupt: &Interrupt,
        printing: bool,
    ) -> Result<WaitEnd, VerbError> {
        let too_late = async {
            match limit {
                Limit::After(limit) => tokio::time::sleep(limit).await,
                Limit::Forever => std::future::pending().await,
            }
        };
        tokio::pin!(too_late);
        loop {
            while let Some(answer) = waiting.next() {
                if printing && answer.is_done() {
                    print_bytes(&answer.body)?;
                }
            }
            if waiting.is_complete() {
                return Ok(WaitEnd::Complete);
            }
            tokio::select! {
                delivery = self.consumer.next() => match delivery {
                    Some(Ok(delivery)) => waiting.take(&delivery.properties, delivery.data),
                    Some(Err(error)) => return Ok(WaitEnd::Lost(error.to_string())),
                    None => return Ok(WaitEnd::Lost("the queue for the results is gone".to_owned())),
                },
                () = &mut too_late => return Ok(WaitEnd::Timeout),
                () = interrupt.wait() => return Ok(WaitEnd::Interrupted),
            }
        }
    }
}

impl AwaitedTasks {
    /// For tasks as they were published: line and id.
    pub(super) fn new(sent: Vec<(u64, String)>) -> Self {
        let by_id = sent.iter().enumerate().map(|(index, (_, id))| (id.clone(), index)).collect();
        let tasks = sent.into_iter().map(|(line, id)| Awaited { line, id, answer: None }).collect();
        Self { tasks, by_id, printed: 0 }
    }

    /// A message came. One that answers no task, or one that is answered already, is nothing.
    fn take(&mut self, properties: &BasicProperties, body: Vec<u8>) {
        let id = properties.correlation_id().as_ref().map_or("", |id| id.as_str());
        let Some(task) = self.by_id.get(id).map(|&index| &mut self.tasks[index]) else { return };
        let (line, id) = (task.line, task.id.clone());
        let content_type = properties.content_type().as_ref().map(|text| text.as_str().to_owned());
        let reply = read_reply(properties);
        task.answer.get_or_insert(TaskAnswer { line, id, reply, content_type, body });
    }

    /// The next result in order, once.
    fn next(&mut self) -> Option<&TaskAnswer> {
        let answer = self.tasks.get(self.printed)?.answer.as_ref()?;
        self.printed += 1;
        Some(answer)
    }

    fn is_complete(&self) -> bool {
        self.printed == self.tasks.len()
    }

    /// Every result, in order.
    pub(super) fn answers(&self) -> Vec<&TaskAnswer> {
        self.tasks.iter().filter_map(|task| task.answer.as_ref()).collect()
    }

    /// The tasks without one.
    pub(super) fn outstanding(&self) -> Vec<Outstanding> {
        let open = self.tasks.iter().filter(|task| task.answer.is_none());
        open.map(|task| Outstanding { line: task.line, id: task.id.clone() }).collect()
    }

    /// How the program ends, given how the waiting did; `unit` is `line` or `task`.
    pub(super) fn conclude(&self, end: &WaitEnd, unit: &str) -> Result<(), VerbError> {
        let failed = self.answers().into_iter().filter(|answer| !answer.is_done());
        let mut said: Vec<String> = failed.map(|answer| answer.failure(unit)).collect();
        let code = match end {
            WaitEnd::Complete if said.is_empty() => return Ok(()),
            WaitEnd::Complete => Code::Software,
            WaitEnd::Timeout => {
                said.push("the time to wait is up".to_owned());
                Code::TryAgain
            }
            WaitEnd::Interrupted => {
                said.push("interrupted".to_owned());
                Code::Interrupted
            }
            WaitEnd::Lost(why) => {
                said.push(format!("the results can no longer be received: {why}"));
                Code::TryAgain
            }
        };
        let open = self.outstanding();
        if !open.is_empty() {
            let names: Vec<_> =
                open.iter().map(|task| format!("{unit} {} ({})", task.line, task.id)).collect();
            said.push(format!("published, and without a result: {}", names.join(", ")));
        }
        Err(VerbError::text(code, said.join("\n")))
    }
}

impl TaskAnswer {
    /// Done, or answered by another consumer, which says no outcome.
    fn is_done(&self) -> bool {
        self.reply.outcome.as_deref().is_none_or(|outcome| outcome == OUTCOME_DONE)
    }

    fn failure(&self, unit: &str) -> String {
        let ReceivedReply { outcome, handler, attempts, code, message } = &self.reply;
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let by = handler.as_ref().map(|handler| format!(" by {handler}")).unwrap_or_default();
        let tried = attempts.map(|attempts| format!(", attempt {attempts}")).unwrap_or_default();
        let (outcome, code, message) = (text(outcome), text(code), text(message));
        format!("{unit} {} ({}) failed: {outcome}{by}{tried}: {code}: {message}", self.line, self.id)
    }
}

/// Text where it is text; an array of numbers loses nothing of the rest.
#[allow(clippy::ptr_arg, reason = "serde gives the field")]
fn text_or_numbers<S: serde::Serializer>(body: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(body) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => body.serialize(serializer),
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::AMQPValue;
    use warren::task::own::{HEADER_ERROR, HEADER_ERROR_CODE, HEADER_HANDLER, HEADER_OUTCOME};

    use super::*;

    fn waiting() -> AwaitedTasks {
        AwaitedTasks::new(vec![(1, "a".to_owned()), (3, "b".to_owned()), (4, "c".to_owned())])
    }

    fn answer(waiting: &mut AwaitedTasks, id: &str, outcome: Option<&str>, body: &[u8]) {
        let mut headers = FieldTable::default();
        let mut put = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        if let Some(outcome) = outcome {
            put(HEADER_OUTCOME, outcome);
        }
        put(HEADER_HANDLER, "mail");
        put(HEADER_ERROR_CODE, "no-such-user");
        put(HEADER_ERROR, "gone");
        let properties = BasicProperties::default().with_correlation_id(id.into()).with_headers(headers);
        waiting.take(&properties, body.to_vec());
    }

    #[test]
    fn results_are_printed_in_the_order_of_the_tasks_and_once() {
        let mut waiting = waiting();
        answer(&mut waiting, "b", Some("done"), b"2");
        assert!(waiting.next().is_none());
        answer(&mut waiting, "a", Some("done"), b"1");
        answer(&mut waiting, "a", Some("done"), b"again");
        answer(&mut waiting, "stranger", Some("done"), b"0");
        let bodies: Vec<Vec<u8>> =
            std::iter::from_fn(|| waiting.next().map(|answer| answer.body.clone())).collect();
        assert_eq!(bodies, [b"1", b"2"]);
        assert!(!waiting.is_complete());
        answer(&mut waiting, "c", None, b"3");
        assert_eq!(waiting.next().map(|answer| &*answer.body), Some(&b"3"[..]));
        assert!(waiting.is_complete() && waiting.next().is_none());
    }

    #[test]
    fn the_end_says_what_failed_and_what_is_missing() {
        let mut waiting = waiting();
        answer(&mut waiting, "a", Some("done"), b"1");
        answer(&mut waiting, "b", Some("rejected"), b"{}");
        let failure = waiting.conclude(&WaitEnd::Timeout, "line").expect_err("not all is there");
        let said = format!("{failure:?}");
        for part in [
            "TryAgain",
            "line 3 (b) failed: rejected by mail: no-such-user: gone",
            "time to wait is up",
            "without a result: line 4 (c)",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        answer(&mut waiting, "c", None, b"");
        let failure = waiting.conclude(&WaitEnd::Complete, "task").expect_err("one failed");
        let said = format!("{failure:?}");
        assert!(said.contains("Software") && !said.contains("without a result"), "{said}");
        let mut all = AwaitedTasks::new(vec![(1, "a".to_owned())]);
        answer(&mut all, "a", Some("done"), b"");
        assert!(all.conclude(&WaitEnd::Complete, "task").is_ok());
    }

    #[test]
    fn a_body_is_text_in_json_where_it_can_be() {
        let mut waiting = waiting();
        answer(&mut waiting, "a", Some("done"), b"words");
        answer(&mut waiting, "b", Some("done"), b"\xff\x00");
        let json = serde_json::to_value(waiting.answers()).expect("JSON");
        assert_eq!((&json[0]["body"], &json[1]["body"]), (&"words".into(), &serde_json::json!([255, 0])));
        assert_eq!((&json[0]["line"], &json[0]["outcome"]), (&1.into(), &"done".into()));
        assert_eq!(waiting.outstanding(), [Outstanding { line: 4, id: "c".to_owned() }]);
    }
}
