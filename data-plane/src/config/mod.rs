//! The live configuration of a node: where it comes from, how it is applied, how requests read it.
//!
//! - [`settings`]: bootstrap settings (ports, directories, deadlines), read once
//! - [`live`]: a snapshot with what this node derives from it
//! - [`handle`]: the one place that requests load it from (I2)
//! - [`revoked`]: keys that were switched off after it, ahead of the next one
//! - [`apply`]: push → set → compile → swap, whole or not at all (I5)
//! - [`last_good`]: the newest applied set on disk, sealed, so that a restart needs no control plane (I4)

pub mod apply;
pub mod handle;
pub mod last_good;
pub mod live;
pub mod revoked;
pub mod settings;

pub use handle::SnapshotHandle;
pub use live::Live;
pub use settings::Settings;
