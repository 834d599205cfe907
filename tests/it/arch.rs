//! The shape of the code base: crate edges, what the data plane may not link, one snapshot load per request.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn said_by(command: &mut Command) -> Vec<u8> {
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// For this platform alone: what others need was never downloaded.
fn metadata() -> Value {
    let version = String::from_utf8(said_by(Command::new("rustc").arg("-vV"))).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    serde_json::from_slice(&said_by(Command::new(cargo).args(args))).unwrap()
}

/// Which crates of the workspace a crate may use (not counting tests).
const EDGES: &[(&str, &[&str])] = &[
    ("nemo-types", &[]),
    ("nemo-proto", &["nemo-types"]),
    ("nemo-snapshot", &["nemo-types", "nemo-proto"]),
    ("nemo-runtime", &["nemo-types"]),
    ("nemo-llm", &["nemo-types"]),
    ("nemo-data-plane", &["nemo-types", "nemo-proto", "nemo-snapshot", "nemo-runtime", "nemo-llm"]),
    ("nemo-control-plane", &["nemo-types", "nemo-proto", "nemo-snapshot", "nemo-runtime"]),
    (
        "nemo",
        // The snapshot for `nemo replay`, which compiles revisions as a node does.
        &[
            "nemo-types",
            "nemo-proto",
            "nemo-snapshot",
            "nemo-runtime",
            "nemo-llm",
            "nemo-control-plane",
            "nemo-data-plane",
        ],
    ),
    // The runtime and the snapshot for the nodes of `nemo-bench scale`.
    ("nemo-tests", &["nemo-types", "nemo-proto", "nemo-runtime", "nemo-snapshot"]),
];

#[test]
fn crates_depend_downwards_only() {
    let metadata = metadata();
    let members: BTreeSet<_> =
        metadata["workspace_members"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["id"].as_str().is_some_and(|id| members.contains(id)))
    {
        let name = package["name"].as_str().unwrap();
        let allowed = EDGES.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{name} is not in the crate graph"));
        seen.insert(name);
        for dependency in package["dependencies"].as_array().unwrap().iter().filter(|it| it["kind"].is_null())
        {
            let to = dependency["name"].as_str().unwrap();
            assert!(!to.starts_with("nemo") || allowed.contains(&to), "{name} may not depend on {to}");
        }
    }
    assert_eq!(seen.len(), EDGES.len());
}

/// The data plane can't reach a database: nothing that speaks SQL or etcd is in its tree.
#[test]
fn the_data_plane_links_no_sql_and_no_etcd() {
    let metadata = metadata();
    let nodes: BTreeMap<&str, &Value> = metadata["resolve"]["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["id"].as_str().unwrap(), node))
        .collect();
    let start = nodes.keys().find(|id| id.contains("/data-plane#")).unwrap();
    let mut queue = vec![*start];
    let mut reached = BTreeSet::new();
    while let Some(id) = queue.pop() {
        if !reached.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let normal =
                dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"].is_null());
            if normal {
                queue.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    assert!(reached.len() > 50, "the walk went nowhere: {reached:?}");
    for id in reached {
        for banned in ["sqlx", "etcd-client", "tokio-postgres", "openssl", "aws-lc"] {
            assert!(!id.contains(banned), "the data plane links {id}");
        }
    }
}

/// etcd is the control plane's alone: nobody else names its client.
#[test]
fn only_the_control_plane_depends_on_the_client_of_etcd() {
    let metadata = metadata();
    let users: Vec<_> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|package| {
            package["dependencies"].as_array().unwrap().iter().any(|it| it["name"] == "etcd-client")
        })
        .filter_map(|package| package["name"].as_str())
        .collect();
    assert_eq!(users, ["nemo-control-plane"]);
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), std::fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// I2: one snapshot per request. The pipeline loads it in one place, and below that it is passed down.
#[test]
fn i2_the_pipeline_loads_the_snapshot_once() {
    let pipeline = root().join("data-plane/src/pipeline");
    let loads: Vec<_> = sources(&pipeline)
        .into_iter()
        .flat_map(|(path, text)| vec![path; text.matches("snapshot.load()").count()])
        .collect();
    assert_eq!(loads, [pipeline.join("mod.rs")]);
}

/// I1: what happens between authentication and dispatch is `fn`, so that no network can hide in it.
#[test]
fn i1_phases_before_dispatch_are_not_async() {
    for phase in ["authenticate", "authorize", "throttle", "route", "reserve"] {
        let path = root().join(format!("data-plane/src/pipeline/{phase}.rs"));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains("pub fn run(") && !text.contains("async "), "{phase} must be fn all through");
    }
    for (path, text) in sources(&root().join("data-plane/src/routing")) {
        assert!(!text.contains("async "), "{} must be pure", path.display());
    }
}

/// Every file says what it is for, and none grows out of hand.
#[test]
fn files_are_described_and_of_readable_length() {
    for folder in ["proto/src", "shared", "data-plane", "control-plane/src", "nemo/src", "tests/src"] {
        for (path, text) in sources(&root().join(folder)) {
            let test_only = path.ends_with("tests.rs") || path.to_string_lossy().contains("/tests/");
            assert!(test_only || text.starts_with("//!"), "{} has no module doc", path.display());
            let lines = text.lines().count();
            assert!(lines <= 600, "{} has {lines} lines", path.display());
        }
    }
}
