//! What the client gets and what is noted of a stream do not depend on where the network cuts, and without a cut
//! to make the stream is forwarded as it came, on arbitrary bytes. A stream with an event that is no JSON ends there, which
//! is seen at the event's end: how much of the event was forwarded by then does depend on it.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nemo_llm::{Endpoint, StreamObserver};

fuzz_target!(|data: &[u8]| {
    let [choice, step, stream @ ..] = data else { return };
    let endpoint = Endpoint::ALL[usize::from(choice >> 1) % Endpoint::ALL.len()];
    let cut = choice & 1 == 1;
    let whole = replay(endpoint, cut, stream, stream.len().max(1));
    for step in [usize::from(*step).max(1), 1] {
        let pieces = replay(endpoint, cut, stream, step);
        assert_eq!(pieces, whole);
    }
    let Some((out, _)) = whole else { return };
    if cut {
        assert!(out.len() <= stream.len());
    } else {
        assert_eq!(out, stream);
    }
});

/// `None`: an event of it is no JSON.
fn replay(endpoint: Endpoint, cut: bool, stream: &[u8], step: usize) -> Option<(Vec<u8>, String)> {
    let mut observer = StreamObserver::new(endpoint, cut);
    let mut out = Vec::new();
    for frame in stream.chunks(step) {
        let pieces =
            observer.frame(Bytes::copy_from_slice(frame)).expect("the input is shorter than any bound");
        out.extend(pieces.concat());
        if observer.is_malformed() {
            return None;
        }
    }
    let end = observer.finish();
    if observer.is_malformed() {
        return None;
    }
    out.extend(end.as_ref().map(|pieces| pieces.concat()).unwrap_or_default());
    let notes = format!(
        "{} {:?} {:?} {:?} {} {} {:?} {}",
        end.is_ok(),
        observer.usage(),
        observer.provider_cost(),
        observer.finish_reason(),
        observer.seen_content(),
        observer.output_bytes(),
        observer.error(),
        observer.is_between_events(),
    );
    Some((out, notes))
}
