use serde_json::{Value, json};

use super::*;
use crate::{Plan, address, plan};

const VERTEX: &str = "https://x/v1/projects/p/locations/l";

fn counter(endpoint: Endpoint, provider: &str, model: &str) -> Option<Plan> {
    plan(endpoint, crate::provider(provider).unwrap(), model)
}

/// Every provider that has conversations counts, or is counted for, for clients of either dialect.
#[test]
fn whoever_has_conversations_has_a_count() {
    let mut estimates = 0;
    for provider in crate::providers() {
        for endpoint in [Endpoint::CountTokens, Endpoint::GoogleCountTokens] {
            let found = plan(endpoint, provider, "m");
            assert_eq!(found.is_some(), provider.dialect("m").is_some(), "{} {endpoint:?}", provider.id);
            if let Some(found @ Plan::Count { by, .. }) = found {
                let url = address::url(provider, "https://x", endpoint, found, "m", false);
                assert_eq!(url.is_none(), by == Counter::Estimate, "{}", provider.id);
                estimates += u32::from(by == Counter::Estimate);
            }
        }
    }
    assert!(estimates > 80, "{estimates}");
}

#[test]
fn each_counter_is_called_where_it_is() {
    for (provider, model, base, url) in [
        ("anthropic", "claude-x", "https://x/v1", "https://x/v1/messages/count_tokens"),
        (
            "google-vertex",
            "claude-x@1",
            VERTEX,
            "https://x/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
        ),
        (
            "google-vertex",
            "gemini-3",
            VERTEX,
            "https://x/v1/projects/p/locations/l/publishers/google/models/gemini-3:countTokens",
        ),
        (
            "google-ai-studio",
            "gemini-3",
            "https://x/v1beta/openai",
            "https://x/v1beta/models/gemini-3:countTokens",
        ),
        (
            "bedrock",
            "us.anthropic.claude-v1:0",
            "https://x",
            "https://x/model/anthropic.claude-v1%3A0/count-tokens",
        ),
        ("openai", "gpt-5.2", "https://x/v1", "https://x/v1/responses/input_tokens"),
    ] {
        let row = crate::provider(provider).unwrap();
        for endpoint in [Endpoint::CountTokens, Endpoint::GoogleCountTokens] {
            let plan = counter(endpoint, provider, model).unwrap();
            let found = address::url(row, base, endpoint, plan, model, false);
            assert_eq!(found.as_deref(), Some(url), "{provider} {endpoint:?}");
        }
    }
    assert!(matches!(counter(Endpoint::CountTokens, "anthropic", "claude-x"), Some(Plan::Splice)));
    for (provider, model) in [("bedrock", "amazon.nova-pro-v1:0"), ("azure", "gpt-5.2"), ("groq", "m")] {
        let plan = counter(Endpoint::CountTokens, provider, model);
        assert!(matches!(plan, Some(Plan::Count { by: Counter::Estimate, .. })), "{provider}: {plan:?}");
    }
    // SSRF: a model's name never leaves its place.
    let row = crate::provider("google-ai-studio").unwrap();
    assert_eq!(Counter::GenerateContent.url(row, "https://x", "../a"), None);
}

/// A request with instructions, tools and history, in the words of each client.
fn asked(from: Dialect) -> Value {
    match from {
        Dialect::GenerateContent => json!({
            "systemInstruction": { "parts": [{ "text": "Be brief." }] },
            "contents": [
                { "role": "user", "parts": [{ "text": "What is the weather in Oslo?" }] },
                { "role": "model", "parts": [{ "functionCall": { "name": "weather", "args": { "city": "Oslo" } } }] },
                { "role": "user", "parts": [{ "functionResponse": {
                    "name": "weather", "response": { "result": "snow" } } }] },
            ],
            "tools": [{ "functionDeclarations": [{
                "name": "weather", "parameters": { "type": "OBJECT", "properties": { "city": { "type": "STRING" } } },
            }] }],
        }),
        _ => json!({
            "model": "m", "system": "Be brief.",
            "messages": [
                { "role": "user", "content": "What is the weather in Oslo?" },
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": "t1", "name": "weather", "input": { "city": "Oslo" } } ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t1", "content": "snow" } ] },
            ],
            "tools": [{ "name": "weather", "input_schema": {
                "type": "object", "properties": { "city": { "type": "string" } } } }],
        }),
    }
}

