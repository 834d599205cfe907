//! What a request asks for, checked against what is allowed, becomes an [`Ask`]; what [`crate::routing`] makes of it
//! becomes a decision or an error that says why there is none. No await (I1). Called by [`super::run`].
//!
//! Tags: those that the request names, else those of its key, are required of every deployment that is tried, fallbacks
//! included. Those that the request implies by its shape (an image, functions, JSON) are required of models that have
//! tags; nothing is concluded from what a model lacks that nobody described. A long prompt implies no tag: it is
//! compared with the model's window, by what it has for certain.

use std::{sync::Arc, time::Duration};

use nemo_llm::{Chain, Endpoint, Envelope, Features, Overrides, Preferences, Said, Sort};
use nemo_snapshot::{KeyRecord, ModelGroup, Routing, RoutingPolicy, Strategy, TagSet};
use nemo_types::Nanos;
use smallvec::SmallVec;

use super::{
    authorize::{self, Named},
    error::{GatewayError, Kind},
    reserve::spending::Ceiling,
    wishes::Wishes,
};
use crate::{
    app::State,
    config::Live,
    routing::{
        self, Ask, Decision, decide,
        record::{self, Asked},
    },
};

mod refusal;

pub(super) use refusal::COOLING as ALL_COOLING;

/// What a request is, as far as routing cares.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub endpoint: Endpoint,
    pub features: Features,
    /// Likely, and for certain.
    pub input_tokens: u64,
    pub least_input_tokens: u64,
    /// The most that is asked for, over all choices.
    pub output_tokens: Option<u64>,
}

impl Shape {
    /// `length`: of the body, in bytes.
    pub fn of(endpoint: Endpoint, envelope: &Envelope<'_>, length: usize) -> Self {
        let (features, inlined) = (envelope.features, envelope.inlined);
        // Elsewhere a body is a batch, of which every item has the window to itself.
        let is_dialog = matches!(endpoint, Endpoint::ChatCompletions | Endpoint::Responses);
        let least = nemo_llm::least_input_tokens(length, inlined, features);
        Self {
            endpoint,
            features,
            input_tokens: nemo_llm::likely_input_tokens(length, inlined),
            least_input_tokens: if is_dialog { least } else { 0 },
            output_tokens: envelope.max_output.map(|most| most.saturating_mul(envelope.n.unwrap_or(1))),
        }
    }

    /// Of a form, which is not read yet.
    pub fn of_form(endpoint: Endpoint) -> Self {
        let features = Features::default();
        Self { endpoint, features, input_tokens: 0, least_input_tokens: 0, output_tokens: None }
    }
}

/// A request whose model is known.
pub struct Request<'a> {
    pub state: &'a State,
    pub live: &'a Live,
    pub key: &'a KeyRecord,
    pub named: &'a Named<'a>,
    pub shape: Shape,
    pub wishes: Wishes,
}

/// Where a request goes, and how long and how often it may be tried.
#[derive(Debug)]
pub struct Routed {
    pub decision: Decision,
    /// Attempts after the first, within the organization's ceiling; `None`: as many as that says.
    pub retries: Option<u8>,
    /// Total deadline, within the ceiling.
    pub timeout: Option<Duration>,
    /// The most that the request may cost.
    pub ceiling: Option<Ceiling>,
}

/// What is asked of routing, owned: the [`Ask`] borrows from it.
#[derive(Debug)]
struct Demand<'a> {
    shape: Shape,
    group: &'a Arc<ModelGroup>,
    /// Instead of the group's own fallbacks; or all groups, this one first.
    others: SmallVec<[Arc<ModelGroup>; 2]>,
    /// The names of the chain that the request gave, as they were resolved.
    names: Vec<Box<str>>,
    instead: bool,
    strategy: Strategy,
    /// The request itself named the strategy.
    strategy_asked: bool,
    tags: TagSet,
    /// Where the request named them.
    tags_field: Option<&'static str>,
    implied: TagSet,
    fallbacks: bool,
    preferences: Option<Preferences>,
    max_cost: Option<Nanos>,
    /// Where the request gave it.
    max_cost_field: Option<&'static str>,
}

