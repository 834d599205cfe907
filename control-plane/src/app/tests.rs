//! The whole control plane in this process, on a real database and real ports.

use nemo_proto::{
    admin::CreateOrganizationRequest,
    common::NodeInfo,
    config::{
        Hello, Push, SubscribeRequest, config_service_client::ConfigServiceClient, subscribe_request::Message,
    },
    fleet::{RegisterRequest, fleet_service_client::FleetServiceClient},
};
use nemo_tests::postgres::Database;
use nemo_types::Secret;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::{admin::Call, fleet::NodeToken, store::testing};

const TOKEN: &str = "a-token-of-the-fleet";

struct Fixture {
    bound: Bound,
    trigger: DrainTrigger,
    _database: Database,
}

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap())
}

async fn start_with(token: Option<&str>) -> Fixture {
    let database = testing::migrated().await;
    let mut config = Config::local(Secret::new(database.url()));
    config.node_token = token.map(|token| NodeToken::new(token).unwrap());
    let (trigger, drain) = drain::channel();
    let bound = start(config, keyring(), drain).await.unwrap();
    Fixture { bound, trigger, _database: database }
}

fn info() -> NodeInfo {
    NodeInfo { node_id: "node-1".into(), epoch: 1, ..NodeInfo::default() }
}

async fn get(addr: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

fn over_tcp(fixture: &Fixture) -> Channel {
    transport::channel(&format!("http://{}", fixture.bound.grpc_addr), None).unwrap()
}

async fn first_push(channel: Channel, held_revision: u64) -> (Push, tonic::Streaming<Push>) {
    let held_checksum = vec![7; 16].into();
    let hello = Message::Hello(Hello { info: Some(info()), held_revision, held_checksum, session: 1 });
    // Open for as long as the test runs.
    let requests = futures_util::StreamExt::chain(
        tokio_stream::once(SubscribeRequest { message: Some(hello) }),
        futures_util::stream::pending(),
    );
    let client = ConfigServiceClient::new(channel).max_decoding_message_size(transport::MAX_MESSAGE_BYTES);
    let mut pushes = { client }.subscribe(requests).await.unwrap().into_inner();
    (pushes.message().await.unwrap().unwrap(), pushes)
}

#[tokio::test]
async fn it_serves_nodes_in_process_probes_and_the_admin_api_and_drains() {
    let fixture = start_with(None).await;
    let channel = transport::in_process_channel(fixture.bound.node_connector.clone());
    let request = RegisterRequest { info: Some(info()), ..RegisterRequest::default() };
    let response = FleetServiceClient::new(channel.clone()).register(request).await.unwrap().into_inner();
    assert_eq!(response.seal_key_ids.len(), 1);
    let (push, mut pushes) = first_push(channel, 0).await;
    assert!(
        push.base_revision == 0 && push.upserts.len() >= 60,
        "the bundled catalog: {}",
        push.upserts.len()
    );
    assert!(fixture.bound.registry.nodes()[0].connected);

    assert!(get(fixture.bound.metrics_addr, "/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = get(fixture.bound.metrics_addr, "/metrics").await;
    for line in ["nemo_fleet_nodes_connected 1", &format!("nemo_config_revision {}", push.revision)] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(get(fixture.bound.rest_addr, "/admin/v1/organizations").await.starts_with("HTTP/1.1 401"));

    let (rest, ops) = (fixture.bound.rest_addr, fixture.bound.metrics_addr);
    fixture.trigger.start();
    assert_eq!(pushes.message().await.unwrap_err().code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(20), fixture.bound.join()).await.unwrap();
    for addr in [rest, ops] {
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    }
}

/// A restored backup: the database has lost revisions that nodes hold already.
#[tokio::test]
async fn a_node_that_holds_a_revision_the_database_has_lost_gets_the_full_set() {
    let fixture = start_with(None).await;
    let channel = transport::in_process_channel(fixture.bound.node_connector.clone());
    let (push, _pushes) = first_push(channel, 1_000_000).await;
    assert_eq!((push.base_revision, push.revision), (0, fixture.bound.registry.published_revision()));
}

/// An edit through the admin API reaches a node as a delta, without waiting for the poll.
#[tokio::test]
async fn an_admin_write_is_published() {
    let fixture = start_with(None).await;
    let revision = fixture.bound.registry.published_revision();
    let request = CreateOrganizationRequest { name: "Acme".into() };
    fixture.bound.admin.create_organization(&Call::local_operator(), request).await.unwrap();
    let published =
        async || nemo_tests::eventually::yes(fixture.bound.registry.published_revision() > revision);
    nemo_tests::eventually::eventually_within(Duration::from_secs(4), "the new revision", published)
        .await
        .unwrap();
}

#[tokio::test]
async fn over_tcp_nodes_must_show_the_token_and_admins_need_none() {
    let fixture = start_with(Some(TOKEN)).await;
    let channel = over_tcp(&fixture);
    let mut client = FleetServiceClient::new(channel.clone());
    let request = || RegisterRequest { info: Some(info()), ..RegisterRequest::default() };
    let status = client.register(request()).await.unwrap_err();
    assert!(
        status.code() == Code::Unauthenticated && status.message().contains("NEMO_NODE_TOKEN"),
        "{status}"
    );
    let token = transport::NodeToken::new(&Secret::new(TOKEN)).unwrap();
    let mut client = FleetServiceClient::with_interceptor(channel.clone(), token);
    client.register(request()).await.unwrap();
    let pushes = ConfigServiceClient::new(channel).subscribe(tokio_stream::empty()).await;
    assert_eq!(pushes.unwrap_err().code(), Code::Unauthenticated);
}

#[tokio::test]
async fn health_and_reflection_know_every_service() {
    let fixture = start_with(None).await;
    let channel = over_tcp(&fixture);
    let list = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let mut answers = reflection.server_reflection_info(tokio_stream::once(list)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    let ours: Vec<&String> = names.iter().filter(|name| name.starts_with("nemo.")).collect();
    assert!(ours.len() >= 11, "{names:?}");
    let mut health = HealthClient::new(channel);
    for service in ours.into_iter().cloned().chain([String::new()]) {
        let request = Request::new(HealthCheckRequest { service: service.clone() });
        let answer = health.check(request).await.unwrap_or_else(|status| panic!("{service}: {status}"));
        assert_eq!(answer.into_inner().status, 1, "{service}");
    }
}

#[tokio::test]
async fn a_taken_port_is_one_line_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::local(Secret::new("postgres://nowhere"));
    config.grpc_addr = taken.local_addr().unwrap();
    let (_trigger, drain) = drain::channel();
    let error = start(config, keyring(), drain).await.err().unwrap().to_string();
    assert!(
        error.contains(&taken.local_addr().unwrap().to_string()) && error.contains("--grpc-addr"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
}

#[tokio::test]
async fn a_gateway_that_others_can_reach_does_not_start_without_a_node_token() {
    let mut config = Config::local(Secret::new("postgres://nowhere"));
    config.grpc_addr = "0.0.0.0:0".parse().unwrap();
    let (_trigger, drain) = drain::channel();
    let error = start(config, keyring(), drain).await.err().unwrap().to_string();
    assert!(error.contains("NEMO_NODE_TOKEN"), "{error}");
}

#[tokio::test]
async fn while_it_waits_for_the_database_it_is_alive_but_not_ready() {
    let metrics_addr = SocketAddr::from(([127, 0, 0, 1], nemo_tests::ports::free_port().unwrap()));
    let config = Config { metrics_addr, ..Config::local(Secret::new("postgres://127.0.0.1:1/nemo")) };
    let (trigger, drain) = drain::channel();
    let tasks = TaskGroup::new();
    let (ended, result) = tokio::sync::oneshot::channel();
    tasks.spawn("start", async move {
        let _ = ended.send(start(config, keyring(), drain).await.err().map(|error| error.to_string()));
    });
    let up = async || tokio::net::TcpStream::connect(metrics_addr).await;
    nemo_tests::eventually("the ops port", up).await.unwrap();
    assert!(get(metrics_addr, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(metrics_addr, "/readyz").await.contains("waiting for: database"));
    trigger.start();
    assert!(result.await.unwrap().unwrap().contains("database"));
}
