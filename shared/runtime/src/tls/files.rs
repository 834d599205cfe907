//! PEM files → certificates and keys, with errors that name the file. Called by [`super`] at start and on reload.

use std::path::{Path, PathBuf};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::Identity;

/// Why TLS can't be set up. One line each.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the key {key} is given without a certificate; give both", key = key.display())]
    NoCertificate { key: PathBuf },
    #[error("the certificate {cert} is given without its key; give both", cert = cert.display())]
    NoKey { cert: PathBuf },
    #[error("cannot read {path}: {error}", path = path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{path} holds no {what} in PEM form{}", detail(.error), path = path.display())]
    Malformed { path: PathBuf, what: &'static str, error: Option<String> },
    #[error("the certificate {cert} does not work with its key: {error}", cert = cert.display())]
    Unusable { cert: PathBuf, error: rustls::Error },
    #[error("the authority in {path} can't be used: {error}", path = path.display())]
    Authority { path: PathBuf, error: String },
}

fn detail(error: &Option<String>) -> String {
    error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Unreadable { path: path.to_owned(), error })
}

const CERTIFICATE: &str = "certificate (BEGIN CERTIFICATE)";

pub(super) fn empty(path: &Path) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), what: CERTIFICATE, error: None }
}

pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let malformed = |error| TlsError::Malformed { path: path.to_owned(), what: CERTIFICATE, error };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(path)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(empty(path)),
        Err(error) => Err(malformed(Some(error.to_string()))),
    }
}

pub(super) fn identity(
    files: &Identity,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| TlsError::Malformed {
        path: files.key.clone(),
        what: "private key (BEGIN PRIVATE KEY)",
        error: Some(error.to_string()),
    })?;
    Ok((certificates(&files.cert)?, key))
}

pub(super) fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Authority { path: path.to_owned(), error: error.to_string() })?;
    }
    Ok(roots)
}
