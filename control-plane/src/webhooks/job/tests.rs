//! Deliveries against a real PostgreSQL and a receiver on loopback: signed, repeated until taken, each claimed by one.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use nemo_types::{Keyring, OrgId};
use ring::hmac;
use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::{
    store::{
        testing::{self, TestStore},
        webhooks::{self, NewWebhook},
    },
    webhooks::event_types,
};

/// What came, and what to answer, last first.
#[derive(Default)]
struct Inbox {
    came: Vec<(HeaderMap, Bytes)>,
    answers: Vec<u16>,
}

type Shared = Arc<Mutex<Inbox>>;

async fn receiver(answers: &[u16]) -> (String, Shared) {
    let inbox = Shared::default();
    inbox.lock().unwrap().answers = answers.iter().rev().copied().collect();
    let take = async |State(inbox): State<Shared>, headers: HeaderMap, body: Bytes| {
        let mut inbox = inbox.lock().unwrap();
        inbox.came.push((headers, body));
        let status = StatusCode::from_u16(inbox.answers.pop().unwrap_or(204)).unwrap();
        (status, [("location", "http://127.0.0.1:1/elsewhere")])
    };
    let router = Router::new().route("/hook", post(take)).with_state(inbox.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, inbox)
}

struct World {
    store: TestStore,
    courier: Courier,
    org: OrgId,
    secret: SigningSecret,
}

async fn world() -> World {
    let store = testing::store().await;
    let keyring = Arc::new(Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap());
    let courier = Courier {
        store: store.store.clone(),
        sealer: Sealer::new(keyring),
        client: WebhookClient::new(true).unwrap(),
        metrics: WebhookMetrics::default(),
    };
    let org = store.org().await;
    World { store, courier, org, secret: SigningSecret::generate().unwrap() }
}

impl World {
    async fn webhook(&self, name: &str, url: &str, types: &[&str]) -> Uuid {
        let id = Uuid::now_v7();
        let sealed = self.courier.sealer.seal_record(&seal_context(id), self.secret.as_bytes()).unwrap();
        let types: Vec<String> = types.iter().map(|&text| text.to_owned()).collect();
        let mut tx = self.store.store.tenant(self.org).await.unwrap();
        let new = NewWebhook { id, name, url, event_types: &types, sealed: sealed.as_bytes() };
        webhooks::insert(&mut tx, new).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn enqueue(&self, event_type: &str, key: &str) -> bool {
        let mut tx = self.store.store.system().await.unwrap();
        let data = json!({ "n": 1 });
        let new = webhooks::enqueue(&mut tx, self.org.0, event_type, key, &data).await.unwrap();
        tx.commit().await.unwrap();
        new
    }

    /// State, attempts, status and error of each, oldest first.
    async fn deliveries(&self) -> Vec<(String, i32, Option<i32>, String)> {
        let sql = "SELECT state, attempts, last_status, last_error FROM webhook_deliveries ORDER BY id";
        sqlx::query_as(sql).fetch_all(&mut self.store.superuser().await).await.unwrap()
    }

    async fn run_sql(&self, sql: &'static str) {
        sqlx::query(sql).execute(&mut self.store.superuser().await).await.unwrap();
    }

    async fn value(&self, sql: &'static str) -> OffsetDateTime {
        sqlx::query_scalar(sql).fetch_one(&mut self.store.superuser().await).await.unwrap()
    }

    fn is_signed(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        let signed = format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).into_bytes();
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
        text("webhook-signature").split(' ').any(|signature| {
            let tag = BASE64.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
            hmac::verify(&key, &[signed.as_slice(), body].concat(), &tag).is_ok()
        })
    }
}

