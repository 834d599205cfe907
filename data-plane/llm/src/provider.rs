//! What a provider is: a row of data. Everything that differs between OpenAI-compatible services is a field
//! here, so that adding one is adding a row to [`crate::compatible`] and nothing else.

use crate::{Dialect, Endpoint, extras::ExtraField, plan::Conversion, quirks::ChatQuirks};

/// How the credential travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AuthScheme {
    None,
    /// `Authorization: Bearer <key>`
    Bearer,
    /// The key alone in this header.
    Header(&'static str),
    /// AWS: every request is signed with an access key; a credential that is no JSON is an API key, and goes as a bearer
    /// token.
    SigV4,
    /// Google Cloud: a bearer token that is minted from a service account's key, in the background.
    GcpToken,
}

/// How a provider lays out its URLs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hosting {
    /// The endpoint's path is appended to the base URL.
    Plain,
    /// Azure OpenAI: by deployment and `api-version`, or the `/openai/v1` form, as the base URL says.
    Azure,
    /// `/models/{model}:method`
    AiStudio,
    /// `/publishers/{publisher}/models/{model}:method`
    Vertex,
    /// `/model/{model}/method`
    Bedrock,
}

/// How usage gets into a streamed answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamUsage {
    /// Sent when `stream_options.include_usage` is true, so the gateway sets it.
    Inject,
    /// Sent in any case. `stream_options` is refused, so the gateway removes it.
    Always,
    /// Not sent, whatever one asks; `stream_options` is left as it is.
    Never,
}

/// What the member is called that limits the output of a chat completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitName {
    /// What everybody understands, but for OpenAI's own models that reason.
    MaxTokens,
    MaxCompletionTokens,
}

/// Where a provider departs from OpenAI's behaviour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quirks {
    pub stream_usage: StreamUsage,
    /// Gateway extras that are this provider's own request fields, and so are not stripped.
    pub native: &'static [ExtraField],
    /// The name that is put into a request that has none.
    pub limit: LimitName,
    /// What chat requests may say, of those that the gateway writes itself.
    pub chat: ChatQuirks,
}

impl Quirks {
    /// Behaves like OpenAI.
    pub const STANDARD: Self = Self {
        stream_usage: StreamUsage::Inject,
        native: &[],
        limit: LimitName::MaxTokens,
        chat: ChatQuirks::COMPATIBLE,
    };
    /// Sends usage unasked and refuses `stream_options`.
    pub const USAGE_ALWAYS: Self = Self { stream_usage: StreamUsage::Always, ..Self::STANDARD };
}

/// A service that models can be called at.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// The id in resources, headers and model prefixes: `groq/…`.
    pub id: &'static str,
    pub name: &'static str,
    /// Other prefixes that clients know it by.
    pub aliases: &'static [&'static str],
    /// Without trailing slash; empty when only a deployment can say.
    pub base_url: &'static str,
    /// Environment variable that holds the base URL of this installation's own server.
    pub base_url_env: Option<&'static str>,
    pub auth: AuthScheme,
    /// Environment variables that hold the key; the first that is set wins.
    pub env: &'static [&'static str],
    pub endpoints: &'static [Endpoint],
    pub quirks: Quirks,
    /// Sent with every request.
    pub static_headers: &'static [(&'static str, &'static str)],
    /// What conversations are written in that no endpoint of `endpoints` takes as they are; see [`Provider::dialect`].
    pub speaks: Option<Dialect>,
    pub hosting: Hosting,
    /// Endpoints that it serves in words of its own.
    pub conversions: &'static [(Endpoint, Conversion)],
    /// Endpoints that are not below the base URL but at this path of its host.
    pub origin_paths: &'static [(Endpoint, &'static str)],
    /// It has OpenAI's `/responses/input_tokens`.
    pub counts_input: bool,
}

/// Rows of one table: the id says it all.
impl PartialEq for Provider {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Provider {}

impl Provider {
    /// Whether it takes this endpoint's bodies as they are.
    pub fn speaks_natively(&self, endpoint: Endpoint, model: &str) -> bool {
        match (self.hosting, endpoint) {
            // A whole request in it names the model once more.
            (_, Endpoint::GoogleCountTokens) => false,
            // One host, several model families, each with its own dialect.
            (Hosting::Vertex, Endpoint::Messages) => is_claude(model),
            (Hosting::Vertex, Endpoint::GenerateContent) => !is_claude(model),
            _ => self.endpoints.contains(&endpoint),
        }
    }

    /// Whether it serves this endpoint at all, with a model of this name.
    pub fn serves(&self, endpoint: Endpoint, model: &str) -> bool {
        crate::plan::plan(endpoint, self, model).is_some()
    }

    /// What conversations with this model are written in, when the client's dialect is another one.
    pub fn dialect(&self, model: &str) -> Option<Dialect> {
        match self.hosting {
            Hosting::Vertex if is_claude(model) => Some(Dialect::Messages),
            _ => self.speaks,
        }
    }

