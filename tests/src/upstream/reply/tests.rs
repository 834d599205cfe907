//! The wire forms of requirements E.3.

use super::*;

fn stream(request: &Value, script: &Script) -> (Vec<Value>, String) {
    let Answer::Stream(events) = chat(request, "gpt-4o", script, 7) else { panic!("not a stream") };
    let texts: Vec<&str> = events.iter().map(|event| std::str::from_utf8(event).unwrap()).collect();
    let (last, chunks) = texts.split_last().unwrap();
    let data = |text: &str| {
        serde_json::from_str(text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap()).unwrap()
    };
    (chunks.iter().map(|text| data(text)).collect(), (*last).to_owned())
}

fn unary(request: &Value, script: &Script) -> Value {
    let Answer::Unary(body) = chat(request, "gpt-4o", script, 7) else { panic!("not unary") };
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn a_stream_has_one_role_one_finish_and_the_terminator() {
    let (chunks, last) = stream(&json!({"stream": true, "messages": []}), &Script::ok().pieces(5));
    assert_eq!(last, "data: [DONE]\n\n");
    assert_eq!(chunks.len(), 7);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert!(chunks[1..].iter().all(|chunk| chunk["choices"][0]["delta"].get("role").is_none()));
    assert_eq!(
        chunks[6]["choices"][0],
        json!({"index": 0, "delta": {}, "logprobs": null, "finish_reason": "stop"})
    );
    assert!(
        chunks.iter().all(|chunk| chunk["id"] == "chatcmpl-mock00000007" && chunk.get("usage").is_none())
    );
}

#[test]
fn usage_comes_in_a_stream_only_when_asked_and_is_null_in_other_chunks() {
    let request = json!({"stream": true, "stream_options": {"include_usage": true}, "messages": []});
    let (chunks, _) = stream(&request, &Script::ok().pieces(3));
    let (usage, others) = chunks.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["total_tokens"], PROMPT_TOKENS + 3);
    assert!(others.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    let (silent, _) = stream(&request, &Script::ok().usage(UsageReport::Missing));
    assert!(silent.iter().all(|chunk| chunk["choices"] != json!([])));
}

#[test]
fn streamed_and_unary_answers_hold_the_same_text() {
    let (chunks, _) = stream(&json!({"stream": true, "n": 2}), &Script::ok());
    let whole = unary(&json!({"n": 2}), &Script::ok());
    for index in 0..2 {
        let deltas = chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        let text: String =
            deltas.filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, whole["choices"][index]["message"]["content"].as_str().unwrap());
    }
}

#[test]
fn a_tool_is_called_with_arguments_that_its_schema_requires_until_its_result_is_there() {
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}, "required": ["city", "days"]}}}]);
    let user = json!({"role": "user", "content": "?"});
    let answer = unary(&json!({"tools": tools, "messages": [user]}), &Script::ok());
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(call["function"], json!({"name": "weather", "arguments": r#"{"city":"mock","days":1}"#}));

    let (chunks, _) = stream(&json!({"stream": true, "tools": tools, "messages": [user]}), &Script::ok());
    let first = &chunks[0]["choices"][0]["delta"]["tool_calls"][0];
    assert_eq!(first["function"], json!({"name": "weather", "arguments": ""}));
    let fragments: Vec<&Value> =
        chunks[1..3].iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]).collect();
    let arguments: String =
        fragments.iter().filter_map(|part| part["function"]["arguments"].as_str()).collect();
    assert_eq!(arguments, r#"{"city":"mock","days":1}"#);
    assert!(fragments.iter().all(|part| part.get("id").is_none() && part.get("type").is_none()));

    let result = json!({"role": "tool", "tool_call_id": "call_mock0", "content": "sunny"});
    let after = unary(&json!({"tools": tools, "messages": [user, result]}), &Script::ok());
    assert_eq!(after["choices"][0]["finish_reason"], "stop");
}

#[test]
fn an_output_limit_below_the_answer_ends_it_with_length() {
    let answer = unary(&json!({"max_tokens": 2}), &Script::ok());
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 2);
}

#[test]
fn legacy_completions_have_text_choices() {
    let Answer::Unary(body) = text(&json!({"prompt": "x"}), "m", &Script::ok(), 1) else {
        panic!("not unary")
    };
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (&answer["object"], &answer["choices"][0]["text"]),
        (&json!("text_completion"), &json!(SENTENCE))
    );
    let Answer::Stream(events) = text(&json!({"stream": true}), "m", &Script::ok().pieces(2), 1) else {
        panic!("not a stream")
    };
    assert_eq!(events.len(), 4);
}
