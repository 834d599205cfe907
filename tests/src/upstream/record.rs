//! What the upstream remembers of a request.

use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method};

/// A request as it reached the upstream.
#[derive(Debug)]
pub struct Recorded {
    /// From 1, in order of arrival.
    pub number: u64,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    /// Exactly as received.
    pub body: Bytes,
    /// When the head had arrived.
    pub at: Instant,
    end: OnceLock<(Ended, Instant)>,
}

/// How an exchange ended, seen from the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The script was played to its end; this may be a cut connection, if that was the script.
    Played,
    /// The client closed the connection before that.
    ClientGone,
}

impl Recorded {
    pub(super) fn new(number: u64, head: &http::request::Parts, body: Bytes, at: Instant) -> Self {
        let path = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let (method, headers) = (head.method.clone(), head.headers.clone());
        Self { number, method, path, headers, body, at, end: OnceLock::new() }
    }

    /// How and when it ended; `None` while it is under way.
    pub fn ended(&self) -> Option<(Ended, Instant)> {
        self.end.get().copied()
    }

    /// When the client was noticed to have left early.
    pub fn client_gone_at(&self) -> Option<Instant> {
        self.ended().and_then(|(how, at)| (how == Ended::ClientGone).then_some(at))
    }

    /// Value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(&self.body)
    }

    /// Only the first call counts.
    pub(super) fn end(&self, how: Ended) {
        let _first = self.end.set((how, Instant::now()));
    }
}
