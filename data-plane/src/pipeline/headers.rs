//! The gateway's own headers (requirements F), which request headers travel upstream, and which response headers
//! come back. Everything else is dropped: an allow-list can't leak what it does not know.

use std::sync::LazyLock;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nemo_types::OrgId;
use ring::digest;

use super::throttle;
use crate::quota::RateView;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const PROVIDER: HeaderName = HeaderName::from_static("x-nemo-provider");
pub const MODEL: HeaderName = HeaderName::from_static("x-nemo-model");
pub const STRATEGY: HeaderName = HeaderName::from_static("x-nemo-strategy");
pub const ATTEMPTS: HeaderName = HeaderName::from_static("x-nemo-attempts");
pub const CHAIN: HeaderName = HeaderName::from_static("x-nemo-chain");
pub const COST_USD: HeaderName = HeaderName::from_static("x-nemo-cost-usd");
pub const COST_SOURCE: HeaderName = HeaderName::from_static("x-nemo-cost-source");
pub const OVERHEAD_MS: HeaderName = HeaderName::from_static("x-nemo-overhead-ms");
pub const CONFIG_VERSION: HeaderName = HeaderName::from_static("x-nemo-config-version");
pub const EDITS: HeaderName = HeaderName::from_static("x-nemo-edits");
pub const DROPPED_PARAMS: HeaderName = HeaderName::from_static("x-nemo-dropped-params");
/// What of the answer is the gateway's guess.
pub const ESTIMATED: HeaderName = HeaderName::from_static("x-nemo-estimated");

pub const METADATA: &str = "x-nemo-metadata";
pub const TIMEOUT_MS: &str = "x-nemo-timeout-ms";
pub const REQUEST_STRATEGY: &str = "x-nemo-strategy";
pub const TAGS: &str = "x-nemo-tags";
pub const FALLBACKS: &str = "x-nemo-fallbacks";
pub const NO_FALLBACK: &str = "x-nemo-no-fallback";
pub const RETRIES: &str = "x-nemo-retries";
pub const MAX_COST: &str = "x-nemo-max-cost";
pub const CACHE: &str = "x-nemo-cache";
pub const UNSUPPORTED: &str = "x-nemo-unsupported";
pub const MIN_CONFIG_VERSION: &str = "x-nemo-min-config-version";
/// What all of the gateway's own headers start with.
pub const PREFIX: &str = "x-nemo-";

/// What of the head of an upstream's answer is the client's too.
#[derive(Debug, Default)]
pub struct Passed {
    content_type: Option<HeaderValue>,
    /// `openai-processing-ms` and `openai-version`: OpenAI's answers have both.
    openai: [Option<HeaderValue>; 2],
    /// Few answers have more.
    others: Vec<(HeaderName, HeaderValue)>,
}

impl Passed {
    /// Takes the values out: they are moved from answer to answer. One pass over what is there is cheaper than one
    /// lookup per allowed name.
    pub fn take(upstream: &mut HeaderMap) -> Self {
        let mut passed = Self::default();
        for (name, value) in upstream.iter_mut() {
            let place = match name.as_str() {
                "content-type" => &mut passed.content_type,
                "openai-processing-ms" => &mut passed.openai[0],
                "openai-version" => &mut passed.openai[1],
                "content-encoding" | "cache-control" | "x-generation-id" => {
                    passed.others.push((name.clone(), std::mem::replace(value, EMPTY)));
                    continue;
                }
                _ => continue,
            };
            *place = Some(std::mem::replace(value, EMPTY));
        }
        passed
    }
}

/// The head of an upstream's answer: what is passed on of its headers, and the gateway's own. Those without a value are
/// left out. There is room for `x-request-id`, which every answer gets.
#[derive(Debug, Default)]
pub struct Own<'a> {
    pub passed: Passed,
    pub config_version: Option<HeaderValue>,
    pub provider: Option<HeaderValue>,
    pub model: Option<HeaderValue>,
    pub attempts: Option<HeaderValue>,
    pub strategy: Option<HeaderValue>,
    pub overhead_ms: Option<HeaderValue>,
    pub edits: Option<HeaderValue>,
    /// In USD, and where it is from.
    pub cost: Option<[HeaderValue; 2]>,
    pub rates: Option<&'a RateView>,
}

