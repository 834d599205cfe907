//! The client's request: its headers' extras and its bounded body. Called by [`super::handle`].

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use nemo_llm::Extras;
use nemo_snapshot::Strategy;

use super::{
    error::{GatewayError, Kind},
    headers::{self, METADATA, MIN_CONFIG_VERSION, REQUEST_STRATEGY, TIMEOUT_MS},
};

/// What the headers ask for (requirements F). A header wins over the body field of the same meaning.
#[derive(Debug, Default)]
pub struct HeaderExtras {
    pub metadata: Option<Box<str>>,
    pub timeout: Option<Duration>,
    pub strategy: Option<Strategy>,
    pub min_config_version: Option<u64>,
}

/// Reads the gateway's own request headers.
///
/// # Errors
/// 400 naming the header and what was expected.
pub fn header_extras(request: &HeaderMap) -> Result<HeaderExtras, GatewayError> {
    let mut extras = HeaderExtras::default();
    for (name, value) in request {
        if !name.as_str().starts_with(headers::PREFIX) {
            continue;
        }
        match name.as_str() {
            METADATA => extras.metadata = Some(metadata(text(METADATA, value)?)?),
            TIMEOUT_MS => {
                let millis = number(TIMEOUT_MS, value)?;
                if millis == 0 {
                    return Err(bad(TIMEOUT_MS, "at least 1"));
                }
                extras.timeout = Some(Duration::from_millis(millis));
            }
            REQUEST_STRATEGY => {
                let strategy = text(REQUEST_STRATEGY, value)?.parse::<Strategy>();
                extras.strategy = Some(strategy.map_err(|error| {
                    GatewayError::new(Kind::InvalidRequest, format!("{error}.")).param(REQUEST_STRATEGY)
                })?);
            }
            MIN_CONFIG_VERSION => extras.min_config_version = Some(number(MIN_CONFIG_VERSION, value)?),
            _ => {}
        }
    }
    Ok(extras)
}

fn bad(name: &'static str, expected: &str) -> GatewayError {
    GatewayError::new(Kind::InvalidRequest, format!("The header {name} must be {expected}.")).param(name)
}

fn text<'a>(name: &'static str, value: &'a HeaderValue) -> Result<&'a str, GatewayError> {
    value.to_str().map(str::trim).map_err(|_| bad(name, "visible ASCII"))
}

fn number(name: &'static str, value: &HeaderValue) -> Result<u64, GatewayError> {
    text(name, value)?.parse().map_err(|_| bad(name, "a whole number"))
}

fn metadata(text: &str) -> Result<Box<str>, GatewayError> {
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    if text.len() > Extras::MAX_METADATA || object.is_err() {
        return Err(bad(METADATA, "a JSON object of at most 4096 bytes"));
    }
    Ok(text.into())
}

/// Reads the whole body, at most `limit` bytes. A body that arrives in one piece is not copied.
///
/// # Errors
/// 413 beyond the limit, 415 for an encoded or non-JSON body, 408 when it does not arrive in `patience`.
pub async fn read_body(
    request: &HeaderMap,
    body: Incoming,
    limit: usize,
    patience: Duration,
) -> Result<Bytes, GatewayError> {
    media_type(request)?;
    let too_large = || {
        GatewayError::new(
            Kind::PayloadTooLarge,
            format!("The request body is larger than the limit of {limit} bytes."),
        )
    };
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    let announced = usize::try_from(announced).unwrap_or(0);
    match tokio::time::timeout(patience, collect(body, announced, limit)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(_)) => Err(GatewayError::new(Kind::InvalidRequest, "The request body broke off.")),
        Err(_) => Err(GatewayError::new(Kind::RequestTimeout, "The request body did not arrive in time.")),
    }
}

/// `None` beyond the limit.
async fn collect(mut body: Incoming, announced: usize, limit: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + rest.len() + data.len() > limit {
            return Ok(None);
        }
        if first.is_empty() && rest.is_empty() {
            first = data;
            continue;
        }
        if rest.is_empty() {
            // Never reserve more than has been announced: a lie costs the liar its own bytes.
            rest.reserve(announced.max(first.len() + data.len()));
            rest.extend_from_slice(&std::mem::take(&mut first));
        }
        rest.extend_from_slice(&data);
    }
    Ok(Some(if rest.is_empty() { first } else { rest.freeze() }))
}

fn media_type(headers: &HeaderMap) -> Result<(), GatewayError> {
    let refused = |message: String| Err(GatewayError::new(Kind::UnsupportedMediaType, message));
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return refused("Compressed request bodies are not accepted; send the JSON as it is.".into());
    }
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if essence.eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    refused(format!(
        "The content type {} is not accepted here; send application/json.",
        String::from_utf8_lossy(essence)
    ))
}
