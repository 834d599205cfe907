//! Google's `generateContent`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Asked, SIGNATURE, Script, THOUGHT, Wish, last_has, list, owned};
use crate::upstream::{
    media::PNG,
    reply::{event, json_bytes},
};

fn asked(request: &Value) -> Asked {
    let (config, calling) = (&request["generationConfig"], &request["toolConfig"]["functionCallingConfig"]);
    // Google's own schemas have the names of types in capitals, which makes no difference to what fits them.
    let schema = |tool: &Value| match &tool["parametersJsonSchema"] {
        Value::Null => tool["parameters"].clone(),
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
            Value::Null => config["responseSchema"].clone(),
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
    if list(&request["generationConfig"], "responseModalities").any(|it| it == "IMAGE") {
        parts.push(json!({ "inlineData": { "mimeType": "image/png", "data": PNG } }));
    }
    let chunk = |parts: &[Value], finish: Option<&str>, so_far: u64| {
        let mut candidate = json!({ "content": { "parts": parts, "role": "model" }, "index": 0 });
        if let Some(finish) = finish {
            candidate["finishReason"] = json!(finish);
        }
        let mut chunk = json!({
            "candidates": [candidate], "modelVersion": model, "responseId": format!("mock{number:08}"),
        });
        if wish.reports {
            chunk["usageMetadata"] = usage(&wish, so_far);
        }
        chunk
    };
    if !stream {
        return Answer::Unary(json_bytes(&chunk(&parts, Some(finish), wish.completion)));
    }
    let last = parts.len().saturating_sub(1);
    // Counts are of what has come until then.
    let each = parts.chunks(1).enumerate().map(|(at, part)| match at == last {
        true => event(&chunk(part, Some(finish), wish.completion)),
        false => event(&chunk(part, None, wish.completion.min(at as u64 + 1))),
    });
    let mut events: Vec<Bytes> = each.collect();
    if events.is_empty() {
        events.push(event(&chunk(&[], Some(finish), wish.completion)));
    }
    Answer::Stream(events)
}

fn usage(wish: &Wish, completion: u64) -> Value {
    let thoughts = if wish.thinks { 5 } else { 0 };
    json!({
        "promptTokenCount": wish.prompt, "candidatesTokenCount": completion, "thoughtsTokenCount": thoughts,
        "cachedContentTokenCount": wish.cached, "totalTokenCount": wish.prompt + completion + thoughts,
        "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": wish.prompt }],
    })
}
