//! Where PostgreSQL's programs are, and which user may run them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Directory with `postgres` and `initdb`: `NEMO_PG_BIN`, else `PATH`, else the newest Debian or Red Hat package.
pub(super) fn programs() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("NEMO_PG_BIN") {
        let dir = PathBuf::from(dir);
        anyhow::ensure!(is_complete(&dir), "NEMO_PG_BIN={} has no postgres and initdb", dir.display());
        return Ok(dir);
    }
    on_path().or_else(packaged).context(
        "no PostgreSQL found in PATH or /usr/lib/postgresql/*/bin: install it (apt-get install postgresql) or set NEMO_PG_BIN",
    )
}

fn is_complete(dir: &Path) -> bool {
    ["postgres", "initdb"].iter().all(|program| dir.join(program).is_file())
}

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|dir| {
        // Symbolic links in /usr/local/bin lead to a directory whose share/ the programs look for.
        let real = dir.join("postgres").canonicalize().ok()?.parent()?.to_owned();
        is_complete(&real).then_some(real)
    })
}

fn packaged() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (root, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let version =
                name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|major| major.parse().ok());
            let dir = entry.path().join("bin");
            if let (Some(version), true) = (version, is_complete(&dir)) {
                found.push((version, dir));
            }
        }
    }
    found.into_iter().max().map(|(_, dir)| dir)
}

/// The user and group to run PostgreSQL as. `None` when we are not root and it can run as ourselves; as root it
/// refuses to, so then it is user `postgres`, else `nobody`.
pub(super) fn unprivileged() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let ids = ["postgres", "nobody"].iter().find_map(|user| ids_of(&users, user));
    ids.map(Some).context("running as root, and neither user postgres nor nobody exists")
}

fn ids_of(passwd: &str, user: &str) -> Option<(u32, u32)> {
    let mut fields = passwd
        .lines()
        .map(|line| line.split(':'))
        .find_map(|mut fields| if fields.next() == Some(user) { Some(fields) } else { None })?;
    Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_third_and_fourth_field() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresql:x:9:9::/:/bin/sh\npostgres:x:101:104:PostgreSQL,,,:/var:/bin/bash\n";
        assert_eq!(ids_of(passwd, "postgres"), Some((101, 104)));
        assert_eq!(ids_of(passwd, "nobody"), None);
    }
}