impl<'a> Demand<'a> {
    /// Of a request that says nothing about its way.
    fn new(group: &'a Arc<ModelGroup>, shape: Shape, routing: &Routing, policy: &RoutingPolicy) -> Self {
        let implied = shape.features.tags().filter_map(|tag| routing.tags.get(tag));
        Self {
            shape,
            group,
            others: SmallVec::new(),
            names: Vec::new(),
            instead: false,
            strategy: group.strategy.unwrap_or(policy.strategy),
            strategy_asked: false,
            tags: TagSet::EMPTY,
            tags_field: None,
            implied: implied.fold(TagSet::EMPTY, TagSet::union),
            fallbacks: true,
            preferences: None,
            max_cost: policy.max_cost,
            max_cost_field: None,
        }
    }

    fn ask(&self) -> Ask<'_> {
        let links = match (self.instead, self.others.is_empty()) {
            (true, _) => routing::Chain::Instead { primary: self.group, fallbacks: &self.others },
            (false, true) => routing::Chain::Group(self.group),
            (false, false) => routing::Chain::Models(&self.others),
        };
        Ask {
            endpoint: self.shape.endpoint,
            links,
            strategy: self.strategy,
            tags: self.strict_tags(),
            implied: self.implied,
            input_tokens: self.shape.input_tokens,
            least_input_tokens: self.shape.least_input_tokens,
            output_tokens: self.shape.output_tokens,
            fallbacks: self.fallbacks,
            preferences: self.preferences.as_ref(),
            max_cost: self.max_cost,
        }
    }

    /// Required also of models that nobody described. OpenRouter's `require_parameters` says so of what is implied.
    fn strict_tags(&self) -> TagSet {
        let all = self.preferences.as_ref().is_some_and(|preferences| preferences.require_parameters);
        if all { self.tags.union(self.implied) } else { self.tags }
    }

    /// A sort that is said beside `provider`, unless that has one.
    fn sorted(&mut self, sort: Sort) {
        if !self.strategy_asked {
            self.preferences.get_or_insert_default().sort.get_or_insert(sort);
        }
    }
}

/// Decides where the request goes. `record` gets what is kept of the decision, also when there is none.
///
/// # Errors
/// 400 naming the field for what can't be or is above a ceiling, 403 and 404 for models of the chain, 400 with the
/// reasons when no deployment fits, 503 when all that fit are cooling down or switched off.
pub fn run(request: Request<'_>, record: &mut Vec<u8>) -> Result<Routed, GatewayError> {
    let Request { state, live, key, named, shape, wishes } = request;
    let routing = &live.snapshot.routing;
    let policy = routing.policy(key.org_id);
    let retries = wishes.retries.map(|wanted| retries(wanted, policy)).transpose()?;
    let mut demand = Demand::new(&named.group, shape, routing, policy);
    demand.fallbacks = wishes.no_fallback != Some(true);
    if let Some(told) = wishes.overrides {
        overridden(&mut demand, *told, live, key)?;
    }
    if demand.tags_field.is_none() && !key.policy.default_tags.is_empty() {
        demand.tags = default_tags(live, key)?;
    }
    if let Some(sort) = named.sort {
        demand.sorted(sort);
    }
    let (ask, view) = (demand.ask(), state.health.view(live, key.org_id));
    let decided = decide(&live.served, &ask, &view, fastrand::u64(..));
    let asked = Asked {
        ask: &ask,
        model: named.name,
        chain: &demand.names,
        strategy_asked: demand.strategy_asked,
        max_cost_asked: demand.max_cost_field.is_some(),
    };
    *record = record::begin(&asked, &routing.tags, decided.as_ref().map_err(|none| &**none));
    let decision = decided.map_err(|none| refusal::of(live, &demand, &none))?;
    let timeout = wishes.timeout.map(|wanted| timeout(wanted, live, key, state, &decision)).transpose()?;
    let field = demand.max_cost_field.unwrap_or("routing.max_cost_usd");
    let ceiling = demand.max_cost.map(|most| Ceiling { most, field });
    Ok(Routed { decision, retries, timeout, ceiling })
}

