//! JSON schemas of the messages, as REST reads and writes them: member names as declared, 64-bit integers as numbers,
//! times as RFC 3339 text, absent optional members as `null`; in answers every member is present.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::rules;
use crate::admin::rest::api::{API, Field, Kind};

/// Whether callers write a message or read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// The components that were referred to so far.
#[derive(Debug, Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    pub(super) fn into_components(self) -> Map<String, Value> {
        self.0.into_iter().collect()
    }

    /// A reference to the schema of a message, which is made if it is not there yet.
    pub(super) fn reference(&mut self, message: &str, direction: Direction) -> Value {
        // What is both read and written has two schemas: answers have all members and more of them.
        let name = match direction {
            Direction::Request if !message.ends_with("Request") => format!("{message}Input"),
            _ => message.to_owned(),
        };
        if !self.0.contains_key(&name) {
            // Before it is made, so that a message can contain itself.
            self.0.insert(name.clone(), json!({}));
            let schema = self.object(message, direction, &[]);
            self.0.insert(name.clone(), schema);
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// The body of an operation, without what the path gives; and whether there must be one.
    pub(super) fn body(&mut self, message: &str, given: &[&str]) -> (Value, bool) {
        let schema = self.object(message, Direction::Request, given);
        let listed = schema["required"].as_array().is_some_and(|required| !required.is_empty());
        let required = listed || schema.get("anyOf").is_some();
        self.0.insert(message.to_owned(), schema);
        (json!({ "$ref": format!("#/components/schemas/{message}") }), required)
    }

    /// A part of a path.
    pub(super) fn parameter(&mut self, message: &str, name: &str, is_model: bool) -> Value {
        if is_model {
            return rules::model_name();
        }
        let field =
            API.message(message).and_then(|message| message.fields.iter().find(|field| field.name == name));
        field.map_or_else(
            || json!({ "type": "string" }),
            |field| self.member(message, field, Direction::Request),
        )
    }

    /// A parameter of a list: given or not, but never empty or null.
    pub(super) fn query(&mut self, message: &str, field: &Field) -> Value {
        let mut schema = self.bare(message, field, Direction::Request);
        if field.kind == Kind::Text && schema.get("format").is_none() && schema.get("enum").is_none() {
            schema["minLength"] = json!(1);
        }
        if field.repeated { json!({ "type": "array", "items": schema, "minItems": 1 }) } else { schema }
    }

    fn object(&mut self, name: &str, direction: Direction, without: &[&str]) -> Value {
        let Some(message) = API.message(name) else { return json!({}) };
        let mut properties = Map::new();
        let mut required: Vec<&str> = Vec::new();
        for field in &message.fields {
            if without.contains(&field.name.as_str())
                || (direction == Direction::Request && rules::is_output_only(name, &field.name))
            {
                continue;
            }
            if direction == Direction::Response || rules::is_required(name, &field.name) {
                required.push(&field.name);
            }
            properties.insert(field.name.clone(), self.member(name, field, direction));
        }
        let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if !message.comment.is_empty() {
            schema["description"] = json!(message.comment);
        }
        if let (Value::Object(schema), Some(Value::Object(whole))) = (&mut schema, rules::whole(name)) {
            schema.extend(whole);
        }
        schema
    }

    fn member(&mut self, message: &str, field: &Field, direction: Direction) -> Value {
        let bare = self.bare(message, field, direction);
        let mut schema = if field.repeated {
            json!({ "type": "array", "items": bare })
        } else if !field.optional
            || (direction == Direction::Request && rules::is_required(message, &field.name))
        {
            bare
        } else {
            nullable(bare)
        };
        if field.repeated
            && let (Value::Object(schema), Some(Value::Object(rule))) =
                (&mut schema, rules::list(message, &field.name, direction))
        {
            schema.extend(rule);
        }
        if !field.comment.is_empty() {
            schema["description"] = json!(field.comment);
        }
        schema
    }

    /// One value of a member.
    fn bare(&mut self, message: &str, field: &Field, direction: Direction) -> Value {
        let mut schema = self.kind(&field.kind, direction);
        if let (Value::Object(schema), Some(Value::Object(rule))) =
            (&mut schema, rules::find(message, &field.name, direction))
        {
            schema.extend(rule);
        }
        schema
    }

    fn kind(&mut self, kind: &Kind, direction: Direction) -> Value {
        match kind {
            Kind::Text => json!({ "type": "string" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::Integer { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Kind::Number => json!({ "type": "number" }),
            Kind::Time => json!({ "type": "string", "format": "date-time" }),
            Kind::Message(name) => self.reference(name, direction),
            Kind::Map(value) => {
                json!({ "type": "object", "additionalProperties": self.kind(value, direction) })
            }
            Kind::Other => json!({}),
        }
    }
}

fn nullable(schema: Value) -> Value {
    match schema {
        Value::Object(mut members) if members.contains_key("type") => {
            let kind = members["type"].take();
            members.insert("type".to_owned(), json!([kind, "null"]));
            if let Some(Value::Array(values)) = members.get_mut("enum") {
                values.push(Value::Null);
            }
            Value::Object(members)
        }
        other => json!({ "anyOf": [other, { "type": "null" }] }),
    }
}
