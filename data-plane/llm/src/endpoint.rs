//! The endpoints that the data port serves by passing them on. Called by `ingress` (path to endpoint), by
//! dispatch (endpoint to upstream path), and wherever an endpoint is a metric label or a catalog value.

use crate::Dialect;

/// An endpoint that is proxied to an upstream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
    ImageGenerations,
    ImageEdits,
    ImageVariations,
    Speech,
    Transcriptions,
    Translations,
    Moderations,
    /// Cohere's and Jina's, which OpenAI does not have.
    Rerank,
    /// Anthropic's.
    Messages,
    /// Anthropic's, for what [`Self::Messages`] would take in.
    CountTokens,
    /// Google's `:generateContent` and `:streamGenerateContent`, whose paths name the model.
    GenerateContent,
    /// Google's, for what [`Self::GenerateContent`] would take in.
    GoogleCountTokens,
    /// Films, made in the background: this asks for one.
    Videos,
}

impl Endpoint {
    pub const ALL: [Self; 17] = [
        Self::ChatCompletions,
        Self::Completions,
        Self::Embeddings,
        Self::Responses,
        Self::ImageGenerations,
        Self::ImageEdits,
        Self::ImageVariations,
        Self::Speech,
        Self::Transcriptions,
        Self::Translations,
        Self::Moderations,
        Self::Rerank,
        Self::Messages,
        Self::CountTokens,
        Self::GenerateContent,
        Self::GoogleCountTokens,
        Self::Videos,
    ];

    /// The endpoint of a request path: `/v1/…`, or `/api/v1/…` as clients of OpenRouter send it; of Google's clients
    /// `/v1beta/models/{model}:generateContent`.
    pub fn from_path(path: &str) -> Option<Self> {
        if let Some(call) = google_call(path) {
            return Some(match call.method {
                GoogleMethod::Generate | GoogleMethod::Stream => Self::GenerateContent,
                GoogleMethod::CountTokens => Self::GoogleCountTokens,
            });
        }
        let path = path.strip_prefix("/api").unwrap_or(path).strip_prefix("/v1")?;
        let named = |endpoint: &Self| !endpoint.is_named_in_path() && endpoint.upstream_path() == path;
        Self::ALL.into_iter().find(named)
    }

    /// The endpoint of this [`Self::label`].
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.label() == label)
    }

    /// What is appended to a deployment's base URL.
    pub fn upstream_path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/chat/completions",
            Self::Completions => "/completions",
            Self::Embeddings => "/embeddings",
            Self::Responses => "/responses",
            Self::ImageGenerations => "/images/generations",
            Self::ImageEdits => "/images/edits",
            Self::ImageVariations => "/images/variations",
            Self::Speech => "/audio/speech",
            Self::Transcriptions => "/audio/transcriptions",
            Self::Translations => "/audio/translations",
            Self::Moderations => "/moderations",
            Self::Rerank => "/rerank",
            Self::Messages => "/messages",
            Self::CountTokens => "/messages/count_tokens",
            Self::GenerateContent | Self::GoogleCountTokens => "/models",
            Self::Videos => "/videos",
        }
    }

    /// Metric label, log value, and name in the catalog.
    pub fn label(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::ImageGenerations => "images.generations",
            Self::ImageEdits => "images.edits",
            Self::ImageVariations => "images.variations",
            Self::Speech => "audio.speech",
            Self::Transcriptions => "audio.transcriptions",
            Self::Translations => "audio.translations",
            Self::Moderations => "moderations",
            Self::Rerank => "rerank",
            Self::Messages => "messages",
            Self::CountTokens => "messages.count_tokens",
            Self::GenerateContent => "generate_content",
            Self::GoogleCountTokens => "generate_content.count_tokens",
            Self::Videos => "videos",
        }
    }

    /// Whether `"stream": true` has a meaning here. Speech streams by another member, and in its own way always.
    pub fn streams(self) -> bool {
        self.has_choices()
            || matches!(
                self,
                Self::Responses
                    | Self::Messages
                    | Self::GenerateContent
                    | Self::ImageGenerations
                    | Self::ImageEdits
                    | Self::Transcriptions
            )
    }

    /// Chat and its predecessor: answers with choices, chunks that end with `[DONE]`, usage that must be asked for.
    pub fn has_choices(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }

    /// Whether what goes in and comes out is text that can be counted in tokens by its length.
    pub fn is_text(self) -> bool {
        self.dialect().is_some() || self.counts().is_some() || self == Self::Embeddings
    }

    /// What the requests are written in that this endpoint counts the tokens of; `None`: it does something else.
    pub fn counts(self) -> Option<Dialect> {
        match self {
            Self::CountTokens => Some(Dialect::Messages),
            Self::GoogleCountTokens => Some(Dialect::GenerateContent),
            _ => None,
        }
    }

    /// Whether clients name the model in the path.
    pub fn is_named_in_path(self) -> bool {
        matches!(self, Self::GenerateContent | Self::GoogleCountTokens)
    }

    /// What its clients speak, where it is a conversation: such an endpoint can be served by a target of another dialect.
    pub fn dialect(self) -> Option<Dialect> {
        Some(match self {
            Self::ChatCompletions => Dialect::Chat,
            Self::Completions => Dialect::Completions,
            Self::Responses => Dialect::Responses,
            Self::Messages => Dialect::Messages,
            Self::GenerateContent => Dialect::GenerateContent,
            _ => return None,
        })
    }

    pub fn is_image(self) -> bool {
        matches!(self, Self::ImageGenerations | Self::ImageEdits | Self::ImageVariations)
    }

    /// Whether clients send it as `multipart/form-data`.
    pub fn takes_form(self) -> bool {
        matches!(
            self,
            Self::ImageEdits
                | Self::ImageVariations
                | Self::Transcriptions
                | Self::Translations
                | Self::Videos
        )
    }

    /// Whether clients send it as JSON. Image edits and videos are sent either way.
    pub fn takes_json(self) -> bool {
        !self.takes_form() || matches!(self, Self::ImageEdits | Self::Videos)
    }

    /// The model that is meant when a request names none, as OpenAI documents it.
    pub fn default_model(self) -> Option<&'static str> {
        (self == Self::Moderations).then_some("omni-moderation-latest")
    }
}

