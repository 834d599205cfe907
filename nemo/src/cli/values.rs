//! Values on the command line: lengths of time and moments. Used by the options of [`crate::commands`].

use nemo_proto::Timestamp;
use nemo_runtime::clock;

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u32);

impl Seconds {
    /// The moment that comes this much later than now.
    pub fn from_now(self) -> Timestamp {
        at(now() + i64::from(self.0))
    }
}

/// `90m`, `12h`, `30d`.
///
/// # Errors
/// When it is something else.
pub fn duration(text: &str) -> Result<Seconds, String> {
    let refuse = || format!("{text:?} is no length of time; expected for example 90m, 12h or 30d");
    let split = text.len().saturating_sub(1);
    let (number, unit) = (text.get(..split).ok_or_else(refuse)?, text.get(split..).ok_or_else(refuse)?);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(refuse()),
    };
    let number: u32 = number.parse().map_err(|_| refuse())?;
    number.checked_mul(seconds).map(Seconds).ok_or_else(refuse)
}

/// A moment in the past: a length of time ago (`2h`), a day (`2026-11-21`) or RFC 3339. UTC.
///
/// # Errors
/// When it is something else.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(Seconds(ago)) = duration(text) {
        return Ok(at(now() - i64::from(ago)));
    }
    let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    serde_json::from_value(serde_json::Value::String(whole)).map_err(|_| {
        format!("{text:?} is no moment; expected for example 2h (ago), 2026-11-21 or 2026-11-21T08:00:00Z")
    })
}

fn now() -> i64 {
    clock::unix_us() / 1_000_000
}

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read() {
        assert_eq!(duration("90m"), Ok(Seconds(5400)));
        assert_eq!(duration("30d"), Ok(Seconds(2_592_000)));
        for text in ["", "d", "30", "-1d", "1y", "99999999999d", "4294967295d", "ä"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_read() {
        assert_eq!(moment("2026-11-21").unwrap().seconds, 1_795_219_200);
        assert_eq!(moment("2026-11-21T01:00:00+01:00"), moment("2026-11-21"));
        let hour = now() - moment("1h").unwrap().seconds;
        assert!((3600..3602).contains(&hour), "{hour}");
        for text in ["", "yesterday", "2026-13-01", "2026-11-21 08:00"] {
            assert!(moment(text).unwrap_err().contains("2026-11-21T08:00:00Z"), "{text}");
        }
    }
}
