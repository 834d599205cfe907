//! Bodies as Cohere's own types take them.

use std::borrow::Cow;

use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::{
    Dialect,
    ir::{
        Content, Document, Format, Json, Logprobs, Media, Message, Part, Reasoning, Role, Sampling, Source,
        Thinking as Thought, Tool, ToolCall, ToolChoice, ToolKind, ToolResult,
    },
};

fn raw(json: &str) -> Json<'static> {
    Cow::Owned(RawValue::from_string(json.to_owned()).unwrap())
}

fn asked(messages: Vec<(Role, Vec<Part<'static>>)>) -> Request<'static> {
    let mut request = Request::new(Dialect::Chat, "m".into());
    let numbered =
        |parts: Vec<Part<'static>>| (0_u16..).zip(parts).map(|(at, part)| Part { at, ..part }).collect();
    let message = |(at, (role, parts)): (u16, (Role, Vec<Part<'static>>))| Message {
        role,
        parts: numbered(parts),
        name: None,
        at,
    };
    request.messages = (0_u16..).zip(messages).map(message).collect();
    request
}

fn hello() -> Request<'static> {
    asked(vec![(Role::User, vec![Part::text("Hello")])])
}

fn tool(name: &'static str, strict: Option<bool>) -> Tool<'static> {
    let kind = ToolKind::Function { parameters: Some(raw(r#"{"type":"object"}"#)), strict };
    Tool { name: name.into(), description: None, kind, cache: None, at: 0 }
}

fn write(request: &Request<'_>, model: &str) -> Result<(Value, Encoded), CodecError> {
    let provider = crate::provider("cohere").unwrap();
    let to = Destination { provider, model, most_output: 0, cap: Some(4000), hosted: false };
    let encoded = encode(request, &to)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded))
}

const MODEL: &str = "command-a-03-2025";
const REASONING: &str = "command-a-reasoning-08-2025";

/// A loop of tools. What is said before a call is a plan, each result a message.
#[test]
fn a_conversation_is_written_in_coheres_words() {
    let call = |id: &'static str| {
        let (id, name, arguments) = (id.into(), "weather".into(), "".into());
        Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom: false }))
    };
    let result = |id: &'static str| {
        let (call_id, content) = (id.into(), vec![Part::text("sunny"), Part::text("warm")]);
        Part::new(Content::ToolResult(ToolResult { call_id, name: None, content, is_error: false }))
    };
    let image = |source| Part::new(Content::Image(Media { source, detail: Some("low".into()) }));
    let data = Source::Base64 { media_type: "image/png".into(), data: "AAAA".into() };
    let text = Document {
        source: Source::Text("body".into()),
        name: Some("Doc".into()),
        context: None,
        citations: true,
    };
    let mut request = asked(vec![
        (Role::Developer, vec![Part::text("Be brief.")]),
        (
            Role::User,
            vec![
                Part::text("Weather?"),
                image(Source::Url("https://example.com/a.png".into())),
                image(data),
                Part::new(Content::Document(text)),
            ],
        ),
        (Role::Assistant, vec![Part::text("I look. "), Part::text("Twice."), call("a"), call("b")]),
        (Role::User, vec![result("a"), result("b")]),
        (Role::Assistant, vec![Part::text("Sunny.")]),
        (Role::User, vec![Part::text("Thanks")]),
    ]);
    request.tools = vec![tool("weather", None)];
    request.stream = true;
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!(encoded.dropped, []);
    let image = |url: &str| json!({ "type": "image_url", "image_url": { "url": url, "detail": "low" } });
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "weather", "arguments": "{}" } });
    let texts = json!([{ "type": "text", "text": "sunny" }, { "type": "text", "text": "warm" }]);
    let expected = json!({
        "model": MODEL,
        "stream": true,
        "max_tokens": 4000,
        "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": [
                { "type": "text", "text": "Weather?" },
                image("https://example.com/a.png"),
                image("data:image/png;base64,AAAA"),
            ] },
            { "role": "assistant", "tool_plan": "I look. Twice.", "tool_calls": [call("a"), call("b")] },
            { "role": "tool", "tool_call_id": "a", "content": texts },
            { "role": "tool", "tool_call_id": "b", "content": texts },
            { "role": "assistant", "content": "Sunny." },
            { "role": "user", "content": "Thanks" },
        ],
        "tools": [{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object" } } }],
        "documents": [{ "data": { "title": "Doc", "text": "body" } }],
    });
    assert_eq!(body, expected);
}

