//! TLS between everybody: clients and the data plane (HTTP/2 by ALPN), node and control plane with certificates of both
//! sides, and no plaintext that others could reach.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nemo_runtime::tls::{ClientTls, Identity};
use nemo_tests::{
    eventually,
    fleet::binary_path,
    ports::free_port,
    postgres::Server,
    process::{Process, Spec},
    site::wait_ready,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

const SEAL_KEY: &str = "6f0e1d2c3b4a59687766554433221100ffeeddccbbaa99887766554433221100";

pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    /// Its certificate is `NAME.ca.pem`.
    pub(super) fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(dir.join(format!("{name}.ca.pem")), ca.pem()).unwrap();
        Self(ca)
    }

    /// A certificate for localhost, `NAME.pem` and `NAME.key`.
    pub(super) fn issue(&self, dir: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()))
}

struct World {
    dir: tempfile::TempDir,
    grpc: SocketAddr,
    data: SocketAddr,
    ops: SocketAddr,
    control_plane: Process,
    _database: nemo_tests::postgres::Database,
}

impl World {
    /// A control plane with TLS that asks nodes for certificates, on loopback.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new(dir.path(), "ours");
        ca.issue(dir.path(), "server");
        ca.issue(dir.path(), "node");
        Ca::new(dir.path(), "theirs").issue(dir.path(), "stranger");
        let database = Server::shared().await.unwrap().create_database().await.unwrap();
        let (grpc, metrics) = (port(), port());
        let at = |name: &str| dir.path().join(name);
        let control_plane = Spec::new(binary_path("nemo-control-plane").unwrap())
            .clear_env()
            .env("NEMO_POSTGRES_URL", database.url())
            .env("NEMO_SEAL_KEY", SEAL_KEY)
            .env("NEMO_LOG", "info")
            .args(["serve", "--rest-addr", &port().to_string(), "--grpc-addr", &grpc.to_string()])
            .args(["--metrics-addr", &metrics.to_string()])
            .arg("--tls-cert")
            .arg(at("server.pem"))
            .arg("--tls-key")
            .arg(at("server.key"))
            .arg("--node-ca")
            .arg(at("ours.ca.pem"))
            .spawn()
            .unwrap();
        wait_ready(&control_plane, metrics).await.unwrap();
        Self { dir, grpc, data: port(), ops: port(), control_plane, _database: database }
    }

    /// A node that shows this certificate, if any, and trusts this authority.
    fn node(&self, certificate: Option<&str>, authority: &str) -> Process {
        let at = |name: &str| self.dir.path().join(name);
        let spec = Spec::new(binary_path("nemo-data-plane").unwrap())
            .clear_env()
            .env("NEMO_SEAL_KEY", SEAL_KEY)
            .env("NEMO_LOG", "info")
            .env("NEMO_DRAIN__NOTICE_MS", "0")
            .args(["--listen", &self.data.to_string(), "--ops-listen", &self.ops.to_string()])
            .arg("--data-dir")
            .arg(at("data"))
            .arg(format!("--control-plane=https://localhost:{}", self.grpc.port()))
            .arg("--control-plane-ca")
            .arg(at(authority))
            .arg("--tls-cert")
            .arg(at("server.pem"))
            .arg("--tls-key")
            .arg(at("server.key"));
        let spec = match certificate {
            Some(name) => spec
                .arg("--node-cert")
                .arg(at(&format!("{name}.pem")))
                .arg("--node-key")
                .arg(at(&format!("{name}.key"))),
            None => spec,
        };
        spec.spawn().unwrap()
    }

    /// Asks the data port over TLS; returns status and HTTP version.
    async fn get(&self, path: &str) -> anyhow::Result<(u16, http::Version)> {
        let tls = ClientTls::load(self.dir.path().join("ours.ca.pem"), &Identity::default())?;
        let stream = TcpStream::connect(self.data).await?;
        let stream = tls.connector().connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let request =
            http::Request::get(format!("https://localhost{path}")).body(Empty::<bytes::Bytes>::new())?;
        tokio::select! {
            response = sender.send_request(request) => {
                let response = response?;
                Ok((response.status().as_u16(), response.version()))
            }
            ended = connection => anyhow::bail!("the connection ended: {ended:?}"),
        }
    }
}

