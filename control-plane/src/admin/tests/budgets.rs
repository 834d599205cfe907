//! Budgets and rate limits. Covers B11, R000-16, R001-10 and the bad input of money.

use nemo_proto::admin as pb;
use nemo_types::BudgetId;
use sqlx::{AssertSqlSafe, Executor as _};

use super::{World, kind, world, wrong_member};
use crate::admin::{Call, ErrorKind, Role, Written};

/// A member, and what makes it wrong.
type Case<T> = (&'static str, fn(&mut T));

fn create(org_id: &str, name: &str) -> pb::CreateBudgetRequest {
    pb::CreateBudgetRequest {
        org_id: org_id.into(),
        name: name.into(),
        limit_usd: "10".into(),
        window: "month".into(),
        ..Default::default()
    }
}

fn limit(org_id: &str, name: &str) -> pb::CreateRateLimitRequest {
    let (org_id, name) = (org_id.into(), name.into());
    pb::CreateRateLimitRequest { org_id, name, requests_per_minute: Some(60), ..Default::default() }
}

async fn made(world: &World, request: pb::CreateBudgetRequest) -> pb::Budget {
    world.admin.create_budget(&world.operator, request).await.unwrap().into_answer()
}

async fn get(world: &World, budget: &pb::Budget) -> pb::Budget {
    let request = pb::GetBudgetRequest { org_id: budget.org_id.clone(), id: budget.id.clone() };
    world.admin.get_budget(&world.operator, request).await.unwrap()
}

async fn update(
    world: &World,
    budget: &pb::Budget,
    change: pb::UpdateBudgetRequest,
) -> Result<pb::Budget, crate::admin::AdminError> {
    let request = pb::UpdateBudgetRequest { org_id: budget.org_id.clone(), id: budget.id.clone(), ..change };
    world.admin.update_budget(&world.operator, request).await.map(Written::into_answer)
}

async fn sql(world: &World, sql: String) {
    world.store.superuser().await.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

/// A window of the budget as the quota service would have made it.
async fn window(world: &World, budget: &pb::Budget, settled: i64, overrun: i64, outstanding: i64) {
    let start = serde_json::to_value(budget.current.as_ref().unwrap().start).unwrap();
    let end = serde_json::to_value(budget.current.as_ref().unwrap().end).unwrap();
    let end = end.as_str().map_or_else(|| "NULL".to_owned(), |end| format!("'{end}'"));
    let (id, org, start) = (&budget.id, &budget.org_id, start.as_str().unwrap());
    sql(
        world,
        format!(
            "INSERT INTO budget_windows (budget_id, org_id, window_start, window_end, limit_nanos, settled_nanos,
                                         overrun_nanos, outstanding_nanos)
             VALUES ('{id}', '{org}', '{start}', {end}, {}, {settled}, {overrun}, {outstanding})",
            budget.limit_nanos
        ),
    )
    .await;
}

#[tokio::test]
async fn a_budget_has_the_defaults_and_shows_its_present_window() {
    let world = world().await;
    let org_id = world.org().await;
    let budget = made(&world, create(&org_id, "monthly")).await;
    assert_eq!(
        (budget.kind.as_str(), budget.limit_usd.as_str(), budget.limit_nanos),
        ("limit", "10", 10_000_000_000)
    );
    let words =
        [&budget.over_budget, &budget.no_lease, &budget.lost_lease, &budget.reservation, &budget.time_zone];
    assert_eq!(words.map(String::as_str), ["cap", "deny", "charge", "strict", "UTC"]);
    // Nobody has used it: the whole limit of the month is left.
    let current = budget.current.clone().unwrap();
    assert_eq!(current.remaining.unwrap().usd, "10");
    assert!(current.start < current.end && !current.exhausted);

    window(&world, &budget, 2_500_000_000, 1, 3_000_000_000).await;
    let org = &budget.org_id;
    sql(
        &world,
        format!(
            "INSERT INTO budget_leases (lease_id, budget_id, org_id, window_start, session_id, node_id, epoch,
                                        granted_nanos, returned_nanos, spent_nanos, reserved_nanos, ttl_ms)
             SELECT gen_random_uuid(), budget_id, '{org}', window_start, n, 'node-' || n, 7, 4000000000, 500000000,
                    2000000000, 700000000, 1000 FROM budget_windows, generate_series(1, 2) n"
        ),
    )
    .await;
    let current = get(&world, &budget).await.current.unwrap();
    let usd = |amount: Option<pb::Amount>| amount.unwrap().usd;
    assert_eq!(usd(current.limit), "10");
    assert_eq!((usd(current.settled), usd(current.overrun)), ("2.5".into(), "0.000000001".into()));
    assert_eq!((usd(current.outstanding), usd(current.reserved)), ("3".into(), "1.4".into()));
    assert_eq!(usd(current.remaining), "4.499999999");

    let request =
        pb::ListBudgetLeasesRequest { org_id: org_id.clone(), id: budget.id.clone(), ..Default::default() };
    let leases = world.admin.list_budget_leases(&world.operator, request.clone()).await.unwrap().leases;
    assert_eq!(leases.len(), 2);
    assert_eq!(
        (usd(leases[0].granted.clone()), usd(leases[0].outstanding.clone())),
        ("4".into(), "1.5".into())
    );
    let closed = pb::ListBudgetLeasesRequest { state: "closed".into(), ..request.clone() };
    assert_eq!(world.admin.list_budget_leases(&world.operator, closed).await.unwrap().leases.len(), 0);
    let wrong = pb::ListBudgetLeasesRequest { state: "open".into(), ..request };
    assert_eq!(wrong_member(world.admin.list_budget_leases(&world.operator, wrong).await), "state");
}