/// What nearly every answer has, in the order of [`Own`]'s fields.
const USUAL: [HeaderName; 7] =
    [header::CONTENT_TYPE, CONFIG_VERSION, PROVIDER, MODEL, ATTEMPTS, STRATEGY, OVERHEAD_MS];
const OPENAI: [HeaderName; 2] =
    [HeaderName::from_static("openai-processing-ms"), HeaderName::from_static("openai-version")];
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// One table for each set of what an answer may have besides: the index has a bit for edits, the cost, limits of
/// requests and of tokens, and each of OpenAI's headers. The request's id is the last of each.
static TEMPLATES: LazyLock<[HeaderMap; 64]> = LazyLock::new(|| std::array::from_fn(template));

fn template(set: usize) -> HeaderMap {
    // With room for what else an answer carries: a table that grows hashes everything again.
    let mut template = HeaderMap::with_capacity(24);
    let has = |bit: usize| set & (1 << bit) != 0;
    let more = [
        (has(0), &[EDITS][..]),
        (has(1), &[COST_USD, COST_SOURCE]),
        (has(2), &throttle::HEADERS[0]),
        (has(3), &throttle::HEADERS[1]),
        (has(4), &OPENAI[..1]),
        (has(5), &OPENAI[1..]),
    ];
    let more = more.iter().filter(|(has, _)| *has).flat_map(|(_, names)| *names);
    template.extend(USUAL.iter().chain(more).chain([&REQUEST_ID]).map(|name| (name.clone(), EMPTY)));
    template
}

impl Own<'_> {
    /// A copy of a table that is there, with its values replaced in place: hashing all these names for every answer
    /// costs more than the rest of them.
    pub fn into_map(self) -> HeaderMap {
        let rates = self.rates.copied().unwrap_or_default();
        let set = [
            self.edits.is_some(),
            self.cost.is_some(),
            rates.requests.is_some(),
            rates.tokens.is_some(),
            self.passed.openai[0].is_some(),
            self.passed.openai[1].is_some(),
        ];
        let set = set.into_iter().rev().fold(0, |set, has| set << 1 | usize::from(has));
        let mut map = TEMPLATES.get(set).cloned().unwrap_or_default();
        let (mut places, mut absent) = (map.values_mut(), false);
        let mut put = |value: Option<HeaderValue>| match (places.next(), value) {
            (Some(place), Some(value)) => *place = value,
            _ => absent = true,
        };
        put(self.passed.content_type);
        put(self.config_version);
        put(self.provider);
        put(self.model);
        put(self.attempts);
        put(self.strategy);
        put(self.overhead_ms);
        if self.edits.is_some() {
            put(self.edits);
        }
        for value in self.cost.into_iter().flatten() {
            put(Some(value));
        }
        throttle::values(&rates, |value| put(Some(value)));
        for value in self.passed.openai.into_iter().flatten() {
            put(Some(value));
        }
        for (name, value) in self.passed.others {
            map.insert(name, value);
        }
        if absent {
            USUAL.iter().for_each(|name| {
                if map.get(name).is_some_and(HeaderValue::is_empty) {
                    map.remove(name);
                }
            });
        }
        map
    }
}

pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Sent on to the upstream when the client sent it, besides `accept`: tracing and idempotency, no identity.
fn travels_upstream(name: &str) -> bool {
    matches!(name, "traceparent" | "tracestate" | IDEMPOTENCY_KEY | "openai-beta")
}

/// One pass over what is there is cheaper than one lookup per allowed name.
fn allowed(
    client: &HeaderMap,
    allows: fn(&str) -> bool,
) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    client.iter().filter(move |(name, _)| allows(name.as_str()))
}

