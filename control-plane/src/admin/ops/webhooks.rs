//! Webhooks of an organization, and what became of their deliveries. A secret is told once, like that of a key.

use nemo_proto::admin::{
    CreateWebhookRequest, CreateWebhookResponse, DeleteWebhookRequest, DeleteWebhookResponse,
    GetWebhookDeliveryRequest, GetWebhookRequest, ListWebhookDeliveriesRequest,
    ListWebhookDeliveriesResponse, ListWebhooksRequest, ListWebhooksResponse, RedeliverWebhookRequest,
    RotateWebhookRequest, TestWebhookRequest, UpdateWebhookRequest, Webhook, WebhookDelivery,
};
use serde_json::json;
use time::Duration;
use uuid::Uuid;

use super::{credits::one_of, list_filter};
use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Written, page_token, validate},
    store::webhooks::{
        self, NewWebhook, WebhookChange, WebhookRow,
        deliveries::{self, DeliveryRow},
    },
    webhooks::{address, event_types, seal_context, signature::SigningSecret},
};

/// Endpoints of one organization: each event is sent to all of them.
const MOST: i64 = 32;
/// How long the secret before goes on being signed with.
const OVERLAP: Duration = Duration::hours(24);
const STATES: [&str; 3] = ["pending", "delivered", "failed"];

impl Admin {
    pub async fn create_webhook(
        &self,
        call: &Call,
        request: CreateWebhookRequest,
    ) -> Result<Written<CreateWebhookResponse>, AdminError> {
        validate::name("name", &request.name)?;
        self.check_url(&request.url)?;
        let types = types("event_types", &request.event_types)?;
        let (id, secret) = (Uuid::now_v7(), SigningSecret::generate()?);
        let sealed = self.sealer.seal_record(&seal_context(id), secret.as_bytes())?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "webhook.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        if webhooks::count(&mut write.tx).await? >= MOST {
            let message = format!("the organization has {MOST} webhooks already");
            return Err(AdminError::new(ErrorKind::InUse, message));
        }
        let new = NewWebhook {
            id,
            name: &request.name,
            url: &request.url,
            event_types: &types,
            sealed: sealed.as_bytes(),
        };
        let made: Webhook = webhooks::insert(&mut write.tx, new).await?.into();
        let secret = write.reveal(&secret.text());
        let answer = CreateWebhookResponse { webhook: Some(made.clone()), secret };
        write.done_with(&made, answer).await
    }

    pub async fn get_webhook(&self, call: &Call, request: GetWebhookRequest) -> Result<Webhook, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = webhooks::get(&mut tx, id).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("webhook", id))
    }

    pub async fn list_webhooks(
        &self,
        call: &Call,
        request: ListWebhooksRequest,
    ) -> Result<ListWebhooksResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let filter = list_filter!(request);
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = webhooks::list(&mut tx, request.disabled, page, &filter).await?;
        Ok(ListWebhooksResponse {
            webhooks: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn update_webhook(
        &self,
        call: &Call,
        request: UpdateWebhookRequest,
    ) -> Result<Written<Webhook>, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        if let Some(url) = &request.url {
            self.check_url(url)?;
        }
        let wanted = request.event_types.as_ref();
        let wanted = wanted.map(|wanted| types("event_types.names", &wanted.names)).transpose()?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "webhook.update").await?;
        let before = webhooks::get(&mut write.tx, id).await?;
        write.found::<Webhook>(before, id)?;
        let change = WebhookChange {
            name: request.name.as_deref(),
            url: request.url.as_deref(),
            event_types: wanted.as_deref(),
            disabled: request.disabled,
        };
        let row = webhooks::update(&mut write.tx, id, change).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("webhook", id))?.into()).await
    }

    pub async fn rotate_webhook(
        &self,
        call: &Call,
        request: RotateWebhookRequest,
    ) -> Result<Written<CreateWebhookResponse>, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let secret = SigningSecret::generate()?;
        let sealed = self.sealer.seal_record(&seal_context(id), secret.as_bytes())?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "webhook.rotate").await?;
        let before = webhooks::get(&mut write.tx, id).await?;
        write.found::<Webhook>(before, id)?;
        let until = Some(validate::now() + OVERLAP);
        let row = webhooks::rotate(&mut write.tx, id, sealed.as_bytes(), until).await?;
        let rotated: Webhook = row.ok_or_else(|| AdminError::not_found("webhook", id))?.into();
        let secret = write.reveal(&secret.text());
        let answer = CreateWebhookResponse { webhook: Some(rotated.clone()), secret };
        write.done_with(&rotated, answer).await
    }

    /// Deletes the endpoint and its deliveries.
    pub async fn delete_webhook(
        &self,
        call: &Call,
        request: DeleteWebhookRequest,
    ) -> Result<Written<DeleteWebhookResponse>, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "webhook.delete").await?;
        let before = webhooks::get(&mut write.tx, id).await?;
        write.found::<Webhook>(before, id)?;
        webhooks::delete(&mut write.tx, id).await?;
        write.deleted().await
    }

    pub async fn test_webhook(
        &self,
        call: &Call,
        request: TestWebhookRequest,
    ) -> Result<Written<WebhookDelivery>, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "webhook.test").await?;
        let before = webhooks::get(&mut write.tx, id).await?;
        let webhook: Webhook = before.ok_or_else(|| AdminError::not_found("webhook", id))?.into();
        if webhook.disabled {
            return Err(AdminError::new(
                ErrorKind::InUse,
                "the webhook is switched off: it would not be sent",
            ));
        }
        let data = json!({ "org_id": webhook.org_id, "webhook_id": webhook.id });
        let key = format!("{}:{}", event_types::TEST, Uuid::now_v7());
        let delivery = webhooks::enqueue_for(&mut write.tx, id, event_types::TEST, &key, &data).await?;
        let row = deliveries::get(&mut write.tx, delivery).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("webhook delivery", delivery))?.into()).await
    }

    pub async fn list_webhook_deliveries(
        &self,
        call: &Call,
        request: ListWebhookDeliveriesRequest,
    ) -> Result<ListWebhookDeliveriesResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let webhook: Option<Uuid> = match request.webhook_id.as_str() {
            "" => None,
            id => Some(validate::id("webhook_id", id)?),
        };
        let state = one_of("state", &request.state, &STATES)?;
        let event_type = one_of("event_type", &request.event_type, event_types::ALL)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = deliveries::list(&mut tx, webhook, state, event_type, page).await?;
        Ok(ListWebhookDeliveriesResponse {
            deliveries: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    pub async fn get_webhook_delivery(
        &self,
        call: &Call,
        request: GetWebhookDeliveryRequest,
    ) -> Result<WebhookDelivery, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = deliveries::get(&mut tx, id).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("webhook delivery", id))
    }

    pub async fn redeliver_webhook(
        &self,
        call: &Call,
        request: RedeliverWebhookRequest,
    ) -> Result<Written<WebhookDelivery>, AdminError> {
        let id: Uuid = validate::id("id", &request.id)?;
        let action = "webhook.redeliver";
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, action).await?;
        let before = deliveries::get(&mut write.tx, id).await?;
        let found: WebhookDelivery = write.found(before, id)?;
        if found.body.is_empty() {
            return Err(AdminError::new(ErrorKind::InUse, "what was sent is no longer kept"));
        }
        let row = deliveries::redeliver(&mut write.tx, id).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("webhook delivery", id))?.into()).await
    }

    fn check_url(&self, url: &str) -> Result<(), AdminError> {
        let allow_private = self.private_webhooks;
        let checked = address::check(url, allow_private);
        checked.map(drop).map_err(|error| {
            let expected = if allow_private {
                "http(s)://host[:port][/path]"
            } else {
                "https://host[:port][/path] on the internet"
            };
            AdminError::invalid("url", error.to_string(), expected)
        })
    }
}

