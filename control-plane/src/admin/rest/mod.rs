//! The admin API as REST under `/admin/v1`: the same operations, messages and tokens as over gRPC.
//!
//! Bodies are the request messages of `nemo/admin/v1` as JSON, without the ids that stand in the path; answers are the
//! response messages. Lists take their parameters from the query. Errors are RFC 9457 problem documents with the
//! additional members `field` and `expected`. Served by `app.rs`.

mod extract;
mod routes;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit};

use super::{Admin, AdminError, ErrorKind};

/// No admin request is large.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Everything under `/admin/v1`.
pub fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .nest("/admin/v1", routes::routes())
        .fallback(async || AdminError::new(ErrorKind::NotFound, "no such path; the API is under /admin/v1"))
        .method_not_allowed_fallback(async || {
            AdminError::new(ErrorKind::MethodNotAllowed, "this path does not know the method")
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(admin)
}
