//! Extractors whose refusals are problem documents: caller, ids of the path, query, JSON body.

use std::{collections::HashMap, sync::Arc};

use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::admin::{Admin, AdminError, Caller, ErrorKind};

/// The caller, by the token in the `authorization` header. Comes before the body, so that strangers can't make us read
/// one.
pub(super) struct Auth(pub(super) Caller);

impl FromRequestParts<Arc<Admin>> for Auth {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, AdminError> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        admin.authenticate(value).await.map(Self)
    }
}

/// The ids that stand in the path.
pub(super) struct Ids(HashMap<String, String>);

impl Ids {
    /// Sets the named members of a request from the path. A path without a name leaves its member empty.
    pub(super) fn fill<T, const N: usize>(
        &self,
        mut request: T,
        members: fn(&mut T) -> [(&'static str, &mut String); N],
    ) -> Result<T, AdminError> {
        for (name, member) in members(&mut request) {
            let path = self.0.get(name).map(String::as_str).unwrap_or_default();
            if !member.is_empty() && member != path {
                return Err(AdminError::invalid(name, "differs from the path", "nothing: the path says it"));
            }
            path.clone_into(member);
        }
        Ok(request)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(error) => Err(AdminError::new(ErrorKind::InvalidArgument, error.body_text())),
        }
    }
}

/// The parameters of a list.
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = AdminError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, AdminError> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(AdminError::new(ErrorKind::InvalidArgument, error.body_text())),
        }
    }
}

/// A JSON body; none at all is an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminError> {
        let is_json = is_json(request.headers());
        let bytes = Bytes::from_request(request, state).await.map_err(|error| match error {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => AdminError {
                expected: Some(format!("at most {} bytes", super::MAX_BODY_BYTES)),
                ..AdminError::new(ErrorKind::TooLarge, "the body is too large")
            },
            other => AdminError::new(ErrorKind::InvalidArgument, other.body_text()),
        })?;
        if bytes.is_empty() {
            return parse(b"{}").map(Self);
        }
        if !is_json {
            return Err(AdminError {
                expected: Some("content-type: application/json".to_owned()),
                ..AdminError::new(ErrorKind::UnsupportedMediaType, "the body is not declared to be JSON")
            });
        }
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        explain(Some(path).filter(|path| path != "."), error.inner())
    })?;
    deserializer.end().map_err(|error| explain(None, &error))?;
    Ok(value)
}

/// serde says `invalid type: string "x", expected u32 at line 1 column 20`: three things of which we keep apart two.
fn explain(field: Option<String>, error: &serde_json::Error) -> AdminError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    // Our own types (times) say it the other way round.
    let own = text.strip_prefix("expected ").and_then(|text| text.split_once(", "));
    let parts = own.map(|(expected, message)| (message, expected)).or_else(|| text.split_once(", expected "));
    let (message, expected) = match parts {
        Some((message, expected)) => (message, Some(expected.to_owned())),
        None => (text, None),
    };
    let place = if error.is_syntax() || error.is_eof() {
        format!(" (line {}, column {})", error.line(), error.column())
    } else {
        String::new()
    };
    AdminError { field, expected, ..AdminError::new(ErrorKind::InvalidArgument, format!("{message}{place}")) }
}
