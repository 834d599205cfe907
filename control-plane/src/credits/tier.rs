//! Tiers: what a purchase costs on top of the credit, and the rates that an organization is guaranteed. Nothing else
//! depends on a tier [R000-17, R001-9]. Pure integer arithmetic.
//!
//! Called by the quote, by the check of payments, and by whoever puts a tier's rate limit in place.

use std::{fmt, str::FromStr};

use nemo_types::Nanos;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// One cent.
pub const CENT: Nanos = Nanos(10_000_000);
/// Largest purchase.
pub const MAX_PURCHASE: Nanos = Nanos(1_000_000 * Nanos::ONE_USD.0);
/// Most tiers that a setting can define.
const MAX_TIERS: usize = 32;
/// Longest name of a tier.
const MAX_NAME: usize = 64;
/// Largest guarantee per minute.
const MAX_RATE: u64 = 1_000_000_000_000;

/// A share of the credit, in millionths: 4 % is 40 000.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeeRate(u32);

impl FeeRate {
    const WHOLE: u32 = 1_000_000;

    /// What is to be paid on top of this credit, rounded up to the cent: nobody can be billed less than a cent, and a
    /// fee that is rounded down could be avoided with small purchases. `None` for a negative credit or on overflow.
    pub fn on(self, credit: Nanos) -> Option<Nanos> {
        let exact = i128::from(credit.0).checked_mul(self.0.into())?;
        let cent_parts = i128::from(CENT.0) * i128::from(Self::WHOLE);
        let cents = (exact + cent_parts - 1).div_euclid(cent_parts);
        let fee = i64::try_from(cents.checked_mul(CENT.0.into())?).ok()?;
        (credit >= Nanos::ZERO).then_some(Nanos(fee))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a percentage from 0 to 100 with at most 4 decimals, such as \"4\" or \"2.5\"")]
pub struct NotAPercentage;

/// Percent: `4`, `2.5`, `0.0001`.
impl FromStr for FeeRate {
    type Err = NotAPercentage;

    fn from_str(text: &str) -> Result<Self, NotAPercentage> {
        // Nanos of percent have five decimals too many.
        let nanos = Nanos::from_decimal(text).ok_or(NotAPercentage)?.0;
        let rate = u32::try_from(nanos / 100_000).map_err(|_| NotAPercentage)?;
        if nanos % 100_000 == 0 && rate <= Self::WHOLE { Ok(Self(rate)) } else { Err(NotAPercentage) }
    }
}

impl fmt::Display for FeeRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Nanos(i64::from(self.0) * 100_000).fmt(f)
    }
}

impl Serialize for FeeRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FeeRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// What a tier is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    pub name: String,
    /// As text, such as "2.5": JSON numbers are floats to many programs.
    #[serde(rename = "fee_percent")]
    pub fee: FeeRate,
    /// Guaranteed to the organization as a whole; `None`: not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_minute: Option<u64>,
}

/// The tiers of an installation, at least one. The first is everybody's who has no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Tiers(Vec<Tier>);

impl Default for Tiers {
    /// R000-14.
    fn default() -> Self {
        let tier = |name: &str, millionths| Tier {
            name: name.to_owned(),
            fee: FeeRate(millionths),
            requests_per_minute: None,
            tokens_per_minute: None,
        };
        Self(vec![tier("pay-as-you-go", 40_000), tier("monthly", 20_000), tier("annual", 0)])
    }
}

impl Tiers {
    /// # Errors
    /// What is wrong with the list, for people.
    pub fn parse(value: &serde_json::Value) -> Result<Self, String> {
        let tiers: Vec<Tier> = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
        if !(1..=MAX_TIERS).contains(&tiers.len()) {
            return Err(format!("{} tiers, expected 1 to {MAX_TIERS}", tiers.len()));
        }
        for (at, tier) in tiers.iter().enumerate() {
            let visible = tier.name.bytes().all(|b| b.is_ascii_graphic());
            if tier.name.is_empty() || tier.name.len() > MAX_NAME || !visible {
                return Err(format!("{:?} is no name of a tier", tier.name));
            }
            if tiers.iter().take(at).any(|other| other.name == tier.name) {
                return Err(format!("{:?} is there twice", tier.name));
            }
            let rates = [tier.requests_per_minute, tier.tokens_per_minute];
            if rates.into_iter().flatten().any(|rate| !(1..=MAX_RATE).contains(&rate)) {
                return Err(format!("rates of {:?}: expected 1 to {MAX_RATE} per minute", tier.name));
            }
        }
        Ok(Self(tiers))
    }

    pub fn find(&self, name: &str) -> Option<&Tier> {
        self.0.iter().find(|tier| tier.name == name)
    }

    /// The tier of that name. A name that is not defined (any more) is the first: the setting of the tiers is checked,
    /// but old organizations may have been in one that is gone.
    pub fn of(&self, name: Option<&str>) -> Tier {
        let named = name.and_then(|name| self.find(name)).or_else(|| self.0.first());
        named.cloned().unwrap_or_else(|| Tiers::default().of(None))
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|tier| tier.name.as_str()).collect()
    }
}

/// What a purchase costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    pub credit: Nanos,
    pub fee: Nanos,
}

