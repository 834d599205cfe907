//! Settings of an organization, or of the installation. Unknown keys are refused: a typing error must not look like a
//! setting that is in force.

use nemo_proto::admin::{
    DeleteSettingRequest, DeleteSettingResponse, GetSettingRequest, ListSettingsRequest,
    ListSettingsResponse, PutSettingRequest, Setting,
};
use nemo_snapshot::Timeouts;
use nemo_types::SettingId;

use crate::{
    admin::{Action, Admin, AdminError, Call, Written, validate},
    store::settings,
};

/// A setting that exists: its key and the check of its JSON value.
struct Known {
    key: &'static str,
    check: fn(&serde_json::Value) -> Result<(), AdminError>,
}

const KNOWN: [Known; 5] = {
    let [connect, first_byte, idle, total] = Timeouts::SETTINGS;
    [
        Known { key: "routing.strategy", check: check_strategy },
        Known { key: connect, check: check_millis },
        Known { key: first_byte, check: check_millis },
        Known { key: idle, check: check_millis },
        Known { key: total, check: check_millis },
    ]
};

/// A day: whoever waits longer for an upstream has made a typing error.
const MAX_MILLIS: u64 = 24 * 60 * 60 * 1000;

impl Admin {
    pub async fn put_setting(
        &self,
        call: &Call,
        request: PutSettingRequest,
    ) -> Result<Written<Setting>, AdminError> {
        let known = known(&request.key)?;
        let value: serde_json::Value = serde_json::from_str(&request.value).map_err(|error| {
            AdminError::invalid(
                "value",
                format!("not JSON: {error}"),
                "JSON text, such as \"\\\"simple-shuffle\\\"\"",
            )
        })?;
        (known.check)(&value)?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "setting.put").await?;
        let before = settings::get(&mut write.tx, known.key).await?;
        write.found_or_new::<Setting>(before)?;
        let id = SettingId::generate().0;
        let row = settings::put(&mut write.tx, id, known.key, &value.to_string()).await?;
        write.done(row.into()).await
    }

    pub async fn get_setting(&self, call: &Call, request: GetSettingRequest) -> Result<Setting, AdminError> {
        let known = known(&request.key)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let row = settings::get(&mut tx, known.key).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("setting", known.key))
    }

    pub async fn list_settings(
        &self,
        call: &Call,
        request: ListSettingsRequest,
    ) -> Result<ListSettingsResponse, AdminError> {
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        // The store also keeps notes of ours there, which are no settings.
        let rows = settings::list(&mut tx).await?.into_iter().filter(|row| names().contains(&&*row.key));
        Ok(ListSettingsResponse { settings: rows.map(Into::into).collect() })
    }

    /// Back to the default of whoever is above.
    pub async fn delete_setting(
        &self,
        call: &Call,
        request: DeleteSettingRequest,
    ) -> Result<Written<DeleteSettingResponse>, AdminError> {
        let known = known(&request.key)?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "setting.delete").await?;
        let before = settings::get(&mut write.tx, known.key).await?;
        write.found::<Setting>(before, known.key)?;
        settings::delete(&mut write.tx, known.key).await?;
        write.deleted().await
    }
}

/// Every setting, for the document of the API.
pub(in crate::admin) fn names() -> [&'static str; KNOWN.len()] {
    KNOWN.map(|known| known.key)
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

fn check_millis(value: &serde_json::Value) -> Result<(), AdminError> {
    match value.as_u64() {
        Some(millis) if (1..=MAX_MILLIS).contains(&millis) => Ok(()),
        _ => Err(AdminError::invalid(
            "value",
            format!("{value} is no duration"),
            format!("a whole number of milliseconds from 1 to {MAX_MILLIS}"),
        )),
    }
}
