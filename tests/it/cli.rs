//! The command line against a real gateway: every noun's round trip, what is printed, and how it ends.

use std::{
    ffi::OsStr,
    process::{Output, Stdio},
};

use nemo_tests::{
    eventually,
    fleet::{Fleet, MODEL, binary_path},
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use super::chat::chat;

/// `nemo` with the operator's token of a gateway.
pub(super) struct Cli<'f> {
    fleet: &'f Fleet,
}

impl<'f> Cli<'f> {
    pub(super) fn new(fleet: &'f Fleet) -> Self {
        Self { fleet }
    }

    pub(super) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = bare();
        command
            .env("NEMO_ADMIN_URL", format!("http://{}", self.fleet.grpc_addr()))
            .env("NEMO_ADMIN_TOKEN", self.fleet.admin.token())
            .env("NEMO_ORG", "")
            .env_remove("NEMO_ORG")
            .args(arguments);
        command
    }

    pub(super) async fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().await.unwrap()
    }

    /// Standard output of a command that must succeed.
    pub(super) async fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "nemo {}: {output:?}", arguments.join(" "));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub(super) async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["--json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// Standard error of a command that must fail with this code.
    pub(super) async fn refusal(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(code), "nemo {}: {output:?}", arguments.join(" "));
        String::from_utf8(output.stderr).unwrap()
    }
}

/// `nemo` without anything of the developer's environment.
pub(super) fn bare() -> Command {
    let mut command = Command::new(binary_path("nemo").unwrap());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// The thing in a list whose member has a value.
fn find<'v>(list: &'v Value, member: &str, value: &str) -> Option<&'v Value> {
    list.as_array().unwrap().iter().find(|item| item[member] == value)
}

