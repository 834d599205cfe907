//! What every bank has to do. Run against [`super::MemoryBank`] here and against the one in PostgreSQL in
//! `store/leases/tests.rs`. Covers I3, C 1, 2, 3, D 7, R001-7.

use std::collections::HashMap;

use bytes::Bytes;
use nemo_proto::quota::{BudgetGrant, BudgetReport, CloseEpoch, LeaseDirective, LeaseReport, Recall};
use nemo_types::{BudgetId, LeaseId, Nanos, OrgId};

use super::{Bank, BankError, Expired, MemoryBank, NodeEpoch, SettledCharge};
use crate::{
    ledger::{Entry, Kind},
    quota::{
        Settings,
        books::{LeaseRow, LeaseState, LostLease, Millis, WindowRow},
        desk::Terms,
        window::Window,
    },
};

pub(crate) const USD: i64 = Nanos::ONE_USD.0;
/// 2026-07-01T12:00:00Z.
pub(crate) const START: Millis = 1_782_907_200_000;
const HOUR: Millis = 3_600_000;

/// A bank with what a test needs to look at it.
#[tonic::async_trait]
pub(crate) trait World: Send + Sync {
    fn bank(&self) -> &dyn Bank;
    fn now(&self) -> Millis;
    fn set_now(&self, now: Millis);
    /// A new budget of an organization that exists.
    async fn budget(&self, kind: &str, hours: Option<i64>, limit: i64, lost: LostLease) -> BudgetId;
    async fn set_limit(&self, budget: BudgetId, limit: i64);
    async fn windows(&self) -> Vec<WindowRow>;
    async fn leases(&self) -> Vec<LeaseRow>;
    /// What is booked of a budget.
    async fn entries(&self, budget: BudgetId) -> Vec<Entry>;
}

pub(crate) fn settings() -> Settings {
    Settings::default()
}

pub(crate) fn node(name: &str, epoch: u64) -> NodeEpoch {
    NodeEpoch { node_id: name.into(), epoch }
}

pub(crate) fn wants(budget: BudgetId, wants: i64, needs: i64) -> BudgetReport {
    BudgetReport { budget_id: id(budget), wants, needs, ..BudgetReport::default() }
}

pub(crate) fn report(budgets: Vec<BudgetReport>) -> LeaseReport {
    LeaseReport { budgets, ..LeaseReport::default() }
}

fn full(budgets: Vec<BudgetReport>) -> LeaseReport {
    LeaseReport { full: true, ..report(budgets) }
}

fn id(budget: BudgetId) -> Bytes {
    Bytes::copy_from_slice(budget.as_bytes())
}

pub(crate) fn granted(directive: &LeaseDirective, budget: BudgetId) -> Option<&BudgetGrant> {
    directive.grants.iter().rev().find(|grant| grant.budget_id == id(budget))
}

fn lease_id(grant: &BudgetGrant) -> LeaseId {
    LeaseId::from_bytes(&grant.lease_id).unwrap()
}

