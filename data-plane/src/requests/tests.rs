//! Against a control plane in memory that never finds anything.

use std::pin::Pin;

use futures_util::Stream;
use nemo_proto::usage::{
    GetRequestResponse, UsageAck, UsageBatch,
    usage_service_server::{UsageService, UsageServiceServer},
};
use nemo_runtime::{TaskGroup, grpc, inproc};
use tokio::task::JoinSet;
use tonic::{Request, Status, Streaming};

use super::*;

struct Empty;

#[tonic::async_trait]
impl UsageService for Empty {
    type IngestStream = Pin<Box<dyn Stream<Item = Result<UsageAck, Status>> + Send>>;

    async fn ingest(
        &self,
        _: Request<Streaming<UsageBatch>>,
    ) -> Result<tonic::Response<Self::IngestStream>, Status> {
        Err(Status::unimplemented("nothing is shipped here"))
    }

    async fn get_request(
        &self,
        _: Request<GetRequestRequest>,
    ) -> Result<tonic::Response<GetRequestResponse>, Status> {
        Err(Status::not_found("no such request"))
    }
}

/// With what serves it.
fn lookup() -> (Arc<Lookup>, TaskGroup) {
    let (connector, incoming) = inproc::channel();
    let server = TaskGroup::new();
    server.spawn("server", async move {
        grpc::server()
            .add_service(UsageServiceServer::new(Empty))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    (Arc::new(Lookup::new(&[grpc::in_process_channel(connector)], &NodeToken::none())), server)
}

type Finds = JoinSet<Result<Option<UsageEvent>, GatewayError>>;

/// So many clients of this key look for something that may come yet.
fn wait_for(lookup: &Arc<Lookup>, key: KeyId, clients: usize, finds: &mut Finds) {
    for _ in 0..clients {
        let lookup = lookup.clone();
        finds.spawn(async move { lookup.find(key, &GetRequestRequest::default(), true).await });
    }
}

#[test]
fn only_what_may_still_be_on_its_way_is_waited_for() {
    let now = clock::unix_us();
    assert!(may_be_young(Some(RequestId::at(now))));
    assert!(!may_be_young(Some(RequestId::at(now - 120_000_000))));
    assert!(may_be_young(None));
    // A version 4 of a client has no time in it.
    assert!(may_be_young("3b241101-e2bb-4255-8caf-4136c566a962".parse().ok()));
}

#[tokio::test]
async fn without_a_control_plane_the_client_is_told_to_come_again() {
    let lookup = Lookup::new(&[], &NodeToken::none());
    let error = lookup.find(KeyId::generate(), &GetRequestRequest::default(), true).await.unwrap_err();
    assert_eq!((error.status().as_u16(), error.retry_after_secs), (503, Some(RETRY_AFTER_SECS)));
    assert_eq!(error.code(), "request_log_unavailable");
}

/// Ids of clients are waited for whatever they are: those who do that keep no place from others.
#[tokio::test(start_paused = true)]
async fn who_waits_keeps_nobody_from_asking() {
    let (lookup, _server) = lookup();
    let (one, other) = (KeyId::generate(), KeyId::generate());
    let mut finds = Finds::new();
    let others = [KeyId::generate(), KeyId::generate()];
    for key in others.into_iter().chain([one]) {
        wait_for(&lookup, key, MAX_OF_KEY, &mut finds);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(finds.len() > MAX_AT_ONCE && finds.try_join_next().is_none(), "all of them wait");
    let find = |key| {
        let lookup = lookup.clone();
        async move { lookup.find(key, &GetRequestRequest::default(), false).await }
    };
    assert!(find(other).await.unwrap().is_none());
    // But no more of one key.
    let refused = find(one).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.retry_after_secs),
        ("request_log_unavailable", Some(RETRY_AFTER_SECS))
    );
    assert!(finds.join_all().await.into_iter().all(|found| found.unwrap().is_none()), "none is sent away");
    assert!(find(one).await.unwrap().is_none());
    assert!(lookup.keys.counts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn not_everybody_can_wait() {
    let (lookup, _server) = lookup();
    let mut finds = Finds::new();
    for _ in 0..MAX_WAITING / MAX_OF_KEY {
        wait_for(&lookup, KeyId::generate(), MAX_OF_KEY, &mut finds);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let key = KeyId::generate();
    let late = lookup.find(key, &GetRequestRequest::default(), true).await.unwrap_err();
    assert_eq!(late.code(), "request_log_unavailable");
    assert!(lookup.find(key, &GetRequestRequest::default(), false).await.unwrap().is_none());
    assert!(finds.join_all().await.into_iter().all(|found| found.is_ok()));
}
