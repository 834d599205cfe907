//! `google.protobuf.Timestamp` that is RFC 3339 text in JSON. Used by the admin messages.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A point in time, wire-compatible with `google.protobuf.Timestamp`; JSON form as in RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The same instant; `None` when it lies outside the years that `time` can express.
    pub fn to_time(self) -> Option<OffsetDateTime> {
        let nanos = i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos);
        OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self { seconds: at.unix_timestamp(), nanos: i32::try_from(at.nanosecond()).unwrap_or(0) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let at = self.to_time().ok_or_else(|| ser::Error::custom("timestamp out of range"))?;
        at.to_offset(UtcOffset::UTC).format(&Rfc3339).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Self::from).map_err(|_| {
            de::Error::custom(format!("expected an RFC 3339 time such as 2026-12-31T23:59:59Z, got {text:?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_form_is_rfc3339() {
        let at: Timestamp = serde_json::from_str(r#""2026-11-21T08:00:00.5+01:00""#).unwrap();
        assert_eq!(serde_json::to_string(&at).unwrap(), r#""2026-11-21T07:00:00.5Z""#);
    }

    #[test]
    fn bad_text_names_the_expected_form() {
        let error = serde_json::from_str::<Timestamp>(r#""tomorrow""#).unwrap_err().to_string();
        assert!(error.contains("RFC 3339") && error.contains("tomorrow"), "{error}");
    }
}
