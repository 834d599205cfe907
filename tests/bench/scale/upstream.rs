//! An upstream that keeps thousands of streams open: each gets a chunk per interval, all at times of their own, and
//! every chunk says when it was sent. A process of its own, because of its file descriptors.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use nemo_tests::wire::{BodyReader, Head};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Time between two chunks of a stream.
    #[arg(long)]
    pace_ms: u64,
}

/// What stands before the time in a chunk.
pub(super) const STAMP: &[u8] = br#""content":"@"#;
/// Digits of the time.
pub(super) const DIGITS: usize = 20;

/// The machine's monotonic clock, which all processes share, in nanoseconds.
pub(super) fn now_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
        let pace = Duration::from_millis(args.pace_ms.max(1));
        loop {
            let (stream, _) = listener.accept().await?;
            #[expect(clippy::disallowed_methods, reason = "ends with the client's connection")]
            tokio::spawn(async move {
                let _gone = serve(stream, pace).await;
            });
        }
    })
}

async fn serve(mut stream: TcpStream, pace: Duration) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    read_request(&mut stream).await?;
    stream
        .write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        )
        .await?;
    let mut ticks = tokio::time::interval(pace);
    loop {
        ticks.tick().await;
        let event = format!(
            "data: {{\"id\":\"s\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\"@{:020}\"}},\"finish_reason\":null}}]}}\n\n",
            now_nanos()
        );
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await?;
    }
}

async fn read_request(stream: &mut TcpStream) -> anyhow::Result<()> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).await?;
        anyhow::ensure!(count > 0, "no request");
        bytes.extend_from_slice(&buffer[..count]);
        if let Some(head) = Head::parse(&bytes)? {
            let mut body = BodyReader::new(head.request_framing()?);
            let mut rest = bytes[head.len..].to_vec();
            loop {
                body.feed(&rest, |_| {})?;
                if body.is_done() {
                    return Ok(());
                }
                let count = stream.read(&mut buffer).await.context("the body")?;
                anyhow::ensure!(count > 0, "half a body");
                rest = buffer[..count].to_vec();
            }
        }
    }
}
