//! What has to be done so that what is becomes what shall be: pure, so that it can be shown before it is done.

use std::collections::{BTreeSet, HashMap, HashSet};

use nemo_proto::admin::{
    Credential, Deployment, Model, ModelGroup, UpdateDeploymentRequest, UpdateKeyRequest,
};

use super::{
    difference,
    limits::{self, Limited},
    state::State,
};
use crate::providers::{
    Desired, DesiredCredential, DesiredDeployment, DesiredGroup, DesiredKey, DesiredSetting,
    limits::{DesiredBudget, DesiredLimit},
};

/// What may be done besides creating and changing.
pub struct Rules<'a> {
    /// The secret that the control plane holds is the one that is wanted.
    pub same_secret: &'a dyn Fn(&Credential, &DesiredCredential) -> bool,
    /// A credential or deployment of this name goes when nobody wants it.
    pub removes: &'a dyn Fn(&str) -> bool,
    pub removes_group: &'a dyn Fn(&ModelGroup) -> bool,
    /// By the organization's name (`None`: the installation) and the key.
    pub removes_setting: &'a dyn Fn(Option<&str>, &str) -> bool,
    /// Nobody wants to see the demo's models among real ones.
    pub removes_demo: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    Create,
    Change,
    Remove,
}

/// A member of what is changed, in words. Never a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub sign: Sign,
    pub kind: &'static str,
    pub name: String,
    pub fields: Vec<Field>,
    pub(super) action: Action,
}

/// What the executor does. Names stand for things that may not exist yet.
#[derive(Clone, Debug)]
pub(super) enum Action {
    CreateOrganization,
    PutSetting(DesiredSetting),
    DeleteSetting {
        organization: Option<String>,
        key: String,
    },
    PutModel(Box<Model>),
    DeleteModel,
    /// `aside`: id of one with this name that has to be renamed first.
    CreateCredential {
        wanted: DesiredCredential,
        aside: Option<String>,
    },
    ReplaceSecret {
        id: String,
        wanted: DesiredCredential,
    },
    DeleteCredential {
        id: String,
    },
    CreateDeployment {
        wanted: Box<DesiredDeployment>,
        aside: Option<String>,
    },
    UpdateDeployment {
        request: Box<UpdateDeploymentRequest>,
        credential: Option<String>,
    },
    DisableDeployment {
        id: String,
    },
    DeleteDeployment {
        id: String,
        disabled: bool,
    },
    CreateGroup(DesiredGroup),
    UpdateGroup {
        id: String,
        wanted: DesiredGroup,
    },
    DeleteGroup {
        id: String,
    },
    CreateTeam {
        organization: String,
    },
    IssueKey(Box<DesiredKey>),
    UpdateKey {
        organization: String,
        request: Box<UpdateKeyRequest>,
    },
    Limited(Limited),
}

/// The changes in the order in which they can be made.
pub fn plan(desired: &Desired, state: &State, rules: &Rules<'_>) -> Vec<Change> {
    let mut plan = Planner { desired, state, rules, changes: Vec::new(), replaced: HashSet::new() };
    plan.organizations();
    plan.settings();
    plan.models();
    plan.credentials();
    plan.deployments();
    let staying = plan.groups();
    plan.remove_deployments(&staying);
    plan.remove_credentials();
    plan.remove_demo();
    plan.teams();
    plan.keys();
    plan.budgets();
    plan.limits();
    plan.changes
}

struct Planner<'a> {
    desired: &'a Desired,
    state: &'a State,
    rules: &'a Rules<'a>,
    changes: Vec<Change>,
    /// Ids of credentials and deployments whose name another one gets.
    replaced: HashSet<String>,
}

