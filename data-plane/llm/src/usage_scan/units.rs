//! What the answers of the other endpoints report: images, audio, searches, and the tokens of those that count tokens.
//! Called by [`super::scan_response`], and by [`crate::stream`] for the event that ends a stream.

use nemo_types::{Measure, Unit};

use super::{Report, UnaryInfo, native, native::Google, report, report_at_end, text, tier, tools::Tools};
use crate::{
    Endpoint, FinishReason, ServiceTier, decimal,
    json::{Kind, Members, Value},
    meter,
};

/// Reads the report in a complete answer. What is no JSON object reports nothing: subtitles, sound.
pub(super) fn scan(endpoint: Endpoint, body: &[u8]) -> UnaryInfo {
    let mut seen = Seen::default();
    match Members::open(body, 0) {
        Some(mut members) => seen.members(endpoint, body, &mut members),
        // The tail of a long answer.
        None => {
            (seen.report, seen.tier) =
                report_at_end(endpoint, body).map(|(report, tier)| (Some(report), tier)).unwrap_or_default();
        }
    }
    let report = seen.report.unwrap_or_default();
    let mut info = UnaryInfo {
        usage: Some(report.usage).filter(|usage| !usage.is_unknown()),
        provider_cost: report.cost,
        finish_reason: seen.finish(),
        output_bytes: seen.output_bytes,
        measures: Vec::new(),
        service_tier: report.tier.or(seen.tier),
        cost_place: None,
    };
    info.measures = seen.measures(endpoint);
    info
}

/// What one object says: a whole answer, or the event that ends a stream.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) report: Option<Report>,
    pub(crate) output_bytes: u64,
    images: Option<u64>,
    size: Box<str>,
    quality: Box<str>,
    audio_ms: Option<u64>,
    search_units: Option<u64>,
    tools: Tools,
    pub(crate) tier: ServiceTier,
    status: Option<Box<str>>,
    incomplete: Option<Box<str>>,
    /// Of Anthropic's and Google's answers.
    ended: Option<FinishReason>,
}

impl Seen {
    /// Reads members to the end of their object. What precedes a defect is still used.
    pub(crate) fn members(&mut self, endpoint: Endpoint, body: &[u8], members: &mut Members<'_>) {
        if endpoint == Endpoint::GenerateContent {
            return self.google(body, members);
        }
        while let Ok(Some(member)) = members.next() {
            let value = &member.value;
            match (member.name.inner(body), endpoint) {
                (b"content", Endpoint::Messages) => self.output_bytes = text::generated(body, value),
                (b"stop_reason", Endpoint::Messages) => self.ended = native::of_anthropic(body, value),
                (b"usage", _) => self.report = report(endpoint, body, value).or(self.report),
                (b"data", _) if endpoint.is_image() => {
                    let mut images = 0;
                    text::for_each_object(body, value, |_| images += 1);
                    self.images = Some(images);
                }
                (b"size", _) if endpoint.is_image() => self.size = kept(body, value),
                (b"quality", _) if endpoint.is_image() => self.quality = kept(body, value),
                (b"duration", Endpoint::Transcriptions | Endpoint::Translations) => {
                    self.audio_ms = millis(body, value).or(self.audio_ms);
                }
                (b"meta", Endpoint::Rerank) => self.search_units = billed(body, value),
                (b"status", Endpoint::Responses) => self.status = Some(kept(body, value)),
                (b"incomplete_details", Endpoint::Responses) => self.incomplete = reason(body, value),
                (b"output", Endpoint::Responses) => {
                    self.output_bytes = text::generated(body, value);
                    self.tools = Tools::used(body, value);
                }
                (b"service_tier", _) => self.tier = tier(body, value),
                _ => {}
            }
        }
    }

    fn google(&mut self, body: &[u8], members: &mut Members<'_>) {
        let mut said = Google::default();
        while let Ok(Some(member)) = members.next() {
            said.member(body, member.name.inner(body), &member.value);
        }
        (self.report, self.ended, self.output_bytes) = (said.report, said.finish, said.output_bytes);
    }

    /// One more image than was counted: the event of a stream that completes it.
    pub(crate) fn completes_image(&mut self, before: u64) {
        self.images = Some(before + 1);
    }

    pub(crate) fn images(&self) -> u64 {
        self.images.unwrap_or(0)
    }

    /// Why a response ended, in the words of chat.
    pub(crate) fn finish(&self) -> Option<FinishReason> {
        if self.ended.is_some() {
            return self.ended.clone();
        }
        let word = match (self.status.as_deref()?, self.incomplete.as_deref()) {
            ("", _) => return None,
            ("completed", _) => "stop",
            ("incomplete", Some("max_output_tokens")) => "length",
            ("incomplete", Some(reason)) => reason,
            ("failed", _) => "error",
            (other, _) => other,
        };
        Some(FinishReason::new(word))
    }

    pub(crate) fn measures(&self, endpoint: Endpoint) -> Vec<Measure> {
        let mut measures = Vec::new();
        if let Some(images) = self.images.filter(|_| endpoint.is_image()) {
            measures.push(Measure {
                quality: told(&self.quality),
                size: told(&self.size),
                ..Measure::new(Unit::Images, images)
            });
        }
        let mut units = self.report.map(|report| report.units).unwrap_or_default();
        // What is billed is whole seconds, where the answer says so; the length of the recording otherwise.
        units.audio_ms = units.audio_ms.or(self.audio_ms);
        measures.extend(units.measures());
        measures.extend(self.search_units.map(|count| Measure::new(Unit::SearchUnits, count)));
        let told = measures.iter().any(|measure| measure.unit == Unit::WebSearches);
        measures.extend(self.tools.measures().filter(|tool| !told || tool.unit != Unit::WebSearches));
        measures
    }
}