/// `caller`: whose request it is; `None` when nobody's.
pub fn to_upstream(client: &HeaderMap, caller: Option<OrgId>, upstream: &mut HeaderMap) {
    for (name, value) in allowed(client, travels_upstream) {
        let value = if *name == IDEMPOTENCY_KEY { idempotency_key(value, caller) } else { value.clone() };
        upstream.insert(name.clone(), value);
    }
}

/// Upstreams keep what they answered by account and idempotency key, and organizations share the operator's account: two
/// that choose the same key, or one that knows another's, must not be given each other's answers.
#[cold]
fn idempotency_key(chosen: &HeaderValue, caller: Option<OrgId>) -> HeaderValue {
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(caller.as_ref().map_or(&[], |org| org.as_bytes()));
    digest.update(chosen.as_bytes());
    let text = BASE64_URL_SAFE_NO_PAD.encode(digest.finish());
    HeaderValue::try_from(text).unwrap_or(EMPTY)
}

/// What Anthropic's own clients tell Anthropic's own servers.
pub fn to_anthropic(client: &HeaderMap, upstream: &mut HeaderMap) {
    let theirs = allowed(client, |name| matches!(name, "anthropic-version" | "anthropic-beta"));
    theirs.for_each(|(name, value)| drop(upstream.insert(name.clone(), value.clone())));
}

/// What is needed of a request's headers before anything else.
#[derive(Debug, Default)]
pub struct First<'a> {
    /// The configuration that the client wants to be answered by. One that is malformed is refused where all of our
    /// headers are read.
    pub min_config_version: Option<u64>,
    /// The client's `x-request-id` (or Portkey's `x-portkey-trace-id`), if it is short and of harmless characters.
    pub request_id: Option<&'a HeaderValue>,
    pub traceparent: Option<&'a HeaderValue>,
}

impl<'a> First<'a> {
    /// In one pass: most requests have few headers and none of these.
    pub fn of(headers: &'a HeaderMap) -> Self {
        let (mut first, mut portkey) = (Self::default(), None);
        for (name, value) in headers {
            match name.as_str() {
                "x-request-id" => first.request_id = first.request_id.or(Some(value)),
                "traceparent" => first.traceparent = first.traceparent.or(Some(value)),
                super::portkey::TRACE_ID_NAME => portkey = portkey.or(Some(value)),
                MIN_CONFIG_VERSION if first.min_config_version.is_none() => {
                    first.min_config_version = value.to_str().ok().and_then(|text| text.trim().parse().ok());
                }
                _ => {}
            }
        }
        first.request_id = first.request_id.or(portkey).filter(|value| is_request_id(value.as_bytes()));
        first
    }
}

