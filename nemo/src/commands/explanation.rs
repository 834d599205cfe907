//! Why a request went where it went, in lines for a person [R004-28]. Called by `nemo requests show`.

use std::fmt::Write as _;

use nemo_proto::admin::{
    RequestRecord, RoutingAttempt, RoutingCandidate, RoutingDecision, RoutingElimination, RoutingHealth,
};
use nemo_types::Nanos;

use super::output::rfc3339;

/// Empty for a request that was refused before it was routed.
pub(super) fn lines(record: &RequestRecord) -> Vec<String> {
    let Some(decision) = &record.decision else { return Vec::new() };
    let mut lines = vec![String::new(), "routing".to_owned()];
    if !decision.unreadable.is_empty() {
        lines.push(format!("  {}", decision.unreadable));
        return lines;
    }
    lines.push(format!(
        "  strategy   {} (by {}), seed {}, configuration {}",
        decision.strategy, decision.strategy_from, decision.seed, record.config_revision
    ));
    lines.push(format!("  asked      {}", asked(decision)));
    if !decision.refusal.is_empty() {
        lines.push(format!("  refused    {}", refusal(&decision.refusal)));
    }
    section(&mut lines, "candidates, in order", &decision.candidates, candidate);
    section(&mut lines, "passed over", &decision.eliminated, |_, it| elimination(it));
    if decision.eliminated_more > 0 {
        lines.push(format!("    and {} more", decision.eliminated_more));
    }
    section(&mut lines, "attempts", &decision.attempts, attempt);
    if decision.cut {
        lines.push("  more was known than is kept".to_owned());
    }
    let retries = decision.retries;
    lines.push(format!("  retries    {retries}"));
    lines.push(format!("  overhead   {} in the gateway before dispatch", time(record.overhead_us)));
    lines.iter_mut().for_each(|line| *line = printable(line));
    lines
}

fn section<T>(lines: &mut Vec<String>, title: &str, items: &[T], show: impl Fn(usize, &T) -> String) {
    if !items.is_empty() {
        lines.push(format!("  {title}"));
        lines.extend(items.iter().enumerate().map(|(at, item)| format!("    {}", show(at + 1, item))));
    }
}

/// What comes from outside must not steer the terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}

fn asked(decision: &RoutingDecision) -> String {
    let join = match decision.chain.as_str() {
        "instead" => " → instead of its fallbacks ",
        _ => " → ",
    };
    let mut text = match decision.names.split_first() {
        Some((first, [])) => first.clone(),
        Some((first, others)) => format!("{first}{join}{}", others.join(" → ")),
        None => String::new(),
    };
    // Writing to a string never fails.
    if !decision.tags.is_empty() {
        let _ = write!(text, ", tags {}", decision.tags.join(" "));
    }
    if !decision.implied_tags.is_empty() {
        let _ = write!(text, ", implies {}", decision.implied_tags.join(" "));
    }
    let _ = write!(text, ", about {} tokens in", decision.input_tokens);
    if let Some(tokens) = decision.output_tokens {
        let _ = write!(text, ", at most {tokens} out");
    }
    if decision.first_link_only {
        text.push_str(", no fallbacks");
    }
    if let Some(nanos) = decision.max_cost_nanos {
        let _ = write!(text, ", at most {} USD", Nanos(nanos));
    }
    if !decision.preferences.is_empty() {
        let _ = write!(text, ", prefers {}", decision.preferences);
    }
    text
}

fn refusal(reason: &str) -> &str {
    match reason {
        "off" => "every deployment is switched off",
        "endpoint" => "no deployment serves the endpoint",
        "tags" => "no deployment has all tags",
        "context" => "too long for every context window",
        "excluded" => "the request's preferences leave no deployment",
        "too_expensive" => "every deployment is above the ceiling of price",
        "cooling" => "every deployment that fits is cooling down",
        other => other,
    }
}

/// As it was called; its id where the history does not know it.
fn named(deployment: &str, id: &str, provider: &str, model: &str) -> String {
    if deployment.is_empty() { id.to_owned() } else { format!("{deployment}  {provider}/{model}") }
}

fn candidate(number: usize, it: &RoutingCandidate) -> String {
    let name = named(&it.deployment, &it.deployment_id, &it.provider, &it.model);
    let health = it.health.as_ref().map(health).unwrap_or_default();
    format!("{number}. {name}  link {}{health}", it.link)
}

