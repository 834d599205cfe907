//! `nemo standalone` with TLS on each of its ports, as a client, an operator and a probe meet them, and what it refuses.

use std::{path::PathBuf, process::Stdio, time::Duration};

use nemo_tests::{
    postgres::{Database, Server},
    process::{Process, Spec},
    site::Site,
};
use rustix::process::Signal;
use tokio::process::Command;

use super::{cli::bare, tls::Ca};

struct Standalone {
    site: Site,
    process: Process,
    _database: Database,
}

/// Every port, with a certificate for localhost of an authority that nobody knows.
fn with_tls(site: &Site, spec: Spec) -> Spec {
    ["", "admin-", "ops-", "admin-ops-"].iter().fold(spec, |spec, port| {
        spec.arg(format!("--{port}tls-cert"))
            .arg(site.dir().join("own.pem"))
            .arg(format!("--{port}tls-key"))
            .arg(site.dir().join("own.key"))
    })
}

impl Standalone {
    async fn start() -> Self {
        let database = Server::shared().await.unwrap().create_database().await.unwrap();
        let site = Site::new(database.url()).unwrap();
        Ca::new(site.dir(), "own").issue(site.dir(), "own");
        let process = with_tls(&site, site.standalone().unwrap()).spawn().unwrap();
        let started = process.wait_for("the banner", Duration::from_secs(60), |line| {
            line.contains("Ctrl-C stops it").then_some(())
        });
        started.await.unwrap();
        Self { site, process, _database: database }
    }

    fn ca(&self) -> PathBuf {
        self.site.dir().join("own.ca.pem")
    }

    fn field(&self, name: &str) -> String {
        let log = self.process.log();
        let line = log.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{log}"))
            .trim()
            .trim_end_matches("(shown once)")
            .trim()
            .to_owned()
    }

    async fn cli(&self, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let output = bare().args(arguments).envs(variables.iter().copied()).output().await.unwrap();
        assert!(output.status.success(), "nemo {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

async fn sh(script: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(script).stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn standalone_speaks_tls_on_every_port() {
    let nemo = Standalone::start().await;
    let (ports, ca) = (nemo.site.ports, nemo.ca());
    let ca = ca.to_str().unwrap();

    // What it prints works as pasted, though no public authority knows the certificate.
    assert_eq!(nemo.field("Base URL"), format!("https://localhost:{}/v1", ports.data.port()));
    assert_eq!(nemo.field("Admin API"), format!("https://localhost:{}/admin/v1", ports.rest.port()));
    let log = nemo.process.log();
    let (_, example) = log.split_once("  curl ").expect("an example");
    let (example, _) = example.split_once("\n\n").unwrap();
    assert!(example.contains("--cacert"), "{example}");
    let answer = sh(&format!("curl -sS {example}")).await;
    assert!(answer.contains("\"object\":\"chat.completion\""), "{answer}");

    // The command line: beside it by the data directory, from elsewhere with the authority.
    let data_dir = nemo.site.dir().join("data");
    let issued = nemo
        .cli(&["keys", "create", "-q", "--name", "ci", "--data-dir", data_dir.to_str().unwrap()], &[])
        .await;
    assert!(issued.starts_with("sk-nemo-"), "{issued}");
    let url = format!("https://localhost:{}", ports.grpc.port());
    let (token, variables) =
        (nemo.field("Admin token"), ["NEMO_ADMIN_URL", "NEMO_ADMIN_TOKEN", "NEMO_ADMIN_CA"]);
    let values = [url.as_str(), token.as_str(), ca];
    let variables: Vec<_> = variables.into_iter().zip(values).collect();
    assert!(nemo.cli(&["keys", "list"], &variables).await.contains("ci "));

    for (port, path, says) in [
        (ports.ops, "/readyz", "ok"),
        (ports.control_ops, "/readyz", "ok"),
        (ports.rest, "/admin/v1/openapi.json", "\"openapi\""),
    ] {
        let url = format!("localhost:{}{path}", port.port());
        let answer = sh(&format!("curl -sSf --cacert {ca} https://{url}")).await;
        assert!(answer.contains(says), "{url}: {answer}");
        let plain = sh(&format!("curl -s http://{url} || echo refused")).await;
        assert!(plain.contains("refused"), "{url} without TLS: {plain}");
    }

    nemo.process.signal(Signal::HUP).unwrap();
    nemo.process.wait_line("certificates read again").await.unwrap();
    assert!(nemo.process.stop().await.unwrap().success());
}

#[tokio::test]
async fn standalone_refuses_plaintext_that_others_could_reach_and_certificates_that_do_not_work() {
    let database = Server::shared().await.unwrap().create_database().await.unwrap();
    let site = Site::new(database.url()).unwrap();
    Ca::new(site.dir(), "own").issue(site.dir(), "own");
    Ca::new(site.dir(), "other").issue(site.dir(), "other");
    let at = |name: &str| site.dir().join(name).to_str().unwrap().to_owned();
    let bare = || {
        Spec::new(nemo_tests::fleet::binary_path("nemo").unwrap()).clear_env().arg("standalone").args([
            "--postgres-url",
            database.url(),
            "--data-dir",
            &at("data"),
        ])
    };
    for (arguments, says) in [
        (vec!["--listen", "0.0.0.0:0"], "--tls-cert and --tls-key"),
        (vec!["--admin-listen", "0.0.0.0:0"], "--admin-tls-cert and --admin-tls-key"),
        (vec!["--ops-listen", "0.0.0.0:0"], "--ops-tls-cert and --ops-tls-key"),
        (vec!["--admin-ops-listen", "0.0.0.0:0"], "--admin-ops-tls-cert and --admin-ops-tls-key"),
        (vec!["--grpc-listen", "0.0.0.0:0"], "--node-ca"),
        (vec!["--grpc-listen", "0.0.0.0:0", "--node-token", "0123456789abcdef"], "--admin-tls-cert"),
        (vec!["--tls-cert", &at("own.pem"), "--tls-key", &at("other.key")], "does not work with its key"),
        (vec!["--tls-cert", &at("own.pem")], "--tls-key"),
        (vec!["--node-ca", &at("own.ca.pem")], "--admin-tls-cert"),
    ] {
        let process = bare().args(&arguments).spawn().unwrap();
        assert!(!process.wait_exit().await.unwrap().success(), "{arguments:?}");
        assert!(process.log().contains(says), "{arguments:?}: {}", process.log());
    }
}
