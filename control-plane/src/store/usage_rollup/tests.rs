//! Rollups equal the log, whatever arrives, however often and from wherever at once.

use nemo_types::OrgId;
use proptest::{prelude::*, test_runner::TestRunner};
use sqlx::AssertSqlSafe;
use time::{Duration, macros::datetime};
use tokio::task::JoinSet;

use super::*;
use crate::store::{
    testing::{self, TestStore, now},
    usage_ingest::{Ingested, KnownDays},
};

/// The sums of the log as SQL says them, in the order of [`Measures::NAMES`].
const FROM_LOG: &[&str] = &[
    "count(*)",
    "count(*) FILTER (WHERE outcome = 'error')",
    "count(*) FILTER (WHERE outcome = 'cancelled')",
    "count(*) FILTER (WHERE outcome = 'interrupted')",
    "count(*) FILTER (WHERE stream)",
    "count(*) FILTER (WHERE usage_estimated)",
    "count(*) FILTER (WHERE cost_nanos IS NULL AND (outcome IN ('ok', 'lost') OR coalesce(input_tokens, output_tokens) IS NOT NULL))",
    "coalesce(sum(input_tokens), 0)",
    "coalesce(sum(output_tokens), 0)",
    "coalesce(sum(cache_read_tokens), 0)",
    "coalesce(sum(cache_write_tokens), 0)",
    "coalesce(sum(reasoning_tokens), 0)",
    "coalesce(sum(audio_input_tokens), 0)",
    "coalesce(sum(audio_output_tokens), 0)",
    "coalesce(sum(cost_nanos), 0)",
    "sum(request_bytes)",
    "sum(response_bytes)",
    "sum(total_us)",
    "coalesce(sum(first_byte_us), 0)",
    "count(*) FILTER (WHERE outcome = 'lost')",
    "coalesce(sum(cache_write_1h_tokens), 0)",
];

/// Rows that are only in the sums of the log, or only in the rollup; with their histograms by number of requests.
async fn differences(store: &TestStore) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    for (table, unit) in [("usage_hourly", "hour"), ("usage_daily", "day")] {
        let key = "org_id, key_id, team_id, model, provider, endpoint";
        let log = format!(
            "SELECT date_trunc('{unit}', started_at, 'UTC'), {key}, {}, count(*), count(first_byte_us) \
             FROM request_log GROUP BY date_trunc('{unit}', started_at, 'UTC'), {key}",
            FROM_LOG.join(", ")
        );
        let rollup = format!(
            "SELECT bucket, {key}, {}, (SELECT sum(n) FROM unnest(total_histogram) n), \
             (SELECT sum(n) FROM unnest(first_byte_histogram) n) FROM {table}",
            Measures::NAMES.join(", ")
        );
        for (one, other) in [(&log, &rollup), (&rollup, &log)] {
            let sql = format!("SELECT count(*) FROM (({one}) EXCEPT ({other})) AS more");
            let mut superuser = store.superuser().await;
            let count: i64 =
                sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(&mut superuser).await.unwrap();
            if count > 0 {
                found.push((sql, count));
            }
        }
    }
    found
}

/// What one event is like; small ranges, so that events share keys and hours.
#[derive(Clone, Debug)]
struct Like {
    key: u128,
    model: usize,
    hours_ago: i64,
    outcome: usize,
    tokens: Option<u16>,
    cost: Option<u32>,
    micros: u32,
    first_byte: Option<u32>,
    stream: bool,
}

prop_compose! {
    fn like()(
        key in 0_u128..3, model in 0_usize..3, hours_ago in 0_i64..60, outcome in 0_usize..5,
        tokens in any::<Option<u16>>(), cost in any::<Option<u32>>(), micros in any::<u32>(),
        first_byte in any::<Option<u32>>(), stream in any::<bool>(),
    ) -> Like {
        Like { key, model, hours_ago, outcome, tokens, cost, micros, first_byte, stream }
    }
}

fn row(org: OrgId, like: &Like) -> Row {
    let at = now() - Duration::hours(like.hours_ago);
    Row {
        key_id: Uuid::from_u128(like.key),
        model: ["a", "b", ""][like.model].into(),
        outcome: ["ok", "error", "cancelled", "interrupted", "lost"][like.outcome],
        input_tokens: like.tokens.map(i64::from),
        output_tokens: like.tokens.filter(|tokens| tokens % 2 == 0).map(i64::from),
        cache_read_tokens: like.tokens.filter(|tokens| tokens % 3 == 0).map(i64::from),
        cache_write_1h_tokens: like.tokens.filter(|tokens| tokens % 5 == 0).map(i64::from),
        cost_nanos: like.cost.map(i64::from),
        total_us: like.micros.into(),
        first_byte_us: like.first_byte.map(i64::from),
        stream: like.stream,
        usage_estimated: like.stream && like.cost.is_none(),
        request_bytes: like.micros.into(),
        ..testing::usage_row(org, at)
    }
}

/// Two replicas ingest the same events at the same time, cut and ordered differently, and one of them again.
async fn ingest_from_two_sides(store: &TestStore, rows: &[Row], batch: usize) -> Ingested {
    let mut sides = JoinSet::new();
    for backwards in [false, true, false] {
        let store = store.store.clone();
        let mut rows = rows.to_vec();
        if backwards {
            rows.reverse();
        }
        sides.spawn(async move {
            let (known, mut sum) = (KnownDays::default(), Ingested::default());
            for part in rows.chunks(batch + usize::from(backwards)) {
                // With an event twice in one batch.
                let part = [part, &part[..1]].concat();
                sum.add(&store.ingest_usage(&testing::journal(), part, &known).await.unwrap());
            }
            sum
        });
    }
    let mut sum = Ingested::default();
    while let Some(side) = sides.join_next().await {
        sum.add(&side.unwrap());
    }
    sum
}

