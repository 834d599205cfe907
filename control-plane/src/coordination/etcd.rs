//! The coordinator of an installation with several replicas: etcd, version 3.4 or newer.
//!
//! Connections are made when they are first needed, and made again by themselves. A call that has no answer in time is
//! [`Unavailable`]; whoever calls goes on without. Leases are etcd's, so what a dead replica held goes by itself.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, EventType, GetOptions, Identity, KeyValue,
    PutOptions, TlsOptions, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use futures_util::{StreamExt as _, stream};
use nemo_runtime::{TaskGroup, tls};
use nemo_types::Secret;
use tokio::{
    sync::{OnceCell, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Coordinator, Ended, Entry, Event, Expect, Hold, Listing, Put, Unavailable, Watch};

/// One call, with everything that it takes.
const CALL: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(2);
/// A partition is noticed, not waited for. etcd hangs up on clients that ask more often than every five seconds, or
/// while they want nothing.
const PING: Duration = Duration::from_secs(6);
const PING_ANSWER: Duration = Duration::from_secs(2);
/// A lease shorter than this is rounded up by etcd in its default settings.
const SHORTEST_LEASE: u64 = 2;
/// Leases that are asked for what is left of them, at once.
const LEASES_AT_ONCE: usize = 32;
const LARGEST_ANSWER: usize = 64 << 20;

/// Where etcd is, and how to get in.
#[derive(Clone, Debug, Default)]
pub struct EtcdSettings {
    /// `http://host:2379` or `https://host:2379`; empty: no etcd.
    pub endpoints: Vec<String>,
    pub user: Option<(String, Secret)>,
    /// Authority of etcd's certificate (PEM).
    pub ca: Option<PathBuf>,
    /// This replica's own certificate and key, for an etcd that asks for one.
    pub identity: tls::Identity,
}

impl EtcdSettings {
    /// # Errors
    /// A certificate that can't be read.
    fn options(&self) -> anyhow::Result<ConnectOptions> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT)
            .with_keep_alive(PING, PING_ANSWER)
            .with_keep_alive_while_idle(false)
            .with_auto_token_refresh(true)
            // Half of a divided etcd would otherwise say that nothing happens.
            .with_require_leader(true);
        if let Some((user, password)) = &self.user {
            options = options.with_user(user, password.expose());
        }
        let read = |path: &PathBuf| {
            use anyhow::Context as _;
            std::fs::read(path).with_context(|| format!("can't read {}", path.display()))
        };
        if self.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            let mut tls = TlsOptions::new();
            if let Some(ca) = &self.ca {
                tls = tls.ca_certificate(Certificate::from_pem(read(ca)?));
            }
            if let Some(own) = self.identity.given()? {
                tls = tls.identity(Identity::from_pem(read(&own.cert)?, read(&own.key)?));
            }
            options = options.with_tls(tls);
        }
        Ok(options)
    }
}

struct Inner {
    endpoints: Vec<String>,
    options: ConnectOptions,
    client: OnceCell<Client>,
    /// Keepers of what is held.
    tasks: TaskGroup,
}

/// See the module. A clone is another handle on the same.
#[derive(Clone)]
pub struct EtcdCoordinator {
    inner: Arc<Inner>,
}

impl fmt::Debug for EtcdCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdCoordinator").field("endpoints", &self.inner.endpoints).finish_non_exhaustive()
    }
}

impl EtcdCoordinator {
    /// Connects to nothing yet. What is held is kept by tasks of `tasks`.
    ///
    /// # Errors
    /// When a certificate can't be read.
    pub fn new(settings: &EtcdSettings, tasks: TaskGroup) -> anyhow::Result<Self> {
        let (endpoints, options) = (settings.endpoints.clone(), settings.options()?);
        Ok(Self { inner: Arc::new(Inner { endpoints, options, client: OnceCell::new(), tasks }) })
    }

    /// A client of the shared connections.
    pub(super) async fn client(&self) -> Result<Client, etcd_client::Error> {
        let connect = || Client::connect(&self.inner.endpoints, Some(self.inner.options.clone()));
        Ok(self.inner.client.get_or_try_init(connect).await?.clone())
    }

