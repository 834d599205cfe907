//! The admin operations against a real PostgreSQL.
//!
//! - [`access`]: tokens, and the role × action matrix
//! - [`keys`]: the life of a virtual key
//! - [`routing`]: credentials, deployments, model groups, settings, catalog
//! - [`policy`]: what routing decides by: chains, tags, loads, settings
//! - [`writes`], [`audit`], [`idempotency`]: the one write path: revision, etag, validation, audit log, idempotency keys
//! - [`budgets`]: budgets and rate limits
//! - [`prices`]: the price book and re-rating
//! - [`credits`]: balances, tiers, webhooks
//! - [`filters`]: what lists can be restricted to
//! - [`usage`]: sums of usage, and searching the request log
//! - [`rest`]: status codes, problem documents, and one life over REST

mod access;
mod audit;
mod budgets;
mod credits;
mod decisions;
mod filters;
mod idempotency;
mod keys;
mod policy;
mod prices;
mod rest;
mod routing;
mod usage;
mod writes;

use std::sync::Arc;

use nemo_proto::admin as pb;
use nemo_types::{Keyring, OrgId};

use super::{Admin, AdminError, Call, ErrorKind};
use crate::store::testing::{self, TestStore};

/// The operations on a database of their own.
pub(crate) struct World {
    pub(crate) store: TestStore,
    pub(crate) admin: Arc<Admin>,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) operator: Call,
}

pub(crate) async fn world() -> World {
    let store = testing::store().await;
    let keyring = Arc::new(Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap());
    let admin = Arc::new(Admin::new(store.store.clone(), keyring.clone()));
    World { store, admin, keyring, operator: Call::local_operator() }
}

impl World {
    async fn org(&self) -> String {
        let request = pb::CreateOrganizationRequest { name: "Acme".into() };
        self.admin.create_organization(&self.operator, request).await.unwrap().into_answer().id
    }

    async fn team(&self, org_id: &str) -> String {
        let name = format!("team {}", OrgId::generate());
        let request = pb::CreateTeamRequest { org_id: org_id.into(), name };
        self.admin.create_team(&self.operator, request).await.unwrap().into_answer().id
    }

    /// A catalog model offered by openai.
    async fn model(&self, id: &str) -> pb::Model {
        let request = pb::PutModelRequest { model: Some(model(id, 2_500_000_000)), ..Default::default() };
        self.admin.put_model(&self.operator, request).await.unwrap().into_answer()
    }

    async fn credential(&self, org_id: &str, secret: &str) -> pb::Credential {
        let request = pb::CreateCredentialRequest {
            org_id: org_id.into(),
            name: format!("credential {}", OrgId::generate()),
            provider: "openai".into(),
            secret: secret.into(),
        };
        self.admin.create_credential(&self.operator, request).await.unwrap().into_answer()
    }

    /// A deployment of that model at openai.
    async fn deployment(&self, org_id: &str, model: &str) -> pb::Deployment {
        let request = pb::CreateDeploymentRequest {
            org_id: org_id.into(),
            provider: "openai".into(),
            model: model.into(),
            ..Default::default()
        };
        self.admin.create_deployment(&self.operator, request).await.unwrap().into_answer()
    }

    /// A token and what it is presented as.
    async fn token(&self, org_id: &str, role: &str) -> (pb::AdminToken, String) {
        let request = pb::CreateAdminTokenRequest {
            org_id: org_id.into(),
            name: "test".into(),
            role: role.into(),
            expires_at: None,
        };
        let answer = self.admin.create_admin_token(&self.operator, request).await.unwrap().into_answer();
        (answer.admin_token.unwrap(), format!("Bearer {}", answer.token))
    }
}

fn model(id: &str, input: i64) -> pb::Model {
    let price = pb::Price { input: Some(input), output: Some(10_000_000_000), ..Default::default() };
    let offering =
        pb::Offering { provider: "openai".into(), upstream_model: format!("{id}-2026"), price: Some(price) };
    pb::Model { id: id.into(), owned_by: "openai".into(), offerings: vec![offering], ..Default::default() }
}

/// The member that a refused request is wrong in.
#[track_caller]
fn wrong_member<T: std::fmt::Debug>(result: Result<T, AdminError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error:?}");
    assert!(error.expected.is_some(), "{error:?}");
    error.field.unwrap()
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T, AdminError>) -> ErrorKind {
    result.unwrap_err().kind
}
