//! Bearer tokens of an OpenID Connect issuer: any that has a discovery document and signs with a public key.
//!
//! - [`settings`]: which issuer, which audience, which claims, which groups are which role
//! - [`discovery`]: fetches the issuer's keys
//! - [`source`]: keeps them, in the background
//! - [`keys`] and [`ring_provider`]: what a key set is good for; signatures
//! - [`token`]: what makes a token acceptable
//!
//! Called by `admin/auth.rs` for bearer tokens that are no admin tokens; run by `app.rs`. What a person may do is not
//! decided here.

mod discovery;
mod keys;
mod ring_provider;
pub mod settings;
mod source;
pub mod token;

#[cfg(test)]
mod tests;

use nemo_runtime::drain::DrainWatcher;

pub use settings::{OidcError, OidcOptions, OidcSettings};
pub use token::Identity;

use self::{
    discovery::IssuerClient,
    source::KeySource,
    token::{Policy, Refusal},
};
use super::{AdminError, ErrorKind};

/// One issuer. Clones share its keys.
#[derive(Clone)]
pub struct Oidc {
    policy: std::sync::Arc<Policy>,
    settings: std::sync::Arc<OidcSettings>,
    keys: KeySource,
}

impl std::fmt::Debug for Oidc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Oidc").field("issuer", &self.settings.issuer).finish_non_exhaustive()
    }
}

impl Oidc {
    /// # Errors
    /// When the file of certificate authorities can't be used.
    pub fn new(settings: OidcSettings) -> Result<Self, OidcError> {
        ring_provider::install();
        let client = IssuerClient::new(&settings)?;
        let policy = Policy::of(&settings);
        Ok(Self {
            policy: std::sync::Arc::new(policy),
            settings: std::sync::Arc::new(settings),
            keys: KeySource::new(client),
        })
    }

    pub fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// Keeps the issuer's keys up to date until the drain.
    pub async fn run(self, drain: DrainWatcher) {
        tokio::select! {
            () = self.keys.run() => {}
            () = drain.signaled() => {}
        }
    }

    /// Who the token is about.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] when the token is not acceptable, [`ErrorKind::Unavailable`] when that can't be
    /// told because the issuer's keys are not at hand.
    pub async fn identify(&self, token: &str) -> Result<Identity, AdminError> {
        let now = nemo_runtime::clock::unix_us() / 1_000_000;
        let mut tried = self.keys.current();
        let mut refreshed = false;
        loop {
            let outcome = match &tried.keys {
                Some(keys) => token::verify(token, keys, &self.policy, now),
                None => Err(Refusal::UnknownKey),
            };
            match outcome {
                Ok(identity) => return Ok(identity),
                Err(Refusal::UnknownKey) if !refreshed => {
                    // It may be newer than what we have.
                    refreshed = true;
                    tried = self.keys.newer_than(&tried).await;
                }
                Err(Refusal::UnknownKey) if tried.keys.is_none() || tried.failing => {
                    return Err(self.unavailable(tried.keys.is_none()));
                }
                Err(refusal) => return Err(self.refused(&refusal)),
            }
        }
    }

    fn unavailable(&self, none_yet: bool) -> AdminError {
        let issuer = &self.settings.issuer;
        let message = if none_yet {
            format!("the keys of {issuer} have not been fetched yet, so its tokens can't be checked")
        } else {
            format!("the token's key is new, and {issuer} can't be asked for it at the moment")
        };
        AdminError::new(ErrorKind::Unavailable, message)
    }

    fn refused(&self, refusal: &Refusal) -> AdminError {
        let OidcSettings { issuer, audiences, .. } = &*self.settings;
        let expected = format!("an admin token, or a valid token of {issuer} for {}", audiences.join(" or "));
        AdminError {
            expected: Some(expected),
            ..AdminError::new(ErrorKind::Unauthenticated, refusal.to_string())
        }
    }
}
