//! Prepaid credit from the payment to the request that spends it, and the webhooks that tell of it (B11, R000-13,
//! R000-14, R001-8).

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use nemo_tests::{
    admin::text,
    client::{Client, Response},
    control::ControlPlane,
    eventually,
    fleet::Fleet,
    receiver::{Received, Receiver},
};
use nemo_types::Nanos;
use ring::hmac;
use serde_json::{Value, json};

use super::chat::chat;

const CHAT: &str = "/v1/chat/completions";
const SECRET: &str = "whsec_of_the_payments_tests";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unix_now() -> i64 {
    nemo_runtime::clock::unix_us() / 1_000_000
}

/// As the payment provider sends it.
async fn pay(client: &Client, secret: &str, at: i64, event: &Value) -> Response {
    let body = event.to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hex(hmac::sign(&key, format!("{at}.{body}").as_bytes()).as_ref());
    let client = client.clone().header("stripe-signature", &format!("t={at},v1={tag}"));
    client.post("/webhooks/payments", body).await.unwrap()
}

fn paid(event: &str, payment: &str, org_id: &str, cents: i64, credit: &str) -> Value {
    let metadata = json!({ "nemo_org_id": org_id, "nemo_credit_usd": credit });
    let object = json!({
        "id": "cs_test_1", "object": "checkout.session", "payment_intent": payment, "payment_status": "paid",
        "amount_total": cents, "currency": "usd", "metadata": metadata,
    });
    json!({ "id": event, "object": "event", "type": "checkout.session.completed", "data": { "object": object } })
}

fn usd(value: &Value) -> i64 {
    let text = value.as_str().unwrap();
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |text| (-1, text));
    sign * Nanos::from_decimal(text).unwrap().0
}

/// Standard Webhooks, as a receiver checks it.
fn is_signed(received: &Received, secret: &str) -> bool {
    let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let (id, at) = (received.header("webhook-id"), received.header("webhook-timestamp"));
    let signed = [format!("{id}.{at}.").as_bytes(), &received.body].concat();
    let fresh = at.parse::<i64>().is_ok_and(|at| (unix_now() - at).abs() < 300);
    let mut signatures = received.header("webhook-signature").split(' ');
    fresh
        && signatures.any(|signature| {
            let tag =
                signature.strip_prefix("v1,").and_then(|tag| BASE64.decode(tag).ok()).unwrap_or_default();
            hmac::verify(&key, &signed, &tag).is_ok()
        })
}

/// The answer once nodes know how the balance stands: until then there is nothing to spend from.
async fn settled_answer(fleet: &Fleet, status: u16) -> Response {
    eventually("the node knows the balance", async || {
        let response = fleet.client.post(CHAT, chat("hi")).await?;
        anyhow::ensure!(response.status == status, "{} {}", response.status, response.text());
        Ok(response)
    })
    .await
    .unwrap()
}

/// Covers B11 (402 `insufficient_credits`), R000-13, and the events `credits.purchased` and `credits.low`.
#[tokio::test]
async fn credit_is_bought_by_a_webhook_and_spent_to_the_nano() {
    let receiver = Receiver::start().await.unwrap();
    let settings = [("NEMO_PAYMENTS_WEBHOOK_SECRET", SECRET), ("NEMO_WEBHOOKS_ALLOW_PRIVATE", "true")];
    let fleet = Fleet::start_with_control(&settings).await.unwrap();
    let webhook = json!({ "name": "all", "url": receiver.url() });
    let webhook = fleet.admin.post(&fleet.org("/webhooks"), webhook).await.unwrap();
    let hook_secret = text(&webhook, "secret").unwrap();
    receiver.answer("credits.low", 500);
    let required = json!({ "value": "true" });
    fleet.admin.put(&fleet.org("/settings/credits.required?wait=fleet"), required).await.unwrap();

    let served = fleet.upstream.served();
    let refused = settled_answer(&fleet, 402).await;
    let error = refused.json().unwrap()["error"].clone();
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("insufficient_quota"), &json!("insufficient_credits"))
    );
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(fleet.upstream.served(), served, "nothing was sent that could not be paid");

    let quote = fleet.admin.get(&fleet.org("/credits/quote?credit_usd=100.00")).await.unwrap();
    assert_eq!((&quote["total_cents"], &quote["fee_usd"]), (&json!(10_400), &json!("4")));
    let event = paid("evt_1", "pi_1", &fleet.org_id, 10_400, "100.00");
    let provider = Client::new(fleet.rest_addr());
    let told = pay(&provider, SECRET, unix_now(), &event).await;
    assert_eq!((told.status, &told.json().unwrap()["outcome"]), (200, &json!("booked")), "{}", told.text());
    let told = pay(&provider, SECRET, unix_now(), &event).await;
    assert_eq!((told.status, &told.json().unwrap()["outcome"]), (200, &json!("duplicate")));
    let credits = fleet.admin.get(&fleet.org("/credits")).await.unwrap();
    assert_eq!(
        usd(&credits["credited_usd"]),
        100 * Nanos::ONE_USD.0,
        "exactly, twice told or not: {credits}"
    );
    // It is not low yet, and will be with the first request.
    let low = json!({ "value": "\"100\"" });
    fleet.admin.put(&fleet.org("/settings/credits.low_balance"), low).await.unwrap();

    let mut cost = usd(&json!(settled_answer(&fleet, 200).await.header("x-nemo-cost-usd").unwrap()));
    for _ in 0..9 {
        let response = fleet.client.post(CHAT, chat("hi")).await.unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        cost += usd(&json!(response.header("x-nemo-cost-usd").unwrap()));
    }
    assert!(cost > 0);
    eventually("the balance fell by exactly what the requests cost", async || {
        let credits = fleet.admin.get(&fleet.org("/credits")).await?;
        anyhow::ensure!(usd(&credits["settled_usd"]) == cost, "{cost}: {credits}");
        anyhow::ensure!(usd(&credits["balance_usd"]) == 100 * Nanos::ONE_USD.0 - cost, "{credits}");
        Ok(())
    })
    .await
    .unwrap();

    let low = eventually("the low balance is told, and told again after a 500", async || {
        let low = receiver.received("credits.low");
        anyhow::ensure!(low.len() == 2 && receiver.received("credits.purchased").len() == 1, "{low:?}");
        Ok(low)
    })
    .await
    .unwrap();
    assert_eq!(low.iter().map(|it| it.answered).collect::<Vec<_>>(), [500, 204]);
    assert_eq!(low[0].header("webhook-id"), low[1].header("webhook-id"));
    for received in low.iter().chain(&receiver.received("credits.purchased")) {
        assert!(is_signed(received, &hook_secret), "{received:?}");
    }
    assert!(usd(&low[1].json()["data"]["balance_usd"]) < 100 * Nanos::ONE_USD.0);
    eventually("the delivery is written down", async || {
        let path = fleet.org("/webhook-deliveries?event_type=credits.low");
        let delivery = fleet.admin.get(&path).await?["deliveries"][0].clone();
        anyhow::ensure!(delivery["state"] == "delivered" && delivery["attempts"] == 2, "{delivery}");
        Ok(())
    })
    .await
    .unwrap();
    let logs = fleet.logs();
    assert!(!logs.contains(SECRET) && !logs.contains(&hook_secret), "secrets stay out of logs");
}

