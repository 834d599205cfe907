//! A migrated database of its own for each test of this crate.

use nemo_tests::postgres::{Database, Server};
use nemo_types::OrgId;
use sqlx::{PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

use super::{PoolSizes, Store, organizations};

/// A store and what it lives in: the database goes when this is dropped.
pub(crate) struct TestStore {
    pub(crate) store: Store,
    pub(crate) database: Database,
}

impl std::ops::Deref for TestStore {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// A store on an empty, migrated database.
pub(crate) async fn store() -> TestStore {
    let database = migrated().await;
    let options: PgConnectOptions = database.url().parse().unwrap();
    let store = Store::connect(options, PoolSizes { app: 4, system: 8 }).await.unwrap();
    TestStore { store, database }
}

/// An empty, migrated database.
pub(crate) async fn migrated() -> Database {
    let server = Server::shared().await.unwrap();
    let version: Vec<_> = super::MIGRATOR.iter().map(|migration| migration.checksum.to_vec()).collect();
    server
        .create_prepared(version, async |url| {
            let options: PgConnectOptions = url.parse()?;
            Ok(Store::migrate(&options).await?)
        })
        .await
        .unwrap()
}

impl TestStore {
    /// A new organization.
    pub(crate) async fn org(&self) -> OrgId {
        let org = OrgId::generate();
        let mut tx = self.store.system().await.unwrap();
        organizations::insert(&mut tx, org.0, "Test").await.unwrap();
        tx.commit().await.unwrap();
        org
    }

    /// A new team of that organization.
    pub(crate) async fn team(&self, org: OrgId) -> Uuid {
        let id = Uuid::now_v7();
        let mut tx = self.store.tenant(org).await.unwrap();
        super::teams::insert(&mut tx, id, &format!("team {id}")).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// A connection as superuser, which row-level security does not bind.
    pub(crate) async fn superuser(&self) -> PgConnection {
        use sqlx::Connection as _;
        PgConnection::connect(self.database.url()).await.unwrap()
    }
}
