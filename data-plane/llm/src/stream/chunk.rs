//! What one chunk of a stream tells. Most chunks carry a few characters of text and nothing else, so each is
//! searched for the names that matter, and only the rare one that has something to report is walked.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use nemo_types::{Measure, Nanos, Usage};

use crate::{
    Endpoint, FinishReason, ServiceTier, UpstreamErrorInfo, decode_error,
    json::{Cursor, Kind, Members, Value},
    sse::{RawEvent, SseEvent},
    usage_scan::{
        self, CostEdit, CostPlace, Pricing, Report, Told, Units,
        native::{self, Anthropic, Google},
        text,
        units::{self, Seen},
    },
};

/// What is to happen to an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Keep,
    Cut,
    /// The cost is to be put into its data.
    Price(CostEdit),
    /// No event that a client could read: whoever sent it is out of order.
    Malformed,
}

/// Everything remembered of a stream.
#[derive(Debug)]
pub(super) struct Notes {
    endpoint: Endpoint,
    /// Usage-only chunks are to be cut out.
    cut: bool,
    /// What the call costs, for the chunk that ends it with its usage; when the client wants to be told.
    pub(super) pricing: Option<Pricing>,
    /// `[DONE]` was seen.
    done: bool,
    /// A choice has ended and no text has come since.
    ended: bool,
    pub(super) seen_content: bool,
    /// An event was no JSON.
    pub(super) malformed: bool,
    pub(super) usage: Option<Usage>,
    pub(super) cost: Option<Nanos>,
    pub(super) tier: ServiceTier,
    units: Units,
    pub(super) finish_reason: Option<FinishReason>,
    pub(super) output_bytes: u64,
    /// How many there were when the usage was reported.
    pub(super) reported_bytes: u64,
    pub(super) error: Option<UpstreamErrorInfo>,
    /// Of the endpoints with named events: what the events that end something have told.
    told: Option<Box<Seen>>,
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"error\""));
static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));
static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"delta\""));
static TEXT: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"text\""));

