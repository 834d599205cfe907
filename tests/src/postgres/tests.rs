//! Against the real server.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

async fn count(url: &str, sql: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn tests_do_not_see_each_others_database() {
    let server = Server::shared().await.unwrap();
    let (one, two) = (server.create_database().await.unwrap(), server.create_database().await.unwrap());
    let mut connection = PgConnection::connect(one.url()).await.unwrap();
    execute(&mut connection, "CREATE TABLE t AS SELECT 1 AS x".into()).await.unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 't'";
    assert_eq!((count(one.url(), tables).await, count(two.url(), tables).await), (1, 0));
}

#[tokio::test]
async fn a_template_is_prepared_once_and_every_copy_has_what_it_holds() {
    let server = Server::shared().await.unwrap();
    let prepared = AtomicU32::new(0);
    // A key of its own for each run: the server may be shared with an earlier one.
    let key = uuid::Uuid::now_v7();
    let make = async || {
        let prepare = async |url: &str| {
            prepared.fetch_add(1, Ordering::Relaxed);
            let mut connection = PgConnection::connect(url).await?;
            execute(&mut connection, "CREATE TABLE seeded AS SELECT generate_series(1, 3) AS x".into())
                .await?;
            Ok(connection.close().await?)
        };
        server.create_prepared(key, prepare).await.unwrap()
    };
    let databases = futures_util::future::join_all([make(), make(), make()]).await;
    assert_eq!(prepared.load(Ordering::Relaxed), 1);
    for database in &databases {
        assert_eq!(count(database.url(), "SELECT count(*) FROM seeded").await, 3);
    }
}

#[tokio::test]
async fn a_dropped_database_is_gone_although_a_connection_was_open() {
    let server = Server::shared().await.unwrap();
    let database = server.create_database().await.unwrap();
    let name = database.name().to_owned();
    let _open = PgConnection::connect(database.url()).await.unwrap();
    drop(database);
    let mut admin = server.connect(SUPERUSER).await.unwrap();
    let query = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1").bind(name);
    let left: i64 = query.fetch_one(&mut admin).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_owned_server_leaves_neither_process_nor_directory() {
    let server = Server::start().await.unwrap();
    let dir = server.socket_dir().parent().unwrap().to_owned();
    let pid_file = std::fs::read_to_string(dir.join("data/postmaster.pid")).unwrap();
    let pid = pid_file.lines().next().unwrap().to_owned();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(server);
    assert!(!dir.exists() && !Path::new(&format!("/proc/{pid}")).exists());
}
