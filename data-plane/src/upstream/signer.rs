//! Proves to an upstream who sends a request, where that is not the same header every time. Kept with each deployment,
//! used by `pipeline::dispatch` when the request is complete.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Uri, header};
use nemo_llm::sigv4::{self, BodyHash, Keys, Signable};
use nemo_runtime::clock;
use nemo_types::Secret;

use super::{SegmentBody, credentials::Token};

/// See the module.
#[derive(Clone, Debug)]
pub enum Signer {
    /// Amazon: every request is signed.
    Amazon(Arc<Amazon>),
    /// Google: a token that expires.
    Google(Arc<Token>),
    /// Nothing can be proved with this credential: requests fail as with one that the provider refuses.
    Unusable,
}

/// An access key, and where it is used.
#[derive(Debug)]
pub struct Amazon {
    keys: Keys,
    region: Box<str>,
}

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

impl Signer {
    /// The signer of requests to `base`; `Err(key)`: the secret is an API key, to be sent as a bearer token.
    ///
    /// # Errors
    /// What is wrong with the secret, without a word of it.
    pub fn amazon(secret: &Secret, base: &Uri) -> Result<Result<Self, String>, String> {
        match sigv4::Credential::parse(secret.expose()).map_err(|error| error.to_string())? {
            sigv4::Credential::Bearer(key) => Ok(Err(key)),
            sigv4::Credential::Keys(keys) => {
                let region = keys.region.as_deref().or_else(|| sigv4::region_of_host(base.host()?));
                let region = region.ok_or("neither the base URL nor the credential names a region")?.into();
                Ok(Ok(Self::Amazon(Arc::new(Amazon { keys, region }))))
            }
        }
    }

    /// Adds what proves who sends the request; `None` when there is nothing to prove it by.
    pub async fn sign(&self, request: &mut Request<SegmentBody>) -> Option<()> {
        match self {
            Self::Amazon(amazon) => amazon.sign(request),
            Self::Google(token) => {
                let value = token.authorization().await?;
                request.headers_mut().insert(header::AUTHORIZATION, value);
                Some(())
            }
            Self::Unusable => None,
        }
    }
}

impl Amazon {
    fn sign(&self, request: &mut Request<SegmentBody>) -> Option<()> {
        let body = BodyHash::of(request.body().whole()?.iter().map(|segment| &segment[..]));
        let signable = Signable {
            method: request.method().as_str(),
            host: request.headers().get(header::HOST)?.to_str().ok()?,
            path: request.uri().path(),
            query: request.uri().query().unwrap_or_default(),
            body,
        };
        let now = clock::unix_ms() / 1000;
        let signed = sigv4::sign(&self.keys, &self.region, "bedrock", &signable, now);
        let mut authorization = HeaderValue::from_str(&signed.authorization).ok()?;
        authorization.set_sensitive(true);
        let date = HeaderValue::from_str(&signed.date).ok()?;
        let token = match &signed.token {
            Some(token) => Some(HeaderValue::from_str(token).ok()?),
            None => None,
        };
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, authorization);
        headers.insert(AMZ_DATE, date);
        if let Some(mut token) = token {
            token.set_sensitive(true);
            headers.insert(AMZ_SECURITY_TOKEN, token);
        }
        Some(())
    }
}
