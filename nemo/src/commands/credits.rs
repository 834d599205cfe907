//! `nemo credits …`: the prepaid balance of an organization.

use clap::Subcommand;
use nemo_proto::admin::{
    CreateCreditMovementRequest, CreditMovement, GetCreditsRequest, ListCreditMovementsRequest,
    ListPaymentEventsRequest, PaymentEvent, QuotePurchaseRequest,
};

use super::{
    output::{Entity, rfc3339},
    session::{Session, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::explain,
    cli::{Org, Target, Write},
};

#[derive(Debug, Subcommand)]
pub enum Credits {
    /// Show the balance: what is left, what nodes hold of it, what was spent
    #[command(after_help = "Examples:\n  nemo credits show\n  nemo credits show --org acme --json")]
    Show {
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Give credit; from then on the organization is served from its balance only
    #[command(after_help = "\
Examples:
  nemo credits grant 50 --org acme --reason 'pilot'
  nemo credits grant 100.00 --org acme --source invoice-42   booked once, however often it is run")]
    Grant {
        /// In USD, with at most nine decimals
        amount: String,
        #[command(flatten)]
        movement: Movement,
    },
    /// Take back credit that is neither spent nor held for requests
    #[command(after_help = "Examples:\n  nemo credits refund 12.50 --org acme --reason 'closed account'")]
    Refund {
        /// In USD, with at most nine decimals
        amount: String,
        #[command(flatten)]
        movement: Movement,
    },
    /// Show what a purchase costs: credit, and the platform fee on top
    #[command(
        after_help = "Examples:\n  nemo credits quote 100\n  nemo credits quote 25.50 --org acme --json"
    )]
    Quote {
        /// Credit to buy, in USD and whole cents
        credit: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// List what moved the balance, newest first
    #[command(
        after_help = "Examples:\n  nemo credits list\n  nemo credits list --org acme --kind purchase --json"
    )]
    List {
        /// Only purchases, grants or refunds
        #[arg(long, value_parser = ["purchase", "grant", "refund"])]
        kind: Option<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// List what the payment provider told, and what came of it
    #[command(
        after_help = "Examples:\n  nemo credits events\n  nemo credits events --outcome refused --json"
    )]
    Events {
        /// Only those that were booked, duplicate, ignored or refused
        #[arg(long, value_parser = ["booked", "duplicate", "ignored", "refused"])]
        outcome: Option<String>,
        #[command(flatten)]
        target: Target,
    },
}

/// What a movement says besides its amount.
#[derive(Debug, clap::Args)]
pub struct Movement {
    /// Why, for whoever looks
    #[arg(long, default_value = "")]
    reason: String,
    /// A name for what causes it: the same name is booked once
    #[arg(long, value_name = "NAME", default_value = "")]
    source: String,
    #[command(flatten)]
    org: Org,
    #[command(flatten)]
    write: Write,
}

impl Entity for CreditMovement {
    const KIND: &'static str = "credit movement";
    const NOUN: &'static str = "credit movements";
    const COLUMNS: &'static [Column] = &[
        Column::whole("TIME"),
        Column::text("KIND"),
        Column::number("USD"),
        Column::number("FEE"),
        Column::text("SOURCE"),
        Column::text("REASON"),
        Column::whole("ID"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.source
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            rfc3339(self.created_at).into(),
            self.kind.as_str().into(),
            self.amount_usd.as_str().into(),
            self.fee_usd.as_str().into(),
            self.source.as_str().into(),
            self.reason.as_str().into(),
            self.id.as_str().into(),
        ]
    }
}

impl Entity for PaymentEvent {
    const KIND: &'static str = "payment event";
    const NOUN: &'static str = "payment events";
    const COLUMNS: &'static [Column] = &[
        Column::whole("TIME"),
        Column::whole("ID"),
        Column::text("TYPE"),
        Column::text("PAYMENT"),
        Column::text("OUTCOME"),
        Column::text("REASON"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.id
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            rfc3339(self.created_at).into(),
            self.id.as_str().into(),
            self.event_type.as_str().into(),
            self.payment_id.as_str().into(),
            self.outcome.as_str().into(),
            self.reason.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Credits) -> anyhow::Result<()> {
    match command {
        Credits::Show { org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let request = GetCreditsRequest { org_id, ..Default::default() };
            let shown = session.client.credits().get_credits(request).await.map_err(explain)?;
            session.out.fields(&shown.into_inner())
        }
        Credits::Grant { amount, movement } => book("grant", "granted", amount, movement).await,
        Credits::Refund { amount, movement } => book("refund", "refunded", amount, movement).await,
        Credits::Quote { credit, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let request = QuotePurchaseRequest { org_id, credit_usd: credit, ..Default::default() };
            let quote = session.client.credits().quote_purchase(request).await.map_err(explain)?;
            session.out.fields(&quote.into_inner())
        }
        Credits::List { kind, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let (client, kind) = (&session.client, kind.unwrap_or_default());
            let movements: Vec<CreditMovement> = list!(
                client.credits().list_credit_movements -> movements,
                ListCreditMovementsRequest { org_id, kind }
            )?;
            session.out.list(&movements)
        }
        Credits::Events { outcome, target } => {
            let session = Session::reading(&target)?;
            let (client, outcome) = (&session.client, outcome.unwrap_or_default());
            let events: Vec<PaymentEvent> = list!(
                client.credits().list_payment_events -> payment_events,
                ListPaymentEventsRequest { outcome }
            )?;
            session.out.list(&events)
        }
    }
}

async fn book(kind: &str, verb: &str, amount_usd: String, movement: Movement) -> anyhow::Result<()> {
    let Movement { reason, source, org, write } = movement;
    let session = Session::writing(&write)?;
    let org_id = session.client.organization(org.org.as_deref()).await?;
    let kind = kind.to_owned();
    let request =
        CreateCreditMovementRequest { org_id, kind, amount_usd, reason, source, ..Default::default() };
    let mut client = session.client.credits();
    session.put(verb, client.create_credit_movement(session.write(request))).await
}
