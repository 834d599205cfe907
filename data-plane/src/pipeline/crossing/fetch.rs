//! The one network that a request may wait for between authentication and its upstream (I1): images and documents that it
//! names by URL, where its organization has switched `routing.fetch_image_urls` on and its candidate wants the bytes.
//! Everything that could refuse the request has had its say by then. Called by [`super::super::attempts`], before the
//! attempt at that candidate.

use nemo_llm::{Files, Link};
use tokio::time::Instant;

use super::{cold, filled, unmade};
use crate::{
    fetch::NotFetched,
    pipeline::{
        attempts::Chain,
        context::RequestContext,
        dispatch::{Cold, Outgoing},
        error::{GatewayError, Kind},
        failure::Failure,
        original::Original,
    },
};

/// `error.code` of a request with a file that can't be had.
const NOT_FETCHED: &str = "image_not_fetched";

/// What was fetched for a request, for the candidates that come later.
pub type Fetched = Option<Box<Files>>;

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
    let known = fetched.as_ref().is_some_and(|files| links.iter().all(|link| files.has(&link.url)));
    if !known {
        let got = chain.state.fetcher.all(links, due).await;
        // Not ours.
        context.body_read += begun.elapsed();
        match got {
            Ok(files) => *fetched = Some(Box::new(files)),
            Err(failed) => return Some(refused(failed)),
        }
    }
    let deployment = &chain.decision.picks.get(at)?.deployment;
    let upstream = chain.live.upstreams.get(deployment.slot)?;
    // Forms are not translated by way of the hub.
    let Original::Json(body) = chain.original else { return None };
    let plan = upstream.plan(chain.endpoint)?;
    let called = (upstream, &**deployment);
    let made = filled(body, plan, called, context.cap(), context, fetched.as_deref());
    Some(made.unwrap_or_else(unmade))
}

fn refused(NotFetched { path, why }: NotFetched) -> Outgoing {
    let message = format!("`{path}` could not be fetched: {why}.");
    let refused = GatewayError::new(Kind::InvalidRequest, message).param(path);
    let refused = GatewayError { code: Some(NOT_FETCHED), ..refused };
    cold(Cold::Refused(Box::new(Failure::unmade(refused))))
}
