//! Streams: what can be seen only here; whole translations are golden cases.

use super::*;
use crate::{
    codec::Echo,
    ir::{Block, Delta, Event, Events, Finish},
};

/// The events of `chunks`, in one line each.
fn told(chunks: &[&str]) -> Vec<String> {
    let mut decoder = Decoder::default();
    let mut lines = Vec::new();
    for chunk in chunks {
        let mut events = Events::new();
        decoder.event(chunk.as_bytes(), &mut events).unwrap();
        lines.extend(events.iter().map(line));
    }
    let mut events = Events::new();
    decoder.finish(&mut events);
    lines.extend(events.iter().map(line));
    lines
}

fn line(event: &Event<'_>) -> String {
    match event {
        Event::Start { id, model, .. } => format!("start {id} {model}"),
        Event::BlockStart { choice, block, kind } => format!(
            "{choice}.{block} + {}",
            match kind {
                Block::Text => "text".to_owned(),
                Block::Thinking { .. } => "thinking".to_owned(),
                Block::ToolCall { id, name, .. } => format!("call {id:?} {name}"),
                Block::Image(_) => "image".to_owned(),
                other => format!("{other:?}"),
            }
        ),
        Event::Delta { choice, block, delta } => format!(
            "{choice}.{block} {}",
            match delta {
                Delta::Text(text) => text.to_string(),
                Delta::Thinking(text) => format!("({text})"),
                Delta::Signature(text) => format!("signed {text}"),
                Delta::Arguments(text) => format!("args {text}"),
                Delta::Citation(citation) => format!("cites {:?} {:?}", citation.url, citation.span),
                other => format!("{other:?}"),
            }
        ),
        Event::BlockStop { choice, block } => format!("{choice}.{block} -"),
        Event::Finish { choice, finish } => format!("{choice} {finish:?}"),
        Event::Usage(usage) => format!("usage {:?} {:?}", usage.input, usage.output),
        Event::Logprobs { .. } => "logprobs".to_owned(),
        Event::Error(info) => format!("error {:?}", info.message),
        Event::End => "end".to_owned(),
    }
}

#[test]
fn parts_become_blocks_in_the_order_of_the_grammar() {
    let lines = told(&[
        r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true}],"role":"model"},"index":0}],"modelVersion":"g","responseId":"r","usageMetadata":{"promptTokenCount":3,"totalTokenCount":3}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"He"}]},"finishReason":"STOP"}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"y"},{"functionCall":{"name":"f","args":{"a":1}},"thoughtSignature":"QUJD"},{"functionCall":{"id":"x","name":"g"}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"QQ=="}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"thoughtsTokenCount":4}}"#,
    ]);
    assert_eq!(
        lines,
        [
            "start r g",
            "0.0 + thinking",
            "0.0 (hm)",
            "usage Some(3) Some(0)",
            "0.0 -",
            "0.1 + text",
            "0.1 He",
            "0.1 y",
            "0.1 -",
            "0.2 + call \"\" f",
            "0.2 signed QUJD",
            "0.2 args {\"a\":1}",
            "0.2 -",
            "0.3 + call \"x\" g",
            "0.3 args {}",
            "0.3 -",
            "0.4 + text",
            "0.4 signed QQ==",
            "usage Some(3) Some(6)",
            "0.4 -",
            "0 ToolCalls",
            "end",
        ]
    );
}

