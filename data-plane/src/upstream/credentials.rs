//! Credentials that are fetched and not stored: bearer tokens of Google Cloud, minted from the key of a service account.
//! One background task keeps all of them fresh, so that no request waits for one, but the first after a start. It asks
//! for several at once: one organization's key that is slow to be answered must not cost another's requests their token.
//!
//! Keys are registered when a snapshot is prepared ([`crate::config::Live`]) and forgotten with the last snapshot that
//! names them. Where tokens come from is a setting of the node: a key's own `token_uri` is not believed, as who may store
//! a credential must not choose whom this node calls.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use nemo_llm::Segments;
use nemo_runtime::{clock, drain::DrainWatcher};
use nemo_types::Secret;
use ring::{rand::SystemRandom, signature};
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{Patience, Reach, SegmentBody, Signer, UpstreamClient};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// Google's longest.
const LIFETIME_SECS: u64 = 3600;
/// A token is renewed so long before its end.
const MARGIN: Duration = Duration::from_secs(300);
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a request waits for the first token.
const FIRST_TOKEN: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 64 << 10;
const RETRY: std::ops::RangeInclusive<u64> = 1..=60;
/// Tokens that are fetched at the same time. Those of keys that failed before leave half of it to the others.
const MOST_RENEWALS: usize = 8;

/// All of a node's. Clones share them.
#[derive(Clone, Default)]
pub struct Credentials {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By the digest of the key file.
    tokens: Mutex<HashMap<[u8; 32], Weak<Token>>>,
    /// There is a new one.
    registered: Notify,
}

/// A service account, and the token that was last minted for it.
pub struct Token {
    email: Box<str>,
    key_id: Box<str>,
    key: signature::RsaKeyPair,
    /// Value of `authorization`.
    value: watch::Sender<Option<HeaderValue>>,
    due: Mutex<Due>,
}

struct Due {
    /// `None`: it is being fetched.
    at: Option<Instant>,
    expires: Instant,
    failures: u32,
}

/// The file that Google hands out for a service account.
#[derive(Deserialize)]
struct KeyFile {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    #[serde(default)]
    private_key_id: String,
    private_key: String,
}

/// The value of `authorization` and how long it is good for, or why there is none.
type Fetched = Result<(HeaderValue, Duration), String>;

