//! From an HTTP request to a call and a message: caller, options, ids of the path, query, JSON body. Refusals name the
//! member, what is wrong with it and what was expected.
//!
//! Called by the handlers that [`super::table`] makes.

use std::collections::HashMap;

use axum::{
    body::Bytes,
    extract::{
        FromRequest as _, FromRequestParts as _, Path, Query, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{HeaderMap, header, request::Parts},
};
use nemo_runtime::http_server::Peer;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    api::{API, Field, Kind as Type},
    table::Kind,
};
use crate::admin::{Admin, AdminError, Call, ErrorKind, fleet_wait::FLEET};

/// Shows the members that the path gives: name in the path, name in the body, member.
pub(super) type Members<T> = fn(&mut T, &mut dyn FnMut(&'static str, &'static str, &mut String));

/// What a request says besides its message.
#[derive(Debug)]
pub(super) struct Input {
    pub call: Call,
    /// Answer when every live node has applied the write.
    pub wait_for_fleet: bool,
    /// Path of the request, as sent.
    pub path: String,
}

/// Reads a request of an operation that takes `message`. The caller is found out before anything else is looked at, so
/// that strangers can't make us read a body.
pub(super) async fn read<T>(
    admin: &Admin,
    request: Request,
    kind: Kind,
    message: &'static str,
    members: Members<T>,
) -> Result<(Input, T), AdminError>
where
    T: DeserializeOwned + Default,
{
    let (mut parts, body) = request.into_parts();
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let caller = admin.authenticate(authorization).await?;
    let peer = parts.extensions.get::<Peer>().map(|peer| peer.0.ip());
    let headers = &parts.headers;
    let mut call = Call::with_options(caller, peer, |name| headers.get(name).map(|value| value.as_bytes()))?;
    let ids = ids(&mut parts).await?;
    let mut query = pairs(&mut parts).await?;
    let mut wait_for_fleet = false;
    if kind.is_write() {
        if let Some(value) = take_option(&mut query, "validate_only")? {
            call.validate_only = flag("validate_only", &value)?;
        }
        if let Some(value) = take_option(&mut query, "wait")? {
            if value != FLEET {
                return Err(AdminError::invalid("wait", format!("{value:?} can't be waited for"), FLEET));
            }
            wait_for_fleet = true;
        }
    }
    let taken: &[Field] = match API.message(message) {
        Some(described) if kind == Kind::List => &described.fields,
        _ => &[],
    };
    let mut known: Vec<&str> = taken.iter().map(|field| field.name.as_str()).collect();
    known.retain(|name| !ids.contains_key(*name) && *name != "org_id");
    if kind.is_write() {
        known.extend(["validate_only", "wait"]);
    }
    let from_query = typed(query, taken, &known)?;
    let path = parts.uri.path().to_owned();
    let request = Request::from_parts(parts, body);
    let mut message: T =
        if kind.has_body() { body_of(request, message).await? } else { from_value(from_query)? };
    let mut refused = Ok(());
    members(&mut message, &mut |name, field, member| {
        let given = ids.get(name).map(String::as_str).unwrap_or_default();
        if !member.is_empty() && member != given {
            refused = Err(AdminError::invalid(field, "differs from the path", "nothing: the path says it"));
        }
        given.clone_into(member);
    });
    refused?;
    Ok((Input { call, wait_for_fleet, path }, message))
}

async fn ids(parts: &mut Parts) -> Result<HashMap<String, String>, AdminError> {
    match Path::from_request_parts(parts, &()).await {
        Ok(Path(ids)) => Ok(ids),
        Err(error) => Err(AdminError::new(ErrorKind::InvalidArgument, error.body_text())),
    }
}

async fn pairs(parts: &mut Parts) -> Result<Vec<(String, String)>, AdminError> {
    match Query::from_request_parts(parts, &()).await {
        Ok(Query(pairs)) => Ok(pairs),
        Err(error) => Err(AdminError::new(ErrorKind::InvalidArgument, error.body_text())),
    }
}

/// Takes a parameter that is no member of the message.
fn take_option(query: &mut Vec<(String, String)>, name: &str) -> Result<Option<String>, AdminError> {
    let mut found = query.extract_if(.., |(key, _)| key == name).map(|(_, value)| value);
    let value = found.next();
    if found.next().is_some() {
        return Err(twice(name));
    }
    Ok(value)
}

fn twice(name: &str) -> AdminError {
    AdminError::invalid(name, "appears twice", "each parameter once")
}

fn flag(name: &str, value: &str) -> Result<bool, AdminError> {
    value.parse().map_err(|_| AdminError::invalid(name, format!("{value:?} is neither"), "true or false"))
}

