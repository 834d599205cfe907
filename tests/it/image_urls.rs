//! Images by URL for upstreams that want the bytes: never fetched unless the organization allows it, and then never from
//! private addresses (issue of SSRF; I1).

use std::net::{IpAddr, Ipv4Addr};

use nemo_tests::{
    client::Response,
    fleet::{Fleet, UPSTREAM_KEY},
    pictures::{Authority, PNG, Page, Pictures},
    upstream::Upstream,
};
use serde_json::{Value, json};

use super::{
    conversions::{VERTEX, service_account},
    dialects::{Speaks, row, serve_as, settled},
};

const BASE64: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAsTj2FAAAAABJRU5ErkJggg==";
const IMAGE: &str = "messages[0].content[0].image_url";

struct World {
    fleet: Fleet,
    pictures: Pictures,
    _tokens: Upstream,
    _dir: tempfile::TempDir,
    authority: Authority,
}

/// A gateway that may fetch from 127.0.0.1 and no other private address, a server there, and models at upstreams that want
/// the bytes.
async fn world() -> World {
    world_of("268435456").await
}

/// One that may hold so many bytes of what was fetched.
async fn world_of(most: &str) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pictures.ca.pem");
    let authority = Authority::new(&file).unwrap();
    let pictures = Pictures::start(&authority, IpAddr::V4(Ipv4Addr::LOCALHOST)).await.unwrap();
    let tokens = Upstream::start().await.unwrap();
    let token_url = format!("{}/token", tokens.origin());
    let settings = [
        ("NEMO_FETCH_NETWORKS", "127.0.0.1/32"),
        ("NEMO_UPSTREAM_CA", file.to_str().unwrap()),
        ("NEMO_GCP_TOKEN_URL", &token_url),
        ("NEMO_MAX_FETCH_BYTES", most),
    ];
    let fleet = Fleet::start_with(&settings).await.unwrap();
    let origin = fleet.upstream.origin();
    let aws =
        json!({ "access_key_id": "AKIDTEST", "secret_access_key": UPSTREAM_KEY, "region": "eu-west-1" });
    let claude = "anthropic.claude-opus-4-5-v1:0";
    serve_as(&fleet, "at-bedrock", "bedrock", &origin, &aws.to_string(), "chat.completions", claude).await;
    let google = format!("{origin}/v1beta");
    for (id, model) in [("at-google", "gemini-2.0-flash"), ("at-google-new", "gemini-3-pro")] {
        serve_as(&fleet, id, "google-ai-studio", &google, UPSTREAM_KEY, "chat.completions", model).await;
    }
    let vertex = format!("{origin}{VERTEX}");
    let model = "claude-opus-4-5@20251101";
    serve_as(&fleet, "at-vertex", "google-vertex", &vertex, &service_account(), "chat.completions", model)
        .await;
    settled(&fleet, "at-vertex").await;
    pictures.serve("/a.png", Page::new("image/png", PNG));
    World { fleet, pictures, _tokens: tokens, _dir: dir, authority }
}

impl World {
    async fn allow(&self, value: &str) {
        let path = self.fleet.org("/settings/routing.fetch_image_urls?wait=fleet");
        self.fleet.admin.put(&path, json!({ "value": format!("\"{value}\"") })).await.unwrap();
    }

    async fn ask(&self, model: &str, url: &str) -> Response {
        let image = json!({ "type": "image_url", "image_url": { "url": url } });
        let content = json!([image, { "type": "text", "text": "What is it?" }]);
        let messages = json!({ "messages": [{ "role": "user", "content": content }] });
        Speaks::Chat.ask(&self.fleet.client, model, false, &messages).await
    }

    /// The refusal of this URL, with nothing sent upstream.
    async fn refused(&self, model: &str, url: &str) -> Value {
        let before = self.fleet.upstream.served();
        let response = self.ask(model, url).await;
        let error = response.json().unwrap()["error"].clone();
        assert_eq!((response.status, &error["param"]), (400, &json!(IMAGE)), "{url}: {error}");
        assert_eq!(self.fleet.upstream.served(), before, "{url}: nothing was sent");
        error
    }
}

