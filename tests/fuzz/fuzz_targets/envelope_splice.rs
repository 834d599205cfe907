//! I8 on arbitrary bodies: what is accepted is what `serde_json` reads, what goes upstream is the client's bytes
//! but for the declared edits, and a second pass finds nothing to edit.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nemo_llm::{EditSet, Endpoint, Spliced, Target, parse, providers, splice};
use serde_json::Value;

const UPSTREAM_MODEL: &str = "vendor/\"upstream\"";

fuzz_target!(|data: &[u8]| {
    let Some((&choice, body)) = data.split_first() else { return };
    let body = Bytes::copy_from_slice(body);
    let endpoint = Endpoint::ALL[usize::from(choice) % Endpoint::ALL.len()];
    let Ok(envelope) = parse(endpoint, &body) else { return };

    // Numbers out of range and unpaired surrogates are grammatical, but beyond `Value`.
    let read = serde_json::from_slice::<Value>(&body).ok();
    if let Some(value) = &read {
        let chain = value["models"].as_array().and_then(|models| models.first());
        let named = value.get("model").or(chain).and_then(Value::as_str).map(str::trim);
        assert_eq!(named.or(endpoint.default_model()), Some(envelope.model.trim()));
        assert_eq!(value["stream"] == true && endpoint.streams(), envelope.stream);
    }
    let provider = &providers()[usize::from(choice) % providers().len()];
    let target = Target { provider, upstream_model: UPSTREAM_MODEL };
    let spliced = splice(&body, &envelope, endpoint, &target);
    let sent = Bytes::from(spliced.segments.concat());
    assert_eq!(sent.len(), spliced.len);
    segments_are_the_clients_in_order(&body, &spliced);

    if read.is_some() {
        let value: Value = serde_json::from_slice(&sent).expect("valid JSON goes upstream");
        assert_eq!(value["model"], UPSTREAM_MODEL);
        let names = value.as_object().expect("an object").keys();
        assert_eq!(names.filter(|name| name.starts_with("nemo_")).count(), 0);
    }
    let again = parse(endpoint, &sent).expect("what we send is what we would accept");
    assert_eq!(splice(&sent, &again, endpoint, &target).edits, EditSet::default());
});

/// Every segment is a slice of the body behind the one before, or one of the few things that are ever inserted.
fn segments_are_the_clients_in_order(body: &Bytes, spliced: &Spliced) {
    let inserts = [
        &br#""vendor/\"upstream\"""#[..],
        br#""model":"vendor/\"upstream\"","#,
        br#""stream_options":{"include_usage":true},"#,
        br#","stream_options":{"include_usage":true}"#,
        br#"{"include_usage":true}"#,
        br#""include_usage":true"#,
        br#""include_usage":true,"#,
        b"true",
        br#""max_tokens""#,
    ];
    let mut from = 0;
    for segment in &spliced.segments {
        let offset = (segment.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
        if offset < body.len() {
            assert!(offset >= from);
            from = offset + segment.len();
        } else {
            // Of two limits the smaller.
            let number = segment.iter().all(u8::is_ascii_digit);
            assert!(number || inserts.contains(&&segment[..]));
        }
    }
}