    async fn call<T>(
        &self,
        call: impl AsyncFnOnce(Client) -> Result<T, etcd_client::Error>,
    ) -> Result<T, Unavailable> {
        let answer = async { call(self.client().await?).await };
        match timeout(CALL, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Unavailable(error.to_string())),
            Err(_) => Err(Unavailable(format!("no answer within {} s", CALL.as_secs()))),
        }
    }

    /// A lease of at least that long.
    async fn lease(&self, ttl: Duration) -> Result<i64, Unavailable> {
        let seconds = ttl.as_millis().div_ceil(1000).max(u128::from(SHORTEST_LEASE));
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        Ok(self.call(async |mut client| client.lease_grant(seconds, None).await).await?.id())
    }

    async fn put_leased(
        &self,
        key: &str,
        value: Bytes,
        lease: Option<i64>,
        expect: Expect,
    ) -> Result<Put, Unavailable> {
        let options = lease.map(|lease| PutOptions::new().with_lease(lease));
        let mut txn = Txn::new();
        if let Some(compare) = compare(key, expect) {
            txn = txn.when([compare]);
        }
        let txn = txn.and_then([TxnOp::put(key, value.to_vec(), options)]).or_else([TxnOp::get(key, None)]);
        let answer = self.call(async |mut client| client.txn(txn).await).await?;
        if answer.succeeded() {
            return Ok(Put::Done { revision: revision(answer.header()) });
        }
        let found = answer.op_responses().into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
            _ => None,
        });
        match found {
            Some(found) => Ok(Put::Conflict(Some(self.entry(&found).await?))),
            None => Ok(Put::Conflict(None)),
        }
    }

    async fn entry(&self, found: &KeyValue) -> Result<Entry, Unavailable> {
        let ttl_left = match found.lease() {
            0 => None,
            lease => {
                let left = self.call(async |mut client| client.lease_time_to_live(lease, None).await);
                // Gone already: -1.
                Some(Duration::from_secs(u64::try_from(left.await?.ttl()).unwrap_or(0)))
            }
        };
        Ok(Entry { ttl_left, ..untimed(found) })
    }

    fn revoke(&self, lease: i64) {
        let it = self.clone();
        self.inner.tasks.spawn("etcd lease", async move {
            if let Err(error) = it.call(async |mut client| client.lease_revoke(lease).await).await {
                tracing::debug!(%error, "a lease was not given back; it ends by itself");
            }
        });
    }
}

