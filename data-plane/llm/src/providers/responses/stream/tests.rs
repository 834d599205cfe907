use nemo_types::Usage;
use serde_json::{Value, json};

use super::super::response::test_echo as echo;
use crate::{
    Dialect,
    codec::{Decoder, Encoder},
    ir::{Block, Citation, Delta, Event, Events, Finish},
};

fn decode(events: &[Value]) -> Vec<String> {
    let mut decoder = Decoder::new(Dialect::Responses).unwrap();
    let mut all = Vec::new();
    for event in events {
        let data = event.to_string();
        let mut out = Events::new();
        decoder.event("", data.as_bytes(), &mut out).unwrap();
        all.extend(out.iter().map(short));
    }
    let mut out = Events::new();
    decoder.finish(&mut out);
    assert!(out.is_empty());
    all
}

/// An event in few words.
fn short(event: &Event<'_>) -> String {
    match event {
        Event::Start { id, model, .. } => format!("start {id} {model}"),
        Event::BlockStart { block, kind, .. } => match kind {
            Block::Text => format!("{block} text"),
            Block::Refusal => format!("{block} refusal"),
            Block::Thinking { id } => format!("{block} thinking {id}"),
            Block::Encrypted { data, id } => format!("{block} encrypted {id} {data}"),
            Block::ToolCall { id, name, custom } => format!("{block} call {id} {name} {custom}"),
            Block::Image(_) => format!("{block} image"),
            Block::Audio => format!("{block} audio"),
        },
        Event::Delta { block, delta, .. } => match delta {
            Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) | Delta::Refusal(text) => {
                format!("{block} + {text}")
            }
            Delta::Citation(citation) => format!("{block} cites {}", citation.url.as_deref().unwrap()),
            other => format!("{block} {other:?}"),
        },
        Event::BlockStop { block, .. } => format!("{block} stop"),
        Event::Logprobs { logprobs, .. } => format!("logprobs {}", logprobs.get()),
        Event::Finish { finish, .. } => format!("finish {finish:?}"),
        Event::Usage(usage) => format!("usage {:?} {:?}", usage.input, usage.output),
        Event::Error(info) => format!("error {:?} {:?}", info.code, info.message),
        Event::End => "end".to_owned(),
    }
}

