//! Requests: what can be seen only here; whole translations are golden cases.

use super::*;
use crate::{
    Dialect,
    codec::{CodecError, Destination, Inbound},
    ir::{Content, Effort, Param, Request, Role, ToolChoice, ToolKind},
};

fn read(body: &str) -> Result<Request<'_>, CodecError> {
    decode(body.as_bytes(), Inbound { model: "gemini-x", stream: true })
}

fn to(id: &str, model: &'static str) -> Destination<'static> {
    Destination { provider: crate::provider(id).unwrap(), model, most_output: 0, cap: None, hosted: false }
}

fn write(request: &Request<'_>, model: &'static str) -> Result<(String, Vec<Param>), CodecError> {
    let encoded = encode(request, &to("google-ai-studio", model))?;
    Ok((String::from_utf8(encoded.body.to_vec()).unwrap(), encoded.dropped))
}

/// What a client of OpenAI's asks, as its reader would give it.
fn chat<'a>(role: Role, parts: Vec<crate::ir::Part<'a>>) -> crate::ir::Message<'a> {
    crate::ir::Message { role, parts, name: None, at: 0 }
}

/// A request of Google's client that needs nothing but what Google has comes out as it went in.
#[test]
fn googles_own_words_survive_the_hub() {
    let body = r#"{"contents":[{"role":"user","parts":[{"text":"hi"},{"inlineData":{"mimeType":"image/png","data":"QUJD"}}]},{"role":"model","parts":[{"text":"so","thought":true},{"functionCall":{"id":"c","name":"f","args":{"a":[1,{"b":null}]}},"thoughtSignature":"QUJD"}]},{"role":"user","parts":[{"functionResponse":{"id":"c","name":"f","response":{"x":1}}}]}],"systemInstruction":{"parts":[{"text":"be"}]},"tools":[{"functionDeclarations":[{"name":"f","description":"d","parametersJsonSchema":{"type":"object"}}]},{"googleSearch":{}}],"toolConfig":{"functionCallingConfig":{"mode":"ANY","allowedFunctionNames":["f"]}},"generationConfig":{"temperature":0.5,"topP":0.9,"topK":40,"candidateCount":2,"maxOutputTokens":100,"stopSequences":["x"],"presencePenalty":0.1,"frequencyPenalty":0.2,"seed":7,"responseLogprobs":true,"logprobs":3,"responseMimeType":"application/json","responseJsonSchema":{"type":"object"},"responseModalities":["TEXT","IMAGE"],"thinkingConfig":{"includeThoughts":true,"thinkingBudget":64}},"serviceTier":"flex"}"#;
    let request = read(body).unwrap();
    assert!(request.stream && request.include_usage);
    let (written, dropped) = write(&request, "gemini-2.5-flash").unwrap();
    assert_eq!(written, body);
    assert_eq!(dropped, []);
}

#[test]
fn snake_case_and_capitals_are_understood() {
    let request = read(
        r#"{"system_instruction":"be","generation_config":{"max_output_tokens":5,"top_k":4.0,"response_schema":{"type":"OBJECT"}},
            "tool_config":{"function_calling_config":{"mode":"any"}},
            "contents":[{"parts":[{"inline_data":{"mime_type":"image/png","data":"-_8"}}]}]}"#,
    )
    .unwrap();
    assert_eq!((request.max_output, request.sampling.top_k), (Some(5), Some(4)));
    assert_eq!(request.tool_choice, Some(ToolChoice::Required));
    assert_eq!(request.messages[0].role, Role::System, "instructions come first");
    let Content::Image(image) = &request.messages[1].parts[0].content else { panic!() };
    let crate::ir::Source::Base64 { data, .. } = &image.source else { panic!() };
    assert_eq!(data, "+/8=");
}

