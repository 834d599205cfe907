//! Which call it is: method and path, read without a regard to what is kept where. Called by [`super`].

use http::{Method, Uri};
use nemo_llm::Endpoint;

use super::{GatewayError, Kind};

/// A call about something that is kept.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// What has made it.
    pub endpoint: Endpoint,
    pub method: Method,
    /// As the client sent it.
    pub id: &'a str,
    /// Behind the id in the path; empty: it is about the thing itself.
    pub part: &'static str,
    pub query: &'a str,
}

/// Methods that a part takes.
type Row = (Endpoint, &'static str, &'static [Method]);

const CALLS: [Row; 5] = [
    (Endpoint::Responses, "", &[Method::GET, Method::DELETE]),
    (Endpoint::Responses, "cancel", &[Method::POST]),
    (Endpoint::Responses, "input_items", &[Method::GET]),
    (Endpoint::Videos, "", &[Method::GET, Method::DELETE]),
    (Endpoint::Videos, "content", &[Method::GET]),
];

impl<'a> Call<'a> {
    /// # Errors
    /// 404 for what is not served, 405 for what is served otherwise.
    pub fn read(method: &Method, uri: &'a Uri) -> Result<Self, GatewayError> {
        let path = uri.path();
        let not_served = |message: String| GatewayError::new(Kind::RouteNotFound, message);
        let nothing = || not_served(format!("There is nothing at {path}."));
        let below = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v1/").ok_or_else(nothing)?;
        let (endpoint, rest) = match below.split_once('/').ok_or_else(nothing)? {
            ("responses", rest) => (Endpoint::Responses, rest),
            ("videos", rest) => (Endpoint::Videos, rest),
            _ => return Err(nothing()),
        };
        let (id, part) = rest.split_once('/').unwrap_or((rest, ""));
        if part == "remix" || (part.is_empty() && *method == Method::POST) {
            let what = if part.is_empty() { id } else { part };
            let message = format!(
                "`{what}` is not offered by this gateway: it makes something new, which would not be paid for. What can be \
                 made is made with POST /v1{}.",
                endpoint.upstream_path()
            );
            return Err(not_served(message));
        }
        let row = CALLS.iter().find(|row| (row.0, row.1) == (endpoint, part));
        let Some((_, part, methods)) = row.filter(|_| !id.is_empty()) else { return Err(nothing()) };
        if !methods.contains(method) {
            let names = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(" or ");
            return Err(GatewayError::new(Kind::MethodNotAllowed, format!("Use {names} for {path}.")));
        }
        let query = uri.query().unwrap_or_default();
        Ok(Self { endpoint, method: method.clone(), id, part, query })
    }

    pub fn is_film(&self) -> bool {
        self.part == "content"
    }

    /// It is gone, or it never was, or it is somebody else's: nobody is told which.
    pub fn unknown(&self) -> GatewayError {
        let (what, code) = match self.endpoint {
            Endpoint::Videos => ("video", "video_not_found"),
            _ => ("response", "response_not_found"),
        };
        let id: String = self.id.chars().take(MAX_SHOWN).collect();
        let message = format!(
            "There is no {what} {id:?} for this API key. Ids are the gateway's own: give one as an answer of this gateway \
             had it. What was made without being stored, or by a deployment that is gone, can't be found."
        );
        GatewayError { code: Some(code), ..GatewayError::new(Kind::RouteNotFound, message) }
    }
}

/// Of an id that is told back.
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> Result<(Endpoint, String, &'static str), (u16, String)> {
        let uri: Uri = uri.parse().unwrap();
        Call::read(&method.parse().unwrap(), &uri)
            .map(|call| (call.endpoint, format!("{}?{}", call.id, call.query), call.part))
            .map_err(|error| (error.status().as_u16(), error.message.into_owned()))
    }

    #[test]
    fn every_call_is_told_from_the_others() {
        for (method, uri, call) in [
            ("GET", "/v1/responses/a?stream=true", (Endpoint::Responses, "a?stream=true", "")),
            ("DELETE", "/api/v1/responses/a", (Endpoint::Responses, "a?", "")),
            ("POST", "/v1/responses/a/cancel", (Endpoint::Responses, "a?", "cancel")),
            ("GET", "/v1/responses/a/input_items?limit=2", (Endpoint::Responses, "a?limit=2", "input_items")),
            ("GET", "/v1/videos/a", (Endpoint::Videos, "a?", "")),
            ("DELETE", "/v1/videos/a", (Endpoint::Videos, "a?", "")),
            (
                "GET",
                "/v1/videos/a/content?variant=thumbnail",
                (Endpoint::Videos, "a?variant=thumbnail", "content"),
            ),
        ] {
            let (endpoint, id, part) = call;
            assert_eq!(read(method, uri), Ok((endpoint, id.to_owned(), part)), "{method} {uri}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_with_what_is() {
        for (method, uri, status, says) in [
            ("POST", "/v1/videos/a/remix", 404, "would not be paid for"),
            ("POST", "/v1/responses/compact", 404, "`compact` is not offered"),
            ("POST", "/v1/videos/edits", 404, "POST /v1/videos"),
            ("PUT", "/v1/videos/a", 405, "Use GET or DELETE"),
            ("GET", "/v1/responses/a/cancel", 405, "Use POST"),
            ("GET", "/v1/responses/a/output", 404, "There is nothing"),
            ("GET", "/v1/videos/a/content/b", 404, "There is nothing"),
            ("GET", "/v1/responses/", 404, "There is nothing"),
        ] {
            let (was, message) = read(method, uri).unwrap_err();
            assert!(was == status && message.contains(says), "{method} {uri}: {was} {message}");
        }
    }
}
