//! What must stop at once: keys that were switched off, ahead of the push that says so, and never behind one. A stream
//! of its own, because one that carries a large push delivers nothing else until that is through. Called by [`super`].

use nemo_proto::{
    common::NodeInfo,
    config::{SubscribeRevocationsRequest, config_service_client::ConfigServiceClient},
};
use tonic::{Code, Status};

use super::{NodeChannel, metrics::ControlMetrics};
use crate::config::SnapshotHandle;

/// The node's side of `ConfigService.SubscribeRevocations`, over all sessions.
pub struct RevocationStream {
    info: NodeInfo,
    snapshot: SnapshotHandle,
    metrics: ControlMetrics,
}

impl RevocationStream {
    pub fn new(info: NodeInfo, snapshot: SnapshotHandle, metrics: ControlMetrics) -> Self {
        Self { info, snapshot, metrics }
    }

    /// One session. Ends with `Ok` when the server ends the stream.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(&self, channel: &NodeChannel) -> Result<(), Status> {
        let mut client = ConfigServiceClient::new(channel.clone());
        let request = SubscribeRevocationsRequest { info: Some(self.info.clone()) };
        let mut stream = match client.subscribe_revocations(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::info!("the control plane is an older one: keys stop with the next push, not before");
                return std::future::pending().await;
            }
            Err(status) => return Err(status),
        };
        while let Some(message) = stream.message().await? {
            let news = self.snapshot.revoke(&message.revocations);
            self.metrics.revocations.inc_by(news as u64);
            if news > 0 {
                tracing::info!(revocations = news, "switched off ahead of the next push");
            }
        }
        Ok(())
    }
}
