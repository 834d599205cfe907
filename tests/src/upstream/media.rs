//! The mock's answers beside chat and embeddings: images, sound, moderation, ranking, and the Responses API. Correct in
//! form, and a function of the request and the script.

use bytes::Bytes;
use serde_json::{Value, json};

use super::reply::{Answer, json_bytes};
use crate::script::{Script, UsageReport};

/// Input tokens of every image and speech that is billed in tokens.
pub const IMAGE_INPUT_TOKENS: u64 = 40;
/// Of every image that is made.
pub const IMAGE_OUTPUT_TOKENS: u64 = 1056;
/// So many bytes of a file count as a second of sound.
pub const BYTES_PER_SECOND: usize = 1000;

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog.";
const CREATED: u64 = 1_760_000_000;
/// One white pixel.
pub const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==";

/// The answer for `path` (behind `/v1`); `None` when this is no path of these.
pub(super) fn answer(
    path: &str,
    request: &Value,
    model: &str,
    script: &Script,
    number: u64,
) -> Option<Answer> {
    Some(match path {
        "/images/generations" => images(request, model, script, "image_generation"),
        "/images/edits" | "/images/variations" => images(request, model, script, "image_edit"),
        "/audio/speech" => speech(request, script),
        "/audio/transcriptions" | "/audio/translations" => transcription(request, model, script),
        "/moderations" => moderation(request, model, number),
        "/rerank" => rerank(request, model, script, number),
        "/responses" => response(request, model, script, number),
        _ => return None,
    })
}

/// The fields of a form, and of each file its name and length; `None` when it is no form. Reads the whole body at once,
/// so that it has nothing in common with what it checks.
pub(super) fn form(content_type: &str, body: &[u8]) -> Option<Value> {
    let boundary = content_type.split_once("boundary=")?.1.trim_matches('"');
    let delimiter = format!("\r\n--{boundary}");
    let whole = [b"\r\n", body].concat();
    let mut fields = serde_json::Map::new();
    let mut parts = Vec::new();
    let mut from = 0;
    for at in memchr::memmem::find_iter(&whole, delimiter.as_bytes()) {
        parts.push(&whole[from..at]);
        from = at + delimiter.len();
    }
    if !whole[from..].starts_with(b"--") {
        return None;
    }
    for part in parts.into_iter().skip(1) {
        let head = memchr::memmem::find(part, b"\r\n\r\n")?;
        let (text, content) = (std::str::from_utf8(&part[..head]).ok()?, &part[head + 4..]);
        let name = text.split_once("name=\"")?.1.split_once('"')?.0;
        let value = if text.contains("filename=") {
            json!({ "bytes": content.len(), "sum": content.iter().map(|byte| u64::from(*byte)).sum::<u64>() })
        } else {
            json!(String::from_utf8_lossy(content))
        };
        fields.insert(name.to_owned(), value);
    }
    Some(Value::Object(fields))
}

/// Events with their name in the `event` field, as OpenAI sends all but those of chat.
fn named(events: Vec<Value>) -> Answer {
    let event = |event: Value| {
        let name = event["type"].as_str().unwrap_or_default().to_owned();
        Bytes::from(format!("event: {name}\ndata: {event}\n\n"))
    };
    Answer::Stream(events.into_iter().map(event).collect())
}

/// The stream of a response that was made before.
pub(super) fn replayed(made: &Value) -> Answer {
    let event =
        |kind: &str, number: u64| json!({ "type": kind, "response": made, "sequence_number": number });
    named(vec![event("response.created", 0), event("response.completed", 1)])
}

fn unary(value: &Value) -> Answer {
    Answer::Unary(json_bytes(value))
}

fn count(request: &Value, member: &str) -> Option<u64> {
    request[member].as_u64().or_else(|| request[member].as_str()?.parse().ok())
}

fn is_true(value: &Value) -> bool {
    *value == true || *value == "true"
}

fn words<'a>(request: &'a Value, member: &str, default: &'static str) -> &'a str {
    request[member].as_str().filter(|text| *text != "auto").unwrap_or(default)
}

