//! Frames of AWS's event streams do not depend on where the network cuts: on arbitrary bytes, and on arbitrary headers
//! and payloads in frames whose checksums hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nemo_llm::aws_event_stream::{FrameError, FrameKind, FrameScanner};

type Found = (Vec<(FrameKind, String, Vec<u8>)>, Result<bool, FrameError>);

fuzz_target!(|data: &[u8]| {
    let Some((&[step, headers], rest)) = data.split_first_chunk() else { return };
    let step = usize::from(step).max(1);
    let at = usize::from(headers).min(rest.len());
    let framed = frame(&rest[..at], &rest[at..]);
    for stream in [rest, &framed, &[&framed[..], rest].concat()] {
        let whole = scan(stream, stream.len().max(1));
        assert_eq!(scan(stream, step), whole);
        assert_eq!(scan(stream, 1), whole);
    }
});

/// The frames before the first error, and whether none is open at the end.
fn scan(stream: &[u8], step: usize) -> Found {
    let (mut scanner, mut found) = (FrameScanner::new(), Vec::new());
    for bytes in stream.chunks(step) {
        let pushed = scanner
            .push(bytes, |frame| found.push((frame.kind, frame.name.to_owned(), frame.payload.to_vec())));
        if let Err(error) = pushed {
            return (found, Err(error));
        }
    }
    (found, Ok(scanner.is_between_frames()))
}

fn frame(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let size = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = [size(16 + headers.len() + payload.len()), size(headers.len())].concat();
    frame.extend(crc(&frame).to_be_bytes());
    frame.extend([headers, payload].concat());
    frame.extend(crc(&frame).to_be_bytes());
    frame
}

/// CRC-32, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8)
            .fold(crc ^ u32::from(*byte), |crc: u32, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
