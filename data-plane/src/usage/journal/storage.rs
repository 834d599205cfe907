//! The disk under the journal, as little of it as the journal needs: a test puts a model in its place, which tears, fills
//! up and forgets. Called by [`super::log`] and [`super::recovery`].
//!
//! [`Directory`] maps its segments into memory: a store into such a page is the page cache's, and survives the process
//! like `write()` does, for a quarter of the price. The blocks are allocated first, for a hole on a full disk would be
//! SIGBUS; where mapping or allocating is not possible, `pwrite` does it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use mmap_io::{MemoryMappedFile, MmapMode};
use rustix::fs::{FallocateFlags, FlockOperation, flock};

/// A flat directory.
pub trait Storage: Send + Sync + 'static {
    /// Names and lengths of all files.
    ///
    /// # Errors
    /// When the directory can't be read.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// A new file of `len` zeros, for which there is room from then on.
    ///
    /// # Errors
    /// When there is no room, or such a file already.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentFile>>;

    /// A file to read.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>>;

    /// # Errors
    /// When the disk refuses.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// # Errors
    /// When the disk refuses.
    fn truncate(&self, name: &str, len: u64) -> io::Result<()>;

    /// # Errors
    /// When the disk refuses; that there is none is no error.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Replaces a small file, durably and as a whole.
    ///
    /// # Errors
    /// When the disk refuses. The file is as it was then.
    fn put(&self, name: &str, content: &[u8]) -> io::Result<()>;
}

/// An open file.
pub trait SegmentFile: Send + Sync {
    /// Survives the death of the process, not that of the machine.
    ///
    /// # Errors
    /// When the disk refuses; part of it may have been written then.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// `len` bytes, fewer at the end of the file.
    ///
    /// # Errors
    /// When the disk can't read them.
    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Survives the death of the machine from then on.
    ///
    /// # Errors
    /// When the disk refuses.
    fn sync(&self) -> io::Result<()>;
}

const LOCK: &str = "lock";
/// How long a process that is ending may still use the directory.
const PATIENCE: Duration = Duration::from_secs(5);

/// The real one. One process has it at a time: another one would take its open requests for lost.
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// At `path`, which is made when missing. Blocks while another process still has it, for a moment.
    ///
    /// # Errors
    /// When it can't be made, or the other process goes on.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path.join(LOCK))?;
        let begun = Instant::now();
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            match error {
                rustix::io::Errno::WOULDBLOCK if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                rustix::io::Errno::WOULDBLOCK => {
                    let message =
                        "another process uses this directory: each node needs a data_dir of its own";
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
                }
                // A file system without locks.
                _ => break,
            }
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Storage for Directory {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                files.push((name, metadata.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let path = self.path.join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let made = allocate(&file, len).and_then(|()| map(&file, &path));
        match made {
            Ok(map) => Ok(Arc::new(Segment { file, map })),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(Segment { file, map: None }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path.join(name))?.set_len(len)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let temporary = self.path.join(format!("{name}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, self.path.join(name))?;
        self.sync()
    }
}

/// Reserves the blocks. Where the file system can't, zeros are written: that takes them as well.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    const ZEROS: &[u8] = &[0; 64 * 1024];
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            let mut at = 0;
            while at < len {
                let part = ZEROS.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
                file.write_all_at(&ZEROS[..part], at)?;
                at += part as u64;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// `None`: this file system maps nothing for writing.
fn map(file: &File, path: &Path) -> io::Result<Option<MemoryMappedFile>> {
    Ok(MemoryMappedFile::from_file(file.try_clone()?, MmapMode::ReadWrite, path).ok())
}

struct Segment {
    file: File,
    map: Option<MemoryMappedFile>,
}

impl SegmentFile for Segment {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.map {
            Some(map) => map.update_region(at, bytes).map_err(io::Error::other),
            None => self.file.write_all_at(bytes, at),
        }
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match self.file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Also writes what was stored through the mapping: its pages are the file's.
    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_through_the_mapping_is_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Directory::open(&dir.path().join("a/b")).unwrap();
        let file = storage.create("one", 1 << 20).unwrap();
        assert!(storage.create("one", 1 << 20).is_err(), "made once");
        file.write(5000, b"hello").unwrap();
        assert!(file.write((1 << 20) - 2, b"hello").is_err(), "beyond the end");
        assert_eq!(file.read(4999, 7).unwrap(), b"\0hello\0");
        assert_eq!(fs::read(dir.path().join("a/b/one")).unwrap()[5000..5005], *b"hello");
        file.sync().unwrap();
        storage.rename("one", "two").unwrap();
        storage.truncate("two", 5003).unwrap();
        assert_eq!(storage.open("two").unwrap().read(5000, 99).unwrap(), b"hel");
        storage.put("marker", b"text").unwrap();
        let mut files = storage.list().unwrap();
        files.sort();
        assert_eq!(files, [("lock".to_owned(), 0), ("marker".to_owned(), 4), ("two".to_owned(), 5003)]);
        storage.remove("two").unwrap();
        storage.remove("two").unwrap();
    }

    #[test]
    fn a_directory_is_of_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = Directory::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| Directory::open(dir.path()).map(|_| ()));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!second.is_finished(), "it waits");
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
