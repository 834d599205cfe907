//! `nemo-bench` end to end, for a fraction of a second each: that it measures and counts, not what it finds.

use std::process::Command;

use nemo_tests::ports::free_port;
use serde_json::{Value, json};

fn bench(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nemo-bench")).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Rows of the report whose number must be above zero for these targets.
fn assert_measured(report: &Value, targets: &[&str], goals: usize) {
    for row in report["rows"].as_array().unwrap() {
        // A floor puts nothing off until the load is over.
        if row["what"] == "of it after the load" {
            continue;
        }
        for target in targets {
            let median = row["values"][target]["median"].as_f64();
            assert!(median.is_some_and(|median| median > 0.0), "{target}: {row}");
        }
    }
    let judged = report["rows"].as_array().unwrap().iter().filter(|row| row["met"].is_boolean()).count();
    assert_eq!(judged, goals, "{report}");
}

/// What `make bench` does, in short: the product with everything on, and every request of the load in the request log.
#[test]
fn a_quick_run_measures_the_product_and_finds_every_request_in_the_log() {
    let json = tempfile::NamedTempFile::new().unwrap();
    let json_path = json.path().to_str().unwrap();
    let (ok, text) = bench(&["run", "--quick", "--seconds", "0.3", "--no-pin", "--json", json_path]);
    assert!(ok, "{text}");
    let report: Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_measured(&report, &["floor", "floor-raw", "gateway"], 7);
    let metering = &report["metering"];
    assert!(metering["answered"].as_u64().unwrap() > 10, "{metering}");
    assert_eq!((&metering["dropped"], &metering["complete"]), (&json!(0), &json!(true)), "{text}");
    assert_eq!(metering["rows"], metering["requests"]);
    assert!(text.contains("Metering: "), "{text}");
}

#[test]
fn a_foreign_gateway_is_compared_with_the_floor() {
    let (upstream, gateway) = (free_port().unwrap().to_string(), free_port().unwrap().to_string());
    let json = tempfile::NamedTempFile::new().unwrap();
    // The raw floor stands in for the gateway.
    let program = env!("CARGO_BIN_EXE_nemo-bench");
    let command = format!("{program} floor --client raw --port {gateway} --upstream 127.0.0.1:{upstream}");
    let url = format!("http://127.0.0.1:{gateway}");
    let (ok, text) = bench(&[
        "run",
        "--rounds",
        "1",
        "--seconds",
        "0.4",
        "--warmup-seconds",
        "0.1",
        "--no-pin",
        "--floor",
        "legacy",
        "--upstream-port",
        &upstream,
        "--gateway-url",
        &url,
        "--gateway-cmd",
        &command,
        "--json",
        json.path().to_str().unwrap(),
    ]);
    assert!(ok, "{text}");
    assert!(text.contains("CPU µs per request, 1 KB body"), "{text}");

    let report: Value = serde_json::from_slice(&std::fs::read(json.path()).unwrap()).unwrap();
    assert_measured(&report, &["floor", "gateway"], 5);
    assert!(report["metering"].is_null(), "{report}");
    assert!(report["memory"]["gateway"]["after_kib"].as_u64().unwrap() > 1000);
}

#[test]
fn a_gateway_that_refuses_fails_the_run_with_its_answer() {
    let (upstream, gateway) = (free_port().unwrap().to_string(), free_port().unwrap().to_string());
    // Nothing listens where this floor forwards to: every answer is 502.
    let dead = free_port().unwrap();
    let program = env!("CARGO_BIN_EXE_nemo-bench");
    let command = format!("{program} floor --port {gateway} --upstream 127.0.0.1:{dead}");
    let output = Command::new(program)
        .args(["run", "--no-pin", "--upstream-port", &upstream, "--gateway-cmd", &command])
        .args(["--gateway-url", &format!("http://127.0.0.1:{gateway}")])
        // So long is the gateway asked; whatever starts has no more time either.
        .env("NEMO_TEST_PATIENCE", "5")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("status 502"), "{text}");
}

/// What `make bench-scale` does, in small: every node applies every change, every stream gets chunks.
#[test]
fn a_small_scale_run_measures_keys_and_streams() {
    let (ok, text) = bench(&[
        "scale",
        "--keys",
        "200,2000",
        "--nodes",
        "5",
        "--changes",
        "5",
        "--streams",
        "30",
        "--pace-ms",
        "50",
        "--seconds",
        "3",
    ]);
    assert!(ok, "{text}");
    let row = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
        line.split_whitespace().last().unwrap().parse::<f64>().unwrap_or_else(|_| panic!("{line}"))
    };
    for measured in [
        "snapshot, MiB",
        "control plane, start to ready",
        "node, start to serving after a full resync",
        "one key changed: applied on 5 nodes, ms, p99",
        "from the upstream to the client, ms, p99",
    ] {
        assert!(row(measured) > 0.0, "{measured} in\n{text}");
    }
    // So few streams fit into memory that the node has already.
    assert!(row("node, KiB of memory per stream") >= 0.0, "{text}");
    // 30 streams, 20 chunks a second each, on a machine that stands still most of the time.
    assert!(row("chunks") > 200.0, "{text}");
}
