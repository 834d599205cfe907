//! What Google's JSON looks like when it is read: of requests (by clients) and of answers (by upstreams). Google takes every
//! name in camel case and in snake case, and so does this.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{codec::CodecError, ir::Text};

/// Text that is borrowed where it stands unescaped: `Option<Cow>` would be copied.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Str<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// An object's members in order, their values unread.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(name) = map.next_key::<Str<'de>>()? {
                    members.push((name.0, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads `text`, which stands at `path` of the client's body.
pub(super) fn read<'a, T: Deserialize<'a>>(text: &'a str, path: &str) -> Result<T, CodecError> {
    serde_json::from_str(text).or_else(|_| {
        // Once more, slower, to find the place.
        let mut reader = serde_json::Deserializer::from_str(text);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let inner = error.path().to_string();
            // What is no JSON from some byte on has no place.
            let place = match (path, inner.trim_end_matches('?').trim_end_matches('.')) {
                (_, "") => path.to_owned(),
                ("", inner) => inner.to_owned(),
                (path, inner) if inner.starts_with('[') => format!("{path}{inner}"),
                (path, inner) => format!("{path}.{inner}"),
            };
            let what = error.inner().to_string();
            let what = what.rsplit_once(" at line ").map_or(what.as_str(), |(what, _)| what);
            CodecError::invalid(place, format!("This can't be read: {what}."))
        })
    })
}

/// Reads an answer of an upstream.
pub(super) fn read_answer<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, CodecError> {
    serde_json::from_slice(body).map_err(|error| {
        CodecError::invalid("", format!("The upstream's answer is no generateContent answer: {error}."))
    })
}

/// JSON without the white space between its tokens: Google indents what it does not stream.
pub(super) fn compact(json: &str) -> Text<'_> {
    if !json.contains('\n') {
        return Cow::Borrowed(json);
    }
    let (mut out, mut quoted, mut escaped) = (String::with_capacity(json.len()), false, false);
    for letter in json.chars() {
        let is_space = !quoted && matches!(letter, ' ' | '\n' | '\r' | '\t');
        if !is_space {
            out.push(letter);
        }
        if letter == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && letter == '\\' && !escaped;
    }
    Cow::Owned(out)
}

/// Whether this is a JSON object and nothing else.
pub(super) fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Content<'a> {
    #[serde(borrow)]
    pub role: Option<Str<'a>>,
    #[serde(borrow)]
    pub parts: Option<Vec<Part<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(borrow)]
    pub text: Option<Str<'a>>,
    pub thought: Option<bool>,
    #[serde(borrow, alias = "thought_signature")]
    pub thought_signature: Option<Str<'a>>,
    #[serde(borrow, alias = "inline_data")]
    pub inline_data: Option<Blob<'a>>,
    #[serde(borrow, alias = "file_data")]
    pub file_data: Option<FileData<'a>>,
    #[serde(borrow, alias = "function_call")]
    pub function_call: Option<FunctionCall<'a>>,
    #[serde(borrow, alias = "function_response")]
    pub function_response: Option<FunctionResponse<'a>>,
    #[serde(borrow, alias = "executable_code")]
    pub executable_code: Option<&'a RawValue>,
    #[serde(borrow, alias = "code_execution_result")]
    pub code_execution_result: Option<&'a RawValue>,
    #[serde(borrow, alias = "tool_call")]
    pub tool_call: Option<&'a RawValue>,
    #[serde(borrow, alias = "tool_response")]
    pub tool_response: Option<&'a RawValue>,
    #[serde(borrow, alias = "video_metadata")]
    pub video_metadata: Option<&'a RawValue>,
    #[serde(borrow, alias = "media_resolution")]
    pub media_resolution: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blob<'a> {
    #[serde(borrow, alias = "mime_type")]
    pub mime_type: Cow<'a, str>,
    #[serde(borrow)]
    pub data: Cow<'a, str>,
    #[serde(borrow, alias = "display_name")]
    pub display_name: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FileData<'a> {
    #[serde(borrow, alias = "mime_type")]
    pub mime_type: Option<Str<'a>>,
    #[serde(borrow, alias = "file_uri")]
    pub file_uri: Cow<'a, str>,
    #[serde(borrow, alias = "display_name")]
    pub display_name: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FunctionCall<'a> {
    #[serde(borrow)]
    pub id: Option<Str<'a>>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub args: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FunctionResponse<'a> {
    #[serde(borrow)]
    pub id: Option<Str<'a>>,
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub response: Option<&'a RawValue>,
    #[serde(borrow)]
    pub parts: Option<Vec<Part<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionDeclaration<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub description: Option<Str<'a>>,
    #[serde(borrow)]
    pub parameters: Option<&'a RawValue>,
    #[serde(borrow, alias = "parameters_json_schema")]
    pub parameters_json_schema: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FunctionCallingConfig<'a> {
    #[serde(borrow)]
    pub mode: Option<Str<'a>>,
    #[serde(borrow, alias = "allowed_function_names")]
    pub allowed_function_names: Option<Vec<Str<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ThinkingConfig<'a> {
    #[serde(alias = "include_thoughts")]
    pub include_thoughts: Option<bool>,
    #[serde(alias = "thinking_budget")]
    pub thinking_budget: Option<i64>,
    #[serde(borrow, alias = "thinking_level")]
    pub thinking_level: Option<Str<'a>>,
}

