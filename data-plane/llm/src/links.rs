//! Images and documents that a request names by URL, for targets that want the bytes. Nothing is fetched here: the data
//! plane does, where an organization allows it, and hands in what it has got as [`Files`]. Called by
//! [`crate::transcode`].

pub mod spliced;

use std::{borrow::Cow, collections::HashSet};

use crate::{
    CodecError, Destination, Dialect,
    ir::{Content, Message, Part, Request, Source},
    providers::{gemini, place},
};

/// A file that the target wants the bytes of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Begins with `https://`.
    pub url: Box<str>,
    /// Where it stands, in the client's words: `messages[3].content[0].image_url`.
    pub path: String,
    /// A document, else an image.
    pub document: bool,
}

/// One that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub url: Box<str>,
    pub media_type: &'static str,
    /// Standard base64.
    pub data: String,
}

/// What was fetched for a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(pub Vec<File>);

impl Files {
    pub const NONE: Self = Self(Vec::new());

    /// Whether this one is among them.
    pub fn has(&self, url: &str) -> bool {
        self.of(url).is_some()
    }

    fn of(&self, url: &str) -> Option<&File> {
        self.0.iter().find(|file| *file.url == *url)
    }

    /// Puts them where their URLs stand.
    pub(crate) fn fill<'a>(&'a self, request: &mut Request<'a>) {
        if self.0.is_empty() {
            return;
        }
        for part in request.messages.iter_mut().flat_map(|message| &mut message.parts) {
            self.fill_part(part);
            if let Content::ToolResult(result) = &mut part.content {
                result.content.iter_mut().for_each(|inner| self.fill_part(inner));
            }
        }
    }

    fn fill_part<'a>(&'a self, part: &mut Part<'a>) {
        let source = match &mut part.content {
            Content::Image(media) => &mut media.source,
            Content::Document(document) => &mut document.source,
            _ => return,
        };
        if let Source::Url(url) = source
            && let Some(file) = self.of(url)
        {
            *source = Source::Base64 { media_type: file.media_type.into(), data: Cow::Borrowed(&file.data) };
        }
    }
}

/// What of the request this target wants the bytes of, in the request's order. A URL that is named twice is there once.
pub(crate) fn wanted(request: &Request<'_>, dialect: Dialect, to: &Destination<'_>) -> Vec<Link> {
    let (mut links, mut seen) = (Vec::new(), HashSet::new());
    for message in &request.messages {
        for part in &message.parts {
            for named in place::files(part) {
                let link = link(request, message, part, named).filter(|it| !reads(dialect, to, it));
                links.extend(link.filter(|it| seen.insert(it.url.clone())));
            }
        }
    }
    links
}

/// `part` is where `named` stands, or the same.
fn link(request: &Request<'_>, message: &Message<'_>, part: &Part<'_>, named: &Part<'_>) -> Option<Link> {
    let (Source::Url(url), document) = source(named)? else { return None };
    let secure = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let path = || place::within(request, message, part, named);
    secure.then(|| Link { url: (**url).into(), path: path(), document })
}

/// Of targets whose writers pass URLs on: the first that this one of them does not read.
///
/// # Errors
/// When there is one.
pub(crate) fn refuse(
    request: &Request<'_>,
    dialect: Dialect,
    to: &Destination<'_>,
) -> Result<(), CodecError> {
    if dialect != Dialect::Messages || !to.hosted {
        return Ok(());
    }
    for message in &request.messages {
        for part in &message.parts {
            let by_url = |file: &&Part<'_>| matches!(source(file), Some((Source::Url(_), _)));
            if let Some(file) = place::files(part).find(by_url) {
                return Err(unread(place::within(request, message, part, file)));
            }
        }
    }
    Ok(())
}

/// A URL for Claude on Vertex AI, at `path`.
fn unread(path: String) -> CodecError {
    let text = format!(
        "`{path}` is a URL, which Claude on Vertex AI does not read. The gateway fetches what is behind https, where the \
         organization allows it. Expected base64."
    );
    CodecError::unsupported(path, text)
}

/// Where the file comes from that a part is, and whether it is a document.
fn source<'r, 'a>(part: &'r Part<'a>) -> Option<(&'r Source<'a>, bool)> {
    match &part.content {
        Content::Image(media) => Some((&media.source, false)),
        Content::Document(document) => Some((&document.source, true)),
        _ => None,
    }
}