#[tokio::test]
async fn what_can_not_be_a_budget_is_refused_with_the_member_and_nothing_is_booked() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let cases: [Case<pb::CreateBudgetRequest>; 16] = [
        ("limit_usd", |it| it.limit_usd = "-1".into()),
        ("limit_usd", |it| it.limit_usd = "".into()),
        ("limit_usd", |it| it.limit_usd = "0.0000000001".into()),
        ("limit_usd", |it| it.limit_usd = "9223372036.854775808".into()),
        ("limit_usd", |it| it.limit_usd = "1e9".into()),
        ("window", |it| it.window = "".into()),
        ("window", |it| it.window = "year".into()),
        ("window_hours", |it| it.window_hours = 24),
        ("window_hours", |it| it.window = "rolling".into()),
        ("window_hours", |it| (it.window, it.window_hours) = ("rolling".into(), 745)),
        ("time_zone", |it| it.time_zone = "Mars/Olympus".into()),
        ("over_budget", |it| it.over_budget = "ignore".into()),
        ("no_lease", |it| it.no_lease = "maybe".into()),
        ("thresholds[1]", |it| it.thresholds = vec![50, 0]),
        ("name", |it| it.name = "".into()),
        ("key_id", |it| it.key_id = BudgetId::generate().to_string()),
    ];
    for (member, change) in cases {
        let mut request = pb::CreateBudgetRequest { team_id: team_id.clone(), ..create(&org_id, "b") };
        change(&mut request);
        let refused = world.admin.create_budget(&world.operator, request.clone()).await;
        assert_eq!(wrong_member(refused), member, "{request:?}");
    }
    let missing =
        pb::CreateBudgetRequest { team_id: BudgetId::generate().to_string(), ..create(&org_id, "b") };
    let error = world.admin.create_budget(&world.operator, missing).await.unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::NotFound, Some("team_id")));
    let list = pb::ListBudgetsRequest { org_id, ..Default::default() };
    assert_eq!(world.admin.list_budgets(&world.operator, list).await.unwrap().budgets.len(), 0);
}

#[tokio::test]
async fn a_limit_moves_with_its_window_and_not_below_what_is_spent() {
    let world = world().await;
    let org_id = world.org().await;
    let budget =
        made(&world, pb::CreateBudgetRequest { window: "total".into(), ..create(&org_id, "b") }).await;
    window(&world, &budget, 4_000_000_000, 1_000_000_000, 2_000_000_000).await;
    let to =
        |limit_usd: &str| pb::UpdateBudgetRequest { limit_usd: Some(limit_usd.into()), ..Default::default() };
    let refused = update(&world, &budget, to("4.999999999")).await;
    assert!(refused.as_ref().unwrap_err().expected.as_ref().unwrap().contains("at least 5"), "{refused:?}");
    assert_eq!(wrong_member(refused), "limit_usd");
    assert_eq!(get(&world, &budget).await.limit_usd, "10", "nothing was booked");
    // What is spent is the least: it stops at once, although nodes still hold some.
    let stopped = update(&world, &budget, to("5")).await.unwrap();
    let current = stopped.current.unwrap();
    assert_eq!((stopped.limit_nanos, current.limit.unwrap().nanos), (5_000_000_000, 5_000_000_000));
    assert_eq!((current.remaining.unwrap().nanos, current.exhausted), (0, true));
    let raised = update(&world, &budget, to("20")).await.unwrap();
    assert_eq!(raised.current.unwrap().remaining.unwrap().usd, "13");
}

