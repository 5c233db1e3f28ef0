//! Prefix → handler. Pure.
//!
//! A task is matched in this order; the first step that finds a route decides:
//!
//! 1. its AMQP property `type`, when that equals a registered prefix byte for byte;
//! 2. its text without one trailing newline and without the label `Task <n>:`, by the longest prefix that ends on
//!    a word boundary;
//! 3. its text with the label, in the same way, so that a prefix such as `Task 1` can be registered as well.

mod explain;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use explain::Explanation;
use warren_plugin::hosting::ends_on_word_boundary;
pub use warren_plugin::hosting::{split_label, trim_newline};

/// One handler's claim to one prefix, as the registry states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteEntry {
    /// The prefix. White space at its ends does not count.
    pub prefix: Arc<str>,
    /// The handler, as an index that only the caller interprets.
    pub handler: usize,
    /// The queues the claim is narrowed to; `None`: all.
    pub queues: Option<Vec<String>>,
    /// The handler holds this prefix in the table that is in force.
    pub incumbent: bool,
}

/// A claim that was not admitted to the table, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The prefix, trimmed.
    pub prefix: Arc<str>,
    /// The handler whose claim is refused.
    pub handler: usize,
    /// What it collides with.
    pub kind: ConflictKind,
}

/// Why a claim was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictKind {
    /// This handler has the prefix and keeps it.
    Incumbent(usize),
    /// This other newcomer claims it too, so neither gets it.
    Newcomer(usize),
    /// The prefix is empty: it would take every task.
    Empty,
}

/// The routing table. Built whole, then only read; a reload builds another one.
#[derive(Debug, Clone, Default)]
pub struct Router {
    /// In byte order of the prefixes, each prefix once.
    nodes: Vec<PrefixNode>,
}

/// Where a task goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match<'r> {
    /// The handler's index as the entry gave it.
    pub handler: usize,
    /// The prefix that matched.
    pub prefix: &'r Arc<str>,
    /// The argument within the text that was routed, trimmed of white space; empty where `type` decided.
    pub argument: Range<usize>,
    /// `type` decided, not the text: the text need not be UTF-8.
    pub by_type: bool,
}

#[derive(Debug, Clone)]
struct PrefixNode {
    prefix: Arc<str>,
    /// The longest other registered prefix that this one begins with.
    parent: Option<usize>,
    /// Claims whose queues do not overlap; hardly ever more than one.
    claims: Vec<Claim>,
}

#[derive(Debug, Clone)]
struct Claim {
    handler: usize,
    queues: Option<Vec<String>>,
}

impl Router {
    /// Builds the table. Of two claims to one prefix in overlapping queues the incumbent keeps it and two newcomers
    /// are both refused; of two incumbents (a reload widened the queues of one) the earlier entry keeps it. Every
    /// refused claim is a row of the second result; all others are in force.
    pub fn build(entries: impl IntoIterator<Item = RouteEntry>) -> (Self, Vec<Conflict>) {
        let mut conflicts = Vec::new();
        let mut entries: Vec<RouteEntry> = entries
            .into_iter()
            .filter_map(|entry| match entry.prefix.trim_ascii() {
                "" => {
                    let kind = ConflictKind::Empty;
                    conflicts.push(Conflict { prefix: "".into(), handler: entry.handler, kind });
                    None
                }
                trimmed if trimmed.len() == entry.prefix.len() => Some(entry),
                trimmed => Some(RouteEntry { prefix: trimmed.into(), ..entry }),
            })
            .collect();
        entries.sort_by(|a, b| a.prefix.cmp(&b.prefix)); // stable: entries of one prefix stay in the caller's order
        let mut nodes: Vec<PrefixNode> = Vec::new();
        for group in entries.chunk_by(|a, b| a.prefix == b.prefix) {
            let claims = admit(group, &mut conflicts);
            if !claims.is_empty() {
                let prefix = Arc::clone(&group[0].prefix);
                let parent = parent_of(&nodes, prefix.as_bytes());
                nodes.push(PrefixNode { prefix, parent, claims });
            }
        }
        (Self { nodes }, conflicts)
    }

    /// Finds the handler of a task that came from `queue`. Allocates nothing; the work is one binary search for the
    /// type and at most two for the text.
    pub fn route(&self, queue: &str, message_type: Option<&str>, text: &[u8]) -> Option<Match<'_>> {
        if let Some(found) = message_type.and_then(|name| self.by_type(queue, name)) {
            return Some(found);
        }
        let text = trim_newline(text);
        let stripped = split_label(text);
        self.by_text(queue, text, text.len() - stripped.len())
            .or_else(|| if stripped.len() < text.len() { self.by_text(queue, text, 0) } else { None })
    }

    /// Every prefix in force, in byte order, with the handlers that take it.
    pub fn prefixes(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = usize>)> {
        self.nodes.iter().map(|node| (&*node.prefix, node.claims.iter().map(|claim| claim.handler)))
    }

    fn by_type(&self, queue: &str, name: &str) -> Option<Match<'_>> {
        let at = self.nodes.binary_search_by(|node| (*node.prefix).cmp(name)).ok()?;
        let node = &self.nodes[at];
        let handler = node.handler_for(queue)?;
        Some(Match { handler, prefix: &node.prefix, argument: 0..0, by_type: true })
    }

    fn by_text(&self, queue: &str, text: &[u8], start: usize) -> Option<Match<'_>> {
        let body = &text[start..];
        self.prefixes_of(body).filter(|node| ends_on_word_boundary(node.prefix.as_bytes(), body)).find_map(
            |node| {
                let handler = node.handler_for(queue)?;
                let argument = trimmed(text, start + node.prefix.len());
                Some(Match { handler, prefix: &node.prefix, argument, by_type: false })
            },
        )
    }

    /// The registered prefixes that `body` begins with, longest first. All of them are the greatest prefix that is
    /// not above `body`, or one of its ancestors: whatever sorts between a prefix and a text that begins with it
    /// begins with it too.
    fn prefixes_of<'r>(&'r self, body: &[u8]) -> impl Iterator<Item = &'r PrefixNode> {
        let above = self.nodes.partition_point(|node| node.prefix.as_bytes() <= body);
        let first = above.checked_sub(1);
        std::iter::successors(first, |&at| self.nodes[at].parent)
            .map(|at| &self.nodes[at])
            .filter(move |node| body.starts_with(node.prefix.as_bytes()))
    }
}

