//! Shapes of the sources, and what becomes of differences.

use std::collections::BTreeSet;

use super::{
    Change, Fact,
    diff::{Diff, Listing, diff, root},
    gather::gather,
    models_dev, openrouter, provider_list,
};
use crate::store::catalog::{Amounts, ModelRow, OfferingRow, StoredModel};

const MODELS_DEV: &str = r#"{
  "openai": {"id": "openai", "models": {
    "gpt-6": {"id": "gpt-6", "name": "GPT-6", "reasoning": true, "tool_call": true, "structured_output": true,
      "release_date": "2026-11-01", "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]},
      "cost": {"input": 1.25, "output": 10, "cache_read": 0.125}, "limit": {"context": 400000, "output": 128000}}}},
  "amazon-bedrock": {"models": {
    "anthropic.claude-sonnet-4-5-20250929-v1:0": {"name": "Claude Sonnet 4.5", "tool_call": true,
      "cost": {"input": 3, "output": 15, "context_over_200k": {"input": 6, "output": 22.5}},
      "limit": {"context": 200000, "output": 64000}}}},
  "somebody-else": {"models": {"x": {"name": "X"}}}
}"#;

const OPENROUTER: &str = r#"{"data": [
  {"id": "openai/gpt-6", "name": "OpenAI: GPT-6", "created": 1793500000, "context_length": 400000,
   "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
   "pricing": {"prompt": "0.00000125", "completion": "0.00001", "input_cache_read": "0.000000125",
     "internal_reasoning": "0", "web_search": "0.01"},
   "top_provider": {"max_completion_tokens": 128000}, "supported_parameters": ["tools", "structured_outputs"]},
  {"id": "openai/gpt-6:free", "pricing": {"prompt": "0", "completion": "0"}},
  {"id": "openrouter/auto", "pricing": {"prompt": "-1", "completion": "-1"}}
]}"#;

