//! What a provider keeps or encrypts can only be used where it was made, so that ids carry their deployment
//! ([`nemo_llm::providers::responses::affinity`]): of responses and their items, and of videos. Read here on the way in,
//! where it decides who gets the request; put into answers by [`super::respond`], [`super::feed`], [`super::crossing`] and
//! [`super::stored`].
//!
//! An account at a provider may serve several organizations, and whoever knows an id can read there what it names. So ids
//! are sealed for the organization that has got them, and where an account is not an organization's own, only its own ids
//! are taken. What that does not do: keep apart the keys and teams of one organization.

use std::sync::Arc;

use bytes::Bytes;
use nemo_llm::{
    Endpoint, Plan,
    providers::responses::affinity::{self, Binding, Rewriter, Sealed, Tagger},
};
use nemo_snapshot::Deployment;
use nemo_types::{DeploymentId, Marker, OrgId};
use uuid::Uuid;

use super::{
    context::RequestContext,
    error::{GatewayError, Kind},
    route::ALL_COOLING,
};
use crate::{
    config::Live,
    routing::{Decision, Reason},
};

/// Whose ids count.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub ids: &'a Marker,
    pub org: OrgId,
}

/// Where something is that a provider keeps.
#[derive(Debug)]
pub struct Kept {
    pub deployment: DeploymentId,
    /// What the provider calls it.
    pub id: String,
    /// Writes the same ids again.
    pub tagger: Tagger,
}

impl Owner<'_> {
    /// Where this id leads; `None` when it is none that the owner was given.
    pub fn open(self, id: &str) -> Option<Kept> {
        let sealed = Sealed::read(id)?;
        let key = sealed.check(self.ids, self.org.as_bytes())?;
        let deployment = DeploymentId(Uuid::try_parse(sealed.base).ok()?);
        let tagger = Tagger::sealing(sealed.base, self.ids.clone(), key, self.org.as_bytes());
        Some(Kept { deployment, id: sealed.id, tagger })
    }
}

/// The only deployment that can answer a request.
#[derive(Debug)]
pub struct Bound {
    /// `None`: what the request names is kept nobody knows where.
    tag: Option<Box<str>>,
    /// Where in the request that is said.
    place: String,
    /// What the request names without a proof that it may, if there is something.
    unproven: Option<String>,
}

/// `error.code` when it is not there any more.
const GONE: &str = "response_not_available";

/// What a deployment is called in ids.
pub fn tag(id: DeploymentId) -> String {
    id.0.simple().to_string()
}

/// What tags the answer to this request; `None`: nothing in it is kept.
pub fn tagger(live: &Live, context: &RequestContext) -> Option<Tagger> {
    if !matches!(context.endpoint, Endpoint::Responses | Endpoint::Videos) {
        return None;
    }
    let (deployment, key) = (context.deployment.as_ref()?, context.key.as_ref()?);
    Some(Tagger::sealing(&tag(deployment.id), live.ids.clone(), 0, key.org_id.as_bytes()))
}

/// A whole answer with its ids tagged.
pub fn tagged<'a>(tagger: Tagger, frames: impl IntoIterator<Item = &'a Bytes>) -> Vec<Bytes> {
    let mut rewriter = Rewriter::answer(tagger);
    let mut rewritten: Vec<Bytes> = frames.into_iter().flat_map(|frame| rewriter.push(frame)).collect();
    rewritten.extend(rewriter.finish());
    rewritten
}

/// A body, and the only one who can answer it, if there is one.
type Unbound = (Bytes, Option<Box<Bound>>);

/// The body as the provider knows it, and who that has to be.
///
/// # Errors
/// 400 when it has to be several.
pub fn unbind(endpoint: Endpoint, body: Bytes, owner: Owner<'_>) -> Result<Unbound, GatewayError> {
    if endpoint != Endpoint::Responses {
        return Ok((body, None));
    }
    let tagged = affinity::read_request(&body).map_err(super::crossing::refused)?;
    let mut bound = None::<Box<Bound>>;
    for binding in tagged.firm() {
        let next = Bound::new(binding, owner);
        match &mut bound {
            None => bound = Some(Box::new(next)),
            Some(bound) => bound.join(next)?,
        }
    }
    if tagged.cuts.is_empty() {
        return Ok((body.clone(), bound));
    }
    let whole = affinity::cut(&body, &tagged.cuts).concat();
    Ok((whole.into(), bound))
}

impl Bound {
    fn new(binding: &Binding<'_>, owner: Owner<'_>) -> Self {
        let proven = !binding.bound.is_kept() || owner.open(binding.text).is_some();
        let place = binding.place();
        Self {
            tag: binding.tag.map(|tag| affinity::base(tag).into()),
            unproven: (!proven).then(|| place.clone()),
            place,
        }
    }

