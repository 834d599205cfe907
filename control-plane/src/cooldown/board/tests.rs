//! Boards of several replicas on one coordinator.

use std::time::Duration;

use bytes::Bytes;
use nemo_proto::cooldown::FailureClass;
use nemo_runtime::{TaskGroup, drain};
use tokio::time::timeout;

use super::*;
use crate::coordination::LocalCoordinator;

const POLICY: Policy = Policy {
    cooldown_ms: 60_000,
    longest_ms: 300_000,
    min_attempts: 20,
    error_percent: 50,
    window_ms: 30_000,
};

struct Fleet {
    coordinator: LocalCoordinator,
    tasks: TaskGroup,
    watcher: drain::DrainWatcher,
    _stop: drain::DrainTrigger,
}

impl Fleet {
    fn new() -> Self {
        let (stop, watcher) = drain::channel();
        Self { coordinator: LocalCoordinator::default(), tasks: TaskGroup::new(), watcher, _stop: stop }
    }

    async fn replica(&self) -> Board {
        let coordinator = Arc::new(self.coordinator.clone());
        let (board, runner) = Board::new(coordinator, |_| POLICY, CoordinationMetrics::default());
        self.tasks.spawn("cooldowns", runner.run(self.watcher.clone()));
        while !board.is_connected() {
            tokio::task::yield_now().await;
        }
        board
    }
}

fn manual(duration_ms: u64) -> Value {
    Value {
        cause: Cause::Manual,
        duration_ms,
        reason: "maintenance".into(),
        reporter: "ada".into(),
        generation: 0,
        lifted: false,
    }
}

fn scope(org: Option<OrgId>) -> Scope {
    Scope { org, deployment: DeploymentId::generate() }
}

fn opened(scope: Scope, class: FailureClass, hint_ms: Option<u32>) -> Observation {
    Observation {
        org_id: Bytes::copy_from_slice(scope.org.unwrap().as_bytes()),
        deployment_id: Bytes::copy_from_slice(scope.deployment.as_bytes()),
        failure_class: class.into(),
        attempts: 3,
        failures: 3,
        opened_ms: Some(5_000),
        hint_ms,
    }
}

fn report(board: &Board, node: &str, observation: Observation) {
    board.report(Report { node: node.into(), observations: vec![observation] });
}

async fn change(subscription: &mut Subscription) -> Arc<Change> {
    timeout(Duration::from_secs(10), subscription.changes.recv()).await.expect("a change").unwrap()
}

/// R004-15: what one node reports to one replica reaches the nodes of another.
#[tokio::test]
async fn a_rate_limit_told_to_one_replica_is_on_every_board() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.replica().await, fleet.replica().await);
    let mut seen = two.subscribe();
    assert!(seen.whole.is_empty());
    let scope = scope(Some(OrgId::generate()));
    report(&one, "a", opened(scope, FailureClass::RateLimited, Some(20_000)));
    let change = change(&mut seen).await;
    assert_eq!((change.set.len(), change.set[0].scope, change.set[0].cause), (1, scope, Cause::RateLimited));
    let remaining = change.set[0].remaining(Instant::now()).as_millis();
    assert!((19_000..=24_000).contains(&remaining), "{remaining}");
    assert_eq!(one.list().len(), 1);
    assert_eq!(two.subscribe().whole.len(), 1, "a node that connects is sent all of it");
}

#[tokio::test]
async fn two_nodes_at_two_replicas_are_two_nodes() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.replica().await, fleet.replica().await);
    let (mut seen, scope) = (one.subscribe(), scope(Some(OrgId::generate())));
    report(&one, "a", opened(scope, FailureClass::Server, None));
    report(&one, "a", opened(scope, FailureClass::Server, None));
    assert!(
        timeout(Duration::from_millis(300), seen.changes.recv()).await.is_err(),
        "one node is not enough"
    );
    report(&two, "b", opened(scope, FailureClass::Server, None));
    assert_eq!(change(&mut seen).await.set[0].cause, Cause::ServerError);
}

