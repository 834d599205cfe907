//! Bearer tokens: virtual keys (`sk-nemo-…`) for the data plane, admin tokens (`adm-nemo-…`) for the admin API.
//!
//! A token is `<prefix><16 characters of public id><43 characters of secret>`, base62. The public id finds the
//! record, the secret carries 256 bits of entropy; what is stored is the SHA-256 of the secret, which fits into one
//! block. With that much entropy a slow hash would add nothing but latency.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use subtle::ConstantTimeEq;

use crate::Secret;

const PUBLIC_LEN: usize = 16;
const SECRET_LEN: usize = 43;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The part of a token that is no secret: it finds the record and may be logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicId([u8; PUBLIC_LEN]);

impl PublicId {
    pub fn as_str(&self) -> &str {
        // Only base62 bytes are ever stored.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for PublicId {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; PUBLIC_LEN] = text.as_bytes().try_into().map_err(|_| MalformedToken)?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) { Ok(Self(bytes)) } else { Err(MalformedToken) }
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicId({})", self.as_str())
    }
}

/// SHA-256 of a token's secret. Compared in constant time.
#[derive(Clone, Copy, Debug)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Of no secret: stands where one was withdrawn.
    pub const NONE: Self = Self([0; 32]);

    /// `None` unless there are 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        // By words, which takes an eighth of the steps.
        let words = |hash: &[u8; 32]| -> [u64; 4] {
            std::array::from_fn(|at| u64::from_ne_bytes(std::array::from_fn(|byte| hash[at * 8 + byte])))
        };
        words(&self.0).as_slice().ct_eq(words(&other.0).as_slice()).into()
    }
}

impl Eq for TokenHash {}

/// The text is no token of this kind. Deliberately says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed token")]
pub struct MalformedToken;

/// A presented token, split but not yet verified.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    pub public_id: PublicId,
    secret: &'a str,
}

impl Presented<'_> {
    /// Of its secret part, as it is stored.
    pub fn hash(&self) -> TokenHash {
        hash(self.secret)
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("public_id", &self.public_id).finish_non_exhaustive()
    }
}

/// A secret that was found right is known again without SHA-256, which takes as long as everything else that a request
/// does before it is routed. What is kept is its SipHash under two keys that are random in each process: it says
/// nothing about the secret, and whoever guesses needs 2^128 tries or our memory.
#[derive(Default)]
pub struct Verified([AtomicU64; 2]);

static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);

impl Verified {
    fn tags(presented: &Presented<'_>) -> [u64; 2] {
        KEYS.each_ref().map(|key| key.hash_one(presented.secret))
    }

    /// Whether this very secret was verified before.
    pub fn knows(&self, presented: &Presented<'_>) -> bool {
        let [first, second] = Self::tags(presented);
        // Not one after the other: how long it takes must not tell how far a guess came.
        let (first, second) = (first ^ self.0[0].load(Relaxed), second ^ self.0[1].load(Relaxed));
        first | second == 0
    }

    /// Two that are verified at once may mix their tags: then neither is known, and both are verified again.
    pub fn remember(&self, presented: &Presented<'_>) {
        for (held, tag) in self.0.iter().zip(Self::tags(presented)) {
            held.store(tag, Relaxed);
        }
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verified")
    }
}

/// A freshly minted token: the text goes to its owner once, the rest is stored.
pub struct Minted {
    pub text: Secret,
    pub public_id: PublicId,
    pub hash: TokenHash,
}

macro_rules! tokens {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// Splits a presented token.
            ///
            /// # Errors
            /// When it has another prefix, length or alphabet.
            pub fn parse(text: &str) -> Result<Presented<'_>, MalformedToken> {
                parse(Self::PREFIX, text)
            }

            /// Makes a new token.
            ///
            /// # Errors
            /// When the system's random source fails.
            pub fn mint() -> Result<Minted, RandomUnavailable> {
                mint(Self::PREFIX, None)
            }

            /// Makes a new secret for the token with this public id.
            ///
            /// # Errors
            /// When the system's random source fails.
            pub fn remint(public_id: PublicId) -> Result<Minted, RandomUnavailable> {
                mint(Self::PREFIX, Some(public_id))
            }
        }
    )*};
}

