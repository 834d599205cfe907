//! Compiles `nemo/**/*.proto` without a `protoc`: protox parses, tonic-prost-build generates.
//! The descriptor set is kept for gRPC reflection.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: &[&str] = &[
    "nemo/common/v1/common.proto",
    "nemo/fleet/v1/fleet.proto",
    "nemo/config/v1/resources.proto",
    "nemo/config/v1/config.proto",
    "nemo/cooldown/v1/cooldown.proto",
    "nemo/quota/v1/quota.proto",
    "nemo/usage/v1/usage.proto",
    "nemo/usage/v1/decision.proto",
    "nemo/admin/v1/tenancy.proto",
    "nemo/admin/v1/keys.proto",
    "nemo/admin/v1/providers.proto",
    "nemo/admin/v1/model_groups.proto",
    "nemo/admin/v1/catalog.proto",
    "nemo/admin/v1/settings.proto",
    "nemo/admin/v1/budgets.proto",
    "nemo/admin/v1/rate_limits.proto",
    "nemo/admin/v1/cooldowns.proto",
    "nemo/admin/v1/requests.proto",
    "nemo/admin/v1/usage.proto",
    "nemo/admin/v1/fleet.proto",
    "nemo/admin/v1/audit.proto",
    "nemo/admin/v1/ledger.proto",
    "nemo/admin/v1/webhooks.proto",
    "nemo/admin/v1/credits.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=nemo");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    // Admin messages double as the REST bodies: unknown members are errors, absent ones defaults.
    let json = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default, deny_unknown_fields)]";
    tonic_prost_build::configure()
        .bytes(".nemo.config")
        .bytes(".nemo.usage")
        .bytes(".nemo.cooldown")
        .bytes(".nemo.quota")
        .extern_path(".google.protobuf.Timestamp", "crate::Timestamp")
        .message_attribute(".nemo.admin", json)
        .compile_fds(descriptors)?;
    Ok(())
}