impl Notes {
    pub(super) fn new(endpoint: Endpoint, cut: bool) -> Self {
        Self {
            endpoint,
            cut,
            pricing: None,
            done: false,
            ended: false,
            seen_content: false,
            malformed: false,
            usage: None,
            cost: None,
            tier: ServiceTier::default(),
            units: Units::default(),
            finish_reason: None,
            output_bytes: 0,
            reported_bytes: 0,
            error: None,
            told: None,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done || self.ended || self.error.is_some()
    }

    /// Takes note of a complete event as it lies in the stream.
    pub(super) fn raw(&mut self, raw: &RawEvent<'_>) -> Verdict {
        match raw.event {
            _ if self.malformed => Verdict::Malformed,
            Some(event) => self.event(event),
            None => {
                // Too long to be looked at: an image, and so content. Comments have bytes.
                self.seen_content |= raw.bytes.is_none();
                Verdict::Keep
            }
        }
    }

    /// Takes note of a complete event.
    pub(super) fn event(&mut self, event: SseEvent<'_>) -> Verdict {
        let data = event.data.trim_ascii();
        if data.first() != Some(&b'{') {
            self.done |= data == b"[DONE]";
            if event.name == b"error" {
                self.fail(data);
                return Verdict::Keep;
            }
            // An empty event is none, by the rules of server-sent events.
            if data.is_empty() || self.done {
                return Verdict::Keep;
            }
        }
        if !self.is_well_formed(data) {
            self.malformed = true;
            return Verdict::Malformed;
        }
        if !self.endpoint.has_choices() {
            match self.endpoint {
                Endpoint::GenerateContent => self.google(data),
                _ => self.named(event.name, data),
            }
            return Verdict::Keep;
        }
        self.text(data);
        let finish = values_of(&FINISH, data).find(|value| value.kind == Kind::String);
        if let Some(value) = finish {
            self.ended = true;
            self.seen_content = true;
            if self.finish_reason.is_none() {
                self.finish_reason = value.text(data).map(|reason| FinishReason::new(&reason));
            }
        }
        let failed = event.name == b"error" || ERROR.find(data).is_some() && is_error(data);
        if failed {
            self.fail(data);
        }
        let reports = values_of(&USAGE, data).any(|value| value.kind == Kind::Object);
        if !reports {
            return Verdict::Keep;
        }
        let chunk = self.report(data);
        match chunk.place {
            _ if failed => Verdict::Keep,
            _ if self.cut && chunk.only_usage => Verdict::Cut,
            Some(place) if chunk.only_usage || self.ended => self.price(data, place),
            _ => Verdict::Keep,
        }
    }

    /// What puts the cost of the call into the chunk that ends it.
    fn price(&self, data: &[u8], place: CostPlace) -> Verdict {
        let Some(pricing) = &self.pricing else { return Verdict::Keep };
        let told = Told {
            usage: self.usage.as_ref(),
            measures: &self.measures(),
            service_tier: self.tier,
            provider_cost: self.cost,
        };
        let edit = pricing.cost(&told).and_then(|cost| place.edit(data, cost));
        edit.map_or(Verdict::Keep, Verdict::Price)
    }

    /// Takes note of an event that has a type, in its name or in a member: of responses, images, speech and
    /// transcriptions. A few types end the answer; all others are parts of it.
    fn named(&mut self, name: &[u8], data: &[u8]) {
        let Some(kind) = kind_of(name, data) else { return };
        match kind {
            b"error" => self.fail(data),
            b"response.completed" | b"response.incomplete" | b"response.failed" => {
                self.ended = true;
                let seen_content = self.seen_content;
                self.response(data);
                if kind == b"response.failed" {
                    self.seen_content = seen_content;
                    self.error.get_or_insert_with(|| response_error(data));
                }
            }
            b"image_generation.completed" | b"image_edit.completed" => {
                self.ended = true;
                let before = self.told.as_ref().map_or(0, |told| told.images());
                self.read(data, 0);
                self.told.get_or_insert_default().completes_image(before);
            }
            b"speech.audio.done" | b"transcript.text.done" => {
                self.ended = true;
                self.read(data, 0);
            }
            b"message_start" => self.anthropic(data),
            b"message_delta" => {
                self.seen_content = true;
                self.anthropic(data);
            }
            b"message_stop" => self.ended = true,
            b"content_block_start" => self.seen_content |= Anthropic::begins_content(data),
            b"content_block_stop" => {}
            b"content_block_delta" => {
                self.seen_content = true;
                self.output_bytes +=
                    values_of(&DELTA, data).map(|value| text::generated(data, &value)).sum::<u64>();
            }
            // Before the first content: nothing has been said yet.
            b"response.created" | b"response.queued" | b"response.in_progress" | b"ping" | b"keepalive" => {}
            // Something is about to come.
            _ if kind.starts_with(b"response.") && kind.ends_with(b".added") => {}
            _ if ERROR.find(data).is_some() && is_error(data) => self.fail(data),
            _ => {
                self.seen_content = true;
                if matches!(self.endpoint, Endpoint::Responses | Endpoint::Transcriptions) {
                    self.output_bytes +=
                        values_of(&DELTA, data).map(|value| text::length(data, &value)).sum::<u64>();
                }
            }
        }
    }

    /// Takes note of the events of Anthropic's that report something.
    fn anthropic(&mut self, data: &[u8]) {
        let said = Anthropic::event(data);
        self.finish_reason = said.finish.or(self.finish_reason.take());
        if let Some(report) = said.report {
            let usage = native::merged(report.usage, self.usage.unwrap_or_default());
            self.take(Report { usage, ..report });
        }
    }

    /// Takes note of a chunk of Google's, each of which looks like a whole answer.
    fn google(&mut self, data: &[u8]) {
        let Some(mut members) = Members::open(data, 0) else { return };
        let mut said = Google::default();
        while let Ok(Some(member)) = members.next() {
            match member.name.inner(data) {
                b"error" if member.value.kind == Kind::Object => return self.fail(data),
                name => said.member(data, name, &member.value),
            }
        }
        self.output_bytes += said.output_bytes;
        self.seen_content |= said.output_bytes > 0 || said.media || said.finish.is_some();
        self.ended |= said.finish.is_some();
        self.finish_reason = self.finish_reason.take().or(said.finish);
        if let Some(report) = said.report {
            self.take(report);
        }
    }

    /// Until the first content every event is read whole: there is a way back still, and most streams have one event
    /// before it. Later on the end of an event tells whether it was cut off.
    fn is_well_formed(&self, data: &[u8]) -> bool {
        let braces = data.first() == Some(&b'{') && data.last() == Some(&b'}');
        let whole = || {
            let mut cursor = Cursor::new(data, 0);
            cursor.value(0).is_ok() && cursor.position() == data.len()
        };
        braces && (self.seen_content || whole())
    }

    /// The object inside of the event that ends a response.
    fn response(&mut self, data: &[u8]) {
        let Some(mut members) = Members::open(data, 0) else { return };
        while let Ok(Some(member)) = members.next() {
            if member.name.inner(data) == b"response" {
                return self.read(data, member.value.span.start);
            }
        }
    }

    /// Reads the report in the object at `at`.
    fn read(&mut self, data: &[u8], at: usize) {
        let Some(mut members) = Members::open(data, at) else { return };
        let told = self.told.get_or_insert_default();
        told.members(self.endpoint, data, &mut members);
        self.seen_content = true;
        self.finish_reason = told.finish().or(self.finish_reason.take());
        self.tier = told.tier.or(self.tier);
        if let Some(report) = told.report {
            self.take(report);
        }
    }

    fn take(&mut self, Report { usage, cost, units, tier, .. }: Report) {
        if !usage.is_unknown() {
            (self.usage, self.reported_bytes) = (Some(usage), self.output_bytes);
        }
        self.cost = cost.or(self.cost);
        self.units = units.or(self.units);
        self.tier = tier.or(self.tier);
    }

    pub(super) fn measures(&self) -> Vec<Measure> {
        match &self.told {
            Some(told) => told.measures(self.endpoint),
            None => self.units.of_chat(),
        }
    }

    fn fail(&mut self, data: &[u8]) {
        if self.error.is_none() {
            self.error = Some(decode_error(data));
        }
    }

    /// Counts the text of a chunk.
    fn text(&mut self, data: &[u8]) {
        let finder = match self.endpoint {
            Endpoint::Completions => &TEXT,
            _ => &DELTA,
        };
        for value in values_of(finder, data) {
            let bytes = text::generated(data, &value);
            self.output_bytes += bytes;
            self.seen_content |= bytes > 0 || text::says_more_than_a_role(data, &value);
            self.ended &= bytes == 0;
        }
    }

    /// Reads a chunk that carries usage.
    fn report(&mut self, data: &[u8]) -> Chunk {
        let Some(mut members) = Members::open(data, 0) else { return Chunk::default() };
        let (mut found, mut nested, mut no_choices) = (None, None, false);
        while let Ok(Some(member)) = members.next() {
            let value = &member.value;
            match member.name.inner(data) {
                b"usage" => found = usage_scan::report(self.endpoint, data, value),
                b"service_tier" => self.tier = usage_scan::tier(data, value).or(self.tier),
                // Groq and Moonshot report in places of their own.
                b"x_groq" => nested = self.inside(data, value).or(nested),
                b"choices" => {
                    no_choices = value
                        .inner(data)
                        .iter()
                        .all(|byte| matches!(byte, b'[' | b']') || byte.is_ascii_whitespace());
                    text::for_each_object(data, value, |choice| {
                        nested = self.inside(data, choice).or(nested)
                    });
                }
                _ => {}
            }
        }
        let place = found.map(|report| CostPlace { usage_at: report.at });
        if let Some(report) = found.or(nested) {
            self.take(report);
        }
        Chunk { only_usage: no_choices && place.is_some(), place }
    }

    fn inside(&self, data: &[u8], value: &Value) -> Option<Report> {
        let mut members = Members::of(data, value)?;
        while let Ok(Some(member)) = members.next() {
            if member.name.inner(data) == b"usage" {
                return usage_scan::report(self.endpoint, data, &member.value);
            }
        }
        None
    }
}

/// What a chunk that carries usage is.
#[derive(Clone, Copy, Default)]
struct Chunk {
    /// It carries nothing else.
    only_usage: bool,
    /// Where in it the cost belongs.
    place: Option<CostPlace>,
}

/// The values of the members with the name that `finder` looks for, at any depth. A quoted name is only ever a
/// name or a string value in a chunk: inside of a string its quotes are escaped.
fn values_of<'d>(finder: &'d Finder<'static>, data: &'d [u8]) -> impl Iterator<Item = Value> + 'd {
    let mut from = 0;
    std::iter::from_fn(move || {
        loop {
            let at = from + finder.find(data.get(from..)?)?;
            from = at + finder.needle().len();
            let mut cursor = Cursor::new(data, from);
            cursor.skip_whitespace();
            if cursor.peek() != Some(b':') {
                continue;
            }
            let mut cursor = Cursor::new(data, cursor.position() + 1);
            let Ok(value) = cursor.value(1) else { continue };
            from = cursor.position();
            return Some(value);
        }
    })
}

