//! REST: status codes, problem documents, and that every path reaches its operation.

use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use nemo_types::OrgId;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{World, world};
use crate::admin::rest::router;

struct Rest {
    world: World,
    router: Router,
    bearer: String,
}

async fn rest() -> Rest {
    let world = world().await;
    let (_, bearer) = world.token("", "").await;
    let router = router(world.admin.clone());
    Rest { world, router, bearer }
}

impl Rest {
    /// Status, content type and body.
    async fn send(
        &self,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        body: Option<String>,
    ) -> (StatusCode, String, Value) {
        let mut request = Request::builder().method(method).uri(format!("/admin/v1{path}"));
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Body::from(body.unwrap_or_default())).unwrap();
        self.finish(request).await
    }

    async fn finish(&self, request: Request<Body>) -> (StatusCode, String, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).unwrap() };
        (status, kind.unwrap_or_default(), body)
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let body = Some(body).filter(|body| !body.is_null()).map(|body| body.to_string());
        let (status, _, answer) = self.send(method, path, Some(&self.bearer), body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    /// The problem document, after checks that hold for all of them.
    async fn problem(
        &self,
        method: &str,
        path: &str,
        bearer: Option<&str>,
        body: Option<&str>,
    ) -> (u16, Value) {
        let (status, kind, problem) = self.send(method, path, bearer, body.map(Into::into)).await;
        assert_eq!(kind, "application/problem+json", "{method} {path}: {problem}");
        assert_eq!(problem["status"], status.as_u16());
        for member in ["type", "title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        (status.as_u16(), problem)
    }
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap_or_else(|| panic!("{member} of {value}")).to_owned()
}

#[tokio::test]
async fn an_organization_lives_over_rest() {
    let rest = rest().await;
    let org = text(&rest.ok("POST", "/organizations", json!({"name": "Acme"})).await, "id");
    let at = |path: &str| format!("/organizations/{org}{path}");
    assert_eq!(rest.ok("GET", "/organizations", Value::Null).await["organizations"][0]["id"], *org);
    assert_eq!(rest.ok("PATCH", &at(""), json!({"name": "New"})).await["name"], "New");
    assert_eq!(rest.ok("GET", &at(""), Value::Null).await["name"], "New");

    let team = text(&rest.ok("POST", &at("/teams"), json!({"name": "t"})).await, "id");
    let team_path = at(&format!("/teams/{team}"));
    assert_eq!(rest.ok("PATCH", &team_path, json!({"disabled": true})).await["disabled"], true);
    assert_eq!(rest.ok("GET", &team_path, Value::Null).await["org_id"], *org);
    assert_eq!(rest.ok("GET", &at("/teams?page_size=1"), Value::Null).await["teams"][0]["id"], *team);

    let key =
        json!({"team_id": team, "name": "k", "expires_at": "2199-01-01T00:00:00Z".replace("2199", "2099")});
    let issued = rest.ok("POST", &at("/keys"), key).await;
    assert!(text(&issued, "secret").starts_with("sk-nemo-"));
    let key_path = at(&format!("/keys/{}", text(&issued["key"], "id")));
    assert_eq!(issued["key"]["expires_at"], "2099-01-01T00:00:00Z");
    // Without a body at all.
    assert_ne!(rest.ok("POST", &format!("{key_path}/rotate"), Value::Null).await["secret"], issued["secret"]);
    assert_eq!(rest.ok("PATCH", &key_path, json!({"disabled": true})).await["state"], "disabled");
    assert_eq!(
        rest.ok("GET", &at(&format!("/keys?team_id={team}")), Value::Null).await["keys"][0]["state"],
        "disabled"
    );
    rest.ok("DELETE", &key_path, Value::Null).await;

    let member = rest.ok("POST", &at("/members"), json!({"email": "a@b.c", "role": "viewer"})).await;
    let member_path = at(&format!("/members/{}", text(&member, "id")));
    assert_eq!(rest.ok("PATCH", &member_path, json!({"role": "admin"})).await["role"], "admin");
    assert_eq!(rest.ok("GET", &at("/members"), Value::Null).await["members"][0]["role"], "admin");
    rest.ok("DELETE", &member_path, Value::Null).await;

    let token = rest.ok("POST", &at("/admin-tokens"), json!({"name": "n", "role": "viewer"})).await;
    assert_eq!(
        rest.ok("GET", &at("/admin-tokens"), Value::Null).await["admin_tokens"][0],
        token["admin_token"]
    );
    rest.ok("DELETE", &at(&format!("/admin-tokens/{}", text(&token["admin_token"], "id"))), Value::Null)
        .await;

    assert_eq!(
        rest.ok("GET", &at("/requests?outcome=ok&page_size=5"), Value::Null).await["requests"],
        json!([])
    );
    let (status, _, _) = rest.send("DELETE", &at(""), Some(&rest.bearer), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(rest.problem("GET", &at(""), Some(&rest.bearer), None).await.0, 404);
}

#[tokio::test]
async fn routing_is_configured_over_rest_by_the_operator_and_by_organizations() {
    let rest = rest().await;
    let org = text(&rest.ok("POST", "/organizations", json!({"name": "Acme"})).await, "id");
    let model = json!({"model": {"offerings": [{"provider": "openai", "price": {"input": 1_500_000_000}}]}});
    let put = rest.ok("PUT", "/models/openai/gpt-x", model).await;
    assert_eq!((put["id"].as_str(), put["source"].as_str()), (Some("openai/gpt-x"), Some("custom")));
    assert_eq!(rest.ok("GET", "/models/openai/gpt-x", Value::Null).await, put);
    assert_eq!(rest.ok("GET", "/models?provider=openai", Value::Null).await["models"][0], put);

    for base in [String::new(), format!("/organizations/{org}")] {
        let credential = rest
            .ok(
                "POST",
                &format!("{base}/credentials"),
                json!({"name": "c", "provider": "openai", "secret": "sk"}),
            )
            .await;
        let credential_path = format!("{base}/credentials/{}", text(&credential, "id"));
        assert_eq!(rest.ok("PATCH", &credential_path, json!({"name": "d"})).await["name"], "d");
        assert_eq!(rest.ok("GET", &credential_path, Value::Null).await["hint"], "");
        assert_eq!(
            rest.ok("GET", &format!("{base}/credentials"), Value::Null).await["credentials"]
                .as_array()
                .unwrap()
                .len(),
            1
        );

        let body =
            json!({"provider": "openai", "model": "openai/gpt-x", "credential_id": text(&credential, "id")});
        let deployment = rest.ok("POST", &format!("{base}/deployments"), body).await;
        let id = text(&deployment, "id");
        let deployment_path = format!("{base}/deployments/{id}");
        assert_eq!(rest.ok("PATCH", &deployment_path, json!({"weight": 5})).await["weight"], 5);
        assert_eq!(rest.ok("GET", &deployment_path, Value::Null).await["weight"], 5);
        let listed = rest.ok("GET", &format!("{base}/deployments?model=openai/gpt-x"), Value::Null).await;
        assert_eq!(listed["deployments"].as_array().unwrap().len(), 1);

        let body = json!({"name": "g", "links": [{"deployments": [{"deployment_id": id, "weight": 1}]}]});
        let group = rest.ok("POST", &format!("{base}/model-groups"), body).await;
        let group_path = format!("{base}/model-groups/{}", text(&group, "id"));
        assert_eq!(rest.ok("PATCH", &group_path, json!({"name": "h"})).await["name"], "h");
        assert_eq!(rest.ok("GET", &group_path, Value::Null).await["links"], group["links"]);
        assert_eq!(
            rest.ok("GET", &format!("{base}/model-groups"), Value::Null).await["model_groups"][0]["name"],
            "h"
        );

        let setting_path = format!("{base}/settings/routing.strategy");
        rest.ok("PUT", &setting_path, json!({"value": "\"simple-shuffle\""})).await;
        let listed = rest.ok("GET", &format!("{base}/settings"), Value::Null).await;
        assert_eq!(listed["settings"][0]["key"], "routing.strategy");

        rest.ok("DELETE", &setting_path, Value::Null).await;
        rest.ok("DELETE", &group_path, Value::Null).await;
        rest.ok("DELETE", &deployment_path, Value::Null).await;
        rest.ok("DELETE", &credential_path, Value::Null).await;
    }
    rest.ok("DELETE", "/models/openai/gpt-x", Value::Null).await;
    assert_eq!(rest.ok("GET", "/nodes", Value::Null).await, json!({"published_revision": 0, "nodes": []}));
    assert_eq!(rest.ok("GET", "/admin-tokens", Value::Null).await["admin_tokens"][0]["role"], "operator");
}

#[tokio::test]
async fn without_a_token_nothing_is_answered_and_the_body_is_not_read() {
    let rest = rest().await;
    for bearer in [None, Some("Bearer adm-nemo-wrong"), Some("Basic x")] {
        let (status, problem) = rest.problem("POST", "/organizations", bearer, Some("not json")).await;
        assert_eq!(status, 401, "{problem}");
    }
    let request = Request::get("/admin/v1/organizations").body(Body::empty()).unwrap();
    let response = rest.router.clone().oneshot(request).await.unwrap();
    assert!(response.headers()[header::WWW_AUTHENTICATE].to_str().unwrap().starts_with("Bearer"));
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let rest = rest().await;
    let org_id = rest.world.org().await;
    let (_, viewer) = rest.world.token(&org_id, "viewer").await;
    let path = format!("/organizations/{org_id}/teams");
    let (status, problem) = rest.problem("POST", &path, Some(&viewer), Some("{\"name\":\"t\"}")).await;
    assert_eq!(status, 403);
    assert!(text(&problem, "detail").contains("viewer"));
    let other = format!("/organizations/{}", OrgId::generate());
    assert_eq!(rest.problem("GET", &other, Some(&viewer), None).await.0, 403);
}

#[tokio::test]
async fn a_wrong_body_is_refused_with_its_member_and_what_was_expected() {
    let rest = rest().await;
    for (body, field, expected) in [
        ("{\"nam\": \"x\"}", "nam", "one of: name"),
        ("{\"name\": 5}", "name", "a string"),
        ("{\"name\": \"\"}", "name", "1 to 128 characters"),
    ] {
        let (status, problem) = rest.problem("POST", "/organizations", Some(&rest.bearer), Some(body)).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some(field)), "{problem}");
        assert!(text(&problem["errors"][0], "expected").contains(expected), "{problem}");
    }
    for body in ["{", "{\"name\": \"x\"} x", "[1]", "{\"name\": \"x\", \"name\": \"y\"}"] {
        assert_eq!(
            rest.problem("POST", "/organizations", Some(&rest.bearer), Some(body)).await.0,
            400,
            "{body}"
        );
    }
    let org_id = rest.world.org().await;
    let path = format!("/organizations/{org_id}/model-groups");
    let body = "{\"name\": \"g\", \"links\": [{\"deployments\": [{\"weight\": -1}]}]}";
    let (_, problem) = rest.problem("POST", &path, Some(&rest.bearer), Some(body)).await;
    assert_eq!(problem["errors"][0]["field"], "links[0].deployments[0].weight", "{problem}");
    let path = format!("/organizations/{org_id}/keys");
    let body = "{\"expires_at\": \"tomorrow\"}";
    let (_, problem) = rest.problem("POST", &path, Some(&rest.bearer), Some(body)).await;
    assert_eq!(problem["errors"][0]["field"], "expires_at", "{problem}");
    assert!(text(&problem["errors"][0], "expected").contains("RFC 3339"), "{problem}");
}

