use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const TAG: &str = "dep-1";

#[test]
fn an_id_keeps_its_kind_in_front() {
    for (id, wrapped) in [
        ("resp_abc", "resp_nemo.dep-1.abc"),
        ("rs_0_1", "rs_nemo.dep-1.0_1"),
        ("abc", "nemo.dep-1.abc"),
        ("_a", "nemo.dep-1._a"),
        ("Resp_a", "nemo.dep-1.Resp_a"),
        ("averyverylongkind_a", "nemo.dep-1.averyverylongkind_a"),
        ("resp_nemo.other.abc", "resp_nemo.dep-1.nemo.other.abc"),
        ("", ""),
    ] {
        assert_eq!(wrap(TAG, id), wrapped);
        assert_eq!(unwrap(wrapped.into()), id);
    }
    assert_eq!(wrap("", "resp_abc"), "resp_abc");
    assert_eq!(wrap("no tag", "resp_abc"), "resp_abc");
    for foreign in ["resp_abc", "nemo", "nemo.", "nemo..a", "nemo.a b.c", "resp_nemo.abc", "xnemo.a.b"] {
        assert_eq!((tag(foreign), unwrap(foreign.into())), (None, foreign.into()));
    }
    assert!(matches!(unwrap("nemo.dep-1.gAAAA".into()), Cow::Borrowed("gAAAA")));
}

#[test]
fn a_request_says_where_it_has_to_go() {
    let body = br#"{"model":"m","previous_response_id":"resp_nemo.a.1","input":[
        {"role":"user","content":"nemo.a.x"},
        {"encrypted_content":"nemo.b.gAAAA\/x","type":"reasoning","summary":[],"id":"rs_nemo.b.2"},
        {"type":"item_reference","id":"msg_nemo.c.3"},{"id":"msg_nemo.c.4"},
        {"type":"message","id":"msg_nemo.d.5","role":"assistant","content":[]},
        {"type":"mcp_approval_response","approval_request_id":"mcpr_nemo.e.6","approve":true}]}"#;
    let tagged = read_request(body).unwrap();
    let found: Vec<_> = tagged.bindings.iter().map(|it| (it.tag.unwrap(), it.bound, it.place())).collect();
    assert_eq!(
        found,
        [
            ("a", Bound::PreviousResponse, "previous_response_id".to_owned()),
            ("b", Bound::Encrypted, "input[1].encrypted_content".to_owned()),
            ("b", Bound::Item, "input[1].id".to_owned()),
            ("c", Bound::Reference, "input[2].id".to_owned()),
            ("c", Bound::Reference, "input[3].id".to_owned()),
            ("d", Bound::Item, "input[4].id".to_owned()),
            ("e", Bound::Approval, "input[5].approval_request_id".to_owned()),
        ]
    );
    assert_eq!(tagged.firm().count(), 5);
    let upstream = cut(&Bytes::from_static(body), &tagged.cuts).concat();
    let upstream: Value = serde_json::from_slice(&upstream).unwrap();
    assert_eq!(upstream["previous_response_id"], "resp_1");
    assert_eq!(upstream["input"][0]["content"], "nemo.a.x");
    assert_eq!(upstream["input"][1]["encrypted_content"], "gAAAA/x");
    let ids: Vec<_> = (1..5).map(|index| upstream["input"][index]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["rs_2", "msg_3", "msg_4", "msg_5"]);
    assert_eq!(upstream["input"][5]["approval_request_id"], "mcpr_6");
}

#[test]
fn an_untagged_request_is_not_touched() {
    for body in [
        &br#"{"input":"nemo. is a router"}"#[..],
        br#"{"input":[{"id":"msg_1","role":"assistant","content":[]},{"type":"reasoning","id":"rs_1"}]}"#,
        br#"{"input":[{"type":"mcp_approval_response","approval_request_id":"mcpr_1"}],"metadata":{"id":"x"}}"#,
        b"not JSON",
    ] {
        let tagged = read_request(body).unwrap();
        assert!(tagged.bindings.is_empty() && tagged.cuts.is_empty());
    }
    assert!(read_request(b"not JSON with nemo. in it").is_err());
}

