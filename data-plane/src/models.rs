//! `/v1/models` and the public catalog, answered from the snapshot (requirements E.7, R004-32, R000-19). An axum
//! router: these are the data port's quiet endpoints. Called by [`crate::edge`].

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State as Shared},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts};
use nemo_llm::{Endpoint, ErrorDialect};
use nemo_runtime::clock;
use nemo_snapshot::{KeyRecord, Model, ModelGroup};
use nemo_types::{NanosPerMillion, PriceSheet};
use serde_json::{Map, Value, json};

use crate::{
    app::State,
    config::{Live, live::PublicModels},
    edge::PeerAddr,
    pipeline::{
        authenticate, authorize, client_addr,
        error::{GatewayError, Kind},
    },
};

mod native;

/// Everything on the data port that is not proxied.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/models", get(list))
        .route("/v1/models/{*id}", get(one))
        .route("/v1beta/models", get(google_list))
        .route("/v1beta/models/{*id}", get(google_one))
        .route("/api/v1/models", get(list))
        .route("/api/v1/models/{*id}", get(one))
        .route("/api/public/models", get(public))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(state)
}

async fn list(Shared(state): Shared<Arc<State>>, request: Parts) -> Response {
    answer(&request.uri, native::is_anthropic(&request.headers), || {
        let (live, key) = tenant(&state, &request)?;
        let groups = permitted(&live, &key);
        if native::is_anthropic(&request.headers) {
            return Ok(native::anthropic_list(&groups));
        }
        let data: Vec<Value> = groups.into_iter().map(entry).collect();
        Ok(json!({ "object": "list", "data": data }).to_string().into())
    })
}

async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, request: Parts) -> Response {
    answer(&request.uri, native::is_anthropic(&request.headers), || {
        let (live, key) = tenant(&state, &request)?;
        let group = authorize::run(&live.snapshot, &key, &id)?;
        if native::is_anthropic(&request.headers) {
            return Ok(native::anthropic(&group, &id));
        }
        let mut entry = entry(&group);
        // A client that asks for an alias finds the name that it asked for, and the concrete one beside it.
        if let Some(object) = entry.as_object_mut().filter(|_| *group.name != *id) {
            object.insert("canonical_slug".into(), json!(&*group.name));
            object.insert("id".into(), json!(id));
        }
        Ok(entry.to_string().into())
    })
}

async fn google_list(Shared(state): Shared<Arc<State>>, request: Parts) -> Response {
    answer(&request.uri, false, || {
        let (live, key) = tenant(&state, &request)?;
        let groups = permitted(&live, &key);
        let models: Vec<Value> = groups.into_iter().map(|group| native::google(group, &group.name)).collect();
        Ok(json!({ "models": models }).to_string().into())
    })
}

async fn google_one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, request: Parts) -> Response {
    answer(&request.uri, false, || {
        let (live, key) = tenant(&state, &request)?;
        let group = authorize::run(&live.snapshot, &key, &id)?;
        Ok(native::google(&group, &id).to_string().into())
    })
}

/// The models that a key may call.
fn permitted<'a>(live: &'a Live, key: &KeyRecord) -> Vec<&'a ModelGroup> {
    let groups = live.snapshot.routing.visible(Some(key.org_id)).into_iter();
    groups.filter(|group| key.policy.allowed_models.permits(&group.name)).map(|group| &**group).collect()
}

