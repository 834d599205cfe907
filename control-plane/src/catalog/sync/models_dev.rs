//! The JSON of models.dev: an object of providers, each with an object of models. Prices are in USD per million tokens.

use serde_json::Value;

use super::fact::{self, Fact, scaled};
use crate::store::{catalog::Amounts, units};

/// USD per million tokens to nano-USD per million tokens.
const SCALE: i32 = 9;

/// # Errors
/// When it has another shape.
pub fn read(body: &[u8]) -> Result<Vec<Fact>, String> {
    let document: Value = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    let providers = document.as_object().ok_or("expected an object of providers")?;
    let mut facts = Vec::new();
    for (id, provider) in providers {
        let Some(models) = provider["models"].as_object() else { continue };
        let Some(ours) = fact::provider(id) else { continue };
        facts.extend(models.iter().filter_map(|(model, said)| one(ours, model, said)));
    }
    if facts.is_empty() {
        return Err(
            "no model of a provider that is known here: expected the shape of models.dev/api.json".to_owned()
        );
    }
    Ok(facts)
}

fn one(provider: &str, id: &str, said: &Value) -> Option<Fact> {
    let upstream_model = fact::name(id)?.to_owned();
    let mut abilities = Vec::new();
    for (member, tag) in
        [("tool_call", "function-calling"), ("structured_output", "json"), ("reasoning", "reasoning")]
    {
        if said[member].as_bool() == Some(true) {
            abilities.push(tag.to_owned());
        }
    }
    let (amounts, knows_steps) = amounts(&said["cost"]);
    Some(Fact {
        provider: provider.to_owned(),
        upstream_model,
        display_name: said["name"].as_str().and_then(fact::title),
        owned_by: None,
        created_unix: said["release_date"].as_str().and_then(fact::day),
        context_window: fact::tokens(&said["limit"]["context"]),
        max_output_tokens: fact::tokens(&said["limit"]["output"]),
        input_modalities: fact::words(&said["modalities"]["input"]),
        output_modalities: fact::words(&said["modalities"]["output"]),
        abilities: said["tool_call"].is_boolean().then_some(abilities),
        amounts,
        knows_steps,
    })
}

fn amounts(cost: &Value) -> (Option<Amounts>, bool) {
    let of = |price: &Value, member: &str| scaled(&price[member], SCALE);
    let long = &cost["context_over_200k"];
    let steps = long.is_object().then(|| {
        units::steps_to_column(&[nemo_proto::admin::PriceStep {
            above_input_tokens: 200_000,
            input: of(long, "input"),
            output: of(long, "output"),
            cache_read: of(long, "cache_read"),
            cache_write: of(long, "cache_write"),
            ..Default::default()
        }])
    });
    let knows = steps.is_some();
    let amounts = Amounts {
        input: of(cost, "input"),
        output: of(cost, "output"),
        cache_read: of(cost, "cache_read"),
        cache_write: of(cost, "cache_write"),
        reasoning: of(cost, "reasoning"),
        steps: steps.flatten(),
        ..Amounts::default()
    };
    (Some(amounts).filter(|it| it.input.is_some() && it.output.is_some()), knows)
}
