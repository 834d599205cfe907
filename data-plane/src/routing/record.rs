//! The record of a decision: `nemo.usage.v1.Decision`, written straight into one buffer at the time of the decision
//! and finished with the attempts at the end of the request. [`Record::decode`] is the way back, for a replay.
//!
//! Called by `pipeline::route` and `pipeline::context`. The table of deployments is at a fixed place near the beginning,
//! so that attempts find theirs without another index.

mod decode;
#[cfg(test)]
mod tests;

use bytes::BufMut as _;
use nemo_llm::{MaxPrice, Preferences};
use nemo_proto::usage::{
    CoolingCause, DecisionAttempt, DecisionChain, DecisionElimination, DecisionHealth, DecisionPreferences,
    DecisionRefusal, EliminationReason, PriceCeiling, RefusalReason, RoutingStrategy,
};
use nemo_snapshot::{Strategy, TagNames};
use nemo_types::DeploymentId;
use prost::Message;
use smallvec::SmallVec;

pub use self::decode::{ChainKind, Record, RecordError, RecordedElimination};
use crate::pipeline::attempts::AttemptRecord;

use super::{Ask, Cause, Ceiling, Chain, Decision, Elimination, Gate, NoCandidate, Reason, Seen, Why};

/// Of the meaning of what is written here.
pub const VERSION: u32 = 1;
/// What comes after this many bytes is left out, and said to be: eliminations and attempts.
const MAX_BYTES: usize = 32 * 1024;
/// Enough for a few candidates, so that most records are written without growing.
const USUAL_BYTES: usize = 224;

/// A decision's question, in terms that outlive the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub ask: &'a Ask<'a>,
    /// The name that led to the first model group, as it was resolved.
    pub model: &'a str,
    /// Those of the chain that the request gave.
    pub chain: &'a [Box<str>],
    /// The request named the strategy; otherwise it is that of the group or of the settings.
    pub strategy_asked: bool,
    /// The request named the ceiling of cost; otherwise it is that of the settings.
    pub max_cost_asked: bool,
}

/// One call of an upstream, as the record has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempted {
    pub deployment: DeploymentId,
    pub link: u8,
    /// 0: there was no answer.
    pub status: u16,
    /// Of the error table.
    pub error: Option<&'static str>,
    /// Since the request came in.
    pub started_us: u32,
    pub took_us: u32,
    /// Before it.
    pub waited_us: u32,
}

impl From<&AttemptRecord> for Attempted {
    fn from(it: &AttemptRecord) -> Self {
        Self {
            deployment: it.deployment.id,
            link: it.link,
            status: it.status,
            error: it.error,
            started_us: it.started_us,
            took_us: it.took_us,
            waited_us: it.waited_us,
        }
    }
}

/// Numbers of the fields of `Decision`.
mod field {
    pub const VERSION: u32 = 1;
    pub const DEPLOYMENTS: u32 = 2;
    pub const SEED: u32 = 3;
    pub const STRATEGY: u32 = 4;
    pub const STRATEGY_ASKED: u32 = 5;
    pub const NAMES: u32 = 6;
    pub const CHAIN: u32 = 7;
    pub const TAGS: u32 = 8;
    pub const INPUT_TOKENS: u32 = 9;
    pub const OUTPUT_TOKENS: u32 = 10;
    pub const FIRST_LINK_ONLY: u32 = 11;
    pub const PREFERENCES: u32 = 12;
    pub const MAX_COST: u32 = 13;
    pub const PICKS: u32 = 14;
    pub const REFUSAL: u32 = 15;
    pub const ELIMINATED: u32 = 16;
    pub const SEEN: u32 = 17;
    pub const ATTEMPTS: u32 = 18;
    pub const CUT: u32 = 19;
    pub const MAX_COST_ASKED: u32 = 20;
    pub const ASKED_STRATEGY: u32 = 21;
    pub const ELIMINATED_MORE: u32 = 22;
    pub const REST_COOLING: u32 = 23;
    pub const IMPLIED: u32 = 24;
    pub const LEAST_INPUT_TOKENS: u32 = 25;
}

