//! What clients do: requests arrive, reserve, grow and end. Called by [`super::World::happen`].

use super::*;

impl World {
    pub(super) fn arrive(&mut self, retry: Option<(usize, Vec<usize>, Need)>) {
        if retry.is_none() && !self.still {
            let next = self.rng.u64(MS..2 * SECOND);
            self.after(next, What::Arrive { retry: None });
        }
        let again = retry.is_some();
        let (node, scopes, need) = retry.unwrap_or_else(|| {
            let count = self.rng.usize(1..=3.min(self.budgets.len()));
            let mut scopes: Vec<usize> = (0..self.budgets.len()).collect();
            self.rng.shuffle(&mut scopes);
            scopes.truncate(count);
            let bound =
                if self.rng.u8(0..10) == 0 { self.rng.i64(0..30_000_000) } else { self.rng.i64(1..600_000) };
            let need = Need { bound, least: self.rng.i64(0..=bound), waited: false };
            (self.rng.usize(..self.nodes.len()), scopes, need)
        });
        let budgets: Vec<_> = scopes.iter().map(|at| self.budgets[*at].0.clone()).collect();
        let share = self.rng.i64(0..=1000);
        let (id, now) = (self.next_request, self.now);
        self.next_request += 1;
        let Some(process) = self.nodes[node].at(now) else { return };
        let inc = process.inc;
        match process.begin(id, &budgets, need, share, now) {
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
                    let need = Need { waited: true, ..need };
                    self.after(100 * MS, What::Arrive { retry: Some((node, scopes, need)) });
                }
            }
            Begun::JournalFull => self.stats.journal_full += 1,
        }
        self.urge(node);
    }

    pub(super) fn reserved(&mut self, node: usize, id: u128) -> i64 {
        let process = self.nodes[node].process.as_ref().unwrap();
        process.requests[&id].hold.reserved().0
    }

    pub(super) fn is_unleased(&mut self, node: usize, id: u128) -> bool {
        let process = self.nodes[node].process.as_ref().unwrap();
        process.requests[&id].hold.charges().iter().any(|charge| charge.lease.is_none())
    }

    pub(super) fn extend(&mut self, node: usize, inc: u64, id: u128) {
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

    pub(super) fn end(&mut self, node: usize, inc: u64, id: u128) {
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
}
