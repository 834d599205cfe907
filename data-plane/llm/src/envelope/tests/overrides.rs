//! Requirements E.6, E.9, E.10 and F: what a body says about its own way, and every form of it that is refused.

use nemo_types::{Nanos, NanosPerMillion};

use super::*;
use crate::{MaxPrice, Overrides, Preferences, Sort};

fn extras(members: &str) -> Extras<'static> {
    let body = format!(r#"{{"model":"m","messages":[],{members}}}"#).leak();
    chat(body).unwrap_or_else(|error| panic!("{error}: {body}")).extras
}

fn overrides(members: &str) -> Overrides {
    extras(members).overrides.map(|it| *it).unwrap_or_default()
}

fn boxed(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

#[test]
fn our_own_fields_are_read() {
    let told = overrides(
        r#""nemo_tags":["vision", " long-context "],"nemo_strategy":"cost-based","nemo_fallbacks":["a","b/c"],
           "nemo_max_cost":0.05,"nemo_retries":0,"nemo_cache":false"#,
    );
    assert_eq!(told.tags, Some(Said::new("nemo_tags", boxed(&["vision", "long-context"]))));
    assert_eq!(told.strategy, Some(Said::new("nemo_strategy", "cost-based".into())));
    assert_eq!(told.chain, Some(Said::new("nemo_fallbacks", Chain::Instead(boxed(&["a", "b/c"])))));
    assert_eq!(told.max_cost, Some(Said::new("nemo_max_cost", Nanos(50_000_000))));
    assert_eq!((told.routing, told.preferences), (None, None));
    assert_eq!(extras(r#""nemo_retries":0"#).retries, Some(Said::new("nemo_retries", 0)));
    assert_eq!(overrides(r#""nemo_max_cost":"1.5""#).max_cost.unwrap().value, Nanos(1_500_000_000));
    // An empty list says something: no tags, no fallbacks.
    assert_eq!(overrides(r#""nemo_tags":[]"#).tags.unwrap().value, boxed(&[]));
    assert_eq!(overrides(r#""nemo_fallbacks":[ ]"#).chain.unwrap().value, Chain::Instead(boxed(&[])));
    let nothing = r#""nemo_tags":null,"nemo_strategy":null,"nemo_fallbacks":null,"nemo_max_cost":null,
        "nemo_retries":null,"nemo_cache":null,"models":null,"fallbacks":null,"num_retries":null,"routing":null,"provider":null"#;
    let extras = extras(nothing);
    assert_eq!(
        (extras.retries, extras.overrides.map(|it| *it).unwrap_or_default()),
        (None, Overrides::default())
    );
}

#[test]
fn ours_win_over_those_of_other_gateways_in_any_order() {
    for members in [r#""nemo_retries":1,"num_retries":4"#, r#""num_retries":4,"nemo_retries":1"#] {
        assert_eq!(extras(members).retries, Some(Said::new("nemo_retries", 1)));
    }
    assert_eq!(extras(r#""num_retries":4"#).retries, Some(Said::new("num_retries", 4)));
    for members in [
        r#""nemo_fallbacks":["a"],"models":["b"],"fallbacks":["c"]"#,
        r#""fallbacks":["c"],"models":["b"],"nemo_fallbacks":["a"]"#,
    ] {
        assert_eq!(overrides(members).chain.unwrap().field, "nemo_fallbacks");
    }
    assert_eq!(overrides(r#""fallbacks":["c"],"models":["b"]"#).chain.unwrap().field, "models");
}

#[test]
fn chains_of_other_gateways_are_read() {
    let chain = |members: &str| overrides(members).chain.map(|chain| chain.value);
    assert_eq!(chain(r#""models":["a","b"]"#), Some(Chain::After(boxed(&["a", "b"]))));
    assert_eq!(
        chain(r#""models":["m","b"]"#),
        Some(Chain::After(boxed(&["b"]))),
        "the model itself once more"
    );
    assert_eq!(chain(r#""models":[]"#), None);
    assert_eq!(
        chain(r#""fallbacks":["a",{"model":"b","messages":[]},{"provider":"openai","model":"c"}]"#),
        Some(Chain::Instead(boxed(&["a", "b", "openai/c"])))
    );
}

/// OpenRouter's clients may leave `model` out when they send `models`.
#[test]
fn models_stand_in_for_a_missing_model() {
    let envelope = chat(r#"{"models":["a","b"],"messages":[]}"#).unwrap();
    assert_eq!((&*envelope.model, envelope.model_sent), ("a", false));
    assert_eq!(envelope.extras.overrides.unwrap().chain.unwrap().value, Chain::After(boxed(&["b"])));
    let envelope = chat(r#"{"models":["a"],"messages":[]}"#).unwrap();
    assert_eq!(envelope.extras.overrides.unwrap().chain, None);
    for (endpoint, body) in [
        (Endpoint::ChatCompletions, r#"{"models":[],"messages":[]}"#),
        // Nothing would be left in the body that a model could be put before.
        (Endpoint::Responses, r#"{"models":["a"]}"#),
    ] {
        assert_eq!(refusal(endpoint, body), (EnvelopeErrorKind::MissingField, Some("model")), "{body}");
    }
}

#[test]
fn preferences_are_read_whole() {
    let told = overrides(
        r#""provider":{"order":["openai","azure"],"only":["a"],"ignore":["b"],"allow_fallbacks":false,
            "sort":{"by":"throughput","partition":"none"},"require_parameters":true,"data_collection":"deny","zdr":true,
            "max_price":{"prompt":1,"completion":"2.5","request":0.01,"image":0,"audio":"x"}}"#,
    );
    assert_eq!(
        told.preferences,
        Some(Preferences {
            order: boxed(&["openai", "azure"]),
            only: boxed(&["a"]),
            ignore: boxed(&["b"]),
            allow_fallbacks: Some(false),
            sort: Some(Sort::Throughput),
            require_parameters: true,
            max_price: MaxPrice {
                prompt: Some(NanosPerMillion(1_000_000_000)),
                completion: Some(NanosPerMillion(2_500_000_000)),
                request: Some(NanosPerMillion(10_000_000_000_000)),
                image: Some(NanosPerMillion(0)),
            },
        })
    );
    assert_eq!(overrides(r#""provider":{}"#).preferences, Some(Preferences::default()));
    assert_eq!(overrides(r#""provider":{"sort":"price"}"#).preferences.unwrap().sort, Some(Sort::Price));
    assert_eq!(overrides(r#""routing":"latency""#).routing, Some(Said::new("routing", Some(Sort::Latency))));
    assert_eq!(overrides(r#""routing":"auto""#).routing, Some(Said::new("routing", None)));
}

/// "Bad input": every malformed value is a 400 that names its field.
#[test]
fn malformed_overrides_are_refused_by_name() {
    let long = format!(r#""nemo_tags":[{}]"#, vec![r#""a""#; Overrides::MAX_LIST + 1].join(","));
    let wide = format!(r#""nemo_tags":["{}"]"#, "x".repeat(Overrides::MAX_NAME + 1));
    for (members, param) in [
        (r#""nemo_tags":"vision""#, "nemo_tags"),
        (r#""nemo_tags":{}"#, "nemo_tags"),
        (r#""nemo_tags":["a",1]"#, "nemo_tags"),
        (r#""nemo_tags":["a"," "]"#, "nemo_tags"),
        (r#""nemo_tags":[null]"#, "nemo_tags"),
        (r#""nemo_tags":["\ud800"]"#, "nemo_tags"),
        (&long, "nemo_tags"),
        (&wide, "nemo_tags"),
        (r#""nemo_strategy":["cost-based"]"#, "nemo_strategy"),
        (r#""nemo_strategy":"""#, "nemo_strategy"),
        (r#""nemo_fallbacks":"a""#, "nemo_fallbacks"),
        (r#""nemo_fallbacks":[{"name":"a"}]"#, "nemo_fallbacks"),
        (r#""nemo_fallbacks":[{"model":1}]"#, "nemo_fallbacks"),
        (r#""nemo_fallbacks":[["a"]]"#, "nemo_fallbacks"),
        (r#""nemo_retries":-1"#, "nemo_retries"),
        (r#""nemo_retries":1.5"#, "nemo_retries"),
        (r#""nemo_retries":"2""#, "nemo_retries"),
        (r#""nemo_max_cost":-1"#, "nemo_max_cost"),
        (r#""nemo_max_cost":"cheap""#, "nemo_max_cost"),
        (r#""nemo_max_cost":true"#, "nemo_max_cost"),
        (r#""nemo_cache":"off""#, "nemo_cache"),
        (r#""nemo_no_fallback":1"#, "nemo_no_fallback"),
        (r#""models":"a""#, "models"),
        (r#""models":[1]"#, "models"),
        (r#""models":[""]"#, "models"),
        (r#""fallbacks":{"a":["b"]}"#, "fallbacks"),
        (r#""fallbacks":[1]"#, "fallbacks"),
        (r#""num_retries":"x""#, "num_retries"),
        (r#""disable_fallbacks":"yes""#, "disable_fallbacks"),
        (r#""routing":"fastest""#, "routing"),
        (r#""routing":1"#, "routing"),
        (r#""provider":"openai""#, "provider"),
        (r#""provider":[]"#, "provider"),
        (r#""provider":{"order":"openai"}"#, "provider.order"),
        (r#""provider":{"order":[1]}"#, "provider.order"),
        (r#""provider":{"only":[""]}"#, "provider.only"),
        (r#""provider":{"ignore":true}"#, "provider.ignore"),
        (r#""provider":{"allow_fallbacks":"no"}"#, "provider.allow_fallbacks"),
        (r#""provider":{"sort":"cheapest"}"#, "provider.sort"),
        (r#""provider":{"sort":{"by":"cheapest"}}"#, "provider.sort"),
        (r#""provider":{"require_parameters":1}"#, "provider.require_parameters"),
        (r#""provider":{"max_price":3}"#, "provider.max_price"),
        (r#""provider":{"max_price":{"prompt":-1}}"#, "provider.max_price.prompt"),
        (r#""provider":{"max_price":{"completion":"x"}}"#, "provider.max_price.completion"),
    ] {
        let body = format!(r#"{{"model":"m","messages":[],{members}}}"#);
        assert_eq!(
            refusal(Endpoint::ChatCompletions, &body),
            (EnvelopeErrorKind::InvalidField, Some(param)),
            "{body}"
        );
    }
}

#[test]
fn overrides_may_stand_only_once() {
    for (name, value) in [
        ("nemo_tags", "[]"),
        ("nemo_strategy", "\"a\""),
        ("nemo_fallbacks", "[]"),
        ("nemo_retries", "1"),
        ("nemo_max_cost", "1"),
        ("nemo_cache", "true"),
        ("nemo_no_fallback", "true"),
        ("nemo_timeout_ms", "1"),
        ("models", "[]"),
        ("fallbacks", "[]"),
        ("num_retries", "1"),
        ("disable_fallbacks", "true"),
        ("routing", "\"auto\""),
        ("provider", "{}"),
    ] {
        for again in [name.to_owned(), name.to_uppercase(), name.replacen('_', "\\u005f", 1)] {
            let body = format!(r#"{{"model":"m","messages":[],"{name}":{value},"{again}":{value}}}"#);
            let refused = refusal(Endpoint::ChatCompletions, &body);
            assert_eq!(refused, (EnvelopeErrorKind::DuplicateField, Some(name)), "{body}");
        }
    }
    for name in ["order", "only", "ignore", "allow_fallbacks", "sort", "require_parameters", "max_price"] {
        let body = format!(r#"{{"model":"m","messages":[],"provider":{{"{name}":null,"{name}":null}}}}"#);
        assert_eq!(refusal(Endpoint::ChatCompletions, &body).0, EnvelopeErrorKind::DuplicateField, "{body}");
    }
}
