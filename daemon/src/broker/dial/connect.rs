//! One connection to the broker, within a bound and without a leak. lapin has neither a handshake timeout nor a way to end a
//! connection attempt to a peer that does not answer. So Warren opens the socket, and shuts it down when the time is over.

use std::future::{Future, poll_fn};
use std::net::ToSocketAddrs;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use async_rs::Runtime;
use async_rs::traits::Reactor;
use lapin::tcp::{AsyncTcpStream, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties};
use rustix::net::{Shutdown, shutdown, sockopt};

use super::error::{DialError, Stage};
use crate::broker::server::Server;
use crate::broker::wire::{BodyRoom, FRAME_MAX, Insight, Notes, TokioRuntimeKit, Wire};
use crate::config::{Broker, Secret, host_and_port, parse_uri};

/// An open connection, and what was learned of the broker.
pub struct BrokerConnection {
    /// The connection. Auto-recovery is off.
    pub connection: Connection,
    /// Host, port and vhost, without credentials.
    pub address: String,
    /// The broker as it names itself.
    pub server: Server,
    /// What the filter under the connection changed in the messages that came by it.
    pub(in crate::broker) notes: Arc<Notes>,
    /// Ends the connection without asking the broker.
    pub(in crate::broker) socket: SocketHandle,
}

impl BrokerConnection {
    /// Channels that may be open at one time. lapin counts channel 0, the connection's own, as one of the broker's
    /// `channel_max`.
    pub fn channels(&self) -> usize {
        usize::from(self.connection.configuration().channel_max()).saturating_sub(1).max(1)
    }
}

/// Connects to the first of the configured addresses that answers. Each one is given `connect_timeout`; the error is
/// the last one's. Call it on the runtime that the connection is to live on.
pub async fn dial(broker: &Broker, name: &str) -> Result<Connection, DialError> {
    connect(broker, name).await.map(|dialled| dialled.connection)
}

