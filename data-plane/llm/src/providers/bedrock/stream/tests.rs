use super::*;
use crate::ir::Finish;

/// What the events become, in short.
fn told(events: &[(&str, &str)]) -> Result<Vec<String>, CodecError> {
    let (mut decoder, mut lines) = (Decoder::default(), Vec::new());
    for (name, data) in events {
        let mut out = ir::Events::new();
        decoder.event(name, data.as_bytes(), &mut out)?;
        lines.extend(out.iter().map(short));
    }
    let mut out = ir::Events::new();
    decoder.finish(&mut out);
    lines.extend(out.iter().map(short));
    Ok(lines)
}

fn short(event: &Event<'_>) -> String {
    match event {
        Event::Start { .. } => "start".to_owned(),
        Event::BlockStart { block, kind, .. } => match kind {
            Block::Text => format!("{block} text"),
            Block::Thinking { .. } => format!("{block} thinking"),
            Block::Encrypted { data, .. } => format!("{block} encrypted {data}"),
            Block::ToolCall { id, name, .. } => format!("{block} call {id} {name}"),
            other => format!("{block} {other:?}"),
        },
        Event::Delta { block, delta, .. } => match delta {
            Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) => format!("{block} + {text}"),
            Delta::Signature(text) => format!("{block} signed {text}"),
            Delta::Citation(citation) => {
                format!("{block} from {}", citation.title.as_deref().unwrap_or_default())
            }
            other => format!("{block} {other:?}"),
        },
        Event::BlockStop { block, .. } => format!("{block} stop"),
        Event::Finish { finish, .. } => format!("finish {finish:?}"),
        Event::Usage(usage) => format!("usage {:?} {:?}", usage.input, usage.output),
        Event::Error(said) => format!("error {:?} {:?}", said.kind, said.message),
        Event::End => "end".to_owned(),
        Event::Logprobs { .. } => "logprobs".to_owned(),
    }
}

const START: (&str, &str) = ("messageStart", r#"{"p":"abc","role":"assistant"}"#);
const METADATA: (&str, &str) = (
    "metadata",
    r#"{"metrics":{"latencyMs":551},"usage":{"inputTokens":3,"outputTokens":7,"totalTokens":15,"cacheReadInputTokens":5}}"#,
);

/// Thoughts, text and parallel calls, streamed.
#[test]
fn a_stream_of_every_kind_is_read() {
    let events = [
        START,
        (
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"reasoningContent":{"text":"Hm"}},"p":"ab"}"#,
        ),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"reasoningContent":{"signature":"c2ln"}}}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        (
            "contentBlockDelta",
            r#"{"contentBlockIndex":1,"delta":{"reasoningContent":{"redactedContent":"QUJD"}}}"#,
        ),
        ("contentBlockStop", r#"{"contentBlockIndex":1}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":2,"delta":{"text":"Let me\nsee"}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":2,"delta":{"citation":{"title":"Doc"}}}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":2}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":3,"start":{"toolUse":{"toolUseId":"t1","name":"a"}}}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":4,"start":{"toolUse":{"toolUseId":"t2","name":"b"}}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":3,"delta":{"toolUse":{"input":"{\"x\":"}}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":4,"delta":{"toolUse":{"input":"{}"}}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":3,"delta":{"toolUse":{"input":"1}"}}}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":3}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":4}"#),
        ("messageStop", r#"{"stopReason":"tool_use"}"#),
        METADATA,
    ];
    let expected = [
        "start",
        "0 thinking",
        "0 + Hm",
        "0 signed c2ln",
        "0 stop",
        "1 encrypted QUJD",
        "1 stop",
        "2 text",
        "2 + Let me\nsee",
        "2 from Doc",
        "2 stop",
        "3 call t1 a",
        "4 call t2 b",
        "3 + {\"x\":",
        "4 + {}",
        "3 + 1}",
        "3 stop",
        "4 stop",
        "finish ToolCalls",
        "usage Some(8) Some(7)",
        "end",
    ];
    assert_eq!(told(&events).unwrap(), expected);
}

