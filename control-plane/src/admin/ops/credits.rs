//! Credits of an organization: the balance, what moved it, what more of it would cost; and what the payment provider
//! told. Credit is given and taken back by the operator; whoever is in the organization may look.

use nemo_proto::admin::{
    CreateCreditMovementRequest, CreditMovement, Credits, GetCreditMovementRequest, GetCreditsRequest,
    ListCreditMovementsRequest, ListCreditMovementsResponse, ListPaymentEventsRequest,
    ListPaymentEventsResponse, PaymentEvent, PurchaseQuote, QuotePurchaseRequest,
};
use nemo_types::{Nanos, OrgId};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Written, page_token, validate},
    credits::{
        Quote, Tier,
        settings::{self as keys, MAX_AMOUNT},
        tier::MAX_PURCHASE,
    },
    store::{
        StoreError, SystemTx, billing,
        credits::{self, Applied, Movement, MovementRow, NewMovement},
        organizations,
        payments::{self, EventRow, Outcome},
    },
};

/// What payments and we ourselves begin sources with.
const RESERVED: [&str; 4] = ["payment:", "refund:", "signup:", "admin:"];
const KINDS: [&str; 3] = ["purchase", "grant", "refund"];

impl Admin {
    pub async fn get_credits(&self, call: &Call, request: GetCreditsRequest) -> Result<Credits, AdminError> {
        let mut tx = self.tenant(call, Action::ReadRequests, &request.org_id).await?;
        let (org, balance) = (tx.org(), credits::balance(&mut tx).await?);
        let tier = self.tier_of(org).await?;
        let text = |nanos: i64| Nanos(nanos).to_string();
        Ok(Credits {
            org_id: org.to_string(),
            prepaid: balance.budget_id.is_some(),
            balance_usd: balance.balance().to_string(),
            outstanding_usd: text(balance.outstanding_nanos),
            available_usd: balance.available().to_string(),
            credited_usd: text(balance.limit_nanos),
            settled_usd: text(balance.settled_nanos),
            overrun_usd: text(balance.overrun_nanos),
            tier: tier.name,
            fee_percent: tier.fee.to_string(),
            budget_id: balance.budget_id.map(|id| id.to_string()).unwrap_or_default(),
        })
    }

    pub async fn create_credit_movement(
        &self,
        call: &Call,
        request: CreateCreditMovementRequest,
    ) -> Result<Written<CreditMovement>, AdminError> {
        let org: OrgId = validate::id("org_id", &request.org_id)?;
        let (movement, action) = match request.kind.as_str() {
            "grant" => (Movement::Grant, "credit.grant"),
            "refund" => (Movement::Refund, "credit.refund"),
            kind => {
                let message = format!("{kind:?} can't be done by hand");
                return Err(AdminError::invalid("kind", message, "one of: grant, refund"));
            }
        };
        let amount = amount("amount_usd", &request.amount_usd, MAX_AMOUNT)?;
        reason(&request.reason)?;
        let source = match request.source.as_str() {
            "" => format!("admin:{}", Uuid::now_v7()),
            source => checked_source(source)?.to_owned(),
        };
        call.check(Action::ManageCredits, org)?;
        let mut write = self.write_system(call, action).await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        if organizations::find(&mut write.tx, org.0).await?.is_none() {
            return Err(AdminError::not_found("organization", org).with_field("org_id"));
        }
        let new = NewMovement {
            org,
            movement,
            amount,
            fee: Nanos::ZERO,
            tier: "",
            source: &source,
            reason: &request.reason,
            payment_id: "",
        };
        match credits::apply(&mut write.tx, &new).await? {
            Applied::New(row) => write.done(row.into()).await,
            Applied::Before(row) => again(row, &request.kind, amount),
            Applied::Short { available } => Err(AdminError {
                field: Some("amount_usd".to_owned()),
                expected: Some(format!("at most {available} USD")),
                ..AdminError::new(
                    ErrorKind::InUse,
                    format!("{amount} USD are more than what is neither spent nor held for requests"),
                )
            }),
            Applied::TooMuch => Err(AdminError {
                field: Some("amount_usd".to_owned()),
                ..AdminError::new(ErrorKind::InUse, "the balance would be more than an amount can be")
            }),
        }
    }

