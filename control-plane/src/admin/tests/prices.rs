//! The price book and re-rating through the operations. Covers C 7, C 8, C 9 and part of R001-6.

use nemo_types::{BudgetId, LeaseId, Nanos};
use time::{Duration, OffsetDateTime};

use super::*;
use crate::{
    catalog::price_clock,
    ledger::{Charge, charge, verify},
    store::{
        testing::{now, usage_row},
        usage_ingest::{KnownDays, Row},
    },
};

const USD: i64 = 1_000_000_000;

fn at(time: OffsetDateTime) -> Option<nemo_proto::Timestamp> {
    Some(time.into())
}

/// A price per million tokens, in dollars.
fn price(input: i64, output: i64) -> pb::Price {
    pb::Price { input: Some(input * USD), output: Some(output * USD), ..Default::default() }
}

fn ask(price: pb::Price, from: Option<OffsetDateTime>) -> pb::CreatePriceRequest {
    pb::CreatePriceRequest {
        model: "m".into(),
        provider: "openai".into(),
        price: Some(price),
        effective_from: from.and_then(at),
        ..Default::default()
    }
}

impl World {
    async fn set(&self, price: pb::Price, from: Option<OffsetDateTime>) -> pb::ModelPrice {
        self.admin.create_price(&self.operator, ask(price, from)).await.unwrap().into_answer()
    }

    async fn offered(&self) -> pb::Price {
        let request = pb::GetModelRequest { id: "m".into() };
        let model = self.admin.get_model(&self.operator, request).await.unwrap();
        model.offerings[0].price.clone().unwrap()
    }

    /// As if its time had come.
    async fn let_begin(&self, price: &str) {
        let sql = "UPDATE scheduled_prices SET effective_from = clock_timestamp() WHERE price_id = $1";
        let updated = sqlx::query(sql).bind(price).execute(&mut self.store.superuser().await).await.unwrap();
        assert_eq!(updated.rows_affected(), 1);
    }

    async fn history(&self) -> Vec<(String, Option<i64>)> {
        let request = pb::ListPricesRequest { model: "m".into(), ..Default::default() };
        let prices = self.admin.list_prices(&self.operator, request).await.unwrap().prices;
        prices.into_iter().map(|it| (it.state, it.price.unwrap().input)).collect()
    }
}

#[tokio::test]
async fn a_price_is_added_and_the_one_before_stays() {
    let world = world().await;
    world.model("m").await;
    let full = pb::Price {
        cache_write_1h: Some(6 * USD),
        reasoning: Some(20 * USD),
        steps: vec![pb::PriceStep {
            above_input_tokens: 200_000,
            input: Some(6 * USD),
            ..Default::default()
        }],
        units: vec![pb::UnitPrice {
            unit: "web_searches".into(),
            price: 10_000_000_000_000,
            ..Default::default()
        }],
        ..price(3, 15)
    };
    let set = world.set(full.clone(), None).await;
    assert_eq!((set.state.as_str(), set.price.as_ref()), ("current", Some(&full)));
    assert_eq!(world.offered().await, full);
    let former = ("past".to_owned(), Some(2_500_000_000));
    assert_eq!(world.history().await, [("current".to_owned(), Some(3 * USD)), former.clone()]);
    // The same again is a row of its own, and the history pages.
    world.set(price(4, 15), None).await;
    world.set(full, None).await;
    assert_eq!(world.history().await.len(), 4);
    let mut request = pb::ListPricesRequest { page_size: 3, ..Default::default() };
    let page = world.admin.list_prices(&world.operator, request.clone()).await.unwrap();
    request.page_token = page.next_page_token;
    let rest = world.admin.list_prices(&world.operator, request).await.unwrap();
    assert_eq!((page.prices.len(), rest.prices.len(), rest.next_page_token.as_str()), (3, 1, ""));
    let got =
        world.admin.get_price(&world.operator, pb::GetPriceRequest { id: set.id.clone() }).await.unwrap();
    assert_eq!(got.price, set.price);
    // What is in effect can't be called off.
    let cancel = world.admin.delete_price(&world.operator, pb::DeletePriceRequest { id: set.id }).await;
    assert_eq!(kind(cancel), ErrorKind::InUse);
}

