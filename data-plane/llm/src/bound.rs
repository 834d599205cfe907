//! The most that a request can put in, so that what is held for it is never less than what it costs (requirements D).
//! Called by the data plane's `reserve`, before the request is sent.
//!
//! Text is bounded by its bytes: a token of a byte-level vocabulary stands for at least one, and JSON is never shorter
//! than the text in it. What a message is framed with is shorter than its JSON. What is not text has bounds of its own.

use crate::{Endpoint, Envelope, Features};

/// What providers put around a conversation, beside what they put around each message.
const FRAMING: u64 = 256;
/// What they tell a model that has functions, or must answer in JSON.
const HIDDEN_PROMPT: u64 = 1024;
/// One image in the highest resolution that is not scaled down: the most that any of the open and commercial models count
/// for it, but for the one family below.
const IMAGE: u64 = 16_384;
/// GPT-4o mini counts images thirty-three times, so that they cost what they cost elsewhere: 2 833 and 5 667 for each of
/// up to eight tiles.
const IMAGE_OF_4O_MINI: u64 = 48_169;
/// Images that an edit may start from.
const IMAGES_OF_A_FORM: u64 = 16;
/// Speech that is kept at six kilobits a second, which is as low as codecs for it go: 750 bytes.
const SPEECH_MS_PER_BYTE: (u64, u64) = (4, 3);
/// The same in tokens, of which no model counts more than 40 a second.
const SPEECH_BYTES_PER_TOKEN: u64 = 16;

/// What goes in at most, before it is known which model it goes into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MostInput {
    /// Tokens of text.
    text: u64,
    images: u64,
    reach: Reach,
}

/// How far a bound goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Everything that goes in is in the request.
    Request,
    /// Something is not, or has no size: all that a model can take may go in.
    Window,
    /// The provider's own tools may fill the window again and again.
    None,
}

impl MostInput {
    /// `length`: of the body, in bytes.
    pub fn of(length: usize, envelope: &Envelope<'_>) -> Self {
        let (features, length) = (envelope.features, length as u64);
        let has = |feature| features.contains(feature);
        // Inlined images are counted by themselves; inlined sound is not shorter than its tokens are many.
        let inlined = if has(Features::AUDIO) { 0 } else { envelope.inlined.bytes };
        let hidden = if has(Features::TOOLS) || has(Features::JSON) { HIDDEN_PROMPT } else { 0 };
        let reach = if has(Features::PROVIDER_TOOLS) {
            Reach::None
        } else if [Features::UNKNOWN_INPUT, Features::FILES, Features::VIDEO].into_iter().any(has) {
            Reach::Window
        } else {
            Reach::Request
        };
        Self { text: length.saturating_sub(inlined) + FRAMING + hidden, images: envelope.images, reach }
    }

    /// Of a form that is still to come. `length`: the most that it has.
    pub fn of_form(endpoint: Endpoint, length: u64) -> Self {
        let (text, images) = if endpoint.is_image() {
            // A prompt is never longer than what is held of a form in memory; files are most of the rest.
            (length.min(MAX_PROMPT), IMAGES_OF_A_FORM)
        } else {
            (length / SPEECH_BYTES_PER_TOKEN + MAX_PROMPT.min(length), 0)
        };
        Self { text: text + FRAMING, images, reach: Reach::Request }
    }

    /// Tokens at a model with this context window (0: unknown). `None`: nobody can tell.
    pub fn tokens(self, upstream_model: &str, window: u64) -> Option<u64> {
        let window = Some(window).filter(|window| *window > 0);
        let image = if upstream_model.contains("4o-mini") { IMAGE_OF_4O_MINI } else { IMAGE };
        let counted = self.text.saturating_add(self.images.saturating_mul(image));
        match self.reach {
            Reach::None => None,
            Reach::Window => window,
            // Pixels are not seen here, but no prompt is longer than the window.
            Reach::Request if self.images > 0 => Some(window.map_or(counted, |window| counted.min(window))),
            Reach::Request => Some(counted),
        }
    }
}

