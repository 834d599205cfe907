//! Instruments of the coordination between replicas.

use nemo_runtime::metrics::Registry;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

#[derive(Clone, Debug, Default)]
pub struct CoordinationMetrics {
    /// 1 while what the coordinator says is followed.
    pub connected: Gauge,
    /// Nodes that any replica holds a membership for.
    pub members: Gauge,
    pub cooldowns: Gauge,
    pub cooldowns_set: Counter,
    pub failed_writes: Counter,
    pub dropped_reports: Counter,
}

impl CoordinationMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            let help = "1 while etcd, or its stand-in in this process, is followed";
            r.register("coordinator_connected", help, it.connected.clone());
            r.register("fleet_members", "Nodes connected to any replica", it.members.clone());
            r.register("cooldowns", "Cooldowns in force", it.cooldowns.clone());
            let help = "Cooldowns that this replica has set or extended";
            r.register("cooldowns_set", help, it.cooldowns_set.clone());
            let help = "Writes to the coordinator that failed; nodes go on with their own breakers";
            r.register("coordinator_failed_writes", help, it.failed_writes.clone());
            let help = "Reports of nodes that came faster than they could be weighed";
            r.register("cooldown_reports_dropped", help, it.dropped_reports.clone());
        });
        it
    }
}
