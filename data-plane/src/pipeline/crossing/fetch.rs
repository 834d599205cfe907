//! The one network that a request may wait for between authentication and its upstream (I1): images and documents that it
//! names by URL, where its organization has switched `routing.fetch_image_urls` on and its candidate wants the bytes.
//! Everything that could refuse the request has had its say by then. Called by [`super::super::attempts`], before the
//! attempt at that candidate.

use bytes::Bytes;
use nemo_llm::{CodecError, Endpoint, Files, Inbound, Link, Plan, links::spliced};
use nemo_snapshot::Deployment;
use tokio::time::Instant;

use super::{cold, filled, unmade};
use crate::{
    config::live::Upstream,
    fetch::{Held, NotFetched, Why},
    pipeline::{
        attempts::Chain,
        context::RequestContext,
        dispatch::{Cold, Outgoing},
        error::{GatewayError, Kind},
        failure::Failure,
        original::{self, Original},
    },
};

/// `error.code` of a request with a file that can't be had.
const NOT_FETCHED: &str = "image_not_fetched";

/// What was fetched for a request, for the candidates that come later.
pub type Fetched = Option<Box<Held>>;

/// The request for the candidate at `at`, with what was fetched; where that failed, one that says so instead of being
/// sent: another candidate may take URLs. `None` when the candidate is gone.
pub async fn run(
    chain: &Chain<'_>,
    at: usize,
    links: &[Link],
    due: Instant,
    (fetched, context): (&mut Fetched, &mut RequestContext),
) -> Option<Outgoing> {
    let begun = Instant::now();
    let known = fetched.as_ref().is_some_and(|held| links.iter().all(|link| held.files.has(&link.url)));
    if !known {
        // It would wait for its own room.
        *fetched = None;
        let got = chain.state.fetcher.all(links, due).await;
        // Not ours.
        context.body_read += begun.elapsed();
        match got {
            Ok(held) => *fetched = Some(Box::new(held)),
            Err(failed) => return Some(refused(failed)),
        }
    }
    let deployment = &chain.decision.picks.get(at)?.deployment;
    let upstream = chain.live.upstreams.get(deployment.slot)?;
    // Forms are not translated by way of the hub.
    let Original::Json(body) = chain.original else { return None };
    let plan = upstream.plan(chain.endpoint)?;
    let called = (upstream, &**deployment);
    let files = fetched.as_deref().map(|held| &held.files);
    let made = match plan {
        Plan::Splice => as_it_is(body, chain.endpoint, called, context, files?)?,
        _ => filled(body, plan, called, context.cap(), context, files),
    };
    Some(made.unwrap_or_else(unmade))
}

/// The client's own words with what was fetched in the place of URLs. `None`: never, as it was read before.
fn as_it_is(
    body: &[u8],
    endpoint: Endpoint,
    called: (&Upstream, &Deployment),
    context: &RequestContext,
    files: &Files,
) -> Option<Result<Outgoing, CodecError>> {
    let body = match spliced::filled(body, files) {
        Ok(body) => Bytes::from(body),
        Err(error) => return Some(Err(error)),
    };
    let inbound = Inbound { model: context.path_model(), stream: context.stream };
    let envelope = nemo_llm::parse_call(endpoint, &body, inbound).ok()?;
    Some(original::json((&body, &envelope), endpoint, called, context.cap(), context))
}

fn refused(NotFetched { path, why }: NotFetched) -> Outgoing {
    let message = format!("`{path}` could not be fetched: {why}.");
    if why == Why::Full {
        let refused =
            GatewayError { retry_after_secs: Some(1), ..GatewayError::new(Kind::Overloaded, message) };
        return cold(Cold::Refused(Box::new(Failure::crowded(refused))));
    }
    let refused = GatewayError::new(Kind::InvalidRequest, message).param(path);
    let refused = GatewayError { code: Some(NOT_FETCHED), ..refused };
    cold(Cold::Refused(Box::new(Failure::unmade(refused))))
}
