//! The protocol over a real tonic transport in memory, into a bank in memory. Covers D 7, C 6.

use nemo_proto::{
    common::NodeInfo,
    quota::{
        BudgetGrant, BudgetReport, quota_service_client::QuotaServiceClient,
        quota_service_server::QuotaServiceServer,
    },
};
use nemo_runtime::{TaskGroup, drain, grpc, inproc};
use nemo_types::{BudgetId, LeaseId, OrgId};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

use super::*;
use crate::{
    publish::Published,
    quota::{
        MemoryBank,
        bank::{
            Expired, SettledCharge,
            contract::{START, USD, granted, report, settings, wants},
        },
        books::LostLease,
        desk::{Answer, Terms},
        window::Window,
    },
};

struct Fixture {
    bank: Arc<MemoryBank>,
    client: QuotaServiceClient<Channel>,
    trigger: drain::DrainTrigger,
    _published: watch::Sender<Arc<Published>>,
    _tasks: TaskGroup,
}

struct Node {
    reports: mpsc::Sender<LeaseReport>,
    directives: Streaming<LeaseDirective>,
    seq: u64,
}

fn start(of: impl FnOnce(Arc<MemoryBank>) -> Arc<dyn Bank>) -> Fixture {
    let bank = Arc::new(MemoryBank::new(settings(), START));
    let (published, receiver) = watch::channel(Arc::default());
    let (trigger, drain) = drain::channel();
    let service = QuotaService::new(of(bank.clone()), Rates::new(receiver), QuotaMetrics::default(), drain);
    let (connector, incoming) = inproc::channel();
    let tasks = TaskGroup::new();
    tasks.spawn("server", async move {
        grpc::server()
            .add_service(QuotaServiceServer::new(service))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    });
    let client = QuotaServiceClient::new(grpc::in_process_channel(connector));
    Fixture { bank, client, trigger, _published: published, _tasks: tasks }
}

impl Fixture {
    fn budget(&self, limit: i64) -> BudgetId {
        let budget = BudgetId::generate();
        self.bank.put_budget(Terms {
            budget,
            org: OrgId::generate(),
            window: Window::parse("total", None, "").unwrap(),
            limit,
            lost: LostLease::Charge,
            disabled: false,
        });
        budget
    }

    /// Connects, and waits for the answer to the first report.
    async fn node(&mut self, name: &str, epoch: u64) -> Result<(Node, LeaseDirective), Status> {
        let info = NodeInfo { node_id: name.into(), epoch, ..NodeInfo::default() };
        let first = LeaseReport { info: Some(info), full: true, seq: 1, ..LeaseReport::default() };
        let (reports, stream) = mpsc::channel(4);
        reports.send(first).await.unwrap();
        let directives = self.client.lease(ReceiverStream::new(stream)).await?.into_inner();
        let mut node = Node { reports, directives, seq: 1 };
        let answer = node.hear().await?.unwrap();
        Ok((node, answer))
    }
}

impl Node {
    async fn hear(&mut self) -> Result<Option<LeaseDirective>, Status> {
        tokio::time::timeout(Duration::from_secs(20), self.directives.message()).await.unwrap()
    }

