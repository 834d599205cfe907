//! OpenAI's embeddings, which clients speak: read for providers with words of their own, sent in as many pieces as these
//! need, and written from their answers. Called by the conversions of [`super::bedrock`], [`super::cohere`],
//! [`super::voyage`] and [`super::gemini`].

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use nemo_types::Usage;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    read::{self, Members, Str},
    write,
};
use crate::{
    codec::{CodecError, Echo, Encoded},
    ir::{Param, Text},
    plan::Converted,
};

/// What a client asks for.
#[derive(Debug, Default)]
pub(super) struct Asked<'a> {
    pub texts: Vec<Text<'a>>,
    pub dimensions: Option<u64>,
    /// Vectors as base64 of little-endian 32-bit floats, as OpenAI's libraries ask unasked.
    pub base64: bool,
    /// What the texts are for; no parameter of OpenAI, but many providers have it: `query`, `document`, …
    pub input_type: Option<Text<'a>>,
    /// Whether to cut texts that are too long; likewise.
    pub truncate: Option<&'a RawValue>,
    /// What has no meaning elsewhere.
    pub dropped: Vec<Param>,
}

/// # Errors
/// What is wrong with the request, or can be done nowhere but at OpenAI.
pub(super) fn read(body: &[u8]) -> Result<Asked<'_>, CodecError> {
    let mut asked = Asked::default();
    let mut input = None;
    for (name, json) in read::body::<Members<'_>>(body)?.0 {
        match &*name.0 {
            "model" => {}
            "input" => input = Some(json),
            "dimensions" => asked.dimensions = read::member("dimensions", json)?,
            "encoding_format" => asked.base64 = is_base64(read::member("encoding_format", json)?.as_ref())?,
            "input_type" => asked.input_type = read::member::<Str<'_>>("input_type", json)?.map(Text::from),
            "truncate" | "truncation" => asked.truncate = (json.get() != "null").then_some(json),
            "user" => asked.dropped.push(Param::User),
            _ if json.get() == "null" => {}
            other => asked.dropped.push(Param::Other(other.into())),
        }
    }
    let input = input.ok_or_else(|| CodecError::invalid("input", "Missing field `input`."))?;
    asked.texts = texts(input)?;
    if asked.dimensions == Some(0) {
        return Err(CodecError::invalid("dimensions", "Expected a number above 0."));
    }
    Ok(asked)
}

fn is_base64(format: Option<&Str<'_>>) -> Result<bool, CodecError> {
    match format.map(|format| &*format.0) {
        None | Some("float") => Ok(false),
        Some("base64") => Ok(true),
        Some(other) => Err(CodecError::invalid(
            "encoding_format",
            format!("Expected `float` or `base64`, and not `{}`.", &other[..other.floor_char_boundary(64)]),
        )),
    }
}

/// One text, or several. Tokens are of OpenAI's own alphabet.
fn texts(input: &RawValue) -> Result<Vec<Text<'_>>, CodecError> {
    let json = input.get();
    if json.starts_with('"') {
        return Ok(vec![read::value::<Str<'_>>("input", json)?.0]);
    }
    let items: Vec<&RawValue> = read::value("input", json)
        .map_err(|_| CodecError::invalid("input", "Expected a text or an array of texts."))?;
    if items.is_empty() {
        return Err(CodecError::invalid("input", "Expected at least one text."));
    }
    let mut texts = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let path = || format!("input[{at}]");
        match item.get().as_bytes().first() {
            Some(b'"') => texts.push(read::value::<Str<'_>>(&path(), item.get())?.0),
            Some(b'0'..=b'9' | b'[') => {
                return Err(CodecError::unsupported(
                    path(),
                    "This model takes texts. Tokens mean something only to the models of OpenAI.",
                ));
            }
            _ => return Err(CodecError::invalid(path(), "Expected a text.")),
        }
    }
    Ok(texts)
}

/// Texts in one request of a client, however many calls they take: as many as OpenAI allows.
const MAX_TEXTS: usize = 2048;

/// What a provider takes in one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    pub texts: usize,
    /// Of all texts; one that is longer goes alone.
    pub bytes: usize,
}

impl Most {
    pub fn texts(texts: usize) -> Self {
        Self { texts, bytes: usize::MAX }
    }

    /// How many of these go into one call: one at least.
    fn fitting(self, texts: &[Text<'_>]) -> usize {
        let mut bytes = 0_usize;
        let fits = |text: &&Text<'_>| {
            bytes = bytes.saturating_add(text.len());
            bytes <= self.bytes
        };
        texts.iter().take(self.texts).take_while(fits).count().max(1)
    }
}

