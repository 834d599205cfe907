//! One measurement of one target, by a load generator in a process of its own on its own core.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use nemo_tests::process::Place;

use super::Args;
use super::targets::{PUNCTUAL, Target};
use crate::load::Outcome;
use crate::proc;

/// Requests of one measurement. With the warm-up fewer than the gateway keeps usage events for (65,536), since on two
/// cores it makes them faster than the control plane, PostgreSQL and the load generator together leave time to write.
const MAX_REQUESTS: u64 = 50_000;

/// What a target is loaded with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Workload {
    /// Closed loop, 1 KB requests.
    Small,
    /// Closed loop, 100 KB requests.
    Large,
    /// Closed loop of streams that come as fast as the upstream can send.
    Stream,
    /// Closed loop of streams with an event each millisecond.
    Paced,
    /// As `Small` and `Stream`, with a model that the gateway calls in the words of Anthropic. A floor passes on what it
    /// gets.
    Translated,
    TranslatedStream,
    /// 1 KB requests at fixed times, by a load generator that is `punctual` where that is allowed.
    Open {
        rate: f64,
        punctual: bool,
    },
}

impl Workload {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "1KB",
            Self::Large => "100KB",
            Self::Stream => "stream",
            Self::Paced => "paced",
            Self::Translated => "claude",
            Self::TranslatedStream => "claude-stream",
            Self::Open { .. } => "open",
        }
    }

    fn arguments(self) -> Vec<String> {
        let text = match self {
            Self::Small | Self::Translated => "--body-bytes 1024 --connections 64".into(),
            Self::Large => "--body-bytes 102400 --connections 16".into(),
            Self::Stream | Self::TranslatedStream => "--body-bytes 1024 --connections 16 --stream".into(),
            Self::Paced => "--body-bytes 1024 --connections 64 --stream --paced".into(),
            Self::Open { rate, .. } => format!("--body-bytes 1024 --connections 64 --rate {rate:.1}"),
        };
        text.split(' ').map(String::from).collect()
    }

    /// The model that is asked for.
    fn model(self, args: &Args) -> String {
        match self {
            Self::Translated | Self::TranslatedStream => translated_model(&args.model),
            _ => args.model.clone(),
        }
    }

    /// The number that this workload is for.
    pub(super) fn summary(self, outcome: &Outcome) -> String {
        let cpu = |value: Option<f64>, per| format!("{:>6.2} µs CPU per {per}", value.unwrap_or(f64::NAN));
        match self {
            Self::Small | Self::Large | Self::Translated => cpu(outcome.cpu_us_per_request(), "request"),
            Self::Stream | Self::Paced | Self::TranslatedStream => format!(
                "{}, {:.2} chunks per read",
                cpu(outcome.cpu_us_per_chunk(), "chunk"),
                outcome.chunks as f64 / outcome.reads as f64
            ),
            Self::Open { .. } => {
                format!(
                    "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs",
                    outcome.p50_us, outcome.p99_us, outcome.p999_us
                )
            }
        }
    }
}

/// The model that is like `model`, behind Anthropic's API.
pub(super) fn translated_model(model: &str) -> String {
    format!("{model}-claude")
}

/// Runs one measurement.
///
/// # Errors
/// When an answer was no success: a gateway that refuses is fast, and its speed of no interest.
pub(super) fn load(args: &Args, target: &Target, workload: Workload) -> anyhow::Result<Outcome> {
    let mut line = Place { core: args.core(args.load_core), idle: false }.prefix();
    if let Workload::Open { punctual: true, .. } = workload {
        line.extend(PUNCTUAL.map(String::from));
    }
    line.push(proc::own_program());
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]);
    command.arg("load").args(workload.arguments());
    for (name, value) in [
        ("--target", target.addr.to_string()),
        ("--api-key", target.api_key.clone()),
        ("--model", workload.model(args)),
        ("--pid", target.pid.to_string()),
        ("--seconds", args.seconds.to_string()),
        ("--warmup-seconds", args.warmup_seconds.to_string()),
        ("--max-requests", MAX_REQUESTS.to_string()),
    ] {
        command.args([name, &value]);
    }
    let output = command.stdin(Stdio::null()).output().context("start the load generator")?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let outcome: Outcome = serde_json::from_slice(&output.stdout).context("result of the load generator")?;
    anyhow::ensure!(outcome.errors == 0, "{} errors, first: {:?}", outcome.errors, outcome.first_error);
    anyhow::ensure!(outcome.requests + outcome.chunks > 0, "no answer in {} s", outcome.seconds);
    Ok(outcome)
}
