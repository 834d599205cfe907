//! What a certificate of ours is good for, as a client sees it: under which name a port can be reached, and whether
//! clients trust it by themselves. Called by `nemo standalone` for what it prints.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _, verify_server_name},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{Identity, TlsError, files, provider};
use crate::clock;

/// How a client reaches a port that shows a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// As it stands in a URL: an IPv6 address is in brackets.
    pub host: String,
    /// `host` is a name of the certificate that may lead elsewhere than to this machine.
    pub foreign_name: bool,
    /// Its chain ends at a public authority.
    pub trusted: bool,
}

/// Of the names under which `addr` can be asked for, the first that the certificate has: the address itself,
/// `localhost`, a name of the certificate; else the address, which clients refuse.
///
/// # Errors
/// When the certificate can't be read.
pub fn reach(identity: &Identity, addr: SocketAddr) -> Result<Reach, TlsError> {
    let chain = files::certificates(&identity.cert)?;
    let leaf = chain.first().ok_or_else(|| files::empty(&identity.cert))?;
    let parsed = ParsedCertificate::try_from(leaf)
        .map_err(|error| TlsError::Unusable { cert: identity.cert.clone(), error })?;
    let has = |name: &ServerName<'_>| verify_server_name(&parsed, name).is_ok();
    let address = (ServerName::from(addr.ip()), url_host(addr.ip()), false);
    let local = addr.ip().to_canonical().is_loopback();
    let localhost = local.then_some("localhost").into_iter().map(|name| (name, false));
    let names = own_names(leaf);
    let named = localhost.chain(names.iter().map(|name| (name.as_str(), true)));
    let named = named.filter_map(|(text, foreign)| {
        Some((ServerName::try_from(text).ok()?.to_owned(), text.to_owned(), foreign))
    });
    let found = std::iter::once(address.clone()).chain(named).find(|(name, ..)| has(name));
    let (name, host, foreign_name) = found.unwrap_or(address);
    Ok(Reach { host, foreign_name, trusted: publicly_trusted(&chain, &name) })
}

fn url_host(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// Names of other machines too. Without wildcards, which stand for no host.
fn own_names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok(leaf) = webpki::EndEntityCert::try_from(leaf) else { return Vec::new() };
    leaf.valid_dns_names()
        .filter(|name| !name.contains('*') && *name != "localhost")
        .map(str::to_owned)
        .collect()
}

fn publicly_trusted(chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let now = UnixTime::since_unix_epoch(Duration::from_micros(clock::unix_us().unsigned_abs()));
    match (chain.split_first(), verifier) {
        (Some((leaf, rest)), Ok(verifier)) => verifier.verify_server_cert(leaf, rest, name, &[], now).is_ok(),
        _ => false,
    }
}
