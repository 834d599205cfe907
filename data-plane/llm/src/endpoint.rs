//! The endpoints that the data port serves by passing them on. Called by `ingress` (path to endpoint), by
//! dispatch (endpoint to upstream path), and wherever an endpoint is a metric label or a catalog value.

/// An OpenAI endpoint that is proxied to an upstream of the same dialect.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
}

impl Endpoint {
    pub const ALL: [Self; 3] = [Self::ChatCompletions, Self::Completions, Self::Embeddings];

    /// The endpoint of a request path: `/v1/…`, or `/api/v1/…` as clients of OpenRouter send it.
    pub fn from_path(path: &str) -> Option<Self> {
        let path = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v1")?;
        Self::ALL.into_iter().find(|endpoint| endpoint.upstream_path() == path)
    }

    /// What is appended to a deployment's base URL.
    pub fn upstream_path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
        }
    }

    /// Metric label, log value, and name in the catalog.
    pub fn label(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// Whether `"stream": true` has a meaning here.
    pub fn streams(self) -> bool {
        !matches!(self, Self::Embeddings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mounts_name_the_same_endpoints() {
        for endpoint in Endpoint::ALL {
            for mount in ["/v1", "/api/v1"] {
                assert_eq!(
                    Endpoint::from_path(&format!("{mount}{}", endpoint.upstream_path())),
                    Some(endpoint)
                );
            }
        }
    }

    #[test]
    fn other_paths_are_no_endpoint() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/",
            "/v1/models",
            "/v1/chat/completions/",
            "/chat/completions",
            "/api/chat/completions",
            "/v2/embeddings",
        ] {
            assert_eq!(Endpoint::from_path(path), None, "{path}");
        }
    }
}
