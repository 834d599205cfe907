//! What differs between one thing that is and the same as it shall be: the request that changes it, and the fields in
//! words. Pure. Called by [`super::plan`].

use std::collections::HashMap;

use nemo_proto::admin::{
    AllowedCidrs, AllowedEndpoints, AllowedModels, DefaultTags, Deployment, Key, Model, ModelGroup, Price,
    UpdateDeploymentRequest, UpdateKeyRequest,
};
use nemo_types::Nanos;
use serde_json::Value;

use super::plan::Field;
use crate::providers::{DesiredDeployment, DesiredGroup, DesiredKey};

/// Equal but for what the control plane adds.
pub(super) fn same_model(known: &Model, wanted: &Model) -> bool {
    normal(known) == normal(wanted)
}

fn normal(model: &Model) -> Model {
    let mut model = Model { source: String::new(), ..model.clone() };
    if model.display_name.is_empty() {
        model.display_name.clone_from(&model.id);
    }
    for list in [&mut model.tags, &mut model.aliases, &mut model.endpoints] {
        list.sort();
    }
    model
}

/// The members of a model that differ.
pub(super) fn model(known: &Model, wanted: &Model) -> Vec<Field> {
    let members = |model: &Model| match serde_json::to_value(normal(model)) {
        Ok(Value::Object(members)) => members,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (members(known), members(wanted));
    let differing = after.into_iter().filter(|(name, value)| before.get(name) != Some(value));
    let words = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    differing
        .map(|(name, value)| Field { before: before.get(&name).map(words), after: Some(words(&value)), name })
        .collect()
}

/// Fields of something new; those without a value are not worth a word.
pub(super) fn created(fields: &[(&str, &str)]) -> Vec<Field> {
    fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| Field {
            name: (*name).to_owned(),
            before: None,
            after: Some((*value).to_owned()),
        })
        .collect()
}

pub(super) fn changed(name: &str, before: &str, after: &str) -> Vec<Field> {
    let words = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    if before == after {
        return Vec::new();
    }
    vec![Field { name: name.to_owned(), before: words(before), after: words(after) }]
}

pub(super) fn new_deployment(wanted: &DesiredDeployment) -> Vec<Field> {
    let weight = if wanted.weight == 1 { String::new() } else { wanted.weight.to_string() };
    created(&[
        ("provider", &wanted.provider),
        ("model", &wanted.model),
        ("upstream_model", if wanted.upstream_model == wanted.model { "" } else { &wanted.upstream_model }),
        ("base_url", &wanted.base_url),
        ("credential", wanted.credential.as_deref().unwrap_or_default()),
        ("weight", &weight),
        ("price", &price_words(wanted.price.as_ref())),
        ("rpm", &load_words(wanted.rpm)),
        ("tpm", &load_words(wanted.tpm)),
    ])
}

/// The change that makes `found` what is wanted, but for the credential; `None` when it is.
pub(super) fn deployment(
    found: &Deployment,
    wanted: &DesiredDeployment,
    credential: &str,
    same_credential: bool,
) -> Option<(UpdateDeploymentRequest, Vec<Field>)> {
    let text = |found: &str, wanted: &str| (found != wanted).then(|| wanted.to_owned());
    let same_price = sorted(found.price.as_ref()) == sorted(wanted.price.as_ref());
    let request = UpdateDeploymentRequest {
        id: found.id.clone(),
        base_url: text(&found.base_url, &wanted.base_url),
        upstream_model: text(&found.upstream_model, &wanted.upstream_model),
        weight: (found.weight != wanted.weight).then_some(wanted.weight),
        disabled: found.disabled.then_some(false),
        // An empty price removes the deployment's own.
        price: (!same_price).then(|| wanted.price.clone().unwrap_or_default()),
        rpm: (found.rpm != wanted.rpm).then(|| wanted.rpm.unwrap_or_default()),
        tpm: (found.tpm != wanted.tpm).then(|| wanted.tpm.unwrap_or_default()),
        ..Default::default()
    };
    let mut fields = changed("base_url", &found.base_url, &wanted.base_url);
    fields.extend(changed("upstream_model", &found.upstream_model, &wanted.upstream_model));
    fields.extend(changed("weight", &found.weight.to_string(), &wanted.weight.to_string()));
    fields.extend(changed("rpm", &load_words(found.rpm), &load_words(wanted.rpm)));
    fields.extend(changed("tpm", &load_words(found.tpm), &load_words(wanted.tpm)));
    fields.extend(changed("disabled", &found.disabled.to_string(), "false"));
    if !same_price {
        let (before, after) = (price_words(found.price.as_ref()), price_words(wanted.price.as_ref()));
        fields.push(Field { name: "price".to_owned(), before: Some(before), after: Some(after) });
    }
    if !same_credential {
        let after = wanted.credential.clone().unwrap_or_default();
        let before = Some(credential.to_owned());
        fields.push(Field { name: "credential".to_owned(), before, after: Some(after) });
    }
    (!fields.is_empty()).then_some((request, fields))
}

