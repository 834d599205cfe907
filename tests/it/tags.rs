//! Capability tags: those that a request names, those of its key, and those that it implies (B9, B11, R004-18 to
//! R004-22, C26).

use nemo_tests::{
    client::{Client, Response},
    fleet::{Fleet, UPSTREAM_KEY, text},
    script::Script,
};
use serde_json::{Value, json};

/// A gateway with models and deployments of the test's own. What the upstream calls a model is `provider-model`.
pub struct Stage {
    pub fleet: Fleet,
}

impl Stage {
    pub async fn start() -> Self {
        Self { fleet: Fleet::start().await.unwrap() }
    }

    pub async fn model(&self, id: &str, tags: &[&str], context_window: u64) {
        let model = json!({
            "id": id, "display_name": id, "owned_by": "tests", "context_window": context_window,
            "tags": tags, "endpoints": ["chat.completions"],
        });
        self.fleet.admin.put(&format!("/models/{id}"), json!({ "model": model })).await.unwrap();
    }

    /// Returns its id. The price is in whole USD per million tokens, input and output.
    pub async fn deployment(&self, provider: &str, model: &str, price: Option<(i64, i64)>) -> String {
        let name = format!("{provider}-{model}");
        let credential = json!({ "name": name, "provider": provider, "secret": UPSTREAM_KEY });
        let credential = self.fleet.admin.post("/credentials", credential).await.unwrap();
        let usd = |usd: i64| usd * 1_000_000_000;
        let price = price.map(|(input, output)| json!({ "input": usd(input), "output": usd(output) }));
        let deployment = json!({
            "provider": provider, "base_url": self.fleet.upstream.base_url(), "credential_id": credential["id"],
            "model": model, "upstream_model": name, "price": price,
        });
        text(&self.fleet.admin.post("/deployments", deployment).await.unwrap(), "id").unwrap()
    }

    /// A model with one deployment of provider `custom`.
    pub async fn served(&self, id: &str, tags: &[&str]) -> String {
        self.model(id, tags, 128_000).await;
        self.deployment("custom", id, Some((1, 2))).await
    }

    /// Waits until the node has it.
    pub async fn group(&self, name: &str, links: &[&[&str]]) {
        let member = |id: &&str| json!({ "deployment_id": id, "weight": 1 });
        let link = |ids: &&[&str]| json!({ "deployments": ids.iter().map(member).collect::<Vec<_>>() });
        let group = json!({ "name": name, "links": links.iter().map(link).collect::<Vec<_>>() });
        let path = self.fleet.org("/model-groups?wait=fleet");
        self.fleet.admin.post(&path, group).await.unwrap();
    }

    pub async fn key(&self, mut request: Value) -> Client {
        request["name"] = json!("special");
        let (_, secret) = self.fleet.issue_key(request).await.unwrap();
        let client = self.fleet.client_with(Some(&secret));
        self.fleet.settled(&client).await.unwrap();
        client
    }

    pub async fn ask(&self, body: Value) -> Response {
        self.ask_as(&self.fleet.client, body).await
    }

    pub async fn ask_as(&self, client: &Client, mut body: Value) -> Response {
        if body["messages"].is_null() {
            body["messages"] = json!([{ "role": "user", "content": "hi" }]);
        }
        client.post("/v1/chat/completions", body.to_string()).await.unwrap()
    }

    /// Whom the upstream was asked for since the last call.
    pub fn asked(&self) -> Vec<String> {
        let records = self.fleet.upstream.requests();
        let models = records.iter().map(|it| it.json().unwrap()["model"].as_str().unwrap().to_owned());
        let models = models.collect();
        self.fleet.upstream.clear();
        models
    }

    /// The request was answered by this one.
    pub fn went_to(&self, response: &Response, deployment: &str) {
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(self.asked().last().map(String::as_str), Some(deployment), "{}", response.text());
    }
}

pub fn error(response: &Response) -> Value {
    response.json().unwrap()["error"].clone()
}

fn image() -> Value {
    json!([{ "role": "user", "content": [
        { "type": "text", "text": "what is this?" },
        { "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBORw0KGgo=" } },
    ] }])
}

