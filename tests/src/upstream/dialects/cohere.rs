//! Cohere's v2 chat.

use serde_json::{Value, json};

use super::{Answer, Asked, Script, Wish, list, named, owned};
use crate::upstream::reply::json_bytes;

fn asked(request: &Value) -> Asked {
    let (last, format) =
        (request["messages"].as_array().and_then(|it| it.last()), &request["response_format"]);
    let json = format["type"] == "json_object";
    Asked {
        tools: list(request, "tools")
            .filter_map(|tool| {
                let function = &tool["function"];
                Some((owned(&function["name"])?, function["parameters"].clone()))
            })
            .collect(),
        choice: (request["tool_choice"] == "NONE").then(String::new),
        answered: last.is_some_and(|last| last["role"] == "tool"),
        limit: request["max_tokens"].as_u64(),
        json: json.then(|| match &format["json_schema"] {
            Value::Null => format["schema"].clone(),
            schema => schema.clone(),
        }),
        thinks: false,
    }
}

pub(super) fn answer(request: &Value, script: &Script, number: u64) -> Answer {
    let wish = Wish::new(&asked(request), script);
    let id = format!("cohere-mock{number:08}");
    let finish = match (&wish.tool, wish.cut) {
        (Some(_), _) => "TOOL_CALL",
        (None, true) => "MAX_TOKENS",
        (None, false) => "COMPLETE",
    };
    let call = |arguments: &str| {
        let name = wish.tool.as_ref().map(|(name, _)| name.as_str()).unwrap_or_default();
        json!({ "id": "call_cohere", "type": "function", "function": { "name": name, "arguments": arguments } })
    };
    let usage = json!({
        "billed_units": { "input_tokens": wish.prompt, "output_tokens": wish.completion },
        "tokens": { "input_tokens": wish.prompt, "output_tokens": wish.completion },
    });
    if request["stream"] != true {
        let message = match &wish.tool {
            Some((_, arguments)) => {
                json!({ "role": "assistant", "tool_plan": "", "tool_calls": [call(&arguments.to_string())] })
            }
            None => json!({ "role": "assistant", "content": [{ "type": "text", "text": wish.text() }] }),
        };
        let mut answer = json!({ "id": id, "finish_reason": finish, "message": message });
        if wish.reports {
            answer["usage"] = usage;
        }
        return Answer::Unary(json_bytes(&answer));
    }
    let message =
        json!({ "message": { "role": "assistant", "content": [], "tool_plan": "", "tool_calls": [] } });
    let mut events = vec![json!({ "type": "message-start", "id": id, "delta": message })];
    if wish.tool.is_some() {
        events.push(json!({ "type": "tool-call-start", "index": 0, "delta": { "message": { "tool_calls": call("") } } }));
        for piece in &wish.pieces {
            let delta = json!({ "message": { "tool_calls": { "function": { "arguments": piece } } } });
            events.push(json!({ "type": "tool-call-delta", "index": 0, "delta": delta }));
        }
        events.push(json!({ "type": "tool-call-end", "index": 0 }));
    } else {
        let start = json!({ "message": { "content": { "type": "text", "text": "" } } });
        events.push(json!({ "type": "content-start", "index": 0, "delta": start }));
        for piece in &wish.pieces {
            let delta = json!({ "message": { "content": { "text": piece } } });
            events.push(json!({ "type": "content-delta", "index": 0, "delta": delta }));
        }
        events.push(json!({ "type": "content-end", "index": 0 }));
    }
    let mut end = json!({ "finish_reason": finish });
    if wish.reports {
        end["usage"] = usage;
    }
    events.push(json!({ "type": "message-end", "delta": end }));
    Answer::Stream(events.iter().map(named).collect())
}
