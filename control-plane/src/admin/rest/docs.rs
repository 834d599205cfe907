//! `/admin/docs`: the OpenAPI document as a page for people. Plain HTML, CSS and JavaScript from this binary; nothing is
//! loaded from elsewhere, which the content security policy also says to the browser.

use std::sync::Arc;

use axum::{
    Router,
    http::header,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};

use crate::admin::Admin;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin/docs", get(async || page("text/html; charset=utf-8", include_str!("docs/page.html"))))
        .route(
            "/admin/docs/page.css",
            get(async || page("text/css; charset=utf-8", include_str!("docs/page.css"))),
        )
        .route(
            "/admin/docs/page.js",
            get(async || page("text/javascript; charset=utf-8", include_str!("docs/page.js"))),
        )
        // What people type.
        .route("/admin/docs/", get(async || Redirect::permanent("/admin/docs")))
}

fn page(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}
