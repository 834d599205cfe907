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
    decompress,
    error::{GatewayError, Kind},
    headers::{METADATA, MIN_CONFIG_VERSION, REQUEST_STRATEGY, TIMEOUT_MS},
    pace::Pace,
    portkey,
};

/// What the headers ask for (requirements F). A header wins over the body field of the same meaning.
#[derive(Debug, Default)]
pub struct HeaderExtras {
    pub metadata: Option<Box<str>>,
    pub timeout: Option<Duration>,
    pub strategy: Option<Strategy>,
    pub min_config_version: Option<u64>,
    /// There are headers of Portkey's.
    pub portkey: bool,
}

/// Reads the gateway's own request headers.
///
/// # Errors
/// 400 naming the header and what was expected.
pub fn header_extras(request: &HeaderMap) -> Result<HeaderExtras, GatewayError> {
    let mut extras = HeaderExtras::default();
    for (name, value) in request {
        if !name.as_str().starts_with("x-") {
            continue;
        }
        extras.portkey |= name.as_str().starts_with(portkey::PREFIX);
        match name.as_str() {
            portkey::METADATA if !request.contains_key(METADATA) => {
                extras.metadata = Some(metadata(portkey::METADATA, value)?);
            }
            portkey::REQUEST_TIMEOUT if !request.contains_key(TIMEOUT_MS) => {
                extras.timeout = Some(timeout(portkey::REQUEST_TIMEOUT, value)?);
            }
            METADATA => extras.metadata = Some(metadata(METADATA, value)?),
            TIMEOUT_MS => extras.timeout = Some(timeout(TIMEOUT_MS, value)?),
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

fn timeout(name: &'static str, value: &HeaderValue) -> Result<Duration, GatewayError> {
    match number(name, value)? {
        0 => Err(bad(name, "at least 1")),
        millis => Ok(Duration::from_millis(millis)),
    }
}

fn metadata(name: &'static str, value: &HeaderValue) -> Result<Box<str>, GatewayError> {
    let text = text(name, value)?;
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    if text.len() > Extras::MAX_METADATA || object.is_err() {
        return Err(bad(name, "a JSON object of at most 4096 bytes"));
    }
    Ok(text.into())
}

/// Reads the whole body, at most `limit` bytes. A body that arrives in one piece is not copied.
///
/// # Errors
/// 413 beyond the limit, plain or decompressed; 415 for an unknown encoding or a non-JSON body; 408 when it does not
/// arrive in time.
pub async fn read_body(
    request: &HeaderMap,
    body: Incoming,
    limit: usize,
    pace: &mut Pace,
) -> Result<Bytes, GatewayError> {
    media_type(request)?;
    let encoding = decompress::encoding(request)?;
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
    let bytes = collect(body, announced, limit, pace).await?.ok_or_else(too_large)?;
    match encoding {
        None => Ok(bytes),
        Some(encoding) => Box::pin(decompress::run(encoding, bytes, limit)).await,
    }
}

/// `None` beyond the limit.
async fn collect(
    mut body: Incoming,
    announced: usize,
    limit: usize,
    pace: &mut Pace,
) -> Result<Option<Bytes>, GatewayError> {
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    let slow = |_| GatewayError::new(Kind::RequestTimeout, "The request body did not arrive in time.");
    let broken = |_| GatewayError::new(Kind::InvalidRequest, "The request body broke off.");
    while let Some(frame) = pace.wait(body.frame()).await.map_err(slow)? {
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        pace.received(data.len());
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
