//! B9: what a request needs of a model is seen in its shape, and never in its text.

use super::*;

fn features(endpoint: Endpoint, members: &str) -> Features {
    let body = format!(r#"{{"model":"m",{members}}}"#);
    parse(endpoint, body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}")).features
}

fn of_content(content: &str) -> Features {
    let message =
        format!(r#""messages":[{{"role":"system","content":"x"}},{{"role":"user","content":{content}}}]"#);
    features(Endpoint::ChatCompletions, &message)
}

#[test]
fn parts_tell_what_a_model_must_take() {
    let text = r#"{"type":"text","text":"what is this?"}"#;
    for (part, expected) in [
        (r#"{"type":"image_url","image_url":{"url":"https://x/y.png"}}"#, Features::IMAGES),
        (r#"{ "image_url" : {"url":"data:image/png;base64,AA=="}, "type" : "image_url" }"#, Features::IMAGES),
        (r#"{"type":"image","source":{"type":"base64"}}"#, Features::IMAGES),
        (r#"{"ty\u0070e":"image\u005furl"}"#, Features::IMAGES),
        (r#"{"image_url":"https://x/y.png"}"#, Features::IMAGES),
        (r#"{"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}}"#, Features::AUDIO),
        (r#"{"type":"video_url","video_url":{"url":"x"}}"#, Features::VIDEO),
        (r#"{"type":"file","file":{"file_data":"x"}}"#, Features::FILES),
    ] {
        for content in [format!("[{part}]"), format!("[{text} , {part}]"), format!("[{part},{text}]")] {
            assert_eq!(of_content(&content), expected, "{content}");
        }
        let response = format!(r#""input":[{{"role":"user","content":[{part}]}}]"#);
        assert_eq!(features(Endpoint::Responses, &response), expected);
        let output = format!(r#""input":[{{"type":"function_call_output","output":[{part}]}}]"#);
        assert_eq!(features(Endpoint::Responses, &output), expected);
    }
    let input = r#""input":[{"role":"user","content":[{"type":"input_text","text":"a"},{"type":"input_image","image_url":"x"}]},{"type":"message","content":[{"type":"input_file","file_id":"f"}]}]"#;
    let mut both = Features::IMAGES;
    both.insert(Features::FILES);
    assert_eq!(features(Endpoint::Responses, input), both);
    assert_eq!(both.tags().collect::<Vec<_>>(), ["vision", "file"]);
}

/// Bytes of a file are no text, and are counted in the same pass.
#[test]
fn inlined_files_are_measured() {
    let url = |bytes: usize| format!("data:image/png;base64,{}", "A".repeat(bytes - 22));
    let part = |url: &str| format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#);
    let (one, two) = (url(5_000), url(7_000));
    let body = format!(
        r#"{{"model":"m","messages":[{{"content":"{}"}},{{"content":[{},{},{}]}}]}}"#,
        "text ".repeat(1_000),
        part(&one),
        part("data:image/png;base64,AAAA"),
        part(&two)
    );
    assert_eq!(chat(&body).unwrap().inlined, Inlined { files: 2, bytes: 12_000 });
    let estimate = crate::likely_input_tokens(body.len(), chat(&body).unwrap().inlined);
    assert!(estimate.abs_diff(crate::estimate_input_tokens(body.as_bytes())) < 1_020, "{estimate}");
}

#[test]
fn text_implies_nothing_whatever_it_says() {
    let quoted = r#""[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]""#;
    for content in [
        quoted,
        r#""image_url""#,
        r#"[{"type":"text","text":"image_url"}]"#,
        r#"[{"type":"text","text":"{\"type\":\"image_url\"}"}]"#,
        r#"[{"type":"text","note":{"type":"image_url"},"list":[{"type":"image_url"}]}]"#,
        r#"[{"type":["image_url"],"x":"image_url"}]"#,
        r#"[]"#,
        r#"null"#,
        r#"[["image_url"]]"#,
        r#"["type","image_url"]"#,
    ] {
        assert_eq!(of_content(content), Features::default(), "{content}");
    }
    // Nor does anything beside the content of a message, or in another endpoint's body.
    for messages in [
        r#""messages":[{"role":"assistant","content":null,"tool_calls":[{"type":"image_url","function":{"arguments":"image_url"}}]}]"#,
        r#""messages":[{"role":"user","content":"a","x":[{"type":"image_url"}]}],"metadata":{"a":[{"content":[{"type":"image_url"}]}]}"#,
        r#""messages":[[{"content":[{"type":"image_url"}]}]]"#,
        r#""messages":[{"content":{"a":{"type":"image_url"}}}]"#,
    ] {
        assert_eq!(features(Endpoint::ChatCompletions, messages), Features::default(), "{messages}");
    }
    let moderation = r#""input":[{"type":"image_url","image_url":{"url":"x"}}]"#;
    assert_eq!(features(Endpoint::Moderations, moderation), Features::default());
}

#[test]
fn functions_and_forms_of_answers_are_seen() {
    use Endpoint::{ChatCompletions, Responses};
    let chat = |members: &str| features(ChatCompletions, &format!(r#""messages":[],{members}"#));
    let function = r#"{"type":"function","function":{"name":"f","parameters":{}}}"#;
    for (members, expected) in [
        (format!(r#""tools":[{function}]"#), Features::TOOLS),
        (r#""functions":[{"name":"f"}]"#.into(), Features::TOOLS),
        (r#""tools":[ ]"#.into(), Features::default()),
        (r#""tools":null,"functions":[]"#.into(), Features::default()),
        (r#""response_format":{"type":"json_object"}"#.into(), Features::JSON),
        (r#""response_format":{"json_schema":{"schema":{}},"type":"json_schema"}"#.into(), Features::JSON),
        (r#""response_format":{"type":"text"}"#.into(), Features::default()),
        (r#""response_format":null"#.into(), Features::default()),
        (r#""modalities":["text","audio"]"#.into(), Features::AUDIO),
        (r#""modalities":["text"]"#.into(), Features::default()),
    ] {
        assert_eq!(chat(&members), expected, "{members}");
    }
    let mut both = Features::TOOLS;
    both.insert(Features::PROVIDER_TOOLS);
    for (members, expected) in [
        (r#""tools":[{"type":"web_search"},{"type":"function","name":"f"}]"#, both),
        (r#""tools":[{"type":"web_search","filters":{"type":"function"}}]"#, Features::PROVIDER_TOOLS),
        (r#""text":{"verbosity":"low","format":{"type":"json_schema","schema":{}}}"#, Features::JSON),
        (r#""text":{"format":{"type":"text"}}"#, Features::default()),
    ] {
        assert_eq!(features(Responses, members), expected, "{members}");
    }
    // Speech and images have members of the same name that mean something else.
    let body = br#"{"model":"m","input":"a","response_format":"mp3"}"#;
    assert!(parse(Endpoint::Speech, body).unwrap().features.is_empty());
}

/// A member that decides where a request goes is read once, as the upstream might read the other one.
#[test]
fn what_implies_a_need_may_stand_only_once() {
    for members in [
        r#""tools":[],"tools":[{}]"#,
        r#""response_format":null,"response_format":{"type":"json_object"}"#,
        r#""functions":[],"functions":[{}]"#,
        r#""modalities":[],"modalities":["audio"]"#,
        r#""Tools":[{}]"#,
    ] {
        let body = format!(r#"{{"model":"m","messages":[],{members}}}"#);
        assert_eq!(refusal(Endpoint::ChatCompletions, &body).0, EnvelopeErrorKind::DuplicateField, "{body}");
    }
}

/// The needs of a tree, found the slow way.
fn reference(value: &serde_json::Value) -> Features {
    let mut found = Features::default();
    let parts = |message: &serde_json::Value| message["content"].as_array().cloned().unwrap_or_default();
    for part in value["messages"].as_array().into_iter().flatten().flat_map(parts) {
        let named = |name: &str| part.as_object().is_some_and(|part| part.contains_key(name));
        if matches!(part["type"].as_str(), Some("image_url" | "input_image" | "image")) || named("image_url")
        {
            found.insert(Features::IMAGES);
        }
        if matches!(part["type"].as_str(), Some("input_audio")) || named("input_audio") {
            found.insert(Features::AUDIO);
        }
    }
    found
}

proptest! {
    /// Differential: the pass over the bytes finds what a walk over the tree finds.
    #[test]
    fn the_needs_agree_with_those_of_the_tree(
        contents in proptest::collection::vec(
            proptest::collection::vec(
                prop::sample::select(vec![
                    "\"image_url\"",
                    "{\"type\":\"text\",\"text\":\"image_url\"}",
                    "{\"type\":\"image_url\"}",
                    "{ \"x\":[{\"type\":\"image_url\"}], \"type\" : \"input_audio\" }",
                    "{\"type\":{\"type\":\"image\"}}",
                    "{\"text\":{\"image_url\":1}}",
                    "{\"input_audio\":{}}",
                    "[{\"type\":\"image_url\"}]",
                    "{}",
                ]),
                0..4,
            ),
            0..4,
        ),
        as_array in any::<bool>(),
    ) {
        let message = |parts: &Vec<&str>| {
            let parts = parts.join(" , ");
            let content = if as_array { format!("[{parts}]") } else { serde_json::Value::from(parts).to_string() };
            format!("{{\"content\": {content} ,\"role\":\"user\"}}")
        };
        let messages: Vec<_> = contents.iter().map(message).collect();
        let body = format!("{{\"model\":\"m\",\"messages\":[{}]}}", messages.join(","));
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        prop_assert_eq!(chat(&body).unwrap().features, reference(&value), "{}", body);
    }
}
