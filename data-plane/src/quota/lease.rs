//! A node's slice of one window of a budget, as counters that requests change without a lock.
//!
//! `free` is what may be reserved: `granted - returned - spent - reserved`. A reservation takes from it only what is
//! there (I3); a cost above its reservation is taken all the same, from the rest of the lease. When that is used up it is
//! an overrun, and the lease ends: another one begins without it. A retired lease has [`RETIRED`] subtracted: no reservation can succeed any more, while the
//! requests that hold something of it still settle.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
        fence,
    },
};

use nemo_types::LeaseId;

use super::{account::Core, clock::Moment};

/// Far below any sum of money that can be in a lease.
const RETIRED: i64 = 1 << 62;
/// No lease is larger: sums of a few stay far from overflow.
pub const MAX_LEASE: i64 = 1 << 60;

#[derive(Debug)]
pub struct Lease {
    pub id: LeaseId,
    pub window_start_unix_s: i64,
    pub(super) core: Arc<Core>,
    /// The window, on this node's clock.
    opens_at: Moment,
    closes_at: Moment,
    /// How long it lasts without hearing from the control plane, less the margin.
    life: AtomicU64,
    free: AtomicI64,
    spent: AtomicI64,
    /// When something was last reserved.
    used_at: AtomicU64,
    /// Below it, more is asked for before it runs out.
    low: AtomicI64,
    /// Written with the account's lock held, as is everything below.
    granted: AtomicI64,
    returned: AtomicI64,
    /// What came unasked: it stays, however idle.
    pub(super) standby: i64,
    /// What was last told of it, and in which report.
    pub(super) told: Told,
    /// Of `spent`, what the spend rate has counted.
    pub(super) counted: AtomicI64,
}

#[derive(Debug, Default)]
pub(super) struct Told {
    pub seq: AtomicU64,
    pub returned: AtomicI64,
    pub spent: AtomicI64,
    pub reserved: AtomicI64,
    /// That nothing will be reserved of it any more.
    pub done: AtomicBool,
}

/// What is fixed of a lease.
pub(super) struct Terms {
    pub id: LeaseId,
    pub window_start_unix_s: i64,
    pub opens_at: Moment,
    pub closes_at: Moment,
    pub life: u64,
    pub standby: i64,
}

impl Lease {
    pub(super) fn new(terms: &Terms, core: Arc<Core>, now: Moment) -> Self {
        Self {
            id: terms.id,
            window_start_unix_s: terms.window_start_unix_s,
            core,
            opens_at: terms.opens_at,
            closes_at: terms.closes_at,
            life: AtomicU64::new(terms.life),
            free: AtomicI64::new(0),
            spent: AtomicI64::new(0),
            used_at: AtomicU64::new(now),
            low: AtomicI64::new(i64::MIN),
            granted: AtomicI64::new(0),
            returned: AtomicI64::new(0),
            standby: terms.standby,
            told: Told::default(),
            counted: AtomicI64::new(0),
        }
    }

    /// In its window, and heard of recently enough.
    pub fn is_open(&self, now: Moment, renewed_at: Moment) -> bool {
        self.opens_at <= now && now < self.closes_at && self.is_alive(now, renewed_at)
    }

    /// A lease that is not is never used again: the control plane may have given its money to somebody else.
    pub fn is_alive(&self, now: Moment, renewed_at: Moment) -> bool {
        now < renewed_at.saturating_add(self.life.load(Relaxed))
    }

    pub fn is_over(&self, now: Moment) -> bool {
        self.closes_at <= now
    }

    pub fn is_current(&self, now: Moment) -> bool {
        self.opens_at <= now && now < self.closes_at
    }

    /// Takes the amount, or nothing. The caller must hold its own reference to the lease *before* it calls, see
    /// [`Lease::is_done`].
    pub fn try_reserve(&self, amount: i64, now: Moment) -> bool {
        let mut free = self.free.load(Acquire);
        loop {
            if free < amount {
                return false;
            }
            match self.free.compare_exchange_weak(free, free - amount, AcqRel, Acquire) {
                Ok(_) => break,
                Err(found) => free = found,
            }
        }
        self.used_at.store(now, Relaxed);
        true
    }

