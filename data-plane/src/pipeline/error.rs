//! Every way in which a request can fail, and the one table that says what the client sees of it (requirements
//! E.1, B11). Status, code, metric label, whether to retry and log level are decided here and nowhere else.

use std::{borrow::Cow, num::NonZeroU64};

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use nemo_llm::{ErrorBody, ErrorDialect, render_error};

use super::body::Body;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    InvalidRequest,
    UnsupportedMediaType,
    PayloadTooLarge,
    Unauthenticated,
    PermissionDenied,
    ModelNotFound,
    RouteNotFound,
    MethodNotAllowed,
    NoCandidate,
    NoHealthyDeployment,
    RateLimited,
    BudgetExceeded,
    InsufficientCredits,
    BudgetUnavailable,
    UpstreamRateLimited,
    UpstreamCredential,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamProtocol,
    UpstreamInterrupted,
    RequestTimeout,
    HeadersTooLarge,
    ClientDisconnected,
    Overloaded,
    NotReady,
    StaleConfig,
    Internal,
}

/// What follows from a [`Kind`].
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub kind: Kind,
    pub status: u16,
    /// `error.type`.
    pub class: &'static str,
    /// `error.code`, metric label and value in the request log.
    pub code: &'static str,
    /// `x-should-retry`, where the SDKs' own rule for the status would be wrong.
    pub should_retry: Option<bool>,
    pub level: Level,
}

/// Client faults are nobody's alarm; upstream faults are worth a line; ours are worth waking up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Warn,
    Error,
}

const fn row(kind: Kind, status: u16, class: &'static str, code: &'static str, level: Level) -> Row {
    Row { kind, status, class, code, should_retry: None, level }
}

const fn no_retry(row: Row) -> Row {
    Row { should_retry: Some(false), ..row }
}

const INVALID: &str = "invalid_request_error";
const UPSTREAM: &str = "upstream_error";
const SERVER: &str = "server_error";
const QUOTA: &str = "insufficient_quota";

/// In the order of [`Kind`].
pub const TABLE: [Row; 27] = [
    row(Kind::InvalidRequest, 400, INVALID, "invalid_request", Level::Debug),
    row(Kind::UnsupportedMediaType, 415, INVALID, "unsupported_media_type", Level::Debug),
    row(Kind::PayloadTooLarge, 413, INVALID, "payload_too_large", Level::Debug),
    row(Kind::Unauthenticated, 401, INVALID, "invalid_api_key", Level::Debug),
    row(Kind::PermissionDenied, 403, INVALID, "permission_denied", Level::Debug),
    row(Kind::ModelNotFound, 404, INVALID, "model_not_found", Level::Debug),
    row(Kind::RouteNotFound, 404, INVALID, "not_found", Level::Debug),
    row(Kind::MethodNotAllowed, 405, INVALID, "method_not_allowed", Level::Debug),
    row(Kind::NoCandidate, 400, INVALID, "no_candidate_for_endpoint", Level::Debug),
    row(Kind::NoHealthyDeployment, 503, SERVER, "no_healthy_deployment", Level::Warn),
    row(Kind::RateLimited, 429, "rate_limit_error", "rate_limit_exceeded", Level::Debug),
    // An SDK that retried would only be refused again (B11).
    no_retry(row(Kind::BudgetExceeded, 402, QUOTA, "budget_exceeded", Level::Debug)),
    no_retry(row(Kind::InsufficientCredits, 402, QUOTA, "insufficient_credits", Level::Debug)),
    row(Kind::BudgetUnavailable, 503, SERVER, "budget_unavailable", Level::Warn),
    // The client may try again when the upstream's hint says so: `retry-after` travels with it.
    row(Kind::UpstreamRateLimited, 429, "rate_limit_error", "upstream_rate_limited", Level::Warn),
    // The chain is exhausted (B4): an SDK that retried would multiply it.
    no_retry(row(Kind::UpstreamCredential, 502, UPSTREAM, "upstream_credential_rejected", Level::Error)),
    no_retry(row(Kind::UpstreamTimeout, 504, "timeout_error", "upstream_timeout", Level::Warn)),
    no_retry(row(Kind::UpstreamUnavailable, 502, UPSTREAM, "fallback_chain_exhausted", Level::Warn)),
    no_retry(row(Kind::UpstreamProtocol, 502, UPSTREAM, "upstream_protocol_error", Level::Warn)),
    no_retry(row(Kind::UpstreamInterrupted, 502, UPSTREAM, "upstream_interrupted", Level::Warn)),
    row(Kind::RequestTimeout, 408, "timeout_error", "request_timeout", Level::Debug),
    row(Kind::HeadersTooLarge, 431, INVALID, "headers_too_large", Level::Debug),
    row(Kind::ClientDisconnected, 499, "timeout_error", "client_disconnected", Level::Debug),
    row(Kind::Overloaded, 503, SERVER, "overloaded", Level::Warn),
    row(Kind::NotReady, 503, SERVER, "no_snapshot", Level::Warn),
    row(Kind::StaleConfig, 503, SERVER, "config_version_not_reached", Level::Debug),
    row(Kind::Internal, 500, SERVER, "internal_error", Level::Error),
];

