//! The body of one answer as a list of steps: pieces of data, pauses, and how it ends.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::record::{Ended, Recorded};
use super::reply::{self, Answer};
use super::serve::Takeover;
use crate::script::{Ending, Script};

/// One step of playing a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Data(Bytes),
    /// Let everything so far go out before the next data, as frames of their own.
    Flush,
    Pause(Duration),
    /// Until the script's gate is open.
    Gate,
    /// Close the connection here, by RST if `reset`.
    Close {
        reset: bool,
    },
    /// Nothing more, ever.
    Hang,
}

/// The steps for an answer, and the length to declare for a unary one.
pub(super) fn steps(answer: Answer, script: &Script) -> (VecDeque<Step>, Option<usize>) {
    let (pieces, length) = match answer {
        Answer::Unary(body) => {
            let body = if script.malformed { body.slice(..body.len().saturating_sub(1)) } else { body };
            let length = body.len();
            (vec![body], Some(length))
        }
        Answer::Stream(events) => (faulty_events(events, script), None),
        Answer::Typed { pieces, .. } => (pieces, None),
    };
    let (limit, close) = match script.ending {
        Ending::Cut(bytes) => (bytes, Some(Step::Close { reset: false })),
        Ending::Reset(bytes) => (bytes, Some(Step::Close { reset: true })),
        Ending::Hang(bytes) => (bytes, Some(Step::Hang)),
        _ => (usize::MAX, None),
    };
    let (pieces, pause) = match script.drip {
        Some((bytes, pause)) => (redivide(&pieces, bytes), pause),
        None => (pieces, script.pause),
    };
    let mut steps = VecDeque::new();
    let mut left = limit;
    for (index, mut piece) in pieces.into_iter().enumerate() {
        piece.truncate(left);
        left -= piece.len();
        if piece.is_empty() {
            continue;
        }
        if index > 0 {
            steps.push_back(Step::Flush);
            if script.gate.as_ref().is_some_and(|(after, _)| *after == index) {
                steps.push_back(Step::Gate);
            }
            if pause > Duration::ZERO {
                steps.push_back(Step::Pause(pause));
            }
        }
        steps.push_back(Step::Data(piece));
    }
    if let Some(close) = close {
        steps.push_back(Step::Flush);
        steps.push_back(close);
    }
    (steps, length)
}

fn faulty_events(mut events: Vec<Bytes>, script: &Script) -> Vec<Bytes> {
    if script.malformed && events.len() > 2 {
        events[2] = Bytes::from_static(b"data: {\"id\":\"chatcmpl-mock\",\"choices\":[{\"delta\":\n\n");
    }
    match script.ending {
        Ending::NoDone => drop(events.pop()),
        Ending::HalfEvent => {
            events.pop();
            if let Some(last) = events.last_mut() {
                last.truncate(last.len() / 2);
            }
        }
        Ending::ErrorEvent(count) => {
            events.truncate(count.min(events.len() - 1));
            let message = "The server had an error while processing your request";
            let anthropic = events.first().is_some_and(|first| first.starts_with(b"event: message_start"));
            events.push(if anthropic {
                let error = json!({ "type": "error", "error": { "type": "api_error", "message": message } });
                Bytes::from(format!("event: error\ndata: {error}\n\n"))
            } else {
                reply::event(&reply::error(500, message))
            });
        }
        _ => {}
    }
    events
}

fn redivide(pieces: &[Bytes], size: usize) -> Vec<Bytes> {
    let mut all = BytesMut::new();
    for piece in pieces {
        all.extend_from_slice(piece);
    }
    let all = all.freeze();
    (0..all.len()).step_by(size).map(|at| all.slice(at..all.len().min(at + size))).collect()
}

/// A response body that plays its steps. Being dropped before the last means that the client has left.
pub(super) struct Playing {
    steps: VecDeque<Step>,
    gate: Option<watch::Receiver<bool>>,
    /// The pause, or the gate, that is waited for.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    flushed: bool,
    record: Arc<Recorded>,
    takeover: mpsc::Sender<Takeover>,
}

impl Playing {
    pub(super) fn new(
        steps: VecDeque<Step>,
        gate: Option<watch::Receiver<bool>>,
        record: Arc<Recorded>,
        takeover: mpsc::Sender<Takeover>,
    ) -> Self {
        if steps.is_empty() {
            record.end(Ended::Played);
        }
        Self { steps, gate, waiting: None, flushed: false, record, takeover }
    }

