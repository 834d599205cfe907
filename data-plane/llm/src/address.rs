//! Where a call goes: the URL of an endpoint at a deployment, in the form that its provider's hosting wants. Called when
//! a snapshot is compiled, once for each endpoint of each deployment, never by a request: no request can choose a host.

use crate::{Dialect, Endpoint, Hosting, Plan, Provider, provider::is_claude};

/// What Azure is asked for where the base URL names no `api-version`, and has the form that needs one.
const AZURE_VERSION: &str = "2024-10-21";

/// The URL that `plan` is called at; `stream`: for an answer that comes in events. `base_url` has no trailing slash.
/// `None` when the model's name can't stand in a path, or when this provider has no such place.
pub fn url(
    provider: &Provider,
    base_url: &str,
    endpoint: Endpoint,
    plan: Plan,
    model: &str,
    stream: bool,
) -> Option<String> {
    if let Plan::Convert(conversion) = plan {
        let model = segments(model)?;
        return Some(format!("{}{}", own_base(provider, base_url), (conversion.path)(model)));
    }
    if let Plan::Count { by, .. } = plan {
        return by.url(provider, base_url, model);
    }
    let dialect = match plan {
        Plan::Transcode { to, .. } => Some(to),
        _ => endpoint.dialect(),
    };
    match (provider.hosting, dialect) {
        (Hosting::AiStudio, Some(Dialect::GenerateContent)) => {
            let model = segments(model)?;
            let folder = if model.contains('/') { "" } else { "models/" };
            Some(format!("{}/{folder}{model}{}", own_base(provider, base_url), google_method(stream)))
        }
        (Hosting::Vertex, Some(Dialect::GenerateContent)) => {
            let (publisher, model) = published(segments(model)?);
            Some(format!("{base_url}/publishers/{publisher}/models/{model}{}", google_method(stream)))
        }
        (Hosting::Vertex, Some(Dialect::Messages)) => {
            let (publisher, model) = published(segments(model)?);
            let method = if stream { "streamRawPredict" } else { "rawPredict" };
            Some(format!("{base_url}/publishers/{publisher}/models/{model}:{method}"))
        }
        (Hosting::Bedrock, Some(Dialect::Converse)) => {
            let method = if stream { "converse-stream" } else { "converse" };
            Some(format!("{base_url}/model/{}/{method}", one_segment(model)?))
        }
        (Hosting::Azure, _) => azure(base_url, native(endpoint, dialect), model),
        (_, Some(Dialect::Cohere)) => Some(format!("{}/v2/chat", cohere_origin(base_url))),
        (_, Some(Dialect::Converse)) => None,
        (_, Some(Dialect::GenerateContent)) => {
            Some(format!("{base_url}/models/{}{}", segments(model)?, google_method(stream)))
        }
        _ => Some(provider.url(base_url, native(endpoint, dialect))),
    }
}

/// The endpoint at which the target's dialect is spoken.
fn native(endpoint: Endpoint, dialect: Option<Dialect>) -> Endpoint {
    match dialect {
        Some(Dialect::Chat) => Endpoint::ChatCompletions,
        Some(Dialect::Completions) => Endpoint::Completions,
        Some(Dialect::Responses) => Endpoint::Responses,
        Some(Dialect::Messages) => Endpoint::Messages,
        _ => endpoint,
    }
}

fn google_method(stream: bool) -> &'static str {
    if stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" }
}

/// AI Studio's and Cohere's own interfaces are beside their compatibility layers, which deployments may still name.
pub(crate) fn own_base<'a>(provider: &Provider, base_url: &'a str) -> &'a str {
    match (provider.hosting, provider.speaks) {
        (Hosting::AiStudio, _) => without(base_url, &["/openai"]),
        (_, Some(Dialect::Cohere)) => cohere_origin(base_url),
        _ => base_url,
    }
}

/// Publisher and model of a name that may hold both.
pub(crate) fn published(model: &str) -> (&str, &str) {
    match model.strip_prefix("publishers/").unwrap_or(model).rsplit_once('/') {
        Some((publisher, name)) => (publisher.strip_suffix("/models").unwrap_or(publisher), name),
        None if is_claude(model) => ("anthropic", model),
        None => ("google", model),
    }
}

