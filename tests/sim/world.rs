//! Time, events and links. Everything that happens is an event with a time; what it causes are events later on.

mod links;
mod requests;
mod trouble;

use std::{collections::BTreeMap, sync::Arc};

use fastrand::Rng;
use futures_util::FutureExt as _;
use nemo_control_plane::quota::{books::LostLease, desk::Terms};
use nemo_data_plane::{quota::Denied, usage::journal::Batch};
use nemo_proto::quota::{CloseEpoch, LeaseDirective, LeaseReport};
use nemo_snapshot::{Budget, BudgetKind, NoLease, OverBudget, ReservationBound, Scope};
use nemo_types::BudgetId;

use crate::{
    model::Disk,
    node::{Begun, Need, Node, Process},
    oracle::{Expected, Oracle, Promise, left},
    plane::{Plane, node_epoch, settings, terms},
    sabotage::Sabotage,
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
/// No reservation is larger.
const LARGEST: i64 = 32_000_000;

#[derive(Debug)]
enum What {
    Arrive {
        retry: Option<(usize, Vec<usize>, Need)>,
    },
    Extend {
        node: usize,
        inc: u64,
        id: u128,
    },
    End {
        node: usize,
        inc: u64,
        id: u128,
    },
    /// The node's timers: report when it is due, ship what is there.
    Tick {
        node: usize,
        inc: u64,
    },
    Report {
        node: usize,
        inc: u64,
    },
    ToPlane {
        node: usize,
        name: Arc<str>,
        epoch: u64,
        report: LeaseReport,
    },
    ToNode {
        node: usize,
        inc: u64,
        /// The stream that it came on: none gives anything once the next one has begun.
        stream: u32,
        directive: LeaseDirective,
    },
    Batch {
        node: usize,
        inc: u64,
        number: u64,
        batch: Batch,
    },
    Acked {
        node: usize,
        inc: u64,
        number: u64,
        count: usize,
    },
    Sync {
        node: usize,
        inc: u64,
    },
    Crash,
    Restart {
        node: usize,
    },
    Partition,
    Heal {
        node: usize,
    },
    PlaneRestart,
    Limits,
    Expire,
    Pause,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub worlds: u64,
    pub steps: u64,
    pub checks: u64,
    pub dispatched: u64,
    pub denied: u64,
    pub extensions_refused: u64,
    pub lost_requests: u64,
    pub uncertain_requests: u64,
    pub kills: u64,
    pub power_losses: u64,
    pub lost_disks: u64,
    pub partitions: u64,
    pub plane_restarts: u64,
    pub limits_changed: u64,
    pub messages_lost: u64,
    pub messages_doubled: u64,
    pub messages_late: u64,
    pub fenced: u64,
    pub duplicates: u64,
    pub leases: u64,
    pub leases_expired: u64,
    pub forfeited: u64,
    pub overruns: u64,
    pub above_bound: u64,
    pub unleased: u64,
    pub windows: u64,
    pub journal_full: u64,
}

impl Stats {
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.all().into_iter().zip(other.clone().all()) {
            *sum += *more;
        }
    }

    fn all(&mut self) -> Vec<&mut u64> {
        vec![
            &mut self.worlds,
            &mut self.steps,
            &mut self.checks,
            &mut self.dispatched,
            &mut self.denied,
            &mut self.extensions_refused,
            &mut self.lost_requests,
            &mut self.uncertain_requests,
            &mut self.kills,
            &mut self.power_losses,
            &mut self.lost_disks,
            &mut self.partitions,
            &mut self.plane_restarts,
            &mut self.limits_changed,
            &mut self.messages_lost,
            &mut self.messages_doubled,
            &mut self.messages_late,
            &mut self.fenced,
            &mut self.duplicates,
            &mut self.leases,
            &mut self.leases_expired,
            &mut self.forfeited,
            &mut self.overruns,
            &mut self.above_bound,
            &mut self.unleased,
            &mut self.windows,
            &mut self.journal_full,
        ]
    }

    /// A simulation in which nothing happens proves nothing.
    pub fn assert_covered(&self) {
        let Self { dispatched, kills, power_losses, lost_disks, partitions, fenced, duplicates, .. } =
            self.clone();
        let Self { leases_expired, forfeited, above_bound, unleased, lost_requests, denied, .. } =
            self.clone();
        let counts = [
            dispatched,
            kills,
            power_losses,
            lost_disks,
            partitions,
            fenced,
            duplicates,
            leases_expired,
            forfeited,
            above_bound,
            unleased,
            lost_requests,
            denied,
            self.extensions_refused,
            self.limits_changed,
            self.messages_late,
            self.uncertain_requests,
            self.plane_restarts,
        ];
        assert!(counts.iter().all(|count| *count > 0), "something never happened: {self:#?}");
    }
}

