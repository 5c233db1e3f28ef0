//! A daemon with the scenario fixture, a producer that sets any header, and what tests look at.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use warren_tests::{Broker, Daemon, Home, Keys, Node, artefacts, wait};

pub(crate) struct Stage {
    pub(crate) home: Home,
    pub(crate) broker: Broker,
}

impl Stage {
    /// With keys of the queue and of the handler.
    pub(crate) fn new(node: &Node, queue: &str, keys: &str, handler: &str) -> Self {
        let home = Home::new(&node.uri(), queue);
        home.install("fixture-scenario");
        let rest = home.scenario("scenario", "scenario", handler);
        home.configure(Keys { queue: keys, rest: &rest, ..Keys::default() });
        let broker = Broker::connect(&node.uri());
        broker.declare(queue, &[]);
        Self { home, broker }
    }

    /// Publishes with these headers.
    pub(crate) fn publish(&self, id: &str, fields: &[(&str, AMQPValue)], text: &str) {
        self.publish_as(BasicProperties::default(), id, fields, text);
    }

    /// The same with further properties.
    pub(crate) fn publish_as(
        &self,
        properties: BasicProperties,
        id: &str,
        fields: &[(&str, AMQPValue)],
        text: &str,
    ) {
        let mut headers = FieldTable::default();
        for (name, value) in fields {
            headers.insert((*name).into(), value.clone());
        }
        let properties = properties.with_message_id(id.into()).with_headers(headers);
        self.broker.publish_with(self.home.queue(), properties, text.as_bytes());
    }

    /// `warrenctl doctor --json`.
    pub(crate) fn doctor(&self) -> Value {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.args(["doctor", "--json", "--config"]).arg(self.home.config());
        serde_json::from_slice(&command.output().expect("warrenctl").stdout).expect("JSON")
    }

    /// `warrenctl dead VERB… --json`.
    pub(crate) fn dead(&self, verb: &[&str]) -> Value {
        let mut command = Command::new(artefacts::program("warrenctl"));
        let output = command.args(["dead", "--json", "--config"]).arg(self.home.config()).args(verb).output();
        let output = output.expect("warrenctl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// A dead letter, once it is there.
    pub(crate) fn letter(&self, id: &str) -> Value {
        wait::until(&format!("a dead letter of {id}"), || {
            self.broker.depth(&self.home.dead())?;
            let listed = self.dead(&["list"]);
            listed["letters"].as_array()?.iter().any(|letter| letter["id"] == id).then_some(())
        });
        self.dead(&["show", id])
    }
}

/// The one queue of the status.
pub(crate) fn queue(daemon: &Daemon) -> Value {
    daemon.status()["queues"][0].clone()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("in range")
}

pub(crate) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}
