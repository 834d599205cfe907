//! Token counts of answers. Read with the scanner that also reads spliced answers, which knows how each service departs
//! from OpenAI; written in OpenAI's words.

use nemo_types::Usage;
use serde_json::value::RawValue;

use crate::{
    Endpoint,
    json::Cursor,
    providers::write::{self, Object},
    usage_scan,
};

/// `None` for what is no object or has no counts.
pub(super) fn read(json: &RawValue) -> Option<Usage> {
    let document = json.get().as_bytes();
    let value = Cursor::new(document, 0).value(1).ok()?;
    let report = usage_scan::report(Endpoint::ChatCompletions, document, &value)?;
    Some(report.usage).filter(|usage| !usage.is_unknown())
}

pub(super) fn write(out: &mut Vec<u8>, usage: &Usage) {
    let (input, output) = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
    let member = |out: &mut Object<'_>, name, count: Option<u64>| {
        if let Some(count) = count {
            out.value(name, count);
        }
    };
    write::object(out, |out| {
        out.value("prompt_tokens", input);
        out.value("completion_tokens", output);
        out.value("total_tokens", input.saturating_add(output));
        if usage.cache_read.or(usage.cache_write).or(usage.audio_input).is_some() {
            out.object("prompt_tokens_details", |out| {
                out.value("cached_tokens", usage.cache_read.unwrap_or(0));
                // OpenRouter's word; OpenAI has none.
                member(out, "cache_write_tokens", usage.cache_write);
                member(out, "audio_tokens", usage.audio_input);
            });
        }
        if usage.reasoning.or(usage.audio_output).is_some() {
            out.object("completion_tokens_details", |out| {
                out.value("reasoning_tokens", usage.reasoning.unwrap_or(0));
                member(out, "audio_tokens", usage.audio_output);
            });
        }
    });
}
