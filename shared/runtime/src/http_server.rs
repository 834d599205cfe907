//! The accept loop of every HTTP port: HTTP/1.1 and HTTP/2, bounded, and drained in order.
//!
//! Per request it costs two atomic counters more than bare hyper: deadlines for slow and idle clients are kept
//! by one coarse timer per connection ([`connection`]) instead of hyper's timer per request. A client that reads
//! nothing of what is there for it is dropped ([`socket`]), or its stream ([`streams`]): nobody polls a body then, and
//! so no deadline of the body's own would ever pass. On drain the port closes, every connection is asked to finish
//! (`connection: close`, GOAWAY), and what is left at the deadline is dropped.

mod connection;
mod socket;
mod streams;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use http::{Request, Response};
use http_body::Body;
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::Instant,
};

use self::{
    connection::{Activity, Counted, Deadlines, Told},
    socket::Socket,
    streams::Streams,
};
use crate::{
    drain::DrainWatcher,
    tls::{ClientCertificate, ServerTls},
};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: u32 = 1024;
/// HTTP/1.1 read buffer, and so the bound on a request's head.
const MAX_HEAD_BYTES: usize = 128 * 1024;
/// The same for HTTP/2.
const MAX_HEADER_LIST_BYTES: u32 = 128 * 1024;
/// Streams that a client opened and reset before they were looked at (CVE-2023-44487): more end the connection.
const MAX_PENDING_RESETS: usize = 20;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the kernel takes of an answer before the client has room for it. Its own bound grows to megabytes, of which a
/// third has to go before it says that something went: a slow client would look like one that does not read.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 128 * 1024;
/// Pause after a failed accept: usually the process is out of file descriptors, and at once is too soon.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of one port.
#[derive(Clone, Copy, Debug)]
pub struct ServerSettings {
    /// For logs.
    pub name: &'static str,
    /// Further connections wait in the kernel's backlog.
    pub max_connections: usize,
    /// Requests in flight on one HTTP/2 connection.
    pub max_streams_per_connection: u32,
    /// A new connection has this long to send its first request's head.
    pub first_request: Duration,
    /// A connection without a request in flight is closed after this long. Longer than the idle time of load
    /// balancers (usually 60 s), or they reuse connections that are being closed.
    pub idle: Duration,
    /// A client that takes nothing of an answer that is there for it is dropped after this long, at the latest after
    /// twice that. With HTTP/2 this holds for each stream, whose siblings go on.
    pub write: Duration,
    /// How long a drain waits for requests in flight.
    pub drain_deadline: Duration,
}

impl ServerSettings {
    /// The defaults.
    pub const fn named(name: &'static str) -> Self {
        Self {
            name,
            max_connections: 10_000,
            max_streams_per_connection: 256,
            first_request: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(60),
            drain_deadline: Duration::from_secs(30),
        }
    }
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("{addr} is taken (by another process); choose another with {option} (port 0 picks a free one)")]
    Taken { addr: SocketAddr, option: &'static str },
    #[error("{addr} needs privileges (ports below 1024); choose another with {option}")]
    Forbidden { addr: SocketAddr, option: &'static str },
    #[error("{addr} is not an address of this machine; choose another with {option}")]
    NotLocal { addr: SocketAddr, option: &'static str },
    #[error("cannot listen on {addr} ({option}): {error}")]
    Other { addr: SocketAddr, option: &'static str, error: io::Error },
}

/// Opens a port. `option` is the command-line option that sets it, for the error.
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind(addr: SocketAddr, option: &'static str) -> Result<TcpListener, BindError> {
    let open = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Restarts must not wait for connections in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        // The connections inherit it.
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
        socket.bind(addr)?;
        socket.listen(BACKLOG)
    };
    open().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken { addr, option },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { addr, option },
        io::ErrorKind::AddrNotAvailable => BindError::NotLocal { addr, option },
        _ => BindError::Other { addr, option, error },
    })
}

/// Who is at the other end of a request's connection; in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The other side of one connection.
#[derive(Clone, Debug)]
pub struct OtherSide {
    pub peer: Option<Peer>,
    pub certificate: Option<ClientCertificate>,
}

/// Accepts and serves plaintext connections until `drain`, then finishes those that are open.
pub async fn serve<S, B>(listener: TcpListener, service: S, settings: ServerSettings, drain: DrainWatcher)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    serve_with(listener, None, service, settings, drain).await;
}

/// The same, with TLS if it is given. Requests carry [`Peer`] and [`ClientCertificate`] as extensions.
pub async fn serve_with<S, B>(
    listener: TcpListener,
    tls: Option<ServerTls>,
    service: S,
    settings: ServerSettings,
    drain: DrainWatcher,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let make = move |other_side| Told::new(service.clone(), other_side);
    serve_each(listener, tls, make, settings, drain).await;
}

