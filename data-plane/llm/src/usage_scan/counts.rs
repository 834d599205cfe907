//! The counts of a `usage` object, as each provider names and adds them, brought to the one convention of
//! [`nemo_types::Usage`]. Filled by [`super::plain`] and by the walker of [`super`].

use nemo_types::{Measure, Nanos, Unit, Usage};

use super::units;
use crate::{
    Endpoint, ServiceTier, decimal,
    json::{Kind, Members, Value},
};

/// Token counts and cost of one `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) usage: Usage,
    pub(crate) cost: Option<Nanos>,
    pub(crate) units: Units,
    /// Where the object stands in its document, white space before it included.
    pub(crate) at: usize,
    /// Where a provider tells the tier among the counts (Anthropic does).
    pub(crate) tier: ServiceTier,
}

/// Counts of other units in a `usage` object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// Part of the input tokens that is images.
    pub(crate) image_input: Option<u64>,
    /// Part of the output tokens that is images.
    pub(crate) image_output: Option<u64>,
    pub(crate) audio_ms: Option<u64>,
    /// Searches of the web that the provider made.
    pub(crate) web_searches: Option<u64>,
}

impl Units {
    pub(crate) fn measures(self) -> impl Iterator<Item = Measure> {
        let counts = [
            (Unit::AudioMilliseconds, self.audio_ms),
            (Unit::ImageInputTokens, self.image_input),
            (Unit::ImageOutputTokens, self.image_output),
            (Unit::WebSearches, self.web_searches),
        ];
        counts.into_iter().filter_map(|(unit, count)| Some(Measure::new(unit, count?)))
    }

    /// Without those of nothing: most chats that count images and searches have none.
    pub(crate) fn of_chat(self) -> Vec<Measure> {
        self.measures().filter(|measure| measure.quantity > 0).collect()
    }

    /// These, and those of `other` that were not told here.
    pub(crate) fn or(self, other: Self) -> Self {
        Self {
            image_input: self.image_input.or(other.image_input),
            image_output: self.image_output.or(other.image_output),
            audio_ms: self.audio_ms.or(other.audio_ms),
            web_searches: self.web_searches.or(other.web_searches),
        }
    }
}

/// Counts as the providers name them.
#[derive(Default)]
pub(super) struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    /// `prompt_cache_hit_tokens`, `cached_tokens`: outside of the details.
    cached: Option<u64>,
    /// Anthropic's `cache_read_input_tokens` and `cache_creation_input_tokens`, which may stand beside the prompt.
    beside_read: Option<u64>,
    beside_write: Option<u64>,
    /// The prompt is called `input_tokens`, as Anthropic calls it.
    input: bool,
    write_5m: Option<u64>,
    usage: Usage,
    cost: Option<Nanos>,
    units: Units,
    tier: ServiceTier,
    /// Google's prompt for the tools that it runs, beside the client's.
    tool_prompt: Option<u64>,
}

/// What a count is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Details {
    Prompt,
    Completion,
    /// What was written to the prompt cache, by how long it is kept.
    CacheWrite,
    /// Calls of tools that the provider runs.
    Tools,
}

impl Details {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"prompt_tokens_details" | b"input_tokens_details" | b"input_token_details" => Some(Self::Prompt),
            b"completion_tokens_details" | b"output_tokens_details" => Some(Self::Completion),
            b"cache_creation" | b"cache_creation_token_details" => Some(Self::CacheWrite),
            b"server_tool_use" => Some(Self::Tools),
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

/// xAI counts its cost in these: ten thousand million of them are a dollar.
const TICKS_PER_NANO: u64 = 10;

impl Counts {
    pub(super) fn take(&mut self, document: &[u8], name: &[u8], value: &Value) {
        match name {
            b"seconds" => self.units.audio_ms = units::millis(document, value),
            b"cost" => self.cost = cost(document, value).or(self.cost),
            b"cost_details" => self.cost = self.cost.or_else(|| cost(document, value)),
            b"service_tier" => self.tier = super::tier(document, value),
            b"promptTokensDetails" | b"candidatesTokensDetails" => self.modalities(document, name, value),
            _ => _ = self.count(name, value.unsigned(document)),
        }
    }

