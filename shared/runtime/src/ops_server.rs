//! The port for orchestrators and Prometheus: `/livez`, `/readyz`, `/metrics`. Every process has one; it never
//! shares a port with clients. It drains last, so that `/readyz` answers until the end.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use tokio::net::TcpListener;

use crate::{
    drain::DrainWatcher,
    http_server::{self, ServerSettings},
    metrics::{self, Registry},
    readiness::Readiness,
    tls::ServerTls,
};

/// Scrapers and probes are few.
const MAX_CONNECTIONS: usize = 64;

/// Serves until the drain, then ends.
pub async fn serve(listener: TcpListener, readiness: Readiness, registry: Registry, drain: DrainWatcher) {
    serve_with(listener, None, readiness, registry, drain).await;
}

/// The same, with TLS if it is given.
pub async fn serve_with(
    listener: TcpListener,
    tls: Option<ServerTls>,
    readiness: Readiness,
    registry: Registry,
    drain: DrainWatcher,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &readiness, &registry);
        async move { Ok::<_, Infallible>(response) }
    });
    let settings = ServerSettings { max_connections: MAX_CONNECTIONS, ..ServerSettings::named("ops") };
    http_server::serve_with(listener, tls, service, settings, drain).await;
}

fn respond(method: &Method, path: &str, readiness: &Readiness, registry: &Registry) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    match path {
        // The event loop answers: that is what liveness means. Nothing external belongs here.
        "/livez" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if readiness.is_draining() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned())
        }
        "/readyz" => match readiness.pending().as_slice() {
            [] => text(StatusCode::OK, "ok\n".to_owned()),
            pending => {
                text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", pending.join(", ")))
            }
        },
        "/metrics" => {
            let mut response = text(StatusCode::OK, registry.encode());
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
            response
        }
        _ => text(StatusCode::NOT_FOUND, "here are /livez, /readyz and /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn get(path: &str, readiness: &Readiness) -> (u16, String) {
        let response = respond(&Method::GET, path, readiness, &Registry::new());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readyz_names_what_is_missing_and_livez_does_not_care() {
        let readiness = Readiness::new();
        let guard = readiness.register("snapshot");
        assert_eq!(get("/readyz", &readiness).await, (503, "waiting for: snapshot\n".to_owned()));
        assert_eq!(get("/livez", &readiness).await.0, 200);
        guard.ready();
        assert_eq!(get("/readyz", &readiness).await.0, 200);
        readiness.set_draining();
        assert_eq!(get("/readyz", &readiness).await, (503, "draining\n".to_owned()));
        assert_eq!(get("/livez", &readiness).await.0, 200);
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let readiness = Readiness::new();
        assert_eq!(get("/debug", &readiness).await.0, 404);
        assert!(get("/metrics", &readiness).await.1.ends_with("# EOF\n"));
        let post = respond(&Method::POST, "/livez", &readiness, &Registry::new());
        assert_eq!(post.status(), 405);
    }
}
