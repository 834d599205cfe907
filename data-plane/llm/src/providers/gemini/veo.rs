//! OpenAI's `/v1/videos` over Veo, which makes films in a long-running operation: one call starts it ([`AI_STUDIO`],
//! [`VERTEX`]), others ask how far it is ([`poll`], [`status`]), and the last gets the film ([`film`]).
//!
//! The id that clients get holds the operation's name and what was asked for ([`Ordered`]), so nothing has to be remembered
//! here.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nemo_types::{Measure, Unit};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    address,
    wire::{self, Members, Str},
};
use crate::{
    Hosting, Provider,
    address::own_base,
    codec::{CodecError, Destination, Echo, Encoded},
    ir::Param,
    plan::{Conversion, Converted},
};

const METHOD: &str = "predictLongRunning";
/// Before the rest of the id that clients get.
const ID: &str = "video_";
/// What Veo makes of a request that says nothing else.
const SECONDS: &str = "8";
const SIZE: &str = "1280x720";

/// Of AI Studio.
pub const AI_STUDIO: Conversion =
    Conversion { request, response: started, path: |model| address::ai_studio(model, METHOD) };

/// Of Vertex.
pub const VERTEX: Conversion =
    Conversion { request, response: started, path: |model| address::vertex(model, METHOD) };

#[derive(Serialize)]
struct Predict<'a> {
    instances: [Instance<'a>; 1],
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    parameters: Parameters,
}

#[derive(Serialize)]
struct Instance<'a> {
    prompt: &'a str,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    aspect_ratio: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_seconds: Option<u32>,
}

impl Parameters {
    fn is_empty(&self) -> bool {
        self.aspect_ratio.is_none() && self.resolution.is_none() && self.duration_seconds.is_none()
    }
}

fn request(body: &[u8], _: &Destination<'_>) -> Result<Encoded, CodecError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| CodecError::invalid("", "The body is not UTF-8, as JSON has to be."))?;
    let Members(members) = wire::read(text, "")?;
    let (mut prompt, mut parameters, mut dropped) = (None, Parameters::default(), Vec::new());
    for (name, value) in members {
        let text = value.get();
        match &*name {
            _ if text == "null" => {}
            "model" => {}
            "prompt" => prompt = Some(wire::read::<Str<'_>>(text, "prompt")?),
            "seconds" => {
                // OpenAI's clients write the number as a text.
                let seconds = text.trim_matches('"').parse().ok().filter(|it| (1..=3600).contains(it));
                let invalid = || CodecError::invalid("seconds", "Expected a number of seconds, as in \"8\".");
                parameters.duration_seconds = Some(seconds.ok_or_else(invalid)?);
            }
            "size" => {
                let size: Str<'_> = wire::read(text, "size")?;
                (parameters.aspect_ratio, parameters.resolution) = measures_of(&size.0)?;
            }
            "user" => dropped.push(Param::User),
            "input_reference" => {
                let message = "An image to begin with can't be handed on to Google here.";
                return Err(CodecError::unsupported("input_reference", message));
            }
            _ => dropped.push(Param::Other(Box::from(&*name))),
        }
    }
    let prompt = prompt.unwrap_or_default().0;
    if prompt.is_empty() {
        return Err(CodecError::invalid("prompt", "There is none: expected what the film is to show."));
    }
    let body = serde_json::to_vec(&Predict { instances: [Instance { prompt: &prompt }], parameters })
        .map_err(|error| CodecError::invalid("", format!("The request can't be written: {error}.")))?;
    Ok(Encoded::new(body, dropped))
}

type Measures = (Option<&'static str>, Option<&'static str>);

fn measures_of(size: &str) -> Result<Measures, CodecError> {
    Ok(match size {
        "1280x720" => (Some("16:9"), Some("720p")),
        "720x1280" => (Some("9:16"), Some("720p")),
        "1920x1080" => (Some("16:9"), Some("1080p")),
        "1080x1920" => (Some("9:16"), Some("1080p")),
        _ => {
            let message =
                "Veo makes no film of this size: expected 1280x720, 720x1280, 1920x1080 or 1080x1920.";
            return Err(CodecError::unsupported("size", message));
        }
    })
}

#[derive(Deserialize)]
struct Operation<'a> {
    #[serde(borrow)]
    name: Option<Str<'a>>,
    done: Option<bool>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    response: Option<Made<'a>>,
}

