//! The fleet as this replica of the control plane sees it. Operator only.

use nemo_proto::admin::{ListNodesRequest, ListNodesResponse};

use crate::admin::{Admin, AdminError, Call};

impl Admin {
    /// # Errors
    /// For other callers than the operator.
    pub fn list_nodes(
        &self,
        call: &Call,
        _request: ListNodesRequest,
    ) -> Result<ListNodesResponse, AdminError> {
        call.check_operator()?;
        Ok(self.fleet.as_ref().map_or_else(ListNodesResponse::default, |fleet| ListNodesResponse {
            published_revision: fleet.published_revision(),
            nodes: fleet.nodes(),
        }))
    }
}
