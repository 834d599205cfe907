//! What an upstream reports about a call: token counts, cost, and why it ended. Finds them in a body without
//! building a tree. Tolerant: an answer that makes no sense reports nothing, and goes to the client all the same.
//!
//! Called by `respond` for unary bodies and by [`crate::stream`] for the chunks that carry a report.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use nemo_types::{Measure, Nanos, Unit, Usage};

use self::plain::Plain;
use crate::{
    Endpoint, FinishReason, decimal,
    json::{Cursor, Kind, Members, Value},
};

mod plain;
pub(crate) mod text;
pub(crate) mod units;

/// What a response body reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnaryInfo {
    pub usage: Option<Usage>,
    /// What the upstream says the call costs.
    pub provider_cost: Option<Nanos>,
    /// Of the first choice that has one.
    pub finish_reason: Option<FinishReason>,
    /// Bytes of completion text, for an estimate; counted only when the body reports no usage at its end.
    pub output_bytes: u64,
    /// What was consumed in other units than text tokens.
    pub measures: Vec<Measure>,
}

/// Token counts and cost of one `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) usage: Usage,
    pub(crate) cost: Option<Nanos>,
    pub(crate) units: Units,
}

/// Counts of other units in a `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// Part of the input tokens that is images.
    pub(crate) image_input: Option<u64>,
    /// Part of the output tokens that is images.
    pub(crate) image_output: Option<u64>,
    pub(crate) audio_ms: Option<u64>,
}

impl Units {
    pub(crate) fn measures(self) -> impl Iterator<Item = Measure> {
        let counts = [
            (Unit::AudioMilliseconds, self.audio_ms),
            (Unit::ImageInputTokens, self.image_input),
            (Unit::ImageOutputTokens, self.image_output),
        ];
        counts.into_iter().filter_map(|(unit, count)| Some(Measure::new(unit, count?)))
    }
}

/// Reads the report in a response body. Never fails: what cannot be read is `None`.
///
/// `body` may also be the tail of a longer body that was not kept: of a tail, usage and cost are found, not why
/// the answer ended nor how long it was.
pub fn scan_response(endpoint: Endpoint, body: &[u8]) -> UnaryInfo {
    if !endpoint.has_choices() && endpoint != Endpoint::Embeddings {
        return units::scan(endpoint, body);
    }
    let mut info = UnaryInfo::default();
    // Usage comes last with nearly everybody: behind the text, or behind megabytes of numbers, that then need not be
    // walked.
    let report = match report_at_end(endpoint, body) {
        Some(report) => {
            info.finish_reason = finish_reason(body);
            Some(report)
        }
        None => walk(endpoint, body, &mut info),
    };
    info.usage = report.map(|report| report.usage).filter(|usage| !usage.is_unknown());
    info.provider_cost = report.and_then(|report| report.cost);
    info
}

const FINISH_REASON: &[u8] = b"\"finish_reason\"";
const USAGE: &[u8] = b"\"usage\"";
// Preparing a search costs more than most searches.
static FIND_FINISH_REASON: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(FINISH_REASON));
static FIND_USAGE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(USAGE));
static FIND_USAGE_FROM_END: LazyLock<FinderRev<'_>> = LazyLock::new(|| FinderRev::new(USAGE));

/// The first `finish_reason` that is a word. Inside of a text its quotes would be escaped.
fn finish_reason(body: &[u8]) -> Option<FinishReason> {
    FIND_FINISH_REASON.find_iter(body).find_map(|at| {
        let mut cursor = Cursor::new(body, at + FINISH_REASON.len());
        cursor.skip_whitespace();
        if cursor.peek() != Some(b':') {
            return None;
        }
        let value = Cursor::new(body, cursor.position() + 1).value(1).ok()?;
        value.text(body).map(|reason| FinishReason::new(&reason))
    })
}

/// Reads the members of the body one by one. What precedes a defect is still used.
fn walk(endpoint: Endpoint, body: &[u8], info: &mut UnaryInfo) -> Option<Report> {
    let mut members = Members::open(body, 0)?;
    let mut report = None;
    while let Ok(Some(member)) = members.next() {
        match member.name.inner(body) {
            b"usage" => report = self::report(endpoint, body, &member.value).or(report),
            b"choices" => choices(body, &member.value, info),
            _ => {}
        }
    }
    report
}

