//! Usage queries and searches of the request log through the operations. Covers R000-11 and part of R000-16.

use super::*;
use crate::{
    admin::Role,
    retention::{self, Retention, RetentionMetrics},
    store::{
        testing::{now, usage_row},
        usage_ingest::{KnownDays, Row},
    },
};

/// Two organizations; the first has used two models, three times in all.
async fn used() -> (World, OrgId, OrgId) {
    let world = world().await;
    let [one, two]: [OrgId; 2] = [world.org().await.parse().unwrap(), world.org().await.parse().unwrap()];
    let row = |org, model: &str, nanos: Option<i64>| Row {
        model: model.into(),
        cost_nanos: nanos,
        input_tokens: Some(10),
        output_tokens: Some(5),
        total_us: 2_000_000,
        first_byte_us: nanos.map(|_| 100_000),
        ..usage_row(org, now())
    };
    let rows = vec![
        row(one, "a", Some(1_500_000_000)),
        row(one, "a", None),
        Row { outcome: "error", http_status: 502, ..row(one, "b", Some(1)) },
        row(two, "a", Some(7)),
    ];
    world.store.ingest_usage(&testing::journal(), rows, &KnownDays::default()).await.unwrap();
    (world, one, two)
}

fn ask(org: OrgId) -> pb::QueryUsageRequest {
    pb::QueryUsageRequest { org_id: org.to_string(), ..Default::default() }
}

#[tokio::test]
async fn an_answer_has_every_measure_of_its_group() {
    let (world, org, _) = used().await;
    let request = pb::QueryUsageRequest { group_by: "model,key".into(), interval: "day".into(), ..ask(org) };
    let answer = world.admin.query_usage(&world.operator, request).await.unwrap();
    assert_eq!((answer.rows.len(), answer.next_page_token.as_str(), answer.kept_since), (2, "", None));
    let [a, b] = &answer.rows[..] else { panic!("{answer:?}") };
    assert_eq!((a.model.as_str(), a.requests, a.errors, a.unpriced), ("a", 2, 0, 1));
    assert_eq!((a.input_tokens, a.output_tokens, a.cost_usd.as_str()), (20, 10, "1.5"));
    assert_eq!((b.model.as_str(), b.requests, b.errors, b.cost_nanos), ("b", 1, 1, 1));
    assert!(a.org_id.is_empty() && a.provider.is_empty() && !a.key_id.is_empty(), "{a:?}");
    let (total, first) = (a.total.unwrap(), a.first_byte.unwrap());
    assert_eq!((total.mean_us, first.mean_us), (2_000_000, 100_000));
    assert!((1_650_000..2_400_000).contains(&total.p95_us) && total.p50_us <= total.p99_us, "{total:?}");
    let midnight = now().replace_time(time::Time::MIDNIGHT);
    assert_eq!(answer.to, Some((midnight + time::Duration::DAY).into()));
    assert_eq!(answer.from, Some((midnight - time::Duration::days(30)).into()));
}

#[tokio::test]
async fn pages_go_on_where_the_one_before_ended() {
    let (world, org, _) = used().await;
    let mut request =
        pb::QueryUsageRequest { group_by: "model".into(), order_by: "cost".into(), page_size: 1, ..ask(org) };
    let mut models = Vec::new();
    loop {
        let page = world.admin.query_usage(&world.operator, request.clone()).await.unwrap();
        models.extend(page.rows.into_iter().map(|row| row.model));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(models, ["a", "b"]);
}

#[tokio::test]
async fn an_organization_asks_for_its_own_usage_and_the_operator_for_all() {
    let (world, one, two) = used().await;
    let by_org = |org_id: &str| pb::QueryUsageRequest {
        org_id: org_id.into(),
        group_by: "org".into(),
        ..Default::default()
    };
    let all = world.admin.query_usage(&world.operator, by_org("")).await.unwrap();
    let mut requests: Vec<_> = all.rows.iter().map(|row| row.requests).collect();
    requests.sort_unstable();
    assert_eq!(requests, [1, 3]);
    for role in Role::ALL {
        let caller = Call::for_test(two, role);
        let own = world.admin.query_usage(&caller, by_org(&two.to_string())).await.unwrap();
        assert_eq!((own.rows.len(), own.rows[0].requests), (1, 1), "{role}");
        for org in ["", &one.to_string()] {
            let refused = world.admin.query_usage(&caller, by_org(org)).await;
            assert_eq!(kind(refused), ErrorKind::PermissionDenied, "{role} {org:?}");
        }
    }
    let nobody = world.admin.query_usage(&world.operator, ask(OrgId::generate())).await;
    assert_eq!(kind(nobody), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_answer_says_since_when_sums_are_kept() {
    let (world, org, _) = used().await;
    let keep = Retention { request_log_days: 0, usage_hourly_days: 32, usage_daily_days: 60 };
    retention::run_once(&world.store.store, keep, now().date(), &RetentionMetrics::default()).await.unwrap();
    let month =
        |days| (now().date() - time::Duration::days(days)).replace_day(1).unwrap().midnight().assume_utc();
    for (interval, days) in [("hour", 32), ("day", 60), ("month", 60)] {
        let request = pb::QueryUsageRequest { interval: interval.into(), ..ask(org) };
        let answer = world.admin.query_usage(&world.operator, request).await.unwrap();
        assert_eq!(answer.kept_since, Some(month(days).into()), "{interval}");
    }
}

#[tokio::test]
async fn the_log_is_searched_by_what_a_caller_sends() {
    let (world, org, _) = used().await;
    let ask = || pb::ListRequestsRequest { org_id: org.to_string(), ..Default::default() };
    for (request, found) in [
        (ask(), 3),
        (pb::ListRequestsRequest { status: "5xx".into(), ..ask() }, 1),
        (pb::ListRequestsRequest { status: "200".into(), ..ask() }, 2),
        (pb::ListRequestsRequest { min_cost_nanos: 2, ..ask() }, 1),
        (pb::ListRequestsRequest { min_total_us: 2_000_001, ..ask() }, 0),
        (pb::ListRequestsRequest { model: "b".into(), outcome: "error".into(), ..ask() }, 1),
    ] {
        let listed = world.admin.list_requests(&world.operator, request.clone()).await.unwrap();
        assert_eq!(listed.requests.len(), found, "{request:?}");
    }
    let other = Call::for_test(OrgId::generate(), Role::Owner);
    assert_eq!(kind(world.admin.list_requests(&other, ask()).await), ErrorKind::PermissionDenied);
}
