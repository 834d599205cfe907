//! The life of a request on the data port, one phase after the other, one file per phase.
//!
//! Called by [`crate::edge`] for the endpoints that are proxied. Phases between authentication and dispatch are
//! `fn`, so that no network can hide in them (I1); the snapshot is loaded once and passed down (I2).

pub mod affinity;
pub mod attempts;
pub mod authenticate;
pub mod authorize;
pub mod body;
pub mod client_addr;
pub mod context;
pub mod crossing;
pub mod decompress;
pub mod dispatch;
pub mod early;
pub mod error;
pub mod failure;
pub mod feed;
pub mod headers;
pub mod ingress;
pub mod keep_alive;
pub mod metered_body;
pub mod metrics;
pub mod multipart;
pub mod original;
pub mod pace;
pub mod pieces;
pub mod portkey;
pub mod reserve;
pub mod respond;
pub mod retry;
pub mod route;
pub mod stored;
pub mod telemetry;
#[cfg(test)]
mod tests;
pub mod throttle;
pub mod timeouts;
pub mod upload;
pub mod wishes;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use nemo_llm::{
    Endpoint, Envelope, ErrorDialect, Inbound,
    endpoint::{GoogleMethod, google_call},
};
use nemo_runtime::in_place;
use nemo_snapshot::KeyRecord;

pub use self::body::Body;
use self::{
    context::{Ending, RequestContext},
    error::{GatewayError, Kind},
    original::Original,
    route::Routed,
    timeouts::Deadline,
};
use crate::{app::State, config::Live};

/// Answers one request. Whatever goes wrong becomes an answer in the client's dialect.
pub async fn handle(
    state: &Arc<State>,
    endpoint: Endpoint,
    request: Box<Request<Incoming>>,
    peer: Option<IpAddr>,
) -> Response<Body> {
    let dialect = ErrorDialect::from_path(request.uri().path());
    // Before anything is held, and before the snapshot is loaded: the key itself may be what is awaited.
    let first = headers::First::of(request.headers());
    if let Some(wanted) = first.min_config_version {
        state.snapshot.reach(wanted, state.settings.config_wait()).await;
    }
    let Some(mut context) = RequestContext::open(state.sinks.clone(), endpoint) else {
        let error = GatewayError::new(Kind::Overloaded, "This node has too many requests in flight.");
        return GatewayError { retry_after_secs: Some(1), ..error }.response(dialect);
    };
    context.peer = peer;
    context.client_request_id = first.request_id.cloned();
    context.trace = telemetry::Telemetry::begin(context.telemetry(), first.traceparent);
    let request_id = context.client_request_id.clone().unwrap_or_else(|| minted(&context));
    let mut context = Some(context);
    let mut response = match run(state, &mut context, dialect, request).await {
        Ok(response) => response,
        Err(error) => failed(context, &error, dialect),
    };
    response.headers_mut().insert(headers::REQUEST_ID, request_id);
    response
}

