//! Error bodies: `{"type":"error","error":{"type","message"},"request_id"}`, also as an event of a stream.

use crate::UpstreamErrorInfo;

/// Reads an error body. Anthropic has types and no codes: what classification goes by is told by the type, by the status
/// where the type is general, and for two cases by the words alone.
pub fn decode(status: u16, body: &[u8]) -> UpstreamErrorInfo {
    let mut info = crate::decode_error(body);
    // Read as a member of the outermost object where there is no `error` in it.
    if info.kind.as_deref() == Some("error") {
        info.kind = None;
    }
    if info.code.is_none() {
        let message = info.message.as_deref().unwrap_or_default();
        info.code = code(info.kind.as_deref().unwrap_or_default(), status, message).map(str::to_owned);
    }
    info
}

/// The code that OpenAI has for it.
fn code(kind: &str, status: u16, message: &str) -> Option<&'static str> {
    let says = |words: &str| message.contains(words);
    Some(match kind {
        "invalid_request_error" if says("prompt is too long") || says("exceed context limit") => {
            "context_length_exceeded"
        }
        "invalid_request_error" if says("credit balance is too low") => "insufficient_quota",
        "billing_error" => "insufficient_quota",
        "authentication_error" => "invalid_api_key",
        "not_found_error" if says("model") => "model_not_found",
        "rate_limit_error" => "rate_limit_exceeded",
        "overloaded_error" => "overloaded",
        "" if status == 529 => "overloaded",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E.5: types of errors, and what OpenAI's clients would call them.
    #[test]
    fn each_type_gets_the_code_that_openai_has_for_it() {
        for (status, kind, message, code) in [
            (
                400,
                "invalid_request_error",
                "prompt is too long: 210000 tokens > 200000 maximum",
                Some("context_length_exceeded"),
            ),
            (
                400,
                "invalid_request_error",
                "Your credit balance is too low to access the API",
                Some("insufficient_quota"),
            ),
            (400, "invalid_request_error", "messages.0: bad", None),
            (401, "authentication_error", "invalid x-api-key", Some("invalid_api_key")),
            (402, "billing_error", "pay", Some("insufficient_quota")),
            (404, "not_found_error", "model: claude-x", Some("model_not_found")),
            (404, "not_found_error", "file_1", None),
            (413, "request_too_large", "big", None),
            (429, "rate_limit_error", "slow", Some("rate_limit_exceeded")),
            (500, "api_error", "oops", None),
            (529, "overloaded_error", "Overloaded", Some("overloaded")),
        ] {
            let body = format!(
                r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1"}}"#
            );
            let info = decode(status, body.as_bytes());
            assert_eq!(info.kind.as_deref(), Some(kind));
            assert_eq!(info.message.as_deref(), Some(message));
            assert_eq!(info.code.as_deref(), code, "{message}");
        }
    }

    #[test]
    fn what_is_no_error_of_anthropics_is_read_all_the_same() {
        assert_eq!(decode(529, b"").code.as_deref(), Some("overloaded"));
        let info = decode(502, br#"{"type":"error","message":"gone"}"#);
        assert_eq!((info.kind, info.message.as_deref()), (None, Some("gone")));
        assert_eq!(decode(500, b"<html>").message, None);
    }
}
