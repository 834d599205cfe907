//! Issuers that are broken or hostile: what is fetched is bounded, from where it should be, and of whom it should be.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{Router, routing::get};
use hyper_util::service::TowerToHyperService;
use nemo_runtime::{
    TaskGroup, drain,
    http_server::{self, ServerSettings},
    tls::{Identity, ServerTls},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Signer, claims, encode};
use crate::admin::{
    ErrorKind,
    oidc::{Oidc, OidcOptions, discovery::IssuerClient},
};

/// Answers every connection with what `answer` makes of the path, and counts.
struct Server {
    url: String,
    served: Arc<AtomicUsize>,
    tasks: TaskGroup,
}

impl Server {
    async fn start(answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (served, tasks) = (Arc::new(AtomicUsize::new(0)), TaskGroup::new());
        let (count, own) = (served.clone(), url.clone());
        tasks.spawn("issuer", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default();
                count.fetch_add(1, Ordering::SeqCst);
                let _left = stream.write_all(answer(&own, path).as_bytes()).await;
            }
        });
        Self { url, served, tasks }
    }

    fn options(&self) -> OidcOptions {
        OidcOptions {
            issuer: Some(self.url.clone()),
            audience: Some("nemo".into()),
            ..OidcOptions::default()
        }
    }

    async fn fetch(&self) -> Result<usize, String> {
        let settings = self.options().check().unwrap().unwrap();
        let fetched = IssuerClient::new(&settings).unwrap().fetch().await;
        self.tasks.join(std::time::Duration::ZERO).await;
        fetched.map(|keys| keys.len()).map_err(|error| error.to_string())
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn discovery(issuer: &str, keys: &str) -> String {
    ok(&json!({ "issuer": issuer, "jwks_uri": keys }).to_string())
}

fn jwks(keys: &[Value]) -> String {
    ok(&json!({ "keys": keys }).to_string())
}

#[tokio::test]
async fn keys_are_fetched_as_the_discovery_document_says() {
    let keys = Signer::new().jwks();
    let server = Server::start(move |own, path| match path {
        "/.well-known/openid-configuration" => discovery(own, &format!("{own}/keys")),
        "/keys" => jwks(&keys),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into(),
    });
    assert_eq!(server.await.fetch().await, Ok(2));
}

/// An authority of the test's own, and a certificate of it for localhost.
fn certified(dir: &Path) -> (PathBuf, Option<ServerTls>) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let at = |name: &str| dir.join(name);
    std::fs::write(at("ca.pem"), authority.pem()).unwrap();
    std::fs::write(at("issuer.pem"), certificate.pem()).unwrap();
    std::fs::write(at("issuer.key"), key.serialize_pem()).unwrap();
    let identity = Identity { cert: at("issuer.pem"), key: at("issuer.key") };
    (at("ca.pem"), ServerTls::load(&identity, None).unwrap())
}

#[tokio::test]
async fn an_issuer_behind_tls_is_believed_by_the_authority_of_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, tls) = certified(dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let document = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") }).to_string();
    let keys = json!({ "keys": Signer::new().jwks() }).to_string();
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(async || document))
        .route("/keys", get(async || keys));
    let (tasks, (trigger, watcher)) = (TaskGroup::new(), drain::channel());
    let service = TowerToHyperService::new(router);
    tasks.spawn(
        "issuer",
        http_server::serve_with(listener, tls, service, ServerSettings::named("issuer"), watcher),
    );
    let fetch = async |ca_file: Option<PathBuf>| {
        let options = OidcOptions {
            issuer: Some(url.clone()),
            audience: Some("nemo".into()),
            ca_file,
            ..OidcOptions::default()
        };
        let client = IssuerClient::new(&options.check().unwrap().unwrap()).unwrap();
        client.fetch().await.map(|keys| keys.len()).map_err(|error| error.to_string())
    };
    assert_eq!(fetch(Some(ca)).await, Ok(2));
    let error = fetch(None).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "no public authority knows it: {error}");
    trigger.start();
    assert!(tasks.join(std::time::Duration::from_secs(10)).await.is_empty());
}

#[tokio::test]
async fn a_document_that_is_not_as_it_should_be_gives_no_keys_and_a_reason() {
    type Answer = fn(&str, &str) -> String;
    let cases: [(Answer, &str); 8] = [
        (|_, _| discovery("http://127.0.0.1:1", "http://127.0.0.1:1/keys"), "calls itself"),
        (|own, _| discovery(own, "http://keys.example/keys"), "neither https nor on this machine"),
        (
            |_, _| {
                "HTTP/1.1 302 Found\r\nlocation: https://evil.example/\r\ncontent-length: 0\r\n\r\n".into()
            },
            "302",
        ),
        (|_, _| "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".into(), "500"),
        (|_, _| ok(&" ".repeat(600 * 1024)), "larger than 524288 bytes"),
        (|_, _| ok("<html>"), "expected value"),
        (|_, _| ok("{}"), "missing field"),
        (
            |own, path| if path == "/keys" { jwks(&[]) } else { discovery(own, &format!("{own}/keys")) },
            "no key",
        ),
    ];
    for (answer, says) in cases {
        let error = Server::start(answer).await.fetch().await.unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
}

#[tokio::test]
async fn a_file_of_authorities_without_any_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for (content, says) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nx\n", "")] {
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, content).unwrap();
        let options = OidcOptions {
            issuer: Some("https://issuer.example".into()),
            audience: Some("nemo".into()),
            ca_file: Some(path),
            ..OidcOptions::default()
        };
        let error = Oidc::new(options.check().unwrap().unwrap()).unwrap_err().to_string();
        assert!(error.contains("oidc_ca_file") && error.contains(says), "{error}");
    }
}

/// Tokens with made-up keys must not become requests to the issuer.
#[tokio::test]
async fn tokens_with_unknown_keys_do_not_multiply_requests_to_the_issuer() {
    let keys = Signer::new().jwks();
    let server =
        Server::start(
            move |own, path| {
                if path == "/keys" { jwks(&keys) } else { discovery(own, &format!("{own}/keys")) }
            },
        );
    let server = server.await;
    let oidc = Oidc::new(server.options().check().unwrap().unwrap()).unwrap();
    let (trigger, watcher) = drain::channel();
    let tasks = TaskGroup::new();
    tasks.spawn("keys", oidc.clone().run(watcher));
    let header = encode(json!({ "alg": "ES256", "kid": "made-up" }).to_string());
    let token = format!("{header}.{}.{}", encode(claims().to_string()), encode("signature"));
    let began = std::time::Instant::now();
    for _ in 0..50 {
        assert_eq!(oidc.identify(&token).await.unwrap_err().kind, ErrorKind::Unauthenticated);
    }
    // Two documents at the start, and two for the first of these tokens when that came late.
    let served = server.served.load(Ordering::SeqCst);
    assert!(served <= 4 || began.elapsed().as_secs() > 4, "{served} requests");
    trigger.start();
    assert!(tasks.join(std::time::Duration::from_secs(5)).await.is_empty());
    server.tasks.join(std::time::Duration::ZERO).await;
}
