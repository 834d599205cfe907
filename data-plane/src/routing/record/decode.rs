//! A record back in the terms of routing. Anything that no node would have written is an error: a replay must not take
//! a damaged record for a decision.

use nemo_llm::{MaxPrice, Preferences, Sort};
use nemo_proto::usage::{
    self as wire, CoolingCause, DecisionChain, EliminationReason, PriceCeiling, RefusalReason,
    RoutingStrategy,
};
use nemo_snapshot::Strategy;
use nemo_types::{DeploymentId, Nanos, NanosPerMillion};
use prost::Message as _;

use super::VERSION;
use crate::routing::{Cause, Ceiling, Decision, Gate, Health, Seen, Why};

/// Why a record can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("it is damaged: {0}")]
    Damaged(String),
    #[error("it is of version {0}, this build reads {VERSION}")]
    Version(u32),
}

fn damaged(what: &str) -> RecordError {
    RecordError::Damaged(what.to_owned())
}

/// Where the links came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    Group,
    Models,
    Instead,
}

/// Who was passed over. What stands behind the reason is in the words of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedElimination {
    pub deployment: DeploymentId,
    pub link: u8,
    /// `Reason::label`.
    pub reason: &'static str,
    pub tags: Vec<String>,
}

/// A decision as it was logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The one that ordered the picks.
    pub strategy: Strategy,
    /// The one that was to order them.
    pub asked_strategy: Strategy,
    pub strategy_asked: bool,
    pub seed: u64,
    /// At least one.
    pub names: Vec<String>,
    pub chain: ChainKind,
    pub tags: Vec<String>,
    pub implied: Vec<String>,
    pub input_tokens: u64,
    pub least_input_tokens: u64,
    pub output_tokens: Option<u64>,
    pub fallbacks: bool,
    pub preferences: Option<Preferences>,
    pub max_cost: Option<Nanos>,
    pub max_cost_asked: bool,
    /// In the order in which they are tried, with their links.
    pub picks: Vec<(DeploymentId, u8)>,
    /// Why there are none.
    pub why: Option<Why>,
    pub eliminated: Vec<RecordedElimination>,
    pub eliminated_more: u32,
    pub seen: Vec<Seen>,
    pub rest_cooling: bool,
    pub cut: bool,
}

impl Record {
    /// # Errors
    /// [`RecordError`] for anything that is not the record of a decision.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record = wire::Decision::decode(bytes).map_err(|error| damaged(&error.to_string()))?;
        if record.version != VERSION {
            return Err(RecordError::Version(record.version));
        }
        let table = Table::read(&record.deployments)?;
        let strategy = strategy(record.strategy)?;
        let asked_strategy = match record.asked_strategy {
            0 => strategy,
            other => self::strategy(other)?,
        };
        let chain = match DecisionChain::try_from(record.chain) {
            Ok(DecisionChain::Group) => ChainKind::Group,
            Ok(DecisionChain::Models) => ChainKind::Models,
            Ok(DecisionChain::Instead) => ChainKind::Instead,
            Err(_) => return Err(damaged("unknown chain")),
        };
        let why = record.refusal.as_ref().map(why).transpose()?;
        if record.names.is_empty() || record.picks.is_empty() != why.is_some() {
            return Err(damaged("neither picks nor a refusal, or both"));
        }
        if record.picks.len() > Decision::MAX_PICKS {
            return Err(damaged("too many picks"));
        }
        let picks = (0..).zip(&record.picks);
        Ok(Self {
            strategy,
            asked_strategy,
            strategy_asked: record.strategy_asked,
            seed: record.seed,
            chain,
            tags: record.tags,
            implied: record.implied,
            least_input_tokens: record.least_input_tokens,
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            fallbacks: !record.first_link_only,
            preferences: record.preferences.map(preferences).transpose()?,
            max_cost: record.max_cost_nanos.map(Nanos),
            max_cost_asked: record.max_cost_asked,
            picks: picks
                .map(|(at, number)| Ok((table.get(at)?, link(*number)?)))
                .collect::<Result<_, _>>()?,
            why,
            eliminated: record
                .eliminated
                .into_iter()
                .map(|it| elimination(it, &table))
                .collect::<Result<_, _>>()?,
            eliminated_more: record.eliminated_more,
            seen: record.seen.iter().map(|it| seen(it, &table)).collect::<Result<_, _>>()?,
            rest_cooling: record.rest_cooling,
            cut: record.cut,
            names: record.names,
        })
    }
}

struct Table<'a>(&'a [[u8; 16]]);

impl<'a> Table<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, RecordError> {
        match bytes.as_chunks() {
            (ids, []) => Ok(Self(ids)),
            _ => Err(damaged("the table of deployments is cut")),
        }
    }

    fn get(&self, position: u32) -> Result<DeploymentId, RecordError> {
        let id = usize::try_from(position).ok().and_then(|at| self.0.get(at));
        id.and_then(|id| DeploymentId::from_bytes(id))
            .ok_or_else(|| damaged("no such deployment in its table"))
    }
}

fn link(number: u32) -> Result<u8, RecordError> {
    u8::try_from(number).map_err(|_| damaged("a link out of range"))
}

/// As the contract numbers it.
pub(super) fn wire_strategy(strategy: Strategy) -> RoutingStrategy {
    match strategy {
        Strategy::SimpleShuffle => RoutingStrategy::SimpleShuffle,
        Strategy::LeastBusy => RoutingStrategy::LeastBusy,
        Strategy::UsageBased => RoutingStrategy::UsageBased,
        Strategy::LatencyBased => RoutingStrategy::LatencyBased,
        Strategy::CostBased => RoutingStrategy::CostBased,
        Strategy::Weighted => RoutingStrategy::Weighted,
        Strategy::Balanced => RoutingStrategy::Balanced,
    }
}

