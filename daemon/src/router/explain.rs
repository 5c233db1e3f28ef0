//! Why a task goes where it goes, in words for an operator (`warrenctl route`). Not on the data path.

use crate::text;

use super::{Match, PrefixNode, Router, ends_on_word_boundary, split_label, trim_newline};

/// The decision and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'r> {
    /// Where the task goes; `None`: it would be dead-lettered as `unroutable`.
    pub found: Option<Match<'r>>,
    /// Why, in a sentence or two.
    pub why: String,
}

impl Router {
    /// Routes like [`Router::route`] and says why. `name` gives a handler's name for its index.
    pub fn explain<'n>(
        &self,
        queue: &str,
        message_type: Option<&str>,
        text: &[u8],
        name: impl Fn(usize) -> &'n str,
    ) -> Explanation<'_> {
        let found = self.route(queue, message_type, text);
        let text = trim_newline(text);
        let body = split_label(text);
        let mut reasons = Vec::new();
        if let Some(wanted) = message_type
            && !found.as_ref().is_some_and(|found| found.by_type)
        {
            reasons.push(format!("its type `{wanted}` is no prefix of queue `{queue}`, so its text decides"));
        }
        match &found {
            Some(found) if found.by_type => {
                reasons.push(format!(
                    "its type is the prefix `{}` of handler `{}`",
                    found.prefix,
                    name(found.handler)
                ));
            }
            Some(found) => {
                let label_counts = self.by_text(queue, body, 0).is_none();
                reasons.extend(label_reason(text, body, label_counts));
                let body = if label_counts { text } else { body };
                reasons.extend(self.passed_over(queue, body, found.prefix.len(), &name));
                reasons.push(format!(
                    "it begins with the prefix `{}` of handler `{}`",
                    found.prefix,
                    name(found.handler)
                ));
            }
            None => reasons.extend(self.no_route(queue, text, body, &name)),
        }
        Explanation { found, why: sentence(&reasons) }
    }

    /// Longer prefixes that the body begins with but that were not taken.
    fn passed_over<'n>(
        &self,
        queue: &str,
        body: &[u8],
        longer_than: usize,
        name: impl Fn(usize) -> &'n str,
    ) -> Vec<String> {
        self.prefixes_of(body)
            .filter(|node| node.prefix.len() > longer_than)
            .map(|node| not_taken(node, queue, body, &name))
            .collect()
    }

    fn no_route<'n>(
        &self,
        queue: &str,
        text: &[u8],
        body: &[u8],
        name: impl Fn(usize) -> &'n str,
    ) -> Vec<String> {
        if self.nodes.is_empty() {
            return vec!["no handler is loaded".to_owned()];
        }
        let mut reasons: Vec<String> = label_reason(text, body, false).into_iter().collect();
        if body.trim_ascii().is_empty() {
            reasons.push(if text.is_empty() { "the task is empty" } else { "no text follows" }.to_owned());
            return reasons;
        }
        let passed = self.passed_over(queue, body, 0, &name);
        if passed.is_empty() {
            reasons.push(format!("no registered prefix stands at the beginning of `{}`", excerpt(body)));
            reasons.extend(self.nearest(body).map(|near| format!("the nearest one is `{near}`")));
        }
        reasons.extend(passed);
        reasons
    }

    /// The registered prefix that the body's beginning resembles most, if it resembles one.
    fn nearest(&self, body: &[u8]) -> Option<&str> {
        /// Below this a suggestion is noise.
        const ALIKE: f64 = 0.75;
        let body = String::from_utf8_lossy(body).to_lowercase();
        let likeness = |node: &PrefixNode| {
            let start: String = body.chars().take(node.prefix.chars().count()).collect();
            strsim::normalized_damerau_levenshtein(&start, &node.prefix.to_lowercase())
        };
        let best = self.nodes.iter().map(|node| (likeness(node), node)).max_by(|a, b| a.0.total_cmp(&b.0))?;
        (best.0 >= ALIKE).then_some(&*best.1.prefix)
    }
}

fn not_taken<'n>(node: &PrefixNode, queue: &str, body: &[u8], name: impl Fn(usize) -> &'n str) -> String {
    let prefix = &node.prefix;
    if ends_on_word_boundary(prefix.as_bytes(), body) {
        let owners: Vec<String> = node
            .claims
            .iter()
            .map(|claim| {
                let queues = claim.queues.as_deref().unwrap_or_default().join("`, `");
                format!("handler `{}` takes it from `{queues}` only", name(claim.handler))
            })
            .collect();
        format!("the prefix `{prefix}` does not count in queue `{queue}`: {}", owners.join(", "))
    } else {
        format!("`{prefix}` does not count because its last word goes on: `{}`", excerpt(body))
    }
}

fn label_reason(text: &[u8], body: &[u8], label_counts: bool) -> Option<String> {
    let label = &text[..text.len() - body.len()];
    if label.is_empty() {
        return None;
    }
    let label = String::from_utf8_lossy(label.trim_ascii_end()).into_owned();
    Some(if label_counts {
        format!("nothing takes what follows the label `{label}`, so the label counts too")
    } else {
        format!("the label `{label}` does not count")
    })
}

/// The beginning of a text, short enough for a sentence.
fn excerpt(start: &[u8]) -> String {
    text::excerpt(&String::from_utf8_lossy(start), 60)
}

fn sentence(reasons: &[String]) -> String {
    let mut text = reasons.join("; ");
    if let Some(first) = text.get(..1) {
        let first = first.to_uppercase();
        text.replace_range(..1, &first);
    }
    text.push('.');
    text
}