    /// Performs the first step. Ready when it is over and may be removed.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.steps.front() {
            Some(Step::Flush) => {
                // hyper flushes when its body is pending, so be pending once.
                if std::mem::replace(&mut self.flushed, true) {
                    self.flushed = false;
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::Pause(pause)) => {
                let pause = *pause;
                self.wait(cx, |_| Box::pin(tokio::time::sleep(pause)))
            }
            Some(Step::Gate) => self.wait(cx, |gate| Box::pin(opened(gate))),
            Some(Step::Close { reset }) => {
                self.record.end(Ended::Played);
                // Room for one, and sent again on a second poll: then it is full, which is as good.
                let _full = self.takeover.try_send(Takeover { bytes: Bytes::new(), reset: *reset });
                Poll::Pending
            }
            Some(Step::Hang) => Poll::Pending,
            Some(Step::Data(_)) | None => Poll::Ready(()),
        }
    }

    fn wait(
        &mut self,
        cx: &mut Context<'_>,
        begin: impl FnOnce(Option<watch::Receiver<bool>>) -> Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Poll<()> {
        let waiting = self.waiting.get_or_insert_with(|| begin(self.gate.clone()));
        ready!(waiting.as_mut().poll(cx));
        self.waiting = None;
        Poll::Ready(())
    }
}

async fn opened(gate: Option<watch::Receiver<bool>>) {
    if let Some(mut gate) = gate {
        let _or_nobody_is_left = gate.wait_for(|open| *open).await;
    }
}

impl http_body::Body for Playing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            ready!(self.poll_step(cx));
            match self.steps.pop_front() {
                Some(Step::Data(data)) => {
                    if self.steps.is_empty() {
                        // Here and not at the end: a body of declared length is not polled again.
                        self.record.end(Ended::Played);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(_) => {}
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        self.record.end(Ended::ClientGone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Answer {
        Answer::Stream(
            ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n", "data: [DONE]\n\n"].map(Bytes::from).into(),
        )
    }

    /// The data of the steps, and the last step.
    fn play(answer: Answer, script: &Script) -> (String, Option<Step>) {
        let (steps, _) = steps(answer, script);
        let data = steps.iter().filter_map(|step| match step {
            Step::Data(data) => Some(String::from_utf8(data.to_vec()).unwrap()),
            _ => None,
        });
        (data.collect(), steps.back().cloned())
    }

    #[test]
    fn every_ending_cuts_the_stream_where_it_says() {
        let whole = "data: 1\n\ndata: 2\n\ndata: 3\n\n";
        let ending = |ending| play(events(), &Script::ok().ending(ending));
        assert_eq!(ending(Ending::Whole).0, format!("{whole}data: [DONE]\n\n"));
        assert_eq!(ending(Ending::NoDone).0, whole);
        assert_eq!(ending(Ending::HalfEvent).0, "data: 1\n\ndata: 2\n\ndata");
        assert_eq!(ending(Ending::Cut(12)), ("data: 1\n\ndat".into(), Some(Step::Close { reset: false })));
        assert_eq!(ending(Ending::Reset(0)), (String::new(), Some(Step::Close { reset: true })));
        assert_eq!(ending(Ending::Hang(9)), ("data: 1\n\n".into(), Some(Step::Hang)));
        let (text, _) = ending(Ending::ErrorEvent(1));
        assert!(text.starts_with("data: 1\n\ndata: {\"error\":") && !text.contains("DONE"), "{text}");
    }

    #[test]
    fn a_cut_unary_answer_still_declares_its_whole_length() {
        let answer = Answer::Unary(Bytes::from_static(b"0123456789"));
        let (steps, length) = steps(answer, &Script::ok().ending(Ending::Cut(4)));
        assert_eq!((steps.front(), length), (Some(&Step::Data(Bytes::from_static(b"0123"))), Some(10)));
    }

    #[test]
    fn a_gate_holds_back_what_comes_after_so_many_events() {
        let (_shut, gate) = watch::channel(false);
        let script = Script::ok().gate(2, &gate).pause(Duration::from_millis(1));
        let (gated, _) = steps(events(), &script);
        let before = gated.iter().take_while(|step| **step != Step::Gate);
        assert_eq!(before.filter(|step| matches!(step, Step::Data(_))).count(), 2);
        assert_eq!(gated.iter().filter(|step| **step == Step::Gate).count(), 1);
        assert_eq!(play(events(), &script).0, play(events(), &Script::ok()).0);
    }

    #[test]
    fn dripping_changes_the_frames_and_not_the_bytes() {
        let script = Script::ok().drip(7, Duration::from_millis(1));
        let (dripped, _) = steps(events(), &script);
        assert_eq!(play(events(), &script).0, play(events(), &Script::ok()).0);
        assert_eq!(dripped.iter().filter(|step| matches!(step, Step::Data(_))).count(), 6);
        assert_eq!(dripped.iter().filter(|step| matches!(step, Step::Pause(_))).count(), 5);
    }
}
