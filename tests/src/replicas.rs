//! Several replicas of the control plane on one database, and several nodes that know all of them. For tests of what a
//! single control plane or a single node can't show: failover, revocations, waiting for the whole fleet.

use serde_json::{Value, json};

use crate::admin::{Admin, ServedModel, Tenant};
use crate::client::Client;
use crate::eventually::eventually;
use crate::fleet::{MODEL, UPSTREAM_KEY, UPSTREAM_MODEL};
use crate::postgres::{Database, Server};
use crate::process::Process;
use crate::site::{Site, wait_ready};
use crate::upstream::Upstream;

/// One process with its place.
pub struct Member {
    pub site: Site,
    /// `None` when a test has ended it.
    pub process: Option<Process>,
}

impl Member {
    /// Ends it without notice.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(process) = self.process.take() {
            process.signal(rustix::process::Signal::KILL)?;
            process.wait_exit().await?;
        }
        Ok(())
    }
}

/// How an installation is put together, beyond how many there are of each.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Of every control plane.
    pub options: Vec<String>,
    /// Each node knows one control plane: the first the first, and so on, in turn.
    pub pinned: bool,
    /// Of every node, as `NEMO_…` variables.
    pub node_settings: Vec<(String, String)>,
}

/// A running installation.
pub struct Replicas {
    pub upstream: Upstream,
    pub database: Database,
    pub control_planes: Vec<Member>,
    pub nodes: Vec<Member>,
    pub tenant: Tenant,
    pub credential_id: String,
    layout: Layout,
    token: String,
}

impl Replicas {
    /// Starts so many of each, with a tenant and a model that all nodes serve.
    pub async fn start(control_planes: usize, nodes: usize) -> anyhow::Result<Self> {
        Self::start_as(control_planes, nodes, Layout::default()).await
    }

    /// The same, put together in that way.
    pub async fn start_as(control_planes: usize, nodes: usize, layout: Layout) -> anyhow::Result<Self> {
        let upstream = Upstream::builder().api_key(Some(UPSTREAM_KEY.into())).start().await?;
        let database = Server::shared().await?.create_database().await?;
        let mut started = Vec::new();
        for _ in 0..control_planes {
            let site = Site::new(database.url())?;
            let process = site.control_plane()?.args(&layout.options).spawn()?;
            wait_ready(&process, site.ports.control_ops).await?;
            started.push(Member { site, process: Some(process) });
        }
        let token = started[0].site.operator_token().await?;
        let admin = Admin::new(started[0].site.ports.rest, &token);
        let tenant = admin.create_tenant("tests", "first").await?;
        let credential_id = &admin.create_credential(UPSTREAM_KEY).await?;
        let model = ServedModel {
            id: MODEL,
            endpoints: &["chat.completions"],
            upstream_model: UPSTREAM_MODEL,
            base_url: &upstream.base_url(),
            credential_id,
        };
        admin.serve_model(&model).await?;
        let mut it = Self {
            credential_id: credential_id.clone(),
            upstream,
            database,
            control_planes: started,
            nodes: Vec::new(),
            tenant,
            layout,
            token,
        };
        for _ in 0..nodes {
            it.add_node().await?;
        }
        Ok(it)
    }

    /// Starts one more node and waits until it serves.
    pub async fn add_node(&mut self) -> anyhow::Result<()> {
        let mut site = Site::new(self.database.url())?;
        site.node_settings.clone_from(&self.layout.node_settings);
        let process = site.data_plane_of(&self.control_plane_urls(self.nodes.len()))?.spawn()?;
        wait_ready(&process, site.ports.ops).await?;
        self.nodes.push(Member { site, process: Some(process) });
        Ok(())
    }

    /// Starts a node again that was ended.
    pub async fn restart_node(&mut self, at: usize) -> anyhow::Result<()> {
        let urls = self.control_plane_urls(at);
        let node = &mut self.nodes[at];
        let process = node.site.data_plane_of(&urls)?.spawn()?;
        wait_ready(&process, node.site.ports.ops).await?;
        node.process = Some(process);
        Ok(())
    }

    fn control_plane_urls(&self, node: usize) -> String {
        let url = |member: &Member| format!("http://{}", member.site.ports.grpc);
        if self.layout.pinned {
            return url(&self.control_planes[node % self.control_planes.len()]);
        }
        self.control_planes.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// The operator at one of the control planes.
    pub fn admin(&self, control_plane: usize) -> Admin {
        Admin::new(self.control_planes[control_plane].site.ports.rest, &self.token)
    }

    /// A client of one of the nodes.
    pub fn client(&self, node: usize, key: &str) -> Client {
        Client::new(self.nodes[node].site.ports.data).bearer(key)
    }

    /// What one of the nodes tells about itself.
    pub async fn metrics(&self, node: usize) -> anyhow::Result<String> {
        Ok(Client::new(self.nodes[node].site.ports.ops).get("/metrics").await?.text())
    }

    /// A path of the admin API below the organization.
    pub fn org(&self, rest: &str) -> String {
        format!("/organizations/{}{rest}", self.tenant.org_id)
    }

    /// Issues a key over one of the control planes; returns its id and secret.
    pub async fn issue_key(
        &self,
        control_plane: usize,
        mut request: Value,
    ) -> anyhow::Result<(String, String)> {
        if request.get("name").is_none() {
            request["name"] = json!("key");
        }
        self.admin(control_plane).issue_key(&self.tenant, request).await
    }

    /// Starts a control plane again that was ended.
    pub async fn restart_control_plane(&mut self, at: usize) -> anyhow::Result<()> {
        let control_plane = &mut self.control_planes[at];
        let process = control_plane.site.control_plane()?.args(&self.layout.options).spawn()?;
        wait_ready(&process, control_plane.site.ports.control_ops).await?;
        control_plane.process = Some(process);
        Ok(())
    }

    /// A further model with a deployment of its own, known to every node; returns the deployment's id.
    pub async fn serve(&self, model: &str, upstream_model: &str) -> anyhow::Result<String> {
        let model = ServedModel {
            id: model,
            endpoints: &["chat.completions"],
            upstream_model,
            base_url: &self.upstream.base_url(),
            credential_id: &self.credential_id,
        };
        crate::admin::text(&self.admin(0).serve_model(&model).await?, "id")
    }

    /// Waits until every running node accepts the key.
    pub async fn known_everywhere(&self, key: &str) -> anyhow::Result<()> {
        for (at, node) in self.nodes.iter().enumerate() {
            if node.process.is_none() {
                continue;
            }
            let client = self.client(at, key);
            eventually("the node knows the key", async || {
                let status = client.get("/v1/models").await?.status;
                anyhow::ensure!(status == 200, "node {at} says {status}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
