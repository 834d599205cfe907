//! What sources say, compared with what the database has: proposals, each to be made at once or to be held for an
//! operator. Pure; called by [`super::job`].

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::{
    Fact,
    gather::{Gathered, Known},
};
use crate::store::catalog::{Amounts, Source, StoredModel};

/// A price that is so many times another one is held.
const UNUSUAL: i64 = 10;
/// A source that has lost more than this share of what it had listed is not believed at all, in percent.
const LOST_PERCENT: usize = 30;
/// Sources that have listed less can lose all of it.
const LOST_OF: usize = 10;

/// One thing that would be different.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    ModelAdded { fact: Fact },
    OfferingAdded { fact: Fact },
    PriceChanged { before: Amounts, after: Amounts },
    LimitsChanged { before: Limits, after: Limits },
    OfferingVanished { upstream_model: String },
}

impl Change {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ModelAdded { .. } => "model_added",
            Self::OfferingAdded { .. } => "offering_added",
            Self::PriceChanged { .. } => "price_changed",
            Self::LimitsChanged { .. } => "limits_changed",
            Self::OfferingVanished { .. } => "offering_vanished",
        }
    }
}

/// Tokens; 0: none, or unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub context_window: i64,
    pub max_output_tokens: i64,
}

/// A change, of what, by whom, and why it is not made at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub model: String,
    pub provider: String,
    pub change: Change,
    pub source: String,
    /// `Some`: held, for this reason.
    pub hold: Option<String>,
}

/// That a source has listed an offering.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listing {
    pub source: String,
    pub provider: String,
    pub upstream_model: String,
    pub model: String,
}

/// What a comparison comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Diff {
    pub proposals: Vec<Proposal>,
    /// What sources list now, to be compared with the next time.
    pub listings: Vec<Listing>,
    /// Sources that have lost too much, with the share in percent: what they listed before stays.
    pub suspicious: BTreeMap<String, usize>,
    /// Which source each field of what is stored is from now: model, provider (empty: the model's own), field, source.
    pub provenance: Vec<(String, String, &'static str, String)>,
}

/// `answered`: the sources that have answered this time. `listed`: what they and others listed before.
pub fn diff(
    stored: &[StoredModel],
    gathered: &Gathered,
    listed: &[Listing],
    answered: &BTreeSet<String>,
) -> Diff {
    let mut diff = Diff { suspicious: suspicious(gathered, listed, answered), ..Diff::default() };
    let names = Names::new(stored);
    let by_id: HashMap<&str, &StoredModel> =
        stored.iter().map(|model| (model.row.id.as_str(), model)).collect();
    let mut new_models = BTreeSet::new();
    for ((provider, upstream_model), known) in gathered {
        let id = names.find(provider, upstream_model).unwrap_or_else(|| root(provider, upstream_model));
        if id.is_empty() {
            continue;
        }
        for source in known.listed_by.iter().filter(|source| !diff.suspicious.contains_key(*source)) {
            let (source, model) = (source.clone(), id.clone());
            let (provider, upstream_model) = (provider.clone(), upstream_model.clone());
            diff.listings.push(Listing { source, provider, upstream_model, model });
        }
        let hold = known.from.get("price").or(known.listed_by.first()).and_then(|source| {
            let lost = diff.suspicious.get(source)?;
            Some(format!("{source} lists {lost} % less than before, so none of it is believed"))
        });
        match by_id.get(id.as_str()) {
            Some(model) if model.row.source == Source::Custom.as_str() => {}
            Some(model) => known_model(model, known, hold, &mut diff),
            None => {
                let first = new_models.insert(id.clone());
                let change = if first {
                    Change::ModelAdded { fact: known.fact.clone() }
                } else {
                    Change::OfferingAdded { fact: known.fact.clone() }
                };
                diff.propose(&id, known, change, "listed", hold);
            }
        }
    }
    vanished(&by_id, gathered, listed, answered, &mut diff);
    diff
}

impl Diff {
    fn propose(&mut self, model: &str, known: &Known, change: Change, field: &str, hold: Option<String>) {
        let source = known.from.get(field).or(known.listed_by.first()).cloned().unwrap_or_default();
        let (model, provider) = (model.to_owned(), known.fact.provider.clone());
        self.proposals.push(Proposal { model, provider, change, source, hold });
    }
}

