//! `nemo keys …`

mod find;
mod policy;

use anyhow::bail;
use clap::Subcommand;
use nemo_proto::admin::{
    CreateTeamRequest, DeleteKeyRequest, IssueKeyRequest, IssueKeyResponse, Key, ListKeysRequest,
    RotateKeyRequest, UpdateKeyRequest,
};
use nemo_types::ApiKey;

pub(super) use self::find::find;
use self::policy::Policy;
use super::{
    output::{Entity, allowed, expiry, rfc3339},
    session::{Session, confirm, list},
    table::{Cell, Column},
    teams,
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Org, Seconds, Target, Write, duration},
    console,
};

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Issue a key; its secret is printed once
    #[command(after_help = "\
Examples:
  nemo keys create
  nemo keys create --name ci --team build --models gpt-5-mini,openai/* --expires 30d
  nemo keys create --name web --endpoints chat.completions --cidrs 10.0.0.0/8 --tags web
  KEY=$(nemo keys create --name ci --quiet)")]
    Create {
        /// To tell keys apart [default: the date and time]
        #[arg(long)]
        name: Option<String>,
        /// Team by name or id; made if it does not exist
        #[arg(long, default_value = "default")]
        team: String,
        #[command(flatten)]
        policy: Box<Policy>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// List keys
    #[command(after_help = "Examples:\n  nemo keys list\n  nemo keys list --team build --json")]
    List {
        /// Of this team only: name or id
        #[arg(long)]
        team: Option<String>,
        /// In this state only: active, disabled or expired
        #[arg(long)]
        state: Option<String>,
        /// Whose names begin like this only
        #[arg(long, value_name = "PREFIX")]
        name_prefix: Option<String>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Show one key, without its secret
    #[command(after_help = "Examples:\n  nemo keys get ci\n  nemo keys get sk-nemo-AbCdEf   whose is this?")]
    Get {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        target: Target,
    },
    /// Change what a key may do
    #[command(after_help = "\
Examples:
  nemo keys update ci --models gpt-5-mini,smart
  nemo keys update ci --models ''          all models again
  nemo keys update ci --never-expires --name build-server")]
    Update {
        /// Name, id, or the first characters of its secret
        key: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        /// It does not expire any more
        #[arg(long, conflicts_with = "expires")]
        never_expires: bool,
        #[command(flatten)]
        policy: Box<Policy>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Give a key a new secret
    #[command(
        after_help = "Examples:\n  nemo keys rotate ci\n  nemo keys rotate ci --overlap 1h   the old secret works for another hour"
    )]
    Rotate {
        /// Name, id, or the first characters of its secret
        key: String,
        /// How long the old secret still works: 90m, 12h, 7d
        #[arg(long, value_name = "TIME", value_parser = duration)]
        overlap: Option<Seconds>,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Stop a key from working, until it is enabled again
    #[command(
        after_help = "Examples:\n  nemo keys disable ci\n  nemo keys disable ci --wait   returns when no node accepts it any more"
    )]
    Disable {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Let a disabled key work again
    #[command(after_help = "Examples:\n  nemo keys enable ci")]
    Enable {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a key
    #[command(after_help = "Examples:\n  nemo keys delete ci\n  nemo keys delete ci --yes   do not ask")]
    Delete {
        /// Name, id, or the first characters of its secret
        key: String,
        #[command(flatten)]
        org: Org,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for Key {
    const KIND: &'static str = "key";
    const NOUN: &'static str = "keys";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::whole("KEY"),
        Column::text("STATE"),
        Column::text("MODELS"),
        Column::whole("CREATED"),
        Column::whole("EXPIRES"),
    ];

    fn id(&self) -> &str {
        &self.id
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            self.name.as_str().into(),
            format!("{}{}…", ApiKey::PREFIX, self.public_id).into(),
            Cell::state(&self.state),
            allowed(&self.allowed_models),
            rfc3339(self.created_at).into(),
            expiry(self.expires_at),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Keys) -> anyhow::Result<()> {
    match command {
        Keys::Create { name, team, policy, org, write } => create(name, &team, *policy, &org, &write).await,
        Keys::List { team, state, name_prefix, org, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.organization(org.org.as_deref()).await?;
            let team_id = match team {
                Some(team) => teams::find(&session.client, &org_id, &team).await?.id,
                None => String::new(),
            };
            let (state, name_prefix) = (state.unwrap_or_default(), name_prefix.unwrap_or_default());
            let client = &session.client;
            let keys: Vec<Key> = list!(
                client.keys().list_keys -> keys,
                ListKeysRequest { org_id, team_id, state, name_prefix }
            )?;
            session.out.list(&keys)
        }
        Keys::Get { key, org, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &org, &key).await?)
        }
        Keys::Update { key, name, never_expires, policy, org, write } => {
            let session = Session::writing(&write)?;
            let Key { id, org_id, .. } = find_in(&session, &org, &key).await?;
            let request = UpdateKeyRequest { org_id, id, name, never_expires, ..policy.change() };
            let mut client = session.client.keys();
            session.put("updated", client.update_key(session.write(request))).await
        }
        Keys::Rotate { key, overlap, org, write } => {
            let session = Session::writing(&write)?;
            let Key { id, org_id, .. } = find_in(&session, &org, &key).await?;
            let overlap_seconds = overlap.map_or(0, |Seconds(seconds)| seconds);
            let request = RotateKeyRequest { org_id, id, overlap_seconds, ..Default::default() };
            let rotated = session.send(session.client.keys().rotate_key(session.write(request))).await?;
            show_secret(&session, rotated)
        }
        Keys::Disable { key, org, write } => switch(&key, true, &org, &write).await,
        Keys::Enable { key, org, write } => switch(&key, false, &org, &write).await,
        Keys::Delete { key, org, options } => {
            let session = Session::writing(&options.write)?;
            let key = find_in(&session, &org, &key).await?;
            confirm(&key, &options)?;
            let (org_id, id) = (key.org_id.clone(), key.id.clone());
            let request = DeleteKeyRequest { org_id, id, ..Default::default() };
            let mut client = session.client.keys();
            session.delete(&key, client.delete_key(session.write(request))).await
        }
    }
}

async fn create(
    name: Option<String>,
    team: &str,
    policy: Policy,
    org: &Org,
    write: &Write,
) -> anyhow::Result<()> {
    let session = Session::writing(write)?;
    let org_id = session.client.organization(org.org.as_deref()).await?;
    let team_id = team_id(&session, &org_id, team, write.validate_only).await?;
    let name = name.unwrap_or_else(|| format!("key {}", rfc3339(Some(Seconds(0).from_now()))));
    let request = IssueKeyRequest { org_id, team_id, name, ..policy.creation() };
    let issued = session.send(session.client.keys().issue_key(session.write(request))).await?;
    show_secret(&session, issued)
}

fn show_secret(session: &Session, issued: Option<IssueKeyResponse>) -> anyhow::Result<()> {
    let Some(issued) = issued else { return Ok(()) };
    let name = issued.key.as_ref().map(|key| key.name.as_str()).unwrap_or_default();
    session.out.secret(&issued, name, &issued.secret)
}

/// Id of the team, which is made if it does not exist.
async fn team_id(session: &Session, org_id: &str, wanted: &str, check_only: bool) -> anyhow::Result<String> {
    let teams = teams::all(&session.client, org_id).await?;
    if let Some(team) = teams.into_iter().find(|team| team.name == wanted || team.id == wanted) {
        return Ok(team.id);
    }
    if check_only {
        bail!("there is no team {wanted:?} yet; without --validate-only it would be made");
    }
    let request =
        CreateTeamRequest { org_id: org_id.to_owned(), name: wanted.to_owned(), ..Default::default() };
    let team = session.send(session.client.tenancy().create_team(session.write(request))).await?;
    if !session.out.quiet {
        console::note(format_args!("made the team {wanted}"));
    }
    Ok(team.map(|team| team.id).unwrap_or_default())
}

/// Every key of an organization, or those of one name.
async fn all(client: &AdminClient, org_id: &str, name: &str) -> anyhow::Result<Vec<Key>> {
    list!(client.keys().list_keys -> keys, ListKeysRequest { org_id, name })
}

async fn switch(key: &str, disabled: bool, org: &Org, write: &Write) -> anyhow::Result<()> {
    let session = Session::writing(write)?;
    let Key { id, org_id, .. } = find_in(&session, org, key).await?;
    let request = UpdateKeyRequest { org_id, id, disabled: Some(disabled), ..Default::default() };
    let mut client = session.client.keys();
    let verb = if disabled { "disabled" } else { "enabled" };
    session.put(verb, client.update_key(session.write(request))).await
}

async fn find_in(session: &Session, org: &Org, wanted: &str) -> anyhow::Result<Key> {
    let org_id = session.client.organization(org.org.as_deref()).await?;
    find(&session.client, &org_id, wanted).await
}
