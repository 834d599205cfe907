use serde_json::{Value, json};

use crate::{
    CodecError, Destination, Dialect, Encoded,
    ir::{
        CacheMark, Content, Effort, Format, Message, Param, Part, Reasoning, Request, Role, Source, Thinking,
        Tool, ToolCall, ToolChoice, ToolKind, ToolResult,
    },
    provider,
};

mod thinking;

fn to(model: &str) -> Destination<'_> {
    Destination { provider: provider("anthropic").unwrap(), model, most_output: 0, cap: None, hosted: false }
}

fn message<'a>(at: u16, role: Role, parts: Vec<Part<'a>>) -> Message<'a> {
    let numbered = parts.into_iter().enumerate();
    let parts = numbered.map(|(at, part)| Part { at: u16::try_from(at).unwrap(), ..part }).collect();
    Message { role, parts, name: None, at }
}

fn asking<'a>() -> Request<'a> {
    let mut request = Request::new(Dialect::Chat, "m".into());
    request.messages.push(message(0, Role::User, vec![Part::text("hi")]));
    request
}

fn function<'a>(name: &'static str, parameters: &'static str, strict: Option<bool>) -> Tool<'a> {
    let parameters = Some(std::borrow::Cow::Borrowed(serde_json::from_str(parameters).unwrap()));
    Tool {
        name: name.into(),
        description: None,
        kind: ToolKind::Function { parameters, strict },
        cache: None,
        at: 0,
    }
}

const ANY: &str = r#"{"type":"object","properties":{}}"#;

fn call<'a>(id: &'static str, arguments: &'static str) -> Part<'a> {
    Part::new(Content::ToolCall(ToolCall {
        id: id.into(),
        name: "f".into(),
        arguments: arguments.into(),
        custom: false,
    }))
}

fn result<'a>(id: &'static str, text: &'static str) -> Part<'a> {
    let content = vec![Part::text(text)];
    Part::new(Content::ToolResult(ToolResult {
        call_id: id.into(),
        name: Some("f".into()),
        content,
        is_error: false,
    }))
}

fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<(Value, Encoded), CodecError> {
    let encoded = super::encode(request, to)?;
    Ok((serde_json::from_slice(&encoded.body).unwrap(), encoded))
}

fn body(request: &Request<'_>, model: &str) -> (Value, Vec<Param>) {
    let (body, encoded) = encode(request, &to(model)).unwrap();
    (body, encoded.dropped)
}

fn decode(body: &Value) -> Result<(), CodecError> {
    super::decode(body.to_string().as_bytes()).map(drop)
}

