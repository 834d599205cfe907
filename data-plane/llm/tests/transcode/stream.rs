//! Streams: each through every encoder, with the order of events checked on the way, and cut at every byte.

use std::fmt::Write as _;

use bytes::Bytes;
use nemo_llm::{
    Dialect, SseScanner,
    codec::{Decoder, Encoder},
    ir::{Event, Events},
};
use serde_json::Value;

use crate::{
    corpus::{CLIENTS, Case, Matrix, UPSTREAMS},
    grammar::Grammar,
};

type Named = (String, Vec<u8>);

/// The events of a stream that arrives in two pieces.
fn events(stream: &[u8], cut: usize) -> Vec<Named> {
    let mut scanner = SseScanner::new();
    let mut events = Vec::new();
    for piece in [&stream[..cut], &stream[cut..]] {
        let take = |event: nemo_llm::SseEvent<'_>| {
            events.push((String::from_utf8_lossy(event.name).into_owned(), event.data.to_vec()));
        };
        scanner.push(&Bytes::copy_from_slice(piece), take).unwrap();
    }
    events
}

/// The frames of a Converse stream, written one to a line.
fn lines(text: &[u8]) -> Vec<Named> {
    let line = |line: &[u8]| {
        let frame: Value = serde_json::from_slice(line).unwrap();
        (frame["event"].as_str().unwrap().to_owned(), frame["data"].to_string().into_bytes())
    };
    text.split(|byte| *byte == b'\n').filter(|text| !text.is_empty()).map(line).collect()
}

/// What the client gets of these events, and a comment on how it ended where it did not end well.
fn transcode(case: &Case, events: &[Named], from: Dialect, to: Dialect) -> Vec<u8> {
    let mut decoder = Decoder::new(from).unwrap();
    let mut encoder = Encoder::new(to, case.echo()).unwrap();
    let mut grammar = Grammar::default();
    let mut out = Vec::new();
    for (name, data) in events {
        let mut decoded = Events::new();
        let result = decoder.event(name, data, &mut decoded);
        for event in &decoded {
            grammar.check(event).unwrap_or_else(|wrong| panic!("{} from {from:?}: {wrong}", case.name()));
            encoder.event(event, &mut out);
            if let Event::Error(info) = event {
                return comment(out, &format!("error {info:?}"));
            }
        }
        if let Err(error) = result {
            return comment(out, &format!("broken {:?} {}", error.path, error.message));
        }
        if grammar.ended() {
            return out;
        }
    }
    let mut last = Events::new();
    decoder.finish(&mut last);
    for event in &last {
        grammar.check(event).unwrap_or_else(|wrong| panic!("{} from {from:?}: {wrong}", case.name()));
        encoder.event(event, &mut out);
    }
    if grammar.ended() { out } else { comment(out, "cut short") }
}

fn comment(out: Vec<u8>, text: &str) -> Vec<u8> {
    let mut out = String::from_utf8(out).unwrap();
    let _ = write!(out, ": {text}\n\n");
    out.into_bytes()
}

#[test]
fn streams_become_what_the_corpus_says_wherever_the_network_cuts() {
    let mut matrix = Matrix::new("stream");
    for case in Case::all("stream") {
        for from in UPSTREAMS {
            let read = if from == Dialect::Converse {
                case.input("converse.in.jsonl").map(|text| lines(&text))
            } else {
                case.input(&format!("{}.in.sse", from.name())).map(|stream| {
                    let whole = events(&stream, 0);
                    for cut in 1..=stream.len() {
                        assert_eq!(events(&stream, cut), whole, "{}: cut at {cut}", case.name());
                    }
                    whole
                })
            };
            let Some(read) = read else { continue };
            for to in CLIENTS.into_iter().filter(|to| *to != from) {
                let out = transcode(&case, &read, from, to);
                let refused = out.windows(9).any(|text| text == b": broken ");
                let file = format!("{}-to-{}.sse", from.name(), to.name());
                matrix.compare(&case, &file, &out, (from, to), refused);
            }
        }
    }
    matrix.finish();
}
