//! What the data port answers with: a complete body, or one that is metered while it streams.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use smallvec::SmallVec;

use super::{early::EarlyBody, metered_body::MeteredBody};

/// The connection is cut: what was sent is not the whole answer, and must not look like it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the upstream broke off")]
pub struct Interrupted;

/// What came of an answer that is complete: mostly in one piece.
pub type Frames = SmallVec<[Bytes; 1]>;

/// A response body of the data port.
pub enum Body {
    /// Complete; empty once taken.
    Full(Bytes),
    /// A few slices, complete.
    Frames(std::vec::IntoIter<Bytes>, u64),
    Metered(MeteredBody),
    /// A stream whose head went out before the upstream's came.
    Early(Box<EarlyBody>),
    /// From the catalog routes.
    Axum(axum::body::Body),
}

impl Body {
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self::Full(bytes.into())
    }

    pub fn frames(mut frames: Frames) -> Self {
        if frames.len() == 1
            && let Some(only) = frames.pop()
        {
            return Self::Full(only);
        }
        let length = frames.iter().map(|frame| frame.len() as u64).sum();
        Self::Frames(frames.into_vec().into_iter(), length)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Frames(frames, remaining) => Poll::Ready(frames.next().map(|frame| {
                *remaining -= frame.len() as u64;
                Ok(Frame::data(frame))
            })),
            Self::Metered(body) => body.poll_frame(cx),
            Self::Early(body) => body.poll_frame(cx),
            Self::Axum(body) => Pin::new(body).poll_frame(cx).map_err(|_| Interrupted),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Frames(_, remaining) => *remaining == 0,
            Self::Metered(_) | Self::Early(_) => false,
            Self::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Frames(_, remaining) => SizeHint::with_exact(*remaining),
            Self::Metered(body) => body.size_hint(),
            Self::Early(_) => SizeHint::default(),
            Self::Axum(body) => body.size_hint(),
        }
    }
}
