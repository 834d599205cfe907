//! Golden corpus of the dialects: what a request, an answer, a stream and an error of one dialect become in every other.
//! One folder per case in `tests/golden/transcode/<kind>/<case>/`; the same files seed the fuzz targets.
//!
//! | kind | input | expectation |
//! |---|---|---|
//! | `request` | `<client>.in.json`: any of chat, completions, responses, messages, generate_content | `<client>-to-<upstream>.json`: `{"body", "dropped"}` with `"forced_tool"` where it is so, or `{"error": {"path", "message", "unsupported"}}` |
//! | `response` | `<upstream>.in.json`: any of chat, responses, messages, generate_content, converse, cohere | `<upstream>-to-<client>.json` |
//! | `stream` | `<upstream>.in.sse`; of Converse `converse.in.jsonl` with one `{"event", "data"}` to a line | `<upstream>-to-<client>.sse`; a comment at the end tells an error or that the stream was cut short |
//! | `error` | `<upstream>.in.json`, the status in `case.json` | `<upstream>.out.json` |
//!
//! `case.json`, optional: `model` and `provider` by upstream dialect, `cap`, `most_output`, `hosted`, `status`, `echo_request`
//! (the client's request that an answer repeats parts of), `affinity`.
//!
//! `UPDATE_GOLDEN=1 cargo test -p nemo-llm --test transcode` rewrites the expectations, `GOLDEN_ONLY=<part of a path>` limits
//! a run to some of them. Read the diff.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the matrix of cases is what one looks at")]

mod corpus;
mod grammar;
mod robust;
mod stream;

use corpus::{CLIENTS, Case, Matrix, UPSTREAMS, pretty};
use nemo_llm::{CodecError, Dialect, codec};
use serde_json::{Value, json};

fn error(error: &CodecError) -> Value {
    assert!(!error.message.is_empty(), "an error without words");
    json!({ "error": { "path": error.path, "message": error.message, "unsupported": error.unsupported } })
}

/// A request in the words of an upstream, as the expectation has it.
fn encoded(case: &Case, body: &[u8], from: Dialect, to: Dialect) -> Value {
    let request = match codec::decode_request(from, body, case.inbound()) {
        Ok(request) => request,
        Err(refused) => return error(&refused),
    };
    let encoded = match codec::encode_request(&request, to, &case.destination(to)) {
        Ok(encoded) => encoded,
        Err(refused) => return error(&refused),
    };
    let written: Value = serde_json::from_slice(&encoded.body)
        .unwrap_or_else(|error| panic!("{}: {from:?} to {to:?} is no JSON: {error}", case.name()));
    // What we write, we can read: a second pair of eyes on the shape.
    if CLIENTS.contains(&to)
        && let Err(error) = codec::decode_request(to, &encoded.body, case.inbound())
    {
        panic!("{}: {from:?} to {to:?} can't be read back: {error} at {}", case.name(), error.path);
    }
    let dropped: Vec<_> = encoded.dropped.iter().map(|param| param.name(from)).collect();
    let mut expectation = json!({ "body": written, "dropped": dropped });
    if encoded.forced_tool {
        expectation["forced_tool"] = true.into();
    }
    expectation
}

#[test]
fn requests_become_what_the_corpus_says() {
    let mut matrix = Matrix::new("request");
    for case in Case::all("request") {
        for from in CLIENTS {
            let Some(body) = case.input(&format!("{}.in.json", from.name())) else { continue };
            for to in UPSTREAMS.into_iter().filter(|to| *to != from) {
                let expectation = encoded(&case, &body, from, to);
                let refused = expectation.get("error").is_some();
                let file = format!("{}-to-{}.json", from.name(), to.name());
                matrix.compare(&case, &file, &pretty(&expectation), (from, to), refused);
            }
        }
    }
    matrix.finish();
}

#[test]
fn answers_become_what_the_corpus_says() {
    let mut matrix = Matrix::new("response");
    for case in Case::all("response") {
        for from in UPSTREAMS {
            let Some(body) = case.input(&format!("{}.in.json", from.name())) else { continue };
            let response = codec::decode_response(from, &body);
            for to in CLIENTS.into_iter().filter(|to| *to != from) {
                let expectation = match &response {
                    Err(refused) => error(refused),
                    Ok(response) => {
                        let written = codec::encode_response(to, response, &case.echo());
                        serde_json::from_slice(&written)
                            .unwrap_or_else(|error| panic!("{}: {from:?} to {to:?}: {error}", case.name()))
                    }
                };
                let file = format!("{}-to-{}.json", from.name(), to.name());
                matrix.compare(&case, &file, &pretty(&expectation), (from, to), response.is_err());
            }
        }
    }
    matrix.finish();
}

#[test]
fn errors_become_what_the_corpus_says() {
    let mut matrix = Matrix::new("error");
    for case in Case::all("error") {
        for from in UPSTREAMS {
            let Some(body) = case.input(&format!("{}.in.json", from.name())) else { continue };
            let info = codec::decode_error(from, case.status(), &body);
            let expectation = json!({
                "message": info.message, "type": info.kind, "code": info.code, "param": info.param,
            });
            let file = format!("{}.out.json", from.name());
            matrix.compare(&case, &file, &pretty(&expectation), (from, from), false);
        }
    }
    matrix.finish();
}
