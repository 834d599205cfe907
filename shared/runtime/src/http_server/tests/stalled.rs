//! Covers: clients that do not read. In memory and in paused time, so that nothing depends on the kernel's buffers.

use hyper::client::conn::http2;
use tokio::{
    io::{DuplexStream, ReadHalf, duplex},
    task::JoinHandle,
    time::sleep,
};

use super::*;

/// What a socket holds.
const BUFFER: usize = 64 << 10;
const WINDOW: u32 = 16 << 10;
const FRAME: usize = WINDOW as usize;
const WRITE: Duration = Duration::from_secs(60);
/// Of [`WRITE`], as the timer is coarse.
const AT_THE_LATEST: Duration = Duration::from_secs(125);

/// How many bodies were dropped, whatever the reason.
#[derive(Clone, Default)]
struct Dropped(Arc<AtomicUsize>);

impl Dropped {
    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    async fn wait_for(&self, count: usize) -> Duration {
        let begin = Instant::now();
        while self.count() < count {
            sleep(Duration::from_secs(1)).await;
            assert!(begin.elapsed() < LONG, "nothing was dropped");
        }
        begin.elapsed()
    }
}

struct Guard(Dropped);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// `/endless` has always something to send, `/events` something small every [`LONG`], `/whole` many bytes in one frame.
fn body(path: &str, dropped: &Dropped) -> TestBody {
    let (guard, every) = (Guard(dropped.clone()), (path == "/events").then_some(LONG));
    if path == "/whole" {
        return Full::new(Bytes::from(vec![b'x'; 40 * BUFFER])).boxed_unsync();
    }
    let size = if every.is_some() { 10 } else { FRAME };
    let frames = futures_util::stream::unfold(guard, move |guard| async move {
        if let Some(every) = every {
            sleep(every).await;
        }
        Some((Ok(hyper::body::Frame::data(Bytes::from(vec![b'x'; size]))), guard))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A connection to a server, which ends with the handle.
fn connect(http1: bool) -> (DuplexStream, Dropped, JoinHandle<()>) {
    let (near, far) = duplex(BUFFER);
    let (dropped, activity) = (Dropped::default(), Activity::new());
    let counter = dropped.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let body = body(request.uri().path(), &counter);
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let settings = ServerSettings { write: WRITE, ..ServerSettings::named("test") };
    let socket = Socket::new(far, &activity);
    let builder = Builders::new(&settings);
    let (trigger, watcher) = drain::channel();
    #[expect(clippy::disallowed_methods, reason = "the test owns it")]
    let served = tokio::spawn(async move {
        drive((socket, http1), activity, service, (builder, settings), watcher).await;
        drop(trigger);
    });
    (near, dropped, served)
}

async fn get(client: DuplexStream, path: &str) -> ReadHalf<DuplexStream> {
    let (read, mut write) = tokio::io::split(client);
    write.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    // The other half stays open as long as this one.
    std::mem::forget(write);
    read
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_loses_its_connection() {
    for http1 in [true, false] {
        let (client, dropped, served) = connect(http1);
        let _client = get(client, "/endless").await;
        let waited = dropped.wait_for(1).await;
        assert!(waited >= WRITE && waited < AT_THE_LATEST, "{waited:?}");
        served.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_loses_its_connection() {
    let (client, dropped, served) = connect(true);
    let mut client = get(client, "/endless").await;
    client.read_exact(&mut vec![0; 20 * BUFFER]).await.unwrap();
    assert!(dropped.wait_for(1).await < AT_THE_LATEST);
    served.await.unwrap();
}

/// Also when nothing is in flight any more: the body was handed over as a whole.
#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all_of_it() {
    for path in ["/endless", "/whole"] {
        let (client, _, served) = connect(true);
        let mut client = get(client, path).await;
        for _ in 0..39 {
            sleep(WRITE - Duration::from_secs(1)).await;
            client.read_exact(&mut vec![0; BUFFER]).await.unwrap();
        }
        assert!(!served.is_finished());
    }
}

/// Nothing stands still where nothing has to be written.
#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_left_alone() {
    let (client, dropped, served) = connect(true);
    let mut client = get(client, "/events").await;
    client.read_exact(&mut [0; 64]).await.unwrap();
    // By now it has come again, and was read by nobody; the socket has room for it.
    sleep(20 * LONG).await;
    assert!(dropped.count() == 0 && !served.is_finished());

    let (client, dropped, served) = connect(false);
    let mut sender = http2_client(client).await;
    let mut quiet = ask(&mut sender, "/events").await;
    for _ in 0..3 {
        let frame = quiet.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap().len(), 10);
    }
    assert!(dropped.count() == 0 && !served.is_finished());
}

type Sender = http2::SendRequest<Full<Bytes>>;

async fn http2_client(client: DuplexStream) -> Sender {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(16 * WINDOW)
        .handshake(TokioIo::new(client))
        .await
        .unwrap();
    TaskGroup::new().spawn("client", async move {
        let _ = connection.await;
    });
    sender
}

async fn ask(sender: &mut Sender, path: &str) -> Incoming {
    let request = Request::get(format!("http://x{path}")).body(Full::default()).unwrap();
    sender.send_request(request).await.unwrap().into_body()
}

/// The window is full, the socket is not.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_read_is_reset_and_its_siblings_go_on() {
    let (client, dropped, served) = connect(false);
    let mut sender = http2_client(client).await;
    let mut stuck = ask(&mut sender, "/endless").await;
    let mut slow = ask(&mut sender, "/endless").await;
    let begin = Instant::now();
    while begin.elapsed() < 4 * AT_THE_LATEST {
        sleep(WRITE / 3).await;
        // Two: half a window has to be read until the server hears of it.
        for _ in 0..2 {
            slow.frame().await.unwrap().unwrap();
        }
        assert!(begin.elapsed() >= WRITE || dropped.count() == 0, "{:?}", begin.elapsed());
        assert!(begin.elapsed() < AT_THE_LATEST || dropped.count() == 1, "{:?}", begin.elapsed());
    }
    while stuck.frame().await.expect("what was cut looks complete").is_ok() {}
    assert!(!served.is_finished());
    // Left alone, the other one goes as well.
    assert!(dropped.wait_for(2).await < AT_THE_LATEST);
}
