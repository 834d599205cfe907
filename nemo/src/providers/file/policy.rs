//! The part of a file that decides where requests go, by itself: for `nemo replay --with`, which changes nothing and
//! needs no secrets.

use std::path::Path;

use nemo_proto::admin::Price;
use nemo_runtime::config_file::{self, ConfigError, Problem};

use super::{document::Document, reader::Reader};
use crate::providers::{DesiredGroup, DesiredSetting};

/// A routing policy as a file has it.
#[derive(Debug)]
pub struct PolicyFile {
    pub groups: Vec<DesiredGroup>,
    pub settings: Vec<DesiredSetting>,
    pub deployments: Vec<ChangedDeployment>,
    /// Sections that say nothing about where a request goes.
    pub ignored: Vec<&'static str>,
}

/// What a file says about a deployment; provider, model and address aside. `None`: as it is.
#[derive(Clone, Debug)]
pub struct ChangedDeployment {
    pub name: String,
    pub weight: Option<u32>,
    pub rpm: Option<u32>,
    pub tpm: Option<u32>,
    pub price: Option<Price>,
}

/// Reads the policy of a `nemo.toml`.
///
/// # Errors
/// Everything that is wrong, each with its line.
pub fn policy(path: &Path) -> Result<PolicyFile, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        problems: vec![Problem { origin: name.clone(), message: format!("cannot be read: {error}") }],
    })?;
    parse(&name, &text)
}

/// [`policy`] of a text.
///
/// # Errors
/// As [`policy`].
pub fn parse(name: &str, text: &str) -> Result<PolicyFile, ConfigError> {
    let document: Document = config_file::load_from("", Some((name, text)), [], "NEMO_")?;
    let mut reader = Reader { name, text, problems: Vec::new(), variable: &|_| None };
    let groups = reader.groups(&document).into_iter().map(|(group, _)| group).collect();
    let settings = reader.settings(&document);
    let mut deployments = Vec::new();
    for entry in &document.deployments {
        deployments.push(ChangedDeployment {
            name: entry.name.get_ref().clone(),
            weight: entry.weight,
            rpm: entry.rpm,
            tpm: entry.tpm,
            price: entry.price.as_ref().map(|price| reader.price(price)),
        });
    }
    if !reader.problems.is_empty() {
        return Err(ConfigError { problems: reader.problems });
    }
    let sections = [
        ("providers", document.providers.is_empty()),
        ("teams", document.teams.is_empty()),
        ("keys", document.keys.is_empty()),
        ("budgets", document.budgets.is_empty()),
        ("limits", document.limits.is_empty()),
    ];
    let ignored = sections.into_iter().filter(|(_, empty)| !empty).map(|(name, _)| name).collect();
    Ok(PolicyFile { groups, settings, deployments, ignored })
}
