//! The board as a whole, without a snapshot: what one organization's failures do, to whom, and for how long.

use std::time::Duration;

use super::{
    breaker::{Admission, Ticket},
    *,
};

const POLICY: BreakerPolicy = BreakerPolicy { threshold: 3, window_ms: 60_000, max_ms: 300_000 };

fn pair() -> PairKey {
    (OrgId::generate(), DeploymentId::generate())
}

fn attempt(board: &HealthBoard, pair: PairKey) -> Result<Attempt, Refused> {
    let ticket = board.admit(&pair)?;
    let stats = Arc::new(DeploymentStats::default());
    stats.begun(board.now());
    let (board, policy) = (board.clone(), POLICY);
    Ok(Attempt { board, stats, pair, ticket, policy, first_byte_us: None, judged: false })
}

/// R004-15, and architecture 9: breakers are an organization's own.
#[test]
fn an_organization_that_makes_an_endpoint_fail_keeps_only_itself_away() {
    let board = HealthBoard::default();
    let (org, deployment) = pair();
    assert!(board.is_quiet());
    attempt(&board, (org, deployment))
        .unwrap()
        .failed(FailureClass::RateLimited, Some(Duration::from_secs(20)));
    let refused = attempt(&board, (org, deployment)).unwrap_err();
    assert_eq!(refused.cause, Cause::Failure(FailureClass::RateLimited));
    assert!((19_000..=24_000).contains(&refused.remaining_ms), "{refused:?}");
    assert!(attempt(&board, (OrgId::generate(), deployment)).is_ok());
    assert!(attempt(&board, (org, DeploymentId::generate())).is_ok());
}

#[test]
fn what_is_not_judged_and_what_is_judged_twice_counts_for_nothing() {
    let board = HealthBoard::default();
    let pair = pair();
    for _ in 0..10 {
        drop(attempt(&board, pair).unwrap());
    }
    assert!(board.is_quiet(), "clients that leave, and their own faults, open nothing");
    let mut once = attempt(&board, pair).unwrap();
    let stats = once.stats.clone();
    for _ in 0..10 {
        once.failed(FailureClass::Server, None);
    }
    assert_eq!(stats.read(board.now()).in_flight, 1);
    drop(once);
    assert_eq!(stats.read(board.now()).in_flight, 0);
    assert!(attempt(&board, pair).is_ok(), "one attempt is one failure");
    let told = board.observations(false);
    assert_eq!(told.iter().map(|it| (it.attempts, it.failures)).collect::<Vec<_>>(), [(1, 1)]);
    assert!(board.observations(false).is_empty(), "told once");
}

#[test]
fn an_opening_is_told_at_once_and_again_to_a_new_session() {
    let board = HealthBoard::default();
    let pair = pair();
    attempt(&board, pair).unwrap().failed(FailureClass::Connect, None);
    let told = board.observations(false);
    assert!(told[0].opened_ms.is_some_and(|ms| ms > 55_000), "{told:?}");
    assert!(board.observations(false).is_empty());
    assert_eq!(board.observations(true).len(), 1);
    let told = (OrgId::generate(), DeploymentId::generate());
    board.set(&[((Some(told.0), told.1), Duration::from_secs(60), Cause::Failure(FailureClass::Server))]);
    assert!(
        board.observations(true).iter().all(|it| it.pair != told),
        "what the fleet said is not told back"
    );
}

#[tokio::test]
async fn an_opening_wakes_whoever_tells() {
    let board = HealthBoard::default();
    attempt(&board, pair()).unwrap().failed(FailureClass::Connect, None);
    tokio::time::timeout(Duration::from_secs(5), board.opened()).await.unwrap();
}

#[test]
fn an_operators_cooldown_keeps_everybody_away_and_an_organizations_only_itself() {
    let board = HealthBoard::default();
    let (org, deployment) = pair();
    let hour = Duration::from_secs(3600);
    board.set(&[((Some(org), deployment), hour, Cause::Manual)]);
    assert_eq!(attempt(&board, (org, deployment)).unwrap_err().cause, Cause::Manual);
    let other = OrgId::generate();
    assert!(attempt(&board, (other, deployment)).is_ok());
    board.set(&[((None, deployment), hour * 2, Cause::Manual)]);
    assert!(attempt(&board, (other, deployment)).is_err());
    assert!(board.remaining(org, deployment).unwrap().0 > hour, "the longer of both");
    board.set(&[((None, deployment), Duration::from_secs(1), Cause::Manual)]);
    assert!(board.remaining(other, deployment).unwrap().0 > hour, "a shorter never replaces a longer");
    board.clear(&[(None, deployment), (Some(org), deployment)], true);
    assert!(attempt(&board, (org, deployment)).is_ok() && attempt(&board, (other, deployment)).is_ok());
}

/// What failed elsewhere is probed here, once, when its cooldown is over; unless an administrator lifts it.
#[test]
fn a_cooldown_of_the_fleet_ends_in_a_probe() {
    let board = HealthBoard::default();
    let pair = pair();
    let scope = (Some(pair.0), pair.1);
    let cause = Cause::Failure(FailureClass::Server);
    board.set(&[(scope, Duration::ZERO, cause)]);
    let probe = attempt(&board, pair).unwrap();
    assert!(probe.is_probe());
    assert!(attempt(&board, pair).is_err(), "one probe");
    drop(probe);
    let mut probe = attempt(&board, pair).unwrap();
    assert!(probe.is_probe(), "one that ended without a verdict is not it");
    probe.succeeded(3, 2, Duration::from_millis(5));
    assert_eq!(board.admission(&pair, board.now()), Admission::Ready);
    board.set(&[(scope, Duration::from_secs(60), cause)]);
    board.clear(&[scope], false);
    assert!(attempt(&board, pair).is_err(), "its own breaker follows what the fleet said");
    board.clear(&[scope], true);
    assert_eq!(board.admission(&pair, board.now()), Admission::Ready);
}

#[test]
fn what_is_over_is_forgotten_and_the_fast_path_comes_back() {
    let board = HealthBoard::default();
    let pair = pair();
    board.replace(&[((None, pair.1), Duration::ZERO, Cause::Manual)]);
    board.inner.pairs.failed(
        Failure {
            pair,
            ticket: Ticket { generation: 0, probe: false },
            class: FailureClass::Server,
            hint_ms: None,
            policy: POLICY,
        },
        0,
        0,
        &board.inner.trouble,
    );
    assert!(!board.is_quiet());
    board.inner.pairs.succeeded(&pair, Ticket { generation: 0, probe: false }, 0);
    assert_eq!(board.inner.pairs.sweep(29_999, &board.inner.trouble), 0);
    assert!(!board.is_quiet(), "the successes after a failure still count");
    board.inner.pairs.sweep(30_000, &board.inner.trouble);
    board.inner.cooldowns.sweep(board.now() + 1, &board.inner.trouble);
    assert!(board.is_quiet());
}
