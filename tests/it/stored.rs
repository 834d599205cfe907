//! Calls about what a provider keeps, by its id: responses and videos reach the deployment that made them, and nobody but
//! the organization that had them made.

use nemo_tests::{
    client::{Client, Response},
    fleet::{Fleet, UPSTREAM_KEY},
    script::Script,
    upstream::stored::film,
};
use serde_json::{Value, json};

use super::media::{self, BOUNDARY, FORM, field, file, form};

/// Model, provider, what is behind the upstream's origin, and the endpoint.
const MODELS: [(&str, &str, &str, &str); 5] = [
    ("keeps", "openai", "/v1", "responses"),
    ("keeps-not", "anthropic", "/v1", "chat.completions"),
    ("sora", "openai", "/v1", "videos"),
    ("veo-studio", "google-ai-studio", "/v1beta", "videos"),
    ("veo-vertex", "google-vertex", "/v1/projects/p/locations/l", "videos"),
];

async fn fleet() -> Fleet {
    let fleet = Fleet::start().await.unwrap();
    for (model, provider, base, endpoint) in MODELS {
        let base = format!("{}{base}", fleet.upstream.origin());
        super::dialects::serve(&fleet, model, provider, &base, UPSTREAM_KEY, endpoint).await;
    }
    super::dialects::settled(&fleet, "veo-vertex").await;
    fleet
}

async fn call(client: &Client, method: &str, path: &str) -> Response {
    client.open(method, path, b"").await.unwrap().finish().await.unwrap()
}

async fn respond(fleet: &Fleet) -> String {
    let body = json!({ "model": "keeps", "input": "hi" }).to_string();
    let response = fleet.client.post("/v1/responses", body).await.unwrap();
    id_of(&response)
}

async fn order(fleet: &Fleet, model: &str) -> String {
    let body = json!({ "model": model, "prompt": "a cat", "seconds": "4", "size": "1280x720" }).to_string();
    let response = fleet.client.post("/v1/videos", body).await.unwrap();
    let video = response.json().unwrap();
    assert_eq!((&video["object"], &video["status"]), (&json!("video"), &json!("queued")), "{video}");
    id_of(&response)
}

fn id_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    response.json().unwrap()["id"].as_str().unwrap().to_owned()
}

fn error_of(response: &Response) -> Value {
    response.json().unwrap()["error"].clone()
}

/// The path of the last request to the upstream, with its query.
fn asked(fleet: &Fleet) -> (String, String) {
    let last = fleet.upstream.last_request().unwrap();
    (last.method.to_string(), last.path.clone())
}

#[tokio::test]
async fn a_response_is_read_cancelled_and_deleted_where_it_was_made() {
    let fleet = fleet().await;
    let id = respond(&fleet).await;
    let native = format!("resp_{}", id.rsplit('.').next().unwrap());
    let path = format!("/v1/responses/{id}");
    let response = call(&fleet.client, "GET", &format!("{path}?include[]=x")).await;
    assert_eq!(id_of(&response), id, "an id stays the same");
    assert_eq!(response.header("x-nemo-edits"), Some("affinity"));
    assert_eq!(response.header("x-nemo-provider"), Some("openai"));
    assert!(response.header("x-request-id").is_some());
    assert_eq!(asked(&fleet), ("GET".to_owned(), format!("/v1/responses/{native}?include[]=x")));
    assert_eq!(
        fleet.upstream.last_request().unwrap().header("authorization"),
        Some(&*format!("Bearer {UPSTREAM_KEY}"))
    );
    let item = response.json().unwrap()["output"][0]["id"].as_str().unwrap().to_owned();
    assert!(item.starts_with("msg_nemo."), "{item}");

    let streamed = call(&fleet.client, "GET", &format!("{path}?stream=true")).await;
    assert!(streamed.header("content-type").unwrap().starts_with("text/event-stream"));
    let last: Value = serde_json::from_str(&streamed.events().last().unwrap().data).unwrap();
    assert_eq!((&last["type"], &last["response"]["id"]), (&json!("response.completed"), &json!(id)));

    let items = call(&fleet.client, "GET", &format!("{path}/input_items?limit=5")).await.json().unwrap();
    let first = items["first_id"].as_str().unwrap();
    assert!(first.starts_with("msg_nemo.") && items["data"][0]["id"] == first, "{items}");
    call(&fleet.client, "GET", &format!("{path}/input_items?after={first}")).await;
    let after = format!("msg_{}", first.rsplit('.').next().unwrap());
    assert_eq!(asked(&fleet).1, format!("/v1/responses/{native}/input_items?after={after}"));

    let cancelled = call(&fleet.client, "POST", &format!("{path}/cancel")).await.json().unwrap();
    assert_eq!((&cancelled["status"], &cancelled["id"]), (&json!("cancelled"), &json!(id)));
    let deleted = call(&fleet.client, "DELETE", &path).await.json().unwrap();
    assert_eq!(deleted, json!({ "id": id, "object": "response", "deleted": true }));
    let gone = call(&fleet.client, "GET", &path.replace("/v1/", "/api/v1/")).await;
    let message = error_of(&gone)["message"].as_str().unwrap().to_owned();
    assert_eq!((gone.status, &error_of(&gone)["code"]), (404, &json!(404)));
    assert_eq!(message, format!("Response with id '{id}' not found."), "in the client's words");
    // One was made, and the others are no requests.
    assert_eq!(fleet.request_log(1).await.unwrap().len(), 1);
}