/// B11: who paid is not told of the empty balance of some minutes ago, when the node has long stopped asking after it.
#[tokio::test]
async fn b11_credit_that_is_bought_later_is_found_by_the_first_request() {
    let settings = [("NEMO_PAYMENTS_WEBHOOK_SECRET", SECRET)];
    let fleet = Fleet::start_with_control(&settings).await.unwrap();
    let required = json!({ "value": "true" });
    fleet.admin.put(&fleet.org("/settings/credits.required?wait=fleet"), required).await.unwrap();
    settled_answer(&fleet, 402).await;
    tokio::time::sleep(Duration::from_secs(16)).await;
    let event = paid("evt_1", "pi_1", &fleet.org_id, 10_400, "100.00");
    let told = pay(&Client::new(fleet.rest_addr()), SECRET, unix_now(), &event).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let response = fleet.client.post(CHAT, chat("hi")).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
}

/// Covers the bad input: signatures that don't match, replays, other amounts. Nothing is booked.
#[tokio::test]
async fn payments_that_are_not_as_they_must_be_are_refused_with_the_reason() {
    let control = ControlPlane::start(&["--payments-webhook-secret", SECRET]).await.unwrap();
    let org = control.admin.create_tenant("payer", "team").await.unwrap().org_id;
    let provider = Client::new(control.rest_addr());
    let event = |id: &str, cents, credit| paid(id, "pi_1", &org, cents, credit);
    let now = unix_now();
    let stranger = event("evt_0", 10_400, "100");
    for (response, says) in [
        (provider.post("/webhooks/payments", stranger.to_string()).await.unwrap(), "missing"),
        (pay(&provider, "whsec_of_somebody_else", now, &stranger).await, "no signature matches"),
        (pay(&provider, SECRET, now - 600, &stranger).await, "replay"),
        (pay(&provider, SECRET, now, &event("evt_1", 10_300, "100")).await, "cost 104 USD"),
        (pay(&provider, SECRET, now, &event("evt_2", 10_400, "-100")).await, "no amount"),
        (pay(&provider, SECRET, now, &event("evt_3", 10_400, "100.0000000001")).await, "no amount"),
        (pay(&provider, SECRET, now, &event("evt_4", 10_400, "99999999999")).await, "no amount"),
        (pay(&provider, SECRET, now, &json!({ "id": "evt_5" })).await, "not an event"),
    ] {
        let problem = response.json().unwrap();
        assert_eq!(response.status, 400, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{says}: {problem}");
    }
    let large = provider.clone().header("stripe-signature", "t=1,v1=00");
    let large = large.post("/webhooks/payments", "x".repeat(300 * 1024)).await.unwrap();
    assert_eq!(large.status, 413);
    let credits = control.admin.get(&format!("/organizations/{org}/credits")).await.unwrap();
    assert_eq!((&credits["prepaid"], &credits["balance_usd"]), (&json!(false), &json!("0")));
    let events = control.admin.get("/payment-events").await.unwrap();
    let ids: Vec<_> =
        events["payment_events"].as_array().unwrap().iter().map(|it| it["id"].clone()).collect();
    assert_eq!(ids, ["evt_4", "evt_3", "evt_2", "evt_1"], "what the provider really sent is written down");
    assert!(!control.process.log().contains(SECRET));
}

#[tokio::test]
async fn without_a_secret_no_payment_is_taken() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let response = pay(&Client::new(control.rest_addr()), SECRET, unix_now(), &json!({})).await;
    assert_eq!(response.status, 404);
    assert!(response.text().contains("NEMO_PAYMENTS_WEBHOOK_SECRET"), "{}", response.text());
}