/// Whether the target takes the URL itself, or could do nothing with the bytes either.
fn reads(dialect: Dialect, to: &Destination<'_>, link: &Link) -> bool {
    match dialect {
        Dialect::Converse => false,
        Dialect::GenerateContent => gemini::request::reads_url(&link.url, to),
        Dialect::Chat => !link.document,
        // Only Anthropic itself fetches.
        Dialect::Messages => !to.hosted,
        Dialect::Completions | Dialect::Responses | Dialect::Cohere => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inbound, codec, transcode};

    const PICTURE: &str = "https://pictures.example/a.png";

    fn to(provider: &str, model: &'static str) -> Destination<'static> {
        let provider = crate::provider(provider).unwrap();
        Destination { provider, model, most_output: 0, cap: None, hosted: false }
    }

    fn body(urls: &[&str]) -> String {
        let image = |url: &&str| serde_json::json!({ "type": "image_url", "image_url": { "url": url } });
        let parts: Vec<_> = urls.iter().map(image).collect();
        serde_json::json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" },
            { "role": "user", "content": parts }] })
        .to_string()
    }

    fn wanted_of(dialect: Dialect, to: &Destination<'_>, body: &str) -> Vec<(String, String)> {
        let links = transcode::links((Dialect::Chat, dialect), body.as_bytes(), Inbound::default(), to);
        links.into_iter().map(|it| (it.url.into(), it.path)).collect()
    }

    /// SSRF, issue of fetching: only what the target can't read is wanted, each once, and never by plain HTTP.
    #[test]
    fn only_what_the_target_does_not_read_is_wanted() {
        let bedrock = to("bedrock", "anthropic.claude-opus-4-5");
        let body = body(&[PICTURE, "http://pictures.example/b.png", PICTURE, "data:image/png;base64,QUI="]);
        let expected = [(PICTURE.to_owned(), "messages[1].content[0].image_url".to_owned())];
        assert_eq!(wanted_of(Dialect::Converse, &bedrock, &body), expected);
        for (dialect, provider, model) in [
            (Dialect::Messages, "anthropic", "claude-opus-4-5"),
            (Dialect::Chat, "openai", "gpt-5"),
            (Dialect::Cohere, "cohere", "command-a-vision"),
            (Dialect::GenerateContent, "google-ai-studio", "gemini-3-pro"),
        ] {
            assert_eq!(wanted_of(dialect, &to(provider, model), &body), [], "{provider}");
        }
        let older = to("google-ai-studio", "gemini-2.0-flash");
        assert_eq!(wanted_of(Dialect::GenerateContent, &older, &body), expected);
        assert_eq!(wanted_of(Dialect::Converse, &bedrock, "{"), []);
    }

    /// Of the hosts that Claude is at, only Anthropic's own fetches; the path is the one that the links have.
    #[test]
    fn claude_on_vertex_wants_the_bytes_also_within_the_result_of_a_tool() {
        let vertex = Destination { hosted: true, ..to("google-vertex", "claude-opus-4-5@20251101") };
        let call = serde_json::json!({ "type": "tool_use", "id": "t", "name": "see", "input": {} });
        let page = serde_json::json!({ "type": "document", "source": { "type": "url", "url": PICTURE } });
        let result = serde_json::json!({ "type": "tool_result", "tool_use_id": "t",
            "content": [{ "type": "text", "text": "this" }, page] });
        let body = serde_json::json!({ "model": "m", "max_tokens": 9,
            "tools": [{ "name": "see", "input_schema": { "type": "object" } }],
            "messages": [{ "role": "user", "content": "look" }, { "role": "assistant", "content": [call] },
                { "role": "user", "content": [result] }] });
        let (body, dialects) = (body.to_string(), (Dialect::Messages, Dialect::Messages));
        let made = |to| transcode::request(dialects, body.as_bytes(), Inbound::default(), to);
        let refused = made(&vertex).unwrap_err();
        let links = transcode::links(dialects, body.as_bytes(), Inbound::default(), &vertex);
        let expected = Link {
            url: PICTURE.into(),
            path: "messages[2].content[0].content[1].source".into(),
            document: true,
        };
        assert_eq!((&refused.path, refused.unsupported), (&expected.path, true), "{refused}");
        assert_eq!(links, [expected]);
        let anthropic = to("anthropic", "claude-opus-4-5");
        assert!(made(&anthropic).is_ok());
        assert_eq!(transcode::links(dialects, body.as_bytes(), Inbound::default(), &anthropic), []);
    }

    #[test]
    fn what_was_fetched_stands_where_its_url_stood() {
        let bedrock = to("bedrock", "anthropic.claude-opus-4-5");
        let body = body(&[PICTURE, PICTURE]);
        let chat = (Dialect::Chat, Dialect::Converse);
        let inbound = Inbound::default();
        let refused = transcode::request(chat, body.as_bytes(), inbound, &bedrock).unwrap_err();
        assert!(refused.unsupported, "{refused}");
        let file = File { url: PICTURE.into(), media_type: "image/png", data: "QUI=".into() };
        let files = Files(vec![file]);
        let made = transcode::request_with(chat, body.as_bytes(), inbound, &bedrock, &files).unwrap();
        let text = String::from_utf8(made.body.to_vec()).unwrap();
        assert_eq!(text.matches(r#""bytes":"QUI=""#).count(), 2, "{text}");
        assert!(!text.contains("pictures.example"), "{text}");
        let decoded = codec::decode_request(Dialect::Chat, body.as_bytes(), inbound).unwrap();
        assert_eq!(wanted(&decoded, Dialect::Converse, &bedrock).len(), 1);
    }
}
