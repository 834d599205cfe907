//! What the control plane has now: everything that a plan compares with. Read before anything is changed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context as _, bail};
use nemo_proto::admin::{
    self as pb, Budget, Credential, Deployment, Key, Model, ModelGroup, Organization, RateLimit, Setting,
    Team,
};

use super::backend::{Backend, every};
use crate::providers::{Desired, limits::On};

/// The operator's things, and of organizations those that a desired state speaks of.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub models: Vec<Model>,
    pub credentials: Vec<Credential>,
    pub deployments: Vec<Deployment>,
    pub model_groups: Vec<ModelGroup>,
    /// Id by name; the empty name is the default organization.
    pub organizations: BTreeMap<String, String>,
    /// By the organization's name.
    pub teams: HashMap<String, Vec<Team>>,
    pub keys: HashMap<String, Vec<Key>>,
    pub budgets: HashMap<String, Vec<Budget>>,
    pub rate_limits: HashMap<String, Vec<RateLimit>>,
    /// By the organization's name; `None`: the installation's.
    pub settings: HashMap<Option<String>, Vec<Setting>>,
}

impl State {
    /// # Errors
    /// When the control plane refuses.
    pub async fn read(backend: &impl Backend, desired: &Desired, default_org: &str) -> anyhow::Result<Self> {
        let mut state = Self {
            models: models(backend).await?,
            credentials: every!(backend, list_credentials -> credentials, ListCredentialsRequest { })?,
            deployments: deployments(backend).await?,
            model_groups: every!(backend, list_model_groups -> model_groups, ListModelGroupsRequest { })?,
            ..Self::default()
        };
        let found = backend.list_settings(pb::ListSettingsRequest::default()).await?;
        state.settings.insert(None, found.settings);
        let named = desired.organizations_named();
        let known = match named.iter().all(|name| name.is_empty()) {
            true => Vec::new(),
            false => every!(backend, list_organizations -> organizations, ListOrganizationsRequest { })?,
        };
        for name in named {
            let exists = name.is_empty() || known.iter().any(|org| org.name == name);
            if !exists && !desired.organizations.contains(&name) {
                bail!("there is no organization {name:?}; make it, or declare it in [[organizations]]");
            }
            state.read_organization(backend, &name, &known, default_org).await?;
        }
        Ok(state)
    }

    async fn read_organization(
        &mut self,
        backend: &impl Backend,
        name: &str,
        known: &[Organization],
        default_org: &str,
    ) -> anyhow::Result<()> {
        let id = match name {
            "" => Some(default_org),
            name => known.iter().find(|org| org.name == name).map(|org| org.id.as_str()),
        };
        let Some(org_id) = id else { return Ok(()) };
        let reading = || format!("the organization {name:?} cannot be read");
        let request = pb::ListSettingsRequest { org_id: org_id.to_owned() };
        let settings = backend.list_settings(request).await;
        let settings = settings.map_err(anyhow::Error::from).with_context(reading)?.settings;
        self.settings.insert(Some(name.to_owned()), settings);
        let teams = every!(backend, list_teams -> teams, ListTeamsRequest { org_id });
        let keys = every!(backend, list_keys -> keys, ListKeysRequest { org_id });
        self.teams.insert(name.to_owned(), teams.map_err(anyhow::Error::from).with_context(reading)?);
        self.keys.insert(name.to_owned(), keys.map_err(anyhow::Error::from).with_context(reading)?);
        let budgets = every!(backend, list_budgets -> budgets, ListBudgetsRequest { org_id });
        let limits = every!(backend, list_rate_limits -> rate_limits, ListRateLimitsRequest { org_id });
        self.budgets.insert(name.to_owned(), budgets.map_err(anyhow::Error::from).with_context(reading)?);
        self.rate_limits.insert(name.to_owned(), limits.map_err(anyhow::Error::from).with_context(reading)?);
        self.organizations.insert(name.to_owned(), org_id.to_owned());
        Ok(())
    }

    pub(super) fn team_id(&self, org: &str, team: &str) -> Option<&str> {
        let teams = self.teams.get(org)?;
        teams.iter().find(|known| known.name == team).map(|known| known.id.as_str())
    }

    /// Ids of team and key, empty for what it is not on; `None`: it does not exist yet.
    pub(super) fn ids_of(&self, org: &str, on: &On) -> Option<(&str, &str)> {
        match on {
            On::Organization => Some(("", "")),
            On::Team(team) => Some((self.team_id(org, team)?, "")),
            On::Key { team, key } => {
                let team = self.team_id(org, team)?;
                let found = self.keys.get(org)?.iter().find(|it| it.team_id == team && it.name == *key)?;
                Some(("", found.id.as_str()))
            }
        }
    }
}

/// All models of the catalog.
pub(super) async fn models(backend: &impl Backend) -> anyhow::Result<Vec<Model>> {
    Ok(every!(backend, list_models -> models, ListModelsRequest {})?)
}

/// The operator's deployments.
pub(super) async fn deployments(backend: &impl Backend) -> anyhow::Result<Vec<Deployment>> {
    Ok(every!(backend, list_deployments -> deployments, ListDeploymentsRequest { })?)
}

impl Desired {
    /// Names of the organizations that are spoken of; the empty one is the default.
    fn organizations_named(&self) -> BTreeSet<String> {
        let of_teams = self.teams.iter().map(|team| &team.organization);
        let of_keys = self.keys.iter().map(|key| &key.organization);
        let of_budgets = self.budgets.iter().map(|budget| &budget.organization);
        let of_limits = self.limits.iter().map(|limit| &limit.organization);
        let of_limits = of_budgets.chain(of_limits);
        self.organizations.iter().chain(of_teams).chain(of_keys).chain(of_limits).cloned().collect()
    }
}