fn choices(body: &[u8], value: &Value, info: &mut UnaryInfo) {
    text::for_each_object(body, value, |choice| {
        let Some(mut members) = Members::of(body, choice) else { return };
        while let Ok(Some(member)) = members.next() {
            match member.name.inner(body) {
                b"finish_reason" => {
                    let reason = member.value.text(body).map(|reason| FinishReason::new(&reason));
                    info.finish_reason = info.finish_reason.take().or(reason);
                }
                b"message" => info.output_bytes += text::generated(body, &member.value),
                b"text" => info.output_bytes += text::length(body, &member.value),
                _ => {}
            }
        }
    });
}

/// How far from the end of a body its usage is mostly found.
const NEAR_THE_END: usize = 512;

/// The report of a body whose last members include a top-level `usage`. In valid JSON, what follows a member of
/// the outermost object is members and one closing brace.
fn report_at_end(endpoint: Endpoint, body: &[u8]) -> Option<Report> {
    // Searching backwards takes many times as long per byte.
    let near = body.len().saturating_sub(NEAR_THE_END);
    let last = FIND_USAGE.find_iter(&body[near..]).last().map(|at| near + at);
    let at = last.or_else(|| FIND_USAGE_FROM_END.rfind(&body[..(near + USAGE.len()).min(body.len())]))?;
    let mut cursor = Cursor::new(body, at + USAGE.len());
    cursor.skip_whitespace();
    if cursor.peek() != Some(b':') {
        return None;
    }
    let (report, end) = report_from(endpoint, body, cursor.position() + 1)?;
    let mut rest = Members::rest(body, end);
    while rest.next().ok()?.is_some() {}
    Cursor::new(body, rest.end()).end_of_document().ok()?;
    Some(report)
}

/// The report of the `usage` object at `at`, and where it ends.
fn report_from(endpoint: Endpoint, body: &[u8], at: usize) -> Option<(Report, usize)> {
    if let Some(mut plain) = Plain::open(body, at)
        && let Some(counts) = plain.counts()
    {
        return Some((counts.normalise(endpoint), plain.end()));
    }
    let mut members = Members::open(body, at)?;
    let report = report_of(endpoint, body, &mut members)?;
    Some((report, members.end()))
}

/// Counts as the providers name them.
#[derive(Default)]
struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// `prompt_cache_hit_tokens`, `cached_tokens`: outside of the details.
    cached: Option<u64>,
    usage: Usage,
    cost: Option<Nanos>,
    units: Units,
}

/// Reads a `usage` object; `None` for another value.
pub(crate) fn report(endpoint: Endpoint, document: &[u8], value: &Value) -> Option<Report> {
    let (report, _) =
        (value.kind == Kind::Object).then(|| report_from(endpoint, document, value.span.start))??;
    Some(report)
}

/// Reads the members of a `usage` object to their end; `None` when they are no JSON.
fn report_of(endpoint: Endpoint, document: &[u8], members: &mut Members<'_>) -> Option<Report> {
    let mut counts = Counts::default();
    while let Some(name) = members.name().ok()? {
        let name = name.inner(document);
        let Some((details, mut inner)) = Details::of(name).zip(members.enter()) else {
            let value = members.value().ok()?;
            counts.take(document, name, &value);
            continue;
        };
        while let Some(detail) = inner.next().ok()? {
            // Null and the like say nothing.
            if let Some(count) = detail.value.unsigned(document) {
                counts.detail(details, detail.name.inner(document), count);
            }
        }
        members.leave(&inner);
    }
    Some(counts.normalise(endpoint))
}

/// What a count is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Details {
    Prompt,
    Completion,
}

impl Details {
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => Some(Self::Prompt),
            b"completion_tokens_details" | b"output_tokens_details" => Some(Self::Completion),
            _ => None,
        }
    }
}

