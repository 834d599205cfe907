//! The pool against a scripted upstream over real sockets.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use nemo_tests::{
    script::{Ending, Script},
    upstream::Upstream,
};

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn patience() -> Patience {
    let (now, long) = (std::time::Instant::now(), Duration::from_secs(5));
    Patience { now, connect: long, head_by: (now + long).into() }
}

struct World {
    upstream: Upstream,
    client: UpstreamClient,
    route: Route,
}

impl World {
    async fn new() -> Self {
        let upstream = Upstream::start().await.unwrap();
        let client = UpstreamClient::new(None).unwrap();
        let route = client.route(&upstream.base_url().parse().unwrap(), Reach::Anywhere).unwrap();
        Self { upstream, client, route }
    }

    async fn send(&self) -> Result<Response<UpstreamBody>, CallError> {
        let body = br#"{"model":"gpt-4o","messages":[]}"#.as_slice();
        let mut request =
            Request::new(SegmentBody::new(nemo_llm::Segments::from_iter([Bytes::from_static(body)])));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = "/v1/chat/completions".parse().unwrap();
        let host = self.upstream.addr().to_string().parse().unwrap();
        request.headers_mut().insert(http::header::HOST, host);
        self.client.send(&self.route, Box::new(request), patience()).await.map_err(|failed| failed.error)
    }

    fn idle(&self) -> usize {
        let Route::Http1(origin) = &self.route else { panic!("{:?}", self.route) };
        origin.idle_len()
    }
}

#[tokio::test]
async fn a_connection_is_reused_after_a_whole_answer() {
    let world = World::new().await;
    for _ in 0..3 {
        let response = world.send().await.unwrap();
        assert_eq!(world.idle(), 0, "in use until the body's end");
        response.into_body().collect().await.unwrap();
        assert_eq!(world.idle(), 1);
    }
    world.client.close().await;
}

