//! Whatever is in the journal's directory: a node starts, gives out what can be read, each event once, and ends the
//! epochs. The input is a list of files: kind and number, length, bytes.
#![no_main]

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use libfuzzer_sys::fuzz_target;
use nemo_data_plane::usage::journal::{Journal, Limits, SegmentFile, Storage, Writer};

fuzz_target!(|data: &[u8]| {
    let disk = Disk::default();
    let mut rest = data;
    while let [kind, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (bytes, more) = tail.split_at(length);
        let (epoch, number) = (kind >> 4 & 3, kind & 7);
        let name = if kind >> 7 == 1 { format!("{epoch}.epoch") } else { format!("{epoch}-{number}.log") };
        disk.put(&name, bytes).expect("memory");
        rest = more;
    }
    let limits = Limits { segment: 4096, max: 1 << 22, memory: 0 };
    let writer = Writer { epoch: 100, boot_id: "boot".into() };
    let (journal, recovered) =
        Journal::open(Arc::new(disk.clone()), limits, writer).expect("it always starts");
    let expected: u64 = recovered.iter().map(|it| it.events + it.lost).sum();
    let mut given = 0;
    while let Some(batch) = journal.take(7) {
        given += batch.events.len() as u64;
        journal.acknowledged(batch.events.len());
    }
    assert_eq!(given + journal.stats().dropped, expected);
    assert_eq!((journal.stats().waiting, journal.closed_epochs().len()), (0, recovered.len()));
    journal.finish();
    let left = disk.list().expect("memory");
    assert!(left.iter().all(|(name, _)| name.ends_with(".epoch")), "{left:?}");
});

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<BTreeMap<String, Arc<File>>>>);

#[derive(Default)]
struct File(Mutex<Vec<u8>>);

impl Disk {
    fn find(&self, name: &str) -> io::Result<Arc<File>> {
        self.0.lock().expect("unpoisoned").get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let files = self.0.lock().expect("unpoisoned");
        Ok(files
            .iter()
            .map(|(name, file)| (name.clone(), file.0.lock().expect("unpoisoned").len() as u64))
            .collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentFile>> {
        self.put(name, &vec![0; len as usize])?;
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(self.find(name)?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        let mut files = self.0.lock().expect("unpoisoned");
        files.remove(from);
        files.insert(to.into(), file);
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.find(name)?.0.lock().expect("unpoisoned").resize(len as usize, 0);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().expect("unpoisoned").remove(name);
        Ok(())
    }

    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let file = Arc::new(File(Mutex::new(content.to_vec())));
        self.0.lock().expect("unpoisoned").insert(name.into(), file);
        Ok(())
    }
}

impl SegmentFile for File {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock().expect("unpoisoned");
        let place = content.get_mut(at as usize..).and_then(|it| it.get_mut(..bytes.len()));
        place.ok_or(io::ErrorKind::WriteZero)?.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let content = self.0.lock().expect("unpoisoned");
        let from = (at as usize).min(content.len());
        Ok(content[from..(from + len).min(content.len())].to_vec())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
