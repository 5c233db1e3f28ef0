//! Keeps a publishing connection up, and offers it to the publishers.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::connection::{CONFIRM_LIMIT, LinkState, PublishingConnection};
use super::publisher::Pool;
use crate::broker::dial::{Backoff, describe_error, dial_one};
use crate::broker::event::LinkEvent;
use crate::broker::status::LinkStatus;
use crate::config::Broker;

/// How often the connection is looked at, besides its own reports.
const CHECK: Duration = Duration::from_secs(5);

/// What the link asks of the supervisor.
pub(in crate::broker) enum PublishCommand {
    /// Another session took over: end when nothing is in flight.
    Retire,
    /// Close within this time, and end.
    Close(Duration, oneshot::Sender<()>),
}

/// Keeps a publishing connection up until told to end.
pub(in crate::broker) async fn supervise(
    broker: Arc<Broker>,
    pool: Rc<Pool>,
    status: Rc<LinkStatus>,
    mut commands: mpsc::UnboundedReceiver<PublishCommand>,
) {
    let name = format!("warrend[{}] publishing", std::process::id());
    let mut backoff = Backoff::default();
    let mut turn = 0;
    loop {
        let dialled = tokio::select! {
            dialled = async {
                status.until_consuming().await;
                dial_one(&broker, &broker.uris[(status.turn() + turn) % broker.uris.len()], &name, None).await
            } => dialled,
            command = commands.recv() => return answer(command),
        };
        let (why, pause) = match dialled {
            Ok(dialled) => {
                let since = Instant::now();
                let connection = PublishingConnection::new(dialled);
                match serve(&connection, &pool, &status, &mut commands).await {
                    // It is dialled only while the other one is up: the broker is there and serves.
                    Some(why) => (why, backoff.lost_after(since.elapsed(), true)),
                    None => return,
                }
            }
            Err(error) => {
                turn += 1;
                (error.to_string(), backoff.failed())
            }
        };
        // A session that another one has replaced reports nothing.
        if let Ok(command) = commands.try_recv() {
            return answer(Some(command));
        }
        status.tell(LinkEvent::NotPublishing { why });
        tokio::select! {
            () = sleep(pause) => {}
            command = commands.recv() => return answer(command),
        }
    }
}

/// Answers a command where there is no connection to close.
fn answer(command: Option<PublishCommand>) {
    if let Some(PublishCommand::Close(_, done)) = command {
        // Whoever asked may have stopped waiting.
        let _ = done.send(());
    }
}

/// Has the publishers use the connection until it is lost (`Some`: why) or the session ends (`None`).
async fn serve(
    connection: &Rc<PublishingConnection>,
    pool: &Rc<Pool>,
    status: &LinkStatus,
    commands: &mut mpsc::UnboundedReceiver<PublishCommand>,
) -> Option<String> {
    let mut reports = Box::pin(connection.reports());
    pool.link
        .send_modify(|state| *state = LinkState { connection: Some(connection.clone()), blocked: false });
    status.publishing(true);
    let mut check = tokio::time::interval(CHECK);
    let ended = loop {
        tokio::select! {
            report = reports.next() => match report {
                Some(lapin::Event::ConnectionBlocked(_)) => block(pool, status, connection, true),
                Some(lapin::Event::ConnectionUnblocked) => block(pool, status, connection, false),
                Some(lapin::Event::Error(error)) if !connection.is_connected() => break Err(describe_error(&error)),
                Some(_) => {}
                None => break Err("the connection is gone".to_owned()),
            },
            _ = check.tick() => if !connection.is_connected() { break Err("the connection is gone".to_owned()) },
            command = commands.recv() => break Ok(command),
        }
    };
    if is_offered(pool, connection) {
        pool.link.send_modify(|state| *state = LinkState::default());
    }
    status.publishing(false);
    match ended {
        Err(why) => {
            connection.end_as_lost();
            Some(why)
        }
        Ok(Some(PublishCommand::Close(limit, done))) => {
            connection.close(limit).await;
            answer(Some(PublishCommand::Close(limit, done)));
            None
        }
        Ok(Some(PublishCommand::Retire) | None) => {
            let mut waited = Duration::ZERO;
            // Whoever publishes holds a clone; each is bounded by its own confirm.
            while Rc::strong_count(connection) > 1 && waited < CONFIRM_LIMIT {
                let step = Duration::from_millis(50);
                sleep(step).await;
                waited += step;
            }
            connection.close(CONFIRM_LIMIT).await;
            None
        }
    }
}

fn block(pool: &Pool, status: &LinkStatus, connection: &Rc<PublishingConnection>, blocked: bool) {
    if is_offered(pool, connection) {
        pool.link.send_modify(|state| state.blocked = blocked);
        status.blocked(blocked);
    }
}

/// The publishers still use this connection, not a newer session's.
fn is_offered(pool: &Pool, connection: &Rc<PublishingConnection>) -> bool {
    pool.link.borrow().connection.as_ref().is_some_and(|offered| Rc::ptr_eq(offered, connection))
}
