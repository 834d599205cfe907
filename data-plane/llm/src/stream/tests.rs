use proptest::prelude::*;

use super::*;

/// What the client gets and what was noted, when the stream comes in frames of these lengths.
fn replay(
    endpoint: Endpoint,
    cut: bool,
    stream: &[u8],
    frames: impl IntoIterator<Item = usize>,
) -> (Vec<u8>, String) {
    let mut observer = StreamObserver::new(endpoint, cut);
    let (mut out, mut rest) = (Vec::new(), stream);
    let mut take = |observer: &mut StreamObserver, frame: &[u8]| {
        out.extend(observer.frame(Bytes::copy_from_slice(frame)).unwrap().concat());
    };
    for length in frames {
        let (frame, tail) = rest.split_at(length.min(rest.len()));
        take(&mut observer, frame);
        rest = tail;
    }
    take(&mut observer, rest);
    let end = observer.finish();
    if let Ok(pieces) = &end {
        out.extend(pieces.concat());
    }
    let notes = format!(
        "{:?} {} {:?} {:?} {:?} {} {} {:?}",
        end.map(|_| ()),
        observer.is_malformed(),
        observer.usage(),
        observer.provider_cost(),
        observer.finish_reason(),
        observer.seen_content(),
        observer.output_bytes(),
        observer.error()
    );
    (out, notes)
}

fn chat(cut: bool, stream: &str) -> (String, StreamObserver) {
    let mut observer = StreamObserver::new(Endpoint::ChatCompletions, cut);
    let mut out = observer.frame(Bytes::copy_from_slice(stream.as_bytes())).unwrap().concat();
    if let Ok(pieces) = observer.finish() {
        out.extend(pieces.concat());
    }
    (String::from_utf8(out).unwrap(), observer)
}

const TEXT: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
const FIRST: &str =
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn frames_are_forwarded_as_the_same_buffer() {
    for cut in [false, true] {
        let mut observer = StreamObserver::new(Endpoint::ChatCompletions, cut);
        let frame = Bytes::from(format!("{TEXT}{TEXT}"));
        let pieces = observer.frame(frame.clone()).unwrap();
        assert_eq!((pieces.len(), pieces[0].as_ptr(), pieces[0].len()), (1, frame.as_ptr(), frame.len()));
    }
    let mut observer = StreamObserver::new(Endpoint::ChatCompletions, false);
    let half = Bytes::from_static(b"data: {\"cho");
    assert_eq!(observer.frame(half.clone()).unwrap()[0].as_ptr(), half.as_ptr());
    assert!(observer.frame(Bytes::new()).unwrap().is_empty());
}

#[test]
fn the_usage_chunk_is_cut_only_when_the_gateway_asked_for_it() {
    let stream = [TEXT, FINISH, USAGE, DONE].concat();
    let (seen, observer) = chat(true, &stream);
    assert_eq!(seen, [TEXT, FINISH, DONE].concat());
    assert_eq!(observer.usage().unwrap().input, Some(3));
    let (seen, observer) = chat(false, &stream);
    assert_eq!(seen, stream);
    assert_eq!(observer.usage().unwrap().output, Some(1));
}

