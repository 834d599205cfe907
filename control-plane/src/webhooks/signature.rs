//! Standard Webhooks: `webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body">`, one for each secret that
//! is good, separated by spaces. Pure. Called by [`super::client`] and by the operations that make secrets.

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use nemo_types::{Secret, token::RandomUnavailable};
use ring::{
    hmac,
    rand::{SecureRandom as _, SystemRandom},
};

const PREFIX: &str = "whsec_";
/// As the standard asks for: 24 to 64.
const BYTES: usize = 32;

/// What deliveries to one endpoint are signed with.
pub struct SigningSecret([u8; BYTES]);

impl SigningSecret {
    /// # Errors
    /// When the system's random source fails.
    pub fn generate() -> Result<Self, RandomUnavailable> {
        let mut bytes = [0; BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| RandomUnavailable)?;
        Ok(Self(bytes))
    }

    /// `None`: it has another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As receivers are told it.
    pub fn text(&self) -> Secret {
        Secret::new(format!("{PREFIX}{}", BASE64.encode(self.0)))
    }

    fn sign(&self, message: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        format!("v1,{}", BASE64.encode(hmac::sign(&key, message)))
    }
}

/// Value of `webhook-signature`.
pub fn header(secrets: &[SigningSecret], id: &str, unix_seconds: i64, body: &str) -> String {
    let message = format!("{id}.{unix_seconds}.{body}");
    let signatures: Vec<_> = secrets.iter().map(|secret| secret.sign(message.as_bytes())).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own libraries: the same key (24 bytes there) over the same message.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let key = BASE64.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let message = "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}";
        let signed = BASE64.encode(hmac::sign(&key, message.as_bytes()));
        assert_eq!(signed, "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        // Ours takes the same way with keys of its own length.
        let secret = SigningSecret([7; BYTES]);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; BYTES]);
        let expected = BASE64.encode(hmac::sign(&key, b"msg_1.5.{}"));
        assert_eq!(header(&[secret], "msg_1", 5, "{}"), format!("v1,{expected}"));
    }

    #[test]
    fn each_good_secret_signs() {
        let secrets = [SigningSecret([1; BYTES]), SigningSecret([2; BYTES])];
        let both = header(&secrets, "msg_1", 5, "{}");
        let parts: Vec<_> = both.split(' ').collect();
        assert_eq!(parts.len(), 2);
        assert!(parts[0] != parts[1] && parts.iter().all(|part| part.starts_with("v1,")));
    }

    #[test]
    fn secrets_are_told_in_the_standards_form() {
        let secret = SigningSecret::generate().unwrap();
        let text = secret.text();
        let decoded = BASE64.decode(text.expose().strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(decoded, secret.as_bytes());
        assert!(
            SigningSecret::from_bytes(&decoded).is_some() && SigningSecret::from_bytes(&[0; 31]).is_none()
        );
    }
}
