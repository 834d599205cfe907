//! Covers: handshakes with right and wrong authorities, client certificates, a pinned certificate, reload under an open
//! stream and on SIGHUP, how ports with a certificate are reached.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::{TaskGroup, drain, http_server, http_server::ServerSettings};

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }

    /// A certificate for localhost with this serial number.
    fn issue(&self, files: &Identity, serial: u64) {
        self.issue_for(files, serial, &["localhost"]);
    }

    fn issue_for(&self, files: &Identity, serial: u64, names: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(serial.into());
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }
}

fn files(dir: &Path, name: &str) -> Identity {
    Identity { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
}

struct Site {
    dir: tempfile::TempDir,
    ca: Ca,
    addr: SocketAddr,
    tls: ServerTls,
    _trigger: drain::DrainTrigger,
}

impl Site {
    /// A server that answers with whether it was shown a certificate. With `node_ca` it asks for one.
    fn start(node_ca: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new("first");
        ca.write(&dir.path().join("ca.pem"));
        ca.issue(&files(dir.path(), "server"), 1);
        let client_ca = node_ca.then(|| dir.path().join("ca.pem"));
        let tls = ServerTls::load(&files(dir.path(), "server"), client_ca).unwrap();
        let shown = tls.clone().unwrap();
        let listener = http_server::bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let addr = listener.local_addr().unwrap();
        let (trigger, watcher) = drain::channel();
        let tasks = TaskGroup::new();
        tasks.spawn("certificates", shown.clone().watch(watcher.clone()));
        let service = service_fn(|request: Request<Incoming>| async move {
            let shown = request.extensions().get::<ClientCertificate>().is_some();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("shown: {shown}.")))))
        });
        tasks.spawn(
            "server",
            http_server::serve_with(listener, tls, service, ServerSettings::named("t"), watcher),
        );
        Self { dir, ca, addr, tls: shown, _trigger: trigger }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn connect(
        &self,
        ca: &str,
        identity: &Identity,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let config = client_config(&self.path(ca), identity.given().unwrap()).unwrap();
        self.connect_with(config, "localhost").await
    }

    async fn connect_with(
        &self,
        mut config: ClientConfig,
        name: &'static str,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from(name).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}

async fn ask(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.ends_with('.') {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    Ok(text)
}

fn serial(stream: &tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].as_ref().to_vec()
}

#[tokio::test]
async fn only_the_right_authority_is_trusted() {
    let site = Site::start(false);
    let mut stream = site.connect("ca.pem", &Identity::default()).await.unwrap();
    assert!(ask(&mut stream).await.unwrap().ends_with("shown: false."));
    Ca::new("other").write(&site.path("other.pem"));
    let error = site.connect("other.pem", &Identity::default()).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn plaintext_on_a_tls_port_gets_no_answer() {
    let site = Site::start(false);
    let mut stream = TcpStream::connect(site.addr).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test]
async fn client_certificates_are_verified_and_told_to_the_service() {
    let site = Site::start(true);
    let mine = files(site.dir.path(), "node");
    site.ca.issue(&mine, 7);
    let mut stream = site.connect("ca.pem", &mine).await.unwrap();
    assert!(ask(&mut stream).await.unwrap().ends_with("shown: true."));
    let mut without = site.connect("ca.pem", &Identity::default()).await.unwrap();
    assert!(ask(&mut without).await.unwrap().ends_with("shown: false."));
    let forged = files(site.dir.path(), "forged");
    Ca::new("other").issue(&forged, 8);
    // In TLS 1.3 the client learns of it with its first read.
    let refused = match site.connect("ca.pem", &forged).await {
        Ok(mut stream) => ask(&mut stream).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test]
async fn a_pinned_certificate_is_trusted_under_any_name_and_no_other_is() {
    let site = Site::start(false);
    let pinned = ClientTls::pinned(site.path("server.pem")).unwrap();
    let mut stream = site.connect_with(pinned.config(), "127.0.0.1").await.unwrap();
    assert!(ask(&mut stream).await.unwrap().ends_with("shown: false."));
    site.ca.issue(&files(site.dir.path(), "sister"), 9);
    let sister = ClientTls::pinned(site.path("sister.pem")).unwrap();
    assert!(
        site.connect_with(sister.config(), "localhost").await.is_err(),
        "of the same authority, but another"
    );
}

/// Waits for the counter instead of the clock.
async fn reloaded(reloads: &mut watch::Receiver<Reloads>, done: impl Fn(&Reloads) -> bool) {
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, reloads.wait_for(done)).await.expect("never reloaded").unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_picked_up_and_open_connections_stay() {
    let site = Site::start(false);
    let mut reloads = site.tls.reloads();
    let mut open = site.connect("ca.pem", &Identity::default()).await.unwrap();
    ask(&mut open).await.unwrap();
    let before = serial(&open);
    let (files, next) = (files(site.dir.path(), "server"), files(site.dir.path(), "next"));
    site.ca.issue(&next, 2);
    // A certificate without its key changes nothing.
    std::fs::copy(&next.cert, &files.cert).unwrap();
    reloaded(&mut reloads, |reloads| reloads.refused > 0).await;
    assert_eq!(serial(&site.connect("ca.pem", &Identity::default()).await.unwrap()), before);
    std::fs::copy(&next.key, &files.key).unwrap();
    reloaded(&mut reloads, |reloads| reloads.taken > 0).await;
    assert_ne!(serial(&site.connect("ca.pem", &Identity::default()).await.unwrap()), before);
    assert!(ask(&mut open).await.unwrap().ends_with("shown: false."), "the open connection goes on");
}

#[tokio::test]
async fn a_hangup_reads_certificates_again_at_once() {
    // Before the first is raised, or it would end the test process.
    let _installed = crate::signal::Hangups::install();
    let dir = tempfile::tempdir().unwrap();
    Ca::new("ca").issue(&files(dir.path(), "server"), 1);
    let tls = ServerTls::load(&files(dir.path(), "server"), None).unwrap().unwrap();
    let mut reloads = tls.reloads();
    let (_trigger, watcher) = drain::channel();
    let tasks = TaskGroup::new();
    // Nobody waits an hour: what is read again was asked for. Files that look the same are read too.
    tasks.spawn("certificates", async move { tls.0.watch_every(Duration::from_secs(3600), watcher).await });
    let hang_up = async {
        loop {
            let pid = std::process::id().to_string();
            assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = reloaded(&mut reloads, |reloads| reloads.taken > 0) => {}
        () = hang_up => {}
    }
}

#[test]
fn a_port_is_reached_under_a_name_that_its_certificate_has() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "server");
    let ca = Ca::new("ca");
    let reach = |names: &[&str], addr: &str| {
        ca.issue_for(&files, 1, names);
        let found = inspect::reach(&files, addr.parse().unwrap()).unwrap();
        assert!(!found.trusted, "nobody knows this authority");
        (found.host, found.foreign_name)
    };
    let all = ["localhost", "127.0.0.1", "*.example.com", "llm.example.com"];
    assert_eq!(reach(&all, "127.0.0.1:1"), ("127.0.0.1".into(), false));
    assert_eq!(reach(&["localhost"], "127.0.0.1:1"), ("localhost".into(), false));
    assert_eq!(reach(&["::1"], "[::1]:1"), ("[::1]".into(), false));
    assert_eq!(
        reach(&all, "192.0.2.1:1"),
        ("llm.example.com".into(), true),
        "not localhost, which is elsewhere"
    );
    assert_eq!(reach(&["*.example.com"], "192.0.2.1:1"), ("192.0.2.1".into(), false), "nothing better");
}

#[test]
fn what_is_wrong_with_the_files_is_said_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let files = files(dir.path(), "x");
    let load = |files: &Identity| ServerTls::load(files, None).map(|it| it.is_some());
    assert!(!load(&Identity::default()).unwrap());
    let half = Identity { cert: files.cert.clone(), key: PathBuf::new() };
    assert!(load(&half).unwrap_err().to_string().contains("without its key"));
    assert!(load(&files).unwrap_err().to_string().contains("x.key"));
    Ca::new("ca").issue(&files, 1);
    assert!(load(&files).unwrap());
    std::fs::write(&files.cert, "nonsense").unwrap();
    let error = load(&files).unwrap_err().to_string();
    assert!(error.contains("x.pem holds no certificate"), "{error}");
    Ca::new("ca").issue(&files, 1);
    std::fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let error = load(&files).unwrap_err().to_string();
    assert!(error.contains("does not work with its key"), "{error}");
}

#[test]
fn plaintext_is_refused_where_others_can_reach_it() {
    let check = |addr: &str, tls: &Identity, allowed| {
        check_plaintext(("--listen", addr.parse().unwrap()), ("--tls-cert and --tls-key", tls), allowed)
    };
    let none = Identity::default();
    for local in ["127.0.0.1:1", "[::1]:1", "127.3.0.1:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(check(local, &none, false), Ok(()), "{local}");
    }
    let error = check("0.0.0.0:8080", &none, false).unwrap_err().to_string();
    assert!(error.starts_with("--listen 0.0.0.0:8080") && error.contains("--allow-plaintext"), "{error}");
    assert!(!error.contains('\n'));
    assert_eq!(check("0.0.0.0:8080", &none, true), Ok(()));
    assert_eq!(check("0.0.0.0:8080", &Identity { cert: "c".into(), key: "k".into() }, false), Ok(()));
}
