//! The control plane: owns Postgres, the admin API, and what the nodes are told.
//!
//! - [`store`]: the only module that knows SQL; tenant isolation lives in its transactions
//! - [`admin`]: the admin operations, who may call them, and their REST face
//! - [`grpc`]: thin gRPC services over [`admin`], [`publish`], [`fleet`] and the request log
//! - [`publish`]: rows → resources → compiled revisions → deltas for the nodes
//! - [`fleet`]: which nodes are connected and what they hold
//! - [`coordination`]: what replicas agree on beside the database, through etcd or in this process
//! - [`cooldown`]: what nodes report of upstreams, weighed and told to all of them
//! - [`catalog`]: the model catalog: bundled, and kept in step with public sources
//! - [`credits`]: prepaid balances, tiers, payments
//! - [`webhooks`]: organizations are told of events
//! - [`thresholds`]: crossings of thresholds of budgets become events
//! - [`ledger`]: what happened to money, and the check that every total is its sum; [`rerate`]: corrections of it
//! - [`quota`]: slices of budgets and shares of rate limits for the nodes
//! - [`retention`]: partitions of request log and rollups, made ahead and dropped in time
//! - [`sealing`]: provider credentials are sealed before they reach the store
//! - [`app`] and [`config`]: wiring and bootstrap settings; `nemo standalone` and the tests use the same wiring

pub mod admin;
pub mod app;
pub mod catalog;
mod causes;
pub mod config;
pub mod cooldown;
pub mod coordination;
pub mod credits;
pub mod fleet;
pub mod grpc;
pub mod ledger;
pub mod publish;
pub mod quota;
pub mod rerate;
pub mod retention;
pub mod sealing;
pub mod store;
pub mod thresholds;
pub mod webhooks;
