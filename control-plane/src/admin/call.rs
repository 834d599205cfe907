//! What every operation is told besides its request ([`Call`]), and what every write answers with ([`Written`]).
//!
//! Both faces of the admin API make a [`Call`] with [`Call::with_options`]; callers in this process use
//! [`Call::local_operator`]. Forwarded headers are not trusted: `remote_addr` is the peer of the connection.

use std::net::IpAddr;

use nemo_types::OrgId;

use super::{Action, AdminError, Caller};

/// Revision of the configuration that a write made; over REST a header, over gRPC response metadata.
pub const CONFIG_VERSION: &str = "x-nemo-config-version";
/// Etag of the entity in the answer; over gRPC response metadata.
pub const ETAG: &str = "etag";
/// The answer of a create comes from the record of an earlier request with the same idempotency key.
pub const IDEMPOTENCY_REPLAYED: &str = "idempotency-replayed";
/// Request metadata or header: the entity must still be the one with this etag.
pub const IF_MATCH: &str = "if-match";
/// Request metadata or header of creates.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Request metadata or header; over REST also the parameter `validate_only`.
pub const VALIDATE_ONLY: &str = "x-nemo-validate-only";

/// Who calls, from where, and how the operation is to be done.
#[derive(Clone, Debug)]
pub struct Call {
    pub caller: Caller,
    /// Peer of the connection; `None` for callers in this process.
    pub remote_addr: Option<IpAddr>,
    /// For updates and deletions; reads and creates don't look at it.
    pub if_match: Option<IfMatch>,
    /// For creates; other writes can be repeated as they are.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Do everything, answer, and leave no trace.
    pub validate_only: bool,
}

impl From<Caller> for Call {
    fn from(caller: Caller) -> Self {
        Self { caller, remote_addr: None, if_match: None, idempotency_key: None, validate_only: false }
    }
}

impl Call {
    /// The owner of this process or data directory, who needs no token.
    pub fn local_operator() -> Self {
        Caller::local_operator().into()
    }

    /// Reads the options from headers or metadata; `get` gives the bytes of one.
    ///
    /// # Errors
    /// [`super::ErrorKind::InvalidArgument`] that names the header: an option that is not understood must not be
    /// ignored.
    pub fn with_options<'a>(
        caller: Caller,
        remote_addr: Option<IpAddr>,
        get: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self, AdminError> {
        Ok(Self {
            caller,
            remote_addr,
            if_match: get(IF_MATCH).map(IfMatch::parse).transpose()?,
            idempotency_key: get(IDEMPOTENCY_KEY).map(IdempotencyKey::parse).transpose()?,
            validate_only: get(VALIDATE_ONLY).map(flag).transpose()?.unwrap_or(false),
        })
    }

    /// See [`Caller::check`].
    ///
    /// # Errors
    /// When the caller may not.
    pub fn check(&self, action: Action, org: OrgId) -> Result<(), AdminError> {
        self.caller.check(action, org)
    }

    /// See [`Caller::check_operator`].
    ///
    /// # Errors
    /// Unless this is the operator.
    pub fn check_operator(&self) -> Result<(), AdminError> {
        self.caller.check_operator()
    }

    #[cfg(test)]
    pub(crate) fn for_test(org: OrgId, role: super::Role) -> Self {
        Caller::for_test(org, role).into()
    }
}

fn flag(value: &[u8]) -> Result<bool, AdminError> {
    match value {
        b"true" => Ok(true),
        b"false" | b"" => Ok(false),
        _ => Err(AdminError::invalid(VALIDATE_ONLY, "not understood", "true or false")),
    }
}

/// Etags of which the entity must have one. `*`: any, as long as it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfMatch(Vec<String>);

impl IfMatch {
    /// Bounds what is looked through; nobody sends more.
    const MOST: usize = 16;

    /// # Errors
    /// When it is not a list of etags.
    pub fn parse(value: &[u8]) -> Result<Self, AdminError> {
        let malformed = || {
            let expected = "an etag as an answer gave it, in quotes, or *";
            AdminError::invalid(IF_MATCH, "not an etag", expected)
        };
        let text = std::str::from_utf8(value).map_err(|_| malformed())?;
        // A weak one keeps its mark, so that it equals none.
        let tags: Vec<String> = text.split(',').map(|tag| tag.trim().replace('"', "")).collect();
        let well_formed =
            |tag: &String| (1..=64).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_graphic());
        if tags.len() > Self::MOST || !tags.iter().all(well_formed) {
            return Err(malformed());
        }
        Ok(Self(tags))
    }

    /// Strong comparison: a weak etag (`W/"…"`) never matches.
    pub fn allows(&self, etag: &str) -> bool {
        let etag = etag.trim_matches('"');
        self.0.iter().any(|tag| tag == "*" || tag == etag)
    }
}

/// Chosen by the client: a second create with the same key and body gets the answer of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// # Errors
    /// When it is empty, too long, or not visible ASCII.
    pub fn parse(value: &[u8]) -> Result<Self, AdminError> {
        match std::str::from_utf8(value) {
            Ok(text) if (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(AdminError::invalid(
                IDEMPOTENCY_KEY,
                "has another form",
                "1 to 255 visible ASCII characters, such as a UUID",
            )),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a write answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Written<T> {
    pub answer: T,
    /// Revision of the configuration that has this write in it: nodes that applied it act on it. `None`: nothing was
    /// written, because only a validation was asked for.
    pub config_version: Option<u64>,
    /// The answer is that of an earlier request with the same idempotency key.
    pub replayed: bool,
}

impl<T> Written<T> {
    pub fn into_answer(self) -> T {
        self.answer
    }
}

/// Reads like the answer itself.
impl<T> std::ops::Deref for Written<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options<'a>(options: &'a [(&'a str, &'a str)]) -> Result<Call, AdminError> {
        let get =
            |name: &str| options.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_bytes());
        Call::with_options(Caller::local_operator(), None, get)
    }

    #[test]
    fn options_are_read_and_their_absence_is_the_default() {
        let none = options(&[]).unwrap();
        assert!(none.if_match.is_none() && none.idempotency_key.is_none() && !none.validate_only);
        let all = [(IF_MATCH, "\"abc\""), (IDEMPOTENCY_KEY, "k-1"), (VALIDATE_ONLY, "true")];
        let all = options(&all).unwrap();
        assert!(all.validate_only && all.idempotency_key.unwrap().as_str() == "k-1");
        assert!(all.if_match.unwrap().allows("\"abc\""));
    }

    #[test]
    fn an_option_that_is_not_understood_is_refused_by_name() {
        let long = "k".repeat(256);
        for (name, value) in [
            (IF_MATCH, ""),
            (IF_MATCH, "\"a\",,"),
            (IF_MATCH, "é"),
            (IDEMPOTENCY_KEY, ""),
            (IDEMPOTENCY_KEY, "a b"),
            (IDEMPOTENCY_KEY, "é"),
            (IDEMPOTENCY_KEY, &long),
            (VALIDATE_ONLY, "yes"),
        ] {
            assert_eq!(options(&[(name, value)]).unwrap_err().field.as_deref(), Some(name), "{value}");
        }
    }

    #[test]
    fn etags_are_compared_strongly() {
        let matches = |header: &str, etag: &str| IfMatch::parse(header.as_bytes()).unwrap().allows(etag);
        assert!(matches("\"a\"", "\"a\"") && matches("a", "\"a\"") && matches("\"b\", \"a\"", "\"a\""));
        assert!(matches("*", "\"a\""));
        assert!(!matches("W/\"a\"", "\"a\"") && !matches("\"b\"", "\"a\""));
    }
}