/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// Whether a client may give its request this id.
pub fn is_request_id(bytes: &[u8]) -> bool {
    let harmless =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    !bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID && bytes.iter().all(harmless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_request_ids_are_taken() {
        for (value, sane) in [
            ("req-1", true),
            ("0193:a/b.c_d", true),
            ("", false),
            ("a b", false),
            ("\"quoted\"", false),
            (&"x".repeat(129), false),
        ] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(value).unwrap())]);
            assert_eq!(First::of(&headers).request_id.is_some(), sane, "{value}");
        }
    }

    #[test]
    fn every_value_of_our_own_stands_under_its_name() {
        let value = |text: &'static str| Some(HeaderValue::from_static(text));
        let view = |limit| {
            let reset = std::time::Duration::from_secs(1);
            Some(crate::quota::BucketView { limit, remaining: 2, reset, used: 0 })
        };
        let rates = [(None, None), (view(60), None), (None, view(90)), (view(60), view(90))];
        let rates = rates.map(|(requests, tokens)| RateView { requests, tokens });
        let own = |edits, cost: Option<[&'static str; 2]>, rates| Own {
            passed: Passed { content_type: value("t"), ..Passed::default() },
            config_version: value("7"),
            provider: value("p"),
            model: value("m"),
            attempts: value("1"),
            strategy: value("s"),
            overhead_ms: value("0.1"),
            edits,
            cost: cost.map(|cost| cost.map(HeaderValue::from_static)),
            rates,
        };
        for rates in rates.iter().map(Some).chain([None]) {
            for edits in [None, value("model")] {
                for cost in [None, Some(["0.5", "priced"])] {
                    let mut map = own(edits.clone(), cost, rates).into_map();
                    assert_eq!(USUAL.map(|name| map[name].clone()), ["t", "7", "p", "m", "1", "s", "0.1"]);
                    assert_eq!(map.get(EDITS), edits.as_ref());
                    let told = [COST_USD, COST_SOURCE].map(|name| map.get(name).cloned());
                    assert_eq!(told, cost.map_or([None, None], |cost| cost.map(value)));
                    let told = rates.copied().unwrap_or_default();
                    for (names, view) in throttle::HEADERS.iter().zip([told.requests, told.tokens]) {
                        let limit = view.map(|view| HeaderValue::from(view.limit));
                        assert_eq!(map.get(&names[0]), limit.as_ref());
                        assert_eq!(map.contains_key(&names[2]), view.is_some());
                    }
                    assert_eq!(map.insert(REQUEST_ID, HeaderValue::from_static("id")), Some(EMPTY));
                    assert!(map.values().all(|value| !value.is_empty()), "{map:?}");
                }
            }
        }
        let map = Own { model: None, strategy: None, ..own(None, None, None) }.into_map();
        assert_eq!(map.len(), 6);
        assert!(!map.contains_key(MODEL) && !map.contains_key(STRATEGY));
        assert_eq!(map[OVERHEAD_MS], "0.1");
    }

    #[test]
    fn what_the_client_may_see_of_the_upstreams_headers_is_passed_on() {
        const PASSED: [&str; 6] = [
            "content-type",
            "content-encoding",
            "cache-control",
            "openai-processing-ms",
            "openai-version",
            "x-generation-id",
        ];
        // Any of them may be missing.
        for set in 0..1 << PASSED.len() {
            let passed =
                PASSED.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0).map(|(_, name)| *name);
            let mut upstream = HeaderMap::new();
            for name in passed.clone().chain(["set-cookie", "server", "content-length"]) {
                upstream.insert(HeaderName::from_static(name), HeaderValue::from_static(name));
            }
            let edits = Some(HeaderValue::from_static("model"));
            let mut map = Own { passed: Passed::take(&mut upstream), edits, ..Own::default() }.into_map();
            assert_eq!(map.remove(EDITS).unwrap(), "model");
            assert_eq!(map.remove(REQUEST_ID), Some(EMPTY));
            let expected = passed.map(|name| (HeaderName::from_static(name), HeaderValue::from_static(name)));
            assert_eq!(map, expected.collect::<HeaderMap>());
        }
    }

    /// C: identity and cookies of the client never reach a provider.
    #[test]
    fn unknown_headers_stay_here() {
        let mut client = HeaderMap::new();
        for name in
            ["authorization", "cookie", "x-stainless-os", "http-referer", "x-portkey-api-key", "traceparent"]
        {
            client.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let mut upstream = HeaderMap::new();
        to_upstream(&client, None, &mut upstream);
        assert_eq!(upstream.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["traceparent"]);
    }

    #[test]
    fn organizations_do_not_share_idempotency_keys() {
        let sent = |chosen: &'static str, caller: OrgId| {
            let client = HeaderMap::from_iter([(
                HeaderName::from_static(IDEMPOTENCY_KEY),
                HeaderValue::from_static(chosen),
            )]);
            let mut upstream = HeaderMap::new();
            to_upstream(&client, Some(caller), &mut upstream);
            upstream[IDEMPOTENCY_KEY].clone()
        };
        let (one, other) = (OrgId::generate(), OrgId::generate());
        assert_eq!(sent("order-17", one), sent("order-17", one));
        assert_ne!(sent("order-17", one), sent("order-17", other));
        assert_ne!(sent("order-17", one), sent("order-18", one));
        assert_eq!(sent("order-17", one).len(), 43, "short enough for everybody");
    }
}
