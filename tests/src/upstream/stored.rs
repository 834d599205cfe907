//! What the mock keeps: responses, videos, and the films of Google's long-running operations. Made by a request, asked for
//! by id, and gone when it was deleted; everything else is a function of the request, as elsewhere.

use std::collections::HashMap;

use bytes::Bytes;
use http::{Method, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::reply::{self, Answer, json_bytes};
use super::{Shared, media};

/// Things of one kind at most; further ones are not kept.
const MAX_KEPT: usize = 4096;
/// How long a film is, in bytes.
const FILM: usize = 5000;
const CREATED: u64 = 1_760_000_000;

/// By id.
#[derive(Default)]
pub(super) struct Kept {
    responses: HashMap<String, (Value, Value)>,
    videos: HashMap<String, Video>,
}

struct Video {
    written: Value,
    /// How often it was asked for: it is done the second time.
    asked: u32,
}

/// The film with this number.
pub fn film(number: u64) -> Bytes {
    format!("film {number} ").bytes().cycle().take(FILM).collect()
}

fn number_of(id: &str) -> u64 {
    id.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or_default()
}

fn unary(value: &Value) -> Answer {
    Answer::Unary(json_bytes(value))
}

fn missing(what: &str, id: &str) -> (StatusCode, Answer) {
    let message = format!("{what} with id '{id}' not found.");
    (StatusCode::NOT_FOUND, unary(&reply::error(404, &message)))
}

fn done(answer: Answer) -> (StatusCode, Answer) {
    (StatusCode::OK, answer)
}

/// Keeps a response that was made, to be asked for.
pub(super) fn remember(shared: &Shared, request: &Value, answer: &Answer) {
    let Answer::Unary(body) = answer else { return };
    let Ok(made) = serde_json::from_slice::<Value>(body) else { return };
    let Some(id) = made["id"].as_str().map(str::to_owned) else { return };
    let mut state = shared.lock();
    if request["store"] != false && state.kept.responses.len() < MAX_KEPT {
        state.kept.responses.insert(id, (made, request["input"].clone()));
    }
}

/// The answer to a call about something kept, or one that makes something; `None` when it is no such call.
pub(super) fn answer(
    shared: &Shared,
    head: &Parts,
    request: &Value,
    model: &str,
    number: u64,
) -> Option<(StatusCode, Answer)> {
    let path = head.uri.path();
    if let Some(answer) = google(shared, head, request, number) {
        return Some(answer);
    }
    if let Some(rest) = path.strip_prefix("/v1/responses/") {
        return Some(response(shared, head, rest));
    }
    if path == "/v1/videos" && head.method == Method::POST {
        let id = format!("video_mock{number:08}");
        let text = |name: &str, otherwise: &str| request[name].as_str().unwrap_or(otherwise).to_owned();
        let written = json!({
            "id": id, "object": "video", "created_at": CREATED, "status": "queued", "model": model, "progress": 0,
            "seconds": text("seconds", "4"), "size": text("size", "720x1280"), "prompt": text("prompt", ""),
            "remixed_from_video_id": null, "error": null, "completed_at": null, "expires_at": null,
        });
        keep_video(shared, id, written.clone());
        return Some(done(unary(&written)));
    }
    path.strip_prefix("/v1/videos/").map(|rest| video(shared, head, rest))
}

fn keep_video(shared: &Shared, id: String, written: Value) {
    let mut state = shared.lock();
    if state.kept.videos.len() < MAX_KEPT {
        state.kept.videos.insert(id, Video { written, asked: 0 });
    }
}

fn response(shared: &Shared, head: &Parts, rest: &str) -> (StatusCode, Answer) {
    let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
    let mut state = shared.lock();
    let Some((made, input)) = state.kept.responses.get(id).cloned() else { return missing("Response", id) };
    let streams = head.uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "stream=true"));
    match (head.method.as_str(), part) {
        ("GET", "") if streams => done(media::replayed(&made)),
        ("GET", "") => done(unary(&made)),
        ("DELETE", "") => {
            state.kept.responses.remove(id);
            done(unary(&json!({ "id": id, "object": "response", "deleted": true })))
        }
        ("POST", "cancel") => {
            let mut cancelled = made;
            cancelled["status"] = json!("cancelled");
            done(unary(&cancelled))
        }
        ("GET", "input_items") => {
            let item = format!("msg_in{:08}", number_of(id));
            let content = json!([{ "type": "input_text", "text": input }]);
            let item_ = json!({
                "id": item, "type": "message", "role": "user", "status": "completed", "content": content,
            });
            done(unary(&json!({
                "object": "list", "data": [item_], "first_id": item, "last_id": item, "has_more": false,
            })))
        }
        (method, _) => {
            let message = format!("no such call: {method} of {part:?}");
            (StatusCode::METHOD_NOT_ALLOWED, unary(&reply::error(405, &message)))
        }
    }
}

