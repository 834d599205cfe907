//! Connections to one cleartext HTTP/1.1 origin: a last-in-first-out pool over hyper's own connection type.
//!
//! `hyper_util`'s pooled client costs about 6 µs per request more, which is a third of a whole pass through a minimal
//! proxy; upstreams that are near (vLLM, Ollama, a sidecar) feel it. It still serves `https`, where ALPN, HTTP/2 and
//! the handshake matter more. Called by [`super::UpstreamClient`].

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{CallError, SegmentBody};

/// Idle connections kept per origin; further ones are closed.
const MAX_IDLE: usize = 256;
/// Shorter than the keep-alive of common servers (uvicorn 5 s is the shortest; those close first, which is noticed).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

type Sender = SendRequest<SegmentBody>;

/// The connections of all origins: their tasks end together.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// The pool of one origin.
#[derive(Debug)]
pub struct Origin {
    host: Box<str>,
    port: u16,
    connect_timeout: Duration,
    connections: Connections,
    /// The most recently used one last. At most [`MAX_IDLE`].
    idle: Mutex<Vec<(Sender, Instant)>>,
}

impl Origin {
    /// `None` when `uri` is no `http` address.
    pub fn new(uri: &Uri, connect_timeout: Duration, connections: Connections) -> Option<Self> {
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').into();
        let port = uri.port_u16().unwrap_or(80);
        Some(Self { host, port, connect_timeout, connections, idle: Mutex::default() })
    }

    /// Sends a request in origin form and waits for the head of the answer.
    ///
    /// A connection that turns out closed before anything was sent is replaced by another; nothing else is retried.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<SegmentBody>,
    ) -> Result<Response<PooledBody>, CallError> {
        while let Some(mut sender) = self.checkout() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.answered(response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(CallError::from_hyper(error.error())),
                },
            }
        }
        let mut sender = self.connect().await?;
        match sender.send_request(request).await {
            Ok(response) => Ok(self.answered(response, sender)),
            Err(error) => Err(CallError::from_hyper(&error)),
        }
    }

    fn answered(self: &Arc<Self>, response: Response<Incoming>, sender: Sender) -> Response<PooledBody> {
        let origin = self.clone();
        let mut response = response.map(|incoming| PooledBody { incoming, lease: Some((origin, sender)) });
        if response.body().incoming.is_end_stream() {
            response.body_mut().give_back();
        }
        response
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Sender, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn idle_len(&self) -> usize {
        self.idle().len()
    }

    fn checkout(&self) -> Option<Sender> {
        let mut idle = self.idle();
        while let Some((sender, since)) = idle.pop() {
            if since.elapsed() >= IDLE_TIMEOUT {
                // Everything below it is older still.
                idle.clear();
                return None;
            }
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn checkin(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push((sender, Instant::now()));
        }
    }

    async fn connect(&self) -> Result<Sender, CallError> {
        let connected = tokio::time::timeout(self.connect_timeout, self.handshake());
        let (sender, connection) = match connected.await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                tracing::debug!(host = &*self.host, port = self.port, %error, "can't connect to the upstream");
                return Err(CallError::Connect);
            }
            Err(_) => return Err(CallError::Connect),
        };
        let stop = self.connections.stop.clone();
        self.connections.tasks.spawn(async move {
            tokio::select! {
                // How a connection ends is told to whoever uses it.
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(sender)
    }

    async fn handshake(&self) -> io::Result<(Sender, http1::Connection<TokioIo<TcpStream>, SegmentBody>)> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
    }
}

/// The body of an answer. Its connection goes back to the pool at its end, and is closed when it is dropped before.
#[derive(Debug)]
pub struct PooledBody {
    incoming: Incoming,
    lease: Option<(Arc<Origin>, Sender)>,
}

impl PooledBody {
    fn give_back(&mut self) {
        if let Some((origin, sender)) = self.lease.take() {
            origin.checkin(sender);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.incoming.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if ended {
            self.give_back();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
