//! The admin API: one operation per use case, the same for gRPC and REST.
//!
//! - [`ops`]: the operations; they check, authorise and call the store
//! - [`auth`]: bearer token → [`Caller`]
//! - [`roles`]: which role may do what
//! - [`rest`]: `/admin/v1`, thin handlers over [`ops`]
//!
//! Called by `grpc/admin.rs`, by [`rest`], and in process by `nemo standalone` and the command line
//! ([`Caller::local_operator`]).

pub mod auth;
mod error;
pub mod ops;
mod page_token;
pub mod rest;
pub mod roles;
mod validate;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use nemo_types::Keyring;

pub use auth::{Caller, CallerKind};
pub use error::{AdminError, ErrorKind};
pub use roles::{Action, Role};

use crate::{fleet::Registry, sealing::Sealer, store::Store};

/// What the operations work with. Shared by all faces of the admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    store: Store,
    sealer: Sealer,
    /// `None` outside of a serving control plane: then no nodes are listed.
    fleet: Option<Registry>,
}

impl Admin {
    pub fn new(store: Store, keyring: Arc<Keyring>) -> Self {
        Self { store, sealer: Sealer::new(keyring), fleet: None }
    }

    /// Lists the nodes of this registry.
    #[must_use]
    pub fn with_fleet(self, fleet: Registry) -> Self {
        Self { fleet: Some(fleet), ..self }
    }
}
