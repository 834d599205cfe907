use bytes::Bytes;

use super::*;

const CHAT: (Dialect, Dialect) = (Dialect::Chat, Dialect::Messages);

const STREAM: &str = concat!(
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",",
    "\"role\":\"assistant\",\"model\":\"claude\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,",
    "\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n",
    "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":",
    "{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"json_response\",\"input\":{}}}\n\n",
    "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":",
    "{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":1}\"}}\n\n",
    "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
    "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",",
    "\"stop_sequence\":null},\"usage\":{\"output_tokens\":5}}\n\n",
    "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

fn echo(forced_tool: bool) -> Echo {
    Echo { id: "1".into(), created: 7, model: "m".into(), forced_tool, ..Echo::default() }
}

fn translate(
    stream: &str,
    cut: usize,
    forced: bool,
) -> (String, Result<(), TranscodeError>, StreamTranscoder) {
    let mut transcoder = StreamTranscoder::new(CHAT, echo(forced), ErrorDialect::OpenAi).unwrap();
    let mut out = Vec::new();
    let mut outcome = Ok(());
    for piece in [&stream[..cut], &stream[cut..]] {
        outcome =
            outcome.and_then(|()| transcoder.frame(&Bytes::copy_from_slice(piece.as_bytes()), &mut out));
    }
    let outcome = outcome.and_then(|()| transcoder.finish(&mut out));
    (String::from_utf8(out).unwrap(), outcome, transcoder)
}

/// The call that stands for a JSON schema is text for a client, wherever the network cuts the stream.
#[test]
fn a_forced_tool_is_shown_as_text() {
    let (whole, outcome, transcoder) = translate(STREAM, 0, true);
    assert_eq!(outcome, Ok(()));
    assert!(!whole.contains("tool_calls") && whole.ends_with("data: [DONE]\n\n"), "{whole}");
    assert!(
        whole.contains(r#""content":"{\"a\":1}""#) && whole.contains(r#""finish_reason":"stop""#),
        "{whole}"
    );
    assert_eq!(transcoder.usage().map(|it| (it.input, it.output)), Some((Some(10), Some(5))));
    assert_eq!(transcoder.finish_reason().map(FinishReason::as_str), Some("stop"));
    for cut in 1..STREAM.len() {
        assert_eq!(translate(STREAM, cut, true).0, whole, "cut at {cut}");
    }
    let (plain, ..) = translate(STREAM, 0, false);
    assert!(plain.contains("tool_calls"), "{plain}");
}

/// B7, C15.
#[test]
fn a_stream_that_is_cut_short_is_never_complete() {
    let end = STREAM.find("event: message_delta").unwrap();
    let (text, outcome, _) = translate(&STREAM[..end], 0, false);
    assert_eq!(outcome, Err(TranscodeError::Truncated));
    assert!(!text.contains("[DONE]"), "{text}");
    // The last blank line alone may be missing.
    assert_eq!(translate(STREAM.trim_end(), 0, false).1, Ok(()));
}

#[test]
fn an_error_within_the_stream_ends_it_in_the_clients_dialect() {
    let failed = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"busy\"}}\n\n";
    let at = STREAM.find("event: content_block_start").unwrap();
    let stream = format!("{}{failed}{}", &STREAM[..at], &STREAM[at..]);
    let (text, outcome, transcoder) = translate(&stream, 0, false);
    assert_eq!(outcome, Ok(()));
    assert!(!transcoder.seen_content());
    assert_eq!(transcoder.error().and_then(|it| it.message.as_deref()), Some("busy"));
    assert!(text.ends_with("\n\n") && !text.contains("tool_calls") && !text.contains("[DONE]"), "{text}");
    let last = text.trim_end().rsplit_once("data: ").unwrap().1;
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["message"], "busy");
}

#[test]
fn a_stopped_stream_says_length() {
    let mut transcoder = StreamTranscoder::new(CHAT, echo(false), ErrorDialect::OpenAi).unwrap();
    let at = STREAM.find("event: content_block_stop").unwrap();
    let mut out = Vec::new();
    transcoder.frame(&Bytes::copy_from_slice(&STREAM.as_bytes()[..at]), &mut out).unwrap();
    out.clear();
    transcoder.stop(1, &mut out);
    assert!(String::from_utf8(out).unwrap().contains(r#""finish_reason":"length""#));
}

/// A client's own function that the model calls beside the JSON is still to be run.
#[test]
fn another_call_beside_a_forced_tool_is_still_a_call() {
    let other = concat!(
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":",
        "{\"type\":\"tool_use\",\"id\":\"toolu_2\",\"name\":\"weather\",\"input\":{}}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n",
        "event: message_delta",
    );
    let stream = STREAM.replacen("event: message_delta", other, 1);
    let (shown, outcome, _) = translate(&stream, 0, true);
    assert_eq!(outcome, Ok(()));
    assert!(shown.contains("weather") && shown.contains(r#""finish_reason":"tool_calls""#), "{shown}");
    assert!(shown.contains(r#""arguments":"{}""#), "nothing can't be parsed: {shown}");
    let call =
        |name: &str| format!(r#"{{"type":"tool_use","id":"toolu_{name}","name":"{name}","input":{{}}}}"#);
    let answer = |calls: &str| {
        let body = format!(
            r#"{{"type":"message","id":"m","role":"assistant","model":"m","content":[{calls}],"stop_reason":"tool_use","usage":{{"input_tokens":1,"output_tokens":1}}}}"#
        );
        let answer = response(CHAT, body.as_bytes(), &echo(true)).unwrap();
        answer.finish_reason.map(|reason| reason.as_str().to_owned())
    };
    assert_eq!(answer(&call("json_response")).as_deref(), Some("stop"));
    let both = format!("{},{}", call("json_response"), call("weather"));
    assert_eq!(answer(&both).as_deref(), Some("tool_calls"));
}
