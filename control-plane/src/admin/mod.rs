//! The admin API: one operation per use case, the same for gRPC and REST.
//!
//! - [`entity`]: what is managed, and its etag
//! - [`fleet_wait`]: answers that come when the whole fleet serves what was written
//! - [`ops`]: the operations; they check, authorise and call the store
//! - [`auth`]: bearer token → [`Caller`]
//! - [`call`]: what an operation is told besides its request, and what a write answers
//! - [`oidc`]: tokens of an OpenID Connect issuer
//! - [`roles`]: which role may do what
//! - [`rest`]: `/admin/v1`, thin handlers over [`ops`]
//!
//! Called by `grpc/admin.rs`, by [`rest`], and in process by `nemo standalone` and the command line
//! ([`Call::local_operator`]).

pub mod auth;
pub mod call;
pub mod entity;
mod error;
pub mod fleet_wait;
mod key_policy;
mod limited;
pub mod oidc;
pub mod ops;
mod page_token;
pub mod rest;
pub mod roles;
pub(crate) mod validate;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use nemo_types::Keyring;
use tokio::sync::watch;

pub use auth::{Actor, Caller, Membership};
pub use call::{Call, IdempotencyKey, IfMatch, Written};
pub use error::{AdminError, ErrorKind};
pub use roles::{Action, Role};

use self::{oidc::Oidc, ops::cooldowns::Cooldowns};
use crate::{
    catalog::sync::CatalogSync,
    cooldown::Board,
    credits::payments::Payments,
    fleet::Registry,
    publish::{Published, Publisher, Unpublishable},
    sealing::Sealer,
    store::Store,
};

/// What the operations work with. Shared by all faces of the admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    store: Store,
    sealer: Sealer,
    /// `None` outside of a serving control plane: then no nodes are listed.
    fleet: Option<Registry>,
    /// `None`: only admin tokens are accepted.
    oidc: Option<Oidc>,
    /// What writes are compiled on top of; `None`: on what the database has.
    published: Option<watch::Receiver<Arc<Published>>>,
    /// `None` outside of a serving control plane: then nothing cools down.
    cooldowns: Option<Cooldowns>,
    /// `None`: no payment provider is set up.
    payments: Option<Payments>,
    /// Webhooks may be on private networks.
    private_webhooks: bool,
    /// `None`: outside of a serving control plane.
    catalog_sync: Option<CatalogSync>,
    /// What the fleet can't be waited for.
    unpublishable: watch::Receiver<Option<Unpublishable>>,
}

impl Admin {
    pub fn new(store: Store, keyring: Arc<Keyring>) -> Self {
        Self {
            store,
            sealer: Sealer::new(keyring),
            fleet: None,
            oidc: None,
            published: None,
            cooldowns: None,
            payments: None,
            private_webhooks: false,
            catalog_sync: None,
            unpublishable: watch::channel(None).1,
        }
    }

    /// Lists the nodes of this registry, and waits for them no longer than `unpublishable` lets hope.
    #[must_use]
    pub fn with_fleet(self, fleet: Registry, unpublishable: watch::Receiver<Option<Unpublishable>>) -> Self {
        Self { fleet: Some(fleet), unpublishable, ..self }
    }

    /// Compiles what a write would leave behind on top of what is published, instead of reading everything again.
    #[must_use]
    pub fn with_published(self, published: watch::Receiver<Arc<Published>>) -> Self {
        Self { published: Some(published), ..self }
    }

    /// Shows and changes what is on this board.
    #[must_use]
    pub fn with_cooldowns(self, board: Board, publisher: Arc<Publisher>) -> Self {
        Self { cooldowns: Some(Cooldowns::new(board, publisher)), ..self }
    }

    /// Takes events of this payment provider.
    #[must_use]
    pub fn with_payments(self, payments: Option<Payments>) -> Self {
        Self { payments, ..self }
    }

    /// Whether webhooks may be on private networks.
    #[must_use]
    pub fn with_private_webhooks(self, private_webhooks: bool) -> Self {
        Self { private_webhooks, ..self }
    }

    /// Asks these sources when the catalog is to be brought in step.
    #[must_use]
    pub fn with_catalog_sync(self, sync: CatalogSync) -> Self {
        Self { catalog_sync: Some(sync), ..self }
    }

    /// Accepts tokens of this issuer too.
    #[must_use]
    pub fn with_oidc(self, oidc: Option<Oidc>) -> Self {
        Self { oidc, ..self }
    }
}
