//! Brings the control plane to a [`Desired`] state: creates what is missing, changes what differs, removes what is
//! managed and not wanted any more. Doing it again changes nothing.

mod difference;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::Future,
    path::PathBuf,
};

use anyhow::Context as _;
use nemo_control_plane::admin::{Admin, AdminError, Caller, ErrorKind};
use nemo_proto::admin::{
    CreateCredentialRequest, CreateModelGroupRequest, CreateTeamRequest, Credential, DeleteCredentialRequest,
    DeleteDeploymentRequest, DeleteModelGroupRequest, DeleteModelRequest, Deployment, IssueKeyRequest, Links,
    ListCredentialsRequest, ListDeploymentsRequest, ListKeysRequest, ListModelGroupsRequest,
    ListModelsRequest, ListTeamsRequest, Model, ModelGroup, PutModelRequest, UpdateCredentialRequest,
    UpdateDeploymentRequest, UpdateModelGroupRequest,
};
use nemo_types::Secret;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use self::difference::{creation, difference, links, same_model};
use super::{Desired, DesiredCredential, DesiredDeployment, DesiredGroup, DesiredKey, is_managed};
use crate::data_dir;

/// Largest page that the admin operations give.
const PAGE: u32 = 1000;

/// What was changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub created: usize,
    pub changed: usize,
    pub removed: usize,
    /// Issued now: name and secret, shown once.
    pub keys: Vec<(String, String)>,
}

/// What cannot be read back from the control plane. Kept in the data directory.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    /// Digest of the secret that each managed credential was sealed from.
    secrets: BTreeMap<String, String>,
    /// Their names are seen by clients, so they carry no prefix that would mark them.
    model_groups: BTreeSet<String>,
}

/// Applies desired states to one control plane.
pub struct Applier<'a> {
    admin: &'a Admin,
    caller: Caller,
    /// Id of the sealing key: secrets are sealed again when it changes.
    seal_key_id: String,
    memory_file: PathBuf,
}

impl<'a> Applier<'a> {
    pub fn new(admin: &'a Admin, seal_key_id: String, memory_file: PathBuf) -> Self {
        Self { admin, caller: Caller::local_operator(), seal_key_id, memory_file }
    }

    /// All models of the catalog.
    ///
    /// # Errors
    /// When the control plane fails.
    pub async fn catalog(&self) -> anyhow::Result<Vec<Model>> {
        all(async |page_token| {
            let request = ListModelsRequest { page_size: PAGE, page_token, ..ListModelsRequest::default() };
            let page = self.admin.list_models(&self.caller, request).await?;
            Ok((page.models, page.next_page_token))
        })
        .await
    }

    /// Applies `desired`; keys go to the teams of `org_id`.
    ///
    /// # Errors
    /// When the control plane refuses something; what was done before stays done, and a repetition goes on there.
    pub async fn apply(&self, desired: &Desired, org_id: &str) -> anyhow::Result<Applied> {
        let mut memory = self.remember()?;
        let mut applied = Applied::default();
        self.models(desired, &mut applied).await?;
        let credentials = self.credentials(&desired.credentials, &mut memory, &mut applied).await?;
        let existing = self.deployments().await?;
        let ids = self.put_deployments(&desired.deployments, &existing, &credentials, &mut applied).await?;
        let known = existing
            .iter()
            .map(|deployment| (deployment.name.clone(), deployment.id.clone()))
            .chain(ids)
            .collect();
        self.model_groups(&desired.model_groups, &known, &mut memory, &mut applied).await?;
        self.remove_deployments(desired, &mut applied).await?;
        self.remove_credentials(desired, &mut memory, &mut applied).await?;
        self.remove_demo_models(desired).await?;
        self.keys(&desired.keys, org_id, &mut applied).await?;
        let text = serde_json::to_vec_pretty(&memory)?;
        data_dir::write_file(&self.memory_file, &text, 0o600)?;
        Ok(applied)
    }

    fn remember(&self) -> anyhow::Result<Memory> {
        match std::fs::read(&self.memory_file) {
            // Unreadable memory costs one needless change of every secret.
            Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => {
                Err(error).with_context(|| format!("{} cannot be read", self.memory_file.display()))
            }
        }
    }

