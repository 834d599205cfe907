//! OpenAI's `/v1/images/generations` in Google's words: `predict` of Imagen, and `generateContent` of the Gemini models that
//! paint.

use nemo_types::{Measure, Unit, Usage};
use serde::{Deserialize, Serialize};

use super::{
    address, finish, usage,
    wire::{self, Blob, Members, Str, UsageMetadata},
    write,
};
use crate::{
    codec::{CodecError, Destination, Echo, Encoded},
    ir::{Finish, Param},
    plan::{Conversion, Converted},
};

/// Of AI Studio.
pub const AI_STUDIO: Conversion =
    Conversion { request, response, path: |model| address::ai_studio(model, method(model)) };

/// Of Vertex.
pub const VERTEX: Conversion =
    Conversion { request, response, path: |model| address::vertex(model, method(model)) };

fn is_gemini(model: &str) -> bool {
    model.rsplit('/').next().unwrap_or(model).starts_with("gemini")
}

fn method(model: &str) -> &'static str {
    if is_gemini(model) { "generateContent" } else { "predict" }
}

#[derive(Default)]
struct Asked<'a> {
    prompt: Option<Str<'a>>,
    count: Option<u32>,
    ratio: Option<&'static str>,
    large: bool,
    media_type: Option<&'static str>,
    compression: Option<u32>,
    dropped: Vec<Param>,
}

fn asked(body: &[u8]) -> Result<Asked<'_>, CodecError> {
    let text = std::str::from_utf8(body)
        .map_err(|_| CodecError::invalid("", "The body is not UTF-8, as JSON has to be."))?;
    let Members(members) = wire::read(text, "")?;
    let mut asked = Asked::default();
    for (name, value) in members {
        let text = value.get();
        let word = || wire::read::<Str<'_>>(text, &name).map(|it| it.0);
        match &*name {
            _ if text == "null" => {}
            "model" => {}
            "prompt" => asked.prompt = Some(wire::read(text, "prompt")?),
            "n" => asked.count = Some(wire::read(text, "n")?),
            "size" => asked.size(&word()?)?,
            "output_format" => {
                asked.media_type = Some(match &*word()? {
                    "png" => "image/png",
                    "jpeg" => "image/jpeg",
                    _ => {
                        return Err(CodecError::unsupported(
                            "output_format",
                            "Expected \"png\" or \"jpeg\".",
                        ));
                    }
                });
            }
            "output_compression" => asked.compression = Some(wire::read(text, "output_compression")?),
            "response_format" => {
                if word()? == "url" {
                    let message = "Google gives images as they are, and no URL: expected \"b64_json\".";
                    return Err(CodecError::unsupported("response_format", message));
                }
            }
            "stream" if text == "true" => {
                return Err(CodecError::unsupported(
                    "stream",
                    "Google's images come whole, and not in a stream.",
                ));
            }
            "stream" => {}
            "user" => asked.dropped.push(Param::User),
            "quality" | "style" | "background" | "moderation" if word()? == "auto" => {}
            _ => asked.dropped.push(Param::Other(Box::from(&*name))),
        }
    }
    if asked.prompt.as_ref().is_none_or(|prompt| prompt.0.is_empty()) {
        return Err(CodecError::invalid("prompt", "There is none: expected what the image is to show."));
    }
    Ok(asked)
}

impl Asked<'_> {
    /// Google knows five proportions: the nearest one, reported where it is not the very same.
    fn size(&mut self, size: &str) -> Result<(), CodecError> {
        if size == "auto" {
            return Ok(());
        }
        let pixels = size.split_once('x').and_then(|(width, height)| {
            Some((
                width.parse::<u32>().ok().filter(|it| *it > 0)?,
                height.parse::<u32>().ok().filter(|it| *it > 0)?,
            ))
        });
        let Some((width, height)) = pixels else {
            return Err(CodecError::invalid(
                "size",
                "Expected \"auto\" or width and height, as in \"1024x1024\".",
            ));
        };
        let (ratio, exact) = nearest_ratio(width, height);
        self.ratio = Some(ratio);
        self.large = width.max(height) >= 2048;
        if !exact {
            self.dropped.push(Param::Other("size".into()));
        }
        Ok(())
    }
}

