//! What an event of the payment provider says, as far as it concerns us. Pure. Amounts come in cents.
//!
//! A payment is ours when its metadata has [`ORG`] and [`CREDIT`]; whoever builds the checkout puts them there, on the
//! session or on the payment. The provider may tell of one payment in several events; all name the same payment.

use nemo_types::{Nanos, OrgId};
use serde::Deserialize;
use serde_json::Value;

use crate::credits::tier::CENT;

/// Metadata: id of the organization that buys.
pub const ORG: &str = "nemo_org_id";
/// Metadata: credit that it buys, in USD.
pub const CREDIT: &str = "nemo_credit_usd";
/// The only currency.
const USD: &str = "usd";
/// Longest id of the provider's.
const MAX_ID: usize = 128;

/// An event of any type.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: String,
    pub event_type: String,
    pub told: Told,
}

/// What it tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Paid(Paid),
    PaidBack(PaidBack),
    /// Nothing that concerns us.
    Nothing(&'static str),
    /// It concerns us and is not as it must be.
    Wrong {
        payment_id: String,
        reason: String,
    },
}

/// Money came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paid {
    pub payment_id: String,
    pub org: OrgId,
    /// What the organization buys.
    pub credit: Nanos,
    /// Without taxes.
    pub paid: Nanos,
}

/// Money went back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaidBack {
    pub payment_id: String,
    /// Cents that went back of the payment so far, and cents that were paid, both with taxes.
    pub back: i64,
    pub of: i64,
    /// Its metadata names an organization.
    pub ours: bool,
}

#[derive(Deserialize)]
struct Envelope {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    object: Value,
}

impl Event {
    /// # Errors
    /// When it is no event at all.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let Envelope { id, event_type, data } =
            serde_json::from_slice(body).map_err(|error| format!("not an event: {error}"))?;
        for text in [&id, &event_type] {
            if !is_id(text) {
                return Err("not an event: its id or type has another form".to_owned());
            }
        }
        let told = match event_type.as_str() {
            "checkout.session.completed" | "checkout.session.async_payment_succeeded" => {
                session(&data.object)
            }
            "payment_intent.succeeded" => intent(&data.object),
            "charge.refunded" => refund(&data.object),
            _ => Told::Nothing("this type of event moves no credit"),
        };
        Ok(Self { id, event_type, told })
    }
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The id of what a member refers to: as text, or as the whole object.
fn reference(object: &Value, member: &str) -> Option<String> {
    let found = &object[member];
    let id = found.as_str().or_else(|| found["id"].as_str());
    id.filter(|id| is_id(id)).map(str::to_owned)
}