impl dyn World + '_ {
    async fn report(&self, node: &NodeEpoch, report: LeaseReport) -> LeaseDirective {
        let directive = self.bank().report(node, &report).await.unwrap().directive;
        self.check().await;
        directive
    }

    /// Asks, and expects to get something.
    async fn lease(&self, node: &NodeEpoch, budget: BudgetId, amount: i64) -> BudgetGrant {
        let directive = self.report(node, report(vec![wants(budget, amount, amount)])).await;
        granted(&directive, budget).unwrap_or_else(|| panic!("{directive:?}")).clone()
    }

    async fn settle(&self, source: &str, budget: BudgetId, lease: Option<LeaseId>, nanos: i64) -> Vec<Entry> {
        let charge =
            SettledCharge { budget_id: budget, window_start: 0, lease_id: lease, nanos, at: self.now() };
        let entries = self.bank().settle(source, &[charge]).await.unwrap();
        self.check().await;
        entries
    }

    async fn expire_all(&self) -> Expired {
        let mut sum = Expired::default();
        loop {
            let expired = self.bank().expire().await.unwrap();
            self.check().await;
            if expired == Expired::default() {
                return sum;
            }
            sum.held += expired.held;
            sum.closed += expired.closed;
            sum.forfeited += expired.forfeited;
            sum.aged += expired.aged;
            sum.forgotten += expired.forgotten;
        }
    }

    async fn window(&self, budget: BudgetId) -> WindowRow {
        let mut windows = self.windows().await;
        windows.retain(|window| window.key.budget == budget);
        windows.pop().unwrap()
    }

    async fn state(&self, lease: LeaseId) -> LeaseState {
        self.leases().await.into_iter().find(|it| it.id == lease).unwrap().state
    }

    /// What holds at every moment: the sums of the leases and of the ledger are the totals of the window.
    pub(crate) async fn check(&self) {
        let mut outstanding: HashMap<_, i64> = HashMap::new();
        for lease in self.leases().await {
            assert!(lease.outstanding() >= 0 && lease.forfeited >= 0, "{lease:?}");
            if lease.is_closed() {
                assert_eq!(lease.outstanding(), 0, "{lease:?}");
            }
            *outstanding.entry(lease.key).or_default() += lease.outstanding();
        }
        for window in self.windows().await {
            let of = outstanding.get(&window.key).copied().unwrap_or(0);
            assert_eq!(window.outstanding, of, "{window:?}");
            let entries = self.entries(window.key.budget).await;
            let start = |entry: &&Entry| entry.window_start.unwrap().unix_timestamp() == window.key.start;
            let sum = |overrun: bool| -> i64 {
                let part = entries.iter().filter(start).filter(|it| (it.kind == Kind::Overrun) == overrun);
                part.map(|entry| entry.nanos.0).sum()
            };
            assert_eq!(window.settled + window.aged, sum(false), "{window:?}");
            assert_eq!(window.overrun + window.aged_overrun, sum(true), "{window:?}");
        }
    }
}

/// All of it. Budgets don't meet, so one world is enough.
pub(crate) async fn run(world: &dyn World) {
    grants_end_at_the_limit(world).await;
    world.set_now(START);
    a_lease_goes_on_and_a_doubled_report_is_harmless(world).await;
    what_is_handed_back_can_be_granted_again(world).await;
    spending_settles_and_what_exceeds_the_lease_is_overrun(world).await;
    a_lost_grant_is_named_again(world).await;
    a_lease_that_is_done_is_not_granted_to(world).await;
    a_former_epoch_is_fenced(world).await;
    a_leftover_of_a_former_stream_neither_renews_nor_asks(world).await;
    starving_calls_idle_slices_back(world).await;
    the_last_of_a_budget_goes_to_who_can_use_a_part(world).await;
    a_lowered_limit_stops_grants_and_calls_back(world).await;
    new_and_active_budgets_are_given_unasked(world).await;
    charges_without_a_lease_are_settled(world).await;
    a_closed_epoch_gives_back_exactly_what_is_left(world).await;
    an_epoch_that_lost_its_journal_is_charged(world).await;
    world.set_now(START);
    a_lost_node_is_charged_late_events_are_credited_and_an_operator_can_release(world).await;
    a_lost_lease_can_be_released_by_policy(world).await;
    spend_ages_out_of_a_rolling_window(world).await;
    an_exhausted_rolling_window_says_when_it_eases(world).await;
    the_next_window_is_given_ahead(world).await;
}

async fn grants_end_at_the_limit(world: &dyn World) {
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    let nodes: Vec<NodeEpoch> = (0..4).map(|at| node(&format!("limit-{at}"), 1)).collect();
    let mut out = 0;
    let mut exhausted = 0;
    let mut leases = vec![Bytes::new(); nodes.len()];
    for round in 0..200 {
        let (node, lease) = (&nodes[round % nodes.len()], &mut leases[round % nodes.len()]);
        let ask = BudgetReport { lease_id: lease.clone(), ..wants(budget, USD, USD / 100) };
        let directive = world.report(node, report(vec![ask])).await;
        if let Some(grant) = granted(&directive, budget) {
            *lease = grant.lease_id.clone();
        }
        exhausted += directive.exhausted.len();
        let window = world.window(budget).await;
        assert!(window.settled + window.outstanding + window.overrun <= USD, "{window:?}");
        out = window.outstanding;
    }
    // Single requests of a cent: what is left is less than one.
    assert!(out > USD - USD / 100, "{out}");
    assert!(exhausted > 0);
    let ask = BudgetReport { lease_id: leases[0].clone(), ..wants(budget, USD - out, USD - out) };
    world.report(&nodes[0], report(vec![ask.clone()])).await;
    assert_eq!(world.window(budget).await.outstanding, USD, "to the last nano-dollar");
    let directive = world.report(&nodes[0], report(vec![BudgetReport { wants: 1, needs: 1, ..ask }])).await;
    let said = &directive.exhausted[0];
    assert_eq!((said.limit, said.settled, said.outstanding), (USD, 0, USD));
    assert_eq!((said.resets_in_ms, said.eases_in_ms), (0, 0), "a total window never resets");
    assert!(said.retry_after_ms > 0, "what is outstanding may come back");
}

