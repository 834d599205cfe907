//! The admin REST API as an operator's script would call it. Used by [`crate::fleet`] and by tests of the admin API.

use std::net::SocketAddr;

use anyhow::ensure;
use serde_json::Value;

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
}
