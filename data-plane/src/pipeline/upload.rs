//! A form on its way from the client to the upstream: read ahead only as far as routing needs it, then streamed, never
//! stored. Called by [`super::multipart`]; sent by [`crate::upstream`] as the tail of a request body.
//!
//! What goes wrong on the client's side while the upstream is reading already is kept in the shared [`Upload`]: the
//! upstream only sees its request break off, the client is told why.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use nemo_llm::{Asked, Endpoint, Form, FormScanner, MultipartError, Piece};

use super::{
    error::{GatewayError, Kind},
    pace::Pace,
};
use crate::upstream::body::BrokenOff;

/// A refused client may be sending still: this much more is read, so that it gets to read the refusal.
const MAX_DRAINED: u64 = 64 << 20;
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// What both sides of a form in transit know.
#[derive(Debug, Default)]
pub struct Upload(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    form: Form,
    received: u64,
    failure: Option<GatewayError>,
}

impl Upload {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the call is billed by, as far as the form was read.
    pub fn asked(&self, endpoint: Endpoint) -> Asked {
        self.known().form.asked(endpoint)
    }

    /// Bytes of the form so far.
    pub fn received(&self) -> u64 {
        self.known().received
    }

    /// Why the form broke off, if the client is to blame.
    pub fn take_failure(&self) -> Option<GatewayError> {
        self.known().failure.take()
    }
}

/// A form that is being read.
pub struct Source {
    incoming: Incoming,
    pace: Pace,
    scanner: FormScanner,
    upload: Arc<Upload>,
    received: u64,
    limit: u64,
    ended: bool,
}

/// The part of a form that was read ahead.
#[derive(Clone, Debug)]
pub struct Ahead {
    pieces: Vec<Piece>,
    /// Bytes of `pieces`.
    held: usize,
}

impl Source {
    /// `limit`: most bytes of the whole form.
    pub fn new(incoming: Incoming, boundary: &str, pace: Pace, limit: u64) -> Self {
        let (scanner, upload) = (FormScanner::new(boundary), Arc::default());
        Self { incoming, pace, scanner, upload, received: 0, limit, ended: false }
    }

    pub fn upload(&self) -> &Arc<Upload> {
        &self.upload
    }

    pub fn form(&self) -> &Form {
        self.scanner.form()
    }

    /// Bytes of the gateway's own fields that were taken out.
    pub fn stripped(&self) -> u64 {
        self.scanner.stripped()
    }

    /// Reads until the model is known and a file begins behind which nothing has to be known, or the form ends. Clients
    /// that send the file first have it held back, at most `hold` bytes.
    ///
    /// # Errors
    /// What is wrong with the form, or that the model comes too late.
    pub async fn read_ahead(&mut self, hold: usize) -> Result<Ahead, GatewayError> {
        let mut ahead = Ahead { pieces: Vec::new(), held: 0 };
        while !(self.ended || self.form().model.is_some() && self.scanner.in_file()) {
            let before = ahead.pieces.len();
            if !self.read(&mut ahead.pieces).await? {
                break;
            }
            ahead.held += ahead.pieces[before..].iter().map(length).sum::<usize>();
            if ahead.held > hold {
                return Err(too_late(self.form().model.is_some(), hold));
            }
        }
        Ok(ahead)
    }

