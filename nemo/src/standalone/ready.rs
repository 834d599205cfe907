//! Waits until what was configured is served, as a client sees it: only then does the printed example work.

use std::time::Duration;

use anyhow::bail;
use nemo_control_plane::{
    fleet::Registry,
    store::{PoolSizes, Store},
};
use nemo_types::Secret;

use super::address::Port;

const PATIENCE: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(20);

/// The newest revision of the configuration in the database.
///
/// # Errors
/// When the database cannot be read.
pub(super) async fn revision(postgres_url: &Secret) -> anyhow::Result<u64> {
    let store = Store::connect(postgres_url.expose().parse()?, PoolSizes { app: 1, system: 1 }).await?;
    let revision = async { store.config_snapshot().await?.revision().await }.await;
    store.close().await;
    Ok(revision?)
}

/// Returns when `revision` is published and every node holds what is.
pub(super) async fn published(registry: &Registry, revision: u64) {
    let behind = || {
        let nodes = registry.nodes();
        registry.published_revision() < revision
            || nodes.is_empty()
            || nodes.iter().any(|node| !node.connected || node.lag > 0)
    };
    while behind() {
        tokio::time::sleep(POLL).await;
    }
}

/// Returns when `published` has and the data port knows `model` and accepts `key`.
///
/// # Errors
/// When that takes too long; says what it last heard.
pub(super) async fn wait(
    published: impl Future<Output = ()>,
    port: &Port,
    model: Option<&str>,
    key: Option<&Secret>,
) -> anyhow::Result<()> {
    let mut last = anyhow::anyhow!("the data plane has not applied it");
    let attempts = async {
        published.await;
        loop {
            match probe(port, model, key).await {
                Ok(()) => return,
                Err(error) => last = error,
            }
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(PATIENCE, attempts).await.is_err() {
        return Err(last);
    }
    Ok(())
}

async fn probe(port: &Port, model: Option<&str>, key: Option<&Secret>) -> anyhow::Result<()> {
    let public = port.get("/api/public/models", None).await?;
    if let Some(model) = model
        && !String::from_utf8_lossy(&public).contains(&format!("\"{model}\""))
    {
        bail!("the model {model} is not served yet");
    }
    if key.is_some() {
        port.get("/v1/models", key).await?;
    }
    Ok(())
}
