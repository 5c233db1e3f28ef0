//! A daemon with the scenario handler, a queue for replies, and `warrenctl publish`.

use std::process::{Command, Output, Stdio};

use lapin::BasicProperties;
use warren_tests::broker::Letter;
use warren_tests::{Broker, Home, Keys, Node, artefacts};

pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) broker: Broker,
    /// A queue for replies; not declared.
    pub(crate) replies: String,
}

impl Stage {
    /// On the shared node; `keys` of the handler.
    pub(crate) fn new(queue: &str, keys: &str) -> Self {
        Self::on(Node::shared(), queue, keys)
    }

    pub(crate) fn on(node: &Node, queue: &str, keys: &str) -> Self {
        let home = Home::new(&node.uri(), queue);
        home.install("fixture-scenario");
        home.configure(Keys { rest: &home.scenario("scenario", "scenario", keys), ..Keys::default() });
        Self { home, broker: Broker::connect(&node.uri()), replies: format!("{queue}.replies") }
    }

    /// Publishes a task that wants its reply in [`Stage::replies`].
    pub(crate) fn ask(&self, id: &str, text: &str) {
        let properties = BasicProperties::default()
            .with_message_id(id.into())
            .with_correlation_id(format!("c-{id}").into())
            .with_reply_to(self.replies.as_str().into());
        self.broker.publish_with(self.home.queue(), properties, text.as_bytes());
    }

    /// `warrenctl publish` with these arguments, to its end.
    pub(crate) fn publish(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("warrenctl")
    }

    /// The same, not started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.arg("publish").arg("--config").arg(self.home.config()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The same, successfully.
    pub(crate) fn published(&self, arguments: &[&str]) {
        assert_ends(&self.publish(arguments), 0);
    }
}

#[track_caller]
pub(crate) fn assert_ends(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", said(output));
}

/// What it wrote to standard error.
pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A property of a letter as text.
pub(crate) fn correlation(letter: &Letter) -> &str {
    letter.properties.correlation_id().as_ref().map_or("", |id| id.as_str())
}
