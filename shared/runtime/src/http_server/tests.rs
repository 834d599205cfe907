//! Covers: bounds on slow and idle clients, and the drain of a port.

mod stalled;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, oneshot},
};

use super::*;
use crate::{TaskGroup, drain};

type TestBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

/// A server whose `/wait` answers when told, whose `/stream` sends two chunks a long time apart, and whose other
/// paths answer at once.
struct Server {
    addr: SocketAddr,
    release: Arc<Notify>,
    calls: Arc<AtomicUsize>,
    trigger: drain::DrainTrigger,
    ended: oneshot::Receiver<()>,
}

/// Longer than every deadline of the settings.
const LONG: Duration = Duration::from_secs(1000);

fn start(settings: ServerSettings) -> Server {
    let listener = bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
    let addr = listener.local_addr().unwrap();
    let (release, calls) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (trigger, watcher) = drain::channel();
    let (end, ended) = oneshot::channel();
    let (notify, counter) = (Arc::clone(&release), Arc::clone(&calls));
    let service = service_fn(move |request: Request<Incoming>| {
        let (notify, counter) = (Arc::clone(&notify), Arc::clone(&counter));
        async move {
            counter.fetch_add(1, Ordering::Relaxed);
            let body = match request.uri().path() {
                "/wait" => {
                    notify.notified().await;
                    Full::new(Bytes::from_static(b"waited")).boxed_unsync()
                }
                "/stream" => slow_stream(),
                _ => Full::new(Bytes::from_static(b"hello")).boxed_unsync(),
            };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    TaskGroup::new().spawn("server", async move {
        serve(listener, service, settings, watcher).await;
        let _ = end.send(());
    });
    Server { addr, release, calls, trigger, ended }
}

fn slow_stream() -> TestBody {
    let frames = futures_util::stream::unfold(0, |at| async move {
        if at == 1 {
            tokio::time::sleep(LONG).await;
        }
        (at < 2).then(|| (Ok(hyper::body::Frame::data(Bytes::from(format!("part{at}")))), at + 1))
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let n = stream.read(&mut buffer).await.unwrap();
        assert!(n > 0, "closed before {end:?}: {text}");
        text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    text
}

async fn assert_closed(stream: &mut TcpStream) {
    // A reset is as good as an end.
    assert_eq!(stream.read(&mut [0; 64]).await.unwrap_or(0), 0);
}

async fn yield_until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_option_that_changes_it() {
    let first = bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind(addr, "--admin-listen").unwrap_err().to_string();
    assert!(error.starts_with(&format!("{addr} is taken")) && error.contains("--admin-listen"), "{error}");
    let error = bind("192.0.2.1:0".parse().unwrap(), "--listen").unwrap_err().to_string();
    assert!(error.contains("not an address of this machine"), "{error}");
}

#[tokio::test]
async fn a_drain_finishes_requests_in_flight_and_closes_everything_else() {
    let server = start(ServerSettings::named("test"));
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    send(&mut idle, "/").await;
    read_until(&mut idle, "hello").await;
    let mut busy = TcpStream::connect(server.addr).await.unwrap();
    send(&mut busy, "/wait").await;
    yield_until(|| server.calls.load(Ordering::Relaxed) == 2).await;

    server.trigger.start();
    assert_closed(&mut idle).await;
    assert!(TcpStream::connect(server.addr).await.is_err(), "the port is still open");
    let mut ended = server.ended;
    assert!((&mut ended).now_or_never().is_none(), "a request is still in flight");
    server.release.notify_one();
    let answer = read_until(&mut busy, "waited").await;
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    assert_closed(&mut busy).await;
    ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_outlive_the_drain_deadline_are_dropped() {
    let server =
        start(ServerSettings { drain_deadline: Duration::from_secs(3), ..ServerSettings::named("test") });
    let mut stuck = TcpStream::connect(server.addr).await.unwrap();
    send(&mut stuck, "/wait").await;
    yield_until(|| server.calls.load(Ordering::Relaxed) == 1).await;
    let start = Instant::now();
    server.trigger.start();
    server.ended.await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(3) && start.elapsed() < Duration::from_secs(5));
    assert_closed(&mut stuck).await;
}

#[tokio::test(start_paused = true)]
async fn connections_without_requests_are_closed_when_their_time_is_up() {
    let settings = ServerSettings {
        first_request: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        ..ServerSettings::named("test")
    };
    let server = start(settings);
    let start = Instant::now();
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    assert_closed(&mut silent).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());

    let start = Instant::now();
    let mut half = TcpStream::connect(server.addr).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert_closed(&mut half).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());

    // Silence before the head counts for the head.
    let start = Instant::now();
    let mut late = TcpStream::connect(server.addr).await.unwrap();
    tokio::time::sleep(Duration::from_secs(9)).await;
    late.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    assert_closed(&mut late).await;
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());

    let start = Instant::now();
    let mut kept = TcpStream::connect(server.addr).await.unwrap();
    send(&mut kept, "/").await;
    read_until(&mut kept, "hello").await;
    assert_closed(&mut kept).await;
    assert!(start.elapsed() >= Duration::from_secs(60), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(140), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_response_is_no_idle_connection() {
    let settings = ServerSettings {
        first_request: Duration::from_secs(5),
        idle: Duration::from_secs(5),
        ..ServerSettings::named("t")
    };
    let server = start(settings);
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let begin = Instant::now();
    send(&mut stream, "/stream").await;
    read_until(&mut stream, "part1").await;
    assert!(begin.elapsed() >= LONG);
}

#[tokio::test]
async fn connections_above_the_bound_wait_their_turn() {
    let server = start(ServerSettings { max_connections: 1, ..ServerSettings::named("test") });
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    send(&mut first, "/").await;
    read_until(&mut first, "hello").await;
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    send(&mut second, "/").await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.calls.load(Ordering::Relaxed), 1);
    drop(first);
    read_until(&mut second, "hello").await;
}

#[tokio::test]
async fn http2_is_spoken_on_the_same_port_and_told_to_go_away() {
    let server = start(ServerSettings::named("test"));
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    let (gone, ended) = oneshot::channel();
    TaskGroup::new().spawn("client", async move {
        let _ = gone.send(connection.await);
    });
    let uri = format!("http://{}/", server.addr);
    let response = sender.send_request(Request::get(uri).body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    server.trigger.start();
    ended.await.unwrap().unwrap();
    server.ended.await.unwrap();
}

#[tokio::test]
async fn heads_beyond_the_bound_are_refused() {
    let server = start(ServerSettings::named("test"));
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: x\r\nlong: {}\r\n\r\n", "y".repeat(2 * MAX_HEAD_BYTES));
    // The server may answer and close before it has read everything.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8_lossy(&text);
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 431"), "{text}");
    assert_eq!(server.calls.load(Ordering::Relaxed), 0);
}