/// R004-22, C26: not as a fallback either, and not when everything else is broken.
#[tokio::test]
async fn an_image_never_reaches_a_model_that_can_not_see() {
    let stage = Stage::start().await;
    let blind = stage.served("blind", &["code"]).await;
    let seer = stage.served("seer", &["code", "vision"]).await;
    stage.group("blind-first", &[&[&blind], &[&seer]]).await;
    stage.group("seer-first", &[&[&seer], &[&blind]]).await;
    stage.group("one-pool", &[&[&seer, &blind]]).await;
    for group in ["blind-first", "seer-first", "one-pool"] {
        let response = stage.ask(json!({ "model": group, "messages": image() })).await;
        stage.went_to(&response, "custom-seer");
    }
    for group in ["blind", "custom/blind"] {
        let response = stage.ask(json!({ "model": group, "messages": image() })).await;
        let error = error(&response);
        assert_eq!((response.status, &error["code"]), (400, &json!("no_candidate_for_tags")), "{error}");
        assert!(error["message"].as_str().unwrap().contains("vision (by its content)"), "{error}");
        let reasons = error["metadata"]["eliminated"].as_array().unwrap();
        assert!(!reasons.is_empty());
        for reason in reasons {
            assert_eq!((&reason["reason"], &reason["missing"]), (&json!("tags_missing"), &json!(["vision"])));
        }
    }
    assert!(stage.asked().is_empty());
    stage.fleet.upstream.script_model("custom-seer", Script::status(503));
    let response = stage.ask(json!({ "model": "seer-first", "messages": image() })).await;
    assert_eq!(response.status, 502, "{}", response.text());
    let asked = stage.asked();
    assert!(!asked.is_empty() && asked.iter().all(|model| model == "custom-seer"), "{asked:?}");
    // The words of a request imply nothing.
    let words = json!([{ "role": "user", "content": "[{\"type\":\"image_url\"}]" }]);
    let response = stage.ask(json!({ "model": "blind-first", "messages": words })).await;
    stage.went_to(&response, "custom-blind");
}

