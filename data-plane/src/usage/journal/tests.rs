//! The journal against its model: whatever happens to process and disk, each request is told of once.

mod crashes;
mod damage;
mod full;
mod threads;

use std::collections::BTreeMap;

use bytes::Bytes;
use nemo_proto::usage::{Outcome, UsageEvent};
use prost::Message as _;

use super::{model::Disk, *};

const BOOT: &str = "boot-1";

fn id(request: u32) -> [u8; 16] {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&request.to_be_bytes());
    id
}

fn held(nanos: i64) -> crate::quota::Charge {
    let budget = nemo_types::BudgetId::from_bytes(&[9; 16]).unwrap();
    crate::quota::Charge { budget, window_start_unix_s: 0, lease: None, nanos: Nanos(nanos) }
}

fn charge(nanos: i64) -> Charge {
    (&held(nanos)).into()
}

/// What is said of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Closed,
    /// With this cost.
    Lost(i64),
}

/// With a body of some length, so that segments fill up.
const METADATA: &str = "0123456789012345678901234567890123456789012345678901234567890123456789";

fn open(journal: &Journal, request: u32, cost: i64) -> Result<Ticket, Full> {
    let (id, charges) = (id(request), [held(cost)]);
    let outcome = Outcome::Lost;
    let event = Event::blank(0);
    journal.opened(&Event { request_id: &id, outcome, cost_nanos: Some(cost), charges: &charges, ..event })
}

fn close(journal: &Journal, ticket: Option<Ticket>, request: u32) {
    let id = id(request);
    journal.closed(ticket, &Event { request_id: &id, metadata: METADATA, ..Event::blank(1) });
}

fn told(event: &Bytes) -> (u32, Told) {
    let event = UsageEvent::decode(event.clone()).unwrap();
    let request = u32::from_be_bytes(event.request_id[..4].try_into().unwrap());
    match event.outcome() {
        Outcome::Ok => (request, Told::Closed),
        Outcome::Lost => {
            let cost = event.cost_nanos.unwrap();
            assert_eq!(event.charges, [charge(cost)], "the charges are those of the cost");
            (request, Told::Lost(cost))
        }
        other => panic!("{other:?}"),
    }
}

fn start(disk: &Disk, epoch: u64, limits: Limits, boot: &str) -> (Journal, Vec<Recovered>) {
    let writer = Writer { epoch, boot_id: boot.into() };
    Journal::open(Arc::new(disk.clone()), limits, writer).unwrap()
}

/// Everything that was not taken, acknowledged at once.
fn ship(journal: &Journal) -> Vec<(u32, Told)> {
    let mut all = Vec::new();
    while let Some(batch) = journal.take(7) {
        all.extend(batch.events.messages().map(|it| told(&it)));
        journal.acknowledged(batch.events.len());
        journal.tend();
    }
    all
}

/// An orderly end leaves a marker, which a later process, on whatever boot, turns into the end of the epoch.
#[test]
fn an_epoch_that_ended_in_order_is_told_closed_until_that_is_acknowledged() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    for request in 0..100 {
        let ticket = open(&journal, request, 5).unwrap();
        close(&journal, Some(ticket), request);
    }
    assert_eq!(ship(&journal).len(), 100);
    journal.finish();
    assert_eq!(disk.names(), ["1.epoch"]);

    let (journal, recovered) = start(&disk.after_kill(), 2, limits, "boot-2");
    assert_eq!((recovered.len(), journal.closed_epochs()), (1, vec![(1, true)]));
    let (journal, _) = start(&disk, 3, limits, "boot-2");
    assert_eq!(journal.closed_epochs(), [(1, true)], "until it is forgotten");
    journal.forget_epoch(1);
    journal.forget_epoch(1);
    journal.tend();
    assert!(journal.closed_epochs().is_empty());
    drop(journal);
    let (journal, _) = start(&disk, 4, limits, "boot-2");
    // Not the one that was told, but the one that was killed, on the same boot.
    assert_eq!(journal.closed_epochs(), [(3, true)]);
}

#[test]
fn what_comes_after_the_end_is_kept_for_the_next_process_and_the_boot_counts_again() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    journal.finish();
    close(&journal, None, 7);
    drop(journal);
    let (journal, _) = start(&disk.after_kill(), 2, limits, "boot-2");
    assert_eq!(ship(&journal), [(7, Told::Closed)]);
    assert_eq!(journal.closed_epochs(), [(1, false)]);
}

