//! Bad input: whatever of the corpus is cut off or spoilt, a decoder refuses or reads it, and does not panic. The fuzz
//! targets `dialect_request`, `dialect_response` and `dialect_stream` go on from the same files.

use std::time::{Duration, Instant};

use nemo_llm::{
    Dialect,
    codec::{self, Decoder, Encoder},
    ir::Events,
    transcode,
};

use crate::corpus::{CLIENTS, Case, UPSTREAMS};

/// The body, then the body without its end, and with bytes of it replaced by others that mean something.
fn spoilt(body: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
    let step = (body.len() / 23).max(1);
    let cut = (0..body.len()).step_by(step).map(|end| body[..end].to_vec());
    let replaced = (0..body.len()).step_by(step).flat_map(move |at| {
        [b'"', b'}', b'0', b'\\', 0xff].into_iter().map(move |byte| {
            let mut body = body.to_vec();
            body[at] = byte;
            body
        })
    });
    cut.chain(replaced)
}

/// Values of every other type in the place of each value.
fn retyped(body: &[u8]) -> Vec<Vec<u8>> {
    let Ok(whole) = serde_json::from_slice::<serde_json::Value>(body) else { return Vec::new() };
    let mut pointers = Vec::new();
    pointers_of(&whole, String::new(), &mut pointers);
    let mut bodies = Vec::new();
    for pointer in pointers.iter().take(40) {
        for other in ["null", "-1", "\"\u{1f980}\"", "[null]", "{}"] {
            let mut body = whole.clone();
            if let Some(place) = body.pointer_mut(pointer) {
                *place = serde_json::from_str(other).unwrap();
            }
            bodies.push(body.to_string().into_bytes());
        }
    }
    bodies
}

fn pointers_of(value: &serde_json::Value, at: String, out: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(members) => {
            for (name, value) in members {
                pointers_of(value, format!("{at}/{name}"), out);
            }
        }
        serde_json::Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                pointers_of(value, format!("{at}/{index}"), out);
            }
        }
        _ => {}
    }
    out.push(at);
}