#[test]
fn only_a_chunk_with_nothing_but_usage_is_cut() {
    for chunk in [
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":3}}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        "data: {\"choices\":[],\"x_groq\":{\"usage\":{\"prompt_tokens\":3}}}\n\n",
        "data: {\"usage\":{\"prompt_tokens\":3}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3},\"error\":{\"message\":\"x\"}}\n\n",
        ": {\"choices\":[],\"usage\":{}}\n\n",
    ] {
        assert_eq!(chat(true, &[chunk, DONE].concat()).0, [chunk, DONE].concat());
    }
    for chunk in [
        "data: {\"usage\":{\"prompt_tokens\":3}, \"choices\" : [ ] }\n\n",
        ": note\ndata: {\"choices\":[],\"usage\":{}}\r\n\r\n",
    ] {
        assert_eq!(chat(true, &[TEXT, chunk, DONE].concat()).0, [TEXT, DONE].concat(), "{chunk}");
    }
}

#[test]
fn a_stream_is_complete_only_when_its_end_was_seen() {
    let finish = |stream: &str| {
        let mut observer = StreamObserver::new(Endpoint::ChatCompletions, true);
        observer.frame(Bytes::copy_from_slice(stream.as_bytes())).unwrap();
        observer.finish().map(|pieces| String::from_utf8(pieces.concat()).unwrap())
    };
    assert_eq!(finish(""), Err(StreamError::Truncated));
    assert_eq!(finish(TEXT), Err(StreamError::Truncated));
    assert_eq!(finish(&[TEXT, FINISH].concat()), Ok(String::new()));
    assert_eq!(finish(&[TEXT, DONE].concat()), Ok(String::new()));
    // One of two choices has ended, the other goes on.
    assert_eq!(finish(&[TEXT, FINISH, TEXT].concat()), Err(StreamError::Truncated));
    assert_eq!(finish(&[TEXT, FINISH, TEXT, FINISH, USAGE].concat()), Ok(String::new()));
    // Without the blank line, or any line end, after the terminator.
    assert_eq!(finish(&[TEXT, "data: [DONE]"].concat()), Ok("data: [DONE]".to_owned()));
    assert_eq!(finish(&[TEXT, "data: [DONE]\r\n"].concat()), Ok("data: [DONE]\r\n".to_owned()));
    // A usage chunk that is held back at the end is cut as well.
    assert_eq!(finish(&[TEXT, FINISH, USAGE.trim_end()].concat()), Ok(String::new()));
    assert_eq!(
        finish(&[TEXT, "data: {\"choices\":[{\"delta\":{\"con"].concat()),
        Err(StreamError::Truncated)
    );
}

#[test]
fn an_event_of_our_own_needs_to_know_whether_the_client_is_within_one() {
    for (cut, stream, between) in [
        (false, TEXT, true),
        (false, &TEXT[..20], false),
        (true, &TEXT[..20], true),
        (false, &TEXT[..TEXT.len() - 1], false),
    ] {
        let mut observer = StreamObserver::new(Endpoint::ChatCompletions, cut);
        assert!(observer.is_between_events());
        observer.frame(Bytes::copy_from_slice(stream.as_bytes())).unwrap();
        assert_eq!(observer.is_between_events(), between, "{cut} {stream}");
        assert_eq!(observer.finish().unwrap_err(), StreamError::Truncated);
        assert_eq!(observer.is_between_events(), between, "{cut} {stream}, finished");
    }
}

#[test]
fn an_error_within_the_stream_is_noted() {
    for (stream, message) in [
        ("data: {\"error\":{\"message\":\"gone\",\"code\":500}}\n\n", "gone"),
        (
            "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}],\"error\":{\"message\":\"gone\"}}\n\n",
            "gone",
        ),
        ("event: error\ndata: {\"message\":\"gone\"}\n\n", "gone"),
        ("event: error\ndata: gone\n\n", "gone"),
        ("data: {\"object\":\"error\",\"message\":\"gone\"}\n\n", "gone"),
        ("data: {\"error\":\"gone\"}\n\n", "gone"),
    ] {
        let (seen, observer) = chat(false, &[TEXT, stream].concat());
        assert_eq!(seen, [TEXT, stream].concat());
        assert_eq!(observer.error().unwrap().message.as_deref(), Some(message), "{stream}");
    }
    for harmless in [
        "data: {\"error\":null,\"choices\":[]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"error\\\":{}\"}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"error\"}}]}\n\n",
    ] {
        assert_eq!(chat(false, harmless).1.error(), None, "{harmless}");
    }
}

#[test]
fn content_is_what_is_part_of_an_answer() {
    for (stream, content) in [
        ("", false),
        (": PROCESSING\n\n", false),
        ("data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n", false),
        ("data: {\"choices\":[{\"delta\":{},\"finish_reason\":null}]}\n\n", false),
        ("data: {\"error\":{\"message\":\"x\"}}\n\n", false),
        ("data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n", false),
        (
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}}]}\n\n",
            false,
        ),
        ("data: {\"choices\":[{\"delta\":{\"tool_calls\":[]}}]}\n\n", false),
        ("data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n", true),
        (
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"c\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
            true,
        ),
        ("data: {\"choices\":[{\"delta\":{\"audio\":{\"id\":\"a\",\"data\":\"UklG\"}}}]}\n\n", true),
        (TEXT, true),
        (FINISH, true),
    ] {
        assert_eq!(chat(false, stream).1.seen_content(), content, "{stream}");
    }
    let mut observer = StreamObserver::new(Endpoint::Completions, false);
    observer
        .frame(Bytes::from_static(b"data: {\"choices\":[{\"text\":\"ab\\n\",\"finish_reason\":null}]}\n\n"))
        .unwrap();
    assert!(observer.seen_content());
    assert_eq!(observer.output_bytes(), 3);
}