/// Off, which is what it is unless an organization says otherwise: refused as ever, and nobody is asked.
#[tokio::test]
async fn nothing_is_fetched_unless_the_organization_allows_it() {
    let world = world().await;
    let url = world.pictures.url("/a.png");
    for model in ["at-bedrock", "at-google", "at-vertex"] {
        let error = world.refused(model, &url).await;
        assert_eq!(error["code"], "unsupported_parameter", "{error}");
    }
    world.allow("on").await;
    assert_eq!(world.ask("at-bedrock", &url).await.status, 200);
    world.allow("off").await;
    let connections = world.pictures.connections();
    world.refused("at-bedrock", &url).await;
    assert_eq!(world.pictures.connections(), connections);
}

/// The upstream gets the bytes, and the server of the image nothing but the question.
#[tokio::test]
async fn upstreams_that_want_the_bytes_get_them() {
    let world = world().await;
    world.allow("on").await;
    let url = world.pictures.url("/a.png");
    for model in ["at-bedrock", "at-google"] {
        let response = world.ask(model, &url).await;
        assert_eq!(response.status, 200, "{model}: {}", response.text());
        let sent = world.fleet.upstream.last_request().unwrap().json().unwrap();
        let bytes = match model {
            "at-bedrock" => &sent["messages"][0]["content"][0]["image"]["source"]["bytes"],
            _ => &sent["contents"][0]["parts"][0]["inlineData"]["data"],
        };
        assert_eq!(bytes, BASE64, "{model}: {sent}");
        assert!(!sent.to_string().contains("https://"), "{model}: {sent}");
        assert_eq!(row(&world.fleet, &response).await["outcome"], "ok");
    }
    // Twice in a request is once on the wire.
    let before = world.pictures.seen().len();
    let image = json!({ "type": "image", "source": { "type": "url", "url": url } });
    let messages = json!({ "messages": [{ "role": "user", "content": [image, image] }] });
    let response = Speaks::Messages.ask(&world.fleet.client, "at-bedrock", true, &messages).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = world.pictures.seen();
    assert_eq!(seen.len(), before + 1);
    for (path, headers) in seen {
        assert_eq!(path, "/a.png");
        assert!(headers["user-agent"].to_str().unwrap().starts_with("nemo-router/"), "{headers:?}");
        for secret in ["authorization", "cookie", "x-api-key", "x-request-id", "traceparent", "referer"] {
            assert!(!headers.contains_key(secret), "{secret}: {headers:?}");
        }
    }
    // What reads URLs itself gets the URL.
    let before = world.pictures.connections();
    let response = world.ask("at-google-new", &url).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = world.fleet.upstream.last_request().unwrap().json().unwrap();
    assert_eq!(sent["contents"][0]["parts"][0]["fileData"]["fileUri"], url.as_str(), "{sent}");
    assert_eq!(world.pictures.connections(), before);
}

/// Redirects are followed, a few, and each is checked as the first URL was.
#[tokio::test]
async fn redirects_lead_to_nothing_private() {
    let world = world().await;
    world.allow("on").await;
    // A server at an address that nobody has allowed.
    let hidden = Pictures::start(&world.authority, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))).await.unwrap();
    hidden.serve("/a.png", Page::new("image/png", PNG));
    let pictures = &world.pictures;
    pictures.serve("/there", Page::redirect("/a.png"));
    pictures.serve("/round", Page::redirect("/round"));
    pictures.serve("/hidden", Page::redirect(&hidden.url("/a.png")));
    pictures.serve("/metadata", Page::redirect("https://169.254.169.254/latest/meta-data"));
    pictures.serve("/plain", Page::redirect(&format!("http://127.0.0.1:{}/a.png", pictures.port())));
    pictures.serve("/file", Page::redirect("file:///etc/passwd"));
    assert_eq!(world.ask("at-bedrock", &pictures.url("/there")).await.status, 200);
    for (path, why) in [
        ("/round", "redirected more than 3 times"),
        ("/hidden", "no public address"),
        ("/metadata", "no public address"),
        ("/plain", "not behind https"),
        ("/file", "not behind https"),
    ] {
        let error = world.refused("at-bedrock", &pictures.url(path)).await;
        assert_eq!(error["code"], "image_not_fetched", "{path}: {error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(why) || path == "/file", "{path}: {error}");
    }
    for url in [
        hidden.url("/a.png"),
        format!("https://[::ffff:127.0.0.2]:{}/a.png", hidden.port()),
        "https://10.0.0.1/a.png".to_owned(),
        "https://169.254.169.254/latest/meta-data".to_owned(),
        "https://[fd00::1]/a.png".to_owned(),
    ] {
        let error = world.refused("at-bedrock", &url).await;
        assert!(error["message"].as_str().unwrap().contains("no public address"), "{url}: {error}");
    }
    assert_eq!(hidden.connections(), 0, "nobody has knocked there");
}

