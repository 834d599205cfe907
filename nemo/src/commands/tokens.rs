//! `nemo tokens …`

use clap::Subcommand;
use nemo_proto::admin::{
    AdminToken, CreateAdminTokenRequest, DeleteAdminTokenRequest, ListAdminTokensRequest,
    UpdateAdminTokenRequest,
};

use super::{
    members::MemberRole,
    output::{Entity, expiry, rfc3339},
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Owner, Seconds, Target, Write, duration},
};

#[derive(Debug, Subcommand)]
pub enum Tokens {
    /// Make an admin token; it is printed once
    #[command(after_help = "\
Examples:
  nemo tokens create terraform                                  the operator's: may do everything
  nemo tokens create dashboard --org acme --role viewer --expires 30d
  NEMO_ADMIN_TOKEN=$(nemo tokens create ci --org acme --role admin --quiet)")]
    Create {
        /// Name of the token, to tell tokens apart
        name: String,
        /// What it may do in its organization; absent only for the operator's own
        #[arg(long, requires = "org")]
        role: Option<MemberRole>,
        /// After this it stops working: 90m, 12h, 30d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        expires: Option<Seconds>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// List admin tokens, without their secrets
    #[command(after_help = "Examples:\n  nemo tokens list\n  nemo tokens list --org acme --json")]
    List {
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Show one admin token, without its secret
    #[command(after_help = "Examples:\n  nemo tokens get terraform")]
    Get {
        /// Name or id
        token_name: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Rename an admin token
    #[command(after_help = "Examples:\n  nemo tokens update terraform --name terraform-old")]
    Update {
        /// Name or id
        token_name: String,
        /// New name
        #[arg(long)]
        name: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// Delete an admin token: it stops working
    #[command(
        after_help = "Examples:\n  nemo tokens delete terraform\n  nemo tokens delete ci --org acme --yes"
    )]
    Delete {
        /// Name or id
        token_name: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for AdminToken {
    const KIND: &'static str = "admin token";
    const NOUN: &'static str = "tokens";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("ROLE"),
        Column::whole("ID"),
        Column::whole("CREATED"),
        Column::whole("EXPIRES"),
        Column::whole("LAST USED"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        let role = if self.org_id.is_empty() { "operator" } else { &self.role };
        vec![
            self.name.as_str().into(),
            role.into(),
            self.id.as_str().into(),
            rfc3339(self.created_at).into(),
            expiry(self.expires_at),
            expiry(self.last_used_at),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Tokens) -> anyhow::Result<()> {
    match command {
        Tokens::Create { name, role, expires, owner, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let role = role.map(MemberRole::name).unwrap_or_default();
            let expires_at = expires.map(Seconds::from_now);
            let request = CreateAdminTokenRequest { org_id, name, role, expires_at, ..Default::default() };
            let mut client = session.client.tenancy();
            let created = session.send(client.create_admin_token(session.write(request))).await?;
            let Some(created) = created else { return Ok(()) };
            let name = created.admin_token.as_ref().map(|token| token.name.as_str()).unwrap_or_default();
            session.out.secret(&created, name, &created.token)
        }
        Tokens::List { owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            session.out.list(&all(&session.client, &org_id).await?)
        }
        Tokens::Get { token_name, owner, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &owner, &token_name).await?)
        }
        Tokens::Update { token_name, name, owner, write } => {
            let session = Session::writing(&write)?;
            let AdminToken { id, org_id, .. } = find_in(&session, &owner, &token_name).await?;
            let request = UpdateAdminTokenRequest { org_id, id, name: Some(name), ..Default::default() };
            let mut client = session.client.tenancy();
            session.put("updated", client.update_admin_token(session.write(request))).await
        }
        Tokens::Delete { token_name, owner, options } => {
            let session = Session::writing(&options.write)?;
            let token = find_in(&session, &owner, &token_name).await?;
            confirm(&token, &options)?;
            let (org_id, id) = (token.org_id.clone(), token.id.clone());
            let request = DeleteAdminTokenRequest { org_id, id, ..Default::default() };
            let mut client = session.client.tenancy();
            session.delete(&token, client.delete_admin_token(session.write(request))).await
        }
    }
}

async fn all(client: &AdminClient, org_id: &str) -> anyhow::Result<Vec<AdminToken>> {
    list!(client.tenancy().list_admin_tokens -> admin_tokens, ListAdminTokensRequest { org_id })
}

async fn find_in(session: &Session, owner: &Owner, wanted: &str) -> anyhow::Result<AdminToken> {
    let org_id = session.client.owner(owner.org.as_deref()).await?;
    choose(all(&session.client, &org_id).await?, wanted)
}
