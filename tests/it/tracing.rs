//! Traces and metrics for a collector, trace context to the upstream, and labels that clients can't multiply.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nemo_runtime::tls::{Identity, ServerTls};
use nemo_tests::{
    eventually,
    fleet::{Fleet, MODEL, UPSTREAM_KEY, UPSTREAM_MODEL},
    ports::free_port,
    script::Script,
};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::any_value::Value as Any,
    trace::v1::Span,
};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tonic::{Request, Response, Status};

use super::{chat::chat, tls::Ca};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const PROMPT: &str = "canary prompt that belongs nowhere";

/// What a collector was sent. Bounded by the test.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    metrics: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|it| it.scope_spans);
        self.spans.lock().unwrap().extend(scopes.flat_map(|it| it.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let scopes = request.into_inner().resource_metrics.into_iter().flat_map(|it| it.scope_metrics);
        let all = scopes.flat_map(|it| it.metrics).map(|metric| format!("{} {metric:?}", metric.name));
        self.metrics.lock().unwrap().extend(all);
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    fn start() -> (Self, String, JoinSet<()>) {
        let (collector, addr) =
            (Self::default(), SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap())));
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server.serve(addr).await.unwrap() });
        (collector, format!("http://{addr}"), tasks)
    }

    /// The same behind TLS, with a certificate for localhost of an authority of the test's own: `own.ca.pem`.
    async fn start_tls(dir: &Path) -> (Self, String, JoinSet<()>) {
        Ca::new(dir, "own").issue(dir, "own");
        let (collector, endpoint, mut tasks) = Self::start();
        let plain: SocketAddr = endpoint.trim_start_matches("http://").parse().unwrap();
        let identity = Identity { cert: dir.join("own.pem"), key: dir.join("own.key") };
        let tls = ServerTls::load(&identity, None).unwrap().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Whoever does not trust the certificate leaves; the next may.
                let Ok(mut client) = tls.acceptor().accept(stream).await else { continue };
                let mut collector = TcpStream::connect(plain).await.unwrap();
                clients.spawn(async move { copy_bidirectional(&mut client, &mut collector).await });
            }
        });
        (collector, format!("https://localhost:{port}"), tasks)
    }

    async fn spans(&self, count: usize) -> Vec<Span> {
        eventually("the spans are at the collector", async || {
            let spans = self.spans.lock().unwrap().clone();
            anyhow::ensure!(spans.len() >= count, "{} of {count}", spans.len());
            Ok(spans)
        })
        .await
        .unwrap()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(span: &Span) -> HashMap<String, String> {
    let text = |value: Any| match value {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = span.attributes.iter().cloned();
    pairs.map(|it| (it.key, it.value.and_then(|it| it.value).map(text).unwrap_or_default())).collect()
}

#[tokio::test]
async fn a_collector_behind_tls_of_an_own_authority_gets_the_spans() {
    let dir = tempfile::tempdir().unwrap();
    let (collector, endpoint, _server) = Collector::start_tls(dir.path()).await;
    let ca = dir.path().join("own.ca.pem");
    let settings = [("NEMO_OTLP__ENDPOINT", endpoint.as_str()), ("NEMO_OTLP__CA", ca.to_str().unwrap())];
    let fleet = Fleet::start_with(&settings).await.unwrap();
    assert_eq!(fleet.client.post("/v1/chat/completions", chat(PROMPT)).await.unwrap().status, 200);
    assert_eq!(collector.spans(2).await.len(), 2);
}

#[tokio::test]
async fn a_request_is_a_span_with_its_attempt_below_it_in_the_callers_trace() {
    let (collector, endpoint, _server) = Collector::start();
    let mut fleet = Fleet::start_with(&[("NEMO_OTLP__ENDPOINT", &endpoint)]).await.unwrap();
    let client = fleet
        .client
        .clone()
        .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"))
        .header("tracestate", "vendor=1");
    let response = client.post("/v1/chat/completions", chat(PROMPT)).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let upstream = fleet.upstream.last_request().unwrap();

    let spans = collector.spans(2).await;
    let request = spans.iter().find(|span| hex(&span.parent_span_id) == PARENT).expect("the request's span");
    let attempt =
        spans.iter().find(|span| span.parent_span_id == request.span_id).expect("the attempt's span");
    for span in [request, attempt] {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano && span.start_time_unix_nano > 0);
    }
    assert_eq!((request.name.as_str(), request.kind), (format!("chat {MODEL}").as_str(), 2));
    assert_eq!((attempt.name.as_str(), attempt.kind), (format!("chat {UPSTREAM_MODEL}").as_str(), 3));
    let seen = attributes(request);
    assert_eq!(seen["gen_ai.operation.name"], "chat");
    assert_eq!(seen["gen_ai.request.model"], MODEL);
    assert_eq!(seen["gen_ai.provider.name"], "custom");
    assert_eq!(seen["http.response.status_code"], "200");
    assert!(seen["gen_ai.usage.output_tokens"].parse::<u64>().unwrap() > 0, "{seen:?}");
    assert!(seen["gen_ai.response.finish_reasons"].contains("stop"), "{seen:?}");
    assert_eq!(attributes(attempt)["server.address"], "127.0.0.1");

    // The upstream is a child of the attempt.
    let sent = upstream.header("traceparent").unwrap();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&attempt.span_id)));
    assert_eq!(upstream.header("tracestate"), Some("vendor=1"));

    // A request without a trace begins one; an unsampled one is passed on and not recorded.
    fleet.client.post("/v1/chat/completions", chat(PROMPT)).await.unwrap();
    let own = fleet.upstream.last_request().unwrap().header("traceparent").unwrap().to_owned();
    assert!(own.ends_with("-01") && !own.contains(TRACE), "{own}");
    let unsampled = fleet.client.clone().header("traceparent", &format!("00-{TRACE}-{PARENT}-00"));
    unsampled.post("/v1/chat/completions", chat(PROMPT)).await.unwrap();
    assert!(fleet.upstream.last_request().unwrap().header("traceparent").unwrap().ends_with("-00"));
    assert_eq!(collector.spans(4).await.len(), 4);

    // The last metrics are sent when the process ends.
    fleet.data_plane.take().unwrap().stop().await.unwrap();
    let metrics = collector.metrics.lock().unwrap().join("\n");
    for name in
        ["gen_ai.server.request.duration", "gen_ai.client.token.usage", "gen_ai.server.time_to_first_token"]
    {
        assert!(metrics.contains(name), "{name} not in {metrics}");
    }
    let spans = collector.spans.lock().unwrap();
    for secret in [PROMPT, UPSTREAM_KEY, fleet.key.as_str()] {
        assert!(!metrics.contains(secret) && !format!("{spans:?}").contains(secret), "{secret}");
    }
}

