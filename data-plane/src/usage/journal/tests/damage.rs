//! Files that are not what was written: garbage, changed bits, missing segments.

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { segment: 4096, max: 1 << 22, memory: 0 };

/// A journal of one process that was killed, with open requests.
fn left(requests: u32) -> Disk {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, LIMITS, BOOT);
    for request in 0..requests {
        let ticket = open(&journal, request, 100).unwrap();
        if request % 5 != 0 {
            close(&journal, Some(ticket), request);
        }
    }
    disk.after_kill()
}

fn segments(disk: &Disk) -> Vec<String> {
    let mut names = disk.names();
    names.retain(|name| name.ends_with(".log"));
    names.sort_by_key(|name| log::parse_segment_name(name));
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is in the files: recovery ends, tells nothing that was not written, and loses nothing in silence.
    #[test]
    fn recovery_of_changed_files_tells_only_what_was_written(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let disk = left(60);
        let names = segments(&disk);
        for (file, at, value) in changes {
            let name = file.get(&names);
            let mut bytes = disk.get(name);
            let at = at.index(bytes.len());
            bytes[at] = value;
            disk.set(name, bytes);
        }
        if let Some((file, len)) = cut {
            let name = file.get(&names);
            let mut bytes = disk.get(name);
            bytes.truncate(len.index(bytes.len() + 1));
            disk.set(name, bytes);
        }
        let (journal, recovered) = start(&disk, 2, LIMITS, BOOT);
        // One that is killed before it has shipped anything has cut off what is damaged, but not kept it to itself.
        let (_, again) = start(&disk.after_kill(), 3, LIMITS, BOOT);
        prop_assert_eq!(again[0].exact, recovered[0].exact, "{:?} {:?}", recovered, again);
        let told = ship(&journal);
        let mut seen = std::collections::BTreeSet::new();
        for (request, it) in &told {
            prop_assert!(*request < 60 && seen.insert(*request), "{request} is told of twice");
            // One whose end is damaged is charged as it was reserved.
            prop_assert!(*it == Told::Lost(100) || *it == Told::Closed && request % 5 != 0, "{request}: {it:?}");
        }
        let whole = (0..60).all(|request| told.contains(&(request, if request % 5 == 0 { Told::Lost(100) } else { Told::Closed })));
        // The last record alone may be torn, which nobody can tell from a process that was killed while it wrote it.
        prop_assert!(whole || !recovered[0].exact || recovered[0].torn > 0, "{recovered:?}");
        prop_assert_eq!(journal.closed_epochs(), vec![(1, recovered[0].exact)]);
        prop_assert_eq!((journal.stats().waiting, journal.untaken()), (0, 0));
        journal.finish();
        prop_assert!(segments(&disk).is_empty());
    }

    #[test]
    fn recovery_of_garbage_finds_nothing(
        files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..5),
        marker in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let disk = Disk::new();
        for (at, bytes) in files.into_iter().enumerate() {
            disk.set(&format!("1-{}.log", at * 10 + 1), bytes);
        }
        disk.set("1.epoch", marker);
        disk.set("notes.txt", b"not ours".to_vec());
        disk.set("x-1.log", b"nor this".to_vec());
        let (journal, recovered) = start(&disk, 2, LIMITS, BOOT);
        prop_assert_eq!((recovered[0].events, recovered[0].lost, recovered[0].exact), (0, 0, false));
        prop_assert_eq!(ship(&journal), vec![]);
        prop_assert_eq!(journal.closed_epochs(), vec![(1, false)]);
        prop_assert!(disk.names().contains(&"notes.txt".to_owned()), "what is not ours stays");
    }
}

#[test]
fn damage_in_the_middle_costs_what_is_damaged_and_the_epoch_its_exactness() {
    let disk = left(60);
    let names = segments(&disk);
    assert!(names.len() > 2, "{names:?}");
    let mut bytes = disk.get(&names[1]);
    bytes[1000] ^= 0xff;
    disk.set(&names[1], bytes);
    let (journal, recovered) = start(&disk, 2, LIMITS, BOOT);
    assert_eq!((recovered[0].damaged, recovered[0].exact), (1, false));
    let told = ship(&journal);
    assert!(told.len() >= 59, "{}", told.len());
}

