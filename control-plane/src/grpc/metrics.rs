//! Instruments of the node services.

use nemo_runtime::metrics::Registry;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
};

use crate::store::usage_ingest::Ingested;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Fate {
    Inserted,
    Duplicate,
    /// No valid id.
    Malformed,
    /// Of a day that is yet to come.
    InFuture,
    /// Of a day that retention has dropped.
    Expired,
    /// The database would not take it.
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    fate: Fate,
}

/// What became of usage events.
#[derive(Clone, Debug, Default)]
pub struct UsageMetrics {
    events: Family<Labels, Counter>,
    failed_batches: Counter,
    settled_nanos: Counter,
    overrun_nanos: Counter,
    refused_charges: Counter,
    unknown_budgets: Counter,
}

impl UsageMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            r.register("usage_events", "Usage events received, by what became of them", it.events.clone());
            let help = "Batches of usage events that could not be written and will be sent again";
            r.register("usage_failed_batches", help, it.failed_batches.clone());
            let help = "Nano-USD that were settled on budgets, each request once per budget that covers it";
            r.register("usage_settled_nanos", help, it.settled_nanos.clone());
            let help =
                "Nano-USD of them beyond what was granted: an upstream billed more than it was allowed to";
            r.register("usage_overrun_nanos", help, it.overrun_nanos.clone());
            let help = "Charges of requests that could not be settled on their budget";
            r.register("usage_refused_charges", help, it.refused_charges.clone());
            let help =
                "Budgets in batches of usage events that are gone: what was charged to them is in no total";
            r.register("usage_unknown_budgets", help, it.unknown_budgets.clone());
        });
        it
    }

    pub(super) fn ingested(&self, ingested: &Ingested) {
        self.count(Fate::Inserted, ingested.inserted);
        self.count(Fate::Duplicate, ingested.duplicates);
        self.count(Fate::Expired, ingested.expired);
        self.count(Fate::InFuture, ingested.ahead);
        self.count(Fate::Refused, ingested.refused);
        let settled = &ingested.settled;
        self.settled_nanos.inc_by(settled.nanos.max(0).unsigned_abs());
        self.overrun_nanos.inc_by(settled.overrun_nanos.max(0).unsigned_abs());
        self.refused_charges.inc_by(settled.refused);
        self.unknown_budgets.inc_by(settled.unknown);
    }

    pub(super) fn malformed(&self) {
        self.count(Fate::Malformed, 1);
    }

    pub(super) fn failed(&self) {
        self.failed_batches.inc();
    }

    fn count(&self, fate: Fate, by: u64) {
        if by > 0 {
            self.events.get_or_create(&Labels { fate }).inc_by(by);
        }
    }
}
