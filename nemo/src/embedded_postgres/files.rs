//! Where the database and its socket lie, and who may touch them.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::account::Account;

/// `sockaddr_un` has room for 108 bytes with the final zero.
const LONGEST_SOCKET_PATH: usize = 107;
pub const PORT: u16 = 5432;
/// A log that has grown beyond this is moved aside at start.
const LARGEST_LOG: u64 = 10 * 1024 * 1024;

#[derive(Clone, Debug)]
pub struct Files {
    pub data: PathBuf,
    pub sockets: PathBuf,
    pub log: PathBuf,
}

impl Files {
    /// Prepares everything below `dir` but the database itself.
    ///
    /// # Errors
    /// When a directory cannot be made or `account` cannot get there.
    pub fn prepare(dir: &Path, account: Option<&Account>) -> anyhow::Result<Self> {
        let files =
            Self { data: dir.join("postgres"), sockets: socket_dir(dir), log: dir.join("postgres.log") };
        if let Some(account) = account {
            account.check_reach(dir)?;
            // Through, not in: what is secret in it is owner-only by itself.
            let mode = fs::metadata(dir)?.permissions().mode() & 0o777;
            if mode & 0o001 == 0 {
                set_mode(dir, mode | 0o001)?;
            }
        }
        private_dir(&files.sockets, account)?;
        if files.data.exists() {
            // Whoever ran it before may have been another user.
            own(&files.data, account)?;
        }
        if fs::metadata(&files.log).is_ok_and(|meta| meta.len() > LARGEST_LOG) {
            fs::rename(&files.log, files.log.with_extension("log.1"))
                .context("the PostgreSQL log cannot be moved")?;
        }
        Ok(files)
    }

    /// Major version that made the database; `None` when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn major(&self) -> anyhow::Result<Option<u32>> {
        let path = self.data.join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let major = text.trim().parse();
                Ok(Some(major.with_context(|| format!("{} has no version in it: {text:?}", path.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot be read", path.display())),
        }
    }

    /// The last lines of the log that tell of something wrong.
    pub fn complaints(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(8192)..]).into_owned();
        let bad = |line: &&str| {
            ["FATAL", "ERROR", "PANIC", "HINT", "setpriv:"].iter().any(|word| line.contains(word))
        };
        let lines: Vec<&str> = tail.lines().filter(bad).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

/// `run` beside the data, or a short directory elsewhere when that path is too long for a socket.
fn socket_dir(dir: &Path) -> PathBuf {
    let beside = dir.join("run");
    let socket = beside.join(format!(".s.PGSQL.{PORT}"));
    if socket.as_os_str().len() <= LONGEST_SOCKET_PATH {
        return beside;
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let root = rustix::process::geteuid().is_root();
    short_socket_dir(runtime.filter(|path| !root && path.is_absolute() && path.as_os_str().len() < 64), dir)
}

fn short_socket_dir(runtime: Option<PathBuf>, dir: &Path) -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    let name = format!("nemo-{uid}-{:016x}", fnv1a(dir.as_os_str().as_bytes()));
    runtime.unwrap_or_else(|| PathBuf::from("/tmp")).join(name)
}

/// Tells data directories apart; need not resist anybody.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes `dir` a directory that only PostgreSQL's account may enter, or checks that it is one: below `/tmp`
/// somebody else could have been first.
pub fn private_dir(dir: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    let shown = dir.display();
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let meta = fs::symlink_metadata(dir).with_context(|| format!("{shown} cannot be read"))?;
            let me = rustix::process::geteuid().as_raw();
            if !meta.is_dir() || !(me == 0 || meta.uid() == me) || meta.file_type().is_symlink() {
                bail!("{shown} is in the way: it is not a directory of this user; remove it");
            }
        }
        Err(error) => return Err(error).with_context(|| format!("{shown} cannot be created")),
    }
    own(dir, account)?;
    set_mode(dir, 0o700)
}

fn own(dir: &Path, account: Option<&Account>) -> anyhow::Result<()> {
    match account {
        Some(account) if fs::metadata(dir)?.uid() != account.uid => own_all(dir, account),
        _ => Ok(()),
    }
}

/// Everything below as well: the database may have been another account's.
fn own_all(path: &Path, account: &Account) -> anyhow::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))? {
            own_all(&entry?.path(), account)?;
        }
    }
    if fs::symlink_metadata(path)?.file_type().is_symlink() { Ok(()) } else { account.own(path) }
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("the permissions of {} cannot be changed", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_paths_stay_under_the_limit_of_the_kernel() {
        assert_eq!(socket_dir(Path::new("/var/lib/nemo-router")), Path::new("/var/lib/nemo-router/run"));
        let long = PathBuf::from(format!("/srv/{}", "deep/".repeat(30)));
        let dir = short_socket_dir(None, &long);
        assert!(dir.join(format!(".s.PGSQL.{PORT}")).as_os_str().len() <= LONGEST_SOCKET_PATH);
        assert_ne!(dir, short_socket_dir(None, &long.join("other")));
        assert!(socket_dir(&long).as_os_str().len() < 90);
    }

    #[test]
    fn a_socket_directory_that_is_a_link_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let (target, link) = (parent.path().join("target"), parent.path().join("link"));
        fs::create_dir(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(private_dir(&link, None).unwrap_err().to_string().contains("is in the way"));
        private_dir(&target, None).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn complaints_are_the_last_bad_lines() {
        let dir = tempfile::tempdir().unwrap();
        let files =
            Files { data: dir.path().into(), sockets: dir.path().into(), log: dir.path().join("log") };
        assert_eq!(files.complaints(), "");
        fs::write(&files.log, "LOG:  fine\nFATAL:  lock file exists\nHINT:  look\nLOG:  bye\n").unwrap();
        assert_eq!(files.complaints(), "FATAL:  lock file exists; HINT:  look");
    }
}
