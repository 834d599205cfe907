//! The process is killed at any byte that it writes, the machine loses what it had not synced, again and again.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Open,
    /// One of those that are open.
    Extend(u8),
    Close(u8),
    /// One that was never sent.
    CloseFresh,
    Take(u8),
    Acknowledge(u8),
    Tend,
    Finish,
    /// After so many bytes more.
    Kill(u16),
    /// The process after the next death dies as well, when it has written so many bytes: mostly while it recovers.
    KillTheNext(u16),
    /// What of the unsynced writes is kept is drawn from this.
    PowerLoss(u64),
}

fn ops(power: bool) -> impl Strategy<Value = Vec<Op>> {
    let weight = u32::from(power);
    let op = prop_oneof![
        20 => Just(Op::Open),
        8 => any::<u8>().prop_map(Op::Extend),
        16 => any::<u8>().prop_map(Op::Close),
        4 => Just(Op::CloseFresh),
        6 => (1..30_u8).prop_map(Op::Take),
        6 => (1..30_u8).prop_map(Op::Acknowledge),
        4 => Just(Op::Tend),
        1 => Just(Op::Finish),
        4 => prop_oneof![(0..3000_u16).prop_map(Op::Kill), (0..600_u16).prop_map(Op::KillTheNext)],
        weight => any::<u64>().prop_map(Op::PowerLoss),
    ];
    prop::collection::vec(op, 1..300)
}

/// What may be told of a request: one of these, and always the same.
type Allowed = BTreeMap<u32, Vec<Told>>;

