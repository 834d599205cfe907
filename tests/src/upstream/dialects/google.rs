//! Google's `generateContent`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Asked, SIGNATURE, Script, THOUGHT, Wish, last_has, list, owned};
use crate::upstream::reply::{event, json_bytes};

fn asked(request: &Value) -> Asked {
    let (config, calling) = (&request["generationConfig"], &request["toolConfig"]["functionCallingConfig"]);
    let schema = |tool: &Value| match &tool["parametersJsonSchema"] {
        Value::Null => lower(&tool["parameters"]),
        schema => schema.clone(),
    };
    let json = config["responseMimeType"] == "application/json";
    Asked {
        tools: list(request, "tools")
            .flat_map(|tool| list(tool, "functionDeclarations"))
            .filter_map(|tool| Some((owned(&tool["name"])?, schema(tool))))
            .collect(),
        choice: match calling["mode"].as_str() {
            Some("NONE") => Some(String::new()),
            _ => list(calling, "allowedFunctionNames").next().and_then(owned),
        },
        answered: last_has(request, "contents", "parts", |part| part["functionResponse"].is_object()),
        limit: config["maxOutputTokens"].as_u64(),
        json: json.then(|| match &config["responseJsonSchema"] {
            Value::Null => lower(&config["responseSchema"]),
            schema => schema.clone(),
        }),
        thinks: config["thinkingConfig"]["includeThoughts"] == true,
    }
}

pub(super) fn answer(request: &Value, model: &str, script: &Script, number: u64, stream: bool) -> Answer {
    let wish = Wish::new(&asked(request), script);
    let finish = if wish.cut { "MAX_TOKENS" } else { "STOP" };
    let mut parts = Vec::new();
    if wish.thinks {
        parts.push(json!({ "text": THOUGHT, "thought": true }));
    }
    match &wish.tool {
        Some((name, args)) => parts.push(json!({
            "functionCall": { "name": name, "args": args }, "thoughtSignature": SIGNATURE,
        })),
        None if stream => parts.extend(wish.pieces.iter().map(|piece| json!({ "text": piece }))),
        None => parts.push(json!({ "text": wish.text() })),
    }
    let chunk = |parts: &[Value], finish: Option<&str>| {
        let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        let mut chunk = json!({
            "candidates": [candidate], "modelVersion": model, "responseId": format!("mock{number:08}"),
        });
        if wish.reports {
            chunk["usageMetadata"] = usage(&wish);
        }
        chunk
    };
    if !stream {
        return Answer::Unary(json_bytes(&chunk(&parts, Some(finish))));
    }
    let last = parts.len().saturating_sub(1);
    let each = parts.chunks(1).enumerate();
    let mut events: Vec<Bytes> =
        each.map(|(at, part)| event(&chunk(part, (at == last).then_some(finish)))).collect();
    if events.is_empty() {
        events.push(event(&chunk(&[], Some(finish))));
    }
    Answer::Stream(events)
}

fn usage(wish: &Wish) -> Value {
    let thoughts = if wish.thinks { 5 } else { 0 };
    json!({
        "promptTokenCount": wish.prompt, "candidatesTokenCount": wish.completion, "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": wish.cached, "totalTokenCount": wish.prompt + wish.completion + thoughts,
        "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": wish.prompt }],
    })
}

/// A vector of eight numbers for each request.
pub(super) fn embeddings(request: &Value) -> Value {
    let count = list(request, "requests").count();
    let vector = |at: usize| json!({ "values": (0..8).map(|i| 0.125 * (at + i) as f64).collect::<Vec<_>>() });
    json!({ "embeddings": (0..count).map(vector).collect::<Vec<_>>() })
}

/// Google's own schemas have the names of types in capitals.
fn lower(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| match value.as_str() {
                Some(kind) if name == "type" => (name.clone(), kind.to_lowercase().into()),
                _ => (name.clone(), lower(value)),
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(lower).collect()),
        other => other.clone(),
    }
}
