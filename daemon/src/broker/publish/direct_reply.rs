//! "Direct reply-to": a client waits for its reply without a queue, under a name that the broker makes. Pure.

use lapin::types::ShortString;

/// How the name of such a client begins.
const DIRECT: &str = "amq.rabbitmq.reply-to.";

/// Whether a name is that of a client that waits for its reply without a queue. The broker cannot tell whether the client
/// still waits.
pub(super) fn is_direct(to: &str) -> bool {
    to.starts_with(DIRECT)
}

/// Whether a task asks for a reply under the name that the broker was to replace by the client's own, and did not. Nobody
/// can be reached by that name, and the broker refuses every message that has it.
pub(super) fn is_nowhere(reply_to: &ShortString) -> bool {
    DIRECT.strip_suffix('.') == Some(reply_to.as_str())
}
