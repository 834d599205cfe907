//! What a request asks of the gateway beside its answer (requirements F): in our own headers, in those of other
//! gateways that mean the same, and in members of the body. A header wins over the body, and a name of ours over one of
//! another gateway. Read here, checked against what is allowed by [`super::route`]. Called by [`super::run`].

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use nemo_llm::{Chain, Extras, Overrides, Said, decimal};
use nemo_types::Nanos;

use super::{
    error::{GatewayError, Kind},
    headers::{
        CACHE, FALLBACKS, MAX_COST, METADATA, MIN_CONFIG_VERSION, NO_FALLBACK, REQUEST_STRATEGY, RETRIES,
        TAGS, TIMEOUT_MS, UNSUPPORTED,
    },
    portkey,
};

/// LLM Gateway's.
const LLMGATEWAY_NO_FALLBACK: &str = "x-no-fallback";
/// LiteLLM's; its timeout is in seconds.
const LITELLM_TIMEOUT: &str = "x-litellm-timeout";
const LITELLM_RETRIES: &str = "x-litellm-num-retries";

/// What the headers ask for.
#[derive(Debug, Default)]
pub struct HeaderExtras {
    pub metadata: Option<Box<str>>,
    pub min_config_version: Option<u64>,
    /// There are headers of Portkey's.
    pub portkey: bool,
    /// What a candidate can't do is not to be left out.
    pub refuse_unsupported: Option<bool>,
    pub wishes: Wishes,
}

/// What concerns the way of a request. `None`: not said.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Total deadline.
    pub timeout: Option<Said<Duration>>,
    pub retries: Option<Said<u64>>,
    pub no_fallback: Option<bool>,
    /// Few requests have any.
    pub overrides: Option<Box<Overrides>>,
}

impl Wishes {
    /// Adds what the body says about that which the headers leave open.
    #[must_use]
    pub fn or_body(mut self, body: &mut Extras<'_>) -> Self {
        let millis =
            body.timeout_ms.map(|millis| Said::new("nemo_timeout_ms", Duration::from_millis(millis)));
        self.timeout = self.timeout.or(millis);
        self.retries = self.retries.or(body.retries);
        self.no_fallback = self.no_fallback.or(body.no_fallback);
        self.overrides = match (self.overrides.take(), body.overrides.take()) {
            (Some(own), Some(body)) => Some(Box::new(over(*own, *body))),
            (own, body) => own.or(body),
        };
        self
    }

    fn overrides(&mut self) -> &mut Overrides {
        self.overrides.get_or_insert_default()
    }
}

fn over(headers: Overrides, body: Overrides) -> Overrides {
    Overrides {
        tags: headers.tags.or(body.tags),
        strategy: headers.strategy.or(body.strategy),
        chain: headers.chain.or(body.chain),
        max_cost: headers.max_cost.or(body.max_cost),
        routing: headers.routing.or(body.routing),
        preferences: headers.preferences.or(body.preferences),
    }
}

/// Reads the request headers that mean something to the gateway.
///
/// # Errors
/// 400 naming the header and what was expected.
pub fn from_headers(request: &HeaderMap) -> Result<HeaderExtras, GatewayError> {
    let mut extras = HeaderExtras::default();
    // Of other gateways, where ours is not there.
    let mut aliases = Wishes::default();
    for (name, value) in request {
        // The SDKs send a dozen headers that begin with `x-` and mean nothing here.
        let [b'x', b'-', b'n' | b'p' | b'l', ..] = name.as_str().as_bytes() else { continue };
        extras.portkey |= name.as_str().starts_with(portkey::PREFIX);
        let wishes = &mut extras.wishes;
        match name.as_str() {
            portkey::METADATA if !request.contains_key(METADATA) => {
                extras.metadata = Some(metadata(portkey::METADATA, value)?);
            }
            METADATA => once(METADATA, &mut extras.metadata, metadata(METADATA, value)?)?,
            MIN_CONFIG_VERSION => {
                let version = number(MIN_CONFIG_VERSION, value)?;
                once(MIN_CONFIG_VERSION, &mut extras.min_config_version, version)?;
            }
            TIMEOUT_MS => said_once(TIMEOUT_MS, &mut wishes.timeout, millis(TIMEOUT_MS, value)?)?,
            portkey::REQUEST_TIMEOUT => {
                let timeout = millis(portkey::REQUEST_TIMEOUT, value)?;
                aliases.timeout = Some(Said::new(portkey::REQUEST_TIMEOUT, timeout));
            }
            LITELLM_TIMEOUT => {
                let timeout = Said::new(LITELLM_TIMEOUT, seconds(LITELLM_TIMEOUT, value)?);
                aliases.timeout = aliases.timeout.or(Some(timeout));
            }
            RETRIES => said_once(RETRIES, &mut wishes.retries, number(RETRIES, value)?)?,
            portkey::RETRY_COUNT => {
                aliases.retries = Some(Said::new(portkey::RETRY_COUNT, number(portkey::RETRY_COUNT, value)?));
            }
            LITELLM_RETRIES => {
                let retries = Said::new(LITELLM_RETRIES, number(LITELLM_RETRIES, value)?);
                aliases.retries = aliases.retries.or(Some(retries));
            }
            NO_FALLBACK => once(NO_FALLBACK, &mut wishes.no_fallback, boolean(NO_FALLBACK, value)?)?,
            LLMGATEWAY_NO_FALLBACK => {
                aliases.no_fallback = Some(boolean(LLMGATEWAY_NO_FALLBACK, value)?);
            }
            // There is no cache yet.
            CACHE => on_or_off(CACHE, value)?,
            UNSUPPORTED => {
                let refuse = match text(UNSUPPORTED, value)? {
                    "refuse" => true,
                    "drop" => false,
                    _ => return Err(bad(UNSUPPORTED, "`drop` or `refuse`")),
                };
                once(UNSUPPORTED, &mut extras.refuse_unsupported, refuse)?;
            }
            TAGS | REQUEST_STRATEGY | FALLBACKS | MAX_COST => routing(name, value, wishes.overrides())?,
            _ => {}
        }
    }
    let wishes = &mut extras.wishes;
    wishes.timeout = wishes.timeout.or(aliases.timeout);
    wishes.retries = wishes.retries.or(aliases.retries);
    wishes.no_fallback = wishes.no_fallback.or(aliases.no_fallback);
    Ok(extras)
}

