//! Why an attempt brought no answer: what the client is told if it was the last, what the others are to do, and what
//! health learns of it. Made by [`super::dispatch`] and [`super::respond`], judged by [`super::attempts`].

use std::time::Duration;

use nemo_llm::UpstreamErrorInfo;
use nemo_types::{Nanos, Usage};

use super::{
    error::{GatewayError, Kind},
    timeouts::Waited,
};
use crate::{
    health::{FailureClass, Refused},
    upstream::{CallError, SegmentBody, Verdict},
};

/// See the module. Rare, so it is boxed wherever it is returned.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    /// `error.code`, where it is not the kind's own.
    pub code: Option<&'static str>,
    /// What the upstream did, as the rest of a sentence.
    pub what: &'static str,
    /// In its own words, which are not for the log (I10).
    pub said: Option<String>,
    /// 0: there was no answer.
    pub status: u16,
    /// For `x-nemo-chain` and the request log, where the status does not say it.
    pub label: &'static str,
    /// When the upstream says to come back.
    pub hint: Option<Duration>,
    /// `None`: no fault of the upstream's.
    pub class: Option<FailureClass>,
    /// Whether the same upstream may be asked again: the fault may have been a passing one.
    pub again: bool,
    /// Only a model with a larger context window is worth asking.
    pub larger_than: Option<u64>,
    /// The request's body, when nothing of it was sent.
    pub unsent: Option<SegmentBody>,
    /// What it reported of its consumption before it failed.
    pub usage: Option<Usage>,
    pub provider_cost: Option<Nanos>,
    /// What the client is told, where that is known already.
    pub refused: Option<Box<GatewayError>>,
}

impl Failure {
    fn new(kind: Kind, label: &'static str, what: &'static str) -> Self {
        Self {
            kind,
            code: None,
            what,
            said: None,
            status: 0,
            label,
            hint: None,
            class: None,
            again: false,
            larger_than: None,
            unsent: None,
            usage: None,
            provider_cost: None,
            refused: None,
        }
    }

    /// The routing was wrong: not the upstream's fault.
    pub fn unserved() -> Box<Self> {
        Box::new(Self::new(Kind::Internal, "not_served", "does not serve this endpoint"))
    }

    /// The request can't be put into this candidate's words: nothing was sent, and nobody is at fault but perhaps the
    /// client.
    pub fn unmade(refused: GatewayError) -> Self {
        let failure = Self::new(Kind::InvalidRequest, "unsupported", "can't do what the request asks for");
        Self { refused: Some(Box::new(refused)), ..failure }
    }

    /// The upstream refuses a piece of the request, for what is in it: another candidate may take it.
    pub fn piece_refused(said: UpstreamErrorInfo) -> Box<Self> {
        let what = said.message.unwrap_or_else(|| "it did not say why".to_owned());
        let told = GatewayError::new(
            Kind::InvalidRequest,
            format!("The upstream refused a part of the request: {what}"),
        );
        let failure = Self::new(Kind::InvalidRequest, "refused", "refused a part of the request");
        Box::new(Self { refused: Some(Box::new(told)), ..failure })
    }

    /// This node has no room for it now: nothing was sent. Another candidate may need none.
    pub fn crowded(refused: GatewayError) -> Self {
        let failure = Self::new(Kind::Overloaded, "overloaded", "was not asked");
        Self { refused: Some(Box::new(refused)), ..failure }
    }

    /// There is no token yet that proves who sends the request.
    pub fn unsigned() -> Box<Self> {
        let what = "has a credential for which no token can be had";
        let failure = Self::new(Kind::UpstreamCredential, "credential", what);
        Box::new(Self { class: Some(FailureClass::Credential), ..failure })
    }

    /// It answered with what is no answer.
    pub fn protocol(what: &'static str) -> Box<Self> {
        let class = Some(FailureClass::Server);
        let failure = Self::new(Kind::UpstreamProtocol, "protocol", what);
        Box::new(Self { status: 200, class, again: true, ..failure })
    }

    /// Since the decision was made the deployment has begun to cool down.
    pub fn cooling(refused: Refused) -> Box<Self> {
        let what = "is cooling down after failures";
        let hint = Some(Duration::from_millis(refused.remaining_ms));
        Box::new(Self { hint, ..Self::new(Kind::NoHealthyDeployment, "cooling", what) })
    }

