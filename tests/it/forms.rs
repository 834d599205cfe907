//! Forms on their way: streamed in bounded memory, renamed in passing, refused with a reason.

use std::time::Duration;

use serde_json::json;

use super::{
    budget::{amount, budget, settled},
    media::{FORM, IMAGE_BY_PIECE, WHISPER, field, file, fleet, form, quantity, row},
};

const PATH: &str = "/v1/audio/transcriptions";

/// The SDKs of OpenAI send up to 25 MB: Python's with the file last, Node's in the order of the caller.
#[tokio::test]
async fn a_file_of_25_megabytes_passes_in_either_order_chunked_or_not() {
    let fleet = fleet().await;
    let recording: Vec<u8> = (0..25_000_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let (own, sound) = (field("nemo_metadata", r#"{"run":7}"#), file("file", &recording));
    let renamed = |first: bool| {
        let model = field("model", "whisper-mock");
        form(&if first { [model, sound.clone()] } else { [sound.clone(), model] })
    };
    for first in [true, false] {
        let model = field("model", WHISPER);
        let parts =
            if first { [own.clone(), model, sound.clone()] } else { [sound.clone(), model, own.clone()] };
        let body = form(&parts);
        let chunks: Vec<&[u8]> = body.chunks(1_000_000).collect();
        for chunks in [&[body.as_slice()][..], &chunks] {
            let response = fleet.client.post_as(PATH, FORM, chunks).await.unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.header("x-nemo-edits"), Some("strip,model"));
            let sent = fleet.upstream.last_request().unwrap();
            assert!(sent.body == renamed(first), "{} of {} bytes", sent.body.len(), renamed(first).len());
            // Of a form that was held back whole the length is known, however it came.
            let length = sent.body.len().to_string();
            assert_eq!(
                sent.header("content-length"),
                (chunks.len() == 1 || !first).then_some(length.as_str())
            );
            let logged = row(&fleet, &response).await;
            assert_eq!(quantity(&logged, "audio_milliseconds"), Some(25_000_000));
            assert_eq!(logged["request_bytes"], json!(body.len()));
            assert!(logged["metadata"].as_str().unwrap().contains("\"run\":7"), "{logged}");
            fleet.upstream.clear();
        }
    }
}

/// Streamed, not buffered: the upstream has the beginning before the client has sent the end.
#[tokio::test]
async fn the_upstream_reads_while_the_client_still_sends() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let fleet = fleet().await;
    // The mock records a request when it is complete; one that never becomes so shows as a client that has gone.
    let body = form(&[field("model", WHISPER), file("file", &[5; 3_000_000])]);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {FORM}\r\ncontent-length: {}\r\n\r\n",
        fleet.key,
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(fleet.data_addr()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body[..2_900_000]).await.unwrap();
    nemo_tests::eventually("the upstream reads", async || {
        nemo_tests::eventually::yes(fleet.upstream.served() == 1)
    })
    .await
    .unwrap();
    stream.write_all(&body[2_900_000..]).await.unwrap();
    let mut answer = vec![0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn a_form_that_can_not_be_served_says_why() {
    let fleet = fleet().await;
    let (model, sound) = (field("model", WHISPER), file("file", &[1; 300_000]));
    let cases = [
        (FORM, form(std::slice::from_ref(&sound)), 400, "`model`"),
        (FORM, form(&[field("model", "nobody-knows"), sound.clone()]), 404, "does not exist"),
        (FORM, form(&[field("model", super::media::SPEECH), sound.clone()]), 400, "It serves audio.speech."),
        (FORM, form(&[model.clone(), model.clone(), sound.clone()]), 400, "more than once"),
        (FORM, [form(std::slice::from_ref(&model))[..20].to_vec(), b"x".to_vec()].concat(), 400, "boundary"),
        (FORM, [model.clone(), sound.clone()].concat(), 400, "closing boundary"),
        ("multipart/form-data", form(&[model.clone(), sound.clone()]), 415, "boundary"),
        ("text/plain", form(&[model.clone(), sound.clone()]), 415, "multipart/form-data"),
        ("application/json", b"{}".to_vec(), 415, "multipart/form-data"),
    ];
    for (content_type, body, status, says) in cases {
        let response = fleet.client.post_as(PATH, content_type, &[&body]).await.unwrap();
        assert_eq!(response.status, status, "{says}: {}", response.text());
        let error = response.json().unwrap()["error"].clone();
        assert!(error["message"].as_str().unwrap().contains(says), "{says}: {error}");
    }
    // What is wrong behind the beginning of the file shows while it is passed on: still the client's fault.
    for (last, says) in [(model.clone(), "more than once"), (field("nemo_metadata", "{}"), "before the file")]
    {
        let body = form(&[model.clone(), sound.clone(), last]);
        let response = fleet.client.post_as(PATH, FORM, &[&body]).await.unwrap();
        assert_eq!(response.status, 400, "{}", response.text());
        assert!(response.text().contains(says), "{}", response.text());
    }
    // Nor is it passed over where the length is not known before, and the field could be taken out.
    let late = form(&[model.clone(), sound.clone(), field("nemo_max_cost", "0")]);
    let chunks: Vec<&[u8]> = late.chunks(100_000).collect();
    let response = fleet.client.post_as(PATH, FORM, &chunks).await.unwrap();
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains("before the file"), "{}", response.text());
    let compressed = fleet.client.clone().header("content-encoding", "gzip");
    let response = compressed.post_as(PATH, FORM, &[&form(&[model, sound])]).await.unwrap();
    assert_eq!(response.status, 415);
}

/// I3: what stands behind the file is not known when the money is held, so that as many images are paid for as there can
/// be.
#[tokio::test]
async fn i3_images_that_are_asked_for_behind_the_file_are_paid_for() {
    const VARIATIONS: &str = "/v1/images/variations";
    let fleet = fleet().await;
    let (model, image) = (field("model", IMAGE_BY_PIECE), file("image", &[7; 3_000_000]));
    let post =
        async |parts: &[Vec<u8>]| fleet.client.post_as(VARIATIONS, FORM, &[&form(parts)]).await.unwrap();
    // An image costs 0.04 USD, or 0.12 in the best quality.
    let id = budget(&fleet, "20", json!({})).await;
    let response = post(&[model.clone(), image.clone(), field("n", "10")]).await;
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.4"), "{}", response.text());
    assert_eq!(amount(&settled(&fleet, &id, 400_000_000).await["settled"]), 400_000_000);
    let refused = post(&[model.clone(), image.clone(), field("n", "11")]).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("at most 10"), "{}", refused.text());
    let response = post(&[model.clone(), field("n", "11"), image.clone()]).await;
    assert_eq!(response.status, 200, "who says so before has it held: {}", response.text());

    budget(&fleet, "1", json!({ "name": "small" })).await;
    let refused = post(&[model.clone(), image.clone(), field("n", "10")]).await;
    // By whether the control plane has said yet that there is no more.
    assert!(matches!(refused.status, 402 | 503), "{}", refused.text());
    assert!(refused.text().contains("can cost up to 1.2 USD"), "{}", refused.text());
    let response = post(&[model, field("n", "2"), image]).await;
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.08"), "{}", response.text());
}
