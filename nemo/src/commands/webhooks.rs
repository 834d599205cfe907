//! `nemo webhooks …`: where an organization is told of events, and what became of it.

use clap::Subcommand;
use nemo_proto::admin::{
    CreateWebhookRequest, DeleteWebhookRequest, EventTypes, ListWebhookDeliveriesRequest,
    ListWebhooksRequest, RedeliverWebhookRequest, RotateWebhookRequest, TestWebhookRequest,
    UpdateWebhookRequest, Webhook, WebhookDelivery,
};

use super::{
    output::{Entity, allowed, rfc3339},
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::cli::{Delete, Org, Target, Write};

#[derive(Debug, Subcommand)]
pub enum Webhooks {
    /// Make a webhook; the secret that its deliveries are signed with is printed once
    #[command(after_help = "\
Examples:
  nemo webhooks create alerts --to https://hooks.example.com/nemo
  nemo webhooks create money --to https://hooks.example.com/m --event credits.low --event budget.threshold")]
    Create {
        /// Name of the webhook
        name: String,
        /// Where to: https, on the internet
        #[arg(id = "to", long, value_name = "URL")]
        url: String,
        /// Only this type of event; may be repeated [default: all]
        #[arg(long = "event", value_name = "TYPE")]
        events: Vec<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// List webhooks, without their secrets
    #[command(after_help = "Examples:\n  nemo webhooks list\n  nemo webhooks list --org acme --json")]
    List {
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Change a webhook
    #[command(after_help = "\
Examples:
  nemo webhooks update alerts --to https://hooks.example.com/other
  nemo webhooks update alerts --event credits.low
  nemo webhooks update alerts --disable")]
    Update {
        /// Name or id
        webhook: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// New address
        #[arg(id = "to", long, value_name = "URL")]
        url: Option<String>,
        /// Only this type of event; may be repeated
        #[arg(long = "event", value_name = "TYPE")]
        events: Vec<String>,
        /// All types of events
        #[arg(long, conflicts_with = "events")]
        all_events: bool,
        /// Switch it off: deliveries wait, for a day at most
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Switch it on
        #[arg(long)]
        enable: bool,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Give a webhook a new secret; for a day, deliveries carry signatures of both
    #[command(after_help = "Examples:\n  nemo webhooks rotate alerts")]
    Rotate {
        /// Name or id
        webhook: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a webhook and its deliveries
    #[command(after_help = "Examples:\n  nemo webhooks delete alerts\n  nemo webhooks delete alerts --yes")]
    Delete {
        /// Name or id
        webhook: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Delete,
    },
    /// List deliveries, newest first
    #[command(after_help = "\
Examples:
  nemo webhooks deliveries
  nemo webhooks deliveries alerts --state failed
  nemo webhooks deliveries --org acme --json")]
    Deliveries {
        /// Name or id of a webhook [default: all]
        webhook: Option<String>,
        /// Only these
        #[arg(long, value_parser = ["pending", "delivered", "failed"])]
        state: Option<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Deliver an event again
    #[command(after_help = "Examples:\n  nemo webhooks redeliver 019acb51-7d3e-7c40-9d0a-3c1f2b4a5d6e")]
    Redeliver {
        /// Id of the delivery
        delivery: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Send a webhook an event that says nothing, to try the receiver out
    #[command(after_help = "Examples:\n  nemo webhooks test alerts\n  nemo webhooks deliveries alerts")]
    Test {
        /// Name or id
        webhook: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
}

impl Entity for Webhook {
    const KIND: &'static str = "webhook";
    const NOUN: &'static str = "webhooks";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("URL"),
        Column::text("EVENTS"),
        Column::text("STATE"),
        Column::whole("ID"),
        Column::whole("CREATED"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            self.url.as_str().into(),
            allowed(&self.event_types),
            if self.disabled { "off".into() } else { "on".into() },
            self.id.as_str().into(),
            rfc3339(self.created_at).into(),
        ]
    }
}

impl Entity for WebhookDelivery {
    const KIND: &'static str = "delivery";
    const NOUN: &'static str = "deliveries";
    const COLUMNS: &'static [Column] = &[
        Column::whole("ID"),
        Column::text("EVENT"),
        Column::text("STATE"),
        Column::number("ATTEMPTS"),
        Column::whole("CREATED"),
        Column::whole("NEXT"),
        Column::text("ERROR"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.event_type
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.id.as_str().into(),
            self.event_type.as_str().into(),
            self.state.as_str().into(),
            self.attempts.to_string().into(),
            rfc3339(self.created_at).into(),
            rfc3339(self.next_attempt_at).into(),
            self.last_error.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Webhooks) -> anyhow::Result<()> {
    match command {
        Webhooks::Create { name, url, events, org, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let request =
                CreateWebhookRequest { org_id, name, url, event_types: events, ..Default::default() };
            let mut client = session.client.webhooks();
            let made = session.send(client.create_webhook(session.write(request))).await?;
            let Some(made) = made else { return Ok(()) };
            let name = made.webhook.as_ref().map(|webhook| webhook.name.as_str()).unwrap_or_default();
            session.out.secret(&made, name, &made.secret)
        }
        Webhooks::List { org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            session.out.list(&all(&session, &org_id).await?)
        }
        command @ Webhooks::Update { .. } => update(command).await,
        Webhooks::Rotate { webhook, org, write } => {
            let session = Session::writing(&write)?;
            let Webhook { org_id, id, .. } = find(&session, &org, &webhook).await?;
            let request = RotateWebhookRequest { org_id, id, ..Default::default() };
            let mut client = session.client.webhooks();
            let rotated = session.send(client.rotate_webhook(session.write(request))).await?;
            let Some(rotated) = rotated else { return Ok(()) };
            session.out.secret(&rotated, &webhook, &rotated.secret)
        }
        Webhooks::Delete { webhook, org, options } => {
            let session = Session::writing(&options.write)?;
            let found = find(&session, &org, &webhook).await?;
            confirm(&found, &options)?;
            let (org_id, id) = (found.org_id.clone(), found.id.clone());
            let request = DeleteWebhookRequest { org_id, id, ..Default::default() };
            let mut client = session.client.webhooks();
            session.delete(&found, client.delete_webhook(session.write(request))).await
        }
        Webhooks::Deliveries { webhook, state, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let webhook_id = match webhook {
                Some(webhook) => choose(all(&session, &org_id).await?, &webhook)?.id,
                None => String::new(),
            };
            let (client, state) = (&session.client, state.unwrap_or_default());
            let deliveries: Vec<WebhookDelivery> = list!(
                client.webhooks().list_webhook_deliveries -> deliveries,
                ListWebhookDeliveriesRequest { org_id, webhook_id, state }
            )?;
            session.out.list(&deliveries)
        }
        Webhooks::Redeliver { delivery, org, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let request = RedeliverWebhookRequest { org_id, id: delivery, ..Default::default() };
            let mut client = session.client.webhooks();
            session.put("redelivering", client.redeliver_webhook(session.write(request))).await
        }
        Webhooks::Test { webhook, org, write } => {
            let session = Session::writing(&write)?;
            let Webhook { org_id, id, .. } = find(&session, &org, &webhook).await?;
            let request = TestWebhookRequest { org_id, id, ..Default::default() };
            let mut client = session.client.webhooks();
            session.put("sending", client.test_webhook(session.write(request))).await
        }
    }
}

async fn update(command: Webhooks) -> anyhow::Result<()> {
    let Webhooks::Update { webhook, name, url, events, all_events, disable, enable, org, write } = command
    else {
        return Ok(());
    };
    let session = Session::writing(&write)?;
    let Webhook { org_id, id, .. } = find(&session, &org, &webhook).await?;
    let request = UpdateWebhookRequest {
        org_id,
        id,
        name,
        url,
        event_types: (all_events || !events.is_empty()).then_some(EventTypes { names: events }),
        disabled: (disable || enable).then_some(disable),
        ..Default::default()
    };
    let mut client = session.client.webhooks();
    session.put("updated", client.update_webhook(session.write(request))).await
}

async fn all(session: &Session, org_id: &str) -> anyhow::Result<Vec<Webhook>> {
    let client = &session.client;
    list!(client.webhooks().list_webhooks -> webhooks, ListWebhooksRequest { org_id })
}

async fn find(session: &Session, org: &Org, wanted: &str) -> anyhow::Result<Webhook> {
    let org_id = session.client.organization(org.org.as_deref()).await?;
    choose(all(session, &org_id).await?, wanted)
}