fn nearest_ratio(width: u32, height: u32) -> (&'static str, bool) {
    const RATIOS: [(&str, u64, u64); 5] =
        [("1:1", 1, 1), ("4:3", 4, 3), ("3:4", 3, 4), ("16:9", 16, 9), ("9:16", 9, 16)];
    let (width, height) = (u64::from(width), u64::from(height));
    let off = |wide: u64, high: u64| {
        // How far the two proportions are from each other, in thousandths: the larger by the smaller.
        let (a, b) = (width * high, height * wide);
        a.max(b) * 1000 / a.min(b).max(1)
    };
    let mut best = (RATIOS[0].0, u64::MAX);
    for (name, wide, high) in RATIOS {
        if off(wide, high) < best.1 {
            best = (name, off(wide, high));
        }
    }
    (best.0, best.1 == 1000)
}

#[derive(Serialize)]
struct Predict<'a> {
    instances: [Prompt<'a>; 1],
    parameters: Parameters,
}

#[derive(Serialize)]
struct Prompt<'a> {
    prompt: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    sample_count: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    aspect_ratio: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_image_size: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_options: Option<OutputOptions>,
    include_rai_reason: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OutputOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    mime_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_quality: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Painted<'a> {
    contents: [write::Content<'a>; 1],
    generation_config: PaintConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaintConfig {
    response_modalities: [&'static str; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    image_config: Option<ImageConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageConfig {
    aspect_ratio: &'static str,
}

fn request(body: &[u8], to: &Destination<'_>) -> Result<Encoded, CodecError> {
    let Asked { prompt, count, ratio, large, media_type, compression, mut dropped } = asked(body)?;
    let prompt = prompt.unwrap_or_default().0;
    let body = if is_gemini(to.model) {
        if count.is_some_and(|count| count != 1) {
            return Err(CodecError::unsupported("n", "This model makes one image at a time."));
        }
        if media_type.is_some() {
            dropped.push(Param::Other("output_format".into()));
        }
        if compression.is_some() {
            dropped.push(Param::Other("output_compression".into()));
        }
        let parts = vec![write::Part::Known(write::text(&*prompt))];
        let image_config = ratio.map(|aspect_ratio| ImageConfig { aspect_ratio });
        serde_json::to_vec(&Painted {
            contents: [write::Content { role: Some("user"), parts }],
            generation_config: PaintConfig { response_modalities: ["TEXT", "IMAGE"], image_config },
        })
    } else {
        let options = media_type.is_some() || compression.is_some();
        serde_json::to_vec(&Predict {
            instances: [Prompt { prompt: &prompt }],
            parameters: Parameters {
                sample_count: count.unwrap_or(1),
                aspect_ratio: ratio,
                sample_image_size: large.then_some("2K"),
                output_options: options
                    .then_some(OutputOptions { mime_type: media_type, compression_quality: compression }),
                include_rai_reason: true,
            },
        })
    };
    let body =
        body.map_err(|error| CodecError::invalid("", format!("The request can't be written: {error}.")))?;
    Ok(Encoded::new(body, dropped))
}

/// Both methods in one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(borrow)]
    predictions: Option<Vec<Prediction<'a>>>,
    #[serde(borrow)]
    candidates: Option<Vec<wire::Candidate<'a>>>,
    #[serde(borrow)]
    prompt_feedback: Option<wire::PromptFeedback<'a>>,
    usage_metadata: Option<UsageMetadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Prediction<'a> {
    #[serde(borrow)]
    bytes_base64_encoded: Option<Str<'a>>,
    #[serde(borrow)]
    rai_filtered_reason: Option<Str<'a>>,
    #[serde(borrow)]
    prompt: Option<Str<'a>>,
}

#[derive(Serialize)]
struct Written<'a> {
    created: u64,
    data: Vec<Datum<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<WrittenUsage>,
}

