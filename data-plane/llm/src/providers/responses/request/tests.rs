use serde_json::{Value, json};

use crate::{
    Dialect,
    codec::{self, CodecError, Destination, Encoded, Inbound},
    ir::{Content, Effort, Format, Param, Request, Role, Source, ToolChoice, ToolKind},
    provider,
};

fn decode(body: &str) -> Result<Request<'_>, CodecError> {
    codec::decode_request(Dialect::Responses, body.as_bytes(), Inbound::default())
}

fn to(model: &str) -> Destination<'_> {
    let provider = provider("openai").unwrap();
    Destination { provider, model, most_output: 0, cap: None, hosted: false }
}

fn encode(dialect: Dialect, body: &Value, model: &str) -> Result<(Value, Vec<Param>), CodecError> {
    let body = body.to_string();
    let request = codec::decode_request(dialect, body.as_bytes(), Inbound::default())?;
    let Encoded { body, dropped, .. } = codec::encode_request(&request, Dialect::Responses, &to(model))?;
    Ok((serde_json::from_slice(&body).unwrap(), dropped))
}

/// What is malformed is refused, and the place is named in the client's words.
#[test]
fn a_malformed_request_names_the_place() {
    for (body, path) in [
        ("[]", ""),
        ("{} x", ""),
        (r#"{"model":"m"}"#, "input"),
        (r#"{"input":5}"#, "input"),
        (r#"{"model":1,"input":""}"#, "model"),
        (r#"{"input":"","temperature":"1"}"#, "temperature"),
        (r#"{"input":"","max_output_tokens":-1}"#, "max_output_tokens"),
        (r#"{"input":"","stream":"yes"}"#, "stream"),
        (r#"{"input":"","metadata":[]}"#, "metadata"),
        (r#"{"input":"","include":"reasoning.encrypted_content"}"#, "include"),
        (r#"{"input":"","reasoning":{"effort":"huge"}}"#, "reasoning.effort"),
        (r#"{"input":"","text":{"format":{"type":"xml"}}}"#, "text.format.type"),
        (r#"{"input":"","text":{"format":{"type":"json_schema","name":"a"}}}"#, "text.format.schema"),
        (r#"{"input":"","text":{"format":{"type":"json_schema","schema":"a"}}}"#, "text.format.schema"),
        (r#"{"input":[5]}"#, "input[0]"),
        (r#"{"input":[{"role":"robot","content":""}]}"#, "input[0].role"),
        (r#"{"input":[{"type":"message","content":""}]}"#, "input[0].role"),
        (r#"{"input":[{}]}"#, "input[0].role"),
        (r#"{"input":[{"type":"song","role":"user"}]}"#, "input[0].type"),
        (r#"{"input":["x",{"role":"user"}]}"#, "input[0]"),
        (r#"{"input":[{"role":"user"}]}"#, "input[0].content"),
        (r#"{"input":[{"role":"user","content":7}]}"#, "input[0].content"),
        (r#"{"input":[{"role":"user","content":[{}]}]}"#, "input[0].content[0].type"),
        (r#"{"input":[{"role":"user","content":[{"type":"smell"}]}]}"#, "input[0].content[0].type"),
        (r#"{"input":[{"role":"user","content":[{"type":"input_text"}]}]}"#, "input[0].content[0].text"),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":1}]}]}"#,
            "input[0].content[0].text",
        ),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_image"}]}]}"#,
            "input[0].content[0].image_url",
        ),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"data:image/png;base64,%"}]}]}"#,
            "input[0].content[0].image_url",
        ),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_file","file_data":"%"}]}]}"#,
            "input[0].content[0].file_data",
        ),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_file","file_url":"file:///etc"}]}]}"#,
            "input[0].content[0].file_url",
        ),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"%","format":"wav"}}]}]}"#,
            "input[0].content[0].input_audio.data",
        ),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"QUI=","format":"ogg"}}]}]}"#,
            "input[0].content[0].input_audio.format",
        ),
        (r#"{"input":[{"type":"function_call","name":"f","arguments":""}]}"#, "input[0].call_id"),
        (r#"{"input":[{"type":"function_call","call_id":"c","arguments":""}]}"#, "input[0].name"),
        (r#"{"input":[{"type":"function_call","call_id":"c","name":"f"}]}"#, "input[0].arguments"),
        (r#"{"input":[{"type":"custom_tool_call","call_id":"c","name":"f"}]}"#, "input[0].input"),
        (r#"{"input":[{"type":"function_call_output","call_id":"c","output":"x"}]}"#, "input[0].call_id"),
        (r#"{"input":[{"type":"function_call_output","output":"x"}]}"#, "input[0].call_id"),
        (r#"{"input":[{"type":"reasoning","summary":[{}]}]}"#, "input[0].summary[0].text"),
        (r#"{"input":[{"type":"item_reference"}]}"#, "input[0].id"),
        (r#"{"input":"","tools":{}}"#, "tools"),
        (r#"{"input":"","tools":[{"name":"f"}]}"#, "tools[0].type"),
        (r#"{"input":"","tools":[{"type":"function"}]}"#, "tools[0].name"),
        (r#"{"input":"","tools":[{"type":"function","name":"f","parameters":"{}"}]}"#, "tools[0].parameters"),
        (
            r#"{"input":"","tools":[{"type":"function","name":"f"},{"type":"custom","name":"f"}]}"#,
            "tools[1].name",
        ),
        (
            r#"{"input":"","tools":[{"type":"custom","name":"f","format":{"type":"grammar"}}]}"#,
            "tools[0].format.syntax",
        ),
        (r#"{"input":"","tool_choice":"maybe"}"#, "tool_choice"),
        (r#"{"input":"","tool_choice":{"type":"function"}}"#, "tool_choice.name"),
        (r#"{"input":"","tool_choice":{"type":"allowed_tools","mode":"none"}}"#, "tool_choice.mode"),
    ] {
        let error = decode(body).unwrap_err();
        assert_eq!((error.path.as_str(), error.unsupported), (path, false), "{body}: {error}");
        assert!(error.message.ends_with('.') && error.message.contains(path), "{body}: {error}");
    }
    assert_eq!(decode("{\"input\":\"\\ud800\"}").unwrap_err().path, "input");
    let error = codec::decode_request(Dialect::Responses, b"{\"input\":\"\xff\"}", Inbound::default());
    assert!(error.is_err());
}

#[test]
fn parameters_are_read() {
    let request = decode(
        r#"{"model":"m","instructions":"Be kind.","input":"hi","temperature":0.5,"top_p":1,"top_logprobs":2,
        "include":["reasoning.encrypted_content","message.output_text.logprobs"],"max_output_tokens":9,
        "reasoning":{"effort":"high","summary":"auto"},"parallel_tool_calls":false,"tool_choice":"required",
        "text":{"format":{"type":"json_schema","name":"n","schema":{"a":1},"strict":true},"verbosity":"low"},
        "user":"u","service_tier":"flex","metadata":{"a":"b"},"prompt_cache_key":"k","store":false,"stream":true,
        "stream_options":{"include_obfuscation":false},"truncation":"disabled","background":false,"nemo_tags":["a"],
        "previous_response_id":null,"max_tool_calls":3}"#,
    )
    .unwrap();
    let roles: Vec<_> = request.messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User]);
    assert_eq!((request.sampling.temperature, request.sampling.top_p), (Some(0.5), Some(1.0)));
    assert_eq!(request.logprobs.unwrap().top, Some(2));
    assert_eq!((request.max_output, request.parallel_tool_calls), (Some(9), Some(false)));
    let reasoning = request.reasoning.unwrap();
    assert_eq!((reasoning.effort, reasoning.visible), (Some(Effort::High), Some(true)));
    assert_eq!(request.tool_choice, Some(ToolChoice::Required));
    assert!(
        matches!(&request.format, Some(Format::Schema { strict: Some(true), schema, .. }) if schema.get() == r#"{"a":1}"#)
    );
    assert_eq!((request.user.as_deref(), request.service_tier.as_deref()), (Some("u"), Some("flex")));
    assert_eq!((request.store, request.stream), (Some(false), true));
    assert_eq!(request.previous_response_id, None);
    let extras: Vec<_> = request.extras.iter().map(|(name, _)| name.as_ref()).collect();
    assert_eq!(extras, ["text.verbosity", "max_tool_calls"]);
}

#[test]
fn items_of_one_turn_become_one_message() {
    let request = decode(
        r#"{"input":[{"role":"user","content":"a"},
        {"type":"reasoning","id":"rs_nemo.d.1","summary":[{"type":"summary_text","text":"x"},{"type":"summary_text","text":"y"}],
         "encrypted_content":"nemo.d.gAAAA"},
        {"type":"message","role":"assistant","content":[{"type":"output_text","text":"b","annotations":[]}]},
        {"type":"function_call","call_id":"c1__ts_QUJD","name":"f","arguments":"{}"},
        {"type":"custom_tool_call","call_id":"c2","name":"g","input":"raw"},
        {"type":"function_call_output","call_id":"c1__ts_QUJD","output":"1"},
        {"type":"custom_tool_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"}]}]}"#,
    )
    .unwrap();
    let roles: Vec<_> = request.messages.iter().map(|message| (message.role, message.at)).collect();
    assert_eq!(roles, [(Role::User, 0), (Role::Assistant, 1), (Role::User, 5), (Role::User, 6)]);
    let [thought, text, call, custom] = &request.messages[1].parts[..] else { panic!("{request:?}") };
    let Content::Thinking(thinking) = &thought.content else { panic!("{thought:?}") };
    assert_eq!(thinking.text, "x\n\ny");
    assert_eq!((thinking.id.as_deref(), thinking.encrypted.as_deref()), (Some("rs_1"), Some("gAAAA")));
    assert!(matches!(&text.content, Content::Text { text, .. } if text == "b"));
    assert!(matches!(&call.content, Content::ToolCall(call) if call.id == "c1" && !call.custom));
    assert_eq!(call.signature.as_deref(), Some("QUJD"));
    assert!(matches!(&custom.content, Content::ToolCall(call) if call.custom && call.arguments == "raw"));
    let results: Vec<_> = request.messages[2..]
        .iter()
        .map(|message| match &message.parts[0].content {
            Content::ToolResult(result) => (result.call_id.as_ref(), result.name.as_deref()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(results, [("c1", Some("f")), ("c2", Some("g"))]);
}

#[test]
fn media_are_read_in_all_their_forms() {
    let request = decode(
        r#"{"input":[{"role":"user","content":[
        {"type":"input_image","image_url":"https://a.example/x.png","detail":"low"},
        {"type":"input_image","file_id":"file_1"},
        {"type":"input_file","filename":"a.txt","file_data":"QUI="},
        {"type":"input_file","file_data":"data:application/pdf;base64,QUI="},
        {"type":"input_file","file_url":"https://a.example/x.pdf"},
        {"type":"input_audio","input_audio":{"data":"QUI=","format":"mp3"}}]}]}"#,
    )
    .unwrap();
    let sources: Vec<_> = request.messages[0]
        .parts
        .iter()
        .map(|part| match &part.content {
            Content::Image(media) | Content::Audio(media) => &media.source,
            Content::Document(document) => &document.source,
            other => panic!("{other:?}"),
        })
        .map(|source| match source {
            Source::Url(url) => url.to_string(),
            Source::File(id) => id.to_string(),
            Source::Base64 { media_type, data } => format!("{media_type} {data}"),
            Source::Text(_) => panic!(),
        })
        .collect();
    let expected = [
        "https://a.example/x.png",
        "file_1",
        "text/plain QUI=",
        "application/pdf QUI=",
        "https://a.example/x.pdf",
        "audio/mpeg QUI=",
    ];
    assert_eq!(sources, expected);
    assert_eq!(request.messages[0].parts[4].at, 4);
}

#[test]
fn tools_and_choices_are_read() {
    let request = decode(
        r#"{"input":"","tools":[{"type":"function","name":"f","parameters":{"type":"object"},"strict":true},
        {"type":"custom","name":"g","format":{"type":"grammar","syntax":"lark","definition":"start: A"}},
        {"type":"web_search"}],
        "tool_choice":{"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"f"}]}}"#,
    )
    .unwrap();
    let names = vec!["f".into()];
    assert_eq!(request.tool_choice, Some(ToolChoice::Allowed { names, required: true }));
    let native: Vec<_> = request.tools[1..]
        .iter()
        .map(|tool| match &tool.kind {
            ToolKind::Native { dialect, value } => (*dialect, serde_json::from_str(value.get()).unwrap()),
            ToolKind::Function { .. } => panic!("{tool:?}"),
        })
        .collect();
    let grammar = json!({"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: A"}});
    let custom: Value = json!({"type": "custom", "custom": {"name": "g", "format": grammar}});
    assert_eq!(native, [(Dialect::Chat, custom), (Dialect::Responses, json!({"type": "web_search"}))]);
    let request = decode(r#"{"input":"","tool_choice":{"type":"custom","name":"g"}}"#).unwrap();
    assert_eq!(request.tool_choice, Some(ToolChoice::Function("g".into())));
    let request = decode(r#"{"input":"","tool_choice":{"type":"web_search"}}"#).unwrap();
    assert_eq!((request.tool_choice, request.extras[0].0.as_ref()), (None, "tool_choice"));
}

/// Failure 27: what only the provider that keeps it can answer is refused by others, and the client learns what to do.
#[test]
fn a_target_without_state_refuses_what_refers_to_it() {
    for (body, path) in [
        (r#"{"previous_response_id":"resp_nemo.d.1"}"#, "previous_response_id"),
        (r#"{"input":"","conversation":"conv_1"}"#, "conversation"),
        (r#"{"input":"","prompt":{"id":"pmpt_1"}}"#, "prompt"),
        (r#"{"input":"","background":true}"#, "background"),
        (r#"{"input":[{"role":"user","content":""},{"type":"item_reference","id":"msg_1"}]}"#, "input[1]"),
        (r#"{"input":[{"id":"msg_1"}]}"#, "input[0]"),
    ] {
        let request = decode(body).unwrap();
        for dialect in
            [Dialect::Chat, Dialect::Messages, Dialect::GenerateContent, Dialect::Converse, Dialect::Cohere]
        {
            let error = codec::encode_request(&request, dialect, &to("m")).unwrap_err();
            assert_eq!((error.path.as_str(), error.unsupported), (path, false), "{body} {dialect:?}");
            assert!(error.message.contains("provider of this model"), "{error}");
        }
    }
    // The output of a call that the provider keeps is fine where it is kept.
    let kept = r#"{"previous_response_id":"resp_1","input":[{"type":"function_call_output","call_id":"c","output":""}]}"#;
    assert_eq!(decode(kept).unwrap().previous_response_id.as_deref(), Some("resp_1"));
}

#[test]
fn a_conversation_is_written_as_items() {
    let body = json!({
        "model": "m", "max_tokens": 9, "stop": "x", "seed": 1, "temperature": 0.5,
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUI=", "detail": "low"}}]},
            {"role": "assistant", "content": "A", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "R"}]
    });
    let (body, dropped) = encode(Dialect::Chat, &body, "gpt-4.1").unwrap();
    assert_eq!(
        body,
        json!({
            "model": "gpt-4.1", "store": false, "max_output_tokens": 9, "temperature": 0.5,
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": false}],
            "tool_choice": {"type": "function", "name": "f"},
            "input": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:image/png;base64,QUI=", "detail": "low"}]},
                {"role": "assistant", "content": "A"},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
                {"type": "function_call_output", "call_id": "c1", "output": "R"}]
        })
    );
    assert_eq!(dropped, [Param::Seed, Param::Stop]);
}

#[test]
fn what_a_model_refuses_is_left_out_and_told() {
    let body = |effort: Value| {
        let mut body = json!({"input": "x", "temperature": 1});
        body["reasoning"] = json!({"effort": effort});
        body
    };
    for (model, effort, kept, dropped) in [
        ("gpt-5", json!("low"), json!("low"), vec![Param::Temperature]),
        ("o3-mini", json!("max"), json!("high"), vec![Param::Temperature]),
        ("gpt-5.2", json!("none"), json!("none"), vec![]),
        ("gpt-5.2", json!("high"), json!("high"), vec![Param::Temperature]),
        ("openai/gpt-4o", json!("high"), Value::Null, vec![Param::Reasoning]),
        ("own-model", json!("high"), json!("high"), vec![]),
    ] {
        let (body, told) = encode(Dialect::Responses, &body(effort), model).unwrap();
        assert_eq!((&body["reasoning"]["effort"], &told), (&kept, &dropped), "{model}");
        let thinks = body["include"] == json!(["reasoning.encrypted_content"]);
        assert_eq!(thinks, !model.contains("gpt-4"), "{model}");
    }
}

#[test]
fn what_would_change_the_meaning_is_refused() {
    let audio = json!({"input": [{"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": "QUI=", "format": "wav"}}]}]});
    let error = encode(Dialect::Responses, &audio, "gpt-4.1").unwrap_err();
    assert_eq!((error.path.as_str(), error.unsupported), ("input[0].content[0]", true));
    let two = json!({"messages": [{"role": "user", "content": ""}], "n": 2});
    let error = encode(Dialect::Chat, &two, "gpt-4.1").unwrap_err();
    assert_eq!((error.path.as_str(), error.unsupported), ("n", true));
}

#[test]
fn own_thoughts_come_back_and_those_of_others_are_told() {
    let body = json!({"input": [
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "why"}], "encrypted_content": "gAAAA"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "signature.abc"},
        {"role": "user", "content": "go on"}]});
    let (body, dropped) = encode(Dialect::Responses, &body, "gpt-5").unwrap();
    let own = json!({"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "why"}],
        "encrypted_content": "gAAAA"});
    assert_eq!(body["input"], json!([own, {"role": "user", "content": "go on"}]));
    assert_eq!(dropped, [Param::Thinking]);
}

#[test]
fn a_call_and_its_output_keep_one_id_however_long() {
    let id = "c".repeat(200);
    let body = json!({"input": [
        {"type": "custom_tool_call", "call_id": id, "name": "f", "input": "x"},
        {"type": "custom_tool_call_output", "call_id": id, "output": ""}]});
    let (body, _) = encode(Dialect::Responses, &body, "gpt-5").unwrap();
    let call_id = body["input"][0]["call_id"].as_str().unwrap();
    assert!(call_id.len() <= 64);
    assert_eq!(body["input"][1]["call_id"], call_id);
    assert_eq!(body["input"][1]["type"], "custom_tool_call_output");
}

/// Each generation of OpenAI's models knows other words; of models of others nothing is known.
#[test]
fn effort_is_asked_for_in_a_word_that_the_model_knows() {
    for (model, asked, said) in [
        ("gpt-5", "none", "minimal"),
        ("gpt-5", "xhigh", "high"),
        ("gpt-5.1", "minimal", "low"),
        ("gpt-5.2", "xhigh", "xhigh"),
        ("o3-mini", "none", "low"),
        ("gpt-6-luna", "minimal", "low"),
        ("target-model", "xhigh", "xhigh"),
        ("target-model", "minimal", "minimal"),
    ] {
        let body = json!({
            "model": "m", "messages": [{"role": "user", "content": "Hi"}], "reasoning_effort": asked
        });
        let (sent, _) = encode(Dialect::Chat, &body, model).unwrap();
        assert_eq!(sent["reasoning"]["effort"], said, "{model} {asked}");
    }
}

#[test]
fn a_user_whose_name_is_too_long_for_openai_is_not_named() {
    for (length, named) in [(64, true), (65, false)] {
        let user = "u".repeat(length);
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "user": user});
        let (sent, dropped) = encode(Dialect::Chat, &body, "gpt-5").unwrap();
        assert_eq!((sent.get("user").is_some(), dropped.contains(&Param::User)), (named, !named), "{length}");
    }
}