/// `auto` says as little as nothing.
fn told(text: &str) -> Box<str> {
    if text == "auto" { "".into() } else { text.into() }
}

fn kept(body: &[u8], value: &Value) -> Box<str> {
    value.text(body).map(|text| meter::kept(&text)).unwrap_or_default()
}

/// Cohere: `meta.billed_units.search_units`.
fn billed(body: &[u8], value: &Value) -> Option<u64> {
    member(body, &member(body, value, b"billed_units")?, b"search_units")?.unsigned(body)
}

fn reason(body: &[u8], value: &Value) -> Option<Box<str>> {
    Some(kept(body, &member(body, value, b"reason")?))
}

pub(crate) fn member(body: &[u8], value: &Value, name: &[u8]) -> Option<Value> {
    let mut members = Members::of(body, value)?;
    while let Ok(Some(member)) = members.next() {
        if member.name.inner(body) == name {
            return Some(member.value);
        }
    }
    None
}

/// Milliseconds of a number of seconds, or of its text (Groq's), rounded up.
pub(crate) fn millis(body: &[u8], value: &Value) -> Option<u64> {
    let text = match value.kind {
        Kind::Number | Kind::String => std::str::from_utf8(value.inner(body)).ok()?,
        _ => return None,
    };
    // The exact reader of amounts of money reads seconds as well.
    let nanos = u64::try_from(decimal::nanos(text)?.0).ok()?;
    Some(nanos.div_ceil(1_000_000))
}

#[cfg(test)]
mod tests {
    use nemo_types::Usage;

    use super::*;

    fn measured(endpoint: Endpoint, body: &str) -> Vec<(&'static str, u64)> {
        let info = scan(endpoint, body.as_bytes());
        info.measures.iter().map(|measure| (measure.unit.name(), measure.quantity)).collect()
    }

    #[test]
    fn images_are_counted_with_their_size_and_quality_and_tokens() {
        let body = r#"{"created":1,"data":[{"b64_json":"AA"},{"b64_json":"BB"}],"quality":"high","size":"1024x1536",
            "usage":{"input_tokens":50,"output_tokens":9,"total_tokens":59,
            "input_tokens_details":{"text_tokens":10,"image_tokens":40}}}"#;
        let info = scan(Endpoint::ImageEdits, body.as_bytes());
        assert_eq!((&*info.measures[0].quality, &*info.measures[0].size), ("high", "1024x1536"));
        assert_eq!(measured(Endpoint::ImageEdits, body), [("images", 2), ("image_input_tokens", 40)]);
        assert_eq!(info.usage, Some(Usage { input: Some(50), output: Some(9), ..Usage::default() }));
    }

    #[test]
    fn audio_is_measured_in_milliseconds_however_it_is_told() {
        for (body, expected) in [
            (r#"{"text":"a","usage":{"type":"duration","seconds":9}}"#, Some(9000)),
            (r#"{"text":"a","usage":{"type":"duration","seconds":9.25}}"#, Some(9250)),
            (r#"{"task":"transcribe","duration":8.470000267028809,"text":"a"}"#, Some(8471)),
            (r#"{"duration":"2.5","text":"a"}"#, Some(2500)),
            (r#"{"duration":8.2,"text":"a","usage":{"type":"duration","seconds":9}}"#, Some(9000)),
            (r#"{"text":"a"}"#, None),
            ("1\n00:00:00,000 --> 00:00:01,000\nsubtitles", None),
        ] {
            let expected: Vec<_> = expected.map(|ms| ("audio_milliseconds", ms)).into_iter().collect();
            assert_eq!(measured(Endpoint::Transcriptions, body), expected, "{body}");
        }
    }

    #[test]
    fn a_transcription_in_tokens_tells_which_are_audio() {
        let body = r#"{"text":"a","usage":{"type":"tokens","input_tokens":14,
            "input_token_details":{"text_tokens":0,"audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#;
        let usage = scan(Endpoint::Transcriptions, body.as_bytes()).usage.unwrap();
        assert_eq!((usage.input, usage.output, usage.audio_input), (Some(14), Some(45), Some(14)));
    }

    #[test]
    fn searches_are_read_where_cohere_and_jina_tell_them() {
        let cohere =
            r#"{"results":[{"index":0,"relevance_score":0.9}],"meta":{"billed_units":{"search_units":2}}}"#;
        assert_eq!(measured(Endpoint::Rerank, cohere), [("search_units", 2)]);
        let jina = r#"{"results":[],"usage":{"total_tokens":815}}"#;
        assert_eq!(scan(Endpoint::Rerank, jina.as_bytes()).usage.unwrap().input, Some(815));
    }

    #[test]
    fn a_response_tells_its_end_in_the_words_of_chat() {
        for (status, word) in [
            (r#""status":"completed""#, "stop"),
            (r#""status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}"#, "length"),
            (r#""status":"incomplete","incomplete_details":{"reason":"content_filter"}"#, "content_filter"),
            (r#""status":"failed""#, "error"),
            (r#""status":"queued""#, "queued"),
        ] {
            let body = format!(
                "{{{status},\"output\":[{{\"content\":[{{\"type\":\"output_text\",\"text\":\"four\"}}]}}]}}"
            );
            let info = scan(Endpoint::Responses, body.as_bytes());
            assert_eq!(info.finish_reason.unwrap().as_str(), word);
            assert_eq!(info.output_bytes, 4);
        }
    }
}
