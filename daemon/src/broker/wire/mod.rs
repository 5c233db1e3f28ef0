//! The byte stream under a connection: a runtime for lapin that hands it our own stream type. What a broker sends passes
//! through a filter (`filter.rs`), because lapin ends the connection over what a producer may well put into a message:
//! whoever may publish to a queue can cost at most their own messages. The filter also learns the broker's name and
//! version, which lapin reads and throws away, and which decide what a queue may be declared with.
//!
//! | file | what it does |
//! | --- | --- |
//! | `filter.rs` | cuts the stream into frames, and leaves out bodies for which there is no room |
//! | `method.rs`, `content.rs` | make a method or header frame readable for lapin |
//! | `text.rs` | text for bytes that are none, and the description of what was changed |
//! | `notes.rs` | what was changed, for whoever receives the delivery; the room for large bodies |
//!
//! Everything runs on the tokio runtime that dials; no other runtime and no thread is started here.

mod content;
mod filter;
mod method;
mod notes;
mod reader;
mod text;

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::AsyncTcpStream;
use tokio::runtime::Handle;

use self::filter::Filter;
pub use self::notes::LARGE_BODY_ROOM;
pub(super) use self::notes::{BodyRoom, LargeBody, Note, Notes};
pub use self::text::Alteration;
use super::server::Server;

/// The largest frame that is agreed on: RabbitMQ's default. lapin has two buffers of 32 such frames for each connection, so
/// that a broker with a larger bound, or with none, would take gigabytes. A broker cuts bodies to the bound, but not the
/// headers of a message: the filter does.
pub(super) const FRAME_MAX: u32 = 131_072;

/// Plain or TLS stream over tokio's socket.
type Inner = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// lapin's stream.
pub(super) struct Wire {
    /// There until it is dropped.
    inner: Option<Inner>,
    runtime: Handle,
    filter: Filter,
}

/// What the filter of a connection learns, and the room that it gives to large bodies.
#[derive(Debug, Clone, Default)]
pub(super) struct Insight {
    /// Set when the broker's first frame has passed.
    pub(super) server: Arc<OnceLock<Server>>,
    pub(super) notes: Arc<Notes>,
    /// For a connection that consumes.
    pub(super) room: Option<Arc<BodyRoom>>,
}

/// lapin's runtime: the current tokio one, with [`Wire`] as its stream.
#[derive(Debug, Clone)]
pub(super) struct TokioRuntimeKit {
    tokio: Tokio,
    handle: Handle,
}

impl Wire {
    fn inner(&mut self) -> Pin<&mut Inner> {
        Pin::new(self.inner.as_mut().expect("it is there until it is dropped"))
    }
}

impl Drop for Wire {
    /// lapin drops it in its own thread, outside every runtime. What is inside would start a runtime for that, with a
    /// thread, which stays as long as the process.
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.inner = None;
    }
}

impl TokioRuntimeKit {
    /// Binds to the runtime of the caller.
    pub(super) fn current() -> Self {
        Self { tokio: Tokio::current(), handle: Handle::current() }
    }

    /// Wraps a stream that is connected.
    pub(super) fn wire(&self, inner: Inner, insight: &Insight) -> Wire {
        let Insight { server, notes, room } = insight.clone();
        Wire { inner: Some(inner), runtime: self.handle.clone(), filter: Filter::new(server, notes, room) }
    }

    /// The runtime under it.
    pub(super) fn tokio(&self) -> &Tokio {
        &self.tokio
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_fill(context))?;
        Poll::Ready(Ok(self.filter.give(buffer)))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_fill(context))?;
        Poll::Ready(Ok(buffers.iter_mut().map(|buffer| self.filter.give(buffer)).sum()))
    }
}

impl Wire {
    /// Reads until there is something for lapin, or the stream has ended.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.filter.is_ready() {
            let inner = Pin::new(self.inner.as_mut().expect("it is there until it is dropped"));
            let count = std::task::ready!(inner.poll_read(context, self.filter.space()))?;
            if count == 0 {
                break;
            }
            self.filter.filled(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(context, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(context, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_close(context)
    }
}

impl RuntimeKit for TokioRuntimeKit {}

impl Executor for TokioRuntimeKit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(work)
    }
}

impl Reactor for TokioRuntimeKit {
    type TcpStream = Wire;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.tokio.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let (kit, connecting) = (self.clone(), self.tokio.tcp_connect_addr(address));
        async move { Ok(kit.wire(AsyncTcpStream::Plain(connecting.await?), &Insight::default())) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_stream_that_is_dropped_outside_every_runtime_starts_none() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let wire =
            runtime.block_on(async { TokioRuntimeKit::current().tcp_connect_addr(address).await }).unwrap();
        drop(wire);
        // One that was started before this one has its name by now.
        std::thread::spawn(|| {}).join().unwrap();
        let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        let compat: Vec<String> = names.filter(|name| name.starts_with("async-compat")).collect();
        assert!(compat.is_empty(), "{compat:?}");
    }
}