fn video(shared: &Shared, head: &Parts, rest: &str) -> (StatusCode, Answer) {
    let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
    let mut state = shared.lock();
    let Some(video) = state.kept.videos.get_mut(id) else { return missing("Video", id) };
    match (head.method.as_str(), part) {
        ("GET", "") => {
            video.asked += 1;
            let finished = video.asked > 1;
            video.written["status"] = json!(if finished { "completed" } else { "in_progress" });
            video.written["progress"] = json!(if finished { 100 } else { 40 });
            done(unary(&video.written))
        }
        ("GET", "content") if video.asked < 2 => {
            (StatusCode::BAD_REQUEST, unary(&reply::error(400, &format!("Video {id} is not ready yet."))))
        }
        ("GET", "content") => {
            let thumbnail = head.uri.query().is_some_and(|query| query.contains("variant=thumbnail"));
            let content_type = if thumbnail { "image/webp" } else { "video/mp4" };
            done(Answer::Typed { content_type, pieces: pieces(&film(number_of(id))) })
        }
        ("DELETE", "") => {
            state.kept.videos.remove(id);
            done(unary(&json!({ "id": id, "object": "video.deleted", "deleted": true })))
        }
        (method, _) => {
            let message = format!("no such call: {method} of {part:?}");
            (StatusCode::METHOD_NOT_ALLOWED, unary(&reply::error(405, &message)))
        }
    }
}

fn pieces(film: &Bytes) -> Vec<Bytes> {
    film.chunks(1024).map(Bytes::copy_from_slice).collect()
}

/// Veo, at AI Studio and on Vertex.
fn google(shared: &Shared, head: &Parts, request: &Value, number: u64) -> Option<(StatusCode, Answer)> {
    let path = head.uri.path();
    if let Some(place) = path.strip_suffix(":predictLongRunning") {
        if request["instances"][0]["prompt"].as_str().is_none_or(str::is_empty) {
            return Some((StatusCode::BAD_REQUEST, unary(&reply::error(400, "prompt is required"))));
        }
        // Without `/v1beta/` or `/v1/`.
        let (_, place) = place.trim_start_matches('/').split_once('/')?;
        let name = format!("{place}/operations/op-{number}");
        keep_video(shared, name.clone(), Value::Null);
        return Some(done(unary(&json!({ "name": name }))));
    }
    if path.ends_with(":fetchPredictOperation") {
        let name = request["operationName"].as_str().unwrap_or_default();
        return Some(operation(
            shared,
            name,
            |film| json!({ "videos": [{ "bytesBase64Encoded": media::base64(film), "mimeType": "video/mp4" }] }),
        ));
    }
    if path.contains("/operations/") && head.method == Method::GET {
        let name = path.strip_prefix("/v1beta/")?;
        let host = head.headers.get(http::header::HOST)?.to_str().ok()?;
        let uri = format!(
            "http://{host}/v1beta/files/film-{}:download?alt=media",
            number_of(name.rsplit('/').next()?)
        );
        return Some(operation(
            shared,
            name,
            |_| json!({ "generateVideoResponse": { "generatedSamples": [{ "video": { "uri": uri } }] } }),
        ));
    }
    let file = path.strip_prefix("/v1beta/files/")?.strip_suffix(":download")?;
    let pieces = pieces(&film(number_of(file)));
    Some(done(Answer::Typed { content_type: "video/mp4", pieces }))
}

fn operation(shared: &Shared, name: &str, made: impl Fn(&Bytes) -> Value) -> (StatusCode, Answer) {
    let mut state = shared.lock();
    let Some(video) = state.kept.videos.get_mut(name) else { return missing("Operation", name) };
    video.asked += 1;
    if video.asked < 2 {
        return done(unary(&json!({ "name": name })));
    }
    let number = number_of(name.rsplit('/').next().unwrap_or_default());
    done(unary(&json!({ "name": name, "done": true, "response": made(&film(number)) })))
}
