//! Sealing of provider credentials (I10), and of the answers that idempotency keys repeat. Called by the admin operations before a secret reaches the store; the nodes
//! open what is sealed here with the same keys and the credential's id as context.

use std::sync::Arc;

use nemo_types::{CredentialId, Keyring, SealError, Sealed, Secret};

/// Secrets shorter than this show no hint: four characters of them would say too much.
const MIN_HINTED: usize = 12;

/// A secret ready to be stored.
#[derive(Debug)]
pub struct SealedSecret {
    pub sealed: Sealed,
    /// Last four characters, or empty.
    pub hint: String,
}

/// Seals with the current key of the ring.
#[derive(Clone, Debug)]
pub struct Sealer(Arc<Keyring>);

impl Sealer {
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self(keyring)
    }

    /// # Errors
    /// When the system's random source fails.
    pub fn seal(&self, id: CredentialId, secret: &Secret) -> Result<SealedSecret, SealError> {
        let sealed = self.0.seal(id.as_bytes(), secret.expose().as_bytes())?;
        Ok(SealedSecret { sealed, hint: hint(secret.expose()) })
    }

    /// Seals what only the control plane opens again, under a context that says what it is.
    ///
    /// # Errors
    /// When the system's random source fails.
    pub fn seal_record(&self, context: &[u8], record: &[u8]) -> Result<Sealed, SealError> {
        self.0.seal(context, record)
    }

    /// Opens what [`Sealer::seal_record`] made with the same context.
    ///
    /// # Errors
    /// When it was made with another context, or with a key that is not in the ring any more.
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        self.0.open(context, sealed)
    }
}

/// Key files end with line breaks, which nobody wants to see in a table.
fn hint(secret: &str) -> String {
    let visible = || secret.chars().filter(|letter| !letter.is_whitespace());
    let length = visible().count();
    if length < MIN_HINTED { String::new() } else { visible().skip(length - 4).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_open_with_the_credential_id_and_nothing_else() {
        let keyring = Arc::new(Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap());
        let (id, other) = (CredentialId::generate(), CredentialId::generate());
        let secret = Sealer::new(keyring.clone()).seal(id, &Secret::new("sk-live-1234567890")).unwrap();
        assert_eq!(keyring.open(id.as_bytes(), &secret.sealed).unwrap(), b"sk-live-1234567890");
        assert!(keyring.open(other.as_bytes(), &secret.sealed).is_err());
        assert_eq!(secret.hint, "7890");
    }

    #[test]
    fn short_secrets_show_no_hint() {
        assert_eq!(hint("12345678901"), "");
        assert_eq!(hint("123456789012"), "9012");
        // Characters, not bytes: the column holds four characters.
        assert_eq!(hint("ééééééééééèô"), "ééèô");
        assert_eq!(hint("{\n  \"private_key\": \"x\"\n}"), "\"x\"}");
    }
}
