//! HTTP/2 connections to one origin. A further one is opened when all have as many streams as the server allows: one
//! alone would queue requests behind its limit (often 100) while the provider has room. Called by [`super::pool`].

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::{SegmentBody, pool::Connections};

const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Assumed until the server has told its limit.
const FIRST_STREAMS: usize = 100;

/// What the origin was found to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Unknown,
    Http1,
    Http2,
}

/// All HTTP/2 connections of one origin.
#[derive(Debug, Default)]
pub(super) struct Multiplexed {
    /// The oldest first, each with the time of its last pick.
    open: Mutex<Vec<(Arc<Connection>, Instant)>>,
    protocol: AtomicU8,
    /// The stream limit that the server told last; 0: none yet. A new connection assumes it until it is told its own.
    told: AtomicUsize,
    /// Held while dialing, so that a burst opens one connection after the other instead of one per request.
    pub(super) dialing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<SegmentBody>,
    streams: AtomicUsize,
    /// Asked for the server's limit, which may change; locked for no longer than a poll of it takes.
    driver: Arc<Mutex<Driver>>,
}

type Driver = http2::Connection<TokioIo<TlsStream<TcpStream>>, SegmentBody, TokioExecutor>;

impl Connection {
    /// Whether one more stream fits, and how many the server allows.
    fn room(&self) -> (bool, usize) {
        let (streams, allowed) =
            (self.streams.load(Ordering::Acquire), lock(&self.driver).current_max_send_streams());
        // A server that allows none at the moment still gets one, which waits.
        (streams == 0 || streams < allowed, allowed)
    }
}

fn lock(driver: &Mutex<Driver>) -> MutexGuard<'_, Driver> {
    driver.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One stream of a connection, counted until the end of its response's body.
#[derive(Debug)]
pub(super) struct Stream(Arc<Connection>);

impl Stream {
    pub(super) fn sender(&self) -> SendRequest<SegmentBody> {
        self.0.sender.clone()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Multiplexed {
    fn open(&self) -> MutexGuard<'_, Vec<(Arc<Connection>, Instant)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.protocol.load(Ordering::Relaxed) {
            1 => Protocol::Http1,
            2 => Protocol::Http2,
            _ => Protocol::Unknown,
        }
    }

    pub(super) fn learned(&self, http2: bool) {
        self.protocol.store(if http2 { 2 } else { 1 }, Ordering::Relaxed);
    }

    pub(super) fn forget(&self) {
        self.protocol.store(0, Ordering::Relaxed);
    }

    /// A place on the oldest connection that has one: the others become idle and are closed when load goes down.
    pub(super) fn pick(&self) -> Option<Stream> {
        let mut open = self.open();
        let now = Instant::now();
        open.retain(|(connection, picked)| {
            let unused = connection.streams.load(Ordering::Acquire) == 0;
            let spare = unused && now.duration_since(*picked) >= IDLE_TIMEOUT;
            !connection.sender.is_closed() && !spare
        });
        let (connection, picked) = open.iter_mut().find(|(connection, _)| {
            let (fits, allowed) = connection.room();
            self.told.store(allowed, Ordering::Relaxed);
            fits
        })?;
        *picked = now;
        connection.streams.fetch_add(1, Ordering::AcqRel);
        Some(Stream(connection.clone()))
    }

    /// Adds a connection and returns its first place.
    ///
    /// # Errors
    /// When the handshake fails.
    pub(super) async fn add(
        &self,
        io: TlsStream<TcpStream>,
        connections: &Connections,
    ) -> Result<Stream, hyper::Error> {
        let assumed = match self.told.load(Ordering::Relaxed) {
            0 => FIRST_STREAMS,
            told => told,
        };
        let (sender, driver) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .adaptive_window(true)
            .initial_max_send_streams(assumed)
            .handshake(TokioIo::new(io))
            .await?;
        let driver = Arc::new(Mutex::new(driver));
        let driven = driver.clone();
        connections.spawn(poll_fn(move |cx| Pin::new(&mut *lock(&driven)).poll(cx).map(|_| ())));
        let connection = Arc::new(Connection { sender, streams: AtomicUsize::new(1), driver });
        self.open().push((connection.clone(), Instant::now()));
        Ok(Stream(connection))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open().len()
    }
}