#[tokio::test]
async fn a_scheduled_price_takes_effect_at_its_time() {
    let world = world().await;
    world.model("m").await;
    let later = world.set(price(5, 10), Some(now() + Duration::hours(1))).await;
    let soon = world.set(price(4, 10), Some(now() + Duration::minutes(30))).await;
    assert_eq!((later.state.as_str(), soon.state.as_str()), ("scheduled", "scheduled"));
    assert_eq!(price_clock::run_once(&world.store.store).await.unwrap(), Vec::<String>::new());
    assert_eq!(world.offered().await.input, Some(2_500_000_000));
    world.let_begin(&soon.id).await;
    let due = price_clock::run_once(&world.store.store).await.unwrap();
    assert_eq!(due, std::slice::from_ref(&soon.id));
    assert_eq!(world.offered().await.input, Some(4 * USD));
    assert_eq!(price_clock::run_once(&world.store.store).await.unwrap(), Vec::<String>::new());
    // What has not begun can be called off, once.
    let cancel =
        || world.admin.delete_price(&world.operator, pb::DeletePriceRequest { id: later.id.clone() });
    cancel().await.unwrap();
    assert_eq!(kind(cancel().await), ErrorKind::InUse);
    let states: Vec<_> = world.history().await.into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, ["current", "withdrawn", "past"]);
}

/// C9: an edition of the bundled catalog does not undo what an operator has set.
#[tokio::test]
async fn a_price_that_was_set_survives_the_next_edition() {
    use crate::store::catalog::{self, Amounts, ModelRow, NewModel, NewOffering, Source};
    let world = world().await;
    let edition = |input| NewModel {
        row: ModelRow { id: "m".into(), ..ModelRow::default() },
        offerings: vec![NewOffering {
            provider: "openai".into(),
            upstream_model: "m".into(),
            amounts: Amounts { input: Some(input), ..Amounts::default() },
            price_id: Some(format!("openai/m@{input}")),
        }],
    };
    let put = async |input| {
        let mut tx = world.store.system().await.unwrap();
        catalog::put(&mut tx, vec![edition(input)], Source::Bundled, now()).await.unwrap();
        tx.commit().await.unwrap();
    };
    put(USD).await;
    world.set(price(7, 7), None).await;
    put(2 * USD).await;
    assert_eq!(world.offered().await.input, Some(7 * USD));
}

/// C9, bad input: every refusal names the member; nothing is written.
#[tokio::test]
async fn a_price_that_makes_no_sense_is_refused() {
    let world = world().await;
    world.model("m").await;
    let create = |request| world.admin.create_price(&world.operator, request);
    let of = |input| ask(pb::Price { input: Some(input), ..Default::default() }, None);
    for input in [-1, 2_500, 9 * USD * 1000, i64::MAX] {
        assert_eq!(wrong_member(create(of(input)).await), "price.input", "{input}");
    }
    let confirmed = pb::CreatePriceRequest { confirm_unusual_price: true, ..of(2_500) };
    assert_eq!(create(confirmed).await.unwrap().answer.price.unwrap().input, Some(2_500));
    assert_eq!(wrong_member(create(ask(pb::Price::default(), None)).await), "price");
    let far = now() + Duration::days(500);
    assert_eq!(wrong_member(create(ask(price(1, 1), Some(far))).await), "effective_from");
    let unknown = pb::CreatePriceRequest { model: "nothing".into(), ..ask(price(1, 1), None) };
    assert_eq!(kind(create(unknown).await), ErrorKind::NotFound);
    let deployment = pb::CreateDeploymentRequest {
        provider: "openai".into(),
        model: "m".into(),
        price: Some(pb::Price { output: Some(5), ..Default::default() }),
        ..Default::default()
    };
    let create = |request| world.admin.create_deployment(&world.operator, request);
    assert_eq!(wrong_member(create(deployment.clone()).await), "price.output");
    let confirmed = pb::CreateDeploymentRequest { confirm_unusual_price: true, ..deployment };
    assert_eq!(create(confirmed).await.unwrap().answer.price.unwrap().output, Some(5));
}

#[tokio::test]
async fn a_deployments_own_prices_have_a_history() {
    let world = world().await;
    world.model("m").await;
    let org = world.org().await;
    let deployment = world.deployment(&org, "m").await;
    for input in [3, 4] {
        let request = pb::UpdateDeploymentRequest {
            org_id: org.clone(),
            id: deployment.id.clone(),
            price: Some(price(input, 10)),
            ..Default::default()
        };
        world.admin.update_deployment(&world.operator, request).await.unwrap();
    }
    let request = pb::ListDeploymentPricesRequest { org_id: org, id: deployment.id.clone() };
    let prices = world.admin.list_deployment_prices(&world.operator, request).await.unwrap().prices;
    let prices: Vec<_> = prices.into_iter().map(|it| (it.price.unwrap().input, it.current)).collect();
    assert_eq!(prices, [(Some(4 * USD), true), (Some(3 * USD), false)]);
    let other = pb::ListDeploymentPricesRequest { org_id: world.org().await, id: deployment.id };
    assert_eq!(kind(world.admin.list_deployment_prices(&world.operator, other).await), ErrorKind::NotFound);
}

