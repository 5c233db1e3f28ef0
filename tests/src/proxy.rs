//! A TCP proxy before a broker, for faults of the network: it cuts connections with a reset, stalls (everything stays
//! open and nothing passes), refuses, and forwards again; or it spoils some of what the broker sends.

mod spoil;

use std::net::{Ipv4Addr, TcpListener as StdListener};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use self::spoil::{Marker, Spoiler};
use crate::wait::BOUND;

/// Bytes read at once: a few frames.
const CHUNK: usize = 64 * 1024;
/// Between two tries to get the port back that was given up to refuse connections.
const REBIND: Duration = Duration::from_millis(5);

/// A proxy on a port of its own. Dropping it ends it and resets every connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    orders: watch::Sender<Orders>,
    relays: Arc<Relays>,
    thread: Option<JoinHandle<()>>,
}

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Stall,
    Refuse,
    End,
}

#[derive(Debug, Clone, Copy)]
struct Orders {
    mode: Mode,
    /// Connections of earlier generations are reset.
    generation: u64,
}

/// The connections of the newest generation: each one holds a clone of the sender, so that the receiver tells when
/// the last one is gone.
#[derive(Debug)]
struct Relays {
    alive: Mutex<(std_mpsc::Sender<()>, std_mpsc::Receiver<()>)>,
    counts: Mutex<Counts>,
    spoilt: Marker,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    open: usize,
    accepted: usize,
}

