//! Credits, tiers and webhooks through the admin operations: who may, what follows, what is refused. Covers R000-14,
//! R000-17, R001-9.

use nemo_proto::admin as pb;
use nemo_types::OrgId;
use serde_json::json;

use super::{World, kind, world, wrong_member};
use crate::admin::{AdminError, Call, ErrorKind, Role, Written};

impl World {
    async fn bill(&self, org_id: &str, key: &str, value: serde_json::Value) -> Result<(), AdminError> {
        self.bill_as(&self.operator, org_id, key, value).await
    }

    async fn bill_as(
        &self,
        call: &Call,
        org_id: &str,
        key: &str,
        value: serde_json::Value,
    ) -> Result<(), AdminError> {
        let value = value.to_string();
        let request = pb::PutSettingRequest { org_id: org_id.into(), key: key.into(), value };
        self.admin.put_setting(call, request).await.map(drop)
    }

    async fn unbill(&self, org_id: &str, key: &str) -> Result<(), AdminError> {
        let request = pb::DeleteSettingRequest { org_id: org_id.into(), key: key.into() };
        self.admin.delete_setting(&self.operator, request).await.map(drop)
    }

    async fn credits(&self, org_id: &str) -> pb::Credits {
        let request = pb::GetCreditsRequest { org_id: org_id.into() };
        self.admin.get_credits(&self.operator, request).await.unwrap()
    }

    async fn book(
        &self,
        org_id: &str,
        kind: &str,
        amount: &str,
        source: &str,
    ) -> Result<Written<pb::CreditMovement>, AdminError> {
        let request = pb::CreateCreditMovementRequest {
            org_id: org_id.into(),
            kind: kind.into(),
            amount_usd: amount.into(),
            reason: "test".into(),
            source: source.into(),
        };
        self.admin.create_credit_movement(&self.operator, request).await
    }

    async fn quote(&self, org_id: &str, credit: &str) -> Result<pb::PurchaseQuote, AdminError> {
        let request = pb::QuotePurchaseRequest { org_id: org_id.into(), credit_usd: credit.into() };
        self.admin.quote_purchase(&self.operator, request).await
    }

    /// Requests and tokens per minute that the tier guarantees.
    async fn guaranteed(&self, org_id: &str) -> Option<(Option<i64>, Option<i64>)> {
        let sql =
            "SELECT requests_per_minute, tokens_per_minute FROM rate_limits WHERE org_id = $1 AND from_tier";
        let org: OrgId = org_id.parse().unwrap();
        let mut superuser = self.store.superuser().await;
        sqlx::query_as(sql).bind(org.0).fetch_optional(&mut superuser).await.unwrap()
    }
}

#[tokio::test]
async fn credit_is_given_once_for_a_source_and_taken_back_while_it_is_there() {
    let world = world().await;
    let org = world.org().await;
    let before = world.credits(&org).await;
    assert_eq!(
        (before.prepaid, before.balance_usd.as_str(), before.tier.as_str()),
        (false, "0", "pay-as-you-go")
    );
    let granted = world.book(&org, "grant", "12.5", "invoice-1").await.unwrap();
    assert_eq!((granted.amount_usd.as_str(), granted.replayed), ("12.5", false));
    let again = world.book(&org, "grant", "12.50", "invoice-1").await.unwrap();
    assert_eq!((again.id.as_str(), again.replayed), (granted.id.as_str(), true));
    let other = world.book(&org, "grant", "13", "invoice-1").await;
    assert_eq!(kind(other), ErrorKind::AlreadyExists);
    let much = world.book(&org, "refund", "12.500000001", "").await.unwrap_err();
    assert_eq!((much.kind, much.expected.as_deref()), (ErrorKind::InUse, Some("at most 12.5 USD")));
    assert_eq!(world.book(&org, "refund", "2.5", "").await.unwrap().amount_usd, "-2.5");
    let shown = world.credits(&org).await;
    assert_eq!((shown.prepaid, shown.balance_usd.as_str(), shown.available_usd.as_str()), (true, "10", "10"));
    let request = pb::ListCreditMovementsRequest { org_id: org.clone(), ..Default::default() };
    let listed = world.admin.list_credit_movements(&world.operator, request).await.unwrap();
    let kinds: Vec<_> = listed.movements.iter().map(|it| it.kind.as_str()).collect();
    assert_eq!(kinds, ["refund", "grant"], "newest first");
    let request = pb::GetCreditMovementRequest { org_id: org, id: granted.id.clone() };
    assert_eq!(world.admin.get_credit_movement(&world.operator, request).await.unwrap(), granted.answer);
}

