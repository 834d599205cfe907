//! Token counts. Anthropic counts what is read from and written to the prompt cache beside `input_tokens`, the hub within
//! them.

use nemo_types::Usage;
use serde::Deserialize;

use super::writer::Object;
use crate::ServiceTier;

/// `usage` of an answer, of `message_start` and of `message_delta`, where a count that is missing is what it was.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Counts<'a> {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<Created>,
    output_tokens_details: Option<Details>,
    #[serde(borrow, default)]
    service_tier: Option<&'a str>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Created {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Details {
    thinking_tokens: Option<u64>,
}

impl Counts<'_> {
    pub(super) fn tier(&self) -> ServiceTier {
        self.service_tier.map(|tier| ServiceTier::new(tier.as_bytes())).unwrap_or_default()
    }

    /// These counts; those that are missing as `before` had them.
    pub(super) fn since(self, before: &Totals) -> Totals {
        let created = self.cache_creation;
        let by_kind = created.map(|it| {
            it.ephemeral_5m_input_tokens
                .unwrap_or(0)
                .saturating_add(it.ephemeral_1h_input_tokens.unwrap_or(0))
        });
        Totals {
            uncached: self.input_tokens.or(before.uncached),
            output: self.output_tokens.or(before.output),
            read: self.cache_read_input_tokens.or(before.read),
            write: self.cache_creation_input_tokens.or(by_kind).or(before.write),
            write_1h: created.and_then(|it| it.ephemeral_1h_input_tokens).or(before.write_1h),
            reasoning: self.output_tokens_details.and_then(|it| it.thinking_tokens).or(before.reasoning),
        }
    }
}

/// Counts as Anthropic adds them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    uncached: Option<u64>,
    output: Option<u64>,
    read: Option<u64>,
    write: Option<u64>,
    write_1h: Option<u64>,
    reasoning: Option<u64>,
}

impl Totals {
    pub(super) fn usage(&self) -> Usage {
        let cached = self.read.unwrap_or(0).saturating_add(self.write.unwrap_or(0));
        Usage {
            input: self.uncached.map(|tokens| tokens.saturating_add(cached)),
            output: self.output,
            cache_read: self.read,
            cache_write: self.write,
            cache_write_1h: self.write_1h,
            reasoning: self.reasoning,
            ..Usage::default()
        }
    }
}

/// Writes the members of `usage`; a count that nobody told is 0, since the clients' types want a number.
pub(super) fn write(mut object: Object<'_>, usage: &Usage, tier: ServiceTier) {
    let (read, write) = (usage.cache_read.unwrap_or(0), usage.cache_write.unwrap_or(0));
    let input = usage.input.unwrap_or(0).saturating_sub(read).saturating_sub(write);
    object.value("input_tokens", input);
    object.value("cache_creation_input_tokens", write);
    object.value("cache_read_input_tokens", read);
    if usage.cache_write.is_some() {
        let hour = usage.cache_write_1h.unwrap_or(0).min(write);
        let mut created = Object::open(object.member("cache_creation"));
        created.value("ephemeral_5m_input_tokens", write - hour);
        created.value("ephemeral_1h_input_tokens", hour);
        created.close();
    }
    object.value("output_tokens", usage.output.unwrap_or(0));
    if let Some(reasoning) = usage.reasoning {
        let mut details = Object::open(object.member("output_tokens_details"));
        details.value("thinking_tokens", reasoning);
        details.close();
    }
    // The words of other providers would not fit the clients' types.
    if matches!(tier.as_str(), "standard" | "priority" | "batch") {
        object.value("service_tier", tier.as_str());
    }
    object.close();
}
