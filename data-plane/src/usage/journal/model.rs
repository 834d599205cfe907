//! A disk in memory that behaves as badly as a real one may: it is full, writes part of what it is given, and forgets
//! what was not synced when the machine dies. For tests.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use super::storage::{SegmentFile, Storage};

#[derive(Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Bytes that may still be allocated; `None`: as many as wanted.
    room: Option<u64>,
    budget: Arc<Mutex<Budget>>,
    after_sync: Hook,
}

/// What somebody else does at that moment, once.
type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Bytes that may still be written into segments: the process dies, or the disk breaks, in the middle.
#[derive(Clone, Copy, Default)]
struct Budget {
    left: Option<u64>,
    /// Nothing changes any more after the last one.
    kills: bool,
    killed: bool,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    /// As of the last sync.
    synced: Vec<u8>,
    /// What was written since then.
    writes: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// So many bytes may be allocated from now on.
    pub fn room(&self, bytes: Option<u64>) {
        self.state().room = bytes;
    }

    /// So many bytes are written into segments from now on; then writes end short and fail.
    pub fn write_at_most(&self, bytes: Option<u64>) {
        *self.state().budget.lock().unwrap() = Budget { left: bytes, ..Budget::default() };
    }

    /// The process dies when it has written so many bytes into segments.
    pub fn kill_after(&self, bytes: u64) {
        *self.state().budget.lock().unwrap() = Budget { left: Some(bytes), kills: true, killed: false };
    }

    pub fn is_killed(&self) -> bool {
        self.state().budget.lock().unwrap().killed
    }

    /// This happens when the next sync is done.
    pub fn after_sync(&self, what: impl FnOnce() + Send + 'static) {
        *self.state().after_sync.lock().unwrap() = Some(Box::new(what));
    }

    fn file(state: &State, content: Arc<Mutex<Content>>) -> Arc<dyn SegmentFile> {
        Arc::new(File { content, budget: state.budget.clone(), after_sync: state.after_sync.clone() })
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_killed() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    /// What another process finds after this one was killed.
    pub fn after_kill(&self) -> Self {
        let state = self.state();
        let files = state.files.iter().map(|(name, file)| {
            let bytes = file.lock().unwrap().bytes.clone();
            (name.clone(), Arc::new(Mutex::new(Content { synced: bytes.clone(), bytes, writes: Vec::new() })))
        });
        Self { state: Arc::new(Mutex::new(State { files: files.collect(), ..State::default() })) }
    }

    /// What is found after the machine died: of what was written since the last sync, what `keep` says.
    pub fn after_power_loss(&self, mut keep: impl FnMut() -> bool) -> Self {
        let state = self.state();
        let files = state.files.iter().map(|(name, file)| {
            let file = file.lock().unwrap();
            let mut bytes = file.synced.clone();
            for (at, written) in &file.writes {
                if keep() {
                    bytes[*at..at + written.len()].copy_from_slice(written);
                }
            }
            (name.clone(), Arc::new(Mutex::new(Content { synced: bytes.clone(), bytes, writes: Vec::new() })))
        });
        Self { state: Arc::new(Mutex::new(State { files: files.collect(), ..State::default() })) }
    }

    pub fn names(&self) -> Vec<String> {
        self.state().files.keys().cloned().collect()
    }

    pub fn allocated(&self) -> u64 {
        self.state().files.values().map(|file| file.lock().unwrap().bytes.len() as u64).sum()
    }

    /// Whatever garbage a test wants there.
    pub fn set(&self, name: &str, bytes: Vec<u8>) {
        let content = Content { synced: bytes.clone(), bytes, writes: Vec::new() };
        self.state().files.insert(name.into(), Arc::new(Mutex::new(content)));
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        self.state().files[name].lock().unwrap().bytes.clone()
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Storage for Disk {
    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let state = self.state();
        Ok(state
            .files
            .iter()
            .map(|(name, file)| (name.clone(), file.lock().unwrap().bytes.len() as u64))
            .collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentFile>> {
        self.alive()?;
        let mut state = self.state();
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if let Some(room) = &mut state.room {
            *room = room.checked_sub(len).ok_or(io::ErrorKind::StorageFull)?;
        }
        let zeros = vec![0; usize::try_from(len).unwrap()];
        let content =
            Arc::new(Mutex::new(Content { synced: zeros.clone(), bytes: zeros, writes: Vec::new() }));
        state.files.insert(name.into(), content.clone());
        Ok(Self::file(&state, content))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let state = self.state();
        let content = state.files.get(name).cloned().ok_or_else(missing)?;
        Ok(Self::file(&state, content))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.alive()?;
        let mut state = self.state();
        let file = state.files.remove(from).ok_or_else(missing)?;
        state.files.insert(to.into(), file);
        Ok(())
    }

    fn truncate(&self, name: &str, len: u64) -> io::Result<()> {
        self.alive()?;
        let state = self.state();
        let mut file = state.files.get(name).ok_or_else(missing)?.lock().unwrap();
        let len = usize::try_from(len).unwrap();
        file.bytes.resize(len, 0);
        file.synced.resize(len, 0);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?;
        let mut state = self.state();
        let removed = state.files.remove(name);
        if let (Some(file), Some(room)) = (removed, &mut state.room) {
            *room += file.lock().unwrap().bytes.len() as u64;
        }
        Ok(())
    }

    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.alive()?;
        self.set(name, content.to_vec());
        Ok(())
    }
}

struct File {
    content: Arc<Mutex<Content>>,
    budget: Arc<Mutex<Budget>>,
    after_sync: Hook,
}

impl SegmentFile for File {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(at).unwrap();
        let mut content = self.content.lock().unwrap();
        if at + bytes.len() > content.bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let mut part = bytes.len();
        let mut budget = self.budget.lock().unwrap();
        if let Some(left) = &mut budget.left {
            part = part.min(usize::try_from(*left).unwrap());
            *left -= part as u64;
            budget.killed = budget.kills && part < bytes.len();
        }
        content.bytes[at..at + part].copy_from_slice(&bytes[..part]);
        content.writes.push((at, bytes[..part].to_vec()));
        if part < bytes.len() { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    fn read(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        let content = self.content.lock().unwrap();
        let from = usize::try_from(at).unwrap().min(content.bytes.len());
        Ok(content.bytes[from..(from + len).min(content.bytes.len())].to_vec())
    }

    fn sync(&self) -> io::Result<()> {
        let mut content = self.content.lock().unwrap();
        content.synced = content.bytes.clone();
        content.writes.clear();
        drop(content);
        let hook = self.after_sync.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        Ok(())
    }
}
