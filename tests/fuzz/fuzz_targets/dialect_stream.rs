//! Any stream is read as one of any upstream's dialect or refused, and every client's dialect is written of what was read:
//! as whole events, and without an end where the upstream had none.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nemo_llm::{
    Dialect, Echo, SseScanner,
    codec::{Decoder, Encoder},
    ir::{Event, Events},
};

fuzz_target!(|data: &[u8]| {
    let [from, to, stream @ ..] = data else { return };
    let of = |byte: &u8| Dialect::ALL[usize::from(*byte) % Dialect::ALL.len()];
    let echo = Echo { id: "1".into(), model: "m".into(), include_usage: true, ..Echo::default() };
    let (Some(mut decoder), Some(mut encoder)) = (Decoder::new(of(from)), Encoder::new(of(to), echo)) else {
        return;
    };
    let (mut out, mut over) = (Vec::new(), false);
    let read = |event: nemo_llm::SseEvent<'_>| {
        if over {
            return;
        }
        let name = String::from_utf8_lossy(event.name);
        let mut events = Events::new();
        over = decoder.event(&name, event.data, &mut events).is_err();
        for event in &events {
            over |= matches!(event, Event::End | Event::Error(_));
            encoder.event(event, &mut out);
        }
    };
    SseScanner::new()
        .push(&Bytes::copy_from_slice(stream), read)
        .expect("the input is shorter than any bound");
    let mut last = Events::new();
    decoder.finish(&mut last);
    last.iter().for_each(|event| encoder.event(event, &mut out));
    // Google ends its lines as HTTP does.
    assert!(out.is_empty() || out.ends_with(b"\n\n") || out.ends_with(b"\r\n\r\n"));
    assert!(std::str::from_utf8(&out).is_ok());
});
