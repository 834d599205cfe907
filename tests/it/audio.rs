//! Sound: spoken (binary, streamed) and written down (forms), each billed by its own unit.

use nemo_tests::{
    client::End,
    script::{Ending, Script, UsageReport},
    upstream::media::sound,
};
use serde_json::{Value, json};

use super::media::{FORM, SPEECH, TRANSCRIBE, WHISPER, field, file, fleet, form, quantity, row};

#[tokio::test]
async fn speech_is_passed_on_while_it_comes_and_billed_by_the_character() {
    let fleet = fleet().await;
    let text = "Grüße, Welt";
    let request = json!({ "model": SPEECH, "voice": "alloy", "input": text }).to_string();
    // Not when it is complete, which this one never is.
    fleet.upstream.push(Script::ok().ending(Ending::Hang(700)));
    let mut begun = fleet.client.open("POST", "/v1/audio/speech", request.as_bytes()).await.unwrap();
    let first = begun.read_until(|body| body.len() >= 700).await.unwrap();
    assert_eq!(first, sound(text)[..700]);
    assert_eq!(fleet.upstream.last_request().unwrap().ended(), None);
    drop(begun);

    let response = fleet.client.post("/v1/audio/speech", request).await.unwrap();
    assert_eq!((response.status, response.header("content-type")), (200, Some("audio/mpeg")));
    assert_eq!(response.body, sound(text));
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.000165"), "11 characters at 15 USD per million");
    let logged = row(&fleet, &response).await;
    assert_eq!(quantity(&logged, "characters"), Some(11));
    assert_eq!((&logged["cost_nanos"], &logged["cost_source"]), (&json!(165_000), &json!("priced")));
    assert_eq!((&logged["input_tokens"], &logged["usage_estimated"]), (&Value::Null, &json!(false)));
}

/// C16: also where no comment can be sent, and long before the wait for the first byte would be over.
#[tokio::test]
async fn speech_that_stalls_is_cut_off() {
    let fleet = fleet().await;
    let idle = json!({ "value": "500" });
    fleet.admin.put(&fleet.org("/settings/timeouts.idle_ms?wait=fleet"), idle).await.unwrap();
    let request = json!({ "model": SPEECH, "voice": "alloy", "input": "a long sentence" });
    fleet.upstream.push(Script::ok().ending(Ending::Hang(700)));
    let response = fleet.client.post("/v1/audio/speech", request.to_string()).await.unwrap();
    assert_eq!(response.status, 200);
    assert_ne!(response.end, End::Complete);
    assert_eq!(response.body, sound("a long sentence")[..700]);
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["outcome"], &logged["error_code"]), (&json!("interrupted"), &json!("idle_timeout")));
}

/// B7.
#[tokio::test]
async fn speech_that_breaks_off_does_not_look_complete() {
    let fleet = fleet().await;
    let request = json!({ "model": SPEECH, "voice": "alloy", "input": "a long sentence" });
    fleet.upstream.push(Script::ok().ending(Ending::Cut(700)));
    let response = fleet.client.post("/v1/audio/speech", request.to_string()).await.unwrap();
    assert_eq!(response.status, 200);
    assert_ne!(response.end, End::Complete);
    assert!(response.body.len() <= 700 && sound("a long sentence").starts_with(&response.body));
    assert_eq!(row(&fleet, &response).await["outcome"], "interrupted");
}

#[tokio::test]
async fn speech_as_events_is_metered_by_its_last_one() {
    let fleet = fleet().await;
    let request = json!({ "model": SPEECH, "voice": "alloy", "input": "hi", "stream_format": "sse" });
    let response = fleet.client.post("/v1/audio/speech", request.to_string()).await.unwrap();
    assert_eq!(response.events().last().unwrap().raw.lines().next(), Some("event: speech.audio.done"));
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["input_tokens"], &logged["output_tokens"]), (&json!(14), &json!(101)));
    assert_eq!(quantity(&logged, "characters"), Some(2));
}

#[tokio::test]
async fn a_transcription_is_billed_by_the_second_or_by_the_token() {
    let fleet = fleet().await;
    let recording = vec![1; 8500];
    let send = async |model: &str, more: &[(&str, &str)], path: &str| {
        let mut parts = vec![file("file", &recording), field("model", model)];
        parts.extend(more.iter().map(|(name, value)| field(name, value)));
        fleet.client.post_as(path, FORM, &[&form(&parts)]).await.unwrap()
    };
    let response = send(WHISPER, &[], "/v1/audio/transcriptions").await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.0009"), "9 seconds at 0.0001 USD");
    let logged = row(&fleet, &response).await;
    assert_eq!(quantity(&logged, "audio_milliseconds"), Some(9000));
    assert_eq!(logged["cost_nanos"], json!(900_000));

    let response = send(WHISPER, &[("response_format", "verbose_json")], "/v1/audio/translations").await;
    assert_eq!(response.json().unwrap()["duration"], json!(9.0));
    assert_eq!(row(&fleet, &response).await["endpoint"], "audio.translations");

    // Subtitles tell no length: then nobody knows the cost, and it is not zero.
    let response = send(WHISPER, &[("response_format", "srt")], "/v1/audio/transcriptions").await;
    assert!(response.text().contains("-->"), "{}", response.text());
    assert_eq!(response.header("x-nemo-cost-usd"), None);
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["cost_nanos"], &logged["cost_source"]), (&Value::Null, &json!("")));

    let response = send(TRANSCRIBE, &[], "/v1/audio/transcriptions").await;
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["input_tokens"], &logged["output_tokens"]), (&json!(90), &json!(9)));
    assert_eq!(logged["cost_nanos"], json!(90 * 5000 + 9 * 10_000));
}

#[tokio::test]
async fn a_streamed_transcription_passes_through_and_ends_only_when_it_is_complete() {
    let fleet = fleet().await;
    let parts = [field("model", TRANSCRIBE), field("stream", "true"), file("file", &[1; 2000])];
    let body = form(&parts);
    let response = fleet.client.post_as("/v1/audio/transcriptions", FORM, &[&body]).await.unwrap();
    let events = response.chunks().unwrap();
    assert_eq!(events.last().unwrap()["type"], "transcript.text.done");
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, events.last().unwrap()["text"].as_str().unwrap());
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["stream"], &logged["input_tokens"]), (&json!(true), &json!(20)));

    fleet.upstream.push(Script::ok().usage(UsageReport::Missing).ending(Ending::HalfEvent));
    let response = fleet.client.post_as("/v1/audio/transcriptions", FORM, &[&body]).await.unwrap();
    assert_eq!(response.end, End::Truncated);
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["outcome"], &logged["cost_nanos"]), (&json!("interrupted"), &Value::Null));
}
