//! The document agrees with routes, methods and messages, and refers to nothing that is not there.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::admin::rest::api::API;

/// gRPC methods without a REST route, each with its reason. None at present.
const NOT_OVER_REST: [(&str, &str); 0] = [];

/// Covers issue scope "gRPC and REST call the same operations".
#[test]
fn every_grpc_method_has_a_rest_route_with_its_messages() {
    let mut routed = BTreeSet::new();
    for operation in TABLE {
        assert!(routed.insert(operation.name), "{} is listed twice", operation.name);
        let method =
            API.method(operation.name).unwrap_or_else(|| panic!("no gRPC method for {}", operation.name));
        assert_eq!(method.request, operation.request);
    }
    for (operation, method) in API.methods() {
        let excepted = NOT_OVER_REST.iter().any(|(name, _)| name == operation);
        let (service, name) = (&method.service, &method.name);
        assert_ne!(routed.contains(operation.as_str()), excepted, "{service}/{name} has no REST route");
    }
}

#[test]
fn operation_ids_and_paths_are_unique_and_all_are_described() {
    let document = document();
    let mut ids = BTreeSet::new();
    let mut described = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described += 1;
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            for member in ["summary", "description"] {
                assert!(
                    operation[member].as_str().is_some_and(|text| text.len() > 5),
                    "{method} {path}: {member}"
                );
            }
            let parameters = operation["parameters"].as_array().unwrap();
            let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let named: BTreeSet<_> = in_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(named, operation::path_parameters(path).into_iter().collect(), "{method} {path}");
        }
    }
    let expected: usize = TABLE.iter().map(|operation| operation.paths().count()).sum();
    assert_eq!(described, expected);
}

fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_of_the_document_resolves_and_no_component_is_unused() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some_and(|target| target != &json!({})), "{reference}");
    }
    for section in ["schemas", "responses", "headers"] {
        for name in document["components"][section].as_object().unwrap().keys() {
            assert!(
                found.contains(&*format!("#/components/{section}/{name}")),
                "{section}/{name} is not used"
            );
        }
    }
}

/// A message with every member at its default, as serde writes it, has exactly the members of its schema.
#[test]
fn schemas_have_the_members_that_rest_really_writes() {
    use nemo_proto::admin as pb;
    let document = document();
    macro_rules! check {
        ($($message:ident)*) => {$(
            let written = serde_json::to_value(pb::$message::default()).unwrap();
            let schema = &document["components"]["schemas"][stringify!($message)];
            let named: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
            assert_eq!(written.as_object().unwrap().keys().collect::<BTreeSet<_>>(), named);
            for (name, value) in written.as_object().unwrap() {
                let kind = &schema["properties"][name]["type"];
                let expected = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(_) => "integer",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let can_be_null = schema["properties"][name]["anyOf"][1]["type"] == "null";
                assert!(
                    kind == expected
                        || (value.is_null() && can_be_null)
                        || kind.as_array().is_some_and(|kinds| kinds.contains(&json!(expected))),
                    "{}.{name}: {value} is no {kind}", stringify!($message)
                );
            }
        )*};
    }
    check!(Organization Team Member AdminToken Key Credential Deployment ModelGroup Model Setting RequestRecord Node);
}
