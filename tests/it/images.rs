//! Images: made, edited and varied; streamed and not; billed by the token and by the piece (R003-8, R000-1).

use nemo_tests::{
    client::End,
    fleet::MODEL,
    script::{Ending, Script},
    upstream::media,
};
use serde_json::{Value, json};

use super::media::{FORM, IMAGE, IMAGE_BY_PIECE, field, file, fleet, form, quantity, row};

#[tokio::test]
async fn images_are_billed_by_their_tokens_or_by_the_piece() {
    let fleet = fleet().await;
    let request =
        json!({ "model": IMAGE, "prompt": "a cat", "n": 2, "size": "1024x1536", "quality": "auto" });
    let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json().unwrap()["data"].as_array().unwrap().len(), 2);
    assert_eq!(response.header("x-nemo-edits"), Some("model"));
    let sent = fleet.upstream.last_request().unwrap();
    assert_eq!(sent.path, "/v1/images/generations");
    assert_eq!(sent.json().unwrap(), {
        let mut expected = request.clone();
        expected["model"] = json!("gpt-image-mock");
        expected
    });
    let logged = row(&fleet, &response).await;
    assert_eq!((&logged["endpoint"], &logged["outcome"]), (&json!("images.generations"), &json!("ok")));
    assert_eq!(quantity(&logged, "images"), Some(2));
    assert_eq!(
        (&logged["units"][0]["size"], &logged["units"][0]["quality"]),
        (&json!("1024x1536"), &json!("high"))
    );
    let output = 2 * media::IMAGE_OUTPUT_TOKENS;
    assert_eq!(logged["output_tokens"], json!(output));
    // Output tokens are not told apart in this answer: all are billed as text.
    let nanos = (media::IMAGE_INPUT_TOKENS + output) * 5000;
    assert_eq!((&logged["cost_nanos"], &logged["cost_source"]), (&json!(nanos), &json!("priced")));

    let request =
        json!({ "model": IMAGE_BY_PIECE, "prompt": "a cat", "n": 3, "size": "1024x1792", "quality": "hd" });
    let response = fleet.client.post("/api/v1/images/generations", request.to_string()).await.unwrap();
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.36"), "{}", response.text());
    let logged = row(&fleet, &response).await;
    assert_eq!((logged["cost_nanos"].as_u64(), quantity(&logged, "images")), (Some(360_000_000), Some(3)));
    assert_eq!(logged["input_tokens"], Value::Null, "nobody told");
}

#[tokio::test]
async fn edits_and_variations_are_forms_that_pass_through() {
    let fleet = fleet().await;
    let (image, mask) = (vec![7; 100_000], b"\r\n--not the boundary\r\n".to_vec());
    let parts =
        [field("model", IMAGE), field("prompt", "a hat"), file("image[]", &image), file("mask", &mask)];
    let response = fleet.client.post_as("/v1/images/edits", FORM, &[&form(&parts)]).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = fleet.upstream.last_request().unwrap();
    let expected = [field("model", "gpt-image-mock"), parts[1].clone(), parts[2].clone(), parts[3].clone()];
    assert_eq!(sent.body, form(&expected));
    assert_eq!(sent.header("content-length"), Some(sent.body.len().to_string().as_str()));
    assert_eq!(sent.header("content-type"), Some(FORM));
    let logged = row(&fleet, &response).await;
    assert_eq!(quantity(&logged, "image_input_tokens"), Some(media::IMAGE_INPUT_TOKENS - 10));
    let nanos = 10 * 5000 + (media::IMAGE_INPUT_TOKENS - 10) * 10_000 + media::IMAGE_OUTPUT_TOKENS * 5000;
    assert_eq!(logged["cost_nanos"], json!(nanos), "{logged}");
    assert_eq!(logged["request_bytes"], json!(form(&parts).len()));

    let parts = [file("image", &image), field("n", "2"), field("model", IMAGE_BY_PIECE)];
    let response = fleet.client.post_as("/v1/images/variations", FORM, &[&form(&parts)]).await.unwrap();
    assert_eq!(response.header("x-nemo-cost-usd"), Some("0.08"), "{}", response.text());

    let edit =
        json!({ "model": IMAGE, "prompt": "a hat", "images": [{ "image_url": "data:image/png;base64,AA" }] });
    let response = fleet.client.post("/v1/images/edits", edit.to_string()).await.unwrap();
    assert_eq!(response.status, 200, "edits are sent as JSON too: {}", response.text());
    let response = fleet.client.post("/v1/images/variations", edit.to_string()).await.unwrap();
    assert_eq!(response.status, 415);
    assert!(response.text().contains("multipart/form-data"), "{}", response.text());
}

#[tokio::test]
async fn a_streamed_image_passes_through_and_is_metered() {
    let fleet = fleet().await;
    let request = json!({ "model": IMAGE, "prompt": "a cat", "stream": true, "partial_images": 2 });
    let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
    let kinds: Vec<_> =
        response.chunks().unwrap().iter().map(|it| it["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(
        kinds,
        ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]
    );
    let logged = row(&fleet, &response).await;
    assert_eq!((quantity(&logged, "images"), logged["stream"].as_bool()), (Some(1), Some(true)));
    assert_eq!(logged["output_tokens"], json!(media::IMAGE_OUTPUT_TOKENS));

    // B7: without the event that ends it, it is not complete, and must not look so.
    fleet.upstream.push(Script::ok().ending(Ending::NoDone));
    let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
    assert_eq!(response.end, End::Truncated);
    assert!(response.events().last().unwrap().data.contains("upstream_interrupted"), "{}", response.text());
    assert_eq!(row(&fleet, &response).await["outcome"], "interrupted");
}

/// C26; the catalog says which model is for what.
#[tokio::test]
async fn a_model_that_makes_no_images_is_refused_with_what_it_does() {
    let fleet = fleet().await;
    let request = json!({ "model": MODEL, "prompt": "a cat" });
    let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
    assert_eq!(response.status, 400);
    let error = response.json().unwrap()["error"].clone();
    assert_eq!(error["code"], "no_candidate_for_endpoint");
    let serves = "It serves chat.completions, completions, responses, messages, messages.count_tokens, \
                  generate_content, generate_content.count_tokens.";
    assert!(error["message"].as_str().unwrap().ends_with(serves), "{error}");
    let request = json!({ "model": IMAGE });
    let response = fleet.client.post("/v1/images/generations", request.to_string()).await.unwrap();
    assert_eq!((response.status, &response.json().unwrap()["error"]["param"]), (400, &json!("prompt")));
    assert_eq!(fleet.upstream.served(), 0);
}
