//! From measurements to the table: medians over the rounds, ratios, goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measure::Workload;
use super::targets::Target;
use crate::load::Outcome;

/// Gateway by floor, CPU per request.
const REQUEST_RATIO_GOAL: f64 = 1.5;
/// Gateway by floor, CPU per streamed chunk.
const CHUNK_RATIO_GOAL: f64 = 1.3;
/// What the gateway may add to the floor's p99 at half of its saturation.
const ADDED_P99_GOAL_US: f64 = 1000.0;

pub(super) struct Report {
    names: Vec<String>,
    /// Outcomes of all rounds, by target and name of the workload.
    outcomes: BTreeMap<(usize, &'static str), Vec<Outcome>>,
    /// KiB before and after the load, by target.
    memory: BTreeMap<usize, (u64, u64)>,
    /// Requests per second of the open loop.
    pub(super) rate: f64,
}

/// How a row compares the gateway with the floor.
#[derive(Clone, Copy, PartialEq)]
enum Compare {
    No,
    Ratio { goal: Option<f64> },
    Added { goal: Option<f64> },
}

/// One line of the table.
struct Row {
    what: String,
    workload: &'static str,
    value: fn(&Outcome) -> f64,
    compare: Compare,
    decimals: usize,
}

fn rows(rate: f64) -> Vec<Row> {
    let row = |what: &str, workload: Workload, value, compare, decimals| Row {
        what: what.into(),
        workload: workload.name(),
        value,
        compare,
        decimals,
    };
    let per_request = |outcome: &Outcome| outcome.cpu_us_per_request().unwrap_or(f64::NAN);
    let per_chunk = |outcome: &Outcome| outcome.cpu_us_per_chunk().unwrap_or(f64::NAN);
    let request_goal = Compare::Ratio { goal: Some(REQUEST_RATIO_GOAL) };
    let open = Workload::Open { rate };
    vec![
        row("CPU µs per request, 1 KB body", Workload::Small, per_request, request_goal, 2),
        row("CPU µs per request, 100 KB body", Workload::Large, per_request, request_goal, 2),
        row(
            "CPU µs per streamed chunk",
            Workload::Stream,
            per_chunk,
            Compare::Ratio { goal: Some(CHUNK_RATIO_GOAL) },
            2,
        ),
        row("  chunks per read of the client", Workload::Stream, chunks_per_read, Compare::No, 2),
        row(
            "CPU µs per chunk, one per ms",
            Workload::Paced,
            per_chunk,
            Compare::Ratio { goal: Some(CHUNK_RATIO_GOAL) },
            2,
        ),
        row("  chunks per read of the client", Workload::Paced, chunks_per_read, Compare::No, 2),
        row(
            "requests/s, 64 connections, 1 KB",
            Workload::Small,
            Outcome::requests_per_second,
            Compare::Ratio { goal: None },
            0,
        ),
        row("  share of its core used, %", Workload::Small, busy, Compare::No, 0),
        row("p50 µs, open loop", open, |outcome| outcome.p50_us, Compare::Added { goal: None }, 0),
        row(
            "p99 µs, open loop",
            open,
            |outcome| outcome.p99_us,
            Compare::Added { goal: Some(ADDED_P99_GOAL_US) },
            0,
        ),
        row("p99.9 µs, open loop", open, |outcome| outcome.p999_us, Compare::Added { goal: None }, 0),
    ]
}

/// Percent of one core. Well below 100 in a closed loop says that the load generator was the limit.
fn busy(outcome: &Outcome) -> f64 {
    outcome.cpu_us.unwrap_or(f64::NAN) / outcome.seconds / 1e4
}

/// Above 1 the proxy was so late that it passed on several chunks in one piece, which is cheaper for each.
fn chunks_per_read(outcome: &Outcome) -> f64 {
    outcome.chunks as f64 / outcome.reads as f64
}

impl Report {
    pub(super) fn new(targets: &[Target]) -> Self {
        let names = targets.iter().map(|target| target.name.clone()).collect();
        Self { names, outcomes: BTreeMap::new(), memory: BTreeMap::new(), rate: 0.0 }
    }

    pub(super) fn add(&mut self, target: usize, workload: Workload, outcome: Outcome) {
        self.outcomes.entry((target, workload.name())).or_default().push(outcome);
    }

    pub(super) fn note_memory(&mut self, target: usize, idle_kib: u64, after_kib: u64) {
        self.memory.insert(target, (idle_kib, after_kib));
    }

    /// Index of the gateway, if there is one: it comes last.
    fn gateway(&self) -> Option<usize> {
        self.names.iter().rposition(|name| name == "gateway")
    }

    /// Requests per second that the gateway can do at most, or the floor when it is alone.
    pub(super) fn saturation(&self) -> f64 {
        self.median(self.gateway().unwrap_or(0), Workload::Small.name(), Outcome::requests_per_second)
    }

    fn values(&self, target: usize, workload: &'static str, value: fn(&Outcome) -> f64) -> Vec<f64> {
        self.outcomes.get(&(target, workload)).into_iter().flatten().map(value).collect()
    }

    fn median(&self, target: usize, workload: &'static str, value: fn(&Outcome) -> f64) -> f64 {
        median(self.values(target, workload, value))
    }

    /// Gateway against the first floor; differences are taken within each round.
    fn compared(&self, row: &Row) -> Option<f64> {
        let gateway = self.values(self.gateway()?, row.workload, row.value);
        let floor = self.values(0, row.workload, row.value);
        match row.compare {
            Compare::No => None,
            Compare::Ratio { .. } => Some(median(gateway) / median(floor)),
            Compare::Added { .. } => Some(median(gateway.iter().zip(&floor).map(|(g, f)| g - f).collect())),
        }
    }

