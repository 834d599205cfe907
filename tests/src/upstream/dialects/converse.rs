//! Amazon Bedrock's Converse, and ConverseStream with its binary frames.

#![expect(clippy::cast_possible_truncation, reason = "names of headers and answers are short here")]

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Asked, Script, Wish, last_has, list, owned};
use crate::upstream::reply::json_bytes;

fn asked(request: &Value) -> Asked {
    let tools = &request["toolConfig"];
    Asked {
        tools: list(tools, "tools")
            .filter_map(|tool| {
                let spec = &tool["toolSpec"];
                Some((owned(&spec["name"])?, spec["inputSchema"]["json"].clone()))
            })
            .collect(),
        choice: owned(&tools["toolChoice"]["tool"]["name"]),
        answered: last_has(request, "messages", "content", |part| part["toolResult"].is_object()),
        limit: request["inferenceConfig"]["maxTokens"].as_u64(),
        json: None,
        thinks: false,
    }
}

pub(super) fn answer(request: &Value, script: &Script, stream: bool) -> Answer {
    let wish = Wish::new(&asked(request), script);
    let stop = match (&wish.tool, wish.cut) {
        (Some(_), _) => "tool_use",
        (None, true) => "max_tokens",
        (None, false) => "end_turn",
    };
    if stream {
        let frames = frames(&wish, stop);
        return Answer::Typed { content_type: "application/vnd.amazon.eventstream", pieces: frames };
    }
    let content = match &wish.tool {
        Some((name, input)) => {
            json!({ "toolUse": { "toolUseId": "tooluse_mock", "name": name, "input": input } })
        }
        None => json!({ "text": wish.text() }),
    };
    let mut answer = json!({
        "output": { "message": { "role": "assistant", "content": [content] } }, "stopReason": stop,
        "metrics": { "latencyMs": 7 },
    });
    if wish.reports {
        answer["usage"] = usage(&wish);
    }
    Answer::Unary(json_bytes(&answer))
}

fn usage(wish: &Wish) -> Value {
    json!({
        "inputTokens": wish.prompt - wish.cached, "outputTokens": wish.completion,
        "totalTokens": wish.prompt + wish.completion, "cacheReadInputTokens": wish.cached,
    })
}

fn frames(wish: &Wish, stop: &str) -> Vec<Bytes> {
    let mut frames = vec![("messageStart", json!({ "role": "assistant" }))];
    if let Some((name, _)) = &wish.tool {
        let start = json!({ "toolUse": { "toolUseId": "tooluse_mock", "name": name } });
        frames.push(("contentBlockStart", json!({ "contentBlockIndex": 0, "start": start })));
    }
    for piece in &wish.pieces {
        let delta = match &wish.tool {
            Some(_) => json!({ "toolUse": { "input": piece } }),
            None => json!({ "text": piece }),
        };
        frames.push(("contentBlockDelta", json!({ "contentBlockIndex": 0, "delta": delta })));
    }
    frames.push(("contentBlockStop", json!({ "contentBlockIndex": 0 })));
    frames.push(("messageStop", json!({ "stopReason": stop })));
    if wish.reports {
        frames.push(("metadata", json!({ "usage": usage(wish), "metrics": { "latencyMs": 7 } })));
    }
    frames.iter().map(|(name, payload)| frame("event", name, payload)).collect()
}

/// One frame of Amazon's event streams: lengths, headers, payload, and a checksum after each.
fn frame(kind: &str, name: &str, payload: &Value) -> Bytes {
    let payload = payload.to_string();
    let mut headers = Vec::new();
    let kind_header = format!(":{kind}-type");
    let told = [(":message-type", kind), (&*kind_header, name), (":content-type", "application/json")];
    for (header, value) in told {
        headers.push(header.len() as u8);
        headers.extend_from_slice(header.as_bytes());
        // A string, with its length in two bytes.
        headers.extend_from_slice(&[7, 0, value.len() as u8]);
        headers.extend_from_slice(value.as_bytes());
    }
    let total = 12 + headers.len() + payload.len() + 4;
    let mut frame = [(total as u32).to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    frame.extend_from_slice(&checksum(&frame));
    frame.extend_from_slice(&headers);
    frame.extend_from_slice(payload.as_bytes());
    frame.extend_from_slice(&checksum(&frame));
    frame.into()
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}
