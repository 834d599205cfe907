//! One operation of the table in the terms of OpenAPI.

use serde_json::{Map, Value, json};

use super::{
    common, rules,
    schema::{Direction, Schemas},
};
use crate::admin::{
    rest::{
        api::{API, Method},
        table::{Kind, Operation},
    },
    roles,
};

pub(super) fn describe(operation: &Operation, path: &str, id: &str, schemas: &mut Schemas) -> Value {
    let method = API.method(operation.name);
    let in_path = path_parameters(path);
    let mut described = json!({
        "operationId": id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": description(operation, method),
        "parameters": parameters(operation, &in_path, schemas),
        "responses": responses(operation, method, schemas),
    });
    if let Value::Object(members) = &mut described {
        if let Some(method) = method {
            members.insert("x-nemo-grpc".to_owned(), json!(format!("{}/{}", method.service, method.name)));
        }
        if operation.kind.has_body() {
            members.insert("requestBody".to_owned(), body(operation, schemas));
        }
    }
    described
}

/// Names in braces.
pub(super) fn path_parameters(path: &str) -> Vec<&str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect()
}

fn description(operation: &Operation, method: Option<&Method>) -> String {
    let comment = method.map(|method| method.comment.as_str()).unwrap_or_default();
    let action = method.and_then(|method| {
        let row = roles::METHODS.iter().find(|row| row.0 == method.service && row.1 == method.name);
        row.map(|row| row.2)
    });
    let may = action.map(|action| {
        let roles: Vec<_> = roles::Role::ALL.into_iter().filter(|role| role.may(action)).collect();
        let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
        format!("Allowed for: {}.", names.join(", "))
    });
    let partial =
        (operation.kind == Kind::Update).then(|| "Members that are absent stay as they are.".to_owned());
    let comment = Some(comment.to_owned()).filter(|comment| !comment.is_empty());
    [comment, partial, may].into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn parameters(operation: &Operation, in_path: &[&str], schemas: &mut Schemas) -> Vec<Value> {
    let mut parameters: Vec<Value> = in_path
        .iter()
        .map(|name| {
            let schema = schemas.parameter(operation.request, name, operation.tag == "Models");
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    if operation.kind == Kind::List {
        parameters.extend(query_parameters(operation, in_path, schemas));
    }
    if operation.kind.is_write() {
        parameters.push(json!({
            "name": "validate_only", "in": "query", "schema": { "type": "boolean", "default": false },
            "description": "Check and answer, but change nothing.",
        }));
        parameters.push(json!({
            "name": "wait", "in": "query", "schema": { "type": "string", "enum": ["fleet"] },
            "description": "Answer when every live node has applied the write.",
        }));
    }
    if matches!(operation.kind, Kind::Update | Kind::Delete | Kind::Put) {
        parameters.push(json!({
            "name": "if-match", "in": "header",
            "schema": { "type": "string", "pattern": "^(\"[0-9a-f]{32}\"|[*])$", "minLength": 1 },
            "description": "Only if this is still the etag, or with * if it exists; else 412.",
        }));
    }
    if operation.kind == Kind::Create {
        parameters.push(json!({
            "name": "idempotency-key", "in": "header",
            "schema": { "type": "string", "pattern": "^[!-~]{1,255}$", "minLength": 1, "maxLength": 255 },
            "description": "Chosen by the caller; makes the create safe to repeat.",
        }));
    }
    parameters
}

fn query_parameters(operation: &Operation, in_path: &[&str], schemas: &mut Schemas) -> Vec<Value> {
    let Some(message) = API.message(operation.request) else { return Vec::new() };
    let fields =
        message.fields.iter().filter(|field| field.name != "org_id" && !in_path.contains(&&*field.name));
    fields
        .map(|field| {
            let schema = schemas.query(operation.request, field);
            let mut parameter = json!({ "name": field.name, "in": "query", "schema": schema });
            if !field.comment.is_empty() {
                parameter["description"] = json!(field.comment);
            }
            if rules::is_required(operation.request, &field.name) {
                parameter["required"] = json!(true);
            }
            parameter
        })
        .collect()
}

fn body(operation: &Operation, schemas: &mut Schemas) -> Value {
    let in_path = path_parameters(operation.path).into_iter().map(|name| name.trim_start_matches('*'));
    let given: Vec<&str> = in_path.chain(["org_id"]).collect();
    let (schema, required) = schemas.body(operation.request, &given);
    json!({ "required": required, "content": { "application/json": { "schema": schema } } })
}

fn responses(operation: &Operation, method: Option<&Method>, schemas: &mut Schemas) -> Map<String, Value> {
    let kind = operation.kind;
    let mut headers = Map::from_iter([("x-nemo-request-id".to_owned(), common::header_ref("RequestId"))]);
    if kind.is_write() {
        headers.insert("x-nemo-config-version".to_owned(), common::header_ref("ConfigVersion"));
    }
    if !matches!(kind, Kind::List | Kind::Delete) {
        headers.insert("etag".to_owned(), common::header_ref("Etag"));
    }
    let shown = method.filter(|_| kind != Kind::Delete);
    let schema = shown.map(|method| schemas.reference(&method.response, Direction::Response));
    let content = json!({ "application/json": { "schema": schema } });
    let ok = json!({ "description": "As asked for.", "headers": headers.clone(), "content": content });
    let mut responses = Map::new();
    match kind {
        Kind::Create => {
            responses.insert(
                "200".to_owned(),
                json!({
                    "description": "With validate_only: what would have been created.",
                    "headers": headers.clone(), "content": content,
                }),
            );
            headers.insert("location".to_owned(), common::header_ref("Location"));
            headers.insert("idempotency-replayed".to_owned(), common::header_ref("IdempotencyReplayed"));
            responses.insert(
                "201".to_owned(),
                json!({
                    "description": "Created.", "headers": headers, "content": content,
                }),
            );
        }
        Kind::Delete => {
            responses.insert("204".to_owned(), json!({ "description": "Deleted.", "headers": headers }));
        }
        _ => {
            responses.insert("200".to_owned(), ok);
        }
    }
    for status in common::refusals(kind.is_write(), kind.has_body(), kind == Kind::Create) {
        responses.insert(status.to_string(), common::refusal(status));
    }
    responses
}
