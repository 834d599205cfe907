//! Settings of an organization, or of the installation. Unknown keys are refused: a typing error must not look like a
//! setting that is in force.

use nemo_proto::admin::{
    DeleteSettingRequest, DeleteSettingResponse, GetSettingRequest, ListSettingsRequest,
    ListSettingsResponse, PutSettingRequest, Setting,
};
use nemo_snapshot::{
    Timeouts,
    routing_policy::{self, Form, Overrides, PolicySetting},
};
use nemo_types::SettingId;

use crate::{
    admin::{Action, Admin, AdminError, Call, Written},
    credits::{self, BillingSetting},
    store::settings,
};

/// A setting that exists, and how its value is checked.
#[derive(Clone, Copy)]
enum Known {
    Timeout(&'static str),
    Policy(&'static PolicySetting),
    Billing(&'static BillingSetting),
}

impl Known {
    fn all() -> impl Iterator<Item = Self> {
        let policies = routing_policy::SETTINGS.iter().map(Self::Policy);
        let billing = credits::settings::SETTINGS.iter().map(Self::Billing);
        policies.chain(Timeouts::SETTINGS.into_iter().map(Self::Timeout)).chain(billing)
    }

    fn key(self) -> &'static str {
        match self {
            Self::Timeout(key) => key,
            Self::Policy(setting) => setting.key,
            Self::Billing(setting) => setting.key,
        }
    }

    fn check(self, value: &serde_json::Value) -> Result<(), AdminError> {
        match self {
            Self::Timeout(_) => check_millis(value),
            Self::Policy(setting) => check_policy(setting, value),
            Self::Billing(setting) => setting
                .check(value)
                .map_err(|refused| AdminError::invalid("value", refused.message, refused.expected)),
        }
    }

    /// What only the operator may set.
    fn of_operator(self) -> Option<&'static BillingSetting> {
        match self {
            Self::Billing(setting) => Some(setting).filter(|setting| setting.operators),
            _ => None,
        }
    }
}

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
        known.check(&value)?;
        if let Some(setting) = known.of_operator() {
            return self.put_billing_setting(call, setting, &request.org_id, &value).await;
        }
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "setting.put").await?;
        let before = settings::get(&mut write.tx, known.key()).await?;
        write.found_or_new::<Setting>(before)?;
        let id = SettingId::generate().0;
        let row = settings::put(&mut write.tx, id, known.key(), &value.to_string()).await?;
        write.done(row.into()).await
    }

    pub async fn get_setting(&self, call: &Call, request: GetSettingRequest) -> Result<Setting, AdminError> {
        let known = known(&request.key)?;
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        let row = settings::get(&mut tx, known.key()).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("setting", known.key()))
    }

    pub async fn list_settings(
        &self,
        call: &Call,
        request: ListSettingsRequest,
    ) -> Result<ListSettingsResponse, AdminError> {
        let mut tx = self.owner(call, Action::Read, &request.org_id).await?;
        // The store also keeps notes of ours there, which are no settings.
        let known = names();
        let rows = settings::list(&mut tx).await?.into_iter().filter(|row| known.contains(&&*row.key));
        Ok(ListSettingsResponse { settings: rows.map(Into::into).collect() })
    }

    /// Back to the default of whoever is above.
    pub async fn delete_setting(
        &self,
        call: &Call,
        request: DeleteSettingRequest,
    ) -> Result<Written<DeleteSettingResponse>, AdminError> {
        let known = known(&request.key)?;
        if let Some(setting) = known.of_operator() {
            return self.delete_billing_setting(call, setting, &request.org_id).await;
        }
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "setting.delete").await?;
        let before = settings::get(&mut write.tx, known.key()).await?;
        write.found::<Setting>(before, known.key())?;
        settings::delete(&mut write.tx, known.key()).await?;
        write.deleted().await
    }
}

/// Every setting, for the document of the API.
pub(in crate::admin) fn names() -> Vec<&'static str> {
    Known::all().map(Known::key).collect()
}

fn known(key: &str) -> Result<Known, AdminError> {
    Known::all().find(|known| known.key() == key).ok_or_else(|| {
        let message = format!("{key:?} is not a setting");
        AdminError::invalid("key", message, format!("one of: {}", names().join(", ")))
    })
}

/// Names, words and amounts of money are text, everything else is a number.
fn check_policy(setting: &PolicySetting, value: &serde_json::Value) -> Result<(), AdminError> {
    let typed = match setting.form {
        Form::Strategy | Form::Usd | Form::Word(_) => value.is_string(),
        Form::Whole { .. } => value.is_u64(),
    };
    if typed && Overrides::default().set(setting.key, &value.to_string()).is_ok() {
        return Ok(());
    }
    let kind = match setting.form {
        Form::Whole { .. } => "",
        _ => "JSON text: ",
    };
    let message = format!("{value} is no value of {}", setting.key);
    Err(AdminError::invalid("value", message, format!("{kind}{}", setting.expected())))
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