async fn a_lease_goes_on_and_a_doubled_report_is_harmless(world: &dyn World) {
    let budget = world.budget("day", None, 100 * USD, LostLease::Charge).await;
    let node = node("goes-on", 1);
    let first = world.lease(&node, budget, USD).await;
    assert_eq!(first.valid_after_ms, 0);
    assert_eq!(first.valid_for_ms, 12 * 3_600_000, "until midnight");
    assert_eq!(first.ttl_ms, settings().ttl_ms());
    let more =
        BudgetReport { lease_id: first.lease_id.clone(), returned_total: 5, ..wants(budget, USD, USD) };
    let before = world.window(budget).await;
    let second = world.report(&node, report(vec![more.clone()])).await;
    let second = granted(&second, budget).unwrap().clone();
    assert_eq!(second.lease_id, first.lease_id);
    assert!(second.granted_total > first.granted_total);
    let after = world.window(budget).await;
    let added = second.granted_total - first.granted_total;
    assert_eq!(after.outstanding, before.outstanding + added - 5);
    // Once more, and an old one: what was returned counts once.
    world.report(&node, report(vec![BudgetReport { wants: 0, needs: 0, ..more.clone() }])).await;
    let old = BudgetReport { wants: 0, needs: 0, returned_total: 2, ..more };
    world.report(&node, report(vec![old])).await;
    assert_eq!(world.window(budget).await.outstanding, after.outstanding);
}

async fn what_is_handed_back_can_be_granted_again(world: &dyn World) {
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    let (one, two) = (node("back-1", 1), node("back-2", 1));
    let grant = world.lease(&one, budget, USD).await;
    let refused = world.report(&two, report(vec![wants(budget, USD, USD)])).await;
    assert!(granted(&refused, budget).is_none());
    let back = BudgetReport {
        lease_id: grant.lease_id.clone(),
        returned_total: grant.granted_total,
        done: true,
        ..wants(budget, 0, 0)
    };
    world.report(&one, report(vec![back])).await;
    assert_eq!(world.state(lease_id(&grant)).await, LeaseState::Closed);
    assert_eq!(world.lease(&two, budget, USD).await.granted_total, USD);
}

async fn spending_settles_and_what_exceeds_the_lease_is_overrun(world: &dyn World) {
    let budget = world.budget("total", None, 10 * USD, LostLease::Charge).await;
    let node = node("spends", 1);
    let grant = world.lease(&node, budget, USD).await;
    let lease = lease_id(&grant);
    let entries = world.settle("spend-1", budget, Some(lease), 300).await;
    assert_eq!(entries.iter().map(|it| (it.kind, it.nanos.0)).collect::<Vec<_>>(), [(Kind::Settle, 300)]);
    let left = grant.granted_total - 300;
    let entries = world.settle("spend-2", budget, Some(lease), left + 7).await;
    let kinds: Vec<_> = entries.iter().map(|it| (it.kind, it.nanos.0)).collect();
    assert_eq!(kinds, [(Kind::Settle, left), (Kind::Overrun, 7)]);
    let window = world.window(budget).await;
    assert_eq!((window.settled, window.outstanding, window.overrun), (grant.granted_total, 0, 7));
}

async fn a_lost_grant_is_named_again(world: &dyn World) {
    let budget = world.budget("total", None, 100 * USD, LostLease::Charge).await;
    let node = node("loses-messages", 1);
    let lost = world.lease(&node, budget, USD).await;
    // It asks again, since it has heard nothing: the same money.
    let before = world.window(budget).await.outstanding;
    let again = world.lease(&node, budget, lost.granted_total).await;
    assert_eq!((again.lease_id.clone(), again.granted_total), (lost.lease_id.clone(), lost.granted_total));
    assert_eq!(world.window(budget).await.outstanding, before);
    // It connects again and knows nothing.
    let directive = world.report(&node, full(Vec::new())).await;
    assert_eq!(granted(&directive, budget).unwrap().granted_total, lost.granted_total);
}