/// R004-36: OpenAI's calls, whoever makes the film.
#[tokio::test]
async fn a_film_is_ordered_awaited_and_fetched_from_whoever_makes_it() {
    let fleet = fleet().await;
    for model in ["sora", "veo-studio", "veo-vertex"] {
        let id = order(&fleet, model).await;
        let number = fleet.upstream.last_request().unwrap().number;
        assert!(id.starts_with("video_nemo."), "{model}: {id}");
        let path = format!("/v1/videos/{id}");
        for status in ["in_progress", "completed"] {
            let video = call(&fleet.client, "GET", &path).await;
            assert_eq!(id_of(&video), id, "{model}");
            let video = video.json().unwrap();
            assert_eq!(video["status"], status, "{model}: {video}");
            assert_eq!((&video["seconds"], &video["size"]), (&json!("4"), &json!("1280x720")), "{model}");
            assert!(video["created_at"].as_u64().unwrap() > 0, "{model}: {video}");
        }
        let content = call(&fleet.client, "GET", &format!("{path}/content")).await;
        assert_eq!((content.status, content.header("content-type")), (200, Some("video/mp4")), "{model}");
        assert_eq!(content.body, film(number), "{model}");
        assert_eq!(content.header("x-nemo-edits"), None, "{model}");
    }
    let thumbnail = order(&fleet, "sora").await;
    let path = format!("/v1/videos/{thumbnail}");
    call(&fleet.client, "GET", &path).await;
    let early = call(&fleet.client, "GET", &format!("{path}/content")).await;
    assert!(early.status == 400 && error_of(&early)["message"].as_str().unwrap().contains(&thumbnail));
    call(&fleet.client, "GET", &path).await;
    let content = call(&fleet.client, "GET", &format!("{path}/content?variant=thumbnail")).await;
    assert_eq!((content.status, content.header("content-type")), (200, Some("image/webp")));
    assert!(asked(&fleet).1.ends_with("/content?variant=thumbnail"));
    let deleted = call(&fleet.client, "DELETE", &path).await.json().unwrap();
    assert_eq!(deleted, json!({ "id": thumbnail, "object": "video.deleted", "deleted": true }));
    assert_eq!(call(&fleet.client, "GET", &path).await.status, 404);
}

/// What was ordered is billed as ever, and asking for it costs nothing.
#[tokio::test]
async fn only_the_order_of_a_film_is_in_the_request_log() {
    let fleet = fleet().await;
    for (rows, model) in [(1, "sora"), (2, "veo-studio")] {
        let body = json!({ "model": model, "prompt": "a cat" }).to_string();
        let response = fleet.client.post("/v1/videos", body).await.unwrap();
        let path = format!("/v1/videos/{}", id_of(&response));
        for _ in 0..3 {
            assert_eq!(call(&fleet.client, "GET", &path).await.status, 200);
        }
        let row = media::row(&fleet, &response).await;
        assert_eq!((&row["endpoint"], &row["outcome"]), (&json!("videos"), &json!("ok")), "{row}");
        assert_eq!(fleet.request_log(rows).await.unwrap().len(), rows);
    }
}