#[test]
fn blocks_that_nobody_closes_end_with_the_answer() {
    let text = ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"a"}}"#);
    let stop = (
        "messageStop",
        r#"{"stopReason":"stop_sequence","additionalModelResponseFields":{"stop_sequence":"X"}}"#,
    );
    let finish = format!("finish {:?}", Finish::StopSequence("X".into()));
    let complete = ["start", "0 text", "0 + a", "0 stop", &finish, "end"];
    assert_eq!(told(&[text, stop]).unwrap(), complete, "without metadata it is complete all the same");
    assert_eq!(told(&[text]).unwrap(), ["start", "0 text", "0 + a"], "cut short");
    assert!(told(&[]).unwrap().is_empty());
}

/// Errors inside a stream that has begun well; nothing follows them.
#[test]
fn an_exception_ends_the_stream() {
    let text = ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"a"}}"#);
    for (name, data, said) in [
        (
            "throttlingException",
            r#"{"message":"slow down"}"#,
            r#"error Some("rate_limit_error") Some("slow down")"#,
        ),
        (
            "modelStreamErrorException",
            r#"{"message":"broke","originalStatusCode":424}"#,
            r#"error Some("api_error") Some("broke")"#,
        ),
        ("validationException", r#"{"message":"no"}"#, r#"error Some("invalid_request_error") Some("no")"#),
        ("serviceUnavailableException", "", r#"error Some("overloaded_error") None"#),
        ("error", "it broke", r#"error Some("api_error") Some("it broke")"#),
    ] {
        let told = told(&[START, text, (name, data), text, METADATA]).unwrap();
        assert_eq!(told, ["start", "0 text", "0 + a", said]);
    }
}

#[test]
fn a_block_ends_where_another_begins() {
    let events = [
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"a"}}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":1,"start":{"toolUse":{"toolUseId":"t","name":"f"}}}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":2,"delta":{"text":"b"}}"#),
    ];
    let expected = ["start", "0 text", "0 + a", "0 stop", "1 call t f", "1 stop", "2 text", "2 + b"];
    assert_eq!(told(&events).unwrap(), expected);
}

#[test]
fn tools_that_aws_runs_are_passed_over() {
    let events = [
        START,
        (
            "contentBlockStart",
            r#"{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"t","name":"nova_grounding","type":"server_tool_use"}}}"#,
        ),
        ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}"#),
        ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
        ("contentBlockStart", r#"{"contentBlockIndex":1,"start":{"toolResult":{"toolUseId":"t"}}}"#),
        ("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"toolResult":[{"text":"x"}]}}"#),
        ("somethingNew", "not even JSON"),
        ("contentBlockDelta", r#"{"contentBlockIndex":2,"delta":{"text":"a"}}"#),
    ];
    assert_eq!(told(&events).unwrap(), ["start", "0 text", "0 + a"]);
}

#[test]
fn a_broken_stream_is_an_error_and_bounded() {
    let orphan = ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}"#);
    assert!(told(&[orphan]).is_err());
    for (name, data) in [
        ("contentBlockDelta", "{}"),
        ("messageStop", "[]"),
        ("metadata", "{\"usage\":1}"),
        ("contentBlockStop", ""),
    ] {
        assert!(told(&[(name, data)]).is_err(), "{name} {data}");
    }
    let many: Vec<_> = (0..=MAX_OPEN)
        .map(|at| {
            format!(r#"{{"contentBlockIndex":{at},"start":{{"toolUse":{{"toolUseId":"t","name":"a"}}}}}}"#)
        })
        .collect();
    let events: Vec<_> = many.iter().map(|data| ("contentBlockStart", data.as_str())).collect();
    assert!(told(&events).is_err());
}

proptest::proptest! {
    #[test]
    fn whatever_comes_nothing_breaks(name in "contentBlock(Start|Delta|Stop)|message(Start|Stop)|metadata|x", data: Vec<u8>) {
        let mut out = ir::Events::new();
        let _ = Decoder::default().event(&name, &data, &mut out);
    }
}
