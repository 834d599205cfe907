//! Checks on prices. A price is refused when it can't be one, and, unless the caller insists, when it is far from every
//! known one: a price per token that was entered as one per million is a million times too small, and the other way
//! round it bills a customer's month for one request (C9).

use nemo_proto::admin::{Price, PriceStep, UnitPrice};
use nemo_types::{Measure, Nanos, Unit};

use crate::{
    admin::AdminError,
    store::{catalog::Amounts, units},
};

/// 10 000 USD per million tokens, in nano-USD: beyond it nothing helps.
pub(super) const MAX_PRICE: i64 = 10_000_000_000_000;
/// Most prices in other units than tokens that one price list can hold.
const MAX_UNIT_PRICES: usize = 64;
/// 100 USD for one unit, in nano-USD per million units.
const MAX_UNIT_PRICE: i64 = 100_000_000_000_000_000;
const MAX_STEPS: usize = 32;
/// No model reads more tokens at once.
const MAX_THRESHOLD: u64 = 1_000_000_000;
const MAX_TIER: usize = 23;
/// Prices per million tokens that occur: 0.0001 USD to 2000 USD.
const USUAL: (i64, i64) = (100_000, 2_000_000_000_000);
const MILLION: i64 = 1_000_000;

/// What was checked, as it is stored; lists in one order, so that equal prices are equal.
pub(in crate::admin) fn price(field: &str, price: &Price, confirmed: bool) -> Result<Amounts, AdminError> {
    let Price { input, output, cache_read, cache_write, cache_write_1h, reasoning, .. } = *price;
    for (line, amount) in [
        ("input", input),
        ("output", output),
        ("cache_read", cache_read),
        ("cache_write", cache_write),
        ("cache_write_1h", cache_write_1h),
        ("reasoning", reasoning),
    ] {
        per_million(&format!("{field}.{line}"), amount, confirmed)?;
    }
    let units = units::prices_to_column(&unit_prices(field, &price.units, confirmed)?);
    let steps = units::steps_to_column(&steps(field, &price.steps, confirmed)?);
    Ok(Amounts { input, output, cache_read, cache_write, cache_write_1h, reasoning, units, steps })
}

fn per_million(field: &str, amount: Option<i64>, confirmed: bool) -> Result<(), AdminError> {
    let Some(amount) = amount else { return Ok(()) };
    if !(0..=MAX_PRICE).contains(&amount) {
        return Err(AdminError::invalid(
            field,
            format!("{amount} is no price in nano-USD per million tokens"),
            format!("0 to {MAX_PRICE} (10 000 USD per million); 2.50 USD per million is 2500000000"),
        ));
    }
    usual(field, amount, USUAL, "million tokens", MILLION, confirmed)
}

/// `one`: how many nano-USD of `amount` are one nano-USD per `unit`, for the message.
fn usual(
    field: &str,
    amount: i64,
    (least, most): (i64, i64),
    unit: &str,
    scale: i64,
    confirmed: bool,
) -> Result<(), AdminError> {
    if confirmed || amount == 0 || (least..=most).contains(&amount) {
        return Ok(());
    }
    let known = |amount: Option<i64>| amount.filter(|it| (least..=most).contains(it));
    let (side, meant) = if amount < least {
        ("below", known(amount.checked_mul(scale)).map(|it| (it, "one, entered as for a million")))
    } else {
        ("above", known(Some(amount / scale)).map(|it| (it, "a million, entered as for one")))
    };
    let usd = Nanos(amount);
    let hint = meant.map_or(String::new(), |(meant, what)| {
        format!("; {meant} ({} USD) would not be: is this the price of {what}?", Nanos(meant))
    });
    let message = format!("{amount} (nano-USD; {usd} USD per {unit}) is far {side} every known price{hint}");
    let (from, to) = (Nanos(least), Nanos(most));
    let expected = format!(
        "{least} to {most} ({from} to {to} USD per {unit}), or 0; confirm_unusual_price takes it all the same"
    );
    Err(AdminError::invalid(field, message, expected))
}

/// Prices per million units that occur, as nano-USD.
fn usual_of(unit: Unit) -> (i64, i64) {
    // Of one unit, in nano-USD, times a million.
    let of_one = |least: i64, most: i64| (least * MILLION, most * MILLION);
    match unit {
        // 0.0001 to 10 USD each.
        Unit::Images | Unit::CodeSessions => of_one(100_000, 10_000_000_000),
        // 0.1 to 1000 USD per million characters.
        Unit::Characters => (100_000_000, 1_000_000_000_000),
        // 0.0036 to 36 USD per hour.
        Unit::AudioMilliseconds => (1_000_000, 10_000_000_000),
        // 0.00001 to 1 USD each.
        Unit::SearchUnits | Unit::WebSearches | Unit::FileSearches => of_one(10_000, 1_000_000_000),
        Unit::Documents => of_one(10, 100_000_000),
        Unit::Requests => of_one(1_000, 10_000_000_000),
        Unit::ImageInputTokens
        | Unit::ImageOutputTokens
        | Unit::AudioInputTokens
        | Unit::AudioOutputTokens => USUAL,
    }
}