fn known_model(model: &StoredModel, known: &Known, hold: Option<String>, diff: &mut Diff) {
    let (fact, id) = (&known.fact, model.row.id.as_str());
    let Some(offering) = model.offerings.iter().find(|offering| offering.provider == fact.provider) else {
        diff.propose(id, known, Change::OfferingAdded { fact: fact.clone() }, "listed", hold);
        return;
    };
    // The provider lists the undated name of it, or another variant, as well.
    if offering.upstream_model != fact.upstream_model {
        return;
    }
    if let Some(said) = fact.amounts.as_ref().filter(|_| !offering.price_is_custom) {
        let after = merged(&offering.amounts, said, fact.knows_steps);
        if after == offering.amounts {
            note(diff, known, id, &fact.provider, &["price"]);
        } else {
            let hold = hold.clone().or_else(|| unusual(&offering.amounts, &after, fact.knows_steps));
            let change = Change::PriceChanged { before: offering.amounts.clone(), after };
            diff.propose(id, known, change, "price", hold);
        }
    }
    // A reseller may cut a model short; its limits are what the first offering says, mostly its maker's.
    let first = model.offerings.first().is_some_and(|first| first.provider == fact.provider);
    let before =
        Limits { context_window: model.row.context_window, max_output_tokens: model.row.max_output_tokens };
    if first && before.context_window > 0 {
        let after = Limits {
            context_window: fact.context_window.unwrap_or(before.context_window),
            max_output_tokens: fact.max_output_tokens.unwrap_or(before.max_output_tokens),
        };
        // More output than window: the source mixes the two up.
        if after.max_output_tokens <= after.context_window {
            if after == before {
                note(diff, known, id, "", &["context_window", "max_output_tokens"]);
            } else {
                diff.propose(id, known, Change::LimitsChanged { before, after }, "context_window", hold);
            }
        }
    }
}

/// The source that says the same as is stored stands for it.
fn note(diff: &mut Diff, known: &Known, model: &str, provider: &str, fields: &[&'static str]) {
    for field in fields {
        if let Some(source) = known.from.get(field) {
            diff.provenance.push((model.to_owned(), provider.to_owned(), field, source.clone()));
        }
    }
}

/// The price with what the source says of it; what it does not know stays.
pub fn merged(before: &Amounts, said: &Amounts, knows_steps: bool) -> Amounts {
    Amounts {
        input: said.input.or(before.input),
        output: said.output.or(before.output),
        cache_read: said.cache_read.or(before.cache_read),
        cache_write: said.cache_write.or(before.cache_write),
        reasoning: said.reasoning.or(before.reasoning),
        cache_write_1h: before.cache_write_1h,
        units: before.units.clone(),
        // Steps that are stored tell of service tiers too, which registries don't.
        steps: if knows_steps && before.steps.is_none() { said.steps.clone() } else { before.steps.clone() },
    }
}

fn unusual(before: &Amounts, after: &Amounts, knows_steps: bool) -> Option<String> {
    let pairs = [
        ("input", before.input, after.input),
        ("output", before.output, after.output),
        ("cache_read", before.cache_read, after.cache_read),
        ("cache_write", before.cache_write, after.cache_write),
        ("reasoning", before.reasoning, after.reasoning),
    ];
    for (name, before, after) in pairs {
        let (Some(before), Some(after)) = (before, after) else { continue };
        let (low, high) = (before.min(after), before.max(after));
        if high != low && high >= low.saturating_mul(UNUSUAL) {
            return Some(match low {
                0 => format!("the {name} price goes from or to nothing"),
                _ => format!("the {name} price changes {} times", high / low),
            });
        }
    }
    let base = before.input != after.input || before.output != after.output;
    (base && before.steps.is_some() && !knows_steps)
        .then(|| "the price has steps, which the source does not tell".to_owned())
}

fn suspicious(
    gathered: &Gathered,
    listed: &[Listing],
    answered: &BTreeSet<String>,
) -> BTreeMap<String, usize> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for listing in listed.iter().filter(|listing| answered.contains(&listing.source)) {
        let (before, gone) = counts.entry(&listing.source).or_default();
        *before += 1;
        *gone += usize::from(!is_listed(gathered, listing));
    }
    let lost = |(before, gone): (usize, usize)| {
        let percent = gone * 100 / before.max(1);
        (before >= LOST_OF && percent > LOST_PERCENT).then_some(percent)
    };
    counts.into_iter().filter_map(|(source, count)| Some((source.to_owned(), lost(count)?))).collect()
}