/// Models with `dall-e` in their name are billed by the image and report no tokens.
fn images(request: &Value, model: &str, script: &Script, kind: &str) -> Answer {
    let n = count(request, "n").unwrap_or(1).clamp(1, 10);
    let by_token = !model.contains("dall-e") && script.usage != UsageReport::Missing;
    let (size, quality) = (words(request, "size", "1024x1024"), words(request, "quality", "high"));
    let usage = |n: u64| {
        let (input, output) = (IMAGE_INPUT_TOKENS, IMAGE_OUTPUT_TOKENS * n);
        let images = if kind == "image_edit" { input - 10 } else { 0 };
        json!({
            "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
            "input_tokens_details": { "text_tokens": input - images, "image_tokens": images },
        })
    };
    if is_true(&request["stream"]) {
        let mut events = Vec::new();
        for index in 0..count(request, "partial_images").unwrap_or(1) {
            events.push(json!({
                "type": format!("{kind}.partial_image"), "b64_json": PNG, "created_at": CREATED, "size": size,
                "quality": quality, "background": "opaque", "output_format": "png", "partial_image_index": index,
            }));
        }
        let mut done = json!({
            "type": format!("{kind}.completed"), "b64_json": PNG, "created_at": CREATED, "size": size,
            "quality": quality, "background": "opaque", "output_format": "png",
        });
        if by_token {
            done["usage"] = usage(1);
        }
        events.push(done);
        return named(events);
    }
    let image = if request["response_format"] == "url" {
        json!({ "url": "https://images.example/1.png" })
    } else {
        json!({ "b64_json": PNG })
    };
    let mut answer = json!({ "created": CREATED, "data": vec![image; usize::try_from(n).unwrap_or(1)] });
    if by_token {
        answer["background"] = json!("opaque");
        answer["output_format"] = json!("png");
        answer["quality"] = json!(quality);
        answer["size"] = json!(size);
        answer["usage"] = usage(n);
    }
    unary(&answer)
}

/// The sound of a text: a hundred bytes for each character, in pieces.
pub fn sound(text: &str) -> Bytes {
    text.chars().flat_map(|c| [u8::try_from(u32::from(c) % 251).unwrap_or(0); 100]).collect()
}

fn speech(request: &Value, script: &Script) -> Answer {
    let text = request["input"].as_str().unwrap_or_default();
    let sound = sound(text);
    let pieces: Vec<Bytes> = sound.chunks(512).map(Bytes::copy_from_slice).collect();
    if request["stream_format"] == "sse" {
        let delta = |piece: &Bytes| json!({ "type": "speech.audio.delta", "audio": base64(piece) });
        let mut events: Vec<Value> = pieces.iter().map(delta).collect();
        let mut done = json!({ "type": "speech.audio.done" });
        if script.usage != UsageReport::Missing {
            done["usage"] = json!({ "input_tokens": 14, "output_tokens": 101, "total_tokens": 115 });
        }
        events.push(done);
        return named(events);
    }
    let content_type = match request["response_format"].as_str() {
        Some("wav") => "audio/wav",
        Some("opus") => "audio/opus",
        _ => "audio/mpeg",
    };
    Answer::Typed { content_type, pieces }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at) & 0x3f) as usize;
            text.push(if at <= chunk.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    text
}

/// Models with `transcribe` in their name are billed in tokens, the others by the second.
fn transcription(request: &Value, model: &str, script: &Script) -> Answer {
    let text = script.content.clone().unwrap_or_else(|| SENTENCE.into());
    let bytes = usize::try_from(request["file"]["bytes"].as_u64().unwrap_or(0)).unwrap_or(0);
    let seconds = bytes.div_ceil(BYTES_PER_SECOND);
    let by_token = model.contains("transcribe");
    let usage = if by_token {
        let (input, output) = (10 * seconds, text.split(' ').count());
        json!({
            "type": "tokens", "input_tokens": input, "output_tokens": output, "total_tokens": input + output,
            "input_token_details": { "text_tokens": 0, "audio_tokens": input },
        })
    } else {
        json!({ "type": "duration", "seconds": seconds })
    };
    let reported = script.usage != UsageReport::Missing;
    if is_true(&request["stream"]) {
        let mut events: Vec<Value> = text
            .split_inclusive(' ')
            .map(|word| json!({ "type": "transcript.text.delta", "delta": word }))
            .collect();
        let mut done = json!({ "type": "transcript.text.done", "text": text });
        if reported {
            done["usage"] = usage;
        }
        events.push(done);
        return named(events);
    }
    let typed = |content_type, text: String| Answer::Typed { content_type, pieces: vec![text.into()] };
    match request["response_format"].as_str() {
        Some("text") => typed("text/plain; charset=utf-8", format!("{text}\n")),
        Some("srt") => {
            typed("text/plain; charset=utf-8", format!("1\n00:00:00,000 --> 00:00:01,000\n{text}\n"))
        }
        Some("vtt") => {
            typed("text/vtt; charset=utf-8", format!("WEBVTT\n\n00:00.000 --> 00:01.000\n{text}\n"))
        }
        Some("verbose_json") => {
            let mut answer = json!({
                "task": "transcribe", "language": "english", "duration": seconds as f64, "text": text, "segments": [],
            });
            if reported {
                answer["usage"] = usage;
            }
            unary(&answer)
        }
        _ if reported => unary(&json!({ "text": text, "usage": usage })),
        _ => unary(&json!({ "text": text })),
    }
}

