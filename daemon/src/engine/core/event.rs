//! What can happen to the core.

use std::sync::Arc;
use std::time::Instant;

use super::keys::EntryKey;
use crate::broker::LinkEvent;
use crate::dedup;
use crate::host::{HostEvent, HostId};
use crate::model::UnixMs;

/// The clock as an event finds it. Handed in, because the core has none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For time limits and spans.
    pub(crate) instant: Instant,
    /// For what messages and operators see.
    pub(crate) unix: UnixMs,
}

/// Everything that happens to the core, except for what operators ask for: those are methods of it.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly every event is a delivery; a box would be an allocation per task"
)]
pub(crate) enum Event {
    /// The link to the broker reports something.
    Link(LinkEvent),
    /// A plugin host reports something.
    Host {
        host: HostId,
        event: HostEvent,
        /// Its resident memory, for a report of a host that [`Core::watches_rss`](super::Core::watches_rss) names.
        rss: Option<u64>,
    },
    /// A publication that [`Action::Publish`](super::Action::Publish) started has got on.
    Copy {
        /// The entry that it was started for.
        entry: EntryKey,
        result: CopyResult,
    },
    /// What an earlier daemon remembered of a queue's finished tasks.
    DedupLoaded {
        queue: Arc<str>,
        /// What was found; empty where nothing could be read.
        found: Vec<dedup::Segment>,
    },
    /// Every consumer has ended, as [`Action::StopConsuming`](super::Action::StopConsuming) asked for.
    ConsumersStopped,
}

/// How a publication got on. Whatever is not [`Refused`](Self::Refused) ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopyResult {
    /// The broker has confirmed all of it.
    Confirmed,
    /// The broker does not take it for now. The driver tries again.
    Refused(String),
    /// The broker never takes the copy, for what the message is.
    Unacceptable(String),
    /// A follow-up cannot be published.
    FollowUpFailed(String),
}
