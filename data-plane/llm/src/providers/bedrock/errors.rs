//! Error bodies, and the exceptions that end a stream. Bedrock says in a header which exception a body is of; in a body
//! stands at most a `__type`.

use serde::Deserialize;

use crate::{UpstreamErrorInfo, providers::read};

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, rename = "__type")]
    kind: Option<read::Str<'a>>,
    /// What AWS writes that refuses a request before Bedrock sees it.
    #[serde(borrow, rename = "Message")]
    refusal: Option<read::Str<'a>>,
}

/// An error body, by the status that it came with.
pub fn decode(status: u16, body: &[u8]) -> UpstreamErrorInfo {
    let (name, refusal) = read::body::<Body<'_>>(body).map(|it| (it.kind, it.refusal)).unwrap_or_default();
    // `com.amazon.coral.service#ThrottlingException`
    let name = name.as_ref().map_or("", |name| name.0.rsplit('#').next().unwrap_or_default());
    let mut said = exception(name, body);
    if said.message.is_none() {
        said.message = refusal
            .map(|text| text.0[..text.0.floor_char_boundary(UpstreamErrorInfo::MAX_MESSAGE)].to_owned());
    }
    if said.kind.is_none() {
        said.kind = kind(status).map(str::to_owned);
    }
    said
}

/// What an exception of this name says, in the words of OpenAI.
pub(super) fn exception(name: &str, body: &[u8]) -> UpstreamErrorInfo {
    let mut said = crate::decode_error(body);
    let (status, code) = match name {
        "throttlingException"
        | "ThrottlingException"
        | "serviceQuotaExceededException"
        | "ServiceQuotaExceededException" => (429, Some("rate_limit_exceeded")),
        "validationException" | "ValidationException" => (400, None),
        "accessDeniedException"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException" => (403, None),
        "resourceNotFoundException" | "ResourceNotFoundException" => (404, Some("model_not_found")),
        "modelTimeoutException" | "ModelTimeoutException" => (408, None),
        "serviceUnavailableException"
        | "ServiceUnavailableException"
        | "modelNotReadyException"
        | "ModelNotReadyException" => (503, None),
        "" => (0, None),
        _ => (500, None),
    };
    said.kind = kind(status).map(str::to_owned);
    if said.code.is_none() {
        said.code = code.map(str::to_owned);
    }
    said
}

fn kind(status: u16) -> Option<&'static str> {
    Some(match status {
        0 => return None,
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        408 => "timeout_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        _ => "api_error",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_by_name_or_by_status() {
        let said = decode(400, br#"{"message":"The provided model identifier is invalid."}"#);
        assert_eq!(said.message.as_deref(), Some("The provided model identifier is invalid."));
        assert_eq!((said.kind.as_deref(), said.code), (Some("invalid_request_error"), None));
        let said = decode(429, br#"{"message":"Too many tokens, please wait before trying again."}"#);
        assert_eq!(said.kind.as_deref(), Some("rate_limit_error"));
        let said = decode(
            400,
            br#"{"__type":"com.amazon.coral.service#ThrottlingException","message":"Rate exceeded"}"#,
        );
        assert_eq!(said.kind.as_deref(), Some("rate_limit_error"));
        assert_eq!(said.code.as_deref(), Some("rate_limit_exceeded"));
        let said = decode(403, br#"{"Message":"The security token included in the request is invalid."}"#);
        assert_eq!(said.kind.as_deref(), Some("permission_error"));
        assert_eq!(said.message.as_deref(), Some("The security token included in the request is invalid."));
        assert_eq!(decode(503, b"<html>").kind.as_deref(), Some("overloaded_error"));
    }
}
