//! Which of its names a limit of the output goes by.

use super::*;

/// I3: a limit that is not read is none, so each target is told the one that it reads, and no other beside it.
#[test]
fn i3_the_limit_is_told_as_the_target_reads_it() {
    for (provider_id, members, expected, edits) in [
        ("mistral", r#""max_completion_tokens":7"#, r#""max_tokens":7"#, Some("limit")),
        ("mistral", r#""max_c\u006fmpletion_tokens" : 7"#, r#""max_tokens" : 7"#, Some("limit")),
        (
            "mistral",
            r#""max_completion_tokens":1,"max_tokens":32000,"n":1"#,
            r#""max_tokens":1,"n":1"#,
            Some("limit"),
        ),
        ("mistral", r#""max_tokens":5, "max_completion_tokens":7"#, r#""max_tokens":5"#, Some("limit")),
        ("mistral", r#""max_tokens":5,"max_completion_tokens":-1"#, r#""max_tokens":5"#, Some("limit")),
        ("mistral", r#""max_tokens":null,"max_completion_tokens":7"#, r#""max_tokens":7"#, Some("limit")),
        ("mistral", r#""max_completion_tokens":-1"#, r#""max_tokens":-1"#, Some("limit")),
        (
            "mistral",
            r#""nemo_a":1,"max_completion_tokens":7,"nemo_b":1,"max_tokens":9"#,
            r#""max_tokens":7"#,
            Some("strip,limit"),
        ),
        (
            "openai",
            r#""max_tokens":5,"max_completion_tokens":7"#,
            r#""max_completion_tokens":5"#,
            Some("limit"),
        ),
        // What is read or said nothing stays as it is.
        ("mistral", r#""max_tokens":5,"max_completion_tokens":null"#, "", None),
        ("mistral", r#""max_completion_tokens":null"#, "", None),
        ("openai", r#""max_completion_tokens":7"#, "", None),
        ("openai", r#""max_tokens":5"#, "", None),
        ("openai", r#""max_completion_tokens":null,"max_tokens":5"#, "", None),
        ("openai", r#""max_completion_tokens":7,"max_tokens":null"#, "", None),
    ] {
        let body = |members: &str| format!(r#"{{"model":"up","messages":[],{members}}}"#);
        let (sent, declared, _) = run(&body(members), provider_id);
        let expected = if edits.is_none() { members } else { expected };
        assert_eq!((sent, declared), (body(expected), edits), "{members}");
    }
    let first = r#"{"max_completion_tokens":7,"max_tokens":9,"model":"up","messages":[]}"#;
    assert_eq!(run(first, "mistral").0, r#"{"max_tokens":7,"model":"up","messages":[]}"#);
    assert_eq!(run(first, "openai").0, r#"{"max_completion_tokens":7,"model":"up","messages":[]}"#);
    // Completions have one limit.
    let body = Bytes::from_static(br#"{"model":"up","prompt":"a","max_completion_tokens":7}"#);
    let envelope = parse(Endpoint::Completions, &body).unwrap();
    let target = Target { provider: provider("openai").unwrap(), upstream_model: "up" };
    let sent = bytes_of(&splice(&body, &envelope, Endpoint::Completions, &target));
    assert_eq!(String::from_utf8(sent).unwrap(), r#"{"model":"up","prompt":"a","max_tokens":7}"#);
}

/// A limit that is not read is no place for a cap.
#[test]
fn a_cap_goes_where_it_is_read() {
    for (provider_id, members, expected, edits) in [
        ("mistral", r#""max_completion_tokens":9000"#, r#""max_tokens":50"#, "cap,limit"),
        (
            "mistral",
            r#""max_completion_tokens":null"#,
            r#""max_tokens":50,"max_completion_tokens":null"#,
            "cap",
        ),
        (
            "openai",
            r#""max_completion_tokens":null,"max_tokens":99"#,
            r#""max_completion_tokens":null,"max_tokens":50"#,
            "cap",
        ),
    ] {
        let body = |members: &str| format!(r#"{{"messages":[],"model":"m",{members}}}"#);
        let sent = capped(Endpoint::ChatCompletions, &body(members), provider_id, "m");
        assert_eq!(sent, (body(expected), edits), "{members}");
    }
}