fn load_words(per_minute: Option<u32>) -> String {
    per_minute.map(|count| count.to_string()).unwrap_or_default()
}

/// Prices of units have no order.
fn sorted(price: Option<&Price>) -> Option<Price> {
    let mut price = price?.clone();
    price.units.sort_by(|a, b| (&a.unit, &a.quality, &a.size).cmp(&(&b.unit, &b.quality, &b.size)));
    Some(price)
}

/// USD per million tokens.
fn price_words(price: Option<&Price>) -> String {
    let Some(price) = price else { return String::new() };
    let amounts = [
        ("input", price.input),
        ("output", price.output),
        ("cache_read", price.cache_read),
        ("cache_write", price.cache_write),
    ];
    let said = amounts.iter().filter_map(|(name, amount)| Some(format!("{name} {}", Nanos((*amount)?))));
    let units = price.units.iter().map(|unit| {
        let parts = [unit.unit.as_str(), &unit.quality, &unit.size];
        let name: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{} {}", name.join(" "), Nanos(unit.price))
    });
    said.chain(units).collect::<Vec<_>>().join(", ")
}

type NamedLinks = Vec<Vec<(String, u32)>>;

pub(super) fn new_group(wanted: &DesiredGroup) -> Vec<Field> {
    created(&[
        ("strategy", &wanted.strategy),
        ("required_tags", &wanted.required_tags.join(", ")),
        ("links", &link_words(&wanted.links)),
    ])
}

/// `names`: of deployments by id.
pub(super) fn group(found: &ModelGroup, wanted: &DesiredGroup, names: &HashMap<&str, &str>) -> Vec<Field> {
    let name = |id: &str| names.get(id).map_or_else(|| format!("#{id}"), |name| (*name).to_owned());
    let links: NamedLinks = found
        .links
        .iter()
        .map(|link| {
            link.deployments.iter().map(|member| (name(&member.deployment_id), member.weight)).collect()
        })
        .collect();
    let mut fields = changed("strategy", &found.strategy, &wanted.strategy);
    fields.extend(changed(
        "required_tags",
        &found.required_tags.join(", "),
        &wanted.required_tags.join(", "),
    ));
    fields.extend(changed("links", &link_words(&links), &link_words(&wanted.links)));
    fields
}

/// As the options of `nemo groups` take them.
fn link_words(links: &NamedLinks) -> String {
    let member = |(name, weight): &(String, u32)| {
        let name = super::shown(name);
        if *weight == 1 { name.to_owned() } else { format!("{name}={weight}") }
    };
    let pools = links.iter().map(|link| link.iter().map(member).collect::<Vec<_>>().join(","));
    pools.collect::<Vec<_>>().join(" → ")
}

/// A list that limits; the empty one does not.
fn limit_words(names: &[String]) -> String {
    if names.is_empty() { "all".to_owned() } else { names.join(", ") }
}

pub(super) fn new_key(wanted: &DesiredKey) -> Vec<Field> {
    let words =
        |names: &Option<Vec<String>>| names.as_ref().map(|names| names.join(", ")).unwrap_or_default();
    created(&[
        ("organization", &wanted.organization),
        ("team", &wanted.team),
        ("models", &limit_words(wanted.allowed_models.as_deref().unwrap_or_default())),
        ("endpoints", &words(&wanted.allowed_endpoints)),
        ("cidrs", &words(&wanted.allowed_cidrs)),
        ("tags", &words(&wanted.default_tags)),
    ])
}

/// What the file says about a key and is not so. What it does not say stays.
pub(super) fn key(found: &Key, wanted: &DesiredKey) -> Option<(UpdateKeyRequest, Vec<Field>)> {
    let mut fields = Vec::new();
    let mut differing = |name: &str, found: &[String], wanted: &Option<Vec<String>>| {
        let wanted = wanted.as_ref().filter(|wanted| wanted.as_slice() != found)?;
        fields.extend(changed(name, &limit_words(found), &limit_words(wanted)));
        Some(wanted.clone())
    };
    let models = differing("models", &found.allowed_models, &wanted.allowed_models);
    let endpoints = differing("endpoints", &found.allowed_endpoints, &wanted.allowed_endpoints);
    let cidrs = differing("cidrs", &found.allowed_cidrs, &wanted.allowed_cidrs);
    let tags = differing("tags", &found.default_tags, &wanted.default_tags);
    let request = UpdateKeyRequest {
        id: found.id.clone(),
        allowed_models: models.map(|names| AllowedModels { names }),
        allowed_endpoints: endpoints.map(|names| AllowedEndpoints { names }),
        allowed_cidrs: cidrs.map(|networks| AllowedCidrs { networks }),
        default_tags: tags.map(|names| DefaultTags { names }),
        ..Default::default()
    };
    (!fields.is_empty()).then_some((request, fields))
}
