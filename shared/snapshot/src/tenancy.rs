//! Who may send requests: keys by public id, with the state of their team and organization folded in.

use std::{collections::HashMap, sync::Arc};

use nemo_types::{KeyId, OrgId, PublicId, TeamId, TokenHash};

/// The section of a snapshot that authentication reads.
#[derive(Debug, Default)]
pub struct Tenancy {
    keys: HashMap<PublicId, Arc<KeyRecord>, ahash::RandomState>,
}

impl Tenancy {
    pub fn key(&self, public_id: &PublicId) -> Option<&Arc<KeyRecord>> {
        self.keys.get(public_id)
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// False when another key has the same public id.
    pub(crate) fn insert(&mut self, record: KeyRecord) -> bool {
        self.keys.insert(record.public_id, Arc::new(record)).is_none()
    }
}

/// What is switched off, seen from a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disabled {
    Key,
    Team,
    Organization,
}

/// A virtual key with what it inherits.
#[derive(Debug)]
pub struct KeyRecord {
    pub id: KeyId,
    pub public_id: PublicId,
    pub org_id: OrgId,
    pub team_id: TeamId,
    pub name: Arc<str>,
    pub hash: TokenHash,
    /// The hash before the last rotation and until when (Unix milliseconds) it is honoured.
    pub previous: Option<(TokenHash, i64)>,
    pub disabled: Option<Disabled>,
    /// Unix milliseconds; `None`: never.
    pub expires_at_ms: Option<i64>,
    pub allowed_models: AllowedModels,
}

impl KeyRecord {
    /// True when `hash` is that of the current secret, or of the one before within its overlap.
    pub fn verify(&self, hash: &TokenHash, now_ms: i64) -> bool {
        self.hash == *hash
            || self.previous.as_ref().is_some_and(|(previous, until)| previous == hash && now_ms < *until)
    }
}

/// Names that a key may send as `model`.
#[derive(Debug, PartialEq, Eq)]
pub enum AllowedModels {
    All,
    /// Exact names, and `prefix/*` patterns.
    Only(Vec<Box<str>>),
}

impl AllowedModels {
    pub(crate) fn new(names: &[String]) -> Self {
        if names.is_empty() {
            Self::All
        } else {
            Self::Only(names.iter().map(|name| name.as_str().into()).collect())
        }
    }

    /// `requested` is what the client sent, `resolved` the group's own name: either may be listed.
    pub fn permit(&self, requested: &str, resolved: &str) -> bool {
        let Self::Only(names) = self else { return true };
        names.iter().any(|allowed| match allowed.strip_suffix("/*") {
            Some(prefix) => [requested, resolved]
                .iter()
                .any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))),
            None => **allowed == *requested || **allowed == *resolved,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_models_match_names_and_prefixes_but_no_lookalikes() {
        let allowed = AllowedModels::new(&["gpt-5.2".into(), "groq/*".into()]);
        assert!(allowed.permit("gpt-5.2", "gpt-5.2"));
        assert!(allowed.permit("openai/gpt-5.2", "gpt-5.2"));
        assert!(allowed.permit("groq/llama-4", "llama-4"));
        assert!(!allowed.permit("groqqy/llama-4", "llama-4"));
        assert!(!allowed.permit("gpt-5.2-pro", "gpt-5.2-pro"));
        assert!(AllowedModels::new(&[]).permit("anything", "anything"));
    }
}
