//! Brings the control plane to a [`Desired`] state: creates what is missing, changes what differs, removes what is
//! managed and not wanted any more. Doing it again changes nothing.
//!
//! [`state`] reads what is, [`plan`] compares, [`execute`] changes, through one of two [`backend`]s. `nemo standalone`
//! does all at once ([`Applier`]); `nemo apply` shows the plan in between.

// Messages of the contract grow; what is not managed here keeps its default.
#![allow(clippy::needless_update, reason = "true for a message only until it grows")]

pub mod backend;
mod difference;
pub mod execute;
mod limits;
pub mod plan;
pub mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use anyhow::Context as _;
use nemo_control_plane::admin::Admin;
use nemo_proto::admin::{self as pb, CreateTeamRequest, Credential, Deployment, Model};
use nemo_types::Secret;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use self::{
    backend::{Backend as _, Local, every},
    execute::Executor,
    plan::Rules,
    state::State,
};
use super::{Desired, DesiredCredential, FILE, is_managed};
use crate::data_dir;

/// What was changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub created: usize,
    pub changed: usize,
    pub removed: usize,
    /// Issued now: name and secret, shown once.
    pub keys: Vec<(String, String)>,
    /// What the control plane has to say about model groups that were written.
    pub warnings: Vec<String>,
}

/// A name as its file has it.
pub fn shown(name: &str) -> &str {
    name.strip_prefix(FILE).unwrap_or(name)
}

/// What cannot be read back from the control plane. Kept in the data directory.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// Digest of the secret that each managed credential was sealed from.
    secrets: BTreeMap<String, String>,
    /// Their names are seen by clients, so they carry no prefix that would mark them.
    model_groups: BTreeSet<String>,
    /// As [`setting_mark`] writes them.
    settings: BTreeSet<String>,
    /// Names with [`FILE`] that a start put there. Others come from `nemo apply`, which removes them itself.
    declared: BTreeSet<String>,
}

impl Memory {
    fn removes(&self, name: &str) -> bool {
        // What made room for a new one carries its id behind the name.
        let base = name.split('#').next().unwrap_or(name);
        is_managed(name) && (!name.starts_with(FILE) || self.declared.contains(base))
    }
}

/// A setting's key has no blank, an organization's name may.
fn setting_mark(organization: Option<&str>, key: &str) -> String {
    organization.map_or_else(|| key.to_owned(), |org| format!("{key} {org}"))
}

/// Applies desired states to the control plane in this process.
pub struct Applier<'a> {
    backend: Local<'a>,
    /// Id of the sealing key: secrets are sealed again when it changes.
    seal_key_id: String,
    memory_file: PathBuf,
}

impl<'a> Applier<'a> {
    pub fn new(admin: &'a Admin, seal_key_id: String, memory_file: PathBuf) -> Self {
        Self { backend: Local::new(admin), seal_key_id, memory_file }
    }

    /// All models of the catalog.
    ///
    /// # Errors
    /// When the control plane fails.
    pub async fn catalog(&self) -> anyhow::Result<Vec<Model>> {
        state::models(&self.backend).await
    }

    /// The operator's deployments.
    ///
    /// # Errors
    /// When the control plane fails.
    pub async fn deployments(&self) -> anyhow::Result<Vec<Deployment>> {
        state::deployments(&self.backend).await
    }

    /// Applies `desired`; teams and keys go to `org_id` unless they name an organization.
    ///
    /// # Errors
    /// When the control plane refuses something; what was done before stays done, and a repetition goes on there.
    pub async fn apply(&self, desired: &Desired, org_id: &str) -> anyhow::Result<Applied> {
        let mut memory = self.remember()?;
        let state = State::read(&self.backend, desired, org_id).await?;
        let rules = Rules {
            same_secret: &|found: &Credential, wanted: &DesiredCredential| {
                memory.secrets.get(&found.name) == Some(&self.digest(&wanted.name, &wanted.secret))
            },
            removes: &|name: &str| memory.removes(name),
            removes_group: &|group: &pb::ModelGroup| memory.model_groups.contains(&group.name),
            removes_setting: &|organization: Option<&str>, key: &str| {
                memory.settings.contains(&setting_mark(organization, key))
            },
            removes_demo: true,
        };
        let changes = plan::plan(desired, &state, &rules);
        let mut executor = Executor::new(&self.backend, &state);
        for change in &changes {
            Box::pin(executor.make(change)).await?;
        }
        self.note(desired, &state, &mut memory)?;
        Ok(executor.applied())
    }

    /// Remembers what this start put there.
    fn note(&self, desired: &Desired, state: &State, memory: &mut Memory) -> anyhow::Result<()> {
        let wanted = |name: &String| desired.credentials.iter().any(|credential| credential.name == *name);
        memory.secrets.retain(|name, _| wanted(name));
        for credential in &desired.credentials {
            let digest = self.digest(&credential.name, &credential.secret);
            memory.secrets.insert(credential.name.clone(), digest);
        }
        memory.model_groups = desired.model_groups.iter().map(|group| group.name.clone()).collect();
        let settings = desired.settings.iter();
        memory.settings = settings.map(|it| setting_mark(it.organization.as_deref(), &it.key)).collect();
        // What could not be removed because somebody uses it is tried again at the next start.
        let exists = |name: &String| {
            state.deployments.iter().any(|deployment| deployment.name == *name)
                || state.credentials.iter().any(|credential| credential.name == *name)
        };
        memory.declared.retain(exists);
        let names = desired.credentials.iter().map(|credential| &credential.name);
        let names = names.chain(desired.deployments.iter().map(|deployment| &deployment.name));
        let names = names.chain(desired.budgets.iter().map(|budget| &budget.name));
        let names = names.chain(desired.limits.iter().map(|limit| &limit.name));
        memory.declared.extend(names.filter(|name| name.starts_with(FILE)).cloned());
        data_dir::write_file(&self.memory_file, &serde_json::to_vec_pretty(memory)?, 0o600)
    }

    fn remember(&self) -> anyhow::Result<Memory> {
        match std::fs::read(&self.memory_file) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged; delete it and restart", self.memory_file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => {
                Err(error).with_context(|| format!("{} cannot be read", self.memory_file.display()))
            }
        }
    }

    fn digest(&self, name: &str, secret: &Secret) -> String {
        let text = format!("{}\0{name}\0{}", self.seal_key_id, secret.expose());
        digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Id of the team with this name, which is made if it does not exist.
    ///
    /// # Errors
    /// When the control plane fails.
    pub async fn team(&self, org_id: &str, name: &str) -> anyhow::Result<String> {
        let teams = every!(self.backend, list_teams -> teams, ListTeamsRequest { org_id })?;
        if let Some(team) = teams.into_iter().find(|team| team.name == name) {
            return Ok(team.id);
        }
        let (org_id, name) = (org_id.to_owned(), name.to_owned());
        let made = self.backend.create_team(CreateTeamRequest { org_id, name, ..Default::default() }).await?;
        Ok(made.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_removes_what_a_start_declared_and_not_what_apply_brought() {
        let declared = BTreeSet::from(["file:main".to_owned()]);
        let memory = Memory { declared, ..Memory::default() };
        for name in ["env:openai", "demo:demo-chat", "file:main", "file:main#0198f3c2"] {
            assert!(memory.removes(name), "{name}");
        }
        for name in ["file:other", "by hand"] {
            assert!(!memory.removes(name), "{name}");
        }
    }
}
