//! Images and documents by URL in a request that is passed on as it is, to a host that speaks its dialect and reads no
//! URLs: Claude on Vertex AI. Nothing is translated: what is fetched is put in the place of its URL, and all other bytes
//! stay. Called by the data plane's `pipeline::original`.

use std::ops::Range;

use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Files, Link, unread};
use crate::{CodecError, Endpoint, Hosting, Provider, inline, providers::read::Str};

/// Whether a request that is passed on to this provider may hold URLs that it does not read: one look through the bytes,
/// and only for such providers.
pub fn may_be_named(provider: &Provider, endpoint: Endpoint, body: &[u8]) -> bool {
    provider.hosting == Hosting::Vertex
        && endpoint == Endpoint::Messages
        && memmem::find(body, br#""url""#).is_some()
}

/// What is named by URL, in the request's order, each once; empty also for what can't be read, which is the provider's to
/// refuse.
///
/// # Errors
/// A URL that is never fetched, or, unless `fetches`, the first.
pub fn named(body: &[u8], fetches: bool) -> Result<Vec<Link>, CodecError> {
    let mut links: Vec<Link> = Vec::new();
    for Found { link, .. } in found(body) {
        let secure = link.url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        if !secure || !fetches {
            return Err(unread(link.path));
        }
        if !links.iter().any(|it| it.url == link.url) {
            links.push(link);
        }
    }
    Ok(links)
}

/// The request with what was fetched in the place of its URLs.
///
/// # Errors
/// A file that is larger than the provider takes.
pub fn filled(body: &[u8], files: &Files) -> Result<Vec<u8>, CodecError> {
    let size: usize = files.0.iter().map(|file| file.data.len() + 64).sum();
    let mut out = Vec::with_capacity(body.len() + size);
    let mut copied = 0;
    for Found { link, span } in found(body) {
        let Some(file) = files.of(&link.url) else { continue };
        inline::check_fetched(file, link)?;
        out.extend_from_slice(body.get(copied..span.start).unwrap_or_default());
        out.extend_from_slice(br#"{"type":"base64","media_type":""#);
        out.extend_from_slice(file.media_type.as_bytes());
        out.extend_from_slice(br#"","data":""#);
        out.extend_from_slice(file.data.as_bytes());
        out.extend_from_slice(br#""}"#);
        copied = span.end;
    }
    out.extend_from_slice(body.get(copied..).unwrap_or_default());
    Ok(out)
}

struct Found {
    link: Link,
    /// Of the `source`.
    span: Range<usize>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    messages: Vec<Message<'a>>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow, rename = "type")]
    kind: Str<'a>,
    #[serde(borrow)]
    url: Str<'a>,
}

/// In the request's order.
fn found(body: &[u8]) -> Vec<Found> {
    let Ok(read) = serde_json::from_slice::<Body<'_>>(body) else { return Vec::new() };
    let mut found = Vec::new();
    for (at, message) in read.messages.iter().enumerate() {
        blocks(body, message.content, &format!("messages[{at}]"), true, &mut found);
    }
    found
}

/// Those among these blocks, and, at the `top`, in the results of tools among them.
fn blocks(body: &[u8], content: &RawValue, place: &str, top: bool, found: &mut Vec<Found>) {
    let Ok(blocks) = serde_json::from_str::<Vec<Block<'_>>>(content.get()) else { return };
    for (at, block) in blocks.iter().enumerate() {
        match (&*block.kind.0, block.source, block.content) {
            (kind @ ("image" | "document"), Some(source), _) => {
                let Ok(read) = serde_json::from_str::<Source<'_>>(source.get()) else { continue };
                if read.kind.0 != "url" {
                    continue;
                }
                let path = format!("{place}.content[{at}].source");
                let link = Link { url: (*read.url.0).into(), path, document: kind == "document" };
                // It is a piece of the body.
                let start = source.get().as_ptr().addr().saturating_sub(body.as_ptr().addr());
                found.push(Found { link, span: start..start + source.get().len() });
            }
            ("tool_result", _, Some(content)) if top => {
                self::blocks(body, content, &format!("{place}.content[{at}]"), false, found);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{File, provider};

    const PICTURE: &str = "https://pictures.example/a.png";

    const BODY: &str = r#"{"model":"m", "messages": [
        {"role":"user","content":"\"url\""},
        {"role":"user","content":[ {"type":"text","text":"https://a"},
            {"type":"image","source": {"type":"url","url":"https:\/\/pictures.example/a.png"} ,"cache_control":{"type":"ephemeral"}},
            {"type":"image","source":{"type":"base64","media_type":"image/png","data":"QUI="}} ]},
        {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"x"},
            {"type":"document","source":{"url":"https://pictures.example/b.pdf","type":"url"}},
            {"type":"image","source":{"type":"url","url":"https://pictures.example/a.png"}}]}]}],
        "unknown": 1.00}"#;

    fn file(url: &str, media_type: &'static str, data: &str) -> File {
        File { url: url.into(), media_type, data: data.into() }
    }

    #[test]
    fn urls_are_found_at_their_places_each_once() {
        let links = named(BODY.as_bytes(), true).unwrap();
        let links: Vec<_> = links.iter().map(|it| (&*it.url, &*it.path, it.document)).collect();
        let expected = [
            (PICTURE, "messages[1].content[1].source", false),
            ("https://pictures.example/b.pdf", "messages[2].content[0].content[1].source", true),
        ];
        assert_eq!(links, expected);
        let refused = named(BODY.as_bytes(), false).unwrap_err();
        assert_eq!(
            (&*refused.path, refused.unsupported),
            ("messages[1].content[1].source", true),
            "{refused}"
        );
        let plain = BODY.replace("https://pictures.example/b.pdf", "http://pictures.example/b.pdf");
        let refused = named(plain.as_bytes(), true).unwrap_err();
        assert_eq!(refused.path, "messages[2].content[0].content[1].source", "{refused}");
        for other in ["", "{", r#"{"messages":3}"#, r#"{"messages":[{"content":[3]}]}"#] {
            assert_eq!(named(other.as_bytes(), false), Ok(Vec::new()), "{other}");
        }
    }

    /// Nothing but the sources changes.
    #[test]
    fn what_was_fetched_takes_the_place_of_its_url() {
        let files = Files(vec![
            file(PICTURE, "image/png", "QUJD"),
            file("https://pictures.example/b.pdf", "application/pdf", "QkJC"),
        ]);
        let made = String::from_utf8(filled(BODY.as_bytes(), &files).unwrap()).unwrap();
        let png = r#"{"type":"base64","media_type":"image/png","data":"QUJD"}"#;
        let pdf = r#"{"type":"base64","media_type":"application/pdf","data":"QkJC"}"#;
        let expected = BODY
            .replace(r#"{"type":"url","url":"https:\/\/pictures.example/a.png"}"#, png)
            .replace(r#"{"type":"url","url":"https://pictures.example/a.png"}"#, png)
            .replace(r#"{"url":"https://pictures.example/b.pdf","type":"url"}"#, pdf);
        assert_eq!(made, expected);
        assert_eq!(filled(BODY.as_bytes(), &Files::NONE).unwrap(), BODY.as_bytes());
    }

    #[test]
    fn what_was_fetched_may_not_be_larger_than_claude_takes_there() {
        let most = "AAAA".repeat(5 << 18);
        let over = format!("{most}AA==");
        let made = |data: &str| {
            let files = Files(vec![file(PICTURE, "image/png", data)]);
            filled(BODY.as_bytes(), &files).map(drop)
        };
        assert_eq!(made(&most), Ok(()));
        let refused = made(&over).unwrap_err();
        assert_eq!(
            (&*refused.path, refused.unsupported),
            ("messages[1].content[1].source", true),
            "{refused}"
        );
    }

    #[test]
    fn only_claude_on_vertex_is_looked_at() {
        let body = BODY.as_bytes();
        let may = |id: &str, endpoint| may_be_named(provider(id).unwrap(), endpoint, body);
        assert!(may("google-vertex", Endpoint::Messages));
        assert!(!may("google-vertex", Endpoint::GenerateContent) && !may("anthropic", Endpoint::Messages));
        let plain = br#"{"messages":[{"role":"user","content":"a url"}]}"#;
        assert!(!may_be_named(provider("google-vertex").unwrap(), Endpoint::Messages, plain));
    }
}
