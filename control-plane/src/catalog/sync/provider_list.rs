//! A provider's own list of models: that they are there, and what else the provider says. OpenAI's shape, Anthropic's,
//! Google's and Cohere's.

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::fact::{self, Fact};

/// # Errors
/// When it has another shape.
pub fn read(provider: &str, body: &[u8]) -> Result<Vec<Fact>, String> {
    let document: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    // Together's list is the array itself.
    let list =
        document.as_array().or_else(|| document["data"].as_array()).or_else(|| document["models"].as_array());
    let list = list.ok_or("expected a list of models: {\"data\": […]} or {\"models\": […]}")?;
    let facts: Vec<Fact> = list.iter().filter_map(|said| one(provider, said)).collect();
    if facts.is_empty() { Err("no model in it".to_owned()) } else { Ok(facts) }
}

fn one(provider: &str, said: &Value) -> Option<Fact> {
    let id = said["id"].as_str().or_else(|| said["name"].as_str())?;
    // Google's names are paths.
    let id = fact::name(id.strip_prefix("models/").unwrap_or(id))?;
    let created = said["created"].as_i64().filter(|at| *at > 0).or_else(|| {
        let text = said["created_at"].as_str()?;
        OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
    });
    let title = said["display_name"].as_str().or_else(|| said["displayName"].as_str());
    let window =
        ["context_window", "context_length", "max_context_length", "inputTokenLimit", "max_model_len"];
    let output = ["max_output_tokens", "max_completion_tokens", "outputTokenLimit"];
    let first = |names: &[&str]| names.iter().find_map(|name| fact::tokens(&said[*name]));
    Some(Fact {
        provider: provider.to_owned(),
        upstream_model: id.to_owned(),
        display_name: title.and_then(fact::title),
        created_unix: created,
        context_window: first(&window),
        max_output_tokens: first(&output),
        ..Fact::default()
    })
}
