//! The body that goes upstream: slices of the client's own bytes with the declared edits between them (I8,
//! decision B1). Nothing is copied, so a retry against another target costs nothing, and every target gets its
//! own edits. Called by dispatch, once per attempt.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::{
    Endpoint, Envelope, Hosting, LimitName, Provider, Span, StreamUsage,
    envelope::{GoogleConfig, Removable, StreamOptions},
};

/// Whom the body is for.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub provider: &'a Provider,
    /// What the upstream calls the model.
    pub upstream_model: &'a str,
}

/// Slices of the client's body and the edits between them, in order, none empty. Four: one edit, or two that touch.
pub type Segments = SmallVec<[Bytes; 4]>;

/// A request body for one target.
#[derive(Clone, Debug)]
pub struct Spliced {
    /// The body, to be sent in this order.
    pub segments: Segments,
    /// Sum of the lengths of the segments: the content length.
    pub len: usize,
    pub edits: EditSet,
    /// The answer will hold a usage-only chunk that the client did not ask for and must not see.
    pub strip_usage_chunk: bool,
}

/// Which kinds of edits were made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EditSet(u8);

impl EditSet {
    /// Members that a gateway defined were removed.
    pub const STRIP: Self = Self(1);
    /// The model was replaced by the upstream's name for it.
    pub const MODEL: Self = Self(2);
    /// `stream_options` was changed so that the upstream reports usage.
    pub const USAGE: Self = Self(4);
    /// The limit of the output was lowered, or set.
    pub const CAP: Self = Self(8);
    /// The limit of the output is told as the member that the upstream reads, and as no other.
    pub const LIMIT: Self = Self(16);

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Value of the response header `x-nemo-edits`; `None` when the body went upstream as it came.
    pub fn header_value(self) -> Option<&'static str> {
        const VALUES: [&str; 32] = [
            "",
            "strip",
            "model",
            "strip,model",
            "usage",
            "strip,usage",
            "model,usage",
            "strip,model,usage",
            "cap",
            "strip,cap",
            "model,cap",
            "strip,model,cap",
            "usage,cap",
            "strip,usage,cap",
            "model,usage,cap",
            "strip,model,usage,cap",
            "limit",
            "strip,limit",
            "model,limit",
            "strip,model,limit",
            "usage,limit",
            "strip,usage,limit",
            "model,usage,limit",
            "strip,model,usage,limit",
            "cap,limit",
            "strip,cap,limit",
            "model,cap,limit",
            "strip,model,cap,limit",
            "usage,cap,limit",
            "strip,usage,cap,limit",
            "model,usage,cap,limit",
            "strip,model,usage,cap,limit",
        ];
        VALUES.get(usize::from(self.0)).copied().filter(|value| !value.is_empty())
    }
}

/// One replacement: the bytes from `start` to `end` give way to `insert`.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) insert: Bytes,
    pub(crate) kind: EditSet,
}

impl Edit {
    fn delete(start: usize, end: usize, kind: EditSet) -> Self {
        Self { start, end, insert: Bytes::new(), kind }
    }

    fn usage(start: usize, end: usize, insert: &'static [u8]) -> Self {
        Self { start, end, insert: Bytes::from_static(insert), kind: EditSet::USAGE }
    }
}

/// The body for `target`.
///
/// # Panics
/// When `envelope` was parsed from another, longer body.
pub fn splice(body: &Bytes, envelope: &Envelope<'_>, endpoint: Endpoint, target: &Target<'_>) -> Spliced {
    splice_capped(body, envelope, endpoint, target, None)
}

/// The same with an output of at most `cap` tokens for each choice.
///
/// # Panics
/// As [`splice`].
pub fn splice_capped(
    body: &Bytes,
    envelope: &Envelope<'_>,
    endpoint: Endpoint,
    target: &Target<'_>,
    cap: Option<u64>,
) -> Spliced {
    let edits = plan(body, envelope, endpoint, target, cap);
    let mut spliced =
        Spliced { segments: SmallVec::new(), len: 0, edits: EditSet::default(), strip_usage_chunk: false };
    let mut copied = 0;
    for edit in edits {
        spliced.push(body.slice(copied..edit.start));
        spliced.push(edit.insert);
        spliced.edits.insert(edit.kind);
        copied = edit.end;
    }
    spliced.push(body.slice(copied..));
    let injected = target.provider.quirks.stream_usage == StreamUsage::Inject;
    spliced.strip_usage_chunk = injected && spliced.edits.contains(EditSet::USAGE) && !envelope.include_usage;
    spliced
}