/// Covers the bad input: negative or overflowing amounts, more decimals than a nano-dollar.
#[tokio::test]
async fn amounts_that_are_none_are_refused_and_nothing_is_booked() {
    let world = world().await;
    let org = world.org().await;
    for amount in ["", "-1", "0", "0.0000000001", "1e3", "10000000.01", "99999999999999999999", "NaN", "1,5"]
    {
        assert_eq!(wrong_member(world.book(&org, "grant", amount, "").await), "amount_usd", "{amount}");
    }
    for source in ["payment:pi_1", "refund:pi_1", "signup:x", "a b", &"x".repeat(129)] {
        assert_eq!(wrong_member(world.book(&org, "grant", "1", source).await), "source", "{source}");
    }
    assert_eq!(wrong_member(world.book(&org, "purchase", "1", "").await), "kind");
    assert_eq!(kind(world.book(&OrgId::generate().to_string(), "grant", "1", "").await), ErrorKind::NotFound);
    assert!(!world.credits(&org).await.prepaid);
    for credit in ["0", "0.001", "1000000.01", "-5", "x"] {
        assert_eq!(wrong_member(world.quote(&org, credit).await), "credit_usd", "{credit}");
    }
}

#[tokio::test]
async fn organizations_can_not_give_themselves_credit_or_another_tier() {
    let world = world().await;
    let org = world.org().await;
    let owner = Call::for_test(org.parse().unwrap(), Role::Owner);
    let request = pb::CreateCreditMovementRequest {
        org_id: org.clone(),
        kind: "grant".into(),
        amount_usd: "1".into(),
        ..Default::default()
    };
    let granted = world.admin.create_credit_movement(&owner, request).await;
    assert_eq!(kind(granted), ErrorKind::PermissionDenied);
    for (key, value) in [("billing.tier", json!("annual")), ("credits.required", json!(false))] {
        let error = world.bill_as(&owner, &org, key, value).await.unwrap_err();
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::PermissionDenied, Some("key")), "{key}");
    }
    let events = world.admin.list_payment_events(&owner, Default::default()).await;
    assert_eq!(kind(events), ErrorKind::PermissionDenied);
    // What only concerns itself it may set, and look at everything of its own.
    world.bill_as(&owner, &org, "credits.low_balance", json!("5")).await.unwrap();
    let request = pb::GetCreditsRequest { org_id: org.clone() };
    world.admin.get_credits(&owner, request).await.unwrap();
    let request = pb::QuotePurchaseRequest { org_id: org, credit_usd: "100".into() };
    assert_eq!(world.admin.quote_purchase(&owner, request).await.unwrap().total_usd, "104");
}

/// Covers R000-14, R000-17: a tier is a fee and rates, and nothing else.
#[tokio::test]
async fn a_tier_changes_the_fee_and_the_guaranteed_rates() {
    let world = world().await;
    let org = world.org().await;
    let quote = world.quote(&org, "100.00").await.unwrap();
    assert_eq!((quote.fee_usd.as_str(), quote.total_cents, quote.currency.as_str()), ("4", 10_400, "usd"));
    for (tier, cents) in [("monthly", 10_200), ("annual", 10_000)] {
        world.bill(&org, "billing.tier", json!(tier)).await.unwrap();
        assert_eq!(world.quote(&org, "100").await.unwrap().total_cents, cents);
    }
    assert_eq!(world.guaranteed(&org).await, None);
    let tiers = json!([
        { "name": "free", "fee_percent": "5.25", "requests_per_minute": 10 },
        { "name": "annual", "fee_percent": "0", "requests_per_minute": 600, "tokens_per_minute": 1_000_000 },
    ]);
    world.bill("", "billing.tiers", tiers).await.unwrap();
    let other = world.org().await;
    assert_eq!(world.guaranteed(&org).await, Some((Some(600), Some(1_000_000))));
    assert_eq!(world.guaranteed(&other).await, Some((Some(10), None)), "also of who came later");
    assert_eq!(world.quote(&other, "100").await.unwrap().fee_usd, "5.25");
    world.unbill(&org, "billing.tier").await.unwrap();
    assert_eq!(world.guaranteed(&org).await, Some((Some(10), None)));
    world.bill("", "billing.tier", json!("annual")).await.unwrap();
    assert_eq!(world.guaranteed(&other).await, Some((Some(600), Some(1_000_000))));
    world.unbill("", "billing.tier").await.unwrap();
    world.unbill("", "billing.tiers").await.unwrap();
    assert_eq!((world.guaranteed(&org).await, world.guaranteed(&other).await), (None, None));
}

