//! What the admin API manages, as the write path and both faces see it: kind, id, owner, canonical JSON, etag.
//!
//! An etag is a digest of what the entity shows, so it changes exactly when the entity does, and no table needs a
//! version column. What changes by itself (an expiry passing, a use being noted) is left out of it.

use std::any::Any;

use nemo_proto::admin as pb;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::Value;

/// Bytes of the digest that an etag shows: enough that two versions never share one.
const ETAG_BYTES: usize = 16;

/// Something with an identity. Its message has no secret in it, so neither has the audit log.
pub trait Entity: Serialize + Clone + Send + 'static {
    /// In the audit log, and with spaces in messages.
    const KIND: &'static str;

    fn id(&self) -> &str;

    /// Empty: the installation's.
    fn org_id(&self) -> &str;

    /// Without what changes by itself.
    fn settled(&self) -> Self {
        self.clone()
    }

    /// Takes what an answer to a write says besides.
    fn warn(&mut self, _warnings: Vec<String>) {}

    /// For messages.
    fn name() -> String {
        Self::KIND.replace('_', " ")
    }

    /// With quotes, as it stands in a header.
    fn etag(&self) -> String {
        let text = format!("{}\0{}", Self::KIND, canonical(&self.settled()));
        format!("\"{}\"", hex(&digest(&SHA256, text.as_bytes()).as_ref()[..ETAG_BYTES]))
    }
}

macro_rules! entities {
    ($($message:ident = $kind:literal: $id:ident, $org_id:expr $(, settled $settle:expr)? $(, warned $warnings:ident $(and $beside:ident)?)?;)*) => {
        $(impl Entity for pb::$message {
            const KIND: &'static str = $kind;

            fn id(&self) -> &str {
                &self.$id
            }

            fn org_id(&self) -> &str {
                let org_id: fn(&Self) -> &str = $org_id;
                org_id(self)
            }

            $(fn settled(&self) -> Self {
                let settle: fn(&mut Self) = $settle;
                let mut settled = self.clone();
                settle(&mut settled);
                settled
            })?

            $(fn settled(&self) -> Self {
                Self { $warnings: Vec::new(), $($beside: Vec::new(),)? ..self.clone() }
            }

            fn warn(&mut self, warnings: Vec<String>) {
                self.$warnings = warnings;
            })?
        })*

        /// The etag of an answer that is, or brings, one entity. For both faces.
        pub fn etag_of<T: Any>(answer: &T) -> Option<String> {
            let answer: &dyn Any = answer;
            $(if let Some(entity) = answer.downcast_ref::<pb::$message>() {
                return Some(entity.etag());
            })*
            if let Some(issued) = answer.downcast_ref::<pb::IssueKeyResponse>() {
                return issued.key.as_ref().map(Entity::etag);
            }
            if let Some(made) = answer.downcast_ref::<pb::CreateWebhookResponse>() {
                return made.webhook.as_ref().map(Entity::etag);
            }
            if let Some(made) = answer.downcast_ref::<pb::CreateAdminTokenResponse>() {
                return made.admin_token.as_ref().map(Entity::etag);
            }
            None
        }
    };
}

entities! {
    Organization = "organization": id, |of| &of.id;
    Team = "team": id, |of| &of.org_id;
    Member = "member": id, |of| &of.org_id;
    AdminToken = "admin_token": id, |of| &of.org_id, settled |token| token.last_used_at = None;
    // "expired" comes by itself; expires_at says it too.
    Key = "key": id, |of| &of.org_id, settled |key| if key.state == "expired" { key.state = "active".to_owned() };
    Credential = "credential": id, |of| &of.org_id;
    Deployment = "deployment": id, |of| &of.org_id, warned warnings;
    ModelGroup = "model_group": id, |of| &of.org_id, warned warnings;
    // How it stands changes with every request.
    Budget = "budget": id, |of| &of.org_id, settled |it| it.current = None;
    BudgetLease = "budget_lease": id, |of| &of.org_id;
    RateLimit = "rate_limit": id, |of| &of.org_id;
    Setting = "setting": key, |of| &of.org_id;
    Cooldown = "cooldown": deployment_id, |of| &of.org_id, settled |it| it.remaining_ms = 0;
    CreditMovement = "credit_movement": id, |of| &of.org_id;
    Webhook = "webhook": id, |of| &of.org_id, settled |webhook| webhook.previous_valid_until = None;
    // How far it is changes by itself.
    WebhookDelivery = "webhook_delivery": id, |of| &of.org_id, settled |it| *it = pb::WebhookDelivery { id: it.id.clone(), ..Default::default() };
    // Where its fields are from is said by GetModel alone.
    Model = "model": id, |_| "", warned warnings and provenance;
    // It is in effect when its time comes.
    ModelPrice = "price": id, |_| "", settled |it| it.state = String::new();
    RerateResponse = "rerate": rerate_id, |_| "";
    CatalogRun = "catalog_run": id, |_| "";
    CatalogChange = "catalog_change": id, |_| "";
}

/// JSON whose members are in the order of their names, whatever order they come in: equal things have equal text.
pub fn canonical(value: &impl Serialize) -> String {
    let mut text = String::new();
    // Messages always are JSON: no maps with other keys than text.
    write(&serde_json::to_value(value).unwrap_or_default(), &mut text);
    text
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (at, (name, value)) in members.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(&Value::String(name.clone()), out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_things_have_equal_text_whatever_the_order_of_their_members() {
        let text: Value = serde_json::from_str(r#"{"b":[1,{"d":null,"c":"\u0000\""}],"a":true}"#).unwrap();
        let same: Value = serde_json::from_str(r#"{"a":true,"b":[1,{"c":"\u0000\"","d":null}]}"#).unwrap();
        assert_eq!(canonical(&text), canonical(&same));
        assert_eq!(serde_json::from_str::<Value>(&canonical(&text)).unwrap(), text);
        assert_ne!(canonical(&json!({"a": [1, 2]})), canonical(&json!({"a": [2, 1]})));
    }

    #[test]
    fn an_etag_changes_with_the_entity_and_not_with_time() {
        let key = pb::Key { id: "k".into(), state: "active".into(), ..Default::default() };
        let with = |change: fn(&mut pb::Key)| {
            let mut changed = key.clone();
            change(&mut changed);
            changed.etag()
        };
        assert_eq!(with(|key| key.state = "expired".into()), key.etag());
        assert_ne!(with(|key| key.state = "disabled".into()), key.etag());
        assert_ne!(with(|key| key.name = "n".into()), key.etag());
        assert_eq!(key.etag().len(), 2 * ETAG_BYTES + 2);
        // The same members of another kind are another entity.
        let (team, organization) = (pb::Team::default(), pb::Organization::default());
        assert_ne!(team.etag(), organization.etag());
        assert_eq!(etag_of(&key), Some(key.etag()));
        let issued = pb::IssueKeyResponse { key: Some(key.clone()), secret: "s".into() };
        assert_eq!(etag_of(&issued), Some(key.etag()));
        assert_eq!(etag_of(&pb::ListKeysResponse::default()), None);
    }
}