/// E.5: everything that the hub has a place for is in it, and what it has none for is kept by name.
#[test]
fn a_request_of_anthropics_clients_is_read_whole() {
    let text = json!({
        "model": "claude", "max_tokens": 100, "temperature": 0.5, "top_k": 3, "stream": true,
        "system": [{"type": "text", "text": "be\nbrief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "stop_sequences": ["END"], "metadata": {"user_id": "u"}, "service_tier": "auto",
        "thinking": {"type": "enabled", "budget_tokens": 2048},
        "tools": [
            {"name": "f", "description": "d", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}},
            {"type": "web_search_20250305", "name": "web_search"}
        ],
        "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": true},
        "container": "c",
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "document", "title": "t", "citations": {"enabled": true},
                 "source": {"type": "base64", "media_type": "application/pdf", "data": "QUI="}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}}
            ]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "r"},
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
                {"type": "tool_use", "id": "c1__ts_QUJD", "name": "f", "input": {"a": 1}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1__ts_QUJD", "is_error": true, "content": "bad"}
            ]}
        ]
    })
    .to_string();
    let request = super::decode(text.as_bytes()).unwrap();
    assert_eq!((request.max_output, request.stream, request.sampling.top_k), (Some(100), true, Some(3)));
    assert_eq!((request.user.as_deref(), request.parallel_tool_calls), (Some("u"), Some(false)));
    assert_eq!(request.tool_choice, Some(ToolChoice::Function("f".into())));
    assert_eq!(request.reasoning, Some(Reasoning { budget: Some(2048), ..Reasoning::default() }));
    assert_eq!(request.extras[0].0, "container");
    assert_eq!(request.tools[0].cache, Some(CacheMark::Default));
    assert!(matches!(&request.tools[1].kind, ToolKind::Native { dialect: Dialect::Messages, .. }));
    let system = &request.messages[0];
    assert_eq!((system.role, system.parts[0].cache), (Role::System, Some(CacheMark::Hour)));
    let parts = &request.messages[1].parts;
    assert!(
        matches!(&parts[1].content, Content::Image(media) if matches!(&media.source, Source::Base64 { media_type, .. } if media_type == "image/png"))
    );
    assert!(
        matches!(&parts[2].content, Content::Document(it) if it.citations && it.name.as_deref() == Some("t"))
    );
    assert!(
        matches!(&parts[3].content, Content::Document(it) if matches!(&it.source, Source::Text(text) if text == "a\n\nb"))
    );
    let said = &request.messages[2].parts;
    assert!(
        matches!(&said[0].content, Content::Thinking(it) if it.signature.as_deref() == Some("s") && it.text == "hm")
    );
    assert!(matches!(&said[1].content, Content::Thinking(it) if it.encrypted.as_deref() == Some("r")));
    assert!(matches!(&said[2].content, Content::Opaque { dialect: Dialect::Messages, .. }));
    assert!(
        matches!(&said[3].content, Content::ToolCall(it) if it.id == "c1" && it.arguments == r#"{"a":1}"#)
    );
    assert_eq!(said[3].signature.as_deref(), Some("QUJD"));
    let Content::ToolResult(result) = &request.messages[3].parts[0].content else { panic!() };
    assert_eq!((&*result.call_id, result.name.as_deref(), result.is_error), ("c1", Some("f"), true));

    // Written for Claude again, nothing is gone.
    let (again, dropped) = body(&request, "claude-sonnet-4-5");
    // Google's signature is not for Claude, and no thought fits into 100 tokens.
    assert_eq!(dropped, [Param::Thinking, Param::Reasoning]);
    let sent: Value = serde_json::from_str(&text).unwrap();
    for member in
        ["system", "stop_sequences", "metadata", "tools", "tool_choice", "container", "temperature", "stream"]
    {
        assert_eq!(again[member], sent[member], "{member}");
    }
    assert_eq!(again["messages"][1]["content"][0], sent["messages"][1]["content"][0]);
    assert_eq!(again["messages"][1]["content"][1], sent["messages"][1]["content"][1]);
    assert_eq!(again["messages"][1]["content"][2], sent["messages"][1]["content"][2]);
    assert_eq!(
        again["messages"][2]["content"][0],
        json!({"type": "tool_result", "tool_use_id": "c1", "is_error": true, "content": "bad"})
    );
}

/// Issue part "Bad input": each is refused, and the path says where.
#[test]
fn what_is_wrong_is_refused_by_its_path() {
    let user = |content: Value| json!({"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]});
    let with = |name: &str, value: Value| {
        let mut body = user(json!("hi"));
        body[name] = value;
        body
    };
    let source = |source: Value| user(json!([{"type": "image", "source": source}]));
    let tool = json!({"name": "f", "input_schema": {}});
    for (body, path) in [
        (json!([]), ""),
        (json!({"max_tokens": 1, "messages": []}), "model"),
        (json!({"model": "m", "messages": [{"role": "user", "content": "a"}]}), "max_tokens"),
        (json!({"model": "m", "max_tokens": 1}), "messages"),
        (json!({"model": "m", "max_tokens": 1, "messages": []}), "messages"),
        (with("max_tokens", json!("1")), "max_tokens"),
        (with("max_tokens", json!(-1)), "max_tokens"),
        (with("temperature", json!("hot")), "temperature"),
        (with("messages", json!([{"role": "tool", "content": "a"}])), "messages[0].role"),
        (with("messages", json!([{"role": "user"}])), "messages[0]"),
        (with("messages", json!([{"role": "user", "content": 5}])), "messages[0].content"),
        (
            with("system", json!([{"type": "image", "source": {"type": "url", "url": "https://a/b"}}])),
            "system[0].type",
        ),
        (user(json!([{"type": "film"}])), "messages[0].content[0].type"),
        (user(json!([{"text": "a"}])), "messages[0].content[0]"),
        (user(json!([{"type": "text", "text": 5}])), "messages[0].content[0].text"),
        (user(json!([{"type": "text"}])), "messages[0].content[0].text"),
        (user(json!([{"type": "thinking", "thinking": "", "signature": ""}])), "messages[0].content[0].type"),
        (
            user(json!([{"type": "tool_result", "tool_use_id": "x", "content": "a"}])),
            "messages[0].content[0].tool_use_id",
        ),
        (user(json!([{"type": "tool_result", "content": "a"}])), "messages[0].content[0].tool_use_id"),
        (
            source(json!({"type": "base64", "media_type": "image/png", "data": "a b="})),
            "messages[0].content[0].source.data",
        ),
        (
            source(json!({"type": "base64", "media_type": "image/png", "data": "QUJ"})),
            "messages[0].content[0].source.data",
        ),
        (source(json!({"type": "base64", "data": "QUJD"})), "messages[0].content[0].source.media_type"),
        (source(json!({"type": "disk"})), "messages[0].content[0].source.type"),
        (source(json!("https://a/b")), "messages[0].content[0].source"),
        (user(json!([{"type": "image"}])), "messages[0].content[0].source"),
        (with("tools", json!([tool, tool])), "tools[1].name"),
        (with("tools", json!([{"input_schema": {}}])), "tools[0].name"),
        (with("tools", json!([{"name": "f", "input_schema": []}])), "tools[0].input_schema"),
        (with("tools", json!([{"name": "f"}])), "tools[0].input_schema"),
        (with("tool_choice", json!({"type": "some"})), "tool_choice.type"),
        (with("tool_choice", json!({"type": "tool"})), "tool_choice.name"),
        (with("tool_choice", json!({"type": "tool", "name": "f"})), "tool_choice.name"),
        (with("thinking", json!({"type": "enabled"})), "thinking.budget_tokens"),
        (with("thinking", json!({"type": "much"})), "thinking.type"),
        (with("output_config", json!({"effort": "huge"})), "output_config.effort"),
        (with("output_config", json!({"format": {"type": "yaml"}})), "output_config.format"),
        (with("metadata", json!({"user_id": 5})), "metadata.user_id"),
    ] {
        let error = decode(&body).expect_err(&body.to_string());
        assert_eq!(error.path, path, "{body}: {error}");
        assert!(!error.unsupported && error.message.ends_with('.'), "{error}");
    }
    assert_eq!(super::decode(b"{\"model\":\"\xff\"}").unwrap_err().path, "");
}

#[test]
fn only_the_last_word_may_be_a_call_without_result() {
    let calls = json!({"model": "m", "max_tokens": 1, "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": []}]}
    ]});
    assert_eq!(decode(&calls).unwrap_err().path, "messages[1].content[0].input");
}