fn untimed(found: &KeyValue) -> Entry {
    Entry {
        key: String::from_utf8_lossy(found.key()).into_owned(),
        value: Bytes::copy_from_slice(found.value()),
        revision: u64::try_from(found.mod_revision()).unwrap_or(0),
        ttl_left: None,
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.and_then(|header| u64::try_from(header.revision()).ok()).unwrap_or(0)
}

fn compare(key: &str, expect: Expect) -> Option<Compare> {
    let revision = match expect {
        Expect::Anything => return None,
        Expect::Absent => 0,
        Expect::Revision(revision) => i64::try_from(revision).unwrap_or(i64::MAX),
    };
    Some(Compare::mod_revision(key, CompareOp::Equal, revision))
}

#[tonic::async_trait]
impl Coordinator for EtcdCoordinator {
    async fn list(&self, prefix: &str) -> Result<Listing, Unavailable> {
        let answer = self
            .call(async |client| {
                let options = Some(GetOptions::new().with_prefix());
                client.kv_client().max_decoding_message_size(LARGEST_ANSWER).get(prefix, options).await
            })
            .await?;
        let revision = revision(answer.header());
        let entries = stream::iter(answer.kvs().to_vec()).map(async |found| self.entry(&found).await);
        let entries: Vec<_> = entries.buffered(LEASES_AT_ONCE).collect().await;
        Ok(Listing { entries: entries.into_iter().collect::<Result<_, _>>()?, revision })
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        ttl: Option<Duration>,
        expect: Expect,
    ) -> Result<Put, Unavailable> {
        let lease = match ttl {
            Some(ttl) => Some(self.lease(ttl).await?),
            None => None,
        };
        let put = self.put_leased(key, value, lease, expect).await;
        if let (Some(lease), Ok(Put::Conflict(_)) | Err(_)) = (lease, &put) {
            self.revoke(lease);
        }
        put
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<bool, Unavailable> {
        let compare =
            compare(key, expect).unwrap_or_else(|| Compare::mod_revision(key, CompareOp::Greater, 0));
        let txn = Txn::new().when([compare]).and_then([TxnOp::delete(key, None)]);
        let answer = self.call(async |mut client| client.txn(txn).await).await?;
        let deleted = answer.op_responses().into_iter().any(|answer| match answer {
            TxnOpResponse::Delete(deleted) => deleted.deleted() > 0,
            _ => false,
        });
        Ok(answer.succeeded() && deleted)
    }

    async fn watch(&self, prefix: &str, revision: u64) -> Result<Box<dyn Watch>, Unavailable> {
        let start = i64::try_from(revision).unwrap_or(i64::MAX - 1) + 1;
        let options = WatchOptions::new().with_prefix().with_start_revision(start);
        let stream = self.call(async |mut client| client.watch(prefix, Some(options)).await).await?;
        Ok(Box::new(EtcdWatch { stream }))
    }

    async fn hold(&self, key: &str, value: Bytes, ttl: Duration) -> Result<Option<Hold>, Unavailable> {
        let lease = self.lease(ttl).await?;
        match self.put_leased(key, value, Some(lease), Expect::Absent).await {
            Ok(Put::Done { .. }) => {}
            Ok(Put::Conflict(_)) => {
                self.revoke(lease);
                return Ok(None);
            }
            Err(error) => {
                self.revoke(lease);
                return Err(error);
            }
        }
        let ((kept, lost), stop, it) = (watch::channel(false), CancellationToken::new(), self.clone());
        let stopped = stop.clone();
        self.inner.tasks.spawn("etcd lease", async move {
            tokio::select! {
                () = stopped.cancelled() => it.revoke(lease),
                () = keep_alive(&it, lease, ttl) => drop(kept.send_replace(true)),
            }
        });
        Ok(Some(Hold::new(lost, move || stop.cancel())))
    }
}

/// Until the lease is over, as far as this side can tell.
async fn keep_alive(it: &EtcdCoordinator, lease: i64, ttl: Duration) {
    let mut until = Instant::now() + ttl;
    while Instant::now() < until {
        tokio::time::sleep((ttl / 3).min(until.saturating_duration_since(Instant::now()))).await;
        let sent = Instant::now();
        let kept = it
            .call(async |mut client| {
                // The first answer of a keep-alive stream is awaited by this call.
                client.lease_keep_alive(lease).await.map(drop)
            })
            .await;
        match kept {
            Ok(()) => until = sent + ttl,
            Err(error) if error.0.contains("lease not found") => return,
            Err(error) => tracing::debug!(%error, "a lease is kept alive by the next try"),
        }
    }
}

struct EtcdWatch {
    stream: WatchStream,
}

impl fmt::Debug for EtcdWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdWatch").finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Vec<Event>, Ended> {
        loop {
            let message = self.stream.message().await.map_err(|error| Unavailable(error.to_string()))?;
            let message = message.ok_or_else(|| Unavailable("the watch has ended".into()))?;
            if message.canceled() {
                if message.compact_revision() > 0 {
                    return Err(Ended::Compacted);
                }
                return Err(Unavailable(format!("watch refused: {}", message.cancel_reason())).into());
            }
            let events: Vec<_> = message.events().iter().filter_map(event).collect();
            // The first message says that the watch is there, others that it is still.
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

fn event(event: &etcd_client::Event) -> Option<Event> {
    let entry = untimed(event.kv()?);
    Some(match event.event_type() {
        EventType::Put => Event::Put(entry),
        EventType::Delete => Event::Deleted { key: entry.key, revision: entry.revision },
    })
}