    /// There was no answer. `waited` is what a timeout was a timeout of; `hurried`: by the client's own wish.
    pub fn unanswered(error: CallError, waited: Waited, hurried: bool) -> Box<Self> {
        let (kind, class, what) = match error {
            CallError::Timeout => return Self::timed_out(waited, hurried),
            CallError::ConnectTimeout => return Self::timed_out(Waited::Connect, hurried),
            CallError::Connect => (Kind::UpstreamUnavailable, FailureClass::Connect, "could not be reached"),
            CallError::OutOfReach => (
                Kind::UpstreamUnavailable,
                FailureClass::Connect,
                "is at an address that an organization's own deployments may not have",
            ),
            CallError::Broken => {
                (Kind::UpstreamUnavailable, FailureClass::Interrupted, "broke the connection")
            }
            CallError::Protocol => {
                (Kind::UpstreamProtocol, FailureClass::Server, "sent something that is no HTTP")
            }
        };
        let again = error != CallError::OutOfReach;
        Box::new(Self { class: Some(class), again, ..Self::new(kind, error.label(), what) })
    }

    /// Who was slow once is not waited for again. A client that is in a hurry says nothing about the upstream.
    pub fn timed_out(waited: Waited, hurried: bool) -> Box<Self> {
        let blameless = hurried && waited == Waited::Total;
        let class = if waited == Waited::Connect { FailureClass::Connect } else { FailureClass::Timeout };
        Box::new(Self {
            code: Some(waited.code()),
            class: (!blameless).then_some(class),
            ..Self::new(Kind::UpstreamTimeout, "timeout", waited.what())
        })
    }

    /// An answer that is no success, with its body; `None` when it is to be passed on.
    pub fn refused(
        status: u16,
        verdict: Verdict,
        said: UpstreamErrorInfo,
        hint: Option<Duration>,
    ) -> Option<Box<Self>> {
        Self::judged(verdict, status, hint, said)
    }

    /// An error inside a success, before the first content; `None` when it is to be passed on.
    pub fn told(said: UpstreamErrorInfo, verdict: Verdict) -> Option<Box<Self>> {
        let mut failure = Self::judged(verdict, 200, None, said)?;
        if failure.kind == Kind::UpstreamUnavailable {
            failure.label = "error_event";
        }
        Some(failure)
    }

    fn judged(
        verdict: Verdict,
        status: u16,
        hint: Option<Duration>,
        said: UpstreamErrorInfo,
    ) -> Option<Box<Self>> {
        let failure = match verdict {
            Verdict::Success | Verdict::ClientFault => return None,
            // What a provider says about a credential is not the client's business.
            Verdict::CredentialFault => Self {
                class: Some(FailureClass::Credential),
                ..Self::new(Kind::UpstreamCredential, "credential", "refused the gateway's credential")
            },
            Verdict::RateLimited => Self {
                class: Some(FailureClass::RateLimited),
                said: said.message,
                ..Self::new(Kind::UpstreamRateLimited, "rate_limited", "is limiting the rate of requests")
            },
            Verdict::Failure => Self {
                class: Some(FailureClass::Server),
                again: true,
                said: said.message,
                ..Self::new(Kind::UpstreamUnavailable, "failed", "failed")
            },
        };
        Some(Box::new(Self { status, hint, ..failure }))
    }

    /// The request is longer than what a model with this context window takes.
    pub fn too_long(status: u16, window: u64) -> Box<Self> {
        let what = "says that the request is too long for the model's context";
        let failure = Self::new(Kind::InvalidRequest, "context_length_exceeded", what);
        Box::new(Self { status, larger_than: Some(window), ..failure })
    }

    /// A success that went wrong before anything of it went to the client.
    pub fn interrupted(label: &'static str, what: &'static str) -> Box<Self> {
        Box::new(Self {
            status: 200,
            class: Some(FailureClass::Interrupted),
            again: true,
            ..Self::new(Kind::UpstreamInterrupted, label, what)
        })
    }

    /// Whether it was sent, and nobody knows what it has cost: there was no answer, or none that came to its end.
    pub fn is_ambiguous(&self) -> bool {
        let sent = self.unsent.is_none() && self.class != Some(FailureClass::Connect);
        let ours = matches!(
            self.kind,
            Kind::NoHealthyDeployment | Kind::Internal | Kind::InvalidRequest | Kind::Overloaded
        );
        let told = self.said.is_some() || self.label == "error_event";
        sent && !ours && !told && matches!(self.status, 0 | 200)
    }

    /// How `x-nemo-chain` and `error.metadata.attempts` call it.
    pub fn error(&self) -> &'static str {
        self.label
    }

    /// What the client is told when this was all that was tried.
    pub fn into_error(self, deployment: &str) -> GatewayError {
        if let Some(refused) = self.refused {
            return *refused;
        }
        let what = format!("The upstream {deployment} {}", self.what);
        let (message, unquoted) = match self.said {
            Some(said) => (format!("{what}: {said}"), Some(format!("{what}.").into())),
            None => (format!("{what}."), None),
        };
        GatewayError { code: self.code, unquoted, ..GatewayError::new(self.kind, message) }
    }
}