/// A number of dollars, or an object with such a `total_cost` (Perplexity, LLM Gateway).
fn cost(document: &[u8], value: &Value) -> Option<Nanos> {
    match value.kind {
        Kind::Number => decimal::nanos(std::str::from_utf8(value.raw(document)).ok()?),
        Kind::Object => {
            let mut members = Members::of(document, value)?;
            while let Ok(Some(member)) = members.next() {
                if member.name.inner(document) == b"total_cost" && member.value.kind == Kind::Number {
                    return cost(document, &member.value);
                }
            }
            None
        }
        _ => None,
    }
}

impl Counts {
    fn take(&mut self, document: &[u8], name: &[u8], value: &Value) {
        match name {
            b"seconds" => self.units.audio_ms = units::millis(document, value),
            b"cost" => self.cost = cost(document, value).or(self.cost),
            b"cost_details" => self.cost = self.cost.or_else(|| cost(document, value)),
            _ => _ = self.count(name, value.unsigned(document)),
        }
    }

    /// Takes a count, or that there is none; false for a member that is no count.
    fn count(&mut self, name: &[u8], count: Option<u64>) -> bool {
        match name {
            b"prompt_tokens" | b"input_tokens" => self.prompt = count.or(self.prompt),
            b"completion_tokens" | b"output_tokens" => self.completion = count.or(self.completion),
            b"total_tokens" => self.total = count,
            b"prompt_cache_hit_tokens" | b"cached_tokens" => self.cached = count,
            b"reasoning_tokens" => self.usage.reasoning = self.usage.reasoning.or(count),
            b"seconds" | b"cost" | b"cost_details" => return false,
            _ => {}
        }
        true
    }

    fn detail(&mut self, of: Details, name: &[u8], count: u64) {
        let (usage, units) = (&mut self.usage, &mut self.units);
        let place = match (of, name) {
            (Details::Prompt, b"cached_tokens") => &mut usage.cache_read,
            (Details::Prompt, b"cache_write_tokens" | b"cache_creation_tokens") => &mut usage.cache_write,
            (Details::Prompt, b"audio_tokens") => &mut usage.audio_input,
            (Details::Prompt, b"image_tokens") => &mut units.image_input,
            (Details::Completion, b"reasoning_tokens") => &mut usage.reasoning,
            (Details::Completion, b"audio_tokens") => &mut usage.audio_output,
            (Details::Completion, b"image_tokens") => &mut units.image_output,
            _ => return,
        };
        *place = Some(count);
    }

    /// Brings the counts to the conventions of [`Usage`]: cached tokens inside the prompt (so counts everyone
    /// here) and reasoning inside the completion (so counts OpenAI; the others are told by their sums).
    fn normalise(self, endpoint: Endpoint) -> Report {
        let Self { prompt, completion, total, cached, mut usage, cost, units } = self;
        usage.input = match (prompt, endpoint) {
            // All tokens of an embedding are prompt tokens, and of a ranking.
            (None, Endpoint::Embeddings | Endpoint::Rerank) => total,
            (prompt, _) => prompt,
        };
        usage.cache_read = usage.cache_read.or(cached);
        let reasoning = usage.reasoning.unwrap_or(0);
        let beyond = total.zip(prompt.zip(completion)).and_then(|(total, (prompt, completion))| {
            total.checked_sub(prompt)?.checked_sub(completion).filter(|beyond| *beyond > 0)
        });
        usage.output = match (completion, beyond) {
            // xAI reports reasoning beside the completion.
            (Some(completion), Some(beyond)) if beyond == reasoning => completion.checked_add(reasoning),
            // Google leaves thinking out of the completion and says only in the total that there was some.
            (Some(completion), Some(beyond))
                if usage.reasoning.is_none() && endpoint != Endpoint::Embeddings =>
            {
                usage.reasoning = Some(beyond);
                completion.checked_add(beyond)
            }
            // Perplexity's research models reason more than they complete.
            (Some(completion), _) if reasoning > completion => completion.checked_add(reasoning),
            (completion, _) => completion,
        };
        Report { usage, cost, units }
    }
}

#[cfg(test)]
mod tests;
