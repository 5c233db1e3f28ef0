//! A RabbitMQ cluster: three private nodes on loopback that found each other.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context, Result};

use crate::Node;

/// The fewest of which one can be lost.
const SIZE: usize = 3;

/// The nodes. All are up, unless a test has stopped them.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    down: Vec<usize>,
}

impl Cluster {
    /// The cluster that the tests of one binary have in turn, whole again for each: three nodes per test would be more
    /// than a small machine runs.
    pub fn turn() -> MutexGuard<'static, Self> {
        static SHARED: OnceLock<Mutex<Cluster>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Mutex::new(Self::start().expect("a RabbitMQ cluster")));
        // A failed test leaves nothing behind but nodes that are down.
        let mut cluster = shared.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.heal().expect("the stopped nodes start again");
        cluster
    }

    /// Starts a cluster of the caller's own.
    pub fn start() -> Result<Self> {
        let first = Node::start()?;
        let mut others: Vec<Node> =
            (1..SIZE).map(|_| Node::launch(Some(&first), None)).collect::<Result<_>>()?;
        others.iter_mut().try_for_each(Node::wait_until_up)?;
        // A node that found nobody would serve AMQP as well, alone.
        first.ctl(&["await_online_nodes", &SIZE.to_string()])?;
        let nodes = std::iter::once(first).chain(others).collect();
        Ok(Self { nodes, down: Vec::new() })
    }

    /// The address of each node.
    pub fn uris(&self) -> Vec<String> {
        self.nodes.iter().map(Node::uri).collect()
    }

    /// One of the nodes, from 0.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// The node that leads a quorum queue.
    pub fn leader(&self, queue: &str) -> Result<usize> {
        let up = (0..SIZE).find(|index| !self.down.contains(index)).context("no node is up")?;
        let listed = self.nodes[up].ctl(&["-q", "list_queues", "name", "leader"])?;
        let row = listed.lines().find_map(|line| line.strip_prefix(queue)?.strip_prefix('\t'));
        let leader = row.with_context(|| format!("no queue {queue}: {listed}"))?.trim();
        let index = self.nodes.iter().position(|node| node.name() == leader);
        index.with_context(|| format!("{queue} is led by {leader:?}"))
    }

    /// Kills a node like a power cut.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        self.down.push(index);
        self.nodes[index].stop()
    }

    /// Starts every stopped node again, and waits until they are up.
    pub fn heal(&mut self) -> Result<()> {
        // All at once: one alone may wait for the others.
        for &index in &self.down {
            self.nodes[index].begin()?;
        }
        while let Some(index) = self.down.pop() {
            self.nodes[index].wait_until_up()?;
        }
        Ok(())
    }
}
