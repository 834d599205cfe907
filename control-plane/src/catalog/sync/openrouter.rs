//! OpenRouter's `/api/v1/models`: what it offers itself. Prices are decimal strings in USD per token.

use serde_json::Value;

use super::fact::{self, Fact, scaled};
use crate::store::catalog::Amounts;

/// USD per token to nano-USD per million tokens.
const SCALE: i32 = 15;

/// # Errors
/// When it has another shape.
pub fn read(body: &[u8]) -> Result<Vec<Fact>, String> {
    let document: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    let models = document["data"].as_array().ok_or("expected {\"data\": [models]}")?;
    // Variants of one model (`:free`, `:thinking`) are asked for by suffix, and are no models of their own.
    let facts: Vec<Fact> = models.iter().filter_map(one).collect();
    if facts.is_empty() { Err("no model in it".to_owned()) } else { Ok(facts) }
}

fn one(said: &Value) -> Option<Fact> {
    let id = fact::name(said["id"].as_str()?)?;
    if id.contains(':') || id.starts_with("openrouter/") {
        return None;
    }
    let pricing = &said["pricing"];
    let of = |member: &str| scaled(&pricing[member], SCALE);
    let amounts = Amounts {
        input: of("prompt"),
        output: of("completion"),
        cache_read: of("input_cache_read"),
        cache_write: of("input_cache_write"),
        reasoning: of("internal_reasoning").filter(|nanos| *nanos > 0),
        ..Amounts::default()
    };
    let supports = |name: &str| {
        said["supported_parameters"].as_array().is_some_and(|all| all.iter().any(|it| it == name))
    };
    let mut abilities = Vec::new();
    for (parameter, tag) in
        [("tools", "function-calling"), ("structured_outputs", "json"), ("reasoning", "reasoning")]
    {
        if supports(parameter) {
            abilities.push(tag.to_owned());
        }
    }
    let title = said["name"].as_str().map(|name| name.split_once(": ").map_or(name, |(_, name)| name));
    Some(Fact {
        provider: "openrouter".to_owned(),
        upstream_model: id.to_owned(),
        display_name: title.and_then(fact::title),
        owned_by: id.split_once('/').map(|(owner, _)| owner.to_owned()),
        created_unix: said["created"].as_i64().filter(|at| *at > 0),
        context_window: fact::tokens(&said["context_length"]),
        max_output_tokens: fact::tokens(&said["top_provider"]["max_completion_tokens"]),
        input_modalities: fact::words(&said["architecture"]["input_modalities"]),
        output_modalities: fact::words(&said["architecture"]["output_modalities"]),
        abilities: said["supported_parameters"].is_array().then_some(abilities),
        amounts: Some(amounts).filter(|it| it.input.is_some() && it.output.is_some()),
        knows_steps: false,
    })
}
