//! A request body made of shared slices: what [`nemo_llm::splice`] returns, sent without a copy.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use nemo_llm::Segments;

/// The client's part of the body did not come to its end, so neither does the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's form broke off")]
pub struct BrokenOff;

/// What comes after the slices while they are sent already: the rest of a form.
pub type Tail = Pin<Box<dyn Body<Data = Bytes, Error = BrokenOff> + Send>>;

/// Slices in order, and perhaps a tail. Where the length is known the request carries `content-length`.
pub struct SegmentBody {
    /// Boxed: a request is moved many times until it is written.
    segments: Box<Segments>,
    next: usize,
    remaining: u64,
    /// Of forms alone.
    tail: Option<Tail>,
}

impl std::fmt::Debug for SegmentBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its bytes are the client's.
        f.debug_struct("SegmentBody").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl SegmentBody {
    /// None of the segments may be empty: [`nemo_llm::splice`] makes none.
    pub fn new(segments: Segments) -> Self {
        let remaining = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { segments: Box::new(segments), next: 0, remaining, tail: None }
    }

    pub fn with_tail(segments: Segments, tail: Option<Tail>) -> Self {
        Self { tail, ..Self::new(segments) }
    }

    /// The slices that were not sent yet; `None` where more follows than they.
    pub fn whole(&self) -> Option<&[Bytes]> {
        if self.tail.is_some() { None } else { self.segments.get(self.next..) }
    }

    /// What was to come after the slices.
    pub fn into_tail(self) -> Option<Tail> {
        self.tail
    }
}

impl Body for SegmentBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let next = self.next;
        let Some(segment) = self.segments.get_mut(next).map(std::mem::take) else {
            return self.tail.as_mut().map_or(Poll::Ready(None), |tail| tail.as_mut().poll_frame(cx));
        };
        self.next += 1;
        self.remaining -= segment.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.segments.len() && self.tail.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.tail {
            None => SizeHint::with_exact(self.remaining),
            Some(tail) => match tail.size_hint().exact() {
                Some(tail) => SizeHint::with_exact(self.remaining + tail),
                None => SizeHint::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn slices_arrive_in_order_with_their_length_known() {
        let body = SegmentBody::new(Segments::from_iter(["ab", "c"].map(Bytes::from)));
        assert_eq!(body.size_hint().exact(), Some(3));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert!(SegmentBody::new(Segments::new()).is_end_stream());
    }
}
