//! A group of deployments in some health, to decide among. Used by the benchmark `route` and by the test that counts its
//! allocations.

use std::{num::NonZeroU32, sync::Arc};

use nemo_data_plane::{
    nemo_llm::Endpoint,
    routing::{Ask, Cause, Chain, Gate, Health, HealthView, Served},
};
use nemo_snapshot::{Deployment, Link, LinkMember, Model, ModelGroup, Strategy, TagSet, Timeouts};
use nemo_types::{DeploymentId, NanosPerMillion, PriceSheet};

pub struct Fleet {
    pub group: ModelGroup,
    pub served: Served,
    /// By slot.
    health: Vec<Health>,
}

impl HealthView for Fleet {
    fn of(&self, deployment: &Deployment) -> Health {
        self.health[deployment.slot]
    }
}

impl Fleet {
    /// Links of these sizes, all deployments healthy and in use.
    pub fn new(links: &[usize]) -> Self {
        let deployments: Vec<_> = (0..links.iter().sum()).map(deployment).collect();
        let mut rest = deployments.iter().cloned();
        let links = links.iter().map(|size| {
            let members = rest.by_ref().take(*size);
            Link { members: members.map(|deployment| LinkMember { deployment, weight: 1 }).collect() }
        });
        let group = ModelGroup {
            name: "m".into(),
            id: None,
            strategy: None,
            required_tags: TagSet(1),
            links: links.collect(),
            model: None,
        };
        Self {
            group,
            served: Served::of(&deployments),
            health: deployments.iter().map(|it| health(it.slot)).collect(),
        }
    }

    /// Of any hundred, the first `percent` cool down.
    pub fn cooling(mut self, percent: usize) -> Self {
        for (slot, health) in self.health.iter_mut().enumerate() {
            if slot % 100 < percent {
                health.gate = Gate::Cooling { remaining_ms: 4_000, cause: Cause::Server };
            }
        }
        self
    }

    pub fn ask(&self, strategy: Strategy) -> Ask<'_> {
        Ask {
            endpoint: Endpoint::ChatCompletions,
            links: Chain::Group(&self.group),
            strategy,
            tags: TagSet(2),
            implied: TagSet(4),
            input_tokens: 1_200,
            least_input_tokens: 300,
            output_tokens: Some(800),
            fallbacks: true,
            preferences: None,
            max_cost: None,
        }
    }
}

fn health(slot: usize) -> Health {
    let varied = u32::try_from(slot % 7).unwrap_or(0);
    Health {
        gate: Gate::Ready,
        in_flight: 3 + varied,
        ttft_us: 180_000 + 20_000 * varied,
        per_token_us: 9_000 + 700 * varied,
        rpm_used: 100 + 30 * varied,
        tpm_used: 90_000 + 5_000 * varied,
        success_permille: 1000,
    }
}

fn deployment(slot: usize) -> Arc<Deployment> {
    let price = |dollars: i64| Some(NanosPerMillion(dollars * 1_000_000_000));
    let dollars = i64::try_from(slot % 5).unwrap_or(0) + 1;
    Arc::new(Deployment {
        slot,
        id: DeploymentId::generate(),
        org_id: None,
        name: format!("d{slot}").into(),
        provider: "openai".into(),
        base_url: "http://127.0.0.1:1/v1".into(),
        credential: None,
        model: Arc::new(Model {
            id: "m".into(),
            display_name: "m".into(),
            owned_by: "".into(),
            created_unix: 0,
            context_window: 128_000,
            max_output_tokens: 0,
            tags: Vec::new(),
            tag_set: TagSet(7),
            aliases: Vec::new(),
            input_modalities: Vec::new(),
            output_modalities: Vec::new(),
            endpoints: vec!["chat.completions".into()],
            offerings: Vec::new(),
        }),
        upstream_model: "m".into(),
        price: Some(Arc::new(PriceSheet {
            input: price(dollars),
            output: price(4 * dollars),
            ..PriceSheet::default()
        })),
        weight: 1,
        disabled: false,
        timeouts: Timeouts::default(),
        rpm: NonZeroU32::new(1_000),
        tpm: NonZeroU32::new(1_000_000),
    })
}
