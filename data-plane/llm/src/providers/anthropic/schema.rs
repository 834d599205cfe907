//! Which JSON schemas Claude can be held to: a part of the language, without the bounds of numbers and lengths, and with
//! every object closed. What lies outside is shown to the model all the same, as the parameters of a function. Used by
//! [`super::request`].

use std::collections::HashMap;

use serde_json::{Map, Value, value::RawValue};

/// Deepest nesting that is looked into.
const MAX_DEPTH: usize = 64;

/// Whether `output_config.format` and strict tools take this schema.
pub(super) fn is_native(schema: &RawValue) -> bool {
    let Ok(Value::Object(root)) = serde_json::from_str::<Value>(schema.get()) else { return false };
    let none = Map::new();
    let definitions = |name: &str| match root.get(name) {
        Some(Value::Object(definitions)) => Some(definitions),
        None => Some(&none),
        Some(_) => None,
    };
    let (Some(defs), Some(definitions)) = (definitions("$defs"), definitions("definitions")) else {
        return false;
    };
    let all = defs.values().chain(definitions.values());
    if !all.into_iter().all(|it| is_subschema(it, 0)) || !is_subschema(&Value::Object(root.clone()), 0) {
        return false;
    }
    // A definition that leads back to itself describes trees of any depth, which are refused.
    !has_cycle(defs, definitions)
}

fn is_subschema(schema: &Value, depth: usize) -> bool {
    let Value::Object(schema) = schema else { return false };
    if depth > MAX_DEPTH {
        return false;
    }
    let is_object =
        schema.get("type").and_then(Value::as_str) == Some("object") || schema.contains_key("properties");
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if is_object && !closed {
        return false;
    }
    let inner = |it: &Value| is_subschema(it, depth + 1);
    schema.iter().all(|(name, value)| match name.as_str() {
        "type" => is_type(value),
        "properties" => value.as_object().is_some_and(|members| members.values().all(inner)),
        "items" => inner(value),
        "anyOf" => value.as_array().is_some_and(|options| options.iter().all(inner)),
        "enum" => value.as_array().is_some_and(|options| options.iter().all(is_primitive)),
        "const" => is_primitive(value),
        "additionalProperties" => value == &Value::Bool(false),
        "required" | "title" | "description" | "default" | "$schema" => true,
        "$defs" | "definitions" => depth == 0,
        "$ref" => value.as_str().is_some_and(|to| target(to).is_some()),
        "format" => value.as_str().is_some_and(|format| FORMATS.contains(&format)),
        "minItems" => matches!(value.as_u64(), Some(0 | 1)),
        _ => false,
    })
}

const FORMATS: &[&str] =
    &["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];

fn is_type(value: &Value) -> bool {
    let known = |value: &Value| {
        let names = ["object", "array", "string", "integer", "number", "boolean", "null"];
        value.as_str().is_some_and(|name| names.contains(&name))
    };
    match value {
        Value::Array(types) => types.iter().all(known),
        other => known(other),
    }
}

fn is_primitive(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

/// The name of the definition that a reference leads to.
fn target(reference: &str) -> Option<&str> {
    reference.strip_prefix("#/$defs/").or_else(|| reference.strip_prefix("#/definitions/"))
}

/// Whether a definition leads back to itself: takes away those that none of the rest refers to, until none is left.
fn has_cycle(defs: &Map<String, Value>, definitions: &Map<String, Value>) -> bool {
    let mut leads: HashMap<&str, Vec<&str>> = HashMap::new();
    // Of two with one name, that of `$defs` is meant.
    for (name, schema) in definitions.iter().chain(defs) {
        let mut found = Vec::new();
        references(schema, &mut found);
        leads.insert(name, found);
    }
    let mut referred: HashMap<&str, usize> = HashMap::new();
    for to in leads.values().flatten() {
        *referred.entry(to).or_default() += 1;
    }
    let mut free: Vec<&str> = leads.keys().copied().filter(|name| !referred.contains_key(name)).collect();
    let mut gone = 0;
    while let Some(name) = free.pop() {
        gone += 1;
        for to in leads.get(name).into_iter().flatten() {
            if let Some(count) = referred.get_mut(to) {
                *count -= 1;
                if *count == 0 && leads.contains_key(to) {
                    free.push(to);
                }
            }
        }
    }
    gone < leads.len()
}

fn references<'s>(schema: &'s Value, found: &mut Vec<&'s str>) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "$ref").and_then(target) {
                    Some(name) => found.push(name),
                    None => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closed_and_finite_schemas_are_native() {
        let native = |json: &str| is_native(serde_json::from_str(json).unwrap());
        for schema in [
            r#"{"type":"object","properties":{"a":{"type":"string","format":"date"}},"required":["a"],"additionalProperties":false}"#,
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"additionalProperties":false,"$defs":{"A":{"enum":["x",1,null]}}}"##,
            r#"{"type":"object","properties":{"a":{"anyOf":[{"type":["string","null"]},{"type":"array","items":{"type":"integer"},"minItems":1}]}},"additionalProperties":false}"#,
        ] {
            assert!(native(schema), "{schema}");
        }
        for schema in [
            r#"{"type":"object","properties":{}}"#,
            r#"{"type":"object","properties":{},"additionalProperties":true}"#,
            r#"{"type":"object","properties":{"a":{"type":"object"}},"additionalProperties":false}"#,
            r#"{"type":"object","properties":{"a":{"type":"number","minimum":1}},"additionalProperties":false}"#,
            r#"{"type":"object","properties":{"a":{"type":"array","minItems":2}},"additionalProperties":false}"#,
            r##"{"$ref":"#/$defs/A","$defs":{"A":{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"additionalProperties":false}}}"##,
            r##"{"$ref":"#/$defs/A","$defs":{"A":{"$ref":"#/$defs/B"},"B":{"$ref":"#/definitions/A"}}}"##,
            r##"{"$ref":"http://a/b"}"##,
            r#"{"oneOf":[]}"#,
            "true",
            "[]",
        ] {
            assert!(!native(schema), "{schema}");
        }
    }

    /// A chain of definitions is walked once, not once for each of them.
    #[test]
    fn many_definitions_take_no_longer_than_they_are_long() {
        let chain = (0..20_000).map(|n| format!(r##""d{n}":{{"$ref":"#/$defs/d{}"}}"##, n + 1));
        let defs = chain.collect::<Vec<_>>().join(",");
        let schema = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{defs},"d20000":{{"type":"string"}}}}}}"##);
        assert!(is_native(serde_json::from_str(&schema).unwrap()));
    }
}
