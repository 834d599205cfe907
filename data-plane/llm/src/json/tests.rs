//! The walker against `serde_json`: it must accept the same documents, on valid and on broken input.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn walk(document: &[u8]) -> Result<Value, JsonError> {
    let mut cursor = Cursor::new(document, 0);
    let value = cursor.value(0)?;
    cursor.end_of_document()?;
    Ok(value)
}

/// Both at once: the grammar by `RawValue`, which is liberal about depth, and the depth by `Value`, which is
/// strict about numbers and surrogates. A document counts as accepted when the one that cannot judge is skipped.
fn reference_accepts(document: &[u8]) -> bool {
    serde_json::from_slice::<&RawValue>(document).is_ok()
}

#[test]
fn edge_cases_are_judged_like_serde_json() {
    for text in [
        "",
        " ",
        "null",
        "nul",
        "nulll",
        "true",
        "false",
        "tru",
        "0",
        "-0",
        "00",
        "01",
        "-",
        "-1",
        "1.",
        ".1",
        "1.0",
        "1e",
        "1e+",
        "1e5",
        "1E-5",
        "1.5e+10",
        "1e5.0",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "\"\"",
        "\"a",
        "a\"",
        "\"\\\"\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\u12g4\"",
        "\"\\u1234\"",
        "\"\\ud800\"",
        "\"\n\"",
        "\"\t\"",
        "\"\u{7f}\"",
        "[]",
        "[ ]",
        "[1]",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,2",
        "[",
        "]",
        "{}",
        "{ }",
        "{\"a\":1}",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{'a':1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}}",
        "{\"a\":[}]",
        "[{]}",
        "{\"a\":{\"b\":[1,{\"c\":null}]}}",
        " \t\r\n{ \"a\" \n:\t1 ,\"b\" : [ ] } ",
        "\u{feff}{}",
        "{}x",
        "[] []",
        "\u{a0}1",
        "/**/1",
        "1//",
    ] {
        assert_eq!(walk(text.as_bytes()).is_ok(), reference_accepts(text.as_bytes()), "{text:?}");
    }
}

#[test]
fn nesting_is_bounded_where_serde_json_bounds_it() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [1, 126, 127, 128, 129, 100_000] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            assert_eq!(walk(text.as_bytes()).is_ok(), expected, "{depth} of {open}");
        }
    }
}

#[test]
fn members_carry_the_spans_of_names_and_values() {
    let text = br#" { "a" : 1 , "b\n":[ {} ],"c":"x" } tail"#;
    let mut members = Members::open(text, 0).unwrap();
    let mut seen = Vec::new();
    while let Some(member) = members.next().unwrap() {
        seen.push((member.name.raw(text), member.value.raw(text), member.value.kind));
    }
    assert_eq!(
        seen,
        [
            (&br#""a""#[..], &b"1"[..], Kind::Number),
            (br#""b\n""#, b"[ {} ]", Kind::Array),
            (br#""c""#, br#""x""#, Kind::String)
        ]
    );
    assert_eq!(&text[members.end()..], b" tail");
    assert!(members.next().unwrap().is_none());
    assert!(Members::open(b"[]", 0).is_none());
}

#[test]
fn errors_point_at_the_byte_that_does_not_fit() {
    for (text, offset) in
        [("{\"a\":1 x}", 7), ("[1,2,]", 5), ("{\"a\" 1}", 5), ("\"abc", 4), ("[tru]", 1), ("{} x", 3)]
    {
        assert_eq!(walk(text.as_bytes()).unwrap_err().offset, offset, "{text}");
    }
}

#[test]
fn values_read_as_what_they_are() {
    let read = |text: &'static str| walk(text.as_bytes()).unwrap();
    assert_eq!(read("\"a\\u00e9\"").text(b"\"a\\u00e9\"").as_deref(), Some("aé"));
    assert_eq!(read("\"\\ud800\"").text(b"\"\\ud800\""), None);
    assert_eq!(read("12").unsigned(b"12"), Some(12));
    for text in ["-1", "1.0", "1e3", "99999999999999999999", "\"1\"", "null"] {
        assert_eq!(read(text).unsigned(text.as_bytes()), None, "{text}");
    }
    assert_eq!(read("true").boolean(b"true"), Some(true));
    assert_eq!(read("null").boolean(b"null"), None);
}

pub(crate) fn json_text() -> impl Strategy<Value = String> + Clone {
    let string = prop_oneof![
        "[a-z]{0,12}",
        "[ -~]{0,60}".prop_map(|text| text.replace(['\\', '"'], "")),
        Just("\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00".to_owned()),
        "[é漢🦀]{0,20}",
    ]
    .prop_map(|text| format!("\"{text}\""));
    let white = prop::sample::select(vec!["", "", " ", "\n", "\r\n\t", "   "]);
    let leaf = prop_oneof![
        string.clone(),
        prop::sample::select(vec!["0", "-1", "12.5", "1e9", "-0.0E-7", "true", "false", "null"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let (a, b) = (white.clone(), white.clone());
        let (c, d) = (white.clone(), white.clone());
        prop_oneof![
            (proptest::collection::vec(inner.clone(), 0..5), a, b)
                .prop_map(|(items, a, b)| { format!("[{a}{}{b}]", items.join(&format!("{b},{a}"))) }),
            (proptest::collection::vec((string.clone(), inner), 0..5), c, d).prop_map(|(members, c, d)| {
                let members: Vec<_> =
                    members.into_iter().map(|(name, value)| format!("{name}{c}:{d}{value}")).collect();
                format!("{{{c}{}{d}}}", members.join(&format!("{d},{c}")))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn valid_documents_are_accepted_with_their_whole_span(text in json_text()) {
        prop_assert!(reference_accepts(text.as_bytes()), "the generator is wrong: {}", text);
        let value = walk(text.as_bytes()).unwrap();
        prop_assert_eq!(value.raw(text.as_bytes()), text.as_bytes());
    }

    #[test]
    fn damaged_documents_are_judged_like_serde_json(
        text in json_text(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), prop::sample::select(b"{}[]\",:\\u0 1-eE.tfn\n\x01".to_vec()), 0..3_u8), 1..4),
    ) {
        let mut bytes = text.into_bytes();
        for (index, byte, how) in damage {
            let at = index.index(bytes.len().max(1));
            match how {
                0 if at < bytes.len() => bytes[at] = byte,
                1 if at < bytes.len() => _ = bytes.remove(at),
                _ => bytes.insert(at.min(bytes.len()), byte),
            }
        }
        // Inside a string the damage may have broken a UTF-8 sequence, which is not the walker's to see.
        prop_assume!(std::str::from_utf8(&bytes).is_ok());
        prop_assert_eq!(walk(&bytes).is_ok(), reference_accepts(&bytes), "{}", String::from_utf8_lossy(&bytes));
    }
}