/// OpenAI's own clients order films by forms.
#[tokio::test]
async fn a_film_is_ordered_by_a_form_too() {
    let fleet = fleet().await;
    for model in ["sora", "veo-studio", "veo-vertex"] {
        let body = form(&[field("prompt", "a cat"), field("model", model), field("seconds", "8")]);
        let half = body.len() / 2;
        let response =
            fleet.client.post_as("/v1/videos", FORM, &[&body[..half], &body[half..]]).await.unwrap();
        let id = id_of(&response);
        let sent = fleet.upstream.last_request().unwrap();
        match model {
            "sora" => assert!(String::from_utf8_lossy(&sent.body).contains(BOUNDARY), "it passes as it is"),
            _ => assert_eq!(sent.json().unwrap()["instances"][0]["prompt"], "a cat", "{model}"),
        }
        let video = call(&fleet.client, "GET", &format!("/v1/videos/{id}")).await.json().unwrap();
        assert_eq!(video["seconds"], "8", "{model}: {video}");
    }
    let body = form(&[field("prompt", "a"), field("model", "veo-studio"), file("input_reference", b"png")]);
    let before = fleet.upstream.served();
    let response = fleet.client.post_as("/v1/videos", FORM, &[&body]).await.unwrap();
    assert_eq!((response.status, &error_of(&response)["param"]), (400, &json!("input_reference")));
    assert_eq!(fleet.upstream.served(), before);
}

/// One tenant can't read, go on from, or delete what another has had made, also where both share an account.
#[tokio::test]
async fn another_organization_does_not_get_what_is_kept() {
    let fleet = fleet().await;
    let tenant = fleet.admin.create_tenant("other", "team").await.unwrap();
    let (_, key) = fleet.admin.issue_key(&tenant, json!({ "name": "k" })).await.unwrap();
    let other = fleet.client_with(Some(&key));
    fleet.settled(&other).await.unwrap();
    let (response, video) = (respond(&fleet).await, order(&fleet, "veo-studio").await);
    // What the other one has of its own, with the first one's thing in it.
    let body = json!({ "model": "keeps", "input": "hi" }).to_string();
    let own = id_of(&other.post("/v1/responses", body).await.unwrap());
    let (native, tag) = (response.rsplit_once('.').unwrap().1, own.rsplit_once('.').unwrap().0);
    let mixed = format!("{tag}.{native}");
    let before = fleet.upstream.served();
    let paths = |id: &str| [format!("/v1/responses/{id}"), format!("/v1/responses/{id}/input_items")];
    let raw = format!("resp_{native}");
    let of_responses = [&response, &mixed, &raw].into_iter().flat_map(|id| paths(id));
    for path in of_responses.chain([format!("/v1/videos/{video}"), format!("/v1/videos/{video}/content")]) {
        let refused = call(&other, "GET", &path).await;
        assert_eq!(refused.status, 404, "{path}: {}", refused.text());
        let message = error_of(&refused)["message"].as_str().unwrap().to_owned();
        assert!(message.contains("for this API key. Ids are the gateway's own"), "{message}");
    }
    assert_eq!(call(&other, "DELETE", &format!("/v1/responses/{response}")).await.status, 404);
    assert_eq!(call(&other, "POST", &format!("/v1/responses/{response}/cancel")).await.status, 404);
    for id in [&response, &mixed, &raw] {
        for body in [
            json!({ "model": "keeps", "input": "And then?", "previous_response_id": id }),
            json!({ "model": "keeps", "input": [{ "type": "item_reference", "id": id }] }),
            json!({ "model": "keeps", "input": [{ "id": id }] }),
        ] {
            let refused = other.post("/v1/responses", body.to_string()).await.unwrap();
            assert_eq!(refused.status, 400, "{body}: {}", refused.text());
            assert_eq!(error_of(&refused)["code"], "response_not_available", "{body}");
        }
    }
    assert_eq!(fleet.upstream.served(), before, "nobody was asked");
    assert_eq!(call(&fleet.client, "GET", &format!("/v1/responses/{response}")).await.status, 200);
    assert_eq!(call(&other, "GET", &format!("/v1/responses/{own}")).await.status, 200);
}

