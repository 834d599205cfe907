//! Stripe's scheme: `Stripe-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256 over "t.body">`, with one `v1` for each
//! secret that the provider signs with at the moment. Pure.

use std::fmt;

use nemo_types::Secret;
use ring::hmac;

/// How far a signature's time may be from ours: older ones may be replays.
pub const TOLERANCE_SECONDS: i64 = 300;
/// Longest header that is looked at, and most signatures in it.
const MAX_HEADER: usize = 4096;
const MAX_SIGNATURES: usize = 16;
/// Most secrets, and the shortest that is one.
const MAX_SECRETS: usize = 8;
const MIN_SECRET: usize = 16;

/// What the provider signs with: one secret, or several while they are being exchanged.
#[derive(Clone)]
pub struct EndpointSecrets(Vec<hmac::Key>);

/// Says how many there are and nothing else.
impl fmt::Debug for EndpointSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EndpointSecrets({})", self.0.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the signing secret of the provider's webhook (whsec_…), up to {MAX_SECRETS} separated by white space"
)]
pub struct BadSecrets;

impl EndpointSecrets {
    /// Secrets separated by white space. `None`: there are none, so payments are not taken.
    ///
    /// # Errors
    /// When one is too short to be a secret, or there are too many.
    pub fn parse(text: &Secret) -> Result<Option<Self>, BadSecrets> {
        let secrets: Vec<&str> = text.expose().split_whitespace().collect();
        if secrets.len() > MAX_SECRETS || secrets.iter().any(|secret| secret.len() < MIN_SECRET) {
            return Err(BadSecrets);
        }
        // The whole text is the key, its prefix included.
        let keys = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        Ok((!secrets.is_empty()).then(|| Self(keys.collect())))
    }

    /// Whether the body was signed by the provider, and just now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, header: &str, body: &[u8], now_unix: i64) -> Result<(), Unsigned> {
        let Header { at, signatures } = Header::parse(header)?;
        let mut signed = at.to_string().into_bytes();
        signed.push(b'.');
        signed.extend_from_slice(body);
        // `verify` compares in constant time.
        let good = |key: &hmac::Key| signatures.iter().any(|tag| hmac::verify(key, &signed, tag).is_ok());
        if !self.0.iter().any(good) {
            return Err(Unsigned::NoMatch);
        }
        if now_unix.abs_diff(at) > TOLERANCE_SECONDS.unsigned_abs() {
            return Err(Unsigned::Stale { seconds: now_unix.saturating_sub(at) });
        }
        Ok(())
    }
}

/// Why an event is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsigned {
    #[error("the header is missing")]
    Missing,
    #[error("the header has another form")]
    Malformed,
    #[error("no signature matches the body")]
    NoMatch,
    #[error("signed {seconds} s ago, which is not within {TOLERANCE_SECONDS} s: it may be a replay")]
    Stale { seconds: i64 },
}

struct Header {
    at: i64,
    signatures: Vec<[u8; 32]>,
}

impl Header {
    fn parse(header: &str) -> Result<Self, Unsigned> {
        let (mut at, mut signatures) = (None, Vec::new());
        if header.len() > MAX_HEADER {
            return Err(Unsigned::Malformed);
        }
        for part in header.split(',') {
            let (name, value) = part.trim().split_once('=').ok_or(Unsigned::Malformed)?;
            match name {
                "t" if at.is_none() => at = Some(seconds(value).ok_or(Unsigned::Malformed)?),
                "t" => return Err(Unsigned::Malformed),
                // Not hexadecimal: it can't match, others may.
                "v1" if signatures.len() < MAX_SIGNATURES => signatures.extend(tag(value)),
                // Schemes that are not to be trusted (v0) or not known.
                _ => {}
            }
        }
        Ok(Self { at: at.ok_or(Unsigned::Malformed)?, signatures })
    }
}

/// Only as the provider writes it: the text is part of what was signed.
fn seconds(text: &str) -> Option<i64> {
    let canonical = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    canonical.then(|| text.parse().ok()).flatten()
}