fn unit_prices(field: &str, prices: &[UnitPrice], confirmed: bool) -> Result<Vec<UnitPrice>, AdminError> {
    let field = |at: usize, line: &str| format!("{field}.units[{at}].{line}");
    if prices.len() > MAX_UNIT_PRICES {
        let message = format!("{} prices are too many", prices.len());
        let list = field(0, "");
        return Err(AdminError::invalid(
            list.trim_end_matches("[0]."),
            message,
            format!("at most {MAX_UNIT_PRICES}"),
        ));
    }
    for (at, price) in prices.iter().enumerate() {
        let Some(unit) = Unit::from_name(&price.unit) else {
            let names: Vec<_> = Unit::ALL.iter().map(|unit| unit.name()).collect();
            let message = format!("{:?} is no unit", price.unit);
            return Err(AdminError::invalid(field(at, "unit"), message, names.join(", ")));
        };
        for (line, text) in [("quality", &price.quality), ("size", &price.size)] {
            let visible = |b: u8| b.is_ascii_graphic() || b == b' ';
            if text.len() > Measure::MAX_TEXT || !text.bytes().all(visible) {
                let expected = format!("at most {} visible ASCII characters", Measure::MAX_TEXT);
                let message = format!("{text:?} has another form");
                return Err(AdminError::invalid(field(at, line), message, expected));
            }
        }
        if !(0..=MAX_UNIT_PRICE).contains(&price.price) {
            let message = format!("{} is no price in nano-USD per million units", price.price);
            let expected =
                format!("0 to {MAX_UNIT_PRICE} (100 USD per unit); 0.04 USD per unit is 40000000000000");
            return Err(AdminError::invalid(field(at, "price"), message, expected));
        }
        let of = format!("million {}", unit.name().replace('_', " "));
        usual(&field(at, "price"), price.price, usual_of(unit), &of, MILLION, confirmed)?;
        let same = |other: &UnitPrice| {
            (&other.unit, &other.quality, &other.size) == (&price.unit, &price.quality, &price.size)
        };
        if prices.iter().take(at).any(same) {
            let message = format!("{} has another price already", price.unit);
            return Err(AdminError::invalid(
                field(at, "unit"),
                message,
                "one price for a unit, quality and size",
            ));
        }
    }
    let mut sorted = prices.to_vec();
    sorted.sort_by(|a, b| (&a.unit, &a.quality, &a.size).cmp(&(&b.unit, &b.quality, &b.size)));
    Ok(sorted)
}

