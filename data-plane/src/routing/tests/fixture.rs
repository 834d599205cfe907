//! Groups of deployments for the tests of routing.

use std::sync::Arc;

use nemo_llm::Endpoint;
use nemo_snapshot::{Deployment, Link, LinkMember, Model, ModelGroup, Strategy, TagSet};
use nemo_types::{NanosPerMillion, PriceSheet};

use crate::{
    routing::{Ask, Chain, Decision, Health, HealthView, NoCandidate, Served, decide},
    testing,
};

/// A group with its deployments, whose slots count through all links.
#[derive(Debug)]
pub struct Fixture {
    pub deployments: Vec<Arc<Deployment>>,
    pub group: Arc<ModelGroup>,
    pub served: Served,
}

impl Fixture {
    /// Links of these sizes; `edit` gets slot, deployment and weight.
    pub fn new(links: &[usize], edit: impl Fn(usize, &mut Deployment, &mut u32)) -> Self {
        let mut deployments = Vec::new();
        let mut make = || {
            let slot = deployments.len();
            let mut made = Arc::into_inner(testing::deployment("openai", "m")).unwrap();
            let mut weight = 1;
            made.slot = slot;
            made.name = format!("d{slot}").into();
            edit(slot, &mut made, &mut weight);
            let deployment = Arc::new(made);
            deployments.push(deployment.clone());
            LinkMember { deployment, weight }
        };
        let links = links.iter().map(|size| Link { members: (0..*size).map(|_| make()).collect() }).collect();
        let served = Served::of(&deployments);
        Self { deployments, group: Arc::new(group(links)), served }
    }

    /// One pool with these weights.
    pub fn pool(weights: &[u32]) -> Self {
        Self::new(&[weights.len()], |slot, _, weight| *weight = weights[slot])
    }

    pub fn ask(&self, strategy: Strategy) -> Ask<'_> {
        Ask {
            endpoint: Endpoint::ChatCompletions,
            links: Chain::Group(&self.group),
            strategy,
            tags: TagSet::EMPTY,
            implied: TagSet::EMPTY,
            input_tokens: 100,
            least_input_tokens: 25,
            output_tokens: None,
            fallbacks: true,
            preferences: None,
            max_cost: None,
        }
    }

    pub fn decide(
        &self,
        ask: &Ask<'_>,
        health: &impl HealthView,
        seed: u64,
    ) -> Result<Decision, Box<NoCandidate>> {
        decide(&self.served, ask, health, seed)
    }

    /// How often each slot is first over so many seeds.
    pub fn firsts(&self, ask: &Ask<'_>, health: &impl HealthView, draws: u64) -> Vec<u64> {
        let mut counts = vec![0; self.deployments.len()];
        for seed in 0..draws {
            counts[slots(&self.decide(ask, health, seed).unwrap())[0]] += 1;
        }
        counts
    }
}

pub fn group(links: Vec<Link>) -> ModelGroup {
    ModelGroup {
        name: "m".into(),
        id: None,
        strategy: None,
        required_tags: TagSet::EMPTY,
        links,
        model: None,
    }
}

/// The model of a deployment that is being made.
pub fn model(deployment: &mut Deployment) -> &mut Model {
    Arc::get_mut(&mut deployment.model).unwrap()
}

/// In dollars per million tokens.
pub fn price(input: i64, output: i64) -> Option<Arc<PriceSheet>> {
    let dollars = |dollars: i64| Some(NanosPerMillion(dollars * 1_000_000_000));
    Some(Arc::new(PriceSheet { input: dollars(input), output: dollars(output), ..PriceSheet::default() }))
}

/// The picks, by slot.
pub fn slots(decision: &Decision) -> Vec<usize> {
    decision.picks.iter().map(|pick| pick.deployment.slot).collect()
}

/// Health by slot; quiet for the others.
pub fn health(by_slot: Vec<(usize, Health)>) -> impl HealthView {
    move |deployment: &Deployment| {
        let found = by_slot.iter().find(|(slot, _)| *slot == deployment.slot);
        found.map_or(Health::QUIET, |(_, health)| *health)
    }
}

/// Whether counts are as likely as these shares say: the chi-squared statistic stays below its 0.1 % quantile.
#[track_caller]
#[expect(clippy::cast_precision_loss, reason = "small counts")]
pub fn assert_shares(counts: &[u64], shares: &[f64]) {
    const QUANTILES: [f64; 8] = [0.0, 10.83, 13.82, 16.27, 18.47, 20.52, 22.46, 24.32];
    let (total, sum) = (counts.iter().sum::<u64>() as f64, shares.iter().sum::<f64>());
    let expected = shares.iter().map(|share| total * share / sum);
    let chi: f64 = counts
        .iter()
        .zip(expected)
        .filter(|(_, expected)| *expected > 0.0)
        .map(|(count, expected)| (*count as f64 - expected).powi(2) / expected)
        .sum();
    let impossible = counts.iter().zip(shares).any(|(count, share)| *share == 0.0 && *count > 0);
    let freedom = shares.iter().filter(|share| **share > 0.0).count() - 1;
    assert!(
        !impossible && chi < QUANTILES[freedom].max(0.001),
        "chi squared {chi}: {counts:?} for {shares:?}"
    );
}