/// Failure C12.
#[tokio::test]
async fn a_shorter_cooldown_never_replaces_a_longer_one() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.replica().await, fleet.replica().await);
    let scope = scope(Some(OrgId::generate()));
    assert_eq!(one.set(scope, manual(60_000)).await, Ok(Outcome::Set));
    // The second may not have heard of it yet: the compare-and-swap knows.
    let kept = two.set(scope, manual(5_000)).await;
    assert!(
        matches!(kept, Ok(Outcome::Kept { remaining }) if remaining > Duration::from_secs(58)),
        "{kept:?}"
    );
    assert_eq!(two.set(scope, manual(120_000)).await, Ok(Outcome::Set));
    assert!(two.list()[0].remaining(Instant::now()) > Duration::from_secs(118));
    let writes = (0..20).map(|at| two.set(scope, manual(130_000 + at * 1_000)));
    let outcomes = futures_util::future::join_all(writes).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert!(two.list()[0].remaining(Instant::now()) > Duration::from_secs(147), "the longest of them");
}

#[tokio::test]
async fn what_is_lifted_is_lifted_everywhere_and_said_to_be() {
    let fleet = Fleet::new();
    let (one, two) = (fleet.replica().await, fleet.replica().await);
    let scope = scope(None);
    assert!(!one.lift(scope, "ada").await.unwrap(), "there was none");
    let mut seen = two.subscribe();
    one.set(scope, manual(60_000)).await.unwrap();
    let mut set = change(&mut seen).await;
    while set.set.is_empty() {
        set = change(&mut seen).await;
    }
    assert_eq!((set.set[0].reason.as_str(), set.set[0].reporter.as_str()), ("maintenance", "ada"));
    assert!(one.lift(scope, "ada").await.unwrap());
    assert_eq!(change(&mut seen).await.cleared, [(scope, true)]);
    assert!(one.list().is_empty() && two.list().is_empty());
    assert_eq!(two.set(scope, manual(1_000)).await, Ok(Outcome::Set), "a shorter one may follow");
}

#[tokio::test]
async fn what_is_over_is_off_the_board_and_may_be_set_again() {
    let fleet = Fleet::new();
    let board = fleet.replica().await;
    let (scope, mut seen) = (scope(Some(OrgId::generate())), board.subscribe());
    board.set(scope, manual(300)).await.unwrap();
    assert_eq!(change(&mut seen).await.set.len(), 1);
    assert_eq!(change(&mut seen).await.cleared, [(scope, false)], "its time was over");
    assert!(board.list().is_empty() && board.of(scope.org, scope.deployment).is_none());
    assert_eq!(board.set(scope, manual(300)).await, Ok(Outcome::Set));
}

/// A coordinator that is away for a while: the board stays, and then is what the coordinator says.
#[tokio::test]
async fn after_a_gap_the_board_is_what_the_coordinator_says() {
    let fleet = Fleet::new();
    let board = fleet.replica().await;
    let [kept, gone, new] = [(); 3].map(|()| scope(None));
    for scope in [kept, gone] {
        board.set(scope, manual(60_000)).await.unwrap();
    }
    let mut listing = fleet.coordinator.list(crate::cooldown::value::COOLDOWNS).await.unwrap();
    listing.entries.retain(|entry| entry.key == kept.key());
    let entry = crate::coordination::Entry {
        key: new.key(),
        value: manual(60_000).encode(),
        revision: listing.revision + 1,
        ttl_left: Some(Duration::from_secs(9)),
    };
    listing.entries.push(entry);
    listing.revision += 1;
    board.listed(&listing);
    let mut scopes: Vec<_> = board.list().iter().map(|it| it.scope).collect();
    let mut expected = vec![kept, new];
    scopes.sort();
    expected.sort();
    assert_eq!(scopes, expected);
    let left = board.of(None, new.deployment).unwrap().remaining(Instant::now());
    assert!(left <= Duration::from_secs(9), "what was left of it, not what it was set to: {left:?}");
}

#[tokio::test]
async fn without_the_coordinator_reports_wait_for_nothing() {
    let fleet = Fleet::new();
    let coordinator = Arc::new(fleet.coordinator.clone());
    // Nobody runs it, so it is not connected.
    let (board, _runner) = Board::new(coordinator, |_| POLICY, CoordinationMetrics::default());
    let scope = scope(Some(OrgId::generate()));
    for _ in 0..2 * REPORTS {
        report(&board, "a", opened(scope, FailureClass::RateLimited, None));
    }
    assert_eq!(board.inner.metrics.dropped_reports.get(), REPORTS as u64);
    assert!(!board.is_connected());
}