/// As [`dial`], and tells what was learned of the broker.
pub async fn connect(broker: &Broker, name: &str) -> Result<BrokerConnection, DialError> {
    let mut last = DialError::NoAddress;
    for uri in &broker.uris {
        match dial_one(broker, uri, name, None).await {
            Ok(dialled) => return Ok(dialled),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Access to a connection's socket. Clones share it.
#[derive(Clone, Default)]
pub(in crate::broker) struct SocketHandle(Arc<Mutex<HandleState>>);

#[derive(Default)]
struct HandleState {
    stage: Stage,
    socket: Option<OwnedFd>,
    is_shut_down: bool,
    /// Of what waits for the attempt on lapin's thread.
    waker: Option<Waker>,
}

/// Shuts the socket down when the attempt is given up: when its future is dropped.
struct Attempt(Option<SocketHandle>);

/// Connects to one address, under the name that the broker shows for the connection.
///
/// `room` is for a connection that consumes.
pub(in crate::broker) async fn dial_one(
    broker: &Broker,
    uri: &Secret,
    name: &str,
    room: Option<Arc<BodyRoom>>,
) -> Result<BrokerConnection, DialError> {
    let mut target = parse_uri(uri).ok_or(DialError::BadUri)?;
    target.query.frame_max = Some(FRAME_MAX);
    target.query.heartbeat =
        target.query.heartbeat.or_else(|| Some(broker.heartbeat.as_secs().try_into().unwrap_or(u16::MAX)));
    let address = address(&target);
    let tls = match target.scheme {
        AMQPScheme::AMQP => OwnedTLSConfig::default(),
        AMQPScheme::AMQPS => tls_config(broker)?,
    };

    let socket = SocketHandle::default();
    let mut attempt = Attempt(Some(socket.clone()));
    let insight = Insight { room, ..Insight::default() };
    let connect = connector(socket.clone(), insight.clone(), tls, user_timeout(broker));
    let properties = ConnectionProperties::default()
        .with_connection_name(name.into())
        .with_client_property("product".into(), "Warren".into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    let by_certificate = target.query.auth_mechanism == Some(SASLMechanism::External);
    let user = (!by_certificate).then(|| target.authority.userinfo.username.clone());
    let vhost = target.vhost.clone();
    let opening =
        Connection::connector(target, Runtime::new(TokioRuntimeKit::current()), connect, properties);
    let opened = tokio::time::timeout(broker.connect_timeout, opening).await;
    let error = match opened {
        Ok(Ok(connection)) => {
            attempt.0 = None;
            let server = insight.server.get().cloned().unwrap_or_default();
            return Ok(BrokerConnection { connection, address, server, notes: insight.notes, socket });
        }
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    let stage = socket.state().stage;
    Err(DialError::of(stage, error.as_ref(), address, user, vhost, broker.connect_timeout))
}

impl SocketHandle {
    /// Shuts the socket down: lapin's thread ends, and with it everything that waits on the connection.
    pub(in crate::broker) fn shut_down(&self) {
        let mut state = self.state();
        state.is_shut_down = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        if let Some(socket) = state.socket.take() {
            // Fails when the peer was faster; the socket is gone either way.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }

    fn state(&self) -> MutexGuard<'_, HandleState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does a part of the attempt; fails as soon as it is given up. A timer would not do: lapin's thread outlives the
    /// runtime for a moment when the daemon ends, and a timer panics then.
    async fn unless_shut_down<T>(&self, part: impl Future<Output = T>) -> std::io::Result<T> {
        let mut part = pin!(part);
        poll_fn(|context| {
            {
                let mut state = self.state();
                if state.is_shut_down {
                    return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
                }
                state.waker = Some(context.waker().clone());
            }
            part.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Notes how far the attempt came; fails when it was given up meanwhile.
    fn reached(&self, stage: Stage) -> lapin::Result<()> {
        let mut state = self.state();
        state.stage = stage;
        if state.is_shut_down {
            Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
        } else {
            Ok(())
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.shut_down();
        }
    }
}

/// What lapin calls on its own thread, where blocking is allowed: resolve, connect, set up, encrypt.
fn connector(
    handle: SocketHandle,
    insight: Insight,
    tls: OwnedTLSConfig,
    user_timeout: Option<u32>,
) -> impl AsyncFn(AMQPUri, Runtime<TokioRuntimeKit>) -> lapin::Result<AsyncTcpStream<Wire>> + Send + Sync + 'static
{
    let kit = TokioRuntimeKit::current();
    async move |uri: AMQPUri, _: Runtime<TokioRuntimeKit>| {
        handle.reached(Stage::Resolve)?;
        let addresses = (uri.authority.host.as_str(), uri.authority.port).to_socket_addrs()?;
        handle.reached(Stage::Connect)?;
        let mut failure = std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            let stream = match handle.unless_shut_down(kit.tokio().tcp_connect_addr(address)).await? {
                Ok(stream) => stream,
                Err(error) => {
                    failure = error;
                    continue;
                }
            };
            let socket = stream.get_ref();
            if let Some(limit) = user_timeout {
                sockopt::set_tcp_user_timeout(socket, limit).map_err(std::io::Error::from)?;
            }
            handle.state().socket = Some(socket.as_fd().try_clone_to_owned()?);
            handle.reached(Stage::Tls)?;
            let mut stream = AsyncTcpStream::Plain(stream);
            let mut stage = Stage::Handshake;
            if uri.scheme == AMQPScheme::AMQPS {
                stage = Stage::EncryptedHandshake;
                stream =
                    handle.unless_shut_down(stream.into_tls(&uri.authority.host, tls.as_ref())).await??;
            }
            handle.reached(stage)?;
            return Ok(AsyncTcpStream::Plain(kit.wire(stream, &insight)));
        }
        Err(failure.into())
    }
}

/// Milliseconds that sent data may stay unconfirmed by the peer's kernel: two heartbeats, when the broker would give
/// up on us as well. Without it a write into a dead network is noticed only by the next missed heartbeats.
fn user_timeout(broker: &Broker) -> Option<u32> {
    let two = u32::try_from(broker.heartbeat.as_millis()).ok()?.checked_mul(2)?;
    (two > 0).then_some(two)
}

fn address(uri: &AMQPUri) -> String {
    let vhost = if uri.vhost == "/" { "" } else { &uri.vhost };
    format!("{}/{vhost}", host_and_port(uri))
}

/// Reads the PEM files anew at each attempt: certificates are renewed while the daemon runs.
fn tls_config(broker: &Broker) -> Result<OwnedTLSConfig, DialError> {
    let read = |file: &std::path::Path| {
        std::fs::read(file).map_err(|error| DialError::Certificate { file: file.to_owned(), error })
    };
    let cert_chain = match &broker.ca_file {
        Some(file) => Some(String::from_utf8_lossy(&read(file)?).into_owned()),
        None => None,
    };
    let identity = match &broker.client_cert {
        Some(cert) => Some(OwnedIdentity::PKCS8 { pem: read(&cert.cert_file)?, key: read(&cert.key_file)? }),
        None => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_host_port_and_vhost_but_no_credentials() {
        let table = [
            ("amqp://user:secret@broker.example/%2f", "broker.example:5672/"),
            ("amqp://user:secret@broker.example:1/orders", "broker.example:1/orders"),
            ("amqps://broker.example", "broker.example:5671/"),
            ("amqp://u:p@[::1]:5673/%2f", "[::1]:5673/"),
            ("amqp://u:p@127.0.0.1", "127.0.0.1:5672/"),
        ];
        for (uri, expected) in table {
            let parsed = parse_uri(&Secret(uri.to_owned())).expect(uri);
            assert_eq!(address(&parsed), expected, "{uri}");
        }
    }
}
