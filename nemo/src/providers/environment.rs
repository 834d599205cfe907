//! Providers from the environment: whoever has `OPENAI_API_KEY` set wants OpenAI's models.
//!
//! Every provider of the table whose variable is set gets one credential `env:<provider>` and a deployment for each
//! model that the catalog says it offers. Servers of one's own (`OLLAMA_HOST`) are asked for theirs.

use nemo_data_plane::nemo_llm::{AuthScheme, Provider, providers};
use nemo_proto::admin::Model;
use nemo_types::Secret;

use super::{Desired, DesiredCredential, DesiredDeployment, bare_model, discover};

/// A provider that is configured by a variable.
#[derive(Debug)]
pub struct Found {
    pub provider: &'static Provider,
    pub variable: &'static str,
    pub secret: Option<Secret>,
    /// The server's own address, for providers that are asked for their models.
    pub base_url: Option<String>,
}

/// The providers whose variables are set. `Err` names a variable that is set to something unusable.
///
/// # Errors
/// As said.
pub fn find(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Vec<Found>> {
    let set =
        |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let mut found = Vec::new();
    for provider in providers() {
        let key = provider.env.iter().find_map(|name| Some((*name, set(name)?)));
        let address = provider.base_url_env.and_then(|name| Some((name, set(name)?)));
        if let Some((name, value)) = address {
            let Some(base_url) = provider.base_url_from_env(&value) else {
                anyhow::bail!(
                    "{name} is {value:?}, which is not the address of a server; expected host:port or a URL"
                );
            };
            let secret = key.map(|(_, value)| Secret::new(value));
            found.push(Found { provider, variable: name, secret, base_url: Some(base_url) });
        } else if let Some((name, value)) = key.filter(|_| !provider.base_url.is_empty()) {
            if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                anyhow::bail!("{name} has characters in it that cannot be part of a key");
            }
            found.push(Found { provider, variable: name, secret: Some(Secret::new(value)), base_url: None });
        }
    }
    Ok(found)
}

/// What the found providers ask for.
pub async fn desired(found: &[Found], catalog: &[Model]) -> Desired {
    let mut desired = Desired::default();
    for found in found {
        add(&mut desired, found, catalog).await;
    }
    desired
}

async fn add(desired: &mut Desired, found: &Found, catalog: &[Model]) {
    let id = found.provider.id;
    let credential = match &found.secret {
        Some(secret) if found.provider.auth != AuthScheme::None => {
            let name = format!("env:{id}");
            let provider = id.to_owned();
            desired.credentials.push(DesiredCredential {
                name: name.clone(),
                provider,
                secret: secret.clone(),
            });
            Some(name)
        }
        _ => None,
    };
    let base_url = found.base_url.clone().unwrap_or_else(|| found.provider.base_url.to_owned());
    let names = match &found.base_url {
        None => offered(catalog, id),
        Some(base_url) => match discover::models(base_url, found.secret.as_ref()).await {
            Ok(names) => names.into_iter().map(|name| (name.clone(), name)).collect(),
            Err(error) => {
                desired.notes.push(format!("{} ({}): {error:#}", found.provider.name, found.variable));
                Vec::new()
            }
        },
    };
    if names.is_empty() && found.base_url.is_none() {
        let hint = "name the models in nemo.toml";
        desired.notes.push(format!(
            "{} ({}): the catalog has no models of it; {hint}",
            found.provider.name, found.variable
        ));
    }
    for (model, upstream_model) in names {
        if !catalog.iter().any(|known| known.id == model || known.aliases.contains(&model)) {
            desired.add_model(bare_model(&model, id, &upstream_model));
        }
        desired.deployments.push(DesiredDeployment {
            name: format!("env:{id}/{model}"),
            provider: id.to_owned(),
            base_url: base_url.clone(),
            credential: credential.clone(),
            model: canonical(catalog, &model).to_owned(),
            upstream_model,
            weight: 1,
            price: None,
            rpm: None,
            tpm: None,
        });
    }
}

/// Models that the catalog says a provider offers, with the provider's names for them.
pub(super) fn offered(catalog: &[Model], provider: &str) -> Vec<(String, String)> {
    let offering = |model: &Model| {
        let offering = model.offerings.iter().find(|offering| offering.provider == provider)?;
        Some((model.id.clone(), offering.upstream_model.clone()))
    };
    catalog.iter().filter_map(offering).collect()
}

/// The catalog's id of a model that may be named by an alias.
pub(super) fn canonical<'m>(catalog: &'m [Model], name: &'m str) -> &'m str {
    let known = catalog.iter().find(|model| model.id == name);
    let known =
        known.or_else(|| catalog.iter().find(|model| model.aliases.iter().any(|alias| alias == name)));
    known.map_or(name, |model| &model.id)
}