    /// A reservation ends at what it cost; also above it, see the module.
    pub fn settle(&self, reserved: i64, actual: i64) {
        if actual != 0 {
            self.spent.fetch_add(actual, Relaxed);
        }
        let back = reserved.saturating_sub(actual);
        if back != 0 {
            self.free.fetch_add(back, AcqRel);
        }
    }

    /// What may be reserved now; negative after costs above their reservations.
    pub fn free(&self) -> i64 {
        let free = self.free.load(Acquire);
        if free < -RETIRED / 2 { free + RETIRED } else { free }
    }

    pub fn is_retired(&self) -> bool {
        self.free.load(Acquire) < -RETIRED / 2
    }

    /// What can still be reserved, of a lease that may be retired: nothing.
    pub fn available(&self) -> i64 {
        self.free.load(Acquire)
    }

    pub fn spent(&self) -> i64 {
        self.spent.load(Relaxed)
    }

    pub fn granted(&self) -> i64 {
        self.granted.load(Relaxed)
    }

    pub fn returned(&self) -> i64 {
        self.returned.load(Relaxed)
    }

    /// Held for requests in flight. A hint while others settle.
    pub fn reserved(&self) -> i64 {
        (self.granted() - self.returned() - self.spent() - self.free()).max(0)
    }

    pub fn used_at(&self) -> Moment {
        self.used_at.load(Relaxed)
    }

    /// True when it has just run low: once for every grant.
    pub(super) fn ran_low(&self) -> bool {
        let low = self.low.load(Relaxed);
        self.free.load(Relaxed) < low && self.low.swap(i64::MIN, Relaxed) != i64::MIN
    }

    /// Merges a grant; a total that is not above the known one is a message from the past. True when it is more.
    pub(super) fn granted_to(&self, total: i64, life: u64) -> bool {
        let more = total - self.granted();
        self.life.fetch_min(life, Relaxed);
        if more <= 0 {
            return false;
        }
        self.granted.store(total, Relaxed);
        // What was spent beyond the lease is booked as overrun, or will be: more money does not pay for it a second time.
        if self.free() < 0 {
            self.retire();
        }
        if self.is_retired() {
            self.returned.fetch_add(more, Relaxed);
            return true;
        }
        let free = self.free.fetch_add(more, AcqRel) + more;
        self.low.store(free / 4, Relaxed);
        true
    }

    /// Hands back what is free beyond `keep`; returns how much.
    pub(super) fn hand_back(&self, keep: i64) -> i64 {
        let mut free = self.free.load(Acquire);
        let back = loop {
            let really = if free < -RETIRED / 2 { free + RETIRED } else { free };
            let back = really - keep.max(0);
            if back <= 0 {
                return 0;
            }
            match self.free.compare_exchange_weak(free, free - back, AcqRel, Acquire) {
                Ok(_) => break back,
                Err(found) => free = found,
            }
        };
        self.returned.fetch_add(back, Relaxed);
        self.low.store(i64::MIN, Relaxed);
        back
    }

    /// From now on nothing can be reserved.
    pub(super) fn retire(&self) {
        if !self.is_retired() {
            // The only subtraction of this size, and made under the account's lock.
            self.free.fetch_sub(RETIRED, AcqRel);
        }
    }

    /// Done, with nothing left, and the control plane has heard of all of it.
    pub(super) fn has_ended(lease: &Arc<Self>, acknowledged: u64) -> bool {
        let told = &lease.told;
        Self::is_done(lease, 1)
            && told.done.load(Relaxed)
            && told.seq.load(Relaxed) <= acknowledged
            && told.returned.load(Relaxed) == lease.returned()
            && told.spent.load(Relaxed) == lease.spent()
            && lease.free() <= 0
    }

