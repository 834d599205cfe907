//! Upstreams that answer a translated request with what no provider sends: the client gets a 502 in its own dialect, soon,
//! and the node holds on to nothing of it (requirement C 27). Answers of the client's own dialect are in `fault_matrix`.

use std::time::Duration;

use bytes::Bytes;
use nemo_tests::{client::Response, script::Script};
use serde_json::json;

use super::dialects::{Speaks, fleet};

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const FRAMES: &str = "application/vnd.amazon.eventstream";
/// More than a node reads of an answer that it has to have whole.
const TOO_MUCH: usize = 9 << 20;
/// Far more than any of it takes, and far less than the time in which an upstream has to answer.
const SOON: Duration = Duration::from_secs(30);

/// Answers that are no answers, for each upstream: what is wrong, and what comes.
fn whole() -> Vec<(&'static str, Script)> {
    let bomb = Script::replay(JSON, gzipped(TOO_MUCH)).header("content-encoding", "gzip").unwrap();
    let long = [br#"{"id":""#.to_vec(), vec![b'a'; TOO_MUCH], br#""}"#.to_vec()].concat();
    vec![
        ("a page", Script::replay("text/html", "<html><body>It works!</body></html>")),
        ("an empty body", Script::replay(JSON, "")),
        ("another value", Script::replay(JSON, "[1,2,3]")),
        ("half a body", Script::replay(JSON, r#"{"id":"x","content":["#)),
        ("no UTF-8", Script::replay(JSON, &b"{\"id\":\xff\xfe}"[..])),
        ("too deep", Script::replay(JSON, "[".repeat(1 << 20))),
        ("too long", Script::replay(JSON, long)),
        ("a compressed bomb", bomb),
        ("events that nobody asked for", Script::replay(EVENTS, "data: {}\n\n")),
    ]
}

/// The same where a stream was asked for.
fn streamed() -> Vec<(&'static str, Script)> {
    let endless = [b"data: ".to_vec(), vec![b'a'; 65 << 20]].concat();
    vec![
        ("a page", Script::replay("text/html", "<html><body>It works!</body></html>")),
        ("a whole answer", Script::replay(JSON, "{}")),
        ("an endless line", Script::replay(EVENTS, endless)),
        ("no UTF-8", Script::replay(EVENTS, &b"data: {\"type\":\"\xff\xfe\"}\n\n"[..])),
        ("no JSON", Script::replay(EVENTS, "data: It works!\n\n")),
        ("too deep", Script::replay(EVENTS, format!("data: {}\n\n", "[".repeat(1 << 20)))),
        ("nothing", Script::replay(EVENTS, "")),
    ]
}

/// The same in frames.
fn framed() -> Vec<(&'static str, Script)> {
    let frame = |length: u32, rest: usize| {
        let head = [length.to_be_bytes(), 0_u32.to_be_bytes()].concat();
        let sum = crc32(&head).to_be_bytes();
        Bytes::from([head, sum.to_vec(), vec![0; rest]].concat())
    };
    vec![
        ("a page", Script::replay("text/html", "<html><body>It works!</body></html>")),
        ("events", Script::replay(EVENTS, "data: {}\n\n")),
        ("a frame of 4 GB", Script::replay(FRAMES, frame(u32::MAX, 1 << 20))),
        ("a frame shorter than its head", Script::replay(FRAMES, frame(3, 64))),
        ("a wrong checksum", Script::replay(FRAMES, vec![0, 0, 0, 32, 0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0])),
        ("half a frame", Script::replay(FRAMES, frame(1000, 100))),
        ("nothing", Script::replay(FRAMES, "")),
    ]
}

#[tokio::test]
async fn what_no_provider_sends_is_a_502_in_the_clients_dialect() {
    let fleet = fleet().await;
    fleet.tolerant().await.unwrap();
    let once = fleet.client.clone().header("x-nemo-retries", "0");
    let mut wrong = Vec::new();
    for model in ["at-anthropic", "at-google", "at-bedrock", "at-cohere"] {
        for stream in [false, true] {
            let cases = match (stream, model) {
                (false, _) => whole(),
                (true, "at-bedrock") => framed(),
                (true, _) => streamed(),
            };
            for (index, (what, script)) in cases.into_iter().enumerate() {
                // Each meets another client: what is told depends on it, what is read does not.
                let client = others(model)[index % 3];
                fleet.upstream.push(script);
                let nothing = json!({});
                let told = match tokio::time::timeout(SOON, client.ask(&once, model, stream, &nothing)).await
                {
                    Ok(response) => refused(client, &response),
                    Err(_) => Err(format!("nothing within {SOON:?}")),
                };
                wrong.extend(told.err().map(|told| format!("{client:?} {model} {stream} {what}: {told}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // All of it was answered by a node that is as well as before.
    for client in Speaks::ALL {
        let response = client.ask(&fleet.client, "at-anthropic", false, &json!({})).await;
        assert_eq!(response.status, 200, "{client:?}: {}", response.text());
    }
}

/// The clients whose answers are translated: the words of their own dialect are passed on.
fn others(model: &str) -> [Speaks; 3] {
    match model {
        "at-anthropic" => [Speaks::Chat, Speaks::Responses, Speaks::Google],
        "at-google" => [Speaks::Chat, Speaks::Responses, Speaks::Messages],
        _ => [Speaks::Chat, Speaks::Messages, Speaks::Google],
    }
}

/// What the client got, if that is not a short error of its own dialect.
fn refused(client: Speaks, response: &Response) -> Result<(), String> {
    let body = response.json().unwrap_or_default();
    let error = &body["error"];
    let own = match client {
        Speaks::Google => error["code"].is_number() && error["status"].is_string(),
        Speaks::Messages => body["type"] == "error" && error["type"].is_string(),
        Speaks::Chat | Speaks::Responses => error["code"].is_string() && error["type"].is_string(),
    };
    let said = error["message"].as_str().unwrap_or_default().len();
    if response.status == 502 && own && (1..1000).contains(&said) {
        return Ok(());
    }
    Err(format!("{} {}", response.status, response.text().chars().take(300).collect::<String>()))
}

/// So many bytes of nothing, compressed.
fn gzipped(bytes: usize) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&vec![b' '; bytes]).unwrap();
    encoder.finish().unwrap()
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