#[derive(Deserialize)]
struct Minted {
    access_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl Credentials {
    /// The signer of requests with this service account; `None` when the secret is no key file but a token.
    ///
    /// # Errors
    /// What is wrong with the file, without a word of it.
    pub fn google(&self, secret: &Secret) -> Result<Option<Signer>, String> {
        if !secret.expose().trim_start().starts_with('{') {
            return Ok(None);
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, secret.expose().as_bytes());
        let digest: [u8; 32] = digest.as_ref().try_into().map_err(|_| "it has no digest".to_owned())?;
        let mut tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get(&digest).and_then(Weak::upgrade) {
            return Ok(Some(Signer::Google(token)));
        }
        let token = Arc::new(Token::parse(secret.expose())?);
        tokens.retain(|_, token| token.strong_count() > 0);
        tokens.insert(digest, Arc::downgrade(&token));
        self.inner.registered.notify_one();
        Ok(Some(Signer::Google(token)))
    }

    /// What is to be fetched, and when, after how many failures: those with the fewest first.
    fn awaited(&self) -> Vec<(u32, Instant, Arc<Token>)> {
        let tokens = self.inner.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let awaited = tokens.values().filter_map(Weak::upgrade).filter_map(|token| {
            let due = token.due();
            let (failures, at) = (due.failures, due.at?);
            drop(due);
            Some((failures, at, token))
        });
        let mut awaited: Vec<_> = awaited.collect();
        awaited.sort_by_key(|(failures, at, _)| (*failures, *at));
        awaited
    }

    /// Keeps all tokens fresh until the drain. `url`: of the token endpoint.
    pub async fn run(self, client: UpstreamClient, url: Uri, drain: DrainWatcher) {
        let (client, url) = (&client, &url);
        self.keep(|token| async move { token.fetch(client, url).await }, drain).await;
    }

    async fn keep<F: Future<Output = Fetched>>(self, fetch: impl Fn(Arc<Token>) -> F, drain: DrainWatcher) {
        let mut drained = std::pin::pin!(drain.signaled());
        let mut renewals = FuturesUnordered::new();
        loop {
            let mut next = None::<Instant>;
            for (failures, at, token) in self.awaited() {
                let room = if failures == 0 { MOST_RENEWALS } else { MOST_RENEWALS / 2 };
                if at > Instant::now() {
                    next = Some(next.map_or(at, |next| next.min(at)));
                } else if renewals.len() < room {
                    token.due().at = None;
                    renewals.push(token.clone().renew(fetch(token)));
                }
            }
            let registered = self.inner.registered.notified();
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut drained => return,
                () = registered => {}
                () = due => {}
                Some(()) = renewals.next() => {}
            }
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("email", &self.email).finish_non_exhaustive()
    }
}

impl Token {
    fn parse(text: &str) -> Result<Self, String> {
        let file: KeyFile = serde_json::from_str(text).map_err(|_| {
            "the credential is no service account key: expected Google's JSON file".to_owned()
        })?;
        if file.kind != "service_account" {
            return Err("the credential is not of type service_account".into());
        }
        let der = pem(&file.private_key).ok_or("private_key is no PEM of PKCS #8")?;
        let key = signature::RsaKeyPair::from_pkcs8(&der)
            .map_err(|_| "private_key is no RSA key of at least 2048 bits".to_owned())?;
        let now = Instant::now();
        Ok(Self {
            email: file.client_email.into(),
            key_id: file.private_key_id.into(),
            key,
            value: watch::Sender::new(None),
            due: Mutex::new(Due { at: Some(now), expires: now, failures: 0 }),
        })
    }

    /// The value of `authorization`. Waits only when there has been none yet, and then for a moment.
    pub async fn authorization(&self) -> Option<HeaderValue> {
        if let Some(value) = self.value.borrow().clone() {
            return Some(value);
        }
        let mut value = self.value.subscribe();
        let first = tokio::time::timeout(FIRST_TOKEN, value.wait_for(Option::is_some)).await;
        first.ok()?.ok()?.clone()
    }

    fn due(&self) -> std::sync::MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the token that is fetched; on failure plans another try.
    async fn renew(self: Arc<Self>, fetch: impl Future<Output = Fetched>) {
        let fetched = tokio::time::timeout(PATIENCE, fetch).await;
        let minted = fetched.unwrap_or_else(|_| Err("it did not answer in time".into()));
        let now = Instant::now();
        let mut due = self.due();
        match minted {
            Ok((value, lifetime)) => {
                *due = Due {
                    at: Some(now + lifetime.saturating_sub(MARGIN).max(lifetime / 2)),
                    expires: now + lifetime,
                    failures: 0,
                };
                drop(due);
                self.value.send_replace(Some(value));
            }
            Err(reason) => {
                let wait = (RETRY.start() << due.failures.min(10)).min(*RETRY.end());
                due.at = Some(now + Duration::from_secs(wait));
                due.failures = due.failures.saturating_add(1);
                let expired = due.expires <= now;
                drop(due);
                tracing::error!(
                    account = &*self.email,
                    reason,
                    retry_secs = wait,
                    "no token for a service account: check its key, and that the token endpoint can be reached"
                );
                if expired {
                    self.value.send_replace(None);
                }
            }
        }
    }

