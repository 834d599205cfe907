//! Makes a value that fits a JSON schema: the arguments of the demo provider's tool calls, and its structured
//! answers. Always the same value for the same schema.

use serde_json::{Map, Value, json};

/// Schemas refer to themselves; deeper than this only what is required is filled in, and then nothing.
const MAX_DEPTH: usize = 8;
/// Optional members are filled in down to here.
const OPTIONAL_DEPTH: usize = 4;
const MAX_ITEMS: u64 = 16;

/// A value that fits `schema`. Text comes from `hint` where the schema leaves it open.
pub(super) fn example(schema: &Value, hint: &str) -> Value {
    value(schema, schema, hint, 0)
}

fn value(schema: &Value, root: &Value, hint: &str, depth: usize) -> Value {
    for fixed in ["const", "default"] {
        if let Some(value) = schema.get(fixed) {
            return value.clone();
        }
    }
    for list in ["enum", "examples"] {
        if let Some(value) = schema.get(list).and_then(|list| list.get(0)) {
            return value.clone();
        }
    }
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|path| resolve(path, root)) {
        return value(target, root, hint, depth + 1);
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(first) = schema.get(choice).and_then(|choices| choices.get(0)) {
            return value(first, root, hint, depth + 1);
        }
    }
    if let Some(parts) = schema.get("allOf").and_then(Value::as_array) {
        return merged(parts, root, hint, depth);
    }
    typed(schema, root, hint, depth)
}

fn resolve<'r>(path: &str, root: &'r Value) -> Option<&'r Value> {
    root.pointer(path.strip_prefix('#')?)
}

fn merged(parts: &[Value], root: &Value, hint: &str, depth: usize) -> Value {
    let mut out = Map::new();
    for part in parts {
        match value(part, root, hint, depth + 1) {
            Value::Object(members) => out.extend(members),
            other => return other,
        }
    }
    Value::Object(out)
}

fn typed(schema: &Value, root: &Value, hint: &str, depth: usize) -> Value {
    let kind = match schema.get("type") {
        Some(Value::String(kind)) => kind.as_str(),
        // ["string", "null"] and the like.
        Some(Value::Array(kinds)) => {
            kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "",
    };
    match kind {
        "object" => object(schema, root, hint, depth),
        "array" => {
            let count = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(MAX_ITEMS);
            let items = schema.get("items").unwrap_or(&Value::Null);
            (0..count).map(|_| value(items, root, hint, depth + 1)).collect()
        }
        "integer" | "number" => number(schema),
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        _ => string(schema, hint),
    }
}

fn object(schema: &Value, root: &Value, hint: &str, depth: usize) -> Value {
    let required = |name: &str| {
        schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|names| names.iter().any(|item| item == name))
    };
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return json!({}) };
    // Optional members end recursion.
    let wanted = properties.iter().filter(|(name, _)| depth < OPTIONAL_DEPTH || required(name));
    wanted
        .map(|(name, part)| (name.clone(), value(part, root, hint, depth + 1)))
        .collect::<Map<_, _>>()
        .into()
}

fn number(schema: &Value) -> Value {
    let bound = |name: &str| schema.get(name).and_then(Value::as_i64);
    let least = bound("minimum").or(bound("exclusiveMinimum").map(|bound| bound.saturating_add(1)));
    let most = bound("maximum").or(bound("exclusiveMaximum").map(|bound| bound.saturating_sub(1)));
    let number = match (least, most) {
        (Some(least), _) => least.max(1.min(most.unwrap_or(1))),
        (None, Some(most)) => most.min(1),
        (None, None) => 1,
    };
    let step = bound("multipleOf").filter(|step| *step > 0).unwrap_or(1);
    Value::from(number.saturating_add(step - 1) / step * step)
}

fn string(schema: &Value, hint: &str) -> Value {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date") => "2026-01-01",
        Some("time") => "12:00:00Z",
        Some("date-time") => "2026-01-01T12:00:00Z",
        Some("email") => "someone@example.com",
        Some("uri" | "url") => "https://example.com/",
        Some("uuid") => "00000000-0000-7000-8000-000000000000",
        Some("ipv4") => "192.0.2.1",
        _ => hint,
    };
    let length = |name: &str| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let least = length("minLength").unwrap_or(0).min(4096);
    let most = length("maxLength").unwrap_or(usize::MAX);
    let mut text: String = text.chars().take(most).collect();
    while text.chars().count() < least {
        text.push('x');
    }
    Value::String(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_fits_its_schema() {
        let schema = json!({
            "type": "object",
            "required": ["city"],
            "properties": {
                "city": { "type": "string" },
                "unit": { "type": "string", "enum": ["celsius", "fahrenheit"] },
                "days": { "type": "integer", "minimum": 3, "maximum": 7 },
                "small": { "type": "number", "maximum": 0 },
                "step": { "type": "integer", "minimum": 3, "multipleOf": 5 },
                "tags": { "type": "array", "items": { "type": "string" }, "minItems": 2 },
                "exact": { "const": 42 },
                "maybe": { "type": ["null", "boolean"] },
                "when": { "type": "string", "format": "date" },
                "code": { "type": "string", "minLength": 8, "maxLength": 10 },
                "either": { "anyOf": [{ "type": "boolean" }, { "type": "string" }] },
                "both": { "allOf": [
                    { "properties": { "a": { "const": 1 } } },
                    { "properties": { "b": { "const": 2 } } },
                ] },
                "point": { "$ref": "#/$defs/point" },
            },
            "$defs": { "point": { "type": "object", "required": ["x"], "properties": { "x": { "type": "integer" } } } },
        });
        let expected = json!({
            "city": "Oslo", "unit": "celsius", "days": 3, "small": 0, "step": 5, "tags": ["Oslo", "Oslo"],
            "exact": 42, "maybe": true, "when": "2026-01-01", "code": "Osloxxxx", "either": true,
            "both": { "a": 1, "b": 2 }, "point": { "x": 1 },
        });
        assert_eq!(example(&schema, "Oslo"), expected);
    }

    #[test]
    fn schemas_that_refer_to_themselves_end() {
        let schema = json!({
            "$ref": "#/$defs/node",
            "$defs": { "node": { "type": "object", "required": ["next"], "properties": { "next": { "$ref": "#/$defs/node" } } } },
        });
        assert!(example(&schema, "x").is_object());
        assert_eq!(example(&json!({}), "x"), json!("x"));
        assert_eq!(example(&json!({ "type": "object" }), "x"), json!({}));
    }
}
