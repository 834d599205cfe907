//! From measurements to the table: medians over the rounds, ratios, goals.

mod rows;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::measure::Workload;
use super::metering::Metering;
use super::targets::Target;
use crate::load::Outcome;
use rows::{Compare, Row, rows};

pub(super) struct Report {
    /// Floors first, the gateway last.
    names: Vec<String>,
    /// Outcomes of all rounds, by target and name of the workload.
    outcomes: BTreeMap<(usize, &'static str), Vec<Outcome>>,
    /// KiB before and after the load, by target.
    memory: BTreeMap<usize, (u64, u64)>,
    /// Requests per second of the open loop.
    pub(super) rate: f64,
    /// `None` when the gateway is not the product.
    pub(super) metering: Option<Metering>,
    /// The key has budgets and rate limits.
    pub(super) limited: bool,
    /// A model of another dialect was measured as well.
    pub(super) translated: bool,
}

impl Report {
    pub(super) fn new(targets: &[Target]) -> Self {
        let names = targets.iter().map(|target| target.name.clone()).collect();
        Self {
            names,
            outcomes: BTreeMap::new(),
            memory: BTreeMap::new(),
            rate: 0.0,
            metering: None,
            limited: true,
            translated: false,
        }
    }

    pub(super) fn add(&mut self, target: usize, workload: Workload, outcome: Outcome) {
        self.outcomes.entry((target, workload.name())).or_default().push(outcome);
    }

    /// Answers of a target to all loads, warm-ups included.
    pub(super) fn answered(&self, target: usize) -> u64 {
        let outcomes = self.outcomes.iter().filter(|((of, _), _)| *of == target);
        outcomes.flat_map(|(_, rounds)| rounds).map(|round| round.requests + round.warmup_requests).sum()
    }

    pub(super) fn note_memory(&mut self, target: usize, idle_kib: u64, after_kib: u64) {
        self.memory.insert(target, (idle_kib, after_kib));
    }

    fn rows(&self) -> Vec<Row> {
        rows(self.rate, self.limited, self.translated)
    }

    /// Its index.
    fn gateway(&self) -> usize {
        self.names.len() - 1
    }

    /// Requests per second that the gateway can do at most.
    pub(super) fn saturation(&self) -> f64 {
        self.median(self.gateway(), Workload::Small.name(), Outcome::requests_per_second)
    }

    fn values(&self, target: usize, workload: &'static str, value: fn(&Outcome) -> f64) -> Vec<f64> {
        self.outcomes.get(&(target, workload)).into_iter().flatten().map(value).collect()
    }

    fn median(&self, target: usize, workload: &'static str, value: fn(&Outcome) -> f64) -> f64 {
        median(self.values(target, workload, value))
    }

    /// Gateway against the first floor, within each round: between rounds the machine may have become slower or faster.
    fn compared(&self, row: &Row) -> Option<f64> {
        let gateway = self.values(self.gateway(), row.workload, row.value);
        let floor = self.values(0, row.workload, row.value);
        match row.compare {
            Compare::No => None,
            Compare::Ratio { .. } => Some(median(gateway.iter().zip(&floor).map(|(g, f)| g / f).collect())),
            Compare::Added { .. } => Some(median(gateway.iter().zip(&floor).map(|(g, f)| g - f).collect())),
        }
    }

    /// Whether the goal of a row is met; `None` without goal.
    fn met(&self, row: &Row) -> Option<bool> {
        let value = self.compared(row)?;
        match row.compare {
            Compare::No => None,
            Compare::Ratio { goal } => Some(value <= goal?),
            Compare::Added { goal } => Some(value < goal?),
        }
    }

    /// Speed counts only for a gateway that did all of its work.
    pub(super) fn goals_met(&self) -> bool {
        let metered = self.metering.is_none_or(|metering| metering.complete());
        metered && self.rows().iter().all(|row| self.met(row) != Some(false))
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::from("\n");
        let _ = write!(text, "{:<34}", "");
        for name in &self.names {
            let _ = write!(text, "{name:>12}");
        }
        let _ = writeln!(text, "{:>14}     goal", format!("vs {}", self.names[0]));
        for row in self.rows() {
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
            "\nMedians of {rounds} round(s), comparisons within each. Open loop at {:.0} requests/s, half of the gateway's saturation.",
            self.rate
        );
        if let Some(metering) = &self.metering {
            text.push_str(&metered(metering));
        }
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
        for row in self.rows() {
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
        let metering = self.metering.map(|metering| {
            json!({
                "requests": metering.counts.served,
                "answered": metering.answered,
                "shipped": metering.counts.shipped,
                "dropped": metering.counts.dropped,
                "rows": metering.rows,
                "complete": metering.complete(),
                "charged_nanos": metering.charged,
                "control_plane_cpu_us_per_request": metering.control_plane_us_per_request(),
            })
        });
        json!({
            "open_loop_rate": self.rate,
            "rows": lines,
            "memory": memory,
            "metering": metering,
            "goals_met": self.goals_met(),
        })
    }
}

/// The lines on usage events.
fn metered(metering: &Metering) -> String {
    let counts = metering.counts;
    let verdict = if metering.complete() {
        "complete"
    } else {
        "INCOMPLETE: not every request was metered, so the numbers above do not count"
    };
    let charged = metering.charged.map_or_else(String::new, |charged| {
        let [log, budgets @ ..] = charged.map(|nanos| nanos as f64 / 1e9);
        format!("Money: {log:.6} USD in the request log, {budgets:.6?} USD charged to the three budgets.\n")
    });
    format!(
        "{charged}Metering: {} requests ({} answers counted by the clients), {} usage events shipped, {} dropped, {} rows in the request log: {verdict}.\n\
         Control plane: {:.1} µs CPU per request in its own process, for information.\n",
        counts.served,
        metering.answered,
        counts.shipped,
        counts.dropped,
        metering.rows,
        metering.control_plane_us_per_request()
    )
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
