//! A request whose candidate does not speak the client's dialect: what goes upstream is translated, and so is the answer
//! ([`answer`]). Made by [`super::original`] for each candidate anew, as each has its own plan; boxed wherever it is kept,
//! since a request that passes as it is has no use for it.

pub mod answer;
pub mod fetch;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use nemo_llm::{
    CodecError, Counter, Destination, Echo, EditSet, Encoded, Endpoint, Files, Hosting, Inbound, Link, Plan,
    Segments, count, extras::ExtraField, ir::Param, providers::responses::affinity::Tagger, transcode,
};
use nemo_runtime::clock;
use nemo_snapshot::Deployment;

use super::{
    affinity,
    context::RequestContext,
    dispatch::{Cold, Outgoing},
    error::{GatewayError, Kind},
    failure::Failure,
};
use crate::{config::live::Upstream, upstream::SegmentBody};

/// What translating the answer needs.
#[derive(Debug)]
pub struct Crossing {
    pub plan: Plan,
    pub echo: Echo,
    /// The bodies that go upstream, where one is not enough.
    pub pieces: Vec<Bytes>,
    /// What the upstream can't be told, for `x-nemo-dropped-params`.
    pub dropped: Option<HeaderValue>,
    /// For the id of what is kept, where it is not put in by a writer of the dialect.
    pub tagger: Option<Tagger>,
}

/// Longest value of `x-nemo-dropped-params`.
const MAX_DROPPED: usize = 1024;
/// `error.code` of a request that asks for what a candidate has not.
pub const UNSUPPORTED: &str = "unsupported_parameter";

/// The body for this deployment, by `plan`.
///
/// # Errors
/// What is wrong with the request, or what this deployment can't do.
pub fn outgoing(
    body: &Bytes,
    plan: Plan,
    (upstream, deployment): (&Upstream, &Deployment),
    cap: Option<u64>,
    context: &RequestContext,
) -> Result<Outgoing, CodecError> {
    filled(body, plan, (upstream, deployment), cap, context, None)
}

/// The same with what was fetched for it.
fn filled(
    body: &Bytes,
    plan: Plan,
    (upstream, deployment): (&Upstream, &Deployment),
    cap: Option<u64>,
    context: &RequestContext,
    files: Option<&Files>,
) -> Result<Outgoing, CodecError> {
    let to = Destination {
        provider: upstream.provider,
        model: &deployment.upstream_model,
        most_output: deployment.model.max_output_tokens,
        cap,
        hosted: upstream.provider.hosting == Hosting::Vertex,
    };
    let inbound = Inbound { model: context.path_model(), stream: context.stream };
    let encoded = match plan {
        Plan::Transcode { from, to: dialect } => {
            let dialects = (from, dialect);
            let made = transcode::request_with(dialects, body, inbound, &to, files.unwrap_or(&Files::NONE));
            match made {
                Err(error) if error.unsupported && context.fetches && files.is_none() => {
                    let links = transcode::links(dialects, body, inbound, &to);
                    return match links.iter().any(|link| leads_to(&error.path, &link.path)) {
                        true => Ok(wanting(links)),
                        false => Err(error),
                    };
                }
                made => made?,
            }
        }
        Plan::Count { from, by: Counter::Estimate } => {
            return Ok(cold(Cold::Estimated(count::estimated(from, body, inbound)?.into())));
        }
        Plan::Count { from, by } => match count::request((from, by), body, inbound, &to) {
            // What is fetched for an answer is not fetched to be counted.
            Err(error) if error.unsupported && context.fetches => {
                return Ok(cold(Cold::Estimated(count::estimated(from, body, inbound)?.into())));
            }
            made => made?,
        },
        Plan::Convert(conversion) => (conversion.request)(body, &to)?,
        Plan::Splice => return Err(CodecError::invalid("", "The request is not to be translated.")),
    };
    let dropped = dropped(&encoded, plan);
    if let Some(first) = dropped.first().filter(|_| context.refuse_unsupported) {
        let name = &deployment.name;
        let message = format!("{name} has no `{first}`, and the request is not to be sent without it.");
        return Err(CodecError::unsupported(first.clone(), message));
    }
    let mut pieces = encoded.more;
    if !pieces.is_empty() {
        pieces.insert(0, encoded.body.clone());
    }
    let crossing = Crossing {
        plan,
        echo: Echo {
            id: context.id.0.simple().to_string().into(),
            created: clock::unix_ms() / 1000,
            model: context.requested_model.clone(),
            include_usage: context.usage_asked,
            forced_tool: encoded.forced_tool,
            request: body.clone(),
            // What is encrypted for one provider is of no use to another.
            affinity: match context.endpoint {
                Endpoint::Responses => affinity::tag(deployment.id).into(),
                _ => "".into(),
            },
        },
        pieces,
        dropped: header(&dropped),
        tagger: None,
    };
    Ok(Outgoing {
        body: SegmentBody::new(Segments::from_iter([encoded.body].into_iter().filter(|it| !it.is_empty()))),
        ..cold(Cold::Crossing(Box::new(crossing)))
    })
}