    async fn models(&self, desired: &Desired, applied: &mut Applied) -> anyhow::Result<()> {
        if desired.models.is_empty() {
            return Ok(());
        }
        let known: HashMap<String, Model> =
            self.catalog().await?.into_iter().map(|m| (m.id.clone(), m)).collect();
        for model in &desired.models {
            match known.get(&model.id) {
                Some(known) if known.source != "custom" || same_model(known, model) => continue,
                Some(_) => applied.changed += 1,
                None => applied.created += 1,
            }
            let request = PutModelRequest { model: Some(model.clone()) };
            let put = self.admin.put_model(&self.caller, request).await;
            put.with_context(|| format!("the model {} cannot be put into the catalog", model.id))?;
        }
        Ok(())
    }

    /// Ids of the managed credentials by name.
    async fn credentials(
        &self,
        desired: &[DesiredCredential],
        memory: &mut Memory,
        applied: &mut Applied,
    ) -> anyhow::Result<HashMap<String, String>> {
        let mut ids = HashMap::new();
        let existing = self.list_credentials().await?;
        for wanted in desired {
            let digest = self.digest(&wanted.name, &wanted.secret);
            let secret = wanted.secret.expose().to_owned();
            let found = existing.iter().find(|credential| credential.name == wanted.name);
            let id = match found {
                Some(found) if found.provider == wanted.provider => {
                    if memory.secrets.get(&wanted.name) != Some(&digest) {
                        let request = UpdateCredentialRequest {
                            id: found.id.clone(),
                            secret: Some(secret),
                            ..Default::default()
                        };
                        let updated = self.admin.update_credential(&self.caller, request).await;
                        updated
                            .with_context(|| format!("the credential {} cannot be changed", wanted.name))?;
                        applied.changed += 1;
                    }
                    found.id.clone()
                }
                found => {
                    if let Some(found) = found {
                        // The entry of nemo.toml names another provider now, and a credential's is fixed.
                        self.move_aside(found).await?;
                    }
                    let (name, provider) = (wanted.name.clone(), wanted.provider.clone());
                    let request = CreateCredentialRequest { org_id: String::new(), name, provider, secret };
                    let created = self.admin.create_credential(&self.caller, request).await;
                    applied.created += 1;
                    created.with_context(|| format!("the credential {} cannot be created", wanted.name))?.id
                }
            };
            memory.secrets.insert(wanted.name.clone(), digest);
            ids.insert(wanted.name.clone(), id);
        }
        Ok(ids)
    }

    async fn move_aside(&self, credential: &Credential) -> anyhow::Result<()> {
        let name = Some(format!("{}#{}", credential.name, credential.id));
        let request = UpdateCredentialRequest { id: credential.id.clone(), name, ..Default::default() };
        self.admin.update_credential(&self.caller, request).await?;
        Ok(())
    }