/// The rules for models and endpoints are those of requests; what is gone is not told from what never was.
#[tokio::test]
async fn a_key_reaches_only_what_its_models_reach() {
    let fleet = fleet().await;
    let (response, video) = (respond(&fleet).await, order(&fleet, "sora").await);
    let path = format!("/v1/responses/{response}");
    for (limits, status) in [
        (json!({ "allowed_models": ["keeps"] }), [200, 403]),
        (json!({ "allowed_models": ["sora", "openai/other"] }), [403, 200]),
        (json!({ "allowed_models": ["openai/*"] }), [200, 200]),
        (json!({ "allowed_endpoints": ["videos"] }), [403, 200]),
    ] {
        let mut request = json!({ "name": limits.to_string() });
        for (name, value) in limits.as_object().unwrap() {
            request[name] = value.clone();
        }
        let (_, key) = fleet.issue_key(request).await.unwrap();
        let client = fleet.client_with(Some(&key));
        nemo_tests::eventually("the key is known", async || {
            let listed = client.get("/v1/models").await?;
            anyhow::ensure!(listed.status == 200, "{}", listed.text());
            Ok(())
        })
        .await
        .unwrap();
        let found = [
            call(&client, "GET", &path).await.status,
            call(&client, "GET", &format!("/v1/videos/{video}")).await.status,
        ];
        assert_eq!(found, status, "{limits}");
    }
    assert_eq!(call(&fleet.client_with(None), "GET", &path).await.status, 401);
    for (method, path, status) in [
        ("GET", "/v1/responses/resp_1", 404),
        ("GET", "/v1/videos/video_1/content", 404),
        ("DELETE", "/api/v1/responses/resp_1", 404),
        ("POST", "/v1/videos/video_1/remix", 404),
        ("POST", "/v1/responses/resp_1", 404),
        ("PUT", "/v1/responses/resp_1", 405),
        ("GET", "/v1/responses", 405),
        ("GET", "/v1/videos", 405),
    ] {
        let refused = call(&fleet.client, method, path).await;
        assert_eq!(refused.status, status, "{method} {path}: {}", refused.text());
    }
    // Made up of an answer that nobody keeps.
    let body = json!({ "model": "keeps-not", "input": "hi" }).to_string();
    let made_up = id_of(&fleet.client.post("/v1/responses", body).await.unwrap());
    assert_eq!(call(&fleet.client, "GET", &format!("/v1/responses/{made_up}")).await.status, 404);

    let deployments = fleet.admin.get("/deployments").await.unwrap();
    let of_keeps = deployments["deployments"].as_array().unwrap().iter().find(|it| it["model"] == "keeps");
    let id = of_keeps.unwrap()["id"].as_str().unwrap();
    fleet.admin.delete(&format!("/deployments/{id}")).await.unwrap();
    nemo_tests::eventually("the deployment is gone", async || {
        let gone = call(&fleet.client, "GET", &path).await;
        anyhow::ensure!(gone.status == 404, "{}", gone.text());
        anyhow::ensure!(error_of(&gone)["code"] == "response_not_found", "{}", gone.text());
        Ok(())
    })
    .await
    .unwrap();
}

/// Polling counts as what it is: requests.
#[tokio::test]
async fn calls_by_id_count_against_rate_limits() {
    let fleet = fleet().await;
    let id = respond(&fleet).await;
    let limit = json!({ "name": "tier", "requests_per_minute": 3 });
    fleet.admin.post(&fleet.org("/rate-limits?wait=fleet"), limit).await.unwrap();
    let path = format!("/v1/responses/{id}");
    nemo_tests::eventually("the limit is known", async || {
        let answer = call(&fleet.client, "GET", &path).await;
        anyhow::ensure!(answer.header("x-ratelimit-limit-requests") == Some("3"), "{:?}", answer.headers);
        Ok(())
    })
    .await
    .unwrap();
    let limited = nemo_tests::eventually("the limit is used up", async || {
        let answer = call(&fleet.client, "GET", &path).await;
        anyhow::ensure!(answer.status == 429, "{}", answer.status);
        Ok(answer)
    })
    .await
    .unwrap();
    assert!(limited.header("retry-after").is_some());
    assert_eq!(error_of(&limited)["code"], "rate_limit_exceeded");
}