/// Requests that stay open keep neither the disk full nor their place.
#[test]
fn requests_that_stay_open_are_written_again_at_the_end() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    let long = open(&journal, 1_000_000, 5).unwrap();
    journal.extended(&long, &[charge(9)], Nanos(9));
    let other = open(&journal, 1_000_001, 6).unwrap();
    for request in 0..1000 {
        let ticket = open(&journal, request, 5).unwrap();
        close(&journal, Some(ticket), request);
        ship(&journal);
    }
    assert!(disk.names().len() <= 8, "{:?}", disk.names());
    close(&journal, Some(other), 1_000_001);
    drop(journal);
    let (journal, recovered) = start(&disk.after_kill(), 2, limits, BOOT);
    assert_eq!((recovered[0].lost, recovered[0].exact, recovered[0].damaged), (1, true, 0));
    let told: BTreeMap<_, _> = ship(&journal).into_iter().collect();
    assert_eq!((told.get(&1_000_000), told.get(&1_000_001)), (Some(&Told::Lost(9)), Some(&Told::Closed)));
    assert_eq!(journal.closed_epochs(), [(1, true)]);
    assert!(
        told.keys().all(|request| *request >= 1_000_000 || *request > 900),
        "what was acknowledged long ago is gone: {told:?}"
    );
}

/// Sequences have no gap, whatever the batches are, and those of another epoch are their own.
#[test]
fn batches_are_of_one_epoch_and_numbered_without_gap() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    for request in 0..50 {
        close(&journal, None, request);
    }
    let _lost = open(&journal, 50, 5).unwrap();
    drop(journal);
    let (journal, _) = start(&disk.after_kill(), 2, limits, BOOT);
    for request in 51..80 {
        close(&journal, None, request);
    }
    assert_eq!((journal.untaken(), journal.stats().waiting), (80, 80));
    let mut next = BTreeMap::from([(1, 1), (2, 1)]);
    let mut epochs = Vec::new();
    while let Some(batch) = journal.take(7) {
        assert!(batch.events.len() <= 7);
        assert_eq!(Some(&batch.first_seq), next.get(&batch.epoch));
        *next.get_mut(&batch.epoch).unwrap() += batch.events.len() as u64;
        epochs.push(batch.epoch);
    }
    assert!(epochs.is_sorted(), "the oldest first");
    assert_eq!(next, BTreeMap::from([(1, 52), (2, 30)]));
    assert_eq!((journal.untaken(), journal.stats().waiting), (0, 80));
    // A part of a batch.
    journal.acknowledged(3);
    assert_eq!(journal.stats().waiting, 77);
    journal.acknowledged(1000);
    assert_eq!((journal.stats().waiting, journal.closed_epochs()), (0, vec![(1, true)]));
}

#[test]
fn a_batch_is_bounded_in_bytes_and_takes_at_least_one_event() {
    let limits = Limits { segment: SEGMENT, max: 1 << 30, memory: MEMORY };
    let (journal, _) = start(&Disk::new(), 1, limits, BOOT);
    let sizes = [10, 600_000, 600_000, 2_000_000, 5, 300_000];
    let text = "m".repeat(2_000_000);
    for size in sizes {
        journal.closed(None, &Event { metadata: &text[..size], ..Event::blank(1) });
    }
    let mut batches = Vec::new();
    while let Some(batch) = journal.take(100) {
        let length = |event: &Bytes| UsageEvent::decode(event.clone()).unwrap().metadata.len();
        batches.push(batch.events.messages().map(|it| length(&it)).collect::<Vec<_>>());
    }
    assert_eq!(batches, [vec![10, 600_000], vec![600_000], vec![2_000_000], vec![5, 300_000]]);
}

#[tokio::test]
async fn the_shipper_is_woken_by_a_full_batch_only() {
    use futures_util::FutureExt as _;
    let (journal, _) =
        start(&Disk::new(), 1, Limits { segment: SEGMENT, max: 1 << 30, memory: MEMORY }, BOOT);
    (1..WAKE_AT).for_each(|_| close(&journal, None, 0));
    assert!(journal.full_batch().now_or_never().is_none());
    close(&journal, None, 0);
    journal.full_batch().await;
}

#[test]
fn sizes_that_do_not_work_and_a_second_process_are_refused() {
    let disk = Disk::new();
    let writer = || Writer { epoch: 1, boot_id: BOOT.into() };
    let small = Journal::open(
        Arc::new(disk.clone()),
        Limits { segment: 4096, max: 4 * 4096 - 1, memory: 1 << 12 },
        writer(),
    );
    assert_eq!(small.err().unwrap().to_string(), "journal.max_bytes: expected at least 16384");
    let limits = Limits { segment: 4096, max: 4 * 4096, memory: 1 << 12 };
    let _first = Journal::open(Arc::new(disk.clone()), limits, writer()).unwrap();
    let second = Journal::open(Arc::new(disk), limits, writer()).err().unwrap();
    assert!(second.to_string().contains("another process"), "{second}");
}
