//! What an admin operation can fail with, and its two faces: gRPC status and RFC 9457 problem document.
//!
//! Kind, status codes and title come from one table. Faults of ours are logged here and told to nobody in detail.

use std::{collections::HashMap, fmt, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use nemo_types::{SealError, token::RandomUnavailable};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::store::StoreError;

/// `domain` in gRPC's `ErrorInfo`.
const ERROR_DOMAIN: &str = "nemo-router";
/// What callers are told to wait before they try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    InvalidArgument,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    /// The request is fine, the state of things is not: something is still in use.
    InUse,
    /// Another request is at it right now; the same one can succeed in a moment.
    Conflict,
    /// `If-Match` names another version than there is.
    PreconditionFailed,
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused,
    MethodNotAllowed,
    TooLarge,
    UnsupportedMediaType,
    TooManyRequests,
    Unavailable,
    /// The write is done, but what was waited for did not happen in time.
    DeadlineExceeded,
    Internal,
}

/// One row: kind, HTTP status, gRPC code, title. The problem type is made from the kind's name.
const TABLE: [(ErrorKind, StatusCode, Code, &str, &str); 16] = [
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
        ErrorKind::Conflict,
        StatusCode::CONFLICT,
        Code::Aborted,
        "conflict",
        "Another request is doing the same at this moment",
    ),
    (
        ErrorKind::PreconditionFailed,
        StatusCode::PRECONDITION_FAILED,
        Code::Aborted,
        "precondition_failed",
        "It was changed meanwhile",
    ),
    (
        ErrorKind::IdempotencyKeyReused,
        StatusCode::UNPROCESSABLE_ENTITY,
        Code::InvalidArgument,
        "idempotency_key_reused",
        "The idempotency key belongs to another request",
    ),
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
    (
        ErrorKind::TooManyRequests,
        StatusCode::TOO_MANY_REQUESTS,
        Code::ResourceExhausted,
        "too_many_requests",
        "Too many requests at the same time",
    ),
    (ErrorKind::Unavailable, StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "unavailable", "Try again"),
    (
        ErrorKind::DeadlineExceeded,
        StatusCode::GATEWAY_TIMEOUT,
        Code::DeadlineExceeded,
        "deadline_exceeded",
        "It did not happen in time",
    ),
    (
        ErrorKind::Internal,
        StatusCode::INTERNAL_SERVER_ERROR,
        Code::Internal,
        "internal",
        "Something went wrong on our side",
    ),
];

impl ErrorKind {
    /// The same request can succeed a moment later.
    fn is_transient(self) -> bool {
        matches!(self, Self::Conflict | Self::TooManyRequests | Self::Unavailable)
    }

    /// The last part of the problem type, and the reason in gRPC's `ErrorInfo`.
    pub fn slug(self) -> &'static str {
        self.row().2
    }

    pub fn status_code(self) -> StatusCode {
        self.row().0
    }

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
        self.kind.status_code()
    }
}

/// Constraint → member and message, where the operations leave the check to the database because only it can decide.
const CONFLICTS: [(&str, &str, &str); 10] = [
    ("teams_name_taken", "name", "the organization has a team of this name"),
    ("members_email_taken", "email", "the organization has a member with this address"),
    ("members_subject_taken", "subject", "the organization has a member with this subject"),
    ("credentials_name_taken", "name", "there is a credential of this name"),
    ("deployments_name_taken", "name", "there is a deployment of this name"),
    ("budgets_name_taken", "name", "the organization has a budget of this name"),
    ("rate_limits_name_taken", "name", "the organization has a rate limit of this name"),
    ("webhooks_name_taken", "name", "the organization has a webhook of this name"),
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
    /// The code and, as `google.rpc` details, what the problem document of REST has: `ErrorInfo` with the kind,
    /// `BadRequest` with the member.
    fn from(error: AdminError) -> Self {
        let (_, code, slug, _) = error.kind.row();
        let mut details = ErrorDetails::new();
        details.set_error_info(slug, ERROR_DOMAIN, HashMap::new());
        if let Some(field) = &error.field {
            let expected = error.expected.as_ref().map(|expected| format!(" (expected {expected})"));
            let description = format!("{}{}", error.message, expected.unwrap_or_default());
            details.add_bad_request_violation(field, description);
        }
        if error.kind.is_transient() {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        let mut status = Self::with_error_details(code, error.to_string(), details);
        // For programs that do not read details: the message has it too, but in words.
        if let Some(Ok(field)) = error.field.as_deref().map(str::parse) {
            status.metadata_mut().insert("nemo-error-field", field);
        }
        status
    }
}

impl AdminError {
    /// The RFC 9457 document. `request_id` names this one occurrence.
    pub(super) fn problem(&self, request_id: Option<&str>) -> Value {
        let (status, _, slug, title) = self.kind.row();
        let mut problem = Map::from_iter([
            ("type".to_owned(), json!(format!("urn:nemo:problem:{slug}"))),
            ("title".to_owned(), json!(title)),
            ("status".to_owned(), json!(status.as_u16())),
            ("detail".to_owned(), json!(self.to_string())),
            ("errors".to_owned(), json!([])),
        ]);
        if let Some(id) = request_id {
            problem.insert("instance".to_owned(), json!(format!("urn:nemo:request:{id}")));
            problem.insert("request_id".to_owned(), json!(id));
        }
        if self.field.is_some() || self.expected.is_some() {
            let (field, expected) = (&self.field, &self.expected);
            let error = json!({ "field": field, "message": self.message, "expected": expected });
            problem.insert("errors".to_owned(), json!([error]));
        }
        Value::Object(problem)
    }

    /// The answer to one request. REST's outermost layer calls it with the request's id.
    pub(super) fn respond(self, request_id: Option<&str>) -> Response {
        let status = self.status_code();
        let mut response = (status, Json(self.problem(request_id))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"nemo-admin\""));
        }
        if self.kind.is_transient() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
        }
        // The outermost layer makes the document once more, with the id that only it knows.
        response.extensions_mut().insert(self);
        response
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        self.respond(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_row_and_a_type_of_its_own() {
        let mut slugs: Vec<_> = TABLE.iter().map(|row| row.3).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), TABLE.len());
        for (kind, status, ..) in TABLE {
            assert_eq!(kind.status_code(), status);
        }
    }

    #[test]
    fn grpc_has_the_member_and_what_was_expected_in_its_details() {
        let status = Status::from(AdminError::invalid("links[0].weight", "-1 is too small", "0 to 5"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let violation = &details.bad_request().unwrap().field_violations[0];
        assert_eq!(violation.field, "links[0].weight");
        assert_eq!(violation.description, "-1 is too small (expected 0 to 5)");
        assert_eq!(details.error_info().unwrap().reason, "invalid_argument");
        assert!(details.retry_info().is_none());
        let busy = Status::from(AdminError::new(ErrorKind::Unavailable, "away"));
        assert!(busy.get_error_details().retry_info().is_some());
    }

    #[test]
    fn a_problem_has_all_its_members_and_names_the_request() {
        let problem = AdminError::invalid("name", "missing", "a name").problem(Some("7"));
        assert_eq!(problem["type"], "urn:nemo:problem:invalid_argument");
        assert_eq!((&problem["status"], &problem["instance"]), (&json!(400), &json!("urn:nemo:request:7")));
        let error = json!({ "field": "name", "message": "missing", "expected": "a name" });
        assert_eq!(problem["errors"], json!([error]));
        let bare = AdminError::new(ErrorKind::NotFound, "no such path").problem(None);
        assert_eq!(bare["errors"], json!([]));
    }
}