/// A node asks for the first slice of a window at the moment in which the limit is lowered.
#[tokio::test]
async fn a_window_that_is_made_meanwhile_has_the_new_limit() {
    let world = world().await;
    let org_id = world.org().await;
    let budget =
        made(&world, pb::CreateBudgetRequest { window: "total".into(), ..create(&org_id, "b") }).await;
    let mut bank = world.store.superuser().await;
    let id = &budget.id;
    let make = format!(
        "BEGIN;
         INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos)
         SELECT id, org_id, to_timestamp(0), limit_nanos FROM budgets WHERE id = '{id}' FOR SHARE"
    );
    bank.execute(sqlx::raw_sql(AssertSqlSafe(make))).await.unwrap();
    let made = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        bank.execute("COMMIT").await.unwrap();
    };
    let to = pb::UpdateBudgetRequest { limit_usd: Some("5".into()), ..Default::default() };
    let (updated, ()) = tokio::join!(update(&world, &budget, to), made);
    assert_eq!(updated.unwrap().current.unwrap().limit.unwrap().usd, "5");
}

#[tokio::test]
async fn budgets_are_named_once_and_change_without_losing_their_history() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let budget =
        made(&world, pb::CreateBudgetRequest { team_id: team_id.clone(), ..create(&org_id, "b") }).await;
    let again = world.admin.create_budget(&world.operator, create(&org_id, "b")).await.unwrap_err();
    assert_eq!((again.kind, again.field.as_deref()), (ErrorKind::AlreadyExists, Some("name")));
    let change = pb::UpdateBudgetRequest {
        name: Some("c".into()),
        over_budget: Some("reject".into()),
        thresholds: Some(pb::Thresholds { percent: vec![100, 80] }),
        disabled: Some(true),
        ..Default::default()
    };
    let changed = update(&world, &budget, change).await.unwrap();
    assert_eq!(
        (changed.name.as_str(), changed.over_budget.as_str(), changed.disabled),
        ("c", "reject", true)
    );
    assert_eq!((&changed.thresholds[..], changed.limit_usd.as_str()), (&[80, 100][..], "10"));
    let list = |team_id: &str, key_id: &str| pb::ListBudgetsRequest {
        org_id: org_id.clone(),
        team_id: team_id.into(),
        key_id: key_id.into(),
        ..Default::default()
    };
    let count =
        async |request| world.admin.list_budgets(&world.operator, request).await.unwrap().budgets.len();
    made(&world, create(&org_id, "whole")).await;
    assert_eq!((count(list("", "")).await, count(list(&team_id, "")).await), (2, 1));
    assert_eq!(count(list("", &team_id)).await, 0);
    // With the team goes its budget.
    let delete = pb::DeleteTeamRequest { org_id: org_id.clone(), id: team_id };
    world.admin.delete_team(&world.operator, delete).await.unwrap();
    assert_eq!(count(list("", "")).await, 1);
}

