//! Responses that go on from earlier ones: what a provider keeps or encrypts can only be used where it was made, so that
//! ids carry their deployment ([`nemo_llm::providers::responses::affinity`]). Read here on the way in, where it decides who
//! gets the request; put into answers by [`super::respond`], [`super::feed`] and [`super::crossing`].

use bytes::Bytes;
use nemo_llm::{
    Endpoint,
    providers::responses::affinity::{self, Rewriter},
};
use nemo_types::DeploymentId;

use super::{
    error::{GatewayError, Kind},
    route::ALL_COOLING,
};
use crate::routing::{Decision, Reason};

/// The only deployment that can answer a request.
#[derive(Debug)]
pub struct Bound {
    tag: Box<str>,
    /// Where in the request that is said.
    place: String,
}

/// `error.code` when it is not there any more.
const GONE: &str = "response_not_available";

/// What a deployment is called in ids.
pub fn tag(id: DeploymentId) -> String {
    id.0.simple().to_string()
}

/// Puts the deployment's tag into an answer, whole or streamed.
pub fn rewriter(id: DeploymentId, streams: bool) -> Rewriter {
    let tag = tag(id);
    if streams { Rewriter::stream(&tag) } else { Rewriter::answer(&tag) }
}

/// A body, and the only one who can answer it, if there is one.
type Unbound = (Bytes, Option<Box<Bound>>);

/// The body as the provider knows it, and who that has to be.
///
/// # Errors
/// 400 when it has to be several.
pub fn unbind(endpoint: Endpoint, body: Bytes) -> Result<Unbound, GatewayError> {
    if endpoint != Endpoint::Responses {
        return Ok((body, None));
    }
    Ok(unbound(&body)?.unwrap_or((body, None)))
}

/// `None`: nothing in it is tagged.
fn unbound(body: &Bytes) -> Result<Option<Unbound>, GatewayError> {
    let tagged = affinity::read_request(body).map_err(super::crossing::refused)?;
    if tagged.cuts.is_empty() {
        return Ok(None);
    }
    let mut bound = None::<Box<Bound>>;
    for binding in tagged.firm() {
        match &bound {
            None => bound = Some(Box::new(Bound { tag: binding.tag.into(), place: binding.place() })),
            Some(first) if *first.tag != *binding.tag => {
                let (one, other) = (&first.place, binding.place());
                let message = format!(
                    "`{one}` and `{other}` are from different deployments, and only the one that made a response can go \
                     on from it."
                );
                return Err(GatewayError::new(Kind::InvalidRequest, message).param(other));
            }
            Some(_) => {}
        }
    }
    let whole = affinity::cut(body, &tagged.cuts).concat();
    Ok(Some((whole.into(), bound)))
}

impl Bound {
    /// Leaves nobody else among the candidates.
    ///
    /// # Errors
    /// 400 when the deployment is none of them; 503 when it is cooling down.
    pub fn keep(&self, decision: &mut Decision) -> Result<(), GatewayError> {
        let is_it = |id: DeploymentId| tag(id) == *self.tag;
        decision.picks.retain(|pick| is_it(pick.deployment.id));
        if !decision.picks.is_empty() {
            return Ok(());
        }
        let place = &self.place;
        let cooling = decision.eliminated.iter().find_map(|it| match it.reason {
            Reason::Cooling { remaining_ms, .. } if is_it(it.deployment.id) => Some(remaining_ms),
            _ => None,
        });
        let refused = match cooling {
            Some(remaining_ms) => {
                let message = format!("The deployment that made `{place}` is cooling down after failures.");
                let error = GatewayError::new(Kind::NoHealthyDeployment, message);
                let wait = u64::from(remaining_ms).div_ceil(1000).max(1);
                GatewayError { code: Some(ALL_COOLING), retry_after_secs: Some(wait), ..error }
            }
            None => {
                let message = format!(
                    "`{place}` goes on from a response of a deployment that does not serve this model any more. Send the \
                     whole conversation in `input`, without ids and encrypted content of earlier answers."
                );
                GatewayError { code: Some(GONE), ..GatewayError::new(Kind::InvalidRequest, message) }
            }
        };
        Err(refused.param(self.place.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_tags_is_not_touched() {
        let body = Bytes::from_static(br#"{"input":"nemo.x","previous_response_id":"resp_1"}"#);
        let (same, bound) = unbind(Endpoint::Responses, body.clone()).unwrap();
        assert_eq!((same.as_ptr(), bound.is_none()), (body.as_ptr(), true));
        let chat = Bytes::from_static(br#"{"previous_response_id":"resp_nemo.a.b"}"#);
        assert_eq!(unbind(Endpoint::ChatCompletions, chat.clone()).unwrap().0, chat);
    }

    #[test]
    fn what_two_deployments_have_made_is_refused() {
        let body = Bytes::from_static(
            br#"{"previous_response_id":"resp_nemo.a.1","input":[{"type":"reasoning","encrypted_content":"nemo.b.x"}]}"#,
        );
        let error = unbind(Endpoint::Responses, body).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input[0].encrypted_content"));
        let body = Bytes::from_static(br#"{"previous_response_id":"resp_nemo.a.1","input":"x"}"#);
        let (body, bound) = unbind(Endpoint::Responses, body).unwrap();
        assert_eq!(&body[..], br#"{"previous_response_id":"resp_1","input":"x"}"#);
        assert_eq!(&*bound.unwrap().tag, "a");
    }
}
