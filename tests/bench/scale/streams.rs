//! Many open streams on one node.
//!
//! Each client has a connection of its own, as far as the limit of open files reaches for the node, which needs a
//! second one for the upstream. Beyond it clients share HTTP/2 connections, as they do behind a load balancer.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nemo_tests::eventually::patience;
use nemo_tests::process::{Process, Spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::gateway::{Gateway, MODEL};
use super::upstream::{DIGITS, STAMP, now_nanos};
use super::{Args, say};
use crate::histogram::Histogram;
use crate::proc;

/// Streams that are being opened at one time.
const OPENING: usize = 64;
/// Below the limits of all servers that we know.
const STREAMS_PER_CONNECTION: usize = 100;

pub(super) struct Measured {
    streams: usize,
    idle_kib: u64,
    open_kib: u64,
    chunks: u64,
    p50: Duration,
    p99: Duration,
    max: Duration,
    /// CPU time per second of the watched ones.
    cpu_share: f64,
    pace_ms: u64,
    shared: bool,
}

/// What the clients see, all together.
#[derive(Default)]
struct Watch {
    /// Chunks are counted only while this is set: not while streams are being opened.
    on: bool,
    chunks: u64,
    histogram: Option<Histogram>,
}

type Shared = Arc<Mutex<Watch>>;

fn locked(watch: &Shared) -> std::sync::MutexGuard<'_, Watch> {
    watch.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) async fn measure(args: &Args) -> anyhow::Result<Measured> {
    let (_upstream, address) = start_upstream(args).await?;
    let mut gateway = Gateway::start(address).await?;
    gateway.restart_data_plane(true).await?;
    let data_plane = gateway.data_plane.as_ref().context("no data plane")?;
    let pid = data_plane.pid();
    let idle_kib = proc::resident(pid)?;

    let watch = Shared::default();
    let request = request(&gateway);
    let target = gateway.site.ports.data;
    let mut shared = None;
    let mut streams = JoinSet::new();
    let opening = Arc::new(tokio::sync::Semaphore::new(OPENING));
    let (opened, mut news) = tokio::sync::mpsc::channel(OPENING);
    for number in 0..args.streams {
        let permit = opening.clone().acquire_owned().await?;
        let (request, watch, opened) = (request.clone(), watch.clone(), opened.clone());
        if args.shared_connections() && number % STREAMS_PER_CONNECTION == 0 {
            shared = Some(connect(target).await?);
        }
        let shared = shared.clone();
        streams.spawn(async move {
            let stream = match shared {
                Some(connection) => Stream::Shared(connection.open(&request).await?),
                None => Stream::Own(request.open(target).await?),
            };
            drop(permit);
            opened.send(()).await?;
            read(stream, &watch).await
        });
        while news.try_recv().is_ok() {}
        if let Some(ended) = streams.try_join_next() {
            return Err(ended?.err().context("a stream has ended")?).with_context(|| data_plane.log());
        }
    }
    // All permits are back: all streams are open.
    let _all = tokio::select! {
        all = opening.acquire_many(u32::try_from(OPENING)?) => all?,
        () = async { while news.recv().await.is_some() {} } => anyhow::bail!("the streams ended"),
    };
    say("  all open");
    let drain = async { while news.recv().await.is_some() {} };
    // One whole interval in which every stream gets its first chunk.
    let (warm_up, watched) = (Duration::from_millis(2 * args.pace_ms), Duration::from_secs(args.seconds));
    let outcome = async {
        tokio::time::sleep(warm_up).await;
        *locked(&watch) = Watch { on: true, chunks: 0, histogram: Some(Histogram::new()) };
        let before = proc::cpu_time(pid)?;
        tokio::time::sleep(watched).await;
        let spent = proc::cpu_time(pid)?.saturating_sub(before);
        locked(&watch).on = false;
        anyhow::Ok(spent)
    };
    let spent =
        tokio::select! { spent = outcome => spent?, () = drain => anyhow::bail!("the streams ended") };
    anyhow::ensure!(streams.len() == args.streams, "only {} streams are left", streams.len());
    if let Some(ended) = streams.try_join_next() {
        return Err(ended?.err().context("a stream has ended")?);
    }
    let open_kib = proc::resident(pid)?;
    let watch = locked(&watch);
    let histogram = watch.histogram.as_ref().context("nothing was watched")?;
    anyhow::ensure!(watch.chunks > 0, "no chunk came");
    Ok(Measured {
        streams: args.streams,
        idle_kib,
        open_kib,
        chunks: watch.chunks,
        p50: histogram.quantile(0.5),
        p99: histogram.quantile(0.99),
        max: histogram.max(),
        cpu_share: spent.as_secs_f64() / watched.as_secs_f64(),
        pace_ms: args.pace_ms,
        shared: args.shared_connections(),
    })
}

