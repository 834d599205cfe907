//! What an admin operation can fail with, and its two faces: gRPC status and RFC 9457 problem document.
//!
//! Kind, status codes and title come from one table. Faults of ours are logged here and told to nobody in detail.

use std::fmt;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use nemo_types::{SealError, token::RandomUnavailable};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::store::StoreError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    /// The request is fine, the state of things is not: something is still in use.
    InUse,
    MethodNotAllowed,
    TooLarge,
    UnsupportedMediaType,
    Unavailable,
    Internal,
}

/// One row: kind, HTTP status, gRPC code, title. The problem type is made from the kind's name.
const TABLE: [(ErrorKind, StatusCode, Code, &str, &str); 11] = [
    (
        ErrorKind::InvalidArgument,
        StatusCode::BAD_REQUEST,
        Code::InvalidArgument,
        "invalid_argument",
        "The request is not valid",
    ),
    (
        ErrorKind::Unauthenticated,
        StatusCode::UNAUTHORIZED,
        Code::Unauthenticated,
        "unauthenticated",
        "A valid admin token is needed",
    ),
    (
        ErrorKind::PermissionDenied,
        StatusCode::FORBIDDEN,
        Code::PermissionDenied,
        "permission_denied",
        "The token does not allow this",
    ),
    (ErrorKind::NotFound, StatusCode::NOT_FOUND, Code::NotFound, "not_found", "There is no such thing"),
    (
        ErrorKind::AlreadyExists,
        StatusCode::CONFLICT,
        Code::AlreadyExists,
        "already_exists",
        "It exists already",
    ),
    (ErrorKind::InUse, StatusCode::CONFLICT, Code::FailedPrecondition, "in_use", "It is still in use"),
    (
        ErrorKind::MethodNotAllowed,
        StatusCode::METHOD_NOT_ALLOWED,
        Code::Unimplemented,
        "method_not_allowed",
        "The path does not know this method",
    ),
    (
        ErrorKind::TooLarge,
        StatusCode::PAYLOAD_TOO_LARGE,
        Code::ResourceExhausted,
        "too_large",
        "The request is too large",
    ),
    (
        ErrorKind::UnsupportedMediaType,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidArgument,
        "unsupported_media_type",
        "The body must be JSON",
    ),
    (ErrorKind::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "unavailable", "Try again"),
    (
        ErrorKind::Internal,
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        "internal",
        "Something went wrong on our side",
    ),
];

impl ErrorKind {
    fn row(self) -> (StatusCode, Code, &'static str, &'static str) {
        let fallback =
            (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal, "internal", "Something went wrong");
        TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or(fallback, |(_, status, code, slug, title)| (*status, *code, slug, title))
    }
}

/// Safe to show to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminError {
    pub kind: ErrorKind,
    /// Member of the request, as in `links[0].deployments[1].weight`.
    pub field: Option<String>,
    pub message: String,
    /// What would have been right.
    pub expected: Option<String>,
}

impl std::error::Error for AdminError {}

/// `field: message (expected …)`
impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.expected {
            Some(expected) => write!(f, " (expected {expected})"),
            None => Ok(()),
        }
    }
}

impl AdminError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, field: None, message: message.into(), expected: None }
    }

    /// A member of the request is not as it should be.
    pub fn invalid(
        field: impl Into<String>,
        message: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            field: Some(field.into()),
            expected: Some(expected.into()),
            ..Self::new(ErrorKind::InvalidArgument, message)
        }
    }

    /// `what` does not exist, or not for this caller.
    pub fn not_found(what: &str, id: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, format!("no {what} {id}"))
    }

    #[must_use]
    pub fn with_field(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    pub fn status_code(&self) -> StatusCode {
        self.kind.row().0
    }
}

/// Constraint → member and message, where the operations leave the check to the database because only it can decide.
const CONFLICTS: [(&str, &str, &str); 6] = [
    ("teams_name_taken", "name", "the organization has a team of this name"),
    ("members_email_taken", "email", "the organization has a member with this address"),
    ("credentials_name_taken", "name", "there is a credential of this name"),
    ("deployments_name_taken", "name", "there is a deployment of this name"),
    ("model_groups_name_taken", "name", "there is a model group of this name"),
    ("model_prices_pkey", "price_id", "the price id is taken by another price; prices never change"),
];

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict { constraint } => {
                let known = CONFLICTS.iter().find(|(name, ..)| *name == constraint);
                let (field, message) = known.map_or((None, "it exists already"), |(_, field, message)| {
                    (Some((*field).to_owned()), *message)
                });
                Self { field, ..Self::new(ErrorKind::AlreadyExists, message) }
            }
            // Checked before by the operation, so something was deleted meanwhile.
            StoreError::Reference { constraint } => {
                tracing::debug!(constraint, "reference violated");
                Self::new(ErrorKind::NotFound, "something that the request refers to does not exist any more")
            }
            StoreError::Unavailable(error) => {
                tracing::warn!(%error, "the database is not available");
                Self::new(ErrorKind::Unavailable, "the database is not available at the moment")
            }
            error @ (StoreError::Internal(_) | StoreError::Migrate(_)) => internal(&error),
        }
    }
}

impl From<SealError> for AdminError {
    fn from(error: SealError) -> Self {
        internal(&error)
    }
}

impl From<RandomUnavailable> for AdminError {
    fn from(error: RandomUnavailable) -> Self {
        internal(&error)
    }
}

fn internal(error: &(dyn std::error::Error + 'static)) -> AdminError {
    tracing::error!(error, "an admin operation failed");
    AdminError::new(ErrorKind::Internal, "the control plane's log says what")
}

impl From<AdminError> for Status {
    fn from(error: AdminError) -> Self {
        let mut status = Self::new(error.kind.row().1, error.to_string());
        // For programs: the message has it too, but in words.
        if let Some(Ok(field)) = error.field.as_deref().map(str::parse) {
            status.metadata_mut().insert("nemo-error-field", field);
        }
        status
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let (status, _, slug, title) = self.kind.row();
        let mut problem = Map::from_iter([
            ("type".to_owned(), json!(format!("urn:nemo:problem:{slug}"))),
            ("title".to_owned(), json!(title)),
            ("status".to_owned(), json!(status.as_u16())),
            ("detail".to_owned(), json!(self.message)),
        ]);
        for (name, value) in [("field", self.field), ("expected", self.expected)] {
            if let Some(value) = value {
                problem.insert(name.to_owned(), Value::String(value));
            }
        }
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nemo-admin\""));
        }
        response
    }
}