/// E.5: system on its own, turns that alternate, parallel results in one turn and at its head.
#[test]
fn a_chat_becomes_turns() {
    let mut request = asking();
    request.messages = vec![
        message(0, Role::System, vec![Part::text("one")]),
        message(1, Role::User, vec![Part::text("hi")]),
        message(2, Role::Assistant, vec![call("a:1", r#" {"x": 1} "#), call("b", "")]),
        message(3, Role::User, vec![result("a:1", "A")]),
        message(4, Role::User, vec![Part::text("and?"), Part::text("  ")]),
        message(5, Role::User, vec![result("b", "")]),
        message(6, Role::Developer, vec![Part::text("two")]),
        message(7, Role::Assistant, vec![Part::text("so: ")]),
    ];
    request.tools = vec![function("f", ANY, None)];
    let (body, dropped) = body(&request, "claude-sonnet-4-5");
    assert_eq!(dropped, []);
    assert_eq!(body["max_tokens"], 4096);
    assert_eq!(body["system"], json!([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]));
    let id = body["messages"][1]["content"][0]["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("a_1_") && id.len() == 20, "{id}");
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": id, "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}}
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": id, "content": "A"},
                {"type": "tool_result", "tool_use_id": "b"},
                {"type": "text", "text": "and?"}
            ]},
            {"role": "assistant", "content": "so:"}
        ])
    );
}

#[test]
fn instructions_alone_are_a_question() {
    let mut request = asking();
    request.messages = vec![message(0, Role::System, vec![Part::text("say hi")])];
    let (written, _) = body(&request, "claude");
    assert_eq!(
        (written.get("system"), &written["messages"]),
        (None, &json!([{"role": "user", "content": "say hi"}]))
    );
    request.messages.clear();
    assert!(encode(&request, &to("claude")).unwrap_err().unsupported);
}

/// Failure 25: calls of the past need a tool to be of, and no choice without tools.
#[test]
fn functions_of_the_past_are_named_and_not_offered() {
    let mut request = asking();
    request.tool_choice = Some(ToolChoice::Auto);
    request.parallel_tool_calls = Some(false);
    let (plain, _) = body(&request, "claude");
    assert_eq!((plain.get("tools"), plain.get("tool_choice")), (None, None));
    request.messages.push(message(1, Role::Assistant, vec![call("a", "nonsense")]));
    request.messages.push(message(2, Role::User, vec![result("a", "A")]));
    let (written, _) = body(&request, "claude");
    assert_eq!(
        written["tools"],
        json!([{"name": "f", "input_schema": {"type": "object", "properties": {}}}])
    );
    assert_eq!(written["tool_choice"], json!({"type": "none"}));
    assert_eq!(written["messages"][1]["content"][0]["input"], json!({"arguments": "nonsense"}));
}