/// A body for each piece of the texts.
///
/// # Errors
/// When there are more than OpenAI itself would take.
pub(super) fn pieces(
    texts: &[Text<'_>],
    most: Most,
    dropped: Vec<Param>,
    body: impl Fn(&[Text<'_>]) -> Result<Bytes, CodecError>,
) -> Result<Encoded, CodecError> {
    if texts.len() > MAX_TEXTS {
        let message = format!("Expected at most {MAX_TEXTS} texts in a request, and not {}.", texts.len());
        return Err(CodecError::invalid("input", message));
    }
    let (first, mut rest) = texts.split_at(most.fitting(texts));
    let mut encoded = Encoded::new(body(first)?, dropped);
    while !rest.is_empty() {
        let (next, after) = rest.split_at(most.fitting(rest));
        encoded.more.push(body(next)?);
        rest = after;
    }
    Ok(encoded)
}

/// What was answered to one request, or to each of the pieces.
///
/// # Errors
/// When it is nothing of the kind.
pub(super) fn answers<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<Vec<T>, CodecError> {
    if body.trim_ascii_start().starts_with(b"[") { read::body(body) } else { Ok(vec![read::body(body)?]) }
}

/// Of several numbers of tokens; `None` where one is not known.
pub(super) fn sum(tokens: impl IntoIterator<Item = Option<u64>>) -> Option<u64> {
    tokens.into_iter().try_fold(0_u64, |sum, tokens| Some(sum.saturating_add(tokens?)))
}

/// From the client's own request.
#[derive(Debug, Default)]
struct Wanted {
    base64: bool,
    /// `None`: it is not known.
    vectors: Option<usize>,
}

impl Wanted {
    fn of(echo: &Echo) -> Self {
        #[derive(Deserialize)]
        struct Request<'a> {
            #[serde(borrow)]
            encoding_format: Option<Str<'a>>,
            #[serde(borrow)]
            input: Option<&'a RawValue>,
        }
        let Ok(request) = serde_json::from_slice::<Request<'_>>(&echo.request) else {
            return Self::default();
        };
        let vectors = request.input.map(RawValue::get).and_then(|input| match input.starts_with('[') {
            true => serde_json::from_str::<Vec<IgnoredAny>>(input).ok().map(|texts| texts.len()),
            false => Some(1),
        });
        Self { base64: request.encoding_format.is_some_and(|format| format.0 == "base64"), vectors }
    }
}

/// A vector as the provider gave it: an array of numbers, or a string of base64.
pub(super) type Vector<'a> = &'a RawValue;

/// The answer that OpenAI would have given.
///
/// # Errors
/// When a vector is none, or one is missing.
pub(super) fn write<'a>(
    echo: &Echo,
    model: Option<&str>,
    vectors: impl IntoIterator<Item = Vector<'a>>,
    tokens: Option<u64>,
) -> Result<Converted, CodecError> {
    let (wanted, mut written) = (Wanted::of(echo), 0);
    let mut data = Vec::with_capacity(1 << 14);
    for (index, vector) in vectors.into_iter().enumerate() {
        written += 1;
        if index > 0 {
            data.push(b',');
        }
        data.extend_from_slice(b"{\"object\":\"embedding\",\"index\":");
        data.extend_from_slice(index.to_string().as_bytes());
        data.extend_from_slice(b",\"embedding\":");
        push(vector.get(), wanted.base64, &mut data)?;
        data.push(b'}');
    }
    if let Some(vectors) = wanted.vectors.filter(|vectors| *vectors != written) {
        // Clients take them for those of the texts in the same places.
        let message = format!("The upstream gave {written} vectors for {vectors} texts.");
        return Err(CodecError::invalid("embeddings", message));
    }
    let mut body = Vec::with_capacity(data.len() + 256);
    write::object(&mut body, |object| {
        object.text("object", "list");
        let list = object.member("data");
        list.push(b'[');
        list.append(&mut data);
        list.push(b']');
        object.text("model", model.unwrap_or(&echo.model));
        // Some don't count; clients expect a number, and what is billed is the gateway's own estimate.
        let shown = tokens.unwrap_or_else(|| crate::estimate_input_tokens(&echo.request));
        object.object("usage", |usage| {
            usage.value("prompt_tokens", shown);
            usage.value("total_tokens", shown);
        });
    });
    let usage = tokens.map(|input| Usage { input: Some(input), ..Usage::default() });
    Ok(Converted { body, usage, measures: Vec::new() })
}

