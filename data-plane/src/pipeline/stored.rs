//! Calls about something that a provider keeps, by its id: responses and videos. The id says which deployment made it
//! ([`super::affinity`]), so any node finds it and none remembers it. An axum router beside [`crate::models`]; called by
//! [`crate::edge`].
//!
//! Nothing is made here, so nothing is billed, and no row is written to the request log: the call that made it has one.
//! Requests count against rate limits. There is one candidate, which is asked once, whatever its health.
//!
//! - [`call`]: which call it is
//! - [`target`]: where it goes, and whether this key may
//! - [`send`]: one request to that deployment
//! - [`veo`]: the same calls in the words of Google
//! - [`answer`]: what the client gets

mod answer;
mod call;
mod send;
mod target;
mod veo;

use std::sync::Arc;

use axum::{Router, extract::State as Shared, response::Response, routing::any};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use nemo_llm::{Endpoint, ErrorBody, ErrorDialect, Plan, UpstreamErrorInfo, render_error};
use nemo_snapshot::KeyRecord;
use tokio::sync::SemaphorePermit;

use self::{answer::Answer, call::Call, send::Sending, target::Target};
use super::{
    authorize,
    context::Sinks,
    error::{GatewayError, Kind, Level},
    throttle,
};
use crate::{app::State, config::Live, models, quota::Pass};

/// What this module serves.
pub fn router(state: Arc<State>) -> Router {
    let mut router = Router::new();
    for mount in ["/v1", "/api/v1"] {
        for kept in ["responses", "videos"] {
            router = router.route(&format!("{mount}/{kept}/{{*rest}}"), any(handle));
        }
    }
    router.with_state(state)
}

/// Why a call has no answer.
enum Fault {
    Ours(Box<GatewayError>),
    /// The upstream's own refusal, for the client to see.
    Theirs {
        status: StatusCode,
        said: Box<UpstreamErrorInfo>,
    },
}

impl From<GatewayError> for Fault {
    fn from(error: GatewayError) -> Self {
        Self::Ours(Box::new(error))
    }
}

async fn handle(Shared(state): Shared<Arc<State>>, request: Parts) -> Response {
    let dialect = ErrorDialect::from_path(request.uri.path());
    let mut told = None;
    // Boxed: there are few of these calls, and they are larger than those that the router is for.
    let mut response = match Box::pin(run(&state, &request, dialect, &mut told)).await {
        Ok(answer) => answer.into_response(),
        Err(fault) => refused(&fault, dialect),
    };
    if let Some(told) = &told {
        throttle::describe(told, response.headers_mut());
    }
    response
}

async fn run(
    state: &Arc<State>,
    request: &Parts,
    dialect: ErrorDialect,
    told: &mut throttle::Told,
) -> Result<Answer, Fault> {
    let (live, key) = models::tenant(state, request)?;
    let call = Call::read(&request.method, &request.uri)?;
    authorize::endpoint(&key, call.endpoint)?;
    let target = Target::find(&live, &key, &call)?;
    let held = Held::take(state, &live, &key, &target, told)?;
    let sending = Sending::new(state, &live, key.org_id, &target, &request.headers);
    match target.upstream.plan(call.endpoint) {
        Some(Plan::Splice) => native(&sending, &call, dialect, held).await,
        Some(Plan::Convert(_)) if call.endpoint == Endpoint::Videos => {
            veo::answer(&sending, &call, held).await
        }
        // What was made there was made up of an answer that nobody keeps.
        _ => Err(call.unknown().into()),
    }
}

/// The provider has this call itself.
async fn native(
    sending: &Sending<'_>,
    call: &Call<'_>,
    dialect: ErrorDialect,
    held: Held,
) -> Result<Answer, Fault> {
    let target = sending.target;
    let uri = sending.below(call)?;
    let reply =
        sending.send(call.method.clone(), uri, None).await.map_err(|fault| fault.about(target, call))?;
    Ok(if call.is_film() {
        Answer::film(sending, reply, held)
    } else {
        Answer::tagged(sending, reply, dialect, held)
    })
}

impl Fault {
    /// The upstream calls it by a name that the client does not know.
    fn about(mut self, target: &Target<'_>, call: &Call<'_>) -> Self {
        if let Self::Theirs { said, .. } = &mut self
            && let Some(message) = &mut said.message
        {
            *message = message.replace(&target.id, call.id);
        }
        self
    }
}

fn refused(fault: &Fault, dialect: ErrorDialect) -> Response {
    let response = match fault {
        Fault::Ours(error) => {
            let (code, message) = (error.code(), error.for_log());
            match error.kind.row().level {
                Level::Debug => tracing::debug!(code, "a call about something kept was refused: {message}"),
                Level::Warn => tracing::warn!(code, "a call about something kept failed: {message}"),
                Level::Error => tracing::error!(code, "a call about something kept failed: {message}"),
            }
            error.response(dialect)
        }
        Fault::Theirs { status, said } => {
            let message = said.message.as_deref();
            let body = ErrorBody {
                status: status.as_u16(),
                message: message.unwrap_or("The upstream refused the request without saying why."),
                kind: said.kind.as_deref().unwrap_or("invalid_request_error"),
                code: said.code.as_deref(),
                param: said.param.as_deref(),
                metadata: None,
            };
            let mut response = http::Response::new(super::Body::full(render_error(dialect, &body)));
            *response.status_mut() = *status;
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
    };
    response.map(axum::body::Body::new)
}

/// What a call holds until its last byte: a place among the node's requests, and one in each of its rate limits.
struct Held {
    _pass: Option<Pass>,
    _place: Place,
    /// A place among films that are held whole.
    whole: Option<SemaphorePermit<'static>>,
}

impl Held {
    fn take(
        state: &State,
        live: &Live,
        key: &KeyRecord,
        target: &Target<'_>,
        told: &mut throttle::Told,
    ) -> Result<Self, GatewayError> {
        let place = Place::take(&state.sinks)?;
        let bounds = live.snapshot.tenancy.bounds(key);
        let pass = throttle::run(&state.quota, bounds, &target.group.name, 0, told)?;
        Ok(Self { _pass: pass, _place: place, whole: None })
    }
}

struct Place(Arc<Sinks>);

impl Place {
    fn take(sinks: &Arc<Sinks>) -> Result<Self, GatewayError> {
        let metrics = &sinks.metrics;
        let before = metrics.in_flight.inc();
        let place = Self(sinks.clone());
        if before >= sinks.max_in_flight {
            metrics.rejected.inc();
            let error = GatewayError::new(Kind::Overloaded, "This node has too many requests in flight.");
            return Err(GatewayError { retry_after_secs: Some(1), ..error });
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// When to ask again how far a film is: OpenAI's clients go by it.
const POLL_AFTER: HeaderName = HeaderName::from_static("openai-poll-after-ms");

/// What is passed on of an upstream's head besides what every answer has.
fn pass_on(names: &[HeaderName], from: &HeaderMap, to: &mut HeaderMap) {
    for name in names {
        if let Some(value) = from.get(name) {
            to.insert(name.clone(), value.clone());
        }
    }
}
