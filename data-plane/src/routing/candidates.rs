//! Which members of a pool can serve a request now, and why the others can't. Called by [`super::decide`].

use nemo_snapshot::{Deployment, LinkMember, Strategy};
use smallvec::SmallVec;

use super::{
    Ask, Decision, Elimination, Gate, Health, HealthView, Reason, Seen, Served, Why,
    ask::Pool,
    demands::Demands,
    draw::{Draw, scattered},
    strategy::Order,
    weights::Weights,
};

/// Most candidates that are ordered in the primary pool. Of larger pools this many are drawn, so that time and record
/// stay bounded.
pub(super) const SAMPLE: usize = 32;
/// The same in later pools, which are rarely used.
const FALLBACK_SAMPLE: usize = 16;
/// Most cooling ones that a record lists.
const LISTED_COOLING: u32 = 64;
/// How often a member of a large pool is drawn by weight, until there are enough.
const WEIGHTED_DRAWS: usize = 64;

/// A deployment that can serve the request now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub member: &'a LinkMember,
    pub health: Health,
    /// The strategy's own.
    pub score: u64,
    /// Tells equal scores apart.
    pub tie: u8,
}

impl Candidate<'_> {
    pub(super) fn deployment(&self) -> &Deployment {
        &self.member.deployment
    }
}

pub(super) type Candidates<'a> = SmallVec<[Candidate<'a>; SAMPLE]>;

/// Most candidates of a pool that are ordered.
fn sample(pool: &Pool<'_>) -> usize {
    if pool.number == 0 { SAMPLE } else { FALLBACK_SAMPLE }
}

/// How much there may be to decide among.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    pub pools: usize,
    /// That can be ordered.
    pub candidates: usize,
    pub members: usize,
}

impl Extent {
    pub(super) fn of(ask: &Ask<'_>) -> Self {
        ask.pools().fold(Self::default(), |sum, pool| {
            let size = pool.size();
            Self {
                pools: sum.pools + 1,
                candidates: sum.candidates + size.min(sample(&pool)),
                members: sum.members + size,
            }
        })
    }
}

/// One walk over all pools of a request.
pub(super) struct Scan<'a, V> {
    served: &'a Served,
    view: &'a V,
    demands: Demands<'a>,
    extent: Extent,
    strategy: Strategy,
    /// Candidates that nothing is known of are listed too, and cooling ones only up to [`LISTED_COOLING`].
    list_all: bool,
    cooling: u32,
    /// Slots of those whose health was looked at: nothing is looked at twice, since it may have changed meanwhile.
    looked_at: SmallVec<[u32; 128]>,
    furthest: Why,
}

impl<'a, V: HealthView> Scan<'a, V> {
    pub(super) fn new(
        ask: &Ask<'a>,
        served: &'a Served,
        view: &'a V,
        extent: Extent,
        list_all: bool,
    ) -> Self {
        Self {
            served,
            view,
            demands: Demands::of(ask),
            extent,
            strategy: Order::of(ask).strategy,
            list_all,
            cooling: 0,
            looked_at: SmallVec::new(),
            furthest: Why::Off,
        }
    }

    /// What stopped the one that came furthest.
    pub(super) fn furthest(&self) -> Why {
        self.furthest
    }

    /// More were cooling than a record lists: unless it lists all others, this walk was for nothing.
    pub(super) fn overflows(&self) -> bool {
        self.cooling > LISTED_COOLING
    }

    /// Finds the candidates of a pool, and notes in `decision` what it passes over. True when the candidates are in the
    /// strategy's order already.
    pub(super) fn pool(
        &mut self,
        pool: &Pool<'a>,
        draw: &mut Draw,
        decision: &mut Decision,
        candidates: &mut Candidates<'a>,
    ) -> bool {
        let (count, most) = (pool.size(), sample(pool));
        // No link has a deployment twice, so only earlier pools count.
        let before = self.looked_at.len();
        if count <= most {
            for member in pool.members() {
                if !self.has_looked_at(member, before) {
                    candidates.extend(self.consider(member, pool, decision));
                }
            }
            return false;
        }
        let by_weight = self.strategy == Strategy::Weighted;
        let most = if by_weight { Decision::MAX_PICKS } else { most };
        if by_weight {
            self.by_weight(pool, draw, decision, candidates);
        }
        let before = self.looked_at.len();
        for at in scattered(draw, count) {
            if candidates.len() >= most || (self.overflows() && !self.list_all) {
                break;
            }
            let Some(member) = pool.member(at) else { continue };
            if !self.has_looked_at(member, before) {
                candidates.extend(self.consider(member, pool, decision));
            }
        }
        by_weight
    }

