//! The calls of `/v1/videos/{id}` at a deployment that makes films in long-running operations: Google's AI Studio and
//! Vertex. Called by [`super`]; the words are in [`nemo_llm::providers::gemini::veo`].

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Uri, header};
use http_body_util::BodyExt as _;
use nemo_llm::{
    CodecError,
    providers::gemini::veo::{self, Film, Ordered},
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout_at},
};

use super::{Answer, Call, Fault, GatewayError, Held, Kind, Sending, send::Reply};

/// An operation of Vertex may hold its whole film, in base64.
const MAX_OPERATION: usize = 64 << 20;
/// What is longer than this holds a film, and needs a place.
const SMALL_OPERATION: usize = 256 << 10;
/// Places for films that are held whole, until the client has them.
static HELD_WHOLE: Semaphore = Semaphore::const_new(8);
/// For the rest of an operation that has got a place.
const PATIENCE: Duration = Duration::from_secs(60);
/// When to come again for a place.
const RETRY_AFTER_SECS: u64 = 2;
/// Google's files are a redirect or two away, at the same host.
const MAX_REDIRECTS: usize = 3;

/// Answers by asking the operation.
pub async fn answer(sending: &Sending<'_>, call: &Call<'_>, mut held: Held) -> Result<Answer, Fault> {
    let ordered = Ordered::read(&sending.target.id).ok_or_else(|| call.unknown())?;
    if call.method != Method::GET {
        let message = "Films of this provider can't be deleted; it deletes them itself after a while.";
        return Err(unsupported(message).into());
    }
    let variants = call.query.split('&').filter_map(|pair| pair.strip_prefix("variant="));
    if call.is_film()
        && let Some(other) = variants.into_iter().find(|variant| *variant != "video")
    {
        let message = format!("This provider makes films alone, and no {other:?} of them.");
        return Err(unsupported(message).param("variant").into());
    }
    let operation = read_operation(sending, &ordered, &mut held.whole).await?;
    let model = &sending.target.group.name;
    let status =
        veo::status(&operation, &ordered, call.id, model).map_err(|error| unread(sending, &error))?;
    if !call.is_film() {
        return Ok(Answer::whole(sending, "application/json", status.body, held));
    }
    if let Some(reason) = status.failed {
        return Err(no_film(format!("There is no film, it could not be made: {reason}")).into());
    }
    let film = veo::film(&operation, base(sending)).map_err(|error| unread(sending, &error))?;
    match film {
        None => {
            let message = "The film is not ready yet. GET /v1/videos/{id} tells how far it is.";
            Err(no_film(message).into())
        }
        Some(Film::Storage(uri)) => {
            let message = format!("The film is in a storage where only its owner gets it: {uri}");
            Err(no_film(message).into())
        }
        Some(Film::Base64 { media_type, data }) => {
            drop(operation);
            let film = BASE64_STANDARD.decode(data);
            let film = film.map_err(|_| sending.unreadable("sent a film that can't be read"))?;
            Ok(Answer::whole(sending, &media_type, film, held))
        }
        Some(Film::Uri(url)) => Ok(Answer::film(sending, fetch(sending, url).await?, held)),
    }
}

fn unsupported(message: impl Into<std::borrow::Cow<'static, str>>) -> GatewayError {
    let error = GatewayError::new(Kind::InvalidRequest, message);
    GatewayError { code: Some("unsupported_by_provider"), ..error }
}

fn no_film(message: impl Into<std::borrow::Cow<'static, str>>) -> GatewayError {
    GatewayError { code: Some("video_not_ready"), ..GatewayError::new(Kind::InvalidRequest, message) }
}

fn unread(sending: &Sending<'_>, error: &CodecError) -> Fault {
    tracing::debug!("an operation can't be read: {error}");
    sending.unreadable("sent an answer that can't be read")
}

fn base<'a>(sending: &'a Sending<'_>) -> &'a str {
    let target = sending.target;
    veo::base(target.upstream.provider, &target.deployment.base_url)
}

async fn read_operation(
    sending: &Sending<'_>,
    ordered: &Ordered,
    place: &mut Option<SemaphorePermit<'static>>,
) -> Result<Bytes, Fault> {
    let elsewhere = || GatewayError::new(Kind::Internal, "The operation has no address.");
    let hosting = sending.target.upstream.provider.hosting;
    let veo::Poll { path, body } = veo::poll(hosting, &ordered.operation).ok_or_else(elsewhere)?;
    let uri = sending.at(&format!("{}{path}", base(sending))).ok_or_else(elsewhere)?;
    let method = if body.is_some() { Method::POST } else { Method::GET };
    let reply = sending.send(method, uri, body).await?;
    let (mut body, mut frames, mut length) = (reply.into_body(), Vec::new(), 0);
    let mut end = sending.deadline.at;
    loop {
        let (due, waited) = sending.deadline.next_frame(Some(Instant::now()));
        let next = timeout_at(due.min(end), body.frame()).await;
        let next = next.map_err(|_| Fault::from(waited.error()))?;
        let Some(frame) = next else { break };
        let broken = |_| sending.unreadable("broke off in the middle of its answer");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        length += data.len();
        frames.push(data);
        if length > MAX_OPERATION {
            return Err(sending.unreadable("sent an operation that is too long"));
        }
        if length > SMALL_OPERATION && place.is_none() {
            *place = Some(HELD_WHOLE.try_acquire().map_err(|_| crowded())?);
            end = end.min(Instant::now() + PATIENCE);
        }
    }
    Ok(match <[Bytes; 1]>::try_from(frames) {
        Ok([only]) => only,
        Err(frames) => frames.concat().into(),
    })
}

fn crowded() -> GatewayError {
    let message = "This node holds too many films of this kind at once. Try again in a moment.";
    let error = GatewayError::new(Kind::Overloaded, message);
    GatewayError { retry_after_secs: Some(RETRY_AFTER_SECS), ..error }
}

/// The film at its provider. A redirect to any other host is not followed: the credential would go with it.
async fn fetch(sending: &Sending<'_>, mut url: String) -> Result<Reply, Fault> {
    let elsewhere = || sending.unreadable("has its film at another host than its own");
    for _ in 0..=MAX_REDIRECTS {
        let uri = sending.at(&url).ok_or_else(elsewhere)?;
        let reply = sending.ask(Method::GET, uri, None).await?;
        match reply.status().as_u16() {
            200..=299 => return Ok(reply),
            301..=303 | 307 | 308 => {
                let location = reply.headers().get(header::LOCATION).and_then(|it| it.to_str().ok());
                url = location.and_then(|to| target_of(&url, to)).ok_or_else(elsewhere)?;
            }
            _ => return Err(sending.refusal(reply).await),
        }
    }
    Err(sending.unreadable("leads from one place to the next without a film"))
}

/// Where a redirect from `url` leads: an absolute address, or a path of the same host.
fn target_of(url: &str, location: &str) -> Option<String> {
    if !location.starts_with('/') {
        return Some(location.to_owned());
    }
    let uri: Uri = url.parse().ok()?;
    (!location.starts_with("//"))
        .then(|| Some(format!("{}://{}{location}", uri.scheme_str()?, uri.authority()?)))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_its_host_or_stays() {
        let from = "https://g:8443/v1beta/files/a:download?alt=media";
        for (location, to) in [
            ("/download/a?alt=media", Some("https://g:8443/download/a?alt=media")),
            ("https://other/a", Some("https://other/a")),
            ("//other/a", None),
        ] {
            assert_eq!(target_of(from, location).as_deref(), to, "{location}");
        }
    }
}
