//! Makes the changes of a plan, one after the other, and remembers the ids of what they make. Called by
//! [`super::Applier`] and by `nemo apply`.

use std::collections::HashMap;

use anyhow::Context as _;
use nemo_proto::admin::{
    CreateCredentialRequest, CreateDeploymentRequest, CreateModelGroupRequest, CreateOrganizationRequest,
    CreateTeamRequest, DeleteCredentialRequest, DeleteDeploymentRequest, DeleteModelGroupRequest,
    DeleteModelRequest, DeleteSettingRequest, IssueKeyRequest, Link, LinkDeployment, Links, PutModelRequest,
    PutSettingRequest, RequiredTags, UpdateCredentialRequest, UpdateDeploymentRequest, UpdateKeyRequest,
    UpdateModelGroupRequest,
};

use super::{
    Applied,
    backend::{Backend, Refused},
    limits,
    plan::{Action, Change, Sign},
    state::State,
};
use crate::providers::{DesiredCredential, DesiredDeployment, DesiredGroup, DesiredKey};

/// Makes changes on one control plane.
pub struct Executor<'a, B> {
    backend: &'a B,
    applied: Applied,
    credentials: HashMap<String, String>,
    deployments: HashMap<String, String>,
    organizations: HashMap<String, String>,
    /// By the names of organization and team.
    teams: HashMap<(String, String), String>,
    /// By the name of the organization, the id of the team and the name.
    keys: HashMap<(String, String, String), String>,
}

impl<'a, B: Backend> Executor<'a, B> {
    pub fn new(backend: &'a B, state: &State) -> Self {
        let team = |(org, teams): (&String, &Vec<nemo_proto::admin::Team>)| {
            let org = org.clone();
            teams
                .iter()
                .map(move |team| ((org.clone(), team.name.clone()), team.id.clone()))
                .collect::<Vec<_>>()
        };
        let keys = state.keys.iter().flat_map(|(org, keys)| {
            keys.iter().map(move |key| ((org.clone(), key.team_id.clone(), key.name.clone()), key.id.clone()))
        });
        Self {
            backend,
            applied: Applied::default(),
            credentials: state.credentials.iter().map(|c| (c.name.clone(), c.id.clone())).collect(),
            deployments: state.deployments.iter().map(|d| (d.name.clone(), d.id.clone())).collect(),
            organizations: state.organizations.clone().into_iter().collect(),
            teams: state.teams.iter().flat_map(team).collect(),
            keys: keys.collect(),
        }
    }

    pub fn applied(self) -> Applied {
        self.applied
    }

    /// # Errors
    /// When the control plane refuses; what was done before stays done, and a new plan goes on there.
    pub async fn make(&mut self, change: &Change) -> anyhow::Result<()> {
        let done = self.act(change).await;
        let done = done.with_context(|| {
            let verb = match change.sign {
                Sign::Create => "created",
                Sign::Change => "changed",
                Sign::Remove => "removed",
            };
            format!("the {} {} cannot be {verb}", change.kind, super::shown(&change.name))
        })?;
        match done {
            Some(Sign::Create) => self.applied.created += 1,
            Some(Sign::Change) => self.applied.changed += 1,
            Some(Sign::Remove) => self.applied.removed += 1,
            None => {}
        }
        Ok(())
    }

