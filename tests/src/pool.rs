//! Nodes that a test has to itself, for what others would suffer from: restarts, alarms, settings. Starting one takes
//! seconds of CPU time, so that tests have them one after the other.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use crate::Node;

/// Nodes that are as good as new. The keeper of each ends it with this process.
static IDLE: Mutex<Vec<Node>> = Mutex::new(Vec::new());

/// A node of the caller's own. Dropped, it is cleaned for the next test; where that fails, or the test has, it is ended.
#[derive(Debug)]
pub struct OwnNode(Option<Node>);

impl OwnNode {
    pub(crate) fn take() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let node = idle.unwrap_or_else(|| Node::start().expect("a private RabbitMQ node"));
        node.remember().expect("the node answers");
        Self(Some(node))
    }
}

impl Deref for OwnNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for OwnNode {
    fn deref_mut(&mut self) -> &mut Node {
        self.0.as_mut().expect("there until it is dropped")
    }
}

impl Drop for OwnNode {
    fn drop(&mut self) {
        let Some(node) = self.0.take() else { return };
        if std::thread::panicking() {
            return;
        }
        match node.clean() {
            Ok(()) => IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(node),
            Err(error) => eprintln!("a node is not used again: {error:#}"),
        }
    }
}