/// AI Studio's and Vertex's in one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    #[serde(borrow)]
    generate_video_response: Option<Samples<'a>>,
    #[serde(borrow)]
    videos: Option<Vec<Video<'a>>>,
    #[serde(borrow)]
    rai_media_filtered_reasons: Option<Vec<Str<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Samples<'a> {
    #[serde(borrow)]
    generated_samples: Option<Vec<Sample<'a>>>,
    #[serde(borrow)]
    rai_media_filtered_reasons: Option<Vec<Str<'a>>>,
}

#[derive(Deserialize)]
struct Sample<'a> {
    #[serde(borrow)]
    video: Option<Video<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Video<'a> {
    #[serde(borrow)]
    uri: Option<Str<'a>>,
    #[serde(borrow)]
    gcs_uri: Option<Str<'a>>,
    #[serde(borrow)]
    bytes_base64_encoded: Option<Str<'a>>,
    #[serde(borrow)]
    mime_type: Option<Str<'a>>,
}

/// OpenAI's video object.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    status: &'static str,
    model: &'a str,
    progress: u8,
    seconds: &'a str,
    size: &'a str,
    error: Option<Failure>,
    /// Google does not say.
    completed_at: Option<u64>,
    expires_at: Option<u64>,
    remixed_from_video_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Failure {
    code: String,
    message: String,
}

fn started(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let operation: Operation<'_> = wire::read_answer(body)?;
    let Some(name) = operation.name.filter(|name| is_operation(&name.0)) else {
        return Err(CodecError::invalid("", "The upstream's answer names no operation."));
    };
    let echoed = |name, otherwise: &str| echoed(&echo.request, name).unwrap_or_else(|| otherwise.to_owned());
    let ordered = Ordered {
        operation: name.0.into_owned(),
        created: echo.created,
        seconds: echoed("seconds", SECONDS),
        size: echoed("size", SIZE),
    };
    let id = ordered.id();
    let body = serde_json::to_vec(&ordered.written(&id, &echo.model, "queued", None)).unwrap_or_default();
    Ok(Converted { body, usage: None, measures: vec![Measure::new(Unit::Requests, 1)] })
}

/// A member of the client's request, as a text.
fn echoed(request: &[u8], name: &str) -> Option<String> {
    let members: Members<'_> = serde_json::from_slice(request).ok()?;
    let (_, value) = members.0.into_iter().find(|(it, value)| it == name && value.get() != "null")?;
    Some(value.get().trim_matches('"').to_owned())
}

/// A film that was asked for, as its id tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// Safe to stand in a path.
    pub operation: String,
    /// Seconds since 1970.
    created: u64,
    seconds: String,
    size: String,
}

impl Ordered {
    fn id(&self) -> String {
        let Self { operation, created, seconds, size } = self;
        format!("{ID}{}", URL_SAFE_NO_PAD.encode(format!("{created}/{seconds}/{size}/{operation}")))
    }

    /// Reads the id; `None` when it is none of these.
    pub fn read(id: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(id.strip_prefix(ID)?).ok()?).ok()?;
        let mut parts = text.splitn(4, '/');
        let (created, seconds, size) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let operation = parts.next().filter(|name| is_operation(name))?;
        let (seconds, size) = (seconds.to_owned(), size.to_owned());
        Some(Self { operation: operation.to_owned(), created, seconds, size })
    }

    fn written<'a>(
        &'a self,
        id: &'a str,
        model: &'a str,
        status: &'static str,
        error: Option<Failure>,
    ) -> Written<'a> {
        Written {
            id,
            object: "video",
            created_at: self.created,
            status,
            model,
            progress: if status == "completed" { 100 } else { 0 },
            seconds: &self.seconds,
            size: &self.size,
            error,
            completed_at: None,
            expires_at: None,
            remixed_from_video_id: None,
        }
    }
}

