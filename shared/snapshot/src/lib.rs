//! Resources, deltas and the compiled view that a node routes by. Used by both planes.
//!
//! - [`resource`]: [`ResourceSet`], the rows of one revision, with an incremental [`Checksum`]
//! - [`delta`]: what changed between two revisions, and how it is cut into messages
//! - [`compile`]: a set becomes a [`Snapshot`], or a list of [`Rejection`]s and nothing (I5)
//! - [`base_url`]: where a deployment can be called
//! - [`tenancy`], [`routing`]: the two sections of a snapshot; [`policy`]: what a key may do
//! - [`prover`]: whether the links of a group can serve what the group is there for
//! - [`strategy`], [`tags`], [`routing_policy`]: what routing decides by
//! - [`trie`]: the map that revisions share, so that the work of a change follows the change
//!
//! The control plane compiles every revision before it publishes it, with the very code that the nodes run.

pub mod base_url;
pub mod checksum;
pub mod compile;
pub mod delta;
pub mod money;
pub mod policy;
pub mod prover;
pub mod resource;
pub mod routing;
pub mod routing_policy;
pub mod snapshot;
pub mod strategy;
pub mod tags;
pub mod tenancy;
pub mod trie;

pub use checksum::Checksum;
pub use compile::{Rejection, compile, compile_routing, recompile};
pub use delta::{Chunk, Delta};
pub use money::{
    Bounds, Budget, BudgetKind, Limits, NoLease, OverBudget, RateLimit, ReservationBound, Scope,
};
pub use nemo_proto::config::{Kind, Resource};
pub use policy::KeyPolicy;
pub use resource::{Item, ResourceKey, ResourceSet};
pub use routing::{Credential, Deployment, Link, LinkMember, Model, ModelGroup, Routing, Timeouts};
pub use routing_policy::RoutingPolicy;
pub use snapshot::Snapshot;
pub use strategy::{Strategy, UnknownStrategy};
pub use tags::{TagNames, TagSet, UnknownTag};
pub use tenancy::{KeyRecord, Tenancy};
pub use trie::Trie;
