//! Credential → key record. No await, no network (I1). Called by [`super::handle`].

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Uri, header};
use nemo_snapshot::{KeyRecord, tenancy::Disabled};
use nemo_types::ApiKey;

use super::{
    error::{GatewayError, Kind},
    portkey,
};
use crate::config::Live;

/// Finds and verifies the key that a request carries: `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or
/// `x-portkey-api-key`; of Google's clients also `key` in the query.
///
/// # Errors
/// 401 for a missing, malformed, unknown, disabled or expired key. Unknown and wrong are told alike.
pub fn run(live: &Live, headers: &HeaderMap, uri: &Uri, now_ms: i64) -> Result<Arc<KeyRecord>, GatewayError> {
    let presented = presented(headers).or_else(|missing| in_query(uri).ok_or(missing))?;
    let refused = || {
        GatewayError::new(
            Kind::Unauthenticated,
            "Incorrect API key provided. Keys of this gateway start with sk-nemo-; \
             issue one with `nemo keys create` or the admin API.",
        )
    };
    let token = ApiKey::parse(presented).map_err(|_| refused())?;
    let key = live.snapshot.tenancy.key(&token.public_id).ok_or_else(refused)?;
    if !key.accepts(&token, now_ms) {
        return Err(refused());
    }
    if let Some(disabled) = live.disabled(key) {
        let message = match disabled {
            Disabled::Key => "This API key is disabled.",
            Disabled::Team => "The team of this API key is disabled.",
            Disabled::Organization => "The organization of this API key is disabled.",
        };
        return Err(GatewayError {
            code: Some("key_disabled"),
            ..GatewayError::new(Kind::Unauthenticated, message)
        });
    }
    if key.expires_at_ms.is_some_and(|at| now_ms >= at) {
        let error = GatewayError::new(Kind::Unauthenticated, "This API key has expired.");
        return Err(GatewayError { code: Some("key_expired"), ..error });
    }
    Ok(key.clone())
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const X_GOOG_API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");

fn presented(headers: &HeaderMap) -> Result<&str, GatewayError> {
    let missing = || {
        GatewayError::new(
            Kind::Unauthenticated,
            "You didn't provide an API key. Send it in the Authorization header: Authorization: Bearer sk-nemo-…",
        )
    };
    let text = |name: &HeaderName| {
        headers.get(name).map(|value| value.to_str().map(str::trim_ascii).map_err(|_| missing()))
    };
    let bearer = text(&header::AUTHORIZATION).map(|value| {
        let (scheme, token) = value?.split_once(' ').ok_or_else(missing)?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_ascii()).ok_or_else(missing)
    });
    // Clients of Portkey put something else into `Authorization`: a key of their provider, or a filler.
    match bearer {
        Some(Ok(token)) if token.starts_with(ApiKey::PREFIX) => Ok(token),
        other => {
            let others = || text(&X_API_KEY).or_else(|| text(&X_GOOG_API_KEY));
            text(&portkey::API_KEY).or(other).or_else(others).ok_or_else(missing)?
        }
    }
}

/// As Google's clients may send it. Keys have no character that a query would escape.
fn in_query(uri: &Uri) -> Option<&str> {
    let query = uri.query().filter(|_| uri.path().starts_with("/v1beta/"))?;
    query.split('&').find_map(|pair| pair.strip_prefix("key="))
}