#[test]
fn every_choice_of_tools_is_said() {
    let mut request = hello();
    request.tools = vec![tool("a", Some(true)), tool("b", Some(true))];
    for (choice, written, offered) in [
        (ToolChoice::Auto, Value::Null, 2),
        (ToolChoice::None, json!("NONE"), 2),
        (ToolChoice::Required, json!("REQUIRED"), 2),
        (ToolChoice::Function("b".into()), json!("REQUIRED"), 1),
        (ToolChoice::Allowed { names: vec!["b".into()], required: false }, Value::Null, 1),
    ] {
        request.tool_choice = Some(choice);
        let (body, encoded) = write(&request, MODEL).unwrap();
        assert_eq!((&body["tool_choice"], body["tools"].as_array().unwrap().len()), (&written, offered));
        assert_eq!((&body["strict_tools"], encoded.dropped), (&json!(true), vec![]));
    }
    request.tools = vec![tool("a", Some(true)), tool("b", None)];
    request.parallel_tool_calls = Some(false);
    request.tool_choice = None;
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!(
        (body.get("strict_tools"), &*encoded.dropped),
        (None, &[Param::ParallelToolCalls, Param::Strict][..])
    );
}

/// Cohere takes a schema, but not beside tools: there the answer is a call too.
#[test]
fn a_schema_is_held_to_with_and_without_tools() {
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } } });
    let format =
        Format::Schema { name: None, description: None, schema: raw(&schema.to_string()), strict: None };
    let mut request = hello();
    request.format = Some(Format::Json);
    assert_eq!(write(&request, MODEL).unwrap().0["response_format"], json!({ "type": "json_object" }));
    request.format = Some(format);
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!(body["response_format"], json!({ "type": "json_object", "json_schema": schema }));
    assert!(!encoded.forced_tool);
    request.tools = vec![tool("a", None)];
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert!(encoded.forced_tool);
    assert_eq!((body.get("response_format"), &body["tool_choice"]), (None, &json!("REQUIRED")));
    assert_eq!(body["tools"][1]["function"]["name"], "json_response");
    assert_eq!(body["tools"][1]["function"]["parameters"], schema);
    request.tool_choice = Some(ToolChoice::None);
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!((encoded.forced_tool, body.get("tools")), (false, None));
    assert_eq!(body["response_format"]["json_schema"], schema);
}

