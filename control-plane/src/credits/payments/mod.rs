//! Events of a payment provider: what was paid becomes credit, what was paid back leaves the balance. Any provider that
//! signs as Stripe does.
//!
//! - [`signature`]: whether an event is the provider's, and new
//! - [`event`]: what it says
//!
//! Each event is dealt with once (by its id) and each payment is booked once (by its id), whatever comes how often and
//! to which replica. An event that is refused books nothing and is looked at again when the provider repeats it: its
//! cause (an organization that is missing, a tier that was wrong) may have been mended. Called by `admin/rest`.

pub mod event;
pub mod signature;

use nemo_types::{Nanos, OrgId, Secret};

use self::event::{Event, Paid, PaidBack, Told};
pub use self::signature::{BadSecrets, EndpointSecrets, Unsigned};
use super::Quote;
use crate::store::{
    Store, StoreError, SystemTx, billing,
    credits::{self, Applied, Movement, NewMovement},
    organizations,
    payments::{self, NewEvent, Outcome},
};

/// Takes events of the provider.
#[derive(Clone, Debug)]
pub struct Payments {
    secrets: EndpointSecrets,
}

/// Why an event was not dealt with.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("stripe-signature: {0}")]
    Unsigned(#[from] Unsigned),
    /// Nothing is known of it but that the provider sent it.
    #[error("{0}")]
    Malformed(String),
    /// Written down as refused.
    #[error("{0}")]
    Event(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An event that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub outcome: Outcome,
    /// Why it was not booked.
    pub reason: String,
}

impl Taken {
    fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into() }
    }

    fn booked() -> Self {
        Self::new(Outcome::Booked, "")
    }
}

impl Payments {
    /// `None` without a secret.
    ///
    /// # Errors
    /// See [`EndpointSecrets::parse`].
    pub fn new(secrets: &Secret) -> Result<Option<Self>, BadSecrets> {
        Ok(EndpointSecrets::parse(secrets)?.map(|secrets| Self { secrets }))
    }

    /// Deals with an event as it came in.
    ///
    /// # Errors
    /// Why nothing was booked; all but a failing store is final for this request.
    pub async fn receive(
        &self,
        store: &Store,
        signature: Option<&str>,
        body: &[u8],
        now_unix: i64,
    ) -> Result<Taken, Refused> {
        let checked = signature
            .ok_or(Unsigned::Missing)
            .and_then(|signature| self.secrets.verify(signature, body, now_unix));
        if let Err(error) = checked {
            tracing::warn!(%error, "refused an event of a payment: it is not the provider's");
            return Err(error.into());
        }
        let event = Event::parse(body).map_err(Refused::Malformed)?;
        let (id, event_type) = (event.id.as_str(), event.event_type.as_str());
        match deal(store, &event).await {
            Ok(taken) => {
                let (outcome, reason) = (taken.outcome.name(), taken.reason.as_str());
                tracing::info!(event = id, event_type, outcome, reason, "payment event");
                Ok(taken)
            }
            Err(Refused::Event(reason)) => {
                tracing::warn!(event = id, event_type, reason, "refused an event of a payment");
                refuse(store, &event, &reason).await?;
                Err(Refused::Event(reason))
            }
            Err(error) => Err(error),
        }
    }
}

impl Event {
    fn payment_id(&self) -> &str {
        match &self.told {
            Told::Paid(Paid { payment_id, .. })
            | Told::PaidBack(PaidBack { payment_id, .. })
            | Told::Wrong { payment_id, .. } => payment_id,
            Told::Nothing(_) => "",
        }
    }

    fn row(&self) -> NewEvent<'_> {
        NewEvent { id: &self.id, org: None, event_type: &self.event_type, payment_id: self.payment_id() }
    }
}

/// All of it in one transaction, which a refusal rolls back.
async fn deal(store: &Store, event: &Event) -> Result<Taken, Refused> {
    let mut tx = store.system().await?;
    if payments::arrive(&mut tx, &event.row()).await? {
        tx.commit().await?;
        return Ok(Taken::new(Outcome::Duplicate, "this event was dealt with before"));
    }
    let (org, taken) = match &event.told {
        Told::Nothing(reason) => (None, Taken::new(Outcome::Ignored, *reason)),
        Told::Wrong { reason, .. } => return Err(Refused::Event(reason.clone())),
        Told::Paid(paid) => (Some(paid.org), book(&mut tx, paid).await?),
        Told::PaidBack(back) => take_back(&mut tx, back).await?,
    };
    payments::decide(&mut tx, &event.id, org, taken.outcome, &taken.reason).await?;
    tx.commit().await?;
    Ok(taken)
}