#[tokio::test]
async fn a_node_with_a_certificate_is_served_and_serves_http2_over_tls() {
    let world = World::start().await;
    let node = world.node(Some("node"), "ours.ca.pem");
    wait_ready(&node, world.ops).await.unwrap();
    let (status, version) = world.get("/v1/models").await.unwrap();
    assert_eq!((status, version), (401, http::Version::HTTP_2), "no key, but an answer");
    assert!(nemo_tests::client::Client::new(world.data).get("/v1/models").await.is_err(), "no plaintext");
    for process in [&node, &world.control_plane] {
        process.signal(rustix::process::Signal::HUP).unwrap();
        process.wait_line("certificates read again").await.unwrap();
    }
    assert_eq!(world.get("/v1/models").await.unwrap().0, 401, "and goes on");
    node.signal(rustix::process::Signal::TERM).unwrap();
    assert!(node.wait_exit().await.unwrap().success());
}

#[tokio::test]
async fn nodes_without_the_right_certificate_get_no_configuration() {
    let world = World::start().await;
    for (certificate, authority, says) in [
        (None, "ours.ca.pem", "node certificate"),
        (Some("stranger"), "ours.ca.pem", "no connection to the control plane"),
        (Some("node"), "theirs.ca.pem", "no connection to the control plane"),
    ] {
        let node = world.node(certificate, authority);
        eventually("the node says why", async || {
            anyhow::ensure!(node.log().contains(says), "{}", node.log());
            Ok(())
        })
        .await
        .unwrap();
        let ready = nemo_tests::client::Client::new(world.ops).get("/readyz").await.unwrap();
        assert_eq!(
            (ready.status, ready.text().as_str()),
            (503, "waiting for: snapshot\n"),
            "{certificate:?}"
        );
        node.signal(rustix::process::Signal::KILL).unwrap();
        node.wait_exit().await.unwrap();
    }
}

#[tokio::test]
async fn plaintext_that_others_could_reach_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let node = |arguments: &[&str]| {
        Spec::new(binary_path("nemo-data-plane").unwrap())
            .clear_env()
            .env("NEMO_SEAL_KEY", SEAL_KEY)
            .env("NEMO_LOG", "error")
            .args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path())
            .args(arguments)
            .spawn()
            .unwrap()
    };
    let local = "--control-plane=http://127.0.0.1:1";
    for (arguments, names) in [
        (&["--control-plane=http://192.0.2.1:8082"][..], "http://192.0.2.1:8082"),
        (&[local, "--tls-cert", "/nonexistent.pem", "--tls-key", "/nonexistent.key"], "/nonexistent.key"),
    ] {
        let process = node(arguments);
        assert!(!process.wait_exit().await.unwrap().success());
        let log = process.log();
        assert!(log.contains(names), "{log}");
        assert_eq!(log.trim().lines().count(), 1, "{log}");
    }
    let spec = |flag: Option<&str>| {
        Spec::new(binary_path("nemo-data-plane").unwrap())
            .clear_env()
            .env("NEMO_SEAL_KEY", SEAL_KEY)
            .env("NEMO_DRAIN__NOTICE_MS", "0")
            .args(["--listen", "0.0.0.0:0", "--ops-listen", "127.0.0.1:0", local, "--data-dir"])
            .arg(dir.path())
            .args(flag)
            .spawn()
            .unwrap()
    };
    let refused = spec(None);
    assert!(!refused.wait_exit().await.unwrap().success());
    let log = refused.log();
    assert!(log.contains("--listen 0.0.0.0:0") && log.contains("--allow-plaintext"), "{log}");
    let allowed = spec(Some("--allow-plaintext"));
    allowed.wait_line("data port open").await.unwrap();
    // Without a certificate a SIGHUP changes nothing.
    allowed.signal(rustix::process::Signal::HUP).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(allowed.status().is_none(), "{}", allowed.log());
}
