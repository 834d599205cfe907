//! Retention on days in the past, which stand for days that have passed.

use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use time::macros::date;

use super::*;
use crate::store::{
    testing::{self, TestStore, now},
    usage_ingest::{Ingested, KnownDays},
};

fn days(days: i64) -> time::Duration {
    time::Duration::days(days)
}

fn keep(request_log_days: u16) -> Retention {
    Retention { request_log_days, usage_hourly_days: 0, usage_daily_days: 0 }
}

fn name(kept: Kept, day: Date) -> String {
    let month = format!("{}_{:04}{:02}", kept.table(), day.year(), u8::from(day.month()));
    if kept == Kept::RequestLog { format!("{month}{:02}", day.day()) } else { month }
}

async fn partitions(store: &TestStore, kept: Kept) -> Vec<String> {
    let sql = "SELECT relname::text FROM pg_inherits JOIN pg_class ON oid = inhrelid \
               WHERE inhparent = $1::regclass AND relname !~ 'default$' ORDER BY 1";
    sqlx::query_scalar(sql).bind(kept.table()).fetch_all(&mut store.superuser().await).await.unwrap()
}

/// A month of a rollup that was long ago, with one row.
async fn old_month(superuser: &mut PgConnection, kept: Kept, month: Date) {
    let (table, part) = (kept.table(), name(kept, month));
    let next = (month + days(31)).replace_day(1).unwrap();
    let names = crate::store::usage_rollup::Measures::NAMES;
    let (names, zeros) = (names.join(", "), "0, ".repeat(names.len()));
    let id = uuid::Uuid::nil();
    let sql = format!(
        "CREATE TABLE {part} PARTITION OF {table} FOR VALUES FROM ('{month} 00:00+00') TO ('{next} 00:00+00');
         ALTER TABLE {part} OWNER TO nemo_owner;
         INSERT INTO {table} (org_id, bucket, team_id, key_id, model, provider, endpoint, {names}, total_histogram,
                              first_byte_histogram)
             VALUES ('{id}', '{month} 00:00+00', '{id}', '{id}', '', '', '', {zeros} '{{}}', '{{}}')"
    );
    superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

async fn run(store: &TestStore, retention: Retention) -> Report {
    run_once(&store.store, retention, now().date(), &RetentionMetrics::default()).await.unwrap()
}

#[tokio::test]
async fn a_week_of_partitions_is_made_ahead_once() {
    let store = testing::store().await;
    for _ in 0..2 {
        assert_eq!(run(&store, keep(0)).await, Report::default());
        let expected: Vec<_> =
            (0..=7).map(|ahead| name(Kept::RequestLog, now().date() + days(ahead))).collect();
        assert_eq!(partitions(&store, Kept::RequestLog).await, expected);
    }
    for kept in [Kept::UsageHourly, Kept::UsageDaily] {
        let made = partitions(&store, kept).await;
        for day in [now().date(), now().date() + days(8)] {
            assert!(made.contains(&name(kept, day)), "{made:?}");
        }
    }
}

#[tokio::test]
async fn days_that_have_expired_are_dropped_and_the_others_are_not() {
    let store = testing::store().await;
    let (org, known) = (OrgId::generate(), KnownDays::default());
    let rows = (0..10).map(|ago| testing::usage_row(org, now() - days(ago))).collect();
    store.ingest_usage(&testing::journal(), rows, &known).await.unwrap();
    let metrics = RetentionMetrics::default();
    let report = run_once(&store.store, keep(6), now().date(), &metrics).await.unwrap();
    let day = |ago| name(Kept::RequestLog, now().date() - days(ago));
    assert_eq!(report, Report { dropped: vec![day(9), day(8), day(7)], busy: false });
    let counted = metrics.dropped.get_or_create(&Labels { table: Table::RequestLog }).get();
    assert_eq!(counted, 3);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM request_log")
        .fetch_one(&mut store.superuser().await)
        .await
        .unwrap();
    assert_eq!(left, 7);
    // The sums of the dropped days stay.
    let sums: i64 = sqlx::query_scalar("SELECT sum(requests)::bigint FROM usage_daily")
        .fetch_one(&mut store.superuser().await)
        .await
        .unwrap();
    assert_eq!(sums, 10);
    assert_eq!(run(&store, keep(6)).await, Report::default());
    assert_eq!(run(&store, keep(0)).await, Report::default());
}

#[tokio::test]
async fn usage_of_a_dropped_day_is_counted_and_neither_stored_nor_summed_again() {
    let store = testing::store().await;
    let (org, known) = (OrgId::generate(), KnownDays::default());
    let old = testing::usage_row(org, now() - days(9));
    let first = store.ingest_usage(&testing::journal(), vec![old.clone()], &known).await.unwrap();
    assert_eq!(first, Ingested { inserted: 1, ..Ingested::default() });
    run(&store, keep(6)).await;
    // By this process, which knows the day, and by another, which does not.
    for known in [known, KnownDays::default()] {
        let (new, other) = (testing::usage_row(org, now()), testing::usage_row(org, now() - days(8)));
        let ingested =
            store.ingest_usage(&testing::journal(), vec![old.clone(), other, new], &known).await.unwrap();
        assert_eq!(ingested, Ingested { inserted: 1, expired: 2, ..Ingested::default() });
    }
    let sums: i64 = sqlx::query_scalar("SELECT sum(requests)::bigint FROM usage_hourly")
        .fetch_one(&mut store.superuser().await)
        .await
        .unwrap();
    assert_eq!(sums, 3, "the old one, and the two of today");
    assert!(!partitions(&store, Kept::RequestLog).await.contains(&name(Kept::RequestLog, old.event_day)));
}

/// The ingest looks at what is kept in the statement that inserts, and dropping a day waits for such statements: there
/// is no moment in which an event of that day is neither found nor refused.
#[tokio::test]
async fn usage_that_is_sent_again_while_its_day_is_dropped_counts_once() {
    let store = testing::store().await;
    let org = OrgId::generate();
    let rows: Vec<_> = (0..20).map(|_| testing::usage_row(org, now() - days(9))).collect();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (store, rows) = (store.store.clone(), rows.clone());
        senders.spawn(async move {
            let (known, mut sum) = (KnownDays::default(), Ingested::default());
            while sum.expired == 0 {
                sum.add(&store.ingest_usage(&testing::journal(), rows.clone(), &known).await.unwrap());
            }
            sum.inserted
        });
    }
    nemo_tests::eventually("the day is there", async || {
        anyhow::ensure!(!partitions(&store, Kept::RequestLog).await.is_empty());
        Ok(())
    })
    .await
    .unwrap();
    nemo_tests::eventually("the day is dropped", async || {
        run_once(&store.store, keep(6), now().date(), &RetentionMetrics::default()).await?;
        anyhow::Ok(())
    })
    .await
    .unwrap();
    let inserted: u64 = senders.join_all().await.into_iter().sum();
    let summed: i64 = sqlx::query_scalar("SELECT coalesce(sum(requests), 0)::bigint FROM usage_daily")
        .fetch_one(&mut store.superuser().await)
        .await
        .unwrap();
    assert!(inserted <= 20, "{inserted}");
    assert_eq!(u64::try_from(summed).unwrap(), inserted);
}