impl Spliced {
    fn push(&mut self, segment: Bytes) {
        if !segment.is_empty() {
            self.len += segment.len();
            self.segments.push(segment);
        }
    }
}

/// The edits for `target`, in the order of the body, none overlapping another.
pub(crate) fn plan(
    body: &[u8],
    envelope: &Envelope<'_>,
    endpoint: Endpoint,
    target: &Target<'_>,
    cap: Option<u64>,
) -> SmallVec<[Edit; 4]> {
    let limits = Limits::of(body, envelope, endpoint, target);
    let mut edits = removals(envelope, target.provider, limits.dropped);
    let span = envelope.model_span;
    let absent = span.start == span.end;
    if endpoint == Endpoint::GenerateContent {
        // The path names it.
    } else if endpoint == Endpoint::Messages && target.provider.hosting == Hosting::Vertex {
        edits.push(version_for_model(body, span));
    } else if absent || !envelope.model_sent || envelope.model != target.upstream_model {
        let insert = Bytes::from(quoted_model(target.upstream_model, absent));
        edits.push(Edit { start: span.start, end: span.end, insert, kind: EditSet::MODEL });
    }
    if envelope.stream && endpoint.has_choices() && target.provider.quirks.stream_usage == StreamUsage::Inject
    {
        edits.extend(request_usage(envelope));
    }
    limit_output(body, envelope, endpoint, target, (limits, cap), &mut edits);
    // An insertion sorts before a deletion that starts where it stands.
    edits.sort_by_key(|edit| (edit.start, edit.end));
    edits
}

/// Vertex names the model in its path, and wants the version of Anthropic's interface where others want the model.
fn version_for_model(body: &[u8], value: Span) -> Edit {
    let insert = Bytes::from_static(br#""anthropic_version":"vertex-2023-10-16""#);
    Edit { start: name_of(body, value).start, end: value.end, insert, kind: EditSet::MODEL }
}

/// The name of the member with this value, which has no quote inside, however it is written.
fn name_of(body: &[u8], value: Span) -> Span {
    let quote = |before: usize| body[..before].iter().rposition(|byte| *byte == b'"').unwrap_or(0);
    let last = quote(value.start);
    Span { start: quote(last), end: last + 1 }
}

/// The model's name as JSON, with the member's own name when there is none.
fn quoted_model(name: &str, absent: bool) -> Vec<u8> {
    // Something stands behind it: an endpoint that has a default model has a content that it can't do without.
    let (before, after): (&[u8], &[u8]) = if absent { (b"\"model\":", b",") } else { (b"", b"") };
    if name.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        return [before, serde_json::Value::from(name).to_string().as_bytes(), after].concat();
    }
    [before, b"\"", name.as_bytes(), b"\"", after].concat()
}

/// Takes out the members that this provider must not see, and the limit that is `dropped`. A member goes with the comma
/// and white space before it; as long as nothing is kept yet, with those behind it. `model` is always kept, so something
/// is.
fn removals(envelope: &Envelope<'_>, provider: &Provider, dropped: Option<LimitName>) -> SmallVec<[Edit; 4]> {
    let mut edits = SmallVec::new();
    for member in &envelope.removable {
        let kind = match member.what {
            Removable::Extra(field) if !provider.quirks.native.contains(&field) => EditSet::STRIP,
            Removable::StreamOptions if provider.quirks.stream_usage == StreamUsage::Always => EditSet::USAGE,
            Removable::Limit(name) if dropped == Some(name) => EditSet::LIMIT,
            _ => continue,
        };
        let nothing_kept_before = member.index == edits.len();
        edits.push(if nothing_kept_before {
            Edit::delete(member.span.start, member.next_start, kind)
        } else {
            Edit::delete(member.previous_end, member.span.end, kind)
        });
    }
    edits
}

