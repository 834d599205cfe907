//! The product for measurements of size: both planes as processes on an own database.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nemo_tests::admin::{Admin, ServedModel, Tenant, text};
use nemo_tests::client::Client;
use nemo_tests::eventually::eventually_within;
use nemo_tests::postgres::{Database, Server};
use nemo_tests::process::{Process, Signal};
use nemo_tests::site::Site;
use serde_json::json;

/// A million keys through a debug build.
const PATIENCE: Duration = Duration::from_secs(600);
pub(super) const MODEL: &str = "bench";

/// Dropped in the order of its fields.
pub(super) struct Gateway {
    pub(super) data_plane: Option<Process>,
    pub(super) control_plane: Option<Process>,
    pub(super) site: Site,
    pub(super) database: Database,
    pub(super) admin: Admin,
    pub(super) tenant: Tenant,
    /// Id and secret of the first key.
    pub(super) key: (String, String),
}

impl Gateway {
    /// Starts the control plane and makes an organization, a team, a key, and the model that `upstream` serves.
    pub(super) async fn start(upstream: SocketAddr) -> anyhow::Result<Self> {
        let database = Server::shared().await?.create_database().await?;
        let site = Site::new(database.url())?;
        let control_plane = site.control_plane()?.spawn()?;
        ready(&control_plane, site.ports.control_ops).await?;
        let admin = Admin::new(site.ports.rest, &site.operator_token().await?);
        let tenant = admin.create_tenant("scale", "scale").await?;
        let credential_id = &admin.create_credential("sk-scale-upstream").await?;
        let served = ServedModel {
            id: MODEL,
            endpoints: &["chat.completions"],
            upstream_model: "scale-upstream",
            base_url: &format!("http://{upstream}/v1"),
            credential_id,
        };
        admin.serve_model(&served).await?;
        let issued = json!({ "team_id": tenant.team_id, "name": "first" });
        let issued = admin.post(&format!("/organizations/{}/keys", tenant.org_id), issued).await?;
        let key = (text(&issued["key"], "id")?, text(&issued, "secret")?);
        Ok(Self { data_plane: None, control_plane: Some(control_plane), site, database, admin, tenant, key })
    }

    /// Ends the control plane and starts it again; tells how long it took to be ready.
    pub(super) async fn restart_control_plane(&mut self) -> anyhow::Result<Duration> {
        if let Some(process) = self.control_plane.take() {
            process.signal(Signal::TERM)?;
            process.wait_exit().await?;
        }
        let started = Instant::now();
        let process = self.site.control_plane()?.spawn()?;
        ready(&process, self.site.ports.control_ops).await?;
        self.control_plane = Some(process);
        Ok(started.elapsed())
    }

    /// Ends the data plane, if there is one, and starts it; tells how long it took to serve the key. With `afresh` it has to
    /// fetch everything from the control plane.
    pub(super) async fn restart_data_plane(&mut self, afresh: bool) -> anyhow::Result<Duration> {
        if let Some(process) = self.data_plane.take() {
            process.signal(Signal::TERM)?;
            process.wait_exit().await?;
        }
        let dir = self.site.dir().join("node");
        if afresh && dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        let started = Instant::now();
        let process = self.site.data_plane()?.spawn()?;
        ready(&process, self.site.ports.ops).await?;
        self.data_plane = Some(process);
        let client = self.client();
        eventually_within(PATIENCE, "the node knows the key", async || {
            let answer = client.get("/v1/models").await?;
            anyhow::ensure!(answer.status == 200 && answer.text().contains(MODEL), "{}", answer.text());
            Ok(())
        })
        .await?;
        Ok(started.elapsed())
    }

    fn client(&self) -> Client {
        Client::new(self.site.ports.data).bearer(&self.key.1)
    }
}

async fn ready(process: &Process, ops: SocketAddr) -> anyhow::Result<()> {
    let probe = eventually_within(PATIENCE, "the process is ready", async || {
        anyhow::ensure!(process.status().is_none(), "it has ended");
        let response = Client::new(ops).get("/readyz").await?;
        anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
        Ok(())
    });
    probe.await.with_context(|| format!("the log:\n{}", process.log()))
}
