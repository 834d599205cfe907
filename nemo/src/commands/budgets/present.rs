//! How the present window of a budget stands, in lines for a person. Called by `nemo budgets get`.

use nemo_proto::{
    Timestamp,
    admin::{Amount, BudgetWindow},
};

use crate::commands::output::rfc3339;

/// Begins with an empty line: the budget itself comes before.
pub fn lines(window: &BudgetWindow) -> Vec<String> {
    let usd = |amount: &Option<Amount>| amount.as_ref().map_or("0", |it| it.usd.as_str()).to_owned();
    let mut lines = vec![String::new(), "present window".to_owned()];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<9}  {text}"));
    line("from", start(window.start));
    line("until", window.end.map_or_else(|| "for ever".to_owned(), |end| rfc3339(Some(end))));
    line("limit", format!("{} USD", usd(&window.limit)));
    line("settled", format!("{} USD, what requests have cost", usd(&window.settled)));
    if window.overrun.as_ref().is_some_and(|it| it.nanos != 0) {
        line(
            "overrun",
            format!("{} USD, what they cost beyond what was held for them", usd(&window.overrun)),
        );
    }
    let (held, reserved) = (usd(&window.outstanding), usd(&window.reserved));
    line("held", format!("{held} USD by nodes, {reserved} of it for requests in flight"));
    let exhausted = if window.exhausted { ": exhausted, or nodes ask for more than that" } else { "" };
    line("left", format!("{} USD{exhausted}", usd(&window.remaining)));
    for crossing in &window.crossings {
        let what = match crossing.percent {
            0 => "nothing left".to_owned(),
            percent => format!("{percent} %"),
        };
        let (at, spent, limit) = (rfc3339(crossing.at), usd(&crossing.spent), usd(&crossing.limit));
        line("crossed", format!("{what} at {at}, with {spent} of {limit} USD spent"));
    }
    lines
}

/// When a window begins, for a person.
pub fn start(at: Option<Timestamp>) -> String {
    // Windows that never end are kept under the beginning of time.
    if at.is_none_or(|at| at.seconds == 0) { "the beginning".to_owned() } else { rfc3339(at) }
}

#[cfg(test)]
mod tests {
    use nemo_proto::admin::BudgetCrossing;

    use super::*;

    #[test]
    fn a_window_is_told_in_words_and_without_json() {
        let amount = |usd: &str, nanos| Some(Amount { usd: usd.to_owned(), nanos });
        let window = BudgetWindow {
            start: Some(Timestamp { seconds: 0, nanos: 0 }),
            limit: amount("0.01", 10_000_000),
            settled: amount("0.009", 9_000_000),
            outstanding: amount("0.0006", 600_000),
            remaining: amount("0.0004", 400_000),
            exhausted: true,
            crossings: vec![BudgetCrossing {
                percent: 50,
                at: Some(Timestamp { seconds: 1_795_264_869, nanos: 0 }),
                limit: amount("0.01", 10_000_000),
                spent: amount("0.009", 9_000_000),
            }],
            ..BudgetWindow::default()
        };
        assert_eq!(
            lines(&window),
            [
                "",
                "present window",
                "  from       the beginning",
                "  until      for ever",
                "  limit      0.01 USD",
                "  settled    0.009 USD, what requests have cost",
                "  held       0.0006 USD by nodes, 0 of it for requests in flight",
                "  left       0.0004 USD: exhausted, or nodes ask for more than that",
                "  crossed    50 % at 2026-11-21T12:41:09Z, with 0.009 of 0.01 USD spent",
            ]
        );
    }
}