#[tokio::test]
async fn a_deleted_budget_takes_windows_and_leases_along() {
    let world = world().await;
    let org_id = world.org().await;
    let budget = made(&world, create(&org_id, "b")).await;
    window(&world, &budget, 1, 0, 0).await;
    let delete = pb::DeleteBudgetRequest { org_id, id: budget.id.clone() };
    world.admin.delete_budget(&world.operator, delete.clone()).await.unwrap();
    assert_eq!(kind(world.admin.delete_budget(&world.operator, delete).await), ErrorKind::NotFound);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM budget_windows")
        .fetch_one(&mut world.store.superuser().await)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn the_balance_of_an_organization_is_not_changed_here() {
    let world = world().await;
    let org_id = world.org().await;
    sql(
        &world,
        format!(
            "INSERT INTO budgets (id, org_id, name, kind, limit_nanos, window_kind)
             VALUES (gen_random_uuid(), '{org_id}', 'credit', 'credit', 0, 'total')"
        ),
    )
    .await;
    let list = pb::ListBudgetsRequest { org_id: org_id.clone(), ..Default::default() };
    let credit = world.admin.list_budgets(&world.operator, list).await.unwrap().budgets.remove(0);
    let raise = pb::UpdateBudgetRequest { limit_usd: Some("1000".into()), ..Default::default() };
    assert_eq!(kind(update(&world, &credit, raise).await), ErrorKind::InUse);
    let delete = pb::DeleteBudgetRequest { org_id, id: credit.id };
    assert_eq!(kind(world.admin.delete_budget(&world.operator, delete).await), ErrorKind::InUse);
}

/// R000-16: what another organization has is as unknown as nothing.
#[tokio::test]
async fn budgets_and_limits_of_another_organization_are_out_of_reach() {
    let world = world().await;
    let (own, other) = (world.org().await, world.org().await);
    let team_id = world.team(&other).await;
    let budget = made(&world, create(&other, "b")).await;
    let owner = Call::for_test(own.parse().unwrap(), Role::Owner);
    let get = pb::GetBudgetRequest { org_id: own.clone(), id: budget.id.clone() };
    assert_eq!(kind(world.admin.get_budget(&owner, get).await), ErrorKind::NotFound);
    let get = pb::GetBudgetRequest { org_id: other.clone(), id: budget.id };
    assert_eq!(kind(world.admin.get_budget(&owner, get).await), ErrorKind::PermissionDenied);
    let foreign = pb::CreateBudgetRequest { team_id: team_id.clone(), ..create(&own, "b") };
    assert_eq!(kind(world.admin.create_budget(&owner, foreign).await), ErrorKind::NotFound);
    let foreign = pb::CreateRateLimitRequest { team_id, ..limit(&own, "l") };
    assert_eq!(kind(world.admin.create_rate_limit(&owner, foreign).await), ErrorKind::NotFound);
    let viewer = Call::for_test(own.parse().unwrap(), Role::Viewer);
    assert_eq!(
        kind(world.admin.create_budget(&viewer, create(&own, "b")).await),
        ErrorKind::PermissionDenied
    );
}

#[tokio::test]
async fn a_rate_limit_limits_something_and_can_change() {
    let world = world().await;
    let org_id = world.org().await;
    let cases: [Case<pb::CreateRateLimitRequest>; 5] = [
        ("requests_per_minute", |it| it.requests_per_minute = None),
        ("requests_per_minute", |it| it.requests_per_minute = Some(0)),
        ("tokens_per_minute", |it| it.tokens_per_minute = Some(u64::MAX)),
        ("concurrent", |it| it.concurrent = Some(0)),
        ("model", |it| it.model = "a b".into()),
    ];
    for (member, change) in cases {
        let mut request = limit(&org_id, "l");
        change(&mut request);
        assert_eq!(wrong_member(world.admin.create_rate_limit(&world.operator, request).await), member);
    }
    let request = pb::CreateRateLimitRequest { model: "openai/*".into(), ..limit(&org_id, "l") };
    let made = world.admin.create_rate_limit(&world.operator, request).await.unwrap().into_answer();
    assert_eq!((made.requests_per_minute, made.tokens_per_minute, made.concurrent), (Some(60), None, None));
    let update = async |change: pb::UpdateRateLimitRequest| {
        let request = pb::UpdateRateLimitRequest { org_id: org_id.clone(), id: made.id.clone(), ..change };
        world.admin.update_rate_limit(&world.operator, request).await.map(Written::into_answer)
    };
    let change = pb::UpdateRateLimitRequest {
        requests_per_minute: Some(0),
        concurrent: Some(4),
        ..Default::default()
    };
    let changed = update(change).await.unwrap();
    assert_eq!(
        (changed.requests_per_minute, changed.concurrent, changed.model.as_str()),
        (None, Some(4), "openai/*")
    );
    let nothing = update(pb::UpdateRateLimitRequest { concurrent: Some(0), ..Default::default() }).await;
    assert_eq!(wrong_member(nothing), "requests_per_minute");
    let get = pb::GetRateLimitRequest { org_id: org_id.clone(), id: made.id.clone() };
    assert_eq!(world.admin.get_rate_limit(&world.operator, get.clone()).await.unwrap(), changed);
    let again = world.admin.create_rate_limit(&world.operator, limit(&org_id, "l")).await.unwrap_err();
    assert_eq!((again.kind, again.field.as_deref()), (ErrorKind::AlreadyExists, Some("name")));
    // A tier's is the tier's.
    sql(&world, format!("UPDATE rate_limits SET from_tier = true WHERE id = '{}'", made.id)).await;
    assert_eq!(kind(update(pb::UpdateRateLimitRequest::default()).await), ErrorKind::InUse);
    let delete = pb::DeleteRateLimitRequest { org_id: org_id.clone(), id: made.id.clone() };
    assert_eq!(kind(world.admin.delete_rate_limit(&world.operator, delete.clone()).await), ErrorKind::InUse);
    sql(&world, format!("UPDATE rate_limits SET from_tier = false WHERE id = '{}'", made.id)).await;
    world.admin.delete_rate_limit(&world.operator, delete).await.unwrap();
    assert_eq!(kind(world.admin.get_rate_limit(&world.operator, get).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn no_more_than_can_be_passed_by_every_request_fit_on_one_subject() {
    let world = world().await;
    let org_id = world.org().await;
    sql(
        &world,
        format!(
            "INSERT INTO budgets (id, org_id, name, limit_nanos, window_kind)
             SELECT gen_random_uuid(), '{org_id}', 'b' || n, 1, 'day' FROM generate_series(1, 100) n"
        ),
    )
    .await;
    assert_eq!(
        kind(world.admin.create_budget(&world.operator, create(&org_id, "one more")).await),
        ErrorKind::InUse
    );
    // A team has room of its own.
    let team_id = world.team(&org_id).await;
    made(&world, pb::CreateBudgetRequest { team_id, ..create(&org_id, "team") }).await;
}