/// The same, with a service of its own for each connection, which knows its other side: an extension costs every
/// request an allocation.
pub async fn serve_each<M, S, B>(
    listener: TcpListener,
    tls: Option<ServerTls>,
    make: M,
    settings: ServerSettings,
    drain: DrainWatcher,
) where
    M: Fn(OtherSide) -> S + Clone + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let builder = Builders::new(&settings);
    let mut connections = JoinSet::new();
    let signaled = drain.signaled();
    tokio::pin!(signaled);
    loop {
        tokio::select! {
            biased;
            () = &mut signaled => break,
            Some(ended) = connections.join_next() => report_panic(&settings, ended),
            accepted = listener.accept(), if connections.len() < settings.max_connections => match accepted {
                Ok((stream, _)) => {
                    let (make, builder, drain) = (make.clone(), builder.clone(), drain.clone());
                    match &tls {
                        None => connections.spawn(one(stream, make, builder, settings, drain)),
                        Some(tls) => {
                            connections.spawn(one_tls(stream, tls.clone(), make, builder, settings, drain))
                        }
                    };
                }
                Err(error) => accept_failed(&settings, &error).await,
            },
        }
    }
    drop(listener);
    let deadline = Instant::now() + settings.drain_deadline;
    while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, connections.join_next()).await {
        report_panic(&settings, ended);
    }
    if !connections.is_empty() {
        tracing::warn!(
            port = settings.name,
            connections = connections.len(),
            "dropped at the drain deadline"
        );
        connections.shutdown().await;
    }
}

/// One for connections whose protocol is known to be HTTP/1.1, which costs each request a layer less, and one that looks.
#[derive(Clone)]
struct Builders {
    http1: http1::Builder,
    either: Builder<Streams>,
}

impl Builders {
    fn new(settings: &ServerSettings) -> Self {
        let mut http1 = http1::Builder::new();
        // See the module's doc. The bound of 100 headers stays hyper's own: setting it costs an allocation.
        http1.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        let mut either = Builder::new(Streams { write: settings.write });
        either.http1().header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
        either
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_header_list_size(MAX_HEADER_LIST_BYTES)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_concurrent_streams(settings.max_streams_per_connection);
        Self { http1, either }
    }
}

/// Whether the client does not begin as HTTP/2 does (`PRI`, RFC 9113 section 3.4). Nothing is taken from the stream.
async fn speaks_http1(stream: &TcpStream) -> io::Result<bool> {
    const BEGIN: &[u8] = b"PRI";
    let mut begin = [0; BEGIN.len()];
    let seen = stream.peek(&mut begin).await?;
    // Whoever sends less at once is left to the one that looks.
    Ok(seen == BEGIN.len() && begin != BEGIN)
}

/// Serves one connection to its end.
async fn one<M, S, B>(
    stream: TcpStream,
    make: M,
    builder: Builders,
    settings: ServerSettings,
    drain: DrainWatcher,
) where
    M: FnOnce(OtherSide) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    no_delay(&stream, &settings);
    let service = make(OtherSide { peer: stream.peer_addr().ok().map(Peer), certificate: None });
    let begun = Instant::now();
    let spoken = tokio::select! {
        spoken = tokio::time::timeout(settings.first_request, speaks_http1(&stream)) => spoken,
        () = drain.signaled() => return,
    };
    // What was waited for the first bytes is not given again for the rest of the head.
    let first_request = settings.first_request.saturating_sub(begun.elapsed());
    let settings = ServerSettings { first_request, ..settings };
    match spoken {
        Ok(Ok(http1)) => {
            let activity = Activity::new();
            let socket = Socket::new(stream, &activity);
            drive((socket, http1), activity, service, (builder, settings), drain).await;
        }
        Ok(Err(error)) => tracing::debug!(port = settings.name, %error, "connection ended"),
        Err(_) => tracing::debug!(port = settings.name, "no request in time"),
    }
}

/// The same behind TLS. The handshake has as long as a first request's head.
async fn one_tls<M, S, B>(
    stream: TcpStream,
    tls: ServerTls,
    make: M,
    builder: Builders,
    settings: ServerSettings,
    drain: DrainWatcher,
) where
    M: FnOnce(OtherSide) -> S,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    no_delay(&stream, &settings);
    let peer = stream.peer_addr().ok().map(Peer);
    let activity = Activity::new();
    let socket = Socket::new(stream, &activity);
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(settings.first_request, tls.acceptor().accept(socket)) => shaken,
        () = drain.signaled() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(port = settings.name, %error, "no TLS handshake"),
        Err(_) => return tracing::debug!(port = settings.name, "no TLS handshake in time"),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = shown.map(|leaf| ClientCertificate(leaf.as_ref().into()));
    let http1 = stream.get_ref().1.alpn_protocol() == Some(b"http/1.1");
    let service = make(OtherSide { peer, certificate });
    drive((stream, http1), activity, service, (builder, settings), drain).await;
}

fn no_delay(stream: &TcpStream, settings: &ServerSettings) {
    // Nagle's algorithm would hold back the small writes that a token stream consists of.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(port = settings.name, %error, "TCP_NODELAY");
    }
}

async fn drive<I, S, B>(
    (stream, http1): (I, bool),
    activity: Activity,
    service: S,
    (builder, settings): (Builders, ServerSettings),
    drain: DrainWatcher,
) where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = Counted::new(service, activity.clone());
    let (io, deadlines) = (TokioIo::new(stream), Deadlines::new(activity, &settings));
    let ended = if http1 {
        connection::run(builder.http1.serve_connection(io, service), deadlines, drain).await
    } else {
        // Boxed: it is the larger one, and HTTP/2 the rarer.
        Box::pin(connection::run(builder.either.serve_connection(io, service), deadlines, drain)).await
    };
    if let Err(error) = ended {
        // Clients leave in all kinds of ways; none is this server's fault.
        tracing::debug!(port = settings.name, %error, "connection ended");
    }
}

fn report_panic(settings: &ServerSettings, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(port = settings.name, %error, "a connection's task panicked");
    }
}

async fn accept_failed(settings: &ServerSettings, error: &io::Error) {
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::error!(port = settings.name, %error, "cannot accept connections");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
