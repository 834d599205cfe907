//! Who this node is: an id that survives restarts, and an epoch that grows with every start.

use std::{fs, io, path::Path};

use nemo_runtime::clock;

/// The node's id and incarnation.
pub struct Identity {
    pub node_id: String,
    pub epoch: u64,
}

/// Reads the identity from `dir`, or makes one. The epoch grows even if the clock went back.
///
/// # Errors
/// When the directory can't be made or written.
pub fn load(dir: &Path) -> io::Result<Identity> {
    fs::create_dir_all(dir)?;
    let id_file = dir.join("node-id");
    let node_id = match fs::read_to_string(&id_file) {
        Ok(text) if uuid::Uuid::parse_str(text.trim()).is_ok() => text.trim().to_owned(),
        Ok(_) => fresh(&id_file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(&id_file)?,
        Err(error) => return Err(error),
    };
    let epoch_file = dir.join("node-epoch");
    let last: u64 =
        fs::read_to_string(&epoch_file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let epoch = clock::unix_ms().max(last + 1);
    fs::write(&epoch_file, epoch.to_string())?;
    Ok(Identity { node_id, epoch })
}

fn fresh(file: &Path) -> io::Result<String> {
    let id = uuid::Uuid::now_v7().to_string();
    fs::write(file, &id)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_stays_and_the_epoch_grows() {
        let dir = tempfile::tempdir().unwrap();
        let first = load(dir.path()).unwrap();
        fs::write(dir.path().join("node-epoch"), (first.epoch + 1_000_000_000).to_string()).unwrap();
        let second = load(dir.path()).unwrap();
        assert_eq!(first.node_id, second.node_id);
        assert_eq!(second.epoch, first.epoch + 1_000_000_001, "also when the clock went back");
    }
}
