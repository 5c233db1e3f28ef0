//! What the supervisor of a link does next. Pure; `session.rs` does it.

use std::time::Duration;

use super::backoff::Backoff;
use crate::config::Queue;

/// How a consumer's stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It just ended: our cancel, or the broker's (queue deleted, consumer timeout on 4.3).
    Cancelled,
    /// The broker closed the channel.
    Channel(String),
    /// The connection is gone.
    Connection(String),
}

/// What follows from the end of a consumer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it was asked for.
    Stopped,
    /// Its tags are void; subscribe again, later.
    Resubscribe {
        /// Why it ended.
        why: String,
    },
    /// All tags of the connection are void; connect again.
    Reconnect {
        /// Why it ended.
        why: String,
    },
}

/// Decides. `cancelled`: we cancelled this consumer. `connected`: the connection still stands.
pub(super) fn next(end: End, cancelled: bool, connected: bool) -> Next {
    match end {
        End::Cancelled if cancelled => Next::Stopped,
        End::Cancelled if connected => Next::Resubscribe {
            why: "the broker cancelled the consumer (queue deleted, or its node left)".to_owned(),
        },
        End::Cancelled => Next::Reconnect { why: "the connection is gone".to_owned() },
        // A channel error comes first even when we asked to cancel: what was open on it is void.
        End::Channel(why) if connected => Next::Resubscribe { why },
        End::Channel(why) | End::Connection(why) => Next::Reconnect { why },
    }
}

/// One wanted queue of a session.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) queue: Queue,
    pub(super) state: State,
    pub(super) backoff: Backoff,
    /// When it was last subscribed to, in the session's life.
    pub(super) since: Duration,
}

/// Where a wanted queue stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// To be subscribed to when this much of the session's life has passed.
    Due(Duration),
    /// Subscribed.
    Live(super::ConsumerId),
}

/// What a new list of queues asks of a session: consumers to cancel, and the list to keep. A queue whose window did
/// not change keeps its consumer; the other settings matter to later declarations only.
pub(super) fn replan(
    current: Vec<Wanted>,
    queues: &[Queue],
    now: Duration,
) -> (Vec<super::ConsumerId>, Vec<Wanted>) {
    let mut current = current;
    let mut cancel = Vec::new();
    let mut wanted = Vec::new();
    for queue in queues {
        let known = current.iter().position(|one| one.queue.name == queue.name);
        let mut next = match known.map(|index| current.swap_remove(index)) {
            Some(known) if known.queue.window() == queue.window() => known,
            Some(known) => {
                cancel.extend(known.state.consumer());
                Wanted { state: State::Due(now), ..known }
            }
            None => Wanted {
                queue: queue.clone(),
                state: State::Due(now),
                backoff: Backoff::default(),
                since: now,
            },
        };
        next.queue = queue.clone();
        wanted.push(next);
    }
    cancel.extend(current.iter().filter_map(|gone| gone.state.consumer()));
    (cancel, wanted)
}

impl State {
    fn consumer(self) -> Option<super::ConsumerId> {
        match self {
            Self::Live(id) => Some(id),
            Self::Due(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ConsumerId;
    use super::*;

    #[test]
    fn every_end_leads_to_the_supervisor_and_only_our_own_cancel_is_final() {
        let (gone, soft) = (|| End::Connection("reset".to_owned()), || End::Channel("406".to_owned()));
        let kind = |next| match next {
            Next::Stopped => "stopped",
            Next::Resubscribe { .. } => "resubscribe",
            Next::Reconnect { .. } => "reconnect",
        };
        let table = [
            (End::Cancelled, true, true, "stopped"),
            (End::Cancelled, true, false, "stopped"),
            (End::Cancelled, false, true, "resubscribe"),
            (End::Cancelled, false, false, "reconnect"),
            (soft(), false, true, "resubscribe"),
            (soft(), true, true, "resubscribe"),
            (soft(), false, false, "reconnect"),
            (gone(), false, true, "reconnect"),
            (gone(), true, false, "reconnect"),
        ];
        for (end, cancelled, connected, expected) in table {
            assert_eq!(
                kind(next(end.clone(), cancelled, connected)),
                expected,
                "{end:?} {cancelled} {connected}"
            );
        }
    }

    fn queue(name: &str, workers: u16) -> Queue {
        Queue { name: name.into(), prefetch: 1, workers, queue_type: None, delay_type: None, dead_type: None }
    }

    fn live(name: &str, workers: u16, id: u32) -> Wanted {
        Wanted {
            queue: queue(name, workers),
            state: State::Live(ConsumerId(id)),
            backoff: Backoff::default(),
            since: Duration::ZERO,
        }
    }

    #[test]
    fn only_queues_that_changed_are_subscribed_again() {
        let now = Duration::from_secs(7);
        let current = vec![live("same", 1, 1), live("wider", 1, 2), live("gone", 1, 3)];
        let (cancel, wanted) = replan(current, &[queue("new", 1), queue("same", 1), queue("wider", 4)], now);
        assert_eq!(cancel, [ConsumerId(2), ConsumerId(3)]);
        let states: Vec<_> = wanted.iter().map(|one| (&*one.queue.name, one.state)).collect();
        let expected =
            [("new", State::Due(now)), ("same", State::Live(ConsumerId(1))), ("wider", State::Due(now))];
        assert_eq!(states, expected);
        assert_eq!(wanted[2].queue.workers, 4);
    }
}
