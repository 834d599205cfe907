//! What a request says about its own way: section F in headers and in the body, and what other gateways' clients send
//! (E.6, E.8, E.9, E.10, R003-3, R004-14).

use nemo_tests::{
    client::Client,
    fleet::{EMBEDDING_MODEL, MODEL},
    script::Script,
};
use serde_json::{Value, json};

use super::{
    media,
    tags::{Stage, error},
};

/// Group `chain`: `a`, then `b`; `a` always fails.
async fn broken_first() -> Stage {
    let stage = Stage::start().await;
    let (a, b) = (stage.served("a", &["code"]).await, stage.served("b", &["code"]).await);
    stage.served("c", &["code"]).await;
    stage.group("chain", &[&[&a], &[&b]]).await;
    stage
}

impl Stage {
    fn break_a(&self) {
        self.fleet.upstream.script_model("custom-a", Script::status(500));
    }
}

#[tokio::test]
async fn a_request_may_bring_its_own_chain() {
    let stage = broken_first().await;
    let client = &stage.fleet.client;
    for (client, body, last) in [
        (client.clone(), json!({ "model": "chain" }), "custom-b"),
        (client.clone(), json!({ "model": "chain", "nemo_fallbacks": ["c"] }), "custom-c"),
        (client.clone().header("x-nemo-fallbacks", "c, b"), json!({ "model": "chain" }), "custom-c"),
        (client.clone(), json!({ "model": "chain", "fallbacks": [{ "model": "c" }] }), "custom-c"),
        // OpenRouter's list goes on behind the whole group.
        (client.clone(), json!({ "model": "a", "models": ["c", "b"] }), "custom-c"),
        (client.clone(), json!({ "models": ["a", "c"] }), "custom-c"),
        (client.clone(), json!({ "model": "chain", "models": ["c"] }), "custom-b"),
    ] {
        stage.break_a();
        let response = stage.ask_as(&client, body.clone()).await;
        assert_eq!(response.status, 200, "{body}: {}", response.text());
        let asked = stage.asked();
        assert_eq!(asked.last().map(String::as_str), Some(last), "{body}: {asked:?}");
        assert!(asked[..asked.len() - 1].iter().all(|model| model == "custom-a"), "{body}: {asked:?}");
    }
    let sent = stage.ask(json!({ "models": ["b"], "stream": false, "nemo_retries": 1 })).await;
    assert_eq!(sent.header("x-nemo-edits"), Some("strip,model"));
    let body = stage.fleet.upstream.last_request().unwrap().json().unwrap();
    let mut names: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["messages", "model", "stream"]);
}

#[tokio::test]
async fn models_of_a_chain_are_checked_as_the_model_is() {
    let stage = broken_first().await;
    let limited = stage.key(json!({ "allowed_models": ["chain", "b", EMBEDDING_MODEL] })).await;
    let client = &stage.fleet.client;
    for (client, body, status, param) in [
        (client, json!({ "model": "b", "nemo_fallbacks": ["nobody-knows"] }), 404, "nemo_fallbacks"),
        (client, json!({ "model": "b", "models": ["b", "nobody-knows"] }), 404, "models"),
        (client, json!({ "model": "b", "fallbacks": ["nobody-knows"] }), 404, "fallbacks"),
        (
            &client.clone().header("x-nemo-fallbacks", "nobody-knows"),
            json!({ "model": "b" }),
            404,
            "x-nemo-fallbacks",
        ),
        (&limited, json!({ "model": "b", "nemo_fallbacks": ["c"] }), 403, "nemo_fallbacks"),
        (&limited, json!({ "model": "chain", "models": ["c"] }), 403, "models"),
    ] {
        let response = stage.ask_as(client, body.clone()).await;
        let said = error(&response);
        assert_eq!((response.status, said["param"].as_str()), (status, Some(param)), "{body}: {said}");
        let named = said["message"].as_str().unwrap();
        assert!(named.contains("nobody-knows") || named.contains("`c`"), "{said}");
    }
    assert!(stage.asked().is_empty());
    let allowed = stage.ask_as(&limited, json!({ "model": "b", "nemo_fallbacks": ["chain"] })).await;
    stage.went_to(&allowed, "custom-b");
}

