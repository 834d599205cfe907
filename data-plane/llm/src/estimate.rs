//! Token counts when nobody reported any: a stream that broke off, or an upstream that never says. Marked as
//! estimated wherever they are stored.

use std::sync::LazyLock;

use memchr::{memchr, memmem};

/// Bytes per token. English prose and code have about four bytes per token in the common vocabularies.
const BYTES_PER_TOKEN: u64 = 4;

/// What one inlined file (`data:…;base64,…`) counts. Its bytes say nothing: models bill an image by its size in
/// pixels, around a thousand tokens for one that was not scaled down.
const TOKENS_PER_INLINE_FILE: u64 = 1_000;

static BASE64_MARK: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b";base64,"));

/// Prompt tokens of a request body: a quarter of its bytes, rounded up, with inlined files counted flat. The
/// JSON around the text is counted too, which stands for the framing that providers add to messages.
pub fn estimate_input_tokens(body: &[u8]) -> u64 {
    let (mut bytes, mut files, mut rest) = (body.len() as u64, 0_u64, body);
    while let Some(mark) = BASE64_MARK.find(rest) {
        let payload = &rest[mark + BASE64_MARK.needle().len()..];
        let length = memchr(b'"', payload).unwrap_or(payload.len());
        (bytes, files, rest) = (bytes - length as u64, files + 1, &payload[length..]);
    }
    bytes.div_ceil(BYTES_PER_TOKEN) + files * TOKENS_PER_INLINE_FILE
}

/// Completion tokens of this many bytes of text: a quarter, rounded up.
pub fn estimate_output_tokens(output_bytes: u64) -> u64 {
    output_bytes.div_ceil(BYTES_PER_TOKEN)
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

    #[test]
    fn an_inlined_image_does_not_count_by_its_bytes() {
        let image = format!("{{\"url\":\"data:image/png;base64,{}\"}}", "A".repeat(4_000_000));
        let estimate = estimate_input_tokens(image.as_bytes());
        assert!((1_000..1_020).contains(&estimate), "{estimate}");
        let cut = format!("data:image/png;base64,{}", "A".repeat(100));
        assert_eq!(estimate_input_tokens(cut.as_bytes()), 1_006);
    }
}
