//! Connections to one origin: a last-in-first-out pool of HTTP/1.1 connections over hyper's own connection type, and
//! behind TLS HTTP/2 as well, whichever the server chooses (ALPN).
//!
//! `hyper_util`'s pooled client costs about 6 µs per request more, which is a third of a whole pass through a minimal
//! proxy, and opens one HTTP/2 connection per origin, whatever the server's stream limit. Called by
//! [`super::UpstreamClient`].

use std::{
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response, Uri, header};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    CallError, Outbound, Patience, Reach, SegmentBody, SendError,
    alarm::{Alarm, Late},
    multiplex::{Multiplexed, Protocol, Stream},
    reach::is_out_of_reach,
};

/// Idle connections kept per origin; further ones are closed.
const MAX_IDLE: usize = 256;
/// Shorter than the keep-alive of common servers (uvicorn 5 s is the shortest; those close first, which is noticed).
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that turned out closed before anything was sent, in one request. Then the origin is taken for down.
const MAX_REPLACED: usize = 8;

/// A connection that is free.
#[derive(Debug)]
struct Sender {
    connection: SendRequest<SegmentBody>,
    /// For the heads of answers.
    alarm: Alarm,
}

/// The tasks of the connections of all origins: they end together.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<JoinSet<()>>>);

impl Connections {
    /// How a connection ends is told to whoever uses it.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(connection);
    }

    /// Ends all connections.
    pub(super) async fn close(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks());
        tasks.shutdown().await;
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pool of one origin.
#[derive(Debug)]
pub struct Origin {
    host: Box<str>,
    port: u16,
    reach: Reach,
    connections: Connections,
    /// The most recently used one last. At most [`MAX_IDLE`].
    idle: Mutex<Vec<(Sender, Instant)>>,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    http2: Multiplexed,
}