impl Proxy {
    /// Starts one on a free port of loopback, before the port `target` of loopback.
    pub fn start(target: u16) -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let orders = watch::Sender::new(Orders { mode: Mode::Forward, generation: 0 });
        let relays = Arc::new(Relays {
            alive: Mutex::new(std_mpsc::channel()),
            counts: Mutex::new(Counts::default()),
            spoilt: Marker::default(),
        });
        let thread = std::thread::spawn({
            let (receiver, relays) = (orders.subscribe(), relays.clone());
            move || serve(listener, target, receiver, &relays)
        });
        Self { port, orders, relays, thread: Some(thread) }
    }

    /// Its port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// AMQP URI of the default vhost behind it, with the default user.
    pub fn uri(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.relays.counts().open
    }

    /// Connections accepted since the start.
    pub fn accepted(&self) -> usize {
        self.relays.counts().accepted
    }

    /// Resets every connection, on both sides; new ones are served. Returns when all are gone, with their number.
    ///
    /// # Panics
    /// When one does not end.
    pub fn cut(&self) -> usize {
        let before = self.relays.counts().open;
        let (old, gone) = {
            let mut alive = self.relays.alive.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *alive, std_mpsc::channel())
        };
        drop(old);
        self.orders.send_modify(|orders| orders.generation += 1);
        let ended = gone.recv_timeout(BOUND);
        assert_eq!(ended, Err(std_mpsc::RecvTimeoutError::Disconnected), "a relay does not end");
        before
    }

    /// Nothing passes any more. What is open stays open, and new connections are accepted.
    pub fn stall(&self) {
        self.set(Mode::Stall);
    }

    /// New connections are refused; what is open goes on.
    pub fn refuse(&self) {
        self.set(Mode::Refuse);
    }

    /// Everything passes again.
    pub fn forward(&self) {
        self.set(Mode::Forward);
    }

    /// From now on every frame of the broker's whose payload ends with these bytes, say a message's body, comes with a wrong
    /// end: no client can read it. No bytes: none does.
    pub fn spoil(&self, ending: &[u8]) {
        self.relays.spoilt.set(ending);
    }

    fn set(&self, mode: Mode) {
        self.orders.send_modify(|orders| orders.mode = mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.orders.send_modify(|orders| *orders = Orders { mode: Mode::End, generation: u64::MAX });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Relays {
    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn enter(&self) -> std_mpsc::Sender<()> {
        self.count(|counts| {
            counts.open += 1;
            counts.accepted += 1;
        });
        self.alive.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

/// The proxy's thread.
fn serve(listener: StdListener, target: u16, orders: watch::Receiver<Orders>, relays: &Arc<Relays>) {
    let runtime: Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let port = listener.local_addr().expect("bound").port();
    runtime.block_on(accept(listener, port, target, orders, relays));
}

async fn accept(
    listener: StdListener,
    port: u16,
    target: u16,
    mut orders: watch::Receiver<Orders>,
    relays: &Arc<Relays>,
) {
    listener.set_nonblocking(true).expect("a socket");
    let mut listener = Some(TcpListener::from_std(listener).expect("inside a runtime"));
    loop {
        match orders.borrow_and_update().mode {
            Mode::End => return,
            Mode::Refuse => listener = None,
            Mode::Forward | Mode::Stall => {}
        }
        let Some(open) = &listener else {
            if orders.wait_for(|orders| orders.mode != Mode::Refuse).await.is_err() {
                return;
            }
            listener = Some(rebind(port).await);
            continue;
        };
        tokio::select! {
            biased;
            changed = orders.changed() => if changed.is_err() { return },
            Ok((client, _)) = open.accept() => {
                let generation = orders.borrow().generation;
                let (orders, relays, alive) = (orders.clone(), relays.clone(), relays.enter());
                tokio::spawn(async move {
                    relay(client, target, orders, generation, relays.spoilt.stream()).await;
                    relays.count(|counts| counts.open -= 1);
                    drop(alive);
                });
            }
        }
    }
}

async fn rebind(port: u16) -> TcpListener {
    let rebinding = async {
        loop {
            match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
                Ok(listener) => return listener,
                Err(_) => tokio::time::sleep(REBIND).await,
            }
        }
    };
    tokio::time::timeout(BOUND, rebinding).await.expect("the port was ours")
}

/// One connection, until either side closes it or it is cut.
async fn relay(
    mut client: TcpStream,
    target: u16,
    orders: watch::Receiver<Orders>,
    generation: u64,
    spoiler: Spoiler,
) {
    let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else {
        // Nobody there: what a load balancer before a dead broker does.
        let _ = client.set_zero_linger();
        return;
    };
    let (client_end, server_end) = (client.split(), server.split());
    let mut cut = orders.clone();
    let was_cut = tokio::select! {
        biased;
        _ = cut.wait_for(|orders| orders.generation > generation) => true,
        _ = async {
            tokio::join!(
                pump(client_end.0, server_end.1, orders.clone(), None),
                pump(server_end.0, client_end.1, orders.clone(), Some(spoiler)),
            )
        } => false,
    };
    if was_cut {
        // Closed without lingering, a socket sends a reset.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// Passes bytes in one direction until there are no more.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut orders: watch::Receiver<Orders>,
    mut spoiler: Option<Spoiler>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = from.read(&mut chunk).await.unwrap_or(0);
        // Also what was read before the stall waits for its end.
        if orders.wait_for(|orders| orders.mode != Mode::Stall).await.is_err() || read == 0 {
            break;
        }
        let written = match &mut spoiler {
            Some(spoiler) => to.write_all(&spoiler.take(&chunk[..read])).await,
            None => to.write_all(&chunk[..read]).await,
        };
        if written.is_err() {
            break;
        }
    }
    // The other side may be gone already.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    use super::*;

    /// Sends back what it gets.
    fn echo() -> u16 {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        port
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).expect("connected");
        stream.set_read_timeout(Some(BOUND)).expect("a timeout");
        stream
    }

    fn answers(stream: &mut TcpStream) -> std::io::Result<()> {
        let mut back = [0; 4];
        stream.write_all(b"ping")?;
        stream.read_exact(&mut back)
    }

    #[test]
    fn a_cut_resets_what_is_open_and_serves_what_comes() {
        let proxy = Proxy::start(echo());
        let mut stream = client(&proxy);
        answers(&mut stream).expect("forwarded");
        assert_eq!(proxy.cut(), 1);
        assert_eq!(stream.read(&mut [0]).expect_err("reset").kind(), ErrorKind::ConnectionReset);
        answers(&mut client(&proxy)).expect("forwarded");
        assert_eq!(proxy.accepted(), 2);
    }

    #[test]
    fn a_stall_keeps_everything_open_and_passes_nothing_until_it_ends() {
        let proxy = Proxy::start(echo());
        let mut stream = client(&proxy);
        answers(&mut stream).expect("forwarded");
        proxy.stall();
        let mut later = client(&proxy);
        for stream in [&mut stream, &mut later] {
            stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
            assert_eq!(answers(stream).expect_err("silence").kind(), ErrorKind::WouldBlock);
            stream.set_read_timeout(Some(BOUND)).expect("a timeout");
        }
        proxy.forward();
        for stream in [&mut stream, &mut later] {
            stream.read_exact(&mut [0; 4]).expect("what was held back");
        }
    }

    #[test]
    fn refused_connections_find_no_listener_and_open_ones_go_on() {
        let proxy = Proxy::start(echo());
        let mut stream = client(&proxy);
        answers(&mut stream).expect("forwarded");
        proxy.refuse();
        crate::wait::until("a refusal", || {
            let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).err()?;
            (refused.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
        answers(&mut stream).expect("still forwarded");
        proxy.forward();
        crate::wait::until("the listener", || answers(&mut client_if_there(&proxy)?).ok());
    }

    fn client_if_there(proxy: &Proxy) -> Option<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).ok()
    }
}