#[test]
fn parameters_are_said_or_reported() {
    let mut request = hello();
    request.stop = vec!["END".into()];
    request.max_output = Some(100);
    request.sampling = Sampling {
        temperature: Some(0.3),
        top_p: Some(1.0),
        top_k: Some(40),
        seed: Some(-7),
        frequency_penalty: Some(0.5),
        ..Sampling::default()
    };
    request.logprobs = Some(Logprobs { top: None });
    request.extras = vec![("safety_mode".into(), raw("\"STRICT\""))];
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!(encoded.dropped, []);
    let expected = json!({
        "model": MODEL, "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 100, "stop_sequences": ["END"],
        "temperature": 0.3, "p": 0.99, "k": 40, "seed": -7, "frequency_penalty": 0.5, "logprobs": true,
        "safety_mode": "STRICT",
    });
    assert_eq!(body, expected);

    request.sampling = Sampling {
        top_p: Some(0.001),
        top_k: Some(1000),
        min_p: Some(0.1),
        frequency_penalty: Some(2.0),
        presence_penalty: Some(-1.0),
        ..Sampling::default()
    };
    request.logprobs = Some(Logprobs { top: Some(3) });
    request.user = Some("u".into());
    request.metadata = Some(raw("{}"));
    request.service_tier = Some("priority".into());
    request.reasoning = Some(Reasoning { effort: Some(Effort::High), ..Reasoning::default() });
    request.extras = vec![("logit_bias".into(), raw("{}"))];
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!((&body["p"], &body["k"], &body["presence_penalty"]), (&json!(0.01), &json!(500), &json!(0.0)));
    for param in [
        Param::TopP,
        Param::TopK,
        Param::FrequencyPenalty,
        Param::PresencePenalty,
        Param::Reasoning,
        Param::Other("logit_bias".into()),
        Param::TopLogprobs,
        Param::MinP,
        Param::User,
        Param::Metadata,
        Param::ServiceTier,
    ] {
        assert!(encoded.dropped.contains(&param), "{param:?}");
    }
    assert_eq!(encoded.dropped.len(), 11, "{:?}", encoded.dropped);
}

#[test]
fn only_models_that_reason_are_told_how() {
    let thought = Part::new(Content::Thinking(Thought { text: "Hm.".into(), ..Thought::default() }));
    let mut request = asked(vec![
        (Role::User, vec![Part::text("a")]),
        (Role::Assistant, vec![thought, Part::text("b")]),
        (Role::User, vec![Part::text("c")]),
    ]);
    for (reasoning, written) in [
        (
            Reasoning { budget: Some(500), ..Reasoning::default() },
            json!({ "type": "enabled", "token_budget": 500 }),
        ),
        (
            Reasoning { effort: Some(Effort::High), ..Reasoning::default() },
            json!({ "type": "enabled", "token_budget": 3999 }),
        ),
        (Reasoning { effort: Some(Effort::None), ..Reasoning::default() }, json!({ "type": "disabled" })),
        (Reasoning { adaptive: true, ..Reasoning::default() }, json!({ "type": "enabled" })),
    ] {
        request.reasoning = Some(reasoning);
        let (body, encoded) = write(&request, REASONING).unwrap();
        assert_eq!((&body["thinking"], encoded.dropped), (&written, vec![]));
        assert_eq!(body["messages"][1]["content"][0], json!({ "type": "thinking", "thinking": "Hm." }));
    }
    request.reasoning = None;
    let (body, encoded) = write(&request, MODEL).unwrap();
    assert_eq!((&body["messages"][1]["content"], encoded.dropped), (&json!("b"), vec![Param::Thinking]));
}

#[test]
fn what_would_change_the_meaning_is_refused_by_place() {
    let media = |source| Media { source, detail: None };
    let data = || Source::Base64 { media_type: "audio/wav".into(), data: "AAAA".into() };
    let document = Document { source: data(), name: None, context: None, citations: false };
    for (content, path) in [
        (Content::Audio(media(data())), "messages[0].content[1].input_audio"),
        (Content::Document(document), "messages[0].content[1].file"),
        (Content::Image(media(Source::File("file-1".into()))), "messages[0].content[1].image_url"),
    ] {
        let request = asked(vec![(Role::User, vec![Part::text("a"), Part::new(content)])]);
        let error = write(&request, MODEL).unwrap_err();
        assert_eq!((&*error.path, error.unsupported), (path, true));
    }
    let mut request = hello();
    request.choices = 3;
    assert_eq!(write(&request, MODEL).unwrap_err().path, "n");
    let kind = ToolKind::Native { dialect: Dialect::Messages, value: raw("{}") };
    let mut request = hello();
    request.tools = vec![Tool { kind, at: 2, ..tool("a", None) }];
    assert_eq!(write(&request, MODEL).unwrap_err().path, "tools[2]");
}