/// E.4: what a response only announces can still be taken back.
#[test]
fn responses_begin_with_their_first_delta() {
    let mut observer = StreamObserver::new(Endpoint::Responses, false);
    for event in [
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n",
        "event: response.in_progress\ndata: {\"type\":\"response.in_progress\"}\n\n",
        "data: {\"type\":\"response.output_item.added\",\"item\":{\"type\":\"message\",\"content\":[]}}\n\n",
        "data: {\"type\":\"response.content_part.added\",\"part\":{\"text\":\"\"}}\n\n",
    ] {
        observer.frame(Bytes::from_static(event.as_bytes())).unwrap();
        assert!(!observer.seen_content(), "{event}");
    }
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\",\"message\":\"x\"}}}\n\n";
    let mut other = StreamObserver::new(Endpoint::Responses, false);
    other.frame(Bytes::from_static(failed.as_bytes())).unwrap();
    assert!(!other.seen_content(), "a failure is no content");
    assert_eq!(other.error().unwrap().code.as_deref(), Some("server_error"));
    let delta = "data: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n";
    observer.frame(Bytes::from_static(delta.as_bytes())).unwrap();
    assert!(observer.seen_content());
}

/// C15: what no client could read is not passed on, nor anything behind it.
#[test]
fn a_malformed_event_ends_the_stream_where_it_begins() {
    let broken = "data: {\"choices\":[{\"delta\":{\"content\":\n\n";
    for cut in [false, true] {
        for bad in [broken, "data: oops\n\n", "data: {\"choices\":[]}}\n\n"] {
            let mut observer = StreamObserver::new(Endpoint::ChatCompletions, cut);
            let stream = [FIRST, bad, TEXT].concat();
            let out = observer.frame(Bytes::from(stream)).unwrap().concat();
            assert_eq!(String::from_utf8(out).unwrap(), FIRST, "{bad}");
            assert!(observer.is_malformed() && !observer.seen_content() && observer.is_between_events());
        }
        // After the first content, and in two halves: one is with the client already.
        let mut observer = StreamObserver::new(Endpoint::ChatCompletions, cut);
        let mut out = observer.frame(Bytes::from([TEXT, &broken[..20]].concat())).unwrap().concat();
        assert!(!observer.is_malformed());
        out.extend(observer.frame(Bytes::from([&broken[20..], TEXT].concat())).unwrap().concat());
        let sent = if cut { TEXT.to_owned() } else { [TEXT, &broken[..20]].concat() };
        assert_eq!(String::from_utf8(out).unwrap(), sent);
        assert_eq!((observer.is_malformed(), observer.is_between_events()), (true, cut));
    }
    for fine in [TEXT, "data:\n\n", ": note\n\n", "data: [DONE]\n\n", "data: [DONE]\n\ndata: more\n\n"] {
        assert!(!chat(false, fine).1.is_malformed(), "{fine}");
    }
}