    /// Takes a word, or that there is no count; false for what is to be read otherwise.
    pub(super) fn word(&mut self, name: &[u8], text: &[u8]) -> bool {
        if name == b"service_tier" {
            self.tier = ServiceTier::new(text);
            return true;
        }
        self.count(name, None)
    }

    /// Takes a count, or that there is none; false for a member that is no count.
    pub(super) fn count(&mut self, name: &[u8], count: Option<u64>) -> bool {
        match name {
            b"prompt_tokens" => self.prompt = count.or(self.prompt),
            b"input_tokens" => (self.prompt, self.input) = (count.or(self.prompt), count.is_some()),
            b"completion_tokens" | b"output_tokens" => self.completion = count.or(self.completion),
            b"total_tokens" => self.total = count,
            b"prompt_cache_hit_tokens" | b"cached_tokens" | b"num_cached_tokens" => self.cached = count,
            b"cache_read_input_tokens" => self.beside_read = count,
            b"cache_creation_input_tokens" => self.beside_write = count,
            b"reasoning_tokens" => self.usage.reasoning = self.usage.reasoning.or(count),
            // Perplexity's name, and that of xAI's live search.
            b"num_search_queries" | b"num_sources_used" => {
                self.units.web_searches = self.units.web_searches.or(count);
            }
            b"cost_in_usd_ticks" => self.ticks(count),
            b"seconds" | b"cost" | b"cost_details" | b"service_tier" => return false,
            _ if name.ends_with(b"TokenCount") => self.of_google(name, count),
            _ => {}
        }
        true
    }

    #[cold]
    fn of_google(&mut self, name: &[u8], count: Option<u64>) {
        match name {
            b"promptTokenCount" => self.prompt = count,
            b"toolUsePromptTokenCount" => self.tool_prompt = count,
            b"candidatesTokenCount" => self.completion = count,
            b"thoughtsTokenCount" => self.usage.reasoning = count,
            b"cachedContentTokenCount" => self.cached = count,
            _ => {}
        }
    }

    /// Google tells in lists what the tokens stand for.
    #[cold]
    fn modalities(&mut self, document: &[u8], name: &[u8], list: &Value) {
        super::text::for_each_object(document, list, |item| {
            let kind = units::member(document, item, b"modality");
            let count =
                units::member(document, item, b"tokenCount").and_then(|count| count.unsigned(document));
            let place = match (name, kind.map(|kind| kind.inner(document))) {
                (b"promptTokensDetails", Some(b"AUDIO")) => &mut self.usage.audio_input,
                (b"promptTokensDetails", Some(b"IMAGE")) => &mut self.units.image_input,
                (b"candidatesTokensDetails", Some(b"AUDIO")) => &mut self.usage.audio_output,
                (b"candidatesTokensDetails", Some(b"IMAGE")) => &mut self.units.image_output,
                _ => return,
            };
            *place = count.or(*place);
        });
    }

    /// Google counts thoughts beside the answer, and the prompts of its own tools beside the prompt.
    fn google(self) -> Report {
        let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        let output = sum(self.completion, self.usage.reasoning);
        let input = sum(self.prompt, self.tool_prompt);
        let usage = Usage { input, output, cache_read: self.cached, ..self.usage };
        Report { usage, cost: self.cost, units: self.units, at: 0, tier: self.tier }
    }

    fn ticks(&mut self, count: Option<u64>) {
        let nanos = count.and_then(|ticks| i64::try_from(ticks.div_ceil(TICKS_PER_NANO)).ok());
        self.cost = self.cost.or(nanos.map(Nanos));
    }

