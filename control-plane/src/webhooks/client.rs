//! Sends one delivery. No redirect is followed and nothing is read of an answer but its status; a name is looked up anew
//! for each connection, and only addresses that may be sent to are connected to. Called by [`super::job`].

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Uri, header};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, dns::Name},
    },
    rt::{TokioExecutor, TokioTimer},
};
use tower::Service;

use super::{
    address::{check, is_public},
    signature::{self, SigningSecret},
};
use crate::causes::with_causes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From name lookup to the head of the answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Sends to endpoints.
#[derive(Clone)]
pub struct WebhookClient {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    allow_private: bool,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    pub url: &'a str,
    /// The same each time that this event is sent.
    pub event_id: uuid::Uuid,
    /// When this attempt is made.
    pub unix_seconds: i64,
    pub body: &'a str,
}

/// Why an endpoint has not taken a delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error("{0}")]
    Url(#[from] super::address::BadUrl),
    #[error("answered {0}")]
    Status(u16),
    #[error("answered {0}; redirects are not followed")]
    Redirect(u16),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("{0}")]
    Connection(String),
}

impl NotTaken {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status(status) | Self::Redirect(status) => Some(*status),
            _ => None,
        }
    }
}

impl WebhookClient {
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(allow_private: bool) -> Result<Self, rustls::Error> {
        let mut http = HttpConnector::new_with_resolver(Resolver { allow_private });
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let provider = rustls::crypto::ring::default_provider();
        // Whether http is acceptable is decided on the URL.
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        // Nothing is pooled: a connection that was allowed for one address is not used for another.
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(0)
            .build(connector);
        Ok(Self { client, allow_private })
    }

    /// The status of the answer when the endpoint took it.
    ///
    /// # Errors
    /// When it did not, whyever.
    pub async fn send(&self, delivery: &Delivery<'_>, secrets: &[SigningSecret]) -> Result<u16, NotTaken> {
        // Addresses in URLs are not looked up, so the resolver would not see them.
        let uri = check(delivery.url, self.allow_private)?;
        match tokio::time::timeout(TIMEOUT, self.post(uri, delivery, secrets)).await {
            Ok(answer) => answer,
            Err(_) => Err(NotTaken::Timeout),
        }
    }

    async fn post(
        &self,
        uri: Uri,
        delivery: &Delivery<'_>,
        secrets: &[SigningSecret],
    ) -> Result<u16, NotTaken> {
        let id = format!("msg_{}", delivery.event_id.simple());
        let signature = signature::header(secrets, &id, delivery.unix_seconds, delivery.body);
        let request = http::Request::post(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("nemo-router/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", delivery.unix_seconds)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::copy_from_slice(delivery.body.as_bytes())))
            .map_err(|error| NotTaken::Connection(error.to_string()))?;
        let response =
            self.client.request(request).await.map_err(|error| NotTaken::Connection(reason(&error)))?;
        // The body is dropped unread.
        match response.status().as_u16() {
            status @ 200..=299 => Ok(status),
            status @ 300..=399 => Err(NotTaken::Redirect(status)),
            status => Err(NotTaken::Status(status)),
        }
    }
}

/// Looks names up and leaves out what must not be connected to.
#[derive(Clone, Copy, Debug)]
struct Resolver {
    allow_private: bool,
}

type Lookup = Pin<Box<dyn Future<Output = std::io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Lookup;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Lookup {
        let allow_private = self.allow_private;
        Box::pin(async move {
            // The port comes from the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(allowed(found, allow_private)?.into_iter())
        })
    }
}

fn allowed(found: impl Iterator<Item = SocketAddr>, allow_private: bool) -> std::io::Result<Vec<SocketAddr>> {
    let may = |address: IpAddr| allow_private || is_public(address);
    let kept: Vec<_> = found.filter(|address| may(address.ip())).collect();
    if kept.is_empty() {
        return Err(std::io::Error::other("the name has no public address"));
    }
    Ok(kept)
}

/// As much of it as a row of the table of deliveries shows.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = with_causes(error);
    text.truncate(text.floor_char_boundary(300));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(url: &str) -> Delivery<'_> {
        Delivery { url, event_id: uuid::Uuid::nil(), unix_seconds: 1, body: "{}" }
    }

    #[test]
    fn of_what_a_name_resolves_to_only_public_addresses_are_left() {
        let found = || ["10.0.0.1:0", "1.1.1.1:0", "[::1]:0"].map(|text| text.parse().unwrap()).into_iter();
        assert_eq!(allowed(found(), false).unwrap(), ["1.1.1.1:0".parse().unwrap()]);
        assert_eq!(allowed(found(), true).unwrap().len(), 3);
        assert!(allowed(found().take(1), false).is_err());
    }

    /// A name that resolves to loopback is the attack; no server is needed to see it refused.
    #[tokio::test]
    async fn what_resolves_to_this_machine_is_not_connected_to() {
        let mut resolver = Resolver { allow_private: false };
        let refused = resolver.call("localhost".parse().unwrap()).await.unwrap_err();
        assert_eq!(refused.to_string(), "the name has no public address");
        let client = WebhookClient::new(false).unwrap();
        for url in ["https://127.0.0.1:1/", "http://127.0.0.1:1/", "https://localhost:1/"] {
            assert!(matches!(client.send(&delivery(url), &[]).await, Err(NotTaken::Url(_))), "{url}");
        }
    }
}