#[test]
fn reports_are_found_where_providers_put_them() {
    for chunk in [
        "{\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}",
        "{\"choices\":[{\"delta\":{}}],\"x_groq\":{\"id\":\"r\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}}",
        "{\"choices\":[{\"delta\":{},\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}]}",
        "{\"usage\": {\"prompt_tokens\": 3, \"completion_tokens\": 1}, \"x_groq\":{\"usage\":{\"prompt_tokens\":9}}}",
    ] {
        let usage = chat(false, &format!("data: {chunk}\n\n")).1.usage().unwrap();
        assert_eq!((usage.input, usage.output), (Some(3), Some(1)), "{chunk}");
    }
    // Cumulative reports: the last one counts. An empty one says nothing.
    let stream = "data: {\"usage\":{\"completion_tokens\":1}}\n\ndata: {\"usage\":{\"completion_tokens\":2,\"cost\":1}}\n\ndata: {\"usage\":{}}\n\n";
    let observer = chat(false, stream).1;
    assert_eq!(
        (observer.usage().unwrap().output, observer.provider_cost()),
        (Some(2), Some(Nanos(1_000_000_000)))
    );
}

#[test]
fn what_is_held_back_is_bounded() {
    let mut observer = StreamObserver::new(Endpoint::ChatCompletions, true);
    let mut sent = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}", "x".repeat(MAX_HELD / 2));
    assert_eq!(observer.frame(Bytes::from(sent.clone())).unwrap().len(), 0);
    let mut got = Vec::new();
    for _ in 0..4 {
        let more = "y".repeat(MAX_HELD / 2);
        sent.push_str(&more);
        got.extend(observer.frame(Bytes::from(more)).unwrap().concat());
        assert!(sent.len() - got.len() <= MAX_HELD, "{} of {}", got.len(), sent.len());
    }
    let rest = format!("\"}}}}]}}\n\n{USAGE}{DONE}");
    got.extend(observer.frame(Bytes::from(rest.clone())).unwrap().concat());
    sent.push_str(&rest);
    assert_eq!(String::from_utf8(got).unwrap(), sent.replace(USAGE, ""));
    assert_eq!(observer.usage().unwrap().input, Some(3));
    assert_eq!(observer.output_bytes(), 5 * (MAX_HELD as u64 / 2));
}

#[test]
fn a_frame_of_many_megabytes_loses_nothing() {
    let image =
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "A".repeat(10 << 20));
    let stream = [&image, FINISH, USAGE, DONE].concat();
    let (seen, observer) = chat(true, &stream);
    assert!(seen == [&image, FINISH, DONE].concat());
    assert_eq!(observer.usage().unwrap().input, Some(3));
    // The half of an event in one frame, longer than all buffers.
    let mut observer = StreamObserver::new(Endpoint::ChatCompletions, true);
    let half = &image.as_bytes()[..9 << 20];
    assert!(observer.frame(Bytes::copy_from_slice(half)).unwrap().concat() == half);
}

#[test]
fn what_is_no_stream_of_events_is_refused() {
    let mut observer = StreamObserver::new(Endpoint::ChatCompletions, false);
    let frame = Bytes::from(vec![b'x'; 4 << 20]);
    let results: Vec<_> = (0..17).map(|_| observer.frame(frame.clone()).err()).collect();
    assert!(results[..16].iter().all(Option::is_none));
    assert_eq!(results[16], Some(StreamError::Sse(SseError::EventTooLarge)));
}

fn priced(stream: &str, frames: impl IntoIterator<Item = usize>) -> String {
    let pricing = Pricing::new(|told| {
        let usage = told.usage?;
        told.provider_cost.or(Some(Nanos(i64::try_from(usage.input? * 1000 + usage.output?).ok()?)))
    });
    let mut observer = StreamObserver::new(Endpoint::ChatCompletions, false).with_pricing(pricing);
    let (mut out, mut rest) = (Vec::new(), Bytes::copy_from_slice(stream.as_bytes()));
    for length in frames {
        out.extend(observer.frame(rest.split_to(length.min(rest.len()))).unwrap().concat());
    }
    out.extend(observer.frame(rest).unwrap().concat());
    out.extend(observer.finish().map(|pieces| pieces.concat()).unwrap_or_default());
    String::from_utf8(out).unwrap()
}

