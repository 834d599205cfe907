//! Export of traces and metrics to an OpenTelemetry collector (OTLP over gRPC). Off unless an endpoint is set.
//!
//! Spans are handed over complete, when a request is over: until then nothing is allocated for them. They wait in a
//! bounded queue for a thread of the exporter; what does not fit is dropped. Called by the data plane.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    metrics::{Meter, MeterProvider as _},
    trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor as _},
};
use serde::Deserialize;
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::{
    tls,
    trace_context::{SpanId, TraceId},
};

pub use opentelemetry::{self as api};

/// Spans that may wait. At about 1 KiB each: 4 MiB.
const QUEUE: usize = 4096;
const BATCH: usize = 512;
/// How often metrics are sent, and spans at the latest.
const METRICS_EVERY: Duration = Duration::from_secs(15);
const SPANS_EVERY: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last batch.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// Collectors read the standard variable of OpenTelemetry.
const VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const CA_VARIABLE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";

/// Where to, and how much.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpSettings {
    /// gRPC address of the collector, such as `http://127.0.0.1:4317`; empty: off.
    pub endpoint: String,
    /// PEM file of authorities that an https collector is trusted by, besides the public ones; empty: those alone.
    pub ca: PathBuf,
    /// Share of traces that are recorded, of those that no caller has decided about.
    pub sample_ratio: f64,
}

impl OtlpSettings {
    /// Takes the endpoint from `OTEL_EXPORTER_OTLP_ENDPOINT` when none is set, the authorities from
    /// `OTEL_EXPORTER_OTLP_CERTIFICATE`.
    pub fn or_environment(&mut self) {
        if self.endpoint.is_empty()
            && let Ok(endpoint) = std::env::var(VARIABLE)
        {
            endpoint.trim().clone_into(&mut self.endpoint);
        }
        if self.ca.as_os_str().is_empty()
            && let Some(ca) = std::env::var_os(CA_VARIABLE)
        {
            self.ca = ca.into();
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("OTLP export to {endpoint:?} can't be set up: {reason}")]
pub struct OtlpError {
    endpoint: String,
    reason: String,
}

/// A running export.
#[derive(Debug)]
pub struct Otlp {
    spans: BatchSpanProcessor,
    meters: SdkMeterProvider,
    sample_ratio: f64,
}

/// A complete span.
pub struct Span {
    pub trace_id: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    /// The parent is in another process.
    pub remote_parent: bool,
    pub kind: SpanKind,
    pub name: Cow<'static, str>,
    pub start: SystemTime,
    pub end: SystemTime,
    pub attributes: Vec<KeyValue>,
    /// What went wrong, if something has.
    pub error: Option<&'static str>,
}

impl Otlp {
    /// `None` when no endpoint is set. Must be called on a runtime, which then carries the connection.
    ///
    /// # Errors
    /// When the endpoint is no address, or its authorities can't be read.
    pub fn start(
        settings: &OtlpSettings,
        service: &'static str,
        instance: &str,
    ) -> Result<Option<Self>, OtlpError> {
        if settings.endpoint.is_empty() {
            return Ok(None);
        }
        let failed = |reason: String| OtlpError { endpoint: settings.endpoint.clone(), reason };
        let scheme = settings.endpoint.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("http" | "https")) {
            return Err(failed("expected http://host:port or https://host:port".to_owned()));
        }
        let spans = SpanExporter::builder().with_tonic().with_endpoint(&settings.endpoint);
        let metrics = MetricExporter::builder().with_tonic().with_endpoint(&settings.endpoint);
        let (spans, metrics) = if scheme == Some("https") {
            let tls = collector_tls(&settings.ca).map_err(failed)?;
            (spans.with_tls_config(tls.clone()), metrics.with_tls_config(tls))
        } else {
            (spans, metrics)
        };
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance.to_owned()),
            ])
            .build();
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(SPANS_EVERY)
            .build();
        let exporter = spans.build().map_err(|error| failed(error.to_string()))?;
        let mut spans = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        spans.set_resource(&resource);
        let exporter = metrics.build().map_err(|error| failed(error.to_string()))?;
        let reader = PeriodicReader::builder(exporter).with_interval(METRICS_EVERY).build();
        let meters = SdkMeterProvider::builder().with_resource(resource).with_reader(reader).build();
        Ok(Some(Self { spans, meters, sample_ratio: settings.sample_ratio }))
    }

    /// Whether a trace that begins here is recorded. The same for every process that sees the id.
    pub fn samples(&self, trace_id: TraceId) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "the low half of the id, which is random, as a share"
        )]
        let share = (trace_id.0 as u64) as f64 / u64::MAX as f64;
        share < self.sample_ratio
    }

    /// Hands a span over. Never blocks.
    pub fn export(&self, span: Span) {
        static SCOPE: OnceLock<InstrumentationScope> = OnceLock::new();
        let scope = SCOPE.get_or_init(|| InstrumentationScope::builder("nemo-router").build());
        let span_context = SpanContext::new(
            span.trace_id.0.into(),
            span.id.0.into(),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        self.spans.on_end(SpanData {
            span_context,
            parent_span_id: span.parent.map_or(0, |parent| parent.0).into(),
            parent_span_is_remote: span.remote_parent,
            span_kind: span.kind,
            name: span.name,
            start_time: span.start,
            end_time: span.end,
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.error.map_or(Status::Unset, Status::error),
            instrumentation_scope: scope.clone(),
        });
    }

    /// For instruments, which are made once.
    pub fn meter(&self) -> Meter {
        self.meters.meter("nemo-router")
    }

    /// Sends what waits, at most for a few seconds. Blocks.
    pub fn shutdown(&self) {
        if let Err(error) = self.spans.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(%error, "the last spans were not sent");
        }
        if let Err(error) = self.meters.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(%error, "the last metrics were not sent");
        }
    }
}