/// What these are to be fetched for before it can be made.
pub fn wanting(links: Vec<Link>) -> Outgoing {
    cold(Cold::Wanting(Box::new(links)))
}

/// Without a body.
fn cold(cold: Cold) -> Outgoing {
    Outgoing {
        body: SegmentBody::new(Segments::new()),
        content_type: None,
        edits: EditSet::default(),
        strip_usage_chunk: false,
        cold: Some(cold),
    }
}

impl Crossing {
    /// What the answers to some of the pieces, as a JSON array, tell of what they have used.
    pub fn tokens(&self, answers: &[u8]) -> Option<u64> {
        let Plan::Convert(conversion) = self.plan else { return None };
        // Of nobody's request: it is not a whole answer.
        (conversion.response)(answers, &Echo::default()).ok()?.usage?.input
    }

    /// What the client gets instead of this answer, where it says that nobody counts there.
    pub fn estimate(&self, context: &RequestContext, status: StatusCode, said: &str) -> Option<Bytes> {
        let Plan::Count { from, by } = self.plan else { return None };
        let inbound = Inbound { model: context.path_model(), stream: false };
        let missing = by.is_missing(status.as_u16(), said);
        missing.then(|| count::estimated(from, &self.echo.request, inbound).ok().map(Bytes::from))?
    }
}

/// The path of the part of a message that a path leads into.
fn of_part(path: &str) -> &str {
    path.rfind(']').map_or(path, |at| &path[..at])
}

/// Whether this is the path of the part at `link`, or of the result of a tool that it is in.
fn leads_to(path: &str, link: &str) -> bool {
    let rest = of_part(link).strip_prefix(of_part(path));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(']'))
}

/// Members that the target has no place for, as the client calls them. What is the gateway's own is no loss.
fn dropped(encoded: &Encoded, plan: Plan) -> Vec<String> {
    let (Plan::Transcode { from, .. } | Plan::Count { from, .. }) = plan else {
        return encoded.dropped.iter().map(name_of_other).collect();
    };
    let own = |param: &&Param| match param {
        Param::Other(name) => !name.starts_with("nemo_") && ExtraField::from_name(name).is_none(),
        _ => true,
    };
    let mut names: Vec<String> =
        encoded.dropped.iter().filter(own).map(|it| it.name(from).to_owned()).collect();
    names.dedup();
    names
}

fn name_of_other(param: &Param) -> String {
    param.name(nemo_llm::Dialect::Chat).to_owned()
}

/// Names between commas, as many as there is room for, each cleaned of what no header carries.
fn header(dropped: &[String]) -> Option<HeaderValue> {
    let mut text = String::new();
    for name in dropped {
        let clean = name.chars().map(|c| if c.is_ascii_graphic() && c != ',' { c } else { '_' });
        let clean: String = clean.take(MAX_DROPPED / 4).collect();
        if text.len() + clean.len() + 1 > MAX_DROPPED - 4 {
            text.push_str(",...");
            break;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&clean);
    }
    HeaderValue::from_str(&text).ok().filter(|_| !text.is_empty())
}

/// The refusal, for the client.
pub fn refused(error: CodecError) -> GatewayError {
    let CodecError { path, message, unsupported, withheld: _ } = error;
    let refused = GatewayError::new(Kind::InvalidRequest, message);
    let refused = if path.is_empty() { refused } else { refused.param(path) };
    GatewayError { code: unsupported.then_some(UNSUPPORTED), ..refused }
}

/// The same as an attempt that was not made: another candidate may do it.
pub fn unmade(error: CodecError) -> Outgoing {
    cold(Cold::Refused(Box::new(Failure::unmade(refused(error)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_known_by_the_part_that_is_refused() {
        let link = "messages[1].content[1].content[2].source";
        for path in
            [link, "messages[1].content[1].content[2].source.url", "messages[1].content[1].source.url"]
        {
            assert!(leads_to(path, link), "{path}");
        }
        for path in
            ["messages[1].content[1].content[1].source", "messages[1].content[10].source", "tools[1]", ""]
        {
            assert!(!leads_to(path, link), "{path}");
        }
        assert!(!leads_to("messages[1].content[1].source", "messages[1].content[10].source"));
    }

    #[test]
    fn what_was_dropped_is_told_clean_and_bounded() {
        let told = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            header(&names).map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&["seed", "logit_bias"]).as_deref(), Some("seed,logit_bias"));
        assert_eq!(told(&["a,b\r\nx: y"]).as_deref(), Some("a_b__x:_y"));
        let long = "n".repeat(9000);
        let text = told(&[long.as_str(); 9]).unwrap();
        assert!(text.len() <= MAX_DROPPED && text.ends_with(",..."), "{}", text.len());
    }
}