#[test]
fn a_stream_is_read_block_by_block() {
    let created =
        json!({"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "created_at": 1}});
    let events = [
        created.clone(),
        json!({"type": "response.in_progress", "response": created["response"]}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1"}}),
        json!({"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 0}),
        json!({"type": "response.reasoning_summary_text.delta", "output_index": 0, "item_id": "rs_1", "delta": "why"}),
        json!({"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1",
            "summary": [{"text": "why"}], "encrypted_content": "gAAAA"}}),
        json!({"type": "response.output_item.added", "output_index": 1, "item": {"type": "message", "id": "msg_1"}}),
        json!({"type": "response.content_part.added", "output_index": 1, "content_index": 0, "part": {"type": "output_text", "text": ""}}),
        json!({"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": "a\n",
            "logprobs": [{"token": "a"}], "obfuscation": "xyz"}),
        json!({"type": "response.output_text.annotation.added", "output_index": 1, "content_index": 0, "annotation": {"type": "url_citation", "url": "u"}}),
        json!({"type": "response.output_text.done", "output_index": 1, "content_index": 0, "text": "a\n"}),
        json!({"type": "response.content_part.done", "output_index": 1, "content_index": 0}),
        json!({"type": "response.refusal.delta", "output_index": 1, "content_index": 1, "delta": "no"}),
        json!({"type": "response.output_item.done", "output_index": 1, "item": {"type": "message"}}),
        json!({"type": "response.output_item.added", "output_index": 2, "item": {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f"}}),
        json!({"type": "response.output_item.added", "output_index": 3, "item": {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c2", "name": "g"}}),
        json!({"type": "response.custom_tool_call_input.delta", "output_index": 3, "delta": "raw"}),
        json!({"type": "response.function_call_arguments.delta", "output_index": 2, "delta": "{}"}),
        json!({"type": "response.output_item.done", "output_index": 2, "item": {"type": "function_call", "arguments": "{}"}}),
        json!({"type": "response.completed", "response": {"status": "completed", "usage": {"input_tokens": 3, "output_tokens": 4}}}),
        json!({"type": "response.output_text.delta", "delta": "nobody hears it"}),
    ];
    let expected = [
        "start resp_1 gpt-5",
        "0 thinking rs_1",
        "0 + why",
        "0 + \n\n",
        "0 stop",
        "1 encrypted rs_1 gAAAA",
        "1 stop",
        "2 text",
        "2 + a\n",
        r#"logprobs {"content":[{"token":"a"}],"refusal":null}"#,
        "2 cites u",
        "2 stop",
        "3 refusal",
        "3 + no",
        "3 stop",
        "4 call c1 f false",
        "5 call c2 g true",
        "5 + raw",
        "4 + {}",
        "4 stop",
        "5 stop",
        "finish ToolCalls",
        "usage Some(3) Some(4)",
        "end",
    ];
    assert_eq!(decode(&events), expected);
}

/// Services that leave out deltas, or items, or types.
#[test]
fn what_comes_only_at_the_end_is_told_then() {
    let events = [
        json!({"type": "response.output_item.done", "output_index": 0, "item": {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"}}),
        json!({"type": "response.output_item.done", "output_index": 1, "item": {"type": "image_generation_call", "result": "QUI="}}),
        json!({"type": "response.output_text.delta", "output_index": 2, "delta": "a"}),
        json!({"type": "response.incomplete", "response": {"id": "r", "status": "incomplete"}}),
    ];
    let expected = [
        "0 call c1 f false",
        r#"0 + {"a":1}"#,
        "0 stop",
        "1 image",
        "1 stop",
        "2 text",
        "2 + a",
        "start r ",
        "2 stop",
        "finish Length",
        "end",
    ];
    assert_eq!(decode(&events), expected);
}

/// Errors of every kind, also inside of a stream that began with 200.
#[test]
fn a_failure_in_a_stream_is_an_error() {
    let failed = json!({"code": "rate_limit_exceeded", "message": "Slow down."});
    for event in [
        json!({"type": "response.failed", "response": {"status": "failed", "error": failed}}),
        json!({"type": "error", "code": "rate_limit_exceeded", "message": "Slow down.", "param": null}),
        json!({"type": "error", "error": failed}),
        json!({"error": failed}),
    ] {
        let mut decoder = super::Decoder::default();
        let (data, mut out) = (event.to_string(), Events::new());
        decoder.event(data.as_bytes(), &mut out).unwrap();
        let [Event::Error(info)] = &out[..] else { panic!("{event}: {out:?}") };
        assert_eq!(info.code.as_deref(), Some("rate_limit_exceeded"), "{event}");
        assert_eq!(info.kind.as_deref(), Some("rate_limit_error"), "{event}");
        assert_eq!(info.message.as_deref(), Some("Slow down."), "{event}");
    }
    for data in ["", "[]", "{}", "x", r#"{"type":5}"#] {
        assert!(super::Decoder::default().event(data.as_bytes(), &mut Events::new()).is_err(), "{data}");
    }
}

/// Items that never end are not collected without bound.
#[test]
fn open_items_are_bounded() {
    let mut decoder = super::Decoder::default();
    let failed = (0..100_000).any(|index| {
        let event =
            json!({"type": "response.output_text.delta", "output_index": index, "delta": ""}).to_string();
        decoder.event(event.as_bytes(), &mut Events::new()).is_err()
    });
    assert!(failed);
}

fn encode(events: &[Event<'_>]) -> Vec<Value> {
    let mut encoder = Encoder::new(Dialect::Responses, echo()).unwrap();
    let mut out = Vec::new();
    for event in events {
        encoder.event(event, &mut out);
    }
    let text = String::from_utf8(out).unwrap();
    let mut all = Vec::new();
    for event in text.split_terminator("\n\n") {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"]);
        assert_eq!(data["sequence_number"], all.len());
        all.push(data);
    }
    all
}

fn start() -> Event<'static> {
    Event::Start { id: "".into(), model: "up".into(), created: None, service_tier: Default::default() }
}

fn begin(block: u32, kind: Block<'static>) -> Event<'static> {
    Event::BlockStart { choice: 0, block, kind }
}

fn delta(block: u32, delta: Delta<'static>) -> Event<'static> {
    Event::Delta { choice: 0, block, delta }
}

fn stop(block: u32) -> Event<'static> {
    Event::BlockStop { choice: 0, block }
}

fn call(id: &'static str) -> Block<'static> {
    Block::ToolCall { id: id.into(), name: "f".into(), custom: false }
}

#[test]
fn events_are_named_numbered_and_in_order() {
    let citation = Citation { url: Some("u".into()), ..Citation::default() };
    let events = encode(&[
        start(),
        begin(0, Block::Thinking { id: "".into() }),
        delta(0, Delta::Thinking("why\n".into())),
        delta(0, Delta::Signature("sig".into())),
        stop(0),
        begin(1, Block::Text),
        delta(1, Delta::Text("a\"".into())),
        delta(1, Delta::Text("é".into())),
        delta(1, Delta::Citation(citation)),
        stop(1),
        begin(2, call("c1")),
        delta(2, Delta::Arguments("{}".into())),
        stop(2),
        Event::Finish { choice: 0, finish: Finish::ToolCalls },
        Event::Usage(Usage { input: Some(3), output: Some(4), ..Usage::default() }),
        Event::End,
    ]);
    let names: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, expected);
    let answer = &events.last().unwrap()["response"];
    assert_eq!((&answer["id"], &answer["status"]), (&json!("resp_nemo.d.e1"), &json!("completed")));
    assert_eq!(answer["usage"]["total_tokens"], 7);
    assert_eq!((&answer["model"], &events[0]["response"]["status"]), (&json!("up"), &json!("in_progress")));
    let annotation =
        json!({"type": "url_citation", "url": "u", "title": "", "start_index": 0, "end_index": 0});
    let output = json!([
        {"type": "reasoning", "id": "rs_nemo.d.e1_0", "summary": [{"type": "summary_text", "text": "why\n"}],
         "encrypted_content": "nemo.d.signature.sig"},
        {"type": "message", "id": "msg_e1_1", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "a\"é", "annotations": [annotation], "logprobs": []}]},
        {"type": "function_call", "id": "fc_e1_2", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"}]);
    assert_eq!(answer["output"], output);
    // Every item stands in its own event as it stands in the answer, and deltas name it.
    let done: Vec<_> = events.iter().filter(|event| event["type"] == "response.output_item.done").collect();
    for (index, event) in done.iter().enumerate() {
        assert_eq!((&event["item"], &event["output_index"]), (&output[index], &json!(index)));
    }
    assert_eq!(
        (&events[4]["item_id"], &events[10]["item_id"]),
        (&json!("rs_nemo.d.e1_0"), &json!("msg_e1_1"))
    );
    assert_eq!((&events[13]["text"], &events[18]["arguments"]), (&json!("a\"é"), &json!("{}")));
}

/// Failure 23, 24: calls interleave, have their own arguments, and Google's signature is in the id from the first event on.
#[test]
fn parallel_calls_keep_apart() {
    let events = encode(&[
        start(),
        begin(0, call("")),
        delta(0, Delta::Signature("QUJD".into())),
        begin(1, call("c2")),
        delta(0, Delta::Arguments("{\"a\":".into())),
        delta(1, Delta::Arguments("{\"b\":2}".into())),
        delta(0, Delta::Arguments("1}".into())),
        stop(1),
        stop(0),
        begin(2, call("c3")),
        stop(2),
        Event::End,
    ]);
    let output = &events.last().unwrap()["response"]["output"];
    let calls: Vec<_> =
        output.as_array().unwrap().iter().map(|it| (&it["call_id"], &it["arguments"])).collect();
    let first = json!("call_e1_0__ts_QUJD");
    let expected =
        [(&first, &json!("{\"a\":1}")), (&json!("c2"), &json!("{\"b\":2}")), (&json!("c3"), &json!("{}"))];
    assert_eq!(calls, expected);
    assert_eq!(events[2]["item"]["call_id"], first);
    let deltas = |index: u32| -> String {
        let of = |event: &&Value| event["output_index"] == index && event["delta"].is_string();
        events.iter().filter(of).map(|event| event["delta"].as_str().unwrap()).collect()
    };
    assert_eq!([deltas(0), deltas(1), deltas(2)], ["{\"a\":1}", "{\"b\":2}", "{}"]);
}

#[test]
fn a_stream_that_was_cut_ends_with_the_reason() {
    for (finish, name) in [
        (Finish::Length, "response.incomplete"),
        (Finish::Refusal, "response.incomplete"),
        (Finish::MalformedCall, "response.failed"),
        (Finish::Pause, "response.completed"),
    ] {
        let events = encode(&[
            start(),
            begin(0, Block::Refusal),
            delta(0, Delta::Refusal("no".into())),
            Event::Finish { choice: 0, finish },
            Event::Logprobs {
                choice: 1,
                logprobs: serde_json::value::to_raw_value(&0).map(std::borrow::Cow::Owned).unwrap(),
            },
            begin(9, Block::Audio),
            Event::Delta { choice: 0, block: 77, delta: Delta::Text("nowhere".into()) },
            Event::End,
        ]);
        let last = events.last().unwrap();
        assert_eq!(last["type"], name);
        assert_eq!(last["response"]["output"][0]["content"], json!([{"type": "refusal", "refusal": "no"}]));
    }
}
