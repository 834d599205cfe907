//! I12: the journal is bounded, and what it cannot hold is refused or counted.

use proptest::prelude::*;

use super::*;

const SMALL: Limits = Limits { segment: 4096, max: 6 * 4096, memory: 1500 };

/// What must be billed is refused before anything is dropped; what was taken still gets its end; then the oldest goes.
#[test]
fn i12_a_full_journal_refuses_then_drops_the_oldest_and_counts_it() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, SMALL, BOOT);
    let mut taken = Vec::new();
    let mut request = 0;
    let full = loop {
        match open(&journal, request, 100) {
            Ok(ticket) if request % 10 == 0 => taken.push((request, ticket)),
            Ok(ticket) => close(&journal, Some(ticket), request),
            Err(full) => break full,
        }
        request += 1;
    };
    assert_eq!(full.to_string(), "the usage journal is full");
    assert!(journal.stats().full && journal.stats().dropped == 0, "refused before anything is lost");
    let open = taken.len();
    for (request, ticket) in taken {
        close(&journal, Some(ticket), request);
    }
    assert_eq!((journal.stats().dropped, open > 5), (0, true), "there was room for the ends");
    // Others go on, and push out the oldest.
    let first_free = 1_000_000;
    for request in first_free..first_free + 500 {
        close(&journal, None, request);
        assert!(disk.allocated() <= SMALL.max + 512, "{}", disk.allocated());
    }
    let dropped = journal.stats().dropped;
    assert!(dropped > 0 && super::open(&journal, 5, 100).is_err(), "still refused while events are dropped");
    let told = ship(&journal);
    assert_eq!(u64::from(request) + 500, dropped + told.len() as u64, "each is told of or counted");
    assert_eq!(told.last(), Some(&(first_free + 499, Told::Closed)));
    assert!(!journal.stats().full);
    let ticket = super::open(&journal, 5, 100).unwrap();
    close(&journal, Some(ticket), 5);
    ship(&journal);
    drop(journal);
    // The budgets' policies decide about an epoch of which something was dropped.
    let (journal, _) = start(&disk.after_kill(), 2, SMALL, BOOT);
    ship(&journal);
    assert_eq!(journal.closed_epochs(), [(1, false)]);
}

/// Open requests outlive the segments that are dropped.
#[test]
fn open_requests_are_not_dropped_with_their_segment() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, SMALL, BOOT);
    let long = open(&journal, 7, 100).unwrap();
    journal.extended(&long, &[charge(170)], Nanos(170));
    (100..1000).for_each(|request| close(&journal, None, request));
    assert!(journal.stats().dropped > 0);
    let (journal, _) = start(&disk.after_kill(), 2, SMALL, BOOT);
    assert_eq!(ship(&journal)[0], (7, Told::Lost(170)));
}

/// What earlier processes left counts, and goes first.
#[test]
fn what_is_left_of_earlier_processes_counts_and_goes_first() {
    let disk = Disk::new();
    for epoch in 1..=4 {
        let (journal, _) = start(&disk, epoch, SMALL, BOOT);
        let first = u32::try_from(epoch).unwrap() * 1000;
        (first..first + 40).for_each(|request| close(&journal, None, request));
        assert!(disk.allocated() <= SMALL.max + 512);
    }
    let (journal, recovered) = start(&disk, 5, SMALL, BOOT);
    let told = ship(&journal);
    assert!(told.iter().map(|(request, _)| request).is_sorted());
    let lost: Vec<_> = journal.closed_epochs();
    assert_eq!((lost[0], lost[3]), ((1, false), (4, true)), "{recovered:?}");
    assert!(told.iter().filter(|(request, _)| *request >= 4000).count() == 40);
}

/// The request may have cost what it was extended to; if the process dies, less is charged.
#[test]
fn an_extension_that_can_not_be_written_costs_the_epoch_its_exactness() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, SMALL, BOOT);
    let ticket = open(&journal, 7, 100).unwrap();
    disk.room(Some(0));
    disk.write_at_most(Some(0));
    journal.extended(&ticket, &[charge(170)], Nanos(170));
    let (journal, _) = start(&disk.after_kill(), 2, SMALL, BOOT);
    assert_eq!(ship(&journal), [(7, Told::Lost(100))]);
    assert_eq!(journal.closed_epochs(), [(1, false)]);
}

