//! A real PostgreSQL for tests: one throw-away server, and a database of its own for each test.
//!
//! [`Server::shared`] joins the server that `NEMO_TEST_PG_DIR` names (`nemo-testenv postgres -- cargo nextest run …` starts it
//! once for all test processes) or starts one for this process. The server listens on a private unix socket only, and
//! is gone with its files as soon as the process that started it is, however that ends.

mod child;
mod find;

use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

pub use child::OwnedServer;

use crate::process::Place;

/// Names the socket directory of a running server that tests should share.
pub const SHARED_DIR_ENV: &str = "NEMO_TEST_PG_DIR";

/// Name of the superuser; there is no password, who can open the socket may connect.
pub const SUPERUSER: &str = "postgres";

/// A running PostgreSQL.
#[derive(Debug)]
pub struct Server {
    socket_dir: PathBuf,
    /// Kept for as long as we want the server; `None` when it is someone else's.
    _owned: Option<OwnedServer>,
}

static SHARED: OnceCell<Server> = OnceCell::const_new();

impl Server {
    /// The server of this test run.
    pub async fn shared() -> anyhow::Result<&'static Self> {
        Self::shared_at(Place::default()).await
    }

    /// The server of this test run; if it has to be started, in this place.
    pub async fn shared_at(place: Place) -> anyhow::Result<&'static Self> {
        SHARED
            .get_or_try_init(async || match std::env::var_os(SHARED_DIR_ENV) {
                Some(dir) => Ok(Self { socket_dir: dir.into(), _owned: None }),
                None => Self::start_at(place).await,
            })
            .await
    }

    /// A server of one's own, for tests that stop it or change roles. Takes a second.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_at(Place::default()).await
    }

    /// One that survives [`Self::crash`].
    pub async fn start_crashable() -> anyhow::Result<Self> {
        Self::start_with(OwnedServer::start_crashable).await
    }

    /// Kills a server of one's own (`kill -9`), and waits until it is back.
    pub async fn crash(&self) -> anyhow::Result<()> {
        self._owned.as_ref().context("a server of one's own")?.crash()?;
        crate::eventually("PostgreSQL to be back", async || self.connect(SUPERUSER).await).await.map(drop)
    }

    async fn start_at(place: Place) -> anyhow::Result<Self> {
        Self::start_with(move || OwnedServer::start(place)).await
    }

    async fn start_with(
        start: impl FnOnce() -> anyhow::Result<OwnedServer> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let owned = tokio::task::spawn_blocking(start).await??;
        let server = Self { socket_dir: owned.socket_dir().to_owned(), _owned: Some(owned) };
        crate::eventually("PostgreSQL to accept connections", async || server.connect(SUPERUSER).await)
            .await?;
        Ok(server)
    }

    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Connection string of a database, as superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as(database, SUPERUSER)
    }

    /// Connection string of a database as another role.
    pub fn url_as(&self, database: &str, role: &str) -> String {
        format!("postgres:///{database}?host={}&user={role}", self.socket_dir.display())
    }

    /// One connection as superuser.
    pub async fn connect(&self, database: &str) -> anyhow::Result<PgConnection> {
        let options: PgConnectOptions = self.url(database).parse()?;
        Ok(options.disable_statement_logging().connect().await?)
    }

    /// A new, empty database.
    pub async fn create_database(&self) -> anyhow::Result<Database> {
        self.create("template1").await
    }

    /// A new database that is a copy of a prepared one. `prepare` is given the URL of an empty database and runs only
    /// once for each `key` and server, whichever test process comes first; a copy takes milliseconds. The key must
    /// change with what `prepare` does (for migrations: a hash of their text).
    ///
    /// `prepare` must close its connections: PostgreSQL does not copy a database that is in use.
    pub async fn create_prepared(
        &self,
        key: impl Hash,
        prepare: impl AsyncFnOnce(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Database> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        let template = format!("template_{hash:016x}");
        let mut admin = self.connect(SUPERUSER).await?;
        // Session-level: gone with the connection, so a test that dies here blocks nobody.
        let lock = hash.cast_signed();
        sqlx::query("SELECT pg_advisory_lock($1)").bind(lock).execute(&mut admin).await?;
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(&template)
            .fetch_optional(&mut admin)
            .await?;
        if found.is_none() {
            // Under another name until it is complete: half a template must never be taken for a whole one.
            let draft = format!("{template}_draft");
            execute(&mut admin, format!("DROP DATABASE IF EXISTS {draft} WITH (FORCE)")).await?;
            execute(&mut admin, format!("CREATE DATABASE {draft}")).await?;
            prepare(&self.url(&draft)).await.context("prepare the template database")?;
            execute(&mut admin, format!("ALTER DATABASE {draft} RENAME TO {template}"))
                .await
                .context("the template is still in use: prepare must close its connections")?;
        }
        // CREATE DATABASE .. TEMPLATE fails while another session copies the same template, so copy under the lock.
        let database = self.create(&template).await;
        admin.close().await?;
        database
    }

    async fn create(&self, template: &str) -> anyhow::Result<Database> {
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        let mut admin = self.connect(SUPERUSER).await?;
        execute(&mut admin, format!("CREATE DATABASE {name} TEMPLATE {template}")).await?;
        admin.close().await?;
        Ok(Database {
            url: self.url(&name),
            maintenance: self.url(SUPERUSER),
            socket_dir: self.socket_dir.clone(),
            name,
        })
    }
}

/// Runs a statement that takes no parameters; names in it are made here, never taken from outside.
async fn execute(connection: &mut PgConnection, sql: String) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
    Ok(())
}

/// A database of one test. Dropping it drops the database, also when connections are still open.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    maintenance: String,
    socket_dir: PathBuf,
}

impl Database {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Connection string as superuser, which row-level security does not bind.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Connection string as another role.
    pub fn url_as(&self, role: &str) -> String {
        format!("postgres:///{}?host={}&user={role}", self.name, self.socket_dir.display())
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // On a thread with a runtime of its own: a destructor may run inside a runtime, where blocking on one panics.
        let (url, name) = (self.maintenance.clone(), self.name.clone());
        let dropper = thread::spawn(move || -> anyhow::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut admin = PgConnection::connect(&url).await?;
                execute(&mut admin, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
            })
        });
        // Without success the database goes with the server; nothing that a test could do about it.
        let _left_behind = dropper.join();
    }
}

#[cfg(test)]
mod tests;
