//! Forms as the SDKs send them, cut at every byte, and forms that try to be read in two ways.

use proptest::prelude::*;

use super::*;

const BOUNDARY: &str = "xYzZY";

/// One part: its headers' parameters, further headers, content.
fn part(parameters: &str, headers: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {parameters}\r\n{headers}\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

fn field(name: &str, value: &str) -> Vec<u8> {
    part(&format!("name=\"{name}\""), "", value.as_bytes())
}

fn file(content: &[u8]) -> Vec<u8> {
    part("name=\"file\"; filename=\"a;\\\"b.mp3\"", "Content-Type: audio/mpeg\r\n", content)
}

fn body(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// What comes out, with `model` replaced, and the scanner as it ends.
fn run(frames: &[&[u8]], upstream: &str) -> Result<(Vec<u8>, FormScanner), MultipartError> {
    let mut scanner = FormScanner::new(BOUNDARY);
    let mut pieces = Vec::new();
    for frame in frames {
        scanner.push(Bytes::copy_from_slice(frame), &mut pieces)?;
    }
    scanner.finish()?;
    let out = pieces.into_iter().map(|piece| match piece {
        Piece::Raw(bytes) => bytes,
        Piece::Model(_) => Bytes::copy_from_slice(upstream.as_bytes()),
    });
    Ok((out.collect::<Vec<_>>().concat(), scanner))
}

fn refused(parts: &[Vec<u8>]) -> MultipartError {
    run(&[&body(parts)], "m").expect_err("refused")
}

#[test]
fn the_boundary_is_read_as_clients_write_it() {
    for (value, expected) in [
        ("multipart/form-data; boundary=abc", Some("abc")),
        ("Multipart/Form-Data;boundary=\"a b\"", Some("a b")),
        (
            "multipart/form-data; charset=utf-8; BOUNDARY=----WebKitFormBoundaryA0",
            Some("----WebKitFormBoundaryA0"),
        ),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/form-data; boundary=a; boundary=b", None),
        ("multipart/mixed; boundary=abc", None),
        ("application/json", None),
        ("multipart/form-data; boundary=\"a\r\nb\"", None),
    ] {
        assert_eq!(boundary(value).as_deref(), expected, "{value}");
    }
    assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "a".repeat(201))), None);
}

/// Node's SDK sends members in the order in which the caller wrote them, often the file first; Python's sends files last.
#[test]
fn at_every_split_the_model_is_renamed_and_all_else_stays() {
    let binary: Vec<u8> = b"\r\n--xYzZ\r\n\r\n--\r\r\n--xY\0\xff\xfe\n--xYzZY\n".to_vec();
    for parts in [
        vec![file(&binary), field("model", "whisper-1"), field("stream", "true")],
        vec![field("model", "whisper-1"), field("stream", "true"), file(&binary), field("n", "3")],
        vec![field("include[]", "logprobs"), field("model", "whisper-1"), field("stream", "true"), file(b"")],
    ] {
        let input = body(&parts);
        let expected = String::from_utf8_lossy(&input).replace("whisper-1", "upstream-model");
        for at in 0..=input.len() {
            let (out, scanner) = run(&[&input[..at], &input[at..]], "upstream-model").unwrap();
            assert_eq!(String::from_utf8_lossy(&out), expected, "cut at {at}");
            assert_eq!(scanner.form().model.as_deref(), Some("whisper-1"));
            assert!(scanner.form().stream && scanner.stripped() == 0);
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(String::from_utf8_lossy(&run(&bytes, "upstream-model").unwrap().0), expected);
    }
}

#[test]
fn the_gateways_own_fields_are_taken_out_wherever_they_stand() {
    let own = field("nemo_metadata", "{\"run\":7}");
    let tags = field("nemo_tags[]", "vision");
    let (model, sound) = (field("model", "m"), file(b"sound"));
    let plain = body(&[model.clone(), sound.clone()]);
    for parts in [
        vec![own.clone(), tags.clone(), model.clone(), sound.clone()],
        vec![model.clone(), own.clone(), tags.clone(), sound.clone()],
        vec![model.clone(), sound.clone(), tags.clone(), own.clone()],
    ] {
        let input = body(&parts);
        for at in 0..=input.len() {
            let (out, scanner) = run(&[&input[..at], &input[at..]], "m").unwrap();
            assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&plain), "cut at {at}");
            assert_eq!(scanner.stripped(), (input.len() - plain.len()) as u64);
            assert_eq!(scanner.form().metadata.as_deref(), Some("{\"run\":7}"));
        }
    }
}

