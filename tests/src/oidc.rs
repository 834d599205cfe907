//! A real OpenID provider as a child process: the npm package `oidc-provider`, set up by `tests/oidc/provider.mjs`.
//!
//! It has a free port and keys of its own; stopping and starting it keeps both. Used by tests of the admin API.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;
use crate::ports::free_port;
use crate::process::{Process, Spec};

/// What a client proves itself with.
const SECRET: &str = "a-secret-of-the-oidc-tests";
/// It makes its keys first, which takes seconds where the machine is busy.
const START: Duration = Duration::from_secs(60);
const HINT: &str = "run `make setup-test`, which installs it";

/// One issuer.
pub struct Issuer {
    addr: SocketAddr,
    url: String,
    keys: PathBuf,
    clients: Value,
    clock_offset: i64,
    process: Option<Process>,
    dir: Arc<TempDir>,
}

impl Issuer {
    /// An issuer that is not running yet. `people` says for each id what its tokens claim.
    pub fn new(people: &Value) -> anyhow::Result<Self> {
        let dir = Arc::new(tempfile::tempdir()?);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let people = people.as_object().context("people: an object")?;
        let client = |claims: &Value| json!({ "secret": SECRET, "claims": claims });
        let clients = people.iter().map(|(id, claims)| (id.clone(), client(claims))).collect();
        let (url, keys) = (format!("http://{addr}"), dir.path().join("keys.json"));
        Ok(Self { addr, url, keys, clients: Value::Object(clients), clock_offset: 0, process: None, dir })
    }

    /// One that runs elsewhere with the keys of this one, and calls itself `url`. Its clock is wrong by so many seconds.
    pub fn twin(&self, url: &str, clock_offset: i64) -> anyhow::Result<Self> {
        Ok(Self {
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            url: url.into(),
            keys: self.keys.clone(),
            clients: self.clients.clone(),
            clock_offset,
            process: None,
            dir: self.dir.clone(),
        })
    }

    /// Its name, and where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Starts it (again), with the keys that it had.
    ///
    /// # Errors
    /// Also when the provider is not installed.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let (folder, node) = installed()?;
        let options = json!({
            "port": self.addr.port(), "issuer": self.url, "keys": self.keys, "clients": self.clients,
            "clockOffset": self.clock_offset,
        });
        let script = folder.join("provider.mjs");
        let process = Spec::new(node).arg(script).arg(options.to_string()).clear_env().spawn()?;
        process.wait_for("its port", START, |line| line.contains("listening on").then_some(())).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// The next start makes new keys.
    pub fn forget_keys(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(&self.keys)?)
    }

    /// A token of this person for that audience, signed with that algorithm.
    pub async fn token(&self, person: &str, audience: &str, algorithm: &str) -> anyhow::Result<String> {
        let body = format!(
            "grant_type=client_credentials&client_id={person}&client_secret={SECRET}\
             &resource=https%3A%2F%2Fnemo.test%2F{audience}%3Falg%3D{algorithm}"
        );
        let request = format!(
            "POST /token HTTP/1.1\r\nhost: {}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.addr,
            body.len()
        );
        let response = Client::new(self.addr).send_raw(request.as_bytes()).await?.finish().await?;
        ensure!(response.status == 200, "{} {}", response.status, response.text());
        crate::admin::text(&response.json()?, "access_token")
    }
}

/// The folder of the provider, and the Node to run it with.
fn installed() -> anyhow::Result<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("oidc");
    ensure!(
        folder.join("node_modules/oidc-provider").is_dir(),
        "the OpenID provider of the tests is not installed: {HINT}"
    );
    // The test environment's own, where the system's is missing or too old.
    let own = root.join("../.venv/bin/node");
    Ok((folder, if own.exists() { own } else { PathBuf::from("node") }))
}
