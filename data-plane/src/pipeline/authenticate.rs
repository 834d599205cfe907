//! Credential → key record. No await, no network (I1). Called by [`super::handle`].

use std::sync::Arc;

use http::{HeaderMap, header};
use nemo_snapshot::{KeyRecord, Snapshot, tenancy::Disabled};
use nemo_types::ApiKey;

use super::error::{GatewayError, Kind};

/// Finds and verifies the key that a request carries: `Authorization: Bearer` or `x-api-key`.
///
/// # Errors
/// 401 for a missing, malformed, unknown, disabled or expired key. Unknown and wrong are told alike.
pub fn run(snapshot: &Snapshot, headers: &HeaderMap, now_ms: i64) -> Result<Arc<KeyRecord>, GatewayError> {
    let presented = presented(headers)?;
    let refused = || {
        GatewayError::new(
            Kind::Unauthenticated,
            "Incorrect API key provided. Keys of this gateway start with sk-nemo-; \
             issue one with `nemo keys create` or the admin API.",
        )
    };
    let token = ApiKey::parse(presented).map_err(|_| refused())?;
    let key = snapshot.tenancy.key(&token.public_id).ok_or_else(refused)?;
    if !key.verify(&token.hash, now_ms) {
        return Err(refused());
    }
    if let Some(disabled) = key.disabled {
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

fn presented(headers: &HeaderMap) -> Result<&str, GatewayError> {
    let missing = || {
        GatewayError::new(
            Kind::Unauthenticated,
            "You didn't provide an API key. Send it in the Authorization header: Authorization: Bearer sk-nemo-…",
        )
    };
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().map_err(|_| missing())?;
        let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
        return if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) };
    }
    headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim).ok_or_else(missing)
}
