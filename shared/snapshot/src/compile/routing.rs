//! Compiles models, deployments and groups into names. Called by [`super::compile`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroU32,
    sync::Arc,
};

use nemo_proto::config::{self, Kind, resource::Kind as R};
use nemo_types::{CredentialId, DeploymentId, ModelGroupId, OrgId, PriceSheet, Sealed};

use super::Compiler;
use crate::routing::{
    Credential, Deployment, Link, LinkMember, Model, ModelGroup, Names, Offering, Routing, Scope,
};
use crate::{RoutingPolicy, Strategy, TagNames, TagSet, base_url, tags::MAX_TAGS};

type Owner = Option<OrgId>;
type Credentials = HashMap<CredentialId, (Owner, Arc<Credential>)>;
type Deployments = HashMap<DeploymentId, Arc<Deployment>>;

pub(super) fn compile(compiler: &mut Compiler<'_>) -> Routing {
    let mut routing = Routing { tags: tags(compiler), ..Routing::default() };
    models(compiler, &mut routing);
    let credentials = credentials(compiler);
    let deployments = deployments(compiler, &credentials, &mut routing);
    settings(compiler, &mut routing);
    groups(compiler, &deployments, &mut routing);
    catalog_groups(&mut routing);
    policies(&mut routing);
    for scope in std::iter::once(&mut routing.shared).chain(routing.orgs.values_mut()) {
        scope.roots.sort_by(|a, b| a.name.cmp(&b.name));
    }
    routing
}

fn boxed(texts: &[String]) -> Vec<Box<str>> {
    texts.iter().map(|text| text.as_str().into()).collect()
}

/// Groups' tags too: a catalog that loses a tag must not make a revision unfit, only the group's links.
fn tags(compiler: &mut Compiler<'_>) -> TagNames {
    let models = compiler.set.sorted(Kind::Model);
    let groups = compiler.set.sorted(Kind::ModelGroup);
    let named = models.iter().chain(&groups).flat_map(|resource| match &resource.kind {
        Some(R::Model(it)) => it.tags.as_slice(),
        Some(R::ModelGroup(it)) => it.required_tags.as_slice(),
        _ => &[],
    });
    TagNames::new(named.map(String::as_str)).unwrap_or_else(|count| {
        let message = format!("{count} different tags in all, expected at most {MAX_TAGS}");
        // Of whichever model comes last: no single one is at fault.
        let id = compiler.set.sorted(Kind::Model).pop();
        let id = match id.and_then(|resource| resource.kind) {
            Some(R::Model(it)) => it.id.into_bytes(),
            _ => Vec::new(),
        };
        compiler.reject(Kind::Model, &id, "tags", message);
        TagNames::default()
    })
}

fn models(compiler: &mut Compiler<'_>, routing: &mut Routing) {
    for resource in compiler.set.sorted(Kind::Model) {
        let Some(R::Model(it)) = &resource.kind else { continue };
        let offerings = it.offerings.iter().map(|offering| Offering {
            provider: offering.provider.as_str().into(),
            upstream_model: offering.upstream_model.as_str().into(),
            price: offering.price.as_ref().map(|price| Arc::new(PriceSheet::from(price))),
        });
        let model = Model {
            id: it.id.as_str().into(),
            display_name: it.display_name.as_str().into(),
            owned_by: it.owned_by.as_str().into(),
            created_unix: it.created_unix,
            context_window: it.context_window,
            max_output_tokens: it.max_output_tokens,
            tags: boxed(&it.tags),
            // Empty only when all of them together were refused.
            tag_set: routing.tag_set(it.tags.iter().map(String::as_str)).unwrap_or_default(),
            aliases: boxed(&it.aliases),
            input_modalities: boxed(&it.input_modalities),
            output_modalities: boxed(&it.output_modalities),
            endpoints: boxed(&it.endpoints),
            offerings: offerings.collect(),
        };
        routing.models.insert(it.id.as_str().into(), Arc::new(model));
    }
}

