//! What nodes hold of a budget, and giving back what a lost one held.

use nemo_proto::admin::{
    BudgetLease, ListBudgetLeasesRequest, ListBudgetLeasesResponse, ReleaseLeaseRequest,
};
use nemo_types::{BudgetId, LeaseId, OrgId};

use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Written, limited, page_token, validate},
    store::budgets::{self, leases},
};

pub(in crate::admin) const STATES: [&str; 4] = ["active", "done", "held", "closed"];

impl Admin {
    pub async fn list_budget_leases(
        &self,
        call: &Call,
        request: ListBudgetLeasesRequest,
    ) -> Result<ListBudgetLeasesResponse, AdminError> {
        let id: BudgetId = validate::id("id", &request.id)?;
        let page = page_token::page(request.page_size, &request.page_token)?;
        let state = match request.state.as_str() {
            "" => None,
            text => Some(limited::word("state", text, &STATES)?),
        };
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        if budgets::get(&mut tx, id.0).await?.is_none() {
            return Err(AdminError::not_found("budget", id));
        }
        let listed = leases::list(&mut tx, id.0, state, page).await?;
        Ok(ListBudgetLeasesResponse {
            leases: listed.rows.into_iter().map(BudgetLease::from).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    /// # Errors
    /// [`ErrorKind::InUse`] while the node can still spend of it: what it holds would be there twice.
    pub async fn release_lease(
        &self,
        call: &Call,
        request: ReleaseLeaseRequest,
    ) -> Result<Written<BudgetLease>, AdminError> {
        let org: OrgId = validate::id("org_id", &request.org_id)?;
        let budget: BudgetId = validate::id("budget_id", &request.budget_id)?;
        let lease: LeaseId = validate::id("lease_id", &request.lease_id)?;
        let action = "budget.release_lease";
        let mut write = self.write_system_for(call, Action::Write, &request.org_id, action).await?;
        let before = leases::get(&mut write.tx, org.0, budget.0, lease.0).await?;
        let before = write.found::<BudgetLease>(before, lease)?;
        if matches!(before.state.as_str(), "active" | "done") {
            let message = format!("the node {} still has it", before.node_id);
            return Err(AdminError {
                expected: Some("a lease that is held or closed: its node was lost".to_owned()),
                ..AdminError::new(ErrorKind::InUse, message)
            });
        }
        leases::release(&mut write.tx, lease.0).await?;
        let after = leases::get(&mut write.tx, org.0, budget.0, lease.0).await?;
        write.done(after.ok_or_else(|| AdminError::not_found("budget lease", lease))?.into()).await
    }
}
