//! `nemo.toml`: providers, deployments, model groups and keys by declaration. Secrets are never in it, only the
//! names of the variables that hold them.
//!
//! ```toml
//! [[providers]]
//! id = "openai"                      # of the provider table; `nemo providers` lists it
//! api_key = "env:OPENAI_API_KEY"
//!
//! [[providers]]
//! id = "gpu-box"                     # a name of your own, for a server of your own
//! provider = "custom"
//! base_url = "http://gpu-box:8000/v1"
//! models = ["qwen3-32b"]             # absent: those of the catalog, else the server is asked
//!
//! [[deployments]]
//! name = "cheap"
//! provider = "openai"                # the id of an entry of [[providers]]
//! model = "gpt-5-mini"
//! price = { input = "0.25", output = "2.00" }   # USD per million tokens; absent: the catalog's
//!
//! [[model_groups]]
//! name = "smart"
//! links = [["gpu-box/qwen3-32b"], ["cheap"]]    # primary pool, then fallbacks
//!
//! [routing]                          # settings of the installation; those of an organization stand in its entry
//! strategy = "latency-based"
//!
//! [[keys]]
//! name = "ci"
//! models = ["smart"]
//! ```
//!
//! `[[budgets]]` and `[[limits]]` are described in [`limits`].

mod document;
mod limits;
pub mod policy;
mod reader;
#[cfg(test)]
mod tests;

use std::path::Path;

use nemo_proto::admin::Model;
use nemo_runtime::config_file::{self, ConfigError, Problem};
use nemo_types::Secret;

pub use self::reader::nanos_per_million;
use self::{document::Document, reader::Reader};
use super::{
    Desired, DesiredCredential, DesiredDeployment, DesiredGroup, DesiredKey, DesiredSetting, DesiredTeam,
    bare_model, discover,
    environment::{canonical, offered},
    limits::{DesiredBudget, DesiredLimit},
};

/// A file that was read and is consistent in itself.
#[derive(Debug)]
pub struct ConfigFile {
    providers: Vec<Source>,
    deployments: Vec<Declared>,
    groups: Vec<(DesiredGroup, Vec<u32>)>,
    organizations: Vec<String>,
    teams: Vec<DesiredTeam>,
    keys: Vec<DesiredKey>,
    budgets: Vec<DesiredBudget>,
    limits: Vec<DesiredLimit>,
    settings: Vec<DesiredSetting>,
    name: String,
}

/// An entry of `[[providers]]`, resolved.
#[derive(Clone, Debug)]
struct Source {
    id: String,
    provider: &'static str,
    base_url: String,
    secret: Option<Secret>,
    models: Option<Vec<String>>,
    /// True when the address is not the provider's own, so that the catalog cannot know what it has.
    elsewhere: bool,
}

#[derive(Debug)]
struct Declared {
    deployment: DesiredDeployment,
    source: usize,
    upstream_model: Option<String>,
}

/// Reads `nemo.toml`. `variable` looks up the environment.
///
/// # Errors
/// Everything that is wrong, each with its line.
pub fn read(path: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<ConfigFile, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        problems: vec![Problem { origin: name.clone(), message: format!("cannot be read: {error}") }],
    })?;
    parse(&name, &text, variable)
}

