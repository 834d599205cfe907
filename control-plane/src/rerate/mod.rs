//! Re-rating: what logged requests would have cost at another price. The corrections of a price that was entered wrong,
//! or later than it took effect (C9).
//!
//! - here: one request at one price. Pure
//! - [`book`]: the prices that were in effect at a time. Pure
//! - [`report`]: the sums by organization and model. Pure
//!
//! Driven by `admin/ops/rerate.rs`; what it books is written by [`crate::store::rerate`].

pub mod book;
pub mod report;

use nemo_types::{Measure, Nanos, PriceSheet, Usage};

use crate::ledger::Charge;

pub use book::{Book, Dated};
pub use report::Report;

/// A logged request, as far as its cost depends on it.
#[derive(Clone, Debug)]
pub struct Rated {
    pub usage: Option<Usage>,
    pub measures: Vec<Measure>,
    pub service_tier: String,
    /// What it costs by now: as logged, or as corrected since. `None`: unknown.
    pub booked: Option<Nanos>,
    /// The upstream said itself what it costs: no price of ours matters.
    pub by_provider: bool,
    pub charges: Vec<Charge>,
    /// It was corrected before: its charges have been moved along.
    pub corrected: bool,
}

/// What comes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It has no price, or nothing that a price could be for: it stays as it is.
    Skipped,
    Same(Nanos),
    Changed {
        before: Option<Nanos>,
        after: Nanos,
    },
}

impl Rated {
    /// What the request costs at `new`. `old` is the price that it was billed at, if that is known.
    ///
    /// What attempts that failed have cost is in what was booked and in no usage: it stays, as the difference between what
    /// was booked and what the usage costs at the old price.
    pub fn at(&self, old: Option<&PriceSheet>, new: Option<&PriceSheet>) -> Verdict {
        let (Some(new), false) = (new, self.by_provider) else { return Verdict::Skipped };
        let Some(after) = self.cost(new) else { return Verdict::Skipped };
        let Some(before) = self.booked else { return Verdict::Changed { before: None, after } };
        let beside = old.and_then(|old| self.cost(old)).and_then(|own| before.checked_sub(own));
        let beside = beside.unwrap_or(Nanos::ZERO).max(Nanos::ZERO);
        match after.checked_add(beside) {
            None => Verdict::Skipped,
            Some(after) if after == before => Verdict::Same(before),
            Some(after) => Verdict::Changed { before: Some(before), after },
        }
    }

    fn cost(&self, price: &PriceSheet) -> Option<Nanos> {
        // Nothing was counted: a price for each request would still be one.
        if self.usage.is_none() && self.measures.is_empty() {
            return None;
        }
        price.cost_in(&self.service_tier, self.usage.as_ref(), &self.measures)
    }

