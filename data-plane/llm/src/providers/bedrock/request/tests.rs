//! Bodies as botocore's own validator takes them.

use std::borrow::Cow;

use serde_json::{Value, json, value::RawValue};

use super::*;
use crate::{
    Dialect,
    ir::{
        CacheMark, Content, Document, Effort, Format, Json, Logprobs, Media, Message, Part, Reasoning, Role,
        Sampling, Source, Thinking, Tool, ToolCall, ToolChoice, ToolKind, ToolResult,
    },
};

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

fn raw(json: &str) -> Json<'static> {
    Cow::Owned(RawValue::from_string(json.to_owned()).unwrap())
}

fn message(at: u16, role: Role, parts: Vec<Part<'static>>) -> Message<'static> {
    let numbered = (0_u16..).zip(parts).map(|(at, part)| Part { at, ..part });
    Message { role, parts: numbered.collect(), name: None, at }
}

fn asked(messages: Vec<(Role, Vec<Part<'static>>)>) -> Request<'static> {
    let mut request = Request::new(Dialect::Chat, "m".into());
    request.messages = (0_u16..).zip(messages).map(|(at, (role, parts))| message(at, role, parts)).collect();
    request
}

fn hello() -> Request<'static> {
    asked(vec![(Role::User, vec![Part::text("Hello")])])
}

fn tool(name: &'static str) -> Tool<'static> {
    let parameters = Some(raw(r#"{"type":"object","properties":{"city":{"type":"string"}}}"#));
    let kind = ToolKind::Function { parameters, strict: None };
    Tool { name: name.into(), description: Some("Weather".into()), kind, cache: None, at: 0 }
}

fn call(id: &'static str, arguments: &'static str) -> Part<'static> {
    let (id, name, arguments) = (id.into(), "weather".into(), arguments.into());
    Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom: false }))
}

fn result(id: &'static str, text: &'static str) -> Part<'static> {
    let (call_id, content) = (id.into(), vec![Part::text(text)]);
    Part::new(Content::ToolResult(ToolResult { call_id, name: None, content, is_error: false }))
}

fn image(source: Source<'static>) -> Part<'static> {
    Part::new(Content::Image(Media { source, detail: None }))
}

fn base64(media_type: &'static str) -> Source<'static> {
    Source::Base64 { media_type: media_type.into(), data: "AAAA".into() }
}

fn write(request: &Request<'_>, model: &str) -> Result<(Value, Encoded), CodecError> {
    let provider = crate::provider("bedrock").unwrap();
    let to = Destination { provider, model, most_output: 0, cap: None, hosted: false };
    let encoded = encode(request, &to)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded))
}

/// The body, of which nothing was dropped.
fn whole(request: &Request<'_>, model: &str) -> Value {
    let (body, encoded) = write(request, model).unwrap();
    assert_eq!(encoded.dropped, []);
    body
}

#[test]
fn instructions_are_hoisted_and_turns_merged() {
    let request = asked(vec![
        (Role::System, vec![Part::text("Be brief.")]),
        (Role::User, vec![Part::text("Hello"), Part::text(" ")]),
        (Role::User, vec![Part::text("there")]),
        (Role::Assistant, vec![Part::text(""), Part::text("Hi")]),
        (Role::Developer, vec![Part::text("Be kind.")]),
        (Role::User, vec![Part::text("Bye")]),
    ]);
    let expected = json!({
        "messages": [
            { "role": "user", "content": [{ "text": "Hello" }, { "text": "there" }] },
            { "role": "assistant", "content": [{ "text": "Hi" }] },
            { "role": "user", "content": [{ "text": "Bye" }] },
        ],
        "system": [{ "text": "Be brief." }, { "text": "Be kind." }],
    });
    assert_eq!(whole(&request, CLAUDE), expected);
}

