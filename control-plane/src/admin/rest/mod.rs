//! The admin API as REST under `/admin/v1`: the same operations, messages and tokens as over gRPC.
//!
//! Bodies are the request messages of `nemo/admin/v1` as JSON, without the ids that stand in the path; answers are the
//! response messages. Lists take their parameters from the query. Every failure, also of what no operation sees, is an
//! RFC 9457 problem document. Served by `app.rs`.
//!
//! - [`table`]: every operation; router and OpenAPI document are made of it
//! - [`input`], [`answer`]: between HTTP and the operations
//! - [`api`]: messages and methods, from the descriptors
//! - [`openapi`], [`docs`]: the document, and the page that shows it
//! - [`payments`]: events of the payment provider, beside the API

mod answer;
mod api;
mod docs;
mod input;
mod openapi;
mod outermost;
mod payments;
mod table;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    routing::{MethodRouter, get},
};

use super::{Admin, AdminError, ErrorKind};

/// No admin request is large.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Where the operations are.
const BASE: &str = "/admin/v1";
const DOCUMENT_PATH: &str = "/admin/v1/openapi.json";

/// Everything under `/admin`.
pub fn router(admin: Arc<Admin>) -> Router {
    let mut paths: BTreeMap<String, MethodRouter<Arc<Admin>>> = BTreeMap::new();
    for operation in table::TABLE {
        for (path, _) in operation.paths() {
            let known = paths.remove(&path).unwrap_or_default();
            paths.insert(path, known.merge((operation.route)()));
        }
    }
    let router = paths
        .into_iter()
        .fold(Router::new(), |router, (path, methods)| router.route(&format!("{BASE}{path}"), methods));
    router
        .route(DOCUMENT_PATH, get(openapi::serve))
        .merge(docs::routes())
        .merge(payments::routes())
        .fallback(async || {
            let expected = format!("a path of {DOCUMENT_PATH}");
            AdminError { expected: Some(expected), ..AdminError::new(ErrorKind::NotFound, "no such path") }
        })
        .method_not_allowed_fallback(async || {
            let expected = Some("a method of the allow header".to_owned());
            AdminError {
                expected,
                ..AdminError::new(ErrorKind::MethodNotAllowed, "this path does not know the method")
            }
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(outermost::Limit::new(), outermost::layer))
        .with_state(admin)
}