/// No key, no tenant data, cacheable.
async fn public(Shared(state): Shared<Arc<State>>, uri: Uri, headers: HeaderMap) -> Response {
    let Some(live) = state.snapshot.load() else {
        return not_ready().response(ErrorDialect::from_path(uri.path())).map(axum::body::Body::new);
    };
    let PublicModels { body, etag } = live.public_models(|| render_public(&live)).clone();
    let matches = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| {
            text.split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == "*" || etag == tag)
        })
    };
    let unchanged = headers.get_all(header::IF_NONE_MATCH).iter().any(matches);
    let cache = [
        (header::ETAG, etag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=60")),
    ];
    if unchanged {
        return (StatusCode::NOT_MODIFIED, cache).into_response();
    }
    (cache, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn render_public(live: &Live) -> PublicModels {
    let data: Vec<Value> =
        live.snapshot.routing.visible(None).into_iter().map(|group| entry(group)).collect();
    let body = Bytes::from(json!({ "object": "list", "data": data }).to_string());
    // The content decides: an edit of a key does not make every cache ask again.
    let digest = xxhash_rust::xxh3::xxh3_128(&body);
    let etag =
        HeaderValue::try_from(format!("\"{digest:032x}\"")).unwrap_or(HeaderValue::from_static("\"0\""));
    PublicModels { body, etag }
}

async fn not_found(uri: Uri) -> Response {
    let fixed = Endpoint::ALL.into_iter().filter(|it| !it.is_named_in_path());
    let served: Vec<_> = fixed.map(|it| format!("/v1{}", it.upstream_path())).collect();
    let message = format!(
        "There is nothing at {}. This gateway serves POST {} and GET /v1/models.",
        uri.path(),
        served.join(", ")
    );
    refuse(&uri, &GatewayError::new(Kind::RouteNotFound, message))
}

pub(crate) async fn method_not_allowed(uri: Uri) -> Response {
    refuse(&uri, &GatewayError::new(Kind::MethodNotAllowed, format!("Use GET for {}.", uri.path())))
}

/// JSON, or the error in the client's dialect. `anthropic`: the client is one of Anthropic's, which the path does not say.
fn answer(uri: &Uri, anthropic: bool, content: impl FnOnce() -> Result<Vec<u8>, GatewayError>) -> Response {
    match content() {
        Ok(body) => ([(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) if anthropic => error.response(ErrorDialect::Anthropic).map(axum::body::Body::new),
        Err(error) => refuse(uri, &error),
    }
}

fn refuse(uri: &Uri, error: &GatewayError) -> Response {
    error.response(ErrorDialect::from_path(uri.path())).map(axum::body::Body::new)
}

fn not_ready() -> GatewayError {
    GatewayError::new(Kind::NotReady, "This node has no configuration yet. Try again in a moment.")
}

/// The key of a request to a quiet endpoint.
pub(crate) fn tenant(state: &State, request: &Parts) -> Result<(Arc<Live>, Arc<KeyRecord>), GatewayError> {
    let live = state.snapshot.load().ok_or_else(not_ready)?;
    let key = authenticate::run(&live, &request.headers, &request.uri, clock::unix_us() / 1000)?;
    authorize::client(&key, || {
        client_addr::find(
            request.extensions.get::<PeerAddr>().map(|peer| peer.0),
            &request.headers,
            &state.settings.trusted_proxies,
        )
    })?;
    Ok((live, key))
}

/// OpenAI's four members, and what OpenRouter's clients read beside them.
fn entry(group: &ModelGroup) -> Value {
    let mut entry = Map::new();
    entry.insert("id".into(), json!(&*group.name));
    entry.insert("object".into(), json!("model"));
    let described = group.described_by();
    entry.insert("created".into(), json!(described.map_or(0, |model| model.created_unix)));
    entry.insert("owned_by".into(), json!(described.map_or("", |model| &*model.owned_by)));
    let Some(model) = described else { return Value::Object(entry) };
    entry.insert("name".into(), json!(&*model.display_name));
    let known = |tokens: u64| (tokens > 0).then_some(tokens);
    entry.insert("context_length".into(), json!(known(model.context_window)));
    entry.insert(
        "top_provider".into(),
        json!({
            "context_length": known(model.context_window),
            "max_completion_tokens": known(model.max_output_tokens),
        }),
    );
    entry.insert("architecture".into(), architecture(model));
    entry.insert("tags".into(), json!(model.tags));
    entry.insert("endpoints".into(), json!(model.endpoints));
    let first = group.links.first().and_then(|link| link.members.first());
    if let Some(price) = first.and_then(|member| member.deployment.price.as_ref()) {
        entry.insert("pricing".into(), pricing(price));
    }
    Value::Object(entry)
}

fn architecture(model: &Model) -> Value {
    json!({
        "modality": format!("{}->{}", model.input_modalities.join("+"), model.output_modalities.join("+")),
        "input_modalities": model.input_modalities,
        "output_modalities": model.output_modalities,
    })
}

/// Decimal strings in USD per token; what is unknown is left out.
fn pricing(price: &PriceSheet) -> Value {
    let lines = [
        ("prompt", price.input),
        ("completion", price.output),
        ("input_cache_read", price.cache_read),
        ("input_cache_write", price.cache_write),
    ];
    let known =
        lines.into_iter().filter_map(|(name, price)| Some((name.to_owned(), json!(usd_per_token(price?)))));
    Value::Object(known.collect())
}

/// Exact: one nano-USD per million tokens is 10^-15 USD per token.
fn usd_per_token(price: NanosPerMillion) -> String {
    const UNIT: u64 = 1_000_000_000_000_000;
    let (sign, value) = (if price.0 < 0 { "-" } else { "" }, price.0.unsigned_abs());
    let (whole, fraction) = (value / UNIT, value % UNIT);
    if fraction == 0 {
        return format!("{sign}{whole}");
    }
    let digits = format!("{fraction:015}");
    format!("{sign}{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_exact_decimals_per_token() {
        for (nanos, text) in
            [(0, "0"), (2_500_000_000, "0.0000025"), (1, "0.000000000000001"), (1_000_000_000_000_000, "1")]
        {
            assert_eq!(usd_per_token(NanosPerMillion(nanos)), text);
        }
    }
}