/// Flags what has "attack" in it.
fn moderation(request: &Value, model: &str, number: u64) -> Answer {
    let texts: Vec<String> = match &request["input"] {
        Value::Array(inputs) => inputs.iter().map(Value::to_string).collect(),
        input => vec![input.to_string()],
    };
    let result = |text: &String| {
        let flagged = text.contains("attack");
        let names = [
            "harassment",
            "harassment/threatening",
            "hate",
            "hate/threatening",
            "illicit",
            "illicit/violent",
            "self-harm",
            "self-harm/instructions",
            "self-harm/intent",
            "sexual",
            "sexual/minors",
            "violence",
            "violence/graphic",
        ];
        let of = |value: &dyn Fn(&str) -> Value| -> Value {
            names.iter().map(|name| ((*name).to_owned(), value(name))).collect()
        };
        json!({
            "flagged": flagged,
            "categories": of(&|name| json!(flagged && name == "violence")),
            "category_scores": of(&|name| json!(if flagged && name == "violence" { 0.9 } else { 0.01 })),
            "category_applied_input_types": of(&|_| json!(["text"])),
        })
    };
    let results: Vec<Value> = texts.iter().map(result).collect();
    unary(&json!({ "id": format!("modr-mock{number:08}"), "model": model, "results": results }))
}

/// Longer documents come first: at least an order.
fn rerank(request: &Value, model: &str, script: &Script, number: u64) -> Answer {
    let documents = request["documents"].as_array().cloned().unwrap_or_default();
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(documents[*at].to_string().len()));
    let top = count(request, "top_n").and_then(|n| usize::try_from(n).ok()).unwrap_or(order.len());
    let results: Vec<Value> = order
        .iter()
        .take(top)
        .enumerate()
        .map(|(rank, at)| json!({ "index": at, "relevance_score": 1.0 / (rank + 1) as f64 }))
        .collect();
    let mut answer = json!({ "id": format!("rr-mock{number:08}"), "model": model, "results": results });
    if script.usage != UsageReport::Missing {
        let searches = documents.len().div_ceil(100);
        answer["meta"] =
            json!({ "api_version": { "version": "2" }, "billed_units": { "search_units": searches } });
    }
    unary(&answer)
}

/// Tokens that every response reports, and how many of them were cached and how many went into reasoning.
pub const RESPONSE_TOKENS: [u64; 4] = [36, 87, 12, 64];

fn response(request: &Value, model: &str, script: &Script, number: u64) -> Answer {
    let text = script.content.clone().unwrap_or_else(|| SENTENCE.into());
    let (id, item) = (format!("resp_mock{number:08}"), format!("msg_mock{number:08}"));
    let [input, output, cached, reasoning] = RESPONSE_TOKENS;
    let part = |text: &str| json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] });
    let message = |status: &str, content: Vec<Value>| json!({ "type": "message", "id": item, "status": status, "role": "assistant", "content": content });
    let limit = count(request, "max_output_tokens").unwrap_or(u64::MAX);
    let (status, details) = if limit < output {
        ("incomplete", json!({ "reason": "max_output_tokens" }))
    } else {
        ("completed", Value::Null)
    };
    let whole = |status: &str, output_items: Vec<Value>, done: bool| {
        let usage = json!({
            "input_tokens": input, "input_tokens_details": { "cached_tokens": cached, "cache_write_tokens": 0 },
            "output_tokens": output, "output_tokens_details": { "reasoning_tokens": reasoning },
            "total_tokens": input + output,
        });
        let usage = if done && script.usage != UsageReport::Missing { usage } else { Value::Null };
        json!({
            "id": id, "object": "response", "created_at": CREATED, "status": status, "error": null,
            "incomplete_details": if done { details.clone() } else { Value::Null }, "instructions": null,
            "max_output_tokens": request["max_output_tokens"], "model": model, "output": output_items,
            "parallel_tool_calls": true, "previous_response_id": request["previous_response_id"],
            "reasoning": { "effort": null, "summary": null }, "store": true, "temperature": 1.0,
            "text": { "format": { "type": "text" } }, "tool_choice": "auto", "tools": [], "top_p": 1.0,
            "truncation": "disabled", "usage": usage, "user": null, "metadata": {},
        })
    };
    let finished = message("completed", vec![part(&text)]);
    if request["stream"] != true {
        return unary(&whole(status, vec![finished], true));
    }
    let place = |kind: &str, rest: Value| {
        let mut event = json!({ "type": kind, "output_index": 0, "content_index": 0, "item_id": item });
        for (name, value) in rest.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        event
    };
    let mut events = vec![
        json!({ "type": "response.created", "response": whole("in_progress", vec![], false) }),
        json!({ "type": "response.in_progress", "response": whole("in_progress", vec![], false) }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": message("in_progress", vec![]) }),
        place("response.content_part.added", json!({ "part": part("") })),
    ];
    for word in text.split_inclusive(' ') {
        events.push(place("response.output_text.delta", json!({ "delta": word, "logprobs": [] })));
    }
    events.push(place("response.output_text.done", json!({ "text": text, "logprobs": [] })));
    events.push(place("response.content_part.done", json!({ "part": part(&text) })));
    events.push(json!({ "type": "response.output_item.done", "output_index": 0, "item": finished }));
    events.push(
        json!({ "type": format!("response.{status}"), "response": whole(status, vec![finished], true) }),
    );
    for (number, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(number);
    }
    named(events)
}
