//! Instruments of the node services.

use nemo_runtime::metrics::Registry;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
};

use crate::store::usage_ingest::{Ingested, Malformed};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Fate {
    Inserted,
    Duplicate,
    /// No valid id.
    Malformed,
    TooOld,
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
}

impl UsageMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            r.register("usage_events", "Usage events received, by what became of them", it.events.clone());
            let help = "Batches of usage events that could not be written and will be sent again";
            r.register("usage_failed_batches", help, it.failed_batches.clone());
        });
        it
    }

    pub(super) fn ingested(&self, ingested: &Ingested) {
        self.count(Fate::Inserted, ingested.inserted);
        self.count(Fate::Duplicate, ingested.duplicates);
        self.count(Fate::Expired, ingested.expired);
        self.count(Fate::Refused, ingested.refused);
    }

    pub(super) fn malformed(&self, reason: Malformed) {
        let fate = match reason {
            Malformed::RequestId | Malformed::Id(_) => Fate::Malformed,
            Malformed::TooOld => Fate::TooOld,
            Malformed::InFuture => Fate::InFuture,
        };
        self.count(fate, 1);
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
