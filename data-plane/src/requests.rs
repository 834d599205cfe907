//! What became of a request, for the client that made it: `GET /v1/requests/{id}` and OpenRouter's
//! `GET /api/v1/generation?id=` (requirements E.6, F, R001-5). An axum router beside [`crate::models`]; called by
//! [`crate::edge`].
//!
//! The request log is the control plane's, so this asks it. An event is on its way for a moment after its request; a
//! request that may be that young is waited for. A key is told of its own requests and of no others.

mod shapes;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Query, State as Shared},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Uri, request::Parts};
use nemo_llm::ErrorDialect;
use nemo_proto::usage::{GetRequestRequest, UsageEvent, usage_service_client::UsageServiceClient};
use nemo_runtime::{clock, grpc::NodeToken};
use nemo_snapshot::Deployment;
use nemo_types::{KeyId, RequestId};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tonic::{Code, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    app::State,
    config::Live,
    control::NodeChannel,
    models,
    pipeline::{
        error::{GatewayError, Kind},
        headers,
    },
};

/// Pauses between two looks for an event that is on its way: four seconds together.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1000),
    Duration::from_millis(1500),
];
/// Older requests have arrived, or will not: nodes ship within seconds.
const YOUNG_MS: u64 = 60_000;
/// One question to one replica.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Questions of one node at once: the log is the control plane's, and clients poll.
const MAX_AT_ONCE: usize = 64;
/// Clients of one node that wait at once for an event on its way. While they pause they keep nobody from asking.
const MAX_WAITING: usize = 256;
/// Clients of one key that ask or wait at once, so that none takes all of either: no rate limit counts these calls.
const MAX_OF_KEY: usize = 32;
/// As long as a client's own request id may be.
const MAX_ID: usize = 128;
/// When to come again while no replica answers.
const RETRY_AFTER_SECS: u64 = 2;

/// Asks the control plane for requests, whichever replica answers.
pub struct Lookup {
    channels: Vec<NodeChannel>,
    turn: AtomicUsize,
    /// To ask.
    places: Semaphore,
    /// To wait.
    seats: Semaphore,
    keys: Keys,
}

/// How many clients of each key are here; of a key without any there is no entry.
#[derive(Default)]
struct Keys(Mutex<HashMap<KeyId, usize>>);

/// One of them, until it is dropped.
struct Present<'a> {
    keys: &'a Keys,
    key: KeyId,
}

impl Keys {
    /// `None`: there are too many already.
    fn enter(&self, key: KeyId) -> Option<Present<'_>> {
        let mut counts = self.counts();
        let count = counts.entry(key).or_default();
        if *count == MAX_OF_KEY {
            return None;
        }
        *count += 1;
        Some(Present { keys: self, key })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<KeyId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = self.keys.counts().entry(self.key) {
            match entry.get() {
                0 | 1 => _ = entry.remove(),
                _ => *entry.get_mut() -= 1,
            }
        }
    }
}

impl Lookup {
    pub fn new(channels: &[Channel], token: &NodeToken) -> Self {
        let channels =
            channels.iter().map(|channel| InterceptedService::new(channel.clone(), token.clone())).collect();
        Self {
            channels,
            turn: AtomicUsize::new(0),
            places: Semaphore::new(MAX_AT_ONCE),
            seats: Semaphore::new(MAX_WAITING),
            keys: Keys::default(),
        }
    }

    /// The request of this key, once it is there; `None` when it does not come.
    async fn find(
        &self,
        key: KeyId,
        question: &GetRequestRequest,
        young: bool,
    ) -> Result<Option<UsageEvent>, GatewayError> {
        let crowded = || away("Too many requests are looked for at once.");
        let _present = self.keys.enter(key).ok_or_else(crowded)?;
        let mut found = self.ask(question).await?;
        if found.is_some() || !young {
            return Ok(found);
        }
        let _seat = self.seats.try_acquire().map_err(|_| crowded())?;
        for pause in PAUSES {
            tokio::time::sleep(pause).await;
            found = self.ask(question).await?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    async fn ask(&self, question: &GetRequestRequest) -> Result<Option<UsageEvent>, GatewayError> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err(away("Too many questions for the request log at once."));
        };
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for at in 0..self.channels.len() {
            let Some(channel) = self.channels.get(first.wrapping_add(at) % self.channels.len()) else {
                break;
            };
            let mut request = tonic::Request::new(question.clone());
            request.set_timeout(ASK_TIMEOUT);
            let mut client = UsageServiceClient::new(channel.clone());
            match tokio::time::timeout(ASK_TIMEOUT, client.get_request(request)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner().event),
                Ok(Err(status)) if status.code() == Code::NotFound => return Ok(None),
                Ok(Err(status)) => tracing::debug!(code = ?status.code(), "a request could not be looked up"),
                Err(_) => tracing::debug!("a request could not be looked up in time"),
            }
        }
        Err(away("The request log can't be asked now."))
    }
}

