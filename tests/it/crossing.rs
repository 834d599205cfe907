//! What can go wrong between two dialects, and what is proved to upstreams of other clouds: errors, faults in streams,
//! parameters that a target has not, credentials, state that is kept at one deployment.

use nemo_tests::{
    client::End,
    eventually,
    fleet::UPSTREAM_KEY,
    script::{Ending, Script},
};
use serde_json::{Value, json};

use super::dialects::{SENTENCE, Speaks, UPSTREAMS, fleet, fleet_with, row, serve, serve_as, settled};

/// E.5, B3: an upstream's refusal is told in the client's words, whoever said it.
#[tokio::test]
async fn a_refusal_reaches_every_client_in_its_own_dialect() {
    let fleet = fleet().await;
    for client in Speaks::ALL {
        for (model, _) in UPSTREAMS {
            for stream in [false, true] {
                fleet.upstream.push(Script::status(400).content("the mock does not like it"));
                let response = client.ask(&fleet.client, model, stream, &json!({})).await;
                let what = format!("{client:?} {model} {stream}: {}", response.text());
                assert_eq!(response.status, 400, "{what}");
                let body = response.json().unwrap();
                let message = body["error"]["message"].as_str().unwrap_or_default();
                assert!(message.contains("the mock does not like it"), "{what}");
                match client {
                    Speaks::Messages => assert_eq!(
                        (&body["type"], &body["error"]["type"]),
                        (&json!("error"), &json!("invalid_request_error")),
                        "{what}"
                    ),
                    Speaks::Google => assert_eq!(
                        (&body["error"]["code"], &body["error"]["status"]),
                        (&json!(400), &json!("INVALID_ARGUMENT")),
                        "{what}"
                    ),
                    Speaks::Chat | Speaks::Responses => {
                        assert!(body["error"]["type"].is_string(), "{what}");
                        assert!(body["error"].get("param").is_some(), "{what}");
                    }
                }
            }
        }
    }
}

/// B7, C15: a translated stream that breaks off never looks complete.
#[tokio::test]
async fn i7_a_translated_stream_that_breaks_off_never_looks_complete() {
    let fleet = fleet().await;
    fleet.tolerant().await.unwrap();
    for client in Speaks::ALL {
        for model in ["at-anthropic", "at-google", "at-bedrock", "at-cohere"] {
            fleet.upstream.push(Script::ok().pieces(200).ending(Ending::Cut(4000)));
            let response = client.ask(&fleet.client, model, true, &json!({})).await;
            let text = response.text();
            let what = format!("{client:?} {model}: {text}");
            assert_ne!(response.end, End::Complete, "{what}");
            assert!(text.contains("upstream_interrupted"), "{what}");
            for end in ["[DONE]", "message_stop", "response.completed", "\"STOP\""] {
                assert!(!text.contains(end), "{what}");
            }
            assert_eq!(row(&fleet, &response).await["outcome"], "interrupted", "{what}");
        }
    }
}

/// An error inside a 200: before the content it is an error of its own, afterwards an event.
#[tokio::test]
async fn an_error_within_a_stream_is_told_in_the_clients_dialect() {
    let fleet = fleet().await;
    fleet.tolerant().await.unwrap();
    for client in Speaks::ALL {
        fleet.upstream.push(Script::ok().ending(Ending::ErrorEvent(5)));
        let response = client.ask(&fleet.client, "at-anthropic", true, &json!({})).await;
        let (text, logged) = (response.text(), row(&fleet, &response).await);
        assert!(text.contains("had an error while processing"), "{client:?}: {text}");
        assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{client:?}: {text}");
        assert_eq!(logged["error_code"], "upstream_error", "{client:?}: {logged}");
    }
}