#[tokio::test]
async fn months_of_rollups_are_dropped_when_all_of_them_has_expired() {
    let store = testing::store().await;
    let mut superuser = store.superuser().await;
    let months = [date!(2024 - 01 - 01), date!(2024 - 02 - 01)];
    for kept in [Kept::UsageHourly, Kept::UsageDaily] {
        for month in months {
            old_month(&mut superuser, kept, month).await;
        }
    }
    // As if it were the middle of a month: February 2024 has begun to expire and stays.
    let retention = Retention { request_log_days: 0, usage_hourly_days: 32, usage_daily_days: 60 };
    let report = run_once(&store.store, retention, date!(2024 - 03 - 20), &RetentionMetrics::default()).await;
    assert_eq!(report.unwrap().dropped, ["usage_hourly_202401"]);
    let report = run_once(&store.store, retention, date!(2024 - 04 - 05), &RetentionMetrics::default()).await;
    assert_eq!(report.unwrap().dropped, ["usage_hourly_202402", "usage_daily_202401"]);
    let mut tx = store.system().await.unwrap();
    let kept = crate::store::retention::kept_from_for_all(&mut tx).await.unwrap();
    assert_eq!(kept.hourly(), Some(date!(2024 - 03 - 01).midnight().assume_utc()));
    assert_eq!(kept.daily(), Some(date!(2024 - 02 - 01).midnight().assume_utc()));
}