#[tokio::test]
async fn an_event_is_enqueued_once_for_each_endpoint_that_wants_it() {
    let world = world().await;
    world.webhook("all", "https://example.com/", &[]).await;
    world.webhook("low", "https://example.com/", &[event_types::CREDITS_LOW]).await;
    world.webhook("other", "https://example.com/", &[event_types::BUDGET_THRESHOLD]).await;
    let tries = (0..6).map(|_| world.enqueue(event_types::CREDITS_LOW, "k"));
    let new = futures_util::future::join_all(tries).await;
    assert_eq!(new.iter().filter(|new| **new).count(), 1);
    assert_eq!(world.deliveries().await.len(), 2);
    assert!(world.enqueue(event_types::CREDITS_LOW, "k2").await);
    assert_eq!(world.deliveries().await.len(), 4);
    // What is rolled back is not told.
    let mut tx = world.store.store.system().await.unwrap();
    webhooks::enqueue(&mut tx, world.org.0, event_types::CREDITS_LOW, "k3", &json!({})).await.unwrap();
    drop(tx);
    assert_eq!(world.deliveries().await.len(), 4);
}

#[tokio::test]
async fn a_delivery_is_signed_and_repeated_until_it_is_taken() {
    let world = world().await;
    let (url, inbox) = receiver(&[500, 302, 200]).await;
    world.webhook("w", &url, &[]).await;
    world.enqueue(event_types::CREDITS_LOW, "k").await;
    for (state, attempts, status, error) in [
        ("pending", 1, 500, "answered 500"),
        ("pending", 2, 302, "answered 302; redirects are not followed"),
        ("delivered", 3, 200, ""),
    ] {
        let begun: OffsetDateTime = world.value("SELECT clock_timestamp()").await;
        assert!(world.courier.once().await.unwrap());
        assert_eq!(world.deliveries().await, [(state.to_owned(), attempts, Some(status), error.to_owned())]);
        let next: OffsetDateTime = world.value("SELECT next_attempt_at FROM webhook_deliveries").await;
        assert!(state != "pending" || next - begun >= time::Duration::SECOND, "{next} after {begun}");
        // However long all this took.
        world
            .run_sql("UPDATE webhook_deliveries SET next_attempt_at = now() + interval '1 h' WHERE state = 'pending'")
            .await;
        assert!(!world.courier.once().await.unwrap(), "not before its time");
        world.run_sql("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE state = 'pending'").await;
    }
    let inbox = inbox.lock().unwrap();
    assert_eq!(inbox.came.len(), 3);
    let ids: std::collections::BTreeSet<_> =
        inbox.came.iter().map(|(headers, _)| headers["webhook-id"].to_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "the receiver can tell that it is the same event");
    for (headers, body) in &inbox.came {
        assert!(world.is_signed(headers, body));
        assert!(!world.is_signed(headers, b"{}"), "the body is what is signed");
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!((&body["type"], &body["data"]["n"]), (&json!("credits.low"), &json!(1)));
        assert!(body["timestamp"].as_str().is_some_and(|at| at.contains('T')));
    }
}

#[tokio::test]
async fn several_replicas_send_each_delivery_once() {
    let world = world().await;
    let (url, inbox) = receiver(&[]).await;
    for at in 0..5 {
        world.webhook(&format!("w{at}"), &url, &[]).await;
    }
    for key in ["a", "b", "c"] {
        world.enqueue(event_types::CREDITS_LOW, key).await;
    }
    let (one, other) = (world.courier.clone(), world.courier.clone());
    let (one, other) = tokio::join!(one.once(), other.once());
    assert!(one.unwrap() || other.unwrap());
    while world.courier.once().await.unwrap() {}
    assert_eq!(inbox.lock().unwrap().came.len(), 15);
    assert!(
        world.deliveries().await.iter().all(|(state, attempts, ..)| state == "delivered" && *attempts == 1)
    );
}

#[tokio::test]
async fn after_a_day_it_is_given_up_and_can_be_sent_again() {
    let world = world().await;
    let (url, inbox) = receiver(&[503]).await;
    world.webhook("w", &url, &[]).await;
    world.enqueue(event_types::CREDITS_LOW, "k").await;
    world.run_sql("UPDATE webhook_deliveries SET give_up_at = now()").await;
    world.courier.once().await.unwrap();
    let failed = world.deliveries().await;
    assert_eq!((failed[0].0.as_str(), failed[0].2), ("failed", Some(503)));
    world.run_sql("UPDATE webhook_deliveries SET next_attempt_at = now()").await;
    assert!(!world.courier.once().await.unwrap(), "what failed is not sent by itself");
    let mut tx = world.store.store.tenant(world.org).await.unwrap();
    let page = crate::store::Page { after: None, size: 10 };
    let listed = deliveries::list(&mut tx, None, Some("failed"), None, page).await.unwrap();
    let again = deliveries::redeliver(&mut tx, listed.rows[0].id).await.unwrap().unwrap();
    assert_eq!((again.state.as_str(), again.attempts), ("pending", 0));
    tx.commit().await.unwrap();
    world.courier.once().await.unwrap();
    assert_eq!(world.deliveries().await[0].0, "delivered");
    assert_eq!(inbox.lock().unwrap().came.len(), 2);
}