#[derive(Serialize)]
struct Datum<'a> {
    b64_json: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<&'a str>,
}

#[derive(Serialize)]
struct WrittenUsage {
    input_tokens: u64,
    output_tokens: u64,
    total_tokens: u64,
}

/// Why there is no image. Imagen leaves out what its filters have kept back, with a reason or without; Gemini says that it
/// was so, or has made none for no reason that it tells.
fn none(answer: &Answer<'_>) -> CodecError {
    const KEPT_BACK: &str = "The provider's safety filters have kept the image back.";
    let filtered = |candidate: &wire::Candidate<'_>| {
        let reason = candidate.finish_reason.as_ref()?;
        let kept_back =
            reason.0 != "NO_IMAGE" && finish::read(&reason.0, false) == Some(Finish::ContentFilter);
        kept_back.then(|| format!("{KEPT_BACK} It says: {}.", reason.0))
    };
    let mut reasons = answer.predictions.iter().flatten().filter_map(|it| it.rai_filtered_reason.as_ref());
    let blocked = answer.prompt_feedback.as_ref().and_then(|it| it.block_reason.as_ref());
    let why = reasons
        .next()
        .map(|reason| reason.0.clone().into_owned())
        .or_else(|| {
            blocked.map(|reason| format!("The provider has refused the prompt. It says: {}.", reason.0))
        })
        .or_else(|| answer.candidates.iter().flatten().find_map(filtered));
    match why {
        Some(why) => CodecError::withheld("prompt", why),
        None if answer.candidates.is_none() => CodecError::withheld("prompt", KEPT_BACK),
        None => CodecError::invalid("prompt", "The model made no image."),
    }
}

