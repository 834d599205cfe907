//! Invariants that are visible in the sources (INVARIANTS.md): bounds, what crosses the wire, what destructors do.

use std::path::{Path, PathBuf};

use super::docs::{read, root, rust_sources};

/// Product code: what is linked into a binary that is shipped.
fn product() -> Vec<(PathBuf, String)> {
    let folders = ["shared", "data-plane", "control-plane/src", "nemo/src", "proto/src"];
    let sources = folders.iter().flat_map(|folder| rust_sources(&root().join(folder)));
    let test_only = |path: &Path| path.ends_with("tests.rs") || path.to_string_lossy().contains("/tests/");
    let sources: Vec<_> = sources.filter(|(path, _)| !test_only(path)).collect();
    assert!(sources.len() > 100, "only {} files found", sources.len());
    sources
}

/// I12: there is no unbounded channel and no task without an owner, and clippy keeps it so.
#[test]
fn i12_no_channel_is_unbounded_and_no_task_is_without_an_owner() {
    let bans = read(&root().join("clippy.toml"));
    for (banned, written) in [
        ("tokio::sync::mpsc::unbounded_channel", "unbounded_channel("),
        ("tokio::spawn", "tokio::spawn("),
        ("tokio::task::spawn", "task::spawn("),
        ("axum::body::to_bytes", "body::to_bytes("),
    ] {
        assert!(bans.contains(&format!("path = \"{banned}\"")), "clippy.toml does not ban {banned}");
        for (path, text) in product() {
            assert!(!text.contains(written), "{banned} in {}", path.display());
        }
    }
}

/// I13: between the planes nothing is due at a time of day: clocks of two machines differ. What is left are dates
/// that people set, facts, and names: a window of a budget is called by the time when it began, nobody waits for it, and
/// when it ends is told as a duration.
#[test]
fn i13_no_deadline_on_the_wire_is_a_time_of_day() {
    const DATES_FACTS_AND_NAMES: [&str; 5] = [
        "expires_at_unix_ms",
        "previous_valid_until_unix_ms",
        "created_unix",
        "started_unix_us",
        "window_start_unix_s",
    ];
    let mut fields = 0;
    for package in ["common", "config", "cooldown", "fleet", "quota", "usage"] {
        for entry in std::fs::read_dir(root().join(format!("proto/nemo/{package}/v1"))).unwrap() {
            let path = entry.unwrap().path();
            for line in read(&path).lines() {
                let statement = line.split("//").next().unwrap_or_default();
                let Some((declared, _)) = statement.split_once(" = ") else { continue };
                let name = declared.split_whitespace().last().unwrap_or_default();
                fields += 1;
                let of_day = ["unix", "deadline", "until", "_at", "Timestamp"];
                let of_day = of_day.iter().any(|mark| declared.contains(mark));
                assert!(!of_day || DATES_FACTS_AND_NAMES.contains(&name), "{}: {line}", path.display());
            }
        }
    }
    assert!(fields > 80, "only {fields} fields found");
}

/// I14: a destructor gives something back, or notes that somebody left. It is short, and waits for nobody.
#[test]
fn i14_destructors_are_short_and_do_not_wait() {
    let mut found = 0;
    for (path, text) in product() {
        for after in text.split("fn drop(&mut self)").skip(1) {
            found += 1;
            let body: Vec<_> =
                after.lines().take_while(|line| !matches!(*line, "    }" | "        }")).collect();
            assert!(body.len() < 20, "{}: a destructor of {} lines", path.display(), body.len());
            let body = body.join("\n");
            for wait in [".await", "block_on(", ".join()"] {
                assert!(!body.contains(wait), "{}: {wait} in a destructor", path.display());
            }
        }
    }
    assert!(found >= 5, "only {found} destructors found");
}