    /// Returns what was done in the end, which may be less than what was planned.
    async fn act(&mut self, change: &Change) -> anyhow::Result<Option<Sign>> {
        let name = &change.name;
        match &change.action {
            Action::CreateOrganization => {
                let request = CreateOrganizationRequest { name: name.clone(), ..Default::default() };
                let made = self.backend.create_organization(request).await?;
                self.organizations.insert(name.clone(), made.id);
            }
            Action::DeleteSetting { organization, key } => {
                let (org_id, key) = (self.owner(organization.as_deref())?, key.clone());
                let request = DeleteSettingRequest { org_id, key, ..Default::default() };
                match self.backend.delete_setting(request).await {
                    Err(refused) if !refused.not_found => return Err(refused.into()),
                    _ => {}
                }
            }
            Action::PutSetting(wanted) => {
                let org_id = self.owner(wanted.organization.as_deref())?;
                let (key, value) = (wanted.key.clone(), wanted.value.clone());
                let request = PutSettingRequest { org_id, key, value, ..Default::default() };
                self.backend.put_setting(request).await?;
            }
            Action::PutModel(model) => {
                let request = PutModelRequest { model: Some((**model).clone()), ..Default::default() };
                self.backend.put_model(request).await?;
            }
            Action::DeleteModel => return self.delete_model(name).await,
            Action::CreateCredential { wanted, aside } => {
                self.create_credential(wanted, aside.as_deref()).await?;
            }
            Action::ReplaceSecret { id, wanted } => {
                let secret = Some(wanted.secret.expose().to_owned());
                let request = UpdateCredentialRequest { id: id.clone(), secret, ..Default::default() };
                self.backend.update_credential(request).await?;
            }
            Action::DeleteCredential { id } => return self.delete_credential(id, name).await,
            Action::CreateDeployment { wanted, aside } => {
                self.create_deployment(wanted, aside.as_deref()).await?;
            }
            Action::UpdateDeployment { request, credential } => {
                let credential_id = credential.as_ref().map(|name| self.credential(name)).transpose()?;
                let request = UpdateDeploymentRequest { credential_id, ..(**request).clone() };
                self.backend.update_deployment(request).await?;
            }
            Action::DisableDeployment { id } => self.disable_deployment(id).await?,
            Action::DeleteDeployment { id, disabled } => {
                return self.delete_deployment(id, name, *disabled).await;
            }
            Action::CreateGroup(wanted) => {
                let (links, strategy) = (self.links(wanted)?, wanted.strategy.clone());
                let required_tags = wanted.required_tags.clone();
                let name = name.clone();
                let request =
                    CreateModelGroupRequest { name, strategy, required_tags, links, ..Default::default() };
                let made = self.backend.create_model_group(request).await?;
                self.warned(&made.name, &made.warnings);
            }
            Action::UpdateGroup { id, wanted } => {
                let (strategy, links) =
                    (Some(wanted.strategy.clone()), Some(Links { links: self.links(wanted)? }));
                let required_tags = Some(RequiredTags { names: wanted.required_tags.clone() });
                let id = id.clone();
                let request =
                    UpdateModelGroupRequest { id, strategy, required_tags, links, ..Default::default() };
                let made = self.backend.update_model_group(request).await?;
                self.warned(&made.name, &made.warnings);
            }
            Action::DeleteGroup { id } => {
                let request = DeleteModelGroupRequest { id: id.clone(), ..Default::default() };
                self.backend.delete_model_group(request).await?;
            }
            Action::CreateTeam { organization } => {
                let org_id = self.organization(organization)?;
                let request = CreateTeamRequest { org_id, name: name.clone(), ..Default::default() };
                let made = self.backend.create_team(request).await?;
                self.teams.insert((organization.clone(), name.clone()), made.id);
            }
            Action::IssueKey(wanted) => self.issue_key(wanted).await?,
            Action::Limited(limited) => {
                if !Box::pin(limits::make(self.backend, self, limited)).await? {
                    return Ok(None);
                }
            }
            Action::UpdateKey { organization, request } => {
                let org_id = self.organization(organization)?;
                let request = UpdateKeyRequest { org_id, ..(**request).clone() };
                self.backend.update_key(request).await?;
            }
        }
        Ok(Some(change.sign))
    }

    fn credential(&self, name: &str) -> anyhow::Result<String> {
        if name.is_empty() {
            return Ok(String::new());
        }
        self.credentials.get(name).cloned().with_context(|| format!("there is no credential {name}"))
    }

    fn organization(&self, name: &str) -> anyhow::Result<String> {
        self.organizations.get(name).cloned().with_context(|| format!("there is no organization {name}"))
    }

    async fn create_credential(
        &mut self,
        wanted: &DesiredCredential,
        aside: Option<&str>,
    ) -> anyhow::Result<()> {
        let name = wanted.name.clone();
        if let Some(id) = aside {
            let moved = Some(format!("{name}#{id}"));
            let request = UpdateCredentialRequest { id: id.to_owned(), name: moved, ..Default::default() };
            self.backend.update_credential(request).await?;
        }
        let request = CreateCredentialRequest {
            name: name.clone(),
            provider: wanted.provider.clone(),
            secret: wanted.secret.expose().to_owned(),
            ..Default::default()
        };
        let made = self.backend.create_credential(request).await?;
        self.credentials.insert(name, made.id);
        Ok(())
    }

    async fn delete_credential(&self, id: &str, name: &str) -> anyhow::Result<Option<Sign>> {
        let request = DeleteCredentialRequest { id: id.to_owned(), ..Default::default() };
        match self.backend.delete_credential(request).await {
            Ok(_) => Ok(Some(Sign::Remove)),
            Err(Refused { in_use: true, .. }) => {
                tracing::warn!(credential = name, "kept: a deployment still uses it");
                Ok(None)
            }
            Err(refused) => Err(refused.into()),
        }
    }