impl Kind {
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// A failed request. Everything in it may be shown to the client.
#[derive(Debug)]
pub struct GatewayError {
    pub kind: Kind,
    pub message: Cow<'static, str>,
    /// `message` without the upstream's own words, which may quote the prompt (I10).
    pub unquoted: Option<Box<str>>,
    /// The member of the request at fault.
    pub param: Option<Cow<'static, str>>,
    /// Instead of the table's code, where the upstream or the parser knows better.
    pub code: Option<&'static str>,
    pub retry_after_secs: Option<u64>,
    /// The same, exactly.
    pub retry_after_ms: Option<NonZeroU64>,
    pub metadata: Option<Box<serde_json::Value>>,
}

impl GatewayError {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            unquoted: None,
            param: None,
            code: None,
            retry_after_secs: None,
            retry_after_ms: None,
            metadata: None,
        }
    }

    pub fn param(self, param: impl Into<Cow<'static, str>>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// What may stand in a log.
    pub fn for_log(&self) -> &str {
        self.unquoted.as_deref().unwrap_or(&self.message)
    }

    pub fn code(&self) -> &'static str {
        self.code.unwrap_or(self.kind.row().code)
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.kind.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub fn body(&self) -> ErrorBody<'_> {
        ErrorBody {
            status: self.kind.row().status,
            message: &self.message,
            kind: self.kind.row().class,
            code: Some(self.code()),
            param: self.param.as_deref(),
            metadata: self.metadata.as_deref(),
        }
    }

    /// The answer in the client's dialect.
    pub fn response(&self, dialect: ErrorDialect) -> Response<Body> {
        let mut response = Response::new(Body::full(render_error(dialect, &self.body())));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.hints(headers);
        response
    }

    fn hints(&self, headers: &mut HeaderMap) {
        const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
        const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
        // Who is told when to come back is not told to stay away.
        if let Some(retry) = self.kind.row().should_retry.filter(|_| self.retry_after_secs.is_none()) {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(if retry { "true" } else { "false" }));
        }
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(millis) = self.retry_after_ms {
            headers.insert(RETRY_AFTER_MS, HeaderValue::from(millis.get()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_its_kinds() {
        for row in &TABLE {
            assert_eq!(row.kind.row().code, row.code);
        }
        let codes: std::collections::HashSet<_> = TABLE.iter().map(|row| row.code).collect();
        assert_eq!(codes.len(), TABLE.len());
    }

    /// B11: an infrastructure fault is 503 and retryable, never 401; an exhausted chain is not retried.
    #[test]
    fn our_faults_are_never_the_clients() {
        for kind in [
            Kind::NotReady,
            Kind::Overloaded,
            Kind::StaleConfig,
            Kind::NoHealthyDeployment,
            Kind::BudgetUnavailable,
        ] {
            assert_eq!((kind.row().status, kind.row().should_retry), (503, None), "{kind:?}");
        }
        for row in TABLE.iter().filter(|row| matches!(row.status, 402 | 502)) {
            assert_eq!(row.should_retry, Some(false), "{}", row.code);
        }
    }
}
