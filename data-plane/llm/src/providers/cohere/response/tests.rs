use super::*;

/// Thoughts, text with citations, a plan, calls, logprobs, usage in Cohere's own convention.
#[test]
fn an_answer_of_every_kind_is_read() {
    let body = br#"{"id":"c14c80c3","finish_reason":"TOOL_CALL","message":{"role":"assistant","tool_plan":"I look.",
        "content":[{"type":"thinking","thinking":"Hm."},{"type":"text","text":"Rome is warm."}],
        "tool_calls":[{"id":"weather_1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Rome\"}"}},
            {"id":"time_2","type":"function","function":{"name":"time","arguments":""}}],
        "citations":[{"start":8,"end":12,"text":"warm","content_index":1,"type":"TEXT_CONTENT",
            "sources":[{"type":"tool","id":"t"},{"type":"document","id":"d","document":{"title":"T","url":"https://example.com"}}]}]},
        "usage":{"billed_units":{"input_tokens":71.0,"output_tokens":22.0},"tokens":{"input_tokens":1537,"output_tokens":43},
            "cached_tokens":64.0},
        "logprobs":[{"text":"Rome","token_ids":[1,2],"logprobs":[-0.5,-0.25]}]}"#;
    let response = decode(body).unwrap();
    assert_eq!(response.id, "c14c80c3");
    let [choice] = &*response.choices else { panic!("one choice") };
    assert_eq!(choice.finish, Some(Finish::ToolCalls));
    let parts: Vec<_> = choice.parts.iter().map(|part| &part.content).collect();
    let [
        Content::Thinking(thought),
        Content::Text { text, citations },
        Content::Text { text: plan, .. },
        Content::ToolCall(weather),
        Content::ToolCall(time),
    ] = &*parts
    else {
        panic!("{parts:?}")
    };
    assert_eq!((&*thought.text, &**text, &**plan), ("Hm.", "Rome is warm.", "I look."));
    let [citation] = &**citations else { panic!("one citation") };
    assert_eq!((citation.span, citation.quote.as_deref()), (Some((8, 12)), Some("warm")));
    assert_eq!(
        (citation.url.as_deref(), citation.title.as_deref()),
        (Some("https://example.com"), Some("T"))
    );
    assert_eq!((&*weather.id, &*weather.arguments), ("weather_1", r#"{"city":"Rome"}"#));
    assert_eq!((&*time.name, &*time.arguments), ("time", "{}"));
    let usage = response.usage.unwrap();
    assert_eq!((usage.input, usage.output, usage.cache_read), (Some(71), Some(22), Some(64)));
    let logprobs: serde_json::Value = serde_json::from_str(choice.logprobs.as_ref().unwrap().get()).unwrap();
    let expected =
        json!({ "token": "Rome", "logprob": -0.75, "bytes": [82, 111, 109, 101], "top_logprobs": [] });
    assert_eq!(logprobs["content"][0], expected);
}

/// E.3: every finish reason.
#[test]
fn every_reason_to_stop_has_its_word() {
    for (reason, expected) in [
        ("COMPLETE", Finish::Stop),
        ("STOP_SEQUENCE", Finish::StopSequence("".into())),
        ("MAX_TOKENS", Finish::Length),
        ("TOOL_CALL", Finish::ToolCalls),
        ("ERROR", Finish::Error),
        ("TIMEOUT", Finish::Error),
        ("ERROR_TOXIC", Finish::ContentFilter),
        ("NEW", Finish::Other("NEW".into())),
    ] {
        assert_eq!(finish(reason.into()), expected);
    }
}

#[test]
fn usage_falls_back_to_what_was_counted_and_is_never_negative() {
    let usage = |json: &str| serde_json::from_str::<Tokens>(json).unwrap().usage();
    let counted = usage(r#"{"tokens":{"input_tokens":5,"output_tokens":2}}"#);
    assert_eq!((counted.input, counted.output, counted.cache_read), (Some(5), Some(2), None));
    let odd = usage(r#"{"billed_units":{"input_tokens":-3,"output_tokens":1e300},"cached_tokens":9}"#);
    assert_eq!((odd.input, odd.output, odd.cache_read), (Some(0), Some(u64::MAX), Some(0)));
    assert!(usage("{}").is_unknown());
}

#[test]
fn what_is_no_answer_is_an_error() {
    for body in
        [&b""[..], b"{}", b"<html>", br#"{"message":{"content":5}}"#, br#"{"message":{"tool_calls":[{}]}}"#]
    {
        assert!(decode(body).is_err(), "{}", String::from_utf8_lossy(body));
    }
}
