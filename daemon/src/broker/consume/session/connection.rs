//! The open connection of a session: what it reports, and its orderly end.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join_all, pending};
use futures_util::stream::{Stream, StreamExt};
use tokio::time::timeout;

use crate::broker::consume::subscription::{SessionId, Subscriptions};
use crate::broker::dial::{BrokerConnection, Loss, loss_of};

/// The open connection.
pub(super) struct Connection {
    pub(super) dialled: Rc<BrokerConnection>,
    reports: Pin<Box<dyn Stream<Item = lapin::Event>>>,
}

impl Connection {
    pub(super) fn new(dialled: Rc<BrokerConnection>) -> Self {
        let reports = Box::pin(dialled.connection.events_listener());
        Self { dialled, reports }
    }
}

/// The next error that the connection, or one of its channels, reports.
pub(super) async fn failure(connection: Option<&mut Connection>) -> Loss {
    if let Some(connection) = connection {
        while let Some(report) = connection.reports.next().await {
            if let lapin::Event::Error(error) = report {
                return loss_of(&error);
            }
        }
    }
    pending().await
}

/// Waits until the broker has seen each acknowledgement, then closes; within the bound. Errors are of no interest:
/// whatever was not seen is redelivered.
pub(super) async fn close(
    subscriptions: &Subscriptions,
    session: SessionId,
    dialled: &BrokerConnection,
    limit: Duration,
) {
    let closing = async {
        let subscriptions = subscriptions.of(session);
        join_all(subscriptions.iter().map(|(_, subscription)| subscription.barrier())).await;
        dialled.connection.close(200, "done".into()).await
    };
    let _ = timeout(limit, closing).await;
}
