use serde_json::{Value, json};

use super::*;
use crate::{Files, Inbound, count::Counter, links::File, transcode};

fn to(provider: &str, model: &'static str) -> Destination<'static> {
    let provider = crate::provider(provider).unwrap();
    let hosted = provider.hosting == Hosting::Vertex;
    Destination { provider, model, most_output: 0, cap: None, hosted }
}

/// Base64 of so many bytes.
fn base64(bytes: u64) -> String {
    let end = ["", "AA==", "AAA="][usize::try_from(bytes % 3).unwrap()];
    "AAAA".repeat(usize::try_from(bytes / 3).unwrap()) + end
}

fn chat(parts: &[Value]) -> String {
    json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" },
        { "role": "user", "content": parts }] })
    .to_string()
}

fn image(bytes: u64) -> Value {
    let url = format!("data:image/png;base64,{}", base64(bytes));
    json!({ "type": "image_url", "image_url": { "url": url } })
}

fn pdf(bytes: u64) -> Value {
    let data = format!("data:application/pdf;base64,{}", base64(bytes));
    json!({ "type": "file", "file": { "filename": "a.pdf", "file_data": data } })
}

fn made(dialect: Dialect, to: &Destination<'_>, parts: &[Value]) -> Result<(), CodecError> {
    let body = chat(parts);
    transcode::request((Dialect::Chat, dialect), body.as_bytes(), Inbound::default(), to).map(drop)
}

const BEDROCK_IMAGE: u64 = 3_932_160;
const BEDROCK_DOCUMENT: u64 = 4_718_592;

/// Bad input: what is larger than its target takes is refused by its path, and another target may take it.
#[test]
fn an_image_of_the_most_bytes_is_taken_and_one_more_refused_by_its_path() {
    for (dialect, provider, model, most) in [
        (Dialect::Messages, "anthropic", "claude-opus-4-5", 7_864_320),
        (Dialect::Messages, "google-vertex", "claude-opus-4-5@20251101", BEDROCK_IMAGE),
        (Dialect::Converse, "bedrock", "eu.anthropic.claude-opus-4-5-v1:0", BEDROCK_IMAGE),
        (Dialect::Converse, "bedrock", "meta.llama4-maverick-17b-instruct-v1:0", BEDROCK_IMAGE),
        (Dialect::GenerateContent, "google-vertex", "gemini-2.5-flash", 7 << 20),
    ] {
        let to = to(provider, model);
        assert_eq!(made(dialect, &to, &[image(most)]), Ok(()), "{model}");
        let error = made(dialect, &to, &[image(1), image(most + 1)]).unwrap_err();
        assert_eq!(error.path, "messages[1].content[1].image_url", "{model}");
        assert!(error.unsupported, "{model}: another may take it");
        for said in [(most + 1).to_string(), most.to_string(), error.path.clone()] {
            assert!(error.message.contains(&said), "{model}: {error}");
        }
    }
}

#[test]
fn a_document_of_the_most_bytes_is_taken_and_one_more_refused_by_its_path() {
    let older = to("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0");
    assert_eq!(made(Dialect::Converse, &older, &[pdf(BEDROCK_DOCUMENT)]), Ok(()));
    let error = made(Dialect::Converse, &older, &[pdf(BEDROCK_DOCUMENT + 1)]).unwrap_err();
    assert_eq!((&*error.path, error.unsupported), ("messages[1].content[0].file", true), "{error}");
    // AWS exempts these.
    for model in ["anthropic.claude-sonnet-4-20250514-v1:0", "amazon.nova-pro-v1:0"] {
        let to = to("bedrock", model);
        assert_eq!(made(Dialect::Converse, &to, &[pdf(BEDROCK_DOCUMENT + 1)]), Ok(()), "{model}");
    }
}

#[test]
fn files_that_are_too_large_together_are_refused_at_the_one_that_is_too_much() {
    // 32 MiB of base64 are 24 MiB.
    let claude = to("anthropic", "claude-opus-4-5");
    let most = 24 << 20;
    assert_eq!(made(Dialect::Messages, &claude, &[pdf(most)]), Ok(()));
    assert_eq!(made(Dialect::Messages, &claude, &[pdf(most - 3), image(3)]), Ok(()));
    let error = made(Dialect::Messages, &claude, &[pdf(most - 3), image(4)]).unwrap_err();
    assert_eq!((&*error.path, error.unsupported), ("messages[1].content[1].image_url", true), "{error}");
}