#[tokio::test]
async fn a_half_read_answer_closes_its_connection() {
    let world = World::new().await;
    world.upstream.push(Script::ok().ending(Ending::Hang(10)));
    let mut body = world.send().await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    drop(body);
    assert_eq!(world.idle(), 0);
    nemo_tests::eventually("the upstream sees it", async || {
        let request = world.upstream.last_request().unwrap();
        nemo_tests::eventually::yes(request.client_gone_at().is_some())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let world = World::new().await;
    world.upstream.push(Script::ok().header("connection", "close").unwrap());
    world.send().await.unwrap().into_body().collect().await.unwrap();
    let response = world.send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    assert_eq!(world.upstream.served(), 2, "and no request is sent twice");
}

#[tokio::test]
async fn without_a_listener_the_error_says_connect() {
    let mut world = World::new().await;
    world.upstream = Upstream::start().await.unwrap();
    assert_eq!(world.send().await.unwrap_err(), CallError::Connect);
}

#[tokio::test]
async fn what_is_no_http_is_a_protocol_error_and_silence_a_broken_one() {
    let world = World::new().await;
    world.upstream.push(Script::wire("this is not http\r\n\r\n"));
    assert_eq!(world.send().await.unwrap_err(), CallError::Protocol);
    world.upstream.push(Script::wire(""));
    assert_eq!(world.send().await.unwrap_err(), CallError::Broken);
}

/// What the admin API and the compiler let pass is what a node can call, and nothing else.
#[test]
fn a_base_url_has_a_route_where_it_passes_the_check() {
    let client = UpstreamClient::new(None).unwrap();
    let hosts =
        ["h", "a_b.example", "v1", "10.0.0.9", "[::1]", "h.", "-x.example", "10.0.0.999", "a..b", "a+b"];
    let mut called = 0;
    for text in hosts.iter().flat_map(|host| ["http", "https", "ftp"].map(|it| format!("{it}://{host}:1/v1")))
    {
        let route = client.route(&text.parse().unwrap(), Reach::Anywhere);
        let checked = nemo_snapshot::base_url::parse(&text);
        assert_eq!(route.is_some(), checked.is_ok(), "{text}: {checked:?}");
        called += usize::from(route.is_some());
    }
    assert_eq!(called, 16);
}

#[test]
fn addresses_of_one_origin_share_a_pool_as_long_as_somebody_uses_it() {
    let client = UpstreamClient::new(None).unwrap();
    let route = |text: &str| match client.route(&text.parse().unwrap(), Reach::Anywhere) {
        Some(Route::Http1(origin)) => Some(origin),
        Some(Route::Https(_) | Route::Nowhere) | None => None,
    };
    let (first, second) = (route("http://h:1/v1").unwrap(), route("http://h:1/other").unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert!(!Arc::ptr_eq(&first, &route("http://h:2/v1").unwrap()));
    assert!(route("https://h:1/v1").is_none());
    assert!(client.route(&"ftp://h:1/v1".parse().unwrap(), Reach::Anywhere).is_none());
    assert!(client.route(&"/path".parse().unwrap(), Reach::Anywhere).is_none());
    drop((first, second));
    let _other = route("http://elsewhere");
    assert_eq!(client.origins.lock().unwrap().len(), 1, "unused pools are forgotten");
}

/// An upstream behind TLS that allows two streams per HTTP/2 connection and holds every answer until it is told.
struct TlsWorld {
    client: UpstreamClient,
    route: Route,
    base: String,
    release: Arc<tokio::sync::Semaphore>,
    arrived: Arc<AtomicUsize>,
    _dir: tempfile::TempDir,
    _trigger: nemo_runtime::drain::DrainTrigger,
}

impl TlsWorld {
    fn new(http1_only: bool) -> Self {
        use nemo_runtime::http_server::{self, ServerSettings};
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let identity = nemo_runtime::tls::Identity { cert: cert.clone(), key };
        let tls = nemo_runtime::tls::ServerTls::load(&identity, None).unwrap();
        let listener = http_server::bind("127.0.0.1:0".parse().unwrap(), "--listen").unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (trigger, watcher) = nemo_runtime::drain::channel();
        let release = Arc::new(tokio::sync::Semaphore::new(0));
        let arrived = Arc::<AtomicUsize>::default();
        let (gate, counter) = (release.clone(), arrived.clone());
        let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
            let (gate, counter) = (gate.clone(), counter.clone());
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                let said = format!("{:?} {}", request.version(), request.uri().path());
                let body = http_body_util::Full::new(Bytes::from(said));
                Ok::<_, std::convert::Infallible>(Response::new(body))
            }
        });
        let settings = ServerSettings { max_streams_per_connection: 2, ..ServerSettings::named("upstream") };
        nemo_runtime::TaskGroup::new()
            .spawn("upstream", http_server::serve_with(listener, tls, service, settings, watcher));
        let mut client = UpstreamClient::new(Some(&cert)).unwrap();
        if http1_only {
            Arc::make_mut(&mut client.tls).alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let route = client.route(&base.parse().unwrap(), Reach::Anywhere).unwrap();
        Self { client, route, base, release, arrived, _dir: dir, _trigger: trigger }
    }

    async fn send(&self) -> Result<String, CallError> {
        let body = SegmentBody::new(nemo_llm::Segments::from_iter([Bytes::from_static(b"{}")]));
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = format!("{}/v1/x", self.base).parse().unwrap();
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        let sent = self.client.send(&self.route, Box::new(request), patience()).await;
        let response = sent.map_err(|failed| failed.error)?;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    fn origin(&self) -> &Arc<Origin> {
        let (Route::Http1(origin) | Route::Https(origin)) = &self.route else { panic!("{:?}", self.route) };
        origin
    }

    async fn arrived(&self, count: usize) {
        nemo_tests::eventually("the requests are at the upstream", async || {
            let arrived = self.arrived.load(Ordering::Relaxed);
            anyhow::ensure!(arrived == count, "{arrived} of {count}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// More requests at once than one connection may carry reach the upstream at once, over further connections.
#[tokio::test]
async fn http2_spreads_over_the_servers_stream_limit() {
    let world = TlsWorld::new(false);
    // The limit is known after the first answer.
    world.release.add_permits(1);
    assert_eq!(world.send().await.unwrap(), "HTTP/2.0 /v1/x");
    assert_eq!(world.origin().http2_len(), 1);
    let together = async {
        let sends: Vec<_> = (0..7).map(|_| world.send()).collect();
        futures_util::future::join_all(sends).await
    };
    let watch = async {
        world.arrived(8).await;
        assert_eq!(world.origin().http2_len(), 4, "seven streams, two on each connection");
        world.release.add_permits(7);
    };
    let (answers, ()) = tokio::join!(together, watch);
    assert!(answers.iter().all(|answer| answer.as_deref() == Ok("HTTP/2.0 /v1/x")), "{answers:?}");
    world.release.add_permits(1);
    world.send().await.unwrap();
    assert_eq!(world.origin().http2_len(), 4, "places are given back");
    world.client.close().await;
}

#[tokio::test]
async fn https_upstreams_without_http2_are_pooled_as_http1() {
    let world = TlsWorld::new(true);
    for _ in 0..3 {
        world.release.add_permits(1);
        assert_eq!(world.send().await.unwrap(), "HTTP/1.1 /v1/x");
        assert_eq!((world.origin().idle_len(), world.origin().http2_len()), (1, 0));
    }
    world.client.close().await;
}

#[tokio::test]
async fn an_untrusted_upstream_gets_no_request() {
    let world = TlsWorld::new(false);
    let stranger = UpstreamClient::new(None).unwrap();
    let route = stranger.route(&world.base.parse().unwrap(), Reach::Anywhere).unwrap();
    let request = Request::new(SegmentBody::new(nemo_llm::Segments::new()));
    let failed = stranger.send(&route, Box::new(request), patience()).await.unwrap_err();
    assert_eq!((failed.error, failed.unsent.is_some()), (CallError::Connect, true));
    assert_eq!(world.arrived.load(Ordering::Relaxed), 0);
}

/// A listener whose backlog is not served looks like a host that drops packets: TCP connects, TLS never answers.
#[tokio::test]
async fn a_connection_that_does_not_come_in_time_is_named() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = UpstreamClient::new(None).unwrap();
    let base = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let route = client.route(&base.parse().unwrap(), Reach::Anywhere).unwrap();
    let request = Request::new(SegmentBody::new(nemo_llm::Segments::new()));
    let patience = Patience { connect: Duration::from_millis(100), ..patience() };
    let failed = client.send(&route, Box::new(request), patience).await.unwrap_err();
    assert_eq!((failed.error, failed.unsent.is_some()), (CallError::ConnectTimeout, true));
}

/// A server whose every word the test says itself.
struct Raw {
    listener: tokio::net::TcpListener,
    client: UpstreamClient,
    route: Route,
}

const SHORT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Raw {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = UpstreamClient::new(None).unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let route = client.route(&base.parse().unwrap(), Reach::Anywhere).unwrap();
        Self { listener, client, route }
    }

    fn origin(&self) -> &Arc<Origin> {
        let (Route::Http1(origin) | Route::Https(origin)) = &self.route else { panic!("{:?}", self.route) };
        origin
    }

    async fn send(&self, tail: Option<body::Tail>) -> Result<Response<UpstreamBody>, CallError> {
        let ahead = nemo_llm::Segments::from_iter([Bytes::from_static(b"{}")]);
        let mut request = Request::new(SegmentBody::with_tail(ahead, tail));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = "/v1/x".parse().unwrap();
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        self.client.send(&self.route, Box::new(request), patience()).await.map_err(|failed| failed.error)
    }

    /// The next connection, once a request is on it.
    async fn asked(&self) -> tokio::net::TcpStream {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        read_until(&mut stream, b"{}").await;
        stream
    }

    /// A request with a whole answer on a fresh connection, which is idle then.
    async fn served(&self) -> tokio::net::TcpStream {
        let server = async {
            let mut stream = self.asked().await;
            tokio::io::AsyncWriteExt::write_all(&mut stream, SHORT).await.unwrap();
            stream
        };
        let (answer, stream) = tokio::join!(self.send(None), server);
        assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
        assert_eq!(self.origin().idle_len(), 1);
        stream
    }
}

async fn read_until(stream: &mut tokio::net::TcpStream, end: &[u8]) {
    let mut seen = Vec::new();
    while !seen.ends_with(end) {
        assert_ne!(tokio::io::AsyncReadExt::read_buf(stream, &mut seen).await.unwrap(), 0, "{seen:?}");
    }
}

async fn assert_closed(mut stream: tokio::net::TcpStream) {
    let mut rest = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
    // With unread data it is reset.
    let _ended = tokio::time::timeout(Duration::from_secs(5), read).await.expect("it is closed");
}

/// What a server says unasked is never taken for an answer: that of the next request is its own.
#[tokio::test]
async fn a_connection_that_talks_while_idle_is_replaced() {
    let world = Raw::new().await;
    let mut chatty = world.served().await;
    let unasked = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut chatty, unasked).await.unwrap();
    // The pool has heard of it when it has hung up.
    assert_closed(chatty).await;
    let _second = world.served().await;
}

#[tokio::test]
async fn a_request_that_leaves_before_the_answer_closes_its_connection() {
    let world = Raw::new().await;
    let mut server = world.served().await;
    let leaving = async {
        let gone = tokio::time::timeout(Duration::from_millis(100), world.send(None)).await;
        assert!(gone.is_err());
    };
    let ((), ()) = tokio::join!(leaving, read_until(&mut server, b"{}"));
    assert_closed(server).await;
    assert_eq!(world.origin().idle_len(), 0);
}

/// A client that reads the answer only when it has sent all must be able to send all.
#[tokio::test]
async fn a_form_is_sent_on_while_nobody_reads_the_answer() {
    let world = Raw::new().await;
    let (rest, frames) = tokio::sync::mpsc::channel::<Result<http_body::Frame<Bytes>, body::BrokenOff>>(1);
    let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
    let tail: body::Tail = Box::pin(http_body_util::StreamBody::new(frames));
    let server = async {
        let (mut stream, _) = world.listener.accept().await.unwrap();
        read_until(&mut stream, b"{}\r\n").await;
        let early = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, early).await.unwrap();
        stream
    };
    let (answer, mut server) = tokio::join!(world.send(Some(tail)), server);
    let answer = answer.unwrap();
    for _ in 0..3 {
        rest.send(Ok(http_body::Frame::data(Bytes::from_static(b"more")))).await.unwrap();
    }
    drop(rest);
    let sent = read_until(&mut server, b"0\r\n\r\n");
    tokio::time::timeout(Duration::from_secs(5), sent).await.expect("the rest was sent");
    tokio::io::AsyncWriteExt::write_all(&mut server, b"0\r\n\r\n").await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(world.origin().idle_len(), 1, "and its connection is good for another");
    let again = async {
        read_until(&mut server, b"{}").await;
        tokio::io::AsyncWriteExt::write_all(&mut server, SHORT).await.unwrap();
    };
    let (answer, ()) = tokio::join!(world.send(None), again);
    assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
}