#[tokio::test]
async fn tiers_that_are_named_stay() {
    let world = world().await;
    let org = world.org().await;
    assert_eq!(wrong_member(world.bill(&org, "billing.tier", json!("gold")).await), "value");
    assert_eq!(
        wrong_member(world.bill(&org, "billing.tiers", json!([{ "name": "a", "fee_percent": "1" }])).await),
        "key"
    );
    world.bill("", "billing.tiers", json!([{ "name": "gold", "fee_percent": "1" }])).await.unwrap();
    world.bill(&org, "billing.tier", json!("gold")).await.unwrap();
    let gone = world.bill("", "billing.tiers", json!([{ "name": "silver", "fee_percent": "1" }])).await;
    assert_eq!(kind(gone), ErrorKind::InUse);
    assert_eq!(kind(world.unbill("", "billing.tiers").await), ErrorKind::InUse);
    world.unbill(&org, "billing.tier").await.unwrap();
    world.unbill("", "billing.tiers").await.unwrap();
}

/// Covers R000-14: credit at sign-up, as an entry of the ledger.
#[tokio::test]
async fn new_organizations_are_given_what_the_installation_gives() {
    let world = world().await;
    let before = world.org().await;
    world.bill("", "credits.signup_grant", json!("5.00")).await.unwrap();
    let org = world.org().await;
    assert_eq!(
        (world.credits(&org).await.balance_usd.as_str(), world.credits(&before).await.prepaid),
        ("5", false)
    );
    let sql = "SELECT count(*) FROM ledger_entries WHERE kind = 'grant' AND nanos = 5000000000";
    let booked: i64 = sqlx::query_scalar(sql).fetch_one(&mut world.store.superuser().await).await.unwrap();
    assert_eq!(booked, 1);
    world.bill("", "credits.signup_grant", json!("0")).await.unwrap();
    world.bill("", "credits.required", json!(true)).await.unwrap();
    let poor = world.org().await;
    for org in [&poor, &before] {
        let credits = world.credits(org).await;
        assert_eq!((credits.prepaid, credits.balance_usd.as_str()), (true, "0"));
    }
}

#[tokio::test]
async fn a_webhook_shows_its_secret_once_and_is_checked() {
    let world = world().await;
    let org = world.org().await;
    let request = |url: &str, types: &[&str]| pb::CreateWebhookRequest {
        org_id: org.clone(),
        name: format!("hook {}", OrgId::generate()),
        url: url.into(),
        event_types: types.iter().map(|&text| text.to_owned()).collect(),
    };
    let create = async |request| world.admin.create_webhook(&world.operator, request).await;
    for url in
        ["http://example.com/", "https://127.0.0.1/", "https://10.0.0.1/", "https://localhost/", "x", ""]
    {
        assert_eq!(wrong_member(create(request(url, &[])).await), "url", "{url}");
    }
    assert_eq!(wrong_member(create(request("https://example.com/", &["a.b"])).await), "event_types[0]");
    let made = create(request("https://example.com/hook", &["credits.low", "credits.low"])).await.unwrap();
    let (webhook, secret) = (made.webhook.clone().unwrap(), made.secret.clone());
    assert_eq!(webhook.event_types, ["credits.low"]);
    assert!(secret.starts_with("whsec_") && secret.len() > 40);
    let get = pb::GetWebhookRequest { org_id: org.clone(), id: webhook.id.clone() };
    assert_eq!(world.admin.get_webhook(&world.operator, get).await.unwrap(), webhook);
    let dump = "SELECT string_agg(encode(sealed, 'escape'), '') FROM webhooks";
    let stored: String =
        sqlx::query_scalar(dump).fetch_one(&mut world.store.superuser().await).await.unwrap();
    assert!(!stored.contains(&secret[6..]), "sealed");
    let rotate = pb::RotateWebhookRequest { org_id: org.clone(), id: webhook.id.clone() };
    let rotated = world.admin.rotate_webhook(&world.operator, rotate).await.unwrap();
    assert_ne!(rotated.secret, secret);
    assert!(rotated.webhook.as_ref().unwrap().previous_valid_until.is_some());
    let test = pb::TestWebhookRequest { org_id: org.clone(), id: webhook.id.clone() };
    let sent = world.admin.test_webhook(&world.operator, test.clone()).await.unwrap();
    assert_eq!((sent.event_type.as_str(), sent.state.as_str()), ("webhook.test", "pending"));
    let off = pb::UpdateWebhookRequest {
        org_id: org.clone(),
        id: webhook.id.clone(),
        disabled: Some(true),
        ..Default::default()
    };
    world.admin.update_webhook(&world.operator, off).await.unwrap();
    assert_eq!(kind(world.admin.test_webhook(&world.operator, test).await), ErrorKind::InUse);
    let delete = pb::DeleteWebhookRequest { org_id: org.clone(), id: webhook.id };
    world.admin.delete_webhook(&world.operator, delete).await.unwrap();
    let list = pb::ListWebhookDeliveriesRequest { org_id: org.clone(), ..Default::default() };
    let left = world.admin.list_webhook_deliveries(&world.operator, list).await.unwrap();
    assert_eq!(left.deliveries, []);
}
