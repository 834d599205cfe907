//! Settings of every gRPC channel and server between the planes, in one place.
//!
//! Keepalive finds a peer that vanished without a word (a cut cable, a partition) within 25 s; without it a
//! stream that only receives would wait for ever.

use std::{
    io,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use nemo_types::Secret;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::Interceptor,
    transport::{Channel, Endpoint, Server},
};

use crate::{
    inproc::Connector,
    tls::{ClientTls, Identity, TlsError},
};

/// Largest message either side accepts. Config pushes are cut well below it.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A batch of usage events fits, so that it is sent without waiting for window updates.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// Concurrent streams of one connection: four long ones per node, the rest are admin calls.
const MAX_STREAMS: u32 = 256;

#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("{uri:?} is not the address of a gRPC server; expected http://host:port or https://host:port")]
    Address { uri: String },
    #[error("{uri} needs the certificate of its authority (a PEM file), to know whom it talks to")]
    NoAuthority { uri: String },
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(
        "{uri} is on another machine and not encrypted: use https, or --allow-plaintext if something on the way does TLS"
    )]
    Plaintext { uri: String },
}

/// A channel that connects when it is first used and again whenever it has to.
///
/// `authority` is the PEM file of the certificate authority, needed for `https`.
///
/// # Errors
/// When the address or the certificate is unusable. A server that cannot be reached shows in the calls.
pub fn channel(uri: &str, authority: Option<&std::path::Path>) -> Result<Channel, ChannelError> {
    let tls = authority.map(|path| ClientTls::load(path.to_owned(), &Identity::default())).transpose()?;
    channel_with(uri, tls)
}

/// The same with a trust and a certificate of its own, which `https` needs.
///
/// # Errors
/// As [`channel`].
pub fn channel_with(uri: &str, tls: Option<ClientTls>) -> Result<Channel, ChannelError> {
    let address = || ChannelError::Address { uri: uri.to_owned() };
    let parsed: http::Uri = uri.parse().map_err(|_| address())?;
    let Some(host) = parsed.host().filter(|host| !host.is_empty()) else { return Err(address()) };
    match parsed.scheme_str() {
        Some("http") => Ok(settings(Endpoint::from(parsed)).connect_lazy()),
        Some("https") => {
            let tls = tls.ok_or_else(|| ChannelError::NoAuthority { uri: uri.to_owned() })?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let name = ServerName::try_from(host.clone()).map_err(|_| address())?;
            let connector =
                TlsDialer { tls, host: host.into(), port: parsed.port_u16().unwrap_or(443), name };
            let dialed = format!("http://{}", parsed.authority().map_or("", |it| it.as_str()));
            let dialed = Endpoint::from_shared(dialed).map_err(|_| address())?.origin(parsed);
            Ok(settings(dialed).connect_with_connector_lazy(connector))
        }
        _ => Err(address()),
    }
}

/// Whether this address may be spoken to without TLS: only on this machine, unless `allowed`.
///
/// # Errors
/// [`ChannelError::Plaintext`].
pub fn check_plaintext(uri: &str, allowed: bool) -> Result<(), ChannelError> {
    let Ok(parsed) = uri.parse::<http::Uri>() else { return Ok(()) };
    let host = parsed.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let local = host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if parsed.scheme_str() == Some("http") && !local && !allowed {
        return Err(ChannelError::Plaintext { uri: uri.to_owned() });
    }
    Ok(())
}

/// Opens TLS connections with the certificates that are in force at that moment: tonic's own keeps the first.
#[derive(Clone)]
struct TlsDialer {
    tls: ClientTls,
    host: std::sync::Arc<str>,
    port: u16,
    name: ServerName<'static>,
}

impl tower::Service<http::Uri> for TlsDialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let dial = async {
                let stream = TcpStream::connect((&*this.host, this.port)).await?;
                stream.set_nodelay(true)?;
                this.tls.connector().connect(this.name, stream).await
            };
            let stream = tokio::time::timeout(CONNECT_TIMEOUT, dial)
                .await
                .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no TLS connection in time"))??;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(io::Error::other("the server there speaks no HTTP/2"));
            }
            Ok(TokioIo::new(stream))
        })
    }
}

/// A channel to the server behind `connector`, in this process.
pub fn in_process_channel(connector: Connector) -> Channel {
    // The address only fills the :authority header.
    settings(Endpoint::from_static("http://control-plane.in-process")).connect_with_connector_lazy(connector)
}

fn settings(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
}

/// A server with the same keepalive. Message sizes are set per service (`max_decoding_message_size`).
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
}

/// Client side of node authentication: puts the fleet's token into `authorization`.
#[derive(Clone)]
pub struct NodeToken {
    header: Option<MetadataValue<Ascii>>,
}

/// The token has characters that cannot stand in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node token has characters that cannot stand in a header; expected printable ASCII")]
pub struct MalformedNodeToken;

impl NodeToken {
    /// # Errors
    /// When the token cannot stand in a header.
    pub fn new(token: &Secret) -> Result<Self, MalformedNodeToken> {
        let mut header: MetadataValue<Ascii> =
            format!("Bearer {}", token.expose()).parse().map_err(|_| MalformedNodeToken)?;
        header.set_sensitive(true);
        Ok(Self { header: Some(header) })
    }

    /// For a control plane that trusts whoever reaches it, as inside one process.
    pub fn none() -> Self {
        Self { header: None }
    }
}

impl std::fmt::Debug for NodeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.header.is_some() { "NodeToken(…)" } else { "NodeToken(none)" })
    }
}

impl Interceptor for NodeToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.header {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_cannot_work_are_named() {
        for uri in ["", "control-plane", "ftp://x:1", "http://", "/path"] {
            let error = channel(uri, None).unwrap_err().to_string();
            assert!(error.contains("expected http://host:port"), "{uri}: {error}");
        }
        let error = channel("https://cp:8082", None).unwrap_err().to_string();
        assert!(error.contains("https://cp:8082 needs the certificate"), "{error}");
        let missing = std::path::Path::new("/nonexistent/ca.pem");
        let error = channel("https://cp:8082", Some(missing)).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn plaintext_leaves_the_machine_only_when_allowed() {
        for local in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://cp:1"] {
            assert!(check_plaintext(local, false).is_ok(), "{local}");
        }
        let error = check_plaintext("http://control-plane:8082", false).unwrap_err().to_string();
        assert!(
            error.contains("http://control-plane:8082") && error.contains("--allow-plaintext"),
            "{error}"
        );
        assert!(check_plaintext("http://control-plane:8082", true).is_ok());
    }

    #[tokio::test]
    async fn channels_are_lazy() {
        assert!(channel("http://127.0.0.1:1", None).is_ok());
        in_process_channel(crate::inproc::channel().0);
    }

    #[test]
    fn the_node_token_is_sent_and_never_shown() {
        let mut token = NodeToken::new(&Secret::new("canary")).unwrap();
        let request = token.call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer canary");
        assert!(!format!("{token:?} {:?}", request.metadata()).contains("canary"));
        assert_eq!(NodeToken::new(&Secret::new("a\nb")).unwrap_err(), MalformedNodeToken);
        assert!(NodeToken::none().call(Request::new(())).unwrap().metadata().is_empty());
    }
}
