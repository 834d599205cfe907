use proptest::prelude::*;

use super::*;

/// A frame with headers of every type, as Python's `struct` and `zlib` made it and botocore reads it.
const EVERY_TYPE: &str = "000000a000000077db64a4600161000162010163027f01640301020165040000000101660500000000000000\
    000167060003ff00010168080000000000000000016909111111111111111111111111111111110d3a6d6573736167652d7479706507000565\
    76656e740b3a6576656e742d7479706507000b6d65737361676553746f707b2273746f70526561736f6e223a22656e645f7475726e227d82\
    82438d";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

type Owned = (FrameKind, String, Vec<u8>);

fn scan(pieces: &[&[u8]]) -> Result<Vec<Owned>, FrameError> {
    let (mut scanner, mut found) = (FrameScanner::new(), Vec::new());
    for piece in pieces {
        scanner.push(piece, |it| found.push((it.kind, it.name.to_owned(), it.payload.to_vec())))?;
    }
    Ok(found)
}

#[test]
fn headers_of_every_type_are_passed_over() {
    let frame = bytes(EVERY_TYPE);
    let expected = (FrameKind::Event, "messageStop".to_owned(), br#"{"stopReason":"end_turn"}"#.to_vec());
    assert_eq!(scan(&[&frame]), Ok(vec![expected]));
}

/// The smallest frame that AWS's own test suite has: no headers, no payload.
#[test]
fn an_empty_frame_is_a_frame() {
    let frame = bytes("000000100000000005c248eb7d98c8ff");
    assert_eq!(scan(&[&frame]), Ok(vec![(FrameKind::Event, String::new(), Vec::new())]));
}

/// Split at every byte.
#[test]
fn where_the_network_cuts_makes_no_difference() {
    let mut stream = bytes(EVERY_TYPE);
    stream.extend(write(FrameKind::Event, "contentBlockDelta", "{\"delta\":{\"text\":\"é\"}}".as_bytes()));
    stream.extend(write(FrameKind::Exception, "throttlingException", br#"{"message":"slow down"}"#));
    let whole = scan(&[&stream]).unwrap();
    assert_eq!(whole.len(), 3);
    assert_eq!((whole[2].0, &*whole[2].1), (FrameKind::Exception, "throttlingException"));
    for at in 0..=stream.len() {
        let (head, tail) = stream.split_at(at);
        assert_eq!(scan(&[head, tail]).as_ref(), Ok(&whole), "{at}");
    }
    let single: Vec<_> = stream.chunks(1).collect();
    assert_eq!(scan(&single), Ok(whole));
}

/// C 24: a frame that was altered is no frame, and a length that lies is noticed before anything is waited for.
#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let frame = bytes(EVERY_TYPE);
    for at in 0..frame.len() * 8 {
        let mut altered = frame.clone();
        altered[at / 8] ^= 1 << (at % 8);
        assert_eq!(scan(&[&altered]), Err(FrameError::Checksum), "bit {at}");
    }
}

/// A frame with a valid prelude.
fn prelude(length: u32, headers: u32) -> Vec<u8> {
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(headers.to_be_bytes());
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    frame
}

#[test]
fn memory_is_bounded_whatever_a_frame_says() {
    assert_eq!(scan(&[&prelude(u32::MAX, 0)]), Err(FrameError::Length(u32::MAX)));
    assert_eq!(scan(&[&prelude(15, 0)]), Err(FrameError::Length(15)));
    assert_eq!(scan(&[&prelude(1 << 20, 1 << 18)]), Err(FrameError::Headers(1 << 18)));
    assert_eq!(scan(&[&prelude(32, 17)]), Err(FrameError::Headers(17)));
    assert_eq!(scan(&[&prelude(16 << 20, 0)]), Ok(Vec::new()), "is waited for");
}

#[test]
fn an_undocumented_error_says_its_message() {
    let mut headers = Vec::new();
    for (name, value) in
        [(":message-type", "error"), (":error-code", "InternalFailure"), (":error-message", "it broke")]
    {
        headers.push(u8::try_from(name.len()).unwrap());
        headers.extend(name.bytes());
        headers.extend([7, 0, u8::try_from(value.len()).unwrap()]);
        headers.extend(value.bytes());
    }
    let size = |length: usize| u32::try_from(length).unwrap();
    let mut frame = prelude(size(OVERHEAD + headers.len()), size(headers.len()));
    frame.extend(headers);
    frame.extend(crc32fast::hash(&frame).to_be_bytes());
    assert_eq!(scan(&[&frame]), Ok(vec![(FrameKind::Error, "error".to_owned(), b"it broke".to_vec())]));
}

#[test]
fn a_header_that_ends_too_late_or_is_no_text_is_an_error() {
    for headers in [&b"\x05ab"[..], b"\x01a\x07\x00\x09b", b"\x01a\x63", b"\x01a\x07\x00\x01\xff", b"\x01"] {
        let size = |length: usize| u32::try_from(length).unwrap();
        let mut frame = prelude(size(OVERHEAD + headers.len()), size(headers.len()));
        frame.extend(headers);
        frame.extend(crc32fast::hash(&frame).to_be_bytes());
        assert_eq!(scan(&[&frame]), Err(FrameError::Header), "{headers:?}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_nothing_breaks(input: Vec<u8>, cut in 0_usize..64) {
        let at = cut.min(input.len());
        let _ = scan(&[&input[..at], &input[at..]]);
    }

    #[test]
    fn what_is_written_is_read(name in "[a-zA-Z]{1,40}", payload: Vec<u8>) {
        let frame = write(FrameKind::Event, &name, &payload);
        prop_assert_eq!(scan(&[&frame]), Ok(vec![(FrameKind::Event, name, payload)]));
    }
}