/// B12, R003-3: however it is said.
#[tokio::test]
async fn no_fallback_means_the_primary_pool_only() {
    let stage = broken_first().await;
    let client = &stage.fleet.client;
    for (client, body) in [
        (client.clone(), json!({ "model": "chain", "nemo_no_fallback": true })),
        (client.clone().header("x-nemo-no-fallback", "true"), json!({ "model": "chain" })),
        (client.clone().header("X-No-Fallback", "true"), json!({ "model": "chain" })),
        (client.clone(), json!({ "model": "chain", "disable_fallbacks": true })),
        (client.clone(), json!({ "model": "chain", "provider": { "allow_fallbacks": false } })),
        (client.clone(), json!({ "model": "chain", "nemo_fallbacks": [] })),
        (client.clone(), json!({ "model": "a", "models": ["b"], "nemo_no_fallback": true })),
    ] {
        stage.break_a();
        let response = stage.ask_as(&client, body.clone()).await;
        assert!(response.status >= 500, "{body}: {}", response.text());
        assert!(stage.asked().iter().all(|model| model == "custom-a"), "{body}");
    }
    stage.break_a();
    let client = client.clone().header("x-nemo-no-fallback", "false");
    let response = stage.ask_as(&client, json!({ "model": "chain", "nemo_no_fallback": true })).await;
    stage.went_to(&response, "custom-b");
}

/// One model at three providers, at different prices.
async fn three_providers() -> Stage {
    let stage = Stage::start().await;
    stage.model("multi", &["code"], 128_000).await;
    stage.deployment("openai", "multi", Some((10, 30))).await;
    stage.deployment("groq", "multi", Some((1, 2))).await;
    stage.deployment("mistral", "multi", Some((5, 10))).await;
    stage.group("some", &[&[&stage.served("other", &["code"]).await]]).await;
    stage
}

/// E.6: OpenRouter's `provider`.
#[tokio::test]
async fn providers_are_chosen_as_the_request_prefers() {
    let stage = three_providers().await;
    for (provider, first) in [
        (json!({ "only": ["groq"] }), "groq-multi"),
        (json!({ "only": ["Mistral"] }), "mistral-multi"),
        (json!({ "ignore": ["openai", "groq"] }), "mistral-multi"),
        (json!({ "order": ["mistral", "openai"] }), "mistral-multi"),
        (json!({ "order": ["nobody", "openai"] }), "openai-multi"),
        (json!({ "sort": "price" }), "groq-multi"),
        (json!({ "sort": { "by": "price" } }), "groq-multi"),
        (json!({ "max_price": { "prompt": 2 } }), "groq-multi"),
        (json!({ "max_price": { "completion": "11" }, "ignore": ["groq"] }), "mistral-multi"),
    ] {
        // Chance alone would be found out.
        for _ in 0..6 {
            let response = stage.ask(json!({ "model": "multi", "provider": provider })).await;
            stage.went_to(&response, first);
        }
    }
    let broken = || stage.fleet.upstream.script_model("mistral-multi", Script::status(500));
    broken();
    let response =
        stage.ask(json!({ "model": "multi", "provider": { "order": ["mistral", "openai"] } })).await;
    stage.went_to(&response, "openai-multi");
    broken();
    let strict = json!({ "order": ["mistral"], "allow_fallbacks": false });
    let response = stage.ask(json!({ "model": "multi", "provider": strict })).await;
    assert!(response.status >= 500, "{}", response.text());
    assert!(stage.asked().iter().all(|model| model == "mistral-multi"));
    for (provider, code) in [
        (json!({ "only": ["nobody"] }), "no_candidate_for_preferences"),
        (json!({ "ignore": ["openai", "groq", "mistral"] }), "no_candidate_for_preferences"),
        (json!({ "max_price": { "prompt": "0.5" } }), "no_candidate_for_price"),
    ] {
        let response = stage.ask(json!({ "model": "multi", "provider": provider })).await;
        let said = error(&response);
        assert_eq!((response.status, said["code"].as_str()), (400, Some(code)), "{provider}: {said}");
        assert_eq!(said["metadata"]["eliminated"].as_array().unwrap().len(), 3, "{said}");
    }
    assert!(stage.asked().is_empty());
}

