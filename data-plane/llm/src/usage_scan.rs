//! What an upstream reports about a call: token counts, cost, and why it ended. Finds them in a body without
//! building a tree. Tolerant: an answer that makes no sense reports nothing, and goes to the client all the same.
//!
//! Called by `respond` for unary bodies and by [`crate::stream`] for the chunks that carry a report.

use std::sync::LazyLock;

use memchr::memmem::{Finder, FinderRev};
use nemo_types::{Measure, Nanos, Usage};

pub use self::cost_place::{CostEdit, CostPlace, Pricing, Told};
pub(crate) use self::counts::{Report, Units};
use self::{
    counts::{Counts, Details},
    plain::Plain,
};
use crate::{
    Endpoint, FinishReason, ServiceTier,
    json::{Cursor, Kind, Members, Value},
};

mod cost_place;
mod counts;
pub(crate) mod native;
mod plain;
pub(crate) mod text;
mod tools;
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
    /// The tier that it was served in.
    pub service_tier: ServiceTier,
    /// Where the call's cost belongs, for a client that wants it there: for answers with choices.
    pub cost_place: Option<CostPlace>,
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
        Some((report, after)) => {
            info.finish_reason = finish_reason(body);
            info.service_tier = report.tier.or(after);
            if !info.service_tier.is_told() {
                info.service_tier = tier_at_start(body);
            }
            Some(report)
        }
        None => walk(endpoint, body, &mut info),
    };
    if let Some(report) = report {
        info.usage = Some(report.usage).filter(|usage| !usage.is_unknown());
        info.provider_cost = report.cost;
        info.service_tier = report.tier.or(info.service_tier);
        info.measures = report.units.of_chat();
        let priced = endpoint.has_choices() && info.usage.is_some();
        info.cost_place = priced.then_some(CostPlace { usage_at: report.at });
    }
    info
}

const FINISH_REASON: &[u8] = b"\"finish_reason\"";
const SERVICE_TIER: &[u8] = b"\"service_tier\"";
const USAGE: &[u8] = b"\"usage\"";
// Preparing a search costs more than most searches.
static FIND_FINISH_REASON: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(FINISH_REASON));
static FIND_SERVICE_TIER: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(SERVICE_TIER));
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

/// How far from the beginning of a body its tier stands where it does not stand behind the usage.
const NEAR_THE_START: usize = 256;

/// The tier among the first members.
fn tier_at_start(body: &[u8]) -> ServiceTier {
    let Some(at) = FIND_SERVICE_TIER.find(&body[..body.len().min(NEAR_THE_START)]) else {
        return ServiceTier::default();
    };
    let mut cursor = Cursor::new(body, at + SERVICE_TIER.len());
    cursor.skip_whitespace();
    let value = (cursor.peek() == Some(b':')).then(|| Cursor::new(body, cursor.position() + 1).value(1));
    value.and_then(Result::ok).map(|value| tier(body, &value)).unwrap_or_default()
}

/// A tier, of a value that is a word.
pub(crate) fn tier(document: &[u8], value: &Value) -> ServiceTier {
    if value.kind == Kind::String { ServiceTier::new(value.inner(document)) } else { ServiceTier::default() }
}

/// Reads the members of the body one by one. What precedes a defect is still used.
fn walk(endpoint: Endpoint, body: &[u8], info: &mut UnaryInfo) -> Option<Report> {
    let mut members = Members::open(body, 0)?;
    let mut report = None;
    while let Ok(Some(member)) = members.next() {
        match member.name.inner(body) {
            b"usage" => report = self::report(endpoint, body, &member.value).or(report),
            b"choices" => choices(body, &member.value, info),
            b"service_tier" => info.service_tier = tier(body, &member.value),
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

/// The report of a body whose last members include a top-level `usage`, and the tier if it is among those behind it. In
/// valid JSON, what follows a member of the outermost object is members and one closing brace.
fn report_at_end(endpoint: Endpoint, body: &[u8]) -> Option<(Report, ServiceTier)> {
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
    let mut behind = ServiceTier::default();
    while let Some(member) = rest.next().ok()? {
        if member.name.inner(body) == b"service_tier" {
            behind = tier(body, &member.value);
        }
    }
    Cursor::new(body, rest.end()).end_of_document().ok()?;
    Some((report, behind))
}

/// The report of the `usage` object at `at`, and where it ends.
fn report_from(endpoint: Endpoint, body: &[u8], at: usize) -> Option<(Report, usize)> {
    if let Some(mut plain) = Plain::open(body, at)
        && let Some(counts) = plain.counts()
    {
        return Some((Report { at, ..counts.normalise(endpoint) }, plain.end()));
    }
    let mut members = Members::open(body, at)?;
    let report = report_of(endpoint, body, &mut members)?;
    Some((Report { at, ..report }, members.end()))
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
            let name = detail.name.inner(document);
            // Null and the like say nothing.
            if let Some(count) = detail.value.unsigned(document) {
                counts.detail(details, name, count);
            } else if let Some(deeper) = Details::of(name).filter(|it| *it == Details::CacheWrite) {
                text::for_each_member(document, &detail.value, |name, value| {
                    if let Some(count) = value.unsigned(document) {
                        counts.detail(deeper, name, count);
                    }
                });
            }
        }
        members.leave(&inner);
    }
    Some(counts.normalise(endpoint))
}

#[cfg(test)]
mod tests;