/// The type of an event: its name, else its member `type`.
fn kind_of<'d>(name: &'d [u8], data: &'d [u8]) -> Option<&'d [u8]> {
    if !name.is_empty() {
        return Some(name);
    }
    let mut members = Members::open(data, 0)?;
    while let Ok(Some(member)) = members.next() {
        if member.name.inner(data) == b"type" {
            return Some(member.value.inner(data));
        }
    }
    // An error of the gateway's or of a proxy before the upstream has no type.
    is_error(data).then_some(b"error")
}

/// The `error` of the response that has failed.
fn response_error(data: &[u8]) -> UpstreamErrorInfo {
    let whole = Cursor::new(data, 0).value(0).ok();
    let response = whole.and_then(|event| units::member(data, &event, b"response"));
    let error = response.and_then(|response| units::member(data, &response, b"error"));
    error.map(|error| decode_error(error.raw(data))).unwrap_or_default()
}

/// Whether a chunk is an error: it has an `error`, or says of itself that it is one.
fn is_error(data: &[u8]) -> bool {
    let Some(mut members) = Members::open(data, 0) else { return false };
    while let Ok(Some(member)) = members.next() {
        match member.name.inner(data) {
            b"error" if member.value.kind != Kind::Null => return true,
            b"object" if member.value.inner(data) == b"error" => return true,
            _ => {}
        }
    }
    false
}