#[test]
fn registries_and_providers_lists_are_read() {
    let facts = models_dev::read(MODELS_DEV.as_bytes()).unwrap();
    let named = |name: &str| facts.iter().find(|fact| fact.upstream_model == name).unwrap();
    let gpt = named("gpt-6");
    assert_eq!(
        (gpt.provider.as_str(), gpt.context_window, gpt.max_output_tokens),
        ("openai", Some(400_000), Some(128_000))
    );
    let price = gpt.amounts.as_ref().unwrap();
    assert_eq!(
        (price.input, price.output, price.cache_read),
        (Some(1_250_000_000), Some(10_000_000_000), Some(125_000_000))
    );
    assert_eq!(gpt.input_modalities.as_ref().unwrap(), &["text", "image", "file"]);
    assert_eq!(gpt.abilities.as_ref().unwrap(), &["function-calling", "json", "reasoning"]);
    let claude = named("anthropic.claude-sonnet-4-5-20250929-v1:0");
    assert_eq!(claude.provider, "bedrock");
    assert!(
        claude.knows_steps && claude.amounts.as_ref().unwrap().steps.as_ref().unwrap().contains("200000")
    );
    assert_eq!(facts.len(), 2, "nobody knows the third provider");

    let facts = openrouter::read(OPENROUTER.as_bytes()).unwrap();
    let [gpt] = facts.as_slice() else { panic!("{facts:?}") };
    assert_eq!((gpt.upstream_model.as_str(), gpt.display_name.as_deref()), ("openai/gpt-6", Some("GPT-6")));
    let price = gpt.amounts.as_ref().unwrap();
    assert_eq!(
        (price.input, price.output, price.reasoning),
        (Some(1_250_000_000), Some(10_000_000_000), None)
    );

    for (provider, body, name) in [
        ("openai", r#"{"data":[{"id":"gpt-6","created":1793500000,"owned_by":"openai"}]}"#, "gpt-6"),
        (
            "anthropic",
            r#"{"data":[{"type":"model","id":"claude-6","display_name":"Claude 6","created_at":"2026-11-01T00:00:00Z"}]}"#,
            "claude-6",
        ),
        (
            "google-ai-studio",
            r#"{"models":[{"name":"models/gemini-4","displayName":"Gemini 4","inputTokenLimit":1048576}]}"#,
            "gemini-4",
        ),
        ("together", r#"[{"id":"meta-llama/Llama-5","context_length":131072}]"#, "meta-llama/Llama-5"),
        ("cohere", r#"{"models":[{"name":"command-b","context_length":256000}]}"#, "command-b"),
    ] {
        let facts = provider_list::read(provider, body.as_bytes()).unwrap();
        assert_eq!(facts[0].upstream_model, name);
    }
    for body in ["", "[]", "{}", "{\"data\": 4}", "<html>"] {
        assert!(models_dev::read(body.as_bytes()).is_err(), "{body}");
        assert!(openrouter::read(body.as_bytes()).is_err(), "{body}");
        assert!(provider_list::read("openai", body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn names_lose_what_providers_put_around_them() {
    for (provider, name, expected) in [
        ("together", "meta-llama/Llama-4-Scout", "llama-4-scout"),
        ("bedrock", "us.anthropic.claude-opus-4-5-20251101-v1:0", "claude-opus-4-5-20251101"),
        ("bedrock", "amazon.nova-pro-v1:0", "nova-pro"),
        ("google-vertex", "claude-opus-4-5@20251101", "claude-opus-4-5-20251101"),
        ("openai", "gpt-6", "gpt-6"),
    ] {
        assert_eq!(root(provider, name), expected);
    }
}

fn amounts(input: i64, output: i64) -> Amounts {
    Amounts { input: Some(input), output: Some(output), ..Amounts::default() }
}

fn stored(id: &str, provider: &str, price: Amounts) -> StoredModel {
    let row = ModelRow {
        id: id.into(),
        context_window: 1000,
        max_output_tokens: 100,
        source: "bundled".into(),
        ..ModelRow::default()
    };
    let offering = OfferingRow {
        model_id: id.into(),
        provider: provider.into(),
        upstream_model: id.into(),
        price_id: Some("p".into()),
        price_is_custom: false,
        amounts: price,
    };
    StoredModel { row, offerings: vec![offering] }
}

fn fact(provider: &str, name: &str, price: Option<Amounts>) -> Fact {
    Fact { provider: provider.into(), upstream_model: name.into(), amounts: price, ..Fact::default() }
}

fn listing(name: &str) -> Listing {
    Listing {
        source: "models.dev".into(),
        provider: "openai".into(),
        upstream_model: name.into(),
        model: name.into(),
    }
}

fn compare(stored: &[StoredModel], facts: Vec<Fact>, listed: &[Listing]) -> Diff {
    let gathered = gather(vec![("models.dev".to_owned(), facts)]);
    diff(stored, &gathered, listed, &BTreeSet::from(["models.dev".to_owned()]))
}

/// R004-33: a new model, a changed price; and what is suspicious waits.
#[test]
fn what_is_plain_is_made_and_what_is_suspicious_is_held() {
    let known = [
        stored("same", "openai", amounts(100, 200)),
        stored("cheaper", "openai", amounts(100, 200)),
        stored("tenfold", "openai", amounts(100, 200)),
        stored("gone", "openai", amounts(1, 2)),
    ];
    let facts = vec![
        fact("openai", "same", Some(amounts(100, 200))),
        fact("openai", "cheaper", Some(amounts(50, 200))),
        fact("openai", "tenfold", Some(amounts(1000, 200))),
        fact("openai", "new", Some(amounts(7, 8))),
        fact("groq", "new", None),
        fact("groq", "same", None),
    ];
    let found = compare(&known, facts, &[listing("same"), listing("gone")]);
    let mut seen: Vec<(&str, &str, &str, bool)> = found
        .proposals
        .iter()
        .map(|it| (it.model.as_str(), it.provider.as_str(), it.change.kind(), it.hold.is_some()))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("cheaper", "openai", "price_changed", false),
            ("gone", "openai", "offering_vanished", true),
            ("new", "groq", "model_added", false),
            ("new", "openai", "offering_added", false),
            ("same", "groq", "offering_added", false),
            ("tenfold", "openai", "price_changed", true),
        ]
    );
    let held = found.proposals.iter().find(|it| it.model == "tenfold").unwrap();
    assert_eq!(held.hold.as_deref(), Some("the input price changes 10 times"));
    assert!(found.provenance.contains(&("same".into(), "openai".into(), "price", "models.dev".into())));
    assert_eq!(found.listings.len(), 6);
}

#[test]
fn what_an_operator_wrote_is_left_alone() {
    let mut custom = stored("custom", "openai", amounts(1, 2));
    custom.row.source = "custom".into();
    let mut priced = stored("priced", "openai", amounts(1, 2));
    priced.offerings[0].price_is_custom = true;
    let facts = vec![
        fact("openai", "custom", Some(amounts(3, 4))),
        fact("groq", "custom", None),
        fact("openai", "priced", Some(amounts(3, 4))),
    ];
    let found = compare(&[custom, priced], facts, &[]);
    assert_eq!(found.proposals, []);
}

#[test]
fn parts_of_a_price_that_a_source_does_not_know_stay_and_steps_ask_first() {
    let before = Amounts {
        cache_write_1h: Some(9),
        units: Some("[]".into()),
        steps: Some("[{}]".into()),
        ..amounts(100, 200)
    };
    let known = [stored("m", "openai", before.clone())];
    let found = compare(&known, vec![fact("openai", "m", Some(amounts(90, 200)))], &[]);
    let Change::PriceChanged { after, .. } = &found.proposals[0].change else { panic!("{found:?}") };
    assert_eq!(*after, Amounts { input: Some(90), ..before });
    assert_eq!(
        found.proposals[0].hold.as_deref(),
        Some("the price has steps, which the source does not tell")
    );
}

#[test]
fn a_source_that_has_lost_much_is_not_believed() {
    let known: Vec<StoredModel> =
        (0..10).map(|i| stored(&format!("m{i}"), "openai", amounts(1, 2))).collect();
    let listed: Vec<Listing> = (0..10).map(|i| listing(&format!("m{i}"))).collect();
    let facts =
        |count: i32| (0..count).map(|i| fact("openai", &format!("m{i}"), Some(amounts(1, 3)))).collect();
    let found = compare(&known, facts(6), &listed);
    assert_eq!(found.suspicious["models.dev"], 40);
    assert!(
        found.proposals.iter().all(|it| it.hold.is_some() && it.change.kind() == "price_changed"),
        "{found:?}"
    );
    let found = compare(&known, facts(7), &listed);
    assert!(found.suspicious.is_empty());
    let vanished = found.proposals.iter().filter(|it| it.change.kind() == "offering_vanished").count();
    assert_eq!(vanished, 3);
}

#[test]
fn who_does_not_answer_takes_nothing_back() {
    let known = [stored("m", "openai", amounts(1, 2))];
    let gathered = gather(vec![("openrouter".to_owned(), vec![fact("openrouter", "x", None)])]);
    let found = diff(&known, &gathered, &[listing("m")], &BTreeSet::from(["openrouter".to_owned()]));
    assert!(found.proposals.iter().all(|it| it.change.kind() != "offering_vanished"));
}

#[test]
fn limits_follow_the_first_offering_unless_they_make_no_sense() {
    let known = [stored("m", "openai", amounts(1, 2))];
    let said = |window, most| Fact {
        context_window: Some(window),
        max_output_tokens: Some(most),
        ..fact("openai", "m", None)
    };
    let found = compare(&known, vec![said(2000, 200)], &[]);
    assert_eq!(found.proposals[0].change.kind(), "limits_changed");
    assert_eq!(compare(&known, vec![said(2000, 3000)], &[]).proposals, []);
    assert_eq!(compare(&known, vec![Fact { provider: "groq".into(), ..said(5, 5) }], &[]).proposals.len(), 1);
}