    /// Takes one frame; false when the form is complete.
    async fn read(&mut self, out: &mut Vec<Piece>) -> Result<bool, GatewayError> {
        let slow = |_| GatewayError::new(Kind::RequestTimeout, "The request body did not arrive in time.");
        let broken = |_| GatewayError::new(Kind::InvalidRequest, "The request body broke off.");
        let Some(frame) = self.pace.wait(self.incoming.frame()).await.map_err(slow)? else {
            self.scanner.finish().map_err(refused)?;
            self.ended = true;
            return Ok(false);
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { return Ok(true) };
        self.pace.received(data.len());
        self.received += data.len() as u64;
        if self.received > self.limit {
            return Err(too_large(self.limit));
        }
        self.scanner.push(data, out).map_err(refused)?;
        let mut known = self.upload.known();
        known.received = self.received;
        if known.form != *self.scanner.form() {
            known.form = self.scanner.form().clone();
        }
        Ok(true)
    }

    /// The most that the call can be billed by, whatever is still to come of the form.
    pub fn most_asked(&self, endpoint: Endpoint) -> Asked {
        self.form().most_asked(endpoint, self.ended)
    }

    /// So much is held for the call: nothing that follows may ask for more.
    pub fn bound(&mut self) {
        self.scanner.bound();
    }

    /// The call goes upstream: nothing more may be taken out of the form.
    pub fn seal(&mut self) {
        self.scanner.seal();
    }

    /// Reads on for a while, and forgets it: a client that is still sending does not see an answer otherwise.
    pub async fn drain(mut self) {
        let most = self.received + MAX_DRAINED;
        let rest = async {
            while let Some(Ok(frame)) = self.incoming.frame().await {
                self.received += frame.data_ref().map_or(0, Bytes::len) as u64;
                if self.received > most {
                    return;
                }
            }
        };
        // Whatever is left is cut off with the connection.
        let _ = tokio::time::timeout(DRAIN_PATIENCE, rest).await;
    }

    /// What follows what was read ahead. `length`: of what is still to come, if it is known.
    pub fn rest(self, model: Bytes, length: Option<u64>) -> Option<Rest> {
        if self.ended {
            return None;
        }
        Some(Rest { frames: Box::pin(frames(self, model)), remaining: length })
    }
}

impl Ahead {
    /// The bytes for an upstream that calls the model `model`, and how many there are.
    pub fn render(&self, model: &Bytes) -> (nemo_llm::Segments, u64) {
        let pieces = self.pieces.iter().cloned();
        let segments: nemo_llm::Segments =
            pieces.map(|piece| bytes(piece, model)).filter(|it| !it.is_empty()).collect();
        let length = segments.iter().map(|segment| segment.len() as u64).sum();
        (segments, length)
    }
}

fn length(piece: &Piece) -> usize {
    match piece {
        Piece::Raw(bytes) | Piece::Model(bytes) => bytes.len(),
    }
}

fn bytes(piece: Piece, model: &Bytes) -> Bytes {
    match piece {
        Piece::Raw(bytes) => bytes,
        Piece::Model(_) => model.clone(),
    }
}

pub fn too_large(limit: u64) -> GatewayError {
    let message = format!("The form is larger than the limit of {limit} bytes.");
    GatewayError::new(Kind::PayloadTooLarge, message)
}

fn too_late(model_known: bool, hold: usize) -> GatewayError {
    if model_known {
        let message = format!("The fields before the file are longer than {hold} bytes.");
        return GatewayError::new(Kind::PayloadTooLarge, message);
    }
    let message = format!(
        "`model` is missing in the first {hold} bytes of the form; with a file as large as this it must come before \
         the file."
    );
    GatewayError::new(Kind::InvalidRequest, message).param("model")
}

pub fn refused(error: MultipartError) -> GatewayError {
    let refused = GatewayError::new(Kind::InvalidRequest, error.message);
    match error.param {
        Some(param) => refused.param(param),
        None => refused,
    }
}

/// A stream of the pieces that are still to come; it ends with an error where the client's form does.
fn frames(source: Source, model: Bytes) -> impl Stream<Item = Result<Bytes, BrokenOff>> + Send {
    let state = (source, VecDeque::new(), model);
    stream::try_unfold(state, |(mut source, mut queue, model)| async move {
        let mut pieces = Vec::new();
        loop {
            if let Some(piece) = queue.pop_front() {
                let bytes = bytes(piece, &model);
                if !bytes.is_empty() {
                    return Ok(Some((bytes, (source, queue, model))));
                }
                continue;
            }
            match source.read(&mut pieces).await {
                Ok(true) => queue.extend(pieces.drain(..)),
                Ok(false) => return Ok(None),
                Err(error) => {
                    source.upload.known().failure = Some(error);
                    return Err(BrokenOff);
                }
            }
        }
    })
}

/// The tail of a request body.
pub struct Rest {
    frames: Pin<Box<dyn Stream<Item = Result<Bytes, BrokenOff>> + Send>>,
    remaining: Option<u64>,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let Some(next) = ready!(self.frames.as_mut().poll_next(cx)) else { return Poll::Ready(None) };
        Poll::Ready(Some(next.map(|bytes| {
            self.remaining = self.remaining.map(|left| left.saturating_sub(bytes.len() as u64));
            Frame::data(bytes)
        })))
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