/// Others say nothing, or are not known to: their own word is the last.
#[test]
fn where_no_limit_is_known_nothing_is_refused() {
    for (dialect, provider, model) in [
        (Dialect::Chat, "openai", "gpt-5"),
        (Dialect::Responses, "openai", "gpt-5"),
        (Dialect::Cohere, "cohere", "command-a-vision"),
        (Dialect::GenerateContent, "google-ai-studio", "gemini-3-pro"),
        (Dialect::Converse, "bedrock", "amazon.nova-pro-v1:0"),
    ] {
        assert_eq!(made(dialect, &to(provider, model), &[image(8 << 20)]), Ok(()), "{provider}");
    }
}

/// Of every dialect of clients, also in the result of a tool.
#[test]
fn the_path_is_in_the_clients_words() {
    let data = base64(BEDROCK_IMAGE + 1);
    let url = format!("data:image/png;base64,{data}");
    let source = json!({ "type": "base64", "media_type": "image/png", "data": data });
    let image = json!({ "type": "image", "source": source });
    let tool = json!({ "name": "see", "input_schema": { "type": "object" } });
    for (from, body, path) in [
        (
            Dialect::Messages,
            json!({ "model": "m", "max_tokens": 9, "messages": [{ "role": "user", "content": [image] }] }),
            "messages[0].content[0].source",
        ),
        (
            Dialect::Messages,
            json!({ "model": "m", "max_tokens": 9, "tools": [tool], "messages": [
                { "role": "user", "content": "look" },
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": "toolu_1", "name": "see", "input": {} }] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "toolu_1",
                    "content": [{ "type": "text", "text": "this" }, image] }] },
            ] }),
            "messages[2].content[0].content[1].source",
        ),
        (
            Dialect::Responses,
            json!({ "model": "m", "input": [{ "role": "user", "content": [
                { "type": "input_text", "text": "?" }, { "type": "input_image", "image_url": url }] }] }),
            "input[0].content[1].image_url",
        ),
        (
            Dialect::GenerateContent,
            json!({ "contents": [{ "role": "user", "parts": [
                { "inlineData": { "mimeType": "image/png", "data": data } }] }] }),
            "contents[0].parts[0].inlineData",
        ),
    ] {
        let bedrock = to("bedrock", "anthropic.claude-opus-4-5-v1:0");
        let body = body.to_string();
        let dialects = (from, Dialect::Converse);
        let error = transcode::request(dialects, body.as_bytes(), Inbound::default(), &bedrock).unwrap_err();
        assert_eq!((&*error.path, error.unsupported), (path, true), "{from:?}: {error}");
    }
}

/// What was fetched stands in the request like any other file; and what is too large to be answered is too large to be
/// counted.
#[test]
fn what_was_fetched_and_what_is_counted_are_held_to_the_same() {
    let bedrock = to("bedrock", "anthropic.claude-opus-4-5-v1:0");
    let link = "https://pictures.example/a.png";
    let body = chat(&[json!({ "type": "image_url", "image_url": { "url": link } })]);
    let dialects = (Dialect::Chat, Dialect::Converse);
    let with = |bytes| {
        let file = File { url: link.into(), media_type: "image/png", data: base64(bytes) };
        let files = Files(vec![file]);
        transcode::request_with(dialects, body.as_bytes(), Inbound::default(), &bedrock, &files).map(drop)
    };
    assert_eq!(with(BEDROCK_IMAGE), Ok(()));
    let error = with(BEDROCK_IMAGE + 1).unwrap_err();
    assert_eq!((&*error.path, error.unsupported), ("messages[1].content[0].image_url", true), "{error}");

    let source = json!({ "type": "base64", "media_type": "image/png", "data": base64(BEDROCK_IMAGE + 1) });
    let content = json!([{ "type": "image", "source": source }]);
    let counted = json!({ "model": "m", "messages": [{ "role": "user", "content": content }] }).to_string();
    let by = (Dialect::Messages, Counter::Messages);
    let vertex = to("google-vertex", "claude-opus-4-5@20251101");
    let error = crate::count::request(by, counted.as_bytes(), Inbound::default(), &vertex).unwrap_err();
    assert_eq!(error.path, "messages[0].content[0].source", "{error}");
}