    async fn fetch(&self, client: &UpstreamClient, url: &Uri) -> Fetched {
        let assertion = self.assertion(url, clock::unix_ms() / 1000)?;
        let body =
            format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let route = client.route(url, Reach::Anywhere).ok_or("its URL can't be called")?;
        let mut request = Request::new(SegmentBody::new(Segments::from_iter([Bytes::from(body)])));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = match (&route, url.path_and_query()) {
            (super::Route::Http1(_), Some(path)) => Uri::from(path.clone()),
            _ => url.clone(),
        };
        let host = url.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
        let host = host.ok_or("its URL has no host")?;
        request.headers_mut().insert(header::HOST, host);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
        let now = Instant::now();
        let patience = Patience { now: now.into_std(), connect: PATIENCE, head_by: now + PATIENCE };
        let response = client.send(&route, Box::new(request), patience).await;
        let (head, body) = response.map_err(|failed| failed.error.label().to_owned())?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| "its answer broke off")?;
        if !head.status.is_success() {
            // What it says may quote the assertion.
            return Err(format!("it refused with status {}", head.status.as_u16()));
        }
        let minted: Minted =
            serde_json::from_slice(&body.to_bytes()).map_err(|_| "its answer is no token".to_owned())?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", minted.access_token))
            .map_err(|_| "its token can't be sent".to_owned())?;
        value.set_sensitive(true);
        Ok((value, Duration::from_secs(minted.expires_in.clamp(60, 86_400))))
    }

    /// Proves, for an hour, who asks (RFC 7523).
    fn assertion(&self, url: &Uri, now: u64) -> Result<String, String> {
        let header = serde_json::json!({ "alg": "RS256", "typ": "JWT", "kid": &*self.key_id });
        let claims = serde_json::json!({
            "iss": &*self.email, "scope": SCOPE, "aud": url.to_string(), "iat": now, "exp": now + LIFETIME_SECS,
        });
        let part = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let mut signed = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signed)
            .map_err(|_| "its key can't sign".to_owned())?;
        Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signed)))
    }
}

/// The bytes between the lines `-----BEGIN PRIVATE KEY-----` and `-----END PRIVATE KEY-----`.
fn pem(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (inner, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let joined: String = inner.split_ascii_whitespace().collect();
    base64::prelude::BASE64_STANDARD.decode(joined).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(credentials: &Credentials, account: usize) -> Arc<Token> {
        let file = serde_json::json!({
            "type": "service_account", "client_email": account.to_string(),
            "private_key": include_str!("../../../tests/it/service-account.pem"),
        });
        match credentials.google(&Secret::new(file.to_string())) {
            Ok(Some(Signer::Google(token))) => token,
            other => panic!("{other:?}"),
        }
    }

    /// Thirty keys that nobody answers cost another's requests no time.
    #[tokio::test(start_paused = true)]
    async fn a_token_does_not_wait_for_those_that_nobody_answers() {
        let credentials = Credentials::default();
        let hanging: Vec<_> = (1..=30).map(|account| token(&credentials, account)).collect();
        let running = Arc::new(());
        let fetch = |token: Arc<Token>| {
            let held = running.clone();
            async move {
                if &*token.email != "0" {
                    std::future::pending::<()>().await;
                }
                drop(held);
                Ok((HeaderValue::from_static("Bearer mine"), Duration::from_secs(3600)))
            }
        };
        let asks = async {
            tokio::time::sleep(PATIENCE * 5).await;
            assert!(hanging.iter().all(|token| token.due().failures > 0), "each was tried");
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_secs(7)).await;
                assert!(Arc::strong_count(&running) > 1, "they are tried again");
                let begun = Instant::now();
                assert!(token(&credentials, 0).authorization().await.is_some());
                assert_eq!(begun.elapsed(), Duration::ZERO);
                assert!(Arc::strong_count(&running) <= 1 + MOST_RENEWALS);
            }
        };
        let (_trigger, drain) = nemo_runtime::drain::channel();
        tokio::select! {
            () = credentials.clone().keep(fetch, drain) => panic!("ended before the drain"),
            () = asks => {}
        }
    }
}