/// Its segment made room for one that the disk then refused as well.
#[test]
fn an_open_request_that_can_not_be_written_again_costs_the_epoch_its_exactness() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, SMALL, BOOT);
    let _long = open(&journal, 7, 100).unwrap();
    for request in 100.. {
        close(&journal, None, request);
        if disk.names().iter().filter(|name| name.ends_with(".log")).count() == 2 {
            break;
        }
    }
    ship(&journal);
    disk.write_at_most(Some(0));
    assert_eq!(open(&journal, 8, 100).err(), Some(Full));
    assert!(!disk.names().contains(&"1-1.log".to_owned()) && journal.stats().dropped == 0);
    let (journal, _) = start(&disk.after_kill(), 2, SMALL, BOOT);
    let told = ship(&journal);
    assert!(told.iter().all(|(request, _)| *request >= 100), "nothing tells of it: {told:?}");
    assert_eq!(journal.closed_epochs(), [(1, false)]);
}

/// A segment without events of its own may be the only one that tells of requests that were lost.
#[test]
fn dropping_what_tells_of_lost_requests_costs_their_epoch_its_exactness() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, SMALL, BOOT);
    let _lost = open(&journal, 7, 100).unwrap();
    let disk = disk.after_kill();
    let (journal, recovered) = start(&disk, 2, SMALL, BOOT);
    assert!(recovered[0].exact && recovered[0].lost == 1);
    (100..1000).for_each(|request| close(&journal, None, request));
    assert!(!disk.names().contains(&"1-1.log".to_owned()));
    let (journal, _) = start(&disk.after_kill(), 3, SMALL, BOOT);
    assert_eq!(journal.closed_epochs(), [(1, false)]);
}

/// A disk that others have filled: as if the bound were reached, until there is room again.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, Limits { segment: 4096, max: 1 << 20, memory: 1500 }, BOOT);
    disk.room(Some(3 * 4096));
    let mut request = 0;
    while let Ok(ticket) = open(&journal, request, 100) {
        close(&journal, Some(ticket), request);
        journal.tend();
        request += 1;
    }
    assert!(request > 10 && journal.stats().dropped == 0, "{request}");
    disk.room(None);
    // The keeper tries again, with nobody writing.
    journal.tend();
    let ticket = open(&journal, request, 100).unwrap();
    close(&journal, Some(ticket), request);
    assert_eq!(u32::try_from(ship(&journal).len()), Ok(request + 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Never more than the bound on the disk, and every event is given out or counted.
    #[test]
    fn i12_the_journal_stays_within_its_bound(ops in prop::collection::vec(0..7_u8, 1..600)) {
        let disk = Disk::new();
        let (journal, _) = start(&disk, 1, SMALL, BOOT);
        let (mut open, mut told, mut closed, mut owed) = (Vec::new(), 0, 0_u64, 0);
        for (request, op) in (0_u32..).zip(ops) {
            match op {
                0 | 1 => open.extend(super::open(&journal, request, 100)),
                2 if !open.is_empty() => {
                    close(&journal, Some(open.swap_remove(0)), request);
                    closed += 1;
                }
                4 => {
                    let count = journal.take(20).map_or(0, |batch| batch.events.len());
                    (told, owed) = (told + count as u64, owed + count);
                }
                5 => journal.acknowledged(std::mem::take(&mut owed) / 2),
                6 => journal.tend(),
                _ => {
                    close(&journal, None, request);
                    closed += 1;
                }
            }
            prop_assert!(disk.allocated() <= SMALL.max + 512, "{}", disk.allocated());
            prop_assert!(journal.stats().waiting <= closed);
        }
        while let Some(batch) = journal.take(50) {
            told += batch.events.len() as u64;
        }
        // Those that were given out before their segment was dropped are counted as well.
        prop_assert!(told + journal.stats().dropped >= closed, "{} {} {}", told, journal.stats().dropped, closed);
        prop_assert!(told <= closed);
    }
}
