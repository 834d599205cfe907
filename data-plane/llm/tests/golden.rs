//! Golden corpus: what the crate makes of real-looking requests, streams and responses, one folder per case in
//! `tests/golden/<provider>/<case>/`. The same files feed mock upstreams and fuzz seeds.
//!
//! | input | expectation |
//! |---|---|
//! | `case.json`: `endpoint`, `upstream_model`; both optional | |
//! | `request.in.json` | `request.out.json`: what goes upstream; `edits.txt`: which edits are declared |
//! | `stream.in.sse` | `stream.out.sse`: what the client gets; `stream` in `info.json` |
//! | `response.in.json`, `error.in.json` | `response`, `error` in `info.json` |
//!
//! `UPDATE_GOLDEN=1 cargo test -p nemo-llm --test golden` rewrites the expectations; read the diff.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nemo_llm::{
    EditSet, Endpoint, FinishReason, Spliced, StreamObserver, Target, UpstreamErrorInfo, decode_error, parse,
    provider, scan_response, splice,
};
use nemo_types::{Measure, Nanos, Usage};
use serde_json::{Map, Value, json};

const INPUTS: [&str; 4] = ["request.in.json", "stream.in.sse", "response.in.json", "error.in.json"];
const OTHERS: [&str; 5] = ["case.json", "request.out.json", "edits.txt", "stream.out.sse", "info.json"];

struct Case {
    folder: PathBuf,
    provider: &'static nemo_llm::Provider,
    endpoint: Endpoint,
    upstream_model: Option<String>,
}

impl Case {
    fn read(provider_id: &str, folder: PathBuf) -> Self {
        let settings = fs::read(folder.join("case.json")).map(|text| serde_json::from_slice(&text).unwrap());
        let settings: Value = settings.unwrap_or_default();
        let label = settings["endpoint"].as_str().unwrap_or("chat.completions");
        Self {
            provider: provider(provider_id).unwrap_or_else(|| panic!("no provider {provider_id}")),
            endpoint: Endpoint::ALL.into_iter().find(|endpoint| endpoint.label() == label).expect(label),
            upstream_model: settings["upstream_model"].as_str().map(str::to_owned),
            folder,
        }
    }

    fn input(&self, name: &str) -> Option<Bytes> {
        fs::read(self.folder.join(name)).ok().map(Bytes::from)
    }

