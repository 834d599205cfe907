//! The data port's outermost layer: which endpoint a request is for, and what no phase of the pipeline may have to
//! think about: panics and overload. Called by the accept loop of `nemo_runtime::http_server`.

use std::{convert::Infallible, net::IpAddr, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use hyper::{body::Incoming, service::Service};
use nemo_llm::{Endpoint, ErrorDialect};
use nemo_runtime::http_server::OtherSide;
use nemo_types::RequestId;
use tower::ServiceExt as _;

use crate::{
    app::State,
    models,
    pipeline::{
        self, Body,
        error::{GatewayError, Kind},
        headers, stored,
    },
    requests,
};

/// The data port: all of its connections, or one of them.
#[derive(Clone)]
pub struct Edge {
    state: Arc<State>,
    /// For what is not proxied.
    router: axum::Router,
}

impl Edge {
    pub fn new(state: Arc<State>) -> Self {
        let router = models::router(state.clone()).merge(requests::router(state.clone()));
        let router = router.merge(stored::router(state.clone()));
        Self { state, router }
    }

    /// The service of one connection.
    pub fn connection(
        self,
        other_side: &OtherSide,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + Send + use<>
    {
        let (Self { state, router }, peer) = (self, other_side.peer.map(|peer| peer.0.ip()));
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path();
            let (endpoint, dialect) = (Endpoint::from_path(path), ErrorDialect::from_path(path));
            let router = endpoint.is_none().then(|| router.clone());
            let state = state.clone();
            // Boxed: each of the futures that it passes through has room for it.
            let request = Box::new(request);
            async move {
                let answer = answer(&state, endpoint.ok_or(router), request, peer);
                let answered = AssertUnwindSafe(answer).catch_unwind().await;
                Ok(answered.unwrap_or_else(|_| {
                    tracing::error!("a request panicked; this is a bug");
                    GatewayError::new(Kind::Internal, "The gateway failed on this request.").response(dialect)
                }))
            }
        })
    }
}

/// The other side of the connection, for what is not proxied: in the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddr(pub IpAddr);

/// HTTP/1.1's own bound is in hyper; HTTP/2 bounds only the size of all together.
const MAX_HEADERS: usize = 100;

fn too_many_headers(path: &str) -> Response<Body> {
    let message = format!("The request has more than {MAX_HEADERS} headers.");
    GatewayError::new(Kind::HeadersTooLarge, message).response(ErrorDialect::from_path(path))
}

/// `place` is where the request goes: an endpoint that is proxied, or else the router.
async fn answer(
    state: &Arc<State>,
    place: Result<Endpoint, Option<axum::Router>>,
    request: Box<Request<Incoming>>,
    peer: Option<IpAddr>,
) -> Response<Body> {
    if request.headers().len() > MAX_HEADERS {
        return too_many_headers(request.uri().path());
    }
    match place {
        Ok(endpoint) if request.method() == Method::POST => {
            pipeline::handle(state, endpoint, request, peer).await
        }
        other => Box::pin(unproxied(other.err().flatten(), *request, peer)).await,
    }
}

async fn unproxied(
    router: Option<axum::Router>,
    mut request: Request<Incoming>,
    peer: Option<IpAddr>,
) -> Response<Body> {
    let id = request_id(request.headers());
    let mut response = match router {
        Some(router) => {
            if let Some(peer) = peer {
                request.extensions_mut().insert(PeerAddr(peer));
            }
            match router.oneshot(request).await {
                Ok(response) => response.map(Body::Axum),
                Err(never) => match never {},
            }
        }
        None => wrong_method(request.uri().path()),
    };
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}

fn wrong_method(path: &str) -> Response<Body> {
    let error = GatewayError::new(Kind::MethodNotAllowed, format!("Use POST for {path}."));
    let mut response = error.response(ErrorDialect::from_path(path));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The client's, if it is sane; SDKs show it to their users, whatever was asked (E.1).
fn request_id(client: &HeaderMap) -> HeaderValue {
    let minted = || HeaderValue::try_from(RequestId::generate().to_string());
    headers::First::of(client)
        .request_id
        .cloned()
        .map_or_else(minted, Ok)
        .unwrap_or(HeaderValue::from_static("unknown"))
}
