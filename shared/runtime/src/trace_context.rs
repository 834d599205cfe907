//! W3C trace context: which trace a request belongs to, as `traceparent` says it
//! (`00-<trace id>-<parent id>-<flags>`, lower-case hexadecimal). Called by the data plane's pipeline.

use std::fmt;

/// The trace of a request, and its caller's span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: TraceId,
    pub parent: SpanId,
    /// Whether the caller records the trace.
    pub sampled: bool,
}

/// Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u64);

impl TraceId {
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }
}

impl SpanId {
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// As `traceparent` carries it.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id, self.parent, u8::from(self.sampled))
    }
}

impl TraceContext {
    /// Reads a `traceparent`. `None` when it breaks the rules: then it counts as not sent. Later versions are read by
    /// the rules of version 00, as the standard has it.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (fields, rest) = value.split_at_checked(55)?;
        let dashes = fields[2] == b'-' && fields[35] == b'-' && fields[52] == b'-';
        let version = hex(&fields[..2])?;
        let ends = if version == 0 { rest.is_empty() } else { rest.is_empty() || rest[0] == b'-' };
        let (trace_id, parent) = (hex(&fields[3..35])?, u64::try_from(hex(&fields[36..52])?).ok()?);
        let flags = hex(&fields[53..])?;
        let valid = dashes && ends && version != 0xff && trace_id != 0 && parent != 0;
        valid.then_some(Self { trace_id: TraceId(trace_id), parent: SpanId(parent), sampled: flags & 1 == 1 })
    }
}

/// Lower-case digits only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_is_read_is_written_the_same() {
        for text in [SENT, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"] {
            let read = TraceContext::parse(text.as_bytes()).unwrap();
            assert_eq!(read.to_string(), text);
        }
        let later = format!("cc{}-what-the-future-holds", &SENT[2..]);
        assert_eq!(TraceContext::parse(later.as_bytes()).unwrap().to_string(), SENT);
        let other_flags = format!("{}ff", &SENT[..53]);
        assert!(TraceContext::parse(other_flags.as_bytes()).unwrap().sampled);
    }

    #[test]
    fn what_breaks_the_rules_counts_as_not_sent() {
        for text in [
            "",
            "00",
            &SENT[..54],
            &format!("{SENT}-x"),
            &format!("ff{}", &SENT[2..]),
            &SENT.to_uppercase(),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c8031\u{e9}-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
    }
}
