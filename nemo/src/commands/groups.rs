//! `nemo groups …`: model groups.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use nemo_proto::admin::{
    CreateModelGroupRequest, DeleteModelGroupRequest, Deployment, Link, LinkDeployment, Links,
    ListModelGroupsRequest, ModelGroup, RequiredTags, UpdateModelGroupRequest,
};
use nemo_snapshot::Strategy;

use super::{
    deployments,
    output::{Entity, rfc3339},
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Owner, Target, Write},
};

#[derive(Debug, Subcommand)]
pub enum Groups {
    /// Make a model group
    #[command(after_help = "\
Examples:
  nemo groups create smart --link gpu=3,openai/gpt-5-mini --link cheap
  nemo groups create seeing --link gpt --link claude --require-tag vision --strategy latency-based

Each --link is a pool of deployments (names or ids, `=` a weight); the first is used, the others are the fallbacks in
order. Clients send the group's name as `model`.")]
    Create {
        /// Name of the group: what clients send as `model`
        name: String,
        /// A pool: DEPLOYMENT[=WEIGHT],…
        #[arg(long = "link", value_name = "POOL", required = true)]
        links: Vec<String>,
        /// How one of a pool is chosen [default: the organization's]
        #[arg(long, value_parser = strategy)]
        strategy: Option<Strategy>,
        /// Tag that every deployment must have which serves the group; can be repeated
        #[arg(long = "require-tag", value_name = "TAG")]
        required_tags: Vec<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// List model groups
    #[command(after_help = "Examples:\n  nemo groups list\n  nemo groups list --org acme --json")]
    List {
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Show one model group
    #[command(after_help = "Examples:\n  nemo groups get smart")]
    Get {
        /// Name or id
        group: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Change a model group
    #[command(after_help = "\
Examples:
  nemo groups update smart --name clever
  nemo groups update smart --link openai/gpt-5-mini --link cheap   replaces all links")]
    Update {
        /// Name or id
        group: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// All pools anew: DEPLOYMENT[=WEIGHT],…
        #[arg(long = "link", value_name = "POOL")]
        links: Vec<String>,
        /// How one of a pool is chosen
        #[arg(long, value_parser = strategy)]
        strategy: Option<Strategy>,
        /// All required tags anew; an empty one for none
        #[arg(long = "require-tag", value_name = "TAG")]
        required_tags: Vec<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a model group
    #[command(after_help = "Examples:\n  nemo groups delete smart\n  nemo groups delete smart --yes")]
    Delete {
        /// Name or id
        group: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for ModelGroup {
    const KIND: &'static str = "model group";
    const NOUN: &'static str = "groups";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("STRATEGY"),
        Column::text("POOLS"),
        Column::whole("ID"),
        Column::whole("CREATED"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        let pools: Vec<_> = self.links.iter().map(|link| link.deployments.len().to_string()).collect();
        vec![
            self.name.as_str().into(),
            self.strategy.as_str().into(),
            pools.join(" → ").into(),
            self.id.as_str().into(),
            rfc3339(self.created_at).into(),
        ]
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Groups) -> anyhow::Result<()> {
    match command {
        Groups::Create { name, links, strategy, required_tags, owner, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let links = resolve(&session.client, &org_id, &links).await?;
            let strategy = strategy.map(|it| it.name().to_owned()).unwrap_or_default();
            let request = CreateModelGroupRequest {
                org_id,
                name,
                strategy,
                required_tags,
                links,
                ..Default::default()
            };
            let mut client = session.client.model_groups();
            session.put("created", client.create_model_group(session.write(request))).await
        }
        Groups::List { owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            session.out.list(&all(&session.client, &org_id).await?)
        }
        Groups::Get { group, owner, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &owner, &group).await?)
        }
        Groups::Update { group, name, links, strategy, mut required_tags, owner, write } => {
            let session = Session::writing(&write)?;
            let ModelGroup { id, org_id, .. } = find_in(&session, &owner, &group).await?;
            let links = match links.is_empty() {
                true => None,
                false => Some(Links { links: resolve(&session.client, &org_id, &links).await? }),
            };
            let said = !required_tags.is_empty();
            required_tags.retain(|tag| !tag.is_empty());
            let request = UpdateModelGroupRequest {
                org_id,
                id,
                name,
                strategy: strategy.map(|it| it.name().to_owned()),
                links,
                required_tags: said.then_some(RequiredTags { names: required_tags }),
                ..Default::default()
            };
            let mut client = session.client.model_groups();
            session.put("updated", client.update_model_group(session.write(request))).await
        }
        Groups::Delete { group, owner, options } => {
            let session = Session::writing(&options.write)?;
            let group = find_in(&session, &owner, &group).await?;
            confirm(&group, &options)?;
            let (org_id, id) = (group.org_id.clone(), group.id.clone());
            let request = DeleteModelGroupRequest { org_id, id, ..Default::default() };
            let mut client = session.client.model_groups();
            session.delete(&group, client.delete_model_group(session.write(request))).await
        }
    }
}

fn strategy(name: &str) -> Result<Strategy, nemo_snapshot::UnknownStrategy> {
    name.parse()
}

async fn all(client: &AdminClient, org_id: &str) -> anyhow::Result<Vec<ModelGroup>> {
    list!(client.model_groups().list_model_groups -> model_groups, ListModelGroupsRequest { org_id })
}

async fn find_in(session: &Session, owner: &Owner, wanted: &str) -> anyhow::Result<ModelGroup> {
    let org_id = session.client.owner(owner.org.as_deref()).await?;
    choose(all(&session.client, &org_id).await?, wanted)
}

/// Pools as typed, with ids for names. An organization may also name the operator's deployments.
async fn resolve(client: &AdminClient, org_id: &str, pools: &[String]) -> anyhow::Result<Vec<Link>> {
    let mut known = deployments::all(client, org_id, "").await?;
    if !org_id.is_empty() {
        // A token of one organization does not see the operator's.
        known.extend(deployments::all(client, "", "").await.unwrap_or_default());
    }
    links(pools, &known)
}

fn links(pools: &[String], known: &[Deployment]) -> anyhow::Result<Vec<Link>> {
    let mut ids: HashMap<&str, &str> = HashMap::new();
    for deployment in known.iter().rev() {
        ids.insert(&deployment.name, &deployment.id);
        ids.insert(&deployment.id, &deployment.id);
    }
    let mut links = Vec::with_capacity(pools.len());
    for pool in pools {
        let mut deployments = Vec::new();
        for member in pool.split(',').map(str::trim) {
            let (name, weight) = match member.rsplit_once('=') {
                Some((name, weight)) => {
                    let weight = weight.parse().ok();
                    let wrong = || format!("{member:?} has no weight after =; expected for example {name}=2");
                    (name, weight.with_context(wrong)?)
                }
                None => (member, 1),
            };
            let Some(id) = ids.get(name) else {
                bail!("there is no deployment {name:?}; `nemo deployments list` shows them");
            };
            deployments.push(LinkDeployment { deployment_id: (*id).to_owned(), weight });
        }
        links.push(Link { deployments });
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_are_names_or_ids_with_weights() {
        let deployment =
            |id: &str, name: &str| Deployment { id: id.into(), name: name.into(), ..Deployment::default() };
        let known = [deployment("1", "gpu"), deployment("2", "openai/gpt")];
        let read = |pools: &[&str]| {
            let pools: Vec<_> = pools.iter().map(|pool| (*pool).to_owned()).collect();
            links(&pools, &known)
        };
        let found = read(&["gpu=3,openai/gpt", "2"]).unwrap();
        let flat: Vec<_> = found
            .iter()
            .map(|link| {
                link.deployments.iter().map(|d| (d.deployment_id.as_str(), d.weight)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(flat, [vec![("1", 3), ("2", 1)], vec![("2", 1)]]);
        assert!(read(&["nope"]).unwrap_err().to_string().contains("nemo deployments list"));
        assert!(read(&["gpu=x"]).unwrap_err().to_string().contains("gpu=2"));
    }
}