tokens! {
    /// A virtual key, sent by API clients.
    ApiKey = "sk-nemo-";
    /// A token for the admin API.
    AdminToken = "adm-nemo-";
}

/// The system's random source failed.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomUnavailable;

fn parse<'a>(prefix: &str, text: &'a str) -> Result<Presented<'a>, MalformedToken> {
    let body = text.strip_prefix(prefix).ok_or(MalformedToken)?;
    // Of the secret nothing has to be looked at: its hash is right or wrong.
    if body.len() != PUBLIC_LEN + SECRET_LEN || !body.is_char_boundary(PUBLIC_LEN) {
        return Err(MalformedToken);
    }
    let (public_id, secret) = body.split_at(PUBLIC_LEN);
    Ok(Presented { public_id: public_id.parse()?, secret })
}

fn mint(prefix: &str, public_id: Option<PublicId>) -> Result<Minted, RandomUnavailable> {
    let public_id = match public_id {
        Some(id) => id,
        None => PublicId(base62::<PUBLIC_LEN>()?),
    };
    let secret = base62::<SECRET_LEN>()?;
    let secret = std::str::from_utf8(&secret).map_err(|_| RandomUnavailable)?;
    let text = format!("{prefix}{public_id}{secret}");
    Ok(Minted { public_id, hash: hash(secret), text: Secret::new(text) })
}

fn hash(secret: &str) -> TokenHash {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    TokenHash(out)
}

/// `N` uniformly distributed base62 characters.
fn base62<const N: usize>() -> Result<[u8; N], RandomUnavailable> {
    let random = SystemRandom::new();
    let mut out = [0; N];
    let mut filled = 0;
    while filled < N {
        let mut bytes = [0_u8; 64];
        random.fill(&mut bytes).map_err(|_| RandomUnavailable)?;
        // 248 = 4 * 62: rejecting the rest keeps every character equally likely.
        for byte in bytes.into_iter().filter(|byte| *byte < 248).take(N - filled) {
            out[filled] = ALPHABET[usize::from(byte % 62)];
            filled += 1;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minted_keys_parse_and_match_their_hash() {
        let minted = ApiKey::mint().unwrap();
        let presented = ApiKey::parse(minted.text.expose()).unwrap();
        assert_eq!((presented.public_id, presented.hash()), (minted.public_id, minted.hash));
        assert!(minted.text.expose().starts_with("sk-nemo-"));
        assert!(minted.text.expose()["sk-nemo-".len()..].bytes().all(|b| b.is_ascii_alphanumeric()));
    }

    #[test]
    fn a_verified_secret_is_known_and_no_other() {
        let (right, wrong) = (ApiKey::mint().unwrap(), ApiKey::mint().unwrap());
        let [right, wrong] = [&right, &wrong].map(|minted| ApiKey::parse(minted.text.expose()).unwrap());
        let verified = Verified::default();
        assert!(!verified.knows(&right) && !verified.knows(&wrong));
        verified.remember(&right);
        assert!(verified.knows(&right) && !verified.knows(&wrong));
        verified.remember(&wrong);
        assert!(!verified.knows(&right) && verified.knows(&wrong));
    }

    /// I10: what is kept and what is printed of a presented token has nothing of its secret.
    #[test]
    fn i10_a_presented_secret_is_not_printed() {
        let minted = ApiKey::mint().unwrap();
        let presented = ApiKey::parse(minted.text.expose()).unwrap();
        let printed = format!("{presented:?} {:?}", Verified::default());
        assert!(!printed.contains(&minted.text.expose()[ApiKey::PREFIX.len() + PUBLIC_LEN..]), "{printed}");
    }

    #[test]
    fn a_rotated_secret_keeps_the_public_id_and_changes_the_hash() {
        let first = ApiKey::mint().unwrap();
        let second = ApiKey::remint(first.public_id).unwrap();
        assert_eq!(first.public_id, second.public_id);
        assert_ne!(first.hash, second.hash);
    }

    #[test]
    fn other_text_is_malformed() {
        let minted = AdminToken::mint().unwrap();
        for text in ["", "sk-nemo-", "sk-nemo-short", "sk-or-v1-abc", minted.text.expose(), &"x".repeat(4096)]
        {
            assert_eq!(ApiKey::parse(text).err(), Some(MalformedToken), "{text}");
        }
    }
}
