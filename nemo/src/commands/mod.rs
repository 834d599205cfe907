//! The commands that talk to a running control plane, and those that need none. Thin: look something up, call
//! once, print. One file for each noun, with what can be typed and what it does.

// Messages of the contract grow; what a command does not set keeps its default.
#![allow(clippy::needless_update, reason = "true for a message only until it grows")]

pub mod apply;
pub mod audit;
pub mod budgets;
pub mod catalog;
pub mod completion;
pub mod cooldowns;
pub mod credentials;
pub mod credits;
pub mod deployments;
mod explanation;
pub mod fleet;
pub mod groups;
pub mod keys;
pub mod ledger;
pub mod limits;
pub mod members;
pub mod models;
pub mod orgs;
mod output;
pub mod prices;
pub mod replay;
pub mod requests;
pub mod rerate;
mod session;
pub mod settings;
mod subject;
mod table;
mod tail;
pub mod teams;
pub mod tokens;
pub mod usage;
pub mod webhooks;

use std::path::Path;

use self::{
    output::json,
    table::{Column, Table},
};
use crate::{console, providers::file};

/// `nemo check-config`
///
/// # Errors
/// Everything that is wrong with the file.
pub fn check_config(path: &Path) -> anyhow::Result<()> {
    let file = file::read(path, |name| std::env::var(name).ok())?;
    let [providers, deployments, groups, keys, budgets, limits] = file.counts();
    console::result(format_args!(
        "{} is fine: {providers} providers, {deployments} deployments, {groups} model groups, {keys} keys, \
         {budgets} budgets, {limits} limits",
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
    let mut table =
        Table::new(&[Column::whole("PROVIDER"), Column::text("VARIABLES"), Column::text("BASE URL")]);
    for provider in rows {
        table.row(vec![provider.id.into(), variables(provider).join(", ").into(), provider.base_url.into()]);
    }
    table.print();
    Ok(())
}

fn variables(provider: &nemo_data_plane::nemo_llm::Provider) -> Vec<&'static str> {
    provider.base_url_env.iter().chain(provider.env).copied().collect()
}
