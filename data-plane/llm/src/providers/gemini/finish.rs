//! Why an answer ended, in Google's words and back (requirements E.3).

use crate::ir::Finish;

/// `None`: nothing was said. `called`: the answer has calls, of which Google says just `STOP`.
pub(super) fn read(reason: &str, called: bool) -> Option<Finish<'static>> {
    Some(match reason {
        "" | "FINISH_REASON_UNSPECIFIED" => return None,
        "STOP" if called => Finish::ToolCalls,
        "STOP" => Finish::Stop,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "OTHER"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "MODEL_ARMOR"
        | "JAILBREAK"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "IMAGE_OTHER"
        | "NO_IMAGE" => Finish::ContentFilter,
        "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" => Finish::MalformedCall,
        "MALFORMED_RESPONSE" | "MISSING_THOUGHT_SIGNATURE" => Finish::Error,
        "CONTINUATION" => Finish::Pause,
        other => {
            let word = &other[..other.floor_char_boundary(crate::FinishReason::MAX_OTHER)];
            Finish::Other(word.to_ascii_lowercase().into())
        }
    })
}

pub(super) fn write(finish: &Finish<'_>) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::ToolCalls | Finish::Pause => "STOP",
        Finish::Length => "MAX_TOKENS",
        Finish::ContentFilter | Finish::Refusal => "SAFETY",
        Finish::MalformedCall => "MALFORMED_FUNCTION_CALL",
        Finish::Error | Finish::Other(_) => "OTHER",
    }
}

/// An owned copy, for what outlives the event that it came in.
pub(super) fn kept(finish: &Finish<'_>) -> Finish<'static> {
    match finish {
        Finish::Stop => Finish::Stop,
        Finish::StopSequence(text) => Finish::StopSequence(text.clone().into_owned().into()),
        Finish::Length => Finish::Length,
        Finish::ToolCalls => Finish::ToolCalls,
        Finish::ContentFilter => Finish::ContentFilter,
        Finish::Refusal => Finish::Refusal,
        Finish::Pause => Finish::Pause,
        Finish::MalformedCall => Finish::MalformedCall,
        Finish::Error => Finish::Error,
        Finish::Other(text) => Finish::Other(text.clone().into_owned().into()),
    }
}