/// What Google's clients say in the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GoogleCall<'a> {
    pub model: &'a str,
    pub method: GoogleMethod,
}

/// What is to be done with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GoogleMethod {
    Generate,
    Stream,
    CountTokens,
}

/// Of `/v1beta/models/{model}:generateContent` and its like, or the same below `/v1`. Google's clients escape nothing in the
/// model but what no model's name has; a name with a slash stands there as it is.
pub fn google_call(path: &str) -> Option<GoogleCall<'_>> {
    let below = |mount: &str| path.strip_prefix(mount)?.strip_prefix("/models/");
    let call = below("/v1beta").or_else(|| below("/v1"))?;
    let (model, method) = call.rsplit_once(':')?;
    let method = match method {
        "generateContent" => GoogleMethod::Generate,
        "streamGenerateContent" => GoogleMethod::Stream,
        "countTokens" => GoogleMethod::CountTokens,
        _ => return None,
    };
    (!model.is_empty()).then_some(GoogleCall { model, method })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_mounts_name_the_same_endpoints() {
        for endpoint in Endpoint::ALL.into_iter().filter(|it| !it.is_named_in_path()) {
            for mount in ["/v1", "/api/v1"] {
                assert_eq!(
                    Endpoint::from_path(&format!("{mount}{}", endpoint.upstream_path())),
                    Some(endpoint)
                );
            }
            assert_eq!(Endpoint::from_label(endpoint.label()), Some(endpoint));
        }
    }

    #[test]
    fn google_names_model_and_method_in_the_path() {
        use super::{Endpoint::GenerateContent, GoogleMethod::*};
        for (path, call) in [
            ("/v1beta/models/gemini-3:generateContent", Some(("gemini-3", Generate))),
            ("/v1/models/gemini-3:streamGenerateContent", Some(("gemini-3", Stream))),
            ("/v1beta/models/google/gemini-3:streamGenerateContent", Some(("google/gemini-3", Stream))),
            ("/v1beta/models/llama3:8b:generateContent", Some(("llama3:8b", Generate))),
            ("/v1beta/models/llama3:8b:countTokens", Some(("llama3:8b", CountTokens))),
            ("/v1beta/models/:generateContent", None),
            ("/v1beta/models/gemini-3:embedContent", None),
            ("/v1beta/models/gemini-3", None),
        ] {
            assert_eq!(google_call(path).map(|it| (it.model, it.method)), call, "{path}");
            let endpoint = call.map(|(_, method)| match method {
                CountTokens => Endpoint::GoogleCountTokens,
                Generate | Stream => GenerateContent,
            });
            assert_eq!(Endpoint::from_path(path), endpoint);
        }
    }

    /// Tables elsewhere are indexed by it.
    #[test]
    fn the_list_is_in_the_order_of_the_declaration() {
        for (at, endpoint) in Endpoint::ALL.into_iter().enumerate() {
            assert_eq!(endpoint as usize, at);
            assert!(endpoint.takes_form() || endpoint.takes_json());
        }
    }

    /// Keys are limited by these names, and the control plane checks them against its own list.
    #[test]
    fn both_planes_know_the_same_names() {
        assert_eq!(Endpoint::ALL.map(Endpoint::label), nemo_types::endpoint::LABELS);
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
            "/v1/responses/resp_1",
            "/v1/audio",
        ] {
            assert_eq!(Endpoint::from_path(path), None, "{path}");
        }
    }
}
