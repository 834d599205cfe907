//! Where something is kept, and whether a key may ask for it. No await, no network (I1). Called by [`super`].
//!
//! The id proves which organization has got it. Within that the rule is the one of requests: a key reaches a deployment
//! through the models that it may use. What a request called the model is not known any more, so that a key which is
//! limited to other names of it than the ones it goes by is refused.

use std::sync::Arc;

use nemo_llm::providers::responses::affinity::Tagger;
use nemo_snapshot::{Deployment, KeyRecord, ModelGroup};

use super::{Call, GatewayError, Kind};
use crate::{
    config::{Live, live::Upstream},
    pipeline::affinity::Owner,
};

/// What a call is about, and who has it.
#[derive(Debug)]
pub struct Target<'a> {
    pub deployment: &'a Arc<Deployment>,
    pub upstream: &'a Upstream,
    /// A model that the key may use, and that this deployment serves.
    pub group: &'a Arc<ModelGroup>,
    /// What the provider calls it: safe to stand in a path.
    pub id: String,
    pub tagger: Tagger,
}

impl<'a> Target<'a> {
    /// # Errors
    /// 404 when it is not this organization's, or its deployment is gone; 403 when the key may use none of its models.
    pub fn find(live: &'a Live, key: &KeyRecord, call: &Call<'_>) -> Result<Self, GatewayError> {
        let owner = Owner { ids: &live.ids, org: key.org_id };
        let kept = owner.open(call.id).filter(|kept| is_harmless(&kept.id)).ok_or_else(|| call.unknown())?;
        let serves = |it: &&Arc<Deployment>| {
            it.id == kept.deployment && !it.disabled && it.org_id.is_none_or(|org| org == key.org_id)
        };
        let found = live.snapshot.routing.deployments().iter().find(serves);
        let upstream = found.and_then(|deployment| live.upstreams.get(deployment.slot));
        let (Some(deployment), Some(upstream)) = (found, upstream) else { return Err(call.unknown()) };
        let group = through(live, key, deployment).map_err(|closed| match closed {
            Some(group) => {
                let message = format!("This API key may not use the model `{}`.", group.name);
                GatewayError::new(Kind::PermissionDenied, message)
            }
            None => call.unknown(),
        })?;
        Ok(Self { deployment, upstream, group, id: kept.id, tagger: kept.tagger })
    }
}

/// The model that leads the key to this deployment.
///
/// # Errors
/// A model of its organization that would, but that the key may not use; `None`: there is no such model any more.
fn through<'a>(
    live: &'a Live,
    key: &KeyRecord,
    deployment: &Deployment,
) -> Result<&'a Arc<ModelGroup>, Option<&'a Arc<ModelGroup>>> {
    let mut closed = None;
    for group in live.snapshot.routing.visible(Some(key.org_id)) {
        let mut members = group.links.iter().flat_map(|link| &link.members);
        if !members.any(|member| member.deployment.id == deployment.id) {
            continue;
        }
        let allowed = &key.policy.allowed_models;
        let aliases = group.described_by().into_iter().flat_map(|model| &model.aliases);
        let mut names = std::iter::once(&*group.name).chain(aliases.map(|alias| &**alias));
        if names.any(|name| allowed.permit(&format!("{}/{name}", deployment.provider), name)) {
            return Ok(group);
        }
        closed = Some(group);
    }
    Err(closed)
}

/// An id goes into a path: nothing of it may lead elsewhere.
fn is_harmless(id: &str) -> bool {
    let harmless =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'=');
    (1..=MAX_ID).contains(&id.len()) && id.bytes().all(harmless) && id.bytes().any(|byte| byte != b'.')
}

/// Longest id that is asked for.
const MAX_ID: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment_of_the_path() {
        for id in ["resp_0a1b", "video_aGk", "a.b", "x:1", "aGk="] {
            assert!(is_harmless(id), "{id}");
        }
        let long = "x".repeat(1025);
        for id in ["", ".", "..", "a/b", "a?b", "a#b", "a%2fb", "a\\b", "a b", "a\r\nb", "ü", &long] {
            assert!(!is_harmless(id), "{id}");
        }
    }
}