    async fn report(&mut self, budgets: Vec<BudgetReport>) -> LeaseDirective {
        self.seq += 1;
        self.reports.send(LeaseReport { seq: self.seq, ..report(budgets) }).await.unwrap();
        self.hear().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn each_report_is_answered_by_its_number_and_parts_are_one_report() {
    let mut fixture = start(|bank| bank);
    let (mut node, first) = fixture.node("node", 1).await.unwrap();
    assert_eq!((first.answers, first.nodes, first.report_ms), (1, 1, settings().report_ms));
    let budgets = [fixture.budget(10 * USD), fixture.budget(10 * USD)];
    let part = LeaseReport { more: true, seq: 2, ..report(vec![wants(budgets[0], USD, 1)]) };
    node.reports.send(part).await.unwrap();
    let answer = node.report(vec![wants(budgets[1], USD, 1)]).await;
    assert_eq!(answer.answers, 2);
    assert!(budgets.iter().all(|it| granted(&answer, *it).is_some()), "{answer:?}");
}

#[tokio::test]
async fn a_stream_begins_with_who_it_is_and_a_former_process_is_refused() {
    let mut fixture = start(|bank| bank);
    let nameless = tokio_stream::iter([LeaseReport::default()]);
    let refused = fixture.client.lease(nameless).await.unwrap_err();
    assert_eq!((refused.code(), refused.message().contains("info")), (Code::InvalidArgument, true));
    let _newer = fixture.node("node", 2).await.unwrap();
    let fenced = fixture.node("node", 1).await.err().unwrap();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn a_node_that_holds_what_another_starves_for_is_called_at_once() {
    let mut fixture = start(|bank| bank);
    let budget = fixture.budget(1000);
    let (mut rich, first) = fixture.node("rich", 1).await.unwrap();
    let grant = match granted(&first, budget) {
        Some(grant) => grant.clone(),
        None => granted(&rich.report(vec![wants(budget, 1000, 1000)]).await, budget).unwrap().clone(),
    };
    let (mut poor, _) = fixture.node("poor", 1).await.unwrap();
    let answer = poor.report(vec![wants(budget, 1000, 1000)]).await;
    assert_eq!(answer.exhausted.len(), 1, "{answer:?}");
    // Without having reported.
    let called = rich.hear().await.unwrap().unwrap();
    assert_eq!(called.recalls[0].lease_id, grant.lease_id);
    assert_eq!(called.answers, 0, "it renews nothing");
}

#[tokio::test]
async fn a_drain_ends_streams_so_that_nodes_connect_elsewhere() {
    let mut fixture = start(|bank| bank);
    let (mut node, _) = fixture.node("node", 1).await.unwrap();
    fixture.trigger.start();
    assert_eq!(node.hear().await.unwrap_err().code(), Code::Unavailable);
}

/// Gives after its answer.
struct Slow(Arc<MemoryBank>);

#[tonic::async_trait]
impl Bank for Slow {
    async fn report(&self, node: &NodeEpoch, report: &LeaseReport) -> Result<Answer, BankError> {
        self.0.report(node, report).await
    }

    async fn report_in_parts(
        &self,
        node: &NodeEpoch,
        report: &LeaseReport,
        later: &mpsc::Sender<Given>,
    ) -> Result<Answer, BankError> {
        let mut answer = self.report(node, report).await?;
        let grants: Vec<BudgetGrant> = answer.directive.grants.drain(..).collect();
        if !grants.is_empty() {
            later.send(Given { grants, tally: answer.tally }).await.unwrap();
        }
        Ok(answer)
    }

    async fn recalls(&self, node: &NodeEpoch) -> Result<Vec<nemo_proto::quota::Recall>, BankError> {
        self.0.recalls(node).await
    }

    async fn expire(&self) -> Result<Expired, BankError> {
        self.0.expire().await
    }

    async fn close_epoch(
        &self,
        node_id: &str,
        epoch: u64,
        exact: bool,
    ) -> Result<Vec<crate::ledger::Entry>, BankError> {
        self.0.close_epoch(node_id, epoch, exact).await
    }

    async fn settle(
        &self,
        source: &str,
        charges: &[SettledCharge],
    ) -> Result<Vec<crate::ledger::Entry>, BankError> {
        self.0.settle(source, charges).await
    }

    async fn release(&self, lease: LeaseId) -> Result<Option<i64>, BankError> {
        self.0.release(lease).await
    }
}

#[tokio::test]
async fn what_is_given_unasked_may_follow_the_answer() {
    let mut fixture = start(|bank| Arc::new(Slow(bank)));
    let budget = fixture.budget(100 * USD);
    let (mut node, first) = fixture.node("node", 1).await.unwrap();
    assert!(first.answers == 1 && first.grants.is_empty(), "{first:?}");
    let given = node.hear().await.unwrap().unwrap();
    assert!(given.answers == 0 && granted(&given, budget).is_some(), "{given:?}");
}