/// `models/veo-3/operations/abc`, `projects/p/locations/l/publishers/google/models/veo-3/operations/1-2`: nothing that could
/// lead elsewhere.
fn is_operation(name: &str) -> bool {
    let harmless =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    name.len() <= 512
        && name.bytes().all(harmless)
        && name.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
        && name.split('/').rev().nth(1) == Some("operations")
}

/// How to ask for an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Appended to the deployment's base URL.
    pub path: String,
    /// To be sent by POST; `None`: by GET.
    pub body: Option<Vec<u8>>,
}

/// `operation` is of [`Ordered`]. `None` for a provider that has no such operations.
pub fn poll(hosting: Hosting, operation: &str) -> Option<Poll> {
    match hosting {
        Hosting::AiStudio => Some(Poll { path: format!("/{operation}"), body: None }),
        Hosting::Vertex => {
            // `projects/p/locations/l` is in the base URL.
            let (before, _) = operation.split_once("/operations/")?;
            let (_, model) = before.split_once("/publishers/")?;
            let body = format!("{{\"operationName\":{}}}", super::write::quoted(operation)).into_bytes();
            Some(Poll { path: format!("/publishers/{model}:fetchPredictOperation"), body: Some(body) })
        }
        _ => None,
    }
}

/// How far an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// OpenAI's video object.
    pub body: Vec<u8>,
    /// Why there will be no film.
    pub failed: Option<String>,
}

/// OpenAI's video object for an operation; `id` and `model` as the client knows them.
///
/// # Errors
/// When it is no operation.
pub fn status(body: &[u8], ordered: &Ordered, id: &str, model: &str) -> Result<Status, CodecError> {
    let operation: Operation<'_> = wire::read_answer(body)?;
    if operation.name.is_none() && operation.done.is_none() && operation.error.is_none() {
        return Err(CodecError::invalid("", "The upstream's answer is no operation."));
    }
    let done = operation.done == Some(true);
    let failure = if operation.error.is_some() {
        let said = super::errors::decode(200, body);
        let message = said.message.unwrap_or_else(|| "The film could not be made.".to_owned());
        Some(Failure { code: said.kind.or(said.code).unwrap_or_else(|| "server_error".to_owned()), message })
    } else if done && first_video(&operation).is_none() {
        let message = filtered(&operation).unwrap_or_else(|| "The provider made no film.".to_owned());
        Some(Failure { code: "content_policy_violation".to_owned(), message })
    } else {
        None
    };
    let status = match (&failure, done) {
        (Some(_), _) => "failed",
        (None, true) => "completed",
        (None, false) => "in_progress",
    };
    let failed = failure.as_ref().map(|failure| failure.message.clone());
    let body = serde_json::to_vec(&ordered.written(id, model, status, failure)).unwrap_or_default();
    Ok(Status { body, failed })
}

fn first_video<'o, 'a>(operation: &'o Operation<'a>) -> Option<&'o Video<'a>> {
    let made = operation.response.as_ref()?;
    let samples =
        made.generate_video_response.iter().filter_map(|it| it.generated_samples.as_ref()).flatten();
    let videos = samples.filter_map(|it| it.video.as_ref()).chain(made.videos.iter().flatten());
    let has = |it: &&Video<'_>| it.uri.is_some() || it.gcs_uri.is_some() || it.bytes_base64_encoded.is_some();
    videos.into_iter().find(has)
}

fn filtered(operation: &Operation<'_>) -> Option<String> {
    let made = operation.response.as_ref()?;
    let inner = made.generate_video_response.as_ref().and_then(|it| it.rai_media_filtered_reasons.as_ref());
    let reasons = inner.or(made.rai_media_filtered_reasons.as_ref())?;
    reasons.first().map(|it| it.0.clone().into_owned())
}

/// Where a film is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Film {
    /// At AI Studio, for the same credential: below the deployment's own host, to be got by GET.
    Uri(String),
    /// In the operation itself.
    Base64 { media_type: String, data: String },
    /// In the customer's storage, where we don't reach.
    Storage(String),
}

