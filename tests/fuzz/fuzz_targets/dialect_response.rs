//! Any bytes are read as an answer of any upstream's dialect or refused; what was read is written as JSON for every
//! client's dialect. Error bodies are read whatever they are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_llm::{Dialect, Echo, codec};

fuzz_target!(|data: &[u8]| {
    let [from, status, body @ ..] = data else { return };
    let from = Dialect::ALL[usize::from(*from) % Dialect::ALL.len()];
    let _ = codec::decode_error(from, 400 + u16::from(*status), body);
    let Ok(response) = codec::decode_response(from, body) else { return };
    let echo = Echo { id: "1".into(), model: "m".into(), ..Echo::default() };
    for to in Dialect::ALL {
        let written = codec::encode_response(to, &response, &echo);
        serde_json::from_slice::<serde::de::IgnoredAny>(&written).expect("what is written is JSON");
    }
});
