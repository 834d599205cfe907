//! A whole gateway as child processes, in one of two pairings, with a scripted upstream behind it.
//!
//! - `standalone`: `nemo standalone`, both planes in one process, on the shared test PostgreSQL
//! - `fleet`: `nemo-control-plane` and `nemo-data-plane` as separate processes over TCP
//!
//! `NEMO_TEST_PAIRING` says which; the integration suite runs once in each. Everything is set up through the admin
//! API, as an operator would do it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::admin::Admin;
use crate::client::Client;
use crate::eventually::{eventually, eventually_within};
use crate::ports::free_port;
use crate::postgres::{Database, Server};
use crate::process::{Process, Spec};
use crate::upstream::Upstream;

/// The credential that the gateway holds for the upstream: must never be seen anywhere else.
pub const UPSTREAM_KEY: &str = "sk-upstream-canary-4f1c9a7be2";
/// What the upstream calls the model that clients know as [`MODEL`].
pub const UPSTREAM_MODEL: &str = "gpt-4o-mini";
pub const MODEL: &str = "test-model";
pub const EMBEDDING_MODEL: &str = "test-embedding";
/// Starting three processes on a busy machine.
const START: Duration = Duration::from_secs(60);
const SEAL_KEY: &str = "6f0e1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100";
const NODE_TOKEN: &str = "node-token-for-tests-only";

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

/// Where the processes listen.
#[derive(Clone, Copy, Debug)]
struct Ports {
    data: SocketAddr,
    ops: SocketAddr,
    rest: SocketAddr,
    grpc: SocketAddr,
    control_ops: SocketAddr,
}