#[tokio::test]
async fn ids_stand_in_the_path_and_a_body_can_not_contradict_them() {
    let rest = rest().await;
    let org_id = rest.world.org().await;
    let path = format!("/organizations/{org_id}/teams");
    let body = format!("{{\"org_id\": \"{}\", \"name\": \"t\"}}", OrgId::generate());
    let (status, problem) = rest.problem("POST", &path, Some(&rest.bearer), Some(&body)).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("org_id")));
    let same = format!("{{\"org_id\": \"{org_id}\", \"name\": \"t\"}}");
    assert_eq!(rest.send("POST", &path, Some(&rest.bearer), Some(same)).await.0, StatusCode::CREATED);
    // An operator's path has no organization, and a body can't name one either.
    let body = format!("{{\"org_id\": \"{org_id}\", \"name\": \"c\"}}");
    let (status, problem) = rest.problem("POST", "/credentials", Some(&rest.bearer), Some(&body)).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("org_id")));
    assert_eq!(rest.problem("GET", "/organizations/acme", Some(&rest.bearer), None).await.0, 400);
}

#[tokio::test]
async fn paths_methods_queries_sizes_and_types_that_we_do_not_know_are_problems_too() {
    let rest = rest().await;
    let bearer = Some(rest.bearer.as_str());
    assert_eq!(rest.problem("GET", "/nothing", bearer, None).await.0, 404);
    assert_eq!(rest.problem("PUT", "/organizations", bearer, None).await.0, 405);
    assert_eq!(rest.problem("GET", "/organizations?page=2", bearer, None).await.0, 400);
    assert_eq!(rest.problem("GET", "/organizations?page_size=x", bearer, None).await.0, 400);
    let (status, problem) = rest.problem("GET", "/organizations?page_size=1001", bearer, None).await;
    assert_eq!((status, problem["errors"][0]["field"].as_str()), (400, Some("page_size")));
    // PostgreSQL has no NUL character: that is the caller's mistake, not our fault.
    let org_id = rest.world.org().await;
    for path in [
        "/models/a%00b".to_owned(),
        "/models?tag=%00".to_owned(),
        "/models?page_token=00".to_owned(),
        "/deployments?model=%00".to_owned(),
        format!("/organizations/{org_id}/requests?model=%00"),
        "/settings/%00".to_owned(),
    ] {
        let method = if path.starts_with("/settings") { "DELETE" } else { "GET" };
        assert_eq!(rest.problem(method, &path, bearer, None).await.0, 400, "{path}");
    }
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(1024 * 1024));
    assert_eq!(rest.problem("POST", "/organizations", bearer, Some(&large)).await.0, 413);
    let request = Request::post("/admin/v1/organizations")
        .header(header::AUTHORIZATION, &rest.bearer)
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    assert_eq!(rest.finish(request).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_database_that_is_away_is_a_503() {
    let rest = rest().await;
    rest.world.store.close().await;
    let (status, problem) = rest.problem("GET", "/organizations", Some(&rest.bearer), None).await;
    assert_eq!(status, 503, "{problem}");
}
