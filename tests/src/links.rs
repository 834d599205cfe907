//! Scripted upstreams as the links of one chain: a model group of the operator's, one deployment per link, each with an
//! upstream of its own.

use serde_json::{Value, json};

use crate::admin::{Admin, ServedModel, text};
use crate::client::Client;
use crate::eventually::eventually;
use crate::upstream::Upstream;

/// See the module. Link 1 is the first.
pub struct Links {
    /// What clients call the group.
    pub name: String,
    pub upstreams: Vec<Upstream>,
    /// Ids of the deployments.
    pub deployments: Vec<String>,
}

impl Links {
    /// A chain of so many links. `deployment`: what each deployment is changed by, such as its timeouts.
    pub async fn start(
        admin: &Admin,
        name: &str,
        count: usize,
        deployment: Option<&Value>,
    ) -> anyhow::Result<Self> {
        let mut upstreams = Vec::new();
        for _ in 0..count {
            upstreams.push(Upstream::start().await?);
        }
        let addresses: Vec<_> = upstreams.iter().map(Upstream::base_url).collect();
        let deployments = Self::serve(admin, name, &addresses, deployment).await?;
        Ok(Self { name: name.into(), upstreams, deployments })
    }

    /// The same for upstreams that run somewhere, or nowhere; returns the ids of the deployments.
    pub async fn serve(
        admin: &Admin,
        name: &str,
        addresses: &[String],
        deployment: Option<&Value>,
    ) -> anyhow::Result<Vec<String>> {
        let credential = json!({ "name": name, "provider": "custom", "secret": "sk-link" });
        let credential_id = &text(&admin.post("/credentials", credential).await?, "id")?;
        let mut ids = Vec::new();
        for (at, base_url) in addresses.iter().enumerate() {
            let (id, upstream_model) = (format!("{name}-{}", at + 1), Self::upstream_model(at + 1));
            let (id, upstream_model, endpoints) =
                (&*id, &*upstream_model, &["chat.completions", "responses"][..]);
            let served = ServedModel { id, endpoints, upstream_model, base_url, credential_id };
            let made = text(&admin.serve_model(&served).await?, "id")?;
            if let Some(change) = deployment {
                admin.patch(&format!("/deployments/{made}"), change.clone()).await?;
            }
            ids.push(made);
        }
        let link = |id: &String| json!({ "deployments": [{ "deployment_id": id, "weight": 1 }] });
        let links: Vec<_> = ids.iter().map(link).collect();
        admin.post("/model-groups", json!({ "name": name, "links": links })).await?;
        Ok(ids)
    }

    /// What the upstream of this link calls its model.
    pub fn upstream_model(link: usize) -> String {
        format!("link-{link}")
    }

    /// Waits until the node serves the group to this client.
    pub async fn settled(client: &Client, name: &str) -> anyhow::Result<()> {
        eventually("the node serves the chain", async || {
            let listed = client.get("/v1/models").await?;
            anyhow::ensure!(
                listed.status == 200 && listed.text().contains(&format!("\"{name}\"")),
                "{} {}",
                listed.status,
                listed.text()
            );
            Ok(())
        })
        .await
    }

    /// How many requests each link has got since its start.
    pub fn served(&self) -> Vec<u64> {
        self.upstreams.iter().map(Upstream::served).collect()
    }
}