async fn a_lease_that_is_done_is_not_granted_to(world: &dyn World) {
    let budget = world.budget("total", None, 100 * USD, LostLease::Charge).await;
    let node = node("is-done", 1);
    let grant = world.lease(&node, budget, USD).await;
    let done = BudgetReport { lease_id: grant.lease_id.clone(), done: true, ..wants(budget, USD, USD) };
    let directive = world.report(&node, report(vec![done.clone()])).await;
    let other = granted(&directive, budget).unwrap().clone();
    assert_ne!(other.lease_id, grant.lease_id);
    // Its events are on their way.
    assert_eq!(world.state(lease_id(&grant)).await, LeaseState::Done);
    let directive = world.report(&node, full(vec![BudgetReport { wants: 0, needs: 0, ..done }])).await;
    assert!(directive.grants.iter().all(|it| it.lease_id != grant.lease_id), "never named again");
    world.settle("done", budget, Some(lease_id(&grant)), grant.granted_total).await;
    assert_eq!(world.state(lease_id(&grant)).await, LeaseState::Closed);
    // What is closed is called back if it is reported all the same.
    let zombie = BudgetReport { lease_id: grant.lease_id.clone(), ..wants(budget, 0, 0) };
    let directive = world.report(&node, report(vec![zombie])).await;
    assert!(directive.recalls.iter().any(|recall| recall.lease_id == grant.lease_id), "{directive:?}");
}

async fn a_former_epoch_is_fenced(world: &dyn World) {
    let budget = world.budget("total", None, 100 * USD, LostLease::Charge).await;
    world.lease(&node("restarts", 1), budget, USD).await;
    let other = world.lease(&node("restarts", 2), budget, USD).await;
    let old = world.bank().report(&node("restarts", 1), &report(vec![wants(budget, 1, 1)])).await;
    assert!(matches!(old, Err(BankError::Fenced { epoch: 1, newest: 2 })), "{old:?}");
    // Each epoch has its own.
    assert_eq!(world.leases().await.iter().filter(|it| it.key.budget == budget).count(), 2);
    assert!(other.granted_total > 0);
}

async fn a_leftover_of_a_former_stream_neither_renews_nor_asks(world: &dyn World) {
    let budget = world.budget("total", None, 100 * USD, LostLease::Charge).await;
    let node = node("leftover", 1);
    let numbered = |seq, it: BudgetReport| LeaseReport { seq, ..report(vec![it]) };
    let directive = world.report(&node, numbered(7, wants(budget, USD, USD))).await;
    assert_eq!(directive.answers, 7);
    let grant = granted(&directive, budget).unwrap().clone();
    let before = world.window(budget).await.outstanding;
    let back = BudgetReport { lease_id: grant.lease_id, returned_total: 10, ..wants(budget, USD, USD) };
    let directive = world.report(&node, numbered(7, back)).await;
    assert!(directive.grants.is_empty(), "{directive:?}");
    assert_eq!(world.window(budget).await.outstanding, before - 10, "what it hands back counts");
}

async fn starving_calls_idle_slices_back(world: &dyn World) {
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    let (idle, busy) = (node("idle", 1), node("busy", 1));
    let grant = world.lease(&idle, budget, USD).await;
    let called = |recalls: &[Recall], grant: &BudgetGrant| {
        recalls.iter().any(|recall| recall.lease_id == grant.lease_id)
    };
    assert!(!called(&world.bank().recalls(&idle).await.unwrap(), &grant));
    let report_of = report(vec![wants(budget, 1000, 1000)]);
    let answer = world.bank().report(&busy, &report_of).await.unwrap();
    assert_eq!(answer.starved.len(), 1);
    assert_eq!(answer.directive.exhausted.len(), 1);
    assert!(called(&world.bank().recalls(&idle).await.unwrap(), &grant));
    let directive = world.report(&idle, report(Vec::new())).await;
    assert!(called(&directive.recalls, &grant), "with its next report, too");
    let back = BudgetReport { lease_id: grant.lease_id, returned_total: USD, ..wants(budget, 0, 0) };
    world.report(&idle, report(vec![back])).await;
    let directive = world.report(&busy, report_of).await;
    let fresh = granted(&directive, budget).unwrap();
    assert!(fresh.granted_total >= 1000);
    assert!(!called(&directive.recalls, fresh), "or it would be asked for again, and called back again");
}

