//! The admin operations: one function per use case, each in four steps: check the request, check the caller, one
//! transaction, answer. Requests and answers are the messages of `nemo/admin/v1`.
//!
//! Called by `grpc/admin.rs`, `admin/rest/` and, in process, by bootstrap and command line. All configuration writes
//! reach the nodes by themselves: triggers in the database record them.

pub mod admin_tokens;
pub mod catalog;
mod convert;
pub mod deployments;
pub mod fleet;
pub mod keys;
pub mod members;
pub mod model_groups;
pub mod organizations;
pub mod providers;
pub mod requests;
pub mod settings;
pub mod teams;

use nemo_types::OrgId;

use super::{Action, Admin, AdminError, Caller, ErrorKind, validate};
use crate::store::{OwnerTx, StoreError, TenantTx, organizations as store_organizations};

impl Admin {
    /// A transaction in the name of an organization, for a caller who may do that there.
    async fn tenant(&self, caller: &Caller, action: Action, org_id: &str) -> Result<TenantTx, AdminError> {
        let org: OrgId = validate::id("org_id", org_id)?;
        caller.check(action, org)?;
        let mut tx = self.store.tenant(org).await?;
        if store_organizations::get(&mut tx).await?.is_none() {
            return Err(AdminError::not_found("organization", org).with_field("org_id"));
        }
        Ok(tx)
    }

    /// A transaction over what an organization, or with an empty `org_id` the operator, owns.
    async fn owner(&self, caller: &Caller, action: Action, org_id: &str) -> Result<OwnerTx, AdminError> {
        if org_id.is_empty() {
            caller.check_operator().map_err(|error| AdminError {
                expected: Some("the id of the token's organization in org_id".to_owned()),
                ..error
            })?;
            return Ok(OwnerTx::Operator(self.store.system().await?));
        }
        Ok(OwnerTx::Tenant(self.tenant(caller, action, org_id).await?))
    }
}

/// For deletions: a foreign key says that something still uses the row.
fn in_use(error: StoreError, message: &str) -> AdminError {
    match error {
        StoreError::Reference { .. } => AdminError::new(ErrorKind::InUse, message),
        other => other.into(),
    }
}

/// `Ok` when a deletion found its row.
fn deleted(found: bool, what: &str, id: impl std::fmt::Display) -> Result<(), AdminError> {
    if found { Ok(()) } else { Err(AdminError::not_found(what, id)) }
}
