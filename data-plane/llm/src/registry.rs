//! Lookup of providers by id or alias. Called when a snapshot is compiled and when a model name carries a
//! prefix.

use crate::{Provider, compatible::PROVIDERS};

/// Every provider that the gateway can call.
pub fn providers() -> &'static [Provider] {
    PROVIDERS
}

/// The provider with this id or alias.
pub fn provider(id_or_alias: &str) -> Option<&'static Provider> {
    let by_id = PROVIDERS.iter().find(|provider| provider.id == id_or_alias);
    by_id.or_else(|| PROVIDERS.iter().find(|provider| provider.aliases.contains(&id_or_alias)))
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