async fn the_last_of_a_budget_goes_to_who_can_use_a_part(world: &dyn World) {
    let budget = world.budget("total", None, USD, LostLease::Charge).await;
    world.lease(&node("most", 1), budget, USD - 1000).await;
    let large = node("part", 1);
    let ask = |least, partial| BudgetReport { least, partial, ..wants(budget, 5000, 5000) };
    let directive = world.report(&large, report(vec![ask(1001, true)])).await;
    assert!(granted(&directive, budget).is_none(), "of no use");
    let said = &directive.exhausted[0];
    assert_eq!(said.limit - said.settled - said.outstanding, 1000, "a smaller request sees that it can ask");
    let directive = world.report(&large, report(vec![ask(1000, true)])).await;
    let grant = granted(&directive, budget).unwrap().clone();
    let said = &directive.exhausted[0];
    assert_eq!((grant.granted_total, said.outstanding), (1000, USD), "and the largest is told not to wait");
    // Nodes that don't tell how much is of use.
    let back = BudgetReport { lease_id: grant.lease_id, returned_total: 1000, ..wants(budget, 0, 0) };
    world.report(&large, report(vec![back])).await;
    assert!(granted(&world.report(&node("old", 1), report(vec![ask(0, false)])).await, budget).is_none());
    let directive = world.report(&node("older", 1), report(vec![ask(0, true)])).await;
    assert_eq!(granted(&directive, budget).unwrap().granted_total, 1000);
}

async fn a_lowered_limit_stops_grants_and_calls_back(world: &dyn World) {
    let budget = world.budget("total", None, 100 * USD, LostLease::Charge).await;
    let node = node("lowered", 1);
    let grant = world.lease(&node, budget, USD).await;
    world.set_limit(budget, 1).await;
    let directive = world.report(&node, report(Vec::new())).await;
    assert!(directive.recalls.iter().any(|recall| recall.lease_id == grant.lease_id), "{directive:?}");
    let directive = world.report(&node, report(vec![wants(budget, 1, 1)])).await;
    let more = granted(&directive, budget).map(|it| it.granted_total);
    assert!(more.is_none_or(|total| total == grant.granted_total), "{directive:?}");
    world.set_limit(budget, 200 * USD).await;
    let more = BudgetReport { lease_id: grant.lease_id.clone(), ..wants(budget, 2 * USD, 2 * USD) };
    let directive = world.report(&node, report(vec![more])).await;
    assert!(granted(&directive, budget).unwrap().granted_total > grant.granted_total);
}

async fn new_and_active_budgets_are_given_unasked(world: &dyn World) {
    let node = node("stands-by", 1);
    world.report(&node, full(Vec::new())).await;
    let budget = world.budget("month", None, 100 * USD, LostLease::Charge).await;
    let directive = world.report(&node, report(Vec::new())).await;
    let grant = granted(&directive, budget).expect("of a new budget").clone();
    assert!(grant.granted_total > 0 && grant.granted_total <= settings().min_slice.0, "{grant:?}");
    let other = world.report(&self::node("connects", 1), full(Vec::new())).await;
    assert!(granted(&other, budget).is_some(), "of an active one");
}

async fn charges_without_a_lease_are_settled(world: &dyn World) {
    let budget = world.budget("day", None, USD, LostLease::Charge).await;
    let entries = world.settle("bare", budget, None, 3 * USD).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].kind, entries[0].nanos.0), (Kind::Settle, 3 * USD));
    let window = world.window(budget).await;
    assert_eq!((window.settled, window.key.start * 1000), (3 * USD, START - 12 * HOUR));
    // Of a lease that nobody knows: nobody stood for it.
    let entries = world.settle("unknown", budget, Some(LeaseId::generate()), 5).await;
    assert_eq!((entries[0].kind, entries[0].lease_id), (Kind::Overrun, None));
    let gone = world.settle("gone", BudgetId::generate(), None, 5).await;
    assert!(gone.is_empty(), "a budget that is gone has no books");
}

