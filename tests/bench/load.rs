//! One measurement: keeps a server busy over HTTP/1.1 connections for some seconds and counts.
//!
//! A closed loop (each connection sends when it has its answer) finds the throughput. An open loop (`--rate`) sends at
//! fixed times, whether or not earlier answers have come, and measures each answer from the time when its request was
//! *due*: a server that stalls is charged for everyone who would have waited. One thread, one epoll loop, requests
//! prepared in advance.

mod connection;
mod drive;

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use drive::measure;

/// Events of each stream of the bench upstream, without usage and terminator.
pub(crate) const STREAM_CHUNKS: usize = 256;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Address of the server.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    #[arg(long, default_value = "/v1/chat/completions")]
    pub(crate) path: String,
    #[arg(long, default_value = "sk-none")]
    pub(crate) api_key: String,
    #[arg(long, default_value = "bench")]
    pub(crate) model: String,
    /// Size of each request body.
    #[arg(long, default_value_t = 1024)]
    pub(crate) body_bytes: usize,
    /// Ask for streams.
    #[arg(long)]
    pub(crate) stream: bool,
    /// Ask for the usage of streams as well; otherwise the gateway has to ask for itself and remove the answer.
    #[arg(long)]
    pub(crate) include_usage: bool,
    /// Ask the bench upstream for one event a millisecond.
    #[arg(long)]
    pub(crate) paced: bool,
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warmup_seconds: f64,
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Ends the measurement early, after so many answers, and the warm-up after a fifth as many.
    #[arg(long, default_value_t = u64::MAX)]
    pub(crate) max_requests: u64,
    /// Requests per second of an open loop; a closed loop without.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Process whose CPU time is taken over the measured seconds.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
}

/// What was measured, after the warm-up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    /// Answered before, in the warm-up.
    pub(crate) warmup_requests: u64,
    /// Answers other than 200, broken connections; with the first of them in words.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    /// Server-sent events, without `[DONE]`.
    pub(crate) chunks: u64,
    /// Reads that had bytes: fewer than chunks when the server lumps them together.
    pub(crate) reads: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Open loop: most requests that were due and waited for a connection at one time.
    pub(crate) backlog: usize,
    /// CPU time of `--pid` over the measured seconds.
    pub(crate) cpu_us: Option<f64>,
    /// CPU time of `--pid` since its start, at the end of the measured seconds.
    pub(crate) cpu_end_us: Option<f64>,
    /// CPU time that `--pid` spent later on what the measured seconds had left to do; the runner adds it.
    #[serde(default)]
    pub(crate) later_cpu_us: f64,
}

impl Outcome {
    pub(crate) fn requests_per_second(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    pub(crate) fn cpu_us_per_request(&self) -> Option<f64> {
        Some((self.cpu_us? + self.later_cpu_us) / self.requests as f64)
    }

    pub(crate) fn cpu_us_per_chunk(&self) -> Option<f64> {
        Some((self.cpu_us? + self.later_cpu_us) / self.chunks as f64)
    }

    /// Takes over this measurement's share of the CPU time that the process has spent since, up to `now_us`: the rest
    /// is the warm-up's.
    pub(crate) fn charge_later(&mut self, now_us: f64) {
        let Some(end) = self.cpu_end_us else { return };
        let all = self.requests + self.warmup_requests;
        let share = if all == 0 { 1.0 } else { self.requests as f64 / all as f64 };
        self.later_cpu_us = (now_us - end).max(0.0) * share;
    }
}

impl Args {
    pub(crate) fn warmup(&self) -> Duration {
        Duration::from_secs_f64(self.warmup_seconds)
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The bytes of every request.
    pub(crate) fn request(&self) -> Vec<u8> {
        let body = self.body();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\naccept: application/json\r\ncontent-type: application/json\r\n\
             user-agent: OpenAI/Python 2.8.0\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            self.path,
            self.target,
            self.api_key,
            body.len()
        );
        [head.into_bytes(), body.into_bytes()].concat()
    }

    /// A chat of several turns as SDKs send it, messages first, filled up to the size.
    fn body(&self) -> String {
        let stream = match (self.stream, self.include_usage) {
            (true, true) => r#","stream":true,"stream_options":{"include_usage":true}"#,
            (true, false) => r#","stream":true"#,
            (false, _) => "",
        };
        let paced = if self.paced { format!(",{}", crate::upstream::PACED) } else { String::new() };
        let head = r#"{"messages":[{"role":"system","content":"You are a helpful assistant."}"#;
        let tail =
            format!(r#"],"model":"{}","temperature":0.7,"max_tokens":256{paced}{stream}}}"#, self.model);
        let mut body = String::from(head);
        let text = "The quick brown fox jumps over the lazy dog, and said \\\"hello\\\" to it.\\n";
        for turn in 0_usize.. {
            let role = if turn.is_multiple_of(2) { "user" } else { "assistant" };
            let open = format!(r#",{{"role":"{role}","content":""#);
            let left = self.body_bytes.saturating_sub(body.len() + open.len() + 2 + tail.len());
            body.push_str(&open);
            // Turns of at most 2 KB; the last takes what is left.
            let last = left <= 2048;
            let fill = left.min(2048);
            body.push_str(&text.repeat(fill / text.len()));
            body.push_str(&"x".repeat(fill % text.len()));
            body.push_str("\"}");
            if last {
                break;
            }
        }
        body + &tail
    }
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let outcome = measure(args)?;
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome)?)?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    pub(super) fn args(line: &str) -> Args {
        Line::parse_from(["load", "--target", "127.0.0.1:1"].into_iter().chain(line.split_whitespace())).args
    }

    /// Work that is put off must not look like work that is not done.
    #[test]
    fn work_after_the_measurement_is_charged_in_proportion() {
        let mut outcome = Outcome {
            requests: 300,
            warmup_requests: 100,
            cpu_us: Some(3000.0),
            cpu_end_us: Some(50_000.0),
            ..Outcome::default()
        };
        assert_eq!(outcome.cpu_us_per_request(), Some(10.0));
        outcome.charge_later(50_400.0);
        assert_eq!(outcome.cpu_us_per_request(), Some(11.0));
    }

    #[test]
    fn bodies_are_chats_of_exactly_the_size_asked_for() {
        for (size, more) in
            [(1024, ""), (1024, "--stream"), (102_400, ""), (3000, "--stream --include-usage")]
        {
            let body = args(&format!("--body-bytes {size} {more}")).body();
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert!(body.len().abs_diff(size) <= 60, "{} for {size}", body.len());
            assert_eq!(json["stream"] == true, more.contains("--stream"));
            assert!(json["messages"].as_array().unwrap().len() > 1);
        }
    }
}
