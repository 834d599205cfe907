//! Calling upstreams: pooled connections, a body of shared slices, and what an answer means.
//!
//! Called by `pipeline::dispatch`.

pub mod body;
pub mod classify;
pub mod pool;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

pub use body::SegmentBody;
pub use classify::{CallError, Verdict, classify};
use pool::{Connections, Origin, PooledBody};

/// Connections kept idle per `https` host.
const MAX_IDLE_PER_HOST: usize = 256;
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
const HTTP2_KEEPALIVE: Duration = Duration::from_secs(20);

/// All connections to upstreams. Clones share them.
#[derive(Clone)]
pub struct UpstreamClient {
    https: Client<HttpsConnector<HttpConnector>, SegmentBody>,
    connect_timeout: Duration,
    connections: Connections,
    /// Pools that a snapshot still refers to, by authority: they outlive the snapshot that first named them.
    origins: Arc<Mutex<HashMap<Box<str>, Weak<Origin>>>>,
}

/// How to reach one base URL. Made once per snapshot, so that a request looks nothing up.
#[derive(Clone, Debug)]
pub enum Route {
    /// Cleartext: requests go out in origin form.
    Http1(Arc<Origin>),
    /// TLS: requests go out with their whole URI.
    Https,
}

impl UpstreamClient {
    /// # Errors
    /// When the TLS library can't be set up.
    pub fn new(connect_timeout: Duration) -> io::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_keepalive(Some(Duration::from_secs(60)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
            .map_err(io::Error::other)?
            .https_only()
            .enable_http1()
            .enable_http2()
            .wrap_connector(connector);
        let https = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE_PER_HOST)
            .http2_keep_alive_interval(HTTP2_KEEPALIVE)
            .http2_adaptive_window(true)
            .build(connector);
        let (connections, origins) = (Connections::default(), Arc::default());
        Ok(Self { https, connect_timeout, connections, origins })
    }

    /// The route to this address. Addresses of the same origin share a pool.
    pub fn route(&self, uri: &Uri) -> Route {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(authority) = uri.authority().filter(|_| uri.scheme_str() == Some("http")) else {
            return Route::Https;
        };
        if let Some(origin) = origins.get(authority.as_str()).and_then(Weak::upgrade) {
            return Route::Http1(origin);
        }
        origins.retain(|_, origin| origin.strong_count() > 0);
        match Origin::new(uri, self.connect_timeout, self.connections.clone()) {
            Some(origin) => {
                let origin = Arc::new(origin);
                origins.insert(authority.as_str().into(), Arc::downgrade(&origin));
                Route::Http1(origin)
            }
            None => Route::Https,
        }
    }

    /// Sends one request and waits for the head of the answer, at most `timeout`.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer.
    pub async fn send(
        &self,
        route: &Route,
        request: Request<SegmentBody>,
        timeout: Duration,
    ) -> Result<Response<UpstreamBody>, CallError> {
        let answer = async {
            match route {
                Route::Http1(origin) => Ok(origin.send(request).await?.map(UpstreamBody::Pooled)),
                Route::Https => match self.https.request(request).await {
                    Ok(response) => Ok(response.map(UpstreamBody::Https)),
                    Err(error) => Err(CallError::from_client(&error)),
                },
            }
        };
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(CallError::Timeout))
    }

    /// Closes the connections and waits for their tasks. For the end of a drain, when nothing uses them.
    pub async fn close(&self) {
        self.connections.stop.cancel();
        self.connections.tasks.close();
        self.connections.tasks.wait().await;
    }
}

/// The body of an upstream's answer.
#[derive(Debug)]
pub enum UpstreamBody {
    Pooled(PooledBody),
    Https(Incoming),
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Pooled(body) => Pin::new(body).poll_frame(cx),
            Self::Https(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pooled(body) => body.is_end_stream(),
            Self::Https(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pooled(body) => body.size_hint(),
            Self::Https(body) => body.size_hint(),
        }
    }
}
