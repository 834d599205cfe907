//! Keeps the catalog current: fetches what sources say of models, compares it with what the database has, writes what is
//! plain, and holds what is suspicious until an operator decides. Called by `app.rs` (the leader's job) and by the admin
//! operations behind `nemo catalog`.
//!
//! The way of a run: [`client`] fetches each source, [`models_dev`], [`openrouter`] and [`provider_list`] read what they
//! say into [`Fact`]s, [`gather`] makes one fact per offering of them (a provider's own list wins over registries, those
//! win in the order of the settings), [`diff`] compares that with the database, and [`job`] writes. All but `client` and
//! `job` is pure.
//!
//! What an operator wrote is never touched, and nothing is taken away without being asked: what a source no longer lists,
//! and a price that is ten times another one, are held.

pub mod client;
pub mod diff;
pub mod fact;
pub mod gather;
pub mod job;
pub mod models_dev;
pub mod openrouter;
pub mod options;
pub mod provider_list;
pub mod settings;
#[cfg(test)]
mod tests;

pub use self::{
    diff::{Change, Limits, Proposal},
    fact::Fact,
    job::{CatalogSync, RunReport, SourceReport},
    options::SyncOptions,
    settings::{BadSource, SourceKind, SourceSettings, SyncSettings},
};