fn cohere_origin(base_url: &str) -> &str {
    without(base_url, &["/compatibility/v1", "/v1", "/v2"])
}

/// The base URL without the first of these ends that its path has. A host of such a name stays.
fn without<'a>(base_url: &'a str, ends: &[&str]) -> &'a str {
    let rest = ends.iter().find_map(|end| base_url.strip_suffix(end));
    rest.filter(|rest| rest.contains("://")).unwrap_or(base_url)
}

/// `…/openai/v1` takes paths as OpenAI does. Elsewhere the path names the deployment, which Azure calls what others call
/// the model, and the query a version.
fn azure(base_url: &str, endpoint: Endpoint, model: &str) -> Option<String> {
    let (base, query) = base_url.split_once('?').unwrap_or((base_url, ""));
    let base = base.trim_end_matches('/');
    let path = endpoint.upstream_path();
    if base.ends_with("/v1") {
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        return Some(format!("{base}{path}{query}"));
    }
    let version = if query.is_empty() { format!("api-version={AZURE_VERSION}") } else { query.to_owned() };
    if base.contains("/deployments/") {
        return Some(format!("{base}{path}?{version}"));
    }
    let base = without(base, &["/openai"]);
    Some(format!("{base}/openai/deployments/{}{path}?{version}", one_segment(model)?))
}

/// The name as it may stand in a path, slashes included: of harmless characters, and no segment that goes elsewhere.
pub(crate) fn segments(model: &str) -> Option<&str> {
    let harmless =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@' | b'/');
    let walks = |segment: &str| matches!(segment, "" | "." | "..");
    (model.bytes().all(harmless) && !model.split('/').any(walks)).then_some(model)
}