/// Nothing is lost silently: what a target has no place for is named, or refused.
#[tokio::test]
async fn what_the_target_cannot_express_is_named_or_refused() {
    let fleet = fleet().await;
    let extra = json!({ "seed": 7, "logit_bias": { "1": 2 }, "nemo_metadata": { "run": 1 } });
    let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", false, &extra).await;
    let told = response.header("x-nemo-dropped-params").unwrap_or_default().to_owned();
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(told.contains("seed") && told.contains("logit_bias") && !told.contains("nemo"), "{told}");
    let sent = fleet.upstream.last_request().unwrap().json().unwrap();
    assert!(sent.get("seed").is_none() && sent.get("nemo_metadata").is_none(), "{sent}");

    let strict = fleet.client.clone().header("x-nemo-unsupported", "refuse");
    let before = fleet.upstream.served();
    let response = Speaks::Chat.ask(&strict, "at-anthropic", false, &extra).await;
    let error = &response.json().unwrap()["error"];
    assert_eq!((response.status, &error["code"]), (400, &json!("unsupported_parameter")), "{error}");
    assert_eq!(fleet.upstream.served(), before, "nothing was sent");
    let response = Speaks::Chat.ask(&strict, "at-openai", false, &extra).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

/// An organization may have it so for all of its requests, and a request may say otherwise.
#[tokio::test]
async fn an_organizations_policy_holds_where_the_request_says_nothing() {
    let fleet = fleet().await;
    let extra = json!({ "seed": 7 });
    let setting = fleet.org("/settings/routing.unsupported");
    fleet.admin.put(&setting, json!({ "value": "\"refuse\"" })).await.unwrap();
    eventually("the policy is in force", async || {
        let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", false, &extra).await;
        let error = &response.json()?["error"];
        anyhow::ensure!(
            (response.status, &error["code"]) == (400, &json!("unsupported_parameter")),
            "{error}"
        );
        Ok(())
    })
    .await
    .unwrap();
    let lenient = fleet.client.clone().header("x-nemo-unsupported", "drop");
    let response = Speaks::Chat.ask(&lenient, "at-anthropic", false, &extra).await;
    assert_eq!((response.status, response.header("x-nemo-dropped-params")), (200, Some("seed")));
    let response = Speaks::Chat.ask(&fleet.client, "at-openai", false, &extra).await;
    assert_eq!(response.status, 200, "{}", response.text());
    fleet.admin.delete(&setting).await.unwrap();
    eventually("the default is back", async || {
        let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", false, &extra).await;
        anyhow::ensure!(response.status == 200, "{}", response.text());
        Ok(())
    })
    .await
    .unwrap();
}

/// Bad input: an image that is larger than its target takes is a 400 that names the part. Nothing is sent there and nothing
/// charged, and another candidate may take it.
#[tokio::test]
async fn an_image_larger_than_the_target_takes_is_refused_by_its_place() {
    // 10 MiB of base64, by Anthropic's documentation.
    const MOST: usize = 10 << 20;
    let fleet = fleet().await;
    let asked = |base64: &str| {
        let url = format!("data:image/png;base64,{base64}");
        let image = json!({ "type": "image_url", "image_url": { "url": url } });
        let content = json!([{ "type": "text", "text": "What is it?" }, image]);
        json!({ "messages": [{ "role": "user", "content": content }] })
    };
    let most = "A".repeat(MOST);
    let over = asked(&format!("{most}AA=="));
    let before = fleet.upstream.served();
    for stream in [false, true] {
        let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", stream, &over).await;
        let error = &response.json().unwrap()["error"];
        let expected = (400, &json!("messages[0].content[1].image_url"), &json!("unsupported_parameter"));
        assert_eq!((response.status, &error["param"], &error["code"]), expected, "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("7864321 bytes") && message.contains("7864320"), "{error}");
        let logged = row(&fleet, &response).await;
        assert_eq!(logged["cost_nanos"].as_i64().unwrap_or(0), 0, "{logged}");
    }
    assert_eq!(fleet.upstream.served(), before, "nothing was sent");

    let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", false, &asked(&most)).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let mut chain = over;
    chain["models"] = json!(["at-openai"]);
    let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", false, &chain).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(fleet.upstream.last_request().unwrap().path, "/v1/chat/completions");
}

/// An image that the provider's filters keep back is the client's to know of. Nobody else is asked for it, nothing is
/// billed, and the upstream is as healthy as before.
#[tokio::test]
async fn an_image_that_is_kept_back_is_a_400_and_no_fault() {
    let fleet = fleet().await;
    let base = format!("{}/v1beta", fleet.upstream.origin());
    for id in ["it-paints", "it-paints-too"] {
        serve_as(&fleet, id, "google-ai-studio", &base, UPSTREAM_KEY, "images.generations", "imagen-mock")
            .await;
    }
    settled(&fleet, "it-paints-too").await;
    let body =
        json!({ "model": "it-paints", "prompt": "a cat", "nemo_fallbacks": ["it-paints-too"] }).to_string();
    let kept = r#"{"predictions":[{"raiFilteredReason":"Blocked by the policy."}]}"#;
    for _ in 0..6 {
        let before = fleet.upstream.served();
        fleet.upstream.push(Script::replay("application/json", kept));
        let response = fleet.client.post("/v1/images/generations", body.clone()).await.unwrap();
        let error = &response.json().unwrap()["error"];
        assert_eq!((response.status, &error["code"]), (400, &json!("content_policy_violation")), "{error}");
        assert_eq!(
            (&error["message"], &error["param"]),
            (&json!("Blocked by the policy."), &json!("prompt"))
        );
        assert_eq!(fleet.upstream.served(), before + 1, "nobody else was asked");
        let logged = row(&fleet, &response).await;
        assert_eq!(
            (&logged["outcome"], &logged["error_code"]),
            (&json!("error"), &json!("upstream_rejected"))
        );
        assert_eq!(logged["cost_nanos"].as_i64().unwrap_or(0), 0, "{logged}");
    }
    let good = r#"{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"QUJD"}]}"#;
    fleet.upstream.push(Script::replay("application/json", good));
    let response = fleet.client.post("/v1/images/generations", body).await.unwrap();
    assert_eq!(response.json().unwrap()["data"][0]["b64_json"], "QUJD", "{}", response.text());
    assert_eq!(response.header("x-nemo-attempts"), Some("1"));
}

/// Every malformed body is refused with the path of what is wrong, before anything is sent.
#[tokio::test]
async fn what_is_wrong_is_named_in_the_clients_words() {
    let fleet = fleet().await;
    let before = fleet.upstream.served();
    let bad_image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,@@@" } });
    for (messages, place) in [
        (json!([{ "role": "king", "content": "hi" }]), "messages[0].role"),
        (json!([{ "role": "user", "content": [bad_image] }]), "messages[0].content[0]"),
        (json!([{ "role": "user", "content": [{ "type": "smell" }] }]), "messages[0].content[0]"),
        (json!([{ "role": "tool", "tool_call_id": "x", "content": "hi" }]), "messages[0]"),
    ] {
        for model in ["at-anthropic", "at-google", "at-bedrock"] {
            let response =
                Speaks::Chat.ask(&fleet.client, model, false, &json!({ "messages": messages })).await;
            let error = &response.json().unwrap()["error"];
            assert_eq!(response.status, 400, "{model} {messages}: {error}");
            let param = error["param"].as_str().unwrap_or_default();
            assert!(param.starts_with(place), "{model} {messages}: {error}");
        }
    }
    assert_eq!(fleet.upstream.served(), before);
}

/// Anthropic's and Google's clients bring their key in their own ways.
#[tokio::test]
async fn keys_are_taken_where_each_client_puts_them() {
    let fleet = fleet().await;
    let bare = fleet.client_with(None);
    let anthropic = bare.clone().header("x-api-key", &fleet.key);
    assert_eq!(Speaks::Messages.ask(&anthropic, "at-openai", false, &json!({})).await.status, 200);
    let google = bare.clone().header("x-goog-api-key", &fleet.key);
    assert_eq!(Speaks::Google.ask(&google, "at-openai", false, &json!({})).await.status, 200);
    let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": "hi" }] }] }).to_string();
    let path = format!("/v1beta/models/at-openai:generateContent?key={}", fleet.key);
    assert_eq!(bare.post(&path, &body).await.unwrap().status, 200);
    for (client, member) in [(Speaks::Messages, "type"), (Speaks::Google, "status")] {
        let response = client.ask(&bare, "at-openai", false, &json!({})).await;
        assert_eq!(response.status, 401, "{client:?}");
        assert!(response.json().unwrap()["error"][member].is_string(), "{client:?}: {}", response.text());
    }
    let path = format!("/v1/chat/completions?key={}", fleet.key);
    assert_eq!(bare.post(&path, "{}").await.unwrap().status, 401, "of Google's clients only");
}

/// E.5, E.7: each client's own list of models.
#[tokio::test]
async fn models_are_listed_in_the_clients_words() {
    let fleet = fleet().await;
    let anthropic = fleet.client.clone().header("anthropic-version", "2023-06-01");
    let listed = anthropic.get("/v1/models").await.unwrap().json().unwrap();
    assert!(listed["has_more"].is_boolean() && listed["data"][0]["type"] == "model", "{listed}");
    let one = anthropic.get("/v1/models/at-google").await.unwrap().json().unwrap();
    assert_eq!((&one["id"], &one["type"]), (&json!("at-google"), &json!("model")));
    let listed = fleet.client.get("/v1beta/models").await.unwrap().json().unwrap();
    let names = listed["models"].as_array().unwrap().iter().map(|it| it["name"].clone());
    assert!(names.into_iter().any(|name| name == "models/at-openai"), "{listed}");
    let one = fleet.client.get("/v1beta/models/at-openai").await.unwrap().json().unwrap();
    assert_eq!(one["outputTokenLimit"], 4096, "{one}");
}

/// Bedrock: every request is signed; the secret itself never travels.
#[tokio::test]
async fn requests_to_bedrock_are_signed() {
    let fleet = fleet().await;
    for stream in [false, true] {
        Speaks::Chat.ask(&fleet.client, "at-bedrock", stream, &json!({})).await;
        let sent = fleet.upstream.last_request().unwrap();
        let authorization = sent.header("authorization").unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDTEST/"), "{authorization}");
        assert!(authorization.contains("/eu-west-1/bedrock/aws4_request"), "{authorization}");
        assert!(sent.header("x-amz-date").is_some());
        assert!(!format!("{:?}", sent.headers).contains(nemo_tests::fleet::UPSTREAM_KEY));
    }
}

/// A service account's token is fetched in the background, from the node's own endpoint, and Claude is called in its own
/// words there as well.
#[tokio::test]
async fn vertex_is_called_with_a_token_that_is_fetched_in_the_background() {
    let tokens = nemo_tests::upstream::Upstream::start().await.unwrap();
    let url = format!("{}/token", tokens.origin());
    let fleet = fleet_with(&[("NEMO_GCP_TOKEN_URL", &url)]).await;
    // Made for this test, and good for nothing else.
    let pem = include_str!("service-account.pem");
    let secret = json!({
        "type": "service_account", "client_email": "mock@project.example", "private_key_id": "1",
        "private_key": pem, "token_uri": "http://169.254.169.254/never",
    });
    let base = format!("{}/v1/projects/p/locations/l", fleet.upstream.origin());
    // With line breaks, as Google hands it out.
    serve(&fleet, "at-vertex", "google-vertex", &base, &format!("{secret:#}"), "chat.completions").await;
    settled(&fleet, "at-vertex").await;
    let response = Speaks::Chat.ask(&fleet.client, "at-vertex", false, &json!({})).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = fleet.upstream.last_request().unwrap();
    assert_eq!(sent.path, "/v1/projects/p/locations/l/publishers/google/models/mock:generateContent");
    assert_eq!(sent.header("authorization"), Some("Bearer ya29.mock-token"));
    let asked = String::from_utf8_lossy(&tokens.last_request().unwrap().body).into_owned();
    assert!(asked.contains("jwt-bearer&assertion="), "{asked}");
}

/// State is where it was made: what goes on from an answer goes to its deployment, as the provider knows it.
#[tokio::test]
async fn a_response_is_gone_on_with_at_the_deployment_that_made_it() {
    let fleet = fleet().await;
    let first = Speaks::Responses.ask(&fleet.client, "at-responses", false, &json!({})).await;
    let id = first.json().unwrap()["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("resp_nemo."), "{id}");
    let native = id.rsplit('.').next().unwrap().to_owned();
    let next = json!({ "previous_response_id": id });
    for stream in [false, true] {
        let response = Speaks::Responses.ask(&fleet.client, "at-responses", stream, &next).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let sent = fleet.upstream.last_request().unwrap().json().unwrap();
        assert_eq!(sent["previous_response_id"], format!("resp_{native}"));
    }
    let before = fleet.upstream.served();
    let response = Speaks::Responses.ask(&fleet.client, "at-anthropic", false, &next).await;
    let error = &response.json().unwrap()["error"];
    assert_eq!((response.status, &error["param"]), (400, &json!("previous_response_id")), "{error}");
    let untagged = json!({ "previous_response_id": "resp_1" });
    let response = Speaks::Responses.ask(&fleet.client, "at-anthropic", false, &untagged).await;
    assert_eq!(response.status, 400, "{}", response.text());
    assert_eq!(fleet.upstream.served(), before);
}

/// Hostile upstreams: what was not asked for is not read, and what is no answer is not passed on.
#[tokio::test]
async fn an_answer_that_was_not_asked_for_is_a_502() {
    type Make = fn() -> Script;
    let fleet = fleet().await;
    fleet.tolerant().await.unwrap();
    let bomb = || Script::ok().header("content-encoding", "gzip").unwrap();
    let scripts: [(&str, Make, bool); 4] = [
        ("another content type", || Script::replay("text/html", "<html>"), true),
        ("no JSON", || Script::replay("application/json", "{\"id\":"), false),
        ("invalid UTF-8", || Script::replay("application/json", vec![0xff; 64]), false),
        ("an endless line", || Script::replay("text/event-stream", vec![b'x'; 70 << 20]), true),
    ];
    let once = fleet.client.clone().header("x-nemo-retries", "0");
    for (what, script, stream) in scripts {
        // The same candidate is asked again after such a failure, and 64 MiB are read each time.
        let (client, asked) = if what == "an endless line" { (&once, 1) } else { (&fleet.client, 4) };
        for model in ["at-anthropic", "at-google"] {
            (0..asked).for_each(|_| fleet.upstream.push(script()));
            let response = Speaks::Chat.ask(client, model, stream, &json!({})).await;
            assert_eq!(response.status, 502, "{what} {model}: {}", response.text());
            fleet.upstream.clear();
        }
    }
    for model in ["at-openai", "at-anthropic"] {
        (0..4).for_each(|_| fleet.upstream.push(bomb()));
        let response = Speaks::Chat.ask(&fleet.client, model, false, &json!({})).await;
        assert_eq!(response.status, 502, "{model}: {}", response.text());
        fleet.upstream.clear();
    }
    let response = Speaks::Chat.ask(&fleet.client, "at-anthropic", false, &json!({})).await;
    let content: Value = response.json().unwrap()["choices"][0]["message"]["content"].clone();
    assert_eq!(content, SENTENCE);
}