fn credentials(compiler: &mut Compiler<'_>) -> Credentials {
    let mut credentials = Credentials::new();
    for resource in compiler.set.sorted(Kind::Credential) {
        let Some(R::Credential(it)) = &resource.kind else { continue };
        let Some(id) = CredentialId::from_bytes(&it.id) else { continue };
        let Ok(owner) = compiler.owner(Kind::Credential, &it.id, &it.org_id) else { continue };
        let sealed = Sealed::from_bytes(it.sealed.to_vec());
        if sealed.key_id().is_none() {
            compiler.reject(Kind::Credential, &it.id, "sealed", "not a sealed value");
            continue;
        }
        let credential = Credential { id, provider: it.provider.as_str().into(), sealed };
        credentials.insert(id, (owner, Arc::new(credential)));
    }
    credentials
}

fn deployments(compiler: &mut Compiler<'_>, credentials: &Credentials, routing: &mut Routing) -> Deployments {
    let mut by_id = Deployments::new();
    for resource in compiler.set.sorted(Kind::Deployment) {
        let Some(R::Deployment(it)) = &resource.kind else { continue };
        let Ok(owner) = compiler.owner(Kind::Deployment, &it.id, &it.org_id) else { continue };
        match deployment(it, owner, credentials, routing) {
            Ok(deployment) => {
                let deployment = Arc::new(deployment);
                by_id.insert(deployment.id, deployment.clone());
                routing.deployments.push(deployment);
            }
            Err((field, message)) => compiler.reject(Kind::Deployment, &it.id, field, message),
        }
    }
    by_id
}

fn deployment(
    it: &config::Deployment,
    owner: Owner,
    credentials: &Credentials,
    routing: &Routing,
) -> Result<Deployment, (&'static str, String)> {
    let id = DeploymentId::from_bytes(&it.id).ok_or(("id", "not an id".into()))?;
    let model =
        routing.models.get(it.model.as_str()).ok_or_else(|| ("model", format!("no model {:?}", it.model)))?;
    let credential = if it.credential_id.is_empty() {
        None
    } else {
        let found = CredentialId::from_bytes(&it.credential_id).and_then(|id| credentials.get(&id));
        let (credential_owner, credential) =
            found.ok_or(("credential_id", "no such credential".to_owned()))?;
        // The operator's secret may serve everybody; an organization's own only itself.
        if credential_owner.is_some() && *credential_owner != owner {
            return Err(("credential_id", "the credential belongs to another organization".into()));
        }
        Some(credential.clone())
    };
    let refused = |problem: &str| ("base_url", format!("{problem}: expected {}", base_url::EXPECTED));
    let uri = base_url::parse(&it.base_url).map_err(refused)?;
    if uri.query().is_some_and(|query| &*it.provider != "azure" || !query.starts_with("api-version=")) {
        return Err(refused("has a query"));
    }
    let offering = model.offerings.iter().find(|offering| *offering.provider == *it.provider);
    let own_price = it.price.as_ref().map(|price| Arc::new(PriceSheet::from(price)));
    Ok(Deployment {
        slot: routing.deployments.len(),
        id,
        org_id: owner,
        name: it.name.as_str().into(),
        provider: it.provider.as_str().into(),
        base_url: it.base_url.trim_end_matches('/').into(),
        credential,
        model: model.clone(),
        upstream_model: it.upstream_model.as_str().into(),
        price: own_price.or_else(|| offering.and_then(|offering| offering.price.clone())),
        weight: it.weight,
        disabled: it.disabled,
        timeouts: it.timeouts.as_ref().map(Into::into).unwrap_or_default(),
        rpm: it.rpm.and_then(NonZeroU32::new),
        tpm: it.tpm.and_then(NonZeroU32::new),
    })
}

