//! Checks on what callers send. Every refusal names the member and says what was expected. Called by the operations.

mod price;

use std::str::FromStr;

use nemo_proto::Timestamp;
use nemo_snapshot::{Strategy, base_url};
use time::{Duration, OffsetDateTime};

pub(super) use self::price::price;
use super::{AdminError, Role, roles::UnknownRole};

pub(super) const MAX_PAGE: u32 = 1000;
const DEFAULT_PAGE: u32 = 100;
pub(super) const MAX_WEIGHT: u32 = 1_000_000;

/// The present, to the microsecond as PostgreSQL stores it.
pub(crate) fn now() -> OffsetDateTime {
    let micros = i128::from(nemo_runtime::clock::unix_us());
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// An id in its text form.
pub(super) fn id<T: FromStr>(field: &str, text: &str) -> Result<T, AdminError> {
    text.parse().map_err(|_| {
        let message = if text.is_empty() { "missing".to_owned() } else { format!("{text:?} is not an id") };
        AdminError::invalid(field, message, "an id such as 01890a5d-ac96-774b-bcce-b302099a8057")
    })
}

/// A name for people.
pub(super) fn name(field: &str, text: &str) -> Result<(), AdminError> {
    let expected = "1 to 128 characters, no control characters, no space at either end";
    let message = if text.is_empty() {
        "missing"
    } else if text.chars().count() > 128 {
        "too long"
    } else if text.chars().any(char::is_control) {
        "contains control characters"
    } else if text.trim() != text {
        "starts or ends with a space"
    } else {
        return Ok(());
    };
    Err(AdminError::invalid(field, message, expected))
}

/// An e-mail address, as far as its form tells; lower case afterwards.
pub(super) fn email(field: &str, text: &str) -> Result<String, AdminError> {
    let well_formed = text.len() <= 254
        && text.split_once('@').is_some_and(|(local, domain)| {
            (1..=64).contains(&local.len())
                && !domain.is_empty()
                && !domain.contains('@')
                && !domain.starts_with('.')
                && !domain.ends_with('.')
        })
        && text.chars().all(|c| !c.is_control() && !c.is_whitespace() && !"<>(),;:\"\\[]".contains(c));
    if well_formed {
        Ok(text.to_lowercase())
    } else {
        Err(AdminError::invalid(field, "not an e-mail address", "name@example.com"))
    }
}

/// Who somebody is at the OIDC issuer.
pub(super) fn subject(field: &str, text: &str) -> Result<String, AdminError> {
    if (1..=255).contains(&text.len()) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let expected = "1 to 255 characters, none of them a control character";
    Err(AdminError::invalid(field, "can't be a subject", expected))
}

pub(super) fn role(field: &str, text: &str) -> Result<Role, AdminError> {
    text.parse().map_err(|_: UnknownRole| {
        AdminError::invalid(field, format!("{text:?} is not a role"), "one of: owner, admin, member, viewer")
    })
}

/// Id of a provider, a tag, an endpoint: lower case, digits, `-`, `_`, `.`.
pub(crate) fn slug(field: &str, text: &str) -> Result<(), AdminError> {
    let well_formed = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if well_formed {
        return Ok(());
    }
    let message = if text.is_empty() { "missing".to_owned() } else { format!("{text:?} has another form") };
    Err(AdminError::invalid(field, message, "1 to 64 of a-z 0-9 - _ . starting with a letter or digit"))
}

/// What can stand in `model`.
pub(crate) fn model_name(field: &str, text: &str) -> Result<(), AdminError> {
    let well_formed = (1..=256).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if well_formed {
        return Ok(());
    }
    let message = if text.is_empty() { "missing".to_owned() } else { format!("{text:?} has another form") };
    Err(AdminError::invalid(
        field,
        message,
        "1 to 256 of A-Z a-z 0-9 . _ : / @ - starting with a letter or digit",
    ))
}

/// Text to look for. Empty: not restricted. PostgreSQL can't even be asked for a NUL character.
pub(super) fn filter(field: &str, text: String) -> Result<Option<String>, AdminError> {
    if text.len() > 256 || text.chars().any(char::is_control) {
        let expected = "at most 256 characters, none of them a control character";
        return Err(AdminError::invalid(field, "can't be found", expected));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

pub(super) fn at_most(field: &str, found: usize, most: usize) -> Result<(), AdminError> {
    if found <= most {
        return Ok(());
    }
    Err(AdminError::invalid(field, format!("{found} entries"), format!("at most {most}")))
}

/// Where a provider's API is; without trailing slash afterwards.
pub(super) fn base_url(field: &str, text: &str) -> Result<String, AdminError> {
    let expected = format!("{} without user, query and fragment", base_url::EXPECTED);
    let refuse = |message: &str| Err(AdminError::invalid(field, message, &*expected));
    if text.len() > 2048 {
        return refuse("longer than 2048 characters");
    }
    let uri = match base_url::parse(text) {
        Ok(uri) => uri,
        Err(problem) => return refuse(problem),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return refuse("credentials do not belong into a URL: make a credential");
    }
    // `Uri` drops fragments without a word.
    if uri.query().is_some() || text.contains('#') {
        return refuse("has a query or fragment");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// The same of Azure's, which may end with the version of its interface: `https://host?api-version=2024-10-21`.
pub(super) fn azure_base_url(field: &str, text: &str) -> Result<String, AdminError> {
    let Some((base, version)) = text.split_once("?api-version=") else { return base_url(field, text) };
    let of_version = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !(1..=64).contains(&version.len()) || !version.bytes().all(of_version) {
        let expected = "a version such as 2024-10-21 or 2025-04-01-preview";
        return Err(AdminError::invalid(field, "has no version behind `?api-version=`", expected));
    }
    Ok(format!("{}?api-version={version}", base_url(field, base)?))
}

/// Providers whose secrets may be JSON that nodes sign or ask for tokens with, and the members that it can't do without:
/// Google's key file of a service account, an access key of AWS.
const JSON_SECRETS: [(&str, &[&str]); 2] = [
    ("google-vertex", &["client_email", "private_key"]),
    ("bedrock", &["access_key_id", "secret_access_key"]),
];

/// A provider's secret: something that fits into a header, or JSON where the provider has such secrets.
pub(super) fn secret(field: &str, provider: &str, text: &str) -> Result<(), AdminError> {
    let expected = "1 to 8192 visible ASCII characters";
    // The value itself must not show up in the message.
    let refuse = |message: &str, expected: &str| Err(AdminError::invalid(field, message, expected));
    if !(1..=8192).contains(&text.len()) || text.trim() != text {
        return refuse(if text.is_empty() { "missing" } else { "can't be sent in a header" }, expected);
    }
    let json = JSON_SECRETS.iter().find(|(of, _)| *of == provider && text.starts_with('{'));
    if let Some((_, members)) = json {
        let object: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let has = |name: &str| {
            let aws = format!("aws_{name}");
            [name, &aws, &aws.to_uppercase(), &pascal(name)].iter().any(|name| object[*name].is_string())
        };
        return match members.iter().all(|name| has(name)) {
            true => Ok(()),
            false => refuse(
                "is no such JSON",
                &format!("a JSON object with the strings {}, or a key that is no JSON", members.join(", ")),
            ),
        };
    }
    if text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return Ok(());
    }
    refuse("can't be sent in a header", expected)
}

/// `access_key_id` as AWS's own answers have it: `AccessKeyId`.
fn pascal(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').filter(|word| !word.is_empty()).map(capital).collect()
}

pub(super) fn weight(field: &str, weight: u32) -> Result<i64, AdminError> {
    if weight <= MAX_WEIGHT {
        return Ok(i64::from(weight));
    }
    Err(AdminError::invalid(field, format!("{weight} is too large"), format!("0 to {MAX_WEIGHT}")))
}

/// Empty: the default of whoever is above.
pub(super) fn strategy(field: &str, text: &str) -> Result<(), AdminError> {
    if text.is_empty() || text.parse::<Strategy>().is_ok() {
        return Ok(());
    }
    Err(AdminError::invalid(field, format!("{text:?} is not a strategy"), one_of_strategies()))
}

pub(super) fn one_of_strategies() -> String {
    let names: Vec<_> = Strategy::ALL.iter().map(|strategy| strategy.name()).collect();
    format!("one of: {}", names.join(", "))
}

/// A time that has not passed yet.
pub(super) fn expiry(field: &str, at: Option<Timestamp>) -> Result<Option<OffsetDateTime>, AdminError> {
    let Some(at) = at else { return Ok(None) };
    // PostgreSQL's and JSON's years end before ours do.
    let latest = now() + Duration::days(36_525);
    match at.to_time() {
        Some(at) if at > now() && at < latest => Ok(Some(at)),
        Some(_) => Err(AdminError::invalid(field, "not in the future", "a time in the next 100 years")),
        None => Err(AdminError::invalid(field, "not a time", "a time in the next 100 years")),
    }
}

/// A time in a filter.
pub(super) fn time(field: &str, at: Option<Timestamp>) -> Result<Option<OffsetDateTime>, AdminError> {
    let Some(at) = at else { return Ok(None) };
    let years = OffsetDateTime::UNIX_EPOCH..OffsetDateTime::UNIX_EPOCH + Duration::days(365_000);
    let at = at.to_time().filter(|at| years.contains(at));
    at.map(Some).ok_or_else(|| AdminError::invalid(field, "not a time", "a time from 1970 on"))
}

pub(super) fn page_size(size: u32) -> Result<u32, AdminError> {
    match size {
        0 => Ok(DEFAULT_PAGE),
        1..=MAX_PAGE => Ok(size),
        _ => Err(AdminError::invalid(
            "page_size",
            format!("{size} is too large"),
            format!("1 to {MAX_PAGE}, or nothing for {DEFAULT_PAGE}"),
        )),
    }
}

#[cfg(test)]
mod tests;
