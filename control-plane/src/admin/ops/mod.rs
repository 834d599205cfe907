//! The admin operations: one function per use case, each in four steps: check the request, check the caller, one
//! transaction, answer. All that write do it through [`write`]. Requests and answers are the messages of `nemo/admin/v1`.
//!
//! Called by `grpc/admin.rs`, `admin/rest/` and, in process, by bootstrap and command line. All configuration writes
//! reach the nodes by themselves: triggers in the database record them.

pub mod admin_tokens;
pub mod audit;
mod billing_settings;
mod budget_leases;
pub mod budgets;
pub mod catalog;
pub mod catalog_sync;
mod convert;
pub mod cooldowns;
pub mod credits;
pub mod decisions;
pub mod deployments;
mod explain;
pub mod fleet;
pub mod keys;
pub mod ledger;
pub mod members;
pub mod model_groups;
pub mod organizations;
pub mod prices;
mod proof;
pub mod providers;
pub mod rate_limits;
pub mod requests;
pub mod rerate;
pub mod settings;
pub mod teams;
pub mod usage;
pub mod webhooks;
mod write;

use nemo_types::OrgId;

use super::{Action, Admin, AdminError, Call, ErrorKind, validate};
use crate::store::{OwnerTx, StoreError, TenantTx, organizations as store_organizations};

impl Admin {
    /// A transaction in the name of an organization, for a caller who may do that there.
    async fn tenant(&self, call: &Call, action: Action, org_id: &str) -> Result<TenantTx, AdminError> {
        let org: OrgId = validate::id("org_id", org_id)?;
        call.check(action, org)?;
        let mut tx = self.store.tenant(org).await?;
        if store_organizations::get(&mut tx).await?.is_none() {
            return Err(AdminError::not_found("organization", org).with_field("org_id"));
        }
        Ok(tx)
    }

    /// A transaction over what an organization, or with an empty `org_id` the operator, owns.
    async fn owner(&self, call: &Call, action: Action, org_id: &str) -> Result<OwnerTx, AdminError> {
        if org_id.is_empty() {
            call.check_operator().map_err(|error| AdminError {
                expected: Some("the id of the token's organization in org_id".to_owned()),
                ..error
            })?;
            return Ok(OwnerTx::Operator(self.store.system().await?));
        }
        Ok(OwnerTx::Tenant(self.tenant(call, action, org_id).await?))
    }
}

/// What every list can be restricted to, from the members of its request.
macro_rules! list_filter {
    ($request:ident) => {
        $crate::store::Filter {
            name: $crate::admin::validate::filter("name", $request.name.clone())?,
            name_prefix: $crate::admin::validate::filter("name_prefix", $request.name_prefix.clone())?,
            created_after: $crate::admin::validate::time("created_after", $request.created_after)?,
            created_before: $crate::admin::validate::time("created_before", $request.created_before)?,
        }
    };
}
use list_filter;

/// For deletions: a foreign key says that something still uses the row.
fn in_use(error: StoreError, message: &str) -> AdminError {
    match error {
        StoreError::Reference { .. } => AdminError::new(ErrorKind::InUse, message),
        other => other.into(),
    }
}