/// R004-14: per request, and every short form of it.
#[tokio::test]
async fn the_strategy_is_the_requests_if_it_names_one() {
    let stage = three_providers().await;
    let client = &stage.fleet.client;
    for (client, body) in [
        (client.clone(), json!({ "model": "multi", "nemo_strategy": "cost-based" })),
        (client.clone().header("x-nemo-strategy", "cost-based"), json!({ "model": "multi" })),
        (client.clone(), json!({ "model": "multi:floor" })),
        (client.clone(), json!({ "model": "openai/multi:floor", "provider": { "only": ["groq"] } })),
        (client.clone(), json!({ "model": "multi", "routing": "price" })),
    ] {
        for _ in 0..6 {
            let response = stage.ask_as(&client, body.clone()).await;
            assert_eq!(response.header("x-nemo-strategy"), Some("cost-based"), "{body}");
            stage.went_to(&response, "groq-multi");
        }
    }
    for (body, strategy) in [
        (json!({ "model": "multi", "nemo_strategy": "least-busy" }), "least-busy"),
        (json!({ "model": "multi", "routing": "auto" }), "balanced"),
        // A name of ours wins over another gateway's.
        (json!({ "model": "multi:floor", "nemo_strategy": "weighted", "routing": "price" }), "weighted"),
    ] {
        let response = stage.ask(body.clone()).await;
        assert_eq!(response.header("x-nemo-strategy"), Some(strategy), "{body}: {}", response.text());
    }
}

#[tokio::test]
async fn a_request_may_say_what_it_may_cost() {
    let stage = three_providers().await;
    // About ten tokens in, a thousand out: groq 0.002 USD, mistral 0.01, openai 0.03.
    let ask = async |client: &Client, most: Value| {
        let body = json!({ "model": "multi", "max_tokens": 1000, "nemo_max_cost": most });
        stage.ask_as(client, body).await
    };
    let client = &stage.fleet.client;
    for most in [json!(0.005), json!("0.005")] {
        for _ in 0..6 {
            stage.went_to(&ask(client, most.clone()).await, "groq-multi");
        }
    }
    let refused = ask(client, json!(0.0001)).await;
    let said = error(&refused);
    assert_eq!((refused.status, &said["code"]), (400, &json!("no_candidate_for_price")), "{said}");
    assert_eq!(said["param"], "nemo_max_cost");
    let refused = ask(&client.clone().header("x-nemo-max-cost", "0.0001"), json!(1)).await;
    assert_eq!(error(&refused)["param"], "x-nemo-max-cost");
    assert!(stage.asked().iter().all(|model| model == "groq-multi"));
}

/// R004-14: a request may ask for less or more, but not for more than its organization allows.
#[tokio::test]
async fn overrides_above_a_ceiling_are_refused() {
    let stage = broken_first().await;
    let client = &stage.fleet.client;
    for (client, body, param) in [
        (client.clone(), json!({ "nemo_retries": 6 }), "nemo_retries"),
        (client.clone(), json!({ "num_retries": 300 }), "num_retries"),
        (client.clone().header("x-nemo-retries", "6"), json!({}), "x-nemo-retries"),
        (client.clone().header("x-portkey-retry-count", "6"), json!({}), "x-portkey-retry-count"),
        (client.clone(), json!({ "nemo_timeout_ms": 1_800_001 }), "nemo_timeout_ms"),
        (client.clone().header("x-nemo-timeout-ms", "1800001"), json!({}), "x-nemo-timeout-ms"),
        (client.clone().header("x-litellm-timeout", "1800.001"), json!({}), "x-litellm-timeout"),
    ] {
        let mut body = body;
        body["model"] = json!(MODEL);
        let response = stage.ask_as(&client, body.clone()).await;
        let said = error(&response);
        assert_eq!((response.status, said["param"].as_str()), (400, Some(param)), "{body}: {said}");
        assert!(said["message"].as_str().unwrap().contains("at most"), "{said}");
    }
    assert!(stage.asked().is_empty());
    let within = json!({ "model": MODEL, "nemo_retries": 5, "nemo_timeout_ms": 1_800_000 });
    assert_eq!(stage.ask(within).await.status, 200);
    let path = stage.fleet.org("/settings/routing.max_retries?wait=fleet");
    stage.fleet.admin.put(&path, json!({ "value": "1" })).await.unwrap();
    let above = stage.ask(json!({ "model": MODEL, "nemo_retries": 2 })).await;
    assert_eq!((above.status, error(&above)["param"].as_str()), (400, Some("nemo_retries")));
    assert_eq!(stage.ask(json!({ "model": MODEL, "nemo_retries": 1 })).await.status, 200);
    let path = stage.fleet.org("/settings/routing.max_cost_usd?wait=fleet");
    stage.fleet.admin.put(&path, json!({ "value": "\"0.5\"" })).await.unwrap();
    let above = stage.ask(json!({ "model": MODEL, "nemo_max_cost": 0.51 })).await;
    assert_eq!((above.status, error(&above)["param"].as_str()), (400, Some("nemo_max_cost")));
    assert_eq!(stage.ask(json!({ "model": MODEL, "nemo_max_cost": 0.5 })).await.status, 200);
    // The organization's own limit holds for requests that say nothing: 10 USD per million, a million tokens.
    let dear = stage.ask(json!({ "model": MODEL, "max_tokens": 1_000_000 })).await;
    assert_eq!(error(&dear)["code"], "no_candidate_for_price", "{}", dear.text());
}

