//! Golden corpus: what the crate makes of real-looking requests, streams and responses, one folder per case in
//! `tests/golden/<provider>/<case>/`. The same files feed mock upstreams and fuzz seeds.
//!
//! | input | expectation |
//! |---|---|
//! | `case.json`: `endpoint`, `upstream_model`, `price` (of `common.v1.PriceSheet`); all optional | with a price: `priced_usd` in `info.json`, and `usage.cost` in streams that asked for usage |
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
    EditSet, Endpoint, FinishReason, Pricing, Spliced, StreamObserver, Target, Told, UpstreamErrorInfo,
    decode_error, parse, provider, scan_response, splice,
};
use nemo_types::{Measure, Nanos, NanosPerMillion, PriceSheet, PriceStep, Unit, UnitPrice, Usage};
use serde_json::{Map, Value, json};

const INPUTS: [&str; 4] = ["request.in.json", "stream.in.sse", "response.in.json", "error.in.json"];
const OTHERS: [&str; 5] = ["case.json", "request.out.json", "edits.txt", "stream.out.sse", "info.json"];

struct Case {
    folder: PathBuf,
    provider: &'static nemo_llm::Provider,
    endpoint: Endpoint,
    upstream_model: Option<String>,
    price: Option<PriceSheet>,
}

/// Prices in nano-USD per million tokens or units.
fn price_sheet(price: &Value) -> PriceSheet {
    let of = |price: &Value, name: &str| price[name].as_i64().map(NanosPerMillion);
    let units = price["units"].as_object().into_iter().flatten().map(|(unit, price)| UnitPrice {
        unit: Unit::from_name(unit).unwrap(),
        quality: "".into(),
        size: "".into(),
        price: NanosPerMillion(price.as_i64().unwrap()),
    });
    let steps = price["steps"].as_array().into_iter().flatten().map(|step| PriceStep {
        above_input_tokens: step["above_input_tokens"].as_u64().unwrap_or(0),
        service_tier: step["service_tier"].as_str().unwrap_or("").into(),
        input: of(step, "input"),
        output: of(step, "output"),
        ..PriceStep::default()
    });
    PriceSheet {
        id: "golden".into(),
        input: of(price, "input"),
        output: of(price, "output"),
        cache_read: of(price, "cache_read"),
        cache_write: of(price, "cache_write"),
        cache_write_1h: of(price, "cache_write_1h"),
        reasoning: of(price, "reasoning"),
        units: units.collect(),
        steps: steps.collect(),
    }
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
            price: settings.get("price").map(price_sheet),
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
            let asked = self.input("request.in.json").unwrap();
            let asked = parse(self.endpoint, &asked).unwrap().include_usage;
            info.insert("stream".into(), self.stream(&stream, spliced.strip_usage_chunk, asked));
        }
        if let Some(body) = self.input("response.in.json") {
            let found = scan_response(self.endpoint, &body);
            let report =
                report(found.usage, found.provider_cost, found.finish_reason.as_ref(), found.output_bytes);
            let report = with_measures(report, &found.measures);
            let report = self.priced(
                report,
                &Told {
                    usage: found.usage.as_ref(),
                    measures: &found.measures,
                    service_tier: found.service_tier,
                    provider_cost: found.provider_cost,
                },
            );
            info.insert("response".into(), report);
        }
        if let Some(body) = self.input("error.in.json") {
            info.insert("error".into(), error_info(&decode_error(&body)));
        }
        if !info.is_empty() {
            self.expect("info.json", format!("{:#}\n", Value::Object(info)).as_bytes());
        }
    }

    /// Only where there is a price, or something new is told.
    fn priced(&self, mut report: Value, told: &Told<'_>) -> Value {
        if told.service_tier.is_told() {
            report["service_tier"] = told.service_tier.as_str().into();
        }
        if let Some(hour) = told.usage.and_then(|usage| usage.cache_write_1h) {
            report["usage"]["cache_write_1h"] = hour.into();
        }
        if let Some(price) = &self.price {
            report["priced_usd"] = cost(price, told).map(|cost| cost.to_string()).into();
        }
        report
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

    fn stream(&self, stream: &Bytes, cut: bool, asked: bool) -> Value {
        let priced = asked && self.price.is_some();
        let (out, info) = self.replay(stream, cut, priced, [stream.len()]);
        self.expect("stream.out.sse", &out);
        let same = |frames: &str, (other_out, other_info): (Vec<u8>, Value)| {
            assert!(
                other_out == out && other_info == info,
                "{}: differs with {frames}",
                self.folder.display()
            );
        };
        for at in 0..=stream.len() {
            same(&format!("a cut at {at}"), self.replay(stream, cut, priced, [at]));
        }
        same("frames of one byte", self.replay(stream, cut, priced, vec![1; stream.len()]));
        same("frames of seven bytes", self.replay(stream, cut, priced, vec![7; stream.len() / 7]));
        if !cut && !priced {
            assert_eq!(out, stream[..], "{}: changed without reason", self.folder.display());
        }
        info
    }

    /// Plays the stream in frames of these lengths, and what is left as the last frame.
    fn replay(
        &self,
        stream: &Bytes,
        cut: bool,
        priced: bool,
        lengths: impl IntoIterator<Item = usize>,
    ) -> (Vec<u8>, Value) {
        let mut observer = StreamObserver::new(self.endpoint, cut);
        if let Some(price) = self.price.clone().filter(|_| priced) {
            observer = observer.with_pricing(Pricing::new(move |told| cost(&price, told)));
        }
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
        info = self.priced(
            info,
            &Told {
                usage: observer.usage().as_ref(),
                measures: &observer.measures(),
                service_tier: observer.service_tier(),
                provider_cost: observer.provider_cost(),
            },
        );
        info["complete"] = end.is_ok().into();
        info["seen_content"] = observer.seen_content().into();
        info["error"] = observer.error().map(error_info).into();
        (out, info)
    }
}

fn cost(price: &PriceSheet, told: &Told<'_>) -> Option<Nanos> {
    told.provider_cost.or_else(|| price.cost_in(told.service_tier.as_str(), told.usage, told.measures))
}

fn report(
    usage: Option<Usage>,
    cost: Option<Nanos>,
    finish: Option<&FinishReason>,
    output_bytes: u64,
) -> Value {
    let usage = usage.map(|usage| {
        let Usage {
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
            audio_input,
            audio_output,
            cache_write_1h: _,
        } = usage;
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
        // Another layout, of another test.
        if name(&provider_folder) == "transcode" {
            continue;
        }
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