const WITH_COST: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4,\"cost\":0.000003001}}\n\n";

/// R001-5: the cost stands in the final usage chunk, wherever the network cuts it, and nothing else is changed.
#[test]
fn the_cost_is_put_into_the_last_chunk_with_usage() {
    let stream = [FIRST, TEXT, FINISH, USAGE, DONE].concat();
    let expected = [FIRST, TEXT, FINISH, WITH_COST, DONE].concat();
    assert_eq!(priced(&stream, []), expected);
    for at in 0..=stream.len() {
        assert_eq!(priced(&stream, [at]), expected, "cut at {at}");
    }
    assert_eq!(priced(&stream, vec![1; stream.len()]), expected);
    // Without the blank line at its end.
    assert_eq!(
        priced(&[TEXT, FINISH, USAGE.trim_end()].concat(), []),
        [TEXT, FINISH, WITH_COST.trim_end()].concat()
    );
    let merged = "data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1},\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    assert_eq!(priced(merged, []), merged.replace("1},", "1,\"cost\":0.000003001},"));
}

#[test]
fn no_other_chunk_is_changed_for_its_cost() {
    for chunk in [
        // Usage so far, in the middle of the answer.
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n",
        "data: {\"choices\":[],\"usage\":null}\n\n",
        // Nobody knows what it costs.
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\n",
        // It says so already.
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"cost\":0.5}}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1},\"error\":{\"message\":\"x\"}}\n\n",
        "data: {\"choices\":[],\"x_groq\":{\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}}\n\n",
    ] {
        let stream = [TEXT, chunk, DONE].concat();
        assert_eq!(priced(&stream, []), stream);
    }
    // Nobody has asked.
    let stream = [TEXT, FINISH, USAGE, DONE].concat();
    assert_eq!(chat(false, &stream).0, stream);
}

#[test]
fn the_tier_and_the_tools_of_a_stream_are_noted() {
    let usage = "data: {\"service_tier\":\"flex\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"server_tool_use\":{\"web_search_requests\":2}}}\n\n";
    let observer = chat(true, &[TEXT, FINISH, usage, DONE].concat()).1;
    assert_eq!(observer.service_tier().as_str(), "flex");
    assert_eq!(observer.measures(), [Measure::new(nemo_types::Unit::WebSearches, 2)]);
    assert!(!chat(true, &[TEXT, FINISH, USAGE, DONE].concat()).1.service_tier().is_told());
    let done = "data: {\"type\":\"response.completed\",\"response\":{\"status\":\"completed\",\"service_tier\":\"priority\",\"output\":[{\"type\":\"web_search_call\",\"action\":{\"type\":\"search\"}}],\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\n\n";
    let mut observer = StreamObserver::new(Endpoint::Responses, false);
    observer.frame(Bytes::from_static(done.as_bytes())).unwrap();
    assert_eq!(observer.service_tier().as_str(), "priority");
    assert_eq!(observer.measures(), [Measure::new(nemo_types::Unit::WebSearches, 1)]);
}

fn event() -> impl Strategy<Value = String> {
    let line_end = prop::sample::select(vec!["\n", "\n", "\r\n", "\r"]);
    let event = prop::sample::select(vec![
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"é \\\"usage\\\":{} \\u00e9\"},\"finish_reason\":null}],\"usage\":null}",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":2}}",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"cost\":0.1}}",
        "data: {\"choices\":[],\"usage\":null}",
        "event: message|data: {\"choices\":[],|data: \"usage\":{\"prompt_tokens\":4}}",
        ": ping",
        "id: 1|data: {\"error\":{\"message\":\"x\"}}",
        "data: [DONE]",
        "",
    ]);
    (event, line_end.clone(), line_end.clone(), line_end).prop_map(|(event, a, b, c)| {
        if event.is_empty() { a.to_owned() } else { format!("{}{b}{c}", event.replace('|', a)) }
    })
}

