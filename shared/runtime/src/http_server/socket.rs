//! The socket of a connection: notes for the connection's timer whether what is written goes out.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Activity;

/// Whether a socket takes what is written. It is the connection's own task that writes, notes and looks.
#[derive(Debug)]
pub(super) struct Writing(AtomicU8);

const FREE: u8 = 0;
/// The last write has to wait: the client does not read.
const BLOCKED: u8 = 1;
/// The same, and the timer has seen it. The next byte that goes out wipes that.
const SEEN: u8 = 2;

/// What the timer sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Free,
    Blocked,
    /// It was blocked the last time, and nothing went out since.
    Stalled,
}

impl Writing {
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(FREE))
    }

    fn note(&self, went_out: bool) {
        let before = self.0.load(Ordering::Relaxed);
        if went_out && before != FREE {
            self.0.store(FREE, Ordering::Relaxed);
        } else if !went_out && before == FREE {
            self.0.store(BLOCKED, Ordering::Relaxed);
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FREE
    }

    pub(super) fn look(&self) -> Seen {
        match self.0.load(Ordering::Relaxed) {
            FREE => Seen::Free,
            BLOCKED => {
                self.0.store(SEEN, Ordering::Relaxed);
                Seen::Blocked
            }
            _ => Seen::Stalled,
        }
    }
}

/// Below TLS, which would hide for a while that nothing goes out.
#[derive(Debug)]
pub(super) struct Socket<I> {
    stream: I,
    activity: Activity,
}

impl<I> Socket<I> {
    pub(super) fn new(stream: I, activity: &Activity) -> Self {
        Self { stream, activity: activity.clone() }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Socket<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Socket<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.activity.writing().note(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.activity.writing().note(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