async fn start_upstream(args: &Args) -> anyhow::Result<(Process, SocketAddr)> {
    let spec =
        Spec::new(proc::own_program()).args(["scale-upstream", "--pace-ms", &args.pace_ms.to_string()]);
    let process = spec.spawn()?;
    let pick = |line: &str| line.strip_prefix("listening on http://")?.parse().ok();
    let address = process.wait_for("its address", patience(), pick).await?;
    Ok((process, address))
}

/// What every client sends.
#[derive(Debug)]
struct Request {
    host: String,
    key: String,
    body: String,
}

fn request(gateway: &Gateway) -> Arc<Request> {
    let body =
        format!(r#"{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"Go on."}}]}}"#);
    Arc::new(Request { host: gateway.site.ports.data.to_string(), key: gateway.key.1.clone(), body })
}

impl Request {
    /// Over a connection of its own, until the first chunk is there.
    async fn open(&self, target: SocketAddr) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(target).await.context("connect")?;
        stream.set_nodelay(true)?;
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             authorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{}",
            self.host,
            self.key,
            self.body.len(),
            self.body
        );
        stream.write_all(request.as_bytes()).await?;
        let (mut seen, mut buffer) = (Vec::new(), [0; 2048]);
        while memchr::memmem::find(&seen, STAMP).is_none() {
            let count = stream.read(&mut buffer).await?;
            seen.extend_from_slice(&buffer[..count]);
            let refused = seen.starts_with(b"HTTP/1.1 ") && !seen.starts_with(b"HTTP/1.1 200");
            anyhow::ensure!(count > 0 && !refused, "no stream: {}", String::from_utf8_lossy(&seen));
        }
        Ok(stream)
    }
}

/// An HTTP/2 connection that streams share.
#[derive(Clone)]
struct Connection(http2::SendRequest<Full<Bytes>>);

async fn connect(target: SocketAddr) -> anyhow::Result<Connection> {
    let stream = TcpStream::connect(target).await.context("connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let driver = async move { _ = connection.await };
    #[expect(clippy::disallowed_methods, reason = "ends with the last of its streams")]
    tokio::spawn(driver);
    Ok(Connection(sender))
}

impl Connection {
    async fn open(mut self, request: &Request) -> anyhow::Result<Incoming> {
        let uri = format!("http://{}/v1/chat/completions", request.host);
        let request = http::Request::post(uri)
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", request.key))
            .body(Full::new(Bytes::from(request.body.clone())))?;
        let response = self.0.send_request(request).await?;
        anyhow::ensure!(response.status() == 200, "no stream: {}", response.status());
        Ok(response.into_body())
    }
}

enum Stream {
    Own(TcpStream),
    Shared(Incoming),
}

async fn read(stream: Stream, watch: &Shared) -> anyhow::Result<()> {
    match stream {
        Stream::Own(mut stream) => {
            let mut buffer = [0; 1024];
            loop {
                let count = stream.read(&mut buffer).await?;
                anyhow::ensure!(count > 0, "the stream ended");
                note(&buffer[..count], watch);
            }
        }
        Stream::Shared(mut body) => loop {
            let frame = body.frame().await.context("the stream ended")??;
            if let Ok(data) = frame.into_data() {
                note(&data, watch);
            }
        },
    }
}

/// Counts the chunks among the bytes. A time that is cut by their end is left out: the pace makes that rare.
fn note(bytes: &[u8], watch: &Shared) {
    let now = now_nanos();
    for at in memchr::memmem::find_iter(bytes, STAMP) {
        let digits = bytes.get(at + STAMP.len()..at + STAMP.len() + DIGITS);
        let sent = digits.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let Some(sent): Option<u64> = sent else { continue };
        let mut watch = locked(watch);
        if watch.on {
            watch.chunks += 1;
            if let Some(histogram) = &mut watch.histogram {
                histogram.record(Duration::from_nanos(now.saturating_sub(sent)));
            }
        }
    }
}

impl Measured {
    pub(super) fn table(&self) -> String {
        let clients =
            if self.shared { "100 clients to an HTTP/2 connection" } else { "a connection for each" };
        let mut table = format!(
            "\n{} open streams on one node, {clients}, a chunk every {} ms\n",
            self.streams, self.pace_ms
        );
        let mut row = |name: &str, value: String| {
            let _ = writeln!(table, "{name:<52}{value:>14}");
        };
        let per_stream = (self.open_kib.saturating_sub(self.idle_kib)) as f64 / self.streams as f64;
        row("node, KiB of memory per stream", format!("{per_stream:.1}"));
        row("node, MiB: idle", format!("{:.0}", self.idle_kib as f64 / 1024.0));
        row("node, MiB: with the streams", format!("{:.0}", self.open_kib as f64 / 1024.0));
        row("chunks", self.chunks.to_string());
        for (name, value) in [("p50", self.p50), ("p99", self.p99), ("max", self.max)] {
            row(
                &format!("from the upstream to the client, ms, {name}"),
                format!("{:.2}", value.as_secs_f64() * 1e3),
            );
        }
        row("node, share of a core, %", format!("{:.1}", self.cpu_share * 100.0));
        table
    }
}
