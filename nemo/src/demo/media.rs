//! Images and sound of the demo provider: a picture of one color, a tone for each word, and a note on what was heard.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, IMAGE_MODEL, Refusal, SPEECH_MODEL, TRANSCRIPTION_MODEL, check_model, form::Form, now, text,
};

/// One gray pixel, as PNG.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
const MAX_IMAGES: u64 = 10;
const IMAGE_TOKENS: u64 = 1024;

/// Samples per second, one byte each.
const RATE: u32 = 8000;
/// Of each word.
const WORD_SAMPLES: usize = 1600;
const MAX_WORDS: usize = 1000;
/// What counts as a second of a recording whose format nobody looks at.
const BYTES_PER_SECOND: usize = 16_000;

#[derive(Deserialize)]
pub(super) struct ImageRequest {
    model: String,
    prompt: String,
    n: Option<u64>,
    #[serde(default)]
    stream: bool,
    size: Option<String>,
    quality: Option<String>,
}

pub(super) fn generate(request: &ImageRequest) -> Result<Answer, Refusal> {
    check_model(&request.model, IMAGE_MODEL)?;
    let picture = Picture::new(request.size.as_deref(), request.quality.as_deref());
    let tokens = text::input_tokens(&request.prompt);
    let n = request.n.unwrap_or(1).clamp(1, MAX_IMAGES);
    Ok(if request.stream { picture.events("image_generation", tokens) } else { picture.whole(n, tokens) })
}

/// Edits and variations: the picture that comes is not looked at.
pub(super) fn edit(form: &Form) -> Result<Answer, Refusal> {
    check_model(form.text("model"), IMAGE_MODEL)?;
    form.file("image").or_else(|_| form.file("image[]"))?;
    let picture = Picture::new(form.get("size"), form.get("quality"));
    let tokens = text::input_tokens(form.text("prompt"));
    let n = form.text("n").parse().unwrap_or(1).clamp(1, MAX_IMAGES);
    Ok(if form.text("stream") == "true" {
        picture.events("image_edit", tokens)
    } else {
        picture.whole(n, tokens)
    })
}

struct Picture {
    size: String,
    quality: String,
}

impl Picture {
    fn new(size: Option<&str>, quality: Option<&str>) -> Self {
        let told =
            |text: Option<&str>, default: &str| text.filter(|it| *it != "auto").unwrap_or(default).to_owned();
        Self { size: told(size, "1024x1024"), quality: told(quality, "medium") }
    }

    fn usage(prompt: u64, n: u64) -> Value {
        let output = n * IMAGE_TOKENS;
        json!({
            "input_tokens": prompt, "output_tokens": output, "total_tokens": prompt + output,
            "input_tokens_details": { "text_tokens": prompt, "image_tokens": 0 },
        })
    }

    fn whole(&self, n: u64, prompt: u64) -> Answer {
        let data: Vec<Value> = (0..n).map(|_| json!({ "b64_json": PIXEL })).collect();
        Answer::Whole(json!({
            "created": now(), "data": data, "background": "opaque", "output_format": "png", "size": self.size,
            "quality": self.quality, "usage": Self::usage(prompt, n),
        }))
    }

    fn events(&self, kind: &str, prompt: u64) -> Answer {
        let event = |name: &str| {
            json!({
                "type": format!("{kind}.{name}"), "b64_json": PIXEL, "created_at": now(), "size": self.size,
                "quality": self.quality, "background": "opaque", "output_format": "png",
            })
        };
        let (mut partial, mut done) = (event("partial_image"), event("completed"));
        partial["partial_image_index"] = json!(0);
        done["usage"] = Self::usage(prompt, 1);
        Answer::Named(vec![partial, done])
    }
}

#[derive(Deserialize)]
pub(super) struct SpeechRequest {
    model: String,
    input: String,
    stream_format: Option<String>,
}