    /// Compares with the expectation, or writes it.
    fn expect(&self, name: &str, actual: &[u8]) {
        let path = self.folder.join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            return fs::write(path, actual).unwrap();
        }
        let expected = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let text = String::from_utf8_lossy;
        assert!(
            expected == actual,
            "{}\n--- expected\n{}\n--- got\n{}",
            path.display(),
            text(&expected),
            text(actual)
        );
    }

    fn run(&self) {
        let mut info = Map::new();
        let spliced = self.input("request.in.json").map(|body| self.request(&body));
        if let Some(stream) = self.input("stream.in.sse") {
            let spliced = spliced.expect("a stream case has a request: it decides what is cut");
            info.insert("stream".into(), self.stream(&stream, spliced.strip_usage_chunk));
        }
        if let Some(body) = self.input("response.in.json") {
            let found = scan_response(self.endpoint, &body);
            let report =
                report(found.usage, found.provider_cost, found.finish_reason.as_ref(), found.output_bytes);
            let report = with_measures(report, &found.measures);
            info.insert("response".into(), report);
        }
        if let Some(body) = self.input("error.in.json") {
            info.insert("error".into(), error_info(&decode_error(&body)));
        }
        if !info.is_empty() {
            self.expect("info.json", format!("{:#}\n", Value::Object(info)).as_bytes());
        }
    }

    fn request(&self, body: &Bytes) -> Spliced {
        let envelope = parse(self.endpoint, body).unwrap();
        let upstream_model = self.upstream_model.as_deref().unwrap_or(&envelope.model);
        let target = Target { provider: self.provider, upstream_model };
        let spliced = splice(body, &envelope, self.endpoint, &target);
        let sent = spliced.segments.concat();
        self.expect("request.out.json", &sent);
        let edits = spliced.edits.header_value().unwrap_or("none");
        let chunk = if spliced.strip_usage_chunk { "cut" } else { "kept" };
        self.expect("edits.txt", format!("edits: {edits}\nusage chunk: {chunk}\n").as_bytes());
        if spliced.edits == EditSet::default() {
            assert_eq!(sent, body[..], "{}: an edit that is not declared", self.folder.display());
        }
        spliced
    }

    fn stream(&self, stream: &Bytes, cut: bool) -> Value {
        let (out, info) = self.replay(stream, cut, [stream.len()]);
        self.expect("stream.out.sse", &out);
        let same = |frames: &str, (other_out, other_info): (Vec<u8>, Value)| {
            assert!(
                other_out == out && other_info == info,
                "{}: differs with {frames}",
                self.folder.display()
            );
        };
        for at in 0..=stream.len() {
            same(&format!("a cut at {at}"), self.replay(stream, cut, [at]));
        }
        same("frames of one byte", self.replay(stream, cut, vec![1; stream.len()]));
        same("frames of seven bytes", self.replay(stream, cut, vec![7; stream.len() / 7]));
        if !cut {
            assert_eq!(out, stream[..], "{}: changed without reason", self.folder.display());
        }
        info
    }

    /// Plays the stream in frames of these lengths, and what is left as the last frame.
    fn replay(
        &self,
        stream: &Bytes,
        cut: bool,
        lengths: impl IntoIterator<Item = usize>,
    ) -> (Vec<u8>, Value) {
        let mut observer = StreamObserver::new(self.endpoint, cut);
        let (mut out, mut rest) = (Vec::new(), stream.clone());
        for length in lengths {
            out.extend(observer.frame(rest.split_to(length)).unwrap().concat());
        }
        out.extend(observer.frame(rest).unwrap().concat());
        let end = observer.finish();
        out.extend(end.as_ref().map(|pieces| pieces.concat()).unwrap_or_default());
        let mut info = report(
            observer.usage(),
            observer.provider_cost(),
            observer.finish_reason(),
            observer.output_bytes(),
        );
        info = with_measures(info, &observer.measures());
        info["complete"] = end.is_ok().into();
        info["seen_content"] = observer.seen_content().into();
        info["error"] = observer.error().map(error_info).into();
        (out, info)
    }
}

fn report(
    usage: Option<Usage>,
    cost: Option<Nanos>,
    finish: Option<&FinishReason>,
    output_bytes: u64,
) -> Value {
    let usage = usage.map(|usage| {
        let Usage { input, output, cache_read, cache_write, reasoning, audio_input, audio_output } = usage;
        json!({
            "input": input, "output": output, "cache_read": cache_read, "cache_write": cache_write,
            "reasoning": reasoning, "audio_input": audio_input, "audio_output": audio_output,
        })
    });
    json!({
        "usage": usage,
        "cost_usd": cost.map(|cost| cost.to_string()),
        "finish_reason": finish.map(FinishReason::as_str),
        "output_bytes": output_bytes,
    })
}

/// Only where there are some: most cases are about text.
fn with_measures(mut report: Value, measures: &[Measure]) -> Value {
    let measure = |it: &Measure| json!({"unit": it.unit.name(), "quantity": it.quantity, "quality": &*it.quality, "size": &*it.size});
    if !measures.is_empty() {
        report["measures"] = measures.iter().map(measure).collect();
    }
    report
}

fn error_info(error: &UpstreamErrorInfo) -> Value {
    json!({"message": error.message, "kind": error.kind, "code": error.code, "param": error.param})
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn every_golden_case_gives_what_it_gave_before_at_every_split() {
    let mut cases = 0;
    for provider_folder in folders(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")) {
        for folder in folders(&provider_folder) {
            let files: BTreeSet<_> =
                fs::read_dir(&folder).unwrap().map(|entry| name(&entry.unwrap().path())).collect();
            let known = |file: &String| INPUTS.contains(&file.as_str()) || OTHERS.contains(&file.as_str());
            assert!(files.iter().all(known), "{}: unknown file among {files:?}", folder.display());
            assert!(INPUTS.iter().any(|input| files.contains(*input)), "{}: no input", folder.display());
            Case::read(&name(&provider_folder), folder).run();
            cases += 1;
        }
    }
    assert!(cases >= 30, "only {cases} cases were found");
}
