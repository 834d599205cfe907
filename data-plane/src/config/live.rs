//! A snapshot with what this node derives from it before the first request sees it: opened credentials, request
//! URIs, header values. Made by [`super::apply`], read by the pipeline.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use nemo_llm::{AuthScheme, Endpoint, Plan, Provider};
use nemo_snapshot::{Deployment, KeyRecord, Kind, Rejection, ResourceKey, Snapshot, tenancy::Disabled};
use nemo_types::{DeploymentId, Keyring, Marker, Secret};

use super::revoked::Revoked;
use crate::{
    health::DeploymentStats,
    routing::{Served, served},
    upstream::{Route, Signer, UpstreamClient},
};

/// What the data port serves by. A clone is cheap.
#[derive(Clone, Debug)]
pub struct Live {
    pub snapshot: Snapshot,
    /// Indexed by [`Deployment::slot`]. Shared between snapshots of the same routing.
    pub upstreams: Arc<Vec<Upstream>>,
    /// What routing needs of them; shared likewise.
    pub served: Arc<Served>,
    /// Seals the ids of what providers keep, and knows its own seals again.
    pub ids: Marker,
    /// The revision, for `x-nemo-config-version`.
    pub revision: HeaderValue,
    /// What was switched off since, ahead of the next snapshot.
    pub(super) revoked: Arc<Revoked>,
    pub(super) public_models: Arc<OnceLock<PublicModels>>,
}

/// The public catalog, rendered once per snapshot.
#[derive(Debug, Clone)]
pub struct PublicModels {
    pub body: Bytes,
    pub etag: HeaderValue,
}

/// How to call one deployment.
#[derive(Debug)]
pub struct Upstream {
    pub provider: &'static Provider,
    pub headers: RequestHeaders,
    /// For the response headers `x-nemo-provider` and `x-nemo-model`.
    pub provider_header: HeaderValue,
    pub model_header: HeaderValue,
    pub route: Route,
    /// How busy, fast and reliable it is; outlives the snapshot.
    pub stats: Arc<DeploymentStats>,
    /// Signs requests, where the credential is no fixed header.
    pub signer: Option<Signer>,
    calls: [Option<Call>; Endpoint::ALL.len()],
}

/// How one endpoint is called.
#[derive(Debug)]
struct Call {
    plan: Plan,
    /// `None`: nobody is called.
    uri: Option<Uri>,
    /// For streams, where they are elsewhere.
    stream: Option<Box<Uri>>,
}

/// What every request carries: the host, who we are, the provider's own headers and the credential, which is marked
/// sensitive. A copy costs less than putting them together.
#[derive(Debug)]
pub struct RequestHeaders {
    /// No more than that.
    bare: HeaderMap,
    /// With places for the length and for what the client accepts, which nearly every request has: a copy of a table has
    /// no room for more, so that inserting them would move it.
    usual: HeaderMap,
}

impl RequestHeaders {
    fn new(bare: HeaderMap) -> Self {
        // Hyper asks for the place of one more, which in a full table makes it grow.
        let mut usual = HeaderMap::with_capacity(bare.len() + 4);
        usual.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        usual.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        usual.extend(bare.iter().map(|(name, value)| (name.clone(), value.clone())));
        Self { bare, usual }
    }

    /// Of a request with a body of this length.
    pub fn of(&self, length: Option<u64>, accept: Option<&HeaderValue>) -> HeaderMap {
        let (Some(length), Some(accept)) = (length, accept) else {
            let mut headers = self.bare.clone();
            headers.extend(accept.map(|accept| (header::ACCEPT, accept.clone())));
            return headers;
        };
        let mut headers = self.usual.clone();
        let values = [HeaderValue::from(length), accept.clone()];
        headers.values_mut().zip(values).for_each(|(place, value)| *place = value);
        headers
    }
}

impl Upstream {
    /// Where this endpoint is, in the form that the route wants; `None` when the deployment does not serve it.
    pub fn uri(&self, endpoint: Endpoint, stream: bool) -> Option<&Uri> {
        let call = self.calls[endpoint as usize].as_ref()?;
        match &call.stream {
            Some(uri) if stream => Some(uri),
            _ => call.uri.as_ref(),
        }
    }

    /// How a request for this endpoint gets into the upstream's words.
    pub fn plan(&self, endpoint: Endpoint) -> Option<Plan> {
        Some(self.calls[endpoint as usize].as_ref()?.plan)
    }
}

