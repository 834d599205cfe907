//! The table of providers that speak a dialect of their own: one row each. [`crate::compatible`] has those that speak
//! OpenAI's. Read by [`crate::registry`].

use super::{bedrock, cohere, gemini, voyage};
use crate::{
    AuthScheme, Dialect, Endpoint, Provider,
    compatible::{self, home},
    provider::Hosting,
};

/// A remote service with a bearer token; rows say what it speaks.
const REMOTE: Provider = Provider { endpoints: &[], speaks: None, ..compatible::REMOTE };

pub(crate) const NATIVE: &[Provider] = &[
    Provider {
        // Another region is another base URL. The variable holds an API key of Bedrock; access keys are signed with.
        id: "bedrock",
        name: "AWS Bedrock",
        aliases: &["aws-bedrock", "amazon-bedrock"],
        base_url: home("bedrock"),
        auth: AuthScheme::SigV4,
        env: &["AWS_BEARER_TOKEN_BEDROCK"],
        speaks: Some(Dialect::Converse),
        hosting: Hosting::Bedrock,
        conversions: &[(Endpoint::Embeddings, bedrock::embeddings::CONVERSION)],
        ..REMOTE
    },
    Provider {
        id: "cohere",
        name: "Cohere",
        base_url: home("cohere"),
        env: &["COHERE_API_KEY", "CO_API_KEY"],
        // Clients speak Cohere's rankings everywhere.
        endpoints: &[Endpoint::Rerank],
        speaks: Some(Dialect::Cohere),
        conversions: &[(Endpoint::Embeddings, cohere::embeddings::CONVERSION)],
        origin_paths: &[(Endpoint::Rerank, "/v2/rerank")],
        ..REMOTE
    },
    Provider {
        id: "google-ai-studio",
        name: "Google AI Studio",
        aliases: &["gemini", "google"],
        base_url: home("google-ai-studio"),
        auth: AuthScheme::Header("x-goog-api-key"),
        env: &["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_AI_STUDIO_API_KEY"],
        endpoints: &[Endpoint::GenerateContent],
        speaks: Some(Dialect::GenerateContent),
        hosting: Hosting::AiStudio,
        conversions: &[
            (Endpoint::Embeddings, gemini::embeddings::AI_STUDIO),
            (Endpoint::ImageGenerations, gemini::imagen::AI_STUDIO),
            (Endpoint::Videos, gemini::veo::AI_STUDIO),
        ],
        ..REMOTE
    },
    Provider {
        // A project and a location are in the base URL, so only a deployment can say it: see `gemini::address`. Claude is
        // here too, in its own words.
        id: "google-vertex",
        name: "Google Vertex AI",
        aliases: &["vertex", "vertex-ai", "vertex_ai"],
        auth: AuthScheme::GcpToken,
        env: &["GOOGLE_APPLICATION_CREDENTIALS"],
        endpoints: &[Endpoint::GenerateContent, Endpoint::Messages],
        speaks: Some(Dialect::GenerateContent),
        hosting: Hosting::Vertex,
        conversions: &[
            (Endpoint::Embeddings, gemini::embeddings::VERTEX),
            (Endpoint::ImageGenerations, gemini::imagen::VERTEX),
            (Endpoint::Videos, gemini::veo::VERTEX),
        ],
        ..REMOTE
    },
    Provider {
        id: "voyage",
        name: "Voyage AI",
        aliases: &["voyageai", "voyage-ai"],
        base_url: home("voyage"),
        env: &["VOYAGE_API_KEY"],
        conversions: &[(Endpoint::Embeddings, voyage::EMBEDDINGS), (Endpoint::Rerank, voyage::RERANK)],
        ..REMOTE
    },
];
