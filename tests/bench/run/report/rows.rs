//! The lines of the table: which number of which workload, how it is compared, and what is to be reached.

use super::super::measure::Workload;
use crate::load::Outcome;

/// Gateway by floor, CPU per request: with budgets and rate limits, and without.
const REQUEST_RATIO_GOALS: [f64; 2] = [1.6, 1.5];
/// Gateway by floor, CPU per streamed chunk.
const CHUNK_RATIO_GOAL: f64 = 1.3;
/// The same where the gateway translates between OpenAI and Anthropic.
const TRANSLATED_REQUEST_GOAL: f64 = 2.5;
const TRANSLATED_CHUNK_GOAL: f64 = 2.0;
/// What the gateway may add to the floor's p99 at half of its saturation.
const ADDED_P99_GOAL_US: f64 = 1000.0;

/// How a row compares the gateway with the floor.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Compare {
    No,
    Ratio { goal: Option<f64> },
    Added { goal: Option<f64> },
}

/// One line of the table.
pub(super) struct Row {
    pub(super) what: String,
    pub(super) workload: &'static str,
    pub(super) value: fn(&Outcome) -> f64,
    pub(super) compare: Compare,
    pub(super) decimals: usize,
}

pub(super) fn rows(rate: f64, limited: bool, translated: bool) -> Vec<Row> {
    let row = |what: &str, workload: Workload, value, compare, decimals| Row {
        what: what.into(),
        workload: workload.name(),
        value,
        compare,
        decimals,
    };
    let per_request = |outcome: &Outcome| outcome.cpu_us_per_request().unwrap_or(f64::NAN);
    let per_chunk = |outcome: &Outcome| outcome.cpu_us_per_chunk().unwrap_or(f64::NAN);
    let request_goal = Compare::Ratio { goal: Some(REQUEST_RATIO_GOALS[usize::from(!limited)]) };
    let open = Workload::Open { rate, punctual: false };
    let mut rows = vec![
        row("CPU µs per request, 1 KB body", Workload::Small, per_request, request_goal, 2),
        row("  of it after the load", Workload::Small, later, Compare::No, 2),
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
    ];
    if translated {
        let goal = |goal| Compare::Ratio { goal: Some(goal) };
        rows.splice(
            7..7,
            [
                row(
                    "CPU µs per request, to Anthropic",
                    Workload::Translated,
                    per_request,
                    goal(TRANSLATED_REQUEST_GOAL),
                    2,
                ),
                row(
                    "CPU µs per chunk, from Anthropic",
                    Workload::TranslatedStream,
                    per_chunk,
                    goal(TRANSLATED_CHUNK_GOAL),
                    2,
                ),
                row(
                    "  chunks per read of the client",
                    Workload::TranslatedStream,
                    chunks_per_read,
                    Compare::No,
                    2,
                ),
            ],
        );
    }
    rows
}

/// CPU time per request for what was put off until the load was over: shipping usage events.
fn later(outcome: &Outcome) -> f64 {
    outcome.later_cpu_us / outcome.requests as f64
}

/// Percent of one core. Well below 100 in a closed loop says that the load generator was the limit.
fn busy(outcome: &Outcome) -> f64 {
    outcome.cpu_us.unwrap_or(f64::NAN) / outcome.seconds / 1e4
}

/// Above 1 the proxy was so late that it passed on several chunks in one piece, which is cheaper for each.
fn chunks_per_read(outcome: &Outcome) -> f64 {
    outcome.chunks as f64 / outcome.reads as f64
}
