//! Test harness: real servers as child processes, a scripted upstream, clients.
//!
//! - [`upstream`]: an OpenAI-compatible server that records what reaches it; [`script`] says how it misbehaves
//! - [`postgres`]: a real PostgreSQL, shared by the tests of a run, with a database of its own for each test
//! - [`etcd`]: a real etcd for one test
//! - [`process`]: child processes that never outlive the test
//! - [`fleet`], [`site`] and [`admin`]: a whole gateway as child processes, set up through its admin API
//! - [`control`]: a control plane with settings of its own; [`oidc`]: a real OpenID provider
//! - [`client`] and [`wire`]: an HTTP/1.1 and SSE client that keeps the bytes as they came, with their times
//! - [`receiver`]: an endpoint for webhooks; [`pictures`]: a server of images behind TLS
//! - [`eventually`] and [`ports`]: waiting without sleeping, free loopback ports
//!
//! Used by `it/` (integration tests), by `bench/` (the load generator and its runner), by `nemo-testenv`, and by other
//! crates as a dev-dependency. Never part of the product.

pub mod admin;
pub mod client;
pub mod control;
pub mod etcd;
pub mod eventually;
pub mod fleet;
pub mod links;
pub mod oidc;
pub mod pictures;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod propagation;
pub mod receiver;
pub mod replicas;
pub mod script;
pub mod site;
pub mod upstream;
pub mod wire;

pub use eventually::eventually;
