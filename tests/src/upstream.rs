//! A scripted upstream on a loopback port, which speaks as OpenAI, Anthropic, Google, Bedrock and Cohere do, which records every request that reaches it.
//!
//! Answers are correct in form and deterministic; a [`Script`] changes their content or makes them fail. Integration
//! tests run it in process, other suites through `nemo-testenv upstream`. Dropping [`Upstream`] closes the port and
//! all connections.

pub mod dialects;
mod embed;
pub mod media;
mod plan;
mod record;
mod reply;
mod serve;
pub mod stored;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::script::Script;

pub use record::{Ended, Recorded};
pub use reply::PROMPT_TOKENS;

/// Requests kept by default; older ones are dropped and counted.
const DEFAULT_RECORD_LIMIT: usize = 1024;

/// A running upstream.
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Owns the accept loop, which owns the connections: dropped together.
    _server: JoinSet<()>,
}

/// What connections and tests both see.
pub(crate) struct Shared {
    pub(crate) api_key: Option<String>,
    pub(crate) models: Vec<String>,
    record_limit: usize,
    served: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Script>,
    by_model: HashMap<String, Script>,
    records: VecDeque<Arc<Recorded>>,
    kept: stored::Kept,
    dropped: u64,
}

/// Settings of an upstream, from [`Upstream::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    port: u16,
    api_key: Option<String>,
    models: Vec<String>,
    record_limit: usize,
}

impl Builder {
    /// 0 (the default) takes a free port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// Refuses requests without this bearer token, as OpenAI does.
    #[must_use]
    pub fn api_key(self, api_key: Option<String>) -> Self {
        Self { api_key, ..self }
    }

    /// What `GET /v1/models` lists. Requests may name any other model as well.
    #[must_use]
    pub fn models<S: Into<String>>(self, models: impl IntoIterator<Item = S>) -> Self {
        Self { models: models.into_iter().map(Into::into).collect(), ..self }
    }

    #[must_use]
    pub fn record_limit(self, record_limit: usize) -> Self {
        Self { record_limit, ..self }
    }

    pub async fn start(self) -> anyhow::Result<Upstream> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))
            .await
            .with_context(|| format!("listen on 127.0.0.1:{}", self.port))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            api_key: self.api_key,
            models: self.models,
            record_limit: self.record_limit.max(1),
            served: AtomicU64::new(0),
            state: Mutex::default(),
        });
        let mut server = JoinSet::new();
        server.spawn(serve::accept(listener, shared.clone()));
        Ok(Upstream { addr, shared, _server: server })
    }
}

impl Upstream {
    pub fn builder() -> Builder {
        Builder {
            port: 0,
            api_key: None,
            models: ["gpt-4o-mini", "gpt-4o", "text-embedding-3-small"].map(String::from).into(),
            record_limit: DEFAULT_RECORD_LIMIT,
        }
    }

    /// An upstream with the default settings.
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:<port>/v1`
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// `http://127.0.0.1:<port>`
    pub fn origin(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The next request that has no script in a header gets this one. Scripts queue up.
    pub fn push(&self, script: Script) {
        self.shared.lock().queue.push_back(script);
    }

    /// Every request for this model gets this script, unless the header or the queue has one.
    pub fn script_model(&self, model: &str, script: Script) {
        self.shared.lock().by_model.insert(model.into(), script);
    }

    /// Requests so far, oldest first, as far as they are kept.
    pub fn requests(&self) -> Vec<Arc<Recorded>> {
        self.shared.lock().records.iter().cloned().collect()
    }

    /// The latest request.
    ///
    /// # Errors
    /// When none has come yet.
    pub fn last_request(&self) -> anyhow::Result<Arc<Recorded>> {
        self.shared.lock().records.back().cloned().context("the upstream has seen no request")
    }

    /// How many requests have come since the start, whatever became of them.
    pub fn served(&self) -> u64 {
        self.shared.served.load(Ordering::Relaxed)
    }

    /// How many records were dropped because there were too many.
    pub fn dropped_records(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Forgets records and scripts; the count of served requests goes on.
    pub fn clear(&self) {
        *self.shared.lock() = State::default();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of a new request, from 1.
    pub(crate) fn next_number(&self) -> u64 {
        self.served.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn record(&self, record: Arc<Recorded>) {
        let mut state = self.lock();
        if state.records.len() == self.record_limit {
            state.records.pop_front();
            state.dropped += 1;
        }
        state.records.push_back(record);
    }

    /// The script for a request, and the model name without a script in it.
    pub(crate) fn script_for(&self, header: Option<&str>, model: &str) -> anyhow::Result<(Script, String)> {
        let (name, suffix) =
            model.split_once('!').map_or((model, None), |(name, script)| (name, Some(script)));
        let script = if let Some(text) = header {
            Script::parse(text)?
        } else {
            let mut state = self.lock();
            match (state.queue.pop_front(), suffix) {
                (Some(queued), _) => queued,
                (None, Some(text)) => Script::parse(text)?,
                (None, None) => state.by_model.get(name).cloned().unwrap_or_default(),
            }
        };
        Ok((script, name.to_owned()))
    }
}