/// Writes down that it was refused.
async fn refuse(store: &Store, event: &Event, reason: &str) -> Result<(), StoreError> {
    let mut tx = store.system().await?;
    if !payments::arrive(&mut tx, &event.row()).await? {
        let org = match &event.told {
            Told::Paid(paid) => organizations::find(&mut tx, paid.org.0).await?.map(|_| paid.org),
            _ => None,
        };
        payments::decide(&mut tx, &event.id, org, Outcome::Refused, reason).await?;
    }
    tx.commit().await
}

async fn book(tx: &mut SystemTx, paid: &Paid) -> Result<Taken, Refused> {
    if let Some(before) = payments::lock(tx, &paid.payment_id).await? {
        return told_before(before.org_id == paid.org.0);
    }
    if organizations::find(tx, paid.org.0).await?.is_none() {
        return Err(Refused::Event(format!("there is no organization {}", paid.org)));
    }
    let tier = billing::tier(tx, paid.org.0).await?;
    let Some(quote) = Quote::new(paid.credit, tier.fee) else {
        return Err(Refused::Event(format!("{} USD is no credit that can be bought", paid.credit)));
    };
    if quote.total() != paid.paid {
        return Err(Refused::Event(format!(
            "{} USD were paid, but {} USD of credit with the fee of tier {} ({} %) cost {} USD",
            paid.paid,
            paid.credit,
            tier.name,
            tier.fee,
            quote.total()
        )));
    }
    if !payments::insert(tx, &paid.payment_id, paid.org, (quote.credit, quote.fee), &tier.name).await? {
        return told_before(true);
    }
    let movement = NewMovement {
        org: paid.org,
        movement: Movement::Purchase,
        amount: quote.credit,
        fee: quote.fee,
        tier: &tier.name,
        source: &format!("payment:{}", paid.payment_id),
        reason: "",
        payment_id: &paid.payment_id,
    };
    match credits::apply(tx, &movement).await? {
        Applied::New(_) | Applied::Before(_) => Ok(Taken::booked()),
        Applied::TooMuch | Applied::Short { .. } => {
            Err(Refused::Event("the balance would be more than an amount can be".to_owned()))
        }
    }
}

fn told_before(same: bool) -> Result<Taken, Refused> {
    if same {
        return Ok(Taken::new(Outcome::Duplicate, "the payment was booked before"));
    }
    Err(Refused::Event("the payment was booked for another organization".to_owned()))
}

/// The money has gone back already, so it is booked whatever is left of the balance; the fee goes back in proportion.
async fn take_back(tx: &mut SystemTx, back: &PaidBack) -> Result<(Option<OrgId>, Taken), Refused> {
    let Some(payment) = payments::lock(tx, &back.payment_id).await? else {
        if back.ours {
            // The purchase may be on its way, and must not come after its refund.
            return Err(Refused::Event("the payment was not booked (yet)".to_owned()));
        }
        return Ok((None, Taken::new(Outcome::Ignored, "the payment is not one of ours")));
    };
    let org = OrgId(payment.org_id);
    let (paid, credit) = (back.part(Nanos(payment.paid_nanos)), back.part(Nanos(payment.credit_nanos)));
    let of_paid = Nanos(paid.0 - payment.refunded_nanos);
    let of_credit = Nanos(credit.0 - payment.refunded_credit_nanos);
    if of_paid <= Nanos::ZERO {
        return Ok((Some(org), Taken::new(Outcome::Duplicate, "as much went back before")));
    }
    payments::set_refunded(tx, &back.payment_id, paid, credit).await?;
    if organizations::find(tx, org.0).await?.is_none() {
        return Ok((None, Taken::new(Outcome::Ignored, "the organization is gone, and its balance with it")));
    }
    if of_credit <= Nanos::ZERO {
        return Ok((Some(org), Taken::booked()));
    }
    let movement = NewMovement {
        org,
        movement: Movement::ForcedRefund,
        amount: of_credit,
        fee: Nanos(of_paid.0 - of_credit.0),
        tier: &payment.tier,
        source: &format!("refund:{}:{}", back.payment_id, back.back),
        reason: "paid back by the payment provider",
        payment_id: &back.payment_id,
    };
    match credits::apply(tx, &movement).await? {
        Applied::New(_) | Applied::Before(_) => Ok((Some(org), Taken::booked())),
        Applied::TooMuch | Applied::Short { .. } => {
            Err(Refused::Event("the balance can't be lowered by so much".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests;