/// Requirements F: every one of them exists as a field of the body, also where the body is a form.
#[tokio::test]
async fn a_form_says_its_wishes_in_fields() {
    let fleet = media::fleet().await;
    let post = async |name: &str, value: &str| {
        let sound = media::file("file", &[1; 1000]);
        let body = media::form(&[media::field("model", media::WHISPER), media::field(name, value), sound]);
        fleet.client.post_as("/v1/audio/transcriptions", media::FORM, &[&body]).await.unwrap()
    };
    for (name, value) in [
        ("nemo_strategy", "fastest"),
        ("nemo_tags", "nonsense"),
        ("nemo_tags[]", "nonsense"),
        ("nemo_retries", "100"),
        ("nemo_fallbacks", "nobody-knows"),
        ("nemo_timeout_ms", "1800001"),
        ("nemo_max_cost", "cheap"),
    ] {
        let response = post(name, value).await;
        let param = error(&response)["param"].clone();
        assert!((400..=404).contains(&response.status), "{name}: {}", response.text());
        assert_eq!(param, name.trim_end_matches("[]"), "{}", response.text());
    }
    assert_eq!(fleet.upstream.served(), 0);
    let response = post("nemo_strategy", "least-busy").await;
    assert_eq!((response.status, response.header("x-nemo-strategy")), (200, Some("least-busy")));
    assert_eq!(response.header("x-nemo-edits"), Some("strip,model"));
}

/// The "Bad input", end to end: a 400 that names the field, and no upstream hears of it.
#[tokio::test]
async fn bad_overrides_name_their_field_and_reach_no_upstream() {
    let stage = Stage::start().await;
    let client = &stage.fleet.client;
    for (member, value) in [
        ("nemo_strategy", json!("fastest")),
        ("nemo_tags", json!("vision")),
        ("nemo_tags", json!(["nonsense"])),
        ("nemo_fallbacks", json!("a")),
        ("nemo_retries", json!(-1)),
        ("nemo_max_cost", json!("cheap")),
        ("nemo_no_fallback", json!("yes")),
        ("nemo_cache", json!("off")),
        ("models", json!([1])),
        ("fallbacks", json!({ "a": ["b"] })),
        ("routing", json!("fastest")),
        ("provider", json!("openai")),
    ] {
        let mut body = json!({ "model": MODEL });
        body[member] = value;
        let response = stage.ask_as(client, body.clone()).await;
        let said = error(&response);
        assert_eq!((response.status, said["param"].as_str()), (400, Some(member)), "{body}: {said}");
    }
    for (inside, value) in [("order", json!("x")), ("sort", json!("x")), ("max_price", json!(1))] {
        let body = json!({ "model": MODEL, "provider": { inside: value } });
        let said = error(&stage.ask_as(client, body).await);
        assert_eq!(said["param"], format!("provider.{inside}"), "{said}");
    }
    for (name, value) in [
        ("x-nemo-strategy", "fastest"),
        ("x-nemo-tags", "vision,,code"),
        ("x-nemo-tags", "nonsense"),
        ("x-nemo-fallbacks", ","),
        ("x-nemo-retries", "many"),
        ("x-nemo-max-cost", "-1"),
        ("x-nemo-no-fallback", "yes"),
        ("x-no-fallback", "yes"),
        ("x-nemo-cache", "maybe"),
    ] {
        let response = stage.ask_as(&client.clone().header(name, value), json!({ "model": MODEL })).await;
        let said = error(&response);
        assert_eq!((response.status, said["param"].as_str()), (400, Some(name)), "{value}: {said}");
    }
    assert_eq!(stage.fleet.upstream.served(), 0);
}