#[test]
fn a_spoilt_request_is_read_or_refused() {
    let mut tried = 0;
    for case in Case::all("request") {
        for from in CLIENTS {
            let Some(body) = case.input(&format!("{}.in.json", from.name())) else { continue };
            for body in spoilt(&body).chain(retyped(&body)) {
                tried += 1;
                let Ok(request) = codec::decode_request(from, &body, case.inbound()) else { continue };
                for to in UPSTREAMS {
                    if let Ok(encoded) = codec::encode_request(&request, to, &case.destination(to)) {
                        let json = serde_json::from_slice::<serde::de::IgnoredAny>(&encoded.body);
                        assert!(json.is_ok(), "{}: {from:?} to {to:?} wrote no JSON", case.name());
                    }
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_spoilt_answer_is_read_or_refused() {
    let mut tried = 0;
    for case in Case::all("response") {
        for from in UPSTREAMS {
            let Some(body) = case.input(&format!("{}.in.json", from.name())) else { continue };
            for body in spoilt(&body).chain(retyped(&body)) {
                tried += 1;
                let Ok(response) = codec::decode_response(from, &body) else { continue };
                for to in CLIENTS {
                    let written = codec::encode_response(to, &response, &case.echo());
                    let json = serde_json::from_slice::<serde::de::IgnoredAny>(&written);
                    assert!(json.is_ok(), "{}: {from:?} to {to:?} wrote no JSON", case.name());
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

#[test]
fn a_spoilt_stream_is_read_or_refused() {
    let mut tried = 0;
    for case in Case::all("stream") {
        for from in UPSTREAMS {
            let Some(stream) = case.input(&format!("{}.in.sse", from.name())) else { continue };
            for line in stream.split(|byte| *byte == b'\n') {
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                for data in spoilt(data).chain(retyped(data)) {
                    tried += 1;
                    one_event(from, &data, &case);
                }
            }
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// As the first event, and twice, so that it meets both a fresh reader and one that has begun.
fn one_event(from: Dialect, data: &[u8], case: &Case) {
    let mut decoder = Decoder::new(from).unwrap();
    let mut decoded = Events::new();
    let _ = decoder.event("", data, &mut decoded);
    let _ = decoder.event("", data, &mut decoded);
    let mut last = Events::new();
    decoder.finish(&mut last);
    for to in CLIENTS {
        let (mut encoder, mut out) = (Encoder::new(to, case.echo()).unwrap(), Vec::new());
        for event in decoded.iter().chain(last.iter()) {
            encoder.event(event, &mut out);
        }
        assert!(std::str::from_utf8(&out).is_ok());
    }
}

/// A body of so many things: calls, results, files, items, members.
const MANY: usize = 40_000;

/// `n` times, with the number in the place of `#`.
fn times(n: usize, item: &str) -> String {
    (0..n).map(|at| item.replace('#', &at.to_string())).collect::<Vec<_>>().join(",")
}

/// Conversations of many things that writers have to tell apart, or to find again.
fn large() -> Vec<(&'static str, Dialect, String)> {
    let calls = times(MANY, r##"{"id":"c#","type":"function","function":{"name":"f#","arguments":"{}"}}"##);
    let results = times(MANY, r##"{"role":"tool","tool_call_id":"c#","content":"r"}"##);
    let files = times(MANY, r##"{"type":"file","file":{"filename":"a.pdf","file_data":"QUJD"}}"##);
    let pictures = times(MANY, r##"{"type":"image_url","image_url":{"url":"https://a.example/#"}}"##);
    let tool = r##"{"type":"function","function":{"name":"t#","parameters":{"type":"object"}}}"##;
    let tools = times(4000, tool);
    let allowed = times(4000, r##"{"type":"function","function":{"name":"t#"}}"##);
    let blocks = times(MANY, r##"{"type":"tool_use","id":"c#","name":"f#","input":{}}"##);
    let answers = times(MANY, r##"{"type":"tool_result","tool_use_id":"c#","content":"r"}"##);
    let documents = times(
        MANY,
        r##"{"type":"document","title":"a","source":{"type":"base64","media_type":"application/pdf","data":"QUJD"}}"##,
    );
    let google = times(MANY, r##"{"functionCall":{"name":"f#","args":{}}}"##);
    let responses = times(MANY, r##"{"functionResponse":{"name":"f#","response":{"a":1}}}"##);
    let items = times(MANY, r##"{"type":"function_call","call_id":"c#","name":"f#","arguments":"{}"}"##);
    let outputs = times(MANY, r##"{"type":"function_call_output","call_id":"c#","output":"r"}"##);
    let definitions = times(MANY, r##""d#":{"$ref":"#/$defs/d"}"##);
    vec![
        (
            "calls",
            Dialect::Chat,
            format!(
                r#"{{"messages":[{{"role":"user","content":"q"}},{{"role":"assistant","tool_calls":[{calls}]}},{results}]}}"#
            ),
        ),
        ("pictures", Dialect::Chat, format!(r#"{{"messages":[{{"role":"user","content":[{pictures}]}}]}}"#)),
        ("files", Dialect::Chat, format!(r#"{{"messages":[{{"role":"user","content":[{files}]}}]}}"#)),
        (
            "tools",
            Dialect::Chat,
            format!(
                r#"{{"messages":[{{"role":"user","content":"q"}}],"tools":[{tools}],"tool_choice":{{"type":"allowed_tools","allowed_tools":{{"mode":"auto","tools":[{allowed}]}}}}}}"#
            ),
        ),
        (
            "definitions",
            Dialect::Chat,
            format!(
                r#"{{"messages":[{{"role":"user","content":"q"}}],"response_format":{{"type":"json_schema","json_schema":{{"name":"a","strict":true,"schema":{{"type":"object","properties":{{}},"additionalProperties":false,"$defs":{{{definitions}}}}}}}}}}}"#
            ),
        ),
        (
            "blocks",
            Dialect::Messages,
            format!(
                r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"q"}},{{"role":"assistant","content":[{blocks}]}},{{"role":"user","content":[{answers}]}}]}}"#
            ),
        ),
        (
            "documents",
            Dialect::Messages,
            format!(
                r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":[{documents}]}}]}}"#
            ),
        ),
        (
            "calls",
            Dialect::GenerateContent,
            format!(
                r#"{{"contents":[{{"role":"user","parts":[{{"text":"q"}}]}},{{"role":"model","parts":[{google}]}},{{"role":"user","parts":[{responses}]}}]}}"#
            ),
        ),
        (
            "items",
            Dialect::Responses,
            format!(r#"{{"model":"m","input":[{{"role":"user","content":"q"}},{items},{outputs}]}}"#),
        ),
    ]
}

/// What this thread has had of a processor, where the system tells that: what else a machine does must not count.
fn worked(begun: Instant) -> Duration {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok()).filter(|nanos| *nanos > 0);
    nanos.map_or_else(|| begun.elapsed(), Duration::from_nanos)
}

/// Whoever may send one request must not be able to keep a thread for minutes. A list that is searched for each of its
/// entries takes longer than is allowed here, one that is walked takes a tenth of it.
#[test]
fn many_things_take_time_by_their_number_and_not_by_its_square() {
    let case = Case::all("request").into_iter().next().unwrap();
    for (what, from, body) in large() {
        let begun = Instant::now();
        let before = worked(begun);
        let request = codec::decode_request(from, body.as_bytes(), case.inbound())
            .unwrap_or_else(|error| panic!("{what} of {}: {error:?}", from.name()));
        let written = UPSTREAMS.map(|to| codec::encode_request(&request, to, &case.destination(to)));
        let converse = (from, Dialect::Converse);
        let links =
            transcode::links(converse, body.as_bytes(), case.inbound(), &case.destination(converse.1));
        assert_eq!(links.len(), if what == "pictures" { MANY } else { 0 });
        assert!(written.iter().any(Result::is_ok), "{what} of {}", from.name());
        let taken = worked(begun) - before;
        assert!(taken.as_secs() < 12, "{what} of {}: {taken:?}", from.name());
    }
}

#[test]
fn lists_that_are_looked_up_in_each_other_are_bounded() {
    let case = Case::all("request").into_iter().next().unwrap();
    let chat = |members: &str| format!(r#"{{"messages":[{{"role":"user","content":"q"}}],{members}}}"#);
    let tools = times(4097, r##"{"type":"function","function":{"name":"t#"}}"##);
    let extras = times(257, r##""x#":1"##);
    for (from, body, path) in [
        (Dialect::Chat, chat(&format!(r#""tools":[{tools}]"#)), "tools"),
        (Dialect::Chat, chat(&extras), ""),
        (
            Dialect::Messages,
            format!(
                r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"q"}}],{extras}}}"#
            ),
            "",
        ),
        (Dialect::GenerateContent, format!(r#"{{"contents":[{{"parts":[{{"text":"q"}}]}}],{extras}}}"#), ""),
        (Dialect::Responses, format!(r#"{{"model":"m","input":"q",{extras}}}"#), ""),
    ] {
        let error = codec::decode_request(from, body.as_bytes(), case.inbound()).unwrap_err();
        assert!(error.path == path && !error.unsupported, "{from:?}: {error:?}");
    }
}
