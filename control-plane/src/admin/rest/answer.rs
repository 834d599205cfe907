//! From an operation's answer to an HTTP response: status, body, and the headers that say what a write did.
//!
//! Called by the handlers that [`super::table`] makes.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use super::{input::Input, table::Kind};
use crate::admin::{
    Admin, AdminError, ErrorKind, Written,
    call::{CONFIG_VERSION, IDEMPOTENCY_REPLAYED},
    entity::etag_of,
    fleet_wait::PATIENCE,
};

/// Where the id of what was created stands: creations of keys and tokens answer with the secret beside the entity.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Created {
    id: String,
    key: Option<Entity>,
    admin_token: Option<Entity>,
    webhook: Option<Entity>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entity {
    id: String,
}

impl Created {
    fn id(body: &[u8]) -> String {
        let Self { id, key, admin_token, webhook } = serde_json::from_slice(body).unwrap_or_default();
        key.or(admin_token).or(webhook).map_or(id, |entity| entity.id)
    }
}

/// The answer of a read or a list.
pub(super) fn found<T: Serialize + 'static>(value: &T) -> Result<Response, AdminError> {
    let mut response = json(StatusCode::OK, encode(value)?);
    set(&mut response, header::ETAG, etag_of(value));
    Ok(response)
}

/// The answer of a write.
pub(super) async fn written<T: Serialize + 'static>(
    admin: &Admin,
    input: &Input,
    kind: Kind,
    written: Written<T>,
) -> Result<Response, AdminError> {
    if let (true, Some(version)) = (input.wait_for_fleet, written.config_version) {
        admin.wait_for_fleet(version, PATIENCE).await?;
    }
    let body = encode(&written.answer)?;
    let created = kind == Kind::Create && !input.call.validate_only;
    let location = created.then(|| format!("{}/{}", input.path.trim_end_matches('/'), Created::id(&body)));
    let mut response = match kind {
        Kind::Delete => StatusCode::NO_CONTENT.into_response(),
        _ if created => json(StatusCode::CREATED, body),
        _ => json(StatusCode::OK, body),
    };
    set(&mut response, header::LOCATION, location);
    set(&mut response, header::ETAG, etag_of(&written.answer));
    let version = written.config_version.map(|version| version.to_string());
    set(&mut response, HeaderName::from_static(CONFIG_VERSION), version);
    let replayed = written.replayed.then(|| "true".to_owned());
    set(&mut response, HeaderName::from_static(IDEMPOTENCY_REPLAYED), replayed);
    Ok(response)
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, AdminError> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer can't be written as JSON");
        AdminError::new(ErrorKind::Internal, "the control plane's log says what")
    })
}

fn json(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
}

fn set(response: &mut Response, name: HeaderName, value: Option<String>) {
    let value = value.and_then(|value| HeaderValue::try_from(value).ok());
    response.headers_mut().extend(value.map(|value| (name, value)));
}
