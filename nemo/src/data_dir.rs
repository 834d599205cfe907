//! The data directory of `nemo standalone`: where it is, what is in it, and that only one process uses it.
//!
//! ```text
//! nemo-data         layout of this directory
//! lock              held while a process uses it; names its pid
//! sealing.key       seals provider credentials (owner only)
//! admin-token       the operator's token, for `nemo keys …` (owner only)
//! standalone.json   addresses of the running process
//! postgres/ run/    the database and its socket
//! node/             the data plane's own files
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};

/// Raised when files move or change their meaning.
const LAYOUT: &str = "1";
const MARKER: &str = "nemo-data";
const MARKER_TEXT: &str = "Nemo Router data directory, layout ";

/// `--data-dir` when it is not given.
///
/// # Errors
/// When neither `XDG_DATA_HOME` nor `HOME` says where a user's data belongs.
pub fn default_path() -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    choose_default(rustix::process::geteuid().is_root(), variable("XDG_DATA_HOME"), variable("HOME"))
}

fn choose_default(root: bool, xdg: Option<PathBuf>, home: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if root {
        return Ok(PathBuf::from("/var/lib/nemo-router"));
    }
    // The specification says that a relative XDG_DATA_HOME is to be ignored.
    let base = xdg.filter(|path| path.is_absolute()).or_else(|| home.map(|home| home.join(".local/share")));
    let base =
        base.context("neither XDG_DATA_HOME nor HOME is set; say where data belongs with --data-dir")?;
    Ok(base.join("nemo-router"))
}

/// A data directory that exists and has this build's layout.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
}

/// Holds the directory. Released when dropped, or when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl DataDir {
    /// Opens the directory, makes it if needed, and takes its lock.
    ///
    /// # Errors
    /// When it cannot be used, is of another version, holds something else, or is in use.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Lock)> {
        if !path.exists() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| unusable(path, "cannot be created", &error))?;
        }
        let path = path.canonicalize().map_err(|error| unusable(path, "cannot be opened", &error))?;
        let dir = Self { path };
        dir.check_layout()?;
        let lock = dir.lock()?;
        if !dir.file(MARKER).exists() {
            write_file(&dir.file(MARKER), format!("{MARKER_TEXT}{LAYOUT}\n").as_bytes(), 0o644)?;
        }
        Ok((dir, lock))
    }

    /// The directory of a process that runs or has run; does not take the lock.
    ///
    /// # Errors
    /// When there is none at `path`, or it may not be read.
    pub fn existing(path: &Path) -> anyhow::Result<Self> {
        let dir = Self { path: path.to_owned() };
        match fs::read(dir.file(MARKER)) {
            Ok(_) => dir.check_layout().map(|()| dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
                "{} is no data directory of Nemo Router; start one with `nemo standalone`, or name another with --data-dir",
                path.display()
            ),
            Err(error) => Err(unusable(path, "cannot be read", &error)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// True while some process holds the lock.
    pub fn in_use(&self) -> bool {
        let Ok(file) = File::open(self.file("lock")) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared).is_err()
    }

    fn check_layout(&self) -> anyhow::Result<()> {
        let shown = self.path.display();
        match fs::read_to_string(self.file(MARKER)) {
            Ok(text) => match text.trim().strip_prefix(MARKER_TEXT.trim_start()) {
                Some(LAYOUT) => Ok(()),
                Some(other) => bail!(
                    "{shown} was made by another version of Nemo Router (layout {other}, this one reads {LAYOUT}); \
                     start that version, or choose another directory with --data-dir"
                ),
                None => {
                    bail!("{shown}/{MARKER} is not readable as what it should be; choose another --data-dir")
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut entries = fs::read_dir(&self.path)
                    .map_err(|error| unusable(&self.path, "cannot be read", &error))?;
                // `lock` alone is a start that was interrupted.
                if entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != "lock")) {
                    bail!(
                        "{shown} has files in it and is no data directory of Nemo Router; \
                         choose an empty or new one with --data-dir"
                    );
                }
                Ok(())
            }
            Err(error) => Err(unusable(&self.path, "cannot be read", &error)),
        }
    }

    fn lock(&self) -> anyhow::Result<Lock> {
        let path = self.file("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| unusable(&self.path, "cannot be written to", &error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = file.read_to_string(&mut holder);
                let holder = holder.trim();
                let pid = if holder.is_empty() { String::new() } else { format!(" (pid {holder})") };
                bail!(
                    "{} is in use by another nemo{pid}; stop that one, or choose another directory with --data-dir",
                    self.path.display()
                );
            }
            Err(error) => return Err(unusable(&self.path, "cannot be locked", &error.into())),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| unusable(&self.path, "cannot be written to", &error))?;
        Ok(Lock { _file: file })
    }
}