fn steps(field: &str, steps: &[PriceStep], confirmed: bool) -> Result<Vec<PriceStep>, AdminError> {
    if steps.len() > MAX_STEPS {
        let message = format!("{} steps are too many", steps.len());
        return Err(AdminError::invalid(format!("{field}.steps"), message, format!("at most {MAX_STEPS}")));
    }
    for (at, step) in steps.iter().enumerate() {
        let field = |line: &str| format!("{field}.steps[{at}].{line}");
        let tier = &step.service_tier;
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if tier == "auto" || tier.len() > MAX_TIER || !tier.bytes().all(word) {
            let message = format!("{tier:?} is no tier that a call is served in");
            let expected = "the provider's name of it, such as flex or priority; empty: any";
            return Err(AdminError::invalid(field("service_tier"), message, expected));
        }
        if step.above_input_tokens > MAX_THRESHOLD {
            let expected = format!("a number of tokens, at most {MAX_THRESHOLD}");
            return Err(AdminError::invalid(field("above_input_tokens"), "too large", expected));
        }
        if step.above_input_tokens == 0 && tier.is_empty() {
            let expected = "a number of tokens that a prompt must exceed, or a service_tier";
            let message = "a step without a condition is the price itself";
            return Err(AdminError::invalid(field("above_input_tokens"), message, expected));
        }
        let lines = [
            ("input", step.input),
            ("output", step.output),
            ("cache_read", step.cache_read),
            ("cache_write", step.cache_write),
            ("cache_write_1h", step.cache_write_1h),
            ("reasoning", step.reasoning),
        ];
        for (line, amount) in lines {
            per_million(&field(line), amount, confirmed)?;
        }
        if lines.iter().all(|(_, amount)| amount.is_none()) {
            let expected = "at least one price that differs under this condition";
            return Err(AdminError::invalid(field("input"), "the step has no price", expected));
        }
        let same = |other: &PriceStep| {
            other.above_input_tokens == step.above_input_tokens && other.service_tier == *tier
        };
        if steps.iter().take(at).any(same) {
            let expected = "one step for a threshold and tier";
            return Err(AdminError::invalid(
                field("above_input_tokens"),
                "another step has this condition",
                expected,
            ));
        }
    }
    let mut sorted = steps.to_vec();
    sorted.sort_by(|a, b| {
        (a.above_input_tokens, &a.service_tier).cmp(&(b.above_input_tokens, &b.service_tier))
    });
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(input: i64) -> Price {
        Price { input: Some(input), ..Price::default() }
    }

    fn refusal(price: &Price, confirmed: bool) -> Option<(String, String)> {
        let error = super::price("price", price, confirmed).err()?;
        Some((error.field?, format!("{} {}", error.message, error.expected?)))
    }

    /// C9: 2.50 USD per million tokens entered as per token, and the other way round.
    #[test]
    fn a_price_per_token_is_not_taken_for_one_per_million() {
        let (field, text) = refusal(&of(2_500), false).unwrap();
        assert_eq!(field, "price.input");
        for part in
            ["below every known price", "2500000000 (2.5 USD)", "0.0001 to 2000 USD", "confirm_unusual_price"]
        {
            assert!(text.contains(part), "{text}");
        }
        let (_, text) = refusal(&of(2_500_000_000_000), false).unwrap();
        assert!(text.contains("above every known price") && text.contains("2500000 (0.0025 USD)"), "{text}");
        assert_eq!(refusal(&of(2_500), true), None);
        assert_eq!(refusal(&of(2_500_000_000_000), true), None);
        for usual in [0, 100_000, 2_500_000_000, 600_000_000_000, 2_000_000_000_000] {
            assert_eq!(refusal(&of(usual), false), None, "{usual}");
        }
    }

    #[test]
    fn what_can_be_no_price_is_refused_whatever_was_confirmed() {
        for amount in [-1, i64::MIN, MAX_PRICE + 1, i64::MAX] {
            assert_eq!(refusal(&of(amount), true).unwrap().0, "price.input", "{amount}");
        }
        let unit = |unit: &str, price| Price {
            units: vec![UnitPrice { unit: unit.into(), price, ..UnitPrice::default() }],
            ..Price::default()
        };
        assert_eq!(refusal(&unit("images", -1), true).unwrap().0, "price.units[0].price");
        assert_eq!(refusal(&unit("pictures", 1), true).unwrap().0, "price.units[0].unit");
        assert_eq!(refusal(&unit("images", 40_000_000_000_000), false), None);
        // 0.04 USD for a million images.
        let (field, text) = refusal(&unit("images", 40_000_000), false).unwrap();
        assert!(field == "price.units[0].price" && text.contains("40000000000000"), "{text}");
        assert_eq!(refusal(&unit("web_searches", 10_000_000_000_000), false), None);
    }

    #[test]
    fn a_step_has_a_condition_of_its_own_and_a_price() {
        let step = |above_input_tokens, tier: &str, input| PriceStep {
            above_input_tokens,
            service_tier: tier.into(),
            input,
            ..PriceStep::default()
        };
        let with = |steps: &[PriceStep]| refusal(&Price { steps: steps.to_vec(), ..of(0) }, false);
        let usual = Some(5_000_000_000);
        for (steps, field) in [
            (vec![step(0, "", usual)], "price.steps[0].above_input_tokens"),
            (vec![step(0, "auto", usual)], "price.steps[0].service_tier"),
            (vec![step(0, "two words", usual)], "price.steps[0].service_tier"),
            (vec![step(1, "", None)], "price.steps[0].input"),
            (vec![step(1, "", Some(5))], "price.steps[0].input"),
            (vec![step(1, "", usual), step(1, "", usual)], "price.steps[1].above_input_tokens"),
            (vec![step(u64::MAX, "", usual)], "price.steps[0].above_input_tokens"),
            (vec![step(1, "", usual); MAX_STEPS + 1], "price.steps"),
        ] {
            assert_eq!(with(&steps).unwrap().0, field);
        }
        assert_eq!(with(&[step(200_000, "", usual), step(0, "flex", usual)]), None);
        // Equal prices are equal text, in whatever order they were given.
        let stored = |steps: Vec<PriceStep>| super::price("p", &Price { steps, ..of(0) }, false).unwrap();
        let (a, b) = (step(200_000, "", usual), step(0, "flex", usual));
        assert_eq!(stored(vec![a.clone(), b.clone()]), stored(vec![b, a]));
    }
}