/// Parallel calls and their results, which are one turn, results first; ids that AWS refuses, arguments that
/// are no object.
#[test]
fn calls_and_results_keep_together() {
    let failed = ToolResult {
        call_id: "call|2".into(),
        name: None,
        content: vec![Part::text("no"), image(base64("image/png"))],
        is_error: true,
    };
    let mut request = asked(vec![
        (Role::User, vec![Part::text("Weather?")]),
        (Role::Assistant, vec![call("a1", r#"{"city": "Rome"}"#), call("call|2", "{broken"), call("a3", "")]),
        (Role::User, vec![result("a1", "sunny")]),
        (Role::User, vec![Part::text("and?"), Part::new(Content::ToolResult(failed)), result("a3", "")]),
    ]);
    request.tools = vec![tool("weather")];
    let body = whole(&request, CLAUDE);
    let uses = body["messages"][1]["content"].as_array().unwrap();
    assert_eq!(
        uses[0]["toolUse"],
        json!({ "toolUseId": "a1", "name": "weather", "input": { "city": "Rome" } })
    );
    assert_eq!(uses[1]["toolUse"]["input"], json!({ "input": "{broken" }));
    assert_eq!(uses[2]["toolUse"]["input"], json!({}));
    let made_up = uses[1]["toolUse"]["toolUseId"].as_str().unwrap();
    assert!(
        made_up.len() <= 64 && made_up.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'),
        "{made_up}"
    );
    let expected = json!([
        { "toolResult": { "toolUseId": "a1", "content": [{ "text": "sunny" }] } },
        { "toolResult": { "toolUseId": made_up, "status": "error", "content": [
            { "text": "no" }, { "image": { "format": "png", "source": { "bytes": "AAAA" } } }
        ] } },
        { "toolResult": { "toolUseId": "a3", "content": [] } },
        { "text": "and?" },
    ]);
    assert_eq!(body["messages"][2], json!({ "role": "user", "content": expected }));
    assert_eq!(body["messages"].as_array().unwrap().len(), 3);
}

/// C 25: a conversation with calls must have tools, also when the client no longer offers any.
#[test]
fn tools_that_were_called_are_declared() {
    let mut request = asked(vec![
        (Role::User, vec![Part::text("Weather?")]),
        (Role::Assistant, vec![call("a", "{}")]),
        (Role::User, vec![result("a", "sunny")]),
    ]);
    let spec = json!({ "toolSpec": { "name": "weather", "inputSchema": { "json": { "type": "object", "properties": {} } } } });
    assert_eq!(whole(&request, CLAUDE)["toolConfig"], json!({ "tools": [spec] }));
    request.tools = vec![tool("weather")];
    request.tool_choice = Some(ToolChoice::None);
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["description"], "Weather");
    assert_eq!(encoded.dropped, [Param::ToolChoice], "they can't be forbidden");
    let mut request = hello();
    request.tools = vec![tool("weather")];
    request.tool_choice = Some(ToolChoice::None);
    assert_eq!(whole(&request, CLAUDE).get("toolConfig"), None, "what isn't offered isn't called");
}

#[test]
fn every_choice_of_tools_is_said() {
    let mut request = hello();
    request.tools = vec![tool("weather"), tool("time")];
    let names = |body: &Value| {
        let tools = body["toolConfig"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["toolSpec"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let allowed = |required| ToolChoice::Allowed { names: vec!["time".into()], required };
    for (choice, written, offered) in [
        (ToolChoice::Auto, Value::Null, 2),
        (ToolChoice::Required, json!({ "any": {} }), 2),
        (ToolChoice::Function("time".into()), json!({ "tool": { "name": "time" } }), 2),
        (allowed(true), json!({ "any": {} }), 1),
        (allowed(false), Value::Null, 1),
    ] {
        request.tool_choice = Some(choice);
        let body = whole(&request, CLAUDE);
        assert_eq!((&body["toolConfig"]["toolChoice"], names(&body).len()), (&written, offered));
    }
    request.tool_choice = Some(ToolChoice::Required);
    let (body, encoded) = write(&request, "meta.llama3-1-70b-instruct-v1:0").unwrap();
    assert_eq!((body["toolConfig"].get("toolChoice"), &*encoded.dropped), (None, &[Param::ToolChoice][..]));
    request.parallel_tool_calls = Some(false);
    assert_eq!(write(&request, CLAUDE).unwrap().1.dropped, [Param::ParallelToolCalls]);
}

#[test]
fn tools_that_bedrock_has_not_are_refused_by_place() {
    let mut request = hello();
    request.tools = vec![Tool { name: "a.b".into(), at: 3, ..tool("x") }];
    let error = write(&request, CLAUDE).unwrap_err();
    assert!(error.unsupported && error.path == "tools[3]", "{error:?}");
    let kind = ToolKind::Native { dialect: Dialect::Responses, value: raw(r#"{"type":"web_search"}"#) };
    request.tools = vec![Tool { kind, at: 1, ..tool("x") }];
    let error = write(&request, CLAUDE).unwrap_err();
    assert!(error.unsupported && error.path == "tools[1]", "{error:?}");
}

fn schema(strict: Option<bool>) -> Format<'static> {
    let schema = raw(r#"{"type":"object","properties":{"n":{"type":"integer"}}}"#);
    Format::Schema { name: Some("number".into()), description: None, schema, strict }
}

/// Native where the target has it, else as a function that is called.
#[test]
fn a_schema_is_forced_where_it_can_be() {
    let mut request = hello();
    request.format = Some(schema(Some(true)));
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    assert!(encoded.forced_tool && encoded.dropped.is_empty());
    assert_eq!(body["toolConfig"]["toolChoice"], json!({ "tool": { "name": "json_response" } }));
    let spec = &body["toolConfig"]["tools"][0]["toolSpec"];
    assert_eq!(spec["inputSchema"]["json"]["properties"], json!({ "n": { "type": "integer" } }));
    assert_eq!(body.get("outputConfig"), None);

    request.tools = vec![tool("weather")];
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    assert!(encoded.forced_tool);
    assert_eq!(body["toolConfig"]["toolChoice"], json!({ "any": {} }), "either a call or the answer");
    request.tool_choice = Some(ToolChoice::Function("weather".into()));
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    assert!(!encoded.forced_tool);
    assert_eq!(body["toolConfig"]["tools"].as_array().unwrap().len(), 1);

    let mut request = hello();
    request.format = Some(schema(None));
    let (body, encoded) = write(&request, "mistral.mistral-large-3-675b-instruct").unwrap();
    let format = json!({ "textFormat": { "type": "json_schema", "structure": { "jsonSchema": {
        "schema": r#"{"type":"object","properties":{"n":{"type":"integer"}}}"#, "name": "number"
    } } } });
    assert_eq!((encoded.forced_tool, &body["outputConfig"], body.get("toolConfig")), (false, &format, None));

    request.format = Some(schema(Some(true)));
    let (body, encoded) = write(&request, "meta.llama3-1-70b-instruct-v1:0").unwrap();
    assert_eq!((encoded.forced_tool, &*encoded.dropped), (true, &[Param::Strict][..]));
    assert!(body["system"][0]["text"].as_str().unwrap().contains("json_response"), "it is only asked to");

    request.format = Some(Format::Json);
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    assert!(encoded.forced_tool);
    assert_eq!(body["toolConfig"]["toolChoice"], json!({ "tool": { "name": "json_response" } }));
}

#[test]
fn a_schema_without_a_type_becomes_one_of_an_object() {
    let mut request = hello();
    let kind = ToolKind::Function { parameters: Some(raw(r#"{"$defs":{}}"#)), strict: Some(true) };
    request.tools = vec![Tool { kind, ..tool("a") }];
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    let expected = json!({ "type": "object", "properties": {}, "$defs": {} });
    assert_eq!(body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"]["json"], expected);
    assert_eq!(encoded.dropped, [Param::Strict]);
}

#[test]
fn sampling_and_limits_are_said_as_far_as_they_go() {
    let mut request = hello();
    request.max_output = Some(500);
    request.stop = vec!["END".into()];
    request.sampling = Sampling { temperature: Some(0.5), top_k: Some(40), ..Sampling::default() };
    request.metadata = Some(raw(r#"{"team":"blue"}"#));
    request.service_tier = Some("flex".into());
    let expected = json!({
        "messages": [{ "role": "user", "content": [{ "text": "Hello" }] }],
        "inferenceConfig": { "maxTokens": 500, "temperature": 0.5, "stopSequences": ["END"] },
        "additionalModelRequestFields": { "top_k": 40 },
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "requestMetadata": { "team": "blue" },
        "serviceTier": { "type": "flex" },
    });
    assert_eq!(whole(&request, CLAUDE), expected);
    let body = whole(&request, "amazon.nova-pro-v1:0");
    assert_eq!(body["additionalModelRequestFields"], json!({ "inferenceConfig": { "topK": 40 } }));

    let provider = crate::provider("bedrock").unwrap();
    let to = Destination { provider, model: CLAUDE, most_output: 0, cap: Some(100), hosted: false };
    let capped: Value = serde_json::from_slice(&encode(&request, &to).unwrap().body).unwrap();
    assert_eq!(capped["inferenceConfig"]["maxTokens"], 100);
}

/// Nothing is lost silently.
#[test]
fn what_converse_has_no_word_for_is_reported() {
    let mut request = hello();
    request.sampling = Sampling {
        temperature: Some(1.5),
        top_p: Some(0.9),
        top_k: Some(4),
        min_p: Some(0.1),
        frequency_penalty: Some(0.5),
        presence_penalty: Some(0.0),
        seed: Some(1),
    };
    request.logprobs = Some(Logprobs { top: Some(2) });
    request.user = Some("u".into());
    request.metadata = Some(raw(r#"{"name":"Zoë"}"#));
    request.service_tier = Some("scale".into());
    request.store = Some(true);
    request.cache_key = Some("k".into());
    request.messages[0].name = Some("Ann".into());
    request.messages[0].parts[0].cache = Some(CacheMark::Default);
    request.extras = vec![("logit_bias".into(), raw("{}"))];
    let (body, encoded) = write(&request, "mistral.mistral-large-2407-v1:0").unwrap();
    assert_eq!(body["inferenceConfig"], json!({ "temperature": 1.0, "topP": 0.9 }));
    for param in [
        Param::Temperature,
        Param::TopK,
        Param::MinP,
        Param::FrequencyPenalty,
        Param::Seed,
        Param::Logprobs,
        Param::TopLogprobs,
        Param::User,
        Param::Metadata,
        Param::ServiceTier,
        Param::Store,
        Param::CacheKey,
        Param::ParticipantName,
        Param::CacheControl,
        Param::Other("logit_bias".into()),
    ] {
        assert!(encoded.dropped.contains(&param), "{param:?}");
    }
    assert_eq!(encoded.dropped.len(), 15, "each once, and no more: {:?}", encoded.dropped);
}

/// Efforts and budgets, in the words of each family.
#[test]
fn models_are_told_how_to_think() {
    let with = |effort: Option<Effort>, budget: Option<u64>, model: &str, max: Option<u64>| {
        let mut request = hello();
        request.reasoning = Some(Reasoning { effort, budget, ..Reasoning::default() });
        request.max_output = max;
        let (body, encoded) = write(&request, model).unwrap();
        (body.get("additionalModelRequestFields").cloned().unwrap_or_default(), encoded.dropped)
    };
    let budget = |tokens: u64| json!({ "thinking": { "type": "enabled", "budget_tokens": tokens } });
    assert_eq!(with(Some(Effort::Medium), None, CLAUDE, None), (budget(8192), vec![]));
    assert_eq!(with(None, Some(2000), CLAUDE, Some(4000)), (budget(2000), vec![]));
    assert_eq!(with(Some(Effort::High), None, CLAUDE, Some(4000)), (budget(3999), vec![]));
    assert_eq!(with(Some(Effort::High), None, CLAUDE, Some(1000)), (Value::Null, vec![Param::Reasoning]));
    assert_eq!(with(None, Some(0), CLAUDE, None), (Value::Null, vec![]));
    let newer = "anthropic.claude-opus-4-7";
    let adaptive = json!({ "thinking": { "type": "adaptive" }, "output_config": { "effort": "high" } });
    assert_eq!(with(Some(Effort::High), None, newer, None), (adaptive, vec![]));
    let oss = "openai.gpt-oss-120b-1:0";
    assert_eq!(with(Some(Effort::Max), None, oss, None), (json!({ "reasoning_effort": "high" }), vec![]));
    let nova = json!({ "reasoningConfig": { "type": "enabled", "maxReasoningEffort": "low" } });
    assert_eq!(with(Some(Effort::Low), None, "amazon.nova-2-lite-v1:0", None), (nova, vec![]));
    let llama = "meta.llama3-1-70b-instruct-v1:0";
    assert_eq!(with(Some(Effort::Low), None, llama, None), (Value::Null, vec![Param::Reasoning]));
    assert_eq!(with(Some(Effort::None), None, llama, None), (Value::Null, vec![]));
}

/// Claude refuses to think in the middle of a turn that it is said to have begun without thought.
#[test]
fn a_turn_without_thoughts_goes_on_without() {
    let thought = || {
        let signature = Some("c2ln".into());
        Part::new(Content::Thinking(Thinking { text: "Hm.".into(), signature, ..Thinking::default() }))
    };
    for (thoughts, thinks) in [(vec![], false), (vec![thought()], true)] {
        let mut turn = thoughts;
        turn.push(call("a", "{}"));
        let user = |part| (Role::User, vec![part]);
        let mut request = asked(vec![user(Part::text("a")), (Role::Assistant, turn), user(result("a", "b"))]);
        request.reasoning = Some(Reasoning { effort: Some(Effort::Low), ..Reasoning::default() });
        let (body, encoded) = write(&request, CLAUDE).unwrap();
        assert_eq!(body.get("additionalModelRequestFields").is_some(), thinks);
        assert_eq!(encoded.dropped.contains(&Param::Reasoning), !thinks);
    }
}

#[test]
fn a_thinking_claude_is_spared_what_it_refuses() {
    let mut request = hello();
    request.reasoning = Some(Reasoning { effort: Some(Effort::Low), ..Reasoning::default() });
    request.sampling = Sampling { temperature: Some(0.2), top_k: Some(5), ..Sampling::default() };
    request.tools = vec![tool("weather")];
    request.tool_choice = Some(ToolChoice::Required);
    request.format = Some(schema(None));
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    assert_eq!(encoded.dropped, [Param::Temperature, Param::TopK, Param::ToolChoice]);
    assert_eq!(body.get("inferenceConfig"), None);
    assert_eq!(body["toolConfig"].get("toolChoice"), None);
    assert!(encoded.forced_tool && body["system"][0]["text"].as_str().unwrap().contains("json_response"));
}

/// Thoughts go back with their signature, or not at all.
#[test]
fn only_thoughts_that_can_be_checked_go_back() {
    let think = |signature: Option<&'static str>, encrypted: Option<&'static str>| {
        let text = if encrypted.is_some() { "" } else { "Hm." };
        let (signature, encrypted) = (signature.map(Into::into), encrypted.map(Into::into));
        Part::new(Content::Thinking(Thinking { text: text.into(), signature, encrypted, id: None }))
    };
    let parts =
        vec![think(Some("c2ln"), None), think(None, None), think(None, Some("QUJD")), Part::text("Hi")];
    let request = asked(vec![
        (Role::User, vec![Part::text("Hello")]),
        (Role::Assistant, parts),
        (Role::User, vec![Part::text("So?")]),
    ]);
    let (body, encoded) = write(&request, CLAUDE).unwrap();
    let expected = json!([
        { "reasoningContent": { "reasoningText": { "text": "Hm.", "signature": "c2ln" } } },
        { "reasoningContent": { "redactedContent": "QUJD" } },
        { "text": "Hi" },
    ]);
    assert_eq!((&body["messages"][1]["content"], &*encoded.dropped), (&expected, &[Param::Thinking][..]));
    let (body, _) = write(&request, "meta.llama3-1-70b-instruct-v1:0").unwrap();
    assert_eq!(body["messages"][1]["content"], json!([{ "text": "Hi" }]));
}

#[test]
fn marks_of_the_cache_stand_behind_what_they_mark() {
    let marked = |text: &'static str, mark| Part { cache: Some(mark), ..Part::text(text) };
    let mut request = asked(vec![
        (Role::System, vec![marked("Rules", CacheMark::Hour)]),
        (Role::User, vec![marked("Book", CacheMark::Default), Part::text("Question")]),
    ]);
    request.tools = vec![Tool { cache: Some(CacheMark::Default), ..tool("weather") }];
    let point = json!({ "cachePoint": { "type": "default" } });
    let body = whole(&request, CLAUDE);
    assert_eq!(body["system"][1], json!({ "cachePoint": { "type": "default", "ttl": "1h" } }));
    assert_eq!(body["messages"][0]["content"], json!([{ "text": "Book" }, point, { "text": "Question" }]));
    assert_eq!(body["toolConfig"]["tools"][1], point);
    let (body, encoded) = write(&request, "amazon.nova-pro-v1:0").unwrap();
    assert_eq!(
        (body["toolConfig"]["tools"].as_array().unwrap().len(), &*encoded.dropped),
        (1, &[Param::CacheControl][..])
    );
}

/// Images, documents, recordings.
#[test]
fn files_go_along_and_names_of_documents_are_made_fit() {
    let document = |name: Option<&'static str>, source| {
        let name = name.map(Into::into);
        Part::new(Content::Document(Document { source, name, context: None, citations: true }))
    };
    let audio = Part::new(Content::Audio(Media { source: base64("audio/wav"), detail: None }));
    let stored = Source::Url("s3://bucket/picture.webp".into());
    let request = asked(vec![(
        Role::User,
        vec![
            image(base64("image/jpeg")),
            image(stored),
            document(Some("Q3 report.v2.pdf"), base64("application/pdf")),
            document(Some("Q3 report.v2.pdf"), Source::Text("plain".into())),
            document(None, base64("text/csv")),
            audio,
        ],
    )]);
    let content = whole(&request, CLAUDE)["messages"][0]["content"].clone();
    let citations = json!({ "enabled": true });
    let expected = json!([
        { "image": { "format": "jpeg", "source": { "bytes": "AAAA" } } },
        { "image": { "format": "webp", "source": { "s3Location": { "uri": "s3://bucket/picture.webp" } } } },
        { "document": { "format": "pdf", "name": "Q3 report-v2-pdf", "source": { "bytes": "AAAA" }, "citations": citations } },
        { "document": { "format": "txt", "name": "Q3 report-v2-pdf 2", "source": { "text": "plain" }, "citations": citations } },
        { "document": { "format": "csv", "name": "Document", "source": { "bytes": "AAAA" }, "citations": citations } },
        { "audio": { "format": "wav", "source": { "bytes": "AAAA" } } },
    ]);
    assert_eq!(content, expected);
}

#[test]
fn what_would_change_the_meaning_is_refused_by_place() {
    let refused = |request: &Request<'_>| {
        let error = write(request, CLAUDE).unwrap_err();
        (error.path, error.unsupported)
    };
    for source in [
        Source::Url("https://example.com/a.png".into()),
        Source::File("file-1".into()),
        base64("image/tiff"),
        Source::Text("a".into()),
    ] {
        let request = asked(vec![
            (Role::System, vec![Part::text("s")]),
            (Role::User, vec![Part::text("a"), image(source)]),
        ]);
        assert_eq!(refused(&request), ("messages[1].content[1].image_url".to_owned(), true));
    }
    let opaque = || Part::new(Content::Opaque { dialect: Dialect::Messages, value: raw("{}") });
    assert_eq!(
        refused(&asked(vec![(Role::User, vec![opaque()])])),
        ("messages[0].content[0]".to_owned(), true)
    );
    let (_, encoded) = write(
        &asked(vec![(Role::User, vec![Part::text("a")]), (Role::Assistant, vec![opaque(), Part::text("b")])]),
        CLAUDE,
    )
    .unwrap();
    assert_eq!(
        encoded.dropped,
        [Param::Other("messages[1].content[0]".into())],
        "what has happened is only told"
    );

    let mut request = hello();
    request.choices = 2;
    assert_eq!(refused(&request), ("n".to_owned(), true));
    let mut request = hello();
    request.modalities = vec!["text".into(), "audio".into()];
    assert_eq!(refused(&request), ("modalities".to_owned(), true));
    assert_eq!(refused(&asked(vec![(Role::System, vec![Part::text("a")])])), ("messages".to_owned(), true));
}

/// Claude refuses both.
#[test]
fn claude_goes_on_from_no_white_space_and_stops_at_none() {
    let mut begun = Part::text("Answer: \n");
    begun.cache = Some(CacheMark::Default);
    let mut request = asked(vec![(Role::User, vec![Part::text("Hello ")]), (Role::Assistant, vec![begun])]);
    request.stop = vec!["\n".into(), "END".into()];
    let sent = |model: &str, request: &Request<'_>| {
        let provider = crate::provider("custom").unwrap();
        let to = Destination { provider, model, most_output: 0, cap: None, hosted: false };
        let encoded = encode(request, &to).unwrap();
        (serde_json::from_slice::<Value>(&encoded.body).unwrap(), encoded.dropped.contains(&Param::Stop))
    };
    let texts = |body: &Value| {
        let text = |at: usize| body["messages"][at]["content"][0]["text"].as_str().unwrap().to_owned();
        (text(0), text(1))
    };
    let (body, dropped) = sent(CLAUDE, &request);
    assert_eq!(texts(&body), ("Hello ".to_owned(), "Answer:".to_owned()), "{body}");
    assert_eq!((&body["inferenceConfig"]["stopSequences"], dropped), (&json!(["END"]), true));
    let (body, dropped) = sent("amazon.nova-lite-v1:0", &request);
    assert_eq!(texts(&body).1, "Answer: \n", "{body}");
    assert_eq!((&body["inferenceConfig"]["stopSequences"], dropped), (&json!(["\n", "END"]), false));
    request.stop.truncate(1);
    let (body, _) = sent(CLAUDE, &request);
    assert!(body.get("additionalModelResponseFieldPaths").is_none(), "{body}");
}
