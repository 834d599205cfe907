//! The model list in the words of Anthropic's and of Google's clients (E.5, E.7). Called by [`super`].

use http::HeaderMap;
use nemo_llm::providers::anthropic::models::{ListedModel, render, render_list};
use nemo_snapshot::ModelGroup;
use serde_json::{Value, json};

/// Anthropic's clients say which version of its interface they speak, whatever they ask.
pub fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

fn listed<'a>(group: &'a ModelGroup, id: &'a str) -> ListedModel<'a> {
    let described = group.described_by();
    let known = |tokens: u64| Some(tokens).filter(|tokens| *tokens > 0);
    ListedModel {
        id,
        display_name: described.map_or(id, |model| &*model.display_name),
        created: described.and_then(|model| u64::try_from(model.created_unix).ok()).unwrap_or(0),
        max_input: described.and_then(|model| known(model.context_window)),
        max_output: described.and_then(|model| known(model.max_output_tokens)),
    }
}

/// All of them on one page.
pub fn anthropic_list(groups: &[&ModelGroup]) -> Vec<u8> {
    let models: Vec<_> = groups.iter().map(|group| listed(group, &group.name)).collect();
    render_list(&models, false)
}

/// One, by the name that the client has asked for.
pub fn anthropic(group: &ModelGroup, id: &str) -> Vec<u8> {
    render(&listed(group, id))
}

/// As Google's clients list it.
pub fn google(group: &ModelGroup, id: &str) -> Value {
    let model = listed(group, id);
    let mut entry = json!({
        "name": format!("models/{id}"), "baseModelId": id, "displayName": model.display_name,
        "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
    });
    for (name, tokens) in [("inputTokenLimit", model.max_input), ("outputTokenLimit", model.max_output)] {
        if let Some(tokens) = tokens {
            entry[name] = json!(tokens);
        }
    }
    entry
}
