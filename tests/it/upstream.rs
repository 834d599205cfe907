//! The harness itself: what the scripted upstream promises to other suites, over real connections.

use std::time::{Duration, Instant};

use nemo_tests::client::{Client, End};
use nemo_tests::eventually::{eventually, yes};
use nemo_tests::script::{Ending, Script};
use nemo_tests::upstream::{Ended, Upstream};
use serde_json::json;

const CHAT: &str = "/v1/chat/completions";

async fn start() -> (Upstream, Client) {
    let upstream = Upstream::start().await.unwrap();
    let client = Client::new(upstream.addr());
    (upstream, client)
}

fn chat(model: &str, stream: bool) -> String {
    json!({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}).to_string()
}

#[tokio::test]
async fn every_endpoint_answers_in_its_form() {
    let (upstream, client) = start().await;
    let answer = client.post(CHAT, chat("gpt-4o", false)).await.unwrap();
    assert_eq!((answer.status, answer.end), (200, End::Complete));
    assert_eq!(answer.json().unwrap()["object"], "chat.completion");
    assert_eq!(answer.header("content-length").unwrap(), answer.body.len().to_string());
    let legacy = client.post("/v1/completions", r#"{"model":"m","prompt":"x"}"#).await.unwrap();
    assert_eq!(legacy.json().unwrap()["object"], "text_completion");
    let vectors = client.post("/v1/embeddings", r#"{"model":"m","input":["a","b"]}"#).await.unwrap();
    assert_eq!(vectors.json().unwrap()["data"].as_array().unwrap().len(), 2);
    assert_eq!(client.get("/v1/models").await.unwrap().json().unwrap()["data"][0]["id"], "gpt-4o-mini");
    assert_eq!(client.get("/v1/models/gpt-4o").await.unwrap().json().unwrap()["id"], "gpt-4o");
    assert_eq!(client.get("/v1/models/unknown").await.unwrap().status, 404);
    assert_eq!(client.post(CHAT, "{").await.unwrap().status, 400);
    assert_eq!(upstream.served(), 7);
}

#[tokio::test]
async fn requests_are_recorded_byte_for_byte_and_the_oldest_are_dropped() {
    let upstream = Upstream::builder().record_limit(2).start().await.unwrap();
    let client = Client::new(upstream.addr()).header("X-Probe", "1");
    let body = "{ \"model\":\"a\",  \"messages\": [] , \"x\": 1.0e0}";
    for _ in 0..3 {
        client.post(CHAT, body).await.unwrap();
    }
    let requests = upstream.requests();
    assert_eq!(requests.iter().map(|request| request.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!((requests[1].body.as_ref(), requests[1].header("x-probe")), (body.as_bytes(), Some("1")));
    assert_eq!((requests[1].path.as_str(), upstream.dropped_records()), (CHAT, 1));
    assert_eq!(requests[1].ended().unwrap().0, Ended::Played);
}

#[tokio::test]
async fn a_stream_arrives_event_by_event_while_it_is_made() {
    let (upstream, client) = start().await;
    upstream.push(Script::ok().pieces(4).pause(Duration::from_millis(20)));
    let answer = client.post(CHAT, chat("gpt-4o", true)).await.unwrap();
    let events = answer.events();
    assert_eq!((events.len(), answer.end), (7, End::Complete));
    assert_eq!(events[6].data, "[DONE]");
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(answer.total >= Duration::from_millis(120), "{:?}", answer.total);

    upstream.push(Script::ok().pieces(4).pause(Duration::from_secs(600)));
    let mut exchange = client.open("POST", CHAT, chat("gpt-4o", true).as_bytes()).await.unwrap();
    assert_eq!(exchange.read_events(1).await.unwrap().len(), 1);
    assert_eq!(upstream.last_request().unwrap().ended(), None);
}

#[tokio::test]
async fn a_script_is_taken_from_header_then_queue_then_model_then_suffix() {
    let (upstream, client) = start().await;
    upstream.script_model("bad", Script::status(500));
    upstream.push(Script::status(429).header("retry-after", "2").unwrap());
    let by_header = client.clone().header("x-mock-script", "status=418");
    assert_eq!(by_header.post(CHAT, chat("bad", false)).await.unwrap().status, 418);
    let queued = client.post(CHAT, chat("bad", false)).await.unwrap();
    assert_eq!((queued.status, queued.header("retry-after")), (429, Some("2")));
    assert_eq!(queued.json().unwrap()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(client.post(CHAT, chat("bad", false)).await.unwrap().status, 500);
    assert_eq!(client.post(CHAT, chat("bad!status=503", false)).await.unwrap().status, 503);
    let answer = client.post(CHAT, chat("good!pieces=3", false)).await.unwrap();
    assert_eq!(answer.json().unwrap()["model"], "good");
    assert_eq!(client.post(CHAT, chat("good!nonsense", false)).await.unwrap().status, 400);
}

#[tokio::test]
async fn connections_break_as_scripted() {
    let (upstream, client) = start().await;
    let play = async |script: Script, stream: bool| {
        upstream.push(script);
        client.post(CHAT, chat("gpt-4o", stream)).await
    };
    let cut = play(Script::ok().ending(Ending::Cut(100)), true).await.unwrap();
    assert_eq!((cut.body.len(), cut.end), (100, End::Truncated));
    let cut = play(Script::ok().ending(Ending::Cut(10)), false).await.unwrap();
    assert_eq!((cut.body.len(), cut.end), (10, End::Truncated));
    let reset = play(Script::ok().ending(Ending::Reset(100)), true).await.unwrap();
    assert_eq!(reset.end, End::Reset);
    let no_done = play(Script::ok().ending(Ending::NoDone), true).await.unwrap();
    assert!(no_done.end == End::Complete && !no_done.text().contains("[DONE]"));
    let broken = play(Script::ok().malformed(), false).await.unwrap();
    assert!(broken.end == End::Complete && broken.json().is_err());
    let refused = play(Script::wire("HTTP/1.1 200 OK\r\ncontent-le"), false).await;
    assert!(refused.is_err());
    let foreign = play(Script::wire("HTTP/1.1 299 Odd\r\ncontent-length: 2\r\n\r\nhi"), false).await.unwrap();
    assert_eq!((foreign.status, foreign.text().as_str()), (299, "hi"));
}

#[tokio::test]
async fn a_recording_is_replayed_byte_for_byte_in_any_division() {
    let (upstream, client) = start().await;
    let recorded = "data: {\"délta\":1}\r\n\r\n: ping\n\ndata: [DONE]\n\n";
    upstream.push(Script::replay("text/event-stream", recorded).drip(3, Duration::from_millis(1)));
    let answer = client.post(CHAT, chat("gpt-4o", true)).await.unwrap();
    assert_eq!((answer.text().as_str(), answer.end), (recorded, End::Complete));
    assert!(answer.pieces.len() > 5, "{} pieces", answer.pieces.len());
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_before_the_head_and_in_the_stream() {
    let (upstream, client) = start().await;
    upstream.push(Script::ok().ending(Ending::Hang(100)));
    let mut exchange = client.open("POST", CHAT, chat("gpt-4o", true).as_bytes()).await.unwrap();
    exchange.read_until(|body| body.len() >= 100).await.unwrap();
    let record = upstream.last_request().unwrap();
    assert_eq!(record.ended(), None);
    drop(exchange);
    eventually("the hang to end", async || yes(record.client_gone_at().is_some())).await.unwrap();

    upstream.push(Script::ok().delay(Duration::from_secs(600)));
    let left = Instant::now();
    tokio::select! {
        answer = client.open("POST", CHAT, b"{}") => panic!("{answer:?}"),
        asked = eventually("the second request", async || yes(upstream.requests().len() == 2)) => asked.unwrap(),
    }
    let gone = async || upstream.last_request().unwrap().client_gone_at().ok_or("still waiting");
    assert!(eventually("the delay to end", gone).await.unwrap() > left);
}

#[tokio::test]
async fn a_wrong_key_is_refused_in_openai_form() {
    let upstream = Upstream::builder().api_key(Some("sk-right".into())).start().await.unwrap();
    let client = Client::new(upstream.addr());
    let refused = client.clone().bearer("sk-wrong").post(CHAT, chat("m", false)).await.unwrap();
    assert_eq!((refused.status, &refused.json().unwrap()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert_eq!(client.bearer("sk-right").post(CHAT, chat("m", false)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_dropped_upstream_accepts_no_connection() {
    let (upstream, client) = start().await;
    drop(upstream);
    let refused = async || yes(client.post(CHAT, "{}").await.is_err());
    eventually("the port to be closed", refused).await.unwrap();
}
