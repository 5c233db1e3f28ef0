//! What happens in a run, in words.

use crate::broker::LinkEvent;
use crate::engine::core::{Action, CopyKind, Event};
use crate::host::HostEvent;

/// What the daemon is told.
pub(super) fn event(event: &Event) -> String {
    match event {
        Event::Link(LinkEvent::Delivery(delivery)) => format!(
            "delivery {}/{} of `{}`{}",
            delivery.consumer.0,
            delivery.tag,
            String::from_utf8_lossy(&delivery.body),
            if delivery.redelivered { ", again" } else { "" }
        ),
        Event::Link(event) => format!("link: {event:?}"),
        Event::Host { host, event, .. } => match event {
            HostEvent::Report(report) => format!("host {}: {} is {:?}", host.0, report.seq, report.outcome),
            event => format!("host {}: {event:?}", host.0),
        },
        Event::Copy { entry, result } => format!("copy of entry {entry}: {result:?}"),
        Event::DedupLoaded { queue, .. } => format!("records of {queue} are read"),
        Event::ConsumersStopped => "consumers stopped".to_owned(),
    }
}

/// What the core wants done.
pub(super) fn action(action: &Action) -> String {
    match action {
        Action::Publish(copy) => {
            let what = match &copy.kind {
                CopyKind::Again(again) => format!("{again:?}"),
                CopyKind::Onward(wait) => format!("{wait:?}"),
                CopyKind::Dead { reason, .. } => format!("dead letter: {reason}"),
                CopyKind::FollowUps { follow_ups, .. } => format!("{} follow-ups", follow_ups.len()),
            };
            format!("publish for {} (entry {}): {what}", copy.id.text, copy.entry)
        }
        Action::StartHost { host, generation, .. } => {
            format!("start host {} of generation {}", host.0, generation.number)
        }
        Action::Consume { queues, .. } => {
            let names: Vec<&str> = queues.iter().map(|queue| &*queue.name).collect();
            format!("consume {}", names.join(", "))
        }
        action => format!("{action:?}"),
    }
}