impl Planner<'_> {
    fn push(&mut self, sign: Sign, kind: &'static str, name: &str, fields: Vec<Field>, action: Action) {
        self.changes.push(Change { sign, kind, name: name.to_owned(), fields, action });
    }

    fn organizations(&mut self) {
        for name in &self.desired.organizations {
            if !self.state.organizations.contains_key(name) {
                self.push(Sign::Create, "organization", name, Vec::new(), Action::CreateOrganization);
            }
        }
    }

    /// Ceilings first, so that what they bound fits.
    fn settings(&mut self) {
        let mut wanted: Vec<_> = self.desired.settings.iter().collect();
        wanted.sort_by_key(|setting| !setting.key.contains("max"));
        for wanted in wanted {
            let owner = wanted.organization.as_deref();
            let found = self.state.settings.get(&wanted.organization).and_then(|settings| {
                settings
                    .iter()
                    .find(|setting| setting.key == wanted.key)
                    .map(|setting| setting.value.as_str())
            });
            let fields = difference::changed("value", found.unwrap_or_default(), &wanted.value);
            if !fields.is_empty() {
                let sign = if found.is_some() { Sign::Change } else { Sign::Create };
                let name = setting_name(owner, &wanted.key);
                self.push(sign, "setting", &name, fields, Action::PutSetting(wanted.clone()));
            }
        }
        let mut gone = Vec::new();
        for (organization, settings) in &self.state.settings {
            let wanted = |key: &str| {
                self.desired.settings.iter().any(|it| it.organization == *organization && it.key == key)
            };
            let goes = |key: &str| !wanted(key) && (self.rules.removes_setting)(organization.as_deref(), key);
            let keys = settings.iter().map(|setting| &setting.key).filter(|key| goes(key));
            gone.extend(keys.map(|key| (organization.clone(), key.clone())));
        }
        gone.sort();
        for (organization, key) in gone {
            let name = setting_name(organization.as_deref(), &key);
            let action = Action::DeleteSetting { organization, key };
            self.push(Sign::Remove, "setting", &name, Vec::new(), action);
        }
    }

    fn models(&mut self) {
        let known: HashMap<&str, &Model> = self.state.models.iter().map(|m| (m.id.as_str(), m)).collect();
        for model in &self.desired.models {
            let action = Action::PutModel(Box::new(model.clone()));
            match known.get(model.id.as_str()) {
                Some(known) if known.source != "custom" || difference::same_model(known, model) => {}
                Some(known) => {
                    let fields = difference::model(known, model);
                    self.push(Sign::Change, "model", &model.id, fields, action);
                }
                None => self.push(Sign::Create, "model", &model.id, Vec::new(), action),
            }
        }
    }

    fn credentials(&mut self) {
        for wanted in &self.desired.credentials {
            let found = self.state.credentials.iter().find(|credential| credential.name == wanted.name);
            match found {
                Some(found) if found.provider == wanted.provider => {
                    if !(self.rules.same_secret)(found, wanted) {
                        let before = Some(shown_secret(&found.hint));
                        let after = Some(shown_secret(&hint(wanted.secret.expose())));
                        let field = Field { name: "secret".to_owned(), before, after };
                        let action = Action::ReplaceSecret { id: found.id.clone(), wanted: wanted.clone() };
                        self.push(Sign::Change, "credential", &wanted.name, vec![field], action);
                    }
                }
                found => {
                    // The entry of nemo.toml names another provider now, and a credential's is fixed.
                    let aside = found.map(|found| found.id.clone());
                    self.replaced.extend(aside.clone());
                    let secret = shown_secret(&hint(wanted.secret.expose()));
                    let fields = difference::created(&[("provider", &wanted.provider), ("secret", &secret)]);
                    let action = Action::CreateCredential { wanted: wanted.clone(), aside };
                    self.push(Sign::Create, "credential", &wanted.name, fields, action);
                }
            }
        }
    }

    /// Name of the credential with this id.
    fn credential_name(&self, id: &str) -> String {
        let found = self.state.credentials.iter().find(|credential| credential.id == id);
        found.map_or_else(|| id.to_owned(), |found| found.name.clone())
    }

    fn deployments(&mut self) {
        for wanted in &self.desired.deployments {
            let found = self.state.deployments.iter().find(|deployment| deployment.name == wanted.name);
            let fits = |found: &&Deployment| found.provider == wanted.provider && found.model == wanted.model;
            match found.filter(fits) {
                Some(found) => {
                    let before = self.credential_name(&found.credential_id);
                    // One that is replaced has another id after this.
                    let same_credential = before == wanted.credential.clone().unwrap_or_default()
                        && !self.replaced.contains(&found.credential_id);
                    let Some((request, fields)) =
                        difference::deployment(found, wanted, &before, same_credential)
                    else {
                        continue;
                    };
                    let credential =
                        (!same_credential).then(|| wanted.credential.clone().unwrap_or_default());
                    let action = Action::UpdateDeployment { request: Box::new(request), credential };
                    self.push(Sign::Change, "deployment", &wanted.name, fields, action);
                }
                None => {
                    // Model and provider of a deployment are fixed: the old one makes room and goes.
                    let aside = found.map(|found| found.id.clone());
                    self.replaced.extend(aside.clone());
                    let fields = difference::new_deployment(wanted);
                    let action = Action::CreateDeployment { wanted: Box::new(wanted.clone()), aside };
                    self.push(Sign::Create, "deployment", &wanted.name, fields, action);
                }
            }
        }
    }

    /// Returns the ids of deployments that groups have in the end.
    fn groups(&mut self) -> HashSet<String> {
        let names: HashMap<&str, &str> = self
            .state
            .deployments
            .iter()
            .filter(|deployment| !self.replaced.contains(&deployment.id))
            .map(|deployment| (deployment.id.as_str(), deployment.name.as_str()))
            .collect();
        let ids: HashMap<&str, &str> = names.iter().map(|(id, name)| (*name, *id)).collect();
        let mut staying = HashSet::new();
        for wanted in &self.desired.model_groups {
            let members = wanted.links.iter().flatten();
            staying.extend(members.filter_map(|(name, _)| ids.get(name.as_str())).map(|id| (*id).to_owned()));
            match self.state.model_groups.iter().find(|group| group.name == wanted.name) {
                Some(found) => {
                    let fields = difference::group(found, wanted, &names);
                    if !fields.is_empty() {
                        let action = Action::UpdateGroup { id: found.id.clone(), wanted: wanted.clone() };
                        self.push(Sign::Change, "model group", &wanted.name, fields, action);
                    }
                }
                None => {
                    let fields = difference::new_group(wanted);
                    let action = Action::CreateGroup(wanted.clone());
                    self.push(Sign::Create, "model group", &wanted.name, fields, action);
                }
            }
        }
        for found in &self.state.model_groups {
            if self.desired.model_groups.iter().any(|wanted| wanted.name == found.name) {
                continue;
            }
            if (self.rules.removes_group)(found) {
                let action = Action::DeleteGroup { id: found.id.clone() };
                self.push(Sign::Remove, "model group", &found.name, Vec::new(), action);
            } else {
                let members = found.links.iter().flat_map(|link| &link.deployments);
                staying.extend(members.map(|member| member.deployment_id.clone()));
            }
        }
        staying
    }

    fn unwanted<'s>(&self, deployment: &'s Deployment) -> Option<&'s str> {
        let wanted = |name: &str| self.desired.deployments.iter().any(|wanted| wanted.name == name);
        let goes = self.replaced.contains(&deployment.id)
            || !wanted(&deployment.name) && (self.rules.removes)(&deployment.name);
        goes.then_some(deployment.name.as_str())
    }

    fn remove_deployments(&mut self, staying: &HashSet<String>) {
        for found in &self.state.deployments {
            let Some(name) = self.unwanted(found) else { continue };
            let (id, disabled) = (found.id.clone(), found.disabled);
            if !staying.contains(&found.id) {
                let action = Action::DeleteDeployment { id, disabled };
                self.push(Sign::Remove, "deployment", name, Vec::new(), action);
            } else if !disabled {
                // Somebody's model group has it: it stays there, but gets no requests.
                let fields = difference::changed("disabled", "false", "true");
                self.push(Sign::Change, "deployment", name, fields, Action::DisableDeployment { id });
            }
        }
    }

    fn remove_credentials(&mut self) {
        let removed: HashSet<&str> = self
            .changes
            .iter()
            .filter_map(|change| match &change.action {
                Action::DeleteDeployment { id, .. } => Some(id.as_str()),
                _ => None,
            })
            .collect();
        let wanted: BTreeSet<&str> = self.desired.deployments.iter().map(|d| d.name.as_str()).collect();
        let kept = |deployment: &&Deployment| {
            !removed.contains(deployment.id.as_str()) && !wanted.contains(deployment.name.as_str())
        };
        let used: HashSet<String> =
            self.state.deployments.iter().filter(kept).map(|d| d.credential_id.clone()).collect();
        for found in &self.state.credentials {
            let wanted = self.desired.credentials.iter().any(|wanted| wanted.name == found.name);
            let goes = self.replaced.contains(&found.id) || !wanted && (self.rules.removes)(&found.name);
            if goes && !used.contains(&found.id) {
                let action = Action::DeleteCredential { id: found.id.clone() };
                self.push(Sign::Remove, "credential", &found.name, Vec::new(), action);
            }
        }
    }

    fn remove_demo(&mut self) {
        let offered = |model: &&Model| {
            let mut offerings = model.offerings.iter().map(|offering| offering.provider.as_str());
            offerings.next() == Some(crate::demo::PROVIDER) && offerings.next().is_none()
        };
        for model in self.state.models.iter().filter(offered) {
            let served = self.desired.deployments.iter().any(|deployment| deployment.model == model.id);
            if self.rules.removes_demo && !served {
                self.push(Sign::Remove, "model", &model.id, Vec::new(), Action::DeleteModel);
            }
        }
    }

    fn teams(&mut self) {
        let of_keys = self.desired.keys.iter().map(|key| (&key.organization, &key.team));
        let named = self.desired.teams.iter().map(|team| (&team.organization, &team.name));
        let teams: BTreeSet<(&String, &String)> = named.chain(of_keys).collect();
        for (organization, team) in teams {
            if self.state.team_id(organization, team).is_none() {
                let fields = difference::created(&[("organization", organization)]);
                let action = Action::CreateTeam { organization: organization.clone() };
                self.push(Sign::Create, "team", team, fields, action);
            }
        }
    }

    fn keys(&mut self) {
        for wanted in &self.desired.keys {
            let organization = wanted.organization.clone();
            let team_id = self.state.team_id(&organization, &wanted.team);
            let keys = self.state.keys.get(&organization).map(Vec::as_slice).unwrap_or_default();
            let found =
                keys.iter().find(|key| Some(key.team_id.as_str()) == team_id && key.name == wanted.name);
            match found {
                None => {
                    let fields = difference::new_key(wanted);
                    self.push(
                        Sign::Create,
                        "key",
                        &wanted.name,
                        fields,
                        Action::IssueKey(Box::new(wanted.clone())),
                    );
                }
                Some(found) => {
                    if let Some((request, fields)) = difference::key(found, wanted) {
                        let action = Action::UpdateKey { organization, request: Box::new(request) };
                        self.push(Sign::Change, "key", &wanted.name, fields, action);
                    }
                }
            }
        }
    }
}