async fn a_closed_epoch_gives_back_exactly_what_is_left(world: &dyn World) {
    let budget = world.budget("total", None, 10 * USD, LostLease::Charge).await;
    let grant = world.lease(&node("came-back", 1), budget, USD).await;
    world.settle("came-back", budget, Some(lease_id(&grant)), 400).await;
    let over = vec![CloseEpoch { epoch: 1, exact: true }];
    let directive =
        world.report(&node("came-back", 2), LeaseReport { closed_epochs: over, ..full(Vec::new()) }).await;
    assert_eq!(directive.epochs_closed, [1]);
    let lease = world.leases().await.into_iter().find(|it| it.id == lease_id(&grant)).unwrap();
    assert_eq!((lease.state, lease.forfeited, lease.spent), (LeaseState::Closed, 0, 400));
    assert_eq!(world.window(budget).await.settled, 400);
    // Its own epoch is not over because it says so.
    let over = vec![CloseEpoch { epoch: 2, exact: true }];
    let directive =
        world.report(&node("came-back", 2), LeaseReport { closed_epochs: over, ..report(Vec::new()) }).await;
    assert!(directive.epochs_closed.is_empty());
}

async fn an_epoch_that_lost_its_journal_is_charged(world: &dyn World) {
    let budget = world.budget("total", None, 10 * USD, LostLease::Charge).await;
    let grant = world.lease(&node("lost-disk", 1), budget, USD).await;
    world.report(&node("lost-disk", 2), full(Vec::new())).await;
    let entries = world.bank().close_epoch("lost-disk", 1, false).await.unwrap();
    world.check().await;
    let entry = entries.iter().find(|entry| entry.budget_id == Some(budget)).unwrap();
    assert_eq!((entry.kind, entry.nanos.0), (Kind::Forfeit, grant.granted_total));
    assert!(world.bank().close_epoch("lost-disk", 1, false).await.unwrap().is_empty(), "once");
}

async fn a_lost_node_is_charged_late_events_are_credited_and_an_operator_can_release(world: &dyn World) {
    let budget = world.budget("total", None, 10 * USD, LostLease::Charge).await;
    let grant = world.lease(&node("dies", 1), budget, USD).await;
    let (lease, all) = (lease_id(&grant), grant.granted_total);
    let ttl = Millis::from(settings().ttl_ms());
    world.set_now(START + ttl);
    world.expire_all().await;
    assert_eq!(world.state(lease).await, LeaseState::Active, "the margin is not over");
    world.set_now(START + ttl + settings().margin_ms() + 1);
    world.expire_all().await;
    assert_eq!(world.state(lease).await, LeaseState::Held);
    world.settle("late-1", budget, Some(lease), 100).await;
    assert_eq!(world.window(budget).await.settled, 100, "events may still come");
    world.set_now(world.now() + settings().hold_ms() + 1);
    assert!(world.expire_all().await.forfeited >= all - 100);
    let window = world.window(budget).await;
    assert_eq!((window.settled, window.outstanding), (all, 0));
    let entries = world.settle("late-2", budget, Some(lease), 50).await;
    let kinds: Vec<_> = entries.iter().map(|it| (it.kind, it.nanos.0)).collect();
    assert_eq!(kinds, [(Kind::Settle, 50), (Kind::Adjust, -50)]);
    assert_eq!(world.window(budget).await.settled, all, "it was charged already");
    assert_eq!(world.bank().release(lease).await.unwrap(), Some(all - 150));
    world.check().await;
    assert_eq!(world.window(budget).await.settled, 150);
    assert_eq!(world.bank().release(lease).await.unwrap(), Some(0), "once");
    assert_eq!(world.bank().release(LeaseId::generate()).await.unwrap(), None);
}

async fn a_lost_lease_can_be_released_by_policy(world: &dyn World) {
    let budget = world.budget("total", None, 10 * USD, LostLease::Release).await;
    let grant = world.lease(&node("dies-cheaply", 1), budget, USD).await;
    let gone = Millis::from(settings().ttl_ms()) + settings().margin_ms() + 1;
    world.set_now(world.now() + gone);
    world.expire_all().await;
    world.set_now(world.now() + settings().hold_ms() + 1);
    world.expire_all().await;
    let window = world.window(budget).await;
    assert_eq!((window.settled, window.outstanding), (0, 0));
    // It had been spent after all.
    let entries = world.settle("cheap", budget, Some(lease_id(&grant)), 9).await;
    assert_eq!((entries[0].kind, entries[0].nanos.0), (Kind::Overrun, 9));
}