fn settings(compiler: &mut Compiler<'_>, routing: &mut Routing) {
    for resource in compiler.set.sorted(Kind::Setting) {
        let Some(R::Setting(it)) = &resource.kind else { continue };
        let Ok(owner) = compiler.owner(Kind::Setting, &it.id, &it.org_id) else { continue };
        if let Some(timeout) = scope(routing, owner).timeouts.by_setting(&it.key) {
            match it.value.trim().parse() {
                Ok(millis) => *timeout = Some(millis),
                Err(_) => {
                    compiler.reject(Kind::Setting, &it.id, "value", "expected milliseconds, at least 1")
                }
            }
            continue;
        }
        // Keys of a newer control plane are not ours to judge.
        if let Err(message) = scope(routing, owner).overrides.set(&it.key, &it.value) {
            compiler.reject(Kind::Setting, &it.id, "value", message);
        }
    }
}

/// After the last scope was made: an organization with groups of its own and no settings has a policy too.
fn policies(routing: &mut Routing) {
    let installation = routing.shared.overrides;
    routing.shared.policy = RoutingPolicy::merge(&installation, None);
    for own in routing.orgs.values_mut() {
        own.policy = RoutingPolicy::merge(&installation, Some(&own.overrides));
    }
}

fn scope(routing: &mut Routing, owner: Owner) -> &mut Scope {
    match owner {
        Some(org) => routing.orgs.entry(org).or_default(),
        None => &mut routing.shared,
    }
}

fn groups(compiler: &mut Compiler<'_>, deployments: &Deployments, routing: &mut Routing) {
    for resource in compiler.set.sorted(Kind::ModelGroup) {
        let Some(R::ModelGroup(it)) = &resource.kind else { continue };
        let Ok(owner) = compiler.owner(Kind::ModelGroup, &it.id, &it.org_id) else { continue };
        match group(it, owner, deployments, &routing.tags) {
            Ok(group) => {
                let group = Arc::new(group);
                let scope = scope(routing, owner);
                if scope.names.insert(it.name.as_str().into(), group.clone()).is_some() {
                    compiler.reject(Kind::ModelGroup, &it.id, "name", "another group has the same name");
                } else {
                    scope.roots.push(group);
                }
            }
            Err((field, message)) => compiler.reject(Kind::ModelGroup, &it.id, &field, message),
        }
    }
}

fn group(
    it: &config::ModelGroup,
    owner: Owner,
    deployments: &Deployments,
    tags: &TagNames,
) -> Result<ModelGroup, (String, String)> {
    if it.name.is_empty() {
        return Err(("name".into(), "empty".into()));
    }
    let strategy = match it.strategy.as_str() {
        "" => None,
        name => Some(name.parse::<Strategy>().map_err(|error| ("strategy".into(), error.to_string()))?),
    };
    if it.links.is_empty() {
        return Err(("links".into(), "empty: expected at least one link, the primary pool".into()));
    }
    let mut links = Vec::with_capacity(it.links.len());
    for (at, link) in it.links.iter().enumerate() {
        let refuse = |message: String| Err((format!("links[{at}].deployments"), message));
        let mut seen = BTreeSet::new();
        if link.deployments.iter().all(|member| member.weight == 0) {
            return refuse("nothing to choose from: expected a deployment with a weight above 0".into());
        }
        let mut members = Vec::with_capacity(link.deployments.len());
        for member in &link.deployments {
            let found = DeploymentId::from_bytes(&member.deployment_id).and_then(|id| deployments.get(&id));
            let Some(deployment) = found else { return refuse("no such deployment".into()) };
            if deployment.org_id.is_some() && deployment.org_id != owner {
                return refuse("a deployment belongs to another organization".into());
            }
            if !seen.insert(&member.deployment_id) {
                return refuse(format!("{} is there twice", deployment.name));
            }
            if member.weight > 0 && !deployment.disabled {
                members.push(LinkMember { deployment: deployment.clone(), weight: member.weight });
            }
        }
        // A pool whose members are all switched off is skipped, as an unhealthy one would be.
        if !members.is_empty() {
            links.push(Link { members });
        }
    }
    Ok(ModelGroup {
        name: it.name.as_str().into(),
        id: ModelGroupId::from_bytes(&it.id),
        strategy,
        required_tags: tags.set(it.required_tags.iter().map(String::as_str)).unwrap_or_default(),
        links,
        model: None,
    })
}

