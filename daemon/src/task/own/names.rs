//! The names of Warren's own headers, in one table.

/// All headers of Warren's own begin with this.
pub const HEADER_PREFIX: &str = "x-warren-";

macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident = $end:literal,)*) => {
        $($(#[$doc])* pub const $name: &str = concat!("x-warren-", $end);)*

        /// Every one of them.
        #[cfg(test)]
        const HEADERS: &[&str] = &[$($name),*];
    };
}

headers! {
    /// Of every copy of a task that came without `message_id`: the id it was given.
    HEADER_ID = "id",
    /// Of every copy: the attempt it is, from 1.
    HEADER_ATTEMPT = "attempt",
    /// Of a copy made before a redelivered task starts: how often its start was cut short.
    HEADER_REDELIVERIES = "redeliveries",
    /// Of every copy that is to run again: how many copies were made before it, and this one. Whatever else a copy and the
    /// message that it was made of have in common, they differ in it, so that a redelivery of the one is never taken for
    /// the other.
    HEADER_COPY = "copy",
    /// When a task is due, in milliseconds since 1970. Any producer may set it on a task for a queue that Warren consumes.
    HEADER_DUE = "due",
    /// When a copy was written whose due time was reckoned from then: what tells a delay queue that did not keep it for
    /// long enough from two clocks that differ. A due time without it is a time of the day.
    HEADER_SENT = "sent",
    /// When the task expires, in milliseconds since 1970: its `expiration`, made absolute by the first copy.
    HEADER_DEADLINE = "deadline",
    /// Why a dead letter is dead: a [`DeadReason`](crate::model::DeadReason) as text.
    HEADER_REASON = "reason",
    /// The handler that failed last.
    HEADER_HANDLER = "handler",
    /// The last failure's code.
    HEADER_ERROR_CODE = "error-code",
    /// The last failure's message.
    HEADER_ERROR = "error",
    /// When it failed for the first time (AMQP timestamp, seconds).
    HEADER_FIRST_FAILURE = "first-failure",
    /// When it failed for the last time (AMQP timestamp, seconds).
    HEADER_LAST_FAILURE = "last-failure",
    /// The work queue it belongs to.
    HEADER_QUEUE = "queue",
    /// The producer's headers that a copy had no room for, by name.
    HEADER_DROPPED = "headers-dropped",
    /// What had to be changed in the message so that it could be read at all: of the delivery, and of each of its copies.
    HEADER_ALTERED = "altered",
    /// Of a reply: how the task ended, `done` or the reason why it is a dead
    /// letter.
    HEADER_OUTCOME = "outcome",
    /// Of a reply: the task's id.
    HEADER_TASK = "task",
    /// Of a reply: how often the task was tried.
    HEADER_ATTEMPTS = "attempts",
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that the plugin `webhook` gives to headers of HTTP.
    const HTTP: [&str; 2] = ["x-warren-signature", "x-warren-timestamp"];

    #[test]
    fn what_is_written_for_users_names_headers_that_there_are() {
        let texts = [include_str!("../../../../README.md"), include_str!("../../../../config/warren.toml")];
        let mut named = 0;
        let rests =
            texts.iter().flat_map(|text| text.match_indices(HEADER_PREFIX).map(|(at, _)| &text[at..]));
        for rest in rests {
            let name = rest.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next().unwrap_or_default();
            assert!(HEADERS.contains(&name) || HTTP.contains(&name) || name == HEADER_PREFIX, "{name}");
            named += 1;
        }
        assert!(named > 5, "{named}");
        assert!(HEADERS.iter().all(|name| name.starts_with(HEADER_PREFIX)));
    }
}
