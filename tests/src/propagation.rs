//! How long a cooldown takes from the node that trips to another, at another control plane, through etcd. For the
//! integration suite, which has a bound for it, and for the bench, which prints it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use crate::client::Client;
use crate::etcd::Etcd;
use crate::eventually::eventually;
use crate::replicas::{Layout, Replicas};

/// Longer is no propagation.
const LOST: Duration = Duration::from_secs(20);

/// Two control planes on one etcd, a node at each.
pub struct Pair {
    pub replicas: Replicas,
    pub etcd: Etcd,
    /// A key that both nodes know.
    pub key: String,
}

impl Pair {
    /// # Errors
    /// When a process does not start.
    pub async fn start() -> anyhow::Result<Self> {
        let etcd = Etcd::start().await?;
        let options = vec!["--etcd-endpoints".into(), etcd.endpoint()];
        let replicas = Replicas::start_as(2, 2, Layout { options, pinned: true }).await?;
        let (_, key) = replicas.issue_key(0, json!({})).await?;
        replicas.known_everywhere(&key).await?;
        Ok(Self { replicas, etcd, key })
    }

    /// Trips so many deployments at the first node, one after the other, and returns their models with the times until
    /// the second node had heard of each, in order.
    ///
    /// # Errors
    /// When one does not arrive.
    pub async fn trip(&self, samples: u32) -> anyhow::Result<Vec<(String, Duration)>> {
        let models: Vec<_> = (0..samples).map(|at| format!("trip-{at}")).collect();
        for model in &models {
            self.replicas.serve(model, "tripped!status=429,header=retry-after:120").await?;
        }
        for node in 0..2 {
            let (client, last) = (self.replicas.client(node, &self.key), models.last().context("a sample")?);
            eventually("the node knows the models", async || {
                let known = client.get("/v1/models").await?.text().contains(last);
                anyhow::ensure!(known, "not yet");
                Ok(())
            })
            .await?;
        }
        let mut took = Vec::new();
        for (at, model) in (1..).zip(models) {
            let refused = ask(&self.replicas.client(0, &self.key), &model).await?;
            let tripped = Instant::now();
            anyhow::ensure!(matches!(refused, 429 | 503), "{model} answered {refused}");
            while self.cooldowns(1).await? < at {
                anyhow::ensure!(tripped.elapsed() < LOST, "{model} has not arrived");
            }
            took.push((model, tripped.elapsed()));
        }
        Ok(took)
    }

    /// Cooldowns that a node has been told of.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn cooldowns(&self, node: usize) -> anyhow::Result<u64> {
        let text = self.replicas.metrics(node).await?;
        let value = text.lines().find_map(|line| line.strip_prefix("nemo_cooldowns "));
        value.context("no nemo_cooldowns")?.parse().context("a number")
    }
}

/// Status of a short request for a model.
async fn ask(client: &Client, model: &str) -> anyhow::Result<u16> {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    Ok(client.post("/v1/chat/completions", body.to_string()).await?.status)
}

/// Median and 99th percentile.
pub fn percentiles(took: &[(String, Duration)]) -> (Duration, Duration) {
    let mut took: Vec<_> = took.iter().map(|(_, took)| *took).collect();
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99))
}