/// What is no image, too large, too many or not there is a 400 that names the part, and quotes nothing of the answer.
#[tokio::test]
async fn what_is_no_image_within_its_bounds_is_refused_by_its_place() {
    let world = world().await;
    world.allow("on").await;
    let pictures = &world.pictures;
    let large = [PNG, &vec![0; 11 << 20]].concat();
    pictures.serve("/large.png", Page::new("image/png", large));
    pictures.serve("/page", Page::new("text/html", "<html>canary-of-a-server"));
    pictures.serve("/liar.png", Page::new("image/png", "<html>canary-of-a-server"));
    let mut squeezed = Page::new("image/png", PNG);
    squeezed.headers.push(("content-encoding", "gzip".into()));
    pictures.serve("/squeezed.png", squeezed);
    for (path, why) in [
        ("/large.png", "larger than 10 MiB"),
        ("/page", "no PNG"),
        ("/liar.png", "no PNG"),
        ("/squeezed.png", "compressed"),
        ("/missing.png", "can't be reached"),
    ] {
        let error = world.refused("at-bedrock", &pictures.url(path)).await;
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(why) && message.contains(IMAGE), "{path}: {error}");
        assert!(!error.to_string().contains("canary"), "{path}: {error}");
    }
    let part =
        |at: usize| json!({ "type": "image_url", "image_url": { "url": pictures.url(&format!("/{at}")) } });
    let content: Vec<_> = (0..17).map(part).collect();
    let messages = json!({ "messages": [{ "role": "user", "content": content }] });
    let response = Speaks::Chat.ask(&world.fleet.client, "at-bedrock", false, &messages).await;
    let error = response.json().unwrap()["error"].clone();
    let expected = json!("messages[0].content[16].image_url");
    assert_eq!((response.status, &error["param"]), (400, &expected), "{error}");
    // Three that are allowed each, and too many together.
    let almost = [PNG, &vec![0; 9 << 20]].concat();
    for at in 0..3 {
        pictures.serve(&format!("/{at}"), Page::new("image/png", almost.clone()));
    }
    let content: Vec<_> = (0..3).map(part).collect();
    let messages = json!({ "messages": [{ "role": "user", "content": content }] });
    let response = Speaks::Chat.ask(&world.fleet.client, "at-bedrock", false, &messages).await;
    let error = response.json().unwrap()["error"].clone();
    assert_eq!(response.status, 400, "{error}");
    assert!(error["message"].as_str().unwrap().contains("20 MiB together"), "{error}");
}