/// An answer, or one event of a stream of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow)]
    pub prompt_feedback: Option<PromptFeedback<'a>>,
    pub usage_metadata: Option<UsageMetadata>,
    #[serde(borrow)]
    pub model_version: Option<Str<'a>>,
    #[serde(borrow)]
    pub response_id: Option<Str<'a>>,
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    pub index: Option<u32>,
    #[serde(borrow)]
    pub content: Option<Content<'a>>,
    #[serde(borrow)]
    pub finish_reason: Option<Str<'a>>,
    #[serde(borrow)]
    pub citation_metadata: Option<CitationMetadata<'a>>,
    #[serde(borrow)]
    pub grounding_metadata: Option<GroundingMetadata<'a>>,
    #[serde(borrow)]
    pub logprobs_result: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PromptFeedback<'a> {
    #[serde(borrow)]
    pub block_reason: Option<Str<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageMetadata {
    pub prompt_token_count: Option<u64>,
    pub cached_content_token_count: Option<u64>,
    pub candidates_token_count: Option<u64>,
    pub thoughts_token_count: Option<u64>,
    pub tool_use_prompt_token_count: Option<u64>,
    pub total_token_count: Option<u64>,
    pub prompt_tokens_details: Option<Vec<ModalityTokens>>,
    pub candidates_tokens_details: Option<Vec<ModalityTokens>>,
    pub traffic_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ModalityTokens {
    pub modality: Option<String>,
    pub token_count: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CitationMetadata<'a> {
    #[serde(borrow, alias = "citationSources")]
    pub citations: Option<Vec<CitationSource<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CitationSource<'a> {
    pub start_index: Option<u32>,
    pub end_index: Option<u32>,
    #[serde(borrow)]
    pub uri: Option<Str<'a>>,
    #[serde(borrow)]
    pub title: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroundingMetadata<'a> {
    #[serde(borrow)]
    pub grounding_chunks: Option<Vec<GroundingChunk<'a>>>,
    #[serde(borrow)]
    pub grounding_supports: Option<Vec<GroundingSupport<'a>>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroundingChunk<'a> {
    #[serde(borrow)]
    pub web: Option<Source<'a>>,
    #[serde(borrow)]
    pub retrieved_context: Option<Source<'a>>,
    #[serde(borrow)]
    pub maps: Option<Source<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Source<'a> {
    #[serde(borrow)]
    pub uri: Option<Str<'a>>,
    #[serde(borrow)]
    pub title: Option<Str<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroundingSupport<'a> {
    #[serde(borrow)]
    pub segment: Option<Segment<'a>>,
    pub grounding_chunk_indices: Option<Vec<usize>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Segment<'a> {
    pub part_index: Option<usize>,
    pub start_index: Option<usize>,
    pub end_index: Option<usize>,
    #[serde(borrow)]
    pub text: Option<Str<'a>>,
}

impl<'a> Part<'a> {
    /// What only Google's dialect knows: name and value.
    pub fn opaque(&self) -> Option<(&'static str, &'a RawValue)> {
        [
            ("executableCode", self.executable_code),
            ("codeExecutionResult", self.code_execution_result),
            ("toolCall", self.tool_call),
            ("toolResponse", self.tool_response),
        ]
        .into_iter()
        .find_map(|(name, value)| Some((name, value?)))
    }
}

/// Standard base64 with padding, from any of the forms that Google takes (the URL alphabet, no padding); `None` when it is no
/// base64. Nothing is copied unless it has to be changed.
pub(super) fn standard_base64(text: Text<'_>) -> Option<Text<'_>> {
    let letters = text.trim_end_matches('=').len();
    let padding = text.len() - letters;
    let (mut plain, mut url) = (true, false);
    for byte in text.as_bytes().get(..letters)? {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => {}
            b'+' | b'/' => plain = false,
            b'-' | b'_' => url = true,
            _ => return None,
        }
    }
    if letters % 4 == 1 || padding > 2 || (url && !plain) || (padding > 0 && !text.len().is_multiple_of(4)) {
        return None;
    }
    if !url && text.len().is_multiple_of(4) {
        return Some(text);
    }
    let mut owned = text.into_owned();
    if url {
        owned = owned.replace('-', "+").replace('_', "/");
    }
    while !owned.len().is_multiple_of(4) {
        owned.push('=');
    }
    Some(Cow::Owned(owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_base64_becomes_the_standard_one() {
        for (from, to) in [
            ("", Some("")),
            ("QUJD", Some("QUJD")),
            ("QQ==", Some("QQ==")),
            ("QQ", Some("QQ==")),
            ("-_8", Some("+/8=")),
            ("+/8=", Some("+/8=")),
            ("+_8=", None),
            ("QQ=", None),
            ("Q", None),
            ("Q===", None),
            ("QU D", None),
            ("QÜJD", None),
        ] {
            assert_eq!(standard_base64(from.into()).as_deref(), to, "{from}");
        }
        assert!(matches!(standard_base64("QUJD".into()), Some(Cow::Borrowed(_))), "copied for nothing");
    }

    #[test]
    fn white_space_within_texts_stays() {
        assert_eq!(
            compact("{\n  \"a b\": \"x \\\" \\\\\" ,\n \"c\" : [ 1 ]\n}"),
            r#"{"a b":"x \" \\","c":[1]}"#
        );
        assert_eq!(compact("{ }"), "{ }");
    }

    #[test]
    fn errors_name_the_place() {
        let error = |text: &str| read::<Vec<Content<'_>>>(text, "contents").unwrap_err().path;
        assert_eq!(error(r#"[{"parts":[{"text":"a"},{"text":1}]}]"#), "contents[0].parts[1].text");
        assert_eq!(
            error(r#"[{"parts":[{"functionCall":{"args":{}}}]}]"#),
            "contents[0].parts[0].functionCall"
        );
        assert_eq!(error("{}"), "contents");
    }
}
