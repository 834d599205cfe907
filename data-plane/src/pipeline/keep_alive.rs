//! Comments in a silent stream: load balancers and clients take a connection without bytes for dead, often after 60 s,
//! while a model may think for minutes (B7, C17). Called by [`super::metered_body`], which knows whether it is between
//! two events: inside one a comment would be part of it.

use std::time::Duration;

use bytes::Bytes;
use nemo_llm::ErrorDialect;
use tokio::time::Instant;

/// A sign of life: a comment by the rules of server-sent events, which no client sees as an event; of Anthropic's clients
/// the event that they know for it.
pub fn sign(dialect: ErrorDialect) -> Bytes {
    match dialect {
        ErrorDialect::Anthropic => Bytes::from_static(b"event: ping\ndata: {\"type\":\"ping\"}\n\n"),
        _ => Bytes::from_static(b": keep-alive\n\n"),
    }
}

/// When the next comment is due.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    every: Option<Duration>,
    last_comment: Instant,
}

impl KeepAlive {
    /// `None`: never.
    pub fn new(every: Option<Duration>, now: Instant) -> Self {
        Self { every, last_comment: now }
    }

    /// Counted from the last byte of either kind; `last_frame` is the upstream's last.
    pub fn due(&self, last_frame: Instant) -> Option<Instant> {
        self.every.map(|every| last_frame.max(self.last_comment) + every)
    }

    /// A comment was sent, or its turn was skipped.
    pub fn sent(&mut self, now: Instant) {
        self.last_comment = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_is_counted_from_the_last_byte_of_either_kind() {
        let begin = Instant::now();
        let seconds = Duration::from_secs;
        let mut it = KeepAlive::new(Some(seconds(15)), begin);
        assert_eq!(it.due(begin), Some(begin + seconds(15)));
        assert_eq!(it.due(begin + seconds(10)), Some(begin + seconds(25)));
        it.sent(begin + seconds(25));
        assert_eq!(it.due(begin + seconds(10)), Some(begin + seconds(40)));
        assert_eq!(KeepAlive::new(None, begin).due(begin), None);
    }
}