    async fn create_deployment(
        &mut self,
        wanted: &DesiredDeployment,
        aside: Option<&str>,
    ) -> anyhow::Result<()> {
        if let Some(id) = aside {
            let name = Some(format!("{}#{id}", wanted.name));
            let request = UpdateDeploymentRequest { id: id.to_owned(), name, ..Default::default() };
            self.backend.update_deployment(request).await?;
        }
        let request = CreateDeploymentRequest {
            name: wanted.name.clone(),
            provider: wanted.provider.clone(),
            base_url: wanted.base_url.clone(),
            credential_id: self.credential(wanted.credential.as_deref().unwrap_or_default())?,
            model: wanted.model.clone(),
            upstream_model: wanted.upstream_model.clone(),
            weight: Some(wanted.weight),
            price: wanted.price.clone(),
            rpm: wanted.rpm,
            tpm: wanted.tpm,
            ..Default::default()
        };
        let made = self.backend.create_deployment(request).await?;
        self.deployments.insert(wanted.name.clone(), made.id);
        Ok(())
    }

    async fn disable_deployment(&self, id: &str) -> anyhow::Result<()> {
        let request =
            UpdateDeploymentRequest { id: id.to_owned(), disabled: Some(true), ..Default::default() };
        self.backend.update_deployment(request).await?;
        Ok(())
    }

    /// An organization's own model group may have it, which a plan does not see.
    async fn delete_deployment(&self, id: &str, name: &str, disabled: bool) -> anyhow::Result<Option<Sign>> {
        let request = DeleteDeploymentRequest { id: id.to_owned(), ..Default::default() };
        match self.backend.delete_deployment(request).await {
            Ok(_) => Ok(Some(Sign::Remove)),
            Err(Refused { in_use: true, .. }) if disabled => Ok(None),
            Err(Refused { in_use: true, .. }) => {
                self.disable_deployment(id).await?;
                tracing::warn!(deployment = name, "disabled, not removed: a model group still has it");
                Ok(Some(Sign::Change))
            }
            Err(refused) => Err(refused.into()),
        }
    }

    /// The operator's own have no organization.
    fn owner(&self, organization: Option<&str>) -> anyhow::Result<String> {
        organization.map_or_else(|| Ok(String::new()), |name| self.organization(name))
    }

    fn warned(&mut self, group: &str, warnings: &[String]) {
        let told = warnings.iter().map(|warning| format!("model group {group}, {warning}"));
        self.applied.warnings.extend(told);
    }

    async fn delete_model(&self, id: &str) -> anyhow::Result<Option<Sign>> {
        match self.backend.delete_model(DeleteModelRequest { id: id.to_owned(), ..Default::default() }).await
        {
            // Its deployments were counted.
            Ok(_) => Ok(None),
            Err(refused) if refused.in_use || refused.not_found => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    fn links(&self, wanted: &DesiredGroup) -> anyhow::Result<Vec<Link>> {
        let mut links = Vec::with_capacity(wanted.links.len());
        for link in &wanted.links {
            let mut deployments = Vec::with_capacity(link.len());
            for (name, weight) in link {
                let id = self.deployments.get(name);
                let id = id.with_context(|| format!("there is no deployment {}", super::shown(name)))?;
                deployments.push(LinkDeployment { deployment_id: id.clone(), weight: *weight });
            }
            links.push(Link { deployments });
        }
        Ok(links)
    }

    async fn issue_key(&mut self, wanted: &DesiredKey) -> anyhow::Result<()> {
        let org_id = self.organization(&wanted.organization)?;
        let team = (wanted.organization.clone(), wanted.team.clone());
        let team_id = self.teams.get(&team).cloned();
        let team_id = team_id.with_context(|| format!("there is no team {}", wanted.team))?;
        let request = IssueKeyRequest {
            org_id,
            team_id,
            name: wanted.name.clone(),
            allowed_models: wanted.allowed_models.clone().unwrap_or_default(),
            allowed_endpoints: wanted.allowed_endpoints.clone().unwrap_or_default(),
            allowed_cidrs: wanted.allowed_cidrs.clone().unwrap_or_default(),
            default_tags: wanted.default_tags.clone().unwrap_or_default(),
            ..Default::default()
        };
        let issued = self.backend.issue_key(request).await?;
        self.applied.keys.push((wanted.name.clone(), issued.secret));
        if let Some(key) = issued.key {
            self.keys.insert((wanted.organization.clone(), key.team_id, key.name), key.id);
        }
        Ok(())
    }
}

impl<B: Backend> limits::Ids for Executor<'_, B> {
    fn organization(&self, name: &str) -> anyhow::Result<String> {
        Executor::organization(self, name)
    }

    fn team(&self, organization: &str, name: &str) -> Option<String> {
        self.teams.get(&(organization.to_owned(), name.to_owned())).cloned()
    }

    fn key(&self, organization: &str, team: &str, name: &str) -> Option<String> {
        let team = limits::Ids::team(self, organization, team)?;
        self.keys.get(&(organization.to_owned(), team, name.to_owned())).cloned()
    }
}
