//! The OpenAPI 3.1 document of the REST API: paths from [`super::table`], schemas and descriptions from
//! [`super::api`], bounds of members from [`rules`]. Made once per process, served without a token.

mod common;
mod operation;
mod rules;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::{
    body::Bytes,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde_json::{Map, Value, json};

use super::{BASE, table::TABLE};
use schema::Schemas;

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(document().to_string()));

pub(super) async fn serve() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-cache"),
        // So that documentation tools elsewhere can read it; it is the same for everybody.
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    std::future::ready((headers, DOCUMENT.clone()).into_response()).await
}

const DESCRIPTION: &str = "\
Everything that gRPC's `nemo.admin.v1` can do, with the same messages. \
Send an admin token, or an OIDC token if the installation has an issuer, as `authorization: Bearer …`.

**Partial updates.** `PATCH` changes the members that are present; absent members and `null` leave things as they are.

**Concurrency.** Answers carry an `etag`. Send it as `if-match` with an update or a deletion, and the write is refused \
with 412 if somebody else was faster.

**Retries.** Send an `idempotency-key` with a create. The same key with the same body gets the answer of the first \
request again, marked `idempotency-replayed: true`; with another body it is refused with 422.

**Trying out.** With `?validate_only=true` a write is checked and answered in full, but nothing is changed.

**Reaching the nodes.** Every write answers with `x-nemo-config-version`. `?wait=fleet` delays the answer until every \
live node has applied it.

**Lists** give a page and a `next_page_token` for the page after it, empty at the end.

**Errors** are RFC 9457 problem documents: `errors` names the member, what is wrong with it and what is expected.";

fn document() -> Value {
    let mut schemas = Schemas::default();
    let mut paths: Map<String, Value> = Map::new();
    let mut tags: Vec<Value> = Vec::new();
    for operation in TABLE {
        let tag = json!({ "name": operation.tag });
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        for (path, id) in operation.paths() {
            // OpenAPI has no parameters of several segments: their slashes are escaped.
            let path = format!("{BASE}{}", path.replace("{*", "{"));
            let described = operation::describe(operation, &path, &id, &mut schemas);
            let methods = paths.entry(path).or_insert_with(|| json!({}));
            if let Value::Object(methods) = methods {
                methods.insert(operation.kind.method().to_owned(), described);
            }
        }
    }
    let mut schemas = schemas.into_components();
    schemas.insert("Problem".to_owned(), common::problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Nemo Router admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An admin token (`adm-nemo-…`), or a token of the OIDC issuer.",
                },
            },
            "headers": common::headers(),
            "responses": common::problems(),
            "schemas": schemas,
        },
    })
}
