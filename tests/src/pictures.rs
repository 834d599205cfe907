//! A server of images behind TLS, on a loopback address: what tests let the gateway fetch, and what it must not. Its
//! certificate is of an authority of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::{TlsAcceptor, rustls};

/// One white pixel.
pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0\x3a~\x9bU\0\0\0\x0aIDATx\x9cc\xf8\x0f\0\x01\x01\x01\0\xb18\xf6\x14\0\0\0\0IEND\xaeB`\x82";

/// What is answered at a path.
#[derive(Debug, Clone)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Page {
    pub fn new(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, headers: vec![("content-type", content_type.into())], body: body.into() }
    }

    pub fn redirect(location: &str) -> Self {
        Self { status: 302, headers: vec![("location", location.into())], body: Bytes::new() }
    }
}

/// A running server. Dropping it closes the port.
pub struct Pictures {
    addr: SocketAddr,
    state: Arc<State>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct State {
    pages: Mutex<HashMap<String, Page>>,
    seen: Mutex<Vec<(String, HeaderMap)>>,
    connections: std::sync::atomic::AtomicU64,
}

/// Who signs the certificates of these servers.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Its certificate goes into this file.
    pub fn new(file: &Path) -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        std::fs::write(file, issuer.pem())?;
        Ok(Self(issuer))
    }
}

impl Pictures {
    /// Serves at this address, which the certificate names, and at `localhost`.
    pub async fn start(authority: &Authority, address: IpAddr) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec!["localhost".to_owned(), address.to_string()])?;
        let certificate = params.signed_by(&key, &authority.0)?;
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|error| anyhow::anyhow!("the key: {error}"))?;
        let config = rustls::ServerConfig::builder_with_provider(nemo_runtime::tls::provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        let listener =
            TcpListener::bind((address, 0)).await.with_context(|| format!("listen on {address}"))?;
        let (addr, state) = (listener.local_addr()?, Arc::new(State::default()));
        let mut server = JoinSet::new();
        server.spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), state.clone()));
        Ok(Self { addr, state, _server: server })
    }

    pub fn serve(&self, path: &str, page: Page) {
        let mut pages = self.state.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(path.to_owned(), page);
    }

    /// `https://127.0.0.1:<port>/path`
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.addr)
    }

    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Paths that were asked for, with their headers.
    pub fn seen(&self) -> Vec<(String, HeaderMap)> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections that were opened, whatever became of them.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(std::sync::atomic::Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        state.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (acceptor, state) = (acceptor.clone(), state.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service = service_fn(move |request| {
                let answer = state.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _client_gone = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

impl State {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let page = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((path, request.headers().clone()));
        let page =
            page.unwrap_or_else(|| Page { status: 404, ..Page::new("text/plain", "canary-of-a-server") });
        let mut response = Response::builder().status(page.status);
        for (name, value) in &page.headers {
            response = response.header(*name, value);
        }
        response.body(Full::new(page.body)).unwrap_or_default()
    }
}
