//! Where a call's cost is put into its answer: `usage.cost`, in dollars, as clients of OpenRouter read it. A declared
//! edit of a few bytes, made only for a client that has asked for usage. Called by [`crate::stream`] for the last chunk
//! with usage, and by the data plane for complete answers.

use std::fmt;

use nemo_types::{Measure, Nanos, Usage};

use crate::{
    ServiceTier,
    json::{Kind, Members},
};

/// What an answer tells that its price depends on.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub usage: Option<&'a Usage>,
    pub measures: &'a [Measure],
    pub service_tier: ServiceTier,
    /// What the upstream says the call costs.
    pub provider_cost: Option<Nanos>,
}

type Price = dyn Fn(&Told<'_>) -> Option<Nanos> + Send + Sync;

/// Says what a call costs, as far as it has been told; `None`: nobody knows.
pub struct Pricing(Box<Price>);

impl Pricing {
    pub fn new(cost: impl Fn(&Told<'_>) -> Option<Nanos> + Send + Sync + 'static) -> Self {
        Self(Box::new(cost))
    }

    pub(crate) fn cost(&self, told: &Told<'_>) -> Option<Nanos> {
        (self.0)(told)
    }
}

impl fmt::Debug for Pricing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pricing")
    }
}

/// The place in an answer where its cost belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostPlace {
    /// Where the `usage` object stands, white space before it included.
    pub(crate) usage_at: usize,
}

/// A replacement: the bytes from `start` to `end` give way to `insert`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CostEdit {
    pub start: usize,
    pub end: usize,
    pub insert: String,
}

impl CostPlace {
    /// What makes the `usage` object of `document` tell this cost: a member more, or another value of the one that is
    /// there. `None` when it tells so already, or in another form than a number.
    pub fn edit(self, document: &[u8], cost: Nanos) -> Option<CostEdit> {
        let mut members = Members::open(document, self.usage_at)?;
        let mut empty = true;
        while let Some(member) = members.next().ok()? {
            empty = false;
            if member.name.inner(document) != b"cost" {
                continue;
            }
            let (value, insert) = (member.value, cost.to_string());
            let edits =
                matches!(value.kind, Kind::Number | Kind::Null) && value.raw(document) != insert.as_bytes();
            return edits.then_some(CostEdit { start: value.span.start, end: value.span.end, insert });
        }
        let brace = members.end().checked_sub(1)?;
        let comma = if empty { "" } else { "," };
        Some(CostEdit { start: brace, end: brace, insert: format!("{comma}\"cost\":{cost}") })
    }
}

impl CostEdit {
    /// The document with the edit made, moved by `offset`: where the edited document lies within `bytes`.
    pub fn apply(&self, bytes: &[u8], offset: usize) -> Option<Vec<u8>> {
        let (before, rest) = bytes.split_at_checked(self.start + offset)?;
        let after = rest.get(self.end - self.start..)?;
        Some([before, self.insert.as_bytes(), after].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cost(document: &str, nanos: i64) -> Option<String> {
        let usage_at = document.find("\"usage\":").unwrap() + "\"usage\":".len();
        let edit = CostPlace { usage_at }.edit(document.as_bytes(), Nanos(nanos))?;
        Some(String::from_utf8(edit.apply(document.as_bytes(), 0).unwrap()).unwrap())
    }

    #[test]
    fn one_member_is_added_or_changed_and_nothing_else() {
        for (before, after) in [
            (
                r#"{"usage":{"prompt_tokens":3}, "x":1}"#,
                r#"{"usage":{"prompt_tokens":3,"cost":0.00014}, "x":1}"#,
            ),
            (r#"{"usage": { } }"#, r#"{"usage": { "cost":0.00014} }"#),
            (r#"{"usage":{"cost":0,"y":{"cost":1}}}"#, r#"{"usage":{"cost":0.00014,"y":{"cost":1}}}"#),
            (r#"{"usage":{"y":{"cost":1}}}"#, r#"{"usage":{"y":{"cost":1},"cost":0.00014}}"#),
            (r#"{"usage":{"cost":null}}"#, r#"{"usage":{"cost":0.00014}}"#),
        ] {
            assert_eq!(with_cost(before, 140_000).as_deref(), Some(after));
            serde_json::from_str::<serde_json::Value>(after).unwrap();
        }
    }

    #[test]
    fn what_is_said_already_or_otherwise_stays() {
        for document in [
            r#"{"usage":{"cost":0.00014}}"#,
            r#"{"usage":{"cost":{"total_cost":0.00014}}}"#,
            r#"{"usage":null}"#,
            r#"{"usage":{"prompt_tokens":3"#,
        ] {
            assert_eq!(with_cost(document, 140_000), None, "{document}");
        }
    }
}