const CLIENTS: [Dialect; 2] = [Dialect::Messages, Dialect::GenerateContent];
const INBOUND: Inbound<'_> = Inbound { model: "m", stream: false };

#[test]
fn everything_that_is_taken_in_reaches_whoever_counts() {
    for from in CLIENTS {
        for (by, provider, model) in [
            (Counter::Messages, "anthropic", "claude-x"),
            (Counter::Messages, "google-vertex", "claude-x"),
            (Counter::GenerateContent, "google-ai-studio", "gemini-3"),
            (Counter::GenerateContent, "google-vertex", "gemini-3"),
            (Counter::Converse, "bedrock", "us.anthropic.claude-x"),
            (Counter::Responses, "openai", "gpt-5.2"),
        ] {
            let provider = crate::provider(provider).unwrap();
            let hosted = provider.hosting == Hosting::Vertex;
            let to = Destination { provider, model, most_output: 64_000, cap: Some(5), hosted };
            let body = asked(from).to_string();
            let sent = request((from, by), body.as_bytes(), INBOUND, &to).unwrap().body;
            let sent: Value = serde_json::from_slice(&sent).unwrap();
            let text = sent.to_string();
            for part in ["Be brief.", "What is the weather", "Oslo", "snow", "weather", "city"] {
                assert!(text.contains(part), "{from:?} {}: {part} in {sent}", provider.id);
            }
            // Nothing is answered.
            for limit in ["max_tokens", "maxTokens", "max_output_tokens", "\"stream\"", "\"store\""] {
                assert!(!text.contains(limit), "{from:?} {}: {limit} in {sent}", provider.id);
            }
            if by == Counter::Messages {
                assert_eq!(sent["model"], model);
                assert_eq!(sent.get("anthropic_version").is_some(), hosted, "{sent}");
            }
        }
    }
}

