//! Counting of tokens, as each provider has it: strict about what it takes, as they are, and always with the same count.

use serde_json::{Value, json};

use crate::upstream::PROMPT_TOKENS;

/// Who is asked to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::upstream) enum Counts {
    Anthropic,
    /// Anthropic's models at Google.
    Claude,
    AiStudio,
    Vertex,
    Bedrock,
    OpenAi,
}

/// Who is asked at this path, and for which model, where the path says it.
pub(super) fn of_path(path: &str) -> Option<(Counts, String)> {
    let counts = match path {
        "/v1/messages/count_tokens" => Counts::Anthropic,
        "/v1/responses/input_tokens" => Counts::OpenAi,
        path if path.ends_with("/models/count-tokens:rawPredict") => Counts::Claude,
        path => {
            if let Some(model) =
                path.strip_prefix("/model/").and_then(|rest| rest.strip_suffix("/count-tokens"))
            {
                return Some((Counts::Bedrock, model.replace("%3A", ":")));
            }
            let (host, model) = path.strip_suffix(":countTokens")?.split_once("/models/")?;
            let counts = if host == "/v1beta" { Counts::AiStudio } else { Counts::Vertex };
            return Some((counts, model.to_owned()));
        }
    };
    Some((counts, String::new()))
}

pub(super) fn answer(counts: Counts) -> Value {
    match counts {
        Counts::Anthropic | Counts::Claude => json!({ "input_tokens": PROMPT_TOKENS }),
        Counts::AiStudio | Counts::Vertex => json!({
            "totalTokens": PROMPT_TOKENS, "promptTokensDetails": [{ "modality": "TEXT", "tokenCount": PROMPT_TOKENS }],
        }),
        Counts::Bedrock => json!({ "inputTokens": PROMPT_TOKENS }),
        Counts::OpenAi => json!({ "object": "response.input_tokens", "input_tokens": PROMPT_TOKENS }),
    }
}

/// What the provider would refuse.
pub(super) fn invalid(counts: Counts, path: &str, request: &Value) -> Option<&'static str> {
    let (members, needed): (&[&str], &str) = match counts {
        Counts::Anthropic => {
            (&["model", "messages", "system", "tools", "tool_choice", "thinking"], "messages")
        }
        Counts::Claude => (
            &["anthropic_version", "model", "messages", "system", "tools", "tool_choice", "thinking"],
            "model",
        ),
        Counts::AiStudio => (&["contents", "generateContentRequest"], ""),
        Counts::Vertex => (&["contents", "systemInstruction", "tools", "generationConfig"], "contents"),
        Counts::Bedrock => (&["input"], "input"),
        Counts::OpenAi => (
            &[
                "model",
                "input",
                "instructions",
                "tools",
                "tool_choice",
                "parallel_tool_calls",
                "reasoning",
                "text",
            ],
            "input",
        ),
    };
    let known = |request: &Value, members: &[&str]| {
        request.as_object().is_some_and(|all| all.keys().all(|name| members.contains(&&**name)))
    };
    if !known(request, members) {
        return Some("Extra inputs are not permitted");
    }
    if !needed.is_empty() && request[needed].is_null() {
        return Some("Field required");
    }
    let whole = &request["generateContentRequest"];
    let conversation = &request["input"]["converse"];
    let empty = request["messages"].as_array().is_some_and(Vec::is_empty);
    match counts {
        Counts::Anthropic | Counts::Claude if empty => Some("messages: at least one message is required"),
        Counts::Claude if request["anthropic_version"] != "vertex-2023-10-16" => {
            Some("anthropic_version: Field required")
        }
        Counts::AiStudio if request["contents"].is_null() && !whole["contents"].is_array() => {
            Some("contents is not specified")
        }
        Counts::AiStudio if !whole.is_null() && !request["contents"].is_null() => {
            Some("both contents and generateContentRequest")
        }
        Counts::AiStudio
            if whole.is_object() && !whole["model"].as_str().is_some_and(|it| it.contains('/')) =>
        {
            Some("unexpected model name format")
        }
        Counts::Bedrock if !path.starts_with("/model/anthropic.") => {
            Some("The provided model doesn't support counting tokens.")
        }
        Counts::Bedrock if !conversation["messages"].is_array() => Some("messages is required"),
        Counts::Bedrock
            if !known(
                conversation,
                &["messages", "system", "toolConfig", "additionalModelRequestFields"],
            ) =>
        {
            Some("Malformed input request")
        }
        _ => None,
    }
}