    fn digest(&self, name: &str, secret: &Secret) -> String {
        let text = format!("{}\0{name}\0{}", self.seal_key_id, secret.expose());
        digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Creates and changes; returns the ids by name.
    async fn put_deployments(
        &self,
        desired: &[DesiredDeployment],
        existing: &[Deployment],
        credentials: &HashMap<String, String>,
        applied: &mut Applied,
    ) -> anyhow::Result<HashMap<String, String>> {
        let by_name: HashMap<&str, &Deployment> = existing.iter().map(|d| (d.name.as_str(), d)).collect();
        let mut ids = HashMap::new();
        for wanted in desired {
            let credential_id = match &wanted.credential {
                Some(name) => credentials.get(name).cloned().unwrap_or_default(),
                None => String::new(),
            };
            let found = by_name.get(wanted.name.as_str()).copied();
            let fits = |found: &&Deployment| found.provider == wanted.provider && found.model == wanted.model;
            let id = match found.filter(fits) {
                Some(found) => {
                    if let Some(change) = difference(found, wanted, &credential_id) {
                        let updated = self.admin.update_deployment(&self.caller, change).await;
                        updated
                            .with_context(|| format!("the deployment {} cannot be changed", wanted.name))?;
                        applied.changed += 1;
                    }
                    found.id.clone()
                }
                None => {
                    if let Some(found) = found {
                        // Model and provider of a deployment are fixed. The old one is removed when no group has it.
                        let name = Some(format!("{}#{}", found.name, found.id));
                        let request =
                            UpdateDeploymentRequest { id: found.id.clone(), name, ..Default::default() };
                        self.admin.update_deployment(&self.caller, request).await?;
                    }
                    let created =
                        self.admin.create_deployment(&self.caller, creation(wanted, credential_id)).await;
                    applied.created += 1;
                    created.with_context(|| format!("the deployment {} cannot be created", wanted.name))?.id
                }
            };
            ids.insert(wanted.name.clone(), id);
        }
        Ok(ids)
    }

    async fn model_groups(
        &self,
        desired: &[DesiredGroup],
        deployments: &HashMap<String, String>,
        memory: &mut Memory,
        applied: &mut Applied,
    ) -> anyhow::Result<()> {
        let existing: Vec<ModelGroup> = all(async |page_token| {
            let request = ListModelGroupsRequest { org_id: String::new(), page_size: PAGE, page_token };
            let page = self.admin.list_model_groups(&self.caller, request).await?;
            Ok((page.model_groups, page.next_page_token))
        })
        .await?;
        for wanted in desired {
            let links = links(wanted, deployments)?;
            let (name, strategy) = (wanted.name.clone(), wanted.strategy.clone());
            let done = match existing.iter().find(|group| group.name == wanted.name) {
                Some(found) if found.strategy == strategy && found.links == links => continue,
                Some(found) => {
                    applied.changed += 1;
                    let (id, links) = (found.id.clone(), Some(Links { links }));
                    let request =
                        UpdateModelGroupRequest { id, strategy: Some(strategy), links, ..Default::default() };
                    self.admin.update_model_group(&self.caller, request).await
                }
                None => {
                    applied.created += 1;
                    let request = CreateModelGroupRequest { org_id: String::new(), name, strategy, links };
                    self.admin.create_model_group(&self.caller, request).await
                }
            };
            done.with_context(|| format!("the model group {} cannot be written", wanted.name))?;
        }
        let wanted: BTreeSet<String> = desired.iter().map(|group| group.name.clone()).collect();
        for group in existing.iter().filter(|group| memory.model_groups.contains(&group.name)) {
            if !wanted.contains(&group.name) {
                let request = DeleteModelGroupRequest { id: group.id.clone(), ..Default::default() };
                self.admin.delete_model_group(&self.caller, request).await?;
                applied.removed += 1;
            }
        }
        memory.model_groups = wanted;
        Ok(())
    }

    async fn remove_deployments(&self, desired: &Desired, applied: &mut Applied) -> anyhow::Result<()> {
        let wanted: BTreeSet<&str> = desired.deployments.iter().map(|d| d.name.as_str()).collect();
        for found in self.deployments().await? {
            if !is_managed(&found.name) || wanted.contains(found.name.as_str()) {
                continue;
            }
            let request = DeleteDeploymentRequest { id: found.id.clone(), ..Default::default() };
            match self.admin.delete_deployment(&self.caller, request).await {
                Ok(_) => applied.removed += 1,
                Err(error) if error.kind == ErrorKind::InUse && found.disabled => {}
                Err(error) if error.kind == ErrorKind::InUse => {
                    // Somebody's model group has it: it stays there, but gets no requests.
                    let request = UpdateDeploymentRequest {
                        id: found.id.clone(),
                        disabled: Some(true),
                        ..Default::default()
                    };
                    self.admin.update_deployment(&self.caller, request).await?;
                    tracing::warn!(
                        deployment = found.name,
                        "disabled, not removed: a model group still has it"
                    );
                    applied.changed += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn remove_credentials(
        &self,
        desired: &Desired,
        memory: &mut Memory,
        applied: &mut Applied,
    ) -> anyhow::Result<()> {
        let wanted: BTreeSet<&str> = desired.credentials.iter().map(|c| c.name.as_str()).collect();
        for found in self.list_credentials().await? {
            if !is_managed(&found.name) || wanted.contains(found.name.as_str()) {
                continue;
            }
            memory.secrets.remove(&found.name);
            let request = DeleteCredentialRequest { id: found.id.clone(), ..Default::default() };
            match self.admin.delete_credential(&self.caller, request).await {
                Ok(_) => applied.removed += 1,
                Err(error) if error.kind == ErrorKind::InUse => {
                    tracing::warn!(credential = found.name, "kept: a deployment still uses it");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Nobody wants to see the demo's models among real ones.
    async fn remove_demo_models(&self, desired: &Desired) -> anyhow::Result<()> {
        for id in [crate::demo::CHAT_MODEL, crate::demo::EMBEDDING_MODEL] {
            if desired.deployments.iter().any(|deployment| deployment.model == id) {
                continue;
            }
            match self.admin.delete_model(&self.caller, DeleteModelRequest { id: id.to_owned() }).await {
                Ok(_) => {}
                Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::InUse) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn keys(&self, desired: &[DesiredKey], org_id: &str, applied: &mut Applied) -> anyhow::Result<()> {
        for wanted in desired {
            let team_id = self.team(org_id, &wanted.team).await?;
            let existing = all(async |page_token| {
                let (org_id, team_id) = (org_id.to_owned(), team_id.clone());
                let request = ListKeysRequest { org_id, team_id, page_size: PAGE, page_token };
                let page = self.admin.list_keys(&self.caller, request).await?;
                Ok((page.keys, page.next_page_token))
            })
            .await?;
            if existing.iter().any(|key| key.name == wanted.name) {
                continue;
            }
            let request = IssueKeyRequest {
                org_id: org_id.to_owned(),
                team_id,
                name: wanted.name.clone(),
                allowed_models: wanted.allowed_models.clone(),
                expires_at: None,
            };
            let issued = self.admin.issue_key(&self.caller, request).await;
            let issued = issued.with_context(|| format!("the key {} cannot be issued", wanted.name))?;
            applied.created += 1;
            applied.keys.push((wanted.name.clone(), issued.secret));
        }
        Ok(())
    }

    /// Id of the team with this name, which is made if it does not exist.
    ///
    /// # Errors
    /// When the control plane fails.
    pub async fn team(&self, org_id: &str, name: &str) -> anyhow::Result<String> {
        let teams = all(async |page_token| {
            let request = ListTeamsRequest { org_id: org_id.to_owned(), page_size: PAGE, page_token };
            let page = self.admin.list_teams(&self.caller, request).await?;
            Ok((page.teams, page.next_page_token))
        })
        .await?;
        if let Some(team) = teams.into_iter().find(|team| team.name == name) {
            return Ok(team.id);
        }
        let request = CreateTeamRequest { org_id: org_id.to_owned(), name: name.to_owned() };
        let team = self.admin.create_team(&self.caller, request).await;
        Ok(team.with_context(|| format!("the team {name} cannot be created"))?.id)
    }

    async fn list_credentials(&self) -> anyhow::Result<Vec<Credential>> {
        all(async |page_token| {
            let request = ListCredentialsRequest { org_id: String::new(), page_size: PAGE, page_token };
            let page = self.admin.list_credentials(&self.caller, request).await?;
            Ok((page.credentials, page.next_page_token))
        })
        .await
    }

    /// The operator's deployments.
    ///
    /// # Errors
    /// When the control plane fails.
    pub async fn deployments(&self) -> anyhow::Result<Vec<Deployment>> {
        all(async |page_token| {
            let request = ListDeploymentsRequest { page_size: PAGE, page_token, ..Default::default() };
            let page = self.admin.list_deployments(&self.caller, request).await?;
            Ok((page.deployments, page.next_page_token))
        })
        .await
    }
}

/// Every page of a list.
///
/// # Errors
/// When a page cannot be had.
pub async fn all<T, F>(fetch: impl Fn(String) -> F) -> anyhow::Result<Vec<T>>
where
    F: Future<Output = Result<(Vec<T>, String), AdminError>>,
{
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = fetch(token).await?;
        items.extend(page);
        if next.is_empty() {
            return Ok(items);
        }
        token = next;
    }
}
