use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{envelope, parse, provider, registry::providers};

mod limits;

fn bytes_of(spliced: &Spliced) -> Vec<u8> {
    let bytes = spliced.segments.concat();
    assert_eq!(bytes.len(), spliced.len);
    bytes
}

/// The body for `provider_id` when the upstream calls the model `up`.
fn run(body: &str, provider_id: &str) -> (String, Option<&'static str>, bool) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let envelope = parse(Endpoint::ChatCompletions, &body).unwrap();
    let target = Target { provider: provider(provider_id).unwrap(), upstream_model: "up" };
    let spliced = splice(&body, &envelope, Endpoint::ChatCompletions, &target);
    (String::from_utf8(bytes_of(&spliced)).unwrap(), spliced.edits.header_value(), spliced.strip_usage_chunk)
}

#[test]
fn without_edits_the_body_is_the_very_same_buffer() {
    let body = Bytes::from_static(br#"{"model":"up","messages":[]}"#);
    let envelope = parse(Endpoint::ChatCompletions, &body).unwrap();
    let target = Target { provider: provider("openai").unwrap(), upstream_model: "up" };
    let spliced = splice(&body, &envelope, Endpoint::ChatCompletions, &target);
    assert_eq!(spliced.segments.len(), 1);
    assert_eq!(spliced.segments[0].as_ptr(), body.as_ptr());
    assert_eq!(
        (spliced.len, spliced.edits.header_value(), spliced.strip_usage_chunk),
        (body.len(), None, false)
    );
}

#[test]
fn what_is_not_edited_shares_the_clients_buffer() {
    let body = Bytes::from_static(br#"{"messages":[],"model":"m","nemo_cache":false,"stream":true,"x":1}"#);
    let envelope = parse(Endpoint::ChatCompletions, &body).unwrap();
    let target = Target { provider: provider("openai").unwrap(), upstream_model: "up" };
    let spliced = splice(&body, &envelope, Endpoint::ChatCompletions, &target);
    let range = body.as_ptr_range();
    let shared: usize = spliced.segments.iter().filter(|s| range.contains(&s.as_ptr())).map(Bytes::len).sum();
    assert_eq!(shared, br#"{"messages":[],"model":,"stream":true,"x":1}"#.len());
}

#[test]
fn the_model_is_replaced_where_it_stands() {
    assert_eq!(
        run(r#"{"messages":[], "model" : "m" }"#, "openai"),
        (r#"{"messages":[], "model" : "up" }"#.into(), Some("model"), false)
    );
    // Another spelling of the same name is no edit.
    assert_eq!(run(r#"{"model":"\u0075p","messages":[]}"#, "openai").1, None);
    let odd = Target { provider: provider("openai").unwrap(), upstream_model: "a\"b\\c\n" };
    let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
    let envelope = parse(Endpoint::ChatCompletions, &body).unwrap();
    let sent: Value =
        serde_json::from_slice(&bytes_of(&splice(&body, &envelope, Endpoint::ChatCompletions, &odd)))
            .unwrap();
    assert_eq!(sent["model"], "a\"b\\c\n");
}

/// B1: the flag is overwritten, not tested for presence; the chunk is hidden from a client that had not asked.
#[test]
fn usage_is_asked_for_in_streams() {
    for (options, sent, header, strip) in [
        ("", r#","stream_options":{"include_usage":true}"#, Some("usage"), true),
        (r#","stream_options":null"#, r#","stream_options":{"include_usage":true}"#, Some("usage"), true),
        (r#","stream_options":{}"#, r#","stream_options":{"include_usage":true}"#, Some("usage"), true),
        (
            r#","stream_options":{ "a":1}"#,
            r#","stream_options":{"include_usage":true, "a":1}"#,
            Some("usage"),
            true,
        ),
        (
            r#","stream_options":{"include_usage": false}"#,
            r#","stream_options":{"include_usage": true}"#,
            Some("usage"),
            true,
        ),
        (
            r#","stream_options":{"a":1,"include_usage":null}"#,
            r#","stream_options":{"a":1,"include_usage":true}"#,
            Some("usage"),
            true,
        ),
        (
            r#","stream_options":{"include_usage":true}"#,
            r#","stream_options":{"include_usage":true}"#,
            None,
            false,
        ),
    ] {
        // Right behind the model, where an inserted member goes.
        let body = format!(r#"{{"model":"up"{options},"messages":[],"stream":true}}"#);
        let expected = format!(r#"{{"model":"up"{sent},"messages":[],"stream":true}}"#);
        assert_eq!(run(&body, "openai"), (expected, header, strip), "{body}");
    }
    for stream in ["", r#","stream":false"#] {
        assert_eq!(run(&format!(r#"{{"model":"up","messages":[]{stream}}}"#), "openai").1, None);
    }
    // Asked for in OpenRouter's way: upstream is told in ours, and the client gets the chunk.
    assert_eq!(
        run(r#"{"model":"up","usage":{"include":true},"messages":[],"stream":true}"#, "openai"),
        (
            r#"{"model":"up","stream_options":{"include_usage":true},"messages":[],"stream":true}"#.into(),
            Some("strip,usage"),
            false
        )
    );
}

#[test]
fn providers_that_always_send_usage_are_not_asked() {
    let plain = r#"{"model":"up","messages":[],"stream":true}"#;
    assert_eq!(run(plain, "mistral"), (plain.into(), None, false));
    for body in [
        r#"{"model":"up","messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        r#"{"stream_options":{"include_usage":true},"model":"up","messages":[],"stream":true}"#,
        r#"{"model":"up","stream_options":{"include_usage":true},"messages":[],"stream":true}"#,
    ] {
        assert_eq!(run(body, "mistral"), (plain.into(), Some("usage"), false));
    }
}

#[test]
fn providers_that_never_send_usage_get_what_the_client_sent() {
    let never = Provider {
        quirks: crate::Quirks { stream_usage: StreamUsage::Never, ..crate::Quirks::STANDARD },
        ..*provider("custom").unwrap()
    };
    for options in ["", r#","stream_options":{"include_usage":false}"#] {
        let body = Bytes::from(format!(r#"{{"model":"up","messages":[],"stream":true{options}}}"#));
        let envelope = parse(Endpoint::ChatCompletions, &body).unwrap();
        let target = Target { provider: &never, upstream_model: "up" };
        assert_eq!(bytes_of(&splice(&body, &envelope, Endpoint::ChatCompletions, &target)), body);
    }
}

/// R000-5, R004-27: extras are absent upstream, wherever they stand, and nothing else changes.
#[test]
fn extras_are_stripped_in_any_position() {
    let plain = r#"{"model":"up","messages":[]}"#;
    for body in [
        r#"{"nemo_cache":false,"model":"up","messages":[]}"#,
        r#"{"model":"up","nemo_cache":false,"messages":[]}"#,
        r#"{"model":"up","messages":[],"nemo_cache":false}"#,
        r#"{"nemo_cache":false , "nemo_tags":["a"], "model":"up","messages":[]}"#,
        r#"{"model":"up" , "nemo_tags" : ["a"] , "nemo_cache":false,"messages":[]}"#,
        r#"{"model":"up","messages":[], "nemo_tags":["a"] ,"nemo\u005fcache":false}"#,
        r#"{"fallbacks":[],"num_retries":2,"model":"up","cache":{},"messages":[],"guardrails":[],"routing":"price","models":["x"]}"#,
        r#"{"provider":{"order":["a"]},"plugins":[],"transforms":[],"route":"x","usage":{},"model":"up","messages":[],"free_models_only":true,"no_reasoning":true,"disable_fallbacks":true}"#,
    ] {
        assert_eq!(run(body, "openai"), (plain.into(), Some("strip"), false), "{body}");
    }
    let kept =
        r#"{"model":"up","messages":[],"metadata":{"tags":["a"]},"user":"nemo_","x":{"nemo_cache":1}}"#;
    assert_eq!(run(kept, "openai"), (kept.into(), None, false));
}

#[test]
fn openrouter_keeps_its_own_fields_but_not_the_choice_of_model() {
    assert_eq!(
        run(
            r#"{"model":"up","models":["a"],"route":"fallback","provider":{"zdr":true},"plugins":[],"messages":[],"nemo_x":1}"#,
            "openrouter"
        ),
        (r#"{"model":"up","provider":{"zdr":true},"plugins":[],"messages":[]}"#.into(), Some("strip"), false)
    );
}

#[test]
fn edits_are_named_in_a_fixed_order() {
    assert_eq!(
        run(r#"{"stream":true,"nemo_x":1,"model":"m","messages":[]}"#, "openai"),
        (
            r#"{"stream":true,"model":"up","stream_options":{"include_usage":true},"messages":[]}"#.into(),
            Some("strip,model,usage"),
            true
        )
    );
    for bits in 0..32_u8 {
        let names = [
            (EditSet::STRIP, "strip"),
            (EditSet::MODEL, "model"),
            (EditSet::USAGE, "usage"),
            (EditSet::CAP, "cap"),
            (EditSet::LIMIT, "limit"),
        ];
        let named: Vec<_> =
            names.iter().filter(|(kind, _)| EditSet(bits).contains(*kind)).map(|(_, name)| *name).collect();
        assert_eq!(EditSet(bits).header_value().unwrap_or_default(), named.join(","));
    }
}

/// What the upstream is meant to see, computed the slow way.
fn expected(sent: &str, target: &Target<'_>) -> Value {
    let mut value: Value = serde_json::from_str(sent).unwrap();
    let streams = value["stream"] == true;
    let object = value.as_object_mut().unwrap();
    let native = target.provider.quirks.native;
    object.retain(|name, _| {
        crate::extras::ExtraField::from_name(name).is_none_or(|field| native.contains(&field))
    });
    object.insert("model".into(), target.upstream_model.into());
    let limits = ["max_tokens", "max_completion_tokens"];
    let own = target.provider.limit_name(Endpoint::ChatCompletions, target.upstream_model).unwrap();
    let other = limits.into_iter().find(|name| *name != own).unwrap();
    let said = |object: &serde_json::Map<_, Value>, name| object.get(name).is_some_and(|it| !it.is_null());
    let read = own == "max_completion_tokens" && !said(object, own);
    if said(object, other) && !read {
        let both = [object.get(own), object.get(other)].map(|it| it.and_then(Value::as_u64));
        let given = object.remove(other).filter(|_| !object.contains_key(own));
        if let Some(limit) = both.into_iter().flatten().min().map(Value::from).or(given) {
            object.insert(own.into(), limit);
        }
    }
    match target.provider.quirks.stream_usage {
        StreamUsage::Always => _ = object.remove("stream_options"),
        StreamUsage::Inject if streams => {
            let options = object.entry("stream_options").or_insert(json!({}));
            if options.is_null() {
                *options = json!({});
            }
            options["include_usage"] = true.into();
        }
        _ => {}
    }
    value
}

/// Puts back what the edits took away.
fn undo(spliced: &[u8], body: &[u8], edits: &[Edit]) -> Vec<u8> {
    let (mut original, mut taken, mut from) = (Vec::new(), 0, 0);
    for edit in edits {
        let untouched = edit.start - from;
        original.extend_from_slice(&spliced[taken..taken + untouched]);
        assert_eq!(&spliced[taken + untouched..taken + untouched + edit.insert.len()], &edit.insert[..]);
        taken += untouched + edit.insert.len();
        original.extend_from_slice(&body[edit.start..edit.end]);
        from = edit.end;
    }
    original.extend_from_slice(&spliced[taken..]);
    original
}

fn members() -> impl Strategy<Value = Vec<(String, String)>> {
    let white = || prop::sample::select(vec!["", "", " ", "\n  ", "\t"]);
    let value = crate::json::tests::json_text();
    let other = ("[a-z]{1,6}".prop_map(|name| format!("x_{name}")), value.clone());
    let extra = (
        prop::sample::select(vec![
            "nemo_w",
            "nemo_x",
            "nemo\\u005fy",
            "route",
            "plugins",
            "cache",
            "transforms",
            "guardrails",
        ])
        .prop_map(str::to_owned),
        value,
    );
    // What is read must be of its form.
    let read = prop::sample::select(vec![
        ("nemo_tags", r#"[ "vision" ]"#),
        ("nemo_strategy", "\"simple-shuffle\""),
        ("nemo_fallbacks", "[]"),
        ("nemo_no_fallback", "true"),
        ("nemo\\u005fretries", "1"),
        ("nemo_max_cost", "0.5"),
        ("nemo_cache", "false"),
        ("nemo_timeout_ms", "1000"),
        ("nemo_metadata", r#"{"a":[1]}"#),
        ("models", r#"["a", "b"]"#),
        ("fallbacks", r#"["a",{"model":"b"}]"#),
        ("num_retries", "0"),
        ("disable_fallbacks", "false"),
        ("routing", "\"price\""),
        ("provider", r#"{"order":["a"],"sort":{"by":"price"},"max_price":{"prompt":"1"}}"#),
    ])
    .prop_map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = prop::sample::select(vec![
        "null",
        "{}",
        "{ }",
        "{\"a\":[]}",
        "{\"include_usage\":false}",
        "{\"b\":1 , \"include_usage\" : true}",
    ]);
    let limit = (
        prop::sample::select(vec!["max_tokens", "max_completion_tokens", "max_tok\\u0065ns"]),
        prop::sample::select(vec!["null", "-1", "0", "5", "9"]),
    );
    let fixed = prop_oneof![
        limit.prop_map(|(name, value)| (name.to_owned(), value.to_owned())),
        options.prop_map(|value| ("stream_options".to_owned(), value.to_owned())),
        prop::sample::select(vec!["true", "false"]).prop_map(|value| ("stream".to_owned(), value.to_owned())),
    ];
    let member = prop_oneof![3 => other, 3 => extra, 3 => read, 2 => fixed];
    let decorated = (member, white(), white(), white(), white())
        .prop_map(|((name, value), a, b, c, d)| (name, format!("{a}\"NAME\"{b}:{c}{value}{d}")));
    (proptest::collection::vec(decorated, 0..7), any::<prop::sample::Index>(), any::<prop::sample::Index>())
        .prop_map(|(mut members, a, b)| {
            let mut seen = std::collections::HashSet::new();
            members.retain(|(name, _)| seen.insert(name.replace("\\u0065", "e")));
            members.insert(
                a.index(members.len() + 1),
                ("messages".into(), "\"NAME\":[{\"role\":\"user\",\"content\":\"nemo_\"}]".into()),
            );
            members.insert(b.index(members.len() + 1), ("model".into(), "\"NAME\" : \"m\"".into()));
            members
        })
}

proptest! {
    /// I8. Also as the fuzz target `envelope_splice`.
    #[test]
    fn i8_passthrough_is_byte_exact_except_for_declared_edits(
        members in members(),
        provider in prop::sample::select(providers()),
        upstream_model in prop::sample::select(vec!["m", "vendor/model:1", "a\"b"]),
    ) {
        let text: Vec<_> = members.iter().map(|(name, member)| member.replacen("NAME", name, 1)).collect();
        let body = format!("\n{{{}}} ", text.join(","));
        let bytes = Bytes::from(body.clone());
        let endpoint = Endpoint::ChatCompletions;
        let envelope = parse(endpoint, &bytes).unwrap();
        let target = Target { provider: &provider, upstream_model };
        let spliced = splice(&bytes, &envelope, endpoint, &target);
        let sent = bytes_of(&spliced);

        // The upstream sees what it should ...
        let value: Value = serde_json::from_slice(&sent).expect("valid JSON goes upstream");
        prop_assert_eq!(value, expected(&body, &target), "{}", String::from_utf8_lossy(&sent));
        // ... the rest is the client's, byte for byte ...
        let edits = plan(&bytes, &envelope, endpoint, &target, None);
        prop_assert_eq!(undo(&sent, body.as_bytes(), &edits), body.as_bytes());
        // ... and what was edited is declared.
        let declared = edits.iter().fold(EditSet::default(), |mut all, edit| { all.insert(edit.kind); all });
        prop_assert_eq!(declared, spliced.edits);
        prop_assert_eq!(spliced.edits.is_empty(), sent == body.as_bytes());
        // A second pass has nothing to do.
        let again = Bytes::from(sent);
        let envelope = envelope::parse(endpoint, &again).unwrap();
        prop_assert_eq!(splice(&again, &envelope, endpoint, &target).edits, EditSet::default());
    }
}

/// What another endpoint's default model is called upstream is said in the body, wherever there is room for it.
#[test]
fn a_default_model_is_written_into_the_body() {
    for (body, expected, edits) in [
        (r#"{"input":"a"}"#, r#"{"model":"up","input":"a"}"#, "model"),
        (r#"{ "nemo_x":1, "input":"a" }"#, r#"{"model":"up", "input":"a" }"#, "strip,model"),
        (r#"{"nemo_x":1,"input":"a","nemo_y":2}"#, r#"{"model":"up","input":"a"}"#, "strip,model"),
        (r#"{"input":"a","model":null}"#, r#"{"input":"a","model":"up"}"#, "model"),
    ] {
        let body = Bytes::from_static(body.as_bytes());
        let envelope = parse(Endpoint::Moderations, &body).unwrap();
        for provider_id in ["openai", "mistral"] {
            let target = Target { provider: provider(provider_id).unwrap(), upstream_model: "up" };
            let spliced = splice(&body, &envelope, Endpoint::Moderations, &target);
            assert_eq!(String::from_utf8(bytes_of(&spliced)).unwrap(), expected);
            assert_eq!(spliced.edits.header_value(), Some(edits));
        }
    }
}

#[test]
fn usage_is_asked_for_where_there_are_choices_only() {
    let body = Bytes::from_static(br#"{"model":"up","input":"a","stream":true,"stream_options":{"x":1}}"#);
    let envelope = parse(Endpoint::Responses, &body).unwrap();
    for provider_id in ["openai", "mistral"] {
        let target = Target { provider: provider(provider_id).unwrap(), upstream_model: "up" };
        let spliced = splice(&body, &envelope, Endpoint::Responses, &target);
        assert_eq!((bytes_of(&spliced), spliced.edits.is_empty()), (body.to_vec(), true));
    }
}

/// OpenRouter's clients may name models in `models` alone.
#[test]
fn a_model_of_the_chain_is_written_into_the_body() {
    let usage = r#""stream_options":{"include_usage":true},"#;
    for (body, expected) in [
        (r#"{"models":["a","b"],"messages":[]}"#, r#"{"model":"up","messages":[]}"#.to_owned()),
        (r#"{"messages":[],"models":["a"]}"#, r#"{"model":"up","messages":[]}"#.to_owned()),
        (
            r#"{"models":["a"],"messages":[],"stream":true}"#,
            format!(r#"{{"model":"up",{usage}"messages":[],"stream":true}}"#),
        ),
        (
            r#"{ "stream":true,"models":["a"],"stream_options":{},"messages":[]}"#,
            r#"{"model":"up", "stream":true,"stream_options":{"include_usage":true},"messages":[]}"#
                .to_owned(),
        ),
    ] {
        let (sent, _, _) = run(body, "openai");
        assert_eq!(sent, expected, "{body}");
        serde_json::from_str::<Value>(&sent).unwrap();
    }
}

/// The same with an output of at most 50 tokens, and the edits.
fn capped(endpoint: Endpoint, body: &str, provider_id: &str, upstream_model: &str) -> (String, &'static str) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let envelope = parse(endpoint, &body).unwrap();
    let target = Target { provider: provider(provider_id).unwrap(), upstream_model };
    let spliced = splice_capped(&body, &envelope, endpoint, &target, Some(50));
    let text = String::from_utf8(bytes_of(&spliced)).unwrap();
    serde_json::from_str::<Value>(&text).unwrap();
    (text, spliced.edits.header_value().unwrap_or_default())
}

/// I3: what is reserved is what the upstream is told to keep to. Every spelling of the limit, and none.
#[test]
fn a_cap_lowers_what_is_there_or_is_put_in() {
    let chat = Endpoint::ChatCompletions;
    for (endpoint, provider_id, model, body, expected, edits) in [
        (
            chat,
            "openai",
            "m",
            r#"{"model":"m","messages":[]}"#,
            r#"{"model":"m","max_completion_tokens":50,"messages":[]}"#,
            "cap",
        ),
        (
            chat,
            "mistral",
            "m",
            r#"{"model":"m","messages":[]}"#,
            r#"{"model":"m","max_tokens":50,"messages":[]}"#,
            "cap",
        ),
        (
            chat,
            "openrouter",
            "openai/o3-mini",
            r#"{"model":"m","messages":[]}"#,
            r#"{"model":"openai/o3-mini","max_completion_tokens":50,"messages":[]}"#,
            "model,cap",
        ),
        (
            chat,
            "openai",
            "m",
            r#"{"max_tokens":51,"model":"m","messages":[]}"#,
            r#"{"max_tokens":50,"model":"m","messages":[]}"#,
            "cap",
        ),
        (
            chat,
            "openai",
            "m",
            r#"{"max_tokens":50,"model":"m","messages":[]}"#,
            r#"{"max_tokens":50,"model":"m","messages":[]}"#,
            "",
        ),
        (
            chat,
            "openai",
            "m",
            r#"{"max_tokens":null,"model":"m","messages":[]}"#,
            r#"{"max_tokens":50,"model":"m","messages":[]}"#,
            "cap",
        ),
        (
            chat,
            "openai",
            "m",
            r#"{"max_tokens":null,"max_completion_tokens":9000,"model":"m","messages":[]}"#,
            r#"{"max_tokens":null,"max_completion_tokens":50,"model":"m","messages":[]}"#,
            "cap",
        ),
        (
            chat,
            "openai",
            "m",
            r#"{"max_tokens":99,"max_completion_tokens":9000,"model":"m","messages":[]}"#,
            r#"{"max_completion_tokens":50,"model":"m","messages":[]}"#,
            "cap,limit",
        ),
        (
            chat,
            "mistral",
            "m",
            r#"{"model":"m","messages":[],"max_tokens":-1}"#,
            r#"{"model":"m","messages":[],"max_tokens":50}"#,
            "cap",
        ),
        (
            chat,
            "openai",
            "up",
            r#"{"models":["a"],"messages":[],"stream":true}"#,
            r#"{"model":"up","stream_options":{"include_usage":true},"max_completion_tokens":50,"messages":[],"stream":true}"#,
            "strip,model,usage,cap",
        ),
        (
            Endpoint::Completions,
            "openai",
            "m",
            r#"{"model":"m","prompt":"a"}"#,
            r#"{"model":"m","max_tokens":50,"prompt":"a"}"#,
            "cap",
        ),
        (
            Endpoint::Responses,
            "openai",
            "m",
            r#"{"model":"m","input":"a"}"#,
            r#"{"model":"m","max_output_tokens":50,"input":"a"}"#,
            "cap",
        ),
        (
            Endpoint::Embeddings,
            "openai",
            "m",
            r#"{"model":"m","input":"a"}"#,
            r#"{"model":"m","input":"a"}"#,
            "",
        ),
    ] {
        assert_eq!(capped(endpoint, body, provider_id, model), (expected.to_owned(), edits), "{body}");
    }
}
