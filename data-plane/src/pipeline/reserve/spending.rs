//! What one request may spend: the hold on its budgets, the ceiling that it or its organization sets, and how much output
//! both cover. Kept by the request's context from before the first attempt until the request is settled.
//!
//! - Before the first attempt: [`Spending::hold`], all of it, or of a stream the input and the first tokens.
//! - Before each further attempt: [`Spending::attempt`]; what an attempt without an answer may have cost stays held.
//! - While a stream comes: [`Spending::cover`], in steps, ahead of what is seen.
//! - At the end: [`Spending::settle`], once.

use std::{sync::Arc, time::Duration};

use nemo_llm::bound::most_output_tokens;
use nemo_snapshot::{Budget, NoLease, OverBudget};
use nemo_types::Nanos;
use smallvec::SmallVec;

use super::{
    refusal,
    terms::{Mode, Terms},
};
use crate::{
    pipeline::error::GatewayError,
    quota::{Denied, Hold, QuotaTable},
};

/// Tokens of output that a stream begins with, for each answer; then it is extended by half of what it has, at least by
/// so many.
const STEP: u64 = 256;
/// Fewer tokens are no answer: no request is capped below them, nor below what it asks for.
const LEAST_OUTPUT: u64 = 16;

/// The most that a request may cost by its own wish, or its organization's.
#[derive(Clone, Copy, Debug)]
pub struct Ceiling {
    pub most: Nanos,
    /// Where it was said.
    pub field: &'static str,
}

/// Budgets of one request, in the order of their ids.
pub type Budgets = SmallVec<[Arc<Budget>; 3]>;
pub use crate::quota::Charges;

/// See the module.
pub struct Spending {
    quota: QuotaTable,
    budgets: Budgets,
    hold: Option<Hold>,
    ceiling: Option<Ceiling>,
    mode: Mode,
    /// For each pick of the decision.
    terms: SmallVec<[Terms; 2]>,
    choices: u64,
    /// What the request asks for, for each answer.
    asked: Option<u64>,
    can_be_capped: bool,
    /// Its output is followed while it comes.
    stream: bool,
    /// Tokens that the upstream is told to keep to, for each answer.
    cap: Option<u64>,
    /// Index of the pick that is tried.
    at: usize,
    /// What attempts without an answer may have cost.
    lost: Nanos,
    /// What is held, or would be if there were a budget.
    held: Nanos,
    /// Tokens of output that this covers, over all answers of the attempt under way.
    covered: u64,
    /// How long to wait for what may come.
    patience: Duration,
}

/// What follows from the output that has come.
#[derive(Debug)]
pub enum Cover {
    /// It is paid for.
    Paid,
    /// It is not, but something may come within a moment.
    Wait(Denied),
    /// It is not, and the stream has to end.
    Stop(Box<GatewayError>),
}

/// Why nothing is held.
#[derive(Debug)]
pub enum Refused {
    /// Something may come within a moment.
    Wait(Denied),
    No(Box<GatewayError>),
}

/// What a [`Spending`] is made of.
pub struct Request {
    pub quota: QuotaTable,
    pub budgets: Budgets,
    pub ceiling: Option<Ceiling>,
    pub mode: Mode,
    pub terms: SmallVec<[Terms; 2]>,
    pub choices: u64,
    pub asked: Option<u64>,
    pub can_be_capped: bool,
    pub stream: bool,
    pub patience: Duration,
}

impl Refused {
    /// When nothing is waited for any more.
    pub fn into_error(self) -> GatewayError {
        match self {
            Self::No(error) => *error,
            Self::Wait(denied) => refusal::denied(&denied, Nanos::ZERO),
        }
    }
}

impl Spending {
    /// Holds nothing yet.
    ///
    /// # Errors
    /// When the ceiling does not cover the request, however short its answer.
    pub fn new(request: Request) -> Result<Self, GatewayError> {
        let Request { quota, budgets, ceiling, mode, terms, choices, asked, can_be_capped, stream, patience } =
            request;
        let mut it = Self {
            quota,
            budgets,
            hold: None,
            ceiling,
            mode,
            terms,
            choices: choices.max(1),
            asked,
            can_be_capped,
            // Of others nothing can be followed.
            stream: stream && can_be_capped,
            cap: None,
            at: 0,
            lost: Nanos::ZERO,
            held: Nanos::ZERO,
            covered: 0,
            patience,
        };
        if it.terms.iter().any(|terms| terms.must_cap) {
            it.cap(it.terms.iter().map(|terms| terms.most).min().unwrap_or(u64::MAX));
        }
        if let Some(Ceiling { most, field }) = ceiling
            && it.full() > most
            && !it.cap_to(most)
        {
            return Err(refusal::above_ceiling(field, most, it.least()));
        }
        Ok(it)
    }

