//! Portkey's headers that mean something here (requirements E.8), so that its clients work with their settings as they
//! are. The others are dropped like every unknown header: `x-portkey-custom-host` would let a client choose where the
//! gateway's credentials go. Called by the phases whose own headers these stand in for, and by [`super::run`].

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    error::{GatewayError, Kind},
    headers,
};

/// What all of Portkey's headers start with.
pub const PREFIX: &str = "x-portkey-";
/// A key of this gateway.
pub const API_KEY: HeaderName = HeaderName::from_static("x-portkey-api-key");
/// Taken as the request id when there is no `x-request-id`.
pub const TRACE_ID_NAME: &str = "x-portkey-trace-id";
const TRACE_ID: HeaderName = HeaderName::from_static(TRACE_ID_NAME);
/// As `x-nemo-metadata`, which wins.
pub const METADATA: &str = "x-portkey-metadata";
/// As `x-nemo-timeout-ms`, which wins.
pub const REQUEST_TIMEOUT: &str = "x-portkey-request-timeout";
/// As `x-nemo-retries`, which wins.
pub const RETRY_COUNT: &str = "x-portkey-retry-count";
const PROVIDER: &str = "x-portkey-provider";

const ANSWER_PROVIDER: HeaderName = HeaderName::from_static(PROVIDER);
const ANSWER_RETRIES: HeaderName = HeaderName::from_static("x-portkey-retry-attempt-count");

/// The model that the client means: Portkey's clients may send the provider in a header, `openai` or `@openai`, and
/// the provider's own name for the model in the body.
///
/// # Errors
/// 400 when the header is no name of a provider.
pub fn model<'a>(request: &HeaderMap, model: &'a str) -> Result<Cow<'a, str>, GatewayError> {
    let Some(value) = request.get(PROVIDER) else { return Ok(Cow::Borrowed(model)) };
    let provider = value.to_str().unwrap_or_default().trim();
    let provider = provider.strip_prefix('@').unwrap_or(provider);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if provider.is_empty() || !provider.bytes().all(plain) {
        let message = format!("The header {PROVIDER} must be the name of a provider, for example openai.");
        return Err(GatewayError::new(Kind::InvalidRequest, message).param(PROVIDER));
    }
    // With a provider in it, the model says more than the header.
    if model.contains('/') {
        return Ok(Cow::Borrowed(model));
    }
    Ok(Cow::Owned(format!("{provider}/{model}")))
}

/// Tells clients of Portkey under its names what `answer` says under the gateway's own.
pub fn answer(request: &HeaderMap, answer: &mut HeaderMap) {
    if let Some(trace) = request.get(&TRACE_ID) {
        answer.insert(TRACE_ID, trace.clone());
    }
    if let Some(provider) = answer.get(&headers::PROVIDER).cloned() {
        answer.insert(ANSWER_PROVIDER, provider);
    }
    let attempts: u32 = answer
        .get(&headers::ATTEMPTS)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    answer.insert(ANSWER_RETRIES, HeaderValue::from(attempts.saturating_sub(1)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn the_provider_completes_the_model() {
        assert_eq!(model(&HeaderMap::new(), "gpt-4o").unwrap(), "gpt-4o");
        for provider in ["openai", "@openai"] {
            let request = request(PROVIDER, provider);
            assert_eq!(model(&request, "gpt-4o").unwrap(), "openai/gpt-4o");
            assert_eq!(model(&request, "anthropic/claude").unwrap(), "anthropic/claude");
        }
        for nonsense in ["", "@", "a/b", "open ai"] {
            let refused = model(&request(PROVIDER, nonsense), "gpt-4o").unwrap_err();
            assert!(refused.message.contains(PROVIDER), "{nonsense}");
        }
    }

    #[test]
    fn the_answer_speaks_portkeys_names() {
        let mut told = HeaderMap::from_iter([
            (headers::PROVIDER, HeaderValue::from_static("openai")),
            (headers::ATTEMPTS, HeaderValue::from_static("3")),
        ]);
        let mut asked = request("x-portkey-api-key", "sk-nemo-x");
        asked.insert(TRACE_ID, HeaderValue::from_static("trace-1"));
        answer(&asked, &mut told);
        assert_eq!(told[&TRACE_ID], "trace-1");
        assert_eq!(told[PROVIDER], "openai");
        assert_eq!(told["x-portkey-retry-attempt-count"], "2");
    }
}
