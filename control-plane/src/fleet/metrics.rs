//! Instruments of the fleet, read from the registry when they are scraped.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};

use super::Registry;

/// Puts the registry's numbers on `/metrics`.
#[derive(Debug)]
pub struct FleetCollector(pub Registry);

impl Collector for FleetCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let summary = self.0.summary();
        let gauges = [
            ("fleet_nodes_connected", "Nodes with an open config stream here", summary.connected),
            ("fleet_nodes_refusing", "Connected nodes that refused their last push", summary.refusing),
            ("fleet_max_lag_revisions", "Revisions that the slowest connected node lacks", summary.max_lag),
            (
                "fleet_usage_events_dropped",
                "Usage events that connected nodes have dropped",
                summary.usage_dropped,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}
