//! Between nodes and control plane: reports, directives, batches of usage, and links that lose, delay and double them.
//! Called by [`super::World::happen`].

use super::*;

impl World {
    pub(super) fn tick(&mut self, node: usize, inc: u64) {
        if self.process(node, inc).is_none() {
            return;
        }
        self.after(2 * SECOND, What::Tick { node, inc });
        self.report(node, inc);
        self.ship(node, inc);
    }

    /// As the stream does when something is urgent: at once, but one report at a time.
    pub(super) fn urge(&mut self, node: usize) {
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
    pub(super) fn report_early(&mut self, node: usize, inc: u64) {
        let Some(process) = self.process(node, inc) else { return };
        process.retries = false;
        if process.unanswered.is_some() {
            process.report_due = true;
        } else {
            self.report(node, inc);
        }
    }

    pub(super) fn report(&mut self, node: usize, inc: u64) {
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

    pub(super) fn at_plane(&mut self, node: usize, name: &Arc<str>, epoch: u64, report: &LeaseReport) {
        let answer = self.plane.report(&node_epoch(name, epoch), report);
        self.oracle.windows(&self.plane);
        let Some(directive) = answer else { return };
        let Some(process) = &self.nodes[node].process else { return };
        if self.nodes[node].epoch == epoch && self.nodes[node].name == *name {
            let (inc, stream) = (process.inc, process.stream);
            self.send(node, || What::ToNode { node, inc, stream, directive: directive.clone() });
        }
    }

    pub(super) fn at_node(&mut self, (node, inc, stream): (usize, u64, u32), directive: &LeaseDirective) {
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

    pub(super) fn ship(&mut self, node: usize, inc: u64) {
        let Some(process) = self.process(node, inc) else { return };
        if process.unacked.is_none() {
            process.unacked = process.journal.take(50);
            process.batch += 1;
        }
        let Some(batch) = process.unacked.clone() else { return };
        let number = process.batch;
        self.send(node, || What::Batch { node, inc, number, batch: batch.clone() });
    }

    pub(super) fn ingest(&mut self, node: usize, inc: u64, number: u64, batch: &Batch) {
        let events: Vec<_> = batch.events.messages().collect();
        for (id, event) in self.plane.ingest(&events) {
            self.oracle.ingested(id, &event);
        }
        self.oracle.windows(&self.plane);
        let count = batch.events.len();
        self.send(node, || What::Acked { node, inc, number, count });
    }

    pub(super) fn acked(&mut self, node: usize, inc: u64, number: u64, count: usize) {
        let Some(process) = self.process(node, inc) else { return };
        if process.batch != number || process.unacked.take().is_none() {
            return;
        }
        process.journal.acknowledged(count);
        self.ship(node, inc);
    }

    pub(super) fn sync(&mut self, node: usize, inc: u64) {
        let pause = self.rng.u64(MS..5 * SECOND);
        let Some(process) = self.process(node, inc) else { return };
        process.journal.tend();
        self.after(pause, What::Sync { node, inc });
    }

    /// What a link does with a message.
    pub(super) fn send(&mut self, node: usize, message: impl Fn() -> What) {
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
}