/// In the encoding that the client asked for.
fn push(vector: &str, base64: bool, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let broken = |_| CodecError::invalid("embeddings", "The upstream gave a vector that can't be read.");
    match (vector.starts_with('['), base64) {
        (true, false) => out.extend_from_slice(vector.as_bytes()),
        (true, true) => {
            let numbers: Vec<f32> = serde_json::from_str(vector).map_err(broken)?;
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            write::text(out, &STANDARD.encode(bytes));
        }
        (false, true) => out.extend_from_slice(vector.as_bytes()),
        (false, false) => {
            let text: Str<'_> = serde_json::from_str(vector).map_err(broken)?;
            let Ok(bytes) = STANDARD.decode(text.0.as_bytes()) else {
                return Err(CodecError::invalid(
                    "embeddings",
                    "The upstream gave a vector that is no base64.",
                ));
            };
            let numbers =
                bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap_or_default()));
            write::array(out, numbers, write::value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_many_are_read() {
        let asked = read(br#"{"model":"m","input":"a","dimensions":256,"user":"u","x":1,"y":null}"#).unwrap();
        assert_eq!(
            (&*asked.texts, asked.dimensions, asked.base64),
            (&[Text::from("a")][..], Some(256), false)
        );
        assert_eq!(asked.dropped, [Param::User, Param::Other("x".into())]);
        let asked =
            read(br#"{"input":["a","b\n"],"encoding_format":"base64","input_type":"query"}"#).unwrap();
        assert_eq!(asked.texts, ["a", "b\n"]);
        assert!(asked.base64 && asked.input_type.as_deref() == Some("query"));
    }

    #[test]
    fn texts_go_in_pieces_that_are_taken() {
        let texts: Vec<Text<'_>> = ["aaaa", "bb", "cc", "d", "eeeeeeee", "f"].map(Text::from).into();
        let sent = |most| {
            let encoded = pieces(&texts, most, Vec::new(), |some| Ok(some.concat().into())).unwrap();
            [vec![encoded.body], encoded.more].concat()
        };
        assert_eq!(sent(Most::texts(6)), ["aaaabbccdeeeeeeeef"]);
        assert_eq!(sent(Most::texts(4)), ["aaaabbccd", "eeeeeeeef"]);
        assert_eq!(sent(Most { texts: 3, bytes: 5 }), ["aaaa", "bbccd", "eeeeeeee", "f"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, path, unsupported) in [
            (&br#"{"model":"m"}"#[..], "input", false),
            (br#"{"input":[]}"#, "input", false),
            (br#"{"input":5}"#, "input", false),
            (br#"{"input":["a",null]}"#, "input[1]", false),
            (br#"{"input":[1,2]}"#, "input[0]", true),
            (br#"{"input":[[1,2]]}"#, "input[0]", true),
            (br#"{"input":"a","encoding_format":"int8"}"#, "encoding_format", false),
            (br#"{"input":"a","dimensions":"x"}"#, "dimensions", false),
            (br#"{"input":"a","dimensions":0}"#, "dimensions", false),
            (b"[]", "", false),
        ] {
            let error = read(body).unwrap_err();
            assert_eq!((&*error.path, error.unsupported), (path, unsupported), "{error:?}");
        }
    }

    /// OpenAI's libraries ask for base64 unless told otherwise, and not all of them take numbers then.
    #[test]
    fn vectors_come_in_the_encoding_that_was_asked_for() {
        let asked = |format: &str| Echo {
            request: format!(r#"{{"encoding_format":"{format}"}}"#).into_bytes().into(),
            model: "m".into(),
            ..Echo::default()
        };
        let numbers: &RawValue = serde_json::from_str("[1.5, -2]").unwrap();
        let base64: &RawValue = serde_json::from_str("\"AADAPwAAAMA=\"").unwrap();
        for (given, format, expected) in [
            (numbers, "float", "[1.5, -2]"),
            (numbers, "base64", "\"AADAPwAAAMA=\""),
            (base64, "base64", "\"AADAPwAAAMA=\""),
            (base64, "float", "[1.5,-2.0]"),
        ] {
            let converted = write(&asked(format), None, [given, given], Some(3)).unwrap();
            assert_eq!(
                String::from_utf8(converted.body).unwrap(),
                format!(
                    r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{expected}}},{{"object":"embedding","index":1,"embedding":{expected}}}],"model":"m","usage":{{"prompt_tokens":3,"total_tokens":3}}}}"#
                )
            );
            assert_eq!(converted.usage.unwrap().input, Some(3));
        }
        let wrong: &RawValue = serde_json::from_str("[\"a\"]").unwrap();
        assert!(write(&asked("base64"), None, [wrong], None).is_err());
    }
}
