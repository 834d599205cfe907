//! What the client sent, kept until an answer has begun: every candidate gets the same bytes with its own edits. Made by
//! [`super::run`] and [`super::multipart`], used by [`super::attempts`] from the second attempt on.

use bytes::Bytes;
use http::HeaderValue;
use nemo_llm::{
    CodecError, EditSet, Endpoint, Envelope, Inbound, Plan, Target, links::spliced, splice_capped,
};
use nemo_snapshot::Deployment;

use super::{context::RequestContext, crossing, dispatch::Outgoing, upload::Ahead};
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
    /// The same as JSON, of a form that has come whole and has no files.
    pub json: Option<Bytes>,
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
        context: &RequestContext,
    ) -> Option<Outgoing> {
        match self {
            Self::Json(body) => {
                // It was parsed before; keeping what was found would cost every request, this only those that fail.
                let inbound = Inbound { model: context.path_model(), stream: context.stream };
                let envelope = nemo_llm::parse_call(endpoint, body, inbound).ok()?;
                let made = json((body, &envelope), endpoint, (upstream, deployment), cap, context);
                Some(made.unwrap_or_else(crossing::unmade))
            }
            Self::Form(form) => {
                let tail = unsent.map(SegmentBody::into_tail);
                if tail.is_none() && !form.whole {
                    return None;
                }
                let called = (upstream, deployment);
                let made = form.outgoing(endpoint, called, tail.flatten(), cap, context);
                Some(made.unwrap_or_else(crossing::unmade))
            }
        }
    }
}

/// The body for this deployment: the client's with edits, or a translation.
///
/// # Errors
/// What is wrong with the request, or what this deployment can't do: only where it is translated, or names by URL what
/// is not read there.
pub fn json(
    (body, envelope): (&Bytes, &Envelope<'_>),
    endpoint: Endpoint,
    (upstream, deployment): (&Upstream, &Deployment),
    cap: Option<u64>,
    context: &RequestContext,
) -> Result<Outgoing, CodecError> {
    match upstream.plan(endpoint) {
        Some(plan @ (Plan::Transcode { .. } | Plan::Convert(_) | Plan::Count { .. })) => {
            crossing::outgoing(body, plan, (upstream, deployment), cap, context)
        }
        Some(Plan::Splice) | None => {
            if spliced::may_be_named(upstream.provider, endpoint, body)
                && let links = spliced::named(body, context.fetches)?
                && !links.is_empty()
            {
                return Ok(crossing::wanting(links));
            }
            let target = Target { provider: upstream.provider, upstream_model: &deployment.upstream_model };
            Ok(splice_capped(body, envelope, endpoint, &target, cap).into())
        }
    }
}

/// What is a file in forms that ask for a video.
const FILE_OF_VIDEOS: &str = "input_reference";

impl Form {
    /// The form for this deployment: what was read ahead, and the rest.
    ///
    /// # Errors
    /// What this deployment can't do: only where the form is translated.
    pub fn outgoing(
        &self,
        endpoint: Endpoint,
        (upstream, deployment): (&Upstream, &Deployment),
        tail: Option<crate::upstream::body::Tail>,
        cap: Option<u64>,
        context: &RequestContext,
    ) -> Result<Outgoing, CodecError> {
        if let Some(plan @ Plan::Convert(_)) = upstream.plan(endpoint) {
            let message = "Files can't be handed on to this provider.";
            let json = self.json.as_ref().ok_or_else(|| CodecError::unsupported(FILE_OF_VIDEOS, message))?;
            return crossing::outgoing(json, plan, (upstream, deployment), cap, context);
        }
        let model = Bytes::copy_from_slice(deployment.upstream_model.as_bytes());
        let mut edits = EditSet::default();
        if self.stripped {
            edits.insert(EditSet::STRIP);
        }
        if *self.model != *deployment.upstream_model {
            edits.insert(EditSet::MODEL);
        }
        let (segments, _) = self.ahead.render(&model);
        Ok(Outgoing {
            body: SegmentBody::with_tail(segments, tail),
            content_type: Some(self.content_type.clone()),
            edits,
            strip_usage_chunk: false,
            cold: None,
        })
    }
}
