use proptest::prelude::*;

use super::*;

fn usage(text: &str) -> Report {
    let value = Cursor::new(text.as_bytes(), 0).value(0).unwrap();
    report(Endpoint::ChatCompletions, text.as_bytes(), &value).unwrap()
}

/// Table of provider conventions: C7, E.3, E.6.
#[test]
fn every_providers_counts_come_to_one_convention() {
    let some = Some;
    for (text, expected) in [
        (
            // OpenAI
            r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":80,"audio_tokens":3},
                "completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":4,"accepted_prediction_tokens":0}}"#,
            Usage {
                input: some(100),
                output: some(50),
                cache_read: some(80),
                reasoning: some(20),
                audio_input: some(3),
                audio_output: some(4),
                ..Usage::default()
            },
        ),
        (
            // DeepSeek
            r#"{"prompt_tokens":30,"completion_tokens":5,"total_tokens":35,"prompt_cache_hit_tokens":20,"prompt_cache_miss_tokens":10}"#,
            Usage { input: some(30), output: some(5), cache_read: some(20), ..Usage::default() },
        ),
        (
            // OpenRouter
            r#"{"prompt_tokens":30,"completion_tokens":5,"total_tokens":35,"prompt_tokens_details":{"cached_tokens":0,"cache_write_tokens":25}}"#,
            Usage {
                input: some(30),
                output: some(5),
                cache_read: some(0),
                cache_write: some(25),
                ..Usage::default()
            },
        ),
        (
            // Moonshot
            r#"{"prompt_tokens":30,"completion_tokens":5,"total_tokens":35,"cached_tokens":12}"#,
            Usage { input: some(30), output: some(5), cache_read: some(12), ..Usage::default() },
        ),
        (
            // xAI: reasoning stands beside the completion, and the sum says so
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":115,"completion_tokens_details":{"reasoning_tokens":100}}"#,
            Usage { input: some(10), output: some(105), reasoning: some(100), ..Usage::default() },
        ),
        (
            // Google: thinking is in the total alone
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":75}"#,
            Usage { input: some(10), output: some(65), reasoning: some(60), ..Usage::default() },
        ),
        (
            // Perplexity's research model
            r#"{"prompt_tokens":33,"completion_tokens":71,"total_tokens":104,"citation_tokens":20,"reasoning_tokens":735}"#,
            Usage { input: some(33), output: some(806), reasoning: some(735), ..Usage::default() },
        ),
        (
            // Names of the Responses API
            r#"{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":2,"output_tokens_details":{"reasoning_tokens":1}}"#,
            Usage {
                input: some(3),
                output: some(2),
                cache_read: some(1),
                reasoning: some(1),
                ..Usage::default()
            },
        ),
        (
            // Anthropic, passed through: what was cached stands beside the input
            r#"{"input_tokens":10,"cache_creation_input_tokens":30,"cache_read_input_tokens":60,"output_tokens":5,
                "cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10},"service_tier":"standard"}"#,
            Usage {
                input: some(100),
                output: some(5),
                cache_read: some(60),
                cache_write: some(30),
                cache_write_1h: some(10),
                ..Usage::default()
            },
        ),
        (
            // Anthropic behind LiteLLM: the prompt holds all
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"cache_creation_input_tokens":30,"cache_read_input_tokens":60,
                "prompt_tokens_details":{"cached_tokens":60,"cache_creation_tokens":30,"cache_creation_token_details":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":0}}}"#,
            Usage {
                input: some(100),
                output: some(5),
                cache_read: some(60),
                cache_write: some(30),
                cache_write_1h: some(0),
                ..Usage::default()
            },
        ),
        (
            // Anthropic behind Portkey: the prompt holds what was not cached, the total says so
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":105,"cache_creation_input_tokens":30,"cache_read_input_tokens":60}"#,
            Usage {
                input: some(100),
                output: some(5),
                cache_read: some(60),
                cache_write: some(30),
                ..Usage::default()
            },
        ),
        (
            // Only the parts of what was written
            r#"{"prompt_tokens":100,"completion_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":40}}"#,
            Usage {
                input: some(100),
                output: some(5),
                cache_write: some(40),
                cache_write_1h: some(40),
                ..Usage::default()
            },
        ),
        (
            // Qwen
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"prompt_tokens_details":{"cached_tokens":0,"cache_creation_input_tokens":80,
                "cache_creation":{"ephemeral_5m_input_tokens":80},"cache_type":"ephemeral"}}"#,
            Usage {
                input: some(100),
                output: some(5),
                cache_read: some(0),
                cache_write: some(80),
                ..Usage::default()
            },
        ),
        (
            // Mistral
            r#"{"prompt_tokens":100,"completion_tokens":5,"total_tokens":105,"num_cached_tokens":64}"#,
            Usage { input: some(100), output: some(5), cache_read: some(64), ..Usage::default() },
        ),
    ] {
        assert_eq!(usage(text).usage, expected, "{text}");
    }
}

