//! A migrated database of its own for each test of this crate.

use nemo_proto::usage::{Outcome, UsageEvent};
use nemo_tests::postgres::{Database, Server};
use nemo_types::{KeyId, OrgId, TeamId};
use sqlx::{PgConnection, postgres::PgConnectOptions};
use time::OffsetDateTime;
use uuid::{NoContext, Timestamp, Uuid};

use super::{
    PoolSizes, Store, organizations,
    usage_ingest::{Journal, Row},
};

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

pub(crate) fn now() -> OffsetDateTime {
    let micros = i128::from(nemo_runtime::clock::unix_us());
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap()
}

/// Where the rows of tests come from, unless the test is about that.
pub(crate) fn journal() -> Journal {
    Journal { node_id: "node-1".into(), epoch: 1 }
}

/// The id of a request of that time, as a node makes it.
pub(crate) fn request_id(at: OffsetDateTime) -> Uuid {
    let seconds = u64::try_from(at.unix_timestamp()).unwrap();
    Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, at.nanosecond()))
}

/// A row as the ingest makes it from an event, of a request that started then; tests change what they are about.
pub(crate) fn usage_row(org: OrgId, at: OffsetDateTime) -> Row {
    let event = UsageEvent {
        request_id: request_id(at).as_bytes().to_vec().into(),
        org_id: org.as_bytes().to_vec().into(),
        team_id: TeamId(Uuid::nil()).as_bytes().to_vec().into(),
        key_id: KeyId(Uuid::nil()).as_bytes().to_vec().into(),
        endpoint: "chat.completions".into(),
        requested_model: "gpt-5.2".into(),
        model: "gpt-5.2".into(),
        provider: "openai".into(),
        outcome: Outcome::Ok.into(),
        http_status: 200,
        started_unix_us: i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap(),
        total_us: 1000,
        ..UsageEvent::default()
    };
    // Whatever its age: what may be ingested is not decided here.
    Row::new(event, "node-1", at).unwrap()
}
