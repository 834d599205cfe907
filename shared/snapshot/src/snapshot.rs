//! The compiled, immutable view of all resources at one revision. A request loads it once (I2).

use std::sync::Arc;

use crate::{Checksum, Routing, Tenancy};

/// Everything that a node needs to authenticate and route. Sections are shared between revisions that did not
/// change them.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub revision: u64,
    /// Of the resource set that this was compiled from.
    pub checksum: Checksum,
    pub tenancy: Arc<Tenancy>,
    pub routing: Arc<Routing>,
}
