//! Instruments of the health of upstreams, as this node sees it.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Default)]
pub struct HealthMetrics {
    pub breakers_open: Gauge,
    pub breaker_openings: Counter,
    pub cooldowns: Gauge,
}

impl HealthMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        let help = "Breakers of this node that are open, by organization and deployment";
        registry.register("breakers_open", help, it.breakers_open.clone());
        registry.register("breaker_openings", "Times that a breaker opened", it.breaker_openings.clone());
        let help = "Cooldowns that the control plane has told this node of";
        registry.register("cooldowns", help, it.cooldowns.clone());
        it
    }
}