fn health(it: &RoutingHealth) -> String {
    let mut text = String::new();
    if it.gate != "ready" {
        let _ = write!(text, ", {}", it.gate);
    }
    if it.in_flight > 0 {
        let _ = write!(text, ", {} in flight", it.in_flight);
    }
    if let Some(micros) = it.ttft_us {
        let _ = write!(text, ", first token {}", time(micros.into()));
    }
    if let Some(micros) = it.per_token_us {
        let _ = write!(text, ", {} per token", time(micros.into()));
    }
    if it.rpm_used > 0 {
        let _ = write!(text, ", {} requests", it.rpm_used);
    }
    if it.tpm_used > 0 {
        let _ = write!(text, ", {} tokens", it.tpm_used);
    }
    if it.rpm_used > 0 || it.tpm_used > 0 {
        text.push_str(" in the last minute");
    }
    if it.success_permille < 1000 {
        let failed = 1000 - it.success_permille;
        let _ = write!(text, ", {}.{} % failed", failed / 10, failed % 10);
    }
    text
}

fn elimination(it: &RoutingElimination) -> String {
    let name = named(&it.deployment, &it.deployment_id, &it.provider, &it.model);
    let why = match it.reason.as_str() {
        "cooling" => format!("cooling down until {} ({})", rfc3339(it.until), it.cause),
        "tags_missing" => format!("lacks the tags {}", it.tags.join(" ")),
        "context_too_small" => {
            format!("its context window is {} tokens", it.context_window.unwrap_or_default())
        }
        "endpoint_not_served" => "does not serve the endpoint".to_owned(),
        "excluded" => "left out by the request's preferences".to_owned(),
        "too_expensive" => format!("above the ceiling of price ({})", it.ceiling),
        "price_unknown" => format!("its price is not known, and there is a ceiling ({})", it.ceiling),
        "disabled" => "switched off".to_owned(),
        other => other.to_owned(),
    };
    format!("{name}  link {}: {why}", it.link)
}

fn attempt(number: usize, it: &RoutingAttempt) -> String {
    let name = named(&it.deployment, &it.deployment_id, &it.provider, &it.model);
    let status = if it.status == 0 { "no answer".to_owned() } else { it.status.to_string() };
    let error = if it.error.is_empty() { String::new() } else { format!(" ({})", it.error) };
    let waited =
        if it.waited_us == 0 { String::new() } else { format!(", waited {} before", time(it.waited_us)) };
    format!("{number}. {name}  {status}{error} after {}{waited}", time(it.took_us))
}

/// Microseconds for people.
fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} µs"),
        1000..1_000_000 => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        _ => format!("{}.{:02} s", micros / 1_000_000, micros % 1_000_000 / 10_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R004-28, R004-30: strategy, order, reasons with their end, attempts with status and latency, overhead.
    #[test]
    fn an_explanation_names_everything_that_decided() {
        let at = |seconds| Some(nemo_proto::Timestamp { seconds, nanos: 0 });
        let decision = RoutingDecision {
            strategy: "least-busy".into(),
            strategy_from: "request".into(),
            seed: "42".into(),
            names: vec!["smart".into(), "cheap".into()],
            chain: "models".into(),
            tags: vec!["vision".into()],
            input_tokens: 1200,
            candidates: vec![RoutingCandidate {
                deployment: "east\x1b".into(),
                provider: "openai".into(),
                model: "gpt".into(),
                health: Some(RoutingHealth { in_flight: 3, success_permille: 995, ..Default::default() }),
                ..Default::default()
            }],
            eliminated: vec![RoutingElimination {
                deployment: "west".into(),
                reason: "cooling".into(),
                cause: "rate_limited".into(),
                until: at(1_795_219_200),
                ..Default::default()
            }],
            attempts: vec![
                RoutingAttempt { error: "upstream_timeout".into(), took_us: 2_340_000, ..Default::default() },
                RoutingAttempt { status: 200, took_us: 1500, waited_us: 250_000, ..Default::default() },
            ],
            retries: 1,
            ..Default::default()
        };
        let record = RequestRecord { decision: Some(decision), overhead_us: 31, ..Default::default() };
        let text = lines(&record).join("\n");
        for expected in [
            "least-busy (by request), seed 42",
            "smart → cheap, tags vision, about 1200 tokens in",
            "1. east·  openai/gpt  link 0",
            "3 in flight, 0.5 % failed",
            "west  /  link 0: cooling down until 2026-11-21T00:00:00Z (rate_limited)",
            "no answer (upstream_timeout) after 2.34 s",
            "200 after 1.5 ms, waited 250.0 ms before",
            "retries    1",
            "31 µs in the gateway",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(lines(&RequestRecord::default()).is_empty());
    }
}