/// The straight line. The context is taken out of `slot` when the answer carries it on.
async fn run(
    state: &Arc<State>,
    slot: &mut Option<Box<RequestContext>>,
    dialect: ErrorDialect,
    request: Box<Request<Incoming>>,
) -> Result<Response<Body>, GatewayError> {
    let gone = || GatewayError::new(Kind::Internal, "The request lost its context.");
    let live = state.snapshot.load().ok_or_else(|| {
        GatewayError::new(Kind::NotReady, "This node has no configuration yet. Try again in a moment.")
    })?;
    let (parts, incoming) = request.into_parts();
    let context = slot.as_mut().ok_or_else(gone)?;
    context.config_revision = live.snapshot.revision;
    let endpoint = context.endpoint;

    let key = authenticate::run(&live, &parts.headers, &parts.uri, context.now_ms())?;
    context.key = Some(key.clone());
    authorize::client(&key, || {
        client_addr::find(context.peer, &parts.headers, &state.settings.trusted_proxies)
    })?;
    authorize::endpoint(&key, endpoint)?;
    let asked = wishes::from_headers(&parts.headers)?;
    fresh_enough(&live, asked.min_config_version)?;

    if endpoint.takes_form()
        && let Some(boundary) = multipart::boundary(endpoint, &parts.headers)?
    {
        let (headers, live) = (&parts.headers, &live);
        let inbound = multipart::Inbound { state, live, key: &key, headers, asked, dialect, boundary };
        return Box::pin(multipart::run(inbound, incoming, slot)).await;
    }

    let limits = &state.settings;
    let mut pace = pace::Pace::new(limits.body_idle_timeout(), limits.body_timeout());
    let body = ingress::read_body(&parts.headers, incoming, limits.max_body_bytes, &mut pace).await?;
    context.body_read = pace.waited();
    context.accepted_body(&body);

    // Boxed: the future of every request has room for it.
    let portkey = asked.portkey.then(|| Box::new(parts.headers.clone()));
    let mut answering = routed(state, context, (live, &key), parts, asked, body, dialect)?;
    if answering.denied.is_some() {
        Box::pin(answering.park(slot)).await?;
    }
    // Boxed: it is by far the largest, and each of the futures around it would have room for it and be moved with it.
    let mut response = Box::into_pin(in_place(|| answering.run(slot))).await?;
    if let Some(headers) = portkey {
        portkey::answer(&headers, response.headers_mut());
    }
    Ok(response)
}

/// The phases between the body and dispatch (I1). Boxed, and not inlined into what awaits: what is only needed here
/// would take room in every request in flight.
fn routed(
    state: &Arc<State>,
    context: &mut RequestContext,
    (live, key): (Arc<Live>, &KeyRecord),
    parts: http::request::Parts,
    asked: wishes::HeaderExtras,
    body: Bytes,
    dialect: ErrorDialect,
) -> Result<Box<early::Answering>, GatewayError> {
    let gone = || GatewayError::new(Kind::Internal, "The request lost its context.");
    let endpoint = context.endpoint;
    let headers = parts.headers;
    let inbound = match endpoint {
        Endpoint::GenerateContent | Endpoint::GoogleCountTokens => google_call(parts.uri.path())
            .map(|call| Inbound { model: call.model, stream: call.method == GoogleMethod::Stream }),
        _ => None,
    };
    let inbound = inbound.unwrap_or_default();
    let owner = affinity::Owner { ids: &live.ids, org: key.org_id };
    let (body, bound) = affinity::unbind(endpoint, body, owner)?;
    let mut envelope = nemo_llm::parse_call(endpoint, &body, inbound).map_err(invalid)?;
    context.requested(&envelope.model);
    context.stream = envelope.stream && endpoint.streams();
    context.usage_asked = envelope.include_usage && endpoint.has_choices();
    context.metadata = asked.metadata.or_else(|| envelope.extras.metadata.map(Into::into));
    let policy = live.snapshot.routing.policy(key.org_id);
    context.refuse_unsupported = asked.refuse_unsupported.unwrap_or(policy.refuse_unsupported);
    context.fetches = policy.fetch_image_urls;
    let wishes = asked.wishes.or_body(&mut envelope.extras);

    let model = match asked.portkey {
        true => portkey::model(&headers, &envelope.model)?,
        false => std::borrow::Cow::Borrowed(&*envelope.model),
    };
    let named = authorize::named(&live.snapshot, key, &model, "model")?;
    context.group = Some(named.group.clone());
    let shape = route::Shape::of(endpoint, &envelope, body.len());
    let bounds = live.snapshot.tenancy.bounds(key);
    let tokens = throttle::tokens(shape.input_tokens, allowed(&envelope));
    context.pass = throttle::run(&state.quota, bounds, &named.group.name, tokens, &mut context.rates)?;
    let request = route::Request { state, live: &live, key, named: &named, shape, wishes };
    let Routed { mut decision, retries, timeout, ceiling } = route::run(request, &mut context.decision)?;
    context.strategy = Some(decision.strategy);
    if let Some(bound) = bound {
        bound.keep(&mut decision, &live, key.org_id)?;
    }
    let money = reserve::Routed {
        quota: &state.quota,
        bounds,
        ceiling,
        features: envelope.features,
        stream: context.stream,
        patience: state.settings.lease_wait(),
    };
    let size = || reserve::terms::Size::of(endpoint, &envelope, body.len());
    // Counting is free.
    let denied = match endpoint.counts() {
        Some(_) => None,
        None => reserve::run(&money, size, &mut decision, context)?,
    };
    let deployment = decision.first().ok_or_else(gone)?.deployment.clone();
    let upstream = live.upstreams.get(deployment.slot).ok_or_else(gone)?;
    let made = original::json((&body, &envelope), endpoint, (upstream, &deployment), context.cap(), context);
    let outgoing = match made {
        Ok(outgoing) => outgoing,
        // Another candidate may do what this one can't.
        Err(error) if error.unsupported && decision.picks.len() > 1 => crossing::unmade(error),
        Err(error) => return Err(crossing::refused(error)),
    };
    context.asked = envelope.asked;

    let clock = (context.started.into(), timeout);
    let deadline = Deadline::new(&state.settings, &live.snapshot.routing, key.org_id, &deployment, clock);
    let deadline = deadline.for_clients_of(endpoint);
    context.deployment = Some(deployment);
    let (state, original) = (state.clone(), Original::Json(body));
    Ok(in_place(|| early::Answering {
        state,
        live,
        decision,
        headers,
        outgoing,
        deadline,
        original,
        clock,
        retries,
        endpoint,
        dialect,
        denied,
    }))
}

