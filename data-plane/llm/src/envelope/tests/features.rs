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
        (r#""background":true"#, Features::BACKGROUND),
        (r#""background":false"#, Features::default()),
    ] {
        assert_eq!(features(Responses, members), expected, "{members}");
    }
    // Speech and images have members of the same name that mean something else.
    let body = br#"{"model":"m","input":"a","response_format":"mp3"}"#;
    assert!(parse(Endpoint::Speech, body).unwrap().features.is_empty());
}

fn google(contents: &str) -> Envelope<'_> {
    let inbound = Inbound { model: "m", stream: false };
    parse_call(Endpoint::GenerateContent, contents.as_bytes(), inbound)
        .unwrap_or_else(|error| panic!("{error}: {contents}"))
}

/// What is a part of Google's is told by its media type, wherever that stands.
#[test]
fn googles_parts_tell_what_a_model_must_take() {
    let mut elsewhere = Features::AUDIO;
    elsewhere.insert(Features::UNKNOWN_INPUT);
    let mut both = Features::IMAGES;
    both.insert(Features::FILES);
    for (parts, expected, images) in [
        (r#"{"inlineData":{"mimeType":"image/png","data":"AAAA"}}"#, Features::IMAGES, 1),
        (r#"{ "inline_data" : {"data":"AAAA", "mime_type" : "IMAGE/png"} }"#, Features::IMAGES, 1),
        (r#"{"inl\u0069neData":{"m\u0069meType":"image\/png","data":""}}"#, Features::IMAGES, 1),
        (r#"{"fileData":{"mimeType":"image/jpeg","fileUri":"gs://b/i"}},{"text":"a"}"#, Features::IMAGES, 1),
        (r#"{"inlineData":{"mimeType":"audio/wav","data":"AAAA"}}"#, Features::AUDIO, 0),
        (r#"{"fileData":{"mimeType":"audio/wav","fileUri":"x"}}"#, elsewhere, 0),
        (r#"{"fileData":{"fileUri":"https://youtu.be/x","mimeType":"video/mp4"}}"#, Features::VIDEO, 0),
        (r#"{"file_data":{"file_uri":"https://youtu.be/x"}}"#, Features::UNKNOWN_INPUT, 0),
        (r#"{"inlineData":{"mimeType":"application/pdf","data":"AAAA"}}"#, Features::FILES, 0),
        (
            r#"{"inlineData":{"mimeType":"image/png","data":""}},{"inlineData":{"mimeType":"text/csv","data":""}},{"inlineData":{"mimeType":"image/png","data":""}}"#,
            both,
            2,
        ),
        (
            r#"{"functionResponse":{"name":"f","response":{"a":1},"parts":[{"inlineData":{"mimeType":"image/png","data":""}}]}}"#,
            Features::IMAGES,
            1,
        ),
        // Text says nothing, nor does what stands elsewhere.
        (r#"{"text":"{\"inlineData\":{\"mimeType\":\"image/png\"}}"}"#, Features::default(), 0),
        (
            r#"{"functionCall":{"name":"f","args":{"inlineData":{"mimeType":"image/png"}}}}"#,
            Features::default(),
            0,
        ),
        (r#"{"inlineData":{"mimeType":["image/png"],"data":"x"}}"#, Features::default(), 0),
        (r#"{"inlineData":{"mimeType":5,"displayName":"image/png","data":"x"}}"#, Features::default(), 0),
    ] {
        let body =
            format!(r#"{{"contents":[{{"role":"user","parts":[{parts}]}},{{"parts":[{{"text":"b"}}]}}]}}"#);
        let found = google(&body);
        assert_eq!((found.features, found.images), (expected, images), "{parts}");
    }
    let beside = r#"{"contents":[{"note":[{"inlineData":{"mimeType":"image/png"}}],"parts":[]}]}"#;
    assert_eq!(google(beside).features, Features::default());
}

#[test]
fn googles_tools_and_forms_of_answers_are_seen() {
    let mut both = Features::TOOLS;
    both.insert(Features::PROVIDER_TOOLS);
    for (members, expected) in [
        (r#""tools":[{"functionDeclarations":[{"name":"f"}]}]"#, Features::TOOLS),
        (r#""tools":[{"googleSearch":{}}]"#, Features::PROVIDER_TOOLS),
        (r#""tools":[{"googleSearch":{}},{"function_declarations":[{"name":"f"}]}]"#, both),
        (r#""tools":[{"functionDeclarations":[]}]"#, Features::default()),
        (r#""generationConfig":{"responseModalities":["TEXT","AUDIO"]}"#, Features::AUDIO),
        (r#""generationConfig":{"responseMimeType":"application/json"}"#, Features::JSON),
        (r#""cachedContent":"cachedContents/x""#, Features::UNKNOWN_INPUT),
    ] {
        assert_eq!(google(&format!(r#"{{"contents":[],{members}}}"#)).features, expected, "{members}");
    }
}

/// Bytes of a file are no text: the least that a request has, what is likely, and the most.
#[test]
fn googles_inlined_files_are_measured_by_themselves() {
    let data = "A".repeat(400_000);
    let part = |kind: &str| format!(r#"{{"inlineData":{{"data":"{data}","mimeType":"{kind}"}}}}"#);
    let body = |parts: &str| format!(r#"{{"contents":[{{"parts":[{{"text":"hi"}},{parts}]}}]}}"#);
    let most =
        |body: &str, window| crate::MostInput::of(body.len(), &google(body)).tokens("gemini-3", window);
    let image = body(&part("image/png"));
    let found = google(&image);
    assert_eq!(found.inlined, Inlined { files: 1, bytes: 400_000 });
    assert!(crate::likely_input_tokens(image.len(), found.inlined) < 1_100);
    assert!(crate::least_input_tokens(image.len(), found.inlined, found.features) < 10);
    assert!((16_384..17_000).contains(&most(&image, 0).unwrap()), "{:?}", most(&image, 0));
    let two = body(&format!("{},{}", part("image/png"), part("image/webp")));
    assert!((32_768..33_500).contains(&most(&two, 0).unwrap()), "{:?}", most(&two, 0));
    // A sound has no more tokens than base64 of it has letters; what is in a document nobody knows.
    assert!(most(&body(&part("audio/wav")), 0).unwrap() > 400_000);
    for (kind, uri) in [("application/pdf", ""), ("video/mp4", ""), ("", "gs://b/x")] {
        let part = match uri {
            "" => part(kind),
            uri => format!(r#"{{"fileData":{{"fileUri":"{uri}"}}}}"#),
        };
        assert_eq!(most(&body(&part), 1_000_000), Some(1_000_000), "{kind}{uri}");
        assert_eq!(most(&body(&part), 0), None, "{kind}{uri}");
    }
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