impl Origin {
    /// `tls` is used for `https`. `None` when `uri` is no address that can be called.
    pub fn new(uri: &Uri, reach: Reach, tls: &Arc<ClientConfig>, connections: Connections) -> Option<Self> {
        let host: Box<str> = uri.host()?.trim_start_matches('[').trim_end_matches(']').into();
        let (tls, default_port) = match uri.scheme_str()? {
            "http" => (None, 80),
            "https" => {
                let name = ServerName::try_from(host.to_string()).ok()?;
                (Some(Tls { config: tls.clone(), name, http2: Multiplexed::default() }), 443)
            }
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(default_port);
        Some(Self { host, port, reach, connections, idle: Mutex::default(), tls })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Sends a request and waits for the head of the answer: in origin form to `http`, with its whole URI to `https`.
    ///
    /// A connection that turns out closed before anything was sent is replaced by another; nothing else is retried.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Outbound,
        patience: Patience,
    ) -> Result<Response<PooledBody>, SendError> {
        match &self.tls {
            None => self.send_http1(request, patience).await,
            // Boxed: the larger of the two branches must not be in the future of the other.
            Some(tls) => {
                let answer = Box::pin(self.send_tls(tls, request, patience));
                timely(tokio::time::timeout_at(patience.head_by, answer).await)
            }
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        mut request: Outbound,
        patience: Patience,
    ) -> Result<Response<PooledBody>, SendError> {
        while let Some(Sender { mut connection, mut alarm }) = self.checkout(patience.now) {
            // It is ready, mostly at once, or it was closed meanwhile.
            match alarm.within(patience.head_by, pin!(connection.ready())).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => continue,
                Err(Late) => return Err(CallError::Timeout.into()),
            }
            let answer = pin!(connection.try_send_request(*request));
            match alarm.within(patience.head_by, answer).await {
                Ok(Ok(response)) => return Ok(self.answered(response, Sender { connection, alarm })),
                Ok(Err(mut error)) => match error.take_message() {
                    Some(unsent) => *request = unsent,
                    None => return Err(CallError::from_hyper(error.error()).into()),
                },
                Err(Late) => return Err(CallError::Timeout.into()),
            }
        }
        // Boxed: connections are opened rarely, and the hot future is the smaller for it.
        let answer = Box::pin(async move {
            match within(patience.connect, self.dial()).await {
                Ok(stream) => Ok(self.first(stream, request).await?),
                Err(error) => Err(unsent(error, request)),
            }
        });
        timely(tokio::time::timeout_at(patience.head_by, answer).await)
    }

    /// The first request on a fresh HTTP/1.1 connection.
    async fn first<I>(self: &Arc<Self>, io: I, request: Outbound) -> Result<Response<PooledBody>, CallError>
    where
        I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (mut connection, task) = http1::Builder::new()
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| CallError::from_hyper(&error))?;
        self.connections.spawn(task.map(|_| ()));
        match connection.send_request(*request).await {
            Ok(response) => Ok(self.answered(response, Sender { connection, alarm: Alarm::default() })),
            Err(error) => Err(CallError::from_hyper(&error)),
        }
    }

    async fn send_tls(
        self: &Arc<Self>,
        tls: &Tls,
        mut request: Outbound,
        Patience { now, connect, .. }: Patience,
    ) -> Result<Response<PooledBody>, SendError> {
        for _ in 0..MAX_REPLACED {
            let place = match self.place(tls, connect).await {
                Ok(place) => place,
                Err(error) => return Err(unsent(error, request)),
            };
            match place {
                Place::Http2(stream) => match self.send_http2(stream, request).await? {
                    Ok(response) => return Ok(response),
                    Err(unsent) => request = unsent,
                },
                Place::Fresh(stream) => {
                    origin_form(&mut request);
                    return Ok(self.first(*stream, request).await?);
                }
                Place::Http1 => {
                    origin_form(&mut request);
                    let Some(mut sender) = self.checkout(now) else {
                        let stream = match within(connect, self.shake(tls)).await {
                            Ok(stream) => stream,
                            Err(error) => return Err(unsent(error, request)),
                        };
                        if is_http2(&stream) {
                            // It spoke HTTP/1.1 a moment ago: the next request learns anew.
                            tls.http2.forget();
                            return Err(CallError::Broken.into());
                        }
                        return Ok(self.first(stream, request).await?);
                    };
                    if sender.connection.ready().await.is_err() {
                        continue;
                    }
                    match sender.connection.try_send_request(*request).await {
                        Ok(response) => return Ok(self.answered(response, sender)),
                        Err(mut error) => match error.take_message() {
                            Some(unsent) => *request = unsent,
                            None => return Err(CallError::from_hyper(error.error()).into()),
                        },
                    }
                }
            }
        }
        Err(CallError::Broken.into())
    }

    /// Where a request can go; a connection is opened if need be.
    async fn place(self: &Arc<Self>, tls: &Tls, connect: Duration) -> Result<Place, CallError> {
        let pool = &tls.http2;
        let known = || match pool.protocol() {
            Protocol::Http1 => Some(Place::Http1),
            Protocol::Http2 | Protocol::Unknown => pool.pick().map(Place::Http2),
        };
        if let Some(found) = known() {
            return Ok(found);
        }
        let dial = async {
            let _turn = pool.dialing.lock().await;
            if let Some(found) = known() {
                return Ok(found);
            }
            let stream = self.shake(tls).await?;
            let http2 = is_http2(&stream);
            pool.learned(http2);
            if !http2 {
                return Ok(Place::Fresh(Box::new(stream)));
            }
            pool.add(stream, &self.connections).await.map(Place::Http2).map_err(io::Error::other)
        };
        within(connect, dial).await
    }

    /// The inner error hands back a request of which nothing was sent.
    async fn send_http2(
        self: &Arc<Self>,
        stream: Stream,
        mut request: Outbound,
    ) -> Result<Result<Response<PooledBody>, Outbound>, CallError> {
        // The authority stands in the URI.
        let host = request.headers_mut().remove(header::HOST);
        match stream.sender().try_send_request(*request).await {
            Ok(response) => {
                Ok(Ok(response.map(|incoming| PooledBody { incoming, lease: Lease::Http2(stream) })))
            }
            Err(mut error) => match error.take_message() {
                Some(mut unsent) => {
                    restore_host(unsent.headers_mut(), host);
                    Ok(Err(Box::new(unsent)))
                }
                None => Err(CallError::from_hyper(error.error())),
            },
        }
    }

    fn answered(self: &Arc<Self>, response: Response<Incoming>, sender: Sender) -> Response<PooledBody> {
        let origin = self.clone();
        let mut response =
            response.map(|incoming| PooledBody { incoming, lease: Lease::Http1(origin, sender) });
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

    #[cfg(test)]
    pub(super) fn http2_len(&self) -> usize {
        self.tls.as_ref().map_or(0, |tls| tls.http2.len())
    }

    fn checkout(&self, now: Instant) -> Option<Sender> {
        let mut idle = self.idle();
        while let Some((sender, since)) = idle.pop() {
            if now.saturating_duration_since(since) >= IDLE_TIMEOUT {
                // Everything below it is older still.
                idle.clear();
                return None;
            }
            if !sender.connection.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn checkin(&self, sender: Sender) {
        if sender.connection.is_closed() {
            return;
        }
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push((sender, Instant::now()));
        }
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let connected = self.reach.connect(&self.host, self.port).await;
        let stream = connected.inspect_err(|error| {
            tracing::debug!(host = &*self.host, port = self.port, %error, "can't connect to the upstream");
        })?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn shake(&self, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
        let stream = self.dial().await?;
        let connected = TlsConnector::from(tls.config.clone()).connect(tls.name.clone(), stream).await;
        connected.inspect_err(|error| {
            // An operator looks for this one: a certificate that is not trusted, most often.
            tracing::warn!(host = &*self.host, port = self.port, %error, "no TLS with the upstream");
        })
    }
}

/// Where a request to an origin behind TLS goes.
enum Place {
    Http2(Stream),
    /// To a connection of the pool, or a new one.
    Http1,
    /// To this new connection, which turned out to speak HTTP/1.1.
    Fresh(Box<TlsStream<TcpStream>>),
}

fn is_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// Nothing of it was sent: it may go elsewhere.
fn unsent(error: CallError, request: Outbound) -> SendError {
    SendError { error, unsent: Some(request) }
}

async fn within<T>(patience: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, CallError> {
    match tokio::time::timeout(patience, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if is_out_of_reach(&error) => Err(CallError::OutOfReach),
        Ok(Err(_)) => Err(CallError::Connect),
        Err(_) => Err(CallError::ConnectTimeout),
    }
}

fn timely<T>(answered: Result<Result<T, SendError>, tokio::time::error::Elapsed>) -> Result<T, SendError> {
    answered.unwrap_or_else(|_| Err(CallError::Timeout.into()))
}

fn origin_form(request: &mut Request<SegmentBody>) {
    if request.uri().authority().is_some()
        && let Some(path) = request.uri().path_and_query().cloned()
    {
        *request.uri_mut() = Uri::from(path);
    }
}

fn restore_host(headers: &mut HeaderMap, host: Option<http::HeaderValue>) {
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
}

#[derive(Debug)]
enum Lease {
    Http1(Arc<Origin>, Sender),
    Http2(#[expect(dead_code, reason = "held for its drop")] Stream),
    GivenBack,
}

/// The body of an answer. Its connection goes back to the pool at its end, and is closed when it is dropped before; a
/// stream of HTTP/2 is reset instead.
#[derive(Debug)]
pub struct PooledBody {
    incoming: Incoming,
    lease: Lease,
}

impl PooledBody {
    fn give_back(&mut self) {
        if let Lease::Http1(origin, sender) = std::mem::replace(&mut self.lease, Lease::GivenBack) {
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
