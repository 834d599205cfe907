use serde_json::json;

use super::*;

type Parts = (Option<String>, Option<String>, Option<String>, Option<String>);

fn decoded(body: &str) -> Parts {
    let info = decode_error(body.as_bytes());
    (info.message, info.kind, info.code, info.param)
}

#[test]
fn error_bodies_of_providers_are_understood() {
    let parts = |parts: [&str; 4]| parts.map(|part| (!part.is_empty()).then(|| part.to_owned())).into();
    for (body, expected) in [
        (
            r#"{"error":{"message":"No such model","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#,
            ["No such model", "invalid_request_error", "model_not_found", "model"],
        ),
        (
            r#"{"error":{"message":"Rate limited","code":429,"metadata":{"raw":"x"}},"user_id":"u"}"#,
            ["Rate limited", "", "429", ""],
        ),
        (r#"{"error":"model 'x' not found"}"#, ["model 'x' not found", "", "", ""]),
        (
            r#"{"code":"The requested resource was not found","error":"The model x does not exist"}"#,
            ["The model x does not exist", "", "The requested resource was not found", ""],
        ),
        (r#"{"detail":"Unauthorized"}"#, ["Unauthorized", "", "", ""]),
        (
            r#"{"detail":[{"loc":["body","messages",0],"msg":"Field required","type":"missing"},{"msg":"b"}]}"#,
            ["body.messages.0: Field required; b", "", "", ""],
        ),
        (
            r#"{"object":"error","message":{"detail":[{"loc":["body","n"],"msg":"Extra inputs are not permitted"}]},"type":"invalid_request_error","code":null}"#,
            ["body.n: Extra inputs are not permitted", "invalid_request_error", "", ""],
        ),
        (
            r#"[{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT"}}]"#,
            ["API key not valid", "INVALID_ARGUMENT", "400", ""],
        ),
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            ["Overloaded", "overloaded_error", "", ""],
        ),
        (
            r#"{"code":"InvalidApiKey","message":"Invalid API-key"}"#,
            ["Invalid API-key", "", "InvalidApiKey", ""],
        ),
        ("\"busy\"", ["busy", "", "", ""]),
        ("upstream connect error\n", ["upstream connect error", "", "", ""]),
        (" <html><body>502</body></html>", [""; 4]),
        ("", [""; 4]),
        ("{}", [""; 4]),
        ("null", [""; 4]),
        ("[]", [""; 4]),
        (r#"{"error":null,"message":""}"#, [""; 4]),
    ] {
        let expected: Parts = parts(expected);
        assert_eq!(decoded(body), expected, "{body}");
    }
}

#[test]
fn kept_texts_are_bounded() {
    let body = json!({"error": {"message": "é".repeat(5000), "code": "c".repeat(500)}}).to_string();
    let info = decode_error(body.as_bytes());
    assert_eq!(info.message.unwrap().len(), UpstreamErrorInfo::MAX_MESSAGE);
    assert_eq!(info.code.unwrap().len(), 128);
    assert_eq!(decode_error(&[0xff, 0xfe]), UpstreamErrorInfo::default());
    let nested = "[".repeat(100) + &"]".repeat(100);
    assert_eq!(decode_error(nested.as_bytes()), UpstreamErrorInfo::default());
}

const ERROR: ErrorBody<'_> = ErrorBody {
    status: 404,
    message: "No model \"x\"",
    kind: "invalid_request_error",
    code: Some("model_not_found"),
    param: Some("model"),
    metadata: None,
};

fn text(bytes: &Bytes) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// E.1: all four members are there, `code` is a string or null.
#[test]
fn openai_clients_get_code_as_string_or_null() {
    assert_eq!(
        text(&render_error(ErrorDialect::OpenAi, &ERROR)),
        r#"{"error":{"message":"No model \"x\"","type":"invalid_request_error","param":"model","code":"model_not_found"}}"#
    );
    let metadata = json!({"attempts": [1]});
    let bare = ErrorBody { code: None, param: None, metadata: Some(&metadata), ..ERROR };
    assert_eq!(
        text(&render_error(ErrorDialect::OpenAi, &bare)),
        r#"{"error":{"message":"No model \"x\"","type":"invalid_request_error","param":null,"code":null,"metadata":{"attempts":[1]}}}"#
    );
}

/// E.6: `code` is a number.
#[test]
fn openrouter_clients_get_the_status_as_code() {
    assert_eq!(
        text(&render_error(ErrorDialect::OpenRouter, &ERROR)),
        r#"{"error":{"code":404,"message":"No model \"x\""}}"#
    );
    let metadata = json!({"attempts": []});
    assert_eq!(
        text(&render_error(ErrorDialect::OpenRouter, &ErrorBody { metadata: Some(&metadata), ..ERROR })),
        r#"{"error":{"code":404,"message":"No model \"x\"","metadata":{"attempts":[]}}}"#
    );
}

/// E.3, B7: an error event, never a `[DONE]`.
#[test]
fn stream_errors_are_one_event_without_terminator() {
    assert_eq!(
        text(&render_stream_error(ErrorDialect::OpenAi, &ErrorBody { message: "gone", ..ERROR })),
        "data: {\"error\":{\"message\":\"gone\",\"type\":\"invalid_request_error\",\"param\":\"model\",\"code\":\"model_not_found\"}}\n\n"
    );
    assert_eq!(
        text(&render_stream_error(ErrorDialect::OpenRouter, &ErrorBody { message: "gone", ..ERROR })),
        "data: {\"error\":{\"code\":404,\"message\":\"gone\"},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n"
    );
}

#[test]
fn what_we_render_we_can_read() {
    let info = decode_error(&render_error(ErrorDialect::OpenAi, &ERROR));
    assert_eq!((info.message.as_deref(), info.kind.as_deref()), (Some(ERROR.message), Some(ERROR.kind)));
    assert_eq!((info.code.as_deref(), info.param.as_deref()), (ERROR.code, ERROR.param));
}