/// Tokens of output that the request allows, over all answers.
fn allowed(envelope: &Envelope<'_>) -> Option<u64> {
    envelope.max_output.map(|most| most.saturating_mul(envelope.choices))
}

fn fresh_enough(live: &Live, wanted: Option<u64>) -> Result<(), GatewayError> {
    match wanted {
        Some(wanted) if live.snapshot.revision < wanted => {
            let message =
                format!("This node serves config version {}, not {wanted} yet.", live.snapshot.revision);
            let error = GatewayError::new(Kind::StaleConfig, message).param(headers::MIN_CONFIG_VERSION);
            Err(GatewayError { retry_after_secs: Some(1), ..error })
        }
        _ => Ok(()),
    }
}

fn invalid(error: nemo_llm::EnvelopeError) -> GatewayError {
    let refused = GatewayError::new(Kind::InvalidRequest, error.message);
    match error.param {
        Some(param) => refused.param(param),
        None => refused,
    }
}

fn minted(context: &RequestContext) -> HeaderValue {
    let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
    let text = context.id.0.as_hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn failed(
    context: Option<Box<RequestContext>>,
    error: &GatewayError,
    dialect: ErrorDialect,
) -> Response<Body> {
    let mut response = error.response(dialect);
    if let Some(mut context) = context {
        log(&context, error);
        response.headers_mut().insert(headers::CONFIG_VERSION, HeaderValue::from(context.config_revision));
        attempts::describe(&context.attempts, response.headers_mut());
        if let Some(rates) = &context.rates {
            throttle::describe(rates, response.headers_mut());
        }
        context.finish(Ending::Failed(error));
    }
    response
}

fn log(context: &RequestContext, error: &GatewayError) {
    let (request_id, code) = (context.id, error.code());
    let trace_id = context.trace.map(|trace| tracing::field::display(trace.id));
    let deployment = context.deployment.as_ref().map(|it| &*it.name);
    match error.kind.row().level {
        error::Level::Debug => {
            tracing::debug!(%request_id, trace_id, code, deployment, "request refused: {}", error.for_log())
        }
        error::Level::Warn => {
            tracing::warn!(%request_id, trace_id, code, deployment, "request failed: {}", error.for_log())
        }
        error::Level::Error => {
            tracing::error!(%request_id, trace_id, code, deployment, "request failed: {}", error.for_log())
        }
    }
}
