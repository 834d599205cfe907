//! An issuer's key set: which key may have signed which token. A key's type decides which algorithms it is good for, so
//! that no token can choose one that treats a public key as a shared secret.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

/// Keys of a set that are looked at.
const MAX_KEYS: usize = 100;

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

struct Key {
    id: Option<String>,
    algorithms: &'static [Algorithm],
    /// The key set names one: then it is good for that alone.
    only: Option<Algorithm>,
    key: DecodingKey,
}

/// The keys that tokens can be signed with.
pub(super) struct KeySet(Vec<Key>);

impl KeySet {
    /// Leaves out what it does not know: an issuer may publish keys for other purposes.
    pub(super) fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(json)?;
        let keys = document.keys.into_iter().take(MAX_KEYS);
        Ok(Self(keys.filter_map(|value| key(&serde_json::from_value(value).ok()?)).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The keys that a token with this header may be signed with. A token that names no key may be signed with any.
    pub(super) fn candidates<'k>(
        &'k self,
        id: Option<&'k str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'k DecodingKey> {
        let named = move |key: &&Key| id.is_none_or(|id| key.id.as_deref() == Some(id));
        let fits = move |key: &&Key| {
            key.algorithms.contains(&algorithm) && key.only.is_none_or(|only| only == algorithm)
        };
        self.0.iter().filter(named).filter(fits).map(|key| &key.key)
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    if !matches!(common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return None;
    }
    let algorithms: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // Shared secrets have no place in a public document.
        _ => return None,
    };
    let only = common.key_algorithm.map(Algorithm::try_from).transpose().ok()?;
    Some(Key { id: common.key_id.clone(), algorithms, only, key: DecodingKey::from_jwk(jwk).ok()? })
}