fn response(body: &[u8], echo: &Echo) -> Result<Converted, CodecError> {
    let answer: Answer<'_> = wire::read_answer(body)?;
    let mut data = Vec::new();
    for prediction in answer.predictions.iter().flatten() {
        if let Some(image) = &prediction.bytes_base64_encoded {
            let revised_prompt = prediction.prompt.as_ref().map(|it| &*it.0);
            data.push(Datum { b64_json: &image.0, revised_prompt });
        }
    }
    let contents = answer.candidates.iter().flatten().filter_map(|it| it.content.as_ref()?.parts.as_ref());
    for part in contents.flatten() {
        if let Some(Blob { mime_type, data: image, .. }) = &part.inline_data
            && mime_type.starts_with("image/")
        {
            data.push(Datum { b64_json: image, revised_prompt: None });
        }
    }
    if data.is_empty() {
        return Err(none(&answer));
    }
    let usage = answer.usage_metadata.as_ref().map(usage::read);
    let shown = |usage: &Usage| {
        let (input, output) = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
        WrittenUsage {
            input_tokens: input,
            output_tokens: output,
            total_tokens: input.saturating_add(output),
        }
    };
    let count = u64::try_from(data.len()).unwrap_or(u64::MAX);
    let written = Written { created: echo.created, data, usage: usage.as_ref().map(shown) };
    let body = serde_json::to_vec(&written).unwrap_or_default();
    Ok(Converted { body, usage, measures: vec![Measure::new(Unit::Images, count)] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(model: &'static str, body: &str) -> Result<(String, Vec<Param>), CodecError> {
        let provider = crate::provider("google-ai-studio").unwrap();
        let to = Destination { provider, model, most_output: 0, cap: None, hosted: false };
        let encoded = request(body.as_bytes(), &to)?;
        Ok((String::from_utf8(encoded.body.to_vec()).unwrap(), encoded.dropped))
    }

    /// R004-36: Imagen through OpenAI's endpoint.
    #[test]
    fn openais_parameters_become_imagens() {
        let (body, dropped) = ask(
            "imagen-4.0-generate-001",
            r#"{"model":"x","prompt":"a cat","n":2,"size":"1024x1024","quality":"auto","output_format":"jpeg","output_compression":80}"#,
        )
        .unwrap();
        assert_eq!(
            body,
            r#"{"instances":[{"prompt":"a cat"}],"parameters":{"sampleCount":2,"aspectRatio":"1:1","outputOptions":{"mimeType":"image/jpeg","compressionQuality":80},"includeRaiReason":true}}"#
        );
        assert_eq!(dropped, []);
        let (body, dropped) =
            ask("imagen-4", r#"{"prompt":"a","size":"1536x1024","style":"vivid"}"#).unwrap();
        assert!(body.contains(r#""aspectRatio":"4:3""#), "{body}");
        assert_eq!(dropped, [Param::Other("size".into()), Param::Other("style".into())]);
        let (body, _) = ask("gemini-2.5-flash-image", r#"{"prompt":"a","size":"1920x1080"}"#).unwrap();
        assert_eq!(
            body,
            r#"{"contents":[{"role":"user","parts":[{"text":"a"}]}],"generationConfig":{"responseModalities":["TEXT","IMAGE"],"imageConfig":{"aspectRatio":"16:9"}}}"#
        );
        assert_eq!((AI_STUDIO.path)("imagen-4"), "/models/imagen-4:predict");
        assert_eq!(
            (VERTEX.path)("gemini-3-image"),
            "/publishers/google/models/gemini-3-image:generateContent"
        );
    }

    #[test]
    fn what_google_can_not_do_is_refused_by_name() {
        for (body, path, unsupported) in [
            (r#"{"prompt":""}"#, "prompt", false),
            (r#"{"prompt":1}"#, "prompt", false),
            (r#"{"prompt":"a","size":"0x1"}"#, "size", false),
            (r#"{"prompt":"a","size":7}"#, "size", false),
            (r#"{"prompt":"a","response_format":"url"}"#, "response_format", true),
            (r#"{"prompt":"a","stream":true}"#, "stream", true),
            (r#"{"prompt":"a","output_format":"webp"}"#, "output_format", true),
        ] {
            let error = ask("imagen-4", body).unwrap_err();
            assert_eq!((error.path.as_str(), error.unsupported), (path, unsupported), "{body}");
        }
    }

    #[test]
    fn images_are_counted_and_a_filter_is_an_error() {
        let echo = Echo { created: 7, ..Echo::default() };
        let told = r#"{"predictions":[{"mimeType":"image/png","bytesBase64Encoded":"QUJD"},{"raiFilteredReason":"no"}]}"#;
        let converted = response(told.as_bytes(), &echo).unwrap();
        assert_eq!(converted.measures, [Measure::new(Unit::Images, 1)]);
        assert_eq!(
            String::from_utf8(converted.body).unwrap(),
            r#"{"created":7,"data":[{"b64_json":"QUJD"}]}"#
        );
        for (told, withheld, why) in [
            (r#"{"predictions":[{"raiFilteredReason":"Blocked."}]}"#, true, "Blocked."),
            ("{}", true, "kept the image back"),
            (r#"{"predictions":[]}"#, true, "kept the image back"),
            (r#"{"promptFeedback":{"blockReason":"SAFETY"}}"#, true, "SAFETY"),
            (r#"{"candidates":[{"finishReason":"IMAGE_SAFETY"}]}"#, true, "IMAGE_SAFETY"),
            (r#"{"candidates":[{"finishReason":"NO_IMAGE"}]}"#, false, "no image"),
            (
                r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#,
                false,
                "no image",
            ),
        ] {
            let error = response(told.as_bytes(), &echo).unwrap_err();
            assert_eq!((error.path.as_str(), error.withheld), ("prompt", withheld), "{told}");
            assert!(error.message.contains(why), "{told}: {error}");
        }
        let painted = r#"{"candidates":[{"content":{"parts":[{"text":"Here"},{"inlineData":{"mimeType":"image/png","data":"QQ=="}}]}}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":1290}}"#;
        let converted = response(painted.as_bytes(), &echo).unwrap();
        assert_eq!(converted.usage.unwrap().output, Some(1290));
    }
}
