//! Counting: what a request would take in, at every deployment, for Anthropic's and Google's clients. It is counted by who
//! can, estimated where nobody does, and never billed (R004-33, E.5).

use nemo_tests::{
    client::Response,
    fleet::{Fleet, UPSTREAM_KEY},
    script::Script,
    upstream::PROMPT_TOKENS,
};
use serde_json::{Value, json};

use super::{
    conversions::{VERTEX, fleet_with_tokens, service_account},
    dialects::{Speaks, row, serve_as, settled},
};

/// Whose clients count.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Counts {
    Anthropic,
    Google,
}

impl Counts {
    const ALL: [Self; 2] = [Self::Anthropic, Self::Google];

    fn body(self, model: &str) -> (String, Value) {
        match self {
            Self::Anthropic => (
                "/v1/messages/count_tokens".to_owned(),
                json!({
                    "model": model, "system": "Be brief.", "messages": [{ "role": "user", "content": "What is in Oslo?" }],
                    "tools": [{ "name": "look", "input_schema": { "type": "object", "properties": {} } }],
                }),
            ),
            Self::Google => (
                format!("/v1beta/models/{model}:countTokens"),
                json!({ "generateContentRequest": {
                    "model": format!("models/{model}"), "systemInstruction": { "parts": [{ "text": "Be brief." }] },
                    "contents": [{ "role": "user", "parts": [{ "text": "What is in Oslo?" }] }],
                    "tools": [{ "functionDeclarations": [{
                        "name": "look", "parameters": { "type": "OBJECT", "properties": {} } }] }],
                } }),
            ),
        }
    }

    async fn ask(self, fleet: &Fleet, model: &str) -> Response {
        let (path, body) = self.body(model);
        fleet.client.post(&path, body.to_string()).await.unwrap()
    }

    /// The count, which is all that there is in the answer.
    fn count(self, response: &Response) -> Option<u64> {
        let name = if self == Self::Google { "totalTokens" } else { "input_tokens" };
        let answer = response.json().ok()?;
        assert!(answer.as_object().is_some_and(|all| all.len() == 1), "{answer}");
        answer[name].as_u64()
    }
}

/// Models at whoever counts: the name, and where it is asked.
const COUNTERS: [(&str, &str); 7] = [
    ("c-openai", "/v1/responses/input_tokens"),
    ("c-anthropic", "/v1/messages/count_tokens"),
    ("c-google", "/v1beta/models/gemini-mock:countTokens"),
    ("c-bedrock", "/model/anthropic.claude-mock/count-tokens"),
    ("c-vertex", "/v1/projects/p/locations/l/publishers/google/models/gemini-mock:countTokens"),
    ("c-claude", "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict"),
    ("c-profile", "/model/anthropic.claude-mock/count-tokens"),
];
/// And at those who don't.
const OTHERS: [&str; 4] = ["c-nova", "c-cohere", "c-groq", "c-azure"];

async fn fleet() -> (Fleet, nemo_tests::upstream::Upstream) {
    let (fleet, tokens) = fleet_with_tokens().await;
    let aws =
        json!({ "access_key_id": "AKIDTEST", "secret_access_key": UPSTREAM_KEY, "region": "eu-west-1" });
    let key = UPSTREAM_KEY;
    for (id, provider, base, secret, model) in [
        ("c-openai", "openai", "/v1", key, "mock"),
        ("c-anthropic", "anthropic", "/v1", key, "claude-mock"),
        ("c-google", "google-ai-studio", "/v1beta", key, "gemini-mock"),
        ("c-bedrock", "bedrock", "", &*aws.to_string(), "anthropic.claude-mock"),
        ("c-profile", "bedrock", "", &*aws.to_string(), "us.anthropic.claude-mock"),
        ("c-vertex", "google-vertex", VERTEX, &*service_account(), "gemini-mock"),
        ("c-claude", "google-vertex", VERTEX, &*service_account(), "claude-mock"),
        ("c-nova", "bedrock", "", &*aws.to_string(), "amazon.nova-mock"),
        ("c-cohere", "cohere", "/compatibility/v1", key, "mock"),
        ("c-groq", "groq", "/v1", key, "mock"),
        ("c-azure", "azure", "/openai/v1", key, "mock"),
    ] {
        let base = format!("{}{base}", fleet.upstream.origin());
        serve_as(&fleet, id, provider, &base, secret, "chat.completions", model).await;
    }
    settled(&fleet, "c-azure").await;
    (fleet, tokens)
}

