//! The same models at other hosts: Azure in both forms of its URLs, Claude on Vertex AI, and models that are only to be had
//! through Responses (R000-1, E.4, E.6).

use nemo_tests::{
    client::End,
    fleet::UPSTREAM_KEY,
    upstream::{PROMPT_TOKENS, media::RESPONSE_TOKENS},
};
use serde_json::json;

use super::{
    conversions::{VERTEX, fleet_with_tokens, service_account},
    dialects::{PIECES, SENTENCE, Speaks, events, fleet, row, serve_as, settled},
};

/// What the mock says where nothing else is asked for of Responses.
const RESPONSE: &str = "The quick brown fox jumps over the lazy dog.";

/// A model without Chat Completions is good for every client all the same.
#[tokio::test]
async fn every_client_reaches_a_model_that_only_speaks_responses() {
    let fleet = fleet().await;
    let [input, output, cached, reasoning] = RESPONSE_TOKENS;
    for client in [Speaks::Chat, Speaks::Messages, Speaks::Google] {
        for stream in [false, true] {
            let what = format!("{client:?} {stream}");
            let extra = match client {
                Speaks::Chat if stream => json!({ "stream_options": { "include_usage": true } }),
                _ => json!({}),
            };
            let response = client.ask(&fleet.client, "at-responses", stream, &extra).await;
            let text = response.text();
            assert_eq!((response.status, response.end), (200, End::Complete), "{what}: {text}");
            let sent = fleet.upstream.last_request().unwrap();
            assert_eq!(sent.path, "/v1/responses", "{what}");
            let body = sent.json().unwrap();
            assert_eq!((&body["model"], body["stream"] == true), (&json!("mock"), stream), "{what}: {body}");
            // What no client of these can go on from is not kept either.
            assert_eq!(body["store"], false, "{what}: {body}");
            let usage = if stream {
                let events = events(&response);
                assert_eq!(client.streamed_text(&events), RESPONSE, "{what}: {text}");
                assert!(client.is_ended(&text), "{what}: {text}");
                events.iter().rev().map(|event| client.usage(event)).find(|it| it.1.is_some()).unwrap()
            } else {
                let answer = response.json().unwrap();
                assert_eq!(client.text(&answer), RESPONSE, "{what}: {answer}");
                assert_eq!(client.finish(&answer), client.stopped(), "{what}: {answer}");
                client.usage(&answer)
            };
            // Anthropic counts what was cached beside the rest, and Google the thoughts.
            let expected = match client {
                Speaks::Messages => (input - cached, output),
                Speaks::Google => (input, output - reasoning),
                _ => (input, output),
            };
            assert_eq!(usage.1, Some(expected.1), "{what}: {text}");
            if usage.0.is_some() {
                assert_eq!(usage.0, Some(expected.0), "{what}: {text}");
            }
            let logged = row(&fleet, &response).await;
            for (member, value) in [
                ("input_tokens", input),
                ("output_tokens", output),
                ("cache_read_tokens", cached),
                ("cost_nanos", (input - cached) * 5000 + cached * 500 + output * 10_000),
            ] {
                assert_eq!(logged[member].as_u64(), Some(value), "{what}: {member} in {logged}");
            }
        }
    }
}