/// A world with a budget, and requests for 1000 tokens each in two hours past, billed at 2.50 USD per million.
struct Rerated {
    world: World,
    org: OrgId,
    budget: BudgetId,
}

fn rated(org: OrgId, hours: i64, cost: Option<i64>, charges: &[Charge]) -> Row {
    Row {
        model: "m".into(),
        input_tokens: Some(1_000),
        output_tokens: Some(0),
        cost_nanos: cost,
        cost_source: if cost.is_some() { "priced" } else { "" },
        charges: charge::to_column(charges),
        charged: charges.to_vec(),
        ..usage_row(org, now() - Duration::hours(hours))
    }
}

/// Without any request.
async fn unbilled(window: &str) -> Rerated {
    let world = world().await;
    world.model("m").await;
    let org = world.org().await;
    let request = pb::CreateBudgetRequest {
        org_id: org.clone(),
        name: "b".into(),
        limit_usd: "1".into(),
        window: window.into(),
        window_hours: if window == "rolling" { 24 } else { 0 },
        ..Default::default()
    };
    let budget = world.admin.create_budget(&world.operator, request).await.unwrap().into_answer().id;
    let (org, budget): (OrgId, BudgetId) = (org.parse().unwrap(), budget.parse().unwrap());
    Rerated { world, org, budget }
}

async fn billed(window: &str) -> Rerated {
    let it = unbilled(window).await;
    let (org, charge) = (it.org, |nanos| it.charge(nanos));
    let rows = vec![
        rated(org, 1, Some(2_500_000), &[charge(2_500_000)]),
        rated(org, 3, Some(2_500_000), &[charge(2_500_000)]),
        // It had no price: what was reserved for it was charged.
        rated(org, 1, None, &[charge(9_000_000)]),
        // The provider said what it costs.
        Row { cost_source: "provider", ..rated(org, 1, Some(77), &[charge(77)]) },
        Row { model: "other".into(), requested_model: "other".into(), ..rated(org, 1, Some(5), &[]) },
    ];
    it.ingest(rows).await;
    it
}

impl Rerated {
    /// Of a node that had no lease, and knew of no window.
    fn charge(&self, nanos: i64) -> Charge {
        Charge {
            budget_id: self.budget,
            window_start: OffsetDateTime::UNIX_EPOCH,
            lease_id: None::<LeaseId>,
            nanos: Nanos(nanos),
        }
    }

    async fn ingest(&self, rows: Vec<Row>) {
        let known = KnownDays::default();
        self.world.store.ingest_usage(&testing::journal(), rows, &known).await.unwrap();
    }

    async fn rerate(&self, book: bool) -> pb::RerateResponse {
        let request = pb::RerateRequest {
            from: at(now() - Duration::hours(10)),
            model: "m".into(),
            book,
            ..Default::default()
        };
        self.world.admin.rerate(&self.world.operator, request).await.unwrap().into_answer()
    }

    async fn settled(&self) -> i64 {
        let sql = "SELECT sum(settled_nanos)::bigint FROM budget_windows WHERE budget_id = $1";
        let mut superuser = self.world.store.superuser().await;
        sqlx::query_scalar(sql).bind(self.budget.0).fetch_one(&mut superuser).await.unwrap()
    }

    async fn adjusted(&self) -> Vec<i64> {
        let request = pb::ListLedgerRequest {
            org_id: self.org.to_string(),
            kind: "adjust".into(),
            ..Default::default()
        };
        let entries = self.world.admin.list_ledger(&self.world.operator, request).await.unwrap().entries;
        entries.into_iter().map(|entry| entry.nanos).collect()
    }
}