/// Where the length of the table stands: behind the version (two bytes) and the table's own key.
const TABLE: usize = 3;

type Table = SmallVec<[DeploymentId; 8]>;

/// The record of a decision. [`finish`] adds what came of it.
pub fn begin(asked: &Asked<'_>, tags: &TagNames, outcome: Result<&Decision, &NoCandidate>) -> Vec<u8> {
    let (decision, why) = match outcome {
        Ok(decision) => (decision, None),
        Err(none) => (&none.decision, Some(none.why)),
    };
    let table = table(decision);
    let mut out = Vec::with_capacity(USUAL_BYTES);
    varint_field(&mut out, field::VERSION, VERSION.into());
    key(&mut out, field::DEPLOYMENTS, Wire::Bytes);
    varint(&mut out, 16 * table.len() as u64);
    table.iter().for_each(|id| out.put_slice(id.as_bytes()));
    key(&mut out, field::SEED, Wire::Fixed64);
    out.put_u64_le(decision.seed);
    varint_field(&mut out, field::STRATEGY, strategy(decision.strategy));
    put_ask(&mut out, asked, tags);
    // Packed: a byte each.
    if !decision.picks.is_empty() {
        key(&mut out, field::PICKS, Wire::Bytes);
        varint(&mut out, decision.picks.iter().map(|pick| varint_len(pick.link.into())).sum());
        decision.picks.iter().for_each(|pick| varint(&mut out, pick.link.into()));
    }
    if let Some(why) = why {
        message(&mut out, field::REFUSAL, &refusal(why));
    }
    for seen in &decision.seen {
        message(&mut out, field::SEEN, &health(seen, &table));
    }
    flag(&mut out, field::REST_COOLING, decision.rest_cooling);
    flag(&mut out, field::MAX_COST_ASKED, asked.max_cost_asked);
    if asked.ask.strategy != decision.strategy {
        varint_field(&mut out, field::ASKED_STRATEGY, strategy(asked.ask.strategy));
    }
    put_eliminated(&mut out, decision, &table, tags);
    out
}

/// Adds what came of it.
pub fn finish(mut record: Vec<u8>, attempts: impl Iterator<Item = Attempted>) -> Vec<u8> {
    if record.is_empty() {
        return record;
    }
    let mut cut = false;
    for attempt in attempts {
        match position(&record, attempt.deployment) {
            Some(deployment) if record.len() < 2 * MAX_BYTES => {
                message(&mut record, field::ATTEMPTS, &attempted(&attempt, deployment));
            }
            _ => cut = true,
        }
    }
    flag(&mut record, field::CUT, cut);
    record
}

/// Each once: the picks, then whoever else is named.
fn table(decision: &Decision) -> Table {
    let mut table: Table = decision.picks.iter().map(|pick| pick.deployment.id).collect();
    let others = decision.eliminated.iter().map(|it| it.deployment.id);
    for id in others.chain(decision.seen.iter().map(|it| it.deployment)) {
        if !table.contains(&id) {
            table.push(id);
        }
    }
    table
}

/// Where a deployment stands in the table of a record.
fn position(record: &[u8], id: DeploymentId) -> Option<u32> {
    let mut rest = record.get(TABLE..)?;
    let len = usize::try_from(prost::decode_length_delimiter(&mut rest).ok()? as u64).ok()?;
    let at = rest.get(..len)?.chunks_exact(16).position(|one| one == id.as_bytes())?;
    u32::try_from(at).ok()
}

