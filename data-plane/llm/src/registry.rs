//! Lookup of providers by id or alias. Called when a snapshot is compiled and when a model name carries a
//! prefix.

use crate::{Provider, compatible::PROVIDERS};

/// Prefixes that clients use for providers whose dialect has no adapter in this table; their names resolve so
/// that a catalog can mention them.
const OTHER_ALIASES: &[(&str, &[&str])] = &[
    ("google-vertex", &["google-vertex", "vertex", "vertex_ai", "vertex-ai"]),
    ("aws-bedrock", &["aws-bedrock", "bedrock", "amazon-bedrock"]),
    ("azure", &["azure", "azure-openai"]),
];

/// Every provider that the gateway can call.
pub fn providers() -> &'static [Provider] {
    PROVIDERS
}

/// The provider with this id or alias.
pub fn provider(id_or_alias: &str) -> Option<&'static Provider> {
    let by_id = PROVIDERS.iter().find(|provider| provider.id == id_or_alias);
    by_id.or_else(|| PROVIDERS.iter().find(|provider| provider.aliases.contains(&id_or_alias)))
}

/// The id that a prefix such as `gemini` or `vertex` stands for, also of providers that [`provider`] lacks.
pub fn canonical_provider_id(id_or_alias: &str) -> Option<&'static str> {
    let other =
        || OTHER_ALIASES.iter().find(|(_, aliases)| aliases.contains(&id_or_alias)).map(|(id, _)| *id);
    provider(id_or_alias).map(|provider| provider.id).or_else(other)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{AuthScheme, Endpoint};

    #[test]
    fn every_id_and_alias_names_exactly_one_provider() {
        let mut seen = HashSet::new();
        for provider in providers() {
            assert!(seen.insert(provider.id), "{}", provider.id);
            for alias in provider.aliases {
                assert!(seen.insert(alias), "{alias}");
                assert_eq!(super::provider(alias), Some(provider));
            }
        }
        for (_, aliases) in OTHER_ALIASES {
            for alias in *aliases {
                assert!(seen.insert(alias), "{alias}");
            }
        }
    }

    /// R003-4, B12.
    #[test]
    fn prefixes_of_other_gateways_resolve() {
        for (alias, id) in [
            ("gemini", "google-ai-studio"),
            ("google-ai-studio", "google-ai-studio"),
            ("vertex", "google-vertex"),
            ("google-vertex", "google-vertex"),
            ("bedrock", "aws-bedrock"),
            ("aws-bedrock", "aws-bedrock"),
            ("openai", "openai"),
            ("anthropic", "anthropic"),
            ("together_ai", "together"),
        ] {
            assert_eq!(canonical_provider_id(alias), Some(id), "{alias}");
        }
        assert_eq!(canonical_provider_id("nobody"), None);
    }

    #[test]
    fn rows_are_usable_as_they_stand() {
        let mut variables = HashSet::new();
        for row in providers() {
            assert!(!row.endpoints.is_empty(), "{}", row.id);
            assert!(!row.base_url.ends_with('/'), "{}", row.id);
            let local = row.base_url.is_empty() || row.base_url.starts_with("http://127.0.0.1");
            assert!(local || row.base_url.starts_with("https://"), "{}", row.id);
            assert!(local || !row.env.is_empty(), "{} has no variable for its key", row.id);
            assert!(row.auth != AuthScheme::None || row.env.is_empty(), "{}", row.id);
            for variable in row.env.iter().chain(row.base_url_env.iter()) {
                assert!(variables.insert(*variable), "{variable} is claimed twice");
            }
            for (name, value) in row.static_headers {
                assert!(http::HeaderName::from_bytes(name.as_bytes()).is_ok(), "{}: {name}", row.id);
                assert!(http::HeaderValue::from_str(value).is_ok(), "{}: {value}", row.id);
            }
        }
        assert!(provider("openai").unwrap().serves(Endpoint::Embeddings));
        assert!(!provider("anthropic").unwrap().serves(Endpoint::Embeddings));
    }
}