async fn expect_free(fleet: &Fleet, response: &Response, what: &str) {
    let logged = row(fleet, response).await;
    assert_eq!(logged["outcome"], "ok", "{what}: {logged}");
    assert_eq!(logged["cost_nanos"].as_i64().unwrap_or(0), 0, "{what}: {logged}");
    assert_eq!(logged["input_tokens"].as_u64().unwrap_or(0), 0, "{what}: {logged}");
}

/// Makes every call of this model cost a cent, whatever it is.
async fn charge_by_the_call(fleet: &Fleet, model: &str) {
    let fee = json!({ "unit": "requests", "price": CENT * 1_000_000 });
    let price = json!({ "input": 5_000_000_000_i64, "output": 10_000_000_000_i64, "units": [fee] });
    let deployments = fleet.admin.get(&format!("/deployments?model={model}")).await.unwrap();
    let id = deployments["deployments"][0]["id"].as_str().unwrap();
    fleet.admin.patch(&format!("/deployments/{id}?wait=fleet"), json!({ "price": price })).await.unwrap();
}

/// In nano dollars.
const CENT: i64 = 10_000_000;

/// Counting is free where a call costs something by itself, counted or estimated.
#[tokio::test]
async fn a_price_for_each_call_is_none_for_counting() {
    let (fleet, _tokens) = fleet().await;
    for model in ["c-anthropic", "c-google", "c-cohere"] {
        charge_by_the_call(&fleet, model).await;
        let answer = Speaks::Chat.ask(&fleet.client, model, false, &json!({})).await;
        let logged = row(&fleet, &answer).await;
        assert!(logged["cost_nanos"].as_i64().is_some_and(|nanos| nanos > CENT), "{model}: {logged}");
        for client in Counts::ALL {
            let response = client.ask(&fleet, model).await;
            assert_eq!(response.status, 200, "{model}: {}", response.text());
            assert_eq!(response.header("x-nemo-cost-usd"), None, "{model}");
            expect_free(&fleet, &response, model).await;
        }
    }
}

/// Every upstream is asked in its own words, with instructions and tools, and every client is answered in its own.
#[tokio::test]
async fn tokens_are_counted_by_whoever_can_and_cost_nothing() {
    let (fleet, _tokens) = fleet().await;
    for client in Counts::ALL {
        for (model, path) in COUNTERS {
            let response = client.ask(&fleet, model).await;
            let what = format!("{client:?} {model}: {}", response.text());
            assert_eq!(response.status, 200, "{what}");
            assert_eq!(client.count(&response), Some(PROMPT_TOKENS), "{what}");
            assert_eq!(response.header("x-nemo-estimated"), None, "{what}");
            assert!(response.header("x-nemo-cost-usd").is_none(), "{what}");
            let sent = fleet.upstream.last_request().unwrap();
            assert_eq!(sent.path, path, "{what}");
            let sent = String::from_utf8_lossy(&sent.body).into_owned();
            for part in ["Be brief.", "What is in Oslo?", "look"] {
                assert!(sent.contains(part), "{what}: {sent}");
            }
            expect_free(&fleet, &response, &what).await;
        }
    }
}

/// Where nobody counts, the gateway estimates: nothing is sent, and the answer says so.
#[tokio::test]
async fn where_nobody_counts_the_gateway_estimates_and_says_so() {
    let (fleet, _tokens) = fleet().await;
    let before = fleet.upstream.served();
    for client in Counts::ALL {
        for model in OTHERS {
            let response = client.ask(&fleet, model).await;
            let what = format!("{client:?} {model}: {}", response.text());
            assert_eq!(response.status, 200, "{what}");
            assert!(client.count(&response).is_some_and(|count| (15..60).contains(&count)), "{what}");
            assert_eq!(response.header("x-nemo-estimated"), Some("input_tokens"), "{what}");
            assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
            assert!(response.header("x-nemo-provider").is_some(), "{what}");
            assert_eq!(response.header("x-nemo-attempts"), None, "{what}");
            expect_free(&fleet, &response, &what).await;
        }
    }
    assert_eq!(fleet.upstream.served(), before, "nothing was sent");
}

