//! A request waits for what its budgets did not have: a moment at most, on a notice of this node, never for the network
//! (I1). It rings when the control plane has granted more, and when another request of this node gives something back.
//! Called by [`super::super::early`], [`super::super::multipart`] and, between two attempts, by
//! [`super::super::attempts`].

use super::spending::Refused;
use crate::{
    pipeline::{context::RequestContext, error::GatewayError},
    quota::Denied,
};

/// Waits on this node's own notice until something may have come for what was denied, for a moment at most, and tries once
/// more.
///
/// # Errors
/// When there still is not enough.
pub async fn park(context: &mut RequestContext, denied: Denied) -> Result<(), GatewayError> {
    let Some(spending) = &context.spending else { return Ok(()) };
    context.metrics().parked.inc();
    spending.waited(&denied).await;
    let Some(spending) = &mut context.spending else { return Ok(()) };
    let held = spending.hold(true);
    if spending.output_cap().is_some() {
        context.metrics().capped.inc();
    }
    held.map_err(|refused| refused.into_error())
}

/// Holds what one more attempt takes, if need be after the same wait.
///
/// # Errors
/// When what is held does not cover it, and nothing more can be held.
pub async fn further(context: &mut RequestContext, pick: usize) -> Result<(), GatewayError> {
    let Some(spending) = &mut context.spending else { return Ok(()) };
    let before = spending.held();
    if let Err(refused) = spending.attempt(pick, false) {
        let Refused::Wait(denied) = refused else { return Err(refused.into_error()) };
        Box::pin(spending.waited(&denied)).await;
        spending.attempt(pick, true).map_err(|refused| refused.into_error())?;
    }
    if spending.held() > before {
        context.extended();
    }
    Ok(())
}
