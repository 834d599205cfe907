//! Thinking and sampling: what each generation of models takes of them.

use super::*;

/// Thoughts in the form of each generation, within the limit of the answer.
#[test]
fn effort_becomes_what_the_model_takes() {
    let effort = |effort| Reasoning { effort: Some(effort), ..Reasoning::default() };
    let budget = |budget| Reasoning { budget: Some(budget), ..Reasoning::default() };
    let on = |tokens: u64| json!({"type": "enabled", "budget_tokens": tokens});
    let adaptive = json!({"type": "adaptive", "display": "summarized"});
    for (model, reasoning, max, thinking, config) in [
        ("claude-sonnet-4-5", effort(Effort::Medium), None, on(8192), Value::Null),
        ("claude-sonnet-4-5", effort(Effort::High), Some(10_000), on(8000), Value::Null),
        ("claude-sonnet-4-5", effort(Effort::Minimal), Some(1100), on(1024), Value::Null),
        ("claude-sonnet-4-5", effort(Effort::None), None, Value::Null, Value::Null),
        ("claude-sonnet-4-5", budget(500), None, on(1024), Value::Null),
        ("claude-opus-4-6", effort(Effort::High), None, adaptive.clone(), json!({"effort": "high"})),
        ("claude-opus-4-6", budget(2048), None, on(2048), Value::Null),
        ("claude-opus-4-7", budget(2048), None, adaptive.clone(), json!({"effort": "low"})),
        ("claude-opus-5", effort(Effort::None), None, json!({"type": "disabled"}), Value::Null),
        ("claude-opus-5", effort(Effort::Max), None, adaptive.clone(), json!({"effort": "max"})),
    ] {
        let mut request = asking();
        (request.reasoning, request.max_output) = (Some(reasoning), max);
        let (written, dropped) = body(&request, model);
        assert_eq!(written.get("thinking").cloned().unwrap_or_default(), thinking, "{model} {reasoning:?}");
        assert_eq!(
            written.get("output_config").cloned().unwrap_or_default(),
            config,
            "{model} {reasoning:?}"
        );
        assert_eq!(dropped, [], "{model} {reasoning:?}");
        let tokens = written["thinking"]["budget_tokens"].as_u64().unwrap_or(0);
        assert!(tokens < written["max_tokens"].as_u64().unwrap());
    }
}

#[test]
fn thinking_that_is_impossible_is_reported() {
    let mut request = asking();
    request.reasoning = Some(Reasoning { effort: Some(Effort::High), ..Reasoning::default() });
    request.max_output = Some(1024);
    for model in ["claude-sonnet-4-5", "claude-3-5-haiku-latest"] {
        let (written, dropped) = body(&request, model);
        assert_eq!((written.get("thinking"), &dropped[..]), (None, &[Param::Reasoning][..]), "{model}");
    }
    request.max_output = None;
    request.tools = vec![function("f", ANY, None)];
    request.tool_choice = Some(ToolChoice::Required);
    let (written, dropped) = body(&request, "claude-sonnet-4-5");
    assert_eq!((written.get("thinking"), &dropped[..]), (None, &[Param::Reasoning][..]));
    let (written, dropped) = body(&request, "claude-opus-5");
    assert_eq!((&written["thinking"], &dropped[..]), (&json!({"type": "disabled"}), &[Param::Reasoning][..]));
    let (written, dropped) = body(&request, "claude-fable-5");
    assert_eq!(written["tool_choice"], json!({"type": "auto"}));
    assert_eq!(dropped, [Param::Reasoning, Param::ToolChoice]);

    // A round of calls that was begun without thoughts.
    request.tool_choice = None;
    request.messages.push(message(1, Role::Assistant, vec![call("a", "{}")]));
    request.messages.push(message(2, Role::User, vec![result("a", "A")]));
    let (written, dropped) = body(&request, "claude-sonnet-4-5");
    assert_eq!((written.get("thinking"), &dropped[..]), (None, &[Param::Reasoning][..]));
    let thought = Thinking { text: "hm".into(), signature: Some("s".into()), ..Thinking::default() };
    request.messages[1].parts.insert(0, Part::new(Content::Thinking(thought)));
    let (written, dropped) = body(&request, "claude-sonnet-4-5");
    assert_eq!((&written["thinking"]["type"], &dropped[..]), (&json!("enabled"), &[][..]));
}

/// R004-27: only its own thoughts go to Claude.
#[test]
fn thoughts_of_others_are_left_out_and_reported() {
    let thought = |text: &'static str, signature: Option<&'static str>, encrypted: Option<&'static str>| {
        Part::new(Content::Thinking(Thinking {
            text: text.into(),
            signature: signature.map(Into::into),
            encrypted: encrypted.map(Into::into),
            id: None,
        }))
    };
    for (part, written) in [
        (thought("a", Some("s"), None), json!({"type": "thinking", "thinking": "a", "signature": "s"})),
        (thought("", None, Some("r")), json!({"type": "redacted_thinking", "data": "r"})),
        (thought("a", None, None), Value::Null),
        (thought("a", None, Some("gAAAAB")), Value::Null),
    ] {
        let mut request = asking();
        request.messages.push(message(1, Role::Assistant, vec![part, Part::text("yes")]));
        request.messages.push(message(2, Role::User, vec![Part::text("go")]));
        let (body, dropped) = body(&request, "claude-sonnet-4-5");
        let kept = !written.is_null();
        assert_eq!(dropped.contains(&Param::Thinking), !kept);
        let first = if kept { &body["messages"][1]["content"][0] } else { &Value::Null };
        assert_eq!(first, &written);
    }
}

/// R000-4 and failure 25: what has no effect is not reported, what has is, and refused values are not sent.
#[test]
fn sampling_is_what_the_model_takes() {
    let mut request = asking();
    (request.sampling.temperature, request.sampling.top_p) = (Some(1.0), Some(1.0));
    for model in ["claude-3-5-haiku-latest", "claude-sonnet-4-5", "claude-opus-5"] {
        let (written, dropped) = body(&request, model);
        assert_eq!((written.get("temperature"), written.get("top_p"), &dropped[..]), (None, None, &[][..]));
    }
    (request.sampling.temperature, request.sampling.top_p) = (Some(0.5), Some(0.5));
    let (written, dropped) = body(&request, "claude-3-5-haiku-latest");
    assert_eq!(
        (&written["temperature"], &written["top_p"], &dropped[..]),
        (&json!(0.5), &json!(0.5), &[][..])
    );
    let (written, dropped) = body(&request, "claude-sonnet-4-5");
    assert_eq!(
        (&written["temperature"], written.get("top_p"), &dropped[..]),
        (&json!(0.5), None, &[Param::TopP][..])
    );
    let (written, dropped) = body(&request, "claude-opus-4-7");
    assert_eq!((written.get("temperature"), &dropped[..]), (None, &[Param::Temperature, Param::TopP][..]));
    request.sampling.temperature = Some(1.5);
    let (written, dropped) = body(&request, "claude-3-5-haiku-latest");
    assert_eq!((written.get("temperature"), &dropped[..]), (None, &[Param::Temperature][..]));
    request.sampling.temperature = Some(0.2);
    request.reasoning = Some(Reasoning { budget: Some(1024), ..Reasoning::default() });
    let (_, dropped) = body(&request, "claude-3-7-sonnet-latest");
    assert_eq!(dropped, [Param::Temperature, Param::TopP]);
}
