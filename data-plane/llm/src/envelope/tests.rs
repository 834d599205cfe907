use proptest::prelude::*;

use super::*;

mod features;
mod overrides;

fn chat(body: &str) -> Result<Envelope<'_>, EnvelopeError> {
    parse(Endpoint::ChatCompletions, body.as_bytes())
}

fn refusal(endpoint: Endpoint, body: &str) -> (EnvelopeErrorKind, Option<&'static str>) {
    let error = parse(endpoint, body.as_bytes()).expect_err(body);
    (error.kind, error.param)
}

#[test]
fn the_fields_that_routing_and_metering_need_are_read() {
    let body = r#" {"messages":[{"role":"user","content":"hi"}], "n":2,"max_tokens":5,
        "model" : "gpt-5.2","stream":true,"stream_options":{"include_usage":true},"unknown":{"model":"other"}} "#;
    let envelope = chat(body).unwrap();
    assert_eq!(envelope.model, "gpt-5.2");
    assert_eq!(&body[envelope.model_span.start..envelope.model_span.end], "\"gpt-5.2\"");
    assert!(matches!(envelope.model, Cow::Borrowed(_)));
    assert!(envelope.stream && envelope.include_usage);
    assert_eq!((envelope.max_output, envelope.n), (Some(5), Some(2)));
    assert_eq!(envelope.extras, Extras::default());
}

#[test]
fn null_means_not_given() {
    let envelope = chat(
        r#"{"model":"m","messages":[],"stream":null,"stream_options":null,"n":null,"max_tokens":null,
            "max_completion_tokens":null,"nemo_metadata":null,"nemo_no_fallback":null,"nemo_timeout_ms":null}"#,
    )
    .unwrap();
    assert!(!envelope.stream && !envelope.include_usage);
    assert_eq!((envelope.max_output, envelope.n, envelope.extras), (None, None, Extras::default()));
}

