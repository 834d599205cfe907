//! Instruments of money and rates on this node.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Default)]
pub struct QuotaMetrics {
    pub leases: Gauge,
    pub granted: Counter,
    pub returned: Counter,
    pub expired: Counter,
    pub denied_no_lease: Counter,
    pub denied_short: Counter,
    pub denied_exhausted: Counter,
    pub unleased: Counter,
    pub rate_refusals: Counter,
    pub budgets: Gauge,
    pub rates: Gauge,
}

impl QuotaMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("quota_leases", "Slices of budgets that this node holds", it.leases.clone());
        registry.register("quota_budgets", "Budgets that this node knows of", it.budgets.clone());
        registry.register("quota_rate_limits", "Rate limits that this node counts", it.rates.clone());
        let help = "Nano-USD that this node was granted";
        registry.register("quota_granted_nanos", help, it.granted.clone());
        let help = "Nano-USD that this node has handed back";
        registry.register("quota_returned_nanos", help, it.returned.clone());
        let help = "Slices that ended because the control plane was not heard of";
        registry.register("quota_leases_expired", help, it.expired.clone());
        let help = "Reservations for which there was no slice; those that waited and were served count too";
        registry.register("quota_denied_no_lease", help, it.denied_no_lease.clone());
        let help =
            "Reservations for which the slice was too small; those that waited and were served count too";
        registry.register("quota_denied_short", help, it.denied_short.clone());
        let help = "Reservations against budgets that the control plane said are exhausted";
        registry.register("quota_denied_exhausted", help, it.denied_exhausted.clone());
        let help = "Requests that were charged without a slice, as their budget allows";
        registry.register("quota_unleased", help, it.unleased.clone());
        let help = "Requests that a rate limit refused";
        registry.register("quota_rate_refusals", help, it.rate_refusals.clone());
        it
    }
}