impl Quote {
    /// `None`: the credit is no amount that can be bought.
    pub fn new(credit: Nanos, fee: FeeRate) -> Option<Self> {
        let buyable = (CENT..=MAX_PURCHASE).contains(&credit) && credit.0 % CENT.0 == 0;
        buyable.then_some(())?;
        Some(Self { credit, fee: fee.on(credit)? })
    }

    /// What has to be paid. Both parts are far below overflow.
    pub fn total(self) -> Nanos {
        Nanos(self.credit.0 + self.fee.0)
    }

    pub fn total_cents(self) -> i64 {
        self.total().0 / CENT.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn usd(text: &str) -> Nanos {
        Nanos::from_decimal(text).unwrap()
    }

    /// Covers R000-13, R001-8.
    #[test]
    fn one_hundred_dollars_of_credit_cost_104_102_and_100_by_tier() {
        let tiers = Tiers::default();
        for (tier, total) in [("pay-as-you-go", "104"), ("monthly", "102"), ("annual", "100")] {
            let quote = Quote::new(usd("100"), tiers.find(tier).unwrap().fee).unwrap();
            assert_eq!((quote.credit, quote.total()), (usd("100"), usd(total)), "{tier}");
        }
        assert_eq!(tiers.of(None).name, "pay-as-you-go");
        assert_eq!(tiers.of(Some("gone")).name, "pay-as-you-go");
    }

    #[test]
    fn fees_are_rounded_up_to_the_cent() {
        let four: FeeRate = "4".parse().unwrap();
        for (credit, fee) in [("0.01", "0.01"), ("0.25", "0.01"), ("0.26", "0.02"), ("99.99", "4")] {
            assert_eq!(four.on(usd(credit)), Some(usd(fee)), "{credit}");
        }
        assert_eq!("0".parse::<FeeRate>().unwrap().on(usd("0.01")), Some(Nanos::ZERO));
        assert_eq!("0.0001".parse::<FeeRate>().unwrap().on(usd("10000")), Some(usd("0.01")));
        assert_eq!(four.on(Nanos(-1)), None);
        assert_eq!("100".parse::<FeeRate>().unwrap().on(Nanos(i64::MAX)), None, "a cent above what fits");
    }

    #[test]
    fn percentages_have_at_most_four_decimals_and_round_trip() {
        for text in ["0", "4", "2.5", "0.0001", "99.9999", "100"] {
            assert_eq!(text.parse::<FeeRate>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "100.0001", "0.00001", "4%", "1e1", "NaN", "101", " 4"] {
            assert_eq!(text.parse::<FeeRate>(), Err(NotAPercentage), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_bought_has_no_quote() {
        let fee = FeeRate(40_000);
        for credit in
            [Nanos::ZERO, Nanos(-CENT.0), Nanos(CENT.0 + 1), Nanos(MAX_PURCHASE.0 + CENT.0), Nanos(i64::MAX)]
        {
            assert_eq!(Quote::new(credit, fee), None, "{credit}");
        }
    }

    #[test]
    fn lists_of_tiers_are_checked() {
        let tier = json!({ "name": "a", "fee_percent": "1.5", "requests_per_minute": 60 });
        let tiers = Tiers::parse(&json!([tier])).unwrap();
        assert_eq!(serde_json::to_value(&tiers).unwrap(), json!([tier]));
        for wrong in [
            json!([]),
            json!({}),
            json!([tier, tier]),
            json!([{ "name": "", "fee_percent": "1" }]),
            json!([{ "name": "a", "fee_percent": 1 }]),
            json!([{ "name": "a", "fee_percent": "1.00001" }]),
            json!([{ "name": "a", "fee_percent": "1", "requests_per_minute": 0 }]),
            json!([{ "name": "a", "fee_percent": "1", "features": ["cache"] }]),
        ] {
            assert!(Tiers::parse(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        /// No rounding loss: what is paid is credit and fee to the nano, and the fee is the smallest number of cents that
        /// is not below the exact share.
        #[test]
        fn paid_less_fee_is_the_credit(cents in 1..=MAX_PURCHASE.0 / CENT.0, rate in 0..=FeeRate::WHOLE) {
            let credit = Nanos(cents * CENT.0);
            let quote = Quote::new(credit, FeeRate(rate)).unwrap();
            prop_assert_eq!(quote.total().0 - quote.fee.0, credit.0);
            prop_assert_eq!(quote.total_cents() * CENT.0, quote.total().0);
            let exact = i128::from(credit.0) * i128::from(rate);
            let fee = i128::from(quote.fee.0) * i128::from(FeeRate::WHOLE);
            let cent = i128::from(CENT.0) * i128::from(FeeRate::WHOLE);
            prop_assert!(fee >= exact && fee - exact < cent);
        }

        /// Buying at once is never dearer than in parts.
        #[test]
        fn splitting_a_purchase_saves_nothing(a in 1..1_000_000_i64, b in 1..1_000_000_i64, rate in 0..=FeeRate::WHOLE) {
            let fee = |cents: i64| FeeRate(rate).on(Nanos(cents * CENT.0)).unwrap().0;
            prop_assert!(fee(a + b) <= fee(a) + fee(b));
        }
    }
}
