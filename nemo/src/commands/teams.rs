//! `nemo teams …`

use clap::Subcommand;
use nemo_proto::admin::{CreateTeamRequest, DeleteTeamRequest, ListTeamsRequest, Team, UpdateTeamRequest};

use super::{
    output::{Entity, rfc3339},
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Org, Target, Write},
};

#[derive(Debug, Subcommand)]
pub enum Teams {
    /// Make a team
    #[command(
        after_help = "Examples:\n  nemo teams create build\n  nemo teams create build --org acme --quiet"
    )]
    Create {
        /// Name of the team
        name: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// List teams
    #[command(after_help = "Examples:\n  nemo teams list --org acme\n  nemo teams list --json")]
    List {
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show one team
    #[command(after_help = "Examples:\n  nemo teams get build --org acme")]
    Get {
        /// Name or id
        team: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Rename a team, or switch it off and on
    #[command(after_help = "\
Examples:
  nemo teams update build --name ci
  nemo teams update build --disabled true   its keys stop working until it is enabled again")]
    Update {
        /// Name or id
        team: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Whether it is switched off
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a team with its keys
    #[command(
        after_help = "Examples:\n  nemo teams delete build\n  nemo teams delete build --yes   do not ask"
    )]
    Delete {
        /// Name or id
        team: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for Team {
    const KIND: &'static str = "team";
    const NOUN: &'static str = "teams";
    const COLUMNS: &'static [Column] =
        &[Column::text("NAME"), Column::text("STATE"), Column::whole("ID"), Column::whole("CREATED")];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        let state = Cell::enabled(self.disabled);
        vec![self.name.as_str().into(), state, self.id.as_str().into(), rfc3339(self.created_at).into()]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Teams) -> anyhow::Result<()> {
    match command {
        Teams::Create { name, org, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let request = CreateTeamRequest { org_id, name, ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("created", client.create_team(session.write(request))).await
        }
        Teams::List { org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            session.out.list(&all(&session.client, &org_id).await?)
        }
        Teams::Get { team, org, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &org, &team).await?)
        }
        Teams::Update { team, name, disabled, org, write } => {
            let session = Session::writing(&write)?;
            let Team { id, org_id, .. } = find_in(&session, &org, &team).await?;
            let request = UpdateTeamRequest { org_id, id, name, disabled, ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("updated", client.update_team(session.write(request))).await
        }
        Teams::Delete { team, org, options } => {
            let session = Session::writing(&options.write)?;
            let team = find_in(&session, &org, &team).await?;
            confirm(&team, &options)?;
            let (org_id, id) = (team.org_id.clone(), team.id.clone());
            let request = DeleteTeamRequest { org_id, id, ..Default::default() };
            let mut client = session.client.tenancy();
            session.delete(&team, client.delete_team(session.write(request))).await
        }
    }
}

/// Every team of an organization.
pub(super) async fn all(client: &AdminClient, org_id: &str) -> anyhow::Result<Vec<Team>> {
    list!(client.tenancy().list_teams -> teams, ListTeamsRequest { org_id })
}

/// The team that is meant by a name or an id.
pub(super) async fn find(client: &AdminClient, org_id: &str, wanted: &str) -> anyhow::Result<Team> {
    choose(all(client, org_id).await?, wanted)
}

async fn find_in(session: &Session, org: &Org, wanted: &str) -> anyhow::Result<Team> {
    let org_id = session.client.organization(org.org.as_deref()).await?;
    find(&session.client, &org_id, wanted).await
}