fn cents(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn session(object: &Value) -> Told {
    if object["payment_status"] != "paid" {
        return Told::Nothing("the session is not paid yet");
    }
    let tax = cents(object, "/total_details/amount_tax").unwrap_or_default();
    let paid = cents(object, "/amount_total").and_then(|total| total.checked_sub(tax));
    let payment = reference(object, "payment_intent").or_else(|| reference(object, "id"));
    purchase(object, payment, paid)
}

fn intent(object: &Value) -> Told {
    purchase(object, reference(object, "id"), cents(object, "/amount_received"))
}

fn purchase(object: &Value, payment: Option<String>, paid_cents: Option<i64>) -> Told {
    let (org, credit) = (&object["metadata"][ORG], &object["metadata"][CREDIT]);
    if org.is_null() && credit.is_null() {
        return Told::Nothing("no metadata of ours: the payment is for something else");
    }
    let payment_id = payment.clone().unwrap_or_default();
    let wrong = |reason: String| Told::Wrong { payment_id: payment_id.clone(), reason };
    let Some(payment_id) = payment else { return wrong("it names no payment".to_owned()) };
    let Some(org) = org.as_str().and_then(|org| org.parse().ok()) else {
        return wrong(format!("metadata {ORG}: {org} is not the id of an organization"));
    };
    let Some(credit) = credit.as_str().and_then(Nanos::from_decimal) else {
        return wrong(format!("metadata {CREDIT}: {credit} is no amount in USD"));
    };
    if object["currency"] != USD {
        return wrong(format!("paid in {}, expected {USD}", object["currency"]));
    }
    let paid = paid_cents.filter(|cents| *cents > 0).and_then(|cents| cents.checked_mul(CENT.0));
    match paid {
        Some(paid) => Told::Paid(Paid { payment_id, org, credit, paid: Nanos(paid) }),
        None => wrong("it does not say how much was paid".to_owned()),
    }
}

fn refund(object: &Value) -> Told {
    let ours = !object["metadata"][ORG].is_null();
    let payment = reference(object, "payment_intent");
    let wrong = |reason: &str| Told::Wrong {
        payment_id: payment.clone().unwrap_or_default(),
        reason: reason.to_owned(),
    };
    let Some(payment_id) = payment.clone() else {
        return if ours { wrong("it names no payment") } else { Told::Nothing("it names no payment") };
    };
    let amounts = (cents(object, "/amount_refunded"), cents(object, "/amount"));
    match amounts {
        (Some(back), Some(of)) if 0 < back && back <= of => {
            Told::PaidBack(PaidBack { payment_id, back, of, ours })
        }
        _ => wrong("it does not say how much was paid back"),
    }
}

impl PaidBack {
    /// The part of an amount that went back, to the nano: all of it when everything did.
    pub fn part(&self, amount: Nanos) -> Nanos {
        let part = i128::from(amount.0) * i128::from(self.back) / i128::from(self.of.max(1));
        // At most the amount itself.
        Nanos(i64::try_from(part).unwrap_or(amount.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ORGANIZATION: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

    fn told(event_type: &str, object: &Value) -> Told {
        let event = json!({ "id": "evt_1", "type": event_type, "data": { "object": object } });
        Event::parse(event.to_string().as_bytes()).unwrap().told
    }

    fn metadata() -> Value {
        json!({ ORG: ORGANIZATION, CREDIT: "100.00" })
    }

    fn session_of(change: impl FnOnce(&mut Value)) -> Told {
        let mut object = json!({
            "id": "cs_1", "payment_intent": "pi_1", "payment_status": "paid", "amount_total": 10_400,
            "currency": "usd", "metadata": metadata(),
        });
        change(&mut object);
        told("checkout.session.completed", &object)
    }

    #[test]
    fn a_session_and_its_payment_say_the_same() {
        let expected = Told::Paid(Paid {
            payment_id: "pi_1".into(),
            org: ORGANIZATION.parse().unwrap(),
            credit: Nanos(100 * Nanos::ONE_USD.0),
            paid: Nanos(104 * Nanos::ONE_USD.0),
        });
        assert_eq!(session_of(|_| ()), expected);
        assert_eq!(session_of(|it| it["payment_intent"] = json!({ "id": "pi_1" })), expected);
        let tax = |it: &mut Value| {
            it["amount_total"] = json!(12_376);
            it["total_details"] = json!({ "amount_tax": 1976 });
        };
        assert_eq!(session_of(tax), expected, "taxes are not ours");
        let intent =
            json!({ "id": "pi_1", "amount_received": 10_400, "currency": "usd", "metadata": metadata() });
        assert_eq!(told("payment_intent.succeeded", &intent), expected);
    }

    #[test]
    fn what_is_not_ours_or_not_paid_is_nothing() {
        assert!(matches!(session_of(|it| it["payment_status"] = json!("unpaid")), Told::Nothing(_)));
        assert!(matches!(session_of(|it| it["metadata"] = json!({})), Told::Nothing(_)));
        assert!(matches!(told("customer.created", &json!({})), Told::Nothing(_)));
        assert!(matches!(told("charge.refunded", &json!({ "amount": 1 })), Told::Nothing(_)));
    }

    #[test]
    fn what_is_ours_and_wrong_says_why() {
        let wrong = |change: fn(&mut Value)| match session_of(change) {
            Told::Wrong { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert!(wrong(|it| it["currency"] = json!("eur")).contains("paid in \"eur\""));
        assert!(wrong(|it| it["metadata"][ORG] = json!("acme")).contains(ORG));
        for credit in
            [json!("-1"), json!(100), json!("1e2"), json!("0.0000000001"), json!("99999999999"), Value::Null]
        {
            let told = session_of(|it| it["metadata"][CREDIT] = credit.clone());
            assert!(
                matches!(&told, Told::Wrong { reason, .. } if reason.contains(CREDIT)),
                "{credit}: {told:?}"
            );
        }
        for amount in [json!(0), json!(-1), json!("10400"), json!(10.5), json!(i64::MAX), Value::Null] {
            let told = session_of(|it| it["amount_total"] = amount.clone());
            assert!(
                matches!(&told, Told::Wrong { reason, .. } if reason.contains("how much")),
                "{amount}: {told:?}"
            );
        }
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"id":"","type":"a","data":{"object":{}}}"#,
            r#"{"id":"e 1","type":"a","data":{"object":{}}}"#,
        ] {
            assert!(Event::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn parts_that_went_back_add_up_to_the_whole() {
        let back = |back, of| PaidBack { payment_id: "pi".into(), back, of, ours: true };
        let credit = Nanos(100 * Nanos::ONE_USD.0);
        assert_eq!(back(10_400, 10_400).part(credit), credit);
        assert_eq!(back(5_200, 10_400).part(credit), Nanos(50 * Nanos::ONE_USD.0));
        assert_eq!(back(1, 3).part(Nanos(10)), Nanos(3));
    }
}
