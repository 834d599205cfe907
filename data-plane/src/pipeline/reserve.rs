//! Money for one request, before it is sent (requirements C1 to C3, D): an upper bound over all candidates is held on
//! every budget of its key, its team and its organization, or the request is refused. No await (I1); where something may
//! come within a moment the caller parks, see [`park`]. Called by [`super::run`] and [`super::multipart`].
//!
//! - [`park`](mod@park): a moment's wait on this node's own notice, where something may come within it
//! - [`terms`]: what the request can cost at each candidate
//! - [`spending`]: what is held for it, until it is settled
//! - [`refusal`]: what the client is told when there is not enough

mod park;
pub mod refusal;
pub mod spending;
pub mod terms;

use std::time::Duration;

use nemo_llm::Features;
use nemo_snapshot::{Bounds, NoLease, ReservationBound};
use smallvec::SmallVec;

pub use self::park::{further, park};
use self::{
    spending::{Budgets, Ceiling, Cover, Refused, Request, Spending},
    terms::{Mode, Size, Terms, why_unbounded},
};
use super::{context::RequestContext, error::GatewayError};
use crate::{
    quota::{Denied, QuotaTable},
    routing::{Decision, Pick},
};

/// A request that was routed.
pub struct Routed<'a> {
    pub quota: &'a QuotaTable,
    pub bounds: Bounds<'a>,
    pub ceiling: Option<Ceiling>,
    pub features: Features,
    pub stream: bool,
    /// How long a request waits for what may come.
    pub patience: Duration,
}

/// Reserves what the request can cost. Candidates of which nobody can tell that are taken out of the decision where a
/// budget must not be overspent. `Some`: nothing is held yet, but something may come within a moment.
///
/// # Errors
/// 402 with what is exhausted, 400 for what can't be bounded or is above the request's own ceiling.
pub fn run(
    routed: &Routed<'_>,
    size: impl FnOnce() -> Size,
    decision: &mut Decision,
    context: &mut RequestContext,
) -> Result<Option<Denied>, GatewayError> {
    if routed.ceiling.is_none() && routed.bounds.budgets().next().is_none() {
        return Ok(None);
    }
    limited(routed, &size(), decision, context)
}

/// Of a request that something limits.
#[inline(never)]
fn limited(
    routed: &Routed<'_>,
    size: &Size,
    decision: &mut Decision,
    context: &mut RequestContext,
) -> Result<Option<Denied>, GatewayError> {
    let mut budgets: Budgets = routed.bounds.budgets().cloned().collect();
    budgets.sort_unstable_by_key(|budget| budget.id);
    let strict = routed.ceiling.is_some() || budgets.iter().any(|it| it.bound == ReservationBound::Strict);
    let mode = if strict { Mode::Strict } else { Mode::Estimated };
    let terms = priced(routed, &budgets, mode, size, decision)?;
    let spending = Spending::new(Request {
        quota: routed.quota.clone(),
        budgets,
        ceiling: routed.ceiling,
        mode,
        terms,
        choices: size.choices,
        asked: size.output,
        can_be_capped: size.can_be_capped(),
        stream: routed.stream,
        patience: routed.patience,
    })?;
    let spending = context.spending.insert(Box::new(spending));
    match spending.hold(false) {
        Ok(()) => Ok(None),
        Err(Refused::Wait(denied)) => Ok(Some(denied)),
        Err(Refused::No(error)) => Err(*error),
    }
}

/// What the request costs at each candidate that is left.
fn priced(
    routed: &Routed<'_>,
    budgets: &Budgets,
    mode: Mode,
    size: &Size,
    decision: &mut Decision,
) -> Result<SmallVec<[Terms; 2]>, GatewayError> {
    let must_be_known = |it: &&std::sync::Arc<nemo_snapshot::Budget>| {
        it.bound == ReservationBound::Strict && it.no_lease == NoLease::Deny
    };
    let hard = budgets.iter().find(must_be_known);
    let mut terms: SmallVec<[Terms; 2]> = SmallVec::new();
    let mut refused = None;
    decision.picks.retain(|pick: &mut Pick| {
        // What an answer that comes later has cost, its request never tells.
        let told = !routed.features.contains(Features::BACKGROUND);
        let known = Terms::of(size, &pick.deployment, mode).filter(|_| told);
        if known.is_none() && (hard.is_some() || routed.ceiling.is_some()) {
            refused.get_or_insert_with(|| pick.deployment.clone());
            return false;
        }
        // Nobody can tell, and the budgets allow that: what it has cost is charged when it is known.
        terms.push(known.unwrap_or(Terms {
            fixed: nemo_types::Nanos::ZERO,
            rate: 0,
            output: 0,
            most: 0,
            hidden: false,
            must_cap: false,
        }));
        true
    });
    match refused {
        Some(deployment) if decision.picks.is_empty() => {
            let why = why_unbounded(size, routed.features, &deployment);
            Err(match (hard, routed.ceiling) {
                (Some(budget), _) => refusal::unbounded(budget, &deployment.name, why),
                (None, Some(ceiling)) => refusal::unbounded_by(ceiling.field, &deployment.name, why),
                (None, None) => {
                    GatewayError::new(super::error::Kind::Internal, "No budget asks for a bound.")
                }
            })
        }
        _ => Ok(terms),
    }
}

/// Pays for the output that has come. Called by [`super::metered_body`] with every frame.
pub fn cover(context: &mut RequestContext, bytes: u64, last: bool) -> Cover {
    let Some(spending) = &mut context.spending else { return Cover::Paid };
    let (cover, grown) = spending.cover(bytes, last);
    if grown {
        context.extended();
    }
    cover
}