#[test]
fn the_first_boundary_may_follow_a_line_break() {
    let input = [b"\r\n".to_vec(), body(&[field("nemo_x", "1"), field("model", "m")])].concat();
    for at in 0..=input.len() {
        let (out, scanner) = run(&[&input[..at], &input[at..]], "m").unwrap();
        assert_eq!(out.len() as u64, input.len() as u64 - scanner.stripped());
        assert!(out.starts_with(b"\r\n--xYzZY\r\n"));
    }
}

#[test]
fn a_sealed_form_lets_nothing_be_taken_out() {
    let mut scanner = FormScanner::new(BOUNDARY);
    let mut out = Vec::new();
    let start = [field("model", "m"), file(b"sound")].concat();
    let (before, after) = start.split_at(start.len() - 4);
    scanner.push(before.to_vec().into(), &mut out).unwrap();
    assert!(scanner.in_file());
    scanner.seal();
    let rest = [after.to_vec(), body(&[field("nemo_metadata", "{}")])].concat();
    let error = scanner.push(rest.into(), &mut out).unwrap_err();
    assert_eq!(error.param, Some("nemo_metadata"));
    assert!(error.message.contains("before the file"), "{error}");
}

/// What is held for a call pays for all the images that the rest of its form can ask for.
#[test]
fn images_that_a_form_may_still_ask_for_are_reckoned_with() {
    use crate::Endpoint::{ImageEdits, Transcriptions};
    let most = |parts: &[Vec<u8>], endpoint, ended| {
        let scanner = run(&[&body(parts)], "m").unwrap().1;
        scanner.form().most_asked(endpoint, ended).images
    };
    let model = field("model", "m");
    assert_eq!(most(std::slice::from_ref(&model), ImageEdits, false), Some(10));
    assert_eq!(most(std::slice::from_ref(&model), ImageEdits, true), None, "one, that is");
    assert_eq!(most(std::slice::from_ref(&model), Transcriptions, false), None);
    for (n, expected) in [("3", 3), ("12", 12), ("many", 10), ("2.0", 10)] {
        for ended in [false, true] {
            assert_eq!(most(&[model.clone(), field("n", n)], ImageEdits, ended), Some(expected), "{n}");
        }
    }
}

#[test]
fn no_more_images_can_follow_than_were_reckoned_with() {
    let after = |before: &[Vec<u8>], n: &str, bound: bool| {
        let (mut scanner, mut out) = (FormScanner::new(BOUNDARY), Vec::new());
        scanner.push(before.concat().into(), &mut out).unwrap();
        if bound {
            scanner.bound();
        }
        scanner.push(body(&[field("n", n)]).into(), &mut out)
    };
    let before = [field("model", "m"), file(b"image")];
    assert_eq!(after(&before, "10", true), Ok(()));
    assert_eq!(after(&before, "11", false), Ok(()), "nothing is held for it");
    let error = after(&before, "11", true).unwrap_err();
    assert_eq!(
        (error.param, &*error.message),
        (Some("n"), "`n` must be at most 10, or come before the file.")
    );
}

/// The model that is checked here must be the model that the upstream sees.
#[test]
fn what_another_parser_could_read_otherwise_is_refused() {
    let model = field("model", "m");
    for (parts, what) in [
        (vec![model.clone(), model.clone()], "more than once"),
        (vec![model.clone(), field("Model", "x")], "case-sensitive"),
        (vec![model.clone(), field(" model", "x")], "case-sensitive"),
        (vec![model.clone(), field("mod\\el", "x")], "case-sensitive"),
        (vec![model.clone(), field("mod%65l", "x")], "escapes"),
        (vec![model.clone(), field("\u{212a}", "x")], "escapes"),
        (vec![part("name=\"model\"; filename=\"f\"", "", b"m")], "as a file"),
        (vec![part("name=\"model\"", "Content-Transfer-Encoding: base64\r\n", b"bQ==")], "encoding"),
        (vec![part("name=\"a\"; name=\"model\"", "", b"m")], "twice"),
        (vec![part("name=\"a\"; name*=utf-8''model", "", b"m")], "encoded name"),
        (
            vec![part("name=\"a\"", "Content-Disposition: form-data; name=\"model\"\r\n", b"m")],
            "two content-disposition",
        ),
        (vec![part("name=\"a\"", " folded\r\n", b"m")], "several lines"),
        (vec![part("filename=\"a\"", "", b"m")], "with a name"),
        (vec![part("name=\"a", "", b"m")], "not closed"),
        (vec![field("model", " ")], "non-empty"),
        (vec![field("model", &"m".repeat(MAX_FIELD + 1))], "longer than"),
        (vec![field("nemo_metadata", "[]")], "JSON object"),
        (
            vec![part("name=\"a\"", &format!("x: {}\r\n", "y".repeat(MAX_PART_HEAD)), b"m")],
            "headers of a part",
        ),
        (vec![field("a", "b"); MAX_PARTS + 1], "parts"),
    ] {
        let error = refused(&parts);
        assert!(error.message.contains(what), "{what}: {error}");
    }
    assert!(run(&[b"--other\r\n"], "m").is_err());
    assert!(
        run(&[b"--xYzZYtail\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n--xYzZY--"], "m")
            .is_err()
    );
    let whole = body(&[model]);
    let end = whole.len() - "--\r\n".len();
    assert!(run(&[&whole[..end]], "m").unwrap_err().message.contains("closing boundary"));
}

