//! Whom PostgreSQL runs as. It refuses root, so root hands it to another user.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::Path,
};

use anyhow::{Context as _, bail};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// The account to switch to; `None` when this process is not root and PostgreSQL runs as the same user.
///
/// # Errors
/// When the requested user does not exist, or one was requested without being root.
pub fn for_postgres(requested: Option<&str>) -> anyhow::Result<Option<Account>> {
    let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd cannot be read")?;
    choose(rustix::process::geteuid().is_root(), requested, &passwd)
}

fn choose(root: bool, requested: Option<&str>, passwd: &str) -> anyhow::Result<Option<Account>> {
    match requested {
        Some(_) if !root => {
            bail!("--postgres-user needs root; without it PostgreSQL runs as the current user")
        }
        None if !root => Ok(None),
        Some(name) => match lookup(passwd, name) {
            Some(account) if account.uid == 0 => {
                bail!("PostgreSQL refuses to run as root; give another --postgres-user")
            }
            Some(account) => Ok(Some(account)),
            None => bail!("--postgres-user {name}: there is no such user"),
        },
        None => {
            let account = ["postgres", "nobody"].iter().find_map(|name| lookup(passwd, name));
            Ok(Some(account.context("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody; name one with --postgres-user")?))
        }
    }
}

fn lookup(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Account { name: name.to_owned(), uid, gid })
    })
}

impl Account {
    /// Makes the account the owner of `path`.
    ///
    /// # Errors
    /// Names the path.
    pub fn own(&self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
            .with_context(|| format!("{} cannot be given to the user {}", path.display(), self.name))
    }

    /// Fails when the account cannot get to `path` because a directory above it is closed to others.
    ///
    /// # Errors
    /// Names the directory and what to do.
    pub fn check_reach(&self, path: &Path) -> anyhow::Result<()> {
        for dir in path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
            let meta = fs::metadata(dir).with_context(|| format!("{} cannot be read", dir.display()))?;
            let searchable = match (meta.uid() == self.uid, meta.gid() == self.gid) {
                (true, _) => meta.mode() & 0o100,
                (_, true) => meta.mode() & 0o010,
                _ => meta.mode() & 0o001,
            };
            if searchable == 0 {
                bail!(
                    "PostgreSQL runs as the user {} (it refuses root) and cannot get into {} (mode {:o}); \
                     choose a directory under /var/lib with --data-dir",
                    self.name,
                    dir.display(),
                    meta.mode() & 0o7777
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/x\nadmin:x:0:0::/:/x\npg:x:7:8::/:/x\n";

    #[test]
    fn only_root_changes_the_user() {
        assert_eq!(choose(false, None, PASSWD).unwrap(), None);
        assert!(choose(false, Some("pg"), PASSWD).is_err());
        assert_eq!(choose(true, None, PASSWD).unwrap().unwrap().name, "nobody");
        let with_postgres = format!("{PASSWD}postgres:x:101:104::/:/x\n");
        let account = choose(true, None, &with_postgres).unwrap().unwrap();
        assert_eq!((account.uid, account.gid), (101, 104));
        assert_eq!(choose(true, Some("pg"), &with_postgres).unwrap().unwrap().uid, 7);
    }

    #[test]
    fn users_that_cannot_work_are_named() {
        assert!(choose(true, Some("ghost"), PASSWD).unwrap_err().to_string().contains("ghost"));
        assert!(
            choose(true, Some("admin"), PASSWD).unwrap_err().to_string().contains("refuses to run as root")
        );
        assert!(choose(true, None, "root:x:0:0::/:/x").unwrap_err().to_string().contains("--postgres-user"));
    }

    #[test]
    fn a_closed_parent_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let closed = parent.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 };
        let error = stranger.check_reach(&closed.join("data")).unwrap_err().to_string();
        assert!(error.contains(&format!("cannot get into {} (mode 700)", closed.display())), "{error}");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.check_reach(&closed.join("data")).is_ok());
    }
}