/// Makes every model that a deployment serves a group by itself.
fn catalog_groups(routing: &mut Routing) {
    let mut pools: BTreeMap<&str, BTreeMap<Owner, Vec<LinkMember>>> = BTreeMap::new();
    for deployment in &routing.deployments {
        if !deployment.disabled && deployment.weight > 0 {
            let member = LinkMember { deployment: deployment.clone(), weight: deployment.weight };
            pools.entry(&deployment.model.id).or_default().entry(deployment.org_id).or_default().push(member);
        }
    }
    let mut made: Vec<(Owner, Arc<Model>, Vec<LinkMember>)> = Vec::new();
    for (id, owners) in pools {
        let Some(model) = routing.models.get(id) else { continue };
        let shared = owners.get(&None).cloned().unwrap_or_default();
        for (owner, own) in owners {
            let pool = if owner.is_some() { shared.iter().cloned().chain(own).collect() } else { own };
            made.push((owner, model.clone(), pool));
        }
    }
    // What somebody defined wins over the catalog: the operator's groups also over an organization's pools.
    let defined: BTreeSet<Box<str>> = routing.shared.names.keys().cloned().collect();
    // Exact ids first, so that no alias or prefixed form ever takes another model's own name.
    for (owner, model, pool) in &made {
        let group = model_group(model, vec![pool.clone()]);
        let scope = scope(routing, *owner);
        if insert(scope, &defined, &model.id, &group) {
            scope.roots.push(group);
        }
    }
    for (owner, model, pool) in &made {
        other_names(scope(routing, *owner), &defined, model, pool);
    }
}

fn model_group(model: &Arc<Model>, pools: Vec<Vec<LinkMember>>) -> Arc<ModelGroup> {
    let links = pools.into_iter().filter(|pool| !pool.is_empty()).map(|members| Link { members }).collect();
    Arc::new(ModelGroup {
        name: model.id.clone(),
        id: None,
        strategy: None,
        required_tags: TagSet::EMPTY,
        links,
        model: Some(model.clone()),
    })
}

/// Aliases, prefixed forms, and the names that upstreams use.
fn other_names(scope: &mut Scope, defined: &BTreeSet<Box<str>>, model: &Arc<Model>, pool: &[LinkMember]) {
    let whole = model_group(model, vec![pool.to_vec()]);
    let ids = || std::iter::once(&*model.id).chain(model.aliases.iter().map(|alias| &**alias));
    for alias in ids() {
        insert(scope, defined, alias, &whole);
    }
    let mut providers: BTreeSet<&str> = model.offerings.iter().map(|offering| &*offering.provider).collect();
    providers.extend(pool.iter().map(|member| &*member.deployment.provider));
    providers.insert(&model.owned_by);
    for provider in providers.into_iter().filter(|provider| !provider.is_empty()) {
        let (first, rest): (Vec<_>, Vec<_>) =
            pool.iter().cloned().partition(|member| *member.deployment.provider == *provider);
        let group = model_group(model, vec![first, rest]);
        for id in ids() {
            insert(scope, defined, &format!("{provider}/{id}"), &group);
        }
        for member in pool.iter().filter(|member| *member.deployment.provider == *provider) {
            insert(scope, defined, &format!("{provider}/{}", member.deployment.upstream_model), &group);
        }
    }
    for member in pool {
        insert(scope, defined, &member.deployment.upstream_model, &whole);
    }
}

fn insert(scope: &mut Scope, defined: &BTreeSet<Box<str>>, name: &str, group: &Arc<ModelGroup>) -> bool {
    let names: &mut Names = &mut scope.names;
    let free = !names.contains_key(name) && !defined.contains(name);
    if free {
        names.insert(name.into(), group.clone());
    }
    free
}