    pub async fn get_credit_movement(
        &self,
        call: &Call,
        request: GetCreditMovementRequest,
    ) -> Result<CreditMovement, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::ReadRequests, &request.org_id).await?;
        let row = credits::get(&mut tx, id).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("credit movement", id))
    }

    pub async fn list_credit_movements(
        &self,
        call: &Call,
        request: ListCreditMovementsRequest,
    ) -> Result<ListCreditMovementsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let kind = one_of("kind", &request.kind, &KINDS)?;
        let mut tx = self.tenant(call, Action::ReadRequests, &request.org_id).await?;
        let listed = credits::list(&mut tx, kind, page).await?;
        Ok(ListCreditMovementsResponse {
            movements: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn quote_purchase(
        &self,
        call: &Call,
        request: QuotePurchaseRequest,
    ) -> Result<PurchaseQuote, AdminError> {
        let credit = amount("credit_usd", &request.credit_usd, MAX_PURCHASE)?;
        let org = self.tenant(call, Action::ReadRequests, &request.org_id).await?.org();
        let tier = self.tier_of(org).await?;
        let quote = Quote::new(credit, tier.fee).ok_or_else(|| {
            let message = format!("{credit} USD can't be bought");
            AdminError::invalid("credit_usd", message, format!("whole cents from 0.01 to {MAX_PURCHASE}"))
        })?;
        Ok(PurchaseQuote {
            org_id: org.to_string(),
            credit_usd: quote.credit.to_string(),
            tier: tier.name,
            fee_percent: tier.fee.to_string(),
            fee_usd: quote.fee.to_string(),
            total_usd: quote.total().to_string(),
            total_cents: quote.total_cents(),
            currency: "usd".to_owned(),
        })
    }

    pub async fn list_payment_events(
        &self,
        call: &Call,
        request: ListPaymentEventsRequest,
    ) -> Result<ListPaymentEventsResponse, AdminError> {
        call.check_operator()?;
        let size = validate::page_size(request.page_size)?;
        let before = position(&request.page_token)?;
        let outcome = one_of("outcome", &request.outcome, &Outcome::NAMES)?;
        let payment = validate::filter("payment_id", request.payment_id)?;
        let mut tx = self.store.system().await?;
        let limit = i64::from(size) + 1;
        let mut rows = payments::events(&mut tx, outcome, payment.as_deref(), before, limit).await?;
        let more = rows.len() > size as usize;
        rows.truncate(size as usize);
        let next = rows.last().filter(|_| more).map(|row| {
            let micros = row.created_at.unix_timestamp_nanos() / 1000;
            page_token::from_text(&format!("{micros} {}", row.id))
        });
        Ok(ListPaymentEventsResponse {
            payment_events: rows.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// Tiers are the installation's, which organizations can't read in the database.
    async fn tier_of(&self, org: OrgId) -> Result<Tier, StoreError> {
        let mut tx = self.store.system().await?;
        billing::tier(&mut tx, org.0).await
    }
}

/// What a new organization begins with: credit, when the installation gives some; the balance that it is served from,
/// when it has to have one; the rates of its tier.
pub(super) async fn welcome(tx: &mut SystemTx, org: OrgId) -> Result<(), StoreError> {
    let grant = billing::effective(tx, None, keys::SIGNUP_GRANT).await?;
    if let Some(amount) = keys::amount(&grant).filter(|amount| *amount > Nanos::ZERO) {
        let new = NewMovement {
            org,
            movement: Movement::Grant,
            amount,
            fee: Nanos::ZERO,
            tier: "",
            source: &format!("signup:{org}"),
            reason: "sign-up",
            payment_id: "",
        };
        credits::apply(tx, &new).await?;
    }
    credits::require(tx, Some(org.0)).await?;
    billing::guarantee(tx, Some(org.0)).await
}

/// The answer for a source that was booked before.
fn again(row: MovementRow, kind: &str, amount: Nanos) -> Result<Written<CreditMovement>, AdminError> {
    if row.kind != kind || row.nanos.abs() != amount.0 {
        let message = format!(
            "{:?} was booked before, as a {} of {} USD",
            row.source,
            row.kind,
            Nanos(row.nanos.abs())
        );
        return Err(AdminError {
            field: Some("source".to_owned()),
            expected: Some("the same again, or another source".to_owned()),
            ..AdminError::new(ErrorKind::AlreadyExists, message)
        });
    }
    Ok(Written { answer: row.into(), config_version: None, replayed: true })
}

/// An amount of money that is more than nothing.
pub(super) fn amount(field: &str, text: &str, most: Nanos) -> Result<Nanos, AdminError> {
    let amount = Nanos::from_decimal(text).filter(|_| text.len() <= 32);
    amount.filter(|amount| (Nanos(1)..=most).contains(amount)).ok_or_else(|| {
        let message = match text {
            "" => "missing".to_owned(),
            text => format!("{:?} is no such amount", text.chars().take(64).collect::<String>()),
        };
        AdminError::invalid(
            field,
            message,
            format!("USD with at most nine decimals, above 0 and up to {most}"),
        )
    })
}

fn reason(text: &str) -> Result<(), AdminError> {
    if text.chars().count() <= 256 && !text.chars().any(char::is_control) {
        return Ok(());
    }
    let expected = "at most 256 characters, none of them a control character";
    Err(AdminError::invalid("reason", "can't be kept", expected))
}

fn checked_source(text: &str) -> Result<&str, AdminError> {
    let visible = text.bytes().all(|b| b.is_ascii_graphic());
    if text.len() <= 128 && visible && !RESERVED.iter().any(|prefix| text.starts_with(prefix)) {
        return Ok(text);
    }
    let expected =
        "at most 128 visible ASCII characters that don't begin with payment:, refund:, signup: or admin:";
    Err(AdminError::invalid("source", "can't be the name of a source", expected))
}

/// A word of a list, or nothing.
pub(super) fn one_of<'t>(field: &str, text: &'t str, words: &[&str]) -> Result<Option<&'t str>, AdminError> {
    if text.is_empty() || words.contains(&text) {
        return Ok(Some(text).filter(|text| !text.is_empty()));
    }
    Err(AdminError::invalid(field, format!("{text:?} is none"), format!("one of: {}", words.join(", "))))
}

/// A place in the list of payment events.
fn position(token: &str) -> Result<Option<(OffsetDateTime, String)>, AdminError> {
    if token.is_empty() {
        return Ok(None);
    }
    let malformed = || {
        let expected = "the next_page_token of the page before";
        AdminError::invalid("page_token", "not a page token of this list", expected)
    };
    let text = page_token::to_text(token)?;
    let (micros, id) = text.split_once(' ').ok_or_else(malformed)?;
    let micros: i64 = micros.parse().map_err(|_| malformed())?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).map_err(|_| malformed())?;
    Ok(Some((at, id.to_owned())))
}

impl From<MovementRow> for CreditMovement {
    fn from(row: MovementRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            kind: row.kind,
            amount_usd: Nanos(row.nanos).to_string(),
            fee_usd: Nanos(row.fee_nanos).to_string(),
            tier: row.tier,
            source: row.source,
            reason: row.reason,
            payment_id: row.payment_id,
            created_at: Some(row.created_at.into()),
        }
    }
}

impl From<EventRow> for PaymentEvent {
    fn from(row: EventRow) -> Self {
        Self {
            id: row.id,
            org_id: row.org_id.map(|id| id.to_string()).unwrap_or_default(),
            event_type: row.event_type,
            payment_id: row.payment_id,
            outcome: row.outcome,
            reason: row.reason,
            received: u32::try_from(row.received).unwrap_or_default(),
            created_at: Some(row.created_at.into()),
            updated_at: Some(row.updated_at.into()),
        }
    }
}
