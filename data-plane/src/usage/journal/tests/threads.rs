//! Many threads and a real directory.

use std::{
    collections::BTreeSet,
    io,
    sync::{Barrier, Mutex, atomic::AtomicBool},
    time::Duration,
};

use super::{storage::SegmentFile, *};

/// A disk on which the first segment to be removed is in no hurry.
struct Slow {
    disk: Disk,
    removed: Mutex<Vec<String>>,
    first: AtomicBool,
    begun: Barrier,
}

impl Storage for Slow {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        self.disk.list()
    }
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentFile>> {
        self.disk.create(name, len)
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        self.disk.open(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.disk.truncate(name, len)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        if self.first.swap(false, std::sync::atomic::Ordering::AcqRel) {
            self.begun.wait();
            std::thread::sleep(Duration::from_millis(200));
        }
        self.removed.lock().unwrap().push(name.to_owned());
        self.disk.remove(name)
    }
    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.disk.put(name, content)
    }
}

/// A process that dies in between must not leave segments without what says that they are whole.
#[test]
fn a_marker_is_removed_after_its_segments_whoever_removes_them() {
    let limits = Limits { segment: 4096, max: 1 << 20, memory: 1 << 12 };
    let disk = Disk::new();
    let (journal, _) = start(&disk, 1, limits, BOOT);
    for request in 0..50 {
        let ticket = open(&journal, request, 5).unwrap();
        close(&journal, Some(ticket), request);
    }
    drop(journal);
    let slow = Arc::new(Slow {
        disk: disk.after_kill(),
        removed: Mutex::default(),
        first: true.into(),
        begun: Barrier::new(2),
    });
    let writer = Writer { epoch: 2, boot_id: BOOT.into() };
    let journal = Journal::open(slow.clone(), limits, writer).unwrap().0;
    while let Some(batch) = journal.take(7) {
        journal.acknowledged(batch.events.len());
    }
    std::thread::scope(|scope| {
        scope.spawn(|| journal.tend());
        slow.begun.wait();
        journal.forget_epoch(1);
        journal.finish();
    });
    let removed = slow.removed.lock().unwrap();
    let marker = removed.iter().position(|name| name == "1.epoch").unwrap();
    let segments: Vec<_> = removed.iter().filter(|name| name.starts_with("1-")).collect();
    assert!(!segments.is_empty());
    assert!(removed[marker..].iter().all(|name| !name.starts_with("1-")), "{removed:?}");
}

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
