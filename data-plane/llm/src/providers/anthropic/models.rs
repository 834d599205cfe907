//! The model list as Anthropic's clients expect it. Called by the data plane for `/v1/models` when the request has an
//! `anthropic-version` header.

use super::writer::{Array, Object};

/// One model of the list.
#[derive(Clone, Copy, Debug)]
pub struct ListedModel<'a> {
    pub id: &'a str,
    pub display_name: &'a str,
    /// Seconds since the epoch; 0: unknown, which Anthropic writes as the epoch too.
    pub created: u64,
    /// Tokens; `None`: unknown.
    pub max_input: Option<u64>,
    pub max_output: Option<u64>,
}

/// A page of the list. `has_more`: there are models behind the last one.
pub fn render_list(models: &[ListedModel<'_>], has_more: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + models.len() * 160);
    let mut list = Object::open(&mut out);
    let mut data = Array::open(list.member("data"));
    for model in models {
        write(data.item(), model);
    }
    data.close();
    list.value("has_more", has_more);
    list.value("first_id", models.first().map(|model| model.id));
    list.value("last_id", models.last().map(|model| model.id));
    list.close();
    out
}

/// One model alone.
pub fn render(model: &ListedModel<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    write(&mut out, model);
    out
}

fn write(out: &mut Vec<u8>, model: &ListedModel<'_>) {
    let mut object = Object::open(out);
    object.value("type", "model");
    object.value("id", model.id);
    object.value("display_name", model.display_name);
    object.value("created_at", rfc3339(model.created));
    // What has no limits that anybody told has none in the list either.
    if let Some(tokens) = model.max_input {
        object.value("max_input_tokens", tokens);
    }
    if let Some(tokens) = model.max_output {
        object.value("max_tokens", tokens);
    }
    object.close();
}

/// The last second that has a year of four digits.
const LAST: u64 = 253_402_300_799;

/// The civil date of a count of days by the algorithm of proleptic Gregorian eras, which are of 146,097 days.
fn rfc3339(seconds: u64) -> String {
    let seconds = seconds.min(LAST);
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on, so that the leap day is the last one.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year_of_era + era * 400 + next;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E.5, E.7: the shape that `anthropic`'s `client.models.list()` parses.
    #[test]
    fn a_list_has_anthropics_shape() {
        let model = ListedModel {
            id: "claude-sonnet-4-5",
            display_name: "Claude \"Sonnet\" 4.5",
            created: 1_759_104_000,
            max_input: Some(200_000),
            max_output: None,
        };
        let one = r#"{"type":"model","id":"claude-sonnet-4-5","display_name":"Claude \"Sonnet\" 4.5","created_at":"2025-09-29T00:00:00Z","max_input_tokens":200000}"#;
        assert_eq!(String::from_utf8(render(&model)).unwrap(), one);
        let list = String::from_utf8(render_list(&[model], true)).unwrap();
        let rest = r#""has_more":true,"first_id":"claude-sonnet-4-5","last_id":"claude-sonnet-4-5"}"#;
        assert_eq!(list, format!(r#"{{"data":[{one}],{rest}"#));
        let empty = String::from_utf8(render_list(&[], false)).unwrap();
        assert_eq!(empty, r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
    }

    #[test]
    fn dates_are_civil() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }
}