fn tag(hex: &str) -> Option<[u8; 32]> {
    let mut tag = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in tag.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(tag)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::admin::entity::hex;

    pub(crate) const SECRET: &str = "whsec_test_1234567890";

    pub(crate) fn sign(secret: &str, at: i64, body: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signed = [format!("{at}.").as_bytes(), body].concat();
        hex(hmac::sign(&key, &signed).as_ref())
    }

    fn secrets(text: &str) -> EndpointSecrets {
        EndpointSecrets::parse(&Secret::new(text)).unwrap().unwrap()
    }

    /// HMAC-SHA256 as another implementation computes it: `printf '1492774577.{"id":"evt_1"}' | openssl dgst -sha256
    /// -hmac whsec_test_1234567890`.
    #[test]
    fn a_signature_of_another_implementation_is_accepted() {
        let body = br#"{"id":"evt_1"}"#;
        let header = "t=1492774577,v1=ef6a0c3b16c2d9abf8f4fc8a4ef0f0a1f2d5f7a4b27c1d8d1e2f3a4b5c6d7e8f,\
                      v1=OPENSSL,v0=00";
        let header = header.replace("OPENSSL", OPENSSL);
        assert_eq!(secrets(SECRET).verify(&header, body, 1_492_774_600), Ok(()));
    }
    const OPENSSL: &str = "d834575c4fb396dd75901921b2de02307bedc25b252396c53e77d0c372f2608c";

    #[test]
    fn what_was_not_signed_so_or_not_now_is_refused() {
        let (body, at) = (b"{}".as_slice(), 1_700_000_000);
        let good = sign(SECRET, at, body);
        let header = |t: &str, v1: &str| format!("t={t},v1={v1}");
        let all = secrets(SECRET);
        assert_eq!(all.verify(&header("1700000000", &good), body, at), Ok(()));
        for offset in [-300, 300] {
            assert_eq!(all.verify(&header("1700000000", &good), body, at + offset), Ok(()), "{offset}");
        }
        for offset in [-301, 301, i64::MAX - at] {
            let verified = all.verify(&header("1700000000", &good), body, at + offset);
            assert!(matches!(verified, Err(Unsigned::Stale { .. })), "{offset}");
        }
        for (text, signed, error) in [
            (header("1700000000", &good), b"{ }".as_slice(), Unsigned::NoMatch),
            (header("1700000001", &good), body, Unsigned::NoMatch),
            (header("1700000000", &sign("whsec_another_secret", at, body)), body, Unsigned::NoMatch),
            (header("1700000000", &good[1..]), body, Unsigned::NoMatch),
            (format!("t=1700000000,v0={good}"), body, Unsigned::NoMatch),
            ("t=1700000000".to_owned(), body, Unsigned::NoMatch),
            (format!("v1={good}"), body, Unsigned::Malformed),
            (header("+1700000000", &good), body, Unsigned::Malformed),
            (header("01700000000", &good), body, Unsigned::Malformed),
            (format!("t=1700000000,t=1700000000,v1={good}"), body, Unsigned::Malformed),
            (String::new(), body, Unsigned::Malformed),
            ("é".to_owned(), body, Unsigned::Malformed),
            (header("1700000000", &"0".repeat(5000)), body, Unsigned::Malformed),
        ] {
            assert_eq!(all.verify(&text, signed, at), Err(error), "{text}");
        }
    }

    #[test]
    fn while_secrets_are_exchanged_either_is_good() {
        let (body, at) = (b"{}".as_slice(), 1_700_000_000);
        let both = secrets("whsec_old_1234567890\n whsec_new_1234567890");
        for secret in ["whsec_old_1234567890", "whsec_new_1234567890"] {
            let header = format!("t={at},v1={},v1={}", "00".repeat(32), sign(secret, at, body));
            assert_eq!(both.verify(&header, body, at), Ok(()), "{secret}");
        }
    }

    #[test]
    fn secrets_are_not_shown_and_short_ones_are_none() {
        assert_eq!(format!("{:?}", secrets(SECRET)), "EndpointSecrets(1)");
        assert!(EndpointSecrets::parse(&Secret::new(" ")).unwrap().is_none());
        assert!(EndpointSecrets::parse(&Secret::new("short")).is_err());
        assert!(EndpointSecrets::parse(&Secret::new(format!("{SECRET} ").repeat(9))).is_err());
    }
}