fn away(message: &'static str) -> GatewayError {
    GatewayError {
        code: Some("request_log_unavailable"),
        retry_after_secs: Some(RETRY_AFTER_SECS),
        ..GatewayError::new(Kind::Overloaded, message)
    }
}

fn not_found(id: &str) -> GatewayError {
    let message = format!(
        "This key has made no request {id:?}, or it is still under way: give the x-request-id of its answer."
    );
    GatewayError { code: Some("request_not_found"), ..GatewayError::new(Kind::RouteNotFound, message) }
}

/// What this module serves.
pub fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/v1/requests/{*id}", get(one))
        .route("/api/v1/requests/{*id}", get(one))
        .route("/api/v1/generation", get(generation))
        .method_not_allowed_fallback(models::method_not_allowed)
        .with_state(state)
}

async fn one(Shared(state): Shared<Arc<State>>, Path(id): Path<String>, request: Parts) -> Response {
    respond(&state, &request, &id, shapes::request).await
}

#[derive(Deserialize)]
struct Generation {
    #[serde(default)]
    id: String,
}

async fn generation(
    Shared(state): Shared<Arc<State>>,
    Query(query): Query<Generation>,
    request: Parts,
) -> Response {
    // Their ids have a prefix; ours have none.
    let id = query.id.strip_prefix("gen-").unwrap_or(&query.id);
    respond(&state, &request, id, shapes::generation).await
}

async fn respond(
    state: &State,
    request: &Parts,
    id: &str,
    shape: fn(&UsageEvent, &[Arc<Deployment>]) -> Value,
) -> Response {
    match found(state, request, id).await {
        Ok((event, live)) => axum::Json(shape(&event, live.snapshot.routing.deployments())).into_response(),
        Err(error) => refuse(&request.uri, &error),
    }
}

async fn found(state: &State, request: &Parts, id: &str) -> Result<(UsageEvent, Arc<Live>), GatewayError> {
    let (live, key) = models::tenant(state, request)?;
    if id.is_empty() || id.len() > MAX_ID || id.chars().any(char::is_control) {
        let message = format!(
            "Give the id of a request, of at most {MAX_ID} characters: the x-request-id of its answer."
        );
        return Err(GatewayError::new(Kind::InvalidRequest, message).param("id"));
    }
    let ours = id.parse::<RequestId>().ok();
    if ours.is_none() && !headers::is_request_id(id.as_bytes()) {
        // Neither one of ours nor one that is taken from a client.
        return Err(not_found(id));
    }
    let question = GetRequestRequest {
        key_id: key.id.as_bytes().to_vec().into(),
        org_id: key.org_id.as_bytes().to_vec().into(),
        request_id: ours.map(|id| id.as_bytes().to_vec()).unwrap_or_default().into(),
        // A client may well send a UUID of its own.
        client_request_id: id.to_owned(),
    };
    let event = state.lookup.find(key.id, &question, may_be_young(ours)).await?;
    Ok((event.ok_or_else(|| not_found(id))?, live))
}

/// An id of ours says when it was made; one of a client may have been sent just now.
fn may_be_young(id: Option<RequestId>) -> bool {
    let Some(id) = id.filter(|id| id.0.get_version_num() == 7) else { return true };
    let now = u64::try_from(clock::unix_us() / 1000).unwrap_or_default();
    now.abs_diff(id.unix_ms()) < YOUNG_MS
}

fn refuse(uri: &Uri, error: &GatewayError) -> Response {
    error.response(ErrorDialect::from_path(uri.path())).map(axum::body::Body::new)
}

#[cfg(test)]
mod tests;