    /// # Errors
    /// 400 when the two are kept in different places.
    fn join(&mut self, other: Self) -> Result<(), GatewayError> {
        if self.unproven.is_none() {
            self.unproven = other.unproven;
        }
        match (&self.tag, other.tag) {
            (_, None) => {}
            (None, tag) => (self.tag, self.place) = (tag, other.place),
            (Some(one), Some(tag)) if **one == *tag => {}
            (Some(_), Some(_)) => {
                let (one, other) = (&self.place, other.place);
                let message = format!(
                    "`{one}` and `{other}` are from different deployments, and only the one that made a response can go \
                     on from it."
                );
                return Err(GatewayError::new(Kind::InvalidRequest, message).param(other));
            }
        }
        Ok(())
    }

    /// Leaves nobody else among the candidates.
    ///
    /// # Errors
    /// 400 when the deployment is none of them, or the id none of this organization's; 503 when it is cooling down.
    pub fn keep(&self, decision: &mut Decision, live: &Live, org: OrgId) -> Result<(), GatewayError> {
        self.keep_tagged(decision)?;
        let Some(place) = &self.unproven else { return Ok(()) };
        let would_tell = |deployment: &Arc<Deployment>| {
            let upstream = live.upstreams.get(deployment.slot);
            let keeps = upstream.is_some_and(|it| matches!(it.plan(Endpoint::Responses), Some(Plan::Splice)));
            keeps && deployment.org_id != Some(org)
        };
        decision.picks.retain(|pick| !would_tell(&pick.deployment));
        if !decision.picks.is_empty() {
            return Ok(());
        }
        let message = format!(
            "`{place}` is no id that this gateway has given to this organization. Use the ids of its own answers as they \
             are, or send the whole conversation in `input`."
        );
        let refused = GatewayError { code: Some(GONE), ..GatewayError::new(Kind::InvalidRequest, message) };
        Err(refused.param(place.clone()))
    }

    fn keep_tagged(&self, decision: &mut Decision) -> Result<(), GatewayError> {
        let Some(wanted) = &self.tag else { return Ok(()) };
        let is_it = |id: DeploymentId| tag(id) == **wanted;
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

    fn marker() -> Marker {
        nemo_types::Keyring::parse(&"5a".repeat(32)).unwrap().marker()
    }

    fn unbound(endpoint: Endpoint, body: &Bytes, org: OrgId) -> Result<Unbound, GatewayError> {
        unbind(endpoint, body.clone(), Owner { ids: &marker(), org })
    }

    #[test]
    fn a_request_without_tags_is_not_touched() {
        let org = OrgId::generate();
        let body = Bytes::from_static(br#"{"input":"nemo.x","previous_response_id":null}"#);
        let (same, bound) = unbound(Endpoint::Responses, &body, org).unwrap();
        assert_eq!((same.as_ptr(), bound.is_none()), (body.as_ptr(), true));
        let chat = Bytes::from_static(br#"{"previous_response_id":"resp_nemo.a.b"}"#);
        let (same, bound) = unbound(Endpoint::ChatCompletions, &chat, org).unwrap();
        assert_eq!((same, bound.is_none()), (chat, true));
    }

    #[test]
    fn what_two_deployments_have_made_is_refused() {
        let org = OrgId::generate();
        let body = Bytes::from_static(
            br#"{"previous_response_id":"resp_nemo.a.1","input":[{"type":"reasoning","encrypted_content":"nemo.b.x"}]}"#,
        );
        let error = unbound(Endpoint::Responses, &body, org).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("input[0].encrypted_content"));
        let body = Bytes::from_static(br#"{"previous_response_id":"resp_nemo.a.1","input":"x"}"#);
        let (body, bound) = unbound(Endpoint::Responses, &body, org).unwrap();
        assert_eq!(&body[..], br#"{"previous_response_id":"resp_1","input":"x"}"#);
        assert_eq!(bound.unwrap().tag.as_deref(), Some("a"));
    }

    /// One tenant can't read what another has had made, whatever it knows of it.
    #[test]
    fn only_the_organization_that_got_an_id_has_it_proven() {
        let (org, other, deployment) = (OrgId::generate(), OrgId::generate(), DeploymentId::generate());
        let tagger = Tagger::sealing(&tag(deployment), marker(), 0, org.as_bytes());
        let answer = Bytes::from_static(br#"{"id":"resp_abc"}"#);
        let answer: serde_json::Value = serde_json::from_slice(&tagged(tagger, [&answer]).concat()).unwrap();
        let id = answer["id"].as_str().unwrap();
        let kept = Owner { ids: &marker(), org }.open(id).unwrap();
        assert_eq!((kept.deployment, &*kept.id), (deployment, "resp_abc"));
        assert!(Owner { ids: &marker(), org: other }.open(id).is_none());
        let place = Some("previous_response_id");
        let unproven = |id: &str, org: OrgId| {
            let body = Bytes::from(format!(r#"{{"previous_response_id":"{id}"}}"#));
            unbound(Endpoint::Responses, &body, org).unwrap().1.unwrap().unproven
        };
        assert_eq!(unproven(id, org), None);
        assert_eq!(unproven(id, other).as_deref(), place);
        assert_eq!(unproven("resp_abc", org).as_deref(), place);
        assert_eq!(unproven(&format!("resp_nemo.{}.abc", tag(deployment)), org).as_deref(), place);
    }
}
