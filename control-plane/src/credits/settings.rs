//! The settings of billing: their keys, who may set them where, and what they may be. Pure. Called by
//! `admin/ops/settings.rs`, which checks values with it, and by whoever reads them.

use nemo_types::Nanos;
use serde_json::Value;

use super::Tiers;

/// Largest amount that an operation may book or a setting may hold: far below what adds up to an overflow.
pub const MAX_AMOUNT: Nanos = Nanos(10_000_000 * Nanos::ONE_USD.0);

/// Where a setting can be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// For the installation alone.
    Installation,
    /// For the installation and, over that, for organizations.
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Tiers,
    Name,
    Flag,
    Amount,
}

/// A setting of billing.
#[derive(Debug, PartialEq, Eq)]
pub struct BillingSetting {
    pub key: &'static str,
    pub place: Place,
    /// Only the operator may set it, also for an organization: it is about what the organization owes.
    pub operators: bool,
    form: Form,
}

/// List of tiers; the first is the default.
pub const TIERS: &str = "billing.tiers";
/// Name of the tier.
pub const TIER: &str = "billing.tier";
/// Whether organizations are served from prepaid credit only.
pub const REQUIRED: &str = "credits.required";
/// What a new organization is given.
pub const SIGNUP_GRANT: &str = "credits.signup_grant";
/// Below this balance, `credits.low` is told.
pub const LOW_BALANCE: &str = "credits.low_balance";

const fn setting(key: &'static str, place: Place, operators: bool, form: Form) -> BillingSetting {
    BillingSetting { key, place, operators, form }
}

pub const SETTINGS: &[BillingSetting] = &[
    setting(TIERS, Place::Installation, true, Form::Tiers),
    setting(TIER, Place::Both, true, Form::Name),
    setting(REQUIRED, Place::Both, true, Form::Flag),
    setting(SIGNUP_GRANT, Place::Installation, true, Form::Amount),
    setting(LOW_BALANCE, Place::Both, false, Form::Amount),
];

/// Why a value is refused, and what would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub message: String,
    pub expected: &'static str,
}

impl BillingSetting {
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// # Errors
    /// When the value has another form.
    pub fn check(&self, value: &Value) -> Result<(), Refused> {
        let refused = |message: String, expected| Err(Refused { message, expected });
        match self.form {
            Form::Tiers => match Tiers::parse(value) {
                Ok(_) => Ok(()),
                Err(message) => refused(
                    message,
                    "a list such as [{\"name\": \"monthly\", \"fee_percent\": \"2\", \"requests_per_minute\": 600}]",
                ),
            },
            Form::Name if value.as_str().is_some_and(|name| !name.is_empty()) => Ok(()),
            Form::Name => refused(format!("{value} is no tier"), "JSON text: the name of a tier"),
            Form::Flag if value.is_boolean() => Ok(()),
            Form::Flag => refused(format!("{value} is neither"), "true or false"),
            Form::Amount if amount(value).is_some() => Ok(()),
            Form::Amount => refused(
                format!("{value} is no amount"),
                "JSON text: an amount in USD from \"0\" to \"10000000\" with at most nine decimals",
            ),
        }
    }
}

/// An amount in a setting.
pub fn amount(value: &Value) -> Option<Nanos> {
    value.as_str().and_then(Nanos::from_decimal).filter(|amount| *amount <= MAX_AMOUNT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_another_form_are_refused() {
        for (key, good, bad) in [
            (TIERS, json!([{ "name": "a", "fee_percent": "1" }]), json!([{ "name": "a" }])),
            (TIER, json!("monthly"), json!(1)),
            (REQUIRED, json!(true), json!("true")),
            (SIGNUP_GRANT, json!("5.00"), json!(5.0)),
            (SIGNUP_GRANT, json!("0"), json!("-5")),
            (LOW_BALANCE, json!("0.000000001"), json!("0.0000000001")),
            (LOW_BALANCE, json!("10000000"), json!("10000000.01")),
        ] {
            let setting = BillingSetting::find(key).unwrap();
            assert_eq!(setting.check(&good), Ok(()), "{key}");
            assert!(setting.check(&bad).is_err(), "{key} {bad}");
        }
    }
}
