//! Asks the issuer for its keys: discovery document, then key set. Called in the background by [`super::source`].

use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;

use super::{
    keys::KeySet,
    settings::{OidcError, OidcSettings, authorities, is_safe},
};
use crate::causes::with_causes;

/// Far above what any issuer has.
const MAX_DOCUMENT_BYTES: usize = 512 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For one document, from name lookup to the last byte.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// What we need of a discovery document.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Asks one issuer.
pub(super) struct IssuerClient {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    issuer: String,
}

/// Why there are no newer keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{url}: {problem}")]
    Document { url: String, problem: String },
    #[error("{0} calls itself {1:?}; set oidc_issuer to exactly that, if it is the right one")]
    OtherIssuer(String, String),
    #[error("jwks_uri is {0:?}, which is neither https nor on this machine")]
    UnsafeKeys(String),
    #[error("the key set has no key that tokens can be signed with")]
    NoKeys,
}

impl IssuerClient {
    pub(super) fn new(settings: &OidcSettings) -> Result<Self, OidcError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let provider = rustls::crypto::ring::default_provider();
        let failed = |error: rustls::Error| OidcError::Tls(error.to_string());
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        let builder = match &settings.ca_file {
            Some(path) => {
                let config = rustls::ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map_err(failed)?
                    .with_root_certificates(authorities(path)?)
                    .with_no_client_auth();
                builder.with_tls_config(config)
            }
            None => builder.with_provider_and_webpki_roots(provider).map_err(failed)?,
        };
        // Whether http is acceptable was decided on the URL.
        let connector = builder.https_or_http().enable_http1().enable_http2().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { client, issuer: settings.issuer.clone() })
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) async fn fetch(&self) -> Result<KeySet, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let document = self.document(&url).await?;
        let malformed = |url: &str, error: &serde_json::Error| FetchError::Document {
            url: url.to_owned(),
            problem: error.to_string(),
        };
        let discovery: Discovery =
            serde_json::from_slice(&document).map_err(|error| malformed(&url, &error))?;
        if discovery.issuer != self.issuer {
            return Err(FetchError::OtherIssuer(url, discovery.issuer));
        }
        if !is_safe(&discovery.jwks_uri) {
            return Err(FetchError::UnsafeKeys(discovery.jwks_uri));
        }
        let document = self.document(&discovery.jwks_uri).await?;
        let keys = KeySet::parse(&document).map_err(|error| malformed(&discovery.jwks_uri, &error))?;
        if keys.is_empty() { Err(FetchError::NoKeys) } else { Ok(keys) }
    }

    async fn document(&self, url: &str) -> Result<Bytes, FetchError> {
        let failed = |problem: String| FetchError::Document { url: url.to_owned(), problem };
        let uri: Uri = url.parse().map_err(|_| failed("not a URL".to_owned()))?;
        match tokio::time::timeout(DOCUMENT_TIMEOUT, self.get(uri)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {} s", DOCUMENT_TIMEOUT.as_secs()))),
        }
    }

    async fn get(&self, uri: Uri) -> Result<Bytes, String> {
        let request = http::Request::get(uri)
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.client.request(request).await.map_err(|error| with_causes(&error))?;
        // Redirects are not followed: they would decide whom we believe.
        if response.status() != StatusCode::OK {
            return Err(format!("answered {}", response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_DOCUMENT_BYTES);
        let collected = body.collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                format!("larger than {MAX_DOCUMENT_BYTES} bytes")
            } else {
                with_causes(&*error)
            }
        })?;
        Ok(collected.to_bytes())
    }
}
