//! `:countTokens`, of Google's clients and of its servers. AI Studio takes the whole request in one member, so that
//! instructions and tools count; Vertex takes some of a request's members. Called by [`crate::count`].

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    address,
    request::{self, camel},
    wire::{self, Members},
};
use crate::{CodecError, Destination, Encoded, Hosting, Inbound, ir::Request, providers::write::Object};

/// Where a client puts a whole request that is to be counted.
const WHOLE: &str = "generateContentRequest";
/// What Vertex counts.
const OF_VERTEX: [&str; 4] = ["contents", "systemInstruction", "tools", "generationConfig"];

fn text(body: &[u8]) -> Result<&str, CodecError> {
    std::str::from_utf8(body)
        .map_err(|_| CodecError::invalid("", "The body is not UTF-8, as JSON has to be."))
}

/// The request that a client wants to be counted, where it stands in a member of its own.
fn whole(body: &[u8]) -> Result<Option<&RawValue>, CodecError> {
    let Members(members) = wire::read(text(body)?, "")?;
    let mut told = members.into_iter().filter(|(name, value)| camel(name) == WHOLE && value.get() != "null");
    match (told.next(), told.next()) {
        (_, Some(_)) => Err(CodecError::invalid(WHOLE, "This member is there twice.")),
        (first, None) => Ok(first.map(|(_, value)| value)),
    }
}

/// Reads what a client of Google's wants to be counted: contents, or a whole request.
///
/// # Errors
/// What is wrong with it, by its path.
pub fn decode<'a>(body: &'a [u8], inbound: Inbound<'a>) -> Result<Request<'a>, CodecError> {
    let Some(whole) = whole(body)? else { return request::decode(body, inbound) };
    request::decode(whole.get().as_bytes(), inbound).map_err(|error| {
        let path = if error.path.is_empty() { WHOLE.to_owned() } else { format!("{WHOLE}.{}", error.path) };
        CodecError { path, ..error }
    })
}

/// Writes a request of another dialect's client.
///
/// # Errors
/// What Google can't read.
pub fn encode(request: &Request<'_>, to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let encoded = request::encode(request, to)?;
    let body = addressed(text(&encoded.body)?, to)?;
    Ok(Encoded { body: body.into(), ..encoded })
}

/// Passes on what a client of Google's own sends: nothing of it is lost.
///
/// # Errors
/// When it is no JSON object.
pub fn native(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let asked = match whole(body)? {
        Some(whole) => whole.get(),
        None => text(body)?,
    };
    Ok(Encoded::new(addressed(asked, to)?, Vec::new()))
}

/// A request, as this host wants to be told what to count.
fn addressed(request: &str, to: &Destination<'_>) -> Result<Vec<u8>, CodecError> {
    let Members(members) = wire::read(request, WHOLE)?;
    let mut out = Vec::with_capacity(request.len() + 128);
    let write = |object: &mut Object<'_>, wanted: &dyn Fn(&str) -> bool| {
        let named = members.iter().map(|(name, value)| (camel(name), value));
        named.filter(|(name, _): &(Cow<'_, str>, _)| wanted(name)).for_each(|(name, value)| {
            object.raw(&name, value.get());
        });
    };
    let mut object = Object::open(&mut out);
    if to.provider.hosting == Hosting::Vertex {
        write(&mut object, &|name| OF_VERTEX.contains(&name));
    } else {
        object.object(WHOLE, |whole| {
            whole.text("model", address::resource(to.model).as_str());
            write(whole, &|name| name != "model");
        });
    }
    object.close();
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(id: &str, model: &'static str) -> Destination<'static> {
        let provider = crate::provider(id).unwrap();
        let hosted = provider.hosting == Hosting::Vertex;
        Destination { provider, model, most_output: 0, cap: None, hosted }
    }

    fn sent(encoded: Result<Encoded, CodecError>) -> String {
        String::from_utf8(encoded.unwrap().body.to_vec()).unwrap()
    }

    const INBOUND: Inbound<'_> = Inbound { model: "mine", stream: false };

    #[test]
    fn instructions_and_tools_are_counted_at_either_host() {
        let body = br#"{"model":"mine","system":"Be brief.","messages":[{"role":"user","content":"hi"}],
            "tools":[{"name":"f","input_schema":{"type":"object"}}]}"#;
        let request = crate::providers::anthropic::count_tokens::decode(body).unwrap();
        let counted = r#""contents":[{"role":"user","parts":[{"text":"hi"}]}],"systemInstruction":{"parts":[{"text":"Be brief."}]},"tools":[{"functionDeclarations":[{"name":"f","parametersJsonSchema":{"type":"object"}}]}]"#;
        assert_eq!(
            sent(encode(&request, &to("google-ai-studio", "gemini-3"))),
            format!(r#"{{"generateContentRequest":{{"model":"models/gemini-3",{counted}}}}}"#)
        );
        assert_eq!(sent(encode(&request, &to("google-vertex", "gemini-3"))), format!("{{{counted}}}"));
    }

    #[test]
    fn what_googles_own_clients_send_is_not_touched_but_for_the_model() {
        let contents = r#""contents":[{"parts":[{"text":"a  b"}]}]"#;
        let plain = format!("{{{contents}}}");
        let ai_studio = to("google-ai-studio", "tunedModels/x");
        let expected = format!(r#"{{"generateContentRequest":{{"model":"tunedModels/x",{contents}}}}}"#);
        assert_eq!(sent(native(plain.as_bytes(), &ai_studio)), expected);
        let whole = format!(
            r#"{{"generate_content_request":{{"model":"models/mine",{contents},"cached_content":"c"}}}}"#
        );
        let expected = format!(
            r#"{{"generateContentRequest":{{"model":"tunedModels/x",{contents},"cachedContent":"c"}}}}"#
        );
        assert_eq!(sent(native(whole.as_bytes(), &ai_studio)), expected);
        assert_eq!(sent(native(whole.as_bytes(), &to("google-vertex", "gemini-3"))), plain);
        for body in [plain.as_bytes(), whole.replace(r#","cached_content":"c""#, "").as_bytes()] {
            assert_eq!(decode(body, INBOUND).unwrap().messages.len(), 1);
        }
    }

    #[test]
    fn what_is_wrong_is_named_where_the_client_put_it() {
        for (body, path) in [
            (r#"{"contents":[{"parts":[{"text":1}]}]}"#, "contents[0].parts[0].text"),
            (
                r#"{"generateContentRequest":{"contents":[{"parts":[{"text":1}]}]}}"#,
                "generateContentRequest.contents[0].parts[0].text",
            ),
            (r#"{"generateContentRequest":5}"#, "generateContentRequest"),
            (r#"{"generateContentRequest":{},"generate_content_request":{}}"#, "generateContentRequest"),
            ("{}", "contents"),
        ] {
            assert_eq!(decode(body.as_bytes(), INBOUND).unwrap_err().path, path, "{body}");
        }
    }
}