impl Live {
    /// Opens credentials and builds URIs; takes those of `previous` when the routing is the same.
    ///
    /// # Errors
    /// Credentials sealed with a key that this node lacks: it is the node that is set up wrongly, not a deployment.
    pub fn prepare(
        snapshot: Snapshot,
        previous: Option<&Self>,
        keyring: &Keyring,
        client: &UpstreamClient,
    ) -> Result<Self, Vec<Rejection>> {
        let revision = HeaderValue::from(snapshot.revision);
        let (revoked, ids) = (Arc::default(), keyring.marker());
        let same = previous.filter(|live| Arc::ptr_eq(&live.snapshot.routing, &snapshot.routing));
        if let Some(live) = same {
            let (upstreams, public_models) = (live.upstreams.clone(), live.public_models.clone());
            let served = live.served.clone();
            return Ok(Self { snapshot, upstreams, served, ids, revision, revoked, public_models });
        }
        let known = previous.map(stats_by_id).unwrap_or_default();
        let mut upstreams = Vec::with_capacity(snapshot.routing.deployments().len());
        let mut rejections = Vec::new();
        for deployment in snapshot.routing.deployments() {
            match opened(deployment, keyring) {
                Ok(secret) => {
                    let made = upstream(deployment, secret, client, &known);
                    upstreams.push(made.unwrap_or_else(|unfit| unserved(deployment, &known, &unfit)));
                }
                Err(message) => {
                    let id = Bytes::copy_from_slice(deployment.id.as_bytes());
                    let key = ResourceKey { kind: Kind::Deployment, id };
                    rejections.push(Rejection::new(Some(key), "credential_id", message));
                }
            }
        }
        if !rejections.is_empty() {
            return Err(rejections);
        }
        let upstreams = Arc::new(upstreams);
        let served = Arc::new(Served::new(&snapshot.routing));
        Ok(Self { snapshot, upstreams, served, ids, revision, revoked, public_models: Arc::default() })
    }

    /// Whether the key, or what it belongs to, is switched off: by the snapshot, or ahead of the next one.
    pub fn disabled(&self, key: &KeyRecord) -> Option<Disabled> {
        self.revoked.disabled(key).or_else(|| self.snapshot.tenancy.disabled(key))
    }

    pub fn public_models(&self, render: impl FnOnce() -> PublicModels) -> &PublicModels {
        self.public_models.get_or_init(render)
    }
}

type StatsById = HashMap<DeploymentId, Arc<DeploymentStats>>;

/// What is known of deployments does not end with a snapshot.
fn stats_by_id(live: &Live) -> StatsById {
    let deployments = live.snapshot.routing.deployments().iter();
    deployments.zip(live.upstreams.iter()).map(|(it, upstream)| (it.id, upstream.stats.clone())).collect()
}

/// The field that keeps a deployment from being called, and what is wrong with it.
type Unfit = (&'static str, String);

/// The deployment's credential.
fn opened(deployment: &Deployment, keyring: &Keyring) -> Result<Option<Vec<u8>>, String> {
    let Some(credential) = &deployment.credential else { return Ok(None) };
    let opened = keyring.open(credential.id.as_bytes(), &credential.sealed);
    opened.map(Some).map_err(|error| format!("the credential can't be opened: {error}"))
}

fn upstream(
    deployment: &Deployment,
    secret: Option<Vec<u8>>,
    client: &UpstreamClient,
    known: &StatsById,
) -> Result<Upstream, Unfit> {
    let provider = served::provider(deployment);
    let malformed = || ("base_url", "not a URL".to_owned());
    let base: Uri = deployment.base_url.parse().map_err(|_| malformed())?;
    let authority = base.authority().ok_or(("base_url", "has no host".to_owned()))?;
    let route = client.route(&base, client.reach(deployment.org_id));
    let route = route.ok_or(("base_url", "not an address that can be called".to_owned()))?;
    let mut calls = [const { None }; Endpoint::ALL.len()];
    for endpoint in Endpoint::ALL {
        let Some(plan) = served::plan(deployment, endpoint) else { continue };
        let place = |stream: bool| {
            let Some(url) = served::url(deployment, endpoint, plan, stream) else { return Ok(None) };
            let uri: Uri = url.parse().map_err(|_| malformed())?;
            // The route knows the host; no other is ever called.
            if uri.authority() != base.authority() {
                return Err(malformed());
            }
            Ok(Some(match (&route, uri.path_and_query()) {
                (Route::Http1(_), Some(path)) => Uri::from(path.clone()),
                _ => uri,
            }))
        };
        let uri = place(false)?;
        if uri.is_none() && !served::is_own(plan) {
            continue;
        }
        let stream = place(true)?.filter(|stream| Some(stream) != uri.as_ref()).map(Box::new);
        calls[endpoint as usize] = Some(Call { plan, uri, stream });
    }
    let (credential, signer) = match authorization(deployment, provider, secret, &base, client)? {
        Authorization::None => (None, None),
        Authorization::Header(name, value) => (Some((name, value)), None),
        Authorization::Signer(signer) => (None, Some(signer)),
    };
    Ok(Upstream {
        provider,
        headers: RequestHeaders::new(request_headers(authority.as_str(), provider, credential)?),
        provider_header: header_value("provider", &deployment.provider)?,
        model_header: header_value("upstream_model", &deployment.upstream_model)?,
        route,
        stats: known.get(&deployment.id).cloned().unwrap_or_default(),
        signer,
        calls,
    })
}

/// What stands in the place of a deployment that can't be called. Compiling lets none pass that we know of; but one
/// deployment, which may be an organization's own, must not keep a revision from all others.
fn unserved(deployment: &Deployment, known: &StatsById, (field, reason): &Unfit) -> Upstream {
    tracing::error!(
        deployment = &*deployment.name,
        field,
        reason,
        "a deployment can't be called: it answers nothing until it is changed"
    );
    let shown = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    Upstream {
        provider: served::provider(deployment),
        headers: RequestHeaders::new(HeaderMap::new()),
        provider_header: shown(&deployment.provider),
        model_header: shown(&deployment.upstream_model),
        route: Route::Nowhere,
        stats: known.get(&deployment.id).cloned().unwrap_or_default(),
        signer: None,
        calls: [const { None }; Endpoint::ALL.len()],
    }
}

fn request_headers(
    authority: &str,
    provider: &Provider,
    credential: Option<(HeaderName, HeaderValue)>,
) -> Result<HeaderMap, Unfit> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::HOST, header_value("base_url", authority)?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("nemo-router/", env!("CARGO_PKG_VERSION"))),
    );
    for (name, value) in provider.static_headers {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.extend(credential);
    Ok(headers)
}

