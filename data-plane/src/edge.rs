//! The data port's outermost layer: which endpoint a request is for, and what no phase of the pipeline may have to
//! think about: panics and overload. Called by the accept loop of `nemo_runtime::http_server`.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::{body::Incoming, service::Service};
use nemo_llm::{Endpoint, ErrorDialect};
use nemo_types::RequestId;
use tower::ServiceExt as _;

use crate::{
    app::State,
    models,
    pipeline::{
        self, Body,
        error::{GatewayError, Kind},
        headers,
    },
};

/// The service of the data port.
pub fn service(
    state: Arc<State>,
) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send
{
    let router = models::router(state.clone());
    hyper::service::service_fn(move |request: Request<Incoming>| {
        let (state, router) =
            (state.clone(), Endpoint::from_path(request.uri().path()).is_none().then(|| router.clone()));
        async move {
            let dialect = ErrorDialect::from_path(request.uri().path());
            let answered = AssertUnwindSafe(answer(&state, router, request)).catch_unwind().await;
            Ok(answered.unwrap_or_else(|_| {
                tracing::error!("a request panicked; this is a bug");
                GatewayError::new(Kind::Internal, "The gateway failed on this request.").response(dialect)
            }))
        }
    })
}

/// HTTP/1.1's own bound is in hyper; HTTP/2 bounds only the size of all together.
const MAX_HEADERS: usize = 100;

fn too_many_headers(path: &str) -> Response<Body> {
    let message = format!("The request has more than {MAX_HEADERS} headers.");
    GatewayError::new(Kind::HeadersTooLarge, message).response(ErrorDialect::from_path(path))
}

/// `router` is there for what is not proxied.
async fn answer(
    state: &Arc<State>,
    router: Option<axum::Router>,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.headers().len() > MAX_HEADERS {
        return too_many_headers(request.uri().path());
    }
    match Endpoint::from_path(request.uri().path()) {
        Some(endpoint) if request.method() == Method::POST => {
            pipeline::handle(state, endpoint, request).await
        }
        _ => {
            let id = request_id(request.headers());
            let mut response = unproxied(router, request).await;
            response.headers_mut().insert(headers::REQUEST_ID, id);
            response
        }
    }
}

async fn unproxied(router: Option<axum::Router>, request: Request<Incoming>) -> Response<Body> {
    if let Some(router) = router {
        return quiet(router, request).await;
    }
    let path = request.uri().path();
    let error = GatewayError::new(Kind::MethodNotAllowed, format!("Use POST for {path}."));
    let mut response = error.response(ErrorDialect::from_path(path));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The client's, if it is sane; SDKs show it to their users, whatever was asked (E.1).
fn request_id(client: &HeaderMap) -> HeaderValue {
    let minted = || HeaderValue::try_from(RequestId::generate().to_string());
    headers::client_request_id(client)
        .cloned()
        .map_or_else(minted, Ok)
        .unwrap_or(HeaderValue::from_static("unknown"))
}

/// Boxed: a cold branch must not make the hot future larger.
async fn quiet(router: axum::Router, request: Request<Incoming>) -> Response<Body> {
    match Box::pin(router.oneshot(request)).await {
        Ok(response) => response.map(Body::Axum),
        Err(never) => match never {},
    }
}