/// Always WAV: a demo has no encoder, and the content type says what it is.
pub(super) fn speak(request: &SpeechRequest) -> Result<Answer, Refusal> {
    check_model(&request.model, SPEECH_MODEL)?;
    let words: Vec<&str> = request.input.split_whitespace().take(MAX_WORDS).collect();
    let mut pieces = vec![wav_header(words.len() * WORD_SAMPLES)];
    pieces.extend(words.iter().map(|word| tone(word)));
    if request.stream_format.as_deref() != Some("sse") {
        return Ok(Answer::Frames { content_type: "audio/wav", frames: pieces });
    }
    let tokens = text::input_tokens(&request.input);
    let output = u64::try_from(words.len()).unwrap_or(u64::MAX);
    let delta = |piece: &Bytes| json!({ "type": "speech.audio.delta", "audio": super::embeddings::encode_base64(piece) });
    let mut events: Vec<Value> = pieces.iter().map(delta).collect();
    events.push(json!({
        "type": "speech.audio.done",
        "usage": { "input_tokens": tokens, "output_tokens": output, "total_tokens": tokens + output },
    }));
    Ok(Answer::Named(events))
}

/// The 44 bytes before so many samples of one byte.
fn wav_header(samples: usize) -> Bytes {
    let length = u32::try_from(samples).unwrap_or(u32::MAX - 36);
    let mut header = Vec::with_capacity(44);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&(length + 36).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    // PCM, one channel.
    header.extend_from_slice(&[1, 0, 1, 0]);
    header.extend_from_slice(&RATE.to_le_bytes());
    header.extend_from_slice(&RATE.to_le_bytes());
    // One byte per sample, of eight bits.
    header.extend_from_slice(&[1, 0, 8, 0]);
    header.extend_from_slice(b"data");
    header.extend_from_slice(&length.to_le_bytes());
    header.into()
}

/// A square wave whose pitch is the word's.
fn tone(word: &str) -> Bytes {
    let half = usize::try_from(text::hash(word.as_bytes()) % 20).unwrap_or(0) + 5;
    (0..WORD_SAMPLES).map(|at| if at / half % 2 == 0 { 96 } else { 160 }).collect()
}

/// Transcriptions and translations.
pub(super) fn listen(form: &Form) -> Result<Answer, Refusal> {
    check_model(form.text("model"), TRANSCRIPTION_MODEL)?;
    let bytes = form.file("file")?;
    let seconds = bytes.div_ceil(BYTES_PER_SECOND).max(1);
    let said = format!("This is what the demo model of Nemo Router makes of {bytes} bytes of sound.");
    let usage = json!({ "type": "duration", "seconds": seconds });
    if form.text("stream") == "true" {
        let delta = |piece: &str| json!({ "type": "transcript.text.delta", "delta": piece });
        let mut events: Vec<Value> = text::pieces(&said).into_iter().map(delta).collect();
        events.push(json!({ "type": "transcript.text.done", "text": said, "usage": usage }));
        return Ok(Answer::Named(events));
    }
    let plain = |content_type, text: String| Answer::Frames { content_type, frames: vec![text.into()] };
    Ok(match form.text("response_format") {
        "text" => plain("text/plain; charset=utf-8", format!("{said}\n")),
        "srt" => plain("text/plain; charset=utf-8", format!("1\n00:00:00,000 --> 00:00:01,000\n{said}\n")),
        "vtt" => plain("text/vtt; charset=utf-8", format!("WEBVTT\n\n00:00.000 --> 00:01.000\n{said}\n")),
        "verbose_json" => Answer::Whole(json!({
            "task": "transcribe", "language": "english", "duration": seconds, "text": said, "segments": [],
            "usage": usage,
        })),
        _ => Answer::Whole(json!({ "text": said, "usage": usage })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sound_is_a_wav_file_of_the_length_that_its_header_says() {
        let request =
            SpeechRequest { model: SPEECH_MODEL.into(), input: "one two".into(), stream_format: None };
        let Ok(Answer::Frames { frames, .. }) = speak(&request) else { panic!("no sound") };
        let whole = frames.concat();
        assert_eq!(&whole[..4], b"RIFF");
        assert_eq!(whole.len(), 44 + 2 * WORD_SAMPLES);
        assert_eq!(whole[40..44], u32::try_from(2 * WORD_SAMPLES).unwrap().to_le_bytes());
        assert_eq!(whole[4..8], u32::try_from(whole.len() - 8).unwrap().to_le_bytes());
    }
}
