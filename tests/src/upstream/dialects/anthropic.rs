//! Anthropic's Messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Asked, SIGNATURE, Script, THOUGHT, Wish, last_has, list, named, owned};
use crate::upstream::reply::json_bytes;

fn asked(request: &Value) -> Asked {
    let choice = &request["tool_choice"];
    Asked {
        tools: list(request, "tools")
            .filter_map(|tool| Some((owned(&tool["name"])?, tool["input_schema"].clone())))
            .collect(),
        choice: match choice["type"].as_str() {
            Some("none") => Some(String::new()),
            Some("tool") => owned(&choice["name"]),
            _ => None,
        },
        answered: last_has(request, "messages", "content", |part| part["type"] == "tool_result"),
        limit: request["max_tokens"].as_u64(),
        json: match &request["output_config"]["format"] {
            Value::Null => None,
            format => Some(format["schema"].clone()),
        },
        thinks: matches!(request["thinking"]["type"].as_str(), Some("enabled" | "adaptive")),
    }
}

pub(super) fn error_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

pub(super) fn answer(request: &Value, model: &str, script: &Script, number: u64) -> Answer {
    let wish = Wish::new(&asked(request), script);
    let id = format!("msg_mock{number:08}");
    let stop = match (&wish.tool, wish.cut) {
        (Some(_), _) => "tool_use",
        (None, true) => "max_tokens",
        (None, false) => "end_turn",
    };
    let call_id = format!("toolu_mock{number:08}");
    if request["stream"] == true {
        return Answer::Stream(stream(&wish, &id, &call_id, model, stop));
    }
    let mut content = Vec::new();
    if wish.thinks {
        content.push(json!({ "type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE }));
    }
    content.push(match &wish.tool {
        Some((name, input)) => json!({ "type": "tool_use", "id": call_id, "name": name, "input": input }),
        None => json!({ "type": "text", "text": wish.text() }),
    });
    let mut message = json!({
        "id": id, "type": "message", "role": "assistant", "model": model, "content": content, "stop_reason": stop,
        "stop_sequence": null,
    });
    if wish.reports {
        message["usage"] = usage(&wish, wish.completion);
    }
    Answer::Unary(json_bytes(&message))
}

fn usage(wish: &Wish, output: u64) -> Value {
    json!({
        "input_tokens": wish.prompt - wish.cached, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": wish.cached, "output_tokens": output, "service_tier": "standard",
    })
}

fn stream(wish: &Wish, id: &str, call_id: &str, model: &str, stop: &str) -> Vec<Bytes> {
    let mut message = json!({
        "id": id, "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": null,
        "stop_sequence": null,
    });
    let mut end = json!({
        "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null },
    });
    if wish.reports {
        message["usage"] = usage(wish, 1);
        end["usage"] = json!({ "output_tokens": wish.completion });
    }
    let mut events = vec![json!({ "type": "message_start", "message": message })];
    let mut index = 0;
    let mut block = |events: &mut Vec<Value>, start: Value, deltas: Vec<Value>| {
        events.push(json!({ "type": "content_block_start", "index": index, "content_block": start }));
        for delta in deltas {
            events.push(json!({ "type": "content_block_delta", "index": index, "delta": delta }));
        }
        events.push(json!({ "type": "content_block_stop", "index": index }));
        index += 1;
    };
    if wish.thinks {
        let deltas = vec![
            json!({ "type": "thinking_delta", "thinking": THOUGHT }),
            json!({ "type": "signature_delta", "signature": SIGNATURE }),
        ];
        block(&mut events, json!({ "type": "thinking", "thinking": "", "signature": "" }), deltas);
    }
    events.push(json!({ "type": "ping" }));
    match &wish.tool {
        Some((name, _)) => {
            let deltas =
                wish.pieces.iter().map(|it| json!({ "type": "input_json_delta", "partial_json": it }));
            let start = json!({ "type": "tool_use", "id": call_id, "name": name, "input": {} });
            block(&mut events, start, deltas.collect());
        }
        None => {
            let deltas = wish.pieces.iter().map(|it| json!({ "type": "text_delta", "text": it })).collect();
            block(&mut events, json!({ "type": "text", "text": "" }), deltas);
        }
    }
    events.extend([end, json!({ "type": "message_stop" })]);
    events.iter().map(named).collect()
}