    /// Of a large pool, in proportion to the weights: whom chance meets again, or can't be used, is passed over.
    fn by_weight(
        &mut self,
        pool: &Pool<'a>,
        draw: &mut Draw,
        decision: &mut Decision,
        candidates: &mut Candidates<'a>,
    ) {
        let weights = Weights::of(pool);
        for _ in 0..WEIGHTED_DRAWS {
            if candidates.len() >= Decision::MAX_PICKS {
                break;
            }
            let Some(member) = weights.draw(draw) else { break };
            let unfit = || self.demands.check(member, self.served, pool.required).is_err();
            if !self.has_looked_at(member, self.looked_at.len()) && !unfit() {
                candidates.extend(self.consider(member, pool, decision));
            }
        }
    }

    /// Whether it is among the first so many.
    fn has_looked_at(&self, member: &LinkMember, upto: usize) -> bool {
        self.looked_at.get(..upto).is_some_and(|first| first.contains(&slot(&member.deployment)))
    }

    fn consider(
        &mut self,
        member: &'a LinkMember,
        pool: &Pool<'a>,
        decision: &mut Decision,
    ) -> Option<Candidate<'a>> {
        if let Err(reason) = self.demands.check(member, self.served, pool.required) {
            self.eliminate(member, pool, reason, decision);
            return None;
        }
        let deployment = &*member.deployment;
        let packed = self.view.of(deployment).pack();
        let health = packed.unpack();
        self.looked_at.push(slot(deployment));
        let listed = match health.gate {
            Gate::Cooling { .. } => {
                self.cooling += 1;
                self.cooling <= LISTED_COOLING
            }
            Gate::Ready | Gate::Probe => self.list_all || !packed.is_quiet(),
        };
        if listed {
            make_room(&mut decision.seen, self.extent.candidates);
            decision.seen.push(Seen { deployment: deployment.id, health: packed });
        }
        if let Gate::Cooling { remaining_ms, cause } = health.gate {
            if listed {
                let reason = Reason::Cooling { remaining_ms, cause };
                self.eliminate(member, pool, reason, decision);
            } else {
                decision.eliminated_more += 1;
            }
            return None;
        }
        Some(Candidate { member, health, score: 0, tie: 0 })
    }

    fn eliminate(&mut self, member: &LinkMember, pool: &Pool<'_>, reason: Reason, decision: &mut Decision) {
        self.furthest = further(self.furthest, reason);
        if decision.eliminated.len() < Decision::MAX_ELIMINATED {
            let deployment = member.deployment.clone();
            make_room(&mut decision.eliminated, self.extent.members.min(Decision::MAX_ELIMINATED));
            decision.eliminated.push(Elimination { deployment, link: pool.number, reason });
        } else {
            decision.eliminated_more += 1;
        }
    }
}

fn slot(deployment: &Deployment) -> u32 {
    u32::try_from(deployment.slot).unwrap_or(u32::MAX)
}

/// When the next one goes to the heap: once, for as many as there may be.
fn make_room<A: smallvec::Array>(list: &mut SmallVec<A>, most: usize) {
    if list.len() == A::size() && !list.spilled() {
        list.reserve_exact(most.saturating_sub(list.len()).max(1));
    }
}

/// Of what stopped two candidates, what stopped the one that came further.
fn further(so_far: Why, reason: Reason) -> Why {
    let this = match reason {
        Reason::Disabled => Why::Off,
        Reason::EndpointNotServed => Why::Endpoint,
        Reason::TagsMissing(_) => Why::Tags,
        Reason::ContextTooSmall { needed, window } => Why::Context { needed, largest: window },
        Reason::Excluded => Why::Excluded,
        Reason::TooExpensive(ceiling) | Reason::PriceUnknown(ceiling) => Why::TooExpensive(ceiling),
        Reason::Cooling { remaining_ms, .. } => Why::Cooling { soonest_ms: remaining_ms },
    };
    match (so_far, this) {
        (Why::Context { needed, largest }, Why::Context { largest: other, .. }) => {
            Why::Context { needed, largest: largest.max(other) }
        }
        (Why::Cooling { soonest_ms }, Why::Cooling { soonest_ms: other }) => {
            Why::Cooling { soonest_ms: soonest_ms.min(other) }
        }
        _ if this.stage() > so_far.stage() => this,
        _ => so_far,
    }
}
