//! Prices and counts in other units than text tokens, and steps of prices, as they stand in a column: one JSON array in one spelling, so
//! that equal lists are equal text. Called by what reads and writes prices and the request log.

use nemo_proto::{admin as pb, common};
use serde::{Serialize, de::DeserializeOwned};

/// `None` for an empty list.
fn to_column<T: Serialize>(list: &[T]) -> Option<String> {
    if list.is_empty() { None } else { serde_json::to_string(list).ok() }
}

/// What can't be read is an empty list: the column is only ever written by this module.
fn from_column<T: DeserializeOwned>(column: Option<&str>) -> Vec<T> {
    column.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

pub fn prices_to_column(prices: &[pb::UnitPrice]) -> Option<String> {
    to_column(prices)
}

pub fn prices(column: Option<&str>) -> Vec<pb::UnitPrice> {
    from_column(column)
}

/// The prices as they are published to the nodes.
pub fn published_prices(column: Option<&str>) -> Vec<common::UnitPrice> {
    let published = |it: pb::UnitPrice| common::UnitPrice {
        unit: it.unit,
        quality: it.quality,
        size: it.size,
        price: it.price,
    };
    prices(column).into_iter().map(published).collect()
}

pub fn steps_to_column(steps: &[pb::PriceStep]) -> Option<String> {
    to_column(steps)
}

pub fn steps(column: Option<&str>) -> Vec<pb::PriceStep> {
    from_column(column)
}

/// The steps as they are published to the nodes.
pub fn published_steps(column: Option<&str>) -> Vec<common::PriceStep> {
    let published = |it: pb::PriceStep| common::PriceStep {
        above_input_tokens: it.above_input_tokens,
        service_tier: it.service_tier,
        input: it.input,
        output: it.output,
        cache_read: it.cache_read,
        cache_write: it.cache_write,
        cache_write_1h: it.cache_write_1h,
        reasoning: it.reasoning,
    };
    steps(column).into_iter().map(published).collect()
}

/// What a request consumed, from its usage event: at most [`MAX_MEASURES`], each text cut to a bound.
pub fn measures_to_column(measures: Vec<common::Measure>) -> Option<String> {
    let units: Vec<_> = measures
        .into_iter()
        .take(MAX_MEASURES)
        .map(|it| pb::RequestUnit {
            unit: short(it.unit),
            quantity: it.quantity,
            quality: short(it.quality),
            size: short(it.size),
        })
        .collect();
    to_column(&units)
}

pub fn measures(column: Option<&str>) -> Vec<pb::RequestUnit> {
    from_column(column)
}

/// A request has a handful at most.
const MAX_MEASURES: usize = 16;
const MAX_TEXT: usize = 64;

/// Without NUL, which Postgres can't store in text.
fn short(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    text.replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_survives_its_column_and_nothing_is_null() {
        let price =
            pb::UnitPrice { unit: "images".into(), quality: "hd".into(), size: String::new(), price: 4 };
        let column = prices_to_column(std::slice::from_ref(&price)).unwrap();
        assert_eq!(prices(Some(&column)), [price]);
        assert_eq!(published_prices(Some(&column))[0].quality, "hd");
        assert_eq!((prices_to_column(&[]), prices(None)), (None, Vec::new()));
        let step = pb::PriceStep {
            above_input_tokens: 200_000,
            service_tier: "flex".into(),
            input: Some(3),
            ..Default::default()
        };
        let column = steps_to_column(std::slice::from_ref(&step)).unwrap();
        assert_eq!(steps(Some(&column)), [step]);
        assert_eq!(published_steps(Some(&column))[0].input, Some(3));
    }

    #[test]
    fn what_a_node_sends_is_cut_to_bounds() {
        let measure = common::Measure { unit: "x".repeat(1000), quantity: 7, ..Default::default() };
        let column = measures_to_column(vec![measure; 100]).unwrap();
        let read = measures(Some(&column));
        assert_eq!((read.len(), read[0].unit.len(), read[0].quantity), (MAX_MEASURES, MAX_TEXT, 7));
    }
}