fn put_ask(out: &mut Vec<u8>, asked: &Asked<'_>, tags: &TagNames) {
    let ask = asked.ask;
    flag(out, field::STRATEGY_ASKED, asked.strategy_asked);
    text(out, field::NAMES, asked.model);
    asked.chain.iter().for_each(|name| text(out, field::NAMES, name));
    let chain = match ask.links {
        Chain::Group(_) => DecisionChain::Group,
        Chain::Models(_) => DecisionChain::Models,
        Chain::Instead { .. } => DecisionChain::Instead,
    };
    varint_field(out, field::CHAIN, number(chain.into()));
    if !ask.tags.is_empty() {
        tags.names(ask.tags).for_each(|tag| text(out, field::TAGS, tag));
    }
    if !ask.implied.is_empty() {
        tags.names(ask.implied).for_each(|tag| text(out, field::IMPLIED, tag));
    }
    varint_field(out, field::INPUT_TOKENS, ask.input_tokens);
    varint_field(out, field::LEAST_INPUT_TOKENS, ask.least_input_tokens);
    if let Some(tokens) = ask.output_tokens {
        key(out, field::OUTPUT_TOKENS, Wire::Varint);
        varint(out, tokens);
    }
    flag(out, field::FIRST_LINK_ONLY, !ask.fallbacks);
    if let Some(wanted) = ask.preferences {
        message(out, field::PREFERENCES, &preferences(wanted));
    }
    if let Some(nanos) = ask.max_cost {
        key(out, field::MAX_COST, Wire::Varint);
        varint(out, nanos.0.cast_unsigned());
    }
}

fn put_eliminated(out: &mut Vec<u8>, decision: &Decision, table: &Table, tags: &TagNames) {
    let mut more = decision.eliminated_more;
    for it in &decision.eliminated {
        let elimination = elimination(it, table, tags);
        if out.len() + elimination.encoded_len() < MAX_BYTES {
            message(out, field::ELIMINATED, &elimination);
        } else {
            more = more.saturating_add(1);
        }
    }
    varint_field(out, field::ELIMINATED_MORE, more.into());
    flag(out, field::CUT, more > decision.eliminated_more);
}

fn place(id: DeploymentId, table: &Table) -> u32 {
    let at = table.iter().position(|known| *known == id);
    at.and_then(|at| u32::try_from(at).ok()).unwrap_or(u32::MAX)
}

fn elimination(it: &Elimination, table: &Table, tags: &TagNames) -> DecisionElimination {
    let mut record = DecisionElimination {
        deployment: place(it.deployment.id, table),
        link: it.link.into(),
        ..DecisionElimination::default()
    };
    let reason = match it.reason {
        Reason::Disabled => EliminationReason::Disabled,
        Reason::EndpointNotServed => EliminationReason::EndpointNotServed,
        Reason::TagsMissing(missing) => {
            record.tags = tags.names(missing).map(str::to_owned).collect();
            EliminationReason::TagsMissing
        }
        Reason::ContextTooSmall { needed, window } => {
            (record.value, record.needed) = (window, needed);
            EliminationReason::ContextTooSmall
        }
        Reason::Excluded => EliminationReason::Excluded,
        Reason::TooExpensive(which) => {
            record.ceiling = ceiling(which).into();
            EliminationReason::TooExpensive
        }
        Reason::PriceUnknown(which) => {
            record.ceiling = ceiling(which).into();
            EliminationReason::PriceUnknown
        }
        Reason::Cooling { remaining_ms, cause: why } => {
            (record.value, record.cause) = (remaining_ms.into(), cause(why).into());
            EliminationReason::Cooling
        }
    };
    record.reason = reason.into();
    record
}

fn health(seen: &Seen, table: &Table) -> DecisionHealth {
    let health = seen.health.unpack();
    let (gate, remaining_ms, why) = match health.gate {
        Gate::Ready => (0, 0, CoolingCause::Unspecified),
        Gate::Probe => (1, 0, CoolingCause::Unspecified),
        Gate::Cooling { remaining_ms, cause: why } => (2, remaining_ms, cause(why)),
    };
    DecisionHealth {
        deployment: place(seen.deployment, table),
        gate,
        remaining_ms,
        cause: why.into(),
        in_flight: health.in_flight,
        ttft_us: health.ttft_us,
        per_token_us: health.per_token_us,
        rpm_used: health.rpm_used,
        tpm_used: health.tpm_used,
        failed_permille: 1000 - u32::from(health.success_permille.min(1000)),
    }
}

fn attempted(attempt: &Attempted, deployment: u32) -> DecisionAttempt {
    DecisionAttempt {
        deployment,
        link: attempt.link.into(),
        status: attempt.status.into(),
        error: attempt.error.unwrap_or_default().to_owned(),
        started_us: attempt.started_us.into(),
        took_us: attempt.took_us.into(),
        waited_us: attempt.waited_us.into(),
    }
}