/// C9: a price that was wrong is corrected for what was billed, in the ledger, once.
#[tokio::test]
async fn a_correction_is_shown_then_booked_once() {
    for window in ["total", "rolling"] {
        let it = billed(window).await;
        let before = it.settled().await;
        assert_eq!(before, 2_500_000 * 2 + 9_000_000 + 77, "{window}");
        // Half as much since two hours: the second request keeps its price, for it had no other in the book by then.
        it.world.set(price(1, 10), Some(now() - Duration::hours(2))).await;
        let dry = it.rerate(false).await;
        let total = dry.total.clone().unwrap();
        assert_eq!((total.requests, total.changed, total.unpriced, total.skipped), (4, 2, 1, 2));
        assert_eq!((total.booked_nanos, total.rerated_nanos), (2_500_000, 2_000_000));
        assert_eq!((dry.rows.len(), dry.rerate_id.as_str(), dry.entries), (1, "", 0));
        assert_eq!(
            (it.settled().await, it.adjusted().await),
            (before, vec![]),
            "{window}: nothing was booked"
        );

        let booked = it.rerate(true).await;
        assert_eq!((booked.total, booked.entries), (dry.total, 1));
        // 2.5 -> 1 and 9 -> 1 thousandths of a dollar.
        assert_eq!(it.adjusted().await, [-9_500_000], "{window}");
        assert_eq!(it.settled().await, before - 9_500_000, "{window}");
        let again = it.rerate(true).await;
        let total = again.total.unwrap();
        assert_eq!((total.changed, total.difference_nanos, again.entries), (0, 0, 0), "{window}");

        // Another correction moves on from there.
        it.world.set(price(2, 10), Some(now() - Duration::hours(5))).await;
        let third = it.rerate(true).await.total.unwrap();
        assert_eq!((third.changed, third.difference_nanos), (3, 1_000_000 * 2 - 500_000), "{window}");
        assert_eq!(it.settled().await, before - 9_500_000 + 1_500_000, "{window}");
        let report = verify::verify(&it.world.store.store).await.unwrap();
        assert!(report.is_fine(), "{window}: {:?}", report.differences);
    }
}

/// C9: a request that was extended into another lease has two charges on one budget, and is one request all the same.
#[tokio::test]
async fn a_request_with_two_charges_on_a_budget_moves_it_by_its_difference() {
    let it = unbilled("total").await;
    let charges = [it.charge(1_500_000), it.charge(1_000_000)];
    it.ingest(vec![rated(it.org, 1, Some(2_500_000), &charges)]).await;
    for (input, settled) in [(4, 4_000_000), (1, 1_000_000), (2, 2_000_000)] {
        it.world.set(price(input, 10), Some(now() - Duration::hours(2))).await;
        assert_eq!(it.rerate(true).await.entries, 1);
        assert_eq!(it.settled().await, settled, "at {input} USD per million");
    }
    assert_eq!(it.adjusted().await, [1_000_000, -3_000_000, 1_500_000]);
    assert!(verify::verify(&it.world.store.store).await.unwrap().is_fine());
}

/// C9: a node without a lease may not know the window; its request was settled in the one that it began in.
#[tokio::test]
async fn what_was_charged_without_a_lease_is_corrected_in_the_window_that_it_is_in() {
    let it = billed("day").await;
    let before = it.settled().await;
    it.world.set(price(1, 10), Some(now() - Duration::hours(5))).await;
    assert_eq!(it.rerate(true).await.total.unwrap().changed, 3);
    assert_eq!(it.settled().await, before - 1_500_000 * 2 - 8_000_000);
    assert_eq!(it.adjusted().await.iter().sum::<i64>(), -11_000_000);
    assert!(verify::verify(&it.world.store.store).await.unwrap().is_fine());
}

#[tokio::test]
async fn a_given_price_is_for_requests_of_its_provider() {
    let it = billed("total").await;
    let wrong = it.world.set(price(9, 10), None).await;
    let request = pb::RerateRequest {
        from: at(now() - Duration::hours(10)),
        model: "m".into(),
        price_id: wrong.id,
        ..Default::default()
    };
    let rerate = |request| it.world.admin.rerate(&it.world.operator, request);
    let answer = rerate(request.clone()).await.unwrap().into_answer();
    assert_eq!(answer.total.unwrap().rerated_nanos, 3 * 9_000_000);
    let nothing = pb::RerateRequest { price_id: "nothing".into(), ..request.clone() };
    assert_eq!(kind(rerate(nothing).await), ErrorKind::NotFound);
    let elsewhere = pb::RerateRequest { org_id: OrgId::generate().to_string(), ..request.clone() };
    assert_eq!(rerate(elsewhere).await.unwrap().into_answer().total.unwrap().requests, 0);
    let owner = Call::for_test(it.org, crate::admin::Role::Owner);
    assert_eq!(kind(it.world.admin.rerate(&owner, request).await), ErrorKind::PermissionDenied);
}
