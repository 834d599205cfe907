use http::HeaderName;

use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in list {
        headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn wishes(list: &[(&'static str, &str)]) -> Wishes {
    from_headers(&headers(list)).unwrap().wishes
}

fn boxed(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|name| Box::from(*name)).collect()
}

#[test]
fn every_header_of_ours_is_read() {
    let told = wishes(&[
        ("x-nemo-tags", "vision, long-context"),
        ("x-nemo-strategy", "cost-based"),
        ("x-nemo-fallbacks", "anthropic/claude,b"),
        ("x-nemo-no-fallback", "TRUE"),
        ("x-nemo-retries", "0"),
        ("x-nemo-timeout-ms", "1500"),
        ("x-nemo-max-cost", "0.05"),
        ("x-nemo-cache", "off"),
    ]);
    let overrides = told.overrides.unwrap();
    assert_eq!(overrides.tags, Some(Said::new("x-nemo-tags", boxed(&["vision", "long-context"]))));
    assert_eq!(overrides.strategy, Some(Said::new("x-nemo-strategy", "cost-based".into())));
    let chain = Chain::Instead(boxed(&["anthropic/claude", "b"]));
    assert_eq!(overrides.chain, Some(Said::new("x-nemo-fallbacks", chain)));
    assert_eq!(overrides.max_cost, Some(Said::new("x-nemo-max-cost", Nanos(50_000_000))));
    assert_eq!(told.retries, Some(Said::new("x-nemo-retries", 0)));
    assert_eq!(told.timeout, Some(Said::new("x-nemo-timeout-ms", Duration::from_millis(1500))));
    assert_eq!(told.no_fallback, Some(true));
    assert!(wishes(&[("x-title", "App"), ("accept", "*/*")]).overrides.is_none());
}

/// HTTP says that a list may go on in a further header of the same name; an empty one is an empty list.
#[test]
fn lists_go_on_in_further_headers() {
    let tags = |list: &[(&'static str, &str)]| wishes(list).overrides.unwrap().tags.unwrap().value;
    assert_eq!(tags(&[("x-nemo-tags", "a"), ("x-nemo-tags", "b,c")]), boxed(&["a", "b", "c"]));
    assert_eq!(tags(&[("x-nemo-tags", " ")]), boxed(&[]));
    let chain = wishes(&[("x-nemo-fallbacks", "")]).overrides.unwrap().chain.unwrap().value;
    assert_eq!(chain, Chain::Instead(Vec::new()));
}

#[test]
fn headers_of_other_gateways_mean_the_same_and_give_way() {
    let told = wishes(&[
        ("x-portkey-retry-count", "3"),
        ("x-portkey-request-timeout", "2000"),
        ("x-no-fallback", "true"),
    ]);
    assert_eq!(told.retries, Some(Said::new("x-portkey-retry-count", 3)));
    assert_eq!(told.timeout, Some(Said::new("x-portkey-request-timeout", Duration::from_secs(2))));
    assert_eq!(told.no_fallback, Some(true));
    let told = wishes(&[("x-litellm-timeout", "1.5"), ("x-litellm-num-retries", "2")]);
    assert_eq!(told.timeout, Some(Said::new("x-litellm-timeout", Duration::from_millis(1500))));
    assert_eq!(told.retries, Some(Said::new("x-litellm-num-retries", 2)));
    // Whichever comes first.
    let mut both = [
        ("x-nemo-retries", "1"),
        ("x-portkey-retry-count", "3"),
        ("x-nemo-timeout-ms", "1"),
        ("x-portkey-request-timeout", "2"),
        ("x-nemo-no-fallback", "false"),
        ("x-no-fallback", "true"),
    ];
    for _ in 0..2 {
        let told = wishes(&both);
        assert_eq!((told.retries.unwrap().value, told.no_fallback), (1, Some(false)));
        assert_eq!(told.timeout.unwrap().value, Duration::from_millis(1));
        both.reverse();
    }
}

#[test]
fn headers_win_over_the_body_field_by_field() {
    let body = br#"{"model":"m","messages":[],"nemo_tags":["b"],"nemo_strategy":"weighted","nemo_retries":4,
        "nemo_timeout_ms":9,"nemo_no_fallback":true,"provider":{"only":["x"]},"models":["z"]}"#;
    let mut envelope = nemo_llm::parse(nemo_llm::Endpoint::ChatCompletions, body).unwrap();
    let told = wishes(&[("x-nemo-tags", "h"), ("x-nemo-retries", "1")]).or_body(&mut envelope.extras);
    let overrides = told.overrides.unwrap();
    assert_eq!(overrides.tags, Some(Said::new("x-nemo-tags", boxed(&["h"]))));
    assert_eq!(told.retries, Some(Said::new("x-nemo-retries", 1)));
    assert_eq!(overrides.strategy.unwrap().field, "nemo_strategy");
    assert_eq!(overrides.preferences.unwrap().only, boxed(&["x"]));
    assert_eq!(overrides.chain.unwrap().field, "models");
    assert_eq!(told.timeout, Some(Said::new("nemo_timeout_ms", Duration::from_millis(9))));
    assert_eq!(told.no_fallback, Some(true));
}

/// "Bad input": malformed header lists and values are a 400 that names the header.
#[test]
fn malformed_headers_are_refused_by_name() {
    let many = vec!["a"; Overrides::MAX_LIST + 1].join(",");
    let long = "x".repeat(Overrides::MAX_NAME + 1);
    for (name, value) in [
        ("x-nemo-tags", "a,,b"),
        ("x-nemo-tags", "a,"),
        ("x-nemo-tags", ","),
        ("x-nemo-tags", &many),
        ("x-nemo-tags", &long),
        ("x-nemo-fallbacks", "a,,b"),
        ("x-nemo-no-fallback", "yes"),
        ("x-no-fallback", "1"),
        ("x-nemo-retries", "-1"),
        ("x-nemo-retries", "two"),
        ("x-portkey-retry-count", "x"),
        ("x-litellm-num-retries", "1.5"),
        ("x-nemo-timeout-ms", "0"),
        ("x-litellm-timeout", "0"),
        ("x-litellm-timeout", "soon"),
        ("x-nemo-max-cost", "-1"),
        ("x-nemo-max-cost", "$1"),
        ("x-nemo-cache", "maybe"),
        ("x-nemo-metadata", "[]"),
        ("x-nemo-min-config-version", "x"),
    ] {
        let refused = from_headers(&headers(&[(name, value)])).unwrap_err();
        assert_eq!((refused.kind, refused.param.as_deref()), (Kind::InvalidRequest, Some(name)), "{value}");
    }
    for (name, value) in [
        ("x-nemo-strategy", "balanced"),
        ("x-nemo-no-fallback", "true"),
        ("x-nemo-retries", "1"),
        ("x-nemo-timeout-ms", "1"),
        ("x-nemo-max-cost", "1"),
        ("x-nemo-metadata", "{}"),
    ] {
        let refused = from_headers(&headers(&[(name, value), (name, value)])).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some(name));
        assert!(refused.message.contains("more than once"), "{}", refused.message);
    }
}