/// The film of an operation that is done; `None` when there is none, or not yet. `base_url` is the deployment's: what lies
/// anywhere else is not fetched.
///
/// # Errors
/// When it is no operation.
pub fn film(body: &[u8], base_url: &str) -> Result<Option<Film>, CodecError> {
    let operation: Operation<'_> = wire::read_answer(body)?;
    let Some(video) = first_video(&operation) else { return Ok(None) };
    Ok(Some(if let Some(data) = &video.bytes_base64_encoded {
        let media_type = video.mime_type.as_ref().map_or("video/mp4", |it| &*it.0).to_owned();
        Film::Base64 { media_type, data: data.0.clone().into_owned() }
    } else if let Some(uri) = &video.gcs_uri {
        Film::Storage(uri.0.clone().into_owned())
    } else {
        let uri = video.uri.as_ref().map_or("", |it| &*it.0);
        if origin(uri).is_none() || origin(uri) != origin(base_url) {
            return Err(CodecError::invalid("", "The film is at another host than the provider's own."));
        }
        Film::Uri(uri.to_owned())
    }))
}

/// Where films are asked for: what [`Poll::path`] is appended to.
pub fn base<'a>(provider: &Provider, base_url: &'a str) -> &'a str {
    own_base(provider, base_url)
}

/// Scheme and host.
fn origin(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#', '\\']).next()?;
    (!host.is_empty() && !host.contains('@')).then_some((scheme, host))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATION: &str = "models/veo-3.0-generate-001/operations/abc123";
    const ON_VERTEX: &str = "projects/p/locations/us-central1/publishers/google/models/veo-3/operations/1-2";

    fn ask(body: &str) -> Result<(String, Vec<Param>), CodecError> {
        let provider = crate::provider("google-ai-studio").unwrap();
        let to = Destination { provider, model: "veo-3", most_output: 0, cap: None, hosted: false };
        let encoded = request(body.as_bytes(), &to)?;
        Ok((String::from_utf8(encoded.body.to_vec()).unwrap(), encoded.dropped))
    }

    /// R004-36: Veo behind OpenAI's calls.
    #[test]
    fn a_film_is_asked_for_in_veos_words() {
        let (body, dropped) =
            ask(r#"{"model":"x","prompt":"a cat","seconds":"8","size":"720x1280","quality":"high"}"#)
                .unwrap();
        assert_eq!(
            body,
            r#"{"instances":[{"prompt":"a cat"}],"parameters":{"aspectRatio":"9:16","resolution":"720p","durationSeconds":8}}"#
        );
        assert_eq!(dropped, [Param::Other("quality".into())]);
        assert_eq!(ask(r#"{"prompt":"a"}"#).unwrap().0, r#"{"instances":[{"prompt":"a"}]}"#);
        for (body, path) in [
            ("{}", "prompt"),
            (r#"{"prompt":"a","seconds":"x"}"#, "seconds"),
            (r#"{"prompt":"a","size":"1x1"}"#, "size"),
            (r#"{"prompt":"a","input_reference":"data:image/png;base64,AA"}"#, "input_reference"),
        ] {
            assert_eq!(ask(body).unwrap_err().path, path);
        }
    }

    #[test]
    fn the_id_leads_back_to_the_operation_and_nowhere_else() {
        let request = bytes::Bytes::from_static(br#"{"prompt":"a","seconds":4,"size":"720x1280"}"#);
        let echo = Echo { model: "veo".into(), created: 5, request, ..Echo::default() };
        for name in [OPERATION, ON_VERTEX] {
            let converted = started(format!(r#"{{"name":"{name}"}}"#).as_bytes(), &echo).unwrap();
            let video: serde_json::Value = serde_json::from_slice(&converted.body).unwrap();
            assert_eq!((video["status"].as_str(), video["object"].as_str()), (Some("queued"), Some("video")));
            assert_eq!((video["seconds"].as_str(), video["size"].as_str()), (Some("4"), Some("720x1280")));
            let id = video["id"].as_str().unwrap();
            let ordered = Ordered::read(id).unwrap();
            assert_eq!((&*ordered.operation, ordered.created), (name, 5));
            assert_eq!(ordered.id(), id);
        }
        let converted = started(br#"{"name":"models/m/operations/1"}"#, &Echo::default()).unwrap();
        let video: serde_json::Value = serde_json::from_slice(&converted.body).unwrap();
        assert_eq!((video["seconds"].as_str(), video["size"].as_str()), (Some("8"), Some("1280x720")));
        for name in [
            "models/../operations/x",
            "operations",
            "https://evil/operations/x",
            "a/operations/x?y",
            "/operations/x",
        ] {
            assert!(!is_operation(name), "{name}");
            let id = format!("video_{}", URL_SAFE_NO_PAD.encode(format!("5/8/1x1/{name}")));
            assert_eq!(Ordered::read(&id), None);
            assert!(started(format!(r#"{{"name":"{name}"}}"#).as_bytes(), &echo).is_err());
        }
        for id in ["video_!", "video_", "resp_NS84", &format!("video_{}", URL_SAFE_NO_PAD.encode("5/8"))] {
            assert_eq!(Ordered::read(id), None, "{id}");
        }
    }

    #[test]
    fn each_host_is_asked_in_its_own_way() {
        assert_eq!(
            poll(Hosting::AiStudio, OPERATION),
            Some(Poll { path: format!("/{OPERATION}"), body: None })
        );
        let vertex = poll(Hosting::Vertex, ON_VERTEX).unwrap();
        assert_eq!(vertex.path, "/publishers/google/models/veo-3:fetchPredictOperation");
        assert_eq!(vertex.body.unwrap(), format!(r#"{{"operationName":"{ON_VERTEX}"}}"#).into_bytes());
        assert_eq!(poll(Hosting::Plain, OPERATION), None);
    }

    #[test]
    fn operations_become_videos() {
        let ordered =
            Ordered { operation: OPERATION.into(), created: 5, seconds: "8".into(), size: "1x1".into() };
        let state = |body: &str| {
            let Status { body, failed } = status(body.as_bytes(), &ordered, "v", "m").unwrap();
            let video: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((&video["id"], &video["model"]), (&"v".into(), &"m".into()));
            assert_eq!((&video["created_at"], &video["seconds"]), (&5.into(), &"8".into()));
            assert_eq!(video["error"]["message"].as_str(), failed.as_deref());
            (video["status"].as_str().unwrap().to_owned(), failed)
        };
        assert!(status(b"{}", &ordered, "v", "m").is_err());
        let is = |status: &str, error: Option<&str>| (status.to_owned(), error.map(str::to_owned));
        assert_eq!(state(r#"{"name":"x"}"#), is("in_progress", None));
        let uri = r#"{"done":true,"response":{"generateVideoResponse":{"generatedSamples":[{"video":{"uri":"https://g/v1beta/files/a:download?alt=media"}}]}}}"#;
        assert_eq!(state(uri), is("completed", None));
        let refused =
            r#"{"done":true,"response":{"generateVideoResponse":{"raiMediaFilteredReasons":["Not this."]}}}"#;
        assert_eq!(state(refused), is("failed", Some("Not this.")));
        let failed = r#"{"done":true,"error":{"code":3,"message":"Too long."}}"#;
        assert_eq!(state(failed), is("failed", Some("Too long.")));

        let film_of = |body: &str| film(body.as_bytes(), "https://g/v1beta");
        assert_eq!(
            film_of(uri).unwrap(),
            Some(Film::Uri("https://g/v1beta/files/a:download?alt=media".into()))
        );
        assert!(film(uri.as_bytes(), "https://h/v1beta").is_err(), "another host is never called");
        let inline =
            r#"{"done":true,"response":{"videos":[{"bytesBase64Encoded":"QUJD","mimeType":"video/mp4"}]}}"#;
        let expected = Film::Base64 { media_type: "video/mp4".into(), data: "QUJD".into() };
        assert_eq!(film_of(inline).unwrap(), Some(expected));
        assert_eq!(film_of(r#"{"done":false}"#).unwrap(), None);
    }
}
