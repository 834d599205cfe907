//! gRPC: thin services over [`crate::publish`], [`crate::fleet`], the request log and the admin operations.
//!
//! - for nodes: [`fleet_service`], [`config_service`], [`cooldown_service`], [`quota_service`], [`usage_service`]; over TCP they want the node token
//! - for operators and organizations: [`admin`], with admin tokens
//!
//! Put together by `app.rs`.

pub mod admin;
pub mod config_service;
pub mod cooldown_service;
pub mod fleet_service;
pub mod metrics;
pub mod quota_service;
pub mod usage_service;

use nemo_proto::{
    config::config_service_server::ConfigServiceServer,
    cooldown::cooldown_service_server::CooldownServiceServer,
    fleet::fleet_service_server::FleetServiceServer, quota::quota_service_server::QuotaServiceServer,
    usage::usage_service_server::UsageServiceServer,
};
use nemo_runtime::grpc::MAX_MESSAGE_BYTES;
use tonic::{
    server::NamedService,
    service::{InterceptorLayer, RoutesBuilder},
};
use tower::Layer as _;

use self::{
    config_service::ConfigService, cooldown_service::CooldownService, fleet_service::FleetService,
    quota_service::QuotaService, usage_service::UsageService,
};
use crate::fleet::NodeAuth;

/// What nodes talk to.
#[derive(Clone)]
pub struct NodeServices {
    pub config: ConfigService,
    pub cooldown: CooldownService,
    pub fleet: FleetService,
    pub quota: QuotaService,
    pub usage: UsageService,
}

impl NodeServices {
    /// Adds the services behind `auth`.
    pub fn add_to(self, routes: &mut RoutesBuilder, auth: NodeAuth) {
        let auth = InterceptorLayer::new(auth);
        let config = ConfigServiceServer::new(self.config).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let usage = UsageServiceServer::new(self.usage).max_decoding_message_size(MAX_MESSAGE_BYTES);
        routes.add_service(auth.layer(config));
        routes.add_service(auth.layer(CooldownServiceServer::new(self.cooldown)));
        routes.add_service(auth.layer(FleetServiceServer::new(self.fleet)));
        let quota = QuotaServiceServer::new(self.quota).max_decoding_message_size(MAX_MESSAGE_BYTES);
        routes.add_service(auth.layer(quota));
        routes.add_service(auth.layer(usage));
    }

    /// Full names of the services, for health.
    pub fn names() -> [&'static str; 5] {
        [
            <ConfigServiceServer<ConfigService> as NamedService>::NAME,
            <CooldownServiceServer<CooldownService> as NamedService>::NAME,
            <FleetServiceServer<FleetService> as NamedService>::NAME,
            <QuotaServiceServer<QuotaService> as NamedService>::NAME,
            <UsageServiceServer<UsageService> as NamedService>::NAME,
        ]
    }
}
