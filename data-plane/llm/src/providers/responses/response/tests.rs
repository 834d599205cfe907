use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Dialect,
    codec::{self, Echo},
    ir::{Choice, Content, Finish, Part, Response, Thinking, ToolCall},
};

pub(in super::super) fn echo() -> Echo {
    Echo {
        id: "e1".into(),
        created: 7,
        model: "m".into(),
        request: Bytes::from_static(
            br#"{"model":"m","input":"x","temperature":0.5,"tools":[{"type":"web_search"}]}"#,
        ),
        affinity: "d".into(),
        ..Echo::default()
    }
}

fn encode(parts: Vec<Part<'_>>, finish: Finish<'_>) -> Value {
    let choice = Choice { index: 0, parts, finish: Some(finish), logprobs: None };
    let response = Response { choices: vec![choice], ..Response::default() };
    serde_json::from_slice(&codec::encode_response(Dialect::Responses, &response, &echo())).unwrap()
}

#[test]
fn an_answer_is_read_item_by_item() {
    let body = json!({
        "id": "resp_1", "object": "response", "created_at": 5.0, "model": "gpt-5", "status": "completed",
        "service_tier": "flex", "error": null, "output": [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "why"}], "encrypted_content": "gAAAA"},
            {"type": "reasoning", "id": "rs_2", "summary": []},
            {"type": "message", "id": "msg_1", "role": "assistant", "content": [
                {"type": "output_text", "text": "a", "logprobs": [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}],
                 "annotations": [{"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}]},
                {"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        "usage": {"input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 6,
                  "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 16}
    })
    .to_string();
    let response = codec::decode_response(Dialect::Responses, body.as_bytes()).unwrap();
    assert_eq!(
        (response.id.as_ref(), response.created, response.service_tier.as_str()),
        ("resp_1", Some(5), "flex")
    );
    let choice = &response.choices[0];
    assert_eq!(choice.finish, Some(Finish::ToolCalls));
    let [thought, text, refusal, call, search] = &choice.parts[..] else { panic!("{choice:?}") };
    assert!(
        matches!(&thought.content, Content::Thinking(it) if it.text == "why" && it.encrypted.as_deref() == Some("gAAAA"))
    );
    assert!(matches!(&text.content, Content::Text { citations, .. } if citations[0].span == Some((0, 1))));
    assert!(matches!(&refusal.content, Content::Refusal(text) if text == "no"));
    assert!(matches!(&call.content, Content::ToolCall(call) if call.id == "c1"));
    assert!(matches!(&search.content, Content::Opaque { .. }));
    let logprobs: Value = serde_json::from_str(choice.logprobs.as_ref().unwrap().get()).unwrap();
    assert_eq!(logprobs["content"][0]["token"], "a");
    let usage = response.usage.unwrap();
    assert_eq!(
        (usage.input, usage.cache_read, usage.output, usage.reasoning),
        (Some(10), Some(4), Some(6), Some(2))
    );
}

#[test]
fn every_end_has_its_reason() {
    let body = |status: &str, reason: Value| {
        json!({"status": status, "output": [], "incomplete_details": {"reason": reason}}).to_string()
    };
    for (status, reason, finish) in [
        ("completed", Value::Null, Finish::Stop),
        ("incomplete", json!("max_output_tokens"), Finish::Length),
        ("incomplete", json!("content_filter"), Finish::ContentFilter),
        ("incomplete", json!("steered"), Finish::Other("steered".into())),
        ("cancelled", Value::Null, Finish::Error),
    ] {
        let body = body(status, reason);
        let response = codec::decode_response(Dialect::Responses, body.as_bytes()).unwrap();
        assert_eq!(response.choices[0].finish, Some(finish), "{status}");
    }
}

/// E.4: a 200 whose answer has failed is a failure of the upstream.
#[test]
fn a_failed_answer_is_no_answer() {
    let failed = br#"{"status":"failed","error":{"code":"server_error","message":"It broke."},"output":[]}"#;
    let error = codec::decode_response(Dialect::Responses, failed).unwrap_err();
    assert_eq!((error.path.as_str(), error.message.as_str()), ("error", "It broke."));
    for body in [&b"[]"[..], b"{}", b"x", br#"{"choices":[]}"#] {
        assert!(codec::decode_response(Dialect::Responses, body).is_err());
    }
}

#[test]
fn an_answer_repeats_what_was_asked_and_is_bound_to_its_deployment() {
    let thinking = Thinking { text: "why".into(), signature: Some("sig".into()), ..Thinking::default() };
    let call = ToolCall { id: "".into(), name: "f".into(), arguments: "".into(), custom: false };
    let parts = vec![
        Part::new(Content::Thinking(thinking)),
        Part::text("a\n"),
        Part::text("b"),
        Part { signature: Some("QUJD".into()), ..Part::new(Content::ToolCall(call)) },
    ];
    let answer = encode(parts, Finish::ToolCalls);
    let asked = ["temperature", "tools", "tool_choice", "status", "model", "created_at", "store", "usage"];
    let asked: Vec<_> = asked.iter().map(|name| &answer[name]).collect();
    let expected = json!([0.5, [{"type": "web_search"}], "auto", "completed", "m", 7, false, null]);
    assert_eq!(json!(asked), expected);
    assert_eq!(answer["id"], "resp_nemo.d.e1");
    assert_eq!(
        answer["output"],
        json!([
            {"type": "reasoning", "id": "rs_nemo.d.e1_0", "summary": [{"type": "summary_text", "text": "why"}],
             "encrypted_content": "nemo.d.signature.sig"},
            {"type": "message", "id": "msg_e1_1", "role": "assistant", "status": "completed", "content": [
                {"type": "output_text", "text": "a\n", "annotations": [], "logprobs": []},
                {"type": "output_text", "text": "b", "annotations": [], "logprobs": []}]},
            {"type": "function_call", "id": "fc_e1_2", "call_id": "call_e1_2__ts_QUJD", "name": "f", "arguments": "{}",
             "status": "completed"}])
    );
}

#[test]
fn an_answer_that_was_cut_says_why() {
    for (finish, status, reason, failed) in [
        (Finish::Stop, "completed", Value::Null, false),
        (Finish::Length, "incomplete", json!("max_output_tokens"), false),
        (Finish::ContentFilter, "incomplete", json!("content_filter"), false),
        (Finish::Refusal, "incomplete", json!("content_filter"), false),
        (Finish::MalformedCall, "failed", Value::Null, true),
    ] {
        let answer = encode(vec![Part::text("a")], finish);
        assert_eq!(answer["status"], status);
        assert_eq!(answer["incomplete_details"].get("reason").cloned().unwrap_or_default(), reason);
        assert_eq!(answer["error"].is_object(), failed);
        let item = if status == "completed" { "completed" } else { "incomplete" };
        assert_eq!(answer["output"][0]["status"], item);
    }
}

#[test]
fn a_tier_is_told_in_openais_words() {
    for (tier, told) in
        [("standard", json!("default")), ("flex", json!("flex")), ("batch", Value::Null), ("", Value::Null)]
    {
        let response =
            Response { service_tier: crate::ServiceTier::new(tier.as_bytes()), ..Response::default() };
        let answer = codec::encode_response(Dialect::Responses, &response, &echo());
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["service_tier"], told, "{tier}");
    }
}
