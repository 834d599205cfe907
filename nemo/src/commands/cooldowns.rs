//! `nemo cooldowns …`: what the fleet keeps away from, by its own finding or by hand.

use anyhow::bail;
use clap::Subcommand;
use nemo_proto::admin::{
    ClearCooldownRequest, Cooldown, Deployment, ListCooldownsRequest, ListDeploymentsRequest,
    SetCooldownRequest,
};

use super::{
    output::{Entity, json},
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::{AdminClient, explain, is_id},
    cli::{Delete, Owner, Seconds, Target, Write, duration},
    console,
};

#[derive(Debug, Subcommand)]
pub enum Cooldowns {
    /// List the cooldowns in force: everybody's, or what keeps one organization away
    #[command(after_help = "Examples:\n  nemo cooldowns list\n  nemo cooldowns list --org acme --json")]
    List {
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Keep requests away from a deployment for a while: those of one organization, or everybody's
    #[command(after_help = "\
Examples:
  nemo cooldowns set openai/gpt-5.2 --for 10m --reason 'provider has an incident'
  nemo cooldowns set openai/gpt-5.2 --for 1h --org acme")]
    Set {
        /// Name or id of the deployment
        deployment: String,
        /// How long: a number with s, m, h or d
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        length: Seconds,
        /// Why, for whoever looks
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// Lift a cooldown, and let every node forget what it held against the deployment
    #[command(
        after_help = "Examples:\n  nemo cooldowns clear openai/gpt-5.2\n  nemo cooldowns clear openai/gpt-5.2 --org acme"
    )]
    Clear {
        /// Name or id of the deployment
        deployment: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for Cooldown {
    const KIND: &'static str = "cooldown";
    const NOUN: &'static str = "cooldowns";
    const COLUMNS: &'static [Column] = &[
        Column::text("DEPLOYMENT"),
        Column::whole("ID"),
        Column::text("FOR"),
        Column::text("CAUSE"),
        Column::number("SECONDS LEFT"),
        Column::text("BY"),
        Column::text("REASON"),
    ];

    fn id(&self) -> &str {
        &self.deployment_id
    }

    fn name(&self) -> &str {
        if self.deployment.is_empty() { &self.deployment_id } else { &self.deployment }
    }

    fn cells(&self) -> Vec<Cell> {
        let whom = if self.org_id.is_empty() { "everybody" } else { &self.org_id };
        vec![
            self.deployment.as_str().into(),
            self.deployment_id.as_str().into(),
            whom.into(),
            self.cause.as_str().into(),
            self.remaining_ms.div_ceil(1000).to_string().into(),
            self.reporter.as_str().into(),
            self.reason.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Cooldowns) -> anyhow::Result<()> {
    match command {
        Cooldowns::List { owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let request = ListCooldownsRequest { org_id, ..Default::default() };
            let listed = session.client.cooldowns().list_cooldowns(request).await.map_err(explain)?;
            let listed = listed.into_inner();
            if session.out.json {
                return json(&listed.cooldowns);
            }
            session.out.list(&listed.cooldowns)?;
            if listed.truncated && !session.out.quiet {
                console::note("there are more than are shown; --org NAME shows one organization's");
            }
            Ok(())
        }
        Cooldowns::Set { deployment, length, reason, owner, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let deployment_id = find(&session.client, &org_id, &deployment).await?;
            let duration_ms = u64::from(length.0) * 1000;
            let request =
                SetCooldownRequest { org_id, deployment_id, duration_ms, reason, ..Default::default() };
            let mut client = session.client.cooldowns();
            session.put("set", client.set_cooldown(session.write(request))).await
        }
        Cooldowns::Clear { deployment, owner, options } => {
            let session = Session::writing(&options.write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let request = ListCooldownsRequest { org_id: org_id.clone(), ..Default::default() };
            let listed = session.client.cooldowns().list_cooldowns(request).await.map_err(explain)?;
            let own = listed.into_inner().cooldowns.into_iter().filter(|it| it.org_id == org_id).collect();
            let cooldown: Cooldown = choose(own, &deployment)?;
            confirm(&cooldown, &options)?;
            let request = ClearCooldownRequest {
                org_id,
                deployment_id: cooldown.deployment_id.clone(),
                ..Default::default()
            };
            let mut client = session.client.cooldowns();
            session.delete(&cooldown, client.clear_cooldown(session.write(request))).await
        }
    }
}

/// Id of a deployment that the owner has, or that the operator has for all.
async fn find(client: &AdminClient, org_id: &str, wanted: &str) -> anyhow::Result<String> {
    if is_id(wanted) {
        return Ok(wanted.to_owned());
    }
    let mut found: Vec<Deployment> =
        list!(client.providers().list_deployments -> deployments, ListDeploymentsRequest { org_id })?;
    found.retain(|it| it.name == wanted);
    if found.is_empty() && !org_id.is_empty() {
        let org_id = "";
        // A token of one organization does not see the operator's.
        let all =
            list!(client.providers().list_deployments -> deployments, ListDeploymentsRequest { org_id });
        match all {
            Ok(all) => found = all,
            Err(_) => {
                bail!("the organization has no deployment {wanted:?}; give the id of one of the operator's")
            }
        }
    }
    Ok(choose(found, wanted)?.id)
}