/// Whoever knows the id of something that is kept can read it: none is overlooked, however it is written.
#[test]
fn what_names_something_kept_is_found_without_a_tag() {
    for (body, text, place) in [
        (r#"{"previous_response_id":"resp_1"}"#, "resp_1", "previous_response_id"),
        (r#"{"previous_respons\u0065_id":"resp_1"}"#, "resp_1", "previous_response_id"),
        (r#"{"previous_response_id":"\u0072esp_1"}"#, r"\u0072esp_1", "previous_response_id"),
        (r#"{"input":[{"type":"item_reference","id":"msg_1","status":null}]}"#, "msg_1", "input[0].id"),
        (r#"{"input":[{"\u0069\u0064":"msg_1","t\u0079pe":"item\u005freference"}]}"#, "msg_1", "input[0].id"),
        (r#"{"input":[{"type":null,"id":"msg_1"}]}"#, "msg_1", "input[0].id"),
        (r#"{"\u0069nput":["x",{"id":"msg_1","status":"completed"}]}"#, "msg_1", "input[1].id"),
        (r#"{"input":[{"type":"image_generation_call","id":"ig_1"}]}"#, "ig_1", "input[0].id"),
        (
            r#"{"input":[{"id":"ig_1","result":null,"type":"image_generation\u005fcall"}]}"#,
            "ig_1",
            "input[0].id",
        ),
        (r#"{"input":[{"type":"image_generation_call","id":"ig_1","result":""}]}"#, "ig_1", "input[0].id"),
        (
            r#"{"input":[{"result":"QUI=","type":"image_generation_call","id":"ig_1","result":null}]}"#,
            "ig_1",
            "input[0].id",
        ),
    ] {
        let tagged = read_request(body.as_bytes()).unwrap();
        let [only] = &tagged.bindings[..] else { panic!("{body}") };
        assert_eq!((only.tag, only.text, &*only.place()), (None, text, place), "{body}");
        assert!(only.bound.is_kept() && only.bound.is_firm() && tagged.cuts.is_empty(), "{body}");
    }
    let twice = br#"{"previous_response_id":"resp_nemo.a.1","previous_response_id":"resp_2"}"#;
    let tags: Vec<_> = read_request(twice).unwrap().bindings.iter().map(|it| it.tag).collect();
    assert_eq!(tags, [Some("a"), None]);
}

/// An image that comes with its item is not looked up by its id.
#[test]
fn an_image_is_named_or_brought() {
    let body = br#"{"input":[
        {"type":"image_generation_call","id":"ig_nemo.a.1"},
        {"type":"image_generation_call","id":"ig_nemo.b.2","result":"QUI=","status":"completed"},
        {"type":"image_generation_call","id":"ig_3","result":"QUI="}]}"#;
    let tagged = read_request(body).unwrap();
    let found: Vec<_> = tagged.bindings.iter().map(|it| (it.tag, it.bound)).collect();
    assert_eq!(found, [(Some("a"), Bound::Reference), (Some("b"), Bound::Item)]);
    assert_eq!(tagged.firm().count(), 1);
}

fn marker() -> Marker {
    nemo_types::Keyring::parse(&"5a".repeat(32)).unwrap().marker()
}

#[test]
fn a_sealed_id_is_of_one_owner_and_one_place() {
    let tagger = Tagger::sealing("7f3a", marker(), 0, b"acme");
    let body = Bytes::from_static(br#"{"id":"resp_abc","remixed_from_video_id":"video_1"}"#);
    let all: Vec<_> = (1..body.len()).collect();
    let out: Value = serde_json::from_slice(&rewrite(Rewriter::answer(tagger.clone()), &body, &all)).unwrap();
    let whole: Value = serde_json::from_slice(&rewrite(Rewriter::answer(tagger), &body, &[])).unwrap();
    assert_eq!(out, whole);
    let id = out["id"].as_str().unwrap();
    assert!(id.starts_with("resp_nemo.7f3a-") && id.ends_with(".abc"), "{id}");
    assert!(tag(id).is_some_and(|tag| is_tag(tag) && base(tag) == "7f3a"));
    assert_eq!(unwrap(id.into()), "resp_abc");
    let sealed = Sealed::read(id).unwrap();
    assert_eq!((sealed.base, &*sealed.id), ("7f3a", "resp_abc"));
    assert_eq!(sealed.check(&marker(), b"acme"), Some(0));
    assert_eq!(sealed.check(&marker(), b"other"), None);
    // Nothing of it can be exchanged for something else.
    let other = out["remixed_from_video_id"].as_str().unwrap();
    let seal = |id: &str| tag(id).unwrap().rsplit_once('-').unwrap().1.to_owned();
    for forged in [
        id.replace(".abc", ".abd"),
        id.replace("resp_", "msg_"),
        id.replace("7f3a", "7f3b"),
        id.replace(&seal(id), &seal(other)),
    ] {
        assert_eq!(Sealed::read(&forged).unwrap().check(&marker(), b"acme"), None, "{forged}");
    }
    for other in [
        "resp_abc",
        "resp_nemo.7f3a.abc",
        "resp_nemo.7f3a-00.abc",
        &id.replace(&seal(id), &seal(id).to_uppercase()),
    ] {
        let read = Sealed::read(other);
        assert!(read.is_none() || other.contains(&seal(id)), "{other}");
    }
    assert_eq!((base("7f3a"), base("a-b")), ("7f3a", "a-b"));
}

#[test]
fn lists_are_tagged_and_what_is_no_id_is_not() {
    let long = format!("resp_{}", "x".repeat(2000));
    let body = json!({
        "object": "list", "data": [{"id": "msg_1", "content": [{"id": "x_1"}]}, {"id": "a\"b"}], "first_id": "msg_1",
        "last_id": long, "has_more": false,
    });
    let bytes = serde_json::to_vec(&body).unwrap();
    for at in 0..=bytes.len() {
        let out: Value = serde_json::from_slice(&rewrite(Rewriter::answer(TAG), &bytes, &[at])).unwrap();
        let mut expected = body.clone();
        expected["data"][0]["id"] = json!("msg_nemo.dep-1.1");
        expected["first_id"] = json!("msg_nemo.dep-1.1");
        assert_eq!(out, expected, "cut at {at}");
    }
}

fn answer() -> Value {
    json!({
        "id": "resp_1", "object": "response", "previous_response_id": "resp_0", "instructions": "id",
        "metadata": {"id": "x_1", "output": [{"id": "x_1"}], "response": {"id": "x_1"}},
        "output": [
            {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "\"id\":\"x\\"}],
             "encrypted_content": "gAAAA=="},
            {"id": "msg_1", "content": [{"type": "output_text", "text": "a", "id": "x_2"}]},
            {"id": "fc_1", "call_id": "call_1", "encrypted_content": null, "arguments": "{\"id\":\"x_3\"}"},
            {"approval_request_id": "mcpr_1", "id": ""}, "id", null, ["id", "x_1"], {"id": {"id": "x_1"}}
        ],
        "usage": null
    })
}

/// The same with a tree.
fn reference(event: &mut Value) {
    fn set(value: &mut Value, name: &str, wrap: fn(&str, &str) -> String) {
        if let Some(text) = value.get_mut(name).filter(|value| value.is_string()) {
            *text = wrap(TAG, text.as_str().unwrap()).into();
        }
    }
    let id = |tag: &str, text: &str| wrap(tag, text).into_owned();
    let item = |value: &mut Value| {
        set(value, "id", id);
        set(value, "approval_request_id", id);
        set(value, "encrypted_content", |tag, text| wrap_content(tag, text).into_owned());
    };
    let answer = |value: &mut Value| {
        set(value, "id", id);
        set(value, "previous_response_id", id);
        if let Some(items) = value.get_mut("output").and_then(Value::as_array_mut) {
            items.iter_mut().filter(|it| it.is_object()).for_each(item);
        }
    };
    answer(event);
    set(event, "item_id", id);
    event.get_mut("response").into_iter().for_each(answer);
    event.get_mut("item").filter(|it| it.is_object()).into_iter().for_each(item);
}

fn rewrite(mut rewriter: Rewriter, bytes: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut out, mut from) = (Vec::new(), 0);
    for at in pieces.iter().copied().chain([bytes.len()]) {
        for piece in rewriter.push(&Bytes::copy_from_slice(&bytes[from..at])) {
            assert!(!piece.is_empty());
            out.extend_from_slice(&piece);
        }
        from = at;
    }
    out.extend(rewriter.finish().into_iter().flatten());
    out
}

#[test]
fn an_answer_is_rewritten_as_with_a_tree_however_it_is_cut() {
    let mut expected = answer();
    let body = serde_json::to_vec(&expected).unwrap();
    reference(&mut expected);
    for at in 0..=body.len() {
        let out = rewrite(Rewriter::answer(TAG), &body, &[at]);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected, "cut at {at}");
    }
    let all: Vec<_> = (1..body.len()).collect();
    let out = rewrite(Rewriter::answer(TAG), &body, &all);
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    let pretty = serde_json::to_vec_pretty(&answer()).unwrap();
    let out = rewrite(Rewriter::answer(TAG), &pretty, &[]);
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
    assert_eq!(rewrite(Rewriter::answer(""), &body, &[3]), body);
}

/// Failure 27: whatever a client can send back in the next turn names its deployment.
#[test]
fn a_stream_is_rewritten_however_it_is_cut() {
    let mut events = vec![
        json!({"type": "response.created", "response": answer(), "sequence_number": 0}),
        json!({"type": "response.output_item.added", "item": {"id": "rs_2", "encrypted_content": ""}}),
        json!({"type": "response.output_text.delta", "item_id": "msg_2", "delta": "\"item_id\":\"msg_x\" \\"}),
        json!({"item_id": "plain", "item": null, "response": "resp_1"}),
        json!({"type": "response.completed", "response": answer()}),
    ];
    let separators = ["\n\n", "\r\n\r\n", "\r\r", "\n: ping\ndata: [DONE]\n\n", "\n\n"];
    let mut stream = Vec::new();
    for (event, end) in events.iter().zip(separators) {
        stream.extend_from_slice(format!("event: {}\ndata: {event}{end}", event["type"]).as_bytes());
    }
    let mut expected = stream.clone();
    for event in &mut events {
        let from = event.to_string();
        reference(event);
        expected = String::from_utf8(expected).unwrap().replacen(&from, &event.to_string(), 1).into_bytes();
    }
    let expected = String::from_utf8(expected).unwrap();
    for at in 0..=stream.len() {
        let out = rewrite(Rewriter::stream(TAG), &stream, &[at]);
        assert_eq!(String::from_utf8(out).unwrap(), expected, "cut at {at}");
    }
    let all: Vec<_> = (1..stream.len()).collect();
    assert_eq!(String::from_utf8(rewrite(Rewriter::stream(TAG), &stream, &all)).unwrap(), expected);
}

proptest! {
    #[test]
    fn what_is_wrapped_unwraps(id in "[a-z0-9]{0,18}_?(nemo\\.)?(?s).{0,20}", tag_text in "[A-Za-z0-9-]{1,64}") {
        let wrapped = wrap(&tag_text, &id).into_owned();
        prop_assert_eq!(unwrap(Cow::Borrowed(&wrapped)), id.as_str());
        if !id.is_empty() {
            prop_assert_eq!(tag(&wrapped), Some(tag_text.as_str()));
        }
    }

    /// Nothing but insertions happens, whatever comes: what the upstream sent is still there.
    #[test]
    fn any_bytes_pass_in_any_pieces(
        bytes in proptest::collection::vec(prop::sample::select(b"{}[]:,\"\\ida_ eoutp\ndata:".to_vec()), 0..200),
        cut in 0_usize..200,
        stream in any::<bool>(),
    ) {
        let make = || if stream { Rewriter::stream(TAG) } else { Rewriter::answer(TAG) };
        let whole = rewrite(make(), &bytes, &[]);
        let in_two = rewrite(make(), &bytes, &[cut.min(bytes.len())]);
        prop_assert_eq!(&whole, &in_two);
        let text = String::from_utf8(whole).unwrap();
        prop_assert_eq!(text.replace("nemo.dep-1.", "").into_bytes(), bytes);
    }
}