    pub(super) fn detail(&mut self, of: Details, name: &[u8], count: u64) {
        let (usage, units) = (&mut self.usage, &mut self.units);
        let place = match (of, name) {
            (Details::Prompt, b"cached_tokens") => &mut usage.cache_read,
            (
                Details::Prompt,
                b"cache_write_tokens" | b"cache_creation_tokens" | b"cache_creation_input_tokens",
            ) => &mut usage.cache_write,
            (Details::Prompt, b"audio_tokens") => &mut usage.audio_input,
            (Details::Prompt, b"image_tokens") => &mut units.image_input,
            (Details::Completion, b"reasoning_tokens") => &mut usage.reasoning,
            (Details::Completion, b"audio_tokens") => &mut usage.audio_output,
            (Details::Completion, b"image_tokens") => &mut units.image_output,
            (Details::CacheWrite, b"ephemeral_5m_input_tokens") => &mut self.write_5m,
            (Details::CacheWrite, b"ephemeral_1h_input_tokens") => &mut usage.cache_write_1h,
            (Details::Tools, b"web_search_requests") => &mut units.web_searches,
            _ => return,
        };
        *place = Some(count);
    }

    /// Brings the counts to the conventions of [`Usage`]: cached tokens inside the prompt (so counts nearly everyone
    /// here) and reasoning inside the completion (so counts OpenAI; the others are told by their sums).
    pub(super) fn normalise(self, endpoint: Endpoint) -> Report {
        if endpoint == Endpoint::GenerateContent {
            return self.google();
        }
        let (prompt, beyond) = self.whole_prompt();
        let Self { completion, total, cached, beside_read, beside_write, mut usage, cost, units, .. } = self;
        usage.input = match (prompt, endpoint) {
            // All tokens of an embedding are prompt tokens, and of a ranking.
            (None, Endpoint::Embeddings | Endpoint::Rerank) => total,
            (prompt, _) => prompt,
        };
        usage.cache_read = usage.cache_read.or(cached).or(beside_read);
        usage.cache_write = usage.cache_write.or(beside_write).or_else(|| self.written());
        let reasoning = usage.reasoning.unwrap_or(0);
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
        Report { usage, cost, units, at: 0, tier: self.tier }
    }

    /// What was written to the cache, where only its parts are told.
    fn written(&self) -> Option<u64> {
        match (self.write_5m, self.usage.cache_write_1h) {
            (None, None) => None,
            (short, hour) => short.unwrap_or(0).checked_add(hour.unwrap_or(0)),
        }
    }

    /// All prompt tokens, and how far the total is beyond them and the completion.
    ///
    /// Anthropic counts what was read from the cache or written to it beside its `input_tokens`. Whoever passes its
    /// counts on as `prompt_tokens` may have added them or not: then the total tells, and what is impossible otherwise.
    fn whole_prompt(&self) -> (Option<u64>, Option<u64>) {
        let beyond = |prompt: Option<u64>| {
            let (total, (prompt, completion)) = self.total.zip(prompt.zip(self.completion))?;
            total.checked_sub(prompt)?.checked_sub(completion).filter(|beyond| *beyond > 0)
        };
        let (told, cached) = (self.prompt, self.cached_beside());
        let Some((prompt, cached)) = told.zip(cached).filter(|(_, cached)| *cached > 0) else {
            return (told, beyond(told));
        };
        let left_out = match (beyond(told), self.total) {
            (Some(beyond), _) => {
                beyond == cached || beyond == cached.saturating_add(self.usage.reasoning.unwrap_or(0))
            }
            // It adds up without them.
            (None, Some(_)) if self.completion.is_some() => prompt < cached,
            (None, _) => self.input || prompt < cached,
        };
        let prompt = if left_out { prompt.checked_add(cached) } else { Some(prompt) };
        (prompt, beyond(prompt))
    }

    fn cached_beside(&self) -> Option<u64> {
        match (self.beside_read, self.beside_write) {
            (None, None) => None,
            (read, write) => read.unwrap_or(0).checked_add(write.unwrap_or(0)),
        }
    }
}