#[test]
fn calls_without_id_meet_their_results() {
    let mut request = asking();
    request.messages.push(message(1, Role::Assistant, vec![call("", "{}"), call("", "{}")]));
    request.messages.push(message(2, Role::User, vec![result("", "A"), result("", "B")]));
    let (written, _) = body(&request, "claude");
    for at in [0, 1] {
        let id = &written["messages"][1]["content"][at]["id"];
        assert_eq!(id, &written["messages"][2]["content"][at]["tool_use_id"]);
        assert_eq!(id, &json!(format!("call_{at}")));
    }
}

#[test]
fn every_tool_choice_has_its_form() {
    let mut request = asking();
    request.tools = vec![function("f", ANY, None), function("g", r#"{"properties":{"a":{}}}"#, Some(true))];
    for (choice, parallel, form, names) in [
        (None, None, Value::Null, 2),
        (None, Some(false), json!({"type": "auto", "disable_parallel_tool_use": true}), 2),
        (Some(ToolChoice::Auto), None, json!({"type": "auto"}), 2),
        (Some(ToolChoice::None), Some(false), json!({"type": "none"}), 2),
        (Some(ToolChoice::Required), Some(true), json!({"type": "any"}), 2),
        (
            Some(ToolChoice::Function("g".into())),
            Some(false),
            json!({"type": "tool", "name": "g", "disable_parallel_tool_use": true}),
            2,
        ),
        (
            Some(ToolChoice::Allowed { names: vec!["g".into()], required: true }),
            None,
            json!({"type": "any"}),
            1,
        ),
    ] {
        (request.tool_choice, request.parallel_tool_calls) = (choice, parallel);
        let (written, dropped) = body(&request, "claude-sonnet-4-5");
        assert_eq!(written.get("tool_choice").cloned().unwrap_or_default(), form);
        let tools = written["tools"].as_array().unwrap();
        assert_eq!(tools.len(), names);
        assert_eq!(tools.last().unwrap()["input_schema"], json!({"type": "object", "properties": {"a": {}}}));
        assert_eq!(dropped, [Param::Strict]);
    }
    request.tool_choice = Some(ToolChoice::Function("h".into()));
    assert_eq!(encode(&request, &to("claude")).unwrap_err().path, "tool_choice");
}

#[test]
fn strict_functions_stay_strict_where_claude_can_be_held_to_them() {
    let mut request = asking();
    let closed = r#"{"type":"object","properties":{},"additionalProperties":false}"#;
    request.tools = vec![function("f", closed, Some(true))];
    let (written, dropped) = body(&request, "claude-sonnet-4-5");
    assert_eq!((&written["tools"][0]["strict"], &dropped[..]), (&json!(true), &[][..]));
    let (written, dropped) = body(&request, "claude-sonnet-4-0");
    assert_eq!((written["tools"][0].get("strict"), &dropped[..]), (None, &[Param::Strict][..]));
}

#[test]
fn answers_in_json_are_native_or_a_function() {
    let schema = |json: &'static str| Format::Schema {
        name: Some("n".into()),
        description: None,
        schema: std::borrow::Cow::Borrowed(serde_json::from_str(json).unwrap()),
        strict: None,
    };
    let closed = r#"{"type":"object","properties":{"a":{"type":"string"}},"additionalProperties":false}"#;
    let mut request = asking();
    request.format = Some(schema(closed));
    let (written, encoded) = encode(&request, &to("claude-sonnet-4-5")).unwrap();
    assert!(!encoded.forced_tool);
    assert_eq!(written["output_config"]["format"]["schema"], serde_json::from_str::<Value>(closed).unwrap());

    for (model, format) in [
        ("claude-sonnet-4-0", schema(closed)),
        ("claude-sonnet-4-5", schema(ANY)),
        ("claude-sonnet-4-5", Format::Json),
    ] {
        request.format = Some(format);
        let (written, encoded) = encode(&request, &to(model)).unwrap();
        assert!(encoded.forced_tool && written.get("output_config").is_none());
        assert_eq!(written["tools"][0]["name"], "json_response");
        assert_eq!(
            written["tool_choice"],
            json!({"type": "tool", "name": "json_response", "disable_parallel_tool_use": true})
        );
    }
    // Functions of the client's own may be called as well.
    request.tools = vec![function("f", ANY, None)];
    let (written, encoded) = encode(&request, &to("claude-sonnet-4-0")).unwrap();
    assert!(encoded.forced_tool);
    assert_eq!(
        (written["tools"].as_array().unwrap().len(), &written["tool_choice"]),
        (2, &json!({"type": "any"}))
    );
    // Who thinks can't be forced.
    request.reasoning = Some(Reasoning { budget: Some(1024), ..Reasoning::default() });
    let (written, _) = encode(&request, &to("claude-sonnet-4-0")).unwrap();
    assert_eq!(written["tool_choice"], json!({"type": "auto"}));
    assert!(written["system"].as_str().unwrap().contains("json_response"));
    // A call is asked for: its parameters are the form.
    request.tool_choice = Some(ToolChoice::Required);
    let (written, encoded) = encode(&request, &to("claude-sonnet-4-0")).unwrap();
    assert!(!encoded.forced_tool && written["tools"].as_array().unwrap().len() == 1);
    request.tool_choice = None;
    request.tools = vec![function("json_response", ANY, None)];
    assert_eq!(encode(&request, &to("claude")).unwrap_err().path, "tools[0].function.name");
}

#[test]
fn vertex_has_the_version_in_the_body_and_the_model_outside() {
    let destination =
        Destination { hosted: true, most_output: 64_000, cap: Some(50), ..to("claude-opus-4-5@20251101") };
    let mut request = asking();
    request.stream = true;
    let (written, _) = encode(&request, &destination).unwrap();
    let expected = json!({"anthropic_version": "vertex-2023-10-16", "max_tokens": 50, "stream": true,
        "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(written, expected);
    let counted = super::super::count_tokens::encode(&request, &destination).unwrap();
    let counted: Value = serde_json::from_slice(&counted.body).unwrap();
    assert_eq!((&counted["model"], counted.get("max_tokens")), (&json!("claude-opus-4-5@20251101"), None));
}

#[test]
fn tokens_can_be_counted_without_a_limit() {
    use super::super::count_tokens;
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    assert!(super::decode(body).is_err());
    let request = count_tokens::decode(body).unwrap();
    let encoded = count_tokens::encode(&request, &to("claude")).unwrap();
    let expected = json!({"model": "claude", "messages": [{"role": "user", "content": "hi"}]});
    assert_eq!(serde_json::from_slice::<Value>(&encoded.body).unwrap(), expected);
}

#[test]
fn what_would_change_the_meaning_is_refused() {
    let image = |media_type: &'static str| {
        Part::new(Content::Image(crate::ir::Media {
            source: Source::Base64 { media_type: media_type.into(), data: "QUJD".into() },
            detail: None,
        }))
    };
    let media = |source| crate::ir::Media { source, detail: None };
    for (part, path) in [
        (image("image/tiff"), "messages[0].content[0].image_url"),
        (Part::new(Content::Image(media(Source::File("file-1".into())))), "messages[0].content[0].image_url"),
        (Part::new(Content::Audio(media(Source::Url("https://a/b".into())))), "messages[0].content[0]"),
        (
            Part::new(Content::Opaque { dialect: Dialect::Chat, value: serde_json::from_str("{}").unwrap() }),
            "messages[0].content[0]",
        ),
    ] {
        let mut request = asking();
        request.messages[0].parts = vec![part];
        let error = encode(&request, &to("claude")).unwrap_err();
        assert_eq!((error.path.as_str(), error.unsupported), (path, true));
    }
    let mut request = asking();
    request.choices = 2;
    assert_eq!(encode(&request, &to("claude")).unwrap_err().path, "n");
    let mut request = asking();
    request.previous_response_id = Some("resp_1".into());
    let error = encode(&request, &to("claude")).unwrap_err();
    assert_eq!((error.path.as_str(), error.unsupported), ("previous_response_id", false));
    let mut request = asking();
    request.modalities = vec!["text".into(), "audio".into()];
    assert_eq!(encode(&request, &to("claude")).unwrap_err().path, "modalities");
}

#[test]
fn a_text_file_is_shown_as_text() {
    let mut request = asking();
    request.messages[0].parts = vec![Part {
        cache: Some(CacheMark::Default),
        ..Part::new(Content::Document(crate::ir::Document {
            source: Source::Base64 { media_type: "text/csv".into(), data: "YSxi".into() },
            name: Some("a.csv".into()),
            context: None,
            citations: false,
        }))
    }];
    let (written, _) = body(&request, "claude");
    let expected = json!([{"type": "document", "title": "a.csv", "cache_control": {"type": "ephemeral"},
        "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}}]);
    assert_eq!(written["messages"][0]["content"], expected);
}
