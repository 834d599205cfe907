//! TLS of every port and of the channel between the planes (rustls with ring).
//!
//! Certificates come from PEM files and are read again when the files change and on SIGHUP ([`reload`]): new
//! connections get the new ones, open ones stay as they are. Without TLS a port may only be reached from its own machine,
//! unless the operator says otherwise ([`check_plaintext`]). Called by both planes' `app.rs`; by `nemo standalone` also
//! to find out how its own ports are reached ([`inspect`]).

mod files;
pub mod inspect;
mod pinned;
mod reload;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::CryptoProvider, server::WebPkiClientVerifier,
};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub use self::{files::TlsError, reload::Reloads};
use self::{
    files::{authorities, identity},
    reload::Reloaded,
};
use crate::drain::DrainWatcher;

/// A certificate chain and its private key, as PEM files. Both paths empty: no TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// The certificate first, then those that signed it.
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Identity {
    /// `None` when neither file is given.
    ///
    /// # Errors
    /// When only one of the two is.
    pub fn given(&self) -> Result<Option<&Self>, TlsError> {
        match (self.cert.as_os_str().is_empty(), self.key.as_os_str().is_empty()) {
            (true, true) => Ok(None),
            (false, false) => Ok(Some(self)),
            (true, false) => Err(TlsError::NoCertificate { key: self.key.clone() }),
            (false, true) => Err(TlsError::NoKey { cert: self.cert.clone() }),
        }
    }
}

/// What a server shows, and whose certificates it asks of clients. Clones share it.
#[derive(Clone)]
pub struct ServerTls(Arc<Reloaded<ServerConfig>>);

/// Whom a client trusts, and what it shows. Clones share it.
#[derive(Clone)]
pub struct ClientTls(Arc<Reloaded<ClientConfig>>);

/// The leaf certificate (DER) that a client showed, already verified. In the extensions of its requests.
#[derive(Clone, Debug)]
pub struct ClientCertificate(pub Arc<[u8]>);

impl ServerTls {
    /// `None` when no certificate is given. With `client_ca`, certificates of clients are verified against it, and
    /// whether one is needed is up to the service: it finds it as [`ClientCertificate`].
    ///
    /// # Errors
    /// When a file can't be read or used.
    pub fn load(identity: &Identity, client_ca: Option<PathBuf>) -> Result<Option<Self>, TlsError> {
        let Some(identity) = identity.given()?.cloned() else { return Ok(None) };
        let watched = [identity.cert.clone(), identity.key.clone()].into_iter().chain(client_ca.clone());
        let watched = watched.collect();
        let make = move || server_config(&identity, client_ca.as_ref());
        Ok(Some(Self(Arc::new(Reloaded::new(watched, make)?))))
    }

    /// How often the files were read again.
    pub fn reloads(&self) -> watch::Receiver<Reloads> {
        self.0.reloads()
    }

    /// For one connection: what is in force now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.current())
    }

    /// Reads the files again whenever they change, and at once on SIGHUP, until `drain`.
    pub async fn watch(self, drain: DrainWatcher) {
        self.0.watch(drain).await;
    }
}

impl ClientTls {
    /// Trusts servers that an authority in `ca` has signed; shows `identity` if there is one.
    ///
    /// # Errors
    /// When a file can't be read or used.
    pub fn load(ca: PathBuf, identity: &Identity) -> Result<Self, TlsError> {
        let identity = identity.given()?.cloned();
        let own = identity.iter().flat_map(|identity| [identity.cert.clone(), identity.key.clone()]);
        let watched = std::iter::once(ca.clone()).chain(own).collect();
        let make = move || client_config(&ca, identity.as_ref());
        Ok(Self(Arc::new(Reloaded::new(watched, make)?)))
    }

    /// Trusts the server that shows the first certificate of this file, under whatever name: for a client that may read
    /// the server's own files, as on the same machine.
    ///
    /// # Errors
    /// When the file can't be read or used.
    pub fn pinned(cert: PathBuf) -> Result<Self, TlsError> {
        let watched = vec![cert.clone()];
        Ok(Self(Arc::new(Reloaded::new(watched, move || pinned::client_config(&cert))?)))
    }

    /// What is in force now, for clients that choose the version of HTTP themselves.
    pub fn config(&self) -> ClientConfig {
        let mut config = self.0.current().as_ref().clone();
        config.alpn_protocols.clear();
        config
    }

    /// For one connection: what is in force now.
    pub fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.0.current())
    }

    /// Reads the files again whenever they change, and at once on SIGHUP, until `drain`.
    pub async fn watch(self, drain: DrainWatcher) {
        self.0.watch(drain).await;
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ServerTls").field(&self.0.files()).finish()
    }
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ClientTls").field(&self.0.files()).finish()
    }
}

/// The one TLS implementation in use.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Certificates of authorities, from a PEM file.
///
/// # Errors
/// When the file can't be read or has none.
pub fn root_store(path: &std::path::Path) -> Result<RootCertStore, TlsError> {
    authorities(path)
}

fn server_config(identity: &Identity, client_ca: Option<&PathBuf>) -> Result<ServerConfig, TlsError> {
    let (chain, key) = self::identity(identity)?;
    let unusable = |error| TlsError::Unusable { cert: identity.cert.clone(), error };
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            // Admin clients share the port and show tokens instead: the node services insist on a certificate.
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::Authority { path: path.clone(), error: error.to_string() })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn client_config(ca: &std::path::Path, identity: Option<&Identity>) -> Result<ClientConfig, TlsError> {
    let unusable = |cert: PathBuf| move |error| TlsError::Unusable { cert, error };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable(ca.to_owned()))?
        .with_root_certificates(authorities(ca)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let (chain, key) = self::identity(identity)?;
            builder.with_client_auth_cert(chain, key).map_err(unusable(identity.cert.clone()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A port that others can reach would speak plaintext.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{option} {addr} can be reached from other machines, so it needs TLS: give {tls_option}, or --allow-plaintext if \
     something in front of it does TLS"
)]
pub struct PlaintextRefused {
    pub option: &'static str,
    pub addr: SocketAddr,
    pub tls_option: &'static str,
}

/// Plaintext stays on this machine, unless the operator allows it elsewhere.
///
/// # Errors
/// [`PlaintextRefused`], naming the options that help.
pub fn check_plaintext(
    (option, addr): (&'static str, SocketAddr),
    (tls_option, tls): (&'static str, &Identity),
    allowed: bool,
) -> Result<(), PlaintextRefused> {
    let private = addr.ip().to_canonical().is_loopback();
    if private || allowed || !tls.cert.as_os_str().is_empty() {
        return Ok(());
    }
    Err(PlaintextRefused { option, addr, tls_option })
}
