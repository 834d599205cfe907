//! AWS Signature Version 4: proves with an access key that a request is its owner's, without sending the secret. Pure:
//! takes the time, returns headers. Called by the data plane for each attempt at a deployment of Bedrock, after the body
//! is known.
//!
//! Written here and not taken from AWS's crates, which would bring an async runtime and an HTTP stack into a crate that
//! has neither; checked against signatures that botocore made (`sigv4/tests.rs`).

use std::fmt::{self, Write as _};

use ring::{digest, hmac};
use serde::Deserialize;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What a Bedrock deployment's secret holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A Bedrock API key, to be sent as a bearer token.
    Bearer(String),
    Keys(Keys),
}

/// An access key of IAM.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// No secret: it travels with every request.
    pub id: String,
    pub secret: String,
    /// Of temporary keys.
    pub token: Option<String>,
    /// Where the base URL doesn't say it.
    pub region: Option<String>,
}

/// The names are those of AWS's own files, environment and answers.
#[derive(Deserialize)]
struct Written {
    #[serde(alias = "aws_access_key_id", alias = "AWS_ACCESS_KEY_ID", alias = "AccessKeyId")]
    access_key_id: String,
    #[serde(alias = "aws_secret_access_key", alias = "AWS_SECRET_ACCESS_KEY", alias = "SecretAccessKey")]
    secret_access_key: String,
    #[serde(alias = "aws_session_token", alias = "AWS_SESSION_TOKEN", alias = "SessionToken")]
    session_token: Option<String>,
    #[serde(alias = "aws_region", alias = "AWS_REGION", alias = "AWS_DEFAULT_REGION")]
    region: Option<String>,
}

/// A secret that is an object, but no access key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a Bedrock API key, or a JSON object with the strings `access_key_id` and `secret_access_key` and, where \
     needed, `session_token` and `region`"
)]
pub struct CredentialError;

impl Credential {
    /// # Errors
    /// When it is empty, or a JSON object without the members of an access key.
    pub fn parse(secret: &str) -> Result<Self, CredentialError> {
        let secret = secret.trim();
        if secret.is_empty() {
            return Err(CredentialError);
        }
        if !secret.starts_with('{') {
            return Ok(Self::Bearer(secret.to_owned()));
        }
        // The cause is not passed on: it may quote the secret.
        let written: Written = serde_json::from_str(secret).map_err(|_| CredentialError)?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        if written.access_key_id.is_empty() || written.secret_access_key.is_empty() {
            return Err(CredentialError);
        }
        Ok(Self::Keys(Keys {
            id: written.access_key_id,
            secret: written.secret_access_key,
            token: given(written.session_token),
            region: given(written.region),
        }))
    }
}

/// Shows no secret (I10).
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bearer(_) => f.write_str("Bearer(…)"),
            Self::Keys(keys) => keys.fmt(f),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).field("region", &self.region).finish_non_exhaustive()
    }
}

/// The region of a host of AWS, of the public ones and of those inside a network: `bedrock-runtime.us-east-1.amazonaws.com`,
/// `vpce-0a1.bedrock-runtime.us-east-1.vpce.amazonaws.com`.
pub fn region_of_host(host: &str) -> Option<&str> {
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let mut labels = host.split('.').skip_while(|label| !label.starts_with("bedrock-runtime"));
    labels.next()?;
    labels.next().filter(|region| region.contains('-'))
}

/// What is signed of a request.
#[derive(Clone, Copy, Debug)]
pub struct Signable<'a> {
    /// In capitals.
    pub method: &'a str,
    /// As in the `host` header: with the port, if there is one in the URL.
    pub host: &'a str,
    /// As it is sent, escapes included.
    pub path: &'a str,
    /// As it is sent, without the question mark; empty: none.
    pub query: &'a str,
    /// Of the whole body.
    pub body: BodyHash,
}

/// SHA-256 of a body.
#[derive(Clone, Copy)]
pub struct BodyHash([u8; 32]);

impl BodyHash {
    /// Of a body that may lie in several pieces.
    pub fn of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for piece in pieces {
            context.update(piece);
        }
        Self(array(context.finish().as_ref()))
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The headers to be added to the request, as they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// `authorization`
    pub authorization: String,
    /// `x-amz-date`
    pub date: String,
    /// `x-amz-security-token`, of temporary keys.
    pub token: Option<String>,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("date", &self.date).finish_non_exhaustive()
    }
}

/// Signs for `service` (`bedrock`) in `region`, at `now`, in seconds since the epoch. AWS takes the signature for a few
/// minutes around it. Only the host and what is returned is signed, so that other headers may still be added.
pub fn sign(keys: &Keys, region: &str, service: &str, request: &Signable<'_>, now: u64) -> Signed {
    let date = basic_time(now);
    let day = &date[..8];
    let names = if keys.token.is_some() { "host;x-amz-date;x-amz-security-token" } else { "host;x-amz-date" };
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let canonical = hex(&sha256(canonical_request(keys, request, names, &date).as_bytes()));
    let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{canonical}");

    let mut key = mac(format!("AWS4{}", keys.secret).as_bytes(), day.as_bytes());
    for part in [region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature = hex(&mac(&key, to_sign.as_bytes()));
    Signed {
        authorization: format!(
            "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
            keys.id
        ),
        token: keys.token.clone(),
        date,
    }
}

fn canonical_request(keys: &Keys, request: &Signable<'_>, names: &str, date: &str) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(request.method);
    text.push('\n');
    // All services but S3 escape the path that is sent, escapes and all, once more.
    escape(if request.path.is_empty() { "/" } else { request.path }, b"/", &mut text);
    text.push('\n');
    push_query(request.query, &mut text);
    text.push_str("\nhost:");
    text.push_str(request.host.trim());
    text.push_str("\nx-amz-date:");
    text.push_str(date);
    if let Some(token) = &keys.token {
        text.push_str("\nx-amz-security-token:");
        text.push_str(token.trim());
    }
    text.push_str("\n\n");
    text.push_str(names);
    text.push('\n');
    text.push_str(&hex(&request.body.0));
    text
}

/// Sorted, and with an equals sign behind every name.
fn push_query(query: &str, out: &mut String) {
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    for (at, (name, value)) in pairs.into_iter().enumerate() {
        if at > 0 {
            out.push('&');
        }
        // What is escaped already stays as it is.
        escape(name, b"%", out);
        out.push('=');
        escape(value, b"%", out);
    }
}

/// Everything but letters, digits, `-._~` and the bytes of `keep`.
fn escape(text: &str, keep: &[u8], out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing into a string can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    array(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text).as_ref())
}

fn sha256(text: &[u8]) -> [u8; 32] {
    array(digest::digest(&digest::SHA256, text).as_ref())
}

/// What SHA-256 gives is always this long.
fn array(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// `20250820T143207Z`
fn basic_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day since the epoch, in the Gregorian calendar. Counts from a first of March, so that the
/// day that leap years have is the last of a year, and in eras of 400 years, which are all equally long.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days / ERA, days % ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
