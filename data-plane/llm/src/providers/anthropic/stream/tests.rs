use serde_json::{Value, json};

use super::*;
use crate::{
    ServiceTier,
    codec::Echo,
    ir::{Block, Citation, Delta, Event, Events, Finish},
};

fn echo() -> Echo {
    Echo { id: "0a1b".into(), model: "asked".into(), ..Echo::default() }
}

/// Reads all of them and writes them again.
fn through(events: &[Value]) -> String {
    let (mut decoder, mut encoder, mut out) = (Decoder::default(), Encoder::new(echo()), Vec::new());
    for event in events {
        let data = event.to_string();
        let mut found = Events::new();
        decoder.event(data.as_bytes(), &mut found).unwrap();
        for event in &found {
            encoder.event(event, &mut out);
        }
    }
    let mut found = Events::new();
    decoder.finish(&mut found);
    assert!(found.is_empty(), "the end was told before: {found:?}");
    String::from_utf8(out).unwrap()
}

fn parsed(text: &str) -> Vec<(String, Value)> {
    let event = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap())
    };
    text.split_terminator("\n\n").map(event).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "literals read better")]
fn block(index: u32, block: Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

#[expect(clippy::needless_pass_by_value, reason = "literals read better")]
fn delta(index: u32, delta: Value) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": delta})
}

fn stop(index: u32) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

/// E.5 and failure 24: blocks of every kind, in Anthropic's order, through the hub and back.
#[test]
fn a_stream_survives_the_hub() {
    let usage = json!({"input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}, "output_tokens": 1});
    let mut last = usage.clone();
    last["output_tokens"] = json!(40);
    let all = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant",
            "model": "claude-sonnet-4-5", "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage}}),
        json!({"type": "ping"}),
        block(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        delta(0, json!({"type": "thinking_delta", "thinking": "hm\n"})),
        delta(0, json!({"type": "signature_delta", "signature": "s"})),
        stop(0),
        block(1, json!({"type": "redacted_thinking", "data": "r"})),
        stop(1),
        block(2, json!({"type": "text", "text": ""})),
        delta(2, json!({"type": "text_delta", "text": "sun é"})),
        delta(
            2,
            json!({"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "q",
            "document_index": 0, "document_title": null, "start_char_index": 0, "end_char_index": 1}}),
        ),
        stop(2),
        block(3, json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}})),
        delta(3, json!({"type": "input_json_delta", "partial_json": ""})),
        delta(3, json!({"type": "input_json_delta", "partial_json": "{\"a\":"})),
        delta(3, json!({"type": "input_json_delta", "partial_json": "1}"})),
        stop(3),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": {"output_tokens": 40}}),
        json!({"type": "message_stop"}),
    ];
    let written = parsed(&through(&all));
    let mut expected = all.to_vec();
    // A ping is the connection's, an empty piece is none, and counts are told whole.
    expected.retain(|event| event["type"] != "ping" && event["delta"]["partial_json"] != "");
    expected[15]["usage"] = last;
    let expected: Vec<_> =
        expected.into_iter().map(|event| (event["type"].as_str().unwrap().to_owned(), event)).collect();
    assert_eq!(written, expected);
}

#[test]
fn calls_without_arguments_have_empty_ones() {
    let start = json!({"type": "message_start", "message": {"id": "m", "model": "c"}});
    for (input, pieces) in [(json!({}), vec!["{}"]), (json!({"a": 1}), vec!["{\"a\":1}"])] {
        let events = [
            start.clone(),
            block(0, json!({"type": "tool_use", "id": "t", "name": "f", "input": input})),
            stop(0),
        ];
        let mut decoder = Decoder::default();
        let mut found = Vec::new();
        for event in events.map(|event| event.to_string()) {
            let mut out = Events::new();
            decoder.event(event.as_bytes(), &mut out).unwrap();
            found.extend(out.iter().filter_map(|event| match event {
                Event::Delta { delta: Delta::Arguments(text), .. } => Some(text.to_string()),
                _ => None,
            }));
        }
        assert_eq!(found, pieces);
    }
}

/// The provider's own tools stay between it and itself; the text around them arrives.
#[test]
fn blocks_that_nobody_else_knows_are_passed_over() {
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "c"}}),
        block(0, json!({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}})),
        delta(0, json!({"type": "input_json_delta", "partial_json": "{}"})),
        stop(0),
        block(1, json!({"type": "web_search_tool_result", "tool_use_id": "s", "content": []})),
        stop(1),
        block(2, json!({"type": "text", "text": ""})),
        delta(2, json!({"type": "text_delta", "text": "sun"})),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}),
        json!({"type": "message_stop"}),
    ];
    let written = parsed(&through(&events));
    let kinds: Vec<_> =
        written.iter().map(|(name, event)| (name.as_str(), event["index"].as_u64())).collect();
    assert_eq!(
        kinds,
        [
            ("message_start", None),
            ("content_block_start", Some(0)),
            ("content_block_delta", Some(0)),
            ("content_block_stop", Some(0)),
            ("message_delta", None),
            ("message_stop", None)
        ]
    );
}

