use serde_json::{Value, json};

use crate::{
    Dialect,
    codec::{self, CodecError, Destination, Encoded, Inbound},
    ir::{Content, Param, Request, Thinking},
    provider,
};

fn decode(body: &Value) -> Result<Request<'static>, CodecError> {
    let body = body.to_string().leak();
    codec::decode_request(Dialect::Chat, body.as_bytes(), Inbound::default())
}

/// What a client of Anthropic's becomes.
fn encode(mut body: Value, provider_id: &str, model: &str) -> Result<(Value, Vec<Param>), CodecError> {
    body["model"] = json!("m");
    body["max_tokens"] = json!(9000);
    body["messages"] = json!([{"role": "user", "content": "Hi"}]);
    let body = body.to_string();
    let request = codec::decode_request(Dialect::Messages, body.as_bytes(), Inbound::default())?;
    let provider = provider(provider_id).unwrap();
    let to = Destination { provider, model, most_output: 0, cap: None, hosted: false };
    let Encoded { body, dropped, .. } = codec::encode_request(&request, Dialect::Chat, &to)?;
    Ok((serde_json::from_slice(&body).unwrap(), dropped))
}

#[test]
fn models_that_reason_are_given_no_stop_sequences() {
    for (model, given) in [
        ("o3-mini", false),
        ("gpt-5.2", false),
        ("gpt-6-luna", false),
        ("gpt-5-chat-latest", true),
        ("gpt-4.1", true),
    ] {
        let (sent, dropped) = encode(json!({"stop_sequences": ["END"]}), "openai", model).unwrap();
        let expected = if given { json!(["END"]) } else { Value::Null };
        assert_eq!((&sent["stop"], dropped.contains(&Param::Stop)), (&expected, !given), "{model}");
    }
}

#[test]
fn more_stop_sequences_than_openai_takes_are_another_providers_request() {
    let many = || json!({"stop_sequences": ["1", "2", "3", "4", "5"]});
    for provider in ["openai", "azure"] {
        let error = encode(many(), provider, "gpt-4.1").unwrap_err();
        assert!(error.unsupported && error.path == "stop_sequences", "{error:?}");
    }
    let (sent, dropped) = encode(many(), "groq", "llama").unwrap();
    assert_eq!((sent["stop"].as_array().map(Vec::len), dropped), (Some(5), Vec::new()));
    let (sent, _) = encode(json!({"stop_sequences": ["1", "2", "3", "4"]}), "openai", "gpt-4.1").unwrap();
    assert_eq!(sent["stop"].as_array().map(Vec::len), Some(4));
}

#[test]
fn a_user_whose_name_is_too_long_for_openai_is_not_named() {
    for (provider, length, named) in
        [("openai", 64, true), ("openai", 65, false), ("azure", 65, false), ("groq", 150, true)]
    {
        let user = "é".repeat(length);
        let (sent, dropped) = encode(json!({"metadata": {"user_id": user}}), provider, "model").unwrap();
        let expected = if named { json!(user) } else { Value::Null };
        assert_eq!(
            (&sent["user"], dropped.contains(&Param::User)),
            (&expected, !named),
            "{provider} {length}"
        );
    }
}

#[test]
fn a_result_with_a_name_answers_a_call_as_well() {
    let asked = |id: &str| {
        let call = json!({"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let messages = json!([
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id, "name": "another", "content": "1"},
        ]);
        decode(&json!({"model": "m", "messages": messages}))
    };
    assert_eq!(asked("call_2").unwrap_err().path, "messages[2].tool_call_id");
    let request = asked("call_1").unwrap();
    let Content::ToolResult(result) = &request.messages[2].parts[0].content else { panic!("{request:?}") };
    assert_eq!(result.name.as_deref(), Some("f"));
}

fn thoughts(details: &Value) -> Vec<Thinking<'static>> {
    let message = json!({"role": "assistant", "content": "4", "reasoning_details": details});
    let request = decode(&json!({"model": "m", "messages": [message]})).unwrap();
    let parts = request.messages.into_iter().flat_map(|message| message.parts);
    let thoughts = parts.filter_map(|part| match part.content {
        Content::Thinking(thinking) => Some(thinking),
        _ => None,
    });
    thoughts.collect()
}

/// A signature is of the whole thought.
#[test]
fn pieces_of_a_thought_that_a_client_kept_apart_are_one() {
    let text = |text: &str, index: u32| json!({"type": "reasoning.text", "text": text, "index": index});
    let signed = |signature: &str, index: u32| json!({"type": "reasoning.text", "signature": signature, "index": index});
    let found = thoughts(&json!([
        text("Two", 0),
        text(" and two", 0),
        signed("s0", 0),
        text("Four", 1),
        signed("s1", 1),
    ]));
    let found: Vec<_> = found.iter().map(|it| (&*it.text, it.signature.as_deref())).collect();
    assert_eq!(found, [("Two and two", Some("s0")), ("Four", Some("s1"))]);
    // Others number them through, or not at all.
    let apart = thoughts(&json!([text("One", 0), text("Two", 1)]));
    assert_eq!(apart.len(), 2);
    let unnumbered = json!({"type": "reasoning.text", "text": "One", "index": null});
    assert_eq!(thoughts(&json!([unnumbered, unnumbered])).len(), 2);
}
