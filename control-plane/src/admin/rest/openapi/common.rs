//! Parts of the document that all operations share: problem documents, headers.

use serde_json::{Map, Value, json};

/// Statuses that an operation can be refused with, each with the name of its component and what it means.
const PROBLEMS: [(u16, &str, &str); 13] = [
    (400, "BadRequest", "The request is not valid; `errors` names the member and what is expected."),
    (401, "Unauthorized", "No token, or none that is valid."),
    (403, "Forbidden", "The token's role does not allow this here."),
    (404, "NotFound", "What the path or a member names does not exist."),
    (
        409,
        "Conflict",
        "It exists already, is still in use, or another request is doing the same at this moment.",
    ),
    (412, "PreconditionFailed", "`if-match` names another version than there is."),
    (413, "TooLarge", "The body is larger than 1 MiB."),
    (415, "UnsupportedMediaType", "The body is not declared to be JSON, or is compressed."),
    (422, "IdempotencyKeyReused", "The idempotency key was used for another request."),
    (429, "TooManyRequests", "Too many requests at the same time; `retry-after` says how long to wait."),
    (500, "Internal", "A fault of the control plane. Its log has the request id."),
    (503, "Unavailable", "The database is away; `retry-after` says when to try again."),
    (504, "DeadlineExceeded", "The write is done, but not every node applied it in time."),
];

/// Which of them an operation can answer.
pub(super) fn refusals(is_write: bool, has_body: bool, is_create: bool) -> Vec<u16> {
    let applies = |status: u16| match status {
        409 | 412 | 504 => is_write,
        413 | 415 => has_body,
        422 => is_create,
        _ => true,
    };
    PROBLEMS.iter().map(|(status, ..)| *status).filter(|status| applies(*status)).collect()
}

/// Reference to the component of a status.
pub(super) fn refusal(status: u16) -> Value {
    let name = PROBLEMS.iter().find(|row| row.0 == status).map_or("Internal", |row| row.1);
    json!({ "$ref": format!("#/components/responses/{name}") })
}

pub(super) fn problems() -> Map<String, Value> {
    let component = |(status, name, description): &(u16, &str, &str)| {
        let mut headers = Map::new();
        headers.insert("x-nemo-request-id".to_owned(), header_ref("RequestId"));
        if matches!(status, 429 | 503) {
            headers.insert("retry-after".to_owned(), header_ref("RetryAfter"));
        }
        if *status == 401 {
            headers.insert("www-authenticate".to_owned(), header_ref("WwwAuthenticate"));
        }
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": schema } });
        let component = json!({ "description": description, "headers": headers, "content": content });
        ((*name).to_owned(), component)
    };
    PROBLEMS.iter().map(component).collect()
}

/// The schema of [`crate::admin::AdminError::problem`].
pub(super) fn problem() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "RFC 9457 problem document.",
        "required": ["type", "title", "status", "detail", "instance", "request_id", "errors"],
        "additionalProperties": false,
        "properties": {
            "type": { "type": "string", "format": "uri", "description": "The kind of problem, for programs.",
                "examples": ["urn:nemo:problem:invalid_argument"] },
            "title": text("The kind of problem, for people."),
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": text("What is wrong with this request."),
            "instance": { "type": "string", "format": "uri", "description": "This one occurrence." },
            "request_id": text("As in the header x-nemo-request-id and in the log."),
            "errors": {
                "type": "array",
                "description": "What is wrong, member by member.",
                "items": {
                    "type": "object",
                    "required": ["field", "message", "expected"],
                    "additionalProperties": false,
                    "properties": {
                        "field": { "type": ["string", "null"], "description":
                            "Member of the body, parameter or header, as in links[0].deployments[1].weight." },
                        "message": text("What is wrong with it."),
                        "expected": { "type": ["string", "null"], "description": "What would have been right." },
                    },
                },
            },
        },
    })
}

pub(super) fn header_ref(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

pub(super) fn headers() -> Value {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    json!({
        "RequestId": text("Id of the request, also in the log."),
        "Etag": text("Version of the entity, for if-match."),
        "Location": { "description": "Path of what was created.",
            "schema": { "type": "string", "format": "uri-reference" } },
        "ConfigVersion": { "description":
            "Revision of the configuration that has this write in it. Nodes that have applied it act on it.",
            "schema": { "type": "integer", "minimum": 0 } },
        "IdempotencyReplayed": { "description": "The answer is that of an earlier request with this key.",
            "schema": { "type": "string", "const": "true" } },
        "RetryAfter": { "description": "Seconds to wait.", "schema": { "type": "integer", "minimum": 0 } },
        "WwwAuthenticate": text("How to authenticate."),
    })
}
