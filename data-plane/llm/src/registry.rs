//! Lookup of providers by id or alias. Called when a snapshot is compiled and when a model name carries a
//! prefix.

use crate::{
    Provider,
    compatible::{HOSTS, PROVIDERS},
    providers::rows::NATIVE,
};

const COUNT: usize = PROVIDERS.len() + HOSTS.len() + NATIVE.len();

/// All tables as one.
static ALL: [Provider; COUNT] = {
    let mut all = [PROVIDERS[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = if at < PROVIDERS.len() {
            PROVIDERS[at]
        } else if at < PROVIDERS.len() + HOSTS.len() {
            HOSTS[at - PROVIDERS.len()]
        } else {
            NATIVE[at - PROVIDERS.len() - HOSTS.len()]
        };
        at += 1;
    }
    all
};

/// Every provider that the gateway can call.
pub fn providers() -> &'static [Provider] {
    &ALL
}

/// The provider with this id or alias.
pub fn provider(id_or_alias: &str) -> Option<&'static Provider> {
    let by_id = ALL.iter().find(|provider| provider.id == id_or_alias);
    by_id.or_else(|| ALL.iter().find(|provider| provider.aliases.contains(&id_or_alias)))
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

    /// R002: more than forty services speak OpenAI's dialect and need nothing but their row.
    #[test]
    fn more_than_forty_services_need_nothing_but_a_row() {
        let compatible = providers().iter().filter(|row| row.speaks == Some(crate::Dialect::Chat));
        let remote = compatible.filter(|row| row.base_url.starts_with("https://")).count();
        assert!(remote >= 40, "{remote}");
    }

    /// The control plane's table of homes and this one name the same providers.
    #[test]
    fn a_row_that_is_called_over_the_network_says_where() {
        for row in providers().iter().filter(|row| !row.base_url.is_empty()) {
            assert_eq!(nemo_types::base_url(row.id), Some(row.base_url), "{}", row.id);
        }
    }

    #[test]
    fn rows_are_usable_as_they_stand() {
        let mut variables = HashSet::new();
        for row in providers() {
            let serves = Endpoint::ALL.into_iter().any(|endpoint| row.serves(endpoint, "m"));
            assert!(serves, "{}", row.id);
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
        assert!(provider("openai").unwrap().serves(Endpoint::Embeddings, "m"));
        assert!(!provider("anthropic").unwrap().serves(Endpoint::Embeddings, "m"));
    }
}
