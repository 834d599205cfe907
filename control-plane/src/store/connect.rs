//! Opening the store at start: waits for the server, migrates, connects. Called by `app.rs` and `main.rs`.

use std::time::Duration;

use nemo_runtime::backoff::Backoff;
use nemo_types::Secret;
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::Instant;

use super::{PoolSizes, Store, StoreError};

/// One try. A server that does not answer at all is as good as away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait between two tries, at most.
const PAUSE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Without the text: it may hold a password.
    #[error("the database URL is malformed: {0}; expected postgres://user:password@host:5432/database")]
    Url(String),
    #[error(
        "the database at {place} can't be reached after {seconds} s: {error}. Is it running, and is the URL right?"
    )]
    Unreachable { place: String, seconds: u64, error: sqlx::Error },
    #[error("the database at {place} refuses us: {error}")]
    Refused { place: String, error: sqlx::Error },
    #[error("the database at {place} could not be prepared: {error}")]
    Prepare { place: String, error: StoreError },
}

impl Store {
    /// Waits for the database, brings the schema up to date, and opens the pools.
    ///
    /// # Errors
    /// When the server is away for longer than `patience`, refuses us, or can't be migrated.
    pub async fn open(url: &Secret, sizes: PoolSizes, patience: Duration) -> Result<Self, OpenError> {
        let (options, place) = reach(url, patience).await?;
        let prepare = |error| OpenError::Prepare { place: place.clone(), error };
        Self::migrate(&options).await.map_err(prepare)?;
        Self::connect(options, sizes).await.map_err(prepare)
    }

    /// Waits for the database and brings the schema up to date.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn migrate_when_up(url: &Secret, patience: Duration) -> Result<(), OpenError> {
        let (options, place) = reach(url, patience).await?;
        Self::migrate(&options).await.map_err(|error| OpenError::Prepare { place, error })
    }
}

/// Waits until the server accepts a connection; returns its address for messages.
async fn reach(url: &Secret, patience: Duration) -> Result<(PgConnectOptions, String), OpenError> {
    // The driver would take any scheme, also a password that was pasted alone.
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.expose().starts_with(scheme)) {
        return Err(OpenError::Url("it does not start with postgres://".to_owned()));
    }
    let options: PgConnectOptions =
        url.expose().parse().map_err(|error: sqlx::Error| OpenError::Url(describe(&error, url)))?;
    let place = place(&options);
    let start = Instant::now();
    let mut backoff = Backoff::new(Duration::from_millis(500), PAUSE);
    loop {
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await;
        let error = match attempt {
            Ok(Ok(connection)) => {
                // It worked; how it ends is of no interest.
                let _ = connection.close().await;
                return Ok((options, place));
            }
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::PoolTimedOut,
        };
        let error = match StoreError::from(error) {
            StoreError::Unavailable(error) => error,
            StoreError::Internal(error) => return Err(OpenError::Refused { place, error }),
            error => return Err(OpenError::Prepare { place, error }),
        };
        if start.elapsed() >= patience {
            return Err(OpenError::Unreachable { place, seconds: patience.as_secs(), error });
        }
        tracing::warn!(%error, database = place, "waiting for the database, up to {} s", patience.as_secs());
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// Host and database, without user and password.
fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    match options.get_socket() {
        Some(socket) => format!("{}/{database}", socket.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

/// What is wrong with a URL, unless that would show the URL itself.
fn describe(error: &sqlx::Error, url: &Secret) -> String {
    let text = match error {
        sqlx::Error::Configuration(error) => error.to_string(),
        error => error.to_string(),
    };
    if text.contains(url.expose()) { "not a URL".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn open(url: &str) -> OpenError {
        let patience = Duration::from_millis(10);
        Store::open(&Secret::new(url), PoolSizes::default(), patience).await.err().unwrap()
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_named_without_its_password() {
        let error = open("postgres://nemo:canary@127.0.0.1:1/nemo").await.to_string();
        assert!(error.contains("127.0.0.1:1/nemo") && !error.contains("canary"), "{error}");
    }

    #[tokio::test]
    async fn malformed_urls_are_not_shown() {
        for url in ["canary", "postgres://canary:canary@[/x", "canary://x"] {
            let error = open(url).await;
            assert!(matches!(error, OpenError::Url(_)), "{url}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_database_that_does_not_exist_is_refused_at_once() {
        let server = nemo_tests::postgres::Server::shared().await.unwrap();
        let url = Secret::new(server.url("nowhere"));
        let error = Store::open(&url, PoolSizes::default(), Duration::from_secs(60)).await.err().unwrap();
        assert!(
            matches!(error, OpenError::Refused { .. }) && error.to_string().contains("nowhere"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn opening_migrates_and_opening_again_changes_nothing() {
        let server = nemo_tests::postgres::Server::shared().await.unwrap();
        let database = server.create_database().await.unwrap();
        let url = Secret::new(database.url());
        for _ in 0..2 {
            let store = Store::open(&url, PoolSizes::default(), Duration::from_secs(10)).await.unwrap();
            assert_eq!(store.config_snapshot().await.unwrap().revision().await.unwrap(), 0);
            store.close().await;
        }
        Store::migrate_when_up(&url, Duration::from_secs(10)).await.unwrap();
    }
}