fn collector_tls(ca: &Path) -> Result<ClientTlsConfig, String> {
    let public = ClientTlsConfig::new().with_enabled_roots();
    if ca.as_os_str().is_empty() {
        return Ok(public);
    }
    // What tonic would only find out with the first export.
    tls::root_store(ca).map_err(|error| error.to_string())?;
    let pem = std::fs::read(ca).map_err(|error| format!("cannot read {}: {error}", ca.display()))?;
    Ok(public.ca_certificate(Certificate::from_pem(pem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str, sample_ratio: f64) -> OtlpSettings {
        OtlpSettings { endpoint: endpoint.to_owned(), ca: PathBuf::new(), sample_ratio }
    }

    #[tokio::test]
    async fn without_an_endpoint_nothing_is_started_and_nonsense_is_named() {
        assert!(Otlp::start(&settings("", 1.0), "test", "1").unwrap().is_none());
        let error = Otlp::start(&settings("collector:4317", 1.0), "test", "1").unwrap_err().to_string();
        assert!(error.contains("collector:4317") && error.contains("expected http://"), "{error}");
        let missing =
            OtlpSettings { ca: "/nonexistent/ca.pem".into(), ..settings("https://collector:4317", 1.0) };
        let error = Otlp::start(&missing, "test", "1").unwrap_err().to_string();
        assert!(error.contains("/nonexistent/ca.pem"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_away_holds_nobody_up() {
        let otlp = Otlp::start(&settings("http://127.0.0.1:1", 0.5), "test", "1").unwrap().unwrap();
        let begin = std::time::Instant::now();
        for _ in 0..2 * QUEUE {
            otlp.export(Span {
                trace_id: TraceId::random(),
                id: SpanId::random(),
                parent: None,
                remote_parent: false,
                kind: SpanKind::Server,
                name: "chat m".into(),
                start: SystemTime::UNIX_EPOCH,
                end: SystemTime::UNIX_EPOCH,
                attributes: Vec::new(),
                error: None,
            });
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        let sampled = (0..1000).filter(|_| otlp.samples(TraceId::random())).count();
        assert!((350..650).contains(&sampled), "{sampled}");
    }
}
