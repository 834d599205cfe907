//! Bad input: whatever of the corpus is cut off or spoilt, a decoder refuses or reads it, and does not panic. The fuzz
//! targets `dialect_request`, `dialect_response` and `dialect_stream` go on from the same files.

use nemo_llm::{
    Dialect,
    codec::{self, Decoder, Encoder},
    ir::Events,
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
