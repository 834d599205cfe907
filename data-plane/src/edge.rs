//! The data port's outermost layer: which endpoint a request is for, and what no phase of the pipeline may have to
//! think about: panics and overload. Called by the accept loop of `nemo_runtime::http_server`.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use http::{HeaderValue, Method, Request, Response, header};
use hyper::{body::Incoming, service::Service};
use nemo_llm::{Endpoint, ErrorDialect};
use tower::ServiceExt as _;

use crate::{
    app::State,
    models,
    pipeline::{
        self, Body,
        error::{GatewayError, Kind},
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

/// `router` is there for what is not proxied.
async fn answer(
    state: &Arc<State>,
    router: Option<axum::Router>,
    request: Request<Incoming>,
) -> Response<Body> {
    let Some(endpoint) = Endpoint::from_path(request.uri().path()) else {
        return match router {
            Some(router) => quiet(router, request).await,
            None => GatewayError::new(Kind::RouteNotFound, "There is nothing here.")
                .response(ErrorDialect::OpenAi),
        };
    };
    if request.method() != Method::POST {
        let error =
            GatewayError::new(Kind::MethodNotAllowed, format!("Use POST for {}.", request.uri().path()));
        let mut response = error.response(ErrorDialect::from_path(request.uri().path()));
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    pipeline::handle(state, endpoint, request).await
}

/// Boxed: a cold branch must not make the hot future larger.
async fn quiet(router: axum::Router, request: Request<Incoming>) -> Response<Body> {
    match Box::pin(router.oneshot(request)).await {
        Ok(response) => response.map(Body::Axum),
        Err(never) => match never {},
    }
}
