//! `FleetService.Register`: tells a node how to behave before it asks for anything.

use nemo_proto::fleet::{RegisterRequest, RegisterResponse, fleet_service_server};
use tonic::{Request, Response, Status};

use crate::{
    fleet::{leases::HEARTBEAT, registry::check_node_id},
    store::usage_ingest::MAX_BATCH,
};

/// How long a node may collect usage events before it ships them: the request log is that much behind.
const USAGE_FLUSH_MS: u32 = 500;

#[derive(Clone, Debug)]
pub struct FleetService {
    seal_key_ids: Vec<String>,
}

impl FleetService {
    /// `seal_key_ids`: of the keyring that credentials are sealed with.
    pub fn new(seal_key_ids: Vec<String>) -> Self {
        Self { seal_key_ids }
    }
}

#[tonic::async_trait]
impl fleet_service_server::FleetService for FleetService {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let RegisterRequest { info, boot_id } = request.into_inner();
        let info = info.ok_or_else(|| Status::invalid_argument("info: required"))?;
        check_node_id(&info.node_id).map_err(|error| Status::invalid_argument(format!("info.{error}")))?;
        tracing::info!(
            node = info.node_id,
            epoch = info.epoch,
            version = info.version,
            schema_version = info.schema_version,
            zone = info.zone,
            boot_id,
            "node registered"
        );
        Ok(Response::new(RegisterResponse {
            max_usage_batch: u32::try_from(MAX_BATCH).unwrap_or(u32::MAX),
            usage_flush_ms: USAGE_FLUSH_MS,
            seal_key_ids: self.seal_key_ids.clone(),
            heartbeat_ms: u32::try_from(HEARTBEAT.as_millis()).unwrap_or(u32::MAX),
        }))
    }
}

#[cfg(test)]
mod tests {
    use fleet_service_server::FleetService as _;
    use nemo_proto::common::NodeInfo;

    use super::*;

    #[tokio::test]
    async fn a_node_learns_its_batch_size_and_the_sealing_keys() {
        let service = FleetService::new(vec!["abcd".into()]);
        let info = NodeInfo { node_id: "a".into(), ..NodeInfo::default() };
        let request = RegisterRequest { info: Some(info), boot_id: String::new() };
        let response = service.register(Request::new(request)).await.unwrap().into_inner();
        assert_eq!((response.max_usage_batch, response.seal_key_ids), (1000, vec!["abcd".to_owned()]));
        for request in [
            RegisterRequest::default(),
            RegisterRequest { info: Some(NodeInfo::default()), ..RegisterRequest::default() },
        ] {
            let status = service.register(Request::new(request)).await.unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        }
    }
}
