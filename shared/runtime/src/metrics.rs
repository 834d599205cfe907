//! The registry behind `/metrics`. Instruments are declared beside the code that records them and registered here
//! once, at start; recording never comes back to the registry and so never waits for its lock.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry as Instruments;

/// Shared handle to the instruments of one process.
#[derive(Clone, Debug)]
pub struct Registry {
    instruments: Arc<Mutex<Instruments>>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// Every metric name starts with `nemo_`.
    pub fn new() -> Self {
        Self { instruments: Arc::new(Mutex::new(Instruments::with_prefix("nemo"))) }
    }

    /// Registers instruments: `registry.register(|r| r.register("requests", "Finished requests", counter.clone()))`.
    pub fn register<T>(&self, declare: impl FnOnce(&mut Instruments) -> T) -> T {
        declare(&mut self.instruments.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The values now, in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let instruments = self.instruments.lock().unwrap_or_else(PoisonError::into_inner);
        if prometheus_client::encoding::text::encode(&mut text, &instruments).is_err() {
            // Writing into a String cannot fail; a broken instrument could.
            tracing::error!("metrics cannot be encoded");
        }
        text
    }
}

/// What [`Registry::encode`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn registered_counters_appear_with_their_values() {
        let (registry, requests) = (Registry::new(), Counter::<u64>::default());
        registry.clone().register(|r| r.register("requests", "Finished requests", requests.clone()));
        requests.inc_by(3);
        let text = registry.encode();
        assert!(text.contains("nemo_requests_total 3\n"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
