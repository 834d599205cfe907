//! When an upstream says that it may be asked again (requirements E.2, C14): every form that providers use, read from
//! the head and the body of a refusal. Pure; called by `pipeline::dispatch`.
//!
//! `retry-after` and its relatives are what the upstream means. What it tells of its limits in general
//! (`x-ratelimit-reset-*`, `anthropic-ratelimit-*-reset`) is in every answer, so it counts for a 429 only, and only
//! of limits that are not said to have something left.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A hint beyond this is taken for nonsense.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Numbers above this are points in time in seconds since 1970, and above a thousand times this in milliseconds.
const EPOCH: f64 = 1_000_000_000.0;

/// Reads the hint of an answer with this status. `now_ms`: since 1970, to tell how far away points in time are.
pub fn read(status: u16, headers: &HeaderMap, body: &[u8], now_ms: u64) -> Option<Duration> {
    let meant = text(headers, "retry-after-ms")
        .and_then(millis)
        .or_else(|| millis(text(headers, "x-ms-retry-after-ms")?))
        .or_else(|| retry_after(text(headers, "retry-after")?, now_ms))
        .or_else(|| retry_delay(body));
    match status {
        429 => meant.or_else(|| resets(headers, now_ms)),
        _ => meant,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// A length of time that can be meant: not negative, at most [`LONGEST`].
fn sane(seconds: f64) -> Option<Duration> {
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    (wait <= LONGEST).then_some(wait)
}

fn millis(text: &str) -> Option<Duration> {
    sane(text.parse::<f64>().ok()? / 1000.0)
}

fn seconds(text: &str) -> Option<Duration> {
    sane(text.parse::<f64>().ok()?)
}

/// RFC 9110 section 10.2.3: seconds (fractions are seen too) or an HTTP date.
fn retry_after(text: &str, now_ms: u64) -> Option<Duration> {
    seconds(text).or_else(|| {
        let at = httpdate::parse_http_date(text).ok()?;
        until(at.duration_since(std::time::UNIX_EPOCH).ok()?, now_ms)
    })
}

/// From now to a point in time; zero when it is past.
fn until(since_epoch: Duration, now_ms: u64) -> Option<Duration> {
    let wait = since_epoch.saturating_sub(Duration::from_millis(now_ms));
    (wait <= LONGEST).then_some(wait)
}

/// `RetryInfo` of Google: `error.details[].retryDelay`, as `"3.5s"`; the whole may be wrapped in an array.
fn retry_delay(body: &[u8]) -> Option<Duration> {
    // Most bodies say nothing of the kind, and need not be parsed.
    memchr::memmem::find(body, b"retryDelay")?;
    let value: Value = serde_json::from_slice(body).ok()?;
    let whole = value.as_array().and_then(|items| items.first()).unwrap_or(&value);
    let details = whole["error"]["details"].as_array()?;
    details.iter().find_map(|detail| go_duration(detail["retryDelay"].as_str()?))
}

/// One limit's headers: what is left of it, and when it is whole again.
const LIMITS: [(&str, &str); 7] = [
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
];

/// The longest wait of the limits that may have been hit.
fn resets(headers: &HeaderMap, now_ms: u64) -> Option<Duration> {
    let hit = |remaining: &str| {
        text(headers, remaining).and_then(|left| left.parse::<f64>().ok()).is_none_or(|left| left <= 0.0)
    };
    let limits = LIMITS.iter().filter(|(remaining, _)| hit(remaining));
    limits.filter_map(|(_, at)| reset(text(headers, at)?, now_ms)).max()
}

/// A duration (`1m30s`, `6ms`), seconds, or a point in time: seconds or milliseconds since 1970, or RFC 3339.
fn reset(text: &str, now_ms: u64) -> Option<Duration> {
    if let Ok(number) = text.parse::<f64>() {
        return match number {
            _ if number >= EPOCH * 1000.0 => {
                until(Duration::try_from_secs_f64(number / 1000.0).ok()?, now_ms)
            }
            _ if number >= EPOCH => until(Duration::try_from_secs_f64(number).ok()?, now_ms),
            _ => sane(number),
        };
    }
    go_duration(text).or_else(|| {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp_nanos();
        until(Duration::from_nanos(u64::try_from(at).ok()?), now_ms)
    })
}

/// Go's notation: numbers with units, one after the other. Google's `12.5s` is one of these.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, after) = rest.split_at(digits);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = after;
    }
    sane(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-01-01T00:00:00Z.
    const NOW: u64 = 1_767_225_600_000;

    fn hint(status: u16, headers: &[(&'static str, &str)], body: &str) -> Option<u128> {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        read(status, &headers, body.as_bytes(), NOW).map(|wait| wait.as_millis())
    }

    /// R004-16, C14, E.2.
    #[test]
    fn every_form_of_a_hint_is_read() {
        for (headers, millis) in [
            (&[("retry-after", "2")][..], Some(2000)),
            (&[("retry-after", "1.2")], Some(1200)),
            (&[("retry-after", "0")], Some(0)),
            (&[("retry-after", "Thu, 01 Jan 2026 00:00:30 GMT")], Some(30_000)),
            (&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], Some(0)),
            (&[("retry-after-ms", "1500"), ("retry-after", "9")], Some(1500)),
            (&[("retry-after-ms", "soon"), ("retry-after", "9")], Some(9000)),
            (&[("x-ms-retry-after-ms", "250"), ("retry-after", "9")], Some(250)),
            (&[("retry-after-ms", "soon"), ("x-ms-retry-after-ms", "250")], Some(250)),
            (&[("x-ratelimit-reset-requests", "6ms")], Some(6)),
            (&[("x-ratelimit-reset-tokens", "1m30s")], Some(90_000)),
            (&[("x-ratelimit-reset-tokens", "1h2m3.5s")], Some(3_723_500)),
            (&[("x-ratelimit-reset-requests", "1s"), ("x-ratelimit-reset-tokens", "3s")], Some(3000)),
            (&[("x-ratelimit-reset", "17")], Some(17_000)),
            (&[("x-ratelimit-reset", "1767225605")], Some(5000)),
            (&[("x-ratelimit-reset", "1767225605500")], Some(5500)),
            (&[("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:12Z")], Some(12_000)),
            (&[("anthropic-ratelimit-output-tokens-reset", "2026-01-01T01:00:07+01:00")], Some(7000)),
            (&[("anthropic-ratelimit-tokens-reset", "2025-12-31T23:59:59Z")], Some(0)),
            (&[("retry-after", "4"), ("x-ratelimit-reset-requests", "6ms")], Some(4000)),
        ] {
            assert_eq!(hint(429, headers, ""), millis, "{headers:?}");
        }
        let google = r#"{"error":{"code":429,"details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"12.5s"}]}}"#;
        assert_eq!(hint(429, &[], google), Some(12_500));
        assert_eq!(hint(503, &[], &format!("[{google}]")), Some(12_500));
    }

    #[test]
    fn nonsense_is_no_hint() {
        for value in ["", "soon", "-1", "999999999", "NaN", "inf", "1e300", "Thu, 01 Jan 2099 00:00:00 GMT"] {
            assert_eq!(hint(429, &[("retry-after", value)], ""), None, "{value}");
            assert_eq!(hint(429, &[("retry-after-ms", "9e99"), ("retry-after", value)], ""), None, "{value}");
        }
        for value in ["", "1x", "5", "s", "1m30", ".", "1..2s", "-3s", "1e300h", "99999h"] {
            assert_eq!(go_duration(value), None, "{value}");
        }
        for body in
            ["", "{", "retryDelay", r#"{"error":{"details":[{"retryDelay":7}]}}"#, r#"["retryDelay"]"#]
        {
            assert_eq!(hint(429, &[], body), None, "{body}");
        }
    }

    /// Limits that were not hit say nothing of when to come again, and nothing at all of a failure.
    #[test]
    fn resets_count_only_of_limits_that_may_have_been_hit() {
        let left = [("x-ratelimit-remaining-requests", "9999"), ("x-ratelimit-reset-requests", "6ms")];
        assert_eq!(hint(429, &left, ""), None);
        let hit =
            [left[0], left[1], ("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "2s")];
        assert_eq!(hint(429, &hit, ""), Some(2000));
        assert_eq!(hint(503, &hit, ""), None);
        assert_eq!(hint(503, &[("retry-after", "1")], ""), Some(1000));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_exceeds_the_bound(
            values in proptest::collection::vec("[ -~]{0,24}|[0-9.]{1,12}(ns|us|ms|s|m|h|d)|[0-9]{1,20}(\\.[0-9]+)?(e[0-9]{1,3})?", 10),
            body in ".{0,64}|\\{\"error\":\\{\"details\":\\[\\{\"retryDelay\":\"[0-9.]{0,9}[smh]?\"\\}\\]\\}\\}",
            now in any::<u64>(),
            status in prop::sample::select(vec![429_u16, 503]),
        ) {
            let names = ["retry-after", "retry-after-ms", "x-ms-retry-after-ms"];
            let names = names.into_iter().chain(LIMITS.iter().map(|(_, reset)| *reset));
            for (name, value) in names.clone().zip(&values) {
                let one = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
                if let Some(wait) = read(status, &one, body.as_bytes(), now) {
                    prop_assert!(wait <= LONGEST, "{name}: {value:?} is {wait:?}");
                }
            }
            let all = names.zip(&values).map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            prop_assert!(read(status, &all.collect(), body.as_bytes(), now).is_none_or(|wait| wait <= LONGEST));
        }
    }
}
