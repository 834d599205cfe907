//! A whole gateway as child processes, in one of two pairings, with a scripted upstream behind it.
//!
//! - `standalone`: `nemo standalone`, both planes in one process, on the shared test PostgreSQL
//! - `fleet`: `nemo-control-plane` and `nemo-data-plane` as separate processes over TCP
//!
//! `NEMO_TEST_PAIRING` says which; the integration suite runs once in each. Everything is set up through the admin
//! API, as an operator would do it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::admin::{Admin, ServedModel, Tenant};
use crate::client::Client;
use crate::eventually::eventually;
use crate::postgres::{Database, Server};
use crate::process::Process;
use crate::site::{Site, wait_ready};
use crate::upstream::Upstream;

pub use crate::admin::text;
pub use crate::site::binary_path;

/// The credential that the gateway holds for the upstream: must never be seen anywhere else.
pub const UPSTREAM_KEY: &str = "sk-upstream-canary-4f1c9a7be2";
/// What the upstream calls the model that clients know as [`MODEL`].
pub const UPSTREAM_MODEL: &str = "gpt-4o-mini";
pub const MODEL: &str = "test-model";
pub const EMBEDDING_MODEL: &str = "test-embedding";

/// For the first part of a budget, which the default (150 ms) would refuse a client where the machine stands still.
const LEASE_WAIT: (&str, &str) = ("NEMO_TIMEOUTS__LEASE_WAIT_MS", "2000");
/// Requests that the upstream remembers.
const RECORDS: usize = 50_000;

/// How the planes are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    Standalone,
    Fleet,
}

impl Pairing {
    /// From `NEMO_TEST_PAIRING`; standalone when it is not set.
    ///
    /// # Errors
    /// When the variable holds something else.
    pub fn from_env() -> anyhow::Result<Self> {
        match std::env::var("NEMO_TEST_PAIRING").as_deref() {
            Err(_) | Ok("" | "standalone") => Ok(Self::Standalone),
            Ok("fleet") => Ok(Self::Fleet),
            Ok(other) => anyhow::bail!("NEMO_TEST_PAIRING is {other:?}, expected standalone or fleet"),
        }
    }
}

/// A running gateway.
pub struct Fleet {
    pub pairing: Pairing,
    pub upstream: Upstream,
    pub admin: Admin,
    /// With the key of the first team.
    pub client: Client,
    pub key: String,
    pub key_id: String,
    pub org_id: String,
    pub team_id: String,
    pub database: Database,
    site: Site,
    /// The only process in a standalone pairing, else the data plane.
    pub data_plane: Option<Process>,
    pub control_plane: Option<Process>,
}