/// The headers that few requests have. Lists may go on in a further header of the same name.
#[cold]
fn routing(name: &HeaderName, value: &HeaderValue, told: &mut Overrides) -> Result<(), GatewayError> {
    match name.as_str() {
        TAGS => {
            let mut tags = told.tags.take().map(|tags| tags.value).unwrap_or_default();
            list(TAGS, value, &mut tags)?;
            told.tags = Some(Said::new(TAGS, tags));
        }
        FALLBACKS => {
            let mut models = told.chain.take().map(|chain| chain.value.into_models()).unwrap_or_default();
            list(FALLBACKS, value, &mut models)?;
            told.chain = Some(Said::new(FALLBACKS, Chain::Instead(models)));
        }
        REQUEST_STRATEGY => {
            let strategy = text(REQUEST_STRATEGY, value)?.into();
            said_once(REQUEST_STRATEGY, &mut told.strategy, strategy)?;
        }
        _ => said_once(MAX_COST, &mut told.max_cost, usd(MAX_COST, value)?)?,
    }
    Ok(())
}

fn once<T>(name: &'static str, place: &mut Option<T>, value: T) -> Result<(), GatewayError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => {
            let message = format!("The header {name} is given more than once; send it once.");
            Err(GatewayError::new(Kind::InvalidRequest, message).param(name))
        }
    }
}

fn said_once<T>(name: &'static str, place: &mut Option<Said<T>>, value: T) -> Result<(), GatewayError> {
    once(name, place, Said::new(name, value))
}

fn bad(name: &'static str, expected: &str) -> GatewayError {
    GatewayError::new(Kind::InvalidRequest, format!("The header {name} must be {expected}.")).param(name)
}

fn text<'a>(name: &'static str, value: &'a HeaderValue) -> Result<&'a str, GatewayError> {
    value.to_str().map(str::trim).map_err(|_| bad(name, "visible ASCII"))
}

fn number(name: &'static str, value: &HeaderValue) -> Result<u64, GatewayError> {
    text(name, value)?.parse().map_err(|_| bad(name, "a whole number"))
}

fn millis(name: &'static str, value: &HeaderValue) -> Result<Duration, GatewayError> {
    match number(name, value)? {
        0 => Err(bad(name, "at least 1")),
        millis => Ok(Duration::from_millis(millis)),
    }
}

/// With or without a fraction.
fn seconds(name: &'static str, value: &HeaderValue) -> Result<Duration, GatewayError> {
    // Dollars or seconds: a decimal number with nine digits behind the point.
    let nanos = decimal::nanos(text(name, value)?).and_then(|nanos| u64::try_from(nanos.0).ok());
    let timeout = nanos.map(Duration::from_nanos).filter(|timeout| *timeout >= Duration::from_millis(1));
    timeout.ok_or_else(|| bad(name, "a number of seconds, at least 0.001"))
}

fn usd(name: &'static str, value: &HeaderValue) -> Result<Nanos, GatewayError> {
    decimal::nanos(text(name, value)?).ok_or_else(|| bad(name, "an amount of USD, for example 0.05"))
}

fn boolean(name: &'static str, value: &HeaderValue) -> Result<bool, GatewayError> {
    match text(name, value)? {
        text if text.eq_ignore_ascii_case("true") => Ok(true),
        text if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(bad(name, "`true` or `false`")),
    }
}

fn on_or_off(name: &'static str, value: &HeaderValue) -> Result<(), GatewayError> {
    let text = text(name, value)?;
    let known = text.eq_ignore_ascii_case("on") || text.eq_ignore_ascii_case("off");
    if known { Ok(()) } else { Err(bad(name, "`on` or `off`")) }
}

/// Names between commas. A header that is empty is an empty list.
fn list(name: &'static str, value: &HeaderValue, into: &mut Vec<Box<str>>) -> Result<(), GatewayError> {
    let text = text(name, value)?;
    if text.is_empty() {
        return Ok(());
    }
    for item in text.split(',').map(str::trim) {
        if item.is_empty() {
            return Err(bad(name, "a list of names with one comma between two"));
        }
        if item.len() > Overrides::MAX_NAME || into.len() == Overrides::MAX_LIST {
            return Err(bad(name, "a list of at most 16 names of at most 256 bytes each"));
        }
        into.push(item.into());
    }
    Ok(())
}

fn metadata(name: &'static str, value: &HeaderValue) -> Result<Box<str>, GatewayError> {
    let text = text(name, value)?;
    let object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text);
    if text.len() > Extras::MAX_METADATA || object.is_err() {
        return Err(bad(name, "a JSON object of at most 4096 bytes"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests;