    /// The limit that is to be sent upstream, if it is another than the client's.
    pub fn output_cap(&self) -> Option<u64> {
        self.cap
    }

    /// Whether a request that can't be written down is to be refused.
    pub fn is_hard(&self) -> bool {
        self.budgets.iter().any(|budget| budget.no_lease == NoLease::Deny)
    }

    pub fn held(&self) -> Nanos {
        self.held
    }

    /// At what is held now.
    pub fn charges(&self) -> Charges {
        self.hold.as_ref().map(Hold::charges).unwrap_or_default()
    }

    /// What all candidates can cost at most.
    fn full(&self) -> Nanos {
        self.most_of(|terms| terms.cost(terms.output))
    }

    /// The same with hardly any output.
    fn least(&self) -> Nanos {
        self.most_of(|terms| terms.cost(terms.output.min(self.least_output())))
    }

    fn most_of(&self, cost: impl Fn(&Terms) -> Nanos) -> Nanos {
        self.terms.iter().map(cost).max().unwrap_or_default()
    }

    /// What has to be held before this candidate is tried, and the tokens of output that this covers.
    fn opening(&self, terms: &Terms) -> (Nanos, u64) {
        let followed = self.stream && !terms.hidden;
        let output =
            if followed { terms.output.min(STEP.saturating_mul(self.choices)) } else { terms.output };
        (terms.cost(output), output)
    }

    fn least_output(&self) -> u64 {
        self.asked.unwrap_or(LEAST_OUTPUT).min(LEAST_OUTPUT).saturating_mul(self.choices)
    }

    /// Limits the output over all answers.
    fn cap(&mut self, output: u64) {
        let each = output / self.choices;
        if self.asked.is_none_or(|asked| each < asked) {
            self.cap = Some(self.cap.map_or(each, |cap| cap.min(each)));
        }
        let most = each.saturating_mul(self.choices);
        for terms in &mut self.terms {
            (terms.output, terms.most) = (terms.output.min(most), terms.most.min(most));
        }
    }

    /// Limits the output to what so much money pays for at every candidate. False when that is no answer.
    fn cap_to(&mut self, money: Nanos) -> bool {
        let affordable = self.terms.iter().map(|terms| terms.affordable(money)).min().flatten();
        match affordable {
            Some(output) if self.can_be_capped && output >= self.least_output() => {
                self.cap(output);
                true
            }
            _ => false,
        }
    }

    /// Reserves what the first attempt takes. `last`: nothing is waited for any more.
    ///
    /// # Errors
    /// When the budgets don't have it.
    pub fn hold(&mut self, last: bool) -> Result<(), Refused> {
        let bound = self.most_of(|terms| self.opening(terms).0);
        if self.budgets.is_empty() {
            self.opened(bound);
            return Ok(());
        }
        let denied = match self.reserve(bound) {
            Ok(()) => return Ok(()),
            Err(denied) => denied,
        };
        if !last && may_come(&denied) {
            return Err(Refused::Wait(denied));
        }
        self.hold_less(denied, bound)
    }

    fn reserve(&mut self, bound: Nanos) -> Result<(), Denied> {
        let least = || if self.can_be_capped { self.least() } else { bound };
        let hold = self.quota.reserve_or_less(&self.budgets, bound, least)?;
        self.hold = Some(hold);
        self.opened(bound);
        Ok(())
    }

    fn opened(&mut self, bound: Nanos) {
        self.held = bound;
        self.covered = self.terms.first().map_or(0, |terms| self.opening(terms).1);
    }

    /// By the budget's policy: with an output that can be paid for, or not at all.
    fn hold_less(&mut self, mut denied: Denied, bound: Nanos) -> Result<(), Refused> {
        // Others take from the same: what was there a moment ago may be gone.
        const TRIES: usize = 4;
        let mut doubted = false;
        for _ in 0..TRIES {
            let caps =
                denied.budget().over_budget == OverBudget::Cap && !matches!(denied, Denied::NoLease { .. });
            let capped = caps && self.cap_to(self.quota.affordable(&self.budgets));
            // And that nothing comes back may have been true before another request took it.
            let doubt = caps && !may_come(&denied) && !std::mem::replace(&mut doubted, true);
            if !capped && !doubt {
                break;
            }
            let bound = self.most_of(|terms| self.opening(terms).0);
            match self.reserve(bound) {
                Ok(()) => return Ok(()),
                Err(again) => denied = again,
            }
        }
        Err(Refused::No(Box::new(refusal::denied(&denied, bound))))
    }