/// What the events of others have in common is of no use to anybody else, and what refers to it is told by nothing.
#[test]
fn damage_of_a_shape_costs_what_refers_to_it_and_the_epoch_its_exactness() {
    let disk = left(60);
    let names = segments(&disk);
    let mut bytes = disk.get(&names[1]);
    let (mut at, mut shapes, mut short) = (record::SEGMENT_HEAD, Vec::new(), 0);
    while let Some(found) = record::read(&bytes, at, 1) {
        if found.kind == record::Kind::Shape {
            shapes.push(found.payload.start);
        }
        short += usize::from(found.shape > 0);
        at = found.next;
    }
    assert!(shapes.len() == 2 && short > 10, "{shapes:?} {short}");
    shapes.iter().for_each(|at| bytes[*at] ^= 0xff);
    disk.set(&names[1], bytes);
    let (journal, recovered) = start(&disk, 2, LIMITS, BOOT);
    assert!(recovered[0].damaged > 2 && !recovered[0].exact, "{recovered:?}");
    let told = ship(&journal);
    assert_eq!(told.len() as u64, recovered[0].events + recovered[0].lost);
    assert!(told.len() >= 60 - short && told.len() < 60, "{}", told.len());
    assert_eq!((journal.stats().dropped, journal.closed_epochs()), (0, vec![(1, false)]));
}

#[test]
fn a_missing_segment_is_noticed() {
    let disk = left(60);
    let names = segments(&disk);
    disk.remove(&names[1]).unwrap();
    let (_, recovered) = start(&disk, 2, LIMITS, BOOT);
    assert_eq!((recovered[0].damaged, recovered[0].exact), (1, false));
}

/// The disk breaks under the process that wrote: it says so, and goes on with what is behind.
#[test]
fn damage_under_a_living_process_is_counted_and_passed_over() {
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, LIMITS, BOOT);
    (0..60).for_each(|request| close(&journal, None, request));
    let names = segments(&disk);
    let file = disk.open(&names[0]).unwrap();
    file.write(1000, &[0xff; 8]).unwrap();
    let told = ship(&journal);
    let stats = journal.stats();
    assert_eq!((told.len() as u64 + stats.dropped, stats.waiting), (60, 0));
    assert!(stats.dropped > 0 && stats.dropped < 30, "{}", stats.dropped);
    drop(journal);
    let (journal, _) = start(&disk.after_kill(), 2, LIMITS, BOOT);
    ship(&journal);
    assert_eq!(journal.closed_epochs(), [(1, false)]);
}

/// A request that stays open is written again with what it may have cost. Where that can't be read, it is told of with less.
#[test]
fn damage_of_what_is_written_again_costs_the_epoch_its_exactness() {
    for damaged in [false, true] {
        let disk = Disk::new();
        let (journal, _) = start(&disk, 1, LIMITS, BOOT);
        let long = open(&journal, 0, 100).unwrap();
        journal.extended(&long, &[charge(300)], Nanos(300));
        let first = segments(&disk).remove(0);
        if damaged {
            let (bytes, mut at) = (disk.get(&first), record::SEGMENT_HEAD);
            let found = std::iter::from_fn(|| {
                let found = record::read(&bytes, at, 1)?;
                at = found.next;
                Some(found)
            });
            let change = found.filter(|it| it.kind == record::Kind::Extended).last().unwrap().payload.start;
            disk.open(&first).unwrap().write(change as u64, &[0xff]).unwrap();
        }
        // More segments than an open request keeps the first of.
        for request in 1..200 {
            close(&journal, None, request);
        }
        assert_eq!(ship(&journal).len(), 199);
        assert!(!disk.names().contains(&first), "{:?}", disk.names());
        let (journal, recovered) = start(&disk.after_kill(), 2, LIMITS, BOOT);
        assert_eq!((recovered[0].lost, recovered[0].exact), (1, !damaged), "{recovered:?}");
        assert_eq!(ship(&journal)[0], (0, Told::Lost(if damaged { 100 } else { 300 })));
    }
}

