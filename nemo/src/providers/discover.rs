//! Asks an OpenAI-compatible server which models it has: for servers of one's own, which no catalog can know.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnectorBuilder, builderstates::WantsSchemes};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nemo_runtime::tls::ClientTls;
use nemo_types::Secret;
use serde::Deserialize;

/// A server that does not answer in this time is treated as away: the start must not hang on it.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
const MAX_MODELS: usize = 500;

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// Names of the models at `base_url`, sorted.
///
/// # Errors
/// When the server is away or answers with something else; the message names it.
pub async fn models(base_url: &str, secret: Option<&Secret>) -> anyhow::Result<Vec<String>> {
    let url = format!("{base_url}/models");
    let body = tokio::time::timeout(TIMEOUT, get(&url, secret))
        .await
        .map_err(|_| anyhow::anyhow!("{url} does not answer within {TIMEOUT:?}"))??;
    let list: List = serde_json::from_slice(&body)
        .with_context(|| format!("{url} does not answer with a list of models"))?;
    let mut names: Vec<String> = list.data.into_iter().map(|entry| entry.id).take(MAX_MODELS).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// The body of a successful answer. Public authorities are trusted.
///
/// # Errors
/// When there is none.
pub async fn get(url: &str, secret: Option<&Secret>) -> anyhow::Result<Bytes> {
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())
        .context("TLS cannot be set up")?;
    fetch(connector, url, secret).await
}

/// The same from a server that `trust` trusts.
///
/// # Errors
/// As [`get`].
pub async fn get_from(trust: &ClientTls, url: &str, secret: Option<&Secret>) -> anyhow::Result<Bytes> {
    fetch(HttpsConnectorBuilder::new().with_tls_config(trust.config()), url, secret).await
}

async fn fetch(
    connector: HttpsConnectorBuilder<WantsSchemes>,
    url: &str,
    secret: Option<&Secret>,
) -> anyhow::Result<Bytes> {
    let connector = connector.https_or_http().enable_http1().build();
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let mut request = Request::get(url);
    if let Some(secret) = secret {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", secret.expose()));
    }
    let request = request.body(Empty::new()).with_context(|| format!("{url} is not a URL"))?;
    let response = client.request(request).await.with_context(|| format!("{url} cannot be reached"))?;
    if !response.status().is_success() {
        bail!("{url} answers {}", response.status());
    }
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
    Ok(body.map_err(|error| anyhow::anyhow!("{url}: {error}"))?.to_bytes())
}
