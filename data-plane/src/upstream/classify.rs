//! What an upstream's answer means for the client (requirements B2, B3, B4). Called by `pipeline::dispatch`.

use http::{HeaderMap, StatusCode, header};
use nemo_runtime::clock;

/// There was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent.
    ConnectTimeout,
    /// The head did not come in time.
    Timeout,
    /// The connection broke before the head was complete.
    Broken,
    /// What came is no HTTP.
    Protocol,
}

impl CallError {
    pub(super) fn from_hyper(error: &hyper::Error) -> Self {
        if error.is_parse() { Self::Protocol } else { Self::Broken }
    }

    /// For headers, metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Protocol => "protocol",
        }
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Success,
    /// The client's fault as the upstream sees it: pass it through.
    ClientFault,
    /// Our credential or our account: never shown as the client's 401.
    CredentialFault,
    /// Too many requests, with the upstream's hint in seconds.
    RateLimited { retry_after_secs: Option<u64> },
    /// The upstream failed.
    Failure,
}

/// Judges a status and its headers.
pub fn classify(status: StatusCode, headers: &HeaderMap) -> Verdict {
    match status.as_u16() {
        200..=299 => Verdict::Success,
        401..=403 => Verdict::CredentialFault,
        429 => Verdict::RateLimited { retry_after_secs: retry_after_secs(headers) },
        408 | 500..=599 => Verdict::Failure,
        400..=499 => Verdict::ClientFault,
        // We follow no redirects, and an informational final status is no answer.
        _ => Verdict::Failure,
    }
}

/// The `retry-after` of an answer in whole seconds: a number or an HTTP date (RFC 9110 section 10.2.3), or
/// `retry-after-ms`. Hints of more than a day are taken for nonsense.
fn retry_after_secs(headers: &HeaderMap) -> Option<u64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let millis = || text("retry-after-ms")?.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms >= 0.0);
    let seconds = || {
        let text = text(header::RETRY_AFTER.as_str())?;
        text.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0).or_else(|| {
            let at = httpdate::parse_http_date(text).ok()?;
            let at = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
            #[expect(clippy::cast_precision_loss, reason = "bounded by a day below")]
            let wait = at.saturating_sub(clock::unix_ms() / 1000) as f64;
            Some(wait)
        })
    };
    let hint = millis().map(|ms| ms / 1000.0).or_else(seconds)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 86 400")]
    (hint <= 86_400.0).then(|| hint.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, headers: &[(&'static str, &str)]) -> Verdict {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        classify(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn statuses_mean_what_the_decisions_say() {
        for (status, expected) in [
            (200, Verdict::Success),
            (400, Verdict::ClientFault),
            (401, Verdict::CredentialFault),
            (402, Verdict::CredentialFault),
            (403, Verdict::CredentialFault),
            (404, Verdict::ClientFault),
            (408, Verdict::Failure),
            (422, Verdict::ClientFault),
            (302, Verdict::Failure),
            (500, Verdict::Failure),
            (529, Verdict::Failure),
        ] {
            assert_eq!(verdict(status, &[]), expected, "{status}");
        }
    }

    /// R004-16, C14.
    #[test]
    fn every_form_of_retry_after_is_read() {
        let hint = |headers: &[(&'static str, &str)]| match verdict(429, headers) {
            Verdict::RateLimited { retry_after_secs } => retry_after_secs,
            other => panic!("{other:?}"),
        };
        assert_eq!(hint(&[]), None);
        assert_eq!(hint(&[("retry-after", "2")]), Some(2));
        assert_eq!(hint(&[("retry-after", "1.2")]), Some(2));
        assert_eq!(hint(&[("retry-after-ms", "1500"), ("retry-after", "9")]), Some(2));
        assert_eq!(hint(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(0));
        for nonsense in ["soon", "-1", "999999999", "NaN"] {
            assert_eq!(hint(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }
}