/// The name as one segment: an ARN has colons and slashes.
pub(crate) fn one_segment(model: &str) -> Option<String> {
    Some(segments(model)?.replace(':', "%3A").replace('/', "%2F"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(
        hosting: Hosting,
        base: &str,
        endpoint: Endpoint,
        to: Dialect,
        model: &str,
        stream: bool,
    ) -> Option<String> {
        let row = Provider { hosting, ..*crate::provider("openai").unwrap() };
        let plan = Plan::Transcode { from: Dialect::Chat, to };
        url(&row, base, endpoint, plan, model, stream)
    }

    #[test]
    fn each_hosting_has_its_own_urls() {
        let chat = Endpoint::ChatCompletions;
        let vertex = "https://x-aiplatform.googleapis.com/v1/projects/p/locations/l";
        for (found, expected) in [
            (
                at(Hosting::AiStudio, "https://g/v1beta", chat, Dialect::GenerateContent, "gemini-3", true),
                "https://g/v1beta/models/gemini-3:streamGenerateContent?alt=sse",
            ),
            (
                at(
                    Hosting::AiStudio,
                    "https://g/v1beta/openai",
                    chat,
                    Dialect::GenerateContent,
                    "tunedModels/a",
                    false,
                ),
                "https://g/v1beta/tunedModels/a:generateContent",
            ),
            (
                at(Hosting::Vertex, vertex, chat, Dialect::GenerateContent, "gemini-3", false),
                "https://x-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/gemini-3:generateContent",
            ),
            (
                at(Hosting::Vertex, vertex, chat, Dialect::Messages, "claude-opus-4-5@20251101", true),
                "https://x-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/anthropic/models/claude-opus-4-5@20251101:streamRawPredict",
            ),
            (
                at(Hosting::Bedrock, "https://b", chat, Dialect::Converse, "us.anthropic.claude-v1:0", true),
                "https://b/model/us.anthropic.claude-v1%3A0/converse-stream",
            ),
            (
                at(
                    Hosting::Bedrock,
                    "https://b",
                    chat,
                    Dialect::Converse,
                    "arn:aws:bedrock:r:1:inference-profile/x",
                    false,
                ),
                "https://b/model/arn%3Aaws%3Abedrock%3Ar%3A1%3Ainference-profile%2Fx/converse",
            ),
            (
                at(Hosting::Azure, "https://a/openai/v1", chat, Dialect::Chat, "d", false),
                "https://a/openai/v1/chat/completions",
            ),
            (
                at(Hosting::Azure, "https://a", chat, Dialect::Chat, "my-4o", false),
                "https://a/openai/deployments/my-4o/chat/completions?api-version=2024-10-21",
            ),
            (
                at(
                    Hosting::Azure,
                    "https://a/openai/deployments/d?api-version=7",
                    chat,
                    Dialect::Chat,
                    "x",
                    false,
                ),
                "https://a/openai/deployments/d/chat/completions?api-version=7",
            ),
            (
                at(
                    Hosting::Plain,
                    "https://api.cohere.ai/compatibility/v1",
                    chat,
                    Dialect::Cohere,
                    "m",
                    true,
                ),
                "https://api.cohere.ai/v2/chat",
            ),
            (
                at(Hosting::Plain, "https://x/v1", Endpoint::Messages, Dialect::Chat, "m", true),
                "https://x/v1/chat/completions",
            ),
        ] {
            assert_eq!(found.as_deref(), Some(expected));
        }
    }

    /// SSRF: a model's name never leaves its place in the path.
    #[test]
    fn a_name_that_goes_elsewhere_has_no_url() {
        for model in ["", "..", "a/../b", "a//b", "a?b", "a#b", "a%2e", "a b", "a\\b", "ü"] {
            for (hosting, to) in
                [(Hosting::AiStudio, Dialect::GenerateContent), (Hosting::Bedrock, Dialect::Converse)]
            {
                assert_eq!(
                    at(hosting, "https://h", Endpoint::ChatCompletions, to, model, false),
                    None,
                    "{model}"
                );
            }
        }
    }

    /// A node calls no other host than the base URL's, and does not take a deployment whose URLs have another.
    #[test]
    fn every_url_is_at_the_host_of_the_base_url() {
        let hosts = ["v1", "v2", "openai", "compatibility", "deployments", "models", "h:8080", "[::1]:1"];
        let paths = ["", "/v1", "/v2", "/openai", "/openai/v1", "/compatibility/v1", "/openai/deployments/d"];
        let models = ["m", "claude-opus-4-5", "amazon.titan-embed-text-v2:0", "veo-3", "imagen-4"];
        let mut made = 0;
        for provider in crate::providers() {
            for (host, path, model) in hosts
                .iter()
                .flat_map(|host| paths.iter().flat_map(move |path| models.map(|model| (host, path, model))))
            {
                let base = format!("https://{host}{path}");
                for (endpoint, stream) in
                    Endpoint::ALL.into_iter().flat_map(|endpoint| [(endpoint, false), (endpoint, true)])
                {
                    let plan = crate::plan::plan(endpoint, provider, model);
                    let at = plan.and_then(|plan| url(provider, &base, endpoint, plan, model, stream));
                    let Some(at) = at else { continue };
                    let uri: http::Uri = at.parse().unwrap();
                    assert_eq!(uri.authority().unwrap(), host, "{} {base}: {at}", provider.id);
                    made += 1;
                }
            }
        }
        assert!(made > 10_000, "{made}");
        let cohere = crate::provider("cohere").unwrap();
        assert_eq!(own_base(cohere, "https://v1"), "https://v1");
        assert_eq!(own_base(cohere, "https://v1/v1"), "https://v1");
    }

    #[test]
    fn embeddings_in_other_words_are_beside_the_compatibility_layer() {
        let cohere = crate::provider("cohere").unwrap();
        let plan = crate::plan::plan(Endpoint::Embeddings, cohere, "embed-v4.0").unwrap();
        for base in ["https://api.cohere.com", "https://api.cohere.ai/compatibility/v1"] {
            let url = url(cohere, base, Endpoint::Embeddings, plan, "embed-v4.0", false).unwrap();
            assert!(url.ends_with("cohere.com/v2/embed") || url.ends_with("cohere.ai/v2/embed"), "{url}");
        }
        let bedrock = crate::provider("bedrock").unwrap();
        let plan = crate::plan::plan(Endpoint::Embeddings, bedrock, "amazon.titan-embed-text-v2:0").unwrap();
        let url =
            url(bedrock, "https://b", Endpoint::Embeddings, plan, "amazon.titan-embed-text-v2:0", false);
        assert_eq!(url.as_deref(), Some("https://b/model/amazon.titan-embed-text-v2%3A0/invoke"));
    }
}
