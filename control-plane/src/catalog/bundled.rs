//! The catalog that ships with this version. `bundled.json` is generated: change `tools/catalog/models.toml` and run
//! `tools/catalog/build.py`. Called when a database is set up or brought up to date.

use super::Catalog;

const BUNDLED: &str = include_str!("bundled.json");

/// Parses the catalog that is part of this binary.
///
/// # Errors
/// Only when the file that was compiled in does not have the shape of [`Catalog`], which the tests rule out.
pub fn bundled() -> Result<Catalog, serde_json::Error> {
    serde_json::from_str(BUNDLED)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::catalog::{CatalogModel, CatalogOffering, CatalogPriceStep, price_id};

    /// The provider table; the data plane's deployments are named after it.
    const PROVIDERS: [&str; 25] = [
        "alibaba",
        "anthropic",
        "azure",
        "bedrock",
        "cerebras",
        "cohere",
        "deepinfra",
        "deepseek",
        "fireworks",
        "google-ai-studio",
        "google-vertex",
        "groq",
        "hyperbolic",
        "mistral",
        "moonshot",
        "nebius",
        "novita",
        "nvidia",
        "openai",
        "openrouter",
        "perplexity",
        "sambanova",
        "together",
        "xai",
        "zai",
    ];

    /// The data plane's names of them.
    const ENDPOINTS: [&str; 12] = [
        "chat.completions",
        "completions",
        "embeddings",
        "responses",
        "images.generations",
        "images.edits",
        "images.variations",
        "audio.speech",
        "audio.transcriptions",
        "audio.translations",
        "moderations",
        "rerank",
    ];

    /// R002, R003-8: every endpoint but the retired variations has a model, each priced in units that are known.
    #[test]
    fn every_endpoint_has_a_model_with_a_price_in_its_unit() {
        let catalog = catalog();
        for endpoint in ENDPOINTS.iter().filter(|endpoint| **endpoint != "images.variations") {
            assert!(
                catalog.models.iter().any(|model| model.endpoints.iter().any(|it| it == endpoint)),
                "{endpoint}"
            );
        }
        for (model, offering) in offerings(&catalog) {
            for unit in &offering.price.units {
                assert!(nemo_types::Unit::from_name(&unit.unit).is_some(), "{}: {}", model.id, unit.unit);
                assert!((0..=1_000_000_000_000_000).contains(&unit.price), "{}: {}", model.id, unit.price);
            }
        }
        let price = |name: &str| by_name(&catalog, name).offerings[0].price.clone();
        // 0.006 USD per minute, 15 USD per million characters, 2 USD per thousand searches; moderation is free.
        for (name, unit, nanos) in [
            ("whisper-1", "audio_milliseconds", 100_000_000),
            ("tts-1", "characters", 15_000_000_000),
            ("rerank-v3.5", "search_units", 2_000_000_000_000),
            ("omni-moderation-latest", "requests", 0),
        ] {
            assert_eq!(
                (price(name).units[0].unit.as_str(), price(name).units[0].price),
                (unit, nanos),
                "{name}"
            );
        }
    }

    fn catalog() -> Catalog {
        bundled().expect("the bundled catalog parses")
    }

    fn offerings(catalog: &Catalog) -> impl Iterator<Item = (&CatalogModel, &CatalogOffering)> {
        catalog.models.iter().flat_map(|model| model.offerings.iter().map(move |offering| (model, offering)))
    }

    fn by_name<'a>(catalog: &'a Catalog, name: &str) -> &'a CatalogModel {
        catalog
            .models
            .iter()
            .find(|model| model.names().any(|known| known == name))
            .unwrap_or_else(|| panic!("no model is called {name}"))
    }

    /// The promise of the release; also R000-19 (at least 20 models).
    #[test]
    fn at_least_60_models_over_at_least_8_known_providers() {
        let catalog = catalog();
        assert!(catalog.models.len() >= 60, "{} models", catalog.models.len());
        let providers: BTreeSet<_> =
            offerings(&catalog).map(|(_, offering)| offering.provider.as_str()).collect();
        assert!(providers.len() >= 8, "{providers:?}");
        let unknown: Vec<_> = providers.iter().filter(|provider| !PROVIDERS.contains(provider)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn says_when_and_from_what_it_was_made() {
        let catalog = catalog();
        let format = time::macros::format_description!("[year]-[month]-[day]");
        time::Date::parse(&catalog.generated, format).expect("a date");
        assert!(!catalog.sources.is_empty());
        assert!(
            catalog
                .sources
                .iter()
                .all(|s| ["pypi", "npm"].contains(&s.registry.as_str()) && !s.version.is_empty())
        );
    }

    #[test]
    fn no_name_belongs_to_two_models() {
        let catalog = catalog();
        let mut owners = BTreeMap::new();
        for model in &catalog.models {
            assert!(!model.id.contains('/'), "{} has a prefix", model.id);
            for name in model.names() {
                let other = owners.insert(name, &model.id);
                assert_eq!(other, None, "{name} is also {}", model.id);
            }
        }
    }

    #[test]
    fn prices_are_between_nothing_and_1000_usd_per_million() {
        let catalog = catalog();
        let mut priced = 0;
        for (model, offering) in offerings(&catalog) {
            let price = &offering.price;
            for nanos in
                [price.input, price.output, price.cache_read, price.cache_write].into_iter().flatten()
            {
                assert!(
                    (0..=1_000_000_000_000).contains(&nanos),
                    "{} at {}: {nanos}",
                    model.id,
                    offering.provider
                );
            }
            priced += usize::from(price.input.is_some() || !price.units.is_empty());
        }
        assert!(priced * 10 > offerings(&catalog).count() * 9, "only {priced} offerings have a price");
    }

    /// C 8: long prompts, tiers, caches of an hour and searches have prices of their own.
    #[test]
    fn steps_are_those_of_the_price_lists() {
        let catalog = catalog();
        let price = |name: &str| by_name(&catalog, name).offerings[0].price.clone();
        let gpt = price("gpt-5.4");
        let step = |above, tier: &str| {
            let found = gpt.steps.iter().find(|it| it.above_input_tokens == above && it.service_tier == tier);
            found.map(|it| (it.input, it.output))
        };
        assert_eq!(step(272_000, ""), Some((Some(5_000_000_000), Some(22_500_000_000))));
        assert_eq!(step(0, "flex"), Some((Some(1_250_000_000), Some(7_500_000_000))));
        assert_eq!(step(0, "priority"), Some((Some(5_000_000_000), Some(30_000_000_000))));
        let claude = price("claude-sonnet-4-5-20250929");
        assert_eq!(claude.cache_write_1h, Some(6_000_000_000));
        let searches = claude.units.iter().find(|it| it.unit == "web_searches").map(|it| it.price);
        assert_eq!(searches, Some(10_000_000_000_000));
        for (model, offering) in offerings(&catalog) {
            let steps = &offering.price.steps;
            let order = |it: &CatalogPriceStep| (it.above_input_tokens, it.service_tier.clone());
            assert!(steps.is_sorted_by_key(order), "{}", model.id);
            assert!(steps.iter().all(|it| it.above_input_tokens > 0 || !it.service_tier.is_empty()));
        }
    }

    #[test]
    fn a_price_is_in_nanos_per_million() {
        let catalog = catalog();
        let model = by_name(&catalog, "gpt-4o-mini");
        let offering =
            model.offerings.iter().find(|offering| offering.provider == "openai").expect("offered");
        // 0.15 and 0.60 USD per million, unchanged since its release.
        assert_eq!((offering.price.input, offering.price.output), (Some(150_000_000), Some(600_000_000)));
    }

    #[test]
    fn limits_tags_and_endpoints_fit_each_other() {
        for model in catalog().models {
            let id = &model.id;
            assert!(
                !model.offerings.is_empty() && !model.display_name.is_empty() && model.created_unix > 0,
                "{id}"
            );
            let tagged = |tag: &str| model.tags.iter().any(|known| known == tag);
            assert_eq!(tagged("long-context"), model.context_window >= 200_000, "{id}");
            assert_eq!(tagged("vision"), model.input_modalities.iter().any(|kind| kind == "image"), "{id}");
            let serves = |wanted: &str| model.endpoints.iter().any(|endpoint| endpoint == wanted);
            assert!(model.endpoints.iter().all(|endpoint| ENDPOINTS.contains(&endpoint.as_str())), "{id}");
            if serves("embeddings") {
                assert_eq!((model.endpoints.len(), model.max_output_tokens), (1, None), "{id}");
                assert_eq!(model.output_modalities, ["embedding"], "{id}");
                assert!(model.context_window >= 256, "{id}");
            } else if !serves("chat.completions") {
                assert_eq!((model.context_window, model.max_output_tokens), (0, None), "{id}");
            } else {
                assert!(model.context_window >= 256, "{id}");
                let limit = model.max_output_tokens.unwrap_or(0);
                assert!((1..=model.context_window).contains(&limit), "{id}: {limit}");
            }
        }
    }

    /// R002-6, R002-7 and R004-31: root names resolve; for prefixed ones, that provider offers the model.
    #[test]
    fn names_of_the_migration_guides_resolve() {
        let catalog = catalog();
        let guides = [
            ("gpt-5.2", "openai", "gpt-5.2"),
            ("claude-opus-4-5-20251101", "anthropic", "claude-opus-4-5-20251101"),
            ("claude-opus-4-5-20251101", "bedrock", "claude-opus-4-5-20251101"),
            ("claude-opus-4-5", "anthropic", "claude-opus-4-5-20251101"),
            ("gemini-3-flash-preview", "google-ai-studio", "gemini-3-flash-preview"),
            ("claude-3-5-sonnet", "anthropic", "claude-3-5-sonnet-20241022"),
            ("claude-3-5-sonnet-20241022", "anthropic", "claude-3-5-sonnet-20241022"),
            ("gemini-2.5-flash", "google-vertex", "gemini-2.5-flash"),
            ("claude-3.5-sonnet", "anthropic", "claude-3-5-sonnet-20241022"),
            ("claude-3-haiku", "bedrock", "claude-3-haiku-20240307"),
            ("gpt-4o-mini", "openai", "gpt-4o-mini"),
        ];
        for (name, provider, id) in guides {
            let model = by_name(&catalog, name);
            assert_eq!(model.id, id, "{name}");
            assert!(
                model.offerings.iter().any(|offering| offering.provider == provider),
                "{provider}/{name}"
            );
        }
    }

    /// R002-7, B12: the upstream is asked for the snapshot, not for whatever the undated name means tomorrow.
    #[test]
    fn an_undated_name_is_pinned_to_its_snapshot() {
        let catalog = catalog();
        let model = by_name(&catalog, "gpt-5.2");
        assert_eq!(by_name(&catalog, "gpt-5.2-2025-12-11"), model);
        assert_eq!(model.offerings[0].upstream_model, "gpt-5.2-2025-12-11");
    }

    #[test]
    fn every_offering_has_a_price_id_of_its_own() {
        let catalog = catalog();
        let ids: BTreeSet<_> = offerings(&catalog)
            .map(|(model, offering)| price_id(&catalog.generated, &offering.provider, &model.id))
            .collect();
        assert_eq!(ids.len(), offerings(&catalog).count());
        assert_eq!(price_id("2026-11-21", "openai", "gpt-5.2"), "openai/gpt-5.2@2026-11-21");
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let text = BUNDLED.replacen("\"sources\"", "\"surprise\": 1, \"sources\"", 1);
        let error = serde_json::from_str::<Catalog>(&text).expect_err("refused").to_string();
        assert!(error.contains("surprise"), "{error}");
    }
}
