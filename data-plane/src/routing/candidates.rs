//! Which members of a link can serve a request, and why the others can't. Called by [`super::decide`].

use nemo_snapshot::{Link, LinkMember};
use smallvec::SmallVec;

use super::{Elimination, Features, Reason};
use crate::config::live::Upstream;

pub(super) fn eligible<'a>(
    link: &'a Link,
    upstreams: &[Upstream],
    features: Features,
    eliminated: &mut SmallVec<[Elimination; 2]>,
) -> SmallVec<[&'a LinkMember; 8]> {
    let mut eligible = SmallVec::new();
    for member in &link.members {
        let served =
            upstreams.get(member.deployment.slot).is_some_and(|it| it.uri(features.endpoint).is_some());
        if served {
            eligible.push(member);
        } else {
            let deployment = member.deployment.clone();
            eliminated.push(Elimination { deployment, reason: Reason::EndpointNotServed });
        }
    }
    eligible
}