impl Fleet {
    /// Starts the pairing that the environment names, with a key and a model that the upstream serves.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_as(Pairing::from_env()?).await
    }

    pub async fn start_as(pairing: Pairing) -> anyhow::Result<Self> {
        Self::start_logging(pairing, "info").await
    }

    /// The pairing that the environment names, with settings of the data plane as `NEMO_…` variables.
    pub async fn start_with(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_site(Pairing::from_env()?, "info", settings).await
    }

    /// The pairing that the environment names, with settings of the control plane as `NEMO_…` variables.
    pub async fn start_with_control(settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let pairing = Pairing::from_env()?;
        Self::start_planes(Server::shared().await?, (pairing, "info"), &[], settings).await
    }

    /// With a filter as in `NEMO_LOG`.
    pub async fn start_logging(pairing: Pairing, log: &'static str) -> anyhow::Result<Self> {
        Self::start_site(pairing, log, &[]).await
    }

    /// A pairing with a log filter and with settings of the data plane.
    pub async fn start_site(
        pairing: Pairing,
        log: &'static str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_on(Server::shared().await?, pairing, log, settings).await
    }

    /// The same on this server.
    pub async fn start_on(
        server: &Server,
        pairing: Pairing,
        log: &'static str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_planes(server, (pairing, log), settings, &[]).await
    }

    /// The same, with settings of the control plane as well.
    async fn start_planes(
        server: &Server,
        (pairing, log): (Pairing, &'static str),
        settings: &[(&str, &str)],
        control: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let upstream = Upstream::builder().api_key(Some(UPSTREAM_KEY.into())).record_limit(RECORDS);
        let upstream = upstream.start().await?;
        let database = server.create_database().await?;
        let mut site = Site::new(database.url())?;
        site.log = log;
        let owned = |settings: &[(&str, &str)]| -> Vec<_> {
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        site.node_settings = [owned(&[LEASE_WAIT]), owned(settings)].concat();
        site.control_settings = owned(control);
        let admin = Admin::new(site.ports.rest, "");
        let mut fleet = Self {
            pairing,
            upstream,
            admin,
            client: Client::new(site.ports.data),
            key: String::new(),
            key_id: String::new(),
            org_id: String::new(),
            team_id: String::new(),
            database,
            site,
            data_plane: None,
            control_plane: None,
        };
        fleet.start_processes().await?;
        fleet.provision().await?;
        Ok(fleet)
    }

    async fn start_processes(&mut self) -> anyhow::Result<()> {
        match self.pairing {
            Pairing::Standalone => {
                self.start_standalone().await?;
                let token = std::fs::read_to_string(self.dir().join("data/admin-token"))?;
                self.admin = Admin::new(self.rest_addr(), token.trim());
            }
            Pairing::Fleet => {
                self.start_control_plane().await?;
                self.admin = Admin::new(self.rest_addr(), &self.site.operator_token().await?);
                self.start_data_plane()?;
            }
        }
        Ok(())
    }

    /// Starts `nemo standalone` (again) and waits until it serves.
    pub async fn start_standalone(&mut self) -> anyhow::Result<()> {
        let process = self.site.standalone()?.spawn()?;
        wait_ready(&process, self.site.ports.ops).await?;
        self.data_plane = Some(process);
        Ok(())
    }

    /// Starts the control plane (again) and waits until it is ready.
    pub async fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let process = self.site.control_plane()?.spawn()?;
        wait_ready(&process, self.site.ports.control_ops).await?;
        self.control_plane = Some(process);
        Ok(())
    }

    /// Starts the data plane (again), without waiting.
    pub fn start_data_plane(&mut self) -> anyhow::Result<()> {
        self.data_plane = Some(self.site.data_plane()?.spawn()?);
        Ok(())
    }

    /// Waits until `/readyz` of the data plane says so.
    pub async fn data_plane_ready(&self) -> anyhow::Result<()> {
        let process = self.data_plane.as_ref().context("no data plane")?;
        wait_ready(process, self.site.ports.ops).await
    }

    async fn provision(&mut self) -> anyhow::Result<()> {
        let admin = &self.admin;
        let tenant = admin.create_tenant("tests", "first").await?;
        let credential_id = &admin.create_credential(UPSTREAM_KEY).await?;
        let base_url = &self.upstream.base_url();
        let served: [(&str, &[&str]); 2] =
            [(MODEL, &["chat.completions", "completions"]), (EMBEDDING_MODEL, &["embeddings"])];
        for (id, endpoints) in served {
            let upstream_model = UPSTREAM_MODEL;
            admin
                .serve_model(&ServedModel { id, endpoints, upstream_model, base_url, credential_id })
                .await?;
        }
        (self.org_id, self.team_id) = (tenant.org_id, tenant.team_id);
        let (key_id, key) = self.issue_key(json!({ "name": "first" })).await?;
        (self.key_id, self.key) = (key_id, key);
        self.client = self.client_with(Some(&self.key));
        self.data_plane_ready().await?;
        self.settled(&self.client).await
    }

    /// A path of the admin API below this fleet's organization.
    pub fn org(&self, rest: &str) -> String {
        format!("/organizations/{}{rest}", self.org_id)
    }

    /// Lets many failures pass before the organization's breakers open: for tests of what comes after each of them.
    pub async fn tolerant(&self) -> anyhow::Result<()> {
        let path = self.org("/settings/cooldown.failures?wait=fleet");
        self.admin.put(&path, json!({ "value": "1000" })).await.map(drop)
    }

    /// Issues a key of the first team; returns its id and secret.
    pub async fn issue_key(&self, request: Value) -> anyhow::Result<(String, String)> {
        let tenant = Tenant { org_id: self.org_id.clone(), team_id: self.team_id.clone() };
        self.admin.issue_key(&tenant, request).await
    }

    /// Waits until the node knows this client's key and serves the test's models.
    pub async fn settled(&self, client: &Client) -> anyhow::Result<()> {
        eventually("the node has the configuration", async || {
            let response = client.get("/v1/models").await?;
            let listed = response.text();
            anyhow::ensure!(
                response.status == 200 && listed.contains(EMBEDDING_MODEL),
                "{} {listed}",
                response.status
            );
            Ok(())
        })
        .await
    }

    /// A client of the data port with another key, or with none.
    pub fn client_with(&self, key: Option<&str>) -> Client {
        let client = Client::new(self.site.ports.data);
        key.map_or(client.clone(), |key| client.bearer(key))
    }

    pub fn data_addr(&self) -> SocketAddr {
        self.site.ports.data
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.site.ports.grpc
    }

    pub fn rest_addr(&self) -> SocketAddr {
        self.site.ports.rest
    }

    /// Health and metrics of the data plane.
    pub fn ops_addr(&self) -> SocketAddr {
        self.site.ports.ops
    }

    /// How many rows of the request log have this outcome, once there are at least `count`. Read from the database: a
    /// page of the API is too short for it.
    pub async fn count_requests(&self, outcome: &str, count: usize) -> anyhow::Result<i64> {
        let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(self.database.url()).await?;
        let connection = tokio::sync::Mutex::new(&mut connection);
        eventually("the request log has the rows", async || {
            let sql = "SELECT count(*) FROM request_log WHERE outcome = $1";
            let mut connection = connection.lock().await;
            let rows: i64 = sqlx::query_scalar(sql).bind(outcome).fetch_one(&mut **connection).await?;
            anyhow::ensure!(usize::try_from(rows)? >= count, "{rows} of {count}");
            Ok(rows)
        })
        .await
    }

    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(Client::new(self.site.ports.ops).get("/metrics").await?.text())
    }

    pub fn dir(&self) -> &Path {
        self.site.dir()
    }

    /// The rows of the request log, newest first, once there are at least `count`.
    pub async fn request_log(&self, count: usize) -> anyhow::Result<Vec<Value>> {
        eventually("the request log has the rows", async || {
            let listed = self.admin.get(&self.org("/requests")).await?;
            let rows = listed["requests"].as_array().cloned().unwrap_or_default();
            anyhow::ensure!(rows.len() >= count, "{} of {count}", rows.len());
            Ok(rows)
        })
        .await
    }

    /// What all processes have written.
    pub fn logs(&self) -> String {
        [&self.data_plane, &self.control_plane].into_iter().flatten().map(Process::log).collect()
    }
}