/// How a deployment's requests prove who sends them.
enum Authorization {
    None,
    Header(HeaderName, HeaderValue),
    Signer(Signer),
}

fn authorization(
    deployment: &Deployment,
    provider: &Provider,
    secret: Option<Vec<u8>>,
    base: &Uri,
    client: &UpstreamClient,
) -> Result<Authorization, Unfit> {
    let Some(secret) = secret else { return Ok(Authorization::None) };
    let secret = String::from_utf8(secret).map(Secret::new);
    let secret = secret.map_err(|_| ("credential_id", "the credential is not text".to_owned()))?;
    let bearer = |secret: &Secret| (header::AUTHORIZATION, format!("Bearer {}", secret.expose()));
    let (name, text) = match provider.auth {
        AuthScheme::None => return Ok(Authorization::None),
        AuthScheme::Bearer => bearer(&secret),
        AuthScheme::Header(name) => (HeaderName::from_static(name), secret.expose().to_owned()),
        AuthScheme::SigV4 => match Signer::amazon(&secret, base) {
            Ok(Ok(signer)) => return Ok(Authorization::Signer(signer)),
            Ok(Err(key)) => bearer(&Secret::new(key)),
            Err(reason) => return Ok(unusable(deployment, &reason)),
        },
        AuthScheme::GcpToken => match client.credentials.google(&secret) {
            Ok(Some(signer)) => return Ok(Authorization::Signer(signer)),
            Ok(None) => bearer(&secret),
            Err(reason) => return Ok(unusable(deployment, &reason)),
        },
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        ("credential_id", "the credential has characters that no header can carry".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(Authorization::Header(name, value))
}

/// One deployment's credential, which may be an organization's own, must not keep a revision from all others.
fn unusable(deployment: &Deployment, reason: &str) -> Authorization {
    tracing::error!(
        deployment = &*deployment.name,
        reason,
        "a credential can't be used: its deployment answers nothing until it is replaced"
    );
    Authorization::Signer(Signer::Unusable)
}

fn header_value(field: &'static str, text: &str) -> Result<HeaderValue, Unfit> {
    HeaderValue::from_str(text).map_err(|_| (field, "has characters that no header can carry".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_what_all_have_and_its_own_length_and_wish() {
        let secret = HeaderValue::from_static("Bearer sk");
        let credential = Some((header::AUTHORIZATION, secret));
        let provider = nemo_llm::provider("openai").unwrap();
        let all = request_headers("api.example:8443", provider, credential).unwrap();
        let made = RequestHeaders::new(all.clone());
        let accept = HeaderValue::from_static("text/event-stream");
        let usual = made.of(Some(12_345), Some(&accept));
        assert_eq!(
            (&usual[header::CONTENT_LENGTH], &usual[header::ACCEPT]),
            (&"12345".parse().unwrap(), &accept)
        );
        assert!(all.iter().all(|(name, value)| usual.get(name) == Some(value)));
        assert_eq!(usual.len(), all.len() + 2);
        assert_eq!(made.of(Some(1), None), all);
        let unknown = made.of(None, Some(&accept));
        assert_eq!((unknown.get(header::CONTENT_LENGTH), unknown.len()), (None, all.len() + 1));
        assert_eq!(unknown[header::ACCEPT], accept);
    }
}
