//! What goes wrong: processes die, machines lose their power, links part, limits change. Called by
//! [`super::World::happen`].

use super::*;

impl World {
    pub(super) fn crash(&mut self) {
        if self.calm {
            return;
        }
        let next = self.rng.u64(SECOND..300 * SECOND);
        self.after(next, What::Crash);
        let node = self.rng.usize(..self.nodes.len());
        let kind = self.rng.u8(0..10);
        self.kill(node, kind);
    }

    pub(super) fn kill(&mut self, node: usize, kind: u8) {
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
    pub(super) fn doubt(&mut self, node: usize) {
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

    pub(super) fn partition(&mut self) {
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
    pub(super) fn plane_restart(&mut self) {
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

    pub(super) fn limits(&mut self) {
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

    pub(super) fn expire(&mut self) {
        let before = self.plane.bank.leases().iter().filter(|lease| lease.is_closed()).count();
        self.plane.expire();
        self.oracle.windows(&self.plane);
        self.oracle.leases(&self.plane, &mut self.nodes, self.now);
        let after = self.plane.bank.leases().iter().filter(|lease| lease.is_closed()).count();
        self.stats.leases_expired += u64::try_from(after.saturating_sub(before)).unwrap();
        self.after(5 * SECOND, What::Expire);
    }
}
