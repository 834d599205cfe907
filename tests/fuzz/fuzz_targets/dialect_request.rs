//! Any bytes are read as a request of any client's dialect or refused with words; what was read is written as JSON for
//! every upstream's dialect, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_llm::{Destination, Dialect, Inbound, codec, providers};

fuzz_target!(|data: &[u8]| {
    let [from, provider, body @ ..] = data else { return };
    let from = Dialect::ALL[usize::from(*from) % Dialect::ALL.len()];
    let provider = &providers()[usize::from(*provider) % providers().len()];
    let inbound = Inbound { model: "m", stream: body.len() % 2 == 1 };
    let request = match codec::decode_request(from, body, inbound) {
        Ok(request) => request,
        Err(refused) => return assert!(!refused.message.is_empty()),
    };
    for to in Dialect::ALL {
        let destination =
            Destination { provider, model: "m", most_output: 4096, cap: Some(100), hosted: false };
        match codec::encode_request(&request, to, &destination) {
            Ok(encoded) => {
                serde_json::from_slice::<serde::de::IgnoredAny>(&encoded.body)
                    .expect("what is written is JSON");
            }
            Err(refused) => assert!(!refused.message.is_empty()),
        }
    }
});
