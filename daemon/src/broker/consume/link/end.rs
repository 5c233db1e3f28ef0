//! What the end of a consumer means. Pure.

use crate::broker::dial::Loss;

/// How a consumer's stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker::consume) enum End {
    /// It just ended: our cancel, or the broker's (queue deleted, consumer timeout on 4.3).
    Cancelled,
    /// The broker closed the channel, or has no consumer on it any more.
    Channel(String),
    /// The connection is gone.
    Connection(Loss),
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
    Reconnect(Loss),
}

/// Decides. `cancelled`: we cancelled this consumer. `connected`: the connection still stands.
pub(super) fn next(end: End, cancelled: bool, connected: bool) -> Next {
    match end {
        End::Cancelled if cancelled => Next::Stopped,
        End::Cancelled if connected => Next::Resubscribe {
            why: "the broker cancelled the consumer (queue deleted, or its node left)".to_owned(),
        },
        End::Cancelled => Next::Reconnect(Loss::plain("the connection is gone")),
        // A channel error comes first even when we asked to cancel: what was open on it is void.
        End::Channel(why) if connected => Next::Resubscribe { why },
        End::Channel(why) => Next::Reconnect(Loss::plain(why)),
        End::Connection(loss) => Next::Reconnect(loss),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_leads_to_the_supervisor_and_only_our_own_cancel_is_final() {
        let (gone, soft) = (|| End::Connection(Loss::plain("reset")), || End::Channel("406".to_owned()));
        let kind = |next| match next {
            Next::Stopped => "stopped",
            Next::Resubscribe { .. } => "resubscribe",
            Next::Reconnect(_) => "reconnect",
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
}