fn unusable(path: &Path, what: &str, error: &io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!(" by {}; change its owner, or choose another directory with --data-dir", whoami())
        }
        io::ErrorKind::StorageFull => {
            "; free some space, or choose another directory with --data-dir".to_owned()
        }
        _ => "; choose another directory with --data-dir".to_owned(),
    };
    anyhow::anyhow!("{} {what}{hint} ({error})", path.display())
}

fn whoami() -> String {
    std::env::var("USER").unwrap_or_else(|_| format!("uid {}", rustix::process::geteuid().as_raw()))
}

/// Writes a file whole or not at all, with these permissions from the first byte on.
///
/// # Errors
/// Names the file.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let write = || {
        let _ = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// Reads a file that only its owner may read; `None` when there is none.
///
/// # Errors
/// When it cannot be read, or others may read it: then its content is no secret any more.
pub fn read_secret(path: &Path) -> anyhow::Result<Option<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            bail!("{} belongs to somebody else: this is for whoever owns the data directory", path.display())
        }
        Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!("{} may be read by others (mode {mode:o}); fix that with `chmod 600 {0}`", path.display());
    }
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(Some(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_locked_and_found_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let (dir, lock) = DataDir::open(&path).unwrap();
        assert!(dir.in_use());
        drop(lock);
        assert!(!dir.in_use());
        assert!(DataDir::existing(&path).is_ok());
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_directory_in_use_is_refused_with_the_pid() {
        let dir = tempfile::tempdir().unwrap();
        let _held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("(pid {})", std::process::id())) && error.contains("--data-dir"),
            "{error}"
        );
    }

    #[test]
    fn a_lock_left_by_a_dead_process_does_not_hinder() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), "999999\n").unwrap();
        let (dir, _lock) = DataDir::open(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(dir.file("lock")).unwrap().trim(), std::process::id().to_string());
    }

    #[test]
    fn directories_of_another_version_or_purpose_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MARKER), format!("{MARKER_TEXT}99\n")).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another version") && error.contains("layout 99"), "{error}");
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("has files in it"), "{error}");
        assert!(!dir.path().join(MARKER).exists());
        let error = DataDir::existing(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(error.contains("nemo standalone"), "{error}");
    }

    #[test]
    fn paths_that_cannot_be_made_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().join("data");
        let error = DataDir::open(&path).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()) && error.contains("--data-dir"), "{error}");
    }

    #[test]
    fn secrets_are_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin-token");
        assert_eq!(read_secret(&path).unwrap(), None);
        write_file(&path, b"secret\n", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some("secret"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_secret(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn the_default_follows_the_user() {
        let path = |text: &str| Some(PathBuf::from(text));
        let choose = |root, xdg, home| choose_default(root, xdg, home).map(|path| path.display().to_string());
        assert_eq!(choose(true, path("/x"), path("/root")).unwrap(), "/var/lib/nemo-router");
        assert_eq!(choose(false, path("/x"), path("/home/a")).unwrap(), "/x/nemo-router");
        assert_eq!(choose(false, path("x"), path("/home/a")).unwrap(), "/home/a/.local/share/nemo-router");
        assert!(choose(false, None, None).unwrap_err().to_string().contains("--data-dir"));
    }
}