fn strategy(number: i32) -> Result<Strategy, RecordError> {
    let found = Strategy::ALL.into_iter().find(|it| i32::from(wire_strategy(*it)) == number);
    found.ok_or_else(|| damaged("unknown strategy"))
}

fn why(refusal: &wire::DecisionRefusal) -> Result<Why, RecordError> {
    let reason = RefusalReason::try_from(refusal.reason).map_err(|_| damaged("unknown refusal"))?;
    Ok(match reason {
        RefusalReason::Off => Why::Off,
        RefusalReason::Endpoint => Why::Endpoint,
        RefusalReason::Tags => Why::Tags,
        RefusalReason::Context => Why::Context { needed: refusal.value, largest: refusal.largest },
        RefusalReason::Excluded => Why::Excluded,
        RefusalReason::TooExpensive => Why::TooExpensive(ceiling(refusal.ceiling)?),
        RefusalReason::Cooling => {
            let soonest_ms = u32::try_from(refusal.value).map_err(|_| damaged("a time out of range"))?;
            Why::Cooling { soonest_ms }
        }
        RefusalReason::Unspecified => return Err(damaged("a refusal without reason")),
    })
}

fn ceiling(number: i32) -> Result<Ceiling, RecordError> {
    Ok(match PriceCeiling::try_from(number) {
        Ok(PriceCeiling::Prompt) => Ceiling::Prompt,
        Ok(PriceCeiling::Completion) => Ceiling::Completion,
        Ok(PriceCeiling::Request) => Ceiling::Request,
        Ok(PriceCeiling::Image) => Ceiling::Image,
        Ok(PriceCeiling::Cost) => Ceiling::Cost,
        Ok(PriceCeiling::Unspecified) | Err(_) => return Err(damaged("unknown ceiling")),
    })
}

fn cause(number: i32) -> Result<Cause, RecordError> {
    Ok(match CoolingCause::try_from(number) {
        Ok(CoolingCause::RateLimited) => Cause::RateLimited,
        Ok(CoolingCause::Timeout) => Cause::Timeout,
        Ok(CoolingCause::ServerError) => Cause::Server,
        Ok(CoolingCause::Connect) => Cause::Connect,
        Ok(CoolingCause::Credential) => Cause::Credential,
        Ok(CoolingCause::Interrupted) => Cause::Interrupted,
        Ok(CoolingCause::Manual) => Cause::Manual,
        Ok(CoolingCause::Unspecified) | Err(_) => return Err(damaged("unknown cause")),
    })
}

fn elimination(it: wire::DecisionElimination, table: &Table<'_>) -> Result<RecordedElimination, RecordError> {
    let reason = match EliminationReason::try_from(it.reason) {
        Ok(EliminationReason::EndpointNotServed) => "endpoint_not_served",
        Ok(EliminationReason::TagsMissing) => "tags_missing",
        Ok(EliminationReason::ContextTooSmall) => "context_too_small",
        Ok(EliminationReason::Excluded) => "excluded",
        Ok(EliminationReason::TooExpensive) => "too_expensive",
        Ok(EliminationReason::PriceUnknown) => "price_unknown",
        Ok(EliminationReason::Cooling) => "cooling",
        Ok(EliminationReason::Disabled) => "disabled",
        Ok(EliminationReason::Unspecified) | Err(_) => return Err(damaged("unknown reason")),
    };
    Ok(RecordedElimination {
        deployment: table.get(it.deployment)?,
        link: link(it.link)?,
        reason,
        tags: it.tags,
    })
}

fn seen(it: &wire::DecisionHealth, table: &Table<'_>) -> Result<Seen, RecordError> {
    let gate = match it.gate {
        0 => Gate::Ready,
        1 => Gate::Probe,
        2 => Gate::Cooling { remaining_ms: it.remaining_ms, cause: cause(it.cause)? },
        _ => return Err(damaged("unknown gate")),
    };
    let failed = u16::try_from(it.failed_permille).ok().filter(|failed| *failed <= 1000);
    let health = Health {
        gate,
        in_flight: it.in_flight,
        ttft_us: it.ttft_us,
        per_token_us: it.per_token_us,
        rpm_used: it.rpm_used,
        tpm_used: it.tpm_used,
        success_permille: 1000 - failed.ok_or_else(|| damaged("a share above 1"))?,
    };
    Ok(Seen { deployment: table.get(it.deployment)?, health: health.pack() })
}

fn preferences(it: wire::DecisionPreferences) -> Result<Preferences, RecordError> {
    let list = |names: Vec<String>| names.into_iter().map(Into::into).collect();
    let sort = match it.sort.as_str() {
        "" => None,
        name => Some(Sort::from_name(name).ok_or_else(|| damaged("unknown order"))?),
    };
    let price = |nanos: Option<i64>| nanos.map(NanosPerMillion);
    Ok(Preferences {
        order: list(it.order),
        only: list(it.only),
        ignore: list(it.ignore),
        allow_fallbacks: it.allow_fallbacks,
        sort,
        require_parameters: it.require_parameters,
        max_price: MaxPrice {
            prompt: price(it.max_prompt),
            completion: price(it.max_completion),
            request: price(it.max_request),
            image: price(it.max_image),
        },
    })
}