/// Each once, in one order.
fn types(field: &str, wanted: &[String]) -> Result<Vec<String>, AdminError> {
    validate::at_most(field, wanted.len(), event_types::ALL.len())?;
    if let Some(at) = wanted.iter().position(|wanted| !event_types::ALL.contains(&wanted.as_str())) {
        let message = format!("{:?} is no type of event", wanted[at]);
        let expected = format!("one of: {}", event_types::ALL.join(", "));
        return Err(AdminError::invalid(format!("{field}[{at}]"), message, expected));
    }
    let mut types = wanted.to_vec();
    types.sort_unstable();
    types.dedup();
    Ok(types)
}

impl From<WebhookRow> for Webhook {
    fn from(row: WebhookRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            name: row.name,
            url: row.url,
            event_types: row.event_types,
            disabled: row.disabled,
            created_at: Some(row.created_at.into()),
            previous_valid_until: row.previous_until.map(Into::into),
        }
    }
}

impl From<DeliveryRow> for WebhookDelivery {
    fn from(row: DeliveryRow) -> Self {
        let pending = row.state == "pending";
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            webhook_id: row.webhook_id.to_string(),
            event_id: format!("msg_{}", row.event_id.simple()),
            event_type: row.event_type,
            state: row.state,
            attempts: u32::try_from(row.attempts).unwrap_or_default(),
            next_attempt_at: pending.then(|| row.next_attempt_at.into()),
            last_status: row.last_status.and_then(|status| u32::try_from(status).ok()),
            last_error: row.last_error,
            created_at: Some(row.created_at.into()),
            ended_at: row.ended_at.map(Into::into),
            body: row.body,
        }
    }
}