#[test]
fn the_smaller_output_limit_holds() {
    let limit =
        |members: &str| chat(&format!(r#"{{"model":"m","messages":[],{members}}}"#)).unwrap().max_output;
    assert_eq!(limit(r#""max_completion_tokens":7,"max_tokens":9"#), Some(7));
    assert_eq!(limit(r#""max_tokens":7,"max_completion_tokens":9"#), Some(7));
    assert_eq!(limit(r#""max_tokens":7,"max_completion_tokens":-1"#), Some(7));
    assert_eq!(limit(r#""max_completion_tokens":null,"max_tokens":9"#), Some(9));
    assert_eq!(limit(r#""max_tokens":0"#), Some(0));
    assert_eq!(limit(r#""max_tokens":-1"#), None);
}

#[test]
fn an_escaped_model_is_unescaped() {
    let envelope = chat(r#"{"messages":[],"mod\u0065l":"gpt\u002d5\n\ud83e\udd80"}"#).unwrap();
    assert_eq!(envelope.model, "gpt-5\n🦀");
}

/// Duplicate members of a field that we read are refused, in whatever spelling: an upstream may take the other.
#[test]
fn a_field_that_is_read_may_stand_only_once() {
    use EnvelopeErrorKind::DuplicateField;
    for (members, param) in [
        (r#""model":"m","model":"m""#, "model"),
        (r#""model":"m","mod\u0065l":"x""#, "model"),
        (r#""model":"m","Model":"x""#, "model"),
        (r#""MODEL":"m""#, "model"),
        (r#""model":"m","stream":true,"stream":false"#, "stream"),
        (r#""model":"m","\u017ftream":true"#, "stream"),
        (r#""model":"m","max_tokens":1,"max_to\u212aens":2"#, "max_tokens"),
        (r#""model":"m","messages":[]"#, "messages"),
        (r#""model":"m","n":1,"n":1"#, "n"),
        (r#""model":"m","stream_options":{},"stream_options":{}"#, "stream_options"),
        (
            r#""model":"m","stream_options":{"include_usage":true,"include\u005fusage":false}"#,
            "stream_options.include_usage",
        ),
        (r#""model":"m","max_completion_tokens":1,"max_completion_tokens":1"#, "max_completion_tokens"),
        (r#""model":"m","usage":{},"usage":{}"#, "usage"),
        (r#""model":"m","provider":{},"provider":{}"#, "provider"),
        (r#""model":"m","nemo_metadata":{},"nemo_metadata":{}"#, "nemo_metadata"),
    ] {
        let body = format!(r#"{{"messages":[],{members}}}"#);
        assert_eq!(refusal(Endpoint::ChatCompletions, &body), (DuplicateField, Some(param)), "{body}");
    }
    // What is not read is not ours to judge.
    assert!(chat(r#"{"model":"m","messages":[],"temperature":1,"temperature":2,"Temperature":3,"logit_bias":{"a":1,"a":2}}"#).is_ok());
    assert!(parse(Endpoint::Embeddings, br#"{"model":"m","input":"","stream":1,"stream":2,"N":3}"#).is_ok());
}

#[test]
fn fields_of_the_wrong_type_are_named() {
    use EnvelopeErrorKind::{InvalidField, MissingField};
    for (endpoint, body, kind, param) in [
        (Endpoint::ChatCompletions, r#"{"messages":[]}"#, MissingField, "model"),
        (Endpoint::ChatCompletions, r#"{"model":null,"messages":[]}"#, InvalidField, "model"),
        (Endpoint::ChatCompletions, r#"{"model":5,"messages":[]}"#, InvalidField, "model"),
        (Endpoint::ChatCompletions, r#"{"model":" ","messages":[]}"#, InvalidField, "model"),
        (Endpoint::ChatCompletions, r#"{"model":"\ud800","messages":[]}"#, InvalidField, "model"),
        (Endpoint::ChatCompletions, r#"{"model":"m"}"#, MissingField, "messages"),
        (Endpoint::ChatCompletions, r#"{"model":"m","messages":null}"#, MissingField, "messages"),
        (Endpoint::ChatCompletions, r#"{"model":"m","messages":"hi"}"#, InvalidField, "messages"),
        (Endpoint::ChatCompletions, r#"{"model":"m","prompt":"hi"}"#, MissingField, "messages"),
        (Endpoint::Completions, r#"{"model":"m","messages":[]}"#, MissingField, "prompt"),
        (Endpoint::Completions, r#"{"model":"m","prompt":5}"#, InvalidField, "prompt"),
        (Endpoint::Embeddings, r#"{"model":"m","input":{}}"#, InvalidField, "input"),
        (Endpoint::Embeddings, r#"{"model":"m"}"#, MissingField, "input"),
        (Endpoint::Completions, r#"{"model":"m","prompt":"","stream":"true"}"#, InvalidField, "stream"),
        (Endpoint::Completions, r#"{"model":"m","prompt":"","stream":1}"#, InvalidField, "stream"),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"","stream_options":true}"#,
            InvalidField,
            "stream_options",
        ),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"","stream_options":{"include_usage":1}}"#,
            InvalidField,
            "stream_options.include_usage",
        ),
        (Endpoint::Completions, r#"{"model":"m","prompt":"","n":0}"#, InvalidField, "n"),
        (Endpoint::Completions, r#"{"model":"m","prompt":"","n":1.5}"#, InvalidField, "n"),
        (Endpoint::Completions, r#"{"model":"m","prompt":"","n":"1"}"#, InvalidField, "n"),
        (Endpoint::Completions, r#"{"model":"m","prompt":"","max_tokens":-2}"#, InvalidField, "max_tokens"),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"","max_completion_tokens":"9"}"#,
            InvalidField,
            "max_completion_tokens",
        ),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"","nemo_metadata":[]}"#,
            InvalidField,
            "nemo_metadata",
        ),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"","nemo_no_fallback":"yes"}"#,
            InvalidField,
            "nemo_no_fallback",
        ),
        (
            Endpoint::Completions,
            r#"{"model":"m","prompt":"","nemo_timeout_ms":0}"#,
            InvalidField,
            "nemo_timeout_ms",
        ),
    ] {
        assert_eq!(refusal(endpoint, body), (kind, Some(param)), "{body}");
    }
}

#[test]
fn errors_say_what_was_given_and_what_is_expected() {
    let message = |body: &str| chat(body).unwrap_err().message;
    assert_eq!(
        message(r#"{"messages":[]}"#),
        "Missing required field `model`: expected a string with the name of a model."
    );
    assert_eq!(
        message(r#"{"model":["m"],"messages":[]}"#),
        "`model` must be a string with the name of a model, but an array was given."
    );
    assert_eq!(
        message("{\"model\":\"m\",\n  \"n\": 1 oops}"),
        "The request body is not valid JSON: expected `,` or `}` at line 2, column 10 (byte 23)."
    );
    assert_eq!(message("[1]"), "The request body must be a JSON object, but an array was given.");
    assert_eq!(
        message(""),
        "The request body is not valid JSON: expected a JSON value at line 1, column 1 (byte 0)."
    );
    assert_eq!(
        message(r#"{"model":"m","model":"m","messages":[]}"#),
        "`model` is given more than once in the request body; send it once."
    );
    assert_eq!(
        parse(Endpoint::Embeddings, br#"{"model":"m","INPUT":"x"}"#).unwrap_err().message,
        "`INPUT` is no field of this endpoint; field names are case-sensitive, send `input`."
    );
}

#[test]
fn the_whole_body_must_be_one_json_object_in_utf8() {
    use EnvelopeErrorKind::{InvalidJson, InvalidUtf8, NotAnObject};
    let deep = format!(r#"{{"model":"m","messages":[],"x":{}1{}}}"#, "[".repeat(127), "]".repeat(127));
    for (body, kind) in [
        (&b""[..], InvalidJson),
        (b"   ", InvalidJson),
        (b"\"model\"", NotAnObject),
        (b"null", NotAnObject),
        (br#"{"model":"m","messages":[]} x"#, InvalidJson),
        (br#"{"model":"m","messages":[]}{}"#, InvalidJson),
        (br#"{"model":"m","messages":[}"#, InvalidJson),
        (br#"{"model":"m","messages":[],"x":01}"#, InvalidJson),
        (br#"{"model":"m","messages":[],}"#, InvalidJson),
        (br#"{'model':'m'}"#, InvalidJson),
        (b"\xef\xbb\xbf{}", InvalidJson),
        (b"{\"model\":\"m\",\"messages\":[],\"x\":\"\xff\"}", InvalidUtf8),
        (deep.as_bytes(), InvalidJson),
    ] {
        let error = parse(Endpoint::ChatCompletions, body).unwrap_err();
        assert_eq!((error.kind, error.param), (kind, None), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn extras_are_read_with_their_aliases() {
    let extras = |members: &str| -> (Option<bool>, Option<u64>, Option<String>) {
        let body = format!(r#"{{"model":"m","messages":[],{members}}}"#);
        let extras = chat(&body).unwrap().extras;
        (extras.no_fallback, extras.timeout_ms, extras.metadata.map(str::to_owned))
    };
    assert_eq!(
        extras(r#""nemo_no_fallback":true,"nemo_timeout_ms":1500,"nemo_metadata":{"a": [1, 2]}"#),
        (Some(true), Some(1500), Some(r#"{"a": [1, 2]}"#.to_owned()))
    );
    assert_eq!(extras(r#""provider":{"order":["a"],"allow_fallbacks":false}"#).0, Some(true));
    assert_eq!(extras(r#""provider":{"allow_fallbacks":true}"#).0, Some(false));
    assert_eq!(extras(r#""disable_fallbacks":true"#).0, Some(true));
    assert_eq!(extras(r#""disable_fallbacks":true,"nemo_no_fallback":false"#).0, Some(false));
    assert_eq!(extras(r#""nemo_no_fallback":false,"provider":{"allow_fallbacks":false}"#).0, Some(false));
    assert_eq!(extras(r#""disable_fallbacks":null,"provider":null"#).0, None);
    assert_eq!(extras(r#""nemo_other":1,"cache":{}"#), (None, None, None));
}

#[test]
fn openrouter_clients_ask_for_usage_in_their_own_way() {
    assert!(chat(r#"{"model":"m","messages":[],"usage":{"include":true}}"#).unwrap().include_usage);
    assert!(!chat(r#"{"model":"m","messages":[],"usage":{"include":false}}"#).unwrap().include_usage);
    assert!(
        !chat(r#"{"model":"m","messages":[],"stream_options":{"include_usage":false}}"#)
            .unwrap()
            .include_usage
    );
}

#[test]
fn metadata_and_extras_are_bounded() {
    let body = |bytes: usize| {
        format!(
            r#"{{"model":"m","messages":[],"nemo_metadata":{{"a":"{}"}}}}"#,
            "x".repeat(bytes - r#"{"a":""}"#.len())
        )
    };
    assert_eq!(chat(&body(4096)).unwrap().extras.metadata.unwrap().len(), 4096);
    assert_eq!(
        refusal(Endpoint::ChatCompletions, &body(4097)),
        (EnvelopeErrorKind::InvalidField, Some("nemo_metadata"))
    );

    let many = |count: usize| {
        let members: String = (0..count).map(|i| format!(r#","nemo_{i}":1"#)).collect();
        format!(r#"{{"model":"m","messages":[]{members}}}"#)
    };
    assert_eq!(chat(&many(MAX_REMOVABLE)).unwrap().removable.len(), MAX_REMOVABLE);
    assert_eq!(
        refusal(Endpoint::ChatCompletions, &many(MAX_REMOVABLE + 1)).0,
        EnvelopeErrorKind::TooManyExtras
    );
}

proptest! {
    /// Differential: whatever `serde_json` makes of a body, the envelope says the same.
    #[test]
    fn the_envelope_agrees_with_serde_json(
        members in proptest::collection::vec((
            prop::sample::select(vec!["model", "messages", "stream", "n", "max_tokens", "x", "mod\\u0065l", "nemo_a", "stream_options"]),
            prop::sample::select(vec!["\"m\"", "[]", "true", "false", "null", "3", "{\"include_usage\":true}", "\"a\\n\\u00e9\"", "{}", "-1", "1.5"]),
        ), 0..6),
        tail in prop::sample::select(vec!["", " \n", "x", "}"]),
    ) {
        let text: Vec<_> = members.iter().map(|(name, value)| format!(" {} : {} ", json_string(name), value)).collect();
        let body = format!("{{{}}}{tail}", text.join(","));
        let reference = serde_json::from_str::<serde_json::Value>(&body);
        match chat(&body) {
            Ok(envelope) => {
                let value = reference.expect("accepted what is no JSON");
                prop_assert_eq!(value["model"].as_str(), Some(&*envelope.model));
                prop_assert!(value["messages"].is_array());
                prop_assert_eq!(value["stream"].as_bool().unwrap_or(false), envelope.stream);
                prop_assert_eq!(value["n"].as_u64(), envelope.n);
                prop_assert_eq!(value["max_tokens"].as_u64(), envelope.max_output);
                prop_assert_eq!(value["stream_options"]["include_usage"] == true, envelope.include_usage);
            }
            Err(error) if error.kind == EnvelopeErrorKind::InvalidJson => prop_assert!(reference.is_err(), "{}", body),
            Err(_) => {}
        }
    }
}

fn json_string(name: &str) -> String {
    format!("\"{name}\"")
}

#[test]
fn the_other_endpoints_are_read_for_what_they_are_billed_by() {
    let asked = |endpoint, body: &'static str| *parse(endpoint, body.as_bytes()).unwrap().asked.unwrap();
    let image = r#"{"model":"m","prompt":"a cat","n":3,"size":"1024x1024","quality":"hd"}"#;
    let expected =
        Asked { images: Some(3), size: "1024x1024".into(), quality: "hd".into(), ..Asked::default() };
    assert_eq!(asked(Endpoint::ImageGenerations, image), expected);
    let speech = asked(Endpoint::Speech, r#"{"model":"m","input":"Gr\u00fc\u00dfe 👋"}"#);
    assert_eq!(speech.characters, Some(7), "characters, not bytes and not escapes");
    let ranking = asked(Endpoint::Rerank, r#"{"model":"m","query":"q","documents":["a",{"text":"b"}, "c"]}"#);
    assert_eq!(ranking.documents, Some(3));
    for body in [r#"{"model":"m","documents":[]}"#, r#"{"model":"m","documents":[ ]}"#] {
        assert_eq!(asked(Endpoint::Rerank, body).documents, Some(0));
    }
    assert_eq!(parse(Endpoint::Responses, br#"{"model":"m"}"#).unwrap().asked, None);
}

#[test]
fn a_field_of_another_endpoint_is_the_upstreams_business() {
    // The Responses API has stream options of its own, and its own name for the limit.
    let body = br#"{"model":"m","input":"hi","stream_options":{"include_usage":"x"},"max_tokens":"x","max_output_tokens":7}"#;
    let envelope = parse(Endpoint::Responses, body).unwrap();
    assert_eq!((envelope.max_output, envelope.include_usage), (Some(7), false));
    assert!(parse(Endpoint::Responses, br#"{"model":"m","prompt":{"id":"p"}}"#).is_ok(), "a stored prompt");
    assert!(parse(Endpoint::Speech, br#"{"model":"m","input":"hi","n":"x","size":1}"#).is_ok());
    for (endpoint, body, param) in [
        (Endpoint::ImageGenerations, r#"{"model":"m","prompt":["a"]}"#, "prompt"),
        (Endpoint::ImageGenerations, r#"{"prompt":"a"}"#, "model"),
        (Endpoint::ImageGenerations, r#"{"model":"m","prompt":"a","Size":"x"}"#, "size"),
        (Endpoint::Speech, r#"{"model":"m","input":["a"]}"#, "input"),
        (Endpoint::Rerank, r#"{"model":"m","documents":"a"}"#, "documents"),
        (Endpoint::Responses, r#"{"model":"m","input":7}"#, "input"),
        (Endpoint::Moderations, r#"{"model":7,"input":"a"}"#, "model"),
    ] {
        assert_eq!(refusal(endpoint, body).1, Some(param), "{body}");
    }
}

#[test]
fn a_moderation_without_a_model_means_the_default_one() {
    for body in [r#"{"input":"a"}"#, r#"{"model":null,"input":"a"}"#] {
        assert_eq!(parse(Endpoint::Moderations, body.as_bytes()).unwrap().model, "omni-moderation-latest");
    }
}
