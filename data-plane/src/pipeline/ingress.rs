//! The client's body, bounded. Called by [`super::handle`].

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::{
    decompress,
    error::{GatewayError, Kind},
    pace::Pace,
};

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
