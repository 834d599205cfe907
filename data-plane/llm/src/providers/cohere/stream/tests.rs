use super::*;

fn told(events: &[&str]) -> Result<Vec<String>, CodecError> {
    let (mut decoder, mut lines) = (Decoder::default(), Vec::new());
    for data in events {
        let mut out = ir::Events::new();
        decoder.event(data.as_bytes(), &mut out)?;
        lines.extend(out.iter().map(short));
    }
    let mut out = ir::Events::new();
    decoder.finish(&mut out);
    lines.extend(out.iter().map(short));
    Ok(lines)
}

fn short(event: &Event<'_>) -> String {
    match event {
        Event::Start { id, .. } => format!("start {id}"),
        Event::BlockStart { block, kind, .. } => match kind {
            Block::Text => format!("{block} text"),
            Block::Thinking { .. } => format!("{block} thinking"),
            Block::ToolCall { id, name, .. } => format!("{block} call {id} {name}"),
            other => format!("{block} {other:?}"),
        },
        Event::Delta { block, delta, .. } => match delta {
            Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) => format!("{block} + {text}"),
            Delta::Citation(citation) => format!("{block} cites {:?}", citation.span),
            other => format!("{block} {other:?}"),
        },
        Event::BlockStop { block, .. } => format!("{block} stop"),
        Event::Finish { finish, .. } => format!("finish {finish:?}"),
        Event::Usage(usage) => format!("usage {:?} {:?}", usage.input, usage.output),
        Event::Error(said) => format!("error {:?}", said.message),
        Event::End => "end".to_owned(),
        Event::Logprobs { logprobs, .. } => {
            format!("logprobs {}", logprobs.get().contains("\"logprob\":-0.5"))
        }
    }
}

const START: &str = r#"{"id":"29f1","type":"message-start","delta":{"message":{"role":"assistant","content":[],"tool_plan":"","tool_calls":[],"citations":[]}}}"#;
const TEXT: &str = r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"Hi"}}}}"#;
const END: &str = r#"{"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":3,"output_tokens":2},"tokens":{"input_tokens":70,"output_tokens":4}}}}"#;

/// A plan and parallel calls, streamed.
#[test]
fn calls_come_one_after_the_other() {
    let events = [
        START,
        r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"I "}}}"#,
        r#"{"type":"tool-plan-delta","delta":{"message":{"tool_plan":"look."}}}"#,
        r#"{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"w_1","type":"function","function":{"name":"weather","arguments":""}}}}}"#,
        r#"{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":"{\"city\""}}}}}"#,
        r#"{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":":1}"}}}}}"#,
        r#"{"type":"tool-call-end","index":0}"#,
        r#"{"type":"tool-call-start","index":1,"delta":{"message":{"tool_calls":{"id":"t_2","type":"function","function":{"name":"time","arguments":"{}"}}}}}"#,
        r#"{"type":"tool-call-end","index":1}"#,
        r#"{"type":"message-end","delta":{"finish_reason":"TOOL_CALL","usage":{"billed_units":{"input_tokens":3,"output_tokens":2}}}}"#,
    ];
    let expected = [
        "start 29f1",
        "0 text",
        "0 + I ",
        "0 + look.",
        "0 stop",
        "1 call w_1 weather",
        "1 + {\"city\"",
        "1 + :1}",
        "1 stop",
        "2 call t_2 time",
        "2 + {}",
        "2 stop",
        "usage Some(3) Some(2)",
        "finish ToolCalls",
        "end",
    ];
    assert_eq!(told(&events).unwrap(), expected);
}

#[test]
fn thoughts_text_and_citations_keep_their_order() {
    let events = [
        START,
        r#"{"type":"content-start","index":0,"delta":{"message":{"content":{"type":"thinking","thinking":""}}}}"#,
        r#"{"type":"content-delta","index":0,"delta":{"message":{"content":{"thinking":"Hm"}}}}"#,
        r#"{"type":"content-end","index":0}"#,
        r#"{"type":"content-start","index":1,"delta":{"message":{"content":{"type":"text","text":""}}}}"#,
        r#"{"type":"content-delta","index":1,"delta":{"message":{"content":{"text":"Hi\n"}}},"logprobs":{"text":"Hi","token_ids":[1],"logprobs":[-0.5]}}"#,
        r#"{"type":"content-end","index":1}"#,
        r#"{"type":"citation-start","index":0,"delta":{"message":{"citations":{"start":0,"end":2,"text":"Hi","sources":[]}}}}"#,
        r#"{"type":"citation-end","index":0}"#,
        END,
        "[DONE]",
        TEXT,
    ];
    let told = told(&events).unwrap();
    let expected = [
        "start 29f1",
        "0 thinking",
        "0 + Hm",
        "0 stop",
        "1 text",
        "1 + Hi\n",
        "logprobs true",
        "1 cites Some((0, 2))",
        "usage Some(3) Some(2)",
        "1 stop",
        "finish Stop",
        "end",
    ];
    assert_eq!(told, expected, "and nothing after the end");
}

/// Errors inside a stream that has begun well.
#[test]
fn errors_end_the_stream() {
    let cut = ["start 29f1", "0 text", "0 + Hi"];
    assert_eq!(told(&[START, TEXT]).unwrap(), cut, "cut short, there is no end");
    let failed =
        r#"{"type":"message-end","delta":{"finish_reason":"ERROR","error":"out of memory","usage":{}}}"#;
    let mut expected: Vec<_> = cut.to_vec();
    expected.extend(["usage None None", r#"error Some("out of memory")"#]);
    assert_eq!(told(&[START, TEXT, failed, TEXT]).unwrap(), expected);
    assert_eq!(
        told(&[r#"{"message":"invalid api token"}"#]).unwrap(),
        [r#"error Some("invalid api token")"#]
    );
    for broken in [
        "",
        "[]",
        r#"{"type":"content-delta","delta":5}"#,
        r#"{"type":"tool-call-start","delta":{"message":{"tool_calls":{"id":"a"}}}}"#,
        r#"{"type":"tool-call-delta","delta":{"message":{"tool_calls":{"function":{"arguments":"x"}}}}}"#,
    ] {
        assert!(told(&[broken]).is_err(), "{broken}");
    }
    assert!(told(&[r#"{"type":"debug","prompt":"p"}"#, "{}"]).unwrap().is_empty());
}

proptest::proptest! {
    #[test]
    fn whatever_comes_nothing_breaks(data: Vec<u8>) {
        let mut out = ir::Events::new();
        let _ = Decoder::default().event(&data, &mut out);
    }
}