proptest! {
    /// Also as the fuzz target `stream_observer`.
    #[test]
    fn output_and_notes_do_not_depend_on_where_the_network_cuts(
        events in proptest::collection::vec(event(), 0..8),
        rest in 0_usize..12,
        cut in any::<bool>(),
        frames in proptest::collection::vec(0_usize..90, 0..30),
    ) {
        let mut stream = events.concat().into_bytes();
        stream.truncate(stream.len().saturating_sub(rest));
        let endpoint = Endpoint::ChatCompletions;
        let whole = replay(endpoint, cut, &stream, []);
        // Line ends that merge two events make one that is no JSON: then parts of it may be with the client already.
        let malformed = whole.1.contains(") true ");
        for other in [replay(endpoint, cut, &stream, frames), replay(endpoint, cut, &stream, vec![1; stream.len()])] {
            if malformed {
                prop_assert!(other.0.starts_with(&whole.0) && other.1.contains(") true "));
            } else {
                prop_assert_eq!(&other, &whole);
            }
        }
        if malformed {
            return Ok(());
        }
        let complete = whole.1.starts_with("Ok");
        if !cut {
            prop_assert_eq!(&whole.0, &stream, "forwarded as it came");
        } else if complete {
            // What is gone is whole usage chunks and nothing else.
            let lost = stream.len() - whole.0.len();
            prop_assert!(lost == 0 || events.iter().any(|event| event.contains("\"choices\":[],")));
        }
    }
}

/// E.5: Anthropic's own stream is passed on as it is, and metered by its first and its last report.
#[test]
fn a_stream_of_messages_is_metered() {
    let stream = concat!(
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"content\":[],",
        "\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":90,\"output_tokens\":1}}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":",
        "{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":",
        "{\"type\":\"text_delta\",\"text\":\"four\"}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},",
        "\"usage\":{\"output_tokens\":7}}\n\n",
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
    );
    let before = stream.find("event: content_block_delta").unwrap();
    let mut observer = StreamObserver::new(Endpoint::Messages, false);
    observer.frame(Bytes::copy_from_slice(&stream.as_bytes()[..before])).unwrap();
    assert!(!observer.seen_content(), "another upstream can still answer");
    observer.frame(Bytes::copy_from_slice(&stream.as_bytes()[before..])).unwrap();
    observer.finish().unwrap();
    let usage = observer.usage().unwrap();
    assert_eq!((usage.input, usage.output, usage.cache_read), (Some(100), Some(7), Some(90)));
    assert_eq!((observer.finish_reason().unwrap().as_str(), observer.output_bytes()), ("stop", 4));
    let whole = replay(Endpoint::Messages, false, stream.as_bytes(), []);
    for cut in 1..stream.len() {
        assert_eq!(replay(Endpoint::Messages, false, stream.as_bytes(), [cut]), whole, "{cut}");
    }
    let cut = &stream[..stream.find("event: message_stop").unwrap()];
    assert!(replay(Endpoint::Messages, false, cut.as_bytes(), []).1.starts_with("Err(Truncated)"));
}

#[test]
fn a_stream_of_googles_is_metered() {
    let stream = concat!(
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"fo\"}],\"role\":\"model\"}}],",
        "\"usageMetadata\":{\"promptTokenCount\":9}}\r\n\r\n",
        "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"ur\"}],\"role\":\"model\"},",
        "\"finishReason\":\"STOP\"}],\"usageMetadata\":{\"promptTokenCount\":9,\"candidatesTokenCount\":2,",
        "\"thoughtsTokenCount\":5}}\r\n\r\n",
    );
    let (out, notes) = replay(Endpoint::GenerateContent, false, stream.as_bytes(), []);
    assert_eq!(out, stream.as_bytes());
    assert!(notes.starts_with("Ok(()) false"), "{notes}");
    assert!(notes.contains("input: Some(9), output: Some(7)") && notes.contains("Some(Stop)"), "{notes}");
    let cut = stream.find("data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"ur").unwrap();
    assert!(
        replay(Endpoint::GenerateContent, false, &stream.as_bytes()[..cut], [])
            .1
            .starts_with("Err(Truncated)")
    );
}