/// SSRF: a film is fetched from its deployment's own host and nowhere else, whatever the provider or a redirect says.
#[tokio::test]
async fn a_film_elsewhere_is_not_fetched() {
    let fleet = fleet().await;
    let elsewhere = nemo_tests::upstream::Upstream::start().await.unwrap();
    let id = order(&fleet, "veo-studio").await;
    let path = format!("/v1/videos/{id}/content");
    let early = call(&fleet.client, "GET", &path).await;
    assert_eq!((early.status, &error_of(&early)["code"]), (400, &json!("video_not_ready")));
    let redirect = |to: &str| {
        let head =
            format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        Script::wire(head)
    };
    for to in [
        "/v1beta/files/film-7:download",
        &format!("{}/v1beta/files/film-7:download", fleet.upstream.origin()),
    ] {
        fleet.upstream.push(Script::ok());
        fleet.upstream.push(redirect(to));
        let content = call(&fleet.client, "GET", &path).await;
        assert_eq!((content.status, content.body.clone()), (200, film(7)), "{to}");
    }
    let other = format!("{}/v1beta/files/film-7:download", elsewhere.origin());
    for to in [other.as_str(), "http://169.254.169.254/latest", "//127.0.0.1/x", "file:///etc/passwd"] {
        fleet.upstream.push(Script::ok());
        fleet.upstream.push(redirect(to));
        assert_eq!(call(&fleet.client, "GET", &path).await.status, 502, "{to}");
    }
    let sample = json!({ "video": { "uri": other } });
    let operation = json!({
        "name": "x", "done": true, "response": { "generateVideoResponse": { "generatedSamples": [sample] } },
    });
    fleet.upstream.push(Script::replay("application/json", operation.to_string()));
    assert_eq!(call(&fleet.client, "GET", &path).await.status, 502);
    assert_eq!(elsewhere.served(), 0);
    let variant = call(&fleet.client, "GET", &format!("{path}?variant=thumbnail")).await;
    assert_eq!((variant.status, &error_of(&variant)["param"]), (400, &json!("variant")));
    let deleted = call(&fleet.client, "DELETE", &format!("/v1/videos/{id}")).await;
    assert_eq!((deleted.status, &error_of(&deleted)["code"]), (400, &json!("unsupported_by_provider")));
}

/// Vertex sends a film within its operation: whole, and no longer than there is room for.
#[tokio::test]
async fn a_film_within_an_operation_is_bounded() {
    let fleet = fleet().await;
    let path = format!("/v1/videos/{}/content", order(&fleet, "veo-vertex").await);
    let operation = |groups: usize| {
        let video = json!({ "bytesBase64Encoded": "QUJD".repeat(groups), "mimeType": "video/mp4" });
        let operation = json!({ "name": "x", "done": true, "response": { "videos": [video] } });
        Script::replay("application/json", operation.to_string())
    };
    fleet.upstream.push(operation(400_000));
    let content = call(&fleet.client, "GET", &path).await;
    assert_eq!((content.status, content.header("content-length")), (200, Some("1200000")));
    assert!(content.body == "ABC".repeat(400_000));
    fleet.upstream.push(operation(17 << 20));
    assert_eq!(call(&fleet.client, "GET", &path).await.status, 502);
    fleet.upstream.push(Script::replay("application/json", "{\"name\":\"x\",\"done\":"));
    assert_eq!(call(&fleet.client, "GET", &path).await.status, 502);
}

/// Failures are told as those of other calls, and an answer that breaks off never looks complete.
#[tokio::test]
async fn upstream_failures_are_told_in_the_clients_dialect() {
    use nemo_tests::{client::End, script::Ending};
    let fleet = fleet().await;
    let id = respond(&fleet).await;
    let path = format!("/v1/responses/{id}");
    for (script, status, code) in [
        (Script::status(500), 502, "upstream_error"),
        (Script::status(401), 502, "upstream_credential_rejected"),
        (Script::status(429).header("retry-after", "7").unwrap(), 429, "upstream_rate_limited"),
        (Script::ok().header("content-encoding", "gzip").unwrap(), 502, "upstream_protocol_error"),
        (Script::reset(), 502, "upstream_error"),
    ] {
        fleet.upstream.push(script);
        let response = call(&fleet.client, "GET", &path).await;
        assert_eq!((response.status, &error_of(&response)["code"]), (status, &json!(code)));
        if status == 429 {
            assert_eq!(response.header("retry-after"), Some("7"));
        }
    }
    fleet.upstream.push(Script::status(400).content("no such include"));
    let refused = call(&fleet.client, "GET", &path).await;
    assert!(refused.status == 400 && refused.text().contains("no such include"), "{}", refused.text());
    for (query, ending) in [("", Ending::Cut(100)), ("?stream=true", Ending::Cut(300))] {
        fleet.upstream.push(Script::ok().ending(ending));
        let broken = call(&fleet.client, "GET", &format!("{path}{query}")).await;
        assert_ne!(broken.end, End::Complete, "{query}");
    }
    assert_eq!(call(&fleet.client, "GET", &path).await.status, 200);
}
