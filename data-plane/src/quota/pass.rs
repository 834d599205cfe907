//! A request that its rate limits let through.

use std::{borrow::Borrow, sync::Arc, time::Duration};

use nemo_snapshot::RateLimit;
use smallvec::SmallVec;

use super::{
    QuotaTable,
    clock::Moment,
    share::{BucketView, Meter},
};

/// Of what there is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Requests,
    Tokens,
    Concurrent,
}

/// A rate limit refuses a request. Nothing was charged to any.
#[derive(Clone, Debug)]
pub struct Limited {
    pub limit: Arc<RateLimit>,
    pub what: What,
    pub retry_after: Duration,
    /// For the headers of the answer.
    pub view: RateView,
}

/// The tightest of a request's limits, in terms of the fleet, for `x-ratelimit-*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateView {
    pub requests: Option<BucketView>,
    pub tokens: Option<BucketView>,
}

impl RateView {
    fn with(self, meter: &Meter, now: Moment) -> Self {
        Self {
            requests: BucketView::tighter(self.requests, meter.requests.view(now)),
            tokens: BucketView::tighter(self.tokens, meter.tokens.view(now)),
        }
    }
}

/// When a slot may be free again: nobody knows.
const SLOT_RETRY: Duration = Duration::from_secs(1);
/// A limit that there is no room to count is not passed.
const NO_ROOM_RETRY: Duration = Duration::from_secs(1);

/// Counts as a request at once in every limit until it is dropped.
#[derive(Debug)]
pub struct Pass {
    table: QuotaTable,
    meters: SmallVec<[Arc<Meter>; 4]>,
    /// So many of them have counted it.
    charged: usize,
    tokens: u64,
    /// When they let it through.
    at: Moment,
}

impl Pass {
    /// The request took so many tokens, not what was estimated. Once: the difference is charged or given back.
    pub fn settle_tokens(&mut self, actual: u64) {
        let estimated = std::mem::replace(&mut self.tokens, actual);
        if estimated != actual && !self.meters.is_empty() {
            // What is given back needs no time.
            let now = if actual > estimated { self.table.now() } else { 0 };
            self.meters.iter().for_each(|it| it.tokens.correct(estimated, actual, now));
        }
    }

    /// It was refused before it was sent: it counts as none (C21). What was taken when the pace was another goes back at
    /// today's, as what is used was changed with it. Once.
    pub fn refund(&mut self) {
        self.settle_tokens(0);
        self.meters.iter().for_each(|it| it.requests.correct(1, 0, 0));
    }

    /// As it was when the request was let through.
    pub fn view(&self) -> RateView {
        self.meters.iter().fold(RateView::default(), |view, meter| view.with(meter, self.at))
    }
}

/// I14: only releases.
impl Drop for Pass {
    fn drop(&mut self) {
        self.meters.iter().take(self.charged).for_each(|meter| meter.leave());
    }
}

type Refusal = (What, Duration);

impl QuotaTable {
    /// Takes one request and so many tokens of every limit, and a slot. All are checked before any is charged (C21), so
    /// that a refused request costs nothing.
    ///
    /// # Errors
    /// [`Limited`] by the first that refuses.
    pub fn admit(&self, limits: &[impl Borrow<Arc<RateLimit>>], tokens: u64) -> Result<Pass, Limited> {
        let now = if limits.is_empty() { 0 } else { self.now() };
        let mut pass = Pass { table: self.clone(), meters: SmallVec::new(), charged: 0, tokens, at: now };
        for limit in limits {
            let limit = limit.borrow();
            let Some(meter) = self.meter(limit, now) else {
                return Err(self.limited(limit, (What::Requests, NO_ROOM_RETRY), &pass.meters, now));
            };
            pass.meters.push(meter);
        }
        for (limit, meter) in limits.iter().zip(&pass.meters) {
            if let Err(refusal) = check(meter, tokens, now) {
                return Err(self.refused(limit.borrow(), refusal, (&pass.meters, tokens), now));
            }
        }
        let mut costs: SmallVec<[(u64, u64); 4]> = SmallVec::new();
        for (limit, meter) in limits.iter().zip(&pass.meters) {
            match charge(meter, tokens, now) {
                Ok(cost) => costs.push(cost),
                Err(refusal) => {
                    // Somebody was faster; what was charged goes back, and the slots with the pass.
                    pass.charged = costs.len();
                    for (meter, cost) in pass.meters.iter().zip(&costs) {
                        meter.requests.refund(cost.0);
                        meter.tokens.refund(cost.1);
                    }
                    return Err(self.refused(limit.borrow(), refusal, (&pass.meters, tokens), now));
                }
            }
        }
        pass.charged = costs.len();
        for meter in &pass.meters {
            meter.count(tokens, false);
            self.touch_meter(meter);
        }
        Ok(pass)
    }

    /// For answers to requests that were not charged, as those that are refused elsewhere.
    pub fn view(&self, limits: &[Arc<RateLimit>]) -> RateView {
        let now = self.now();
        let meters = limits.iter().filter_map(|limit| self.meter(limit, now));
        meters.fold(RateView::default(), |view, meter| view.with(&meter, now))
    }

    #[cold]
    fn refused(
        &self,
        limit: &Arc<RateLimit>,
        refusal: Refusal,
        (meters, tokens): (&[Arc<Meter>], u64),
        now: Moment,
    ) -> Limited {
        for meter in meters {
            meter.count(tokens, meter.id == limit.id);
            self.touch_meter(meter);
        }
        self.limited(limit, refusal, meters, now)
    }

    fn limited(
        &self,
        limit: &Arc<RateLimit>,
        (what, retry_after): Refusal,
        meters: &[Arc<Meter>],
        now: Moment,
    ) -> Limited {
        self.inner.metrics.rate_refusals.inc();
        let view = meters.iter().fold(RateView::default(), |view, meter| view.with(meter, now));
        Limited { limit: limit.clone(), what, retry_after, view }
    }
}

fn check(meter: &Meter, tokens: u64, now: Moment) -> Result<(), Refusal> {
    meter.requests.would_pass(1, now).map_err(|wait| (What::Requests, Duration::from_nanos(wait)))?;
    meter.tokens.would_pass(tokens, now).map_err(|wait| (What::Tokens, Duration::from_nanos(wait)))?;
    if meter.has_slot() { Ok(()) } else { Err((What::Concurrent, SLOT_RETRY)) }
}

/// Returns what requests and tokens cost; all or nothing.
fn charge(meter: &Meter, tokens: u64, now: Moment) -> Result<(u64, u64), Refusal> {
    let requests =
        meter.requests.take(1, now).map_err(|wait| (What::Requests, Duration::from_nanos(wait)))?;
    let tokens = match meter.tokens.take(tokens, now) {
        Ok(cost) => cost,
        Err(wait) => {
            meter.requests.refund(requests);
            return Err((What::Tokens, Duration::from_nanos(wait)));
        }
    };
    if !meter.enter() {
        meter.requests.refund(requests);
        meter.tokens.refund(tokens);
        return Err((What::Concurrent, SLOT_RETRY));
    }
    Ok((requests, tokens))
}
