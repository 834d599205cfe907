//! Instruments of quota: what was granted, refused, called back, lost.

use nemo_runtime::metrics::Registry;
use prometheus_client::metrics::{
    counter::Counter,
    gauge::Gauge,
    histogram::{Histogram, exponential_buckets},
};

use super::{bank::Expired, desk::Tally};

/// See the module. A clone counts into the same.
#[derive(Clone, Debug)]
pub struct QuotaMetrics {
    grants: Counter,
    granted_nanos: Counter,
    standby: Counter,
    endgame: Counter,
    denied: Counter,
    recalls: Counter,
    held: Counter,
    closed: Counter,
    forfeited_nanos: Counter,
    failed: Counter,
    outstanding_nanos: Gauge,
    starved: Gauge,
    report_seconds: Histogram,
}

impl Default for QuotaMetrics {
    fn default() -> Self {
        Self {
            grants: Counter::default(),
            granted_nanos: Counter::default(),
            standby: Counter::default(),
            endgame: Counter::default(),
            denied: Counter::default(),
            recalls: Counter::default(),
            held: Counter::default(),
            closed: Counter::default(),
            forfeited_nanos: Counter::default(),
            failed: Counter::default(),
            outstanding_nanos: Gauge::default(),
            starved: Gauge::default(),
            // 0.5 ms to 8 s.
            report_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 15)),
        }
    }
}

impl QuotaMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            r.register("quota_grants", "Slices of budgets granted to nodes", it.grants.clone());
            r.register("quota_granted_nanos", "Nano-USD granted to nodes", it.granted_nanos.clone());
            let help = "Grants that no node asked for, so that its first request need not wait";
            r.register("quota_standby_grants", help, it.standby.clone());
            let help = "Grants near the end of a budget, for single requests";
            r.register("quota_endgame_grants", help, it.endgame.clone());
            let help = "Times that a node asked and went away empty-handed";
            r.register("quota_denials", help, it.denied.clone());
            r.register("quota_recalls", "Slices that nodes were asked to hand back", it.recalls.clone());
            let help = "Leases whose node or window was found to be gone";
            r.register("quota_leases_lost", help, it.held.clone());
            let help = "Leases that were closed without their node, by their budget's policy";
            r.register("quota_leases_closed", help, it.closed.clone());
            let help = "Nano-USD of lost leases that were charged to their budget";
            r.register("quota_forfeited_nanos", help, it.forfeited_nanos.clone());
            let help = "Reports of nodes that could not be answered; the node asks again";
            r.register("quota_failed_reports", help, it.failed.clone());
            let help = "Nano-USD that nodes hold of all budgets, as the reclaiming replica last saw it";
            r.register("quota_outstanding_nanos", help, it.outstanding_nanos.clone());
            let help = "Windows of budgets that nodes starve for, as the reclaiming replica last saw it";
            r.register("quota_starved_windows", help, it.starved.clone());
            let help = "Time from a node's report to its answer";
            r.register("quota_report_seconds", help, it.report_seconds.clone());
        });
        it
    }

    pub fn answered(&self, tally: &Tally, seconds: f64) {
        self.given(tally);
        self.report_seconds.observe(seconds);
    }

    pub fn given(&self, tally: &Tally) {
        self.grants.inc_by(tally.grants);
        self.granted_nanos.inc_by(tally.granted_nanos.max(0).unsigned_abs());
        self.standby.inc_by(tally.standby);
        self.endgame.inc_by(tally.endgame);
        self.denied.inc_by(tally.denied);
        self.recalls.inc_by(tally.recalls);
    }

    pub fn failed(&self) {
        self.failed.inc();
    }

    pub fn expired(&self, expired: &Expired) {
        self.held.inc_by(expired.held);
        self.closed.inc_by(expired.closed);
        self.forfeited_nanos.inc_by(expired.forfeited.max(0).unsigned_abs());
    }

    /// What is out, and how many windows are starved for.
    pub fn stands(&self, outstanding_nanos: i64, starved: i64) {
        self.outstanding_nanos.set(outstanding_nanos);
        self.starved.set(starved);
    }
}
