//! Calling upstreams: pooled connections, a body of shared slices, and what an answer means.
//!
//! Called by `pipeline::dispatch`. `http` is HTTP/1.1; `https` is whichever of HTTP/2 and HTTP/1.1 the server chooses.

mod alarm;
pub mod body;
pub mod classify;
pub mod credentials;
pub mod hints;
mod multiplex;
pub mod pool;
pub mod reach;
mod signer;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use http::{Request, Response, Uri};
use ipnet::IpNet;
use nemo_runtime::tls;
use nemo_types::OrgId;
use rustls::{ClientConfig, RootCertStore};

pub use body::SegmentBody;
pub use classify::{CallError, Verdict};
pub use credentials::Credentials;
pub use pool::PooledBody as UpstreamBody;
use pool::{Connections, Origin};
pub use reach::Reach;
pub use signer::Signer;

/// All connections to upstreams. Clones share them.
#[derive(Clone)]
pub struct UpstreamClient {
    tls: Arc<ClientConfig>,
    connections: Connections,
    /// Pools that a snapshot still refers to, by reach, scheme and authority: they outlive the snapshot that first named them.
    origins: Arc<Mutex<HashMap<Box<str>, Weak<Origin>>>>,
    /// Where organizations' own deployments may be besides the internet.
    organization_networks: Arc<[IpNet]>,
    /// Those that are fetched in the background.
    pub credentials: Credentials,
}

/// How to reach one base URL. Made once per snapshot, so that a request looks nothing up.
#[derive(Clone, Debug)]
pub enum Route {
    /// Cleartext: requests go out in origin form.
    Http1(Arc<Origin>),
    /// TLS: requests go out with their whole URI.
    Https(Arc<Origin>),
    /// To a deployment that can't be called: nothing is ever sent.
    Nowhere,
}

/// A request on its way. Boxed: every future that it passes through would have room for it.
pub type Outbound = Box<Request<SegmentBody>>;

/// Why there is no answer.
#[derive(Debug)]
pub struct SendError {
    pub error: CallError,
    /// The request, when nothing of it was sent.
    pub unsent: Option<Outbound>,
}

impl From<CallError> for SendError {
    fn from(error: CallError) -> Self {
        Self { error, unsent: None }
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// When the request goes out.
    pub now: Instant,
    /// Until a connection is there, if a new one is needed.
    pub connect: Duration,
    /// When the head of the answer must be there.
    pub head_by: tokio::time::Instant,
}

impl UpstreamClient {
    /// Trusts the public authorities, and those in `authority` (a PEM file) as well.
    ///
    /// # Errors
    /// When the file can't be used, or the TLS library can't be set up.
    pub fn new(authority: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = authority {
            roots.roots.extend(tls::root_store(path)?.roots);
        }
        let mut config = ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            tls: Arc::new(config),
            connections: Connections::default(),
            origins: Arc::default(),
            organization_networks: Arc::default(),
            credentials: Credentials::default(),
        })
    }

    /// Opens these networks to organizations' own deployments.
    #[must_use]
    pub fn with_organization_networks(self, networks: &[IpNet]) -> Self {
        Self { organization_networks: networks.into(), ..self }
    }

    /// Where a deployment may be: of an organization, or (`None`) of the operator.
    pub fn reach(&self, owner: Option<OrgId>) -> Reach {
        match owner {
            Some(_) => Reach::Outside(self.organization_networks.clone()),
            None => Reach::Anywhere,
        }
    }

    /// The same trust, for calls of another kind: over HTTP/1.1, with nothing remembered.
    pub fn tls_http1(&self) -> ClientConfig {
        let mut config = (*self.tls).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        config
    }

    /// The route to this address; `None` when it can't be called. Addresses of the same origin share a pool, but nobody
    /// uses a connection that a wider reach has opened.
    pub fn route(&self, uri: &Uri, reach: Reach) -> Option<Route> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = match &reach {
            Reach::Anywhere => "",
            Reach::Outside(_) => "outside ",
        };
        let key = format!("{kind}{}://{}", uri.scheme_str()?, uri.authority()?);
        let route = |origin: Arc<Origin>| {
            if origin.is_tls() { Route::Https(origin) } else { Route::Http1(origin) }
        };
        if let Some(origin) = origins.get(&*key).and_then(Weak::upgrade) {
            return Some(route(origin));
        }
        origins.retain(|_, origin| origin.strong_count() > 0);
        let origin = Arc::new(Origin::new(uri, reach, &self.tls, self.connections.clone())?);
        origins.insert(key.into(), Arc::downgrade(&origin));
        Some(route(origin))
    }

    /// Sends one request and waits for the head of the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(
        &self,
        route: &Route,
        request: Outbound,
        patience: Patience,
    ) -> Result<Response<UpstreamBody>, SendError> {
        match route {
            Route::Http1(origin) | Route::Https(origin) => origin.send(request, patience).await,
            Route::Nowhere => Err(SendError { error: CallError::Connect, unsent: Some(request) }),
        }
    }

    /// Closes the connections and waits for their tasks. For the end of a drain, when nothing uses them.
    pub async fn close(&self) {
        self.connections.close().await;
    }
}