/// R004-27, bad input: every error says where, in the words of Google's clients.
#[test]
fn what_is_wrong_is_named_by_its_place() {
    let call = r#"{"role":"model","parts":[{"functionCall":{"name":"f"}}]}"#;
    let answer = r#"{"parts":[{"functionResponse":{"name":"g","response":{}}}]}"#;
    for (body, path) in [
        ("[]".to_owned(), ""),
        ("{".to_owned(), ""),
        ("{}".to_owned(), "contents"),
        (r#"{"contents":[{"role":"bot","parts":[]}]}"#.to_owned(), "contents[0].role"),
        (r#"{"contents":[{"parts":[{"text":"a"},{"txt":"b"}]}]}"#.to_owned(), "contents[0].parts[1]"),
        (r#"{"contents":[{"parts":[{"text":7}]}]}"#.to_owned(), "contents[0].parts[0].text"),
        (
            r#"{"contents":[{"parts":[{"inlineData":{"mimeType":"image/png","data":"?"}}]}]}"#.to_owned(),
            "contents[0].parts[0].inlineData.data",
        ),
        (format!(r#"{{"contents":[{call},{answer}]}}"#), "contents[1].parts[0].functionResponse"),
        (
            r#"{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f","args":3}}]}]}"#.to_owned(),
            "contents[0].parts[0].functionCall.args",
        ),
        (r#"{"contents":[{"parts":[{"functionCall":{"name":"f"}}]}]}"#.to_owned(), "contents[0].parts[0]"),
        (r#"{"contents":[],"contents":[]}"#.to_owned(), "contents"),
        (r#"{"generation_config":{},"generationConfig":{}}"#.to_owned(), "generationConfig"),
        (r#"{"generationConfig":{"topP":"x"}}"#.to_owned(), "generationConfig.topP"),
        (
            r#"{"generationConfig":{"thinkingConfig":{"thinkingLevel":"HUGE"}}}"#.to_owned(),
            "generationConfig.thinkingConfig.thinkingLevel",
        ),
        (
            r#"{"toolConfig":{"functionCallingConfig":{"mode":"MAYBE"}}}"#.to_owned(),
            "toolConfig.functionCallingConfig.mode",
        ),
        (
            r#"{"tools":[{},{"functionDeclarations":[{"name":"a"},{"name":"a"}]}]}"#.to_owned(),
            "tools[1].functionDeclarations[1].name",
        ),
        (
            r#"{"systemInstruction":{"parts":[{"inlineData":{"mimeType":"a/b","data":""}}]}}"#.to_owned(),
            "systemInstruction.parts[0]",
        ),
    ] {
        let error = read(&body).unwrap_err();
        assert_eq!(error.path, path, "{body}");
        assert!(!error.unsupported && error.message.ends_with('.'), "{error:?}");
    }
    assert!(
        read(r#"{"cachedContent":"cachedContents/a","contents":[{"parts":[{"text":"a"}]}]}"#)
            .unwrap_err()
            .unsupported
    );
}

#[test]
fn responses_find_their_calls_by_order_where_there_are_no_ids() {
    let request = read(
        r#"{"contents":[{"role":"model","parts":[{"functionCall":{"name":"f"}},{"functionCall":{"name":"f"}},{"functionCall":{"id":"own","name":"g"}}]},
            {"parts":[{"functionResponse":{"name":"g","response":{"output":"1"}}},{"functionResponse":{"name":"f","response":{"error":"2"}}},{"functionResponse":{"name":"f","response":{"a":3}}}]}]}"#,
    )
    .unwrap();
    let results: Vec<_> = request.messages[1]
        .parts
        .iter()
        .map(|part| {
            let Content::ToolResult(result) = &part.content else { panic!() };
            let Content::Text { text, .. } = &result.content[0].content else { panic!() };
            (&*result.call_id, &**text, result.is_error)
        })
        .collect();
    assert_eq!(results, [("own", "1", false), ("call_0", "2", true), ("call_1", r#"{"a":3}"#, false)]);
}

#[test]
fn thoughts_and_effort_are_read() {
    let reasoning = |config: &str| {
        let body = format!(
            r#"{{"contents":[{{"parts":[{{"text":"a"}}]}}],"generationConfig":{{"thinkingConfig":{config}}}}}"#
        );
        read(&body).unwrap().reasoning.unwrap()
    };
    assert_eq!(reasoning(r#"{"thinkingLevel":"LOW"}"#).effort, Some(Effort::Low));
    assert_eq!(reasoning(r#"{"thinkingBudget":0}"#).budget, Some(0));
    let adaptive = reasoning(r#"{"thinkingBudget":-1,"includeThoughts":true}"#);
    assert!(adaptive.adaptive && adaptive.budget.is_none() && adaptive.visible == Some(true));
}

#[test]
fn instructions_are_hoisted_and_turns_of_one_role_become_one() {
    let mut request = Request::new(Dialect::Chat, "m".into());
    request.messages = vec![
        chat(Role::System, vec![crate::ir::Part::text("one")]),
        chat(Role::User, vec![crate::ir::Part::text("a")]),
        chat(Role::User, vec![crate::ir::Part::text("b")]),
        chat(Role::Developer, vec![crate::ir::Part::text("two")]),
    ];
    let (body, _) = write(&request, "gemini-2.5-flash").unwrap();
    assert_eq!(
        body,
        r#"{"contents":[{"role":"user","parts":[{"text":"a"},{"text":"b"}]}],"systemInstruction":{"parts":[{"text":"one"},{"text":"two"}]}}"#
    );
    request.messages.truncate(1);
    let (body, _) = write(&request, "gemini-2.5-flash").unwrap();
    assert_eq!(body, r#"{"contents":[{"role":"user","parts":[{"text":"one"}]}]}"#);
}

/// Failure 23: a history that another provider's model made is accepted by models that ask for signatures.
#[test]
fn the_first_call_of_a_turn_is_signed_one_way_or_the_other() {
    let body = r#"{"contents":[{"parts":[{"text":"a"}]},{"role":"model","parts":[{"functionCall":{"name":"f"}},{"functionCall":{"name":"g"}}]}]}"#;
    let request = read(body).unwrap();
    let (newer, _) = write(&request, "gemini-3-pro-preview").unwrap();
    assert_eq!(newer.matches("skip_thought_signature_validator").count(), 1, "{newer}");
    let (older, _) = write(&request, "gemini-2.5-pro").unwrap();
    assert!(!older.contains("thoughtSignature"));
    let signed = body.replace(r#"{"name":"f"}"#, r#"{"name":"f"},"thoughtSignature":"QUJD""#);
    let (signed, _) = write(&read(&signed).unwrap(), "gemini-3-pro-preview").unwrap();
    assert!(signed.contains(r#""thoughtSignature":"QUJD""#) && !signed.contains("skip_"), "{signed}");
}

#[test]
fn what_google_fetches_is_up_to_model_and_host() {
    let image = |url: &str| {
        let mut request = Request::new(Dialect::Chat, "m".into());
        let media = crate::ir::Media { source: crate::ir::Source::Url(url.to_owned().into()), detail: None };
        let part = crate::ir::Part { at: 2, ..crate::ir::Part::new(Content::Image(media)) };
        request.messages = vec![crate::ir::Message { at: 3, ..chat(Role::User, vec![part]) }];
        request
    };
    let (body, _) = write(&image("https://a.b/c.png?x"), "gemini-2.5-flash").unwrap();
    assert!(
        body.contains(r#"{"fileData":{"mimeType":"image/png","fileUri":"https://a.b/c.png?x"}}"#),
        "{body}"
    );
    let error = write(&image("https://a.b/c.png"), "gemini-2.0-flash").unwrap_err();
    assert_eq!((error.path.as_str(), error.unsupported), ("messages[3].content[2].image_url", true));
    assert!(write(&image("http://a.b/c.png"), "gemini-3-pro").is_err());
    let vertex = encode(&image("https://a.b/c"), &to("google-vertex", "gemini-2.0-flash")).unwrap();
    assert!(String::from_utf8_lossy(&vertex.body).contains("image/jpeg"), "Vertex insists on a type");
}

#[test]
fn nothing_is_dropped_silently() {
    let mut request = Request::new(Dialect::Chat, "m".into());
    request.messages = vec![chat(Role::User, vec![crate::ir::Part::text("a")])];
    request.sampling.min_p = Some(0.1);
    request.sampling.seed = Some(i64::MAX);
    request.user = Some("u".into());
    request.service_tier = Some("scale".into());
    request.parallel_tool_calls = Some(false);
    request.extras.push(("logit_bias".into(), crate::ir::Json::Owned(super::super::write::raw("{}".into()))));
    request.tools.push(crate::ir::Tool {
        name: "f".into(),
        description: None,
        kind: ToolKind::Function { parameters: None, strict: Some(true) },
        cache: Some(crate::ir::CacheMark::Default),
        at: 0,
    });
    let (_, dropped) = write(&request, "gemini-2.5-flash").unwrap();
    for param in [
        Param::MinP,
        Param::Seed,
        Param::User,
        Param::ServiceTier,
        Param::ParallelToolCalls,
        Param::Strict,
        Param::CacheControl,
        Param::Other("logit_bias".into()),
    ] {
        assert!(dropped.contains(&param), "{param:?} of {dropped:?}");
    }
    assert_eq!(dropped.len(), 8);
    request.stop = vec!["x".into(); 6];
    assert_eq!(write(&request, "gemini-2.5-flash").unwrap_err().path, "stop");
}

#[test]
fn a_cap_lowers_the_limit_whatever_was_asked() {
    let request =
        read(r#"{"contents":[{"parts":[{"text":"a"}]}],"generationConfig":{"maxOutputTokens":500}}"#)
            .unwrap();
    let capped = |cap| {
        let to = Destination { cap: Some(cap), ..to("google-ai-studio", "gemini-2.5-flash") };
        String::from_utf8(encode(&request, &to).unwrap().body.to_vec()).unwrap()
    };
    assert!(capped(64).contains(r#""maxOutputTokens":64"#));
    assert!(capped(9000).contains(r#""maxOutputTokens":500"#));
}