/// A model or an account that can't count says so in several ways. That is no fault: chats go on there.
#[tokio::test]
async fn an_upstream_that_has_no_count_is_counted_for() {
    let (fleet, _tokens) = fleet().await;
    let unable = "The provided model doesn't support counting tokens.";
    for _ in 0..3 {
        for (model, script) in [
            ("c-openai", Script::status(404)),
            ("c-google", Script::status(403)),
            ("c-bedrock", Script::status(403).content("not authorized to perform: bedrock:CountTokens")),
            ("c-bedrock", Script::status(400).content(unable)),
            ("c-claude", Script::status(501)),
        ] {
            fleet.upstream.push(script);
            let response = Counts::Anthropic.ask(&fleet, model).await;
            let what = format!("{model}: {}", response.text());
            assert_eq!(response.status, 200, "{what}");
            assert_eq!(response.header("x-nemo-estimated"), Some("input_tokens"), "{what}");
            assert_eq!(response.header("x-nemo-attempts"), Some("1"), "{what}");
            expect_free(&fleet, &response, &what).await;
        }
    }
    for model in ["c-openai", "c-google", "c-bedrock", "c-claude"] {
        let response = Speaks::Chat.ask(&fleet.client, model, false, &json!({})).await;
        assert_eq!(response.status, 200, "{model}: {}", response.text());
    }
    // What is wrong with the request itself is the client's to know.
    for client in Counts::ALL {
        fleet.upstream.push(Script::status(400).content("the mock does not like it"));
        let response = client.ask(&fleet, "c-bedrock").await;
        assert_eq!(response.status, 400, "{client:?}: {}", response.text());
        let error = &response.json().unwrap()["error"];
        assert_eq!(error["message"], "the mock does not like it", "{client:?}: {error}");
        let (member, named) = match client {
            Counts::Anthropic => ("type", "invalid_request_error"),
            Counts::Google => ("status", "INVALID_ARGUMENT"),
        };
        assert_eq!(error[member], named, "{client:?}");
    }
}

/// As for a request that is to be answered: the path of what is wrong, before anything is sent.
#[tokio::test]
async fn what_is_wrong_is_named_before_anything_is_counted() {
    let (fleet, _tokens) = fleet().await;
    let before = fleet.upstream.served();
    for model in ["c-google", "c-bedrock", "c-openai", "c-cohere", "c-claude"] {
        for (messages, place) in [
            (json!([{ "role": "king", "content": "hi" }]), "messages[0].role"),
            (json!([{ "role": "user", "content": [{ "type": "smell" }] }]), "messages[0].content[0]"),
            (json!([]), "messages"),
        ] {
            let body = json!({ "model": model, "messages": messages }).to_string();
            let response = fleet.client.post("/v1/messages/count_tokens", body).await.unwrap();
            let answer = response.json().unwrap();
            assert_eq!((response.status, &answer["type"]), (400, &json!("error")), "{model}: {answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(place), "{model}: {answer}");
        }
    }
    for model in ["c-anthropic", "c-bedrock", "c-openai", "c-cohere"] {
        let body = json!({ "contents": [{ "parts": [{ "text": 5 }] }] }).to_string();
        let path = format!("/v1beta/models/{model}:countTokens");
        let response = fleet.client.post(&path, body).await.unwrap();
        let error = &response.json().unwrap()["error"];
        assert_eq!(
            (response.status, &error["status"]),
            (400, &json!("INVALID_ARGUMENT")),
            "{model}: {error}"
        );
    }
    assert_eq!(fleet.upstream.served(), before, "nothing was sent");
    let unknown = Counts::Google.ask(&fleet, "nobody-has-it").await;
    assert_eq!((unknown.status, &unknown.json().unwrap()["error"]["status"]), (404, &json!("NOT_FOUND")));
}
