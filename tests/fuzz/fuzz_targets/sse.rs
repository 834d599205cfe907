//! Events do not depend on where the network cuts, on arbitrary bytes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nemo_llm::SseScanner;

fuzz_target!(|data: &[u8]| {
    let Some((&step, stream)) = data.split_first() else { return };
    let whole = events(stream, stream.len().max(1));
    assert_eq!(events(stream, usize::from(step).max(1)), whole);
    assert_eq!(events(stream, 1), whole);
});

/// Names and data of the events, and whether one is open at the end, in frames of `step` bytes.
fn events(stream: &[u8], step: usize) -> (Vec<(Vec<u8>, Vec<u8>)>, bool) {
    let mut scanner = SseScanner::new();
    let mut events = Vec::new();
    for frame in stream.chunks(step) {
        let frame = Bytes::copy_from_slice(frame);
        scanner
            .push(&frame, |event| events.push((event.name.to_vec(), event.data.to_vec())))
            .expect("the input is shorter than any bound");
    }
    (events, scanner.is_between_events())
}
