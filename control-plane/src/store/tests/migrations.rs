//! Migrating: repeatable, in parallel, and without a superuser.

use nemo_tests::postgres::Server;
use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Executor as _, postgres::PgConnectOptions};
use tokio::task::JoinSet;

use crate::store::{PoolSizes, Store, organizations};

/// On a server of its own: roles belong to the whole server, and the first to come has to make them.
#[tokio::test]
async fn databases_of_one_server_can_be_migrated_at_the_same_time() {
    let server = Server::start().await.unwrap();
    let mut migrations = JoinSet::new();
    let mut databases = Vec::new();
    for _ in 0..4 {
        let database = server.create_database().await.unwrap();
        // Twice each: replicas of one control plane start together.
        for _ in 0..2 {
            let options: PgConnectOptions = database.url().parse().unwrap();
            migrations.spawn(async move { Store::migrate(&options).await });
        }
        databases.push(database);
    }
    while let Some(done) = migrations.join_next().await {
        done.unwrap().unwrap();
    }
}

/// As on a managed server: the administrator owns the database and may create roles, no more.
#[tokio::test]
async fn no_superuser_is_needed_to_migrate_and_to_work() {
    let server = Server::start().await.unwrap();
    let mut superuser = server.connect("postgres").await.unwrap();
    superuser.execute("CREATE ROLE landlord LOGIN CREATEROLE CREATEDB NOSUPERUSER").await.unwrap();
    superuser.execute("CREATE DATABASE managed OWNER landlord").await.unwrap();
    let options: PgConnectOptions = server.url_as("managed", "landlord").parse().unwrap();
    Store::migrate(&options).await.unwrap();
    let store = Store::connect(options, PoolSizes::default()).await.unwrap();

    let org = OrgId::generate();
    let mut tx = store.system().await.unwrap();
    organizations::insert(&mut tx, org.0, "Tenant").await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.tenant(org).await.unwrap();
    assert_eq!(organizations::get(&mut tx).await.unwrap().unwrap().name, "Tenant");
    drop(tx);
    let mut tx = store.tenant(OrgId::generate()).await.unwrap();
    assert!(organizations::get(&mut tx).await.unwrap().is_none());
    drop(tx);
    store.close().await;
}

#[tokio::test]
async fn a_role_that_would_bypass_row_level_security_stops_the_migration() {
    let server = Server::start().await.unwrap();
    let mut superuser = server.connect("postgres").await.unwrap();
    for attribute in ["BYPASSRLS", "SUPERUSER"] {
        let sql = format!("DROP ROLE IF EXISTS nemo_app; CREATE ROLE nemo_app {attribute}");
        superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        let database = server.create_database().await.unwrap();
        let options: PgConnectOptions = database.url().parse().unwrap();
        let error = Store::migrate(&options).await.unwrap_err().to_string();
        assert!(error.contains("tenant isolation"), "{error}");
    }
}

#[tokio::test]
async fn the_pools_work_as_the_restricted_roles() {
    let store = crate::store::testing::store().await;
    for (pool, role) in [(&store.app, "nemo_app"), (&store.system, "nemo_system")] {
        let (current, timeout): (String, String) =
            sqlx::query_as("SELECT current_user::text, current_setting('statement_timeout')")
                .fetch_one(pool)
                .await
                .unwrap();
        assert_eq!(current, role);
        assert_ne!(timeout, "0", "a statement may run for ever");
    }
}