#[test]
fn a_count_is_told_in_the_words_of_the_client() {
    for (by, answer) in [
        (Counter::Messages, r#"{"input_tokens":31}"#),
        (Counter::GenerateContent, r#"{"totalTokens":31,"promptTokensDetails":[{"tokenCount":30}]}"#),
        (Counter::Converse, r#"{"inputTokens":31}"#),
        (Counter::Responses, r#"{"object":"response.input_tokens","input_tokens":31}"#),
    ] {
        let told = |from| String::from_utf8(response((from, by), answer.as_bytes()).unwrap()).unwrap();
        assert_eq!(told(Dialect::Messages), r#"{"input_tokens":31}"#);
        assert_eq!(told(Dialect::GenerateContent), r#"{"totalTokens":31}"#);
        for odd in ["[]", "{\"x\":1}", r#"{"input_tokens":"a"}"#, r#"{"inputTokens":-1}"#, "", "\u{1}"] {
            let read = response((Dialect::Messages, by), odd.as_bytes());
            let zero = by == Counter::GenerateContent && odd.starts_with('{');
            assert_eq!(read.is_ok(), zero, "{by:?} {odd}");
        }
    }
}

fn tokens(from: Dialect, body: &Value) -> u64 {
    let told = estimated(from, body.to_string().as_bytes(), INBOUND).unwrap();
    let told: Value = serde_json::from_slice(&told).unwrap();
    let name = if from == Dialect::GenerateContent { "totalTokens" } else { "input_tokens" };
    told[name].as_u64().unwrap()
}

#[test]
fn an_estimate_is_near_what_models_count_and_the_same_in_every_dialect() {
    let (anthropic, google) = (asked(Dialect::Messages), asked(Dialect::GenerateContent));
    let both = [tokens(Dialect::Messages, &anthropic), tokens(Dialect::GenerateContent, &google)];
    assert!(both[0].abs_diff(both[1]) <= 8 && (40..90).contains(&both[0]), "{both:?}");
    let prose = "The quick brown fox jumps over the lazy dog. ".repeat(100);
    let long = json!({ "model": "m", "messages": [{ "role": "user", "content": prose }] });
    // Ten tokens a sentence, in every vocabulary of today.
    assert!((900..1_300).contains(&tokens(Dialect::Messages, &long)));
}

/// Bytes of a file are no text; a document of text is.
#[test]
fn files_count_flat() {
    let part = |source: Value| {
        let content = json!([{ "type": "image", "source": source }]);
        json!({ "model": "m", "messages": [{ "role": "user", "content": content }] })
    };
    let data = "A".repeat(400_000);
    let inlined = part(json!({ "type": "base64", "media_type": "image/png", "data": data }));
    let linked = part(json!({ "type": "url", "url": "https://x/y.png" }));
    let google =
        json!({ "contents": [{ "parts": [{ "inlineData": { "mimeType": "image/png", "data": data } }] }] });
    let both = [tokens(Dialect::Messages, &inlined), tokens(Dialect::Messages, &linked)];
    assert_eq!((both[0], tokens(Dialect::GenerateContent, &google)), (both[1], both[1]));
    assert!((1_000..1_010).contains(&both[0]), "{both:?}");
    let text = json!({ "model": "m", "messages": [{ "role": "user", "content": [
        { "type": "document", "source": { "type": "text", "media_type": "text/plain", "data": "word ".repeat(800) } },
    ] }] });
    assert_eq!(tokens(Dialect::Messages, &text), 1_004);
}

/// The same mistakes in the same words as of a request that is to be answered.
#[test]
fn what_is_wrong_is_named_as_in_messages() {
    for messages in [
        json!([{ "role": "king", "content": "hi" }]),
        json!([{ "role": "user", "content": [{ "type": "smell" }] }]),
        json!([{ "role": "user", "content": [
            { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "@@" } } ] }]),
        json!([{ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "x", "content": "a" }] }]),
        json!([]),
        json!("hi"),
    ] {
        let counted = json!({ "model": "m", "messages": messages }).to_string();
        let asked = json!({ "model": "m", "messages": messages, "max_tokens": 5 }).to_string();
        let expected = anthropic::request::decode(asked.as_bytes()).unwrap_err();
        assert!(expected.path.starts_with("messages"), "{expected:?}");
        let error = estimated(Dialect::Messages, counted.as_bytes(), INBOUND).unwrap_err();
        assert_eq!(error, expected);
        let provider = crate::provider("google-ai-studio").unwrap();
        let to = Destination { provider, model: "gemini-3", most_output: 0, cap: None, hosted: false };
        let by = (Dialect::Messages, Counter::GenerateContent);
        assert_eq!(request(by, counted.as_bytes(), INBOUND, &to).unwrap_err(), expected);
    }
}

#[test]
fn only_who_does_not_count_is_counted_for() {
    for status in [403, 404, 405, 501] {
        assert!(Counter::Responses.is_missing(status, ""));
    }
    for status in [200, 400, 401, 429, 500, 503] {
        assert!(!Counter::Converse.is_missing(status, "no"));
    }
    let said = "The provided model doesn't support counting tokens.";
    assert!(Counter::Converse.is_missing(400, said) && !Counter::Messages.is_missing(400, said));
}

/// Whatever comes, from either side, is read or refused.
#[test]
fn nothing_that_is_cut_or_bent_is_a_panic() {
    let provider = crate::provider("google-vertex").unwrap();
    for from in CLIENTS {
        let body = asked(from).to_string().into_bytes();
        for at in 0..body.len() {
            let mut bent = body.clone();
            bent[at] = b"{}[]\",:0\xff"[at % 9];
            for odd in [&body[..at], &bent] {
                let _ = estimated(from, odd, INBOUND);
                for (by, model) in [(Counter::GenerateContent, "gemini-3"), (Counter::Messages, "claude-x")] {
                    let to = Destination { provider, model, most_output: 0, cap: None, hosted: true };
                    let _ = request((from, by), odd, INBOUND, &to);
                    let _ = response((from, by), odd);
                }
            }
        }
    }
}
