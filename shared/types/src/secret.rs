//! Secrets (I10): [`Secret`] can't be printed or serialised, [`Sealed`] is what is stored and sent.
//!
//! Provider credentials are sealed with AES-256-GCM by the control plane and opened by the nodes only; the
//! database and everything between see the sealed form. A [`Keyring`] holds one current key and older ones that
//! still open what they sealed.

use std::fmt;

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{SHA256, digest},
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use crate::marker::{self, Marker};

/// A secret in clear. Has no `Display` and no `Serialize`; `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: only where it is sent to its owner or its provider.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A sealed value: `version | key id (8) | nonce (12) | ciphertext and tag`.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

const VERSION: u8 = 1;
const KEY_ID_LEN: usize = 8;
const HEADER_LEN: usize = 1 + KEY_ID_LEN + NONCE_LEN;

impl Sealed {
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Hex id of the key that sealed this, `None` when the header is malformed.
    pub fn key_id(&self) -> Option<String> {
        self.0.get(1..=KEY_ID_LEN).map(hex)
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the system's random source failed")]
    Random,
    #[error("not a sealed value of a known version")]
    Malformed,
    #[error("sealed with key {0}, which is not in the keyring")]
    UnknownKey(String),
    #[error("the sealed value was altered or belongs to something else")]
    Forged,
    #[error("a sealing key is 64 hexadecimal digits (32 bytes), this one is not")]
    BadKey,
}

struct SealKey {
    id: [u8; KEY_ID_LEN],
    key: LessSafeKey,
    /// For [`Marker`]; derived.
    marks: hmac::Key,
}

/// Sealing keys. The first seals, all open.
pub struct Keyring {
    keys: Vec<SealKey>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keyring").field(&self.key_ids()).finish()
    }
}

impl Keyring {
    /// A keyring of 64-digit hexadecimal keys, the current one first, separated by white space or commas.
    ///
    /// # Errors
    /// [`SealError::BadKey`] when there is none or one is malformed.
    pub fn parse(text: &str) -> Result<Self, SealError> {
        let keys: Vec<_> = text
            .split(|c: char| c == ',' || c.is_whitespace())
            .filter(|part| !part.is_empty())
            .map(SealKey::parse)
            .collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(SealError::BadKey) } else { Ok(Self { keys }) }
    }

    /// A new random key in the form that [`Keyring::parse`] reads.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system's random source fails.
    pub fn generate_key() -> Result<Secret, SealError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| SealError::Random)?;
        Ok(Secret::new(hex(&bytes)))
    }

    /// Ids of the keys, the current one first. No secrets.
    pub fn key_ids(&self) -> Vec<String> {
        self.keys.iter().map(|key| hex(&key.id)).collect()
    }

    /// Marks what goes out and is to come back.
    pub fn marker(&self) -> Marker {
        Marker::new(self.keys.iter().map(|key| key.marks.clone()))
    }

    /// Seals `plain` under the current key. `context` (for a credential: its id) must be given again to open it.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system's random source fails.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Sealed, SealError> {
        let key = self.keys.first().ok_or(SealError::BadKey)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SealError::Random)?;
        let mut body = plain.to_vec();
        key.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut body)
            .map_err(|_| SealError::Malformed)?;
        let mut sealed = Vec::with_capacity(HEADER_LEN + body.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(&nonce);
        sealed.append(&mut body);
        Ok(Sealed(sealed))
    }

    /// Opens what [`Keyring::seal`] made with the same context.
    ///
    /// # Errors
    /// When the value is malformed, altered, of another context, or sealed with a key that is not here.
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let (header, body) = sealed.0.split_at_checked(HEADER_LEN).ok_or(SealError::Malformed)?;
        if header[0] != VERSION {
            return Err(SealError::Malformed);
        }
        let (key_id, nonce) = header[1..].split_at(KEY_ID_LEN);
        let key = self
            .keys
            .iter()
            .find(|key| key.id == key_id)
            .ok_or_else(|| SealError::UnknownKey(hex(key_id)))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Malformed)?;
        let mut body = body.to_vec();
        let length =
            key.key.open_in_place(nonce, Aad::from(context), &mut body).map_err(|_| SealError::Forged)?.len();
        body.truncate(length);
        Ok(body)
    }
}

impl SealKey {
    fn parse(text: &str) -> Result<Self, SealError> {
        let bytes = unhex(text).filter(|bytes| bytes.len() == 32).ok_or(SealError::BadKey)?;
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..KEY_ID_LEN]);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| SealError::BadKey)?;
        Ok(Self { id, key: LessSafeKey::new(key), marks: marker::key(&bytes) })
    }
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> Keyring {
        Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap()
    }

    #[test]
    fn opens_what_it_sealed_in_the_same_context_only() {
        let keyring = keyring();
        let sealed = keyring.seal(b"credential-1", b"sk-live").unwrap();
        assert_eq!(keyring.open(b"credential-1", &sealed).unwrap(), b"sk-live");
        assert_eq!(keyring.open(b"credential-2", &sealed), Err(SealError::Forged));
        assert!(!sealed.as_bytes().windows(7).any(|window| window == b"sk-live"));
    }

    #[test]
    fn altered_values_do_not_open() {
        let keyring = keyring();
        let sealed = keyring.seal(b"c", b"secret").unwrap();
        for at in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(keyring.open(b"c", &Sealed::from_bytes(bytes)).is_err(), "byte {at}");
        }
        assert_eq!(keyring.open(b"c", &Sealed::from_bytes(vec![1, 2])), Err(SealError::Malformed));
    }

    #[test]
    fn older_keys_still_open_after_a_rotation() {
        let (old, new) = (Keyring::generate_key().unwrap(), Keyring::generate_key().unwrap());
        let sealed = Keyring::parse(old.expose()).unwrap().seal(b"c", b"secret").unwrap();
        let both = Keyring::parse(&format!("{} {}", new.expose(), old.expose())).unwrap();
        assert_eq!(both.open(b"c", &sealed).unwrap(), b"secret");
        let only_new = Keyring::parse(new.expose()).unwrap();
        assert!(matches!(only_new.open(b"c", &sealed), Err(SealError::UnknownKey(_))));
        assert_ne!(both.seal(b"c", b"x").unwrap().key_id(), sealed.key_id());
    }

    #[test]
    fn secrets_never_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("canary")), "Secret(…)");
        let key = Keyring::generate_key().unwrap();
        assert!(!format!("{:?}", Keyring::parse(key.expose()).unwrap()).contains(key.expose()));
    }

    #[test]
    fn malformed_keys_are_refused() {
        for text in ["", "abc", &"g".repeat(64), &"a".repeat(62)] {
            assert_eq!(Keyring::parse(text).unwrap_err(), SealError::BadKey, "{text}");
        }
    }
}