pub struct World {
    rng: Rng,
    now: u64,
    queue: BTreeMap<(u64, u64), What>,
    queued: u64,
    plane: Plane,
    nodes: Vec<Node>,
    budgets: Vec<(Arc<Budget>, Terms)>,
    oracle: Oracle,
    /// Which node each request is on.
    placed: BTreeMap<u128, usize>,
    next_request: u128,
    next_inc: u64,
    /// Trouble is over: links work, nobody dies.
    calm: bool,
    /// No more requests.
    still: bool,
    sabotage: Sabotage,
    trace: bool,
    pub stats: Stats,
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotage) -> Self {
        let mut rng = Rng::with_seed(seed);
        let ttl_s = *rng.choice(&[20, 60, 300]).unwrap();
        let drift = rng.i64(-300..=300);
        let plane = Plane::new(settings(ttl_s), drift, sabotage);
        let nodes = (0..rng.usize(1..=5)).map(|at| Node::new(format!("node-{at}"), rng.i64(-300..=300)));
        let mut world = Self {
            now: SECOND,
            queue: BTreeMap::new(),
            queued: 0,
            plane,
            nodes: nodes.collect(),
            budgets: Vec::new(),
            oracle: Oracle { honest: rng.bool(), half: sabotage == Sabotage::NoLimit, ..Oracle::default() },
            placed: BTreeMap::new(),
            next_request: 1,
            next_inc: 1,
            calm: false,
            still: false,
            sabotage,
            trace: std::env::var_os("NEMO_SIM_TRACE").is_some(),
            stats: Stats { worlds: 1, ..Stats::default() },
            rng,
        };
        world.make_budgets();
        (0..world.nodes.len()).for_each(|node| world.start(node));
        for first in [
            What::Arrive { retry: None },
            What::Crash,
            What::Partition,
            What::PlaneRestart,
            What::Limits,
            What::Expire,
            What::Pause,
        ] {
            let after = world.rng.u64(0..60 * SECOND);
            world.after(after, first);
        }
        world
    }

    fn make_budgets(&mut self) {
        for number in 0..self.rng.u128(2..=7) {
            let window = *self
                .rng
                .choice(&[
                    ("total", None),
                    ("total", None),
                    ("day", None),
                    ("rolling", Some(1)),
                    ("month", None),
                ])
                .unwrap();
            let limit = *self.rng.choice(&[3_000_000, 200_000_000, 2_000_000_000, 50_000_000_000]).unwrap();
            let lost = if self.rng.u8(0..4) == 0 { LostLease::Release } else { LostLease::Charge };
            let no_lease = if self.rng.u8(0..5) == 0 { NoLease::Allow } else { NoLease::Deny };
            let terms = terms(1000 + number, window, limit, lost);
            let budget = Arc::new(Budget {
                id: terms.budget,
                name: "b".into(),
                scope: Scope::Organization,
                kind: BudgetKind::Limit,
                over_budget: if self.rng.bool() { OverBudget::Cap } else { OverBudget::Reject },
                no_lease,
                bound: ReservationBound::Strict,
            });
            let strict = no_lease == NoLease::Deny && lost == LostLease::Charge;
            self.oracle.promises.insert(terms.budget, Promise { strict, lost });
            self.plane.put(&terms);
            self.budgets.push((budget, terms));
        }
    }

    fn after(&mut self, delay: u64, what: What) {
        self.queued += 1;
        self.queue.insert((self.now + delay, self.queued), what);
    }

    fn start(&mut self, node: usize) {
        let inc = self.next_inc;
        self.next_inc += 1;
        self.nodes[node].start(inc, self.now);
        let first = self.rng.u64(0..2 * SECOND);
        self.after(first, What::Tick { node, inc });
        self.after(first + MS, What::Sync { node, inc });
    }

    /// The process, if it is still that one.
    fn process(&mut self, node: usize, inc: u64) -> Option<&mut Process> {
        self.nodes[node].at(self.now).filter(|process| process.inc == inc)
    }

    pub fn run(&mut self, steps: u64) {
        while self.stats.steps < steps {
            self.step();
        }
    }

    fn step(&mut self) {
        let ((at, _), what) = self.queue.pop_first().expect("somebody always has something to do");
        self.now = self.now.max(at);
        self.plane.set_now(self.now);
        self.stats.steps += 1;
        self.happen(what);
        if self.stats.steps.is_multiple_of(64) {
            self.oracle.leases(&self.plane, &mut self.nodes, self.now);
        }
    }

    fn happen(&mut self, what: What) {
        if self.trace {
            println!("{:>9} ms {what:?}", self.now / MS);
        }
        match what {
            What::Arrive { retry } => self.arrive(retry),
            What::Extend { node, inc, id } => self.extend(node, inc, id),
            What::End { node, inc, id } => self.end(node, inc, id),
            What::Tick { node, inc } => self.tick(node, inc),
            What::Report { node, inc } => self.report_early(node, inc),
            What::ToPlane { node, name, epoch, report } => self.at_plane(node, &name, epoch, &report),
            What::ToNode { node, inc, stream, directive } => self.at_node((node, inc, stream), &directive),
            What::Batch { node, inc, number, batch } => self.ingest(node, inc, number, &batch),
            What::Acked { node, inc, number, count } => self.acked(node, inc, number, count),
            What::Sync { node, inc } => self.sync(node, inc),
            What::Crash => self.crash(),
            What::Restart { node } => self.start(node),
            What::Partition => self.partition(),
            What::Heal { node } => self.nodes[node].partitioned = false,
            What::PlaneRestart => self.plane_restart(),
            What::Limits => self.limits(),
            What::Expire => self.expire(),
            What::Pause => self.pause(),
        }
    }

    // Requests

    /// Time passes for everybody, and nobody notices until afterwards: a suspended host, a long pause.
    fn pause(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.u64(60 * SECOND..1800 * SECOND);
        let long = if self.rng.u8(0..4) == 0 { 1200 * SECOND } else { 10 * SECOND };
        self.now += self.rng.u64(0..long);
        self.after(next, What::Pause);
    }

    // The end

    /// Everything comes to rest; then the oracles look at all of it.
    pub fn finish(&mut self) {
        self.calm = true;
        self.still = true;
        for node in 0..self.nodes.len() {
            self.nodes[node].partitioned = false;
        }
        // Requests end, events arrive, leases of the dead run out.
        let ttl = u64::from(self.plane.settings.lease_ttl_s) * SECOND;
        self.until(self.now + 700 * SECOND + 2 * ttl + 300 * SECOND);
        self.oracle.leases(&self.plane, &mut self.nodes, self.now);
        self.oracle.books(&self.plane);
        self.usable();
        self.drain();
        self.until(self.now + 30 * SECOND);
        self.oracle.books(&self.plane);
        self.oracle.ended(&self.plane);
        self.count();
    }

    fn until(&mut self, end: u64) {
        let (from, steps) = (self.now, self.stats.steps);
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at < end) {
            self.step();
            // Some hundred per second are what nodes need; more is nodes and control plane keeping each other busy.
            let fair = 20_000 + (self.now - from) / SECOND * 300;
            assert!(self.stats.steps - steps < fair, "messages without end at {} ms", self.now / MS);
        }
        self.now = self.now.max(end);
        self.plane.set_now(self.now);
    }

    /// Liveness: what is left of a budget can be had, by any node, down to the last nano-dollar; where requests can be cut
    /// down, also by one that would need more.
    fn usable(&mut self) {
        for at in 0..self.budgets.len() {
            let (budget, terms) = (self.budgets[at].0.clone(), self.budgets[at].1.clone());
            if terms.disabled {
                continue;
            }
            let span = terms.span(self.plane.bank.now());
            let window = self.plane.bank.windows().into_iter().find(|it| it.key == terms.key(span));
            let left = window.map_or(terms.limit, |window| left(&window));
            if left <= 0 || budget.no_lease == NoLease::Allow {
                continue;
            }
            let node = self.rng.usize(..self.nodes.len());
            self.have_all(node, &budget, left);
        }
    }

    fn have_all(&mut self, node: usize, budget: &Arc<Budget>, left: i64) {
        let end = self.now + 120 * SECOND;
        let more = if budget.over_budget == OverBudget::Cap { self.rng.i64(0..LARGEST) } else { 0 };
        let need = Need { bound: left.saturating_add(more), least: left, waited: true };
        loop {
            let (id, now) = (self.next_request, self.now);
            self.next_request += 1;
            let process = self.nodes[node].at(now).expect("nobody is dead any more");
            let begun = process.begin(id, std::slice::from_ref(budget), need, 10, now);
            if matches!(begun, Begun::Dispatched) {
                let actual = process.requests[&id].actual;
                process.end(id, actual);
                self.oracle.expected.insert(id, Expected::Exact(actual));
                return;
            }
            self.urge(node);
            if self.now > end {
                panic!("{left} are left of {budget:?}, and can't be had: {:#?}", self.view(budget.id));
            }
            self.until(self.now + 200 * MS);
        }
    }

    fn view(&mut self, budget: BudgetId) -> String {
        let windows: Vec<_> =
            self.plane.bank.windows().into_iter().filter(|it| it.key.budget == budget).collect();
        let leases =
            self.plane.bank.leases().into_iter().filter(|it| it.key.budget == budget && !it.is_closed());
        let leases: Vec<_> = leases.collect();
        let held: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| node.process.as_ref())
            .flat_map(|process| process.table.held())
            .filter(|held| held.budget == budget)
            .collect();
        format!("{windows:#?}\n{leases:#?}\n{held:#?}")
    }

    /// As on SIGTERM, after the last request.
    fn drain(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(process) = self.nodes[node].at(self.now) {
                process.table.drain();
            }
            self.urge(node);
        }
        let end = self.now + 30 * SECOND;
        self.until(end);
        for node in &self.nodes {
            let process = node.process.as_ref().expect("nobody is dead any more");
            assert!(process.table.is_empty(), "not everything was handed back: {:#?}", process.table.held());
            assert_eq!(process.journal.stats().waiting, 0, "events wait for ever");
        }
    }

    fn count(&mut self) {
        let leases = self.plane.bank.leases();
        self.stats.leases = leases.len() as u64;
        self.stats.forfeited = leases.iter().filter(|lease| lease.forfeited > 0).count() as u64;
        self.stats.overruns = leases.iter().filter(|lease| lease.overrun > 0).count() as u64;
        self.stats.windows = self.plane.bank.windows().len() as u64;
        self.stats.fenced = self.plane.fenced;
        self.stats.duplicates = self.plane.duplicates;
        self.stats.checks = self.oracle.checks;
    }
}
