//! Logs: tracing events as text or JSON on standard error, written by a thread of their own.
//!
//! Logging never blocks a request: lines go through a bounded queue, and what does not fit is dropped and
//! counted. Called once by each binary, first thing. The filter comes from `NEMO_LOG`, else `RUST_LOG`, else the
//! settings, in the syntax of [`EnvFilter`].

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

/// Lines that may wait for standard error. At a few hundred bytes each: under 4 MiB.
const QUEUE_LINES: usize = 8192;
/// How long the end of the process waits for lines that are still queued.
const FLUSH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Text,
    Json,
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetrySettings {
    pub format: Format,
    /// Used when neither `NEMO_LOG` nor `RUST_LOG` is set.
    pub filter: String,
    /// Colours in text; absent: on a terminal, unless `NO_COLOR` is set.
    pub ansi: Option<bool>,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { format: Format::Auto, filter: "info".to_owned(), ansi: None }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(
        "{origin} = {filter:?} is no log filter: {error}; expected for example \"info,nemo_data_plane=debug\""
    )]
    Filter { origin: &'static str, filter: String, error: String },
    #[error("the log writer's thread cannot be started: {0}")]
    Thread(io::Error),
    #[error("logging was initialised before")]
    Twice,
}

/// Keeps the writer alive. Dropping it writes what is queued, waiting at most a second.
#[derive(Debug)]
#[must_use = "dropping the guard ends logging"]
pub struct Guard {
    queue: LineQueue,
    done: Receiver<()>,
}

impl Guard {
    /// Lines dropped so far because standard error was too slow.
    pub fn dropped_lines(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let start = Instant::now();
        while let Err(TrySendError::Full(_)) = self.queue.lines.try_send(Line::Close) {
            if start.elapsed() > FLUSH {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.done.recv_timeout(FLUSH);
    }
}

/// Installs the process's logger.
///
/// # Errors
/// When the filter is malformed or a logger is installed already.
pub fn init(settings: &TelemetrySettings) -> Result<Guard, TelemetryError> {
    let (filter, _) = filter(settings, |name| std::env::var(name).ok())?;
    let terminal = io::stderr().is_terminal();
    let ansi = settings
        .ansi
        .unwrap_or(terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));
    let (queue, guard) = start(io::stderr())?;
    let json = match settings.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !terminal,
    };
    // A global filter: one on the layer loses the event that follows a disabled `log_enabled!` of the bridge.
    let subscriber = tracing_subscriber::registry().with(filter).with(layer(queue, json, ansi));
    subscriber.try_init().map_err(|_| TelemetryError::Twice)?;
    Ok(guard)
}

fn filter(
    settings: &TelemetrySettings,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(EnvFilter, &'static str), TelemetryError> {
    let from_environment = ["NEMO_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()).map(|value| (name, value)));
    let (origin, text) = from_environment.unwrap_or_else(|| ("log.filter", settings.filter.clone()));
    match EnvFilter::try_new(&text) {
        Ok(filter) => Ok((filter, origin)),
        Err(error) => Err(TelemetryError::Filter { origin, filter: text, error: error.to_string() }),
    }
}

fn layer<S>(queue: LineQueue, json: bool, ansi: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(queue);
    if json {
        layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    } else {
        layer.with_ansi(ansi).boxed()
    }
}

#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    Close,
}

/// The queue's sending end: what the formatting layer writes to.
#[derive(Clone, Debug)]
struct LineQueue {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

fn start(out: impl Write + Send + 'static) -> Result<(LineQueue, Guard), TelemetryError> {
    let (lines, receiver) = mpsc::sync_channel(QUEUE_LINES);
    let (ended, done) = mpsc::sync_channel(1);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = LineQueue { lines, dropped: Arc::clone(&dropped) };
    thread::Builder::new()
        .name("nemo-log".to_owned())
        .spawn(move || {
            write_lines(&receiver, &dropped, out);
            let _ = ended.send(());
        })
        .map_err(TelemetryError::Thread)?;
    Ok((queue.clone(), Guard { queue, done }))
}

fn write_lines(lines: &Receiver<Line>, dropped: &AtomicU64, mut out: impl Write) {
    let mut reported = 0;
    while let Ok(Line::Text(text)) = lines.recv() {
        // Nobody is left to tell when standard error is gone.
        let _ = out.write_all(&text);
        let total = dropped.load(Ordering::Relaxed);
        if total > reported {
            let _ = writeln!(out, "{} log lines dropped: standard error is too slow", total - reported);
            reported = total;
        }
    }
    let _ = out.flush();
}

impl Write for LineQueue {
    /// The formatting layer writes each event with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Text(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Output that can be held up.
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log(json: bool, events: impl FnOnce()) -> String {
        let sink = Sink::default();
        let (queue, guard) = start(sink.clone()).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer(queue, json, false));
        tracing::subscriber::with_default(subscriber, events);
        drop(guard);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn dropping_the_guard_writes_everything_queued() {
        let text = log(false, || (0..100).for_each(|n| tracing::info!(n, "hello")));
        assert_eq!(text.lines().count(), 100);
        assert!(text.lines().all(|line| line.contains("INFO") && line.contains("hello")), "{text}");
    }

    #[test]
    fn json_lines_carry_fields_at_the_top() {
        let text = log(true, || tracing::warn!(port = 8080, "taken"));
        assert!(text.contains(r#""level":"WARN""#) && text.contains(r#""port":8080"#), "{text}");
        assert!(text.contains(r#""message":"taken""#), "{text}");
    }

    #[test]
    fn a_slow_output_drops_and_counts_instead_of_blocking() {
        let sink = Sink::default();
        let held = sink.0.lock().unwrap();
        let (mut queue, guard) = start(sink.clone()).unwrap();
        let total = QUEUE_LINES + 50;
        for _ in 0..total {
            queue.write_all(b"line\n").unwrap();
        }
        let dropped = guard.dropped_lines();
        assert!(dropped >= 49, "{dropped}");
        drop(held);
        drop(guard);
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("log lines dropped"), "{}", text.len());
        assert_eq!(text.matches("line\n").count() as u64, total as u64 - dropped);
    }

    #[test]
    fn the_environment_wins_and_bad_filters_are_named() {
        let settings = TelemetrySettings::default();
        let origin = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let find = |name: &str| pairs.iter().find(|(k, _)| k == name).map(|(_, v)| v.clone());
            filter(&settings, find).map(|(_, origin)| origin)
        };
        assert_eq!(origin(&[("RUST_LOG", "warn"), ("NEMO_LOG", "debug")]).unwrap(), "NEMO_LOG");
        assert_eq!(origin(&[("RUST_LOG", "warn"), ("NEMO_LOG", " ")]).unwrap(), "RUST_LOG");
        assert_eq!(origin(&[]).unwrap(), "log.filter");
        let error = origin(&[("NEMO_LOG", "nemo=loud")]).unwrap_err().to_string();
        assert!(error.contains("NEMO_LOG") && error.contains("nemo=loud"), "{error}");
    }
}
