//! The only module that knows SQL. Everything else asks it for a transaction and calls the functions of an entity.
//!
//! Invariants: there is no way to a connection but through [`TenantTx`] (one organization, enforced by row-level
//! security, I9) and [`SystemTx`] (all rows, explicit policies, never BYPASSRLS). Pools are bounded, every statement
//! has a timeout. Called by the admin operations, the publisher and the usage ingest.

pub mod admin_tokens;
pub mod api_keys;
pub mod audit;
pub mod billing;
pub mod budgets;
pub mod catalog;
pub mod catalog_sync;
pub mod changes;
pub mod config_history;
pub mod config_rows;
mod connect;
pub mod credentials;
pub mod credits;
pub mod decisions;
pub mod deployments;
mod error;
pub mod fleet_nodes;
pub mod idempotency;
pub mod leases;
pub mod ledger;
pub mod members;
pub mod model_groups;
pub mod organizations;
mod page;
pub mod payments;
pub mod prices;
pub mod rate_demand;
pub mod rate_limits;
pub mod request_log;
pub mod request_lookup;
pub mod rerate;
pub mod retention;
pub mod revocations;
pub mod settings;
pub mod teams;
pub mod thresholds;
mod tx;
pub mod units;
pub mod usage_ingest;
pub mod usage_query;
pub mod usage_rollup;
pub mod webhooks;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod testing_money;
#[cfg(test)]
mod tests;

use std::time::Duration;

use nemo_types::OrgId;
use sqlx::{
    Executor as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use connect::OpenError;
pub use error::StoreError;
pub use page::{Filter, Listed, Page};
pub use tx::{Inside, OwnerTx, SystemTx, TenantTx, WriteTx};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// How many connections each pool may open.
#[derive(Clone, Copy, Debug)]
pub struct PoolSizes {
    /// For requests in the name of one organization (role `nemo_app`).
    pub app: u32,
    /// For publisher, usage ingest and the operator's requests (role `nemo_system`).
    pub system: u32,
}

impl Default for PoolSizes {
    fn default() -> Self {
        // Together well below PostgreSQL's default of 100, for several replicas.
        Self { app: 10, system: 10 }
    }
}

/// Both pools. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    app: PgPool,
    system: PgPool,
}

/// A request waits this long for a free connection, then it is told that the database is busy.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

const AS_APP: &str = "SET ROLE nemo_app; SET statement_timeout = '15s'; SET lock_timeout = '5s'; \
                      SET idle_in_transaction_session_timeout = '30s'";
const AS_SYSTEM: &str = "SET ROLE nemo_system; SET statement_timeout = '60s'; SET lock_timeout = '5s'; \
                         SET idle_in_transaction_session_timeout = '30s'";

impl Store {
    /// Brings the schema up to date. Safe to run from several processes at once.
    ///
    /// # Errors
    /// When the server can't be reached, is too old, or the role may not do what `migrations/README.md` lists.
    pub async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(15))
            .connect_with(options.clone())
            .await?;
        let done = MIGRATOR.run(&pool).await;
        pool.close().await;
        done.map_err(StoreError::from)
    }

    /// Opens both pools against a migrated database.
    ///
    /// # Errors
    /// When the server can't be reached, or the roles are missing because the migrations have not run.
    pub async fn connect(options: PgConnectOptions, sizes: PoolSizes) -> Result<Self, StoreError> {
        let app = pool(sizes.app, AS_APP).connect_with(options.clone().application_name("nemo-app")).await?;
        let system =
            pool(sizes.system, AS_SYSTEM).connect_with(options.application_name("nemo-system")).await?;
        Ok(Self { app, system })
    }

    /// A transaction that sees and writes the rows of one organization and no others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn tenant(&self, org: OrgId) -> Result<TenantTx, StoreError> {
        TenantTx::begin(&self.app, org).await
    }

    /// A transaction over all organizations: for the operator and for the system's own work.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn system(&self) -> Result<SystemTx, StoreError> {
        SystemTx::begin(&self.system).await
    }

    /// A transaction over the rows of one owner: an organization, or the operator (`None`).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no connection is to be had.
    pub async fn owner(&self, org: Option<OrgId>) -> Result<OwnerTx, StoreError> {
        Ok(match org {
            Some(org) => OwnerTx::Tenant(self.tenant(org).await?),
            None => OwnerTx::Operator(self.system().await?),
        })
    }

    /// Closes both pools and waits for their connections.
    pub async fn close(&self) {
        self.app.close().await;
        self.system.close().await;
    }

    /// For [`changes`] only, which listens on a connection of its own.
    pub(in crate::store) fn pool(&self) -> &PgPool {
        &self.system
    }
}

fn pool(size: u32, role: &'static str) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_secs(300))
        .max_lifetime(Duration::from_secs(1800))
        .after_connect(move |connection, _| Box::pin(async move { connection.execute(role).await.map(drop) }))
}
