//! `nemo orgs …`

use clap::Subcommand;
use nemo_proto::admin::{
    CreateOrganizationRequest, DeleteOrganizationRequest, GetOrganizationRequest, Organization,
    UpdateOrganizationRequest,
};

use super::{
    output::{Entity, rfc3339},
    session::{Session, choose, confirm},
    table::{Cell, Column},
};
use crate::{
    admin_client::{AdminClient, explain, is_id},
    cli::{Delete, Target, Write},
};

#[derive(Debug, Subcommand)]
pub enum Orgs {
    /// Make an organization
    #[command(after_help = "\
Examples:
  nemo orgs create acme
  ORG=$(nemo orgs create acme --quiet)   its id alone")]
    Create {
        /// Name of the organization
        name: String,
        #[command(flatten)]
        write: Write,
    },
    /// List organizations
    #[command(after_help = "Examples:\n  nemo orgs list\n  nemo orgs list --json | jq -r '.[].name'")]
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Show one organization
    #[command(after_help = "Examples:\n  nemo orgs get acme")]
    Get {
        /// Name or id
        org: String,
        #[command(flatten)]
        target: Target,
    },
    /// Rename an organization, or switch it off and on
    #[command(after_help = "\
Examples:
  nemo orgs update acme --name acme-inc
  nemo orgs update acme --disabled true   its keys stop working until it is enabled again")]
    Update {
        /// Name or id
        org: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// Whether it is switched off
        #[arg(long, value_name = "true|false")]
        disabled: Option<bool>,
        #[command(flatten)]
        write: Write,
    },
    /// Delete an organization with all that it has
    #[command(after_help = "Examples:\n  nemo orgs delete acme\n  nemo orgs delete acme --yes   do not ask")]
    Delete {
        /// Name or id
        org: String,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for Organization {
    const KIND: &'static str = "organization";
    const NOUN: &'static str = "orgs";
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
pub async fn run(command: Orgs) -> anyhow::Result<()> {
    match command {
        Orgs::Create { name, write } => {
            let session = Session::writing(&write)?;
            let request = CreateOrganizationRequest { name, ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("created", client.create_organization(session.write(request))).await
        }
        Orgs::List { target } => {
            let session = Session::reading(&target)?;
            session.out.list(&session.client.organizations().await?)
        }
        Orgs::Get { org, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find(&session.client, &org).await?)
        }
        Orgs::Update { org, name, disabled, write } => {
            let session = Session::writing(&write)?;
            let id = find(&session.client, &org).await?.id;
            let request = UpdateOrganizationRequest { id, name, disabled, ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("updated", client.update_organization(session.write(request))).await
        }
        Orgs::Delete { org, options } => {
            let session = Session::writing(&options.write)?;
            let org = find(&session.client, &org).await?;
            confirm(&org, &options)?;
            let request = DeleteOrganizationRequest { id: org.id.clone(), ..Default::default() };
            let mut client = session.client.tenancy();
            session.delete(&org, client.delete_organization(session.write(request))).await
        }
    }
}

async fn find(client: &AdminClient, wanted: &str) -> anyhow::Result<Organization> {
    if is_id(wanted) {
        let request = GetOrganizationRequest { id: wanted.to_owned(), ..Default::default() };
        return Ok(client.tenancy().get_organization(request).await.map_err(explain)?.into_inner());
    }
    choose(client.organizations().await?, wanted)
}