/// R000-11.
#[test]
fn rollups_equal_the_log_after_random_batches_with_duplicates_from_two_sides() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 6, max_shrink_iters: 20, ..ProptestConfig::default() });
    let input = (prop::collection::vec(like(), 1..150), 1_usize..40);
    runner
        .run(&input, |(likes, batch)| {
            runtime.block_on(async {
                let store = testing::store().await;
                let orgs = [OrgId::generate(), OrgId::generate()];
                let rows: Vec<_> =
                    likes.iter().enumerate().map(|(at, like)| row(orgs[at % 2], like)).collect();
                let ingested = ingest_from_two_sides(&store, &rows, batch).await;
                prop_assert_eq!(ingested.inserted, rows.len() as u64);
                prop_assert_eq!((ingested.expired, ingested.refused), (0, 0));
                prop_assert_eq!(differences(&store).await, Vec::new());
                Ok(())
            })
        })
        .unwrap();
}

#[tokio::test]
async fn the_comparison_with_the_log_sees_a_difference() {
    let store = testing::store().await;
    let rows = vec![testing::usage_row(OrgId::generate(), now())];
    store.ingest_usage(&testing::journal(), rows, &KnownDays::default()).await.unwrap();
    assert_eq!(differences(&store).await, Vec::new());
    let mut superuser = store.superuser().await;
    sqlx::query("UPDATE usage_daily SET input_tokens = input_tokens + 1")
        .execute(&mut superuser)
        .await
        .unwrap();
    assert_eq!(differences(&store).await.len(), 2);
}

#[tokio::test]
async fn a_row_that_is_refused_leaves_no_sum() {
    let store = testing::store().await;
    let org = OrgId::generate();
    let (good, mut bad) = (testing::usage_row(org, now()), testing::usage_row(org, now()));
    bad.outcome = "nonsense";
    let ingested =
        store.ingest_usage(&testing::journal(), vec![good, bad], &KnownDays::default()).await.unwrap();
    assert_eq!((ingested.inserted, ingested.refused), (1, 1));
    assert_eq!(differences(&store).await, Vec::new());
}

/// An upstream may report nonsense; what follows must not be lost for it.
#[tokio::test]
async fn absurd_numbers_stop_at_the_largest_value_and_refuse_nothing() {
    let store = testing::store().await;
    let org = OrgId::generate();
    for _ in 0..2 {
        let absurd = Row { cost_nanos: Some(i64::MAX), total_us: i64::MAX, ..testing::usage_row(org, now()) };
        let batch = vec![absurd.clone(), Row { request_id: testing::request_id(now()), ..absurd }];
        let ingested = store.ingest_usage(&testing::journal(), batch, &KnownDays::default()).await.unwrap();
        assert_eq!((ingested.inserted, ingested.refused), (2, 0));
    }
    let sums: (i64, i64) = sqlx::query_as("SELECT sum(requests)::bigint, max(cost_nanos) FROM usage_daily")
        .fetch_one(&mut store.superuser().await)
        .await
        .unwrap();
    assert_eq!(sums, (4, i64::MAX));
}

/// What the migration does for a log that is older than the rollups; it has to know the same buckets.
#[tokio::test]
async fn a_log_from_before_the_rollups_is_summed_up_as_the_ingest_would_have() {
    let store = testing::store().await;
    let org = OrgId::generate();
    let mut rows = Vec::new();
    // Every bound of the histogram, a microsecond below and above, and beyond the last.
    for micros in (0..=21)
        .flat_map(|octave| [1_000_000_i64, 1_189_207, 1_414_214, 1_681_793].map(|it| (it << octave) / 1000))
    {
        for micros in [micros - 1, micros, micros + 1] {
            let first_byte_us = (rows.len() % 2 == 0).then_some(micros / 2);
            let stream = rows.len() % 3 == 0;
            let key_id = Uuid::from_u128(rows.len() as u128 % 5);
            rows.push(Row {
                total_us: micros,
                first_byte_us,
                stream,
                key_id,
                ..testing::usage_row(org, now())
            });
        }
    }
    rows[0].cost_nanos = Some(9);
    rows[1].outcome = "error";
    store.ingest_usage(&testing::journal(), rows, &KnownDays::default()).await.unwrap();
    for table in ["usage_hourly", "usage_daily"] {
        let statements =
            format!("CREATE TABLE ingested_{table} AS SELECT * FROM {table}; DELETE FROM {table}");
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut store.superuser().await).await.unwrap();
    }
    let mut tx = store.system().await.unwrap();
    sqlx::query("SELECT nemo_sum_up_request_log()").execute(tx.conn()).await.unwrap();
    tx.commit().await.unwrap();
    for table in ["usage_hourly", "usage_daily"] {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE a = b), count(*) FROM {table} a FULL JOIN ingested_{table} b \
             USING (org_id, bucket, key_id)"
        );
        let (equal, all): (i64, i64) =
            sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut store.superuser().await).await.unwrap();
        assert!((5..=10).contains(&all), "{all}");
        assert_eq!(equal, all, "{table}");
    }
}

#[test]
fn hours_and_days_begin_in_utc() {
    let at = datetime!(2026-03-01 00:45:30.5 +02:00);
    assert_eq!(hour(at), datetime!(2026-02-28 22:00 UTC));
    assert_eq!(day(at), datetime!(2026-02-28 00:00 UTC));
}

#[test]
fn every_measure_has_its_sum_in_the_comparison() {
    assert_eq!(FROM_LOG.len(), Measures::NAMES.len());
}
