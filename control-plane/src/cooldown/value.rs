//! Keys and values of cooldowns in the coordinator. Durations only: whoever reads counts from when it reads (I13).

use bytes::Bytes;
use nemo_proto::cooldown::FailureClass;
use nemo_types::{DeploymentId, OrgId};
use serde::{Deserialize, Serialize};

pub const COOLDOWNS: &str = "/nemo/cooldown/";
pub const SUSPECTS: &str = "/nemo/suspect/";
pub const NODES: &str = "/nemo/nodes/";

/// Whom a cooldown keeps away from which deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    /// `None`: all organizations, by an operator.
    pub org: Option<OrgId>,
    pub deployment: DeploymentId,
}

impl Scope {
    pub fn key(&self) -> String {
        match self.org {
            Some(org) => format!("{COOLDOWNS}{org}/{}", self.deployment),
            None => format!("{COOLDOWNS}*/{}", self.deployment),
        }
    }

    pub fn from_key(key: &str) -> Option<Self> {
        let (org, deployment) = key.strip_prefix(COOLDOWNS)?.split_once('/')?;
        let org = if org == "*" { None } else { Some(org.parse().ok()?) };
        Some(Self { org, deployment: deployment.parse().ok()? })
    }
}

/// Key that says that a node's breaker for this pair has opened.
pub fn suspect_key((org, deployment): (OrgId, DeploymentId), node: &str) -> String {
    format!("{SUSPECTS}{org}/{deployment}/{node}")
}

/// What [`suspect_key`] was made of.
pub fn suspect(key: &str) -> Option<((OrgId, DeploymentId), &str)> {
    let mut parts = key.strip_prefix(SUSPECTS)?.splitn(3, '/');
    let pair = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((pair, parts.next()?))
}

/// Why a deployment cools down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    RateLimited,
    Timeout,
    ServerError,
    Connect,
    Credential,
    Interrupted,
    Manual,
}

impl Cause {
    pub fn label(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::ServerError => "server_error",
            Self::Connect => "connect",
            Self::Credential => "credential",
            Self::Interrupted => "interrupted",
            Self::Manual => "manual",
        }
    }

    /// `None` for a class of a newer node.
    pub fn of(class: FailureClass) -> Option<Self> {
        Some(match class {
            FailureClass::Unspecified => return None,
            FailureClass::RateLimited => Self::RateLimited,
            FailureClass::Timeout => Self::Timeout,
            FailureClass::Server => Self::ServerError,
            FailureClass::Connect => Self::Connect,
            FailureClass::Credential => Self::Credential,
            FailureClass::Interrupted => Self::Interrupted,
        })
    }

    pub fn class(self) -> FailureClass {
        match self {
            Self::RateLimited => FailureClass::RateLimited,
            Self::Timeout => FailureClass::Timeout,
            Self::ServerError => FailureClass::Server,
            Self::Connect => FailureClass::Connect,
            Self::Credential => FailureClass::Credential,
            Self::Interrupted => FailureClass::Interrupted,
            Self::Manual => FailureClass::Unspecified,
        }
    }
}

/// A cooldown as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    pub cause: Cause,
    /// From when it was written.
    pub duration_ms: u64,
    /// Of an administrator; empty otherwise.
    #[serde(default)]
    pub reason: String,
    /// The node whose report decided it, or who set it.
    #[serde(default)]
    pub reporter: String,
    /// How often the pair has been cooled in a row.
    #[serde(default)]
    pub generation: u32,
    /// An administrator ended it: what nodes hold by themselves ends as well.
    #[serde(default)]
    pub lifted: bool,
}

impl Value {
    pub fn encode(&self) -> Bytes {
        // Strings and numbers: there is nothing that could not be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// `None` for what a newer release may have written.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_read_as_they_were_written() {
        let (org, deployment) = (OrgId::generate(), DeploymentId::generate());
        for org in [Some(org), None] {
            let scope = Scope { org, deployment };
            assert_eq!(Scope::from_key(&scope.key()), Some(scope));
        }
        for key in ["/nemo/cooldown/", "/nemo/cooldown/x/y", "/other/*/1", "/nemo/cooldown/*"] {
            assert_eq!(Scope::from_key(key), None, "{key}");
        }
        let key = suspect_key((org, deployment), "node/with/slashes");
        assert_eq!(suspect(&key), Some(((org, deployment), "node/with/slashes")));
        let value = Value {
            cause: Cause::Timeout,
            duration_ms: 5_000,
            reason: "\"quoted\"\n".into(),
            reporter: "node-1".into(),
            generation: 2,
            lifted: false,
        };
        assert_eq!(Value::decode(&value.encode()), Some(value));
        assert_eq!(Value::decode(b"{}"), None);
        let older = Value::decode(br#"{"cause":"manual","duration_ms":1}"#).unwrap();
        assert!(!older.lifted && older.reporter.is_empty());
    }
}