/// I12: what is held back is bounded, however the form is cut.
#[test]
fn a_file_of_any_size_is_not_held_back() {
    let mut scanner = FormScanner::new(BOUNDARY);
    let (mut out, chunk) = (Vec::new(), Bytes::from(vec![b'\r'; 64 << 10]));
    scanner.push(file(b"").split_off(0).into(), &mut out).unwrap();
    for _ in 0..64 {
        out.clear();
        scanner.push(chunk.clone(), &mut out).unwrap();
        assert!(scanner.carry.len() < BOUNDARY.len() + 6, "{}", scanner.carry.len());
    }
}

proptest! {
    /// Any bytes in any frames: no panic, the same verdict, and what passes is what came.
    #[test]
    fn frames_do_not_matter(
        pieces in proptest::collection::vec(prop_oneof![
            Just(b"\r\n--xYzZY".to_vec()), Just(b"--xYzZY".to_vec()), Just(b"--".to_vec()), Just(b"\r\n".to_vec()),
            Just(b"\r\n\r\n".to_vec()), Just(b"\r".to_vec()),
            Just(b"Content-Disposition: form-data; name=\"model\"".to_vec()),
            Just(b"Content-Disposition: form-data; name=\"f\"; filename=\"x\"".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..20),
        ], 0..24),
        cuts in proptest::collection::vec(0..400_usize, 0..8),
    ) {
        let input = [b"--xYzZY\r\n".to_vec(), pieces.concat()].concat();
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(input.len())).chain([0, input.len()]).collect();
        cuts.sort_unstable();
        let frames: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        let (whole, cut) = (run(&[&input], "M"), run(&frames, "M"));
        match (whole, cut) {
            (Ok((a, scanner)), Ok((b, _))) => {
                prop_assert_eq!(&a, &b);
                if scanner.form().model.is_none() {
                    prop_assert_eq!(a, input);
                }
            }
            (Err(_), Err(_)) => {}
            (whole, cut) => prop_assert!(false, "{:?} but {:?}", whole.map(|it| it.0), cut.map(|it| it.0)),
        }
    }
}

/// Requirements F: every override exists as a field of a form, lists in both ways in which SDKs flatten them.
#[test]
fn overrides_are_read_and_taken_out() {
    let parts = [
        field("model", "m"),
        field("nemo_tags", "vision, code"),
        field("nemo_fallbacks[]", "a"),
        field("nemo_fallbacks[]", "b"),
        field("nemo_strategy", "weighted"),
        field("nemo_no_fallback", "True"),
        field("nemo_retries", "2"),
        field("nemo_max_cost", "0.5"),
        field("nemo_cache", "false"),
        file(b"x"),
    ];
    let (out, scanner) = run(&[&body(&parts)], "m").unwrap();
    assert!(!String::from_utf8_lossy(&out).contains("nemo_"));
    let extras = scanner.form().extras();
    assert_eq!((extras.no_fallback, extras.retries.unwrap().value), (Some(true), 2));
    let told = extras.overrides.unwrap();
    let names = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect::<Vec<Box<str>>>();
    assert_eq!(told.tags.unwrap().value, names(&["vision", "code"]));
    assert_eq!(told.chain.unwrap().value, crate::Chain::Instead(names(&["a", "b"])));
    assert_eq!(&*told.strategy.unwrap().value, "weighted");
    assert_eq!(told.max_cost.unwrap().value.0, 500_000_000);
    for (name, value) in [
        ("nemo_tags", "a,,b"),
        ("nemo_retries", "-1"),
        ("nemo_max_cost", "x"),
        ("nemo_no_fallback", "maybe"),
        ("nemo_cache", "2"),
        ("nemo_strategy", ""),
    ] {
        assert_eq!(refused(&[field("model", "m"), field(name, value)]).param, Some(name));
    }
    let twice = [field("model", "m"), field("nemo_tags", "a"), field("nemo_tags", "b")];
    assert_eq!(refused(&twice).param, Some("nemo_tags"));
}
