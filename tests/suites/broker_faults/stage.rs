//! A daemon with the scenario fixture on a queue of its own, and what tests look at.

use serde_json::Value;
use warren_tests::{Broker, Daemon, Home, Keys, Node, wait};

/// A home whose daemon consumes `queue` at `uri`, with further keys of the broker, the queue and the handler.
pub(crate) fn home(uri: &str, queue: &str, [broker, window, handler]: [&str; 3]) -> Home {
    let home = Home::new(uri, queue);
    home.install("fixture-scenario");
    let rest = home.scenario("scenario", "scenario", handler);
    home.configure(Keys { broker, queue: window, rest: &rest, ..Keys::default() });
    home
}

/// The one queue of the status.
pub(crate) fn queue(daemon: &Daemon) -> Value {
    daemon.status()["queues"][0].clone()
}

/// Waits until nothing is held, nothing waits anywhere and the broker has nothing unacknowledged.
pub(crate) fn wait_settled(node: &Node, broker: &Broker, daemon: &Daemon, home: &Home) {
    wait::until("every task settled", || {
        let queue = queue(daemon);
        let idle = ["running", "waiting", "settling"].iter().all(|key| queue[*key] == 0);
        (idle && broker.family_depth(home.queue()) == 0).then_some(())
    });
    wait::until("nothing unacknowledged", || (node.unacknowledged(home.queue()) == Some(0)).then_some(()));
}

/// Waits until one of the newest errors in the status contains all of these.
pub(crate) fn wait_error(daemon: &Daemon, parts: &[&str]) {
    wait::until(&format!("an error with {parts:?}"), || {
        let status = daemon.status();
        let errors = status["last_errors"].as_array().expect("errors").iter();
        let mut messages = errors.filter_map(|error| error["message"].as_str());
        messages.any(|message| parts.iter().all(|part| message.contains(part))).then_some(())
    });
}