/// Gives the texts of a query the types that the message wants. A parameter of several values is given several times.
fn typed(
    query: Vec<(String, String)>,
    fields: &[Field],
    known: &[&str],
) -> Result<Map<String, Value>, AdminError> {
    let mut members: Map<String, Value> = Map::new();
    for (name, text) in query {
        let field = fields.iter().find(|field| field.name == name);
        let Some(field) = field.filter(|_| known.contains(&name.as_str())) else {
            return Err(unknown(&name, "parameter", known));
        };
        if text.is_empty() {
            let expected = "a value, or no such parameter at all";
            return Err(AdminError::invalid(name, "empty", expected));
        }
        let value = value_of(field, &text)?;
        match (field.repeated, members.get_mut(&name)) {
            (true, Some(Value::Array(values))) => values.push(value),
            (true, _) => drop(members.insert(name, Value::Array(vec![value]))),
            (false, Some(_)) => return Err(twice(&name)),
            (false, None) => drop(members.insert(name, value)),
        }
    }
    Ok(members)
}

fn value_of(field: &Field, text: &str) -> Result<Value, AdminError> {
    let refused =
        |expected: String| AdminError::invalid(&field.name, format!("{text:?} is something else"), expected);
    match &field.kind {
        Type::Bool => flag(&field.name, text).map(Value::Bool),
        Type::Integer { least, most } => {
            let number = text.parse::<i128>().ok().filter(|_| !text.starts_with('+'));
            let range = i128::from(*least)..=i128::from(*most);
            let number = number.filter(|number| range.contains(number));
            let number = number.and_then(serde_json::Number::from_i128).map(Value::Number);
            number.ok_or_else(|| refused(format!("a whole number from {least} to {most}")))
        }
        Type::Number => {
            let number = text.parse::<f64>().ok().and_then(serde_json::Number::from_f64);
            number.map(Value::Number).ok_or_else(|| refused("a number".to_owned()))
        }
        Type::Text | Type::Time => Ok(Value::String(text.to_owned())),
        Type::Message(_) | Type::Map(_) | Type::Other => Err(refused("no query parameter".to_owned())),
    }
}

fn from_value<T: DeserializeOwned>(members: Map<String, Value>) -> Result<T, AdminError> {
    serde_path_to_error::deserialize(Value::Object(members)).map_err(|error| {
        let path = error.path().to_string();
        explain(Some(path).filter(|path| path != "."), error.inner())
    })
}

/// A JSON body; none at all is an empty object.
async fn body_of<T: DeserializeOwned>(request: Request, message: &str) -> Result<T, AdminError> {
    let (is_json, is_plain) = (is_json(request.headers()), is_plain(request.headers()));
    let bytes = Bytes::from_request(request, &()).await.map_err(|error| match error {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => AdminError {
            expected: Some(format!("at most {} bytes", super::MAX_BODY_BYTES)),
            ..AdminError::new(ErrorKind::TooLarge, "the body is too large")
        },
        other => AdminError::new(ErrorKind::InvalidArgument, other.body_text()),
    })?;
    if bytes.is_empty() {
        return parse(b"{}", message);
    }
    if !is_json || !is_plain {
        let message = if is_json { "the body is compressed" } else { "the body is not declared to be JSON" };
        return Err(AdminError {
            expected: Some("content-type: application/json, and no content-encoding".to_owned()),
            ..AdminError::new(ErrorKind::UnsupportedMediaType, message)
        });
    }
    parse(&bytes, message)
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn is_plain(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity")
}

fn parse<T: DeserializeOwned>(bytes: &[u8], message: &str) -> Result<T, AdminError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        explain(Some(path).filter(|path| path != "."), error.inner())
    })?;
    deserializer.end().map_err(|error| explain(None, &error))?;
    let shape: Value = serde_json::from_slice(bytes).map_err(|error| explain(None, &error))?;
    objects(&shape, message, "")?;
    Ok(value)
}

/// serde takes a list of values for an object; JSON's readers don't expect that, and it would pass by all names.
fn objects(value: &Value, message: &str, path: &str) -> Result<(), AdminError> {
    let Value::Object(members) = value else {
        let field = Some(path.to_owned()).filter(|path| !path.is_empty());
        let expected = Some("a JSON object".to_owned());
        return Err(AdminError {
            field,
            expected,
            ..AdminError::new(ErrorKind::InvalidArgument, "invalid type: a list")
        });
    };
    let fields = API.message(message).map(|message| message.fields.as_slice()).unwrap_or_default();
    for field in fields {
        let (Type::Message(of), Some(value)) = (&field.kind, members.get(&field.name)) else { continue };
        let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        match value {
            Value::Null => {}
            Value::Array(values) if field.repeated => {
                let mut entries = values.iter().enumerate();
                entries.try_for_each(|(at, value)| objects(value, of, &format!("{path}[{at}]")))?;
            }
            value => objects(value, of, &path)?,
        }
    }
    Ok(())
}

