//! The fleet: the nodes of all replicas of the control plane. Operator only.

use nemo_proto::admin::{ListNodesRequest, ListNodesResponse};

use crate::{
    admin::{Admin, AdminError, Call},
    store::fleet_nodes,
};

impl Admin {
    /// # Errors
    /// For other callers than the operator, and when the database can't be read.
    pub async fn list_nodes(
        &self,
        call: &Call,
        _request: ListNodesRequest,
    ) -> Result<ListNodesResponse, AdminError> {
        call.check_operator()?;
        let Some(fleet) = &self.fleet else { return Ok(ListNodesResponse::default()) };
        let rows = fleet_nodes::all(&self.store).await?;
        Ok(ListNodesResponse { published_revision: fleet.published_revision(), nodes: fleet.fleet(rows) })
    }
}