    /// How far each of its charges is from what it is when every budget is charged `after`.
    ///
    /// A budget has several charges when the request was extended into another lease. They share its cost the way the node
    /// does: in their order, the last one with what is above them.
    pub fn differences(&self, after: Nanos) -> Vec<(&Charge, Nanos)> {
        let mut charges: Vec<&Charge> = self.charges.iter().collect();
        // Stable, so those of one budget stay in their order.
        charges.sort_by_key(|charge| charge.budget_id);
        let mut differences = Vec::with_capacity(charges.len());
        for of_budget in charges.chunk_by(|one, next| one.budget_id == next.budget_id) {
            let charged = of_budget.iter().fold(0_i64, |sum, charge| sum.saturating_add(charge.nanos.0));
            let mut before = self.booked.filter(|_| self.corrected).map_or(charged, |booked| booked.0);
            let mut after = after.0;
            for (at, charge) in of_budget.iter().enumerate() {
                let last = at + 1 == of_budget.len();
                let share = |rest: &mut i64| {
                    let nanos = if last { *rest } else { charge.nanos.0.min(*rest) };
                    *rest = rest.saturating_sub(nanos);
                    nanos
                };
                let (was, is) = (share(&mut before), share(&mut after));
                differences.push((*charge, Nanos(is.saturating_sub(was))));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use nemo_types::{BudgetId, NanosPerMillion};
    use time::OffsetDateTime;

    use super::*;

    fn sheet(input: i64) -> PriceSheet {
        let price = Some(NanosPerMillion(input * 1_000_000));
        PriceSheet { input: price, output: price, ..PriceSheet::default() }
    }

    fn rated(booked: Option<i64>) -> Rated {
        Rated {
            usage: Some(Usage { input: Some(100), output: Some(0), ..Usage::default() }),
            measures: Vec::new(),
            service_tier: String::new(),
            booked: booked.map(Nanos),
            by_provider: false,
            charges: Vec::new(),
            corrected: false,
        }
    }

    #[test]
    fn a_request_is_billed_at_the_new_price() {
        let changed =
            |before: Option<i64>, after| Verdict::Changed { before: before.map(Nanos), after: Nanos(after) };
        assert_eq!(rated(Some(500)).at(Some(&sheet(5)), Some(&sheet(7))), changed(Some(500), 700));
        assert_eq!(rated(Some(500)).at(Some(&sheet(5)), Some(&sheet(5))), Verdict::Same(Nanos(500)));
        assert_eq!(rated(None).at(None, Some(&sheet(7))), changed(None, 700), "it had no price");
        assert_eq!(rated(Some(500)).at(None, Some(&sheet(7))), changed(Some(500), 700));
    }

    #[test]
    fn what_failed_attempts_have_cost_stays() {
        // 500 by its usage, 30 beside.
        let verdict = rated(Some(530)).at(Some(&sheet(5)), Some(&sheet(7)));
        assert_eq!(verdict, Verdict::Changed { before: Some(Nanos(530)), after: Nanos(730) });
        assert_eq!(rated(Some(530)).at(Some(&sheet(5)), Some(&sheet(5))), Verdict::Same(Nanos(530)));
    }

    #[test]
    fn what_has_no_price_or_one_of_its_own_stays() {
        assert_eq!(rated(Some(500)).at(Some(&sheet(5)), None), Verdict::Skipped);
        let reported = Rated { by_provider: true, ..rated(Some(1)) };
        assert_eq!(reported.at(None, Some(&sheet(7))), Verdict::Skipped);
        let uncounted = Rated { usage: None, ..rated(None) };
        assert_eq!(uncounted.at(None, Some(&sheet(7))), Verdict::Skipped);
    }

    fn charge(budget_id: BudgetId, nanos: i64) -> Charge {
        Charge { budget_id, window_start: OffsetDateTime::UNIX_EPOCH, lease_id: None, nanos: Nanos(nanos) }
    }

    fn moved(rated: &Rated, after: i64) -> Vec<i64> {
        rated.differences(Nanos(after)).into_iter().map(|(_, nanos)| nanos.0).collect()
    }

    #[test]
    fn a_charge_is_corrected_from_where_it_stands() {
        let charges = vec![charge(BudgetId::generate(), 500)];
        let of = |booked| Rated { charges: charges.clone(), ..rated(booked) };
        assert_eq!(moved(&of(Some(500)), 700), [200]);
        assert_eq!(moved(&of(None), 300), [-200], "it was charged what was reserved");
        let again = Rated { corrected: true, ..of(Some(700)) };
        assert_eq!(moved(&again, 650), [-50]);
    }

    /// A request that was extended into another lease.
    #[test]
    fn charges_of_one_budget_are_corrected_by_the_difference_of_the_request() {
        let (one, other) = (BudgetId::generate(), BudgetId::generate());
        let charges = vec![charge(one, 60), charge(one, 40), charge(other, 100)];
        let of = |booked| Rated { charges: charges.clone(), ..rated(Some(booked)) };
        let by_budget = |rated: &Rated, after, budget| {
            let mut all = rated.differences(Nanos(after));
            all.retain(|(charge, _)| charge.budget_id == budget);
            all.into_iter().map(|(_, nanos)| nanos.0).collect::<Vec<_>>()
        };
        assert_eq!(by_budget(&of(100), 110, one), [0, 10]);
        assert_eq!(by_budget(&of(100), 110, other), [10]);
        assert_eq!(by_budget(&of(100), 50, one), [-10, -40], "no charge falls below nothing");
        let again = Rated { corrected: true, ..of(110) };
        assert_eq!(by_budget(&again, 50, one), [-10, -50]);
        assert_eq!(by_budget(&again, 120, one), [0, 10]);
        assert_eq!(by_budget(&again, 120, other), [10]);
    }
}