    /// Whether the goal of a row is met; `None` without goal or gateway.
    fn met(&self, row: &Row) -> Option<bool> {
        let value = self.compared(row)?;
        match row.compare {
            Compare::No => None,
            Compare::Ratio { goal } => Some(value <= goal?),
            Compare::Added { goal } => Some(value < goal?),
        }
    }

    pub(super) fn goals_met(&self) -> bool {
        rows(self.rate).iter().all(|row| self.met(row) != Some(false))
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::from("\n");
        let _ = write!(text, "{:<34}", "");
        for name in &self.names {
            let _ = write!(text, "{name:>12}");
        }
        let heading = if self.gateway().is_some() { "      compared    goal" } else { "" };
        let _ = writeln!(text, "{heading}");
        for row in rows(self.rate) {
            let _ = write!(text, "{:<34}", row.what);
            for target in 0..self.names.len() {
                let value = self.median(target, row.workload, row.value);
                let _ = write!(text, "{value:>12.*}", row.decimals);
            }
            let _ = writeln!(text, "{}", self.comparison(&row));
        }
        for (what, pick) in [
            ("RSS MiB, idle", (|memory| memory.0) as fn(&(u64, u64)) -> u64),
            ("RSS MiB, after the load", |memory| memory.1),
        ] {
            let _ = write!(text, "{what:<34}");
            for target in 0..self.names.len() {
                let mib = self.memory.get(&target).map_or(f64::NAN, |memory| pick(memory) as f64 / 1024.0);
                let _ = write!(text, "{mib:>12.1}");
            }
            let _ = writeln!(text);
        }
        let rounds = self.outcomes.values().map(Vec::len).max().unwrap_or(0);
        let _ = writeln!(
            text,
            "\nMedians of {rounds} round(s). Open loop at {:.0} requests/s, half of saturation.",
            self.rate
        );
        text
    }

    fn comparison(&self, row: &Row) -> String {
        let Some(value) = self.compared(row) else { return String::new() };
        let (value, goal) = match row.compare {
            Compare::No => return String::new(),
            Compare::Ratio { goal } => (format!("x {value:.2}"), goal.map(|goal| format!("<= {goal:.2}"))),
            Compare::Added { goal } => (format!("{value:+.0}"), goal.map(|goal| format!("< {goal:.0}"))),
        };
        let verdict = match self.met(row) {
            Some(true) => "  met",
            Some(false) => "  MISSED",
            None => "",
        };
        format!("{value:>14}  {:>7}{verdict}", goal.unwrap_or_default()).trim_end().to_owned()
    }

    pub(super) fn json(&self) -> Value {
        let mut lines = Vec::new();
        for row in rows(self.rate) {
            let by_target = self.names.iter().enumerate().map(|(target, name)| {
                let rounds = self.values(target, row.workload, row.value);
                (name.clone(), json!({"median": median(rounds.clone()), "rounds": rounds}))
            });
            let by_target: serde_json::Map<String, Value> = by_target.collect();
            lines.push(json!({
                "what": row.what.trim(),
                "values": by_target,
                "compared": self.compared(&row),
                "met": self.met(&row),
            }));
        }
        let memory = self.names.iter().enumerate().map(|(target, name)| {
            let (idle, after) = self.memory.get(&target).copied().unwrap_or_default();
            (name.clone(), json!({"idle_kib": idle, "after_kib": after}))
        });
        let memory: serde_json::Map<String, Value> = memory.collect();
        json!({"open_loop_rate": self.rate, "rows": lines, "memory": memory, "goals_met": self.goals_met()})
    }
}

/// Of an even number the mean of the middle two; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(small: [f64; 3], open_p99: [f64; 3]) -> Report {
        let mut report = Report {
            names: vec!["floor".into(), "gateway".into()],
            outcomes: BTreeMap::new(),
            memory: BTreeMap::new(),
            rate: 100.0,
        };
        let outcome = |cpu: f64, p99_us| Outcome {
            seconds: 1.0,
            requests: 1000,
            chunks: 1000,
            cpu_us: Some(cpu * 1000.0),
            p99_us,
            ..Outcome::default()
        };
        for round in 0..3 {
            for workload in [
                Workload::Small,
                Workload::Large,
                Workload::Stream,
                Workload::Paced,
                Workload::Open { rate: 100.0 },
            ] {
                report.add(0, workload, outcome(10.0, 50.0 * round as f64));
                report.add(1, workload, outcome(small[round], 50.0 * round as f64 + open_p99[round]));
            }
        }
        report
    }

    #[test]
    fn goals_are_judged_by_the_median_round() {
        assert!(report([12.0, 13.0, 99.0], [999.0, 10.0, 9999.0]).goals_met());
        assert!(!report([12.0, 13.1, 13.1], [1.0; 3]).goals_met());
        assert!(!report([12.0; 3], [1.0, 1000.0, 1000.0]).goals_met());
    }

    #[test]
    fn the_table_names_missed_goals() {
        let table = report([16.0; 3], [1.0; 3]).table();
        let line = table.lines().find(|line| line.starts_with("CPU µs per request, 1 KB")).unwrap();
        assert!(line.contains("x 1.60") && line.ends_with("MISSED"), "{line}");
        let line = table.lines().find(|line| line.starts_with("p99 µs")).unwrap();
        assert!(line.contains("+1") && line.ends_with("met"), "{line}");
    }

    #[test]
    fn the_open_loop_runs_at_half_of_what_the_gateway_can_do() {
        assert!((report([10.0; 3], [0.0; 3]).saturation() - 1000.0).abs() < 1e-9);
    }
}
