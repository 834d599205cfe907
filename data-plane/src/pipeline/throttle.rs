//! Rate limits: requests, tokens and requests at once, of the key, its team and its organization (requirements E.2, C21,
//! C22). No await (I1): what a node may let through of a limit is its share, see [`crate::quota`]. Called by
//! [`super::run`] and [`super::multipart`] once the model is known.
//!
//! Tokens are charged before they are used, by what is likely to go in and what is allowed to come out, and corrected when
//! the request is over. A refused request is charged nothing.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use nemo_snapshot::{Bounds, RateLimit};
use serde_json::json;
use smallvec::SmallVec;

use super::error::{GatewayError, Kind};
use crate::quota::{BucketView, Limited, Pass, QuotaTable, RateView, What};

/// Tokens of an answer whose length is not limited.
const EXPECTED_OUTPUT: u64 = 512;

/// What the answer's headers tell of limits.
pub type Told = Option<RateView>;

/// Tokens that a request counts before it is sent.
pub fn tokens(likely_input: u64, allowed_output: Option<u64>) -> u64 {
    likely_input.saturating_add(allowed_output.unwrap_or(EXPECTED_OUTPUT))
}

/// Lets the request through, or not. `None`: nothing limits it. `told` gets what the client is told, also when it is
/// refused.
///
/// # Errors
/// 429 that names the limit, and when to come back.
pub fn run(
    quota: &QuotaTable,
    bounds: Bounds<'_>,
    group: &str,
    tokens: u64,
    told: &mut Told,
) -> Result<Option<Pass>, GatewayError> {
    let limits: SmallVec<[&Arc<RateLimit>; 4]> =
        bounds.rates().filter(|limit| limit.applies_to(group)).collect();
    if limits.is_empty() {
        return Ok(None);
    }
    match quota.admit(&limits, tokens) {
        Ok(pass) => {
            *told = Some(pass.view());
            Ok(Some(pass))
        }
        Err(limited) => {
            *told = Some(limited.view);
            Err(refused(&limited, tokens))
        }
    }
}

