//! `[[budgets]]` and `[[limits]]` of `nemo.toml`. Called by [`super::parse`].
//!
//! ```toml
//! [[budgets]]
//! name = "ci"
//! key = "ci"                         # or team = "build"; neither: the whole organization
//! limit = "25.00"                    # USD per window, as text: money is no float
//! window = "month"                   # day, week, month, rolling (with hours = 6), total
//! time_zone = "Europe/Berlin"
//! thresholds = [80, 100]
//!
//! [[limits]]
//! name = "ci"
//! key = "ci"
//! requests_per_minute = 60
//! ```

use std::collections::HashSet;

use nemo_types::Nanos;
use serde::Deserialize;
use toml::Spanned;

use super::{document::Document, reader::Reader};
use crate::providers::limits::{DesiredBudget, DesiredLimit, On};

const WINDOWS: [&str; 5] = ["day", "week", "month", "rolling", "total"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetEntry {
    name: Spanned<String>,
    #[serde(default)]
    organization: String,
    team: Option<String>,
    key: Option<String>,
    limit: Spanned<String>,
    window: Spanned<String>,
    hours: Option<Spanned<u32>>,
    #[serde(default = "utc")]
    time_zone: String,
    over_budget: Option<Spanned<String>>,
    no_lease: Option<Spanned<String>>,
    lost_lease: Option<Spanned<String>>,
    reservation: Option<Spanned<String>>,
    #[serde(default)]
    thresholds: Vec<Spanned<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitEntry {
    name: Spanned<String>,
    #[serde(default)]
    organization: String,
    team: Option<String>,
    key: Option<String>,
    #[serde(default)]
    model: String,
    requests_per_minute: Option<u64>,
    tokens_per_minute: Option<u64>,
    concurrent: Option<u32>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A key without a team is one of the team that keys have by themselves.
fn on(team: Option<&String>, key: Option<&String>) -> On {
    match (team, key) {
        (None, None) => On::Organization,
        (Some(team), None) => On::Team(team.clone()),
        (team, Some(key)) => {
            On::Key { team: team.cloned().unwrap_or_else(|| "default".to_owned()), key: key.clone() }
        }
    }
}

impl Reader<'_> {
    pub(super) fn budgets(&mut self, document: &Document) -> Vec<DesiredBudget> {
        let mut seen = HashSet::new();
        for entry in &document.budgets {
            if !seen.insert((&entry.organization, entry.name.get_ref())) {
                self.problem(&entry.name, format!("budget {:?} is declared twice", entry.name.get_ref()));
            }
        }
        document.budgets.iter().filter_map(|entry| self.budget(entry)).collect()
    }

    /// `None` when something is wrong, which was noted.
    fn budget(&mut self, entry: &BudgetEntry) -> Option<DesiredBudget> {
        let limit = Nanos::from_decimal(entry.limit.get_ref());
        if limit.is_none() {
            let message = format!(
                "{:?} is no amount; expected USD with at most nine decimals, as in \"25.00\"",
                entry.limit.get_ref()
            );
            self.problem(&entry.limit, message);
        }
        let window = self.word("window", Some(&entry.window), &WINDOWS);
        match (entry.window.get_ref().as_str(), &entry.hours) {
            ("rolling", Some(hours)) if !(1..=744).contains(hours.get_ref()) => {
                self.problem(hours, format!("{} is no length; expected 1 to 744 hours", hours.get_ref()));
            }
            ("rolling", None) => {
                self.problem(&entry.window, "a rolling window needs hours = 1 to 744".to_owned());
            }
            (window, Some(hours)) if window != "rolling" => {
                self.problem(hours, "only a rolling window has hours".to_owned());
            }
            _ => {}
        }
        let mut thresholds = Vec::new();
        for percent in &entry.thresholds {
            if !(1..=1000).contains(percent.get_ref()) {
                let message = format!("{} is no percentage; expected 1 to 1000", percent.get_ref());
                self.problem(percent, message);
            }
            thresholds.push(*percent.get_ref());
        }
        thresholds.sort_unstable();
        thresholds.dedup();
        Some(DesiredBudget {
            name: format!("file:{}", entry.name.get_ref()),
            organization: entry.organization.clone(),
            on: on(entry.team.as_ref(), entry.key.as_ref()),
            over_budget: self.word("over_budget", entry.over_budget.as_ref(), &["cap", "reject"]),
            no_lease: self.word("no_lease", entry.no_lease.as_ref(), &["deny", "allow"]),
            lost_lease: self.word("lost_lease", entry.lost_lease.as_ref(), &["charge", "release"]),
            reservation: self.word("reservation", entry.reservation.as_ref(), &["strict", "estimated"]),
            limit_nanos: limit?.0,
            window,
            window_hours: entry.hours.as_ref().map_or(0, |hours| *hours.get_ref()),
            time_zone: entry.time_zone.clone(),
            thresholds,
        })
    }

    /// The first of the list when nothing is said.
    fn word(&mut self, field: &str, said: Option<&Spanned<String>>, words: &[&str]) -> String {
        let Some(said) = said else { return words.first().copied().unwrap_or_default().to_owned() };
        if !words.contains(&said.get_ref().as_str()) {
            let message = format!("{:?} is no {field}; expected {}", said.get_ref(), words.join(", "));
            self.problem(said, message);
        }
        said.get_ref().clone()
    }

    pub(super) fn limits(&mut self, document: &Document) -> Vec<DesiredLimit> {
        let mut seen = HashSet::new();
        let mut limits = Vec::new();
        for entry in &document.limits {
            if !seen.insert((&entry.organization, entry.name.get_ref())) {
                self.problem(&entry.name, format!("limit {:?} is declared twice", entry.name.get_ref()));
            }
            let rates = [entry.requests_per_minute, entry.tokens_per_minute, entry.concurrent.map(u64::from)];
            if rates.iter().all(Option::is_none) {
                let message =
                    "nothing is limited; expected requests_per_minute, tokens_per_minute or concurrent";
                self.problem(&entry.name, message.to_owned());
            }
            if rates.contains(&Some(0)) {
                let message = "a limit of 0 would refuse everything; leave it out, or disable the key";
                self.problem(&entry.name, message.to_owned());
            }
            limits.push(DesiredLimit {
                name: format!("file:{}", entry.name.get_ref()),
                organization: entry.organization.clone(),
                on: on(entry.team.as_ref(), entry.key.as_ref()),
                model: entry.model.clone(),
                requests_per_minute: entry.requests_per_minute,
                tokens_per_minute: entry.tokens_per_minute,
                concurrent: entry.concurrent,
            });
        }
        limits
    }
}
