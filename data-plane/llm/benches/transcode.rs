//! What a translation costs: `make bench-transcode`. A chat request of a kilobyte for each other dialect, the answer to it
//! back, both as one (to be less than 15 µs), and one streamed event (to be less than 2 µs).

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "made by a macro")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use nemo_llm::{
    Destination, Dialect, Echo, Inbound,
    codec::{self, Decoder, Encoder},
    ir::Events,
    provider,
};

const TARGETS: [(Dialect, &str); 3] = [
    (Dialect::Messages, "anthropic"),
    (Dialect::GenerateContent, "google-ai-studio"),
    (Dialect::Responses, "openai"),
];

/// A kilobyte, with instructions, a turn behind it, a tool and the usual parameters.
fn request() -> String {
    let words = "The quick brown fox jumps over the lazy dog, and nobody minds at all. ".repeat(8);
    format!(
        r#"{{"model":"asked-model","messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{words}"}},{{"role":"assistant","content":"Indeed."}},{{"role":"user","content":"And what does the \"dog\" say to it?\n"}}],"tools":[{{"type":"function","function":{{"name":"get_weather","description":"Current weather","parameters":{{"type":"object","properties":{{"city":{{"type":"string"}}}},"required":["city"]}}}}}}],"temperature":0.7,"max_tokens":500,"stream":false,"user":"u-1"}}"#
    )
}

fn answer(dialect: Dialect) -> String {
    let words = "The quick brown fox jumps over the lazy dog, and nobody minds at all. ".repeat(12);
    match dialect {
        Dialect::Messages => format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{words}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":200,"output_tokens":180}}}}"#
        ),
        Dialect::GenerateContent => format!(
            r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{words}"}}]}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":200,"candidatesTokenCount":180,"totalTokenCount":380}},"modelVersion":"m","responseId":"r"}}"#
        ),
        _ => format!(
            r#"{{"id":"resp_1","object":"response","created_at":1700000000,"status":"completed","model":"m","output":[{{"type":"message","id":"msg_1","status":"completed","role":"assistant","content":[{{"type":"output_text","text":"{words}","annotations":[]}}]}}],"usage":{{"input_tokens":200,"output_tokens":180,"total_tokens":380}}}}"#
        ),
    }
}

/// What opens a block of text, and a piece of it.
fn events(dialect: Dialect) -> (Vec<&'static str>, &'static str) {
    match dialect {
        Dialect::Messages => (
            vec![
                r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"usage":{"input_tokens":20,"output_tokens":1}}}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            ],
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" jumps over"}}"#,
        ),
        Dialect::GenerateContent => (
            Vec::new(),
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":" jumps over"}]},"index":0}],"usageMetadata":{"promptTokenCount":20,"candidatesTokenCount":2,"totalTokenCount":22},"modelVersion":"m","responseId":"r"}"#,
        ),
        _ => (
            vec![
                r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","created_at":1,"status":"in_progress","model":"m","output":[]}}"#,
                r#"{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":{"id":"msg_1","type":"message","status":"in_progress","role":"assistant","content":[]}}"#,
                r#"{"type":"response.content_part.added","sequence_number":2,"item_id":"msg_1","output_index":0,"content_index":0,"part":{"type":"output_text","text":"","annotations":[]}}"#,
            ],
            r#"{"type":"response.output_text.delta","sequence_number":3,"item_id":"msg_1","output_index":0,"content_index":0,"delta":" jumps over"}"#,
        ),
    }
}

fn echo() -> Echo {
    Echo { id: "0a1b2c3d".into(), created: 1_700_000_000, model: "asked-model".into(), ..Echo::default() }
}

fn there(body: &[u8], to: Dialect, id: &str) -> usize {
    let request = codec::decode_request(Dialect::Chat, body, Inbound::default()).unwrap();
    let destination = Destination {
        provider: provider(id).unwrap(),
        model: "m",
        most_output: 8192,
        cap: None,
        hosted: false,
    };
    codec::encode_request(&request, to, &destination).unwrap().body.len()
}

fn back(body: &[u8], from: Dialect, echo: &Echo) -> usize {
    codec::encode_response(Dialect::Chat, &codec::decode_response(from, body).unwrap(), echo).len()
}

fn bodies(criterion: &mut Criterion) {
    let (request, echo) = (request(), echo());
    for (dialect, id) in TARGETS {
        let (name, answer) = (dialect.name(), answer(dialect));
        criterion.bench_function(&format!("{name}/request"), |bench| {
            bench.iter(|| there(black_box(request.as_bytes()), dialect, id));
        });
        criterion.bench_function(&format!("{name}/answer"), |bench| {
            bench.iter(|| back(black_box(answer.as_bytes()), dialect, &echo));
        });
        criterion.bench_function(&format!("{name}/both"), |bench| {
            bench.iter(|| {
                there(black_box(request.as_bytes()), dialect, id)
                    + back(black_box(answer.as_bytes()), dialect, &echo)
            });
        });
    }
}

fn stream(criterion: &mut Criterion) {
    for (dialect, _) in TARGETS {
        let (opening, piece) = events(dialect);
        let mut decoder = Decoder::new(dialect).unwrap();
        let mut encoder = Encoder::new(Dialect::Chat, echo()).unwrap();
        let mut out = Vec::with_capacity(1024);
        let mut step = |data: &str| {
            out.clear();
            let mut events = Events::new();
            decoder.event("", data.as_bytes(), &mut events).unwrap();
            for event in &events {
                encoder.event(event, &mut out);
            }
            out.len()
        };
        for event in opening {
            step(event);
        }
        assert!(step(piece) > 0, "nothing comes of a piece of text");
        criterion.bench_function(&format!("{}/event", dialect.name()), |bench| {
            bench.iter(|| step(black_box(piece)));
        });
    }
}

criterion_group!(benches, bodies, stream);
criterion_main!(benches);