#[cold]
fn refused(limited: &Limited, tokens: u64) -> GatewayError {
    let limit = &limited.limit;
    let (what, most) = match limited.what {
        What::Requests => ("requests per minute", limit.requests_per_minute.map_or(0, |most| most.get())),
        What::Tokens => ("tokens per minute", limit.tokens_per_minute.map_or(0, |most| most.get())),
        What::Concurrent => ("requests at once", limit.concurrent.map_or(0, u64::from)),
    };
    let model = match &*limit.model {
        "" => String::new(),
        model => format!(" for the models `{model}`"),
    };
    let whole =
        format!("The rate limit `{}` of the {} allows {most} {what}{model}", limit.name, limit.scope.name());
    let never = limited.what == What::Tokens && tokens > most;
    let message = if never {
        format!(
            "{whole}, and this request alone counts {tokens}: its prompt and the output that it allows. Allow less output."
        )
    } else {
        format!("{whole}, and they are used up. Try again in {}.", go_duration(limited.retry_after))
    };
    let millis = u64::try_from(limited.retry_after.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
    let metadata = json!({
        "limit": { "id": limit.id.to_string(), "name": &*limit.name, "scope": limit.scope.name() },
        "what": what,
        "allowed": most,
    });
    GatewayError {
        retry_after_secs: Some(millis.div_ceil(1000)),
        retry_after_ms: NonZeroU64::new(millis),
        metadata: Some(Box::new(metadata)),
        ..GatewayError::new(Kind::RateLimited, message)
    }
}

/// Of requests, then of tokens: limit, remaining, reset.
pub const HEADERS: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

/// Tells the client of its own limits, in every answer.
pub fn describe(told: &RateView, headers: &mut HeaderMap) {
    let there = [told.requests.is_some(), told.tokens.is_some()];
    let names = HEADERS.into_iter().zip(there).filter(|(_, there)| *there).flat_map(|(names, _)| names);
    let mut names = names.into_iter();
    values(told, |value| {
        if let Some(name) = names.next() {
            headers.insert(name, value);
        }
    });
}

/// The values of those of the headers that there is something to tell in.
pub fn values(told: &RateView, mut each: impl FnMut(HeaderValue)) {
    if (told.requests, told.tokens) == (None, None) {
        return;
    }
    // Six values of every answer: they are written one behind the other, and share one piece of memory.
    let (mut text, mut ends) = (Vec::with_capacity(ROOM), SmallVec::<[usize; 6]>::new());
    for view in [&told.requests, &told.tokens].into_iter().flatten() {
        let BucketView { limit, remaining, reset, .. } = view;
        for number in [limit, remaining] {
            number_into(&mut text, *number);
            ends.push(text.len());
        }
        match (reset.as_secs(), reset.subsec_nanos().div_ceil(1_000_000)) {
            (0, 0) => text.extend_from_slice(b"0s"),
            (0, millis @ ..1000) => {
                number_into(&mut text, millis.into());
                text.extend_from_slice(b"ms");
            }
            _ => text.extend_from_slice(go_duration(*reset).as_bytes()),
        }
        ends.push(text.len());
    }
    let (mut text, mut begin) = (Bytes::from(text), 0);
    for end in ends {
        // Digits and letters: any header can carry them.
        each(HeaderValue::from_maybe_shared(text.split_to(end - begin)).unwrap_or(NOTHING));
        begin = end;
    }
}

const NOTHING: HeaderValue = HeaderValue::from_static("0");

/// Six numbers and what stands behind some of them are rarely longer.
const ROOM: usize = 96;

fn number_into(text: &mut Vec<u8>, mut rest: u64) {
    let (mut digits, mut at) = ([0; 20], 20);
    let pair = |number: u64| PAIRS[usize::try_from(number % 100).unwrap_or(0)];
    while rest >= 100 {
        at -= 2;
        digits[at..at + 2].copy_from_slice(&pair(rest));
        rest /= 100;
    }
    at -= 2;
    digits[at..at + 2].copy_from_slice(&pair(rest));
    text.extend_from_slice(&digits[at + usize::from(rest < 10)..]);
}

/// Two digits at once: half the divisions.
const PAIRS: [[u8; 2]; 100] = {
    let (mut pairs, mut at) = ([[b'0'; 2]; 100], 0_u8);
    while at < 100 {
        pairs[at as usize] = [b'0' + at / 10, b'0' + at % 10];
        at += 1;
    }
    pairs
};

/// As Go writes durations, which is how OpenAI does: `6ms`, `1.5s`, `1m30s`, `2h0m5s`. Rounded up to milliseconds.
fn go_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
    if millis < 1000 {
        return if millis == 0 { "0s".to_owned() } else { format!("{millis}ms") };
    }
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    let mut seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    seconds.truncate(seconds.trim_end_matches('0').trim_end_matches('.').len());
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use nemo_snapshot::{Limits, Scope};
    use nemo_types::RateLimitId;

    use super::*;
    use crate::quota::{Clock, QuotaMetrics};

    fn limit(model: &str, requests: u64, tokens: u64) -> Arc<RateLimit> {
        Arc::new(RateLimit {
            id: RateLimitId::generate(),
            name: "tier".into(),
            scope: Scope::Organization,
            model: model.into(),
            requests_per_minute: NonZeroU64::new(requests),
            tokens_per_minute: NonZeroU64::new(tokens),
            concurrent: None,
        })
    }

    fn bounds(limits: &Arc<Limits>) -> Bounds<'_> {
        Bounds { organization: Some(limits), team: None, key: None }
    }

    #[test]
    fn durations_look_like_gos() {
        for (millis, text) in [
            (0, "0s"),
            (6, "6ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (10_000, "10s"),
            (90_000, "1m30s"),
            (60_000, "1m0s"),
            (3_605_000, "1h0m5s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(go_duration(Duration::from_micros(1)), "1ms");
    }

    /// C21: the request that is refused costs nothing, and the client learns when to come back.
    #[test]
    fn c21_a_refused_request_is_charged_nothing() {
        let quota = QuotaTable::default();
        let limits = Arc::new(Limits { budgets: Vec::new(), rates: vec![limit("", 3, 1000)] });
        let mut told = None;
        let mut pass = run(&quota, bounds(&limits), "m", 900, &mut told).unwrap().unwrap();
        assert_eq!(told.unwrap().requests.unwrap().limit, 3);
        let error = run(&quota, bounds(&limits), "m", 900, &mut told).unwrap_err();
        assert_eq!((error.kind.row().status, error.code()), (429, "rate_limit_exceeded"));
        assert!(
            error.message.contains("`tier` of the organization allows 1000 tokens per minute"),
            "{}",
            error.message
        );
        assert!(error.retry_after_ms.is_some() && error.retry_after_secs.unwrap() >= 1);
        let too_large = run(&quota, bounds(&limits), "m", 1001, &mut told).unwrap_err();
        assert!(too_large.message.contains("counts 1001"), "{}", too_large.message);
        assert_eq!(told.unwrap().requests.unwrap().remaining, 2, "one was let through");
        // It used less than it was charged for.
        pass.settle_tokens(10);
        assert!(run(&quota, bounds(&limits), "m", 900, &mut told).is_ok());
    }

    #[test]
    fn a_limit_of_a_model_is_for_that_model() {
        let quota = QuotaTable::default();
        let limits = Arc::new(Limits { budgets: Vec::new(), rates: vec![limit("gpt-*", 1, 0)] });
        let mut told = None;
        assert!(run(&quota, bounds(&limits), "claude", 1, &mut told).unwrap().is_none() && told.is_none());
        let _pass = run(&quota, bounds(&limits), "gpt-5.2", 1, &mut told).unwrap().unwrap();
        assert!(run(&quota, bounds(&limits), "gpt-4o", 1, &mut told).is_err());
    }

    /// E.2: our values, under OpenAI's names.
    #[test]
    fn the_headers_tell_limit_remaining_and_reset() {
        let quota = QuotaTable::new(Clock::manual(), QuotaMetrics::default());
        let limits = Arc::new(Limits { budgets: Vec::new(), rates: vec![limit("", 60, 0)] });
        let mut told = None;
        let _pass = run(&quota, bounds(&limits), "m", 1, &mut told).unwrap();
        let mut headers = HeaderMap::new();
        describe(&told.unwrap(), &mut headers);
        assert_eq!(headers["x-ratelimit-limit-requests"], "60");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "59");
        assert_eq!(headers["x-ratelimit-reset-requests"], "1s");
        assert!(!headers.contains_key("x-ratelimit-limit-tokens"));
    }

    #[test]
    fn every_header_gets_its_own_part_of_the_text() {
        let view = |limit, remaining, millis| {
            let reset = Duration::from_millis(millis);
            Some(BucketView { limit, remaining, reset, used: 0 })
        };
        let told = RateView { requests: view(u64::MAX, 0, 0), tokens: view(10, 9, 90_000) };
        let mut headers = HeaderMap::new();
        describe(&told, &mut headers);
        let values: Vec<_> = HEADERS.iter().flatten().map(|name| headers[name].to_str().unwrap()).collect();
        assert_eq!(values, ["18446744073709551615", "0", "0s", "10", "9", "1m30s"]);
        let told = RateView { requests: None, tokens: view(1_000, 120, 6) };
        headers.clear();
        describe(&told, &mut headers);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "120");
        assert_eq!(headers["x-ratelimit-reset-tokens"], "6ms");
    }
}