/// What shows the damage is deleted as soon as its events are acknowledged; that something is missing stays known.
#[test]
fn a_process_that_finds_damage_leaves_word_of_it() {
    let disk = left(60);
    let names = segments(&disk);
    let mut bytes = disk.get(&names[0]);
    bytes[1000] ^= 0xff;
    disk.set(&names[0], bytes);
    let (journal, recovered) = start(&disk, 2, LIMITS, BOOT);
    assert!(!recovered[0].exact);
    while disk.names().contains(&names[0]) {
        let batch = journal.take(1).unwrap();
        journal.acknowledged(batch.events.len());
        journal.tend();
    }
    assert!(disk.names().contains(&names[1]));
    let (journal, recovered) = start(&disk.after_kill(), 3, LIMITS, BOOT);
    assert_eq!((recovered[0].damaged, recovered[0].exact), (0, false));
    ship(&journal);
    assert!(journal.closed_epochs().contains(&(1, false)), "{:?}", journal.closed_epochs());
}

/// Nor is it forgotten with what is cut off behind the last record.
#[test]
fn damage_that_is_cut_off_stays_known() {
    let disk = left(60);
    let name = segments(&disk).pop().unwrap();
    let mut bytes = disk.get(&name);
    *bytes.last_mut().unwrap() = 1;
    disk.set(&name, bytes);
    let (_, recovered) = start(&disk, 2, LIMITS, BOOT);
    assert_eq!((recovered[0].damaged, recovered[0].exact), (1, false));
    let (_, recovered) = start(&disk.after_kill(), 3, LIMITS, BOOT);
    assert_eq!((recovered[0].damaged, recovered[0].exact), (0, false));
}

/// The same where it is only found when the events are read.
#[test]
fn damage_of_a_former_epoch_under_a_living_process_is_written_down_for_that_epoch() {
    let disk = left(60);
    let names = segments(&disk);
    let (journal, recovered) = start(&disk, 2, LIMITS, BOOT);
    assert!(recovered[0].exact);
    let bytes = disk.get(&names[0]);
    let mut record = record::read(&bytes, record::SEGMENT_HEAD, 1).unwrap();
    while record.kind != record::Kind::Closed {
        record = record::read(&bytes, record.next, 1).unwrap();
    }
    disk.open(&names[0]).unwrap().write(record.payload.start as u64, &[0xff; 4]).unwrap();
    ship(&journal);
    assert!(journal.stats().dropped > 0);
    let (journal, _) = start(&disk.after_kill(), 3, LIMITS, BOOT);
    assert_eq!(journal.closed_epochs(), [(1, false), (2, true)]);
}

/// A write that ends short is made again elsewhere: nothing is missing, here or for the next process.
#[test]
fn short_writes_lose_nothing() {
    for short in 0..200 {
        let disk = Disk::new();
        let (journal, _) = start(&disk, 1, LIMITS, BOOT);
        (0..3).for_each(|request| close(&journal, None, request));
        disk.write_at_most(Some(short));
        let before = journal.stats().dropped;
        let ticket = open(&journal, 3, 100);
        disk.write_at_most(None);
        let opened = ticket.is_ok();
        close(&journal, ticket.ok(), 3);
        (4..60).for_each(|request| close(&journal, None, request));
        assert_eq!(journal.stats().dropped, before);
        let (journal, recovered) = start(&disk.after_kill(), 2, LIMITS, BOOT);
        assert!(recovered[0].exact && recovered[0].damaged == 0, "{recovered:?}");
        let expected: Vec<_> = (0..60).map(|request| (request, Told::Closed)).collect();
        assert_eq!(ship(&journal), expected, "after {short} bytes, opened: {opened}");
    }
}