/// What few requests have.
#[cold]
fn overridden(
    demand: &mut Demand<'_>,
    told: Overrides,
    live: &Live,
    key: &KeyRecord,
) -> Result<(), GatewayError> {
    let routing = &live.snapshot.routing;
    if let Some(tags) = told.tags {
        let names = tags.value.iter().map(|tag| &**tag);
        demand.tags = routing.tag_set(names).map_err(|unknown| {
            let known = routing.tags.iter().collect::<Vec<_>>().join(", ");
            let message = format!("`{}`: {unknown}, no model has it. Known are: {known}.", tags.field);
            GatewayError::new(Kind::InvalidRequest, message).param(tags.field)
        })?;
        demand.tags_field = Some(tags.field);
    }
    if let Some(max_cost) = told.max_cost {
        demand.max_cost = Some(cost(max_cost, demand.max_cost)?);
        demand.max_cost_field = Some(max_cost.field);
    }
    demand.preferences = told.preferences;
    match told.routing {
        // The best of all, which is what the balanced score is for.
        Some(Said { value: None, .. }) => {
            (demand.strategy, demand.strategy_asked) = (Strategy::Balanced, true)
        }
        Some(Said { value: Some(sort), .. }) => demand.sorted(sort),
        None => {}
    }
    if let Some(strategy) = told.strategy {
        let known = strategy.value.parse::<Strategy>().map_err(|unknown| {
            let message = format!("`{}`: {unknown}.", strategy.field);
            GatewayError::new(Kind::InvalidRequest, message).param(strategy.field)
        })?;
        (demand.strategy, demand.strategy_asked) = (known, true);
        // Our own name for it wins.
        if let Some(preferences) = &mut demand.preferences {
            preferences.sort = None;
        }
    }
    match told.chain {
        Some(chain) => chain_of(demand, &chain, live, key),
        None => Ok(()),
    }
}

fn chain_of(
    demand: &mut Demand<'_>,
    chain: &Said<Chain>,
    live: &Live,
    key: &KeyRecord,
) -> Result<(), GatewayError> {
    demand.instead = matches!(chain.value, Chain::Instead(_));
    if !demand.instead {
        demand.others.push(demand.group.clone());
    }
    for model in chain.value.models() {
        let named = authorize::named(&live.snapshot, key, model, chain.field)?;
        if let Some(sort) = named.sort {
            demand.sorted(sort);
        }
        demand.names.push(named.name.into());
        demand.others.push(named.group);
    }
    Ok(())
}

/// Those of the key. One that the catalog does not know any more is one that no model has.
#[cold]
fn default_tags(live: &Live, key: &KeyRecord) -> Result<TagSet, GatewayError> {
    let names = key.policy.default_tags.iter().map(|tag| &**tag);
    live.snapshot.routing.tag_set(names).map_err(|unknown| {
        let message = format!("This API key requires tags of the model: {unknown}, no model has it.");
        GatewayError { code: Some(refusal::TAGS), ..GatewayError::new(Kind::NoCandidate, message) }
    })
}

fn above(field: &'static str, wanted: &str, most: &str) -> GatewayError {
    let message = format!("`{field}` is {wanted}, but at most {most} may be asked for here.");
    GatewayError::new(Kind::InvalidRequest, message).param(field)
}

fn retries(wanted: Said<u64>, policy: &RoutingPolicy) -> Result<u8, GatewayError> {
    let within = u8::try_from(wanted.value).ok().filter(|wanted| *wanted <= policy.max_retries);
    within.ok_or_else(|| above(wanted.field, &wanted.value.to_string(), &policy.max_retries.to_string()))
}

fn cost(wanted: Said<Nanos>, most: Option<Nanos>) -> Result<Nanos, GatewayError> {
    match most {
        Some(most) if wanted.value > most => {
            Err(above(wanted.field, &format!("{} USD", wanted.value), &format!("{most} USD")))
        }
        _ => Ok(wanted.value),
    }
}

/// The ceiling is that of the deployment that allows most; [`super::timeouts::Deadline`] keeps to each one's own.
fn timeout(
    wanted: Said<Duration>,
    live: &Live,
    key: &KeyRecord,
    state: &State,
    decision: &Decision,
) -> Result<Duration, GatewayError> {
    let (installation, own) = live.snapshot.routing.timeouts(key.org_id);
    let general = own.and_then(|own| own.total_ms).or(installation.total_ms);
    let general = general.map_or(state.settings.total_timeout(), |it| Duration::from_millis(it.get().into()));
    let own = |pick: &routing::Pick| pick.deployment.timeouts.total_ms;
    let ceilings = decision.picks.iter().map(own);
    let ceilings = ceilings.map(|it| it.map_or(general, |millis| Duration::from_millis(millis.get().into())));
    let most = ceilings.max().unwrap_or(general);
    if wanted.value > most {
        let millis = |time: Duration| format!("{} ms", time.as_millis());
        return Err(above(wanted.field, &millis(wanted.value), &millis(most)));
    }
    Ok(wanted.value)
}
