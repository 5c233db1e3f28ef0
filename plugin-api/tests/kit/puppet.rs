//! The handler of these tests, which does whatever its task's argument says.

use serde_json::json;
use std::cell::RefCell;
use std::io::{self, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use warren_plugin::testing::TestKit;
use warren_plugin::{
    Call, Done, Failure, Handler, Host, Level, Logger, Message, Outcome, Task, abi, reject, retry,
};

thread_local! {
    /// Tells the test that its task has begun: the kit runs a handler on the test's own thread.
    pub(crate) static STARTED: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) };
}

/// Does what the argument says.
pub(crate) struct Puppet {
    log: Logger,
    dropped: Option<mpsc::Sender<()>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    mood: String,
}

impl Handler for Puppet {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        host.log(Level::Info, "made", &[("mood", &settings.mood)]);
        match settings.mood.as_str() {
            "bad" => Err(reject("bad-mood", "not in this mood")),
            "panicking" => panic!("in new"),
            _ => Ok(Self { log: host.logger(), dropped: None }),
        }
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        match task.argument() {
            "empty" => Ok(Done::empty()),
            "json" => Done::json(&json!({"answer": 42})),
            "retry" => Err(retry("busy", "the server is busy").after(Duration::from_secs(7))),
            "reject" => Err(reject("bad", "never")),
            "io" => Err(io::Error::other("no disk"))?,
            "panic" => panic!("the answer is {}", 41),
            "odd panic" => std::panic::panic_any(7_u8),
            "describe" => Ok(Done::text(describe(task))),
            "large" => Ok(Done::body("text/plain", vec![b'x'; abi::MAX_RESULT_BYTES + 1])),
            "largest" => Ok(Done::body("text/plain", vec![b'x'; abi::MAX_RESULT_BYTES])),
            "long type" => Ok(Done::body(format!("text/html;{}", " ".repeat(406)), "an answer")),
            "no json" => Done::json(&std::collections::BTreeMap::from([([1_u8], "x")])),
            "long error" => Err(retry("e".repeat(300), "é".repeat(abi::MAX_ERROR_BYTES))),
            "swarm" => (0..=abi::MAX_FOLLOW_UPS)
                .try_for_each(|n| call.publish(Message::new(format!("{n}"))))
                .map(|()| Done::empty()),
            "large follow-up, ignored" => {
                let refused = call.publish(Message::new(vec![0; abi::MAX_FOLLOW_UP_BYTES + 1]));
                assert!(refused.is_err());
                Ok(Done::empty())
            }
            "follow-ups" => {
                call.publish(Message::new("Process payment #1001"))?;
                call.publish(full_message())?;
                Ok(Done::empty())
            }
            "follow-up, then retry" => {
                call.publish(Message::new("Process payment #1001"))?;
                Err(retry("later", "not yet"))
            }
            "steps" => steps(call),
            "pretend cancelled" => Err(cancelled_failure()),
            "sleep" => call.sleep(Duration::from_secs(60)).map(|()| Done::text("slept")),
            "say so and sleep" => {
                STARTED.take().expect("the test waits for it").send(()).expect("the test waits for it");
                call.sleep(Duration::from_secs(60)).map(|()| Done::text("slept"))
            }
            "wait for the descriptor" => {
                // Reading it is against the rules, but it is the plainest way to wait without a deadline of
                // one's own.
                let fd = call.cancel_fd().expect("the kit has one").try_clone_to_owned()?;
                io::PipeReader::from(fd).read_exact(&mut [0])?;
                Ok(Done::text(format!("cancelled {}, left {:?}", call.cancelled(), call.remaining())))
            }
            "oversleep" => {
                assert!(!call.cancelled(), "its time counts from its start");
                assert!(call.sleep(Duration::from_secs(60)).is_err());
                Ok(Done::text(format!("cancelled {}, left {:?}", call.cancelled(), call.remaining())))
            }
            "lend to threads" => {
                thread::scope(|scope| {
                    scope.spawn(|| call.progress(1, "from a thread"));
                });
                Ok(Done::empty())
            }
            "log" => {
                self.log.log(Level::Debug, "looked", &[("a", "1"), ("b", "2")]);
                call.logger().warn("careful");
                Ok(Done::empty())
            }
            "panic when dropped" => {
                self.dropped = Some(mpsc::channel().0);
                Ok(Done::empty())
            }
            other => Err(reject("unknown", other)),
        }
    }

    fn quiesce(&mut self, call: &Call<'_>) {
        if let Err(refused) = call.publish(Message::new("too late")) {
            self.log.info(refused.message());
        }
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        assert!(self.dropped.is_none(), "asked to panic when dropped");
    }
}

fn describe(task: &Task<'_>) -> String {
    let headers: Vec<String> = task.headers().map(|(key, value)| format!("{key}={value}")).collect();
    format!(
        "id {} generated {} attempt {} redelivered {} queue {} prefix {:?} type {:?} headers {} x {:?} none {:?} body {:?}",
        task.id(),
        task.id_is_generated(),
        task.attempt(),
        task.redelivered(),
        task.queue(),
        task.prefix(),
        task.content_type(),
        headers.join(" "),
        task.header("x"),
        task.header("none"),
        task.text().unwrap_or("not text"),
    )
}

pub(crate) fn full_message() -> Message {
    Message::new(vec![0xff, 0])
        .queue("other")
        .id("p-1")
        .message_type("Process payment")
        .content_type("application/octet-stream")
        .header("k", "v")
        .header("k", "w")
        .delay(Duration::from_micros(1_500))
        .expires(Duration::from_secs(60))
        .priority(9)
}

fn steps(call: &Call<'_>) -> Outcome {
    for step in 1..=4 {
        call.check()?;
        call.progress(step * 250, &format!("step {step}"));
    }
    Ok(Done::text("all steps"))
}

/// The only way to get one without being cancelled: keep it from a call that was.
fn cancelled_failure() -> Failure {
    let mut kit = puppet();
    kit.cancelled();
    kit.run("steps").outcome.unwrap_err()
}

pub(crate) fn puppet() -> TestKit<Puppet> {
    TestKit::without_manifest(json!({})).expect("the settings are good")
}
