//! What the client is told when its request can't be paid for: which budget, how much, and when there is more.

use std::time::Duration;

use nemo_runtime::clock;
use nemo_snapshot::{Budget, BudgetKind};
use nemo_types::Nanos;
use serde_json::json;

use crate::{
    pipeline::error::{GatewayError, Kind},
    quota::Denied,
};

/// `error.code` of a request that costs more than it allows itself.
pub const MAX_COST: &str = "max_cost_exceeded";
/// `error.code` of a request whose cost nobody can bound, under a budget that must never be overspent.
pub const UNBOUNDED: &str = "cost_not_bounded";
/// `error.code` of a request that could not be billed.
pub const JOURNAL_FULL: &str = "journal_full";

/// Whether a stream that ended with this code was stopped here, because nothing paid for more of it: no fault of its
/// upstream.
pub fn stops_streams(code: &str) -> bool {
    let kinds = [Kind::BudgetExceeded, Kind::InsufficientCredits, Kind::BudgetUnavailable];
    code == MAX_COST || kinds.iter().any(|kind| kind.row().code == code)
}

/// Nothing, or not enough, can be reserved. `bound`: what the request would have taken at most.
pub fn denied(denied: &Denied, bound: Nanos) -> GatewayError {
    match denied {
        Denied::NoLease { budget, .. } => unavailable(budget),
        Denied::Short { budget, affordable, .. } => short(budget, *affordable, bound),
        Denied::Exhausted { budget, limit, settled, resets_in, eases_in, retry_after, .. } => {
            exhausted(budget, (*limit, *settled), bound, (*resets_in, *eases_in), *retry_after)
        }
    }
}

fn name(budget: &Budget) -> String {
    match budget.kind {
        BudgetKind::Credit => "the organization's credit".to_owned(),
        BudgetKind::Limit => format!("the {}'s budget `{}`", budget.scope.name(), budget.name),
    }
}

fn kind(budget: &Budget) -> Kind {
    match budget.kind {
        BudgetKind::Credit => Kind::InsufficientCredits,
        BudgetKind::Limit => Kind::BudgetExceeded,
    }
}

/// An infrastructure fault: nobody knows what is left.
fn unavailable(budget: &Budget) -> GatewayError {
    let message = format!(
        "This node has no part of {} yet, and the control plane has not granted one in time. Try again in a moment.",
        name(budget)
    );
    let metadata = json!({ "budget": describe(budget) });
    GatewayError {
        retry_after_secs: Some(1),
        metadata: Some(Box::new(metadata)),
        ..GatewayError::new(Kind::BudgetUnavailable, message)
    }
}

fn describe(budget: &Budget) -> serde_json::Value {
    json!({ "id": budget.id.to_string(), "name": &*budget.name, "scope": budget.scope.name() })
}

/// The control plane has not said that the budget is used up: it was too slow with more, which is no fault of the
/// client's.
fn short(budget: &Budget, affordable: Nanos, bound: Nanos) -> GatewayError {
    let message = format!(
        "The request can cost up to {bound} USD, but {} has only {affordable} USD for it at this node, and \
         the control plane has not granted more in time. Try again in a moment.",
        name(budget)
    );
    let metadata = json!({
        "budget": describe(budget),
        "bound_usd": bound.to_string(),
        "affordable_usd": affordable.to_string(),
    });
    GatewayError {
        retry_after_secs: Some(1),
        metadata: Some(Box::new(metadata)),
        ..GatewayError::new(Kind::BudgetUnavailable, message)
    }
}

fn exhausted(
    budget: &Budget,
    (limit, settled): (Nanos, Nanos),
    bound: Nanos,
    (resets_in, eases_in): (Option<Duration>, Option<Duration>),
    retry_after: Option<Duration>,
) -> GatewayError {
    let name = name(budget);
    let spent = match budget.kind {
        BudgetKind::Limit => format!("{settled} of {limit} USD are spent"),
        BudgetKind::Credit => {
            let left = Nanos(limit.0.saturating_sub(settled.0).max(0));
            format!("{left} USD are left")
        }
    };
    let then = match (retry_after, resets_in, eases_in) {
        (Some(_), _, _) => "The rest is held for requests in flight and may come back in a moment".to_owned(),
        (None, Some(resets_in), _) => format!("It resets in {}", spoken(resets_in)),
        (None, None, Some(eases_in)) => {
            format!("What was spent comes back hour by hour as it ages, next in {}", spoken(eases_in))
        }
        (None, None, None) => match budget.kind {
            BudgetKind::Credit => "Buy or grant more credit to go on".to_owned(),
            BudgetKind::Limit => "It does not reset; an administrator can raise it".to_owned(),
        },
    };
    let message = format!(
        "{} does not cover the request, which can cost up to {bound} USD: {spent}. {then}.",
        upper(&name)
    );
    let resets_at = resets_in.map(|resets_in| {
        (clock::unix_ms().saturating_add(u64::try_from(resets_in.as_millis()).unwrap_or(u64::MAX)))
            .saturating_add(500)
            / 1000
    });
    let metadata = json!({
        "budget": describe(budget),
        "limit_usd": limit.to_string(),
        "spent_usd": settled.to_string(),
        "bound_usd": bound.to_string(),
        "resets_in_seconds": resets_in.map(|resets_in| resets_in.as_secs()),
        "resets_at_unix": resets_at,
    });
    let seconds =
        retry_after.or(eases_in).map(|after| (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1));
    GatewayError {
        retry_after_secs: seconds,
        metadata: Some(Box::new(metadata)),
        ..GatewayError::new(kind(budget), message)
    }
}

fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The two largest units.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", seconds.max(1)),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// The request's own ceiling, or the organization's, does not cover it.
pub fn above_ceiling(field: &'static str, ceiling: Nanos, bound: Nanos) -> GatewayError {
    let message = format!(
        "The request can cost {bound} USD even with hardly any output, which is above the {ceiling} USD of `{field}`."
    );
    let metadata = json!({ "bound_usd": bound.to_string(), "max_cost_usd": ceiling.to_string() });
    GatewayError {
        code: Some(MAX_COST),
        metadata: Some(Box::new(metadata)),
        ..GatewayError::new(Kind::InvalidRequest, message).param(field)
    }
}

/// A stream has reached the ceiling.
pub fn ceiling_reached(field: &'static str, ceiling: Nanos) -> GatewayError {
    let message =
        format!("The answer was stopped: more of it could cost more than the {ceiling} USD of `{field}`.");
    GatewayError { code: Some(MAX_COST), ..GatewayError::new(Kind::BudgetExceeded, message).param(field) }
}

/// A budget that must not be overspent covers a request of which nobody knows what it costs.
pub fn unbounded(budget: &Budget, deployment: &str, why: &str) -> GatewayError {
    let message = format!(
        "It can't be told what the request costs at most at {deployment}: {why}. {} is strict and takes no such \
         request; set the price, leave out what can't be bounded, or let the budget reserve estimates.",
        upper(&name(budget))
    );
    let metadata = json!({ "budget": describe(budget) });
    GatewayError {
        code: Some(UNBOUNDED),
        metadata: Some(Box::new(metadata)),
        ..GatewayError::new(Kind::InvalidRequest, message)
    }
}

/// The same of a ceiling.
pub fn unbounded_by(field: &'static str, deployment: &str, why: &str) -> GatewayError {
    let message =
        format!("It can't be told whether the request stays within `{field}` at {deployment}: {why}.");
    GatewayError { code: Some(UNBOUNDED), ..GatewayError::new(Kind::InvalidRequest, message).param(field) }
}

/// The node can't write down what it is about to spend.
pub fn journal_full() -> GatewayError {
    let message =
        "This node's journal of usage is full, so that the request could not be billed. Try again later.";
    GatewayError {
        code: Some(JOURNAL_FULL),
        retry_after_secs: Some(1),
        ..GatewayError::new(Kind::NotReady, message)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nemo_snapshot::{NoLease, OverBudget, ReservationBound, Scope};
    use nemo_types::BudgetId;

    use super::*;
    use crate::quota::Need;

    fn budget(kind: BudgetKind) -> Arc<Budget> {
        Arc::new(Budget {
            id: BudgetId::generate(),
            name: "monthly".into(),
            scope: Scope::Organization,
            kind,
            over_budget: OverBudget::Cap,
            no_lease: NoLease::Deny,
            bound: ReservationBound::Strict,
        })
    }

    fn out(kind: BudgetKind, resets_in: Option<u64>, retry_after: Option<u64>) -> GatewayError {
        exhausted(kind, resets_in, None, retry_after)
    }

    fn exhausted(
        kind: BudgetKind,
        resets_in: Option<u64>,
        eases_in: Option<u64>,
        retry_after: Option<u64>,
    ) -> GatewayError {
        let it = Denied::Exhausted {
            budget: budget(kind),
            limit: Nanos::ONE_USD,
            settled: Nanos(900_000_000),
            resets_in: resets_in.map(Duration::from_secs),
            eases_in: eases_in.map(Duration::from_secs),
            retry_after: retry_after.map(Duration::from_secs),
            noted_at: 0,
        };
        denied(&it, Nanos(250_000_000))
    }

    /// B11: 402, so that SDKs don't retry, with what, how much, and when it resets.
    #[test]
    fn b11_an_exhausted_budget_says_what_how_much_and_until_when() {
        let error = out(BudgetKind::Limit, Some(7384), None);
        assert_eq!((error.kind.row().status, error.code()), (402, "budget_exceeded"));
        assert_eq!(
            error.message,
            "The organization's budget `monthly` does not cover the request, which can cost up to 0.25 USD: 0.9 of 1 \
             USD are spent. It resets in 2 h 3 min."
        );
        assert_eq!(error.retry_after_secs, None);
        assert_eq!(error.kind.row().should_retry, Some(false));
        let held = out(BudgetKind::Limit, Some(7384), Some(2));
        assert_eq!(held.retry_after_secs, Some(2));
        let credit = out(BudgetKind::Credit, None, None);
        assert_eq!(credit.code(), "insufficient_credits");
        assert!(credit.message.contains("0.1 USD are left"), "{}", credit.message);
    }

    /// Nobody has to raise a rolling window for it to have something again.
    #[test]
    fn b11_an_exhausted_rolling_window_says_when_spend_ages_out() {
        let error = exhausted(BudgetKind::Limit, None, Some(1500), None);
        assert!(
            error.message.ends_with("comes back hour by hour as it ages, next in 25 min."),
            "{}",
            error.message
        );
        assert_eq!((error.retry_after_secs, error.kind.row().should_retry), (Some(1500), Some(false)));
        let total = exhausted(BudgetKind::Limit, None, None, None);
        assert!(total.message.ends_with("an administrator can raise it."), "{}", total.message);
        assert_eq!(total.retry_after_secs, None);
    }

    /// B11: an infrastructure fault is never the client's.
    #[test]
    fn b11_a_node_without_a_lease_is_unavailable() {
        let error = denied(
            &Denied::NoLease { budget: budget(BudgetKind::Limit), need: Need { bound: 1, least: 1 } },
            Nanos::ZERO,
        );
        assert_eq!(
            (error.kind.row().status, error.code(), error.retry_after_secs),
            (503, "budget_unavailable", Some(1))
        );
    }
}
