//! The contract between the planes and of the admin API, generated from `nemo/**/*.proto`.
//!
//! Called by both planes and the command line. Generated code lives in one module per protobuf package;
//! hand-written conversions to [`nemo_types`] are in [`convert`]. Admin messages also derive serde, because the
//! REST API speaks the same messages as JSON (absent members are defaults, unknown ones errors).

pub mod convert;
mod timestamp;

pub use timestamp::Timestamp;

/// Newest resource schema that this build reads and writes (`NodeInfo.schema_version`).
pub const SCHEMA_VERSION: u32 = 4;

/// The descriptors of every service, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[allow(clippy::all, clippy::pedantic, rust_2018_idioms, reason = "generated")]
#[allow(clippy::allow_attributes_without_reason, clippy::large_futures, reason = "generated")]
mod nemo {
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("nemo.common.v1");
        }
    }
    pub mod fleet {
        pub mod v1 {
            tonic::include_proto!("nemo.fleet.v1");
        }
    }
    pub mod config {
        pub mod v1 {
            tonic::include_proto!("nemo.config.v1");
        }
    }
    pub mod cooldown {
        pub mod v1 {
            tonic::include_proto!("nemo.cooldown.v1");
        }
    }
    pub mod quota {
        pub mod v1 {
            tonic::include_proto!("nemo.quota.v1");
        }
    }
    pub mod usage {
        pub mod v1 {
            tonic::include_proto!("nemo.usage.v1");
        }
    }
    pub mod admin {
        pub mod v1 {
            tonic::include_proto!("nemo.admin.v1");
        }
    }
}

/// The admin API.
pub use nemo::admin::v1 as admin;
/// Values that several services share.
pub use nemo::common::v1 as common;
/// Resources and how they reach the nodes.
pub use nemo::config::v1 as config;
/// Cooldowns over the whole fleet.
pub use nemo::cooldown::v1 as cooldown;
/// How a node joins the fleet.
pub use nemo::fleet::v1 as fleet;
/// Slices of budgets and shares of rate limits.
pub use nemo::quota::v1 as quota;
/// How nodes report usage.
pub use nemo::usage::v1 as usage;