fn refusal(why: Why) -> DecisionRefusal {
    let (reason, value, largest, which) = match why {
        Why::Off => (RefusalReason::Off, 0, 0, PriceCeiling::Unspecified),
        Why::Endpoint => (RefusalReason::Endpoint, 0, 0, PriceCeiling::Unspecified),
        Why::Tags => (RefusalReason::Tags, 0, 0, PriceCeiling::Unspecified),
        Why::Context { needed, largest } => {
            (RefusalReason::Context, needed, largest, PriceCeiling::Unspecified)
        }
        Why::Excluded => (RefusalReason::Excluded, 0, 0, PriceCeiling::Unspecified),
        Why::TooExpensive(which) => (RefusalReason::TooExpensive, 0, 0, ceiling(which)),
        Why::Cooling { soonest_ms } => {
            (RefusalReason::Cooling, soonest_ms.into(), 0, PriceCeiling::Unspecified)
        }
    };
    DecisionRefusal { reason: reason.into(), value, largest, ceiling: which.into() }
}

fn preferences(wanted: &Preferences) -> DecisionPreferences {
    let list = |names: &[Box<str>]| names.iter().map(|name| name.to_string()).collect();
    let MaxPrice { prompt, completion, request, image } = wanted.max_price;
    DecisionPreferences {
        order: list(&wanted.order),
        only: list(&wanted.only),
        ignore: list(&wanted.ignore),
        allow_fallbacks: wanted.allow_fallbacks,
        sort: wanted.sort.map(nemo_llm::Sort::name).unwrap_or_default().to_owned(),
        require_parameters: wanted.require_parameters,
        max_prompt: prompt.map(|price| price.0),
        max_completion: completion.map(|price| price.0),
        max_request: request.map(|price| price.0),
        max_image: image.map(|price| price.0),
    }
}

/// Its number in the contract.
fn strategy(strategy: Strategy) -> u64 {
    number(decode::wire_strategy(strategy).into())
}

fn ceiling(ceiling: Ceiling) -> PriceCeiling {
    match ceiling {
        Ceiling::Prompt => PriceCeiling::Prompt,
        Ceiling::Completion => PriceCeiling::Completion,
        Ceiling::Request => PriceCeiling::Request,
        Ceiling::Image => PriceCeiling::Image,
        Ceiling::Cost => PriceCeiling::Cost,
    }
}

fn cause(cause: Cause) -> CoolingCause {
    match cause {
        Cause::RateLimited => CoolingCause::RateLimited,
        Cause::Timeout => CoolingCause::Timeout,
        Cause::Server => CoolingCause::ServerError,
        Cause::Connect => CoolingCause::Connect,
        Cause::Credential => CoolingCause::Credential,
        Cause::Interrupted => CoolingCause::Interrupted,
        Cause::Manual => CoolingCause::Manual,
    }
}

/// Numbers of the contract are never negative.
fn number(value: i32) -> u64 {
    value.unsigned_abs().into()
}

#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Bytes = 2,
}

fn key(out: &mut Vec<u8>, field: u32, wire: Wire) {
    varint(out, (field << 3 | wire as u32).into());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn varint_len(value: u64) -> u64 {
    u64::from((value | 1).ilog2()) / 7 + 1
}

/// Zero is not written: it is what an absent field means.
fn varint_field(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        key(out, field, Wire::Varint);
        varint(out, value);
    }
}

fn flag(out: &mut Vec<u8>, field: u32, value: bool) {
    varint_field(out, field, value.into());
}

fn text(out: &mut Vec<u8>, field: u32, text: &str) {
    key(out, field, Wire::Bytes);
    varint(out, text.len() as u64);
    out.put_slice(text.as_bytes());
}

fn message(out: &mut Vec<u8>, field: u32, message: &impl Message) {
    key(out, field, Wire::Bytes);
    // A vector has room for anything.
    let _ = message.encode_length_delimited(out);
}

const _: () = assert!(RoutingStrategy::SimpleShuffle as i32 > 0, "0 would not be written");
