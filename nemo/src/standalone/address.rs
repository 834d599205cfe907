//! The ports of `nemo standalone` as clients reach them: which URL, and what `curl` needs to be told for it. Called by
//! [`super::Planes`] for the banner, and by [`super::ready`], which asks the data port itself.

use std::{net::SocketAddr, path::PathBuf};

use bytes::Bytes;
use nemo_runtime::tls::{ClientTls, Identity, inspect};
use nemo_types::Secret;

use crate::{admin_client::reachable, providers::discover};

/// A port that serves.
pub(super) struct Port {
    addr: SocketAddr,
    /// Its certificate, if it speaks TLS.
    tls: Option<(PathBuf, inspect::Reach)>,
}

impl Port {
    /// `bound`: where it listens.
    ///
    /// # Errors
    /// When its certificate can't be read.
    pub(super) fn new(bound: SocketAddr, identity: &Identity) -> anyhow::Result<Self> {
        let addr = reachable(bound);
        let tls = identity
            .given()?
            .map(|identity| anyhow::Ok((absolute(identity), inspect::reach(identity, addr)?)));
        Ok(Self { addr, tls: tls.transpose()? })
    }

    /// Without a path.
    pub(super) fn url(&self) -> String {
        match &self.tls {
            None => format!("http://{}", self.addr),
            Some((_, reach)) => format!("https://{}:{}", reach.host, self.addr.port()),
        }
    }

    /// What `curl` is told before the URL; ends with a space when it is not empty.
    pub(super) fn curl_options(&self) -> String {
        let Some((cert, reach)) = &self.tls else { return String::new() };
        let mut options = String::new();
        if !reach.trusted {
            // Trust in exactly this certificate, which is more than its authority could promise.
            options.push_str(&format!("--cacert {} ", quoted(&cert.to_string_lossy())));
        }
        if reach.foreign_name {
            let (port, ip) = (self.addr.port(), self.addr.ip());
            options.push_str(&format!("--resolve {}:{port}:{ip} ", reach.host));
        }
        options
    }

    /// The body of a successful answer of this port, whatever name is in its certificate.
    ///
    /// # Errors
    /// When there is none.
    pub(super) async fn get(&self, path: &str, key: Option<&Secret>) -> anyhow::Result<Bytes> {
        match &self.tls {
            None => discover::get(&format!("http://{}{path}", self.addr), key).await,
            Some((cert, _)) => {
                let trust = ClientTls::pinned(cert.clone())?;
                discover::get_from(&trust, &format!("https://{}{path}", self.addr), key).await
            }
        }
    }
}

/// Its path, for whoever works in another directory.
pub(super) fn absolute(identity: &Identity) -> PathBuf {
    std::path::absolute(&identity.cert).unwrap_or_else(|_| identity.cert.clone())
}

/// For a shell.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@%".contains(&byte);
    if text.bytes().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(addr: &str, tls: Option<(&str, &str, bool, bool)>) -> Port {
        let tls = tls.map(|(cert, host, foreign_name, trusted)| {
            (PathBuf::from(cert), inspect::Reach { host: host.to_owned(), foreign_name, trusted })
        });
        Port { addr: addr.parse().unwrap(), tls }
    }

    #[test]
    fn urls_and_what_curl_needs_follow_the_certificate() {
        let shown = |port: &Port| (port.url(), port.curl_options());
        let plain = port("127.0.0.1:8080", None);
        assert_eq!(shown(&plain), ("http://127.0.0.1:8080".into(), String::new()));
        let own = port("127.0.0.1:8443", Some(("/etc/nemo/own ca's.pem", "localhost", false, false)));
        assert_eq!(
            shown(&own),
            ("https://localhost:8443".into(), r"--cacert '/etc/nemo/own ca'\''s.pem' ".into())
        );
        let public = port("127.0.0.1:8443", Some(("c.pem", "llm.example.com", true, true)));
        assert_eq!(
            shown(&public),
            ("https://llm.example.com:8443".into(), "--resolve llm.example.com:8443:127.0.0.1 ".into())
        );
    }
}
