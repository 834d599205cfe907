//! Fetches what a source says: one GET, bounded in size and time, without redirects. Called by [`super::job`].
//!
//! Where it goes, the settings and the operator's deployments say, never a request.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::causes::with_causes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// From name lookup to the last byte.
const TIMEOUT: Duration = Duration::from_secs(60);
/// models.dev is about 2 MiB.
const MAX_BODY: usize = 32 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct SourceClient {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl SourceClient {
    /// # Errors
    /// When TLS can't be set up.
    pub fn new() -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client })
    }

    /// The body of a 200.
    ///
    /// # Errors
    /// A sentence without secrets.
    pub async fn get(&self, url: &str, headers: HeaderMap) -> Result<Bytes, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        match tokio::time::timeout(TIMEOUT, self.fetch(uri, headers)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no whole answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn fetch(&self, uri: Uri, headers: HeaderMap) -> Result<Bytes, String> {
        let mut request = http::Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
        *request.headers_mut() = headers;
        let own = request.headers_mut();
        own.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let agent = concat!("nemo-router/", env!("CARGO_PKG_VERSION"));
        own.insert(header::USER_AGENT, HeaderValue::from_static(agent));
        let answer = self.client.request(request).await.map_err(|error| with_causes(&error))?;
        let status = answer.status();
        if status != http::StatusCode::OK {
            return Err(format!("answered {status}"));
        }
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        body.map(http_body_util::Collected::to_bytes).map_err(|error| {
            format!("the answer broke off or is longer than {} MiB: {error}", MAX_BODY >> 20)
        })
    }
}