/// What was declared and is not wanted any more, or what has to make room for another of its name.
impl Planner<'_> {
    fn budgets(&mut self) {
        let state = self.state;
        let mut found: Vec<_> = state.budgets.iter().collect();
        found.sort_by_key(|(organization, _)| *organization);
        for (organization, budget) in
            found.into_iter().flat_map(|(org, all)| all.iter().map(move |it| (org, it)))
        {
            let of = |it: &&DesiredBudget| (&it.organization, &it.name) == (organization, &budget.name);
            let wanted = self.desired.budgets.iter().find(of);
            let goes = match wanted {
                Some(wanted) => !limits::same_budget(budget, wanted, state),
                None => (self.rules.removes)(&budget.name),
            };
            if goes {
                let (organization, id) = (organization.clone(), budget.id.clone());
                let action = Action::Limited(Limited::DeleteBudget { organization, id });
                self.push(Sign::Remove, "budget", &budget.name, Vec::new(), action);
            }
        }
        for wanted in &self.desired.budgets {
            let held = state.budgets.get(&wanted.organization).map(Vec::as_slice).unwrap_or_default();
            let found = held.iter().find(|it| it.name == wanted.name);
            match found.filter(|found| limits::same_budget(found, wanted, state)) {
                None => {
                    let action = Action::Limited(Limited::CreateBudget(Box::new(wanted.clone())));
                    self.push(Sign::Create, "budget", &wanted.name, limits::new_budget(wanted), action);
                }
                Some(found) => {
                    if let Some((request, fields)) = limits::budget(found, wanted) {
                        let (organization, request) = (wanted.organization.clone(), Box::new(request));
                        let action = Action::Limited(Limited::UpdateBudget { organization, request });
                        self.push(Sign::Change, "budget", &wanted.name, fields, action);
                    }
                }
            }
        }
    }

    fn limits(&mut self) {
        let state = self.state;
        let mut found: Vec<_> = state.rate_limits.iter().collect();
        found.sort_by_key(|(organization, _)| *organization);
        for (organization, limit) in
            found.into_iter().flat_map(|(org, all)| all.iter().map(move |it| (org, it)))
        {
            let of = |it: &&DesiredLimit| (&it.organization, &it.name) == (organization, &limit.name);
            let wanted = self.desired.limits.iter().find(of);
            let goes = match wanted {
                Some(wanted) => !limits::same_limit(limit, wanted, state),
                None => (self.rules.removes)(&limit.name),
            };
            if goes {
                let (organization, id) = (organization.clone(), limit.id.clone());
                let action = Action::Limited(Limited::DeleteLimit { organization, id });
                self.push(Sign::Remove, "rate limit", &limit.name, Vec::new(), action);
            }
        }
        for wanted in &self.desired.limits {
            let held = state.rate_limits.get(&wanted.organization).map(Vec::as_slice).unwrap_or_default();
            let found = held.iter().find(|it| it.name == wanted.name);
            match found.filter(|found| limits::same_limit(found, wanted, state)) {
                None => {
                    let action = Action::Limited(Limited::CreateLimit(Box::new(wanted.clone())));
                    self.push(Sign::Create, "rate limit", &wanted.name, limits::new_limit(wanted), action);
                }
                Some(found) => {
                    if let Some((request, fields)) = limits::limit(found, wanted) {
                        let (organization, request) = (wanted.organization.clone(), Box::new(request));
                        let action = Action::Limited(Limited::UpdateLimit { organization, request });
                        self.push(Sign::Change, "rate limit", &wanted.name, fields, action);
                    }
                }
            }
        }
    }
}

fn setting_name(organization: Option<&str>, key: &str) -> String {
    organization.map_or_else(|| key.to_owned(), |org| format!("{key} of {org}"))
}

/// The end of a secret, by which credentials are told apart; empty for short ones. As the control plane makes it.
pub fn hint(secret: &str) -> String {
    let visible = || secret.chars().filter(|letter| !letter.is_whitespace());
    let count = visible().count();
    if count < 12 { String::new() } else { visible().skip(count - 4).collect() }
}

fn shown_secret(hint: &str) -> String {
    format!("…{hint}")
}