    /// The request goes to this pick. Extends the hold by what is missing.
    ///
    /// # Errors
    /// When the budgets don't have it, or the ceiling is reached.
    pub fn attempt(&mut self, pick: usize, last: bool) -> Result<(), Refused> {
        let Some(terms) = self.terms.get(pick).copied() else { return Ok(()) };
        let (opening, covered) = self.opening(&terms);
        let needed = Nanos(self.lost.0.saturating_add(opening.0));
        if let Some(Ceiling { most, field }) = self.ceiling
            && needed > most
        {
            return Err(Refused::No(Box::new(refusal::above_ceiling(field, most, needed))));
        }
        match self.extend_to(needed) {
            Ok(()) => {}
            Err(denied) if !last && may_come(&denied) => return Err(Refused::Wait(denied)),
            Err(denied) => return Err(Refused::No(Box::new(refusal::denied(&denied, needed)))),
        }
        (self.at, self.covered) = (pick, covered);
        // More than this attempt takes may be held already: for the most expensive candidate.
        Ok(())
    }

    fn extend_to(&mut self, needed: Nanos) -> Result<(), Denied> {
        let more = needed.0.saturating_sub(self.held.0);
        if more > 0 {
            if let Some(hold) = &mut self.hold {
                hold.extend(Nanos(more))?;
            }
            self.held = needed;
        }
        Ok(())
    }

    /// The attempt goes out now: from here on it costs.
    pub fn sent(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.sent();
        }
    }

    /// An attempt that was sent brought no answer. Returns what it may have cost: its input.
    pub fn no_answer(&mut self) -> Nanos {
        let cost = self.terms.get(self.at).map_or(Nanos::ZERO, |terms| terms.fixed);
        self.failed(cost);
        cost
    }

    /// An attempt has failed at this cost.
    pub fn failed(&mut self, cost: Nanos) {
        self.lost = Nanos(self.lost.0.saturating_add(cost.0));
    }

    /// So many bytes of output were seen, and the answer goes on. `last`: nothing is waited for any more. The second value
    /// says that the hold has grown.
    pub fn cover(&mut self, bytes: u64, last: bool) -> (Cover, bool) {
        let Some(terms) = self.terms.get(self.at).copied().filter(|_| self.stream) else {
            return (Cover::Paid, false);
        };
        let seen = match self.mode {
            Mode::Strict => most_output_tokens(bytes),
            Mode::Estimated => nemo_llm::estimate_output_tokens(bytes),
        };
        let ahead = (STEP / 2).saturating_mul(self.choices);
        // The upstream keeps to `most`, which is covered then.
        if self.covered >= terms.most || seen.saturating_add(ahead) <= self.covered {
            return (Cover::Paid, false);
        }
        let step = (STEP.saturating_mul(self.choices)).max(self.covered / 2);
        let next = self.covered.max(seen).saturating_add(step).min(terms.most);
        let needed = seen.min(terms.most);
        let reach = match self.ceiling {
            None => u64::MAX,
            Some(Ceiling { most, .. }) => {
                terms.affordable(Nanos(most.0.saturating_sub(self.lost.0))).unwrap_or(0)
            }
        };
        if needed > reach
            && let Some(Ceiling { most, field }) = self.ceiling
        {
            return (Cover::Stop(Box::new(refusal::ceiling_reached(field, most))), false);
        }
        if self.cover_to(&terms, next.min(reach)).is_ok() {
            return (Cover::Paid, true);
        }
        if needed <= self.covered {
            // It was only to be ahead.
            return (Cover::Paid, false);
        }
        match self.cover_to(&terms, needed) {
            Ok(()) => (Cover::Paid, true),
            Err(denied) if !last && may_come(&denied) => (Cover::Wait(denied), false),
            Err(denied) => {
                let bound = terms.cost(needed);
                (Cover::Stop(Box::new(refusal::denied(&denied, bound))), false)
            }
        }
    }

    fn cover_to(&mut self, terms: &Terms, output: u64) -> Result<(), Denied> {
        let needed = Nanos(self.lost.0.saturating_add(terms.cost(output).0));
        self.extend_to(needed)?;
        self.covered = self.covered.max(output);
        Ok(())
    }

    /// Resolves when something may have come for what was denied, or the patience has ended.
    pub fn waited(&self, denied: &Denied) -> impl Future<Output = ()> + Send + use<> {
        let came = self.quota.wanted(denied);
        let late = self.patience;
        async move {
            let _late = tokio::time::timeout(late, came).await;
        }
    }

    /// Whether a budget is charged.
    pub fn is_bound(&self) -> bool {
        self.hold.is_some()
    }

    pub fn choices(&self) -> u64 {
        self.choices
    }

    /// The request was sent and is over: this is what it has cost.
    pub fn settle(self, cost: Nanos) -> Charges {
        self.hold.map(|hold| hold.settle(cost)).unwrap_or_default()
    }
}

/// Whether waiting for a moment can help.
fn may_come(denied: &Denied) -> bool {
    match denied {
        Denied::NoLease { .. } | Denied::Short { .. } => true,
        Denied::Exhausted { retry_after, .. } => retry_after.is_some(),
    }
}

#[cfg(test)]
mod tests;