/// Failure 15: only what says that it is complete is.
#[test]
fn a_stream_that_is_cut_short_has_no_end() {
    let end = |events: &[Value]| {
        let mut decoder = Decoder::default();
        for event in events.iter().map(ToString::to_string) {
            decoder.event(event.as_bytes(), &mut Events::new()).unwrap();
        }
        let mut out = Events::new();
        decoder.finish(&mut out);
        out.iter().any(|event| matches!(event, Event::End))
    };
    let start = json!({"type": "message_start", "message": {}});
    let text = block(0, json!({"type": "text", "text": ""}));
    let finish = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}});
    assert!(!end(&[]));
    assert!(!end(&[start.clone(), text.clone()]));
    assert!(end(&[start.clone(), text, finish.clone()]));
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}});
    assert!(!end(&[start, finish, error]));
}

#[test]
fn an_error_within_the_stream_is_told_as_one() {
    let mut decoder = Decoder::default();
    let error = br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let mut out = Events::new();
    decoder.event(error, &mut out).unwrap();
    let [Event::Error(info)] = &out[..] else { panic!("{out:?}") };
    assert_eq!((info.kind.as_deref(), info.code.as_deref()), (Some("overloaded_error"), Some("overloaded")));
    assert_eq!(info.message.as_deref(), Some("Overloaded"));
}

#[test]
fn what_breaks_the_order_breaks_the_stream() {
    let open = block(0, json!({"type": "text", "text": ""}));
    for events in [
        vec![delta(0, json!({"type": "text_delta", "text": "a"}))],
        vec![open.clone(), open.clone()],
        vec![open.clone(), block(1, json!({"type": "text", "text": ""}))],
        vec![open.clone(), delta(0, json!({"type": "thinking_delta", "thinking": "a"}))],
        vec![json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}), open],
        vec![json!(5)],
    ] {
        let mut decoder = Decoder::default();
        let all: Result<(), _> = events
            .iter()
            .map(ToString::to_string)
            .try_for_each(|event| decoder.event(event.as_bytes(), &mut Events::new()));
        assert!(all.is_err(), "{events:?}");
    }
}

/// Failure 23: the signature of a call is in its id, although it comes behind it.
#[test]
fn a_signature_gets_into_the_id_of_its_call() {
    let mut encoder = Encoder::new(echo());
    let mut out = Vec::new();
    for event in [
        Event::Start { id: "".into(), model: "".into(), created: None, service_tier: ServiceTier::default() },
        Event::BlockStart {
            choice: 0,
            block: 0,
            kind: Block::ToolCall { id: "".into(), name: "f".into(), custom: false },
        },
        Event::Delta { choice: 0, block: 0, delta: Delta::Signature("QUJD".into()) },
        Event::Delta { choice: 0, block: 0, delta: Delta::Arguments("{}".into()) },
        Event::BlockStop { choice: 0, block: 0 },
        Event::BlockStart {
            choice: 0,
            block: 1,
            kind: Block::ToolCall { id: "x".into(), name: "g".into(), custom: true },
        },
        Event::Delta { choice: 0, block: 1, delta: Delta::Arguments("a\"b".into()) },
        Event::BlockStop { choice: 0, block: 1 },
        Event::BlockStart { choice: 1, block: 0, kind: Block::Text },
        Event::BlockStart { choice: 0, block: 2, kind: Block::Text },
        Event::Delta { choice: 0, block: 2, delta: Delta::Signature("QUJD".into()) },
        Event::BlockStop { choice: 0, block: 2 },
        Event::Finish { choice: 0, finish: Finish::Stop },
        Event::End,
        Event::End,
    ] {
        encoder.event(&event, &mut out);
    }
    let written = parsed(&String::from_utf8(out).unwrap());
    assert_eq!(written[0].1["message"]["id"], "msg_0a1b");
    assert_eq!(written[0].1["message"]["model"], "asked");
    assert_eq!(written[1].1["content_block"]["id"], "call_0_0a1b__ts_QUJD");
    let input: String = written
        .iter()
        .filter(|(_, event)| event["index"] == 1)
        .filter_map(|(_, event)| event["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(serde_json::from_str::<Value>(&input).unwrap(), json!({"input": "a\"b"}));
    assert!(!written.iter().any(|(_, event)| event["delta"]["type"] == "signature_delta"));
    let names: Vec<_> = written.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.iter().filter(|name| **name == "message_start").count(), 1);
    assert_eq!(names[names.len() - 2..], ["message_delta", "message_stop"]);
    assert_eq!(written[names.len() - 2].1["delta"]["stop_reason"], "tool_use");
}

#[test]
fn the_first_event_tells_what_the_prompt_had() {
    let events = [
        json!({"type": "message_start", "message": {"id": "msg_1", "model": "c",
        "usage": {"input_tokens": 3, "output_tokens": 1}}}),
        json!({"type": "message_stop"}),
    ];
    let written = parsed(&through(&events));
    assert_eq!(written[0].1["message"]["usage"]["input_tokens"], 3);
}

/// As in a whole answer: clients of this dialect know no citation without an address.
#[test]
fn a_citation_of_another_dialect_is_shown_when_it_has_an_address() {
    let shown = |url: Option<&'static str>| {
        let (mut encoder, mut out) = (Encoder::new(echo()), Vec::new());
        let citation = Citation { url: url.map(Into::into), title: Some("T".into()), ..Citation::default() };
        for event in [
            Event::BlockStart { choice: 0, block: 0, kind: Block::Text },
            Event::Delta { choice: 0, block: 0, delta: Delta::Citation(citation) },
        ] {
            encoder.event(&event, &mut out);
        }
        String::from_utf8(out).unwrap().contains("citations_delta")
    };
    assert!(shown(Some("https://example.com")) && !shown(None));
}
