//! Token counts when nobody reported any: a stream that broke off, or an upstream that never says. Marked as
//! estimated wherever they are stored.

use std::sync::LazyLock;

use memchr::{memchr, memmem};
use serde_json::value::RawValue;

use crate::{Features, features::Inlined, ir};

/// Bytes per token. English prose and code have about four bytes per token in the common vocabularies.
const BYTES_PER_TOKEN: u64 = 4;

/// What one inlined file (`data:…;base64,…`) counts. Its bytes say nothing: models bill an image by its size in
/// pixels, around a thousand tokens for one that was not scaled down.
const TOKENS_PER_INLINE_FILE: u64 = 1_000;

static BASE64_MARK: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b";base64,"));

/// Prompt tokens of a request body: a quarter of its bytes, rounded up, with inlined files counted flat. The
/// JSON around the text is counted too, which stands for the framing that providers add to messages.
pub fn estimate_input_tokens(body: &[u8]) -> u64 {
    let (files, bytes) = inlined(body);
    (body.len() as u64 - bytes).div_ceil(BYTES_PER_TOKEN) + files * TOKENS_PER_INLINE_FILE
}

/// How many files are inlined, and in how many bytes.
fn inlined(body: &[u8]) -> (u64, u64) {
    let (mut files, mut bytes, mut rest) = (0, 0, body);
    while let Some(mark) = BASE64_MARK.find(rest) {
        let payload = &rest[mark + BASE64_MARK.needle().len()..];
        let length = memchr(b'"', payload).unwrap_or(payload.len());
        (files, bytes, rest) = (files + 1, bytes + length as u64, &payload[length..]);
    }
    (files, bytes)
}

/// Bytes that a token stands for at the very most in a body of any size: English is at five, indented code at seven,
/// and scripts that are escaped as `\u0939` at fifteen.
const MOST_BYTES_PER_TOKEN: u64 = 16;

/// Prompt tokens that a request body of this length has for certain: what is refused for being too long is refused by
/// this, since the upstream can count exactly and a request that fits must reach it. Inlined images count nothing; sound
/// and documents are base64 without a mark, so a body with some counts nothing at all.
pub fn least_input_tokens(length: usize, inlined: Inlined, features: Features) -> u64 {
    if features.contains(Features::AUDIO) || features.contains(Features::FILES) {
        return 0;
    }
    (length as u64).saturating_sub(inlined.bytes) / MOST_BYTES_PER_TOKEN
}

/// Prompt tokens that are likely, to compare what a request would cost here and there: as [`estimate_input_tokens`],
/// without another look into the body.
pub fn likely_input_tokens(length: usize, inlined: Inlined) -> u64 {
    let text = (length as u64).saturating_sub(inlined.bytes);
    text.div_ceil(BYTES_PER_TOKEN) + inlined.files * TOKENS_PER_INLINE_FILE
}

/// Completion tokens of this many bytes of text: a quarter, rounded up.
pub fn estimate_output_tokens(output_bytes: u64) -> u64 {
    output_bytes.div_ceil(BYTES_PER_TOKEN)
}

/// Prompt tokens of a request that was read, for clients that ask how long it is: as [`estimate_input_tokens`], but of the
/// text alone, with what providers put around each message.
pub fn of_request(request: &ir::Request<'_>) -> u64 {
    let mut size = Size::default();
    for message in &request.messages {
        size.tokens += TOKENS_PER_MESSAGE;
        size.parts(&message.parts);
    }
    for tool in &request.tools {
        size.tokens += TOKENS_PER_MESSAGE;
        match &tool.kind {
            ir::ToolKind::Function { parameters, .. } => {
                size.text(&tool.name);
                size.text(tool.description.as_deref().unwrap_or_default());
                size.text(parameters.as_deref().map_or("", RawValue::get));
            }
            ir::ToolKind::Native { value, .. } => size.text(value.get()),
        }
    }
    if let Some(ir::Format::Schema { schema, .. }) = &request.format {
        size.text(schema.get());
    }
    size.tokens + size.bytes.div_ceil(BYTES_PER_TOKEN)
}

/// What stands between two messages, and says whose they are.
const TOKENS_PER_MESSAGE: u64 = 4;

#[derive(Default)]
struct Size {
    /// Of text.
    bytes: u64,
    tokens: u64,
}

impl Size {
    fn text(&mut self, text: &str) {
        self.bytes += text.len() as u64;
    }

    fn parts(&mut self, parts: &[ir::Part<'_>]) {
        for part in parts {
            match &part.content {
                ir::Content::Text { text, .. } | ir::Content::Refusal(text) => self.text(text),
                ir::Content::Image(media) | ir::Content::Audio(media) | ir::Content::Video(media) => {
                    self.file(&media.source);
                }
                ir::Content::Document(document) => self.file(&document.source),
                ir::Content::ToolCall(call) => {
                    self.text(&call.name);
                    self.text(&call.arguments);
                }
                ir::Content::ToolResult(result) => self.parts(&result.content),
                // Earlier thoughts are not taken in again.
                ir::Content::Thinking(_) => {}
                ir::Content::Opaque { value, .. } => self.text(value.get()),
            }
        }
    }

    fn file(&mut self, source: &ir::Source<'_>) {
        match source {
            ir::Source::Text(text) => self.text(text),
            ir::Source::Url(_) | ir::Source::Base64 { .. } | ir::Source::File(_) => {
                self.tokens += TOKENS_PER_INLINE_FILE;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_and_never_invents_tokens() {
        assert_eq!([0, 1, 4, 5].map(estimate_output_tokens), [0, 1, 1, 2]);
        assert_eq!(estimate_input_tokens(b""), 0);
        assert_eq!(estimate_input_tokens(b"{\"model\":\"m\"}"), 4);
    }

    /// What certainly does not fit may be refused, so this must never be above the true count.
    #[test]
    fn the_least_is_far_below_what_is_likely() {
        let none = Inlined::default();
        assert_eq!(least_input_tokens(16_000, none, Features::IMAGES), 1_000);
        assert_eq!(likely_input_tokens(16_001, none), 4_001);
        let image = Inlined { files: 2, bytes: 4_000_000 };
        assert_eq!(least_input_tokens(4_000_160, image, Features::IMAGES), 10);
        assert_eq!(likely_input_tokens(4_000_160, image), 2_040);
        assert_eq!(least_input_tokens(4_000_160, none, Features::AUDIO), 0);
        assert_eq!(least_input_tokens(4_000_160, none, Features::FILES), 0);
        assert_eq!(least_input_tokens(1, image, Features::default()), 0);
    }

    #[test]
    fn an_inlined_image_does_not_count_by_its_bytes() {
        let image = format!("{{\"url\":\"data:image/png;base64,{}\"}}", "A".repeat(4_000_000));
        let estimate = estimate_input_tokens(image.as_bytes());
        assert!((1_000..1_020).contains(&estimate), "{estimate}");
        let cut = format!("data:image/png;base64,{}", "A".repeat(100));
        assert_eq!(estimate_input_tokens(cut.as_bytes()), 1_006);
    }
}
