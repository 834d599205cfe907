//! Many threads and a real directory.

use std::{collections::BTreeSet, sync::atomic::AtomicBool, time::Duration};

use super::*;

#[test]
fn threads_share_a_journal_on_a_real_disk() {
    const EACH: u32 = 5000;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment: 1 << 16, max: 1 << 28, memory: 1 << 14 };
    let begin = |epoch| {
        let storage = Arc::new(Directory::open(dir.path()).unwrap());
        let journal = Journal::open(storage, limits, Writer { epoch, boot_id: BOOT.into() }).unwrap().0;
        journal.keep(Duration::from_millis(1)).unwrap();
        journal
    };
    let journal = begin(1);
    let done = AtomicBool::new(false);
    let mut told = BTreeSet::new();
    std::thread::scope(|scope| {
        let shipper = scope.spawn(|| {
            let mut told = Vec::new();
            while !done.load(std::sync::atomic::Ordering::Acquire) || journal.untaken() > 0 {
                let Some(batch) = journal.take(500) else { continue };
                told.extend(batch.events.messages().map(|it| super::told(&it)));
                journal.acknowledged(batch.events.len());
            }
            told
        });
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let journal = journal.clone();
                scope.spawn(move || {
                    for request in writer * EACH..(writer + 1) * EACH {
                        let ticket = open(&journal, request, 100).unwrap();
                        journal.extended(&ticket, &[charge(101)], Nanos(101));
                        if request % EACH != 0 {
                            close(&journal, Some(ticket), request);
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, std::sync::atomic::Ordering::Release);
        for (request, it) in shipper.join().unwrap() {
            assert!(it == Told::Closed && told.insert(request), "{request} is told of once");
        }
    });
    assert_eq!(u32::try_from(told.len()), Ok(4 * (EACH - 1)));
    drop(journal);
    let journal = begin(2);
    let mut lost: Vec<_> =
        ship(&journal).into_iter().filter(|(request, _)| !told.contains(request)).collect();
    lost.sort_by_key(|(request, _)| *request);
    assert_eq!(lost, [0, EACH, 2 * EACH, 3 * EACH].map(|request| (request, Told::Lost(101))));
    assert_eq!(journal.closed_epochs(), [(1, true)]);
    journal.forget_epoch(1);
    journal.finish();
    let names: BTreeSet<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["2.epoch", "lock"].map(Into::into).into());
}
