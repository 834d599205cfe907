//! Settings of an organization, or of the installation. Unknown keys are refused: a typing error must not look like a
//! setting that is in force.

use nemo_proto::admin::{
    DeleteSettingRequest, DeleteSettingResponse, ListSettingsRequest, ListSettingsResponse,
    PutSettingRequest, Setting,
};
use nemo_types::SettingId;

use super::deleted;
use crate::{
    admin::{Action, Admin, AdminError, Caller, validate},
    store::settings,
};

/// A setting that exists: its key and the check of its JSON value.
struct Known {
    key: &'static str,
    check: fn(&serde_json::Value) -> Result<(), AdminError>,
}

const KNOWN: [Known; 1] = [Known { key: "routing.strategy", check: check_strategy }];

impl Admin {
    pub async fn put_setting(
        &self,
        caller: &Caller,
        request: PutSettingRequest,
    ) -> Result<Setting, AdminError> {
        let known = known(&request.key)?;
        let value: serde_json::Value = serde_json::from_str(&request.value).map_err(|error| {
            AdminError::invalid(
                "value",
                format!("not JSON: {error}"),
                "JSON text, such as \"\\\"simple-shuffle\\\"\"",
            )
        })?;
        (known.check)(&value)?;
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        let row = settings::put(&mut tx, SettingId::generate().0, known.key, &value.to_string()).await?;
        tx.commit().await?;
        Ok(row.into())
    }

    pub async fn list_settings(
        &self,
        caller: &Caller,
        request: ListSettingsRequest,
    ) -> Result<ListSettingsResponse, AdminError> {
        let mut tx = self.owner(caller, Action::Read, &request.org_id).await?;
        let rows = settings::list(&mut tx).await?;
        Ok(ListSettingsResponse { settings: rows.into_iter().map(Into::into).collect() })
    }

    /// Back to the default of whoever is above.
    pub async fn delete_setting(
        &self,
        caller: &Caller,
        request: DeleteSettingRequest,
    ) -> Result<DeleteSettingResponse, AdminError> {
        let known = known(&request.key)?;
        let mut tx = self.owner(caller, Action::Write, &request.org_id).await?;
        let found = settings::delete(&mut tx, known.key).await?;
        tx.commit().await?;
        deleted(found, "setting", known.key)?;
        Ok(DeleteSettingResponse {})
    }
}

fn known(key: &str) -> Result<&'static Known, AdminError> {
    KNOWN.iter().find(|known| known.key == key).ok_or_else(|| {
        let keys: Vec<_> = KNOWN.iter().map(|known| known.key).collect();
        AdminError::invalid(
            "key",
            format!("{key:?} is not a setting"),
            format!("one of: {}", keys.join(", ")),
        )
    })
}

fn check_strategy(value: &serde_json::Value) -> Result<(), AdminError> {
    match value.as_str() {
        Some(name) if !name.is_empty() => validate::strategy("value", name),
        _ => Err(AdminError::invalid("value", "not a JSON string", validate::one_of_strategies())),
    }
}