/// Azure: by deployment and version, or below `/openai/v1`; the key in a header of its own.
#[tokio::test]
async fn azure_is_called_at_each_form_of_its_urls() {
    let fleet = fleet().await;
    let origin = fleet.upstream.origin();
    let by_name = "/openai/deployments/my-4o/chat/completions?api-version=2024-10-21";
    let dated = "/openai/deployments/my-4o/chat/completions?api-version=2025-04-01-preview";
    let forms = [
        ("azure-v1", format!("{origin}/openai/v1"), "/openai/v1/chat/completions"),
        ("azure-by-name", origin.clone(), by_name),
        ("azure-dated", format!("{origin}?api-version=2025-04-01-preview"), dated),
        ("azure-dated-openai", format!("{origin}/openai?api-version=2025-04-01-preview"), dated),
    ];
    for (id, base, _) in &forms {
        serve_as(&fleet, id, "azure", base, UPSTREAM_KEY, "chat.completions", "my-4o").await;
    }
    settled(&fleet, "azure-dated-openai").await;
    for (id, _, path) in forms {
        // The others differ in the URL alone.
        let clients = if id == "azure-v1" { &Speaks::ALL[..] } else { &[Speaks::Chat] };
        for &client in clients {
            for stream in [false, true] {
                let what = format!("{id} {client:?} {stream}");
                let response = client.ask(&fleet.client, id, stream, &json!({})).await;
                let text = response.text();
                assert_eq!((response.status, response.end), (200, End::Complete), "{what}: {text}");
                let sent = fleet.upstream.last_request().unwrap();
                assert_eq!(sent.path, path, "{what}");
                assert_eq!(sent.header("api-key"), Some(UPSTREAM_KEY), "{what}");
                assert_eq!(sent.header("authorization"), None, "{what}");
                assert_eq!(sent.json().unwrap()["model"], "my-4o", "{what}");
                let said = if stream {
                    client.streamed_text(&events(&response))
                } else {
                    client.text(&response.json().unwrap())
                };
                assert_eq!(said, SENTENCE, "{what}: {text}");
                let logged = row(&fleet, &response).await;
                let cost = PROMPT_TOKENS * 5000 + PIECES * 10_000;
                assert_eq!(
                    (&logged["provider"], &logged["cost_nanos"]),
                    (&json!("azure"), &json!(cost)),
                    "{what}"
                );
            }
        }
    }
}

/// Claude on Vertex AI: Anthropic's words, without the model, with the version in the body, and Google's token.
#[tokio::test]
async fn claude_on_vertex_is_called_in_its_own_words_with_googles_token() {
    let (fleet, tokens) = fleet_with_tokens().await;
    let base = format!("{}{VERTEX}", fleet.upstream.origin());
    let model = "claude-opus-4-5@20251101";
    let secret = service_account();
    serve_as(&fleet, "claude", "google-vertex", &base, &secret, "chat.completions", model).await;
    settled(&fleet, "claude").await;
    for client in Speaks::ALL {
        for (stream, method) in [(false, "rawPredict"), (true, "streamRawPredict")] {
            let what = format!("{client:?} {stream}");
            let response = client.ask(&fleet.client, "claude", stream, &json!({})).await;
            let text = response.text();
            assert_eq!((response.status, response.end), (200, End::Complete), "{what}: {text}");
            let sent = fleet.upstream.last_request().unwrap();
            assert_eq!(sent.path, format!("{VERTEX}/publishers/anthropic/models/{model}:{method}"), "{what}");
            assert_eq!(sent.header("authorization"), Some("Bearer ya29.mock-token"), "{what}");
            assert_eq!(sent.header("x-api-key"), None, "{what}");
            let body = sent.json().unwrap();
            assert_eq!(body["anthropic_version"], "vertex-2023-10-16", "{what}: {body}");
            assert!(body.get("model").is_none(), "{what}: {body}");
            assert_eq!(body["stream"] == true, stream, "{what}: {body}");
            let said = if stream {
                client.streamed_text(&events(&response))
            } else {
                client.text(&response.json().unwrap())
            };
            assert_eq!(said, SENTENCE, "{what}: {text}");
            let logged = row(&fleet, &response).await;
            let cost = PROMPT_TOKENS * 5000 + PIECES * 10_000;
            assert_eq!(
                (&logged["outcome"], &logged["cost_nanos"]),
                (&json!("ok"), &json!(cost)),
                "{what}: {logged}"
            );
        }
    }
    assert_eq!(tokens.served(), 1, "one token is good for all of them");
    let asked = String::from_utf8_lossy(&tokens.last_request().unwrap().body).into_owned();
    assert!(asked.contains("jwt-bearer&assertion="), "{asked}");
}
