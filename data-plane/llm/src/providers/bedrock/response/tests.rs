use super::*;

/// Thoughts with signatures, text, calls, citations, usage in Bedrock's own convention.
#[test]
fn an_answer_of_every_kind_is_read() {
    let body = br#"{"metrics":{"latencyMs":12},"output":{"message":{"role":"assistant","content":[
        {"reasoningContent":{"reasoningText":{"text":"Hm.","signature":"c2ln"}}},
        {"reasoningContent":{"redactedContent":"QUJD"}},
        {"text":"Sunny \u2600"},
        {"citationsContent":{"content":[{"text":"It is "},{"text":"so."}],"citations":[
            {"title":"Doc","sourceContent":[{"text":"so"}],"location":{"documentPage":{"documentIndex":1,"start":1,"end":2}}},
            {"title":"Web","location":{"web":{"url":"https://example.com","domain":"example.com"}}}]}},
        {"toolUse":{"toolUseId":"tooluse_1","name":"weather","input":{"city": "Rome"}}},
        {"toolUse":{"toolUseId":"t2","name":"nova_grounding","type":"server_tool_use","input":{}}},
        {"image":{"format":"png","source":{"bytes":"AAAA"}}},
        {"somethingNew":{}}
    ]}},"stopReason":"tool_use","serviceTier":{"type":"flex"},
    "usage":{"inputTokens":10,"outputTokens":5,"totalTokens":45,"cacheReadInputTokens":20,"cacheWriteInputTokens":10,
        "cacheDetails":[{"ttl":"1h","inputTokens":4},{"ttl":"5m","inputTokens":6}]}}"#;
    let response = decode(body).unwrap();
    let [choice] = &*response.choices else { panic!("one choice") };
    assert_eq!(choice.finish, Some(Finish::ToolCalls));
    let parts: Vec<_> = choice.parts.iter().map(|part| &part.content).collect();
    let [
        Content::Thinking(thought),
        Content::Thinking(hidden),
        Content::Text { text: sunny, .. },
        Content::Text { text: so, citations },
        Content::ToolCall(call),
        Content::Opaque { dialect: Dialect::Converse, value: ran },
        Content::Image(image),
        Content::Opaque { value: new, .. },
    ] = &*parts
    else {
        panic!("{parts:?}")
    };
    assert_eq!((&*thought.text, thought.signature.as_deref()), ("Hm.", Some("c2ln")));
    assert_eq!((&*hidden.text, hidden.encrypted.as_deref()), ("", Some("QUJD")));
    assert_eq!((&**sunny, &**so), ("Sunny ☀", "It is so."));
    assert_eq!((citations[0].document, citations[0].quote.as_deref()), (Some(1), Some("so")));
    assert_eq!(
        (citations[1].url.as_deref(), citations[1].title.as_deref()),
        (Some("https://example.com"), Some("Web"))
    );
    assert_eq!((&*call.id, &*call.name, &*call.arguments), ("tooluse_1", "weather", r#"{"city": "Rome"}"#));
    assert!(ran.get().contains("nova_grounding") && new.get().contains("somethingNew"));
    let Source::Base64 { media_type, data } = &image.source else { panic!("base64") };
    assert_eq!((&**media_type, &**data), ("image/png", "AAAA"));

    let usage = response.usage.unwrap();
    assert_eq!((usage.input, usage.output), (Some(40), Some(5)), "what was cached is part of the input");
    assert_eq!((usage.cache_read, usage.cache_write, usage.cache_write_1h), (Some(20), Some(10), Some(4)));
    assert_eq!(response.service_tier.as_str(), "flex");
}

/// E.3: every finish reason.
#[test]
fn every_reason_to_stop_has_its_word() {
    let body = |reason: &str, more: &str| {
        format!(
            r#"{{"output":{{"message":{{"role":"assistant","content":[]}}}},"stopReason":"{reason}"{more},"usage":{{"inputTokens":18446744073709551615,"outputTokens":0,"totalTokens":0,"cacheReadInputTokens":1}}}}"#
        )
    };
    for (reason, finish) in [
        ("end_turn", Finish::Stop),
        ("tool_use", Finish::ToolCalls),
        ("max_tokens", Finish::Length),
        ("model_context_window_exceeded", Finish::Length),
        ("stop_sequence", Finish::StopSequence("".into())),
        ("guardrail_intervened", Finish::ContentFilter),
        ("content_filtered", Finish::ContentFilter),
        ("malformed_model_output", Finish::Error),
        ("malformed_tool_use", Finish::MalformedCall),
        ("refusal", Finish::Refusal),
        ("brand_new", Finish::Other("brand_new".into())),
    ] {
        let body = body(reason, "");
        let response = decode(body.as_bytes()).unwrap();
        assert_eq!(response.choices[0].finish, Some(finish));
        assert_eq!(response.usage.unwrap().input, Some(u64::MAX), "counts saturate");
    }
    let body = body("stop_sequence", r#","additionalModelResponseFields":{"stop_sequence":"END"}"#);
    assert_eq!(decode(body.as_bytes()).unwrap().choices[0].finish, Some(Finish::StopSequence("END".into())));
}

#[test]
fn what_is_no_answer_is_an_error() {
    for body in [
        &b""[..],
        b"{}",
        b"<html>",
        br#"{"output":{},"stopReason":"end_turn"}"#,
        br#"{"output":{"message":{"content":{}}},"stopReason":"end_turn"}"#,
        br#"{"output":{"message":{"content":[{"text":5}]}},"stopReason":"end_turn"}"#,
        b"\xff",
    ] {
        assert!(decode(body).is_err(), "{}", String::from_utf8_lossy(body));
    }
}
