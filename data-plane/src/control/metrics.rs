//! Instruments of the conversations with the control plane.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone)]
pub struct ControlMetrics {
    /// 1 while a session is open.
    pub connected: Gauge,
    pub revision: Gauge<u64, AtomicU64>,
    pub pushes_applied: Counter,
    pub pushes_rejected: Counter,
    pub revocations: Counter,
    pub events_shipped: Counter,
    pub events_waiting: Gauge,
    pub events_dropped: Gauge<u64, AtomicU64>,
    pub journal_bytes: Gauge<u64, AtomicU64>,
    /// 1 while requests on hard budgets are refused for it.
    pub journal_full: Gauge,
}

impl ControlMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            connected: Gauge::default(),
            revision: Gauge::default(),
            pushes_applied: Counter::default(),
            pushes_rejected: Counter::default(),
            revocations: Counter::default(),
            events_shipped: Counter::default(),
            events_waiting: Gauge::default(),
            events_dropped: Gauge::default(),
            journal_bytes: Gauge::default(),
            journal_full: Gauge::default(),
        };
        let it = metrics.clone();
        registry.register("control_connected", "1 while the control plane is connected", it.connected);
        registry.register("config_revision", "Revision that this node serves by", it.revision);
        registry.register("config_pushes_applied", "Revisions applied", it.pushes_applied);
        registry.register("config_pushes_rejected", "Revisions refused (NACK)", it.pushes_rejected);
        registry.register(
            "config_revocations",
            "Keys, teams and organizations switched off ahead of a push",
            it.revocations,
        );
        registry.register(
            "usage_events_shipped",
            "Usage events acknowledged by the control plane",
            it.events_shipped,
        );
        registry.register("usage_events_waiting", "Usage events not yet acknowledged", it.events_waiting);
        registry.register("usage_events_dropped", "Usage events lost to a full journal", it.events_dropped);
        registry.register(
            "usage_journal_bytes",
            "What the usage journal takes on the disk",
            it.journal_bytes,
        );
        registry.register("usage_journal_full", "1 while the usage journal is full", it.journal_full);
        metrics
    }
}
