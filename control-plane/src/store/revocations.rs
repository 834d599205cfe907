//! What must stop at once, as the database tells it at the commit (migrations 0012 and 0016). Called by `publish/revocations.rs`.

use std::time::Duration;

use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};

use super::{Store, StoreError};

const CHANNEL: &str = "nemo_revoked";
/// Between two tries to listen again. What is missed meanwhile comes with the change feed.
const RETRY: Duration = Duration::from_secs(1);
/// How long the end of the connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a revocation is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedRow {
    /// By public id.
    Key(String),
    /// One secret of a key.
    Secret {
        public_id: String,
        hash: [u8; 32],
    },
    Team(uuid::Uuid),
    Organization(uuid::Uuid),
}

/// Waits for revocations.
pub struct RevocationWatch {
    store: Store,
    listener: Option<(PgListener, PgPool)>,
    warned: bool,
}

impl Store {
    /// Listens on a connection of its own, beside the pools.
    pub fn watch_revocations(&self) -> RevocationWatch {
        RevocationWatch { store: self.clone(), listener: None, warned: false }
    }
}

impl RevocationWatch {
    /// The next one, with the revision that says the same. Never fails: a lost connection is opened again.
    pub async fn next(&mut self) -> (u64, RevokedRow) {
        loop {
            let Some((listener, _)) = &mut self.listener else {
                self.connect().await;
                continue;
            };
            match listener.try_recv().await {
                Ok(Some(told)) => match parse(told.payload()) {
                    Some(revocation) => return revocation,
                    // Of a newer release, which knows more kinds: the change feed brings them.
                    None => tracing::debug!(payload = told.payload(), "a revocation of an unknown kind"),
                },
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "lost the listener for revocations; they come with the change feed");
                    self.listener = None;
                    self.warned = true;
                }
            }
        }
    }

    /// Ends the connection. Without this it would be given back in the background, possibly after the database has gone.
    pub async fn close(&mut self) {
        let Some((listener, pool)) = self.listener.take() else { return };
        drop(listener);
        let _late = tokio::time::timeout(GOODBYE, pool.close()).await;
    }

    async fn connect(&mut self) {
        match listen(&self.store).await {
            Ok(listener) => {
                self.listener = Some(listener);
                if std::mem::take(&mut self.warned) {
                    tracing::info!("listening for revocations again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.warned, true) {
                    tracing::warn!(%error, "can't listen for revocations; they come with the change feed");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn listen(store: &Store) -> Result<(PgListener, PgPool), StoreError> {
    let options = store.pool().connect_options().as_ref().clone();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options.application_name("nemo-revocations"))
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    Ok((listener, pool))
}

/// `<revision> <what> <id>`, and for a secret its hash.
fn parse(payload: &str) -> Option<(u64, RevokedRow)> {
    let mut parts = payload.split(' ');
    let revision = parts.next()?.parse().ok()?;
    let (what, id) = (parts.next()?, parts.next()?);
    let row = match what {
        "key" => RevokedRow::Key(id.to_owned()),
        "secret" => RevokedRow::Secret { public_id: id.to_owned(), hash: hash(parts.next()?)? },
        "team" => RevokedRow::Team(id.parse().ok()?),
        "organization" => RevokedRow::Organization(id.parse().ok()?),
        _ => return None,
    };
    Some((revision, row))
}

/// SHA-256 in hexadecimal digits.
fn hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use nemo_types::KeyId;
    use time::OffsetDateTime;

    use super::*;
    use crate::store::{
        api_keys::{self, NewApiKey},
        organizations, teams, testing,
    };

    #[test]
    fn payloads_of_other_releases_are_passed_over() {
        assert_eq!(parse("12 key abc"), Some((12, RevokedRow::Key("abc".into()))));
        let secret = RevokedRow::Secret { public_id: "abc".into(), hash: [0xa5; 32] };
        assert_eq!(parse(&format!("12 secret abc {}", "a5".repeat(32))), Some((12, secret)));
        let short = format!("12 secret abc {}", "a5".repeat(31));
        for payload in
            ["", "12", "12 key", "x key abc", "12 planet abc", "12 team abc", "12 secret abc", short.as_str()]
        {
            assert_eq!(parse(payload), None, "{payload}");
        }
    }

    #[tokio::test]
    async fn what_is_switched_off_or_deleted_is_told_at_the_commit() {
        let store = testing::store().await;
        let org = store.org().await;
        let team = store.team(org).await;
        let mut watch = store.store.watch_revocations();
        watch.connect().await;

        // Neither what is rolled back nor another change is told.
        let mut tx = store.store.tenant(org).await.unwrap();
        teams::update(&mut tx, team, None, Some(true)).await.unwrap();
        drop(tx);
        for (name, disabled) in [(Some("renamed"), None), (None, Some(true)), (None, Some(true))] {
            let mut tx = store.store.tenant(org).await.unwrap();
            teams::update(&mut tx, team, name, disabled).await.unwrap();
            tx.commit().await.unwrap();
        }
        let next = tokio::time::timeout(nemo_tests::eventually::patience(), watch.next());
        let (revision, row) = next.await.unwrap();
        assert_eq!(row, RevokedRow::Team(team));
        let newest = store.store.config_snapshot().await.unwrap().revision().await.unwrap();
        assert_eq!(revision, newest, "the revision that says the same");

        // Its team goes with it, and is not told again.
        let mut tx = store.store.system().await.unwrap();
        assert!(organizations::delete(&mut tx, org.0).await.unwrap());
        tx.commit().await.unwrap();
        let next = tokio::time::timeout(nemo_tests::eventually::patience(), watch.next());
        assert_eq!(next.await.unwrap(), (newest + 1, RevokedRow::Organization(org.0)));
        let more = tokio::time::timeout(Duration::from_millis(100), watch.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    /// An overlap is known to the nodes; without one the secret must stop at once, and with it the one of an overlap
    /// that has not ended.
    #[tokio::test]
    async fn secrets_that_a_rotation_takes_out_of_use_are_told() {
        let store = testing::store().await;
        let org = store.org().await;
        let team = store.team(org).await;
        let mut watch = store.store.watch_revocations();
        watch.connect().await;
        let id = KeyId::generate().0;
        let mut tx = store.store.tenant(org).await.unwrap();
        let new = NewApiKey {
            id,
            team_id: team,
            name: "k",
            public_id: "abcdefghijklmnop",
            secret_hash: &[1; 32],
            expires_at: None,
            allowed_models: &[],
            allowed_endpoints: &[],
            allowed_cidrs: &[],
            default_tags: &[],
            metadata: "",
        };
        api_keys::insert(&mut tx, new).await.unwrap();
        tx.commit().await.unwrap();
        let soon = OffsetDateTime::from_unix_timestamp(4_000_000_000).unwrap();
        for (hash, until) in [([2; 32], Some(soon)), ([3; 32], None), ([4; 32], None)] {
            let mut tx = store.store.tenant(org).await.unwrap();
            api_keys::rotate(&mut tx, id, &hash, until).await.unwrap();
            tx.commit().await.unwrap();
        }
        let mut told = Vec::new();
        for _ in 0..3 {
            let next = tokio::time::timeout(nemo_tests::eventually::patience(), watch.next());
            let (_, RevokedRow::Secret { public_id, hash }) = next.await.unwrap() else {
                panic!("no secret")
            };
            assert_eq!(public_id, "abcdefghijklmnop");
            told.push(hash[0]);
        }
        assert_eq!(
            told,
            [2, 1, 3],
            "the current and the former of the second rotation, the current of the third"
        );
    }

    /// A connection that outlives the store would be broken off when the database ends.
    #[tokio::test]
    async fn after_the_close_the_database_has_no_connection_of_it() {
        let store = testing::store().await;
        let mut watch = store.store.watch_revocations();
        watch.connect().await;
        let count = async || {
            let mut tx = store.store.system().await.unwrap();
            let sql = "SELECT count(*) FROM pg_stat_activity \
                       WHERE application_name = 'nemo-revocations' AND datname = current_database()";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(tx.conn()).await.unwrap()
        };
        assert_eq!(count().await, 1);
        watch.close().await;
        nemo_tests::eventually("the server has seen the end", async || {
            anyhow::ensure!(count().await == 0);
            Ok(())
        })
        .await
        .unwrap();
    }
}