/// D 4: what the provider did on its own and bills on top.
#[test]
fn searches_of_the_provider_are_counted() {
    for (text, searches) in [
        (r#"{"server_tool_use":{"web_search_requests":3,"web_fetch_requests":1}}"#, Some(3)),
        (r#"{"num_search_queries":2}"#, Some(2)),
        (r#"{"num_sources_used":5}"#, Some(5)),
        (r#"{"server_tool_use":{"web_search_requests":0}}"#, Some(0)),
        (r#"{"server_tool_use":null}"#, None),
    ] {
        assert_eq!(usage(text).units.web_searches, searches, "{text}");
    }
    assert_eq!(usage(r#"{"num_sources_used":0}"#).units.of_chat(), []);
}

/// The tier is found where each provider tells it: behind the usage, before the choices, among the counts.
#[test]
fn the_tier_of_an_answer_is_found() {
    let body = |before: &str, within: &str, behind: &str| {
        format!(
            r#"{{"id":"x"{before},"choices":[{{"message":{{"content":"\"service_tier\":\"no\""}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":3{within}}}{behind}}}"#
        )
    };
    let tier = r#","service_tier":"flex""#;
    for text in [body(tier, "", ""), body("", tier, ""), body("", "", tier)] {
        let info = scan_response(Endpoint::ChatCompletions, text.as_bytes());
        assert_eq!(info.service_tier.as_str(), "flex", "{text}");
        assert_eq!(info.usage.unwrap().input, Some(3));
    }
    for other in ["", r#","service_tier":null"#, r#","service_tier":"auto""#] {
        let text = body("", "", other);
        assert!(!scan_response(Endpoint::ChatCompletions, text.as_bytes()).service_tier.is_told());
    }
    let response = r#"{"status":"completed","service_tier":"priority","usage":{"input_tokens":3}}"#;
    assert_eq!(scan_response(Endpoint::Responses, response.as_bytes()).service_tier.as_str(), "priority");
}

/// R001-5, E.6.
#[test]
fn the_place_for_the_cost_is_in_the_usage_of_the_answer() {
    for (text, after) in [
        (
            r#"{"choices":[{"message":{"content":"x"}}],"usage" : {"prompt_tokens":3} ,"id":"x"}"#,
            r#"{"choices":[{"message":{"content":"x"}}],"usage" : {"prompt_tokens":3,"cost":0.00000014} ,"id":"x"}"#,
        ),
        (
            r#"{"usage":{"prompt_tokens":3},"choices":[{"usage":{"prompt_tokens":9}}]}"#,
            r#"{"usage":{"prompt_tokens":3,"cost":0.00000014},"choices":[{"usage":{"prompt_tokens":9}}]}"#,
        ),
    ] {
        let place = scan_response(Endpoint::ChatCompletions, text.as_bytes()).cost_place.unwrap();
        let edit = place.edit(text.as_bytes(), Nanos(140)).unwrap();
        assert_eq!(edit.apply(text.as_bytes(), 0).unwrap(), after.as_bytes());
    }
    let none = scan_response(Endpoint::ChatCompletions, br#"{"choices":[]}"#);
    assert_eq!(none.cost_place, None);
}

/// C5: unknown is never zero, and zero is never unknown.
#[test]
fn what_is_not_said_is_unknown_and_zero_stays_zero() {
    assert_eq!(usage("{}").usage, Usage::default());
    assert_eq!(
        usage(r#"{"prompt_tokens":null,"completion_tokens":"5","total_tokens":-3}"#).usage,
        Usage::default()
    );
    assert_eq!(
        usage(r#"{"prompt_tokens":1.5,"prompt_tokens_details":null,"completion_tokens_details":[]}"#).usage,
        Usage::default()
    );
    let zero = usage(r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"completion_tokens_details":{"reasoning_tokens":0}}"#).usage;
    assert_eq!(zero, Usage { input: Some(0), output: Some(0), reasoning: Some(0), ..Usage::default() });
}

#[test]
fn cost_is_the_total_and_is_counted_once() {
    for (text, nanos) in [
        (r#"{"cost":0.00014}"#, Some(140_000)),
        (r#"{"cost":1.4e-7,"cost_details":{"upstream_inference_cost":9,"total_cost":5}}"#, Some(140)),
        (r#"{"cost_details":{"upstream_inference_cost":9},"cost":2}"#, Some(2_000_000_000)),
        (r#"{"cost":{"input_tokens_cost":1,"request_cost":0.005,"total_cost":0.006}}"#, Some(6_000_000)),
        (r#"{"cost_details":{"total_cost":0.25,"input_cost":0.1}}"#, Some(250_000_000)),
        (r#"{"cost_in_usd_ticks":94000}"#, Some(9_400)),
        (r#"{"cost_in_usd_ticks":1}"#, Some(1)),
        (r#"{"cost_in_usd_ticks":94000,"cost":0.5}"#, Some(500_000_000)),
        (r#"{"cost":0}"#, Some(0)),
        (r#"{"cost":null,"cost_details":null}"#, None),
        (r#"{"cost":-1}"#, None),
        (r#"{"cost":"free"}"#, None),
    ] {
        assert_eq!(usage(text).cost, nanos.map(Nanos), "{text}");
    }
}

#[test]
fn a_chat_response_is_read() {
    let body = br#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"say \"usage\":{}"},"finish_reason":"length"},
        {"index":1,"message":{"role":"assistant","content":"b"},"finish_reason":"stop"}],
        "usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"cost":0.5},"x":{"usage":{"prompt_tokens":9}}}"#;
    let info = scan_response(Endpoint::ChatCompletions, body);
    assert_eq!(info.usage, Some(Usage { input: Some(3), output: Some(4), ..Usage::default() }));
    assert_eq!(info.provider_cost, Some(Nanos(500_000_000)));
    assert_eq!(info.finish_reason, Some(FinishReason::Length));
    assert_eq!(info.output_bytes, r#"say "usage":{}b"#.len() as u64);
}

#[test]
fn embeddings_are_read_from_either_end() {
    let expected = Some(Usage { input: Some(8), ..Usage::default() });
    for body in [
        r#"{"object":"list","data":[{"embedding":[0.1,0.2]}],"model":"m","usage":{"prompt_tokens":8,"total_tokens":8}}"#,
        r#"{"data":[],"usage" : {"total_tokens":8} , "model":"m","id":"x"} "#,
        // The last `usage` is not the one of the outermost object.
        r#"{"usage":{"prompt_tokens":8},"data":[{"usage":{"prompt_tokens":1}}]}"#,
        r#"{"usage":{"prompt_tokens":8},"note":"usage"}"#,
        r#"{"usage":{"prompt_tokens":8},"data":{"usage":{"prompt_tokens":1}}}"#,
    ] {
        assert_eq!(scan_response(Endpoint::Embeddings, body.as_bytes()).usage, expected, "{body}");
    }
}

#[test]
fn the_tail_of_a_body_is_enough_for_its_usage() {
    let body = br#"{"choices":[{"message":{"content":"long"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"cost":1},"id":"x"}"#;
    for start in 1..60 {
        let info = scan_response(Endpoint::ChatCompletions, &body[start..]);
        assert_eq!(info.usage.unwrap().input, Some(3), "{start}");
        assert_eq!(info.provider_cost, Some(Nanos(1_000_000_000)));
    }
    // Not the usage of the outermost object: braces are left over.
    let nested = br#"ng","x":{"usage":{"prompt_tokens":3}}}"#;
    assert_eq!(scan_response(Endpoint::ChatCompletions, nested).usage, None);
}

#[test]
fn odd_bodies_report_nothing_and_do_no_harm() {
    for body in [
        "",
        "null",
        "[]",
        "{",
        "<html>",
        r#"{"usage":null}"#,
        r#"{"usage":{}}"#,
        r#"{"usage":"x"}"#,
        r#"{"choices":{}}"#,
        r#"{"choices":[null]}"#,
        "\"usage\":",
    ] {
        for endpoint in Endpoint::ALL {
            assert_eq!(scan_response(endpoint, body.as_bytes()), UnaryInfo::default(), "{body}");
        }
    }
    // What precedes a defect counts.
    let cut = br#"{"usage":{"prompt_tokens":1},"choices":[{"mess"#;
    assert_eq!(scan_response(Endpoint::ChatCompletions, cut).usage.unwrap().input, Some(1));
}

/// A `usage` object as nobody would write it, and as everybody does.
fn any_usage() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "input_tokens",
        "image_tokens",
        "audio_tokens",
        "seconds",
        "cost",
        "cost_in_usd_ticks",
        "service_tier",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "ephemeral_1h_input_tokens",
        "web_search_requests",
        "other",
        "esc\\u0061ped",
        "Upper",
        "",
    ]);
    let space = prop::sample::select(vec!["", "", "", " ", "\n\t"]);
    let scalar = prop_oneof![
        6 => (0..1000_u32).prop_map(|count| count.to_string()),
        2 => prop::sample::select(vec![
            "null", "0", "true", "1.5", "-1", "1e3", "\"text\"", "18446744073709551615", "18446744073709551616", "[]",
        ]).prop_map(str::to_owned),
    ];
    let member = |value: BoxedStrategy<String>| {
        (name.clone(), value, space.clone(), space.clone()).prop_map(|(name, value, before, after)| {
            format!("{before}\"{name}\"{after}:{before}{value}{after}")
        })
    };
    let details = prop::collection::vec(member(scalar.clone().boxed()), 0..5)
        .prop_map(|members| format!("{{{}}}", members.join(",")));
    let named = (
        prop::sample::select(vec![
            "prompt_tokens_details",
            "completion_tokens_details",
            "cost_details",
            "cache_creation",
            "server_tool_use",
            "service_tier",
            "other",
        ]),
        prop_oneof![4 => details, 1 => Just("null".to_owned()), 1 => Just("7".to_owned())],
    );
    let either = prop_oneof![
        3 => member(scalar.boxed()),
        1 => named.prop_map(|(name, value)| format!("\"{name}\":{value}")),
    ];
    prop::collection::vec(either, 0..8).prop_map(|members| format!("{{{}}}", members.join(",")))
}

proptest! {
    /// The short way and the walker agree wherever the short way goes, on what is JSON and on what is not.
    #[test]
    fn the_plain_reader_agrees_with_the_walker(text in any_usage(), cut in any::<prop::sample::Index>(), whole in prop::bool::weighted(0.8)) {
        let text = if whole { &text[..] } else { &text[..cut.index(text.len())] };
        let document = text.as_bytes();
        let walked = Members::open(document, 0).and_then(|mut members| {
            let report = report_of(Endpoint::ChatCompletions, document, &mut members)?;
            Some((report, members.end()))
        });
        if let Some(mut plain) = Plain::open(document, 0) && let Some(counts) = plain.counts() {
            prop_assert_eq!(Some((counts.normalise(Endpoint::ChatCompletions), plain.end())), walked);
        }
        prop_assert_eq!(report_from(Endpoint::ChatCompletions, document, 0), walked);
    }
}

#[test]
fn the_usual_report_is_plain() {
    for text in [
        r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":80,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":null}}"#,
        r#"{"input_tokens":3,"output_tokens":1,"cache_creation":{"ephemeral_5m_input_tokens":0},"service_tier":"standard"}"#,
        r#"{ "prompt_tokens": 3, "total_tokens": 3, "prompt_tokens_details": null }"#,
        "{}",
    ] {
        assert!(Plain::open(text.as_bytes(), 0).unwrap().counts().is_some(), "{text}");
    }
}

#[test]
fn usage_far_from_the_end_is_found_too() {
    for padding in [0, 1000, 1015, 1020, 1024, 1030, 2000, 100_000] {
        let body = format!("{{\"usage\":{{\"prompt_tokens\":3}},\"x\":\"{}\"}}", "x".repeat(padding));
        let info = scan_response(Endpoint::ChatCompletions, body.as_bytes());
        assert_eq!(info.usage.unwrap().input, Some(3), "{padding}");
    }
}
