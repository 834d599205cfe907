//! The way of a form through the pipeline: the same phases as for JSON, but the body is not read before it is routed.
//! Called by [`super::run`] for the endpoints that take files. Boxed there: it is not the hot path.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body::Body as _;
use hyper::body::Incoming;
use nemo_llm::{Endpoint, ErrorDialect, multipart::to_json};
use nemo_snapshot::{Deployment, KeyRecord};

use super::{
    attempts, authorize,
    body::Body,
    context::RequestContext,
    crossing,
    error::{GatewayError, Kind},
    original::{Form, Original},
    pace, portkey, reserve,
    route::{self, Routed},
    throttle,
    timeouts::Deadline,
    upload::{Ahead, Source, too_large},
    wishes::HeaderExtras,
};
use crate::{app::State, config::Live, quota::Denied, upstream::body::Tail};

/// The boundary of a form; `None` when the request is JSON, where the endpoint takes that too.
///
/// # Errors
/// 415 for what the endpoint does not take.
pub fn boundary(endpoint: Endpoint, headers: &HeaderMap) -> Result<Option<String>, GatewayError> {
    let refused = |message: String| Err(GatewayError::new(Kind::UnsupportedMediaType, message));
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if endpoint.takes_json() && essence.eq_ignore_ascii_case("application/json") {
        return Ok(None);
    }
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return refused("Compressed forms are not accepted; send the form as it is.".into());
    }
    match nemo_llm::multipart::boundary(value) {
        Some(boundary) => Ok(Some(boundary)),
        None if essence.eq_ignore_ascii_case("multipart/form-data") => {
            refused("The content type of the form has no boundary, or one that can't be.".into())
        }
        None => {
            refused(format!("This endpoint takes forms; send multipart/form-data instead of {essence:?}."))
        }
    }
}

/// What is known before the body.
pub struct Inbound<'a> {
    pub state: &'a Arc<State>,
    pub live: &'a Live,
    pub key: &'a KeyRecord,
    pub headers: &'a HeaderMap,
    pub asked: HeaderExtras,
    pub dialect: ErrorDialect,
    pub boundary: String,
}

