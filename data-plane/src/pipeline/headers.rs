//! The gateway's own headers (requirements F), which request headers travel upstream, and which response headers
//! come back. Everything else is dropped: an allow-list can't leak what it does not know.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};

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

pub const METADATA: &str = "x-nemo-metadata";
pub const TIMEOUT_MS: &str = "x-nemo-timeout-ms";
pub const REQUEST_STRATEGY: &str = "x-nemo-strategy";
pub const TAGS: &str = "x-nemo-tags";
pub const FALLBACKS: &str = "x-nemo-fallbacks";
pub const NO_FALLBACK: &str = "x-nemo-no-fallback";
pub const RETRIES: &str = "x-nemo-retries";
pub const MAX_COST: &str = "x-nemo-max-cost";
pub const CACHE: &str = "x-nemo-cache";
pub const MIN_CONFIG_VERSION: &str = "x-nemo-min-config-version";
/// What all of the gateway's own headers start with.
pub const PREFIX: &str = "x-nemo-";

/// The gateway's own headers of an upstream's answer. Those without a value are left out.
#[derive(Debug, Default)]
pub struct Own {
    pub config_version: Option<HeaderValue>,
    pub provider: Option<HeaderValue>,
    pub model: Option<HeaderValue>,
    pub attempts: Option<HeaderValue>,
    pub strategy: Option<HeaderValue>,
    pub overhead_ms: Option<HeaderValue>,
}

/// In the order of [`Own`]'s fields.
const OWN: [HeaderName; 6] = [CONFIG_VERSION, PROVIDER, MODEL, ATTEMPTS, STRATEGY, OVERHEAD_MS];
static TEMPLATE: LazyLock<HeaderMap> = LazyLock::new(|| {
    // With room for what else an answer carries: a table that grows hashes everything again.
    let mut template = HeaderMap::with_capacity(24);
    template.extend(OWN.map(|name| (name, HeaderValue::from_static(""))));
    template
});

impl Own {
    /// A copy of a table that is there, with its values replaced in place: hashing all these names for every answer
    /// costs more than the rest of them.
    pub fn into_map(self) -> HeaderMap {
        let Self { config_version, provider, model, attempts, strategy, overhead_ms } = self;
        let values = [config_version, provider, model, attempts, strategy, overhead_ms];
        let mut map = TEMPLATE.clone();
        let mut absent = false;
        for (place, value) in map.values_mut().zip(values) {
            absent |= value.is_none();
            *place = value.unwrap_or(HeaderValue::from_static(""));
        }
        if absent {
            OWN.iter().for_each(|name| {
                if map.get(name).is_some_and(HeaderValue::is_empty) {
                    map.remove(name);
                }
            });
        }
        map
    }
}

/// Sent on to the upstream when the client sent it: tracing and idempotency, no identity.
fn travels_upstream(name: &str) -> bool {
    matches!(name, "accept" | "traceparent" | "tracestate" | "idempotency-key" | "openai-beta")
}

/// Sent back to the client when the upstream sent it.
fn travels_back(name: &str) -> bool {
    matches!(
        name,
        "content-type"
            | "content-encoding"
            | "cache-control"
            | "openai-processing-ms"
            | "openai-version"
            | "x-generation-id"
    )
}

/// One pass over what is there is cheaper than one lookup per allowed name.
fn copy(allowed: fn(&str) -> bool, from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        if allowed(name.as_str()) {
            to.insert(name.clone(), value.clone());
        }
    }
}

pub fn to_upstream(client: &HeaderMap, upstream: &mut HeaderMap) {
    copy(travels_upstream, client, upstream);
}

pub fn to_client(upstream: &HeaderMap, client: &mut HeaderMap) {
    copy(travels_back, upstream, client);
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
        first.request_id = first.request_id.or(portkey).filter(|value| is_sane(value));
        first
    }
}

/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;

fn is_sane(request_id: &HeaderValue) -> bool {
    let harmless =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    let bytes = request_id.as_bytes();
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
        let own = || Own {
            config_version: value("7"),
            provider: value("p"),
            model: value("m"),
            attempts: value("1"),
            strategy: value("s"),
            overhead_ms: value("0.1"),
        };
        let map = own().into_map();
        assert_eq!(OWN.map(|name| map[name].clone()), ["7", "p", "m", "1", "s", "0.1"]);
        let map = Own { model: None, strategy: None, ..own() }.into_map();
        assert_eq!(map.len(), 4);
        assert!(!map.contains_key(MODEL) && !map.contains_key(STRATEGY));
        assert_eq!(map[OVERHEAD_MS], "0.1");
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
        to_upstream(&client, &mut upstream);
        assert_eq!(upstream.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["traceparent"]);
    }
}
