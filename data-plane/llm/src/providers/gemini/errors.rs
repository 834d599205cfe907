//! Error bodies: `{"error":{"code","message","status","details"}}`, in a stream that is no SSE within an array.

use serde::Deserialize;

use super::wire::Str;
use crate::UpstreamErrorInfo;

/// Longest of the fields other than the message, in bytes.
const MAX_FIELD: usize = 128;

#[derive(Deserialize)]
struct Outer<'a> {
    #[serde(borrow)]
    error: Inner<'a>,
}

#[derive(Deserialize)]
struct Inner<'a> {
    #[serde(borrow, default)]
    details: Vec<Detail<'a>>,
}

/// `google.rpc.ErrorInfo` and `google.rpc.BadRequest` in one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    #[serde(borrow)]
    reason: Option<Str<'a>>,
    #[serde(borrow, default)]
    field_violations: Vec<Violation<'a>>,
}

#[derive(Deserialize)]
struct Violation<'a> {
    #[serde(borrow)]
    field: Option<Str<'a>>,
}

/// The status goes by the HTTP status; the details say more than that: which field, and a reason in one word.
pub fn decode(_status: u16, body: &[u8]) -> UpstreamErrorInfo {
    let mut info = crate::decode_error(body);
    // A list first: one would be read as an object's members in order.
    let listed = serde_json::from_slice::<Vec<Outer<'_>>>(body).ok().and_then(|all| all.into_iter().next());
    let error = listed.or_else(|| serde_json::from_slice::<Outer<'_>>(body).ok());
    let details = error.map(|it| it.error.details).unwrap_or_default();
    let kept = |text: &str| text[..text.floor_char_boundary(MAX_FIELD)].to_owned();
    if let Some(reason) = details.iter().find_map(|it| it.reason.as_ref()) {
        // A key that Google does not know is a bad request to it, and a fault of the credential to us.
        let known = if reason.0 == "API_KEY_INVALID" { "invalid_api_key" } else { &*reason.0 };
        info.code = Some(kept(known));
    }
    let field = details.iter().flat_map(|it| &it.field_violations).find_map(|it| it.field.as_ref());
    if let Some(field) = field {
        info.param = Some(kept(&field.0));
    }
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_tell_reason_and_field() {
        let body = r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT","details":[
            {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"},
            {"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"contents[0]","description":"x"}]}]}}"#;
        for body in [body.to_owned(), format!("[{body}]")] {
            let info = decode(400, body.as_bytes());
            assert_eq!(info.message.as_deref(), Some("API key not valid."));
            assert_eq!(info.kind.as_deref(), Some("INVALID_ARGUMENT"));
            assert_eq!(info.code.as_deref(), Some("invalid_api_key"));
            assert_eq!(info.param.as_deref(), Some("contents[0]"));
        }
    }

    #[test]
    fn whatever_the_body_is_it_is_read() {
        let info = decode(
            503,
            br#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#,
        );
        assert_eq!((info.code.as_deref(), info.kind.as_deref()), (Some("503"), Some("UNAVAILABLE")));
        for body in [&b"upstream gone"[..], b"", b"[]", b"{\"error\":[]}", b"\xff"] {
            let info = decode(500, body);
            assert!(info.param.is_none());
        }
    }
}
