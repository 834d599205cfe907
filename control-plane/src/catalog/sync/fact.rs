//! What a source says of one model at one provider, and how it is read: prices exactly, names in our words.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::catalog::Amounts;

/// `None`: the source does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Fact {
    /// In our provider table.
    pub provider: String,
    /// What the provider calls it.
    pub upstream_model: String,
    pub display_name: Option<String>,
    pub owned_by: Option<String>,
    pub created_unix: Option<i64>,
    /// Tokens.
    pub context_window: Option<i64>,
    /// Tokens.
    pub max_output_tokens: Option<i64>,
    pub input_modalities: Option<Vec<String>>,
    pub output_modalities: Option<Vec<String>>,
    /// What it can do, as catalog tags: `function-calling`, `json`, `reasoning`.
    pub abilities: Option<Vec<String>>,
    pub amounts: Option<Amounts>,
    /// The source's prices have a step for long prompts, or none at all: it knows all steps.
    pub knows_steps: bool,
}

/// Longest name that is believed.
const MAX_NAME: usize = 200;

/// A name that can be stored and sent; `None`: it can't.
pub fn name(text: &str) -> Option<&str> {
    let good = !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(|b| b.is_ascii_graphic());
    good.then_some(text)
}

/// A title; control characters and length are cut.
pub fn title(text: &str) -> Option<String> {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(120).collect();
    let clean = clean.trim();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// Who a registry's provider is in our table. `None`: it is not in it.
pub fn provider(id: &str) -> Option<&str> {
    let known = match id {
        "google" | "gemini" => "google-ai-studio",
        "google-vertex-anthropic" => "google-vertex",
        "amazon-bedrock" => "bedrock",
        "togetherai" => "together",
        "fireworks-ai" => "fireworks",
        "moonshotai" => "moonshot",
        "zhipuai" => "zai",
        "novita-ai" => "novita",
        "x-ai" => "xai",
        "mistralai" => "mistral",
        other => other,
    };
    let hosted = matches!(known, "azure" | "bedrock" | "google-vertex");
    (hosted || nemo_types::base_url(known).is_some()).then_some(known)
}

/// Exactly `USD × 10^scale` of a price in USD: a JSON number, or a decimal in a string. `None`: no price, or none that can be
/// (negative prices stand for "depends" with OpenRouter).
pub fn scaled(value: &Value, scale: i32) -> Option<i64> {
    let text = match value {
        // The shortest decimal that reads back as the same number: what the source wrote.
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    let (mantissa, exponent) =
        text.split_once(['e', 'E']).map_or((text.as_str(), 0), |(mantissa, exponent)| {
            (mantissa, exponent.parse::<i32>().unwrap_or(i32::MAX))
        });
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    if digits.is_empty() || digits.len() > 30 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: i128 = digits.parse().ok()?;
    let shift = scale.checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let result = match u32::try_from(shift) {
        Ok(shift) => number.checked_mul(10_i128.checked_pow(shift)?)?,
        // Less than a nano-USD per million tokens is nothing.
        Err(_) => 10_i128.checked_pow(shift.unsigned_abs()).map_or(0, |unit| (number + unit / 2) / unit),
    };
    i64::try_from(result).ok().filter(|nanos| *nanos <= MAX_PRICE)
}

/// A thousand times the dearest model there is: beyond, the source is wrong.
const MAX_PRICE: i64 = 1_000_000_000_000_000;

/// Midnight UTC of `2025-08-07`, `2025-08` or `2025`.
pub fn day(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let year: i32 = parts.next()?.parse().ok()?;
    let month: u8 = parts.next().unwrap_or("1").parse().ok()?;
    let day: u8 = parts.next().unwrap_or("1").parse().ok()?;
    let date = time::Date::from_calendar_date(year, time::Month::try_from(month).ok()?, day).ok()?;
    Some(date.midnight().assume_utc().unix_timestamp())
}

/// Strings of a JSON array that are words of ours.
pub fn words(value: &Value) -> Option<Vec<String>> {
    let words = value.as_array()?.iter().filter_map(Value::as_str);
    let mut kept: Vec<String> = words
        .map(|word| if word == "pdf" { "file" } else { word })
        .filter(|word| {
            word.len() <= 32
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        })
        .map(str::to_owned)
        .collect();
    kept.dedup();
    kept.truncate(16);
    (!kept.is_empty()).then_some(kept)
}

/// Tokens.
pub fn tokens(value: &Value) -> Option<i64> {
    value.as_i64().filter(|count| (1..=1_000_000_000).contains(count))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn prices_are_read_to_the_nano() {
        // Per million tokens, and per token.
        for (value, scale, nanos) in [
            (json!(0.15), 9, Some(150_000_000)),
            (json!(3), 9, Some(3_000_000_000)),
            (json!(0), 9, Some(0)),
            (json!("0.00000125"), 15, Some(1_250_000_000)),
            (json!("1.25e-6"), 15, Some(1_250_000_000)),
            (json!(0.000_000_1), 15, Some(100_000_000)),
            (json!("-1"), 15, None),
            (json!("free"), 15, None),
            (json!(null), 9, None),
            (json!("1e30"), 9, None),
            (json!("0.0000000000000000001"), 9, Some(0)),
        ] {
            assert_eq!(scaled(&value, scale), nanos, "{value}");
        }
    }

    #[test]
    fn registries_call_providers_by_other_names() {
        assert_eq!(provider("amazon-bedrock"), Some("bedrock"));
        assert_eq!(provider("google"), Some("google-ai-studio"));
        assert_eq!(provider("openai"), Some("openai"));
        assert_eq!(provider("nobody"), None);
    }

    #[test]
    fn days_and_words_are_read_as_far_as_they_make_sense() {
        assert_eq!(day("1970-01-02"), Some(86_400));
        assert_eq!(day("2025-08"), day("2025-08-01"));
        assert_eq!(day("soon"), None);
        assert_eq!(
            words(&json!(["text", "pdf", 4, "IMAGE!"])),
            Some(vec!["text".to_owned(), "file".to_owned()])
        );
        assert_eq!(name("a b"), None);
        assert_eq!(title(" a\u{7}b "), Some("ab".to_owned()));
    }
}