async fn spend_ages_out_of_a_rolling_window(world: &dyn World) {
    let budget = world.budget("rolling", Some(2), USD, LostLease::Charge).await;
    let hour = (world.now() / HOUR + 1) * HOUR;
    // At the very end of one hour and in the middle of the next.
    let began = hour - 1;
    world.set_now(began);
    world.settle("rolling-1", budget, None, 600).await;
    world.set_now(hour + HOUR / 2);
    world.settle("rolling-2", budget, None, 30).await;
    world.expire_all().await;
    assert_eq!(world.window(budget).await.settled, 630);
    world.set_now(began + 2 * HOUR);
    world.expire_all().await;
    let window = world.window(budget).await;
    assert_eq!((window.settled, window.aged), (630, 0), "for two hours");
    world.set_now(hour + 2 * HOUR);
    world.expire_all().await;
    let window = world.window(budget).await;
    assert_eq!((window.settled, window.aged), (30, 600));
    world.set_now(hour + 3 * HOUR);
    world.expire_all().await;
    assert_eq!(world.window(budget).await.settled, 0);
}

/// At the end of the hour, when the oldest may age out of it.
async fn an_exhausted_rolling_window_says_when_it_eases(world: &dyn World) {
    let budget = world.budget("rolling", Some(24), USD, LostLease::Charge).await;
    world.set_now((world.now() / HOUR + 1) * HOUR + HOUR / 4);
    world.settle("eases", budget, None, USD).await;
    let directive = world.report(&node("eases", 1), report(vec![wants(budget, 1, 1)])).await;
    let said = &directive.exhausted[0];
    assert_eq!((said.settled, said.outstanding, said.resets_in_ms), (USD, 0, 0));
    assert_eq!(i64::try_from(said.eases_in_ms), Ok(HOUR / 4 * 3));
}

async fn the_next_window_is_given_ahead(world: &dyn World) {
    let day = 24 * HOUR;
    let midnight = (world.now() / day + 1) * day;
    world.set_now(midnight - 4 * HOUR);
    let budget = world.budget("day", None, 100 * USD, LostLease::Charge).await;
    let node = node("night-owl", 1);
    world.report(&node, full(Vec::new())).await;
    world.lease(&node, budget, USD).await;
    world.set_now(midnight - 1000);
    let directive = world.report(&node, report(Vec::new())).await;
    let next = granted(&directive, budget).expect("of the next window").clone();
    assert_eq!(next.window_start_unix_s * 1000, midnight);
    assert_eq!(next.valid_after_ms, 1000);
    assert_eq!(next.valid_for_ms, u64::try_from(day).unwrap() + 1000);
    let directive = world.report(&node, report(Vec::new())).await;
    assert!(granted(&directive, budget).is_none(), "once");
}

struct InMemory {
    bank: MemoryBank,
}

#[tonic::async_trait]
impl World for InMemory {
    fn bank(&self) -> &dyn Bank {
        &self.bank
    }

    fn now(&self) -> Millis {
        self.bank.now()
    }

    fn set_now(&self, now: Millis) {
        self.bank.set_now(now);
    }

    async fn budget(&self, kind: &str, hours: Option<i64>, limit: i64, lost: LostLease) -> BudgetId {
        let window = Window::parse(kind, hours, "UTC").unwrap();
        let budget = BudgetId::generate();
        let org = OrgId::generate();
        self.bank.put_budget(Terms { budget, org, window, limit, lost, disabled: false });
        budget
    }

    async fn set_limit(&self, budget: BudgetId, limit: i64) {
        let window = Window::parse("total", None, "UTC").unwrap();
        let (org, lost) = (OrgId::generate(), LostLease::Charge);
        self.bank.put_budget(Terms { budget, org, window, limit, lost, disabled: false });
    }

    async fn windows(&self) -> Vec<WindowRow> {
        self.bank.windows()
    }

    async fn leases(&self) -> Vec<LeaseRow> {
        self.bank.leases()
    }

    async fn entries(&self, budget: BudgetId) -> Vec<Entry> {
        self.bank.entries().into_iter().filter(|entry| entry.budget_id == Some(budget)).collect()
    }
}

#[tokio::test]
async fn a_bank_in_memory_keeps_the_contract() {
    run(&InMemory { bank: MemoryBank::new(settings(), START) }).await;
}
