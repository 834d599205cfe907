//! REST as its clients meet it: headers, problem documents, the OpenAPI document and its page.

use nemo_tests::{
    client::{Client, Response},
    control::ControlPlane,
};
use serde_json::{Value, json};

/// Sends one request with additional headers.
async fn send(client: &Client, headers: &[(&str, &str)], method: &str, path: &str, body: &str) -> Response {
    let client = headers.iter().fold(client.clone(), |client, (name, value)| client.header(name, value));
    let exchange = client.open(method, &format!("/admin/v1{path}"), body.as_bytes()).await.unwrap();
    exchange.finish().await.unwrap()
}

/// The problem document, after checks that hold for all of them.
#[track_caller]
fn problem(response: &Response) -> Value {
    let text = response.text();
    assert_eq!(response.header("content-type"), Some("application/problem+json"), "{text}");
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(problem["status"], response.status, "{text}");
    assert!(problem["type"].as_str().unwrap().starts_with("urn:nemo:problem:"), "{text}");
    assert!(
        !problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty()
    );
    let id = response.header("x-nemo-request-id").unwrap();
    assert_eq!(problem["request_id"], id, "{text}");
    assert!(problem["instance"].as_str().unwrap().ends_with(id), "{text}");
    for error in problem["errors"].as_array().unwrap() {
        assert!(
            error["message"].is_string() && error.get("field").is_some() && error.get("expected").is_some()
        );
    }
    problem
}

/// Covers the scope "errors as problem+json that name the field, what was wrong and what is expected".
#[tokio::test]
async fn every_failure_is_a_problem_document() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let client = &control.admin.client;
    let stranger = Client::new(control.rest_addr());
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1 << 20));
    let twice = [("idempotency-key", "same")];
    assert_eq!(send(client, &twice, "POST", "/organizations", "{\"name\":\"first\"}").await.status, 201);
    let org = control.admin.post("/organizations", json!({ "name": "Acme" })).await.unwrap();
    let (org, stale) =
        (format!("/organizations/{}", org["id"].as_str().unwrap()), [("if-match", "\"stale\"")]);
    control.admin.post(&format!("{org}/teams"), json!({ "name": "taken" })).await.unwrap();
    // Who, headers, method, path, body; status and the member that is named.
    type Case<'c> = (&'c Client, &'c [(&'c str, &'c str)], &'c str, String, &'c str, u16, Option<&'c str>);
    let cases: [Case<'_>; 14] = [
        (client, &[], "GET", "/nothing".into(), "", 404, None),
        (client, &[], "PUT", "/organizations".into(), "{}", 405, None),
        (&stranger, &[], "GET", "/organizations".into(), "", 401, None),
        (client, &[], "POST", "/organizations".into(), "{\"name\":", 400, Some("name")),
        (client, &[], "POST", "/organizations".into(), "{\"nmae\":\"x\"}", 400, Some("nmae")),
        (client, &[], "POST", "/organizations".into(), "{\"name\":7}", 400, Some("name")),
        (client, &[], "POST", "/organizations".into(), &large, 413, None),
        (client, &[("content-encoding", "gzip")], "POST", "/organizations".into(), "x", 415, None),
        (client, &stale, "PATCH", org.clone(), "{\"name\":\"x\"}", 412, Some("if-match")),
        (client, &[], "POST", format!("{org}/teams"), "{\"name\":\"taken\"}", 409, Some("name")),
        (
            client,
            &twice,
            "POST",
            "/organizations".into(),
            "{\"name\":\"second\"}",
            422,
            Some("idempotency-key"),
        ),
        (client, &[], "GET", "/organizations?page=2".into(), "", 400, Some("page")),
        (client, &[], "DELETE", format!("{org}?validate_only=perhaps"), "", 400, Some("validate_only")),
        (client, &[], "PATCH", format!("{org}?wait=forever"), "{}", 400, Some("wait")),
    ];
    for (client, headers, method, path, body, status, field) in cases {
        let response = send(client, headers, method, &path, body).await;
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        let problem = problem(&response);
        assert_eq!(problem["errors"][0]["field"].as_str(), field, "{method} {path}: {problem}");
        match status {
            401 => assert!(response.header("www-authenticate").unwrap().starts_with("Bearer")),
            405 => {
                let mut allowed: Vec<_> = response.header("allow").unwrap().split(',').collect();
                allowed.sort_unstable();
                assert_eq!(allowed, ["GET", "HEAD", "POST"]);
            }
            _ => {}
        }
    }
    let syntax = send(client, &[], "POST", "/organizations", "{\n  \"name\" 5}").await;
    assert!(problem(&syntax)["detail"].as_str().unwrap().contains("line 2"), "{}", syntax.text());
}

