//! A request that its target takes only in pieces, as embeddings of many texts: the first is sent as every request is,
//! the others follow when it was answered, some at a time, and all answers make one. It is one attempt, one reservation and
//! one usage event. Called by [`super::dispatch`].

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Limited};
use nemo_llm::estimate_input_tokens;
use nemo_types::Usage;
use tokio::time::Instant;

use super::{dispatch::Payload, failure::Failure, respond::MAX_BUFFERED, timeouts::Deadline};
use crate::upstream::UpstreamBody;

/// Under way at the same time, of one request.
const AT_ONCE: usize = 8;
/// Bytes of all answers together.
const MAX_JOINED: usize = 64 << 20;

/// What is sent of a request, the first piece first, and what is known of the answers.
pub struct Pieces {
    pub bodies: Vec<Bytes>,
    pub first: UpstreamBody,
    pub deadline: Deadline,
}

impl Pieces {
    /// The answers to all pieces as a JSON array. `send` sends a body and waits for the head of its answer; `counted` reads
    /// how many tokens such an array tells of.
    ///
    /// # Errors
    /// When one was not answered; the failure tells what the others have used.
    pub async fn joined<S>(
        self,
        send: impl Fn(Bytes) -> S,
        counted: impl Fn(&[u8]) -> Option<u64>,
    ) -> Result<Bytes, Box<Failure>>
    where
        S: Future<Output = Result<Payload, Box<Failure>>>,
    {
        let Self { bodies, first, deadline } = self;
        let (mut all, mut answered) = (BytesMut::new(), 0);
        let read = async {
            add(&mut all, &whole(first, deadline).await?)?;
            answered = 1;
            let send = &send;
            let piece = |body| async move {
                match send(body).await? {
                    Payload::Success(answer) => whole(answer, deadline).await,
                    Payload::Refusal(refusal) => Err(Failure::piece_refused(refusal.said)),
                    Payload::Joined(_) | Payload::Estimated(_) => Err(Failure::unserved()),
                }
            };
            let mut answers = stream::iter(bodies.iter().skip(1).cloned()).map(piece).buffered(AT_ONCE);
            while let Some(answer) = answers.next().await {
                add(&mut all, &answer?)?;
                answered += 1;
            }
            Ok::<_, Box<Failure>>(())
        };
        let failed = read.await.err();
        all.put_u8(b']');
        let Some(failure) = failed else { return Ok(all.freeze()) };
        let estimate = |bodies: &[Bytes]| bodies.iter().map(|body| estimate_input_tokens(body)).sum::<u64>();
        let (told, rest) = bodies.split_at(answered);
        let told = if told.is_empty() { 0 } else { counted(&all).unwrap_or_else(|| estimate(told)) };
        // What was under way may have been read.
        let input = told.saturating_add(estimate(&rest[..rest.len().min(AT_ONCE)]));
        Err(Box::new(Failure { usage: Some(Usage { input: Some(input), ..Usage::default() }), ..*failure }))
    }
}

fn add(all: &mut BytesMut, answer: &[u8]) -> Result<(), Box<Failure>> {
    all.put_u8(if all.is_empty() { b'[' } else { b',' });
    compact(answer, all);
    match all.len() <= MAX_JOINED {
        true => Ok(()),
        false => Err(Failure::protocol("sent answers that are too large to be translated")),
    }
}

/// Leaves out what is between the tokens of JSON: some write each number of a vector on a line of its own.
fn compact(json: &[u8], out: &mut BytesMut) {
    let (mut text, mut escaped) = (false, false);
    out.extend(json.iter().copied().filter(|byte| {
        let keep = text || !byte.is_ascii_whitespace();
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = text,
            b'"' => text = !text,
            _ => {}
        }
        keep
    }));
}

async fn whole(answer: UpstreamBody, deadline: Deadline) -> Result<Bytes, Box<Failure>> {
    let (due, waited) = deadline.next_frame(Some(Instant::now()));
    let read = tokio::time::timeout_at(due, Limited::new(answer, MAX_BUFFERED).collect()).await;
    match read {
        Ok(Ok(answer)) => Ok(answer.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Failure::protocol("sent an answer that is too large to be translated"))
        }
        Ok(Err(_)) => Err(Failure::interrupted("interrupted", "broke off in the middle of its answer")),
        Err(_) => {
            let late = Failure::timed_out(waited, deadline.hurried);
            Err(Box::new(Failure { status: 200, ..*late }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_tokens_is_left_out() {
        let mut out = BytesMut::new();
        compact(b" {\n  \"a b\\\" c\" : [ 1 ,\n\t-2.5e3 ],\r\n \"\\\\\" : \" \" }\n", &mut out);
        assert_eq!(out, br#"{"a b\" c":[1,-2.5e3],"\\":" "}"#[..].to_vec().as_slice());
    }
}