/// Routes and passes on one form.
///
/// # Errors
/// As for JSON; and what is wrong with the form, also when that shows only while it is passed on.
pub async fn run(
    inbound: Inbound<'_>,
    incoming: Incoming,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, GatewayError> {
    let gone = || GatewayError::new(Kind::Internal, "The request lost its context.");
    let Inbound { state, live, key, headers, asked, dialect, boundary } = inbound;
    let limits = &state.settings;
    let announced = incoming.size_hint().exact();
    if announced.is_some_and(|length| length > limits.max_upload_bytes) {
        return Err(too_large(limits.max_upload_bytes));
    }
    let context = slot.as_mut().ok_or_else(gone)?;
    let pace = pace::Pace::new(limits.body_idle_timeout(), limits.body_timeout());
    let mut source = Source::new(incoming, &boundary, pace, limits.max_upload_bytes);
    context.upload = Some(source.upload().clone());

    let reading = std::time::Instant::now();
    let ahead = source.read_ahead(limits.max_body_bytes).await;
    context.body_read = reading.elapsed();
    let portkey = asked.portkey;
    let most = announced.unwrap_or(limits.max_upload_bytes);
    let routed = ahead
        .and_then(|ahead| Ok((routed(state, live, key, headers, asked, (&source, most), context)?, ahead)));
    let ((Routed { decision, timeout, retries, .. }, denied), ahead) = match routed {
        Ok(routed) => routed,
        Err(error) => {
            source.drain().await;
            return Err(error);
        }
    };
    if let Some(denied) = denied
        && let Err(refused) = reserve::park(context, denied).await
    {
        source.drain().await;
        return Err(refused);
    }
    let deployment = decision.first().ok_or_else(gone)?.deployment.clone();
    let context = slot.as_deref().ok_or_else(gone)?;
    let (endpoint, several) = (context.endpoint, decision.picks.len() > 1);
    if endpoint.is_image() && context.spending.is_some() {
        source.bound();
    }
    let (form, rest) = form(source, ahead, announced, &deployment, (endpoint, headers, &boundary))?;
    let upstream = live.upstreams.get(deployment.slot).ok_or_else(gone)?;
    let outgoing = match form.outgoing(endpoint, (upstream, &deployment), rest, context.cap(), context) {
        Ok(outgoing) => outgoing,
        // Another candidate may do what this one can't.
        Err(error) if error.unsupported && several => crossing::unmade(error),
        Err(error) => return Err(crossing::refused(error)),
    };
    let clock = (context.started.into(), timeout);
    let deadline = Deadline::new(limits, &live.snapshot.routing, key.org_id, &deployment, clock);
    let chain = attempts::Chain {
        state,
        live,
        decision: &decision,
        original: &Original::Form(form),
        headers,
        endpoint,
        dialect,
        clock,
        retries,
    };
    let mut response = attempts::run(&chain, outgoing, deadline, slot).await?;
    if portkey {
        portkey::answer(headers, response.headers_mut());
    }
    Ok(response)
}

/// The phases between authentication and dispatch (I1).
fn routed(
    state: &State,
    live: &Live,
    key: &KeyRecord,
    headers: &HeaderMap,
    asked: HeaderExtras,
    (source, most): (&Source, u64),
    context: &mut RequestContext,
) -> Result<(Routed, Option<Denied>), GatewayError> {
    let form = source.form();
    let missing = || {
        let message =
            "Missing required field `model`: expected a field of the form with the name of a model.";
        GatewayError::new(Kind::InvalidRequest, message).param("model")
    };
    let sent = form.model.as_deref().ok_or_else(missing)?;
    context.requested(sent);
    context.stream = form.stream && context.endpoint.streams();
    context.metadata = asked.metadata.or_else(|| form.metadata.as_deref().map(Into::into));
    let wishes = asked.wishes.or_body(&mut form.extras());
    let model = match asked.portkey {
        true => portkey::model(headers, sent)?,
        false => std::borrow::Cow::Borrowed(sent),
    };
    let named = authorize::named(&live.snapshot, key, &model, "model")?;
    context.group = Some(named.group.clone());
    let shape = route::Shape::of_form(context.endpoint);
    let bounds = live.snapshot.tenancy.bounds(key);
    // How long a recording is, or how large an image, nobody knows before: what was used is charged afterwards.
    let tokens = throttle::tokens(0, None);
    context.pass = throttle::run(&state.quota, bounds, &named.group.name, tokens, &mut context.rates)?;
    let request = route::Request { state, live, key, named: &named, shape, wishes };
    let mut routed = route::run(request, &mut context.decision)?;
    let money = reserve::Routed {
        quota: &state.quota,
        bounds,
        ceiling: routed.ceiling,
        features: shape.features,
        stream: false,
        patience: state.settings.lease_wait(),
    };
    let endpoint = context.endpoint;
    let size = || reserve::terms::Size::of_form(endpoint, &source.most_asked(endpoint), most);
    let denied = reserve::run(&money, size, &mut routed.decision, context)?;
    let decision = &routed.decision;
    context.strategy = Some(decision.strategy);
    context.deployment = decision.first().map(|pick| pick.deployment.clone());
    Ok((routed, denied))
}

/// What was read ahead, which every upstream gets, and what is still to come, with the length of the whole where the
/// client told its own.
fn form(
    mut source: Source,
    ahead: Ahead,
    announced: Option<u64>,
    deployment: &Deployment,
    (endpoint, headers, boundary): (Endpoint, &HeaderMap, &str),
) -> Result<(Form, Option<Tail>), GatewayError> {
    let internal = || GatewayError::new(Kind::Internal, "The form lost its model.");
    let sent = source.form().model.clone().ok_or_else(internal)?;
    let model = Bytes::copy_from_slice(deployment.upstream_model.as_bytes());
    let length = announced
        .map(|length| length - source.stripped().min(length) + model.len() as u64)
        .and_then(|length| length.checked_sub(sent.len() as u64));
    source.seal();
    let (_, held) = ahead.render(&model);
    let stripped = source.stripped() > 0;
    // The model stands in what was read ahead: of the rest nothing depends on the upstream, nor does its length.
    let rest = source.rest(model, length.and_then(|length| length.checked_sub(held)));
    let rest = rest.map(|rest| Box::pin(rest) as Tail);
    let json = (endpoint == Endpoint::Videos && rest.is_none())
        .then(|| to_json(boundary, &ahead.render(&Bytes::copy_from_slice(sent.as_bytes())).0.concat()))
        .flatten();
    let content_type = headers.get(header::CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or(HeaderValue::from_static("multipart/form-data"));
    let (whole, json) = (rest.is_none(), json.map(Bytes::from));
    Ok((Form { ahead, whole, model: sent.into(), content_type, stripped, json }, rest))
}