fn parse(
    name: &str,
    text: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<ConfigFile, ConfigError> {
    let document: Document = config_file::load_from("", Some((name, text)), [], "NEMO_")?;
    let mut reader = Reader { name, text, problems: Vec::new(), variable: &variable };
    let providers = reader.providers(&document);
    let deployments = reader.deployments(&document, &providers);
    let groups = reader.groups(&document);
    let (organizations, teams) = (reader.organizations(&document), reader.teams(&document));
    let (keys, settings) = (reader.keys(&document), reader.settings(&document));
    let (budgets, limits) = (reader.budgets(&document), reader.limits(&document));
    if reader.problems.is_empty() {
        let name = name.to_owned();
        Ok(ConfigFile {
            providers,
            deployments,
            groups,
            organizations,
            teams,
            keys,
            budgets,
            limits,
            settings,
            name,
        })
    } else {
        Err(ConfigError { problems: reader.problems })
    }
}

impl Source {
    fn credential(&self) -> Option<String> {
        self.secret.as_ref().map(|_| format!("file:{}", self.id))
    }
}

impl ConfigFile {
    /// True when the file declares a provider; without one, somebody else has to provide.
    pub fn has_providers(&self) -> bool {
        !self.providers.is_empty()
    }

    /// Numbers for `nemo check-config`: providers, deployments, model groups, keys, budgets, limits.
    pub fn counts(&self) -> [usize; 6] {
        let (providers, deployments) = (self.providers.len(), self.deployments.len());
        let (groups, keys) = (self.groups.len(), self.keys.len());
        [providers, deployments, groups, keys, self.budgets.len(), self.limits.len()]
    }

    /// What the file asks for, with models from the catalog and from servers that are asked.
    ///
    /// # Errors
    /// When a model group names a deployment that comes from nowhere.
    pub async fn desired(&self, catalog: &[Model]) -> Result<Desired, ConfigError> {
        let (organizations, teams) = (self.organizations.clone(), self.teams.clone());
        let (keys, settings) = (self.keys.clone(), self.settings.clone());
        let (budgets, limits) = (self.budgets.clone(), self.limits.clone());
        let mut desired =
            Desired { organizations, teams, keys, settings, budgets, limits, ..Desired::default() };
        for source in &self.providers {
            if let (Some(name), Some(secret)) = (source.credential(), &source.secret) {
                let (provider, secret) = (source.provider.to_owned(), secret.clone());
                desired.credentials.push(DesiredCredential { name, provider, secret });
            }
            for (model, upstream_model) in self.models_of(source, catalog, &mut desired.notes).await {
                let deployment = DesiredDeployment {
                    name: format!("file:{}/{model}", source.id),
                    provider: source.provider.to_owned(),
                    base_url: source.base_url.clone(),
                    credential: source.credential(),
                    model,
                    upstream_model: String::new(),
                    weight: 1,
                    price: None,
                    rpm: None,
                    tpm: None,
                };
                add(&mut desired, catalog, deployment, Some(upstream_model));
            }
        }
        for declared in &self.deployments {
            let upstream_model = declared.upstream_model.clone();
            debug_assert!(declared.source < self.providers.len());
            add(&mut desired, catalog, declared.deployment.clone(), upstream_model);
        }
        self.check_groups(&desired)?;
        desired.model_groups = self.groups.iter().map(|(group, _)| group.clone()).collect();
        Ok(desired)
    }

    /// The models that an entry of `[[providers]]` brings by itself, with the provider's names for them.
    async fn models_of(
        &self,
        source: &Source,
        catalog: &[Model],
        notes: &mut Vec<String>,
    ) -> Vec<(String, String)> {
        let offered = offered(catalog, source.provider);
        if let Some(names) = &source.models {
            let upstream = |name: &String| {
                let known = offered.iter().find(|(model, _)| model == canonical(catalog, name));
                (name.clone(), known.map_or_else(|| name.clone(), |(_, upstream)| upstream.clone()))
            };
            return names.iter().map(upstream).collect();
        }
        // An entry that deployments refer to brings just those.
        if self.deployments.iter().any(|declared| self.providers[declared.source].id == source.id) {
            return Vec::new();
        }
        if !source.elsewhere && !offered.is_empty() {
            return offered;
        }
        match discover::models(&source.base_url, source.secret.as_ref()).await {
            Ok(names) => names.into_iter().map(|name| (name.clone(), name)).collect(),
            Err(error) => {
                notes.push(format!(
                    "{}: provider {:?}: {error:#}; name its models with models = [..]",
                    self.name, source.id
                ));
                Vec::new()
            }
        }
    }

    fn check_groups(&self, desired: &Desired) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for (group, lines) in &self.groups {
            for ((name, _), line) in group.links.iter().flatten().zip(lines) {
                if !desired.deployments.iter().any(|deployment| deployment.name == *name) {
                    let name = name.trim_start_matches("file:");
                    problems.push(Problem {
                        origin: format!("{}:{line}", self.name),
                        message: format!("model group {:?}: there is no deployment {name:?}", group.name),
                    });
                }
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }
}

/// Adds a deployment, and its model to the catalog where that lacks it.
fn add(
    desired: &mut Desired,
    catalog: &[Model],
    mut deployment: DesiredDeployment,
    upstream: Option<String>,
) {
    let id = canonical(catalog, &deployment.model).to_owned();
    let known = catalog.iter().find(|model| model.id == id);
    let offering = known.and_then(|model| model.offerings.iter().find(|o| o.provider == deployment.provider));
    deployment.upstream_model = upstream
        .or_else(|| offering.map(|offering| offering.upstream_model.clone()))
        .unwrap_or_else(|| deployment.model.clone());
    // One that is there stays as it is: somebody may have said more about it than a file does.
    if known.is_none() {
        desired.add_model(bare_model(&id, &deployment.provider, &deployment.upstream_model));
    }
    deployment.model = id;
    desired.deployments.push(deployment);
}