/// Failure 15: a stream that broke off does not look complete.
#[test]
fn a_stream_without_a_reason_has_no_end() {
    let cut = told(&[r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#]);
    assert_eq!(cut, ["start  ", "0.0 + text", "0.0 a"]);
    assert!(told(&[]).is_empty());
}

#[test]
fn a_blocked_prompt_and_an_error_end_it() {
    let blocked =
        told(&[r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":1}}"#]);
    assert_eq!(blocked, ["start  ", "usage Some(1) None", "0 ContentFilter", "end"]);
    let failed = told(&[
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#,
        r#"{"error":{"code":503,"message":"overloaded","status":"UNAVAILABLE"}}"#,
        r#"{"candidates":[]}"#,
    ]);
    assert_eq!(failed, ["start  ", "0.0 + text", "0.0 a", "error Some(\"overloaded\")"]);
    let mut events = Events::new();
    assert!(Decoder::default().event(b"not json", &mut events).is_err());
    let endless = r#"{"candidates":[{"index":4000000000}]}"#;
    assert!(Decoder::default().event(endless.as_bytes(), &mut events).is_err());
}

#[test]
fn candidates_are_told_apart_and_citations_are_told_once() {
    let cited = r#""groundingMetadata":{"groundingChunks":[{"web":{"uri":"https://a"}}],"groundingSupports":[{"segment":{"endIndex":3},"groundingChunkIndices":[0]}]}"#;
    let lines = told(&[
        r#"{"candidates":[{"content":{"parts":[{"text":"éa"}]},"index":0},{"content":{"parts":[{"text":"b"}]},"index":1}]}"#,
        &format!(r#"{{"candidates":[{{{cited}}},{{"index":1,"finishReason":"MAX_TOKENS"}}]}}"#),
        &format!(r#"{{"candidates":[{{{cited},"finishReason":"STOP"}}]}}"#),
    ]);
    assert_eq!(
        lines,
        [
            "start  ",
            "0.0 + text",
            "0.0 éa",
            "1.0 + text",
            "1.0 b",
            "0.0 cites Some(\"https://a\") Some((0, 2))",
            "0.0 -",
            "0 Stop",
            "1.0 -",
            "1 Length",
            "end",
        ]
    );
}

#[test]
fn a_client_of_googles_gets_whole_calls_and_one_last_event() {
    let echo = Echo { id: "e1".into(), model: "asked".into(), ..Echo::default() };
    let mut encoder = Encoder::new(echo);
    let (choice, mut out) = (0, Vec::new());
    for event in [
        Event::Start {
            id: "".into(),
            model: "".into(),
            created: None,
            service_tier: crate::ServiceTier::default(),
        },
        Event::BlockStart { choice, block: 0, kind: Block::Thinking { id: "".into() } },
        Event::Delta { choice, block: 0, delta: Delta::Thinking("hm".into()) },
        Event::Delta { choice, block: 0, delta: Delta::Signature("QUJD".into()) },
        Event::BlockStop { choice, block: 0 },
        Event::BlockStart {
            choice,
            block: 1,
            kind: Block::ToolCall { id: "c1".into(), name: "f".into(), custom: false },
        },
        Event::BlockStart {
            choice,
            block: 2,
            kind: Block::ToolCall { id: "c2".into(), name: "g".into(), custom: false },
        },
        Event::Delta { choice, block: 1, delta: Delta::Arguments("{\"a\":".into()) },
        Event::Delta { choice, block: 2, delta: Delta::Arguments("{".into()) },
        Event::Delta { choice, block: 1, delta: Delta::Arguments("1}".into()) },
        Event::BlockStop { choice, block: 1 },
        Event::BlockStop { choice, block: 2 },
        Event::Finish { choice, finish: Finish::ToolCalls },
        Event::Usage(nemo_types::Usage { input: Some(2), output: Some(3), ..nemo_types::Usage::default() }),
        Event::End,
    ] {
        encoder.event(&event, &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.split("\r\n\r\n").collect();
    let tail = r#""modelVersion":"asked","responseId":"e1"}"#;
    let part = |part: &str| {
        format!(
            r#"data: {{"candidates":[{{"content":{{"role":"model","parts":[{part}]}},"index":0}}],{tail}"#
        )
    };
    assert_eq!(lines[0], part(r#"{"text":"hm","thought":true}"#));
    assert_eq!(lines[1], part(r#"{"text":"","thought":true,"thoughtSignature":"QUJD"}"#));
    assert_eq!(lines[2], part(r#"{"functionCall":{"id":"c1","name":"f","args":{"a":1}}}"#));
    assert_eq!(lines[3], part(r#"{"functionCall":{"id":"c2","name":"g","args":{"arguments":"{"}}}"#));
    assert_eq!(
        lines[4],
        format!(
            r#"data: {{"candidates":[{{"content":{{"role":"model","parts":[{{"text":""}}]}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":2,"candidatesTokenCount":3,"totalTokenCount":5}},{tail}"#
        )
    );
    assert_eq!(lines[5..], [""]);
}