/// Create, list, get, update and delete of one noun, with its options.
async fn round_trip(cli: &Cli<'_>, noun: &str, name: &str, scope: &[&str], create: &[&str], update: &[&str]) {
    let with = |head: &[&'static str], tail: &[&str]| -> Vec<String> {
        let all = std::iter::once(noun).chain(head.iter().copied()).chain(tail.iter().copied());
        all.chain(scope.iter().copied()).map(str::to_owned).collect()
    };
    let run = async |head: &[&'static str], tail: &[&str]| {
        let arguments = with(head, tail);
        cli.text(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    run(&["create"], create).await;
    let table = run(&["list"], &[]).await;
    assert!(table.contains(name) && !table.contains('\x1b'), "{noun}: {table}");
    let listed: Value = serde_json::from_str(&run(&["list", "--json"], &[]).await).unwrap();
    let item = listed.as_array().unwrap().iter().find(|item| item.to_string().contains(name));
    let item = item.unwrap_or_else(|| panic!("{noun}: {listed}"));
    let got: Value = serde_json::from_str(&run(&["get", "--json"], &[name]).await).unwrap();
    assert_eq!(got["id"], item["id"], "{noun}");
    let id = got["id"].as_str().unwrap().to_owned();
    assert!(run(&["list", "--quiet"], &[]).await.lines().any(|line| line == id), "{noun}");
    run(&["update"], &[&[id.as_str()], update].concat()).await;
    let changed: Value = serde_json::from_str(&run(&["get", "--json"], &[&id]).await).unwrap();
    assert_ne!(changed, got, "{noun} was not changed by {update:?}");
    let deleted = run(&["delete"], &[&id]).await;
    assert!(deleted.starts_with("deleted "), "{noun}: {deleted}");
    assert!(!run(&["list", "--quiet"], &[]).await.contains(&id), "{noun} is still there");
    let gone = with(&["get"], &[&id]);
    let gone = cli.refusal(1, &gone.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert!(gone.starts_with("nemo: "), "{gone}");
}

/// R002: tenancy on the command line.
#[tokio::test]
async fn organizations_teams_members_and_tokens_make_round_trips() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    round_trip(&cli, "orgs", "acme", &[], &["acme"], &["--name", "acme-inc"]).await;
    let org = ["--org", "tests"];
    round_trip(&cli, "teams", "build", &org, &["build"], &["--disabled", "true"]).await;
    let create = ["ann@example.com", "--role", "viewer"];
    round_trip(&cli, "members", "ann@example.com", &org, &create, &["--role", "admin"]).await;
    let create = ["dashboard", "--role", "viewer", "--expires", "1d"];
    round_trip(&cli, "tokens", "dashboard", &org, &create, &["--name", "board"]).await;

    // A token of one organization works on the command line, for that organization and by its id.
    let token = cli.text(&["tokens", "create", "theirs", "--org", "tests", "--role", "viewer", "-q"]).await;
    assert!(token.starts_with("adm-nemo-"), "{token}");
    let mut theirs = cli.command(["teams", "list", "--org", &fleet.org_id]);
    assert!(theirs.env("NEMO_ADMIN_TOKEN", &token).output().await.unwrap().status.success());
    let refused =
        cli.command(["orgs", "create", "x"]).env("NEMO_ADMIN_TOKEN", &token).output().await.unwrap();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");

    let quiet = cli.text(&["orgs", "create", "second", "--quiet"]).await;
    assert_eq!(cli.json(&["orgs", "get", "second"]).await["id"], quiet.as_str());
    let checked = cli.run(&["teams", "create", "never", "--org", "second", "--validate-only"]).await;
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(cli.json(&["teams", "list", "--org", "second"]).await, Value::Array(Vec::new()));
}

/// R003-1: a key's life on the command line, and what the data plane makes of it.
#[tokio::test]
async fn keys_are_issued_changed_rotated_switched_and_deleted() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let org = ["--org", "tests"];
    let keys = |arguments: &[&'static str]| [&["keys"], arguments, &org].concat();
    let create =
        keys(&["create", "--name", "ci", "--team", "new-team", "--models", MODEL, "--expires", "1d"]);
    let issued = cli.run(&create).await;
    let secret = String::from_utf8(issued.stdout).unwrap().trim().to_owned();
    let told = String::from_utf8(issued.stderr).unwrap();
    assert!(secret.starts_with("sk-nemo-") && !secret.contains(char::is_whitespace), "{secret}");
    assert!(told.contains("made the team new-team") && told.contains("shown once"), "{told}");
    let status = async |secret: &str| {
        let client = fleet.client_with(Some(secret));
        client.post("/v1/chat/completions", chat("hi")).await.unwrap().status
    };
    let settles = async |secret: &str, expected: u16| {
        let what = format!("status {expected}");
        let reached = eventually(&what, async || {
            let found = status(secret).await;
            if found == expected { Ok(()) } else { Err(found) }
        });
        reached.await.unwrap();
    };
    settles(&secret, 200).await;

    let got = cli.json(&keys(&["get", "ci"])).await;
    assert_eq!(got["allowed_models"], serde_json::json!([MODEL]));
    let by_secret = cli.json(&["keys", "get", &secret, "--org", "tests"]).await;
    assert_eq!(by_secret["id"], got["id"]);
    let whole = [cli.text(&keys(&["list"])).await, cli.text(&keys(&["get", "ci"])).await, got.to_string()];
    assert!(whole.iter().all(|text| !text.contains(&secret)), "{whole:?}");
    assert!(find(&cli.json(&keys(&["list"])).await, "name", "ci").is_some());

    let update = keys(&["update", "ci", "--models", "", "--never-expires", "--cidrs", "127.0.0.0/8"]);
    cli.text(&update).await;
    let got = cli.json(&keys(&["get", "ci"])).await;
    assert_eq!((&got["allowed_models"], &got["expires_at"]), (&serde_json::json!([]), &Value::Null), "{got}");
    assert_eq!(got["allowed_cidrs"], serde_json::json!(["127.0.0.0/8"]));

    let waited = cli.run(&keys(&["disable", "ci", "--wait"])).await;
    assert!(waited.status.success(), "{waited:?}");
    assert_eq!(status(&secret).await, 401, "every live node has it");
    let told = String::from_utf8(waited.stderr).unwrap();
    assert!(told.contains("every live node has configuration"), "{told}");
    cli.text(&keys(&["enable", "ci"])).await;
    settles(&secret, 200).await;
    let rotated = cli.text(&keys(&["rotate", "ci", "--quiet"])).await;
    assert!(rotated.starts_with("sk-nemo-") && rotated != secret);
    settles(&rotated, 200).await;
    settles(&secret, 401).await;
    cli.text(&keys(&["delete", "ci", "--yes"])).await;
    settles(&rotated, 401).await;
    let gone = cli.refusal(1, &keys(&["get", "ci"])).await;
    assert!(gone.contains("no key \"ci\"") && gone.contains("nemo keys list"), "{gone}");
    let both = cli.refusal(2, &keys(&["list", "--json", "--quiet"])).await;
    assert!(both.contains("--quiet"), "{both}");
}

/// R000-9: what requests are routed by.
#[tokio::test]
async fn credentials_deployments_models_groups_and_settings_make_round_trips() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let secret = fleet.dir().join("provider.key");
    std::fs::write(&secret, "sk-canary-0123456789\n").unwrap();
    let secret = secret.to_str().unwrap();
    let create = ["main", "--provider", "custom", "--secret-file", secret];
    round_trip(&cli, "credentials", "main", &[], &create, &["--name", "first"]).await;
    cli.text(&["credentials", "create", "main", "--provider", "custom", "--secret-file", secret]).await;
    let listed = cli.text(&["credentials", "list"]).await;
    assert!(listed.contains("…6789") && !listed.contains("canary"), "{listed}");

    let create =
        ["--name", "gpu", "--provider", "custom", "--base-url", "http://127.0.0.1:9/v1", "--model", MODEL];
    let create = [&create[..], &["--credential", "main", "--price-input", "0.25"]].concat();
    round_trip(&cli, "deployments", "gpu", &[], &create, &["--weight", "3", "--disabled", "true"]).await;
    cli.text(&[&["deployments", "create"], &create[..]].concat()).await;
    assert_eq!(cli.json(&["deployments", "get", "gpu"]).await["price"]["input"], 250_000_000);
    let in_use = cli.refusal(1, &["credentials", "delete", "main", "--yes"]).await;
    assert!(in_use.contains("deployment"), "{in_use}");

    let create = ["smart", "--link", "gpu=3", "--link", "gpu"];
    round_trip(&cli, "groups", "smart", &[], &create, &["--name", "clever"]).await;
    let unknown = cli.refusal(1, &["groups", "create", "x", "--link", "nope"]).await;
    assert!(unknown.contains("nemo deployments list"), "{unknown}");

    cli.text(&["models", "put", "qwen", "--context-window", "4096", "--endpoints", "embeddings"]).await;
    cli.text(&["models", "put", "qwen", "--tags", "code", "--provider", "custom", "--price-input", "1.5"])
        .await;
    let model = cli.json(&["models", "get", "qwen"]).await;
    assert_eq!(
        (&model["context_window"], &model["tags"], &model["offerings"][0]["price"]["input"]),
        (&4096.into(), &serde_json::json!(["code"]), &1_500_000_000_i64.into())
    );
    assert!(find(&cli.json(&["models", "list", "--all"]).await, "id", "qwen").is_some());
    assert!(find(&cli.json(&["models", "list"]).await, "id", "qwen").is_none(), "nothing serves it");
    assert!(cli.text(&["models", "list"]).await.contains(MODEL));
    cli.text(&["models", "delete", "qwen"]).await;
    assert!(cli.refusal(1, &["models", "get", "qwen"]).await.contains("nemo models list --all"));

    cli.text(&["settings", "put", "routing.strategy", "simple-shuffle"]).await;
    assert_eq!(cli.json(&["settings", "get", "routing.strategy"]).await["value"], "\"simple-shuffle\"");
    assert!(cli.text(&["settings", "list"]).await.contains("routing.strategy"));
    cli.text(&["settings", "delete", "routing.strategy"]).await;
    let unset = cli.json(&["settings", "list"]).await;
    assert!(find(&unset, "key", "routing.strategy").is_none(), "{unset}");
    let wrong = cli.refusal(1, &["settings", "put", "routing.strategy", "nope"]).await;
    assert!(wrong.contains("simple-shuffle"), "says what is expected: {wrong}");
}

/// The log, its sums, the audit log and the fleet: what is read only.
#[tokio::test]
async fn requests_usage_audit_and_nodes_are_read() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let org = ["--org", "tests"];
    let mut tail = cli
        .command(["requests", "tail", "--json", "--org", "tests", "--outcome", "ok"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let answer = fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let id = answer.header("x-request-id").unwrap().to_owned();
    let line = tokio::time::timeout(nemo_tests::eventually::patience(), lines.next_line()).await;
    let row: Value = serde_json::from_str(&line.expect("a line in time").unwrap().unwrap()).unwrap();
    assert_eq!((row["id"].as_str(), &row["model"]), (Some(id.as_str()), &MODEL.into()), "{row}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(tail.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ended = tail.wait().await.unwrap();
    assert_eq!(ended.code(), Some(0), "Ctrl-C is the way to end it");

    let listed =
        cli.json(&[&["requests", "list", "--key", "first", "--since", "1h"], &org[..]].concat()).await;
    assert_eq!(listed[0]["id"], id.as_str());
    let none = cli.json(&[&["requests", "list", "--outcome", "error"], &org[..]].concat()).await;
    assert_eq!(none, Value::Array(Vec::new()));
    let table = cli.text(&[&["requests", "list"], &org[..]].concat()).await;
    assert!(table.contains(&id) && table.starts_with("STARTED"), "{table}");
    let mut got = cli.json(&[&["requests", "get", &id], &org[..]].concat()).await;
    // The list does without.
    assert_eq!(got["decision"].take()["candidates"][0]["model"], MODEL);
    assert_eq!(got, listed[0]);
    let one = cli.text(&[&["requests", "show", &id], &org[..]].concat()).await;
    assert!(one.contains("outcome") && one.contains("requested_model"), "{one}");

    let spend = eventually("the sums have the request", async || {
        let sums = cli.json(&[&["usage", "spend", "--by", "model,key"], &org[..]].concat()).await;
        let row = sums["rows"].as_array().and_then(|rows| rows.first().cloned());
        row.ok_or_else(|| format!("no rows: {sums}"))
    });
    let spend = spend.await.unwrap();
    assert_eq!((&spend["requests"], &spend["model"]), (&1.into(), &MODEL.into()), "{spend}");
    assert_eq!(spend["key_id"], fleet.key_id.as_str());
    for view in ["tokens", "requests", "errors", "latency"] {
        let table = cli.text(&["usage", view, "--by", "model", "--interval", "hour", "--org", "tests"]).await;
        assert!(table.starts_with("FROM") && table.contains(MODEL), "{view}: {table}");
    }

    let entries = cli.json(&["audit", "list", "--action", "organization.", "--limit", "5"]).await;
    assert!(find(&entries, "target_id", &fleet.org_id).is_some(), "{entries}");
    let head = cli.text(&["audit", "verify", "--quiet"]).await;
    assert!(head.split_once(':').is_some_and(|(seq, hash)| seq != "0" && hash.len() == 64), "{head}");
    cli.text(&["audit", "verify", "--noted", &head]).await;
    let (seq, _) = head.split_once(':').unwrap();
    let forged = format!("{seq}:{}", "0".repeat(64));
    let broken = cli.refusal(1, &["audit", "verify", "--noted", &forged]).await;
    assert!(broken.contains("not whole"), "{broken}");

    let nodes = cli.json(&["fleet", "nodes"]).await;
    assert_eq!(nodes["nodes"].as_array().unwrap().len(), 1, "{nodes}");
    let table = cli.text(&["fleet", "nodes"]).await;
    assert!(table.starts_with("NODE") && table.contains(" connected"), "{table}");
}
