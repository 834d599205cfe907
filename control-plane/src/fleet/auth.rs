//! Who may speak as a node: whoever presents the node token, a secret that both planes are started with; where there is
//! a PKI, whoever shows a certificate of its authority (the TLS layer has verified it). With both, both are needed.
//!
//! Checked on the config, fleet and usage services that listen on TCP. The in-process transport needs none: whoever
//! holds it is this process.

use std::sync::Arc;

use nemo_runtime::tls::ClientCertificate;
use nemo_types::Secret;
use subtle::ConstantTimeEq as _;
use tonic::{Request, Status, service::Interceptor};

/// A shorter one could be guessed.
const MIN_TOKEN_LEN: usize = 16;

/// The shared secret of the fleet.
#[derive(Clone, Debug)]
pub struct NodeToken(Secret);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node token must have at least {MIN_TOKEN_LEN} visible ASCII characters; \
     `openssl rand -hex 32` makes a good one"
)]
pub struct WeakNodeToken;

impl NodeToken {
    /// # Errors
    /// When it is too short, or can't be sent in a header.
    pub fn new(text: &str) -> Result<Self, WeakNodeToken> {
        let text = text.trim();
        let sendable = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() < MIN_TOKEN_LEN || !sendable {
            return Err(WeakNodeToken);
        }
        Ok(Self(Secret::new(text)))
    }

    /// In constant time for equal lengths; the length is no secret.
    fn matches(&self, presented: &[u8]) -> bool {
        self.0.expose().as_bytes().ct_eq(presented).into()
    }
}

/// Interceptor of the node services. Without a token every caller is let in: only for loopback and in-process.
#[derive(Clone, Debug, Default)]
pub struct NodeAuth {
    token: Option<Arc<NodeToken>>,
    certificates: bool,
}

impl NodeAuth {
    pub fn new(token: Option<NodeToken>) -> Self {
        Self { token: token.map(Arc::new), certificates: false }
    }

    /// Whether nodes must show a certificate.
    pub fn with_certificates(self, certificates: bool) -> Self {
        Self { certificates, ..self }
    }
}

impl Interceptor for NodeAuth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.certificates && request.extensions().get::<ClientCertificate>().is_none() {
            return Err(Status::unauthenticated(
                "this control plane wants a node certificate: start the node with --node-cert and --node-key",
            ));
        }
        let Some(token) = &self.token else { return Ok(request) };
        let presented = request.metadata().get("authorization").map(|value| value.as_bytes());
        let presented = presented.and_then(|value| value.strip_prefix(b"Bearer "));
        match presented {
            Some(presented) if token.matches(presented) => Ok(request),
            Some(_) => Err(Status::unauthenticated(
                "the node token is not the control plane's: compare NEMO_NODE_TOKEN",
            )),
            None => Err(Status::unauthenticated(
                "this control plane wants a node token: set NEMO_NODE_TOKEN on the node",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(auth: &NodeAuth, header: Option<&str>) -> Result<(), tonic::Code> {
        let mut request = Request::new(());
        if let Some(header) = header {
            request.metadata_mut().insert("authorization", header.parse().unwrap());
        }
        auth.clone().call(request).map(drop).map_err(|status| status.code())
    }

    #[test]
    fn only_the_exact_token_is_let_in() {
        let auth = NodeAuth::new(Some(NodeToken::new("0123456789abcdef0123\n").unwrap()));
        assert_eq!(call(&auth, Some("Bearer 0123456789abcdef0123")), Ok(()));
        for header in [
            None,
            Some(""),
            Some("Bearer "),
            Some("0123456789abcdef0123"),
            Some("Bearer 0123456789abcdef012"),
            Some("Bearer 0123456789abcdef01234"),
            Some("Bearer 0123456789abcdef0124"),
        ] {
            assert_eq!(call(&auth, header), Err(tonic::Code::Unauthenticated), "{header:?}");
        }
    }

    #[test]
    fn without_a_token_everyone_is_let_in() {
        assert_eq!(call(&NodeAuth::default(), None), Ok(()));
    }

    #[test]
    fn where_there_is_a_pki_a_certificate_is_needed_and_the_token_still_counts() {
        let auth = NodeAuth::new(Some(NodeToken::new("0123456789abcdef").unwrap())).with_certificates(true);
        assert_eq!(call(&auth, Some("Bearer 0123456789abcdef")), Err(tonic::Code::Unauthenticated));
        let shown = |auth: &NodeAuth| {
            let mut request = Request::new(());
            request.extensions_mut().insert(ClientCertificate(b"der".as_slice().into()));
            auth.clone().call(request).map(drop).map_err(|status| status.code())
        };
        assert_eq!(shown(&auth), Err(tonic::Code::Unauthenticated), "the token is missing");
        assert_eq!(shown(&NodeAuth::default().with_certificates(true)), Ok(()));
    }

    #[test]
    fn weak_tokens_are_refused_and_never_shown() {
        for text in ["", "short", "has a space inside it", "ünïcödeünïcödeünïcöde"] {
            assert_eq!(NodeToken::new(text).unwrap_err(), WeakNodeToken, "{text}");
        }
        let token = NodeToken::new("canary-canary-canary").unwrap();
        assert!(!format!("{:?}", NodeAuth::new(Some(token))).contains("canary"));
    }
}
