//! What the tests of the endpoints beside chat share: models of every kind, priced in their own units, and forms.

use nemo_tests::{
    client::Response,
    fleet::{Fleet, UPSTREAM_KEY},
};
use serde_json::{Value, json};

/// Priced per token, as image models of today are.
pub const IMAGE: &str = "test-image";
/// Priced per image.
pub const IMAGE_BY_PIECE: &str = "test-image-by-piece";
pub const SPEECH: &str = "test-speech";
pub const WHISPER: &str = "test-whisper";
pub const TRANSCRIBE: &str = "test-transcribe";
pub const RERANK: &str = "test-rerank";
pub const RESPONSES: &str = "test-responses";
/// Of the bundled catalog: what a request without a model means is an alias of it.
pub const MODERATION: &str = "omni-moderation-2024-09-26";

/// A gateway with a model for each endpoint.
pub async fn fleet() -> Fleet {
    let fleet = Fleet::start().await.unwrap();
    let credential = json!({ "name": "media", "provider": "custom", "secret": UPSTREAM_KEY });
    let credential = fleet.admin.post("/credentials", credential).await.unwrap()["id"].clone();
    let unit = |unit: &str, price: i64| json!({ "unit": unit, "price": price });
    let images = json!(["images.generations", "images.edits", "images.variations"]);
    let listens = json!(["audio.transcriptions", "audio.translations"]);
    let tokens =
        json!({ "input": 5_000_000_000_i64, "output": 10_000_000_000_i64, "cache_read": 500_000_000 });
    let by_image_token = json!({
        "input": 5_000_000_000_i64, "output": 5_000_000_000_i64,
        "units": [unit("image_input_tokens", 10_000_000_000), unit("image_output_tokens", 40_000_000_000)],
    });
    let by_piece = json!({ "units": [
        unit("images", 40_000_000_000_000),
        { "unit": "images", "quality": "hd", "size": "1024x1792", "price": 120_000_000_000_000_i64 },
    ] });
    for (id, upstream_model, endpoints, price) in [
        (IMAGE, "gpt-image-mock", &images, by_image_token),
        (IMAGE_BY_PIECE, "dall-e-mock", &images, by_piece),
        (
            SPEECH,
            "tts-mock",
            &json!(["audio.speech"]),
            json!({ "units": [unit("characters", 15_000_000_000)] }),
        ),
        (WHISPER, "whisper-mock", &listens, json!({ "units": [unit("audio_milliseconds", 100_000_000)] })),
        (TRANSCRIBE, "mock-transcribe", &listens, tokens.clone()),
        (
            RERANK,
            "rerank-mock",
            &json!(["rerank"]),
            json!({ "units": [unit("search_units", 2_000_000_000_000)] }),
        ),
        (RESPONSES, "responses-mock", &json!(["responses"]), tokens),
        (MODERATION, "moderation-mock", &json!(["moderations"]), json!({ "units": [unit("requests", 0)] })),
    ] {
        let offering = json!({ "provider": "custom", "upstream_model": upstream_model, "price": &price });
        let model = json!({
            "id": id, "display_name": id, "owned_by": "tests", "endpoints": endpoints, "offerings": [offering],
        });
        if id != MODERATION {
            fleet.admin.put(&format!("/models/{id}"), json!({ "model": model })).await.unwrap();
        }
        let deployment = json!({
            "provider": "custom", "base_url": fleet.upstream.base_url(), "credential_id": credential, "model": id,
            "upstream_model": upstream_model, "price": price,
        });
        fleet.admin.post("/deployments", deployment).await.unwrap();
    }
    nemo_tests::eventually("the node serves the models", async || {
        let listed = fleet.client.get("/v1/models").await?.text();
        anyhow::ensure!(listed.contains(MODERATION), "{listed}");
        Ok(())
    })
    .await
    .unwrap();
    fleet
}

pub const BOUNDARY: &str = "----formdata-undici-012345678901";
pub const FORM: &str = "multipart/form-data; boundary=----formdata-undici-012345678901";

pub fn field(name: &str, value: &str) -> Vec<u8> {
    format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").into_bytes()
}

pub fn file(name: &str, content: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f.bin\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), content, b"\r\n"].concat()
}

pub fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), format!("--{BOUNDARY}--\r\n").into_bytes()].concat()
}

/// The row of the request that has this answer.
pub async fn row(fleet: &Fleet, response: &Response) -> Value {
    let path = fleet.org(&format!("/requests/{}", response.header("x-request-id").unwrap()));
    nemo_tests::eventually("the row", async || fleet.admin.get(&path).await).await.unwrap()
}

/// Quantity of a unit in a row.
pub fn quantity(row: &Value, unit: &str) -> Option<u64> {
    let units = row["units"].as_array().unwrap();
    units.iter().find(|it| it["unit"] == unit).map(|it| it["quantity"].as_u64().unwrap())
}