#[tokio::test]
async fn rows_without_a_partition_of_their_own_expire_too() {
    let store = testing::store().await;
    let (org, known) = (OrgId::generate(), KnownDays::default());
    let mut ancient = testing::usage_row(org, now() - days(100));
    ancient.started_at = now() - days(100);
    store
        .ingest_usage(&testing::journal(), vec![ancient, testing::usage_row(org, now())], &known)
        .await
        .unwrap();
    run(&store, Retention { request_log_days: 30, usage_hourly_days: 32, usage_daily_days: 800 }).await;
    for (table, left) in [("request_log", 1), ("usage_hourly", 1), ("usage_daily", 2)] {
        let sql = format!("SELECT count(*) FROM {table}");
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut store.superuser().await).await.unwrap();
        assert_eq!(count, left, "{table}");
    }
}

#[tokio::test]
async fn one_replica_drops_at_a_time() {
    let store = testing::store().await;
    let other = testing::usage_row(OrgId::generate(), now() - days(9));
    store.ingest_usage(&testing::journal(), vec![other], &KnownDays::default()).await.unwrap();
    let mut elsewhere = PgConnection::connect(store.database.url()).await.unwrap();
    elsewhere
        .execute("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('nemo.retention', 0))")
        .await
        .unwrap();
    assert_eq!(run(&store, keep(6)).await, Report { dropped: Vec::new(), busy: true });
    elsewhere.execute("COMMIT").await.unwrap();
    assert_eq!(run(&store, keep(6)).await.dropped.len(), 1);
}

#[tokio::test]
async fn a_reader_that_takes_long_delays_retention_and_not_the_ingest() {
    let store = testing::store().await;
    let (org, known) = (OrgId::generate(), KnownDays::default());
    store
        .ingest_usage(&testing::journal(), vec![testing::usage_row(org, now() - days(9))], &known)
        .await
        .unwrap();
    // Making a partition waits for readers as well; that is why they are made ahead.
    run(&store, keep(0)).await;
    let mut reader = PgConnection::connect(store.database.url()).await.unwrap();
    reader.execute("BEGIN; SELECT count(*) FROM request_log").await.unwrap();
    let started = std::time::Instant::now();
    let failed = run_once(&store.store, keep(6), now().date(), &RetentionMetrics::default()).await;
    assert!(matches!(failed, Err(StoreError::Unavailable(_))), "{failed:?}");
    assert!(started.elapsed() < Duration::from_secs(10));
    let ingested =
        store.ingest_usage(&testing::journal(), vec![testing::usage_row(org, now())], &known).await.unwrap();
    assert_eq!(ingested.inserted, 1);
    reader.execute("COMMIT").await.unwrap();
    assert_eq!(run(&store, keep(6)).await.dropped.len(), 1);
}

#[tokio::test]
async fn nothing_of_today_or_later_can_be_dropped_and_only_what_expires() {
    let store = testing::store().await;
    for sql in [
        "SELECT nemo_drop_expired('request_log', ((now() AT TIME ZONE 'UTC')::date + 1))",
        "SELECT nemo_drop_expired('teams', '2020-01-01')",
    ] {
        let error = store.superuser().await.execute(sql).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "22023", "{sql}");
    }
}

#[tokio::test]
async fn the_job_runs_at_start_and_ends_with_the_drain() {
    let store = testing::store().await;
    let (trigger, drain) = nemo_runtime::drain::channel();
    let tasks = nemo_runtime::TaskGroup::new();
    let metrics = RetentionMetrics::default();
    let election = crate::coordination::Election::unopposed();
    let job = super::run(store.store.clone(), Retention::default(), metrics.clone(), election, drain);
    tasks.spawn("retention", job);
    nemo_tests::eventually("the first run", async || {
        anyhow::ensure!(metrics.succeeded_unix.get() > 0);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(partitions(&store, Kept::RequestLog).await.len(), 8);
    trigger.start();
    assert!(tasks.join(Duration::from_secs(10)).await.is_empty());
}

#[test]
fn rollups_outlast_late_usage() {
    let with =
        |hourly, daily| Retention { request_log_days: 1, usage_hourly_days: hourly, usage_daily_days: daily };
    for retention in [Retention::default(), with(0, 0), with(32, 32)] {
        retention.check().unwrap();
    }
    let error = with(31, 32).check().unwrap_err().to_string();
    assert!(error.contains("retention.usage_hourly_days") && error.contains("32"), "{error}");
    assert!(with(32, 1).check().unwrap_err().to_string().contains("usage_daily_days"));
}