/// What was switched off is not sent, and neither lost at once.
#[tokio::test]
async fn deliveries_of_an_endpoint_that_is_switched_off_wait() {
    let world = world().await;
    let (url, inbox) = receiver(&[]).await;
    world.webhook("w", &url, &[]).await;
    world.enqueue(event_types::CREDITS_LOW, "k").await;
    world.run_sql("UPDATE webhooks SET disabled = true").await;
    assert!(!world.courier.once().await.unwrap());
    world.run_sql("UPDATE webhooks SET disabled = false").await;
    assert!(world.courier.once().await.unwrap());
    assert_eq!(inbox.lock().unwrap().came.len(), 1);
    world.run_sql("UPDATE webhooks SET disabled = true").await;
    assert!(world.enqueue(event_types::CREDITS_LOW, "k2").await);
    assert_eq!(world.deliveries().await.len(), 1, "nor is anything new for it");
}

/// SSRF: without the operator's leave nothing goes to this machine, whatever the row says.
#[tokio::test]
async fn private_addresses_are_not_sent_to() {
    let world = world().await;
    let (url, inbox) = receiver(&[]).await;
    world.webhook("w", &url, &[]).await;
    world.webhook("v", &url.replace("http://127.0.0.1", "https://localhost"), &[]).await;
    world.enqueue(event_types::CREDITS_LOW, "k").await;
    let courier = Courier { client: WebhookClient::new(false).unwrap(), ..world.courier.clone() };
    courier.once().await.unwrap();
    assert!(inbox.lock().unwrap().came.is_empty());
    let errors: Vec<String> = world.deliveries().await.into_iter().map(|row| row.3).collect();
    assert_eq!(errors, ["not https", "is on a private network or on this machine"]);
}

#[tokio::test]
async fn old_rows_go_and_keys_stay() {
    let world = world().await;
    let (url, _inbox) = receiver(&[]).await;
    world.webhook("w", &url, &[]).await;
    world.enqueue(event_types::CREDITS_LOW, "old").await;
    world.courier.once().await.unwrap();
    world.run_sql("UPDATE webhook_deliveries SET ended_at = now() - interval '31 days'").await;
    world.run_sql("UPDATE webhook_events SET created_at = now() - interval '31 days'").await;
    world.enqueue(event_types::CREDITS_LOW, "new").await;
    world.courier.purge().await.unwrap();
    assert_eq!(world.deliveries().await.len(), 1);
    assert!(!world.enqueue(event_types::CREDITS_LOW, "old").await, "it was told already");
    let sql = "SELECT count(*) FROM webhook_events WHERE body = ''";
    let emptied: i64 = sqlx::query_scalar(sql).fetch_one(&mut world.store.superuser().await).await.unwrap();
    assert_eq!(emptied, 1);
}

#[test]
fn pauses_double_to_two_hours_with_jitter_in_their_second_half() {
    assert_eq!((pause(1, 0.0), pause(1, 1.0)), (Duration::from_secs(1), Duration::from_secs(2)));
    assert_eq!(pause(2, 1.0), Duration::from_secs(4));
    for attempts in [0, 13, 14, 40, i32::MAX] {
        assert!(pause(attempts, 1.0) <= RETRY.1, "{attempts}");
    }
    // Long enough for a receiver that is down for most of a day, with few requests.
    let mut total = Duration::ZERO;
    let attempts = (1..).take_while(|attempts| {
        total += pause(*attempts, 0.5);
        total < Duration::from_secs(24 * 60 * 60)
    });
    assert!((15..40).contains(&attempts.count()));
}
