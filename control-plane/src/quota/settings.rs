//! The numbers of quota: how long leases last, how large slices are. Set in the control plane's configuration.

use nemo_types::Nanos;
use serde::Deserialize;

/// Smallest and largest of what can be set, for messages.
const LEASE_TTL_S: (u32, u32) = (10, 86_400);
const REPORT_MS: (u32, u32) = (100, 60_000);
const HOLD_S: (u32, u32) = (1, 7 * 86_400);
const OUTAGE_MINUTES: (u32, u32) = (0, 1440);
/// 1 million USD.
const LARGEST_SLICE: i64 = 1_000_000 * Nanos::ONE_USD.0;

/// See `config.default.toml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How long a node may spend what it holds without hearing from the control plane.
    pub lease_ttl_s: u32,
    /// How often nodes report when nothing is urgent.
    pub report_ms: u32,
    /// How long the events of a lost node may still come before its leases are closed.
    pub hold_s: u32,
    /// Smallest and largest slice, decimal USD.
    #[serde(deserialize_with = "usd")]
    pub min_slice: Nanos,
    #[serde(deserialize_with = "usd")]
    pub max_slice: Nanos,
    /// A slice lasts so long at the rate that the node spends, as far as the budget allows.
    pub outage_minutes: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ttl_s: 3600,
            report_ms: 2000,
            hold_s: 1800,
            min_slice: Nanos::ONE_USD,
            max_slice: Nanos(10_000 * Nanos::ONE_USD.0),
            outage_minutes: 15,
        }
    }
}

/// A setting out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    #[error("quota.{name}: expected {least} to {most}, got {value}")]
    Range { name: &'static str, least: u32, most: u32, value: u32 },
    #[error("quota.min_slice and quota.max_slice: expected 0 < min_slice <= max_slice <= 1000000 USD")]
    Slices,
}

impl Settings {
    /// # Errors
    /// [`BadSettings`] names what is out of its range.
    pub fn check(&self) -> Result<(), BadSettings> {
        for (name, value, (least, most)) in [
            ("lease_ttl_s", self.lease_ttl_s, LEASE_TTL_S),
            ("report_ms", self.report_ms, REPORT_MS),
            ("hold_s", self.hold_s, HOLD_S),
            ("outage_minutes", self.outage_minutes, OUTAGE_MINUTES),
        ] {
            if !(least..=most).contains(&value) {
                return Err(BadSettings::Range { name, least, most, value });
            }
        }
        let slices = 1..=LARGEST_SLICE;
        if !slices.contains(&self.min_slice.0)
            || !slices.contains(&self.max_slice.0)
            || self.min_slice > self.max_slice
        {
            return Err(BadSettings::Slices);
        }
        Ok(())
    }

    /// Milliseconds that a node may go on by itself.
    pub fn ttl_ms(&self) -> u32 {
        self.lease_ttl_s.saturating_mul(1000)
    }

    /// Milliseconds after the time to live until the server acts: a node that has just got its answer late is still
    /// within its own count.
    pub fn margin_ms(&self) -> i64 {
        // Clocks drift by far less than a thousandth.
        i64::from(self.ttl_ms()) / 100 + i64::from(self.report_ms) * 2
    }

    /// Milliseconds that a lost node's events may take.
    pub fn hold_ms(&self) -> i64 {
        i64::from(self.hold_s) * 1000
    }
}

fn usd<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Nanos, D::Error> {
    let text = String::deserialize(deserializer)?;
    Nanos::from_decimal(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("expected decimal USD such as \"0.05\", got {text:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        assert_eq!(Settings::default().check(), Ok(()));
        let bad = Settings { lease_ttl_s: 5, ..Settings::default() };
        assert!(bad.check().unwrap_err().to_string().starts_with("quota.lease_ttl_s: expected 10 to 86400"));
        let bad = Settings { min_slice: Nanos(2), max_slice: Nanos(1), ..Settings::default() };
        assert_eq!(bad.check(), Err(BadSettings::Slices));
        let bad = Settings { min_slice: Nanos::ZERO, ..Settings::default() };
        assert_eq!(bad.check(), Err(BadSettings::Slices));
    }
}
