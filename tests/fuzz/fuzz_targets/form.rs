//! A form is read and passed on the same way wherever the network cuts it, and only what is declared is changed.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nemo_llm::{FormScanner, Piece};

fuzz_target!(|data: &[u8]| {
    let Some((&step, form)) = data.split_first() else { return };
    let whole = passed(form, form.len().max(1));
    assert_eq!(passed(form, usize::from(step).max(1)), whole);
    assert_eq!(passed(form, 1), whole);
    if let Some((out, 0)) = whole {
        assert_eq!(out, form, "nothing was taken out, and the model was not renamed");
    }
});

/// What goes on of a form with the boundary `b`, and how many bytes were taken out; `None` when it is refused.
fn passed(form: &[u8], step: usize) -> Option<(Vec<u8>, u64)> {
    let mut scanner = FormScanner::new("b");
    let mut pieces = Vec::new();
    for frame in form.chunks(step) {
        scanner.push(Bytes::copy_from_slice(frame), &mut pieces).ok()?;
    }
    scanner.finish().ok()?;
    let bytes = pieces.into_iter().flat_map(|piece| match piece {
        Piece::Raw(bytes) | Piece::Model(bytes) => bytes,
    });
    Some((bytes.collect(), scanner.stripped()))
}