/// Claude on Vertex AI reads no URLs, unlike Anthropic's own: also where the client speaks its dialect, and all but the
/// sources passes as it is.
#[tokio::test]
async fn claude_on_vertex_gets_the_bytes_from_clients_of_every_dialect() {
    let world = world().await;
    let url = world.pictures.url("/a.png");
    let image = json!({ "type": "image", "source": { "type": "url", "url": url } });
    let call = json!({ "type": "tool_use", "id": "toolu_1", "name": "see", "input": {} });
    let result = json!({ "type": "tool_result", "tool_use_id": "toolu_1",
        "content": [{ "type": "text", "text": "this" }, image] });
    let native = json!({
        "tools": [{ "name": "see", "input_schema": { "type": "object" } }],
        "messages": [{ "role": "user", "content": [image] }, { "role": "assistant", "content": [call] },
            { "role": "user", "content": [result] }],
        "some_beta_field": { "kept": 1.50 },
    });
    let before = world.fleet.upstream.served();
    let response = Speaks::Messages.ask(&world.fleet.client, "at-vertex", false, &native).await;
    let error = response.json().unwrap();
    assert_eq!((response.status, &error["type"]), (400, &json!("error")), "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("messages[0].content[0].source"), "{error}");
    assert_eq!((world.fleet.upstream.served(), world.pictures.connections()), (before, 0));

    world.allow("on").await;
    let bytes = json!({ "type": "base64", "media_type": "image/png", "data": BASE64 });
    let response = world.ask("at-vertex", &url).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = world.fleet.upstream.last_request().unwrap().json().unwrap();
    assert_eq!(sent["messages"][0]["content"][0]["source"], bytes, "{sent}");
    for stream in [false, true] {
        let response = Speaks::Messages.ask(&world.fleet.client, "at-vertex", stream, &native).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let sent = world.fleet.upstream.last_request().unwrap().json().unwrap();
        assert_eq!(sent["messages"][0]["content"][0]["source"], bytes, "{sent}");
        assert_eq!(sent["messages"][2]["content"][0]["content"][1]["source"], bytes, "{sent}");
        assert_eq!(sent["some_beta_field"], native["some_beta_field"], "{sent}");
        assert_eq!(row(&world.fleet, &response).await["outcome"], "ok");
    }
    // A URL in words is none to be fetched.
    let before = world.pictures.connections();
    let words = json!({ "messages": [{ "role": "user", "content": "what is a \"url\"?" }] });
    let response = Speaks::Messages.ask(&world.fleet.client, "at-vertex", false, &words).await;
    assert_eq!((response.status, world.pictures.connections()), (200, before), "{}", response.text());
}

/// Bad input: what was fetched is held to the target's limits like what is sent inline.
#[tokio::test]
async fn a_fetched_image_larger_than_the_target_takes_is_refused_by_its_place() {
    let world = world().await;
    world.allow("on").await;
    // 3.75 MiB in all three.
    let most = (15 << 20) / 4;
    for (path, length) in [("/most.png", most), ("/over.png", most + 1)] {
        let page = [PNG, &vec![0; length - PNG.len()]].concat();
        world.pictures.serve(path, Page::new("image/png", page));
    }
    for model in ["at-bedrock", "at-vertex"] {
        let response = world.ask(model, &world.pictures.url("/most.png")).await;
        assert_eq!(response.status, 200, "{model}: {}", response.text());
        let error = world.refused(model, &world.pictures.url("/over.png")).await;
        assert_eq!(error["code"], "unsupported_parameter", "{model}: {error}");
    }
    let source = json!({ "type": "url", "url": world.pictures.url("/over.png") });
    let content = json!([{ "type": "image", "source": source }]);
    let native = json!({ "messages": [{ "role": "user", "content": content }] });
    let response = Speaks::Messages.ask(&world.fleet.client, "at-vertex", false, &native).await;
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains("messages[0].content[0].source"), "{}", response.text());
}

/// The memory that fetched files take is bounded over all requests of a node: who finds no room waits, and is told to come
/// back then.
#[tokio::test]
async fn what_a_node_holds_of_fetched_files_is_bounded() {
    let world = world_of("1").await;
    world.allow("on").await;
    let url = world.pictures.url("/a.png");
    // One at a time fits in any case.
    assert_eq!(world.ask("at-bedrock", &url).await.status, 200);
    // It accepts, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let held = format!("https://{}/a.png", silent.local_addr().unwrap());
    let first = world.ask("at-bedrock", &held);
    let second = async {
        let _connected = silent.accept().await.unwrap();
        let client = world.fleet.client.clone().header("x-nemo-timeout-ms", "1500");
        let image = json!({ "type": "image_url", "image_url": { "url": url } });
        let messages = json!({ "messages": [{ "role": "user", "content": [image] }] });
        let before = world.fleet.upstream.served();
        let refused = Speaks::Chat.ask(&client, "at-bedrock", false, &messages).await;
        let error = &refused.json().unwrap()["error"];
        assert_eq!((refused.status, &error["code"]), (503, &json!("overloaded")), "{error}");
        assert_eq!(refused.header("retry-after"), Some("1"), "{error}");
        assert_eq!(world.fleet.upstream.served(), before, "nothing was sent");
        let logged = row(&world.fleet, &refused).await;
        assert_eq!(logged["cost_nanos"].as_i64().unwrap_or(0), 0, "{logged}");
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.status, 400, "{}", first.text());
    assert_eq!(world.ask("at-bedrock", &url).await.status, 200, "its room is free again");
}