impl PrefixNode {
    fn handler_for(&self, queue: &str) -> Option<usize> {
        self.claims.iter().find(|claim| claim.takes(queue)).map(|claim| claim.handler)
    }
}

impl Claim {
    fn takes(&self, queue: &str) -> bool {
        self.queues.as_ref().is_none_or(|queues| queues.iter().any(|name| name == queue))
    }
}

impl Conflict {
    /// The refusal in words. `name` gives a handler's name for its index.
    pub fn message<'n>(&self, name: impl Fn(usize) -> &'n str) -> String {
        let (prefix, refused) = (&self.prefix, name(self.handler));
        match self.kind {
            ConflictKind::Incumbent(other) => format!(
                "prefix `{prefix}` of handler `{refused}` is taken by handler `{}`, which keeps it; \
                 give one of them other `prefixes` or narrow them with `queues`",
                name(other)
            ),
            ConflictKind::Newcomer(other) => format!(
                "prefix `{prefix}` is claimed by both handler `{refused}` and handler `{}`, so neither gets it; \
                 give one of them other `prefixes` or narrow them with `queues`",
                name(other)
            ),
            ConflictKind::Empty => {
                format!(
                    "handler `{refused}` has an empty prefix, which would take every task; write a word or more"
                )
            }
        }
    }
}

impl fmt::Display for ConflictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incumbent(_) => "held by another handler",
            Self::Newcomer(_) => "claimed twice",
            Self::Empty => "empty",
        })
    }
}

/// Decides the claims to one prefix.
fn admit(group: &[RouteEntry], conflicts: &mut Vec<Conflict>) -> Vec<Claim> {
    let mut claims: Vec<Claim> = Vec::new();
    let mut refuse = |entry: &RouteEntry, kind| {
        let prefix = Arc::clone(&entry.prefix);
        conflicts.push(Conflict { prefix, handler: entry.handler, kind });
    };
    for entry in group.iter().filter(|entry| entry.incumbent) {
        match holder(&claims, entry) {
            Some(other) => refuse(entry, ConflictKind::Incumbent(other)),
            None => claims.push(Claim::of(entry)),
        }
    }
    let newcomers: Vec<&RouteEntry> = group
        .iter()
        .filter(|entry| !entry.incumbent)
        .filter(|entry| match holder(&claims, entry) {
            Some(other) => {
                refuse(entry, ConflictKind::Incumbent(other));
                false
            }
            None => true,
        })
        .collect();
    for entry in &newcomers {
        match newcomers.iter().find(|other| other.handler != entry.handler && overlap(entry, other)) {
            Some(other) => refuse(entry, ConflictKind::Newcomer(other.handler)),
            None => claims.push(Claim::of(entry)),
        }
    }
    claims
}

/// The other handler that already has a claim overlapping this entry's.
fn holder(claims: &[Claim], entry: &RouteEntry) -> Option<usize> {
    let collides = |claim: &&Claim| {
        claim.handler != entry.handler && queues_overlap(claim.queues.as_deref(), entry.queues.as_deref())
    };
    claims.iter().find(collides).map(|claim| claim.handler)
}

fn overlap(a: &RouteEntry, b: &RouteEntry) -> bool {
    queues_overlap(a.queues.as_deref(), b.queues.as_deref())
}

fn queues_overlap(a: Option<&[String]>, b: Option<&[String]>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.iter().any(|queue| b.contains(queue)),
        _ => true,
    }
}

impl Claim {
    fn of(entry: &RouteEntry) -> Self {
        Self { handler: entry.handler, queues: entry.queues.clone() }
    }
}

/// The longest prefix among `nodes`, all of which sort below `prefix`, that `prefix` begins with.
fn parent_of(nodes: &[PrefixNode], prefix: &[u8]) -> Option<usize> {
    std::iter::successors(nodes.len().checked_sub(1), |&at| nodes[at].parent)
        .find(|&at| prefix.starts_with(nodes[at].prefix.as_bytes()))
}

fn trimmed(text: &[u8], from: usize) -> Range<usize> {
    let rest = &text[from..];
    let start = from + (rest.len() - rest.trim_ascii_start().len());
    start..start + text[start..].trim_ascii_end().len()
}
