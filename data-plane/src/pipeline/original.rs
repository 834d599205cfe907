//! What the client sent, kept until an answer has begun: every candidate gets the same bytes with its own edits. Made by
//! [`super::run`] and [`super::multipart`], used by [`super::attempts`] from the second attempt on.

use bytes::Bytes;
use http::HeaderValue;
use nemo_llm::{EditSet, Endpoint, Target, splice_capped};
use nemo_snapshot::Deployment;

use super::{dispatch::Outgoing, upload::Ahead};
use crate::{config::live::Upstream, upstream::SegmentBody};

/// See the module.
pub enum Original {
    Json(Bytes),
    Form(Form),
}

/// A form, of which the most part is perhaps still to come.
pub struct Form {
    pub ahead: Ahead,
    /// All of it was read ahead.
    pub whole: bool,
    /// What the client calls the model.
    pub model: Box<str>,
    pub content_type: HeaderValue,
    /// Fields were taken out.
    pub stripped: bool,
}

impl Original {
    /// Whether it can be sent again once an upstream has got some of it. A form that passes through is kept nowhere, so
    /// its rest is gone then: only when nothing was sent can another upstream get it.
    pub fn is_replayable(&self) -> bool {
        match self {
            Self::Json(_) => true,
            Self::Form(form) => form.whole,
        }
    }

    /// The body for this deployment. `cap`: tokens that each answer may have at most. `unsent`: that of an attempt of which nothing was sent; needed where the original
    /// is not replayable. `None` when it can't be made.
    pub fn outgoing(
        &self,
        endpoint: Endpoint,
        (upstream, deployment): (&Upstream, &Deployment),
        unsent: Option<SegmentBody>,
        cap: Option<u64>,
    ) -> Option<Outgoing> {
        match self {
            Self::Json(body) => {
                // It was parsed before; keeping what was found would cost every request, this only those that fail.
                let envelope = nemo_llm::parse(endpoint, body).ok()?;
                let target =
                    Target { provider: upstream.provider, upstream_model: &deployment.upstream_model };
                Some(splice_capped(body, &envelope, endpoint, &target, cap).into())
            }
            Self::Form(form) => {
                let tail = unsent.map(SegmentBody::into_tail);
                if tail.is_none() && !form.whole {
                    return None;
                }
                Some(form.outgoing(deployment, tail.flatten()))
            }
        }
    }
}

impl Form {
    /// The form for this deployment: what was read ahead, and the rest.
    pub fn outgoing(&self, deployment: &Deployment, tail: Option<crate::upstream::body::Tail>) -> Outgoing {
        let model = Bytes::copy_from_slice(deployment.upstream_model.as_bytes());
        let mut edits = EditSet::default();
        if self.stripped {
            edits.insert(EditSet::STRIP);
        }
        if *self.model != *deployment.upstream_model {
            edits.insert(EditSet::MODEL);
        }
        let (segments, _) = self.ahead.render(&model);
        Outgoing {
            body: SegmentBody::with_tail(segments, tail),
            content_type: Some(self.content_type.clone()),
            edits,
            strip_usage_chunk: false,
        }
    }
}
