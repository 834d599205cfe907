//! The commands that talk to a running control plane, and those that need none. Thin: look something up, call
//! once, print.

pub mod keys;
pub mod models;
pub mod requests;
mod table;

use std::path::Path;

use serde::Serialize;

use crate::{console, providers::file};

/// Prints `value` as JSON.
fn json(value: &impl Serialize) -> anyhow::Result<()> {
    console::result(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// `nemo check-config`
///
/// # Errors
/// Everything that is wrong with the file.
pub fn check_config(path: &Path) -> anyhow::Result<()> {
    let file = file::read(path, |name| std::env::var(name).ok())?;
    let [providers, deployments, groups, keys] = file.counts();
    console::result(format_args!(
        "{} is fine: {providers} providers, {deployments} deployments, {groups} model groups, {keys} keys",
        path.display()
    ));
    Ok(())
}

/// `nemo providers`
///
/// # Errors
/// Never in practice.
pub fn providers(as_json: bool) -> anyhow::Result<()> {
    let rows =
        nemo_data_plane::nemo_llm::providers().iter().filter(|provider| provider.id != crate::demo::PROVIDER);
    if as_json {
        let value: Vec<_> = rows
            .map(|provider| {
                serde_json::json!({
                    "id": provider.id, "name": provider.name, "base_url": provider.base_url,
                    "variables": variables(provider), "aliases": provider.aliases,
                })
            })
            .collect();
        return json(&value);
    }
    let mut table = table::Table::new(["PROVIDER", "VARIABLES", "BASE URL"]);
    for provider in rows {
        table.row([provider.id.to_owned(), variables(provider).join(", "), provider.base_url.to_owned()]);
    }
    table.print();
    Ok(())
}

fn variables(provider: &nemo_data_plane::nemo_llm::Provider) -> Vec<&'static str> {
    provider.base_url_env.iter().chain(provider.env).copied().collect()
}