    /// Retired, and nobody holds anything of it. Who reserves has a reference before it takes anything: if the last
    /// reservation succeeded before the retirement, its reference is seen here.
    pub(super) fn is_done(lease: &Arc<Self>, own_references: usize) -> bool {
        let done = lease.is_retired() && Arc::strong_count(lease) <= own_references;
        fence(Acquire);
        done
    }
}

#[cfg(test)]
mod tests {
    use nemo_types::BudgetId;
    use proptest::prelude::*;

    use super::*;

    fn lease(granted: i64) -> Arc<Lease> {
        let terms = Terms {
            id: LeaseId::generate(),
            window_start_unix_s: 0,
            opens_at: 0,
            closes_at: u64::MAX,
            life: 100,
            standby: 0,
        };
        let lease = Lease::new(&terms, Arc::new(Core::new(BudgetId::generate())), 0);
        lease.granted_to(granted, 100);
        Arc::new(lease)
    }

    #[test]
    fn i3_reservations_never_exceed_what_was_granted() {
        let lease = lease(100);
        assert!(lease.try_reserve(60, 0) && !lease.try_reserve(41, 0) && lease.try_reserve(40, 0));
        lease.settle(60, 10);
        assert_eq!((lease.free(), lease.spent(), lease.reserved()), (50, 10, 40));
        assert!(!lease.try_reserve(51, 0));
    }

    #[test]
    fn i3_a_cost_above_the_reservation_is_taken_from_the_rest() {
        let lease = lease(100);
        assert!(lease.try_reserve(90, 0));
        lease.settle(90, 130);
        assert_eq!((lease.free(), lease.spent()), (-30, 130));
        assert!(!lease.try_reserve(0, 0), "below zero, not even nothing");
        // More is handed back: the overrun is booked, and must not be paid for twice.
        assert!(lease.granted_to(150, 100) && lease.is_retired());
        assert_eq!((lease.free(), lease.returned(), lease.hand_back(0)), (-30, 50, 0));
    }

    #[test]
    fn grants_merge_however_often_and_in_which_order_they_come() {
        let lease = lease(100);
        for total in [300, 200, 300, 100] {
            lease.granted_to(total, 100);
        }
        assert_eq!((lease.granted(), lease.free()), (300, 300));
    }

    #[test]
    fn a_retired_lease_settles_and_hands_back_but_gives_nothing() {
        let lease = lease(100);
        assert!(lease.try_reserve(70, 0));
        lease.retire();
        lease.retire();
        assert!(!lease.try_reserve(1, 0) && !lease.try_reserve(0, 0));
        assert_eq!((lease.free(), lease.reserved(), lease.hand_back(0)), (30, 70, 30));
        lease.settle(70, 20);
        assert_eq!((lease.hand_back(0), lease.returned(), lease.spent()), (50, 80, 20));
        let held = lease.clone();
        assert!(!Lease::is_done(&lease, 1));
        drop(held);
        assert!(Lease::is_done(&lease, 1));
    }

    #[test]
    fn a_lease_lives_for_its_time_after_it_was_renewed() {
        let lease = lease(1);
        assert!(lease.is_open(149, 50) && !lease.is_open(150, 50));
    }

    proptest! {
        /// Whatever is done with it, what was granted is what is free, reserved, spent and returned together.
        #[test]
        fn no_money_is_made_or_lost_in_a_lease(steps in prop::collection::vec((0_u8..5, 0_i64..1000), 1..80)) {
            let lease = lease(1000);
            let (mut holds, mut granted) = (Vec::new(), 1000);
            for (step, amount) in steps {
                match step {
                    0 | 1 => if lease.try_reserve(amount, 0) { holds.push(amount) },
                    2 => if let Some(held) = holds.pop() { lease.settle(held, amount) },
                    3 => { lease.hand_back(amount); }
                    _ => { granted += amount; lease.granted_to(granted, 100); }
                }
                let reserved: i64 = holds.iter().sum();
                prop_assert_eq!(lease.free() + reserved + lease.spent() + lease.returned(), granted);
            }
        }
    }
}
