//! Schemas. Google takes JSON schema (`parametersJsonSchema`, `responseJsonSchema`), so what goes there stays as the client
//! wrote it. Its clients mostly write the other form, a subset of OpenAPI's with types in capitals, which nobody else
//! understands: it is rewritten, in the order of its members.

use serde_json::value::RawValue;

use super::{wire::Members, write};
use crate::{codec::CodecError, ir::Json};

/// Deeper schemas are refused: each level is read once more for those in it.
const MAX_DEPTH: usize = 48;

/// Google's schema as JSON schema.
pub(super) fn to_json_schema<'a>(schema: &'a RawValue, path: &str) -> Result<Json<'a>, CodecError> {
    let mut out = String::with_capacity(schema.get().len());
    rewrite(schema, path, 0, &mut out)?;
    Ok(Json::Owned(write::raw(out)))
}

fn rewrite(schema: &RawValue, path: &str, depth: usize, out: &mut String) -> Result<(), CodecError> {
    if depth > MAX_DEPTH {
        return Err(CodecError::invalid(path, format!("This schema is more than {MAX_DEPTH} levels deep.")));
    }
    let members: Members<'_> = super::wire::read(schema.get(), path)?;
    let nullable = members.0.iter().any(|(name, value)| name == "nullable" && value.get() == "true");
    out.push('{');
    let mut first = true;
    for (name, value) in &members.0 {
        // They say what JSON schema has no word for, or what was said already.
        if matches!(&**name, "nullable" | "propertyOrdering" | "property_ordering" | "example")
            || value.get() == "null"
        {
            continue;
        }
        if !first {
            out.push(',');
        }
        first = false;
        let name = plain_name(name);
        out.push_str(&write::quoted(name));
        out.push(':');
        let inner = format!("{path}.{name}");
        match name {
            "type" => types(value, nullable, out),
            "enum" if nullable => with_null(value, &inner, out)?,
            "items" | "additionalProperties" if value.get().starts_with('{') => {
                rewrite(value, &inner, depth + 1, out)?;
            }
            "properties" | "$defs" => properties(value, &inner, depth, out)?,
            "anyOf" | "oneOf" | "allOf" | "prefixItems" => list(value, &inner, depth, out)?,
            // Written as text: they are 64 bits wide.
            "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
                out.push_str(value.get().trim_matches('"'));
            }
            _ => out.push_str(value.get()),
        }
    }
    out.push('}');
    Ok(())
}

/// Snake case is fine with Google.
fn plain_name(name: &str) -> &str {
    match name {
        "any_of" => "anyOf",
        "min_items" => "minItems",
        "max_items" => "maxItems",
        "min_length" => "minLength",
        "max_length" => "maxLength",
        "min_properties" => "minProperties",
        "max_properties" => "maxProperties",
        "additional_properties" => "additionalProperties",
        "prefix_items" => "prefixItems",
        "defs" => "$defs",
        "ref" => "$ref",
        other => other,
    }
}

fn types(value: &RawValue, nullable: bool, out: &mut String) {
    let lower = value.get().to_ascii_lowercase();
    if nullable && lower.starts_with('"') {
        out.push_str(&format!("[{lower},\"null\"]"));
    } else {
        out.push_str(&lower);
    }
}

fn with_null(value: &RawValue, path: &str, out: &mut String) -> Result<(), CodecError> {
    let words: Vec<&RawValue> = super::wire::read(value.get(), path)?;
    out.push('[');
    for word in words {
        out.push_str(word.get());
        out.push(',');
    }
    out.push_str("null]");
    Ok(())
}

fn properties(value: &RawValue, path: &str, depth: usize, out: &mut String) -> Result<(), CodecError> {
    let members: Members<'_> = super::wire::read(value.get(), path)?;
    out.push('{');
    for (at, (name, value)) in members.0.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        out.push_str(&write::quoted(name));
        out.push(':');
        rewrite(value, &format!("{path}.{name}"), depth + 1, out)?;
    }
    out.push('}');
    Ok(())
}

fn list(value: &RawValue, path: &str, depth: usize, out: &mut String) -> Result<(), CodecError> {
    let items: Vec<&RawValue> = super::wire::read(value.get(), path)?;
    out.push('[');
    for (at, item) in items.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        rewrite(item, &format!("{path}[{at}]"), depth + 1, out)?;
    }
    out.push(']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_schema(text: &str) -> Result<String, CodecError> {
        let schema: Box<RawValue> = serde_json::from_str(text).unwrap();
        to_json_schema(&schema, "tools[0]").map(|schema| schema.get().to_owned())
    }

    #[test]
    fn google_schemas_become_json_schemas_in_their_order() {
        let google = r#"{"type":"OBJECT","propertyOrdering":["z","a"],"required":["z"],"properties":{
            "z":{"type":"STRING","enum":["x"],"nullable":true,"format":"enum"},
            "a":{"type":"ARRAY","minItems":"1","items":{"any_of":[{"type":"INTEGER"},{"type":"NUMBER","maximum":3}]}}}}"#;
        let json = r#"{"type":"object","required":["z"],"properties":{"z":{"type":["string","null"],"enum":["x",null],"format":"enum"},"a":{"type":"array","minItems":1,"items":{"anyOf":[{"type":"integer"},{"type":"number","maximum":3}]}}}}"#;
        assert_eq!(json_schema(google).unwrap(), json);
    }

    #[test]
    fn json_schema_is_left_alone() {
        let json = r##"{"$ref":"#/$defs/a","$defs":{"a":{"type":["string","null"],"const":1,"additionalProperties":false}}}"##;
        assert_eq!(json_schema(json).unwrap(), json);
    }

    #[test]
    fn what_is_no_schema_is_refused_where_it_stands() {
        let error = json_schema(r#"{"properties":{"a":[1]}}"#).unwrap_err();
        assert_eq!(error.path, "tools[0].properties.a");
        let deep = format!("{}{{}}{}", r#"{"items":"#.repeat(60), "}".repeat(60));
        assert!(json_schema(&deep).unwrap_err().message.contains("levels deep"));
    }
}