fn is_listed(gathered: &Gathered, listing: &Listing) -> bool {
    let key = (listing.provider.clone(), listing.upstream_model.clone());
    gathered.get(&key).is_some_and(|known| known.listed_by.contains(&listing.source))
}

/// What some source has listed and none lists any more. Sources that have not answered stand by what they said.
fn vanished(
    by_id: &HashMap<&str, &StoredModel>,
    gathered: &Gathered,
    listed: &[Listing],
    answered: &BTreeSet<String>,
    diff: &mut Diff,
) {
    let believed = |source: &str| answered.contains(source) && !diff.suspicious.contains_key(source);
    let (mut gone, mut kept): (Vec<&Listing>, BTreeSet<(&str, &str)>) = (Vec::new(), BTreeSet::new());
    for listing in listed {
        if believed(&listing.source) && !is_listed(gathered, listing) {
            gone.push(listing);
        } else {
            kept.insert((&listing.provider, &listing.upstream_model));
        }
    }
    let now: BTreeSet<(&str, &str)> =
        gathered.keys().map(|(provider, upstream)| (provider.as_str(), upstream.as_str())).collect();
    let mut told = BTreeSet::new();
    let mut proposals = Vec::new();
    for listing in gone {
        let key = (listing.provider.as_str(), listing.upstream_model.as_str());
        let Some(model) = by_id.get(listing.model.as_str()) else { continue };
        let offered = model.offerings.iter().any(|offering| {
            offering.provider == listing.provider && offering.upstream_model == listing.upstream_model
        });
        let custom = model.row.source == Source::Custom.as_str();
        if kept.contains(&key) || now.contains(&key) || !offered || custom || !told.insert(key) {
            continue;
        }
        proposals.push(Proposal {
            model: listing.model.clone(),
            provider: listing.provider.clone(),
            change: Change::OfferingVanished { upstream_model: listing.upstream_model.clone() },
            source: listing.source.clone(),
            hold: Some(format!("{} lists it no longer", listing.source)),
        });
    }
    diff.proposals.append(&mut proposals);
}

/// Every name that a stored model goes by.
struct Names<'a> {
    offered: HashMap<(&'a str, &'a str), &'a str>,
    names: HashMap<String, &'a str>,
}

impl<'a> Names<'a> {
    fn new(stored: &'a [StoredModel]) -> Self {
        let (mut offered, mut names) = (HashMap::new(), HashMap::new());
        for model in stored {
            let id = model.row.id.as_str();
            names.insert(id.to_ascii_lowercase(), id);
            for alias in &model.row.aliases {
                names.entry(alias.to_ascii_lowercase()).or_insert(id);
            }
            for offering in &model.offerings {
                offered.insert((offering.provider.as_str(), offering.upstream_model.as_str()), id);
            }
        }
        Self { offered, names }
    }

    fn find(&self, provider: &str, upstream_model: &str) -> Option<String> {
        let by_name = || {
            let lower = upstream_model.to_ascii_lowercase();
            self.names.get(&lower).or_else(|| self.names.get(&root(provider, upstream_model)))
        };
        self.offered.get(&(provider, upstream_model)).or_else(by_name).map(|id| (*id).to_owned())
    }
}

/// The root name of a model, without what providers put around it: `meta-llama/Llama-4-Scout` is `llama-4-scout`,
/// Bedrock's `us.anthropic.claude-opus-4-5-v1:0` is `claude-opus-4-5`.
pub fn root(provider: &str, upstream_model: &str) -> String {
    let mut name = upstream_model.rsplit('/').next().unwrap_or(upstream_model).to_ascii_lowercase();
    if provider == "bedrock" {
        for region in ["us.", "eu.", "apac.", "global.", "us-gov.", "jp.", "au."] {
            if let Some(rest) = name.strip_prefix(region) {
                name = rest.to_owned();
                break;
            }
        }
        if let Some((_, rest)) = name.split_once('.') {
            name = rest.to_owned();
        }
        if let Some((rest, _)) = name.rsplit_once("-v").filter(|(_, version)| version.contains(':')) {
            name = rest.to_owned();
        }
    }
    if provider == "google-vertex" {
        name = name.replace('@', "-");
    }
    name
}