struct World {
    disk: Disk,
    journal: Option<Journal>,
    limits: Limits,
    epoch: u64,
    boot: u32,
    kill_the_next: Option<u16>,
    requests: u32,
    open: Vec<(u32, i64, Ticket)>,
    allowed: Allowed,
    /// Written before the last sync, and not to be lost by the machine's death.
    durable: BTreeSet<u32>,
    unsynced: BTreeSet<u32>,
    told: BTreeMap<u32, Told>,
    /// Taken and not acknowledged.
    owed: Vec<(u32, Told)>,
    acknowledged: BTreeSet<u32>,
    reports: BTreeMap<u64, Recovered>,
    /// Under way when the process was killed: they need not be told of.
    unsure_requests: BTreeSet<u32>,
    /// Epochs that ended with the machine.
    unsure: BTreeSet<u64>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let disk = Disk::new();
        let (journal, _) = start(&disk, 1, limits, "boot-0");
        Self {
            disk,
            journal: Some(journal),
            limits,
            epoch: 1,
            boot: 0,
            kill_the_next: None,
            requests: 0,
            open: Vec::new(),
            allowed: Allowed::new(),
            durable: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            told: BTreeMap::new(),
            owed: Vec::new(),
            acknowledged: BTreeSet::new(),
            reports: BTreeMap::new(),
            unsure_requests: BTreeSet::new(),
            unsure: BTreeSet::new(),
        }
    }

    fn journal(&self) -> Journal {
        self.journal.clone().unwrap()
    }

    fn apply(&mut self, op: Op) {
        let journal = self.journal();
        match op {
            Op::Open => self.open(),
            Op::Extend(which) if !self.open.is_empty() => {
                let at = usize::from(which) % self.open.len();
                let (request, cost, ticket) = &mut self.open[at];
                *cost += 1;
                journal.extended(ticket, &[charge(*cost)], Nanos(*cost));
                // If the process died in the middle, both may be told.
                let before = Told::Lost(*cost - 1);
                let told = self.allowed.get_mut(request).unwrap();
                told.push(Told::Lost(*cost));
                if !self.disk.is_killed() {
                    told.retain(|it| *it != before);
                }
            }
            Op::Close(which) if !self.open.is_empty() => {
                let at = usize::from(which) % self.open.len();
                let (request, _, ticket) = self.open.swap_remove(at);
                close(&journal, Some(ticket), request);
                let told = self.allowed.get_mut(&request).unwrap();
                if !self.disk.is_killed() {
                    told.clear();
                }
                told.push(Told::Closed);
                self.unsynced.insert(request);
            }
            Op::CloseFresh => {
                self.requests += 1;
                close(&journal, None, self.requests);
                self.begun(self.requests, Told::Closed);
            }
            Op::Take(max) => {
                if let Some(batch) = journal.take(max.into()) {
                    let events: Vec<_> = batch.events.messages().map(|it| told(&it)).collect();
                    events.iter().for_each(|it| self.tell(*it));
                    self.owed.extend(events);
                }
            }
            Op::Acknowledge(count) => {
                let count = usize::from(count).min(self.owed.len());
                journal.acknowledged(count);
                self.acknowledged.extend(self.owed.drain(..count).map(|(request, _)| request));
            }
            Op::Tend => {
                journal.tend();
                self.synced();
            }
            Op::Finish => {
                journal.finish();
                self.synced();
            }
            Op::Kill(after) => self.disk.kill_after(after.into()),
            Op::KillTheNext(after) => self.kill_the_next = Some(after),
            Op::PowerLoss(seed) => self.power_loss(seed),
            Op::Extend(_) | Op::Close(_) => {}
        }
        if self.disk.is_killed() {
            let disk = self.disk.after_kill();
            self.restart(disk);
        }
    }

    fn open(&mut self) {
        self.requests += 1;
        let (request, cost) = (self.requests, 100);
        match super::open(&self.journal(), request, cost) {
            Ok(ticket) => self.open.push((request, cost, ticket)),
            Err(Full) => assert!(self.disk.is_killed(), "there is room"),
        }
        self.begun(request, Told::Lost(cost));
    }

    /// The first that is written of a request.
    fn begun(&mut self, request: u32, told: Told) {
        self.allowed.insert(request, vec![told]);
        self.unsynced.insert(request);
        if self.disk.is_killed() {
            // The last byte may have been written, and the call not have returned.
            self.unsure_requests.insert(request);
        }
    }

    fn synced(&mut self) {
        if !self.disk.is_killed() {
            self.durable.append(&mut self.unsynced);
        }
    }

    fn power_loss(&mut self, seed: u64) {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = self.disk.after_power_loss(|| random.bool());
        self.boot += 1;
        self.unsure.insert(self.epoch);
        // What was under way is told as far as the disk knows of it.
        for request in std::mem::take(&mut self.unsynced) {
            let told = self.allowed.get_mut(&request).unwrap();
            let costs = 100..=100 + 300;
            told.extend(costs.map(Told::Lost));
            if !self.durable.contains(&request) && !self.told.contains_key(&request) {
                // It may be gone altogether.
                told.push(Told::Closed);
            }
        }
        self.allowed.values_mut().filter(|told| told[0] != Told::Closed).for_each(|told| {
            told.extend((100..=400).map(Told::Lost));
        });
        self.restart(disk);
    }

    fn restart(&mut self, disk: Disk) {
        (self.disk, self.epoch) = (disk, self.epoch + 1);
        (self.open, self.owed) = (Vec::new(), Vec::new());
        if let Some(after) = self.kill_the_next.take() {
            self.disk.kill_after(after.into());
            let writer = Writer { epoch: self.epoch, boot_id: format!("boot-{}", self.boot) };
            // It may get through, or not; what it says of it dies with it.
            drop(Journal::open(Arc::new(self.disk.clone()), self.limits, writer));
            (self.disk, self.epoch) = (self.disk.after_kill(), self.epoch + 1);
        }
        let (journal, reports) = start(&self.disk, self.epoch, self.limits, &format!("boot-{}", self.boot));
        self.journal = Some(journal);
        self.reports.extend(reports.into_iter().map(|it| (it.epoch, it)));
    }

    fn tell(&mut self, (request, told): (u32, Told)) {
        let allowed = self.allowed.get(&request).map_or(&[][..], |it| it);
        assert!(allowed.contains(&told), "request {request} is told {told:?}, expected one of {allowed:?}");
        let first = *self.told.entry(request).or_insert(told);
        if self.unsure.is_empty() {
            assert_eq!(first, told, "request {request} is told twice, and differently");
        }
    }

    /// Another process, that ships everything.
    fn end(&mut self) {
        let disk = self.disk.after_kill();
        self.restart(disk);
        let journal = self.journal();
        while let Some(batch) = journal.take(9) {
            batch.events.messages().for_each(|event| self.tell(told(&event)));
            journal.acknowledged(batch.events.len());
        }
        journal.finish();
        assert_eq!((journal.untaken(), journal.stats().waiting, journal.stats().dropped), (0, 0, 0));
        assert!(self.disk.names().iter().all(|name| name.ends_with(".epoch")), "{:?}", self.disk.names());
        let closed = journal.closed_epochs();
        assert_eq!(closed.len() as u64, self.epoch - 1, "every epoch ends");
        for (epoch, exact) in closed {
            if self.unsure.is_empty() {
                assert!(exact, "epoch {epoch}: {:?}", self.reports.get(&epoch));
            }
            assert!(!(exact && self.unsure.contains(&epoch) && !self.reports[&epoch].exact));
            journal.forget_epoch(epoch);
        }
        journal.tend();
        assert_eq!(self.disk.names(), [format!("{}.epoch", self.epoch)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// I6: killed at any byte, every request that was opened or closed is told of, and always the same; nothing else is.
    #[test]
    fn i6_every_request_is_told_of_exactly_once_across_kills(ops in ops(false), segment in 512..4096_usize, memory in 0..4096_usize) {
        let mut world = World::new(Limits { segment, max: 1 << 24, memory });
        ops.into_iter().for_each(|op| world.apply(op));
        world.end();
        for request in world.allowed.keys().filter(|request| !world.unsure_requests.contains(request)) {
            prop_assert!(world.told.contains_key(request), "request {} is missing", request);
        }
    }

    /// The death of the machine takes only what was written since the last sync, and the epoch is not called exact.
    #[test]
    fn i6_what_was_synced_survives_the_machine(ops in ops(true), segment in 512..4096_usize, memory in 0..4096_usize) {
        let mut world = World::new(Limits { segment, max: 1 << 24, memory });
        ops.into_iter().for_each(|op| world.apply(op));
        world.end();
        for request in world.durable.difference(&world.unsure_requests) {
            prop_assert!(world.told.contains_key(request), "{} was synced", request);
        }
        for request in &world.acknowledged {
            prop_assert!(world.told.contains_key(request));
        }
    }
}

/// A request may end between the last sync and the word that everything is synced.
#[test]
fn an_orderly_end_is_one_only_with_everything_synced() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    close(&journal, None, 1);
    let late = journal.clone();
    disk.after_sync(move || close(&late, None, 2));
    journal.finish();
    let (journal, _) = start(&disk.after_power_loss(|| false), 2, limits, "boot-2");
    assert_eq!(ship(&journal), [(1, Told::Closed), (2, Told::Closed)]);
    assert_eq!(journal.closed_epochs(), [(1, true)]);
}

#[test]
fn an_epoch_that_ended_with_the_machine_is_not_exact() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    close(&journal, None, 1);
    journal.tend();
    let (after, recovered) = start(&disk.after_power_loss(|| true), 2, limits, "boot-2");
    assert_eq!((recovered[0].events, recovered[0].damaged, recovered[0].exact), (1, 0, false));
    assert_eq!(ship(&after), [(1, Told::Closed)]);
    assert_eq!(after.closed_epochs(), [(1, false)]);
    // Nor one of which nobody knows the boot.
    let (_, recovered) = start(&disk.after_kill(), 2, limits, "");
    assert!(!recovered[0].exact);
}
