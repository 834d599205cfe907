//! Time, events and links. Everything that happens is an event with a time; what it causes are events later on.

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
    node::{Begun, Node, Process},
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
        retry: Option<(usize, Vec<usize>, i64)>,
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
                over_budget: OverBudget::Reject,
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

    fn arrive(&mut self, retry: Option<(usize, Vec<usize>, i64)>) {
        if retry.is_none() && !self.still {
            let next = self.rng.u64(MS..2 * SECOND);
            self.after(next, What::Arrive { retry: None });
        }
        let again = retry.is_some();
        let (node, scopes, bound) = retry.unwrap_or_else(|| {
            let count = self.rng.usize(1..=3.min(self.budgets.len()));
            let mut scopes: Vec<usize> = (0..self.budgets.len()).collect();
            self.rng.shuffle(&mut scopes);
            scopes.truncate(count);
            let bound =
                if self.rng.u8(0..10) == 0 { self.rng.i64(0..30_000_000) } else { self.rng.i64(1..600_000) };
            (self.rng.usize(..self.nodes.len()), scopes, bound)
        });
        let budgets: Vec<_> = scopes.iter().map(|at| self.budgets[*at].0.clone()).collect();
        let actual = self.rng.i64(0..=bound);
        let (id, now) = (self.next_request, self.now);
        self.next_request += 1;
        let Some(process) = self.nodes[node].at(now) else { return };
        let inc = process.inc;
        match process.begin(id, &budgets, bound, actual, now) {
            Begun::Dispatched => {
                self.stats.dispatched += 1;
                let reserved = self.reserved(node, id);
                self.stats.unleased += u64::from(self.is_unleased(node, id));
                self.oracle.expected.insert(id, Expected::Open { reserved });
                self.placed.insert(id, node);
                if self.rng.u8(0..3) == 0 {
                    let after = self.rng.u64(MS..20 * SECOND);
                    self.after(after, What::Extend { node, inc, id });
                } else {
                    let longest = if self.rng.u8(0..20) == 0 { 600 * SECOND } else { 10 * SECOND };
                    let after = self.rng.u64(MS..longest);
                    self.after(after, What::End { node, inc, id });
                }
            }
            Begun::Denied(denied) => {
                self.stats.denied += 1;
                if !again && !matches!(denied, Denied::Exhausted { .. }) {
                    self.after(100 * MS, What::Arrive { retry: Some((node, scopes, bound)) });
                }
            }
            Begun::JournalFull => self.stats.journal_full += 1,
        }
        self.urge(node);
    }

    fn reserved(&mut self, node: usize, id: u128) -> i64 {
        let process = self.nodes[node].process.as_ref().unwrap();
        process.requests[&id].hold.reserved().0
    }

    fn is_unleased(&mut self, node: usize, id: u128) -> bool {
        let process = self.nodes[node].process.as_ref().unwrap();
        process.requests[&id].hold.charges().iter().any(|charge| charge.lease.is_none())
    }

    fn extend(&mut self, node: usize, inc: u64, id: u128) {
        let more = self.rng.i64(1..300_000);
        let Some(process) = self.process(node, inc) else { return };
        let went_on = process.extend(id, more);
        let Some(request) = process.requests.get_mut(&id) else { return };
        if went_on {
            request.actual += more / 2;
        }
        let (reserved, extensions) = (request.hold.reserved().0, request.extensions);
        self.oracle.expected.insert(id, Expected::Open { reserved });
        self.stats.extensions_refused += u64::from(!went_on);
        let after = self.rng.u64(MS..20 * SECOND);
        let next = if went_on && extensions < 6 {
            What::Extend { node, inc, id }
        } else {
            What::End { node, inc, id }
        };
        self.after(after, next);
        self.urge(node);
    }

    fn end(&mut self, node: usize, inc: u64, id: u128) {
        let above = !self.oracle.honest && self.rng.u8(0..30) == 0;
        let excess = self.rng.i64(1..2_000_000);
        let Some(process) = self.process(node, inc) else { return };
        let Some(request) = process.requests.get(&id) else { return };
        let reserved = request.hold.reserved().0;
        let actual = if above { reserved + excess } else { request.actual.min(reserved) };
        process.end(id, actual);
        self.oracle.expected.insert(id, Expected::Exact(actual));
        self.stats.above_bound += u64::from(above);
        self.urge(node);
    }

    // The node's conversations

    fn tick(&mut self, node: usize, inc: u64) {
        if self.process(node, inc).is_none() {
            return;
        }
        self.after(2 * SECOND, What::Tick { node, inc });
        self.report(node, inc);
        self.ship(node, inc);
    }

    /// As the stream does when something is urgent: at once, but one report at a time.
    fn urge(&mut self, node: usize) {
        let Some(process) = self.nodes[node].at(self.now) else { return };
        let urgent = process.table.urgent().now_or_never().is_some();
        process.report_due |= urgent;
        if process.report_due && process.unanswered.is_none() {
            let inc = process.inc;
            process.report_due = false;
            self.after(MS, What::Report { node, inc });
        }
    }

    /// One report at a time, but for those that are due.
    fn report_early(&mut self, node: usize, inc: u64) {
        let Some(process) = self.process(node, inc) else { return };
        process.retries = false;
        if process.unanswered.is_some() {
            process.report_due = true;
        } else {
            self.report(node, inc);
        }
    }

    fn report(&mut self, node: usize, inc: u64) {
        let now = self.now;
        let sabotage = self.sabotage;
        let (name, epoch) = (self.nodes[node].name.clone(), self.nodes[node].epoch);
        let Some(process) = self.process(node, inc) else { return };
        if process.unanswered.is_some_and(|since| now - since > 10 * SECOND) {
            // The stream is taken for dead: another one begins.
            (process.begin, process.unanswered, process.broken) = (true, None, false);
            (process.stream, process.up, process.down) = (process.stream + 1, 0, 0);
            process.batch += u64::from(process.unacked.is_some());
        }
        let full = std::mem::take(&mut process.begin);
        let mut report = process.table.report(full);
        let over = process.journal.closed_epochs().into_iter();
        report.closed_epochs = over.map(|(epoch, exact)| CloseEpoch { epoch, exact }).collect();
        if sabotage == Sabotage::ClosedTooEarly {
            report.closed_epochs = (1..epoch).map(|epoch| CloseEpoch { epoch, exact: true }).collect();
        }
        process.unanswered.get_or_insert(now);
        self.send(node, || What::ToPlane { node, name: name.clone(), epoch, report: report.clone() });
    }

    fn at_plane(&mut self, node: usize, name: &Arc<str>, epoch: u64, report: &LeaseReport) {
        let answer = self.plane.report(&node_epoch(name, epoch), report);
        self.oracle.windows(&self.plane);
        let Some(directive) = answer else { return };
        let Some(process) = &self.nodes[node].process else { return };
        if self.nodes[node].epoch == epoch && self.nodes[node].name == *name {
            let (inc, stream) = (process.inc, process.stream);
            self.send(node, || What::ToNode { node, inc, stream, directive: directive.clone() });
        }
    }

    fn at_node(&mut self, (node, inc, stream): (usize, u64, u32), directive: &LeaseDirective) {
        let Some(process) = self.process(node, inc).filter(|it| it.stream == stream) else { return };
        process.unanswered = None;
        process.table.apply(directive);
        for epoch in &directive.epochs_closed {
            process.journal.forget_epoch(*epoch);
        }
        if let Some(after) = process.table.retry_in().filter(|_| !process.retries) {
            process.retries = true;
            let after = u64::try_from(after.as_nanos()).unwrap();
            self.after(after, What::Report { node, inc });
        }
        self.urge(node);
    }

    fn ship(&mut self, node: usize, inc: u64) {
        let Some(process) = self.process(node, inc) else { return };
        if process.unacked.is_none() {
            process.unacked = process.journal.take(50);
            process.batch += 1;
        }
        let Some(batch) = process.unacked.clone() else { return };
        let number = process.batch;
        self.send(node, || What::Batch { node, inc, number, batch: batch.clone() });
    }

    fn ingest(&mut self, node: usize, inc: u64, number: u64, batch: &Batch) {
        for (id, event) in self.plane.ingest(&batch.events) {
            self.oracle.ingested(id, &event);
        }
        self.oracle.windows(&self.plane);
        let count = batch.events.len();
        self.send(node, || What::Acked { node, inc, number, count });
    }

    fn acked(&mut self, node: usize, inc: u64, number: u64, count: usize) {
        let Some(process) = self.process(node, inc) else { return };
        if process.batch != number || process.unacked.take().is_none() {
            return;
        }
        process.journal.acknowledged(count);
        self.ship(node, inc);
    }

    fn sync(&mut self, node: usize, inc: u64) {
        let pause = self.rng.u64(MS..5 * SECOND);
        let Some(process) = self.process(node, inc) else { return };
        process.journal.tend();
        self.after(pause, What::Sync { node, inc });
    }

    /// What a link does with a message.
    fn send(&mut self, node: usize, message: impl Fn() -> What) {
        // A stream loses nothing but its end: after one message, all are gone, until the node begins another.
        let apart = self.nodes[node].partitioned;
        let Some(process) = &mut self.nodes[node].process else { return };
        process.broken |= apart;
        if process.broken {
            self.stats.messages_lost += 1;
            return;
        }
        if self.calm {
            let last = process.up.max(process.down).max(self.now + MS);
            self.after(last - self.now, message());
            return;
        }
        if self.rng.u8(0..60) == 0 {
            self.stats.messages_lost += 1;
            process.broken = true;
            return;
        }
        let copies = if self.rng.u8(0..30) == 0 { 2 } else { 1 };
        self.stats.messages_doubled += copies - 1;
        for copy in 0..copies {
            let longest = match self.rng.u8(0..100) {
                0 => 200 * SECOND,
                1..5 => 5 * SECOND,
                _ => 50 * MS,
            };
            self.stats.messages_late += u64::from(longest > 5 * SECOND);
            let mut at = self.now + self.rng.u64(MS / 10..longest);
            let message = message();
            // A stream keeps its order; the second copy of a message is a leftover, and comes whenever it likes.
            let process = self.nodes[node].process.as_mut().filter(|_| copy == 0);
            if let (Some(process), What::ToPlane { .. } | What::ToNode { .. }) = (process, &message) {
                let last = match &message {
                    What::ToPlane { .. } => &mut process.up,
                    _ => &mut process.down,
                };
                at = at.max(*last);
                *last = at;
            }
            self.after(at - self.now, message);
        }
    }

    // Trouble

    fn crash(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.u64(SECOND..300 * SECOND);
        self.after(next, What::Crash);
        let node = self.rng.usize(..self.nodes.len());
        let kind = self.rng.u8(0..10);
        self.kill(node, kind);
    }

    fn kill(&mut self, node: usize, kind: u8) {
        let Some(process) = self.nodes[node].process.take() else { return };
        for id in process.requests.keys() {
            let reserved = process.requests[id].hold.reserved().0;
            self.oracle.expected.insert(*id, Expected::Lost(reserved));
            self.stats.lost_requests += 1;
        }
        let disk = self.nodes[node].disk.clone();
        match kind {
            0..6 => {
                self.stats.kills += 1;
                self.nodes[node].disk =
                    if self.sabotage == Sabotage::ForgetOpened { Disk::new() } else { disk.after_kill() };
            }
            6..9 => {
                self.stats.power_losses += 1;
                let rng = &mut self.rng;
                self.nodes[node].disk = disk.after_power_loss(|| rng.bool());
                self.nodes[node].boot += 1;
                self.doubt(node);
            }
            _ => {
                self.stats.lost_disks += 1;
                let (name, drift) = (format!("{}'", self.nodes[node].name), self.nodes[node].drift_ppm);
                self.doubt(node);
                let partitioned = self.nodes[node].partitioned;
                self.nodes[node] = Node { partitioned, ..Node::new(name, drift) };
            }
        }
        // Its requests settle in a table that nobody has any more.
        drop(process);
        let away = if self.rng.u8(0..6) == 0 { 500 * SECOND } else { 20 * SECOND };
        let away = self.rng.u64(MS..away);
        self.after(away, What::Restart { node });
    }

    /// Of what this node has written and what has not arrived yet, some may never, or as it was before.
    fn doubt(&mut self, node: usize) {
        for (id, expected) in &mut self.oracle.expected {
            if self.plane.ingested.contains_key(id) || self.placed.get(id) != Some(&node) {
                continue;
            }
            let real = match expected {
                Expected::Open { reserved } | Expected::Lost(reserved) => *reserved,
                Expected::Exact(actual) => *actual,
                Expected::Uncertain { real, .. } => *real,
            };
            self.stats.uncertain_requests += 1;
            *expected = Expected::Uncertain { most: real.max(LARGEST), real };
        }
    }

    fn partition(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.u64(SECOND..200 * SECOND);
        self.after(next, What::Partition);
        let node = self.rng.usize(..self.nodes.len());
        if !self.nodes[node].partitioned {
            self.stats.partitions += 1;
            self.nodes[node].partitioned = true;
            let longest = if self.rng.u8(0..3) == 0 { 900 * SECOND } else { 20 * SECOND };
            let after = self.rng.u64(SECOND..longest);
            self.after(after, What::Heal { node });
        }
    }

    /// What is on its way to it, or from it, is gone; its database stays.
    fn plane_restart(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.u64(SECOND..600 * SECOND);
        self.after(next, What::PlaneRestart);
        self.stats.plane_restarts += 1;
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            process.broken = true;
        }
        self.queue.retain(|_, what| {
            !matches!(
                what,
                What::ToPlane { .. } | What::ToNode { .. } | What::Batch { .. } | What::Acked { .. }
            )
        });
    }

    fn limits(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.u64(SECOND..400 * SECOND);
        self.after(next, What::Limits);
        self.stats.limits_changed += 1;
        let at = self.rng.usize(..self.budgets.len());
        let choice = self.rng.u8(0..6);
        let terms = &mut self.budgets[at].1;
        match choice {
            0 => terms.disabled = true,
            1 | 2 => terms.limit /= 2,
            _ => {
                terms.disabled = false;
                terms.limit = terms.limit.saturating_mul(2).clamp(1_000_000, 1_000_000_000_000);
            }
        }
        self.plane.put(&terms.clone());
    }

    fn expire(&mut self) {
        let before = self.plane.bank.leases().iter().filter(|lease| lease.is_closed()).count();
        self.plane.expire();
        self.oracle.windows(&self.plane);
        self.oracle.leases(&self.plane, &mut self.nodes, self.now);
        let after = self.plane.bank.leases().iter().filter(|lease| lease.is_closed()).count();
        self.stats.leases_expired += u64::try_from(after.saturating_sub(before)).unwrap();
        self.after(5 * SECOND, What::Expire);
    }

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

    /// Liveness: what is left of a budget can be had, by any node, down to the last nano-dollar.
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
        loop {
            let (id, now) = (self.next_request, self.now);
            self.next_request += 1;
            let process = self.nodes[node].at(now).expect("nobody is dead any more");
            let begun = process.begin(id, std::slice::from_ref(budget), left, left / 100, now);
            if matches!(begun, Begun::Dispatched) {
                process.end(id, left / 100);
                self.oracle.expected.insert(id, Expected::Exact(left / 100));
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
