//! Whether every request was metered: the gateway's own counts against the rows of the request log.

use anyhow::Context as _;

/// From the data plane's `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests that ended, however.
    pub(super) served: u64,
    pub(super) in_flight: u64,
    /// Usage events that the control plane has acknowledged.
    pub(super) shipped: u64,
    pub(super) waiting: u64,
    /// Usage events lost to a full buffer.
    pub(super) dropped: u64,
}

impl Counts {
    pub(super) fn parse(metrics: &str) -> anyhow::Result<Self> {
        let get = |name: &str| sum(metrics, name).with_context(|| format!("no {name} in\n{metrics}"));
        Ok(Self {
            served: get("nemo_requests_total")?,
            in_flight: get("nemo_requests_in_flight")?,
            shipped: get("nemo_usage_events_shipped_total")?,
            waiting: get("nemo_usage_events_waiting")?,
            dropped: get("nemo_usage_events_dropped")?,
        })
    }

    /// Nothing is left to do. The gauge of waiting events is only set now and then, so the sum decides.
    pub(super) fn settled(&self) -> bool {
        self.in_flight == 0 && self.waiting == 0 && self.shipped + self.dropped >= self.served
    }
}

/// A metric over all its labels.
fn sum(metrics: &str, name: &str) -> Option<u64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.split(' ').next()?.parse::<u64>().ok()
    };
    metrics.lines().filter_map(value).reduce(|sum, value| sum + value)
}

/// What became of the usage of all requests of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metering {
    pub(super) counts: Counts,
    /// Answers that the load generator counted. A few requests more were served: those in flight at its ends.
    pub(super) answered: u64,
    /// In the request log.
    pub(super) rows: u64,
    /// Nano-USD: the sum of the request log, and what was charged to each budget; `None` without budgets.
    pub(super) charged: Option<[i64; 4]>,
    /// CPU time of the control plane for it.
    pub(super) control_plane_us: f64,
}

impl Metering {
    /// Every request left exactly one row, and was charged exactly once to each budget.
    pub(super) fn complete(&self) -> bool {
        let Counts { served, shipped, dropped, .. } = self.counts;
        let charged = self.charged.is_none_or(|[log, budgets @ ..]| log > 0 && budgets == [log; 3]);
        dropped == 0 && served >= self.answered && shipped == served && self.rows == served && charged
    }

    pub(super) fn control_plane_us_per_request(&self) -> f64 {
        self.control_plane_us / self.counts.shipped as f64
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run of so many requests, of which so many were dropped and so many did not reach the log.
    pub(in crate::run) fn metering(served: u64, dropped: u64, missing: u64) -> Metering {
        let shipped = served - dropped;
        let counts = Counts { served, in_flight: 0, shipped, waiting: 0, dropped };
        let (answered, rows) = (served - 5, shipped - missing);
        Metering { counts, answered, rows, charged: Some([7; 4]), control_plane_us: 40.0 * shipped as f64 }
    }

    const METRICS: &str = r#"# HELP nemo_requests Requests by endpoint and outcome.
# TYPE nemo_requests counter
nemo_requests_total{endpoint="chat.completions",outcome="ok"} 40
nemo_requests_total{endpoint="chat.completions",outcome="cancelled"} 2
nemo_requests_in_flight 0
nemo_usage_events_shipped_total 41
nemo_usage_events_waiting 0
nemo_usage_events_dropped 1
# EOF
"#;

    #[test]
    fn counts_are_sums_over_labels() {
        let counts = Counts::parse(METRICS).unwrap();
        assert_eq!(counts, Counts { served: 42, in_flight: 0, shipped: 41, waiting: 0, dropped: 1 });
        assert!(counts.settled());
        assert!(Counts::parse("nemo_requests_total 1\n").is_err());
    }

    #[test]
    fn a_gauge_that_lags_does_not_make_a_run_look_settled() {
        let settled = Counts::parse(METRICS).unwrap();
        for left in [
            Counts { shipped: 40, ..settled },
            Counts { waiting: 1, ..settled },
            Counts { in_flight: 1, ..settled },
        ] {
            assert!(!left.settled(), "{left:?}");
        }
    }

    #[test]
    fn metering_is_complete_when_every_request_left_one_row() {
        assert!(metering(100, 0, 0).complete());
        assert!(!metering(100, 1, 0).complete());
        assert!(!metering(100, 0, 1).complete());
        assert!(!Metering { answered: 101, ..metering(100, 0, 0) }.complete());
    }
}
