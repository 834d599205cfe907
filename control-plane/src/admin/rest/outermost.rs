//! What surrounds every request: a bound on how many there are, an id for it, and the promise that every failure is a
//! problem document with that id.
//!
//! Called by [`super::router`].

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use tokio::sync::Semaphore;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::admin::{AdminError, ErrorKind};

/// Requests at the same time. Far more than the database has connections; those that wait for the fleet count too.
const MAX_IN_FLIGHT: usize = 512;
/// Id of the request, on every answer and in every problem document.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-nemo-request-id");

#[derive(Clone, Debug)]
pub(super) struct Limit(Arc<Semaphore>);

impl Limit {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_IN_FLIGHT)))
    }
}

pub(super) async fn layer(State(limit): State<Limit>, request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    let Ok(_permit) = limit.0.try_acquire() else {
        let message = format!("{MAX_IN_FLIGHT} requests are in flight already");
        return finish(AdminError::new(ErrorKind::TooManyRequests, message).into_response(), &id);
    };
    let span = tracing::info_span!("admin", request_id = id, method = %request.method(), path = request.uri().path());
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await;
    let response = answer.unwrap_or_else(|_| {
        tracing::error!(request_id = id, "an admin request panicked");
        AdminError::new(ErrorKind::Internal, "the control plane's log says what").into_response()
    });
    finish(response, &id)
}

/// Puts the id into headers and problem document.
fn finish(mut response: Response, id: &str) -> Response {
    let error = response.extensions_mut().remove::<AdminError>().or_else(|| foreign(response.status()));
    if let Some(error) = error {
        response = error.respond(Some(id));
    }
    let headers = response.headers_mut();
    headers.extend(HeaderValue::try_from(id).ok().map(|id| (REQUEST_ID, id)));
    // Answers are about what may change at any time, and some hold a secret.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response
}

/// A refusal by the framework instead of by us.
fn foreign(status: StatusCode) -> Option<AdminError> {
    let kind = match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => ErrorKind::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ErrorKind::UnsupportedMediaType,
        status if status.is_client_error() => ErrorKind::InvalidArgument,
        status if status.is_server_error() => ErrorKind::Internal,
        _ => return None,
    };
    Some(AdminError::new(kind, status.canonical_reason().unwrap_or("the request was refused")))
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::get};
    use tower::ServiceExt as _;

    use super::*;

    async fn problem(router: Router) -> (StatusCode, serde_json::Value, axum::http::HeaderMap) {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
        (parts.status, serde_json::from_slice(&bytes).unwrap(), parts.headers)
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_document_with_the_id_of_the_log_line() {
        let router = Router::new().route("/", get(async || -> &'static str { panic!("on purpose") }));
        let (status, problem, headers) = problem(router.layer(from_fn_with_state(Limit::new(), layer))).await;
        assert_eq!((status, problem["status"].as_u64()), (StatusCode::INTERNAL_SERVER_ERROR, Some(500)));
        assert_eq!(problem["request_id"], headers[REQUEST_ID].to_str().unwrap());
        assert!(problem["instance"].as_str().unwrap().ends_with(problem["request_id"].as_str().unwrap()));
    }

    #[tokio::test]
    async fn more_requests_than_the_bound_are_refused_with_a_time_to_wait() {
        let limit = Limit(Arc::new(Semaphore::new(0)));
        let router = Router::new().route("/", get(async || "")).layer(from_fn_with_state(limit, layer));
        let (status, problem, headers) = problem(router).await;
        assert_eq!(
            (status, problem["type"].as_str()),
            (StatusCode::TOO_MANY_REQUESTS, Some("urn:nemo:problem:too_many_requests"),)
        );
        assert_eq!(headers[header::RETRY_AFTER], "1");
    }
}