/// serde says `invalid type: string "x", expected u32 at line 1 column 20`: three things, which we keep apart.
fn explain(field: Option<String>, error: &serde_json::Error) -> AdminError {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    if let Some(rest) = text.strip_prefix("unknown field `") {
        let name = rest.split('`').next().unwrap_or_default();
        let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
        let refused = unknown(name, "member", &known);
        return AdminError { field: field.or(refused.field), ..refused };
    }
    // Our own types (times) say it the other way round.
    let own = text.strip_prefix("expected ").and_then(|text| text.split_once(", "));
    let parts = own.map(|(expected, message)| (message, expected)).or_else(|| text.split_once(", expected "));
    let (message, expected) = match parts {
        Some((message, expected)) if expected.starts_with("struct ") => {
            (message, Some("a JSON object".to_owned()))
        }
        Some((message, expected)) => (message, Some(expected.to_owned())),
        None => (text, None),
    };
    let place = if error.is_syntax() || error.is_eof() {
        format!(" (line {}, column {})", error.line(), error.column())
    } else {
        String::new()
    };
    AdminError { field, expected, ..AdminError::new(ErrorKind::InvalidArgument, format!("{message}{place}")) }
}

/// Refuses a name, with the one that was probably meant.
fn unknown(name: &str, what: &str, known: &[&str]) -> AdminError {
    let similar = |other: &str| strsim::jaro_winkler(name, other);
    let meant = known.iter().copied().max_by(|a, b| similar(a).total_cmp(&similar(b)));
    let meant = meant.filter(|other| similar(other) >= 0.75);
    let hint = meant.map(|meant| format!("; did you mean {meant:?}?")).unwrap_or_default();
    let expected = match known {
        [] => "no parameters".to_owned(),
        known => format!("one of: {}", known.join(", ")),
    };
    AdminError::invalid(name, format!("there is no such {what}{hint}"), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(message: &str, pairs: &[(&str, &str)]) -> Result<Map<String, Value>, AdminError> {
        let fields = &API.message(message).unwrap().fields;
        let known: Vec<_> = fields.iter().map(|field| field.name.as_str()).collect();
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        typed(pairs, fields, &known)
    }

    #[test]
    fn a_query_gets_the_types_of_its_message() {
        let members = query("ListRequestsRequest", &[("page_size", "5"), ("model", "5")]).unwrap();
        assert_eq!(Value::Object(members), serde_json::json!({ "page_size": 5, "model": "5" }));
    }

    #[test]
    fn what_a_query_can_not_say_is_refused_by_name() {
        for (name, value) in [
            ("page_size", "x"),
            ("page_size", "-1"),
            ("page_size", "+1"),
            ("page_size", "4294967296"),
            ("model", ""),
        ] {
            let error = query("ListRequestsRequest", &[(name, value)]).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(name), "{value}");
            assert!(error.expected.is_some(), "{value}");
        }
        let error = query("ListRequestsRequest", &[("model", "a"), ("model", "b")]).unwrap_err();
        assert!(error.message.contains("twice"), "{error}");
        let error = query("ListRequestsRequest", &[("modle", "a")]).unwrap_err();
        assert!(error.message.contains("did you mean \"model\"?"), "{error}");
    }

    #[test]
    fn a_body_is_refused_with_member_place_and_what_was_expected() {
        type Message = nemo_proto::admin::CreateModelGroupRequest;
        let refused = |text: &str| parse::<Message>(text.as_bytes(), "CreateModelGroupRequest").unwrap_err();
        let error = refused("{\n \"name\": }");
        assert!(error.message.contains("line 2, column 10"), "{error}");
        let error = refused(r#"{"links": [{"deployment": []}]}"#);
        assert_eq!(error.field.as_deref(), Some("links[0].deployment"));
        assert!(error.message.contains("did you mean \"deployments\"?"), "{error}");
        let error = refused("[]");
        assert_eq!(error.expected.as_deref(), Some("a JSON object"), "{error}");
        let error = refused(r#"{"links": [{"deployments": [["id", 1]]}]}"#);
        assert_eq!(error.field.as_deref(), Some("links[0].deployments[0]"), "{error}");
        let error = refused(r#"{"name": 5}"#);
        assert_eq!((error.field.as_deref(), error.expected.as_deref()), (Some("name"), Some("a string")));
        let error = refused(r#"{"qqqqqq": 5}"#);
        assert!(!error.message.contains("did you mean"), "{error}");
    }
}
