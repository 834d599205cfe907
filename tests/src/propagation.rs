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
        let layout = Layout { options, pinned: true, ..Layout::default() };
        let replicas = Replicas::start_as(2, 2, layout).await?;
        let (_, key) = replicas.issue_key(0, json!({})).await?;
        replicas.known_everywhere(&key).await?;
        let it = Self { replicas, etcd, key };
        connected(&it.replicas, true).await?;
        Ok(it)
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

    /// How long it takes to ask everybody whom a cooldown passes for a word, one after the other: whatever stops one of
    /// them stops both.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn walk(&self) -> anyhow::Result<Duration> {
        let (nodes, planes) = (&self.replicas.nodes, &self.replicas.control_planes);
        let begun = Instant::now();
        let planes = planes.iter().map(|it| it.site.ports.control_ops);
        for ops in nodes.iter().map(|it| it.site.ports.ops).chain(planes) {
            Client::new(ops).get("/metrics").await?;
        }
        self.etcd.serves().await?;
        Ok(begun.elapsed())
    }

    /// Cooldowns that a node has been told of.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn cooldowns(&self, node: usize) -> anyhow::Result<u64> {
        number(&self.replicas.metrics(node).await?, "nemo_cooldowns")
    }
}

/// Waits until each control plane follows etcd, or has noticed that it is away.
///
/// # Errors
/// When one does not.
pub async fn connected(replicas: &Replicas, connected: bool) -> anyhow::Result<()> {
    for member in &replicas.control_planes {
        let ops = Client::new(member.site.ports.control_ops);
        eventually("the control plane notices", async || {
            let value = number(&ops.get("/metrics").await?.text(), "nemo_coordinator_connected")?;
            anyhow::ensure!((value == 1) == connected, "connected: {value}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Value of a metric without labels.
fn number(metrics: &str, name: &str) -> anyhow::Result<u64> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.with_context(|| format!("no {name}"))?.parse().context("a number")
}

/// Status of a short request for a model.
async fn ask(client: &Client, model: &str) -> anyhow::Result<u16> {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "hi" }] });
    Ok(client.post("/v1/chat/completions", body.to_string()).await?.status)
}

/// Median and 99th percentile: of a hundred, the greatest but one.
pub fn percentiles(took: &[(String, Duration)]) -> (Duration, Duration) {
    let mut took: Vec<_> = took.iter().map(|(_, took)| *took).collect();
    took.sort_unstable();
    let at = |percent: usize| {
        let rank = (took.len() * percent).div_ceil(100);
        took.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    };
    (at(50), at(99))
}