impl Ports {
    fn free() -> anyhow::Result<Self> {
        let next = || anyhow::Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)));
        Ok(Self { data: next()?, ops: next()?, rest: next()?, grpc: next()?, control_ops: next()? })
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
    ports: Ports,
    dir: TempDir,
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
        let upstream = Upstream::builder().api_key(Some(UPSTREAM_KEY.into())).start().await?;
        let database = Server::shared().await?.create_database().await?;
        let (ports, dir) = (Ports::free()?, tempfile::tempdir()?);
        std::fs::write(dir.path().join("seal-key"), SEAL_KEY)?;
        let admin = Admin::new(ports.rest, "");
        let mut fleet = Self {
            pairing,
            upstream,
            admin,
            client: Client::new(ports.data),
            key: String::new(),
            key_id: String::new(),
            org_id: String::new(),
            team_id: String::new(),
            database,
            ports,
            dir,
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
                let token = std::fs::read_to_string(self.dir.path().join("data/admin-token"))?;
                self.admin = Admin::new(self.ports.rest, token.trim());
            }
            Pairing::Fleet => {
                self.start_control_plane().await?;
                self.admin = Admin::new(self.ports.rest, &self.operator_token().await?);
                self.start_data_plane()?;
            }
        }
        Ok(())
    }

    /// Starts `nemo standalone` (again) and waits until it serves.
    pub async fn start_standalone(&mut self) -> anyhow::Result<()> {
        let ports = self.ports;
        let process = spec("nemo")?
            .arg("standalone")
            .arg("--data-dir")
            .arg(self.dir.path().join("data"))
            .args(["--postgres-url", self.database.url()])
            .args(["--listen", &ports.data.to_string(), "--ops-listen", &ports.ops.to_string()])
            .args(["--admin-listen", &ports.rest.to_string(), "--grpc-listen", &ports.grpc.to_string()])
            .args(["--admin-ops-listen", &ports.control_ops.to_string()])
            .spawn()?;
        self.wait_ready(&process, ports.ops).await?;
        self.data_plane = Some(process);
        Ok(())
    }

    /// Starts the control plane (again) and waits until it is ready.
    pub async fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let ports = self.ports;
        let process = self
            .control_plane_spec()?
            .arg("serve")
            .args(["--rest-addr", &ports.rest.to_string(), "--grpc-addr", &ports.grpc.to_string()])
            .args(["--metrics-addr", &ports.control_ops.to_string()])
            .spawn()?;
        self.wait_ready(&process, ports.control_ops).await?;
        self.control_plane = Some(process);
        Ok(())
    }

    fn control_plane_spec(&self) -> anyhow::Result<Spec> {
        Ok(spec("nemo-control-plane")?
            .env("NEMO_POSTGRES_URL", self.database.url())
            .env("NEMO_SEAL_KEY_FILE", self.dir.path().join("seal-key"))
            .env("NEMO_NODE_TOKEN", NODE_TOKEN))
    }

    async fn operator_token(&self) -> anyhow::Result<String> {
        let process = self.control_plane_spec()?.args(["admin-token", "--name", "tests"]).spawn()?;
        let line = process.wait_line("adm-nemo-").await?;
        anyhow::ensure!(process.wait_exit().await?.success(), "admin-token failed:\n{}", process.log());
        let token = line.split_whitespace().find(|word| word.starts_with("adm-nemo-"));
        Ok(token.context("no token in the output")?.to_owned())
    }

    /// Starts the data plane (again), without waiting.
    pub fn start_data_plane(&mut self) -> anyhow::Result<()> {
        let ports = self.ports;
        let process = spec("nemo-data-plane")?
            .env("NEMO_SEAL_KEY_FILE", self.dir.path().join("seal-key"))
            .env("NEMO_NODE_TOKEN", NODE_TOKEN)
            .args(["--listen", &ports.data.to_string(), "--ops-listen", &ports.ops.to_string()])
            .arg("--data-dir")
            .arg(self.dir.path().join("node"))
            .arg(format!("--control-plane=http://{}", ports.grpc))
            .spawn()?;
        self.data_plane = Some(process);
        Ok(())
    }

    /// Waits until `/readyz` says so.
    pub async fn wait_ready(&self, process: &Process, ops: SocketAddr) -> anyhow::Result<()> {
        let ready = eventually_within(START, "the process is ready", async || {
            anyhow::ensure!(process.status().is_none(), "it has ended");
            let response = Client::new(ops).get("/readyz").await?;
            anyhow::ensure!(response.status == 200, "{}: {}", response.status, response.text());
            Ok(())
        });
        ready.await.with_context(|| format!("the log:\n{}", process.log()))
    }

    pub async fn data_plane_ready(&self) -> anyhow::Result<()> {
        let process = self.data_plane.as_ref().context("no data plane")?;
        self.wait_ready(process, self.ports.ops).await
    }

    async fn provision(&mut self) -> anyhow::Result<()> {
        let admin = &self.admin;
        let org = admin.post("/organizations", json!({ "name": "tests" })).await?;
        self.org_id = text(&org, "id")?;
        let team = admin.post(&self.org("/teams"), json!({ "name": "first" })).await?;
        self.team_id = text(&team, "id")?;
        for (id, endpoints) in
            [(MODEL, json!(["chat.completions", "completions"])), (EMBEDDING_MODEL, json!(["embeddings"]))]
        {
            let model = json!({
                "id": id, "display_name": id, "owned_by": "tests", "context_window": 128_000,
                "max_output_tokens": 4096, "tags": ["code"], "endpoints": endpoints,
                "offerings": [{
                    "provider": "custom", "upstream_model": UPSTREAM_MODEL,
                    "price": { "input": 2_500_000_000_i64, "output": 10_000_000_000_i64, "cache_read": 1_250_000_000_i64 },
                }],
            });
            admin.put(&format!("/models/{id}"), json!({ "model": model })).await?;
        }
        let credential = json!({ "name": "upstream", "provider": "custom", "secret": UPSTREAM_KEY });
        let credential = text(&admin.post("/credentials", credential).await?, "id")?;
        for model in [MODEL, EMBEDDING_MODEL] {
            self.deploy(model, &credential).await?;
        }
        let (key_id, key) = self.issue_key(json!({ "name": "first" })).await?;
        (self.key_id, self.key) = (key_id, key);
        self.client = Client::new(self.ports.data).bearer(&self.key);
        self.data_plane_ready().await?;
        self.settled(&self.client).await
    }

    async fn deploy(&self, model: &str, credential: &str) -> anyhow::Result<Value> {
        let deployment = json!({
            "provider": "custom", "base_url": self.upstream.base_url(), "credential_id": credential,
            "model": model, "upstream_model": UPSTREAM_MODEL,
        });
        self.admin.post("/deployments", deployment).await
    }

    /// A path of the admin API below this fleet's organization.
    pub fn org(&self, rest: &str) -> String {
        format!("/organizations/{}{rest}", self.org_id)
    }

    /// Issues a key of the first team; returns its id and secret.
    pub async fn issue_key(&self, mut request: Value) -> anyhow::Result<(String, String)> {
        request["team_id"] = json!(self.team_id);
        let issued = self.admin.post(&self.org("/keys"), request).await?;
        Ok((text(&issued["key"], "id")?, text(&issued, "secret")?))
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
        let client = Client::new(self.ports.data);
        key.map_or(client.clone(), |key| client.bearer(key))
    }

    pub fn data_addr(&self) -> SocketAddr {
        self.ports.data
    }

    pub fn grpc_addr(&self) -> SocketAddr {
        self.ports.grpc
    }

    pub fn rest_addr(&self) -> SocketAddr {
        self.ports.rest
    }

    pub async fn metrics(&self) -> anyhow::Result<String> {
        Ok(Client::new(self.ports.ops).get("/metrics").await?.text())
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
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

/// A member of an answer that must be text.
pub fn text(value: &Value, member: &str) -> anyhow::Result<String> {
    Ok(value[member].as_str().with_context(|| format!("no {member} in {value}"))?.to_owned())
}

fn spec(binary: &str) -> anyhow::Result<Spec> {
    Ok(Spec::new(binary_path(binary)?).clear_env().env("NEMO_LOG", "info").env("NO_COLOR", "1"))
}

/// A binary of this workspace, built beside the tests.
pub fn binary_path(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().skip(1).take(3).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built: run `cargo build --workspace --bins` (make test does)")
    })
}