#[tokio::test]
async fn a_write_says_where_and_which_version_and_can_be_made_conditional_tried_and_repeated() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let client = &control.admin.client;
    let number =
        |response: &Response| -> u64 { response.header("x-nemo-config-version").unwrap().parse().unwrap() };

    let tried = send(client, &[], "POST", "/organizations?validate_only=true", "{\"name\":\"A\"}").await;
    assert_eq!((tried.status, tried.header("location")), (200, None), "{}", tried.text());
    let listed = control.admin.get("/organizations").await.unwrap();
    assert!(listed["organizations"].as_array().unwrap().iter().all(|org| org["name"] != "A"), "{listed}");

    let key = [("idempotency-key", "k-1")];
    let created = send(client, &key, "POST", "/organizations", "{\"name\":\"A\"}").await;
    assert_eq!(created.status, 201, "{}", created.text());
    let again = send(client, &key, "POST", "/organizations", "{\"name\":\"A\"}").await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, Some("true")));
    assert_eq!((again.text(), created.header("idempotency-replayed")), (created.text(), None));

    let path = created.header("location").unwrap().strip_prefix("/admin/v1").unwrap().to_owned();
    let read = send(client, &[], "GET", &path, "").await;
    assert_eq!((read.status, read.text()), (200, created.text()));
    let etag = read.header("etag").unwrap().to_owned();
    assert_eq!(created.header("etag"), Some(etag.as_str()));

    let condition = [("if-match", etag.as_str())];
    let changed = send(client, &condition, "PATCH", &path, "{\"name\":\"B\"}").await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert!(number(&changed) > number(&created));
    assert_ne!(changed.header("etag"), Some(etag.as_str()));
    let late = send(client, &condition, "DELETE", &path, "").await;
    assert_eq!(late.status, 412, "{}", late.text());
    let deleted = send(client, &[("if-match", "*")], "DELETE", &path, "").await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert!(number(&deleted) > number(&changed));
}

/// Covers "`?wait=fleet` answers only when every live node has applied it", as far as REST is concerned.
#[tokio::test]
async fn a_write_that_waits_for_the_fleet_is_on_every_node_when_it_is_answered() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let written =
        send(&control.admin.client, &[], "POST", "/organizations?wait=fleet", "{\"name\":\"A\"}").await;
    assert_eq!(written.status, 201, "{}", written.text());
    let version: u64 = written.header("x-nemo-config-version").unwrap().parse().unwrap();
    let listed = control.admin.get("/nodes").await.unwrap();
    for node in listed["nodes"].as_array().unwrap().iter().filter(|node| node["connected"] == true) {
        assert!(node["revision"].as_u64().unwrap() >= version, "{node}");
    }
}

/// The document as served to anybody.
async fn document(control: &ControlPlane) -> Value {
    let response = Client::new(control.rest_addr()).get("/admin/v1/openapi.json").await.unwrap();
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    response.json().unwrap()
}

/// Every operation of the document exists and is closed to strangers, also those whose path has real ids.
#[tokio::test]
async fn every_documented_operation_is_served_and_wants_a_token() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let document = document(&control).await;
    let stranger = Client::new(control.rest_addr());
    let mut asked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{org_id}", "019acb51-7d3e-7c40-9d0a-3c1f2b4a5d6e").replace("{id}", "x");
        for method in methods.as_object().unwrap().keys() {
            let body: &[u8] = if method == "get" { b"" } else { b"{}" };
            let exchange = stranger.open(&method.to_uppercase(), &path, body).await.unwrap();
            let response = exchange.finish().await.unwrap();
            assert_eq!(response.status, 401, "{method} {path}: {}", response.text());
            problem(&response);
            asked += 1;
        }
    }
    assert!(asked > 70, "only {asked} operations");
}

#[tokio::test]
async fn the_documentation_page_loads_nothing_from_elsewhere() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let client = Client::new(control.rest_addr());
    for (path, kind) in [
        ("/admin/docs", "text/html; charset=utf-8"),
        ("/admin/docs/page.css", "text/css; charset=utf-8"),
        ("/admin/docs/page.js", "text/javascript; charset=utf-8"),
    ] {
        let response = client.get(path).await.unwrap();
        assert_eq!((response.status, response.header("content-type")), (200, Some(kind)));
        assert!(response.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
        assert!(!response.text().contains("://"), "{path} names another site");
    }
}
