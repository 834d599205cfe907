//! What the answers of Anthropic's and Google's own interfaces say, where they are passed on as they are: why they ended,
//! in the words of the request log, and how much text is in them. Called by [`super::units`] for complete answers and by
//! [`crate::stream`] for events.

use nemo_types::Usage;

use super::{Report, report, text, units::member};
use crate::{
    Endpoint, FinishReason,
    json::{Kind, Members, Value},
};

/// Anthropic's `stop_reason`.
pub(crate) fn of_anthropic(document: &[u8], value: &Value) -> Option<FinishReason> {
    let word = value.text(document)?;
    Some(FinishReason::new(match &*word {
        "end_turn" | "stop_sequence" | "pause_turn" => "stop",
        "max_tokens" | "model_context_window_exceeded" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        other => other,
    }))
}

/// Google's `finishReason`.
fn of_google(document: &[u8], value: &Value) -> Option<FinishReason> {
    let word = value.text(document)?;
    Some(FinishReason::new(match &*word {
        "STOP" => "stop",
        "MAX_TOKENS" => "length",
        "SAFETY" | "RECITATION" | "LANGUAGE" | "BLOCKLIST" | "PROHIBITED_CONTENT" | "SPII"
        | "IMAGE_SAFETY" => "content_filter",
        "MALFORMED_FUNCTION_CALL" => "error",
        other => other,
    }))
}

/// What one of Google's answers says: the whole of it, or a chunk of a stream, which look alike.
#[derive(Debug, Default)]
pub(crate) struct Google {
    pub(crate) report: Option<Report>,
    pub(crate) finish: Option<FinishReason>,
    pub(crate) output_bytes: u64,
    /// There is something in it that is no text.
    pub(crate) media: bool,
}

impl Google {
    /// Takes a member of the answer.
    pub(crate) fn member(&mut self, document: &[u8], name: &[u8], value: &Value) {
        match name {
            b"usageMetadata" => {
                self.report = report(Endpoint::GenerateContent, document, value).or(self.report)
            }
            b"candidates" => {
                text::for_each_object(document, value, |candidate| self.candidate(document, candidate))
            }
            b"promptFeedback" if member(document, value, b"blockReason").is_some() => {
                self.finish = Some(FinishReason::new("content_filter"));
            }
            _ => {}
        }
    }

    fn candidate(&mut self, document: &[u8], candidate: &Value) {
        text::for_each_member(document, candidate, |name, value| match name {
            b"content" => {
                self.output_bytes += text::generated(document, value);
                self.media |= memchr::memmem::find(value.raw(document), b"\"inlineData\"").is_some();
            }
            b"finishReason" if value.kind == Kind::String => {
                self.finish = self.finish.take().or_else(|| of_google(document, value));
            }
            _ => {}
        });
    }
}

/// What an event of Anthropic's says, beside its name.
#[derive(Debug, Default)]
pub(crate) struct Anthropic {
    pub(crate) report: Option<Report>,
    pub(crate) finish: Option<FinishReason>,
}

impl Anthropic {
    /// Of `message_start`, where all is in `message`, and of `message_delta`.
    pub(crate) fn event(document: &[u8]) -> Self {
        let mut said = Self::default();
        let Some(mut members) = Members::open(document, 0) else { return said };
        while let Ok(Some(outer)) = members.next() {
            match outer.name.inner(document) {
                b"usage" => said.report = report(Endpoint::Messages, document, &outer.value),
                b"message" | b"delta" => {
                    text::for_each_member(document, &outer.value, |name, value| match name {
                        b"usage" => said.report = report(Endpoint::Messages, document, value),
                        b"stop_reason" => said.finish = of_anthropic(document, value),
                        _ => {}
                    })
                }
                _ => {}
            }
        }
        said
    }

    /// Whether a block that begins is content by itself; of texts and thoughts nothing has been said yet.
    pub(crate) fn begins_content(document: &[u8]) -> bool {
        let Some(mut members) = Members::open(document, 0) else { return false };
        while let Ok(Some(outer)) = members.next() {
            if outer.name.inner(document) == b"content_block" {
                let kind = member(document, &outer.value, b"type");
                return !kind.is_some_and(|kind| matches!(kind.inner(document), b"text" | b"thinking"));
            }
        }
        false
    }
}

/// Counts that came later win, each by itself: Anthropic tells the input at the beginning and the output at the end.
pub(crate) fn merged(later: Usage, earlier: Usage) -> Usage {
    Usage {
        input: later.input.or(earlier.input),
        output: later.output.or(earlier.output),
        cache_read: later.cache_read.or(earlier.cache_read),
        cache_write: later.cache_write.or(earlier.cache_write),
        cache_write_1h: later.cache_write_1h.or(earlier.cache_write_1h),
        reasoning: later.reasoning.or(earlier.reasoning),
        audio_input: later.audio_input.or(earlier.audio_input),
        audio_output: later.audio_output.or(earlier.audio_output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scan_response, usage_scan::UnaryInfo};

    fn scan(endpoint: Endpoint, body: &str) -> UnaryInfo {
        scan_response(endpoint, body.as_bytes())
    }

    /// E.3: what is read from a cache is beside Anthropic's input, and inside of Google's.
    #[test]
    fn native_answers_are_metered_in_one_convention() {
        let info = scan(
            Endpoint::Messages,
            r#"{"id":"msg_1","type":"message","role":"assistant","content":[{"type":"text","text":"four"}],
            "stop_reason":"max_tokens","usage":{"input_tokens":10,"cache_creation_input_tokens":5,
            "cache_read_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":2,
            "ephemeral_1h_input_tokens":3},"output_tokens":7,"service_tier":"standard"}}"#,
        );
        let usage = Usage {
            input: Some(115),
            output: Some(7),
            cache_read: Some(100),
            cache_write: Some(5),
            cache_write_1h: Some(3),
            ..Usage::default()
        };
        assert_eq!(info.usage, Some(usage));
        assert_eq!((info.finish_reason.unwrap().as_str(), info.output_bytes), ("length", 4));

        let info = scan(
            Endpoint::GenerateContent,
            r#"{"candidates":[{"content":{"parts":[{"text":"four"}],"role":"model"},"finishReason":"SAFETY"}],
            "usageMetadata":{"promptTokenCount":100,"cachedContentTokenCount":40,"toolUsePromptTokenCount":3,
            "candidatesTokenCount":7,"thoughtsTokenCount":20,"totalTokenCount":130,
            "promptTokensDetails":[{"modality":"TEXT","tokenCount":90},{"modality":"AUDIO","tokenCount":10}]}}"#,
        );
        let usage = Usage {
            input: Some(103),
            output: Some(27),
            cache_read: Some(40),
            reasoning: Some(20),
            audio_input: Some(10),
            ..Usage::default()
        };
        assert_eq!(info.usage, Some(usage));
        assert_eq!((info.finish_reason.unwrap().as_str(), info.output_bytes), ("content_filter", 4));
    }

    #[test]
    fn a_prompt_that_was_blocked_is_filtered_content() {
        let info = scan(Endpoint::GenerateContent, r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#);
        assert_eq!(info.finish_reason.unwrap().as_str(), "content_filter");
    }
}
