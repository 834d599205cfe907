//! `nemo members …`

use clap::{Subcommand, ValueEnum};
use nemo_proto::admin::{
    CreateMemberRequest, DeleteMemberRequest, ListMembersRequest, Member, UpdateMemberRequest,
};

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
pub enum Members {
    /// Add a person to an organization
    #[command(after_help = "\
Examples:
  nemo members create ann@example.com --role admin
  nemo members create bob@example.com --role viewer --org acme
  nemo members create --subject system:serviceaccount:ci --role member   a workload, by its subject at the issuer")]
    Create {
        /// Address that the OIDC issuer verified
        #[arg(required_unless_present = "subject")]
        email: Option<String>,
        /// Who it is at the OIDC issuer, for who has no address
        #[arg(long)]
        subject: Option<String>,
        /// What they may do
        #[arg(long)]
        role: MemberRole,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// List members
    #[command(after_help = "Examples:\n  nemo members list --org acme\n  nemo members list --json")]
    List {
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show one member
    #[command(after_help = "Examples:\n  nemo members get ann@example.com")]
    Get {
        /// Address, subject or id
        member: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Give a member another role
    #[command(after_help = "Examples:\n  nemo members update ann@example.com --role owner")]
    Update {
        /// Address, subject or id
        member: String,
        /// What they may do
        #[arg(long)]
        role: MemberRole,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Take a person out of an organization
    #[command(after_help = "Examples:\n  nemo members delete ann@example.com")]
    Delete {
        /// Address, subject or id
        member: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Delete,
    },
}

/// What somebody may do in an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MemberRole {
    /// Reads
    Viewer,
    /// Also issues keys
    Member,
    /// Also changes configuration
    Admin,
    /// Also manages members and admin tokens
    Owner,
}

impl MemberRole {
    pub(super) fn name(self) -> String {
        match self {
            Self::Viewer => "viewer",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
        .to_owned()
    }
}

impl Entity for Member {
    const KIND: &'static str = "member";
    const NOUN: &'static str = "members";
    const COLUMNS: &'static [Column] =
        &[Column::text("MEMBER"), Column::text("ROLE"), Column::whole("ID"), Column::whole("SINCE")];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        if self.email.is_empty() { &self.subject } else { &self.email }
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.name().into(),
            self.role.as_str().into(),
            self.id.as_str().into(),
            rfc3339(self.created_at).into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Members) -> anyhow::Result<()> {
    match command {
        Members::Create { email, subject, role, org, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let (email, subject) = (email.unwrap_or_default(), subject.unwrap_or_default());
            let request =
                CreateMemberRequest { org_id, email, subject, role: role.name(), ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("added", client.create_member(session.write(request))).await
        }
        Members::List { org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            session.out.list(&all(&session.client, &org_id).await?)
        }
        Members::Get { member, org, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &org, &member).await?)
        }
        Members::Update { member, role, org, write } => {
            let session = Session::writing(&write)?;
            let Member { id, org_id, .. } = find_in(&session, &org, &member).await?;
            let request = UpdateMemberRequest { org_id, id, role: role.name(), ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("updated", client.update_member(session.write(request))).await
        }
        Members::Delete { member, org, options } => {
            let session = Session::writing(&options.write)?;
            let member = find_in(&session, &org, &member).await?;
            confirm(&member, &options)?;
            let (org_id, id) = (member.org_id.clone(), member.id.clone());
            let request = DeleteMemberRequest { org_id, id, ..Default::default() };
            let mut client = session.client.tenancy();
            session.delete(&member, client.delete_member(session.write(request))).await
        }
    }
}

async fn all(client: &AdminClient, org_id: &str) -> anyhow::Result<Vec<Member>> {
    list!(client.tenancy().list_members -> members, ListMembersRequest { org_id })
}

async fn find_in(session: &Session, org: &Org, wanted: &str) -> anyhow::Result<Member> {
    let org_id = session.client.organization(org.org.as_deref()).await?;
    choose(all(&session.client, &org_id).await?, wanted)
}