    /// The member that limits the output of `upstream_model`, for a request that has none; `None`: there is no such member.
    pub fn limit_name(&self, endpoint: Endpoint, upstream_model: &str) -> Option<&'static str> {
        // Behind a proxy or a gateway OpenAI's models refuse `max_tokens` as well.
        let reasons = is_reasoning(upstream_model);
        match endpoint {
            Endpoint::ChatCompletions if reasons || self.quirks.limit == LimitName::MaxCompletionTokens => {
                Some("max_completion_tokens")
            }
            Endpoint::ChatCompletions | Endpoint::Completions | Endpoint::Messages => Some("max_tokens"),
            Endpoint::Responses => Some("max_output_tokens"),
            _ => None,
        }
    }

    /// Where `endpoint` is, for a deployment with this base URL (without trailing slash).
    pub fn url(&self, base_url: &str, endpoint: Endpoint) -> String {
        let own = self.origin_paths.iter().find(|(of, _)| *of == endpoint);
        match (own, base_url.split_once("://")) {
            (Some((_, path)), Some((scheme, rest))) => {
                let host = rest.split('/').next().unwrap_or(rest);
                format!("{scheme}://{host}{path}")
            }
            _ => format!("{base_url}{}", endpoint.upstream_path()),
        }
    }

    /// The base URL meant by the value of [`Provider::base_url_env`], written as such servers write their own
    /// address: scheme, port and path are optional, and `0.0.0.0` stands for this machine.
    ///
    /// `None` when there is no host in it.
    pub fn base_url_from_env(&self, value: &str) -> Option<String> {
        let value = value.trim();
        let (scheme, rest) = value.split_once("://").unwrap_or(("http", value));
        let rest = rest.trim_end_matches('/');
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_port(authority);
        if host.is_empty() || !matches!(scheme, "http" | "https") {
            return None;
        }
        let host = if host == "0.0.0.0" || host == "[::]" { "127.0.0.1" } else { host };
        let port = match (port, scheme) {
            (Some(port), _) => format!(":{port}"),
            (None, "https") => String::new(),
            (None, _) => default_port(self.base_url).map(|port| format!(":{port}")).unwrap_or_default(),
        };
        let path = if path.is_empty() { "/v1" } else { path };
        Some(format!("{scheme}://{host}{port}{path}"))
    }
}

/// Whether it is one of OpenAI's models that reason, which refuse some parameters of the others.
pub(crate) fn is_reasoning(model: &str) -> bool {
    let model = model.rsplit('/').next().unwrap_or(model);
    ["o1", "o3", "o4", "gpt-5", "gpt-6"].iter().any(|family| model.starts_with(family))
}

pub(crate) fn is_claude(model: &str) -> bool {
    model.rsplit('/').next().unwrap_or(model).starts_with("claude")
}

/// Splits `host:port`; an IPv6 host keeps its brackets.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            // `[::1]` ends with a group of digits as well, and `:11434` means every interface.
            match host {
                "" => ("0.0.0.0", Some(port)),
                _ if host.starts_with('[') && !host.ends_with(']') => (authority, None),
                _ => (host, Some(port)),
            }
        }
        _ => (authority, None),
    }
}

fn default_port(base_url: &str) -> Option<&str> {
    let (_, rest) = base_url.split_once("://")?;
    split_port(rest.split('/').next()?).1
}

#[cfg(test)]
mod tests {
    use crate::provider;

    #[test]
    fn an_endpoint_outside_of_the_compatibility_layer_is_found_at_the_same_host() {
        use crate::Endpoint;
        let cohere = provider("cohere").unwrap();
        let url = |endpoint| cohere.url("https://api.cohere.ai/compatibility/v1", endpoint);
        assert_eq!(url(Endpoint::Rerank), "https://api.cohere.ai/v2/rerank");
        assert_eq!(url(Endpoint::Embeddings), "https://api.cohere.ai/compatibility/v1/embeddings");
    }

    #[test]
    fn a_server_address_becomes_a_base_url() {
        let ollama = provider("ollama").unwrap();
        for (value, url) in [
            ("127.0.0.1:11434", "http://127.0.0.1:11434/v1"),
            ("0.0.0.0", "http://127.0.0.1:11434/v1"),
            ("gpu-box:9000", "http://gpu-box:9000/v1"),
            (":9000", "http://127.0.0.1:9000/v1"),
            ("http://gpu-box:9000/", "http://gpu-box:9000/v1"),
            ("https://models.example.com", "https://models.example.com/v1"),
            ("https://models.example.com/ollama/v1/", "https://models.example.com/ollama/v1"),
            ("[::1]", "http://[::1]:11434/v1"),
            ("[::1]:9000", "http://[::1]:9000/v1"),
        ] {
            assert_eq!(ollama.base_url_from_env(value).as_deref(), Some(url), "{value}");
        }
        for value in ["", " ", "/", "http://", "unix:///run/ollama.sock"] {
            assert_eq!(ollama.base_url_from_env(value), None, "{value}");
        }
    }
}
