//! What must stop at once, as the database tells it at the commit (migration 0012). Called by `publish/revocations.rs`.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{Store, StoreError};

const CHANNEL: &str = "nemo_revoked";
/// Between two tries to listen again. What is missed meanwhile comes with the change feed.
const RETRY: Duration = Duration::from_secs(1);

/// What a revocation is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokedRow {
    /// By public id.
    Key(String),
    Team(uuid::Uuid),
    Organization(uuid::Uuid),
}

/// Waits for revocations.
pub struct RevocationWatch {
    store: Store,
    listener: Option<PgListener>,
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
            let Some(listener) = &mut self.listener else {
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

async fn listen(store: &Store) -> Result<PgListener, StoreError> {
    let options = store.pool().connect_options().as_ref().clone();
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options.application_name("nemo-revocations"))
        .await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// `<revision> <what> <id>`.
fn parse(payload: &str) -> Option<(u64, RevokedRow)> {
    let mut parts = payload.split(' ');
    let revision = parts.next()?.parse().ok()?;
    let (what, id) = (parts.next()?, parts.next()?);
    let row = match what {
        "key" => RevokedRow::Key(id.to_owned()),
        "team" => RevokedRow::Team(id.parse().ok()?),
        "organization" => RevokedRow::Organization(id.parse().ok()?),
        _ => return None,
    };
    Some((revision, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{organizations, teams, testing};

    #[test]
    fn payloads_of_other_releases_are_passed_over() {
        assert_eq!(parse("12 key abc"), Some((12, RevokedRow::Key("abc".into()))));
        for payload in ["", "12", "12 key", "x key abc", "12 planet abc", "12 team abc"] {
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
}
