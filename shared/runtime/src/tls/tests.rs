//! Covers: handshakes with right and wrong authorities, client certificates, reload under an open stream.

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
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
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
        let listener = http_server::bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let addr = listener.local_addr().unwrap();
        let (trigger, watcher) = drain::channel();
        let tasks = TaskGroup::new();
        tasks.spawn("certificates", tls.clone().unwrap().watch(watcher.clone()));
        let service = service_fn(|request: Request<Incoming>| async move {
            let shown = request.extensions().get::<ClientCertificate>().is_some();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("shown: {shown}.")))))
        });
        tasks.spawn(
            "server",
            http_server::serve_with(listener, tls, service, ServerSettings::named("t"), watcher),
        );
        Self { dir, ca, addr, _trigger: trigger }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn connect(
        &self,
        ca: &str,
        identity: &Identity,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let mut config = client_config(&self.path(ca), identity.given().unwrap()).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let stream = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from("localhost").unwrap();
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
async fn a_new_certificate_is_picked_up_and_open_connections_stay() {
    let site = Site::start(false);
    let mut open = site.connect("ca.pem", &Identity::default()).await.unwrap();
    ask(&mut open).await.unwrap();
    let before = serial(&open);
    let files = files(site.dir.path(), "server");
    // A certificate without its key changes nothing.
    let key = std::fs::read(&files.key).unwrap();
    site.ca.issue(&files, 2);
    let new_key = std::fs::read(&files.key).unwrap();
    std::fs::write(&files.key, key).unwrap();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(serial(&site.connect("ca.pem", &Identity::default()).await.unwrap()), before);
    std::fs::write(&files.key, new_key).unwrap();
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while serial(&site.connect("ca.pem", &Identity::default()).await.unwrap()) == before {
        assert!(std::time::Instant::now() < give_up, "never reloaded");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ask(&mut open).await.unwrap().ends_with("shown: false."), "the open connection goes on");
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