#[tokio::test]
async fn functions_and_json_are_needs_too() {
    let stage = Stage::start().await;
    let plain = stage.served("plain", &["code"]).await;
    let able = stage.served("able", &["function-calling", "json"]).await;
    stage.group("both", &[&[&plain], &[&able]]).await;
    for extra in [
        json!({ "tools": [{ "type": "function", "function": { "name": "f" } }] }),
        json!({ "response_format": { "type": "json_object" } }),
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "s", "schema": {} } } }),
    ] {
        let mut body = json!({ "model": "both" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        stage.went_to(&stage.ask(body.clone()).await, "custom-able");
        body["model"] = json!("plain");
        assert_eq!(error(&stage.ask(body).await)["code"], "no_candidate_for_tags", "{extra}");
    }
    let nothing = json!({ "model": "both", "tools": [], "response_format": { "type": "text" } });
    stage.went_to(&stage.ask(nothing).await, "custom-plain");
}

/// What a model lacks that nobody described says nothing about it; what a request names is strict.
#[tokio::test]
async fn a_model_without_tags_is_refused_for_named_tags_only() {
    let stage = Stage::start().await;
    stage.served("nameless", &[]).await;
    stage.group("some", &[&[&stage.served("other", &["code"]).await]]).await;
    let response = stage.ask(json!({ "model": "nameless", "messages": image() })).await;
    stage.went_to(&response, "custom-nameless");
    // E.6: OpenRouter's way of being strict about it.
    let strict = json!({ "require_parameters": true });
    let response = stage.ask(json!({ "model": "nameless", "messages": image(), "provider": strict })).await;
    assert_eq!(error(&response)["code"], "no_candidate_for_tags", "{}", response.text());
    let response = stage.ask(json!({ "model": "nameless", "nemo_tags": ["vision"] })).await;
    let error = error(&response);
    assert_eq!((&error["code"], &error["param"]), (&json!("no_candidate_for_tags"), &json!("nemo_tags")));
}

/// R004-19, R004-21.
#[tokio::test]
async fn tags_of_a_request_replace_those_of_its_key() {
    let stage = Stage::start().await;
    let blind = stage.served("blind", &["code"]).await;
    let seer = stage.served("seer", &["vision"]).await;
    let both = stage.served("both", &["code", "vision"]).await;
    stage.group("all", &[&[&blind], &[&seer], &[&both]]).await;
    let client = stage.key(json!({ "default_tags": ["vision"] })).await;
    let ask = async |client: &Client, tags: Option<Value>| {
        let mut body = json!({ "model": "all" });
        if let Some(tags) = tags {
            body["nemo_tags"] = tags;
        }
        stage.ask_as(client, body).await
    };
    stage.went_to(&ask(&client, None).await, "custom-seer");
    stage.went_to(&ask(&client, Some(json!(["code"]))).await, "custom-blind");
    stage.went_to(&ask(&client, Some(json!([]))).await, "custom-blind");
    stage.went_to(&ask(&client, Some(json!(["code", "vision"]))).await, "custom-both");
    // A header wins over both.
    let with_header = client.clone().header("x-nemo-tags", "vision, code");
    stage.went_to(&ask(&with_header, Some(json!([]))).await, "custom-both");
    stage.went_to(&ask(&stage.fleet.client, None).await, "custom-blind");

    let refused = ask(&client, Some(json!(["vision", "fast"]))).await;
    let said = error(&refused);
    assert_eq!((refused.status, &said["code"]), (400, &json!("no_candidate_for_tags")), "{said}");
    assert_eq!(said["metadata"]["eliminated"].as_array().unwrap().len(), 3, "{said}");

    for (client, param) in
        [(client.clone(), "nemo_tags"), (client.clone().header("x-nemo-tags", "vission"), "x-nemo-tags")]
    {
        let refused = ask(&client, Some(json!(["vission"]))).await;
        let said = error(&refused);
        assert_eq!((refused.status, said["param"].as_str()), (400, Some(param)), "{said}");
        assert!(said["message"].as_str().unwrap().contains("vission"), "{said}");
    }
    assert!(stage.asked().is_empty());
}

/// R004-20: what the catalog says now is what counts.
#[tokio::test]
async fn a_tag_that_a_model_gets_counts_from_the_next_configuration() {
    let stage = Stage::start().await;
    stage.served("late", &["code"]).await;
    stage.group("some", &[&[&stage.served("other", &["code"]).await]]).await;
    let body = json!({ "model": "late", "messages": image() });
    assert_eq!(stage.ask(body.clone()).await.status, 400);
    stage.model("late", &["code", "vision"], 128_000).await;
    stage.group("more", &[&[&stage.served("another", &["code"]).await]]).await;
    stage.went_to(&stage.ask(body).await, "custom-late");
}

/// What certainly does not fit is refused; what may fit is the upstream's to count.
#[tokio::test]
async fn a_prompt_beyond_every_window_is_refused_before_it_is_sent() {
    let stage = Stage::start().await;
    stage.model("short", &["code"], 1000).await;
    stage.model("long", &["code"], 100_000).await;
    let short = stage.deployment("custom", "short", None).await;
    let long = stage.deployment("custom", "long", None).await;
    stage.group("both", &[&[&short], &[&long]]).await;
    let words = |bytes: usize| json!([{ "role": "user", "content": "word ".repeat(bytes / 5) }]);
    let fits = json!({ "model": "both", "messages": words(12_000) });
    stage.went_to(&stage.ask(fits).await, "custom-short");
    let too_long = json!({ "model": "both", "messages": words(20_000) });
    stage.went_to(&stage.ask(too_long).await, "custom-long");
    let response = stage.ask(json!({ "model": "short", "messages": words(20_000) })).await;
    let said = error(&response);
    assert_eq!((response.status, &said["code"]), (400, &json!("context_length_exceeded")), "{said}");
    assert_eq!(said["metadata"]["eliminated"][0]["context_window"], 1000);
    // An inlined image has bytes, but few tokens.
    let url = format!("data:image/png;base64,{}", "A".repeat(200_000));
    let part = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": url } }] }]);
    let response = stage.ask(json!({ "model": "short", "messages": part })).await;
    assert_eq!(error(&response)["code"], "no_candidate_for_tags", "not for its length");
    assert!(stage.asked().is_empty());
}

/// Nothing is wrong with the request: 503, and when to come back.
#[tokio::test]
async fn when_all_that_fit_cool_down_the_client_is_told_until_when() {
    let stage = Stage::start().await;
    let seer = stage.served("seer", &["vision"]).await;
    let blind = stage.served("blind", &["code"]).await;
    stage.group("both", &[&[&seer], &[&blind]]).await;
    let limited = Script::status(429).header("retry-after", "40").unwrap();
    stage.fleet.upstream.script_model("custom-seer", limited);
    let body = json!({ "model": "both", "messages": image() });
    assert_eq!(stage.ask(body.clone()).await.status, 429);
    let response = stage.ask(body).await;
    let said = error(&response);
    assert_eq!((response.status, &said["code"]), (503, &json!("all_deployments_cooling_down")), "{said}");
    let after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((30..=60).contains(&after), "{after}");
    let reasons = said["metadata"]["eliminated"].as_array().unwrap();
    let of = |reason: &str| reasons.iter().find(|it| it["reason"] == reason).unwrap_or(&Value::Null);
    assert_eq!(of("cooling")["cause"], "rate_limited", "{said}");
    assert!(of("cooling")["remaining_ms"].as_u64().is_some_and(|it| it > 30_000), "{said}");
    assert_eq!(of("tags_missing")["missing"], json!(["vision"]), "{said}");
    assert_eq!(stage.asked(), ["custom-seer"]);
    // Those that need less are served.
    stage.went_to(&stage.ask(json!({ "model": "both" })).await, "custom-blind");
}