/// R004-12: an attempt that failed has a span of its own, and its upstream was a child of that.
#[tokio::test]
async fn each_attempt_is_a_span() {
    let (collector, endpoint, _server) = Collector::start();
    let fleet = Fleet::start_with(&[("NEMO_OTLP__ENDPOINT", &endpoint)]).await.unwrap();
    fleet.upstream.push(Script::status(503));
    let client = fleet.client.clone().header("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    let response = client.post("/v1/chat/completions", chat(PROMPT)).await.unwrap();
    assert_eq!((response.status, response.header("x-nemo-attempts")), (200, Some("2")));
    let spans = collector.spans(3).await;
    let request = spans.iter().find(|span| hex(&span.parent_span_id) == PARENT).expect("the request's span");
    let mut attempts: Vec<_> = spans.iter().filter(|span| span.parent_span_id == request.span_id).collect();
    attempts.sort_by_key(|span| span.start_time_unix_nano);
    assert_eq!(attempts.len(), 2);
    let (failed, good) = (attributes(attempts[0]), attributes(attempts[1]));
    assert_eq!((&*failed["error.type"], &*failed["http.response.status_code"]), ("failed", "503"));
    assert!(!good.contains_key("error.type"), "{good:?}");
    for (span, sent) in attempts.iter().zip(fleet.upstream.requests()) {
        assert!(sent.header("traceparent").unwrap().contains(&hex(&span.span_id)));
    }
}

/// Without a collector the gateway is no part of the trace: the caller's span stays the parent.
#[tokio::test]
async fn without_a_collector_the_trace_context_passes_unchanged() {
    let fleet = Fleet::start().await.unwrap();
    let sent = format!("00-{TRACE}-{PARENT}-01");
    let client = fleet.client.clone().header("traceparent", &sent);
    client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(fleet.upstream.last_request().unwrap().header("traceparent"), Some(sent.as_str()));
    fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    assert_eq!(fleet.upstream.last_request().unwrap().header("traceparent"), None);
}

/// A failed request's log line has the request's id and the trace's.
#[tokio::test]
async fn log_lines_carry_request_id_and_trace_id() {
    let fleet = Fleet::start().await.unwrap();
    fleet.upstream.push(Script::status(500));
    let client = fleet.client.clone().header("x-nemo-retries", "0");
    let client = client.header("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    let response = client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let id = response.header("x-request-id").unwrap().to_owned();
    eventually("the log has the line", async || {
        let log = fleet.logs();
        let line = log.lines().find(|line| line.contains(&id));
        anyhow::ensure!(line.is_some_and(|line| line.contains(TRACE)), "{log}");
        Ok(())
    })
    .await
    .unwrap();
}

/// I12: what clients make up becomes no label: neither here nor for a collector.
#[tokio::test]
async fn labels_are_bounded_whatever_clients_send() {
    let (collector, endpoint, _server) = Collector::start();
    let mut fleet = Fleet::start_with(&[("NEMO_OTLP__ENDPOINT", &endpoint)]).await.unwrap();
    let lines = |metrics: &str| metrics.lines().filter(|line| !line.starts_with('#')).count();
    fleet.client.post("/v1/chat/completions", chat("hi")).await.unwrap();
    let ask = async |number: usize| {
        let made_up = json!({ "model": format!("made-up-{number}"), "messages": [] }).to_string();
        fleet.client.post("/v1/chat/completions", made_up).await.unwrap();
        fleet.client.get(&format!("/v1/made-up-{number}")).await.unwrap();
        let key = format!("sk-nemo-madeup{number:010}");
        fleet.client_with(Some(&key)).post("/v1/chat/completions", chat("hi")).await.unwrap();
    };
    ask(0).await;
    let before = lines(&fleet.metrics().await.unwrap());
    for number in 1..30 {
        ask(number).await;
    }
    let metrics = fleet.metrics().await.unwrap();
    assert_eq!(lines(&metrics), before, "no series was added");
    assert!(!metrics.contains("made-up"), "{metrics}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    fleet.data_plane.take().unwrap().stop().await.unwrap();
    let exported = collector.metrics.lock().unwrap().join("\n");
    assert!(exported.contains("\"other\"") && !exported.contains("made-up"), "{exported}");
    let names: std::collections::HashSet<Value> =
        collector.spans.lock().unwrap().iter().map(|span| json!(span.name)).collect();
    assert!(names.len() <= 4, "{names:?}");
}
