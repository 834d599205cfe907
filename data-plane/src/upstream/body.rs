//! A request body made of shared slices: what [`nemo_llm::splice`] returns, sent without a copy.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use nemo_llm::Segments;

/// Slices in order. The length is known, so the request carries `content-length`.
pub struct SegmentBody {
    segments: Segments,
    next: usize,
    remaining: u64,
}

impl SegmentBody {
    /// None of the segments may be empty: [`nemo_llm::splice`] makes none.
    pub fn new(segments: Segments) -> Self {
        let remaining = segments.iter().map(|segment| segment.len() as u64).sum();
        Self { segments, next: 0, remaining }
    }
}

impl Body for SegmentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.next;
        let Some(segment) = self.segments.get_mut(next).map(std::mem::take) else { return Poll::Ready(None) };
        self.next += 1;
        self.remaining -= segment.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(segment))))
    }

    fn is_end_stream(&self) -> bool {
        self.next == self.segments.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
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
