//! A small file for each epoch that the control plane was not told the end of: `<epoch>.epoch`. It outlives the epoch's
//! segments, so that an epoch that left nothing is told closed as well, and says what the segments can't: on which boot
//! of the machine they were written, and whether something was dropped. Called by [`super::log`] and
//! [`super::recovery`].

use super::storage::Storage;

/// Longest file that is read.
const MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    pub boot_id: String,
    /// Nothing was dropped.
    pub exact: bool,
    /// The process ended in order, with everything synced: a later boot of the machine takes nothing of it.
    pub clean: bool,
}

impl Marker {
    /// A disk that refuses leaves no marker, which later says that the epoch is not exact.
    pub fn write(&self, storage: &dyn Storage, epoch: u64) {
        let text = format!("boot_id={}\nexact={}\nclean={}\n", self.boot_id, self.exact, self.clean);
        if let Err(error) = storage.put(&name(epoch), text.as_bytes()) {
            tracing::error!(%error, epoch, "the marker of the usage journal can't be written");
            let _ = storage.remove(&name(epoch));
        }
    }

    pub fn read(storage: &dyn Storage, epoch: u64) -> Option<Self> {
        let bytes = storage.open(&name(epoch)).ok()?.read(0, MAX).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        Some(Self {
            boot_id: field("boot_id")?.to_owned(),
            exact: field("exact")? == "true",
            clean: field("clean")? == "true",
        })
    }
}

pub fn name(epoch: u64) -> String {
    format!("{epoch}.epoch")
}

pub fn parse_name(name: &str) -> Option<u64> {
    name.strip_suffix(".epoch")?.parse().ok()
}
