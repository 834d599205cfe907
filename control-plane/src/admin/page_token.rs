//! Page tokens: opaque to clients, plain hexadecimal inside. They say where the page before ended, nothing that needs
//! protection: what a page shows is decided by the query it is used with.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{AdminError, validate};
use crate::store::{Page, request_log::Position, usage_query};

fn malformed() -> AdminError {
    AdminError::invalid(
        "page_token",
        "not a page token of this list",
        "the next_page_token of the page before",
    )
}

/// `page_size` and `page_token` of a list by id.
pub(super) fn page(size: u32, token: &str) -> Result<Page, AdminError> {
    let after = if token.is_empty() { None } else { Some(Uuid::try_parse(token).map_err(|_| malformed())?) };
    Ok(Page { after, size: validate::page_size(size)? })
}

pub(super) fn next(next: Option<Uuid>) -> String {
    next.map(|id| id.simple().to_string()).unwrap_or_default()
}

/// A list by text, such as model ids.
pub(super) fn from_text(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

pub(super) fn to_text(token: &str) -> Result<String, AdminError> {
    if !token.is_ascii() || !token.len().is_multiple_of(2) {
        return Err(malformed());
    }
    let bytes: Result<Vec<u8>, _> =
        (0..token.len()).step_by(2).map(|at| u8::from_str_radix(&token[at..at + 2], 16)).collect();
    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    text.filter(|text| !text.contains('\0')).ok_or_else(malformed)
}

/// A place in the request log: 16 digits of microseconds, 32 of the id.
pub(super) fn from_position(position: Position) -> String {
    let micros = position.started_at.unix_timestamp_nanos() / 1000;
    let micros = u64::try_from(micros).unwrap_or_default();
    format!("{micros:016x}{}", position.request_id.simple())
}

pub(super) fn to_position(token: &str) -> Result<Option<Position>, AdminError> {
    if token.is_empty() {
        return Ok(None);
    }
    let (micros, id) = token.split_at_checked(16).ok_or_else(malformed)?;
    let micros = u64::from_str_radix(micros, 16).map_err(|_| malformed())?;
    let started_at =
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).map_err(|_| malformed())?;
    Ok(Some(Position { started_at, request_id: Uuid::try_parse(id).map_err(|_| malformed())? }))
}

/// A place in a list of sums.
pub(super) fn from_usage_position(position: &usage_query::Position) -> String {
    // Strings and numbers: they always have a JSON form.
    from_text(&serde_json::to_string(position).unwrap_or_default())
}

pub(super) fn to_usage_position(token: &str) -> Result<Option<usage_query::Position>, AdminError> {
    if token.is_empty() {
        return Ok(None);
    }
    let position: usage_query::Position = serde_json::from_str(&to_text(token)?).map_err(|_| malformed())?;
    let digits = position.rank.strip_prefix('-').unwrap_or(&position.rank);
    let number = (1..=40).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let within_years = (-100_000_000_000_000_000..100_000_000_000_000_000).contains(&position.start_us);
    // A NUL character would be an error of the database.
    if !number || !within_years || position.group.iter().any(|text| text.contains('\0')) {
        return Err(malformed());
    }
    Ok(Some(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip() {
        let id = Uuid::now_v7();
        assert_eq!(page(0, &next(Some(id))).unwrap().after, Some(id));
        assert_eq!(to_text(&from_text("openai/gpt-5.2")).unwrap(), "openai/gpt-5.2");
        let started_at = OffsetDateTime::from_unix_timestamp_nanos(1_790_000_000_123_456_000).unwrap();
        let position = Position { started_at, request_id: id };
        assert_eq!(to_position(&from_position(position)).unwrap(), Some(position));
        let group = ["o", "t", "k", "openai/m", "p", "chat.completions"].map(str::to_owned);
        let position = usage_query::Position { rank: "-42".into(), start_us: 1_790_000_000_000_000, group };
        assert_eq!(to_usage_position(&from_usage_position(&position)).unwrap(), Some(position));
    }

    #[test]
    fn other_text_is_refused_by_name() {
        for token in ["x", "zz", "é1", "ffffffffffffffff"] {
            assert_eq!(page(0, token).unwrap_err().field.as_deref(), Some("page_token"), "{token}");
            assert_eq!(to_position(token).unwrap_err().field.as_deref(), Some("page_token"), "{token}");
        }
        let place = |rank: &str, start_us, text: &str| {
            let group = std::array::from_fn(|_| text.to_owned());
            from_usage_position(&usage_query::Position { rank: rank.into(), start_us, group })
        };
        for token in [
            place("1e9", 0, ""),
            place("-", 0, ""),
            place("0", i64::MAX, ""),
            place("0", 0, "\0"),
            "7b".into(),
        ] {
            assert_eq!(
                to_usage_position(&token).unwrap_err().field.as_deref(),
                Some("page_token"),
                "{token}"
            );
        }
        assert!(to_text("f").is_err() && to_text("ff").is_err() && to_text("é").is_err());
        assert!(to_text("00").is_err(), "no text for PostgreSQL");
    }
}
