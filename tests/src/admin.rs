//! The admin REST API as an operator's script would call it, and what such a script does first. Used by
//! [`crate::fleet`], by the bench, and by tests of the admin API.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::client::{Client, Response};

/// A caller with an admin token.
#[derive(Clone, Debug)]
pub struct Admin {
    pub client: Client,
    token: String,
}

impl Admin {
    pub fn new(addr: SocketAddr, token: &str) -> Self {
        let client = Client::new(addr);
        let client = if token.is_empty() { client } else { client.bearer(token) };
        Self { client, token: token.into() }
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    /// Sends a request under `/admin/v1` and returns the answer, whatever its status.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Response> {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.client.open(method, &format!("/admin/v1{path}"), body.as_bytes()).await?.finish().await
    }

    async fn expect_success(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let response = self.call(method, path, body).await?;
        ensure!(
            (200..300).contains(&response.status),
            "{method} {path}: {} {}",
            response.status,
            response.text()
        );
        if response.body.is_empty() { Ok(Value::Null) } else { response.json() }
    }

    /// # Errors
    /// Also when the answer is no success.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.expect_success("GET", path, None).await
    }

    /// # Errors
    /// Also when the answer is no success.
    pub async fn post(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.expect_success("POST", path, Some(&body)).await
    }

    /// # Errors
    /// Also when the answer is no success.
    pub async fn put(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.expect_success("PUT", path, Some(&body)).await
    }

    /// # Errors
    /// Also when the answer is no success.
    pub async fn patch(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        self.expect_success("PATCH", path, Some(&body)).await
    }

    /// # Errors
    /// Also when the answer is no success.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.expect_success("DELETE", path, None).await
    }

    /// Makes an organization with one team.
    pub async fn create_tenant(&self, organization: &str, team: &str) -> anyhow::Result<Tenant> {
        let org = self.post("/organizations", json!({ "name": organization })).await?;
        let org_id = text(&org, "id")?;
        let team = self.post(&format!("/organizations/{org_id}/teams"), json!({ "name": team })).await?;
        Ok(Tenant { org_id, team_id: text(&team, "id")? })
    }

    /// Issues a key; returns its id and secret.
    pub async fn issue_key(&self, tenant: &Tenant, mut request: Value) -> anyhow::Result<(String, String)> {
        request["team_id"] = json!(tenant.team_id);
        let issued = self.post(&format!("/organizations/{}/keys", tenant.org_id), request).await?;
        Ok((text(&issued["key"], "id")?, text(&issued, "secret")?))
    }

    /// Seals an operator's credential of provider `custom`; returns its id.
    pub async fn create_credential(&self, secret: &str) -> anyhow::Result<String> {
        self.create_credential_named("upstream", secret).await
    }

    /// The same under another name.
    pub async fn create_credential_named(&self, name: &str, secret: &str) -> anyhow::Result<String> {
        let credential = json!({ "name": name, "provider": "custom", "secret": secret });
        text(&self.post("/credentials", credential).await?, "id")
    }

    /// Adds a priced model to the catalog and one deployment that serves it.
    pub async fn serve_model(&self, model: &ServedModel<'_>) -> anyhow::Result<Value> {
        let (id, upstream_model) = (model.id, model.upstream_model);
        let entry = json!({
            "id": id, "display_name": id, "owned_by": "tests", "context_window": 128_000,
            "max_output_tokens": 4096, "tags": ["code"], "endpoints": model.endpoints,
            "offerings": [{
                "provider": "custom", "upstream_model": upstream_model,
                "price": { "input": 2_500_000_000_i64, "output": 10_000_000_000_i64, "cache_read": 1_250_000_000_i64 },
            }],
        });
        self.put(&format!("/models/{id}"), json!({ "model": entry })).await?;
        let deployment = json!({
            "provider": "custom", "base_url": model.base_url, "credential_id": model.credential_id,
            "model": id, "upstream_model": upstream_model,
        });
        self.post("/deployments", deployment).await
    }
}

/// An organization with a team.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub org_id: String,
    pub team_id: String,
}

/// A model of the catalog, and where it is served.
#[derive(Clone, Copy, Debug)]
pub struct ServedModel<'a> {
    pub id: &'a str,
    pub endpoints: &'a [&'a str],
    /// What the upstream calls it.
    pub upstream_model: &'a str,
    /// With `/v1`.
    pub base_url: &'a str,
    pub credential_id: &'a str,
}

/// A member of an answer that must be text.
pub fn text(value: &Value, member: &str) -> anyhow::Result<String> {
    Ok(value[member].as_str().with_context(|| format!("no {member} in {value}"))?.to_owned())
}
