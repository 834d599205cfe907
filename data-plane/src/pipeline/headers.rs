//! The gateway's own headers (requirements F), which request headers travel upstream, and which response headers
//! come back. Everything else is dropped: an allow-list can't leak what it does not know.

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
pub const MIN_CONFIG_VERSION: &str = "x-nemo-min-config-version";
/// Looked up in every request: a name that has to be parsed each time is slower.
const MIN_CONFIG_VERSION_NAME: HeaderName = HeaderName::from_static(MIN_CONFIG_VERSION);
/// What all of the gateway's own headers start with.
pub const PREFIX: &str = "x-nemo-";

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

/// The configuration that the client wants to be answered by. One that is malformed is refused where all of our
/// headers are read.
pub fn min_config_version(headers: &HeaderMap) -> Option<u64> {
    headers.get(&MIN_CONFIG_VERSION_NAME)?.to_str().ok()?.trim().parse().ok()
}

/// Longest request id that is taken from a client.
const MAX_REQUEST_ID: usize = 128;

/// The client's `x-request-id` (or Portkey's `x-portkey-trace-id`), if it is short and of harmless characters.
pub fn client_request_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    let harmless =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    headers.get(REQUEST_ID).or_else(|| headers.get(&super::portkey::TRACE_ID)).filter(|value| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID && bytes.iter().all(harmless)
    })
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
            assert_eq!(client_request_id(&headers).is_some(), sane, "{value}");
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
        to_upstream(&client, &mut upstream);
        assert_eq!(upstream.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["traceparent"]);
    }
}
