//! `nemo apply`: the difference first, then the change, and nothing the second time.

use std::path::{Path, PathBuf};

use nemo_tests::fleet::{Fleet, MODEL, UPSTREAM_KEY};
use serde_json::{Value, json};

use super::{chat::chat, cli::Cli};

/// A file that declares a server of one's own; `more` is appended.
fn write(dir: &Path, base_url: &str, weight: u32, more: &str) -> PathBuf {
    let path = dir.join("nemo.toml");
    let text = format!(
        r#"
[[providers]]
id = "gpu"
provider = "custom"
base_url = "{base_url}"
api_key = "env:GPU_KEY"

[[deployments]]
name = "main"
provider = "gpu"
model = "{MODEL}"
upstream_model = "gpt-4o-mini"
weight = {weight}
{more}"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

const REST: &str = r#"
[[deployments]]
name = "spare"
provider = "gpu"
model = "test-model"

[[model_groups]]
name = "smart"
links = [["main"], [{ deployment = "spare", weight = 2 }]]

[[organizations]]
name = "acme"

[[teams]]
name = "web"
organization = "acme"

[[keys]]
name = "ci"
organization = "acme"
team = "build"
models = ["smart"]
"#;

struct Applied {
    code: Option<i32>,
    out: String,
    err: String,
}

async fn apply(cli: &Cli<'_>, file: &Path, options: &[&str]) -> Applied {
    let arguments = [&["apply", "-f", file.to_str().unwrap()], options].concat();
    let output = cli.command(arguments).env("GPU_KEY", UPSTREAM_KEY).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Applied { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// R000-9: declarative, idempotent, with the difference first; nothing is removed unless asked for.
#[tokio::test]
async fn apply_shows_the_difference_makes_it_and_then_finds_nothing() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let base_url = fleet.upstream.base_url();
    let file = write(fleet.dir(), &base_url, 1, REST);
    let names = async || {
        let deployments = cli.json(&["deployments", "list"]).await;
        let names = deployments.as_array().unwrap().iter();
        let mut names: Vec<_> = names.map(|d| d["name"].as_str().unwrap().to_owned()).collect();
        names.retain(|name| name.starts_with("file:"));
        names.sort();
        names
    };

    let looked = apply(&cli, &file, &["--dry-run"]).await;
    assert_eq!(looked.code, Some(2), "{} {}", looked.out, looked.err);
    for line in [
        "+ credential gpu",
        "+ deployment main",
        "+ model group smart",
        "links: main → spare=2",
        "+ organization acme",
        "+ team build",
        "+ key ci",
        "0 to change, 0 to remove",
    ] {
        assert!(looked.out.contains(line), "{line} is not in\n{}", looked.out);
    }
    assert!(!looked.out.contains(UPSTREAM_KEY) && !looked.err.contains(UPSTREAM_KEY));
    assert!(names().await.is_empty(), "a dry run changes nothing");
    let unasked = apply(&cli, &file, &[]).await;
    assert_eq!(unasked.code, Some(2), "{}", unasked.err);
    assert!(unasked.err.contains("--yes"), "{}", unasked.err);
    assert!(names().await.is_empty());

    let made = apply(&cli, &file, &["--yes", "--json"]).await;
    assert_eq!(made.code, Some(0), "{} {}", made.out, made.err);
    let report: Value = serde_json::from_str(&made.out).unwrap();
    let created = report["changes"].as_array().unwrap().len();
    assert_eq!(report["applied"]["created"], created, "{report}");
    assert_eq!(names().await, ["file:main", "file:spare"]);
    let key = report["applied"]["keys"][0]["secret"].as_str().unwrap();
    let client = fleet.client_with(Some(key));
    let works = nemo_tests::eventually("the declared group answers", async || {
        let body = chat("hi").replace(MODEL, "smart");
        let answer = client.post("/v1/chat/completions", body).await?;
        anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok::<_, anyhow::Error>(())
    });
    works.await.unwrap();

    let again = apply(&cli, &file, &["--dry-run"]).await;
    assert_eq!((again.code, again.out.trim()), (Some(0), "no changes"), "{}", again.err);
    let again = apply(&cli, &file, &["--yes", "--json"]).await;
    assert_eq!(serde_json::from_str::<Value>(&again.out).unwrap(), json!({ "changes": [], "applied": null }));

    // One number differs: one change.
    let file = write(fleet.dir(), &base_url, 7, REST);
    let changed = apply(&cli, &file, &["--yes"]).await;
    assert_eq!(changed.code, Some(0), "{}", changed.err);
    assert!(
        changed.out.contains("~ deployment main") && changed.out.contains("weight: 1 → 7"),
        "{}",
        changed.out
    );
    assert!(changed.out.contains("0 created, 1 changed, 0 removed"), "{}", changed.out);

    // What the file does not say any more stays, until it is pruned.
    let file = write(fleet.dir(), &base_url, 7, "");
    let kept = apply(&cli, &file, &["--yes"]).await;
    assert_eq!((kept.code, kept.out.trim()), (Some(0), "no changes"), "{}", kept.err);
    let pruned = apply(&cli, &file, &["--yes", "--prune"]).await;
    assert_eq!(pruned.code, Some(0), "{}", pruned.err);
    for line in ["- model group smart", "- deployment spare", "0 created, 0 changed, 2 removed"] {
        assert!(pruned.out.contains(line), "{line} is not in\n{}", pruned.out);
    }
    assert_eq!(names().await, ["file:main"]);
    let others = cli.json(&["deployments", "list"]).await;
    assert!(others.as_array().unwrap().len() > 1, "what others made is left alone: {others}");
    assert!(cli.json(&["keys", "list", "--org", "acme"]).await[0]["name"] == "ci", "keys are never pruned");
    let again = apply(&cli, &file, &["--dry-run", "--prune"]).await;
    assert_eq!(again.code, Some(0), "{}", again.out);
}

/// Every mistake of a file is told with its line before anything is asked of the gateway.
#[tokio::test]
async fn apply_of_a_wrong_file_changes_nothing_and_names_the_line() {
    let fleet = Fleet::start().await.unwrap();
    let cli = Cli::new(&fleet);
    let file = write(fleet.dir(), "http://127.0.0.1:9/v1", 1, "[[keys]]\nnmae = \"x\"\n");
    let wrong = apply(&cli, &file, &["--yes"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);
    assert!(wrong.err.contains("nemo.toml:") && wrong.err.contains("nmae"), "{}", wrong.err);
    let file =
        write(fleet.dir(), "http://127.0.0.1:9/v1", 1, "[[keys]]\nname = \"x\"\norganization = \"nope\"\n");
    let wrong = apply(&cli, &file, &["--yes"]).await;
    assert_eq!(wrong.code, Some(1), "{}", wrong.out);
    assert!(wrong.err.contains("no organization \"nope\""), "{}", wrong.err);
    assert!(!cli.text(&["deployments", "list"]).await.contains("file:"));
}
