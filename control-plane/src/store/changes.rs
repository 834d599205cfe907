//! The change feed: current revision, what changed after one, and a signal that there is something new.
//!
//! Called by `publish/`. Revision order is commit order (migration 0008), so a reader that has seen revision n never
//! misses one below it.

use std::time::Duration;

use sqlx::{FromRow, PgConnection, postgres::PgListener};

use super::{Store, StoreError, SystemTx, WriteTx, tx::Inside};

/// Channel that config writes notify.
const CHANNEL: &str = "nemo_config";
/// Covers lost notifications, and how often a lost listener is tried again.
const POLL: Duration = Duration::from_secs(5);

/// A resource that a revision touched. Whether it still exists, its row says.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct Change {
    /// Number of `nemo.config.v1.Kind`.
    pub kind: i16,
    /// 16 UUID bytes, for a model its id in UTF-8.
    pub id: Vec<u8>,
}

/// What changed since a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// Each touched resource once.
    Some(Vec<Change>),
    /// The feed does not reach back that far, or the database is another one: read everything.
    Unknown,
}

/// One consistent, read-only view of the configuration.
pub struct ConfigTx(SystemTx);

impl Store {
    /// # Errors
    /// When the database can't be reached.
    pub async fn config_snapshot(&self) -> Result<ConfigTx, StoreError> {
        let mut tx = self.system().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(tx.conn()).await?;
        Ok(ConfigTx(tx))
    }

    /// Signals when the configuration may have changed.
    pub fn watch_config(&self) -> ConfigWatch {
        ConfigWatch { store: self.clone(), listener: None, warned: false }
    }
}

impl ConfigTx {
    /// The newest committed revision.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn revision(&mut self) -> Result<u64, StoreError> {
        ConfigRead::revision(self).await
    }

    /// As [`ConfigRead::changes_after`].
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn changes_after(&mut self, revision: u64) -> Result<Changes, StoreError> {
        ConfigRead::changes_after(self, revision).await
    }
}

/// A view of the whole configuration, of every owner.
pub trait ConfigRead: Send {
    /// For the store only.
    fn connection(&mut self, inside: Inside) -> &mut PgConnection;

    /// The newest revision that this view shows.
    ///
    /// # Errors
    /// When the database can't be read.
    fn revision(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        async {
            let revision: i64 = sqlx::query_scalar("SELECT revision FROM config_revision")
                .fetch_one(self.connection(Inside(())))
                .await?;
            Ok(revision.unsigned_abs())
        }
    }

    /// What changed after `revision`. Revision zero is always unknown: the first load reads everything.
    ///
    /// # Errors
    /// When the database can't be read.
    fn changes_after(&mut self, revision: u64) -> impl Future<Output = Result<Changes, StoreError>> + Send {
        async move { changes_after(self.connection(Inside(())), revision).await }
    }
}

impl ConfigRead for ConfigTx {
    fn connection(&mut self, _inside: Inside) -> &mut PgConnection {
        self.0.conn()
    }
}

/// The configuration as it will be when a write commits. Only for a transaction that holds the lock of all writers:
/// otherwise what it shows may change between two reads.
pub struct Uncommitted<'a, T>(&'a mut T);

impl<'a, T: WriteTx> Uncommitted<'a, T> {
    /// Sees the rows of every owner from here on, until [`Self::end`]. When that is not called, nothing may follow but
    /// the rollback.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn begin(tx: &'a mut T) -> Result<Self, StoreError> {
        // The organization stays set, so that a policy that looks at it finds the same afterwards.
        sqlx::query("SET LOCAL ROLE nemo_system").execute(tx.connection(Inside(()))).await?;
        Ok(Self(tx))
    }

    /// Back to what the transaction may see.
    ///
    /// # Errors
    /// When the database can't be reached.
    pub async fn end(self) -> Result<(), StoreError> {
        let role = match self.0.org_column() {
            Some(_) => "SET LOCAL ROLE nemo_app",
            None => "SET LOCAL ROLE nemo_system",
        };
        sqlx::query(role).execute(self.0.connection(Inside(()))).await?;
        Ok(())
    }
}

impl<T: WriteTx> ConfigRead for Uncommitted<'_, T> {
    fn connection(&mut self, inside: Inside) -> &mut PgConnection {
        self.0.connection(inside)
    }
}

async fn changes_after(connection: &mut PgConnection, revision: u64) -> Result<Changes, StoreError> {
    let (newest, oldest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT r.revision, (SELECT min(revision) FROM config_changes) FROM config_revision r",
    )
    .fetch_one(&mut *connection)
    .await?;
    let after = i64::try_from(revision).unwrap_or(i64::MAX);
    // Revisions have no gaps, so the feed is complete if it starts at or before the next one.
    let complete = after == newest || oldest.is_some_and(|oldest| oldest <= after + 1);
    if revision == 0 || after > newest || !complete {
        return Ok(Changes::Unknown);
    }
    let changes =
        sqlx::query_as("SELECT DISTINCT kind, id FROM config_changes WHERE revision > $1 ORDER BY kind, id")
            .bind(after)
            .fetch_all(connection)
            .await?;
    Ok(Changes::Some(changes))
}

/// Waits for changes: a notification, a (re)connection of the listener, or five seconds.
pub struct ConfigWatch {
    store: Store,
    listener: Option<PgListener>,
    warned: bool,
}

impl ConfigWatch {
    /// Resolves when the configuration may have changed. Never fails: while the database is away it resolves every
    /// five seconds. Dropping the future loses nothing that the next poll would not find.
    pub async fn changed(&mut self) {
        let Some(listener) = &mut self.listener else {
            return self.connect().await;
        };
        match tokio::time::timeout(POLL, listener.try_recv()).await {
            // A lost connection (`None`) may have lost notifications.
            Ok(Ok(_)) | Err(_) => while listener.next_buffered().is_some() {},
            Ok(Err(error)) => {
                tracing::warn!(%error, "lost the listener for configuration changes; polling until it is back");
                self.listener = None;
                self.warned = true;
            }
        }
    }

    async fn connect(&mut self) {
        match listen(&self.store).await {
            Ok(listener) => {
                self.listener = Some(listener);
                if std::mem::take(&mut self.warned) {
                    tracing::info!("listening for configuration changes again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(%error, "can't listen for configuration changes; polling every 5 s");
                }
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

async fn listen(store: &Store) -> Result<PgListener, sqlx::Error> {
    let mut listener = PgListener::connect_with(store.pool()).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