/// The longest prompt beside a file, in bytes: OpenAI's own limit is 32 000 characters.
const MAX_PROMPT: u64 = 128 * 1024;

/// How long a recording of this many bytes is at the most, in milliseconds.
pub fn most_audio_ms(bytes: u64) -> u64 {
    bytes.saturating_mul(SPEECH_MS_PER_BYTE.0).div_ceil(SPEECH_MS_PER_BYTE.1)
}

/// Tokens that this much visible output stands for at the most: one for each byte, and a few that show nothing (the end,
/// the framing of calls).
pub fn most_output_tokens(bytes: u64) -> u64 {
    bytes.saturating_add(UNSEEN_OUTPUT)
}

const UNSEEN_OUTPUT: u64 = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{estimate_input_tokens, parse};

    fn most(endpoint: Endpoint, body: &serde_json::Value) -> MostInput {
        let body = body.to_string();
        MostInput::of(body.len(), &parse(endpoint, body.as_bytes()).unwrap())
    }

    fn chat(content: &serde_json::Value) -> serde_json::Value {
        json!({ "model": "m", "messages": [{ "role": "user", "content": content }] })
    }

    /// Requirements D 1: whatever is written, in whatever script, a token has a byte.
    #[test]
    fn the_bound_is_above_every_byte_of_text() {
        for text in ["", "hello", "नमस्ते", "🦀🦀🦀", "\n\t\"\\", &"word ".repeat(5000)] {
            let body = chat(&json!(text));
            let bound = most(Endpoint::ChatCompletions, &body).tokens("m", 100).unwrap();
            assert!(bound > text.len() as u64, "{text:.9}: {bound}");
            assert!(bound > estimate_input_tokens(body.to_string().as_bytes()));
        }
    }

    #[test]
    fn an_image_counts_by_itself_and_no_more_than_the_window() {
        let data = format!("data:image/png;base64,{}", "A".repeat(1_000_000));
        let part = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
        let one = most(Endpoint::ChatCompletions, &chat(&json!([part("https://x/y.png")])));
        let two = most(Endpoint::ChatCompletions, &chat(&json!([part(&data), part("https://x/y.png")])));
        assert_eq!((one.images, two.images), (1, 2));
        assert!((16_384..17_384).contains(&one.tokens("gpt-4o", 0).unwrap()), "{one:?}");
        assert!((32_768..34_000).contains(&two.tokens("gpt-4o", 0).unwrap()), "{two:?}");
        assert_eq!(two.tokens("gpt-4o", 8_000), Some(8_000));
        assert!(one.tokens("openai/gpt-4o-mini", 128_000).unwrap() > 48_169);
        let responses = json!({ "model": "m", "input": [{ "role": "user", "content": [
            { "type": "input_image", "file_id": "f" }, { "type": "input_image", "image_url": "https://x" } ] }] });
        assert_eq!(most(Endpoint::Responses, &responses).images, 2);
    }

    /// I3: what is taken off the length is counted as something else. Text that looks like a file is text.
    #[test]
    fn i3_only_what_is_counted_as_a_file_is_no_text() {
        let text = format!("data: {}", "{\"a\":1}\n".repeat(10_000));
        let url = format!("data:image/png;base64,{}", "A".repeat(100_000));
        for content in [
            json!(text),
            json!([{ "type": "text", "text": text }]),
            json!([{ "type": "text", "text": text }, { "type": "image_url", "image_url": { "url": url } }]),
            json!([{ "type": "image_url", "image_url": { "url": "https://x", "detail": text } }]),
            json!([{ "type": "image_url", "image_url": null }, text]),
            json!([{ "type": "image_url", "image_url": { "x": [{ "url": text }] } }]),
            json!([{ "type": "tool_result", "content": [{ "type": "text", "text": text }] }]),
            json!([{ "type": "tool_result", "source": { "data": text } }]),
        ] {
            for endpoint in [Endpoint::ChatCompletions, Endpoint::Messages] {
                let bound = most(endpoint, &chat(&content)).tokens("m", 0).unwrap();
                assert!(bound > text.len() as u64, "{bound}: {:.90}", content.to_string());
            }
        }
        let call = json!({ "model": "m", "messages": [{ "role": "assistant", "tool_calls": [
            { "type": "function", "function": { "name": "f", "arguments": text } }] }] });
        assert!(most(Endpoint::ChatCompletions, &call).tokens("m", 0).unwrap() > text.len() as u64);
        let output = json!({ "model": "m", "input": [{ "type": "function_call_output", "output": text }] });
        assert!(most(Endpoint::Responses, &output).tokens("m", 0).unwrap() > text.len() as u64);
        // A document in the place of an image is as long as it is.
        let pdf = format!("data:application/pdf;base64,{}", "A".repeat(100_000));
        let body = chat(&json!([{ "type": "image_url", "image_url": { "url": pdf } }]));
        assert_eq!(most(Endpoint::ChatCompletions, &body).tokens("m", 1_000_000), Some(1_000_000));
    }

    /// I3: what Anthropic's clients attach, also to the result of a tool.
    #[test]
    fn i3_what_a_tool_has_found_counts_as_what_it_is() {
        let source = json!({ "type": "base64", "media_type": "image/png", "data": "A".repeat(100_000) });
        let image = json!({ "type": "image", "source": source });
        let later = r#"{"source":{"data":"DATA"},"type":"image"}"#.replace("DATA", &"A".repeat(100_000));
        let later: serde_json::Value = serde_json::from_str(&later).unwrap();
        let result = |content: serde_json::Value| json!([{ "type": "tool_result", "content": content }]);
        for (content, images) in [
            (json!([image]), 1),
            (json!([later]), 1),
            (result(json!([image])), 1),
            (result(json!([{ "type": "text", "text": "a" }, image, later])), 2),
            (result(json!([{ "type": "image", "source": { "type": "url", "url": "https://x" } }])), 1),
            // One that is an image by its type, and one by its name alone.
            (json!([image, { "image_url": "https://x" }]), 2),
        ] {
            let bound = most(Endpoint::Messages, &chat(&content));
            assert_eq!(bound.images, images, "{:.90}", content.to_string());
            let tokens = bound.tokens("m", 0).unwrap();
            assert!((IMAGE * images..IMAGE * images + 1_500).contains(&tokens), "{tokens}");
        }
        let document =
            result(json!([{ "type": "document", "source": { "type": "url", "url": "https://x" } }]));
        assert_eq!(most(Endpoint::Messages, &chat(&document)).tokens("m", 200_000), Some(200_000));
        let escaped = r#"{"model":"m","messages":[{"role":"user","c\u006fntent":[{"type":"image"}]}]}"#;
        let envelope = parse(Endpoint::Messages, escaped.as_bytes()).unwrap();
        assert_eq!(envelope.images, 1);
    }

    /// I3: an item may be kept at the provider, however it says so.
    #[test]
    fn i3_what_an_item_refers_to_may_fill_the_window() {
        let of = |item: &serde_json::Value| {
            most(
                Endpoint::Responses,
                &json!({ "model": "m", "input": [{ "role": "user", "content": "a" }, item] }),
            )
        };
        for item in [
            json!({ "type": "item_reference", "id": "msg_1" }),
            json!({ "id": "msg_1" }),
            json!({ "type": null, "id": "msg_1" }),
            json!({ "type": "image_generation_call", "id": "ig_1", "result": null }),
            json!({ "type": "file_search_call", "id": "fs_1" }),
            json!({ "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": null }),
        ] {
            assert_eq!(of(&item).tokens("m", 128_000), Some(128_000), "{item}");
        }
        for item in [
            json!({ "type": "message", "id": "msg_1", "role": "assistant", "content": [{ "type": "output_text", "text": "a" }] }),
            json!({ "role": "assistant", "id": "msg_1", "content": "a" }),
            json!({ "type": "function_call", "id": "fc_1", "name": "f", "arguments": "{}" }),
            json!({ "type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x" }),
        ] {
            assert!(of(&item).tokens("m", 128_000).unwrap() < 1_000, "{item}");
        }
        let screen = json!({ "type": "computer_call_output", "output": { "type": "computer_screenshot", "file_id": "f" } });
        assert_eq!(of(&screen).images, 1);
        let said = |audio: serde_json::Value| {
            let message = json!({ "role": "assistant", "audio": audio });
            most(Endpoint::ChatCompletions, &json!({ "model": "m", "messages": [message] }))
                .tokens("m", 9_000)
        };
        assert_eq!((said(json!({ "id": "audio_1" })), said(json!(null)) < Some(1_000)), (Some(9_000), true));
    }

    /// Requirements D 1 and 4.
    #[test]
    fn what_is_not_in_the_request_is_bounded_by_the_window_or_by_nothing() {
        for body in [
            chat(&json!([{ "type": "file", "file": { "file_id": "f" } }])),
            chat(&json!([{ "type": "video_url", "video_url": { "url": "https://x" } }])),
            chat(&json!([{ "type": "audio_url", "audio_url": { "url": "https://x" } }])),
        ] {
            let bound = most(Endpoint::ChatCompletions, &body);
            assert_eq!((bound.tokens("m", 128_000), bound.tokens("m", 0)), (Some(128_000), None), "{body}");
        }
        let stored = json!({ "model": "m", "input": "go on", "previous_response_id": "r" });
        assert_eq!(most(Endpoint::Responses, &stored).tokens("m", 9), Some(9));
        for body in [
            json!({ "model": "m", "input": "x", "tools": [{ "type": "function" }, { "type": "web_search" }] }),
            json!({ "model": "m", "input": "x", "tools": [{ "type": "mcp" }] }),
        ] {
            assert_eq!(most(Endpoint::Responses, &body).tokens("m", 9), None, "{body}");
        }
        let search = json!({ "model": "m", "messages": [], "web_search_options": {} });
        assert_eq!(most(Endpoint::ChatCompletions, &search).tokens("m", 9), None);
        let own = json!({ "model": "m", "messages": [], "tools": [{ "type": "function" }] });
        assert!(most(Endpoint::ChatCompletions, &own).tokens("m", 0).is_some());
    }

    /// Requirements D 3.
    #[test]
    fn every_answer_that_is_made_counts() {
        let choices = |body: serde_json::Value| {
            let body = body.to_string();
            parse(Endpoint::Completions, body.as_bytes()).unwrap().choices
        };
        assert_eq!(choices(json!({ "model": "m", "prompt": "a" })), 1);
        assert_eq!(choices(json!({ "model": "m", "prompt": "a", "n": 2, "best_of": 5 })), 5);
        assert_eq!(choices(json!({ "model": "m", "prompt": ["a", "b", "c"], "n": 2 })), 6);
        assert_eq!(choices(json!({ "model": "m", "prompt": [1, 2, 3] })), 1);
        assert_eq!(choices(json!({ "model": "m", "prompt": [[1, 2], [3]] })), 2);
        let body = chat(&json!("x"));
        assert_eq!(parse(Endpoint::ChatCompletions, body.to_string().as_bytes()).unwrap().choices, 1);
    }

    #[test]
    fn a_recording_is_bounded_by_its_length() {
        assert_eq!(most_audio_ms(750), 1_000);
        let form = MostInput::of_form(Endpoint::Transcriptions, 1_600_000);
        assert_eq!(form.tokens("m", 0), Some(100_000 + MAX_PROMPT + FRAMING));
        assert!(MostInput::of_form(Endpoint::ImageEdits, u64::MAX).tokens("m", 0).is_some());
    }
}
