//! Settings that only the operator may set, because they are about what organizations owe: tiers, whether credit is
//! required, what new organizations are given. What follows from one is done in the same transaction. Called by
//! [`super::settings`].

use nemo_proto::admin::{DeleteSettingResponse, Setting};
use nemo_types::{OrgId, SettingId};
use serde_json::Value;

use crate::{
    admin::{Admin, AdminError, Call, ErrorKind, Written, validate},
    credits::{
        Tiers,
        settings::{self as keys, BillingSetting, Place},
    },
    store::{StoreError, SystemTx, billing, credits, organizations},
};

impl Admin {
    pub(super) async fn put_billing_setting(
        &self,
        call: &Call,
        setting: &BillingSetting,
        org_id: &str,
        value: &Value,
    ) -> Result<Written<Setting>, AdminError> {
        let org = place(setting, org_id)?;
        let mut write = self.write_system(call, "setting.put").await.map_err(of_operator)?;
        exists(&mut write.tx, org).await?;
        check_names(&mut write.tx, setting, value).await?;
        let before = billing::get(&mut write.tx, org.map(|org| org.0), setting.key).await?;
        write.found_or_new::<Setting>(before)?;
        let id = SettingId::generate().0;
        let row =
            billing::put(&mut write.tx, id, org.map(|org| org.0), setting.key, &value.to_string()).await?;
        follow(&mut write.tx, setting, org).await?;
        write.done(row.into()).await
    }

    pub(super) async fn delete_billing_setting(
        &self,
        call: &Call,
        setting: &BillingSetting,
        org_id: &str,
    ) -> Result<Written<DeleteSettingResponse>, AdminError> {
        let org = place(setting, org_id)?;
        let mut write = self.write_system(call, "setting.delete").await.map_err(of_operator)?;
        exists(&mut write.tx, org).await?;
        let before = billing::get(&mut write.tx, org.map(|org| org.0), setting.key).await?;
        write.found::<Setting>(before, setting.key)?;
        if setting.key == keys::TIERS {
            named_tiers_are_in(&mut write.tx, &Tiers::default()).await?;
        }
        billing::delete(&mut write.tx, org.map(|org| org.0), setting.key).await?;
        follow(&mut write.tx, setting, org).await?;
        write.deleted().await
    }
}

fn of_operator(error: AdminError) -> AdminError {
    error.with_field("key")
}

fn place(setting: &BillingSetting, org_id: &str) -> Result<Option<OrgId>, AdminError> {
    if org_id.is_empty() {
        return Ok(None);
    }
    let org = validate::id("org_id", org_id)?;
    if setting.place == Place::Installation {
        let message = format!("{} is the installation's", setting.key);
        return Err(AdminError::invalid(
            "key",
            message,
            "a setting that organizations have, or no organization",
        ));
    }
    Ok(Some(org))
}

async fn exists(tx: &mut SystemTx, org: Option<OrgId>) -> Result<(), AdminError> {
    let Some(org) = org else { return Ok(()) };
    match organizations::find(tx, org.0).await? {
        Some(_) => Ok(()),
        None => Err(AdminError::not_found("organization", org).with_field("org_id")),
    }
}

/// A tier that is named must be there, and stay there.
async fn check_names(tx: &mut SystemTx, setting: &BillingSetting, value: &Value) -> Result<(), AdminError> {
    match setting.key {
        keys::TIER => {
            let tiers = billing::tiers(tx).await?;
            match value.as_str().and_then(|name| tiers.find(name)) {
                Some(_) => Ok(()),
                None => {
                    let expected = format!("JSON text, one of: {}", tiers.names().join(", "));
                    Err(AdminError::invalid("value", format!("{value} is no tier"), expected))
                }
            }
        }
        // Was checked before.
        keys::TIERS => named_tiers_are_in(tx, &Tiers::parse(value).unwrap_or_default()).await,
        _ => Ok(()),
    }
}

async fn named_tiers_are_in(tx: &mut SystemTx, tiers: &Tiers) -> Result<(), AdminError> {
    let named = billing::named_tiers(tx).await?;
    match named.iter().find(|name| tiers.find(name).is_none()) {
        None => Ok(()),
        Some(name) => {
            let message = format!("the tier {name:?} would be gone, and is still set as {}", keys::TIER);
            Err(AdminError::new(ErrorKind::InUse, message).with_field("value"))
        }
    }
}

/// What else changes with it.
async fn follow(tx: &mut SystemTx, setting: &BillingSetting, org: Option<OrgId>) -> Result<(), StoreError> {
    let org = org.map(|org| org.0);
    match setting.key {
        keys::TIERS | keys::TIER => billing::guarantee(tx, org).await,
        keys::REQUIRED => credits::require(tx, org).await,
        _ => Ok(()),
    }
}