/// Sets `stream_options.include_usage`; `None` when the client did.
fn request_usage(envelope: &Envelope<'_>) -> Option<Edit> {
    let Span { start, end: end_of_model } = envelope.model_span;
    match envelope.stream_options {
        // Behind the model that was put there, which brought its comma.
        StreamOptions::Absent if start == end_of_model => {
            Some(Edit::usage(start, start, br#""stream_options":{"include_usage":true},"#))
        }
        StreamOptions::Absent => {
            Some(Edit::usage(end_of_model, end_of_model, br#","stream_options":{"include_usage":true}"#))
        }
        StreamOptions::Null(span) => Some(Edit::usage(span.start, span.end, br#"{"include_usage":true}"#)),
        StreamOptions::WithoutFlag { inside, empty: true } => {
            Some(Edit::usage(inside, inside, br#""include_usage":true"#))
        }
        StreamOptions::WithoutFlag { inside, empty: false } => {
            Some(Edit::usage(inside, inside, br#""include_usage":true,"#))
        }
        StreamOptions::Flag { asked: false, span } => Some(Edit::usage(span.start, span.end, b"true")),
        StreamOptions::Flag { asked: true, .. } => None,
    }
}

/// What becomes of the limits of the output that the client sent.
#[derive(Clone, Copy)]
struct Limits {
    /// The one that is sent: where its value stands, and how many tokens it allows.
    sent: Option<(Span, Option<u64>)>,
    /// It is sent under the name that the target reads.
    renamed: bool,
    /// The other one, which the target might read instead of it.
    dropped: Option<LimitName>,
}

impl Limits {
    /// What is reserved is what the target keeps to only if there is no doubt which limit it reads. Those that want
    /// `max_completion_tokens` read `max_tokens` as well, or refuse it.
    fn of(body: &[u8], envelope: &Envelope<'_>, endpoint: Endpoint, target: &Target<'_>) -> Self {
        let (old, new) = (envelope.limits.max_tokens, envelope.limits.max_completion_tokens);
        let only = |sent| Self { sent, renamed: false, dropped: None };
        if new.is_none() {
            return only(old);
        }
        let said = |limit: &(Span, Option<u64>)| body.get(limit.0.start) != Some(&b'n');
        let reads_both = target.provider.limit_name(endpoint, target.upstream_model) == Some(NEW_LIMIT);
        let (own, other, name) = match reads_both {
            true => (new, old, LimitName::MaxTokens),
            false => (old, new, LimitName::MaxCompletionTokens),
        };
        match (own, other.filter(said)) {
            (own, None) => only(own.or(other.filter(|_| reads_both))),
            (own, other) if reads_both && !own.as_ref().is_some_and(said) => only(other),
            (None, other) => Self { renamed: true, ..only(other) },
            (own, _) => Self { dropped: Some(name), ..only(own) },
        }
    }
}

const NEW_LIMIT: &str = "max_completion_tokens";

/// Tells the target the limit that holds: the client's, or the cap where that is lower, or where there is none.
fn limit_output(
    body: &[u8],
    envelope: &Envelope<'_>,
    endpoint: Endpoint,
    target: &Target<'_>,
    (limits, cap): (Limits, Option<u64>),
    edits: &mut SmallVec<[Edit; 4]>,
) {
    let name = || target.provider.limit_name(endpoint, target.upstream_model);
    let Some((value, allowed)) = limits.sent else {
        let Some(cap) = cap else { return };
        if endpoint == Endpoint::GenerateContent {
            edits.push(google_limit(envelope, cap));
        } else if let Some(name) = name() {
            let Span { start, end } = envelope.model_span;
            let member =
                if start == end { format!("\"{name}\":{cap},") } else { format!(",\"{name}\":{cap}") };
            edits.push(Edit { start: end, end, insert: Bytes::from(member), kind: EditSet::CAP });
        }
        return;
    };
    if limits.renamed
        && let Some(name) = name()
    {
        let Span { start, end } = name_of(body, value);
        edits.push(Edit { start, end, insert: Bytes::from(format!("\"{name}\"")), kind: EditSet::LIMIT });
    }
    let asked = envelope.max_output;
    let most = asked.into_iter().chain(cap).min();
    if let Some(most) = most.filter(|_| most != allowed) {
        let kind = if asked == Some(most) { EditSet::LIMIT } else { EditSet::CAP };
        let insert = Bytes::from(most.to_string());
        edits.push(Edit { start: value.start, end: value.end, insert, kind });
    }
}

/// The limit where Google's clients have none.
fn google_limit(envelope: &Envelope<'_>, cap: u64) -> Edit {
    let (start, end, text) = match envelope.limits.google {
        GoogleConfig::Absent => {
            let start = envelope.model_span.start;
            (start, start, format!(r#""generationConfig":{{"maxOutputTokens":{cap}}},"#))
        }
        GoogleConfig::Null(span) => (span.start, span.end, format!(r#"{{"maxOutputTokens":{cap}}}"#)),
        GoogleConfig::Object { inside, empty } => {
            let comma = if empty { "" } else { "," };
            (inside, inside, format!(r#""maxOutputTokens":{cap}{comma}"#))
        }
    };
    Edit { start, end, insert: Bytes::from(text), kind: EditSet::CAP }
}

#[cfg(test)]
mod tests;
