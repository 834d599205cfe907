use serde_json::{Value, json};

use super::*;
use crate::ServiceTier;

fn echo() -> Echo {
    Echo { id: "0a1b".into(), model: "asked".into(), ..Echo::default() }
}

fn encoded(response: &Response<'_>) -> Value {
    serde_json::from_slice(&encode(response, &echo())).unwrap()
}

fn answer<'a>(parts: Vec<Part<'a>>, finish: Option<Finish<'a>>) -> Response<'a> {
    Response { choices: vec![Choice { index: 0, parts, finish, logprobs: None }], ..Response::default() }
}

/// Failure 7: what Anthropic counts beside the input is within it here, and goes out again as it came.
#[test]
fn an_answer_survives_the_hub() {
    let text = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "r"},
            {"type": "text", "text": "é "},
            {"type": "text", "text": "sun", "citations": [
                {"type": "web_search_result_location", "url": "https://a/b", "title": "t", "cited_text": "q", "encrypted_index": "e"}]},
            {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {"query": "x"}},
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": [1, 2.50]}}
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 10, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
            "output_tokens": 9, "output_tokens_details": {"thinking_tokens": 2}, "service_tier": "priority"}
    })
    .to_string();
    let response = decode(text.as_bytes()).unwrap();
    let usage = response.usage.unwrap();
    assert_eq!((usage.input, usage.cache_read, usage.cache_write), (Some(22), Some(5), Some(7)));
    assert_eq!((usage.cache_write_1h, usage.output, usage.reasoning), (Some(4), Some(9), Some(2)));
    assert_eq!(response.service_tier, ServiceTier::new(b"priority"));
    let Content::Text { citations, .. } = &response.choices[0].parts[3].content else { panic!() };
    assert_eq!((citations[0].url.as_deref(), citations[0].span), (Some("https://a/b"), Some((2, 5))));
    assert_eq!(response.choices[0].finish, Some(Finish::ToolCalls));
    assert_eq!(encoded(&response), serde_json::from_str::<Value>(&text).unwrap());
}

/// E.3 in both directions.
#[test]
fn every_reason_has_a_word() {
    for (word, finish, back) in [
        ("end_turn", Finish::Stop, "end_turn"),
        ("stop_sequence", Finish::StopSequence("END".into()), "stop_sequence"),
        ("max_tokens", Finish::Length, "max_tokens"),
        ("model_context_window_exceeded", Finish::Length, "max_tokens"),
        ("tool_use", Finish::ToolCalls, "tool_use"),
        ("refusal", Finish::Refusal, "refusal"),
        ("pause_turn", Finish::Pause, "pause_turn"),
        ("novel", Finish::Other("novel".into()), "end_turn"),
    ] {
        let sequence = if word == "stop_sequence" { json!("END") } else { Value::Null };
        let text = json!({"content": [], "stop_reason": word, "stop_sequence": sequence}).to_string();
        let response = decode(text.as_bytes()).unwrap();
        assert_eq!(response.choices[0].finish, Some(finish));
        let again = encoded(&response);
        assert_eq!((&again["stop_reason"], &again["stop_sequence"]), (&json!(back), &sequence));
    }
    for (finish, word) in
        [(Finish::ContentFilter, "refusal"), (Finish::MalformedCall, "end_turn"), (Finish::Error, "end_turn")]
    {
        assert_eq!(encoded(&answer(vec![], Some(finish)))["stop_reason"], word);
    }
}

#[test]
fn answers_of_others_get_what_anthropics_clients_need() {
    let call = |id: &'static str, arguments: &'static str| {
        let arguments = arguments.into();
        Part::new(Content::ToolCall(ToolCall { id: id.into(), name: "f".into(), arguments, custom: false }))
    };
    let mut signed = call("", r#"{"a": 1}"#);
    signed.signature = Some("QUJD".into());
    let parts = vec![Part::text(""), signed, call("call_9", ""), call("c", "[1")];
    let mut response = answer(parts, Some(Finish::Stop));
    response.id = "chatcmpl-1".into();
    response.usage = Some(nemo_types::Usage { input: Some(3), cache_read: Some(5), ..Default::default() });
    let written = encoded(&response);
    let expected = json!({
        "id": "msg_0a1b", "type": "message", "role": "assistant", "model": "asked",
        "content": [
            {"type": "tool_use", "id": "call_1_0a1b__ts_QUJD", "name": "f", "input": {"a": 1}},
            {"type": "tool_use", "id": "call_9", "name": "f", "input": {}},
            {"type": "tool_use", "id": "c", "name": "f", "input": {"arguments": "[1"}}
        ],
        "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5, "output_tokens": 0}
    });
    assert_eq!(written, expected);

    let refusal = answer(vec![Part::new(Content::Refusal("no".into()))], Some(Finish::Stop));
    let written = encoded(&refusal);
    assert_eq!((&written["content"][0]["text"], &written["stop_reason"]), (&json!("no"), &json!("refusal")));
    assert_eq!(encoded(&Response::default())["content"], json!([]));
}

/// R004-27: OpenAI's encrypted thoughts come back with the id that they need.
#[test]
fn encrypted_thoughts_of_openai_come_back_whole() {
    let thought = |text: &'static str| {
        Part::new(Content::Thinking(ir::Thinking {
            text: text.into(),
            encrypted: Some("gAAAAB".into()),
            id: Some("rs_1".into()),
            signature: None,
        }))
    };
    let written = encoded(&answer(vec![thought(""), thought("sum")], None));
    assert_eq!(written["content"][0], json!({"type": "redacted_thinking", "data": "rs_1:gAAAAB"}));
    assert_eq!(
        written["content"][1],
        json!({"type": "thinking", "thinking": "sum", "signature": "rs_1:gAAAAB"})
    );
    let body = json!({"model": "m", "max_tokens": 1, "messages": [{"role": "assistant", "content": written["content"]}]}).to_string();
    let request = super::super::request::decode(body.as_bytes()).unwrap();
    for part in &request.messages[0].parts {
        let Content::Thinking(back) = &part.content else { panic!() };
        assert_eq!(
            (back.encrypted.as_deref(), back.id.as_deref(), &back.signature),
            (Some("gAAAAB"), Some("rs_1"), &None)
        );
    }
}

#[test]
fn what_is_no_answer_is_an_error() {
    for body in
        [&b""[..], b"{}", b"[]", b"{\"content\":\"a\"}", b"{\"content\":[{}]}", b"{\"content\":[\xff]}"]
    {
        assert!(decode(body).is_err());
    }
}
