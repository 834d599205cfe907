//! Token counts. Google counts thoughts and what tools brought in beside the answer and the prompt; we count them within.

use nemo_types::Usage;
use serde::Serialize;

use super::wire::{ModalityTokens, UsageMetadata};
use crate::ServiceTier;

pub(super) fn read(usage: &UsageMetadata) -> Usage {
    let input = sum(usage.prompt_token_count, usage.tool_use_prompt_token_count);
    let told = sum(usage.candidates_token_count, usage.thoughts_token_count);
    let rest = usage.total_token_count.map(|total| total.saturating_sub(input.unwrap_or(0)));
    Usage {
        input,
        output: told.or(rest),
        cache_read: usage.cached_content_token_count,
        cache_write: None,
        cache_write_1h: None,
        reasoning: usage.thoughts_token_count,
        audio_input: audio(usage.prompt_tokens_details.as_deref()),
        audio_output: audio(usage.candidates_tokens_details.as_deref()),
    }
}

/// The tier that Vertex says served the call.
pub(super) fn tier(usage: &UsageMetadata) -> ServiceTier {
    ServiceTier::new(match usage.traffic_type.as_deref() {
        Some("ON_DEMAND_PRIORITY") => b"priority",
        Some("ON_DEMAND_FLEX") => b"flex",
        _ => b"",
    })
}

fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (None, None) => None,
        (a, b) => Some(a.unwrap_or(0).saturating_add(b.unwrap_or(0))),
    }
}

fn audio(details: Option<&[ModalityTokens]>) -> Option<u64> {
    let of_audio = |it: &&ModalityTokens| it.modality.as_deref() == Some("AUDIO");
    details?.iter().find(of_audio)?.token_count
}

/// As Google writes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    prompt_token_count: u64,
    candidates_token_count: u64,
    total_token_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_content_token_count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thoughts_token_count: Option<u64>,
}

pub(super) fn write(usage: &Usage) -> Written {
    let (input, output) = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
    let positive = |count: Option<u64>| count.filter(|it| *it > 0);
    Written {
        prompt_token_count: input,
        candidates_token_count: output.saturating_sub(usage.reasoning.unwrap_or(0)),
        total_token_count: input.saturating_add(output),
        cached_content_token_count: positive(usage.cache_read),
        thoughts_token_count: positive(usage.reasoning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thoughts_are_part_of_the_output_and_tools_of_the_input() {
        let wire: UsageMetadata = serde_json::from_str(
            r#"{"promptTokenCount":10,"toolUsePromptTokenCount":5,"cachedContentTokenCount":4,"candidatesTokenCount":7,
                "thoughtsTokenCount":3,"totalTokenCount":25,"promptTokensDetails":[{"modality":"TEXT","tokenCount":8},{"modality":"AUDIO","tokenCount":2}]}"#,
        )
        .unwrap();
        let usage = read(&wire);
        assert_eq!((usage.input, usage.output), (Some(15), Some(10)));
        assert_eq!((usage.cache_read, usage.reasoning, usage.audio_input), (Some(4), Some(3), Some(2)));
        let written = write(&usage);
        assert_eq!((written.prompt_token_count, written.candidates_token_count), (15, 7));
        assert_eq!((written.total_token_count, written.thoughts_token_count), (25, Some(3)));
    }

    #[test]
    fn nothing_is_told_where_nothing_was_said_and_nothing_is_negative() {
        let read_text = |text: &str| read(&serde_json::from_str(text).unwrap());
        assert!(read_text("{}").is_unknown());
        assert_eq!(read_text(r#"{"promptTokenCount":10,"totalTokenCount":4}"#).output, Some(0));
        assert_eq!(read_text(r#"{"promptTokenCount":10,"totalTokenCount":14}"#).output, Some(4));
        let odd = Usage { output: Some(1), reasoning: Some(5), ..Usage::default() };
        assert_eq!(write(&odd).candidates_token_count, 0);
    }
}
