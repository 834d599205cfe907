//! Error bodies: `{"message":…}`, the kind by the status alone.

use crate::UpstreamErrorInfo;

pub fn decode(status: u16, body: &[u8]) -> UpstreamErrorInfo {
    let mut said = crate::decode_error(body);
    if said.kind.is_none() {
        let kind = match status {
            401 => "authentication_error",
            402 => "billing_error",
            403 | 498 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            503 => "overloaded_error",
            _ => "api_error",
        };
        said.kind = Some(kind.to_owned());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_the_kind() {
        let said = decode(429, br#"{"id":"x","message":"You are past the per minute request limit"}"#);
        assert_eq!(said.kind.as_deref(), Some("rate_limit_error"));
        assert_eq!(said.message.as_deref(), Some("You are past the per minute request limit"));
        assert_eq!(decode(422, b"{}").kind.as_deref(), Some("invalid_request_error"));
        assert_eq!(decode(500, b"").kind.as_deref(), Some("api_error"));
    }
}
