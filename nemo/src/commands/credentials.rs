//! `nemo credentials …`

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use nemo_proto::admin::{
    CreateCredentialRequest, Credential, DeleteCredentialRequest, ListCredentialsRequest,
    UpdateCredentialRequest,
};

use super::{
    output::{Entity, rfc3339},
    session::{Session, choose, confirm, list},
    table::{Cell, Column},
};
use crate::{
    admin_client::AdminClient,
    cli::{Delete, Owner, Target, Write},
};

/// A key of a provider is short; a service account's JSON is a few KiB.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

#[derive(Debug, Subcommand)]
pub enum Credentials {
    /// Seal a provider's key; it can be used from then on, and never read again
    #[command(after_help = "\
Examples:
  nemo credentials create main --provider openai --secret-env OPENAI_API_KEY
  nemo credentials create main --provider groq --secret-file groq.key
  vault read -field=key kv/groq | nemo credentials create main --provider groq --secret-file -
  nemo credentials create gcp --provider google-vertex --secret-file service-account.json

The key itself is no argument: other users of this machine would see it in the list of processes. For bedrock it is an API
key, or JSON with access_key_id and secret_access_key.")]
    Create {
        /// Name of the credential
        name: String,
        /// Id of a provider: `nemo providers` lists them
        #[arg(long)]
        provider: String,
        #[command(flatten)]
        secret: SecretSource,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// List credentials, without their secrets
    #[command(after_help = "Examples:\n  nemo credentials list\n  nemo credentials list --org acme --json")]
    List {
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Show one credential, without its secret
    #[command(after_help = "Examples:\n  nemo credentials get main")]
    Get {
        /// Name or id
        credential: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Rename a credential, or replace its secret
    #[command(after_help = "\
Examples:
  nemo credentials update main --secret-env OPENAI_API_KEY_NEW
  nemo credentials update main --name old")]
    Update {
        /// Name or id
        credential: String,
        /// New name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        secret: SecretSource,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// Delete a credential that no deployment uses
    #[command(after_help = "Examples:\n  nemo credentials delete main\n  nemo credentials delete main --yes")]
    Delete {
        /// Name or id
        credential: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        options: Delete,
    },
}

/// Where a secret comes from.
#[derive(Clone, Debug, Args)]
#[group(multiple = false)]
pub struct SecretSource {
    /// Variable that holds the secret
    #[arg(long, value_name = "VARIABLE")]
    secret_env: Option<String>,
    /// File that holds the secret; `-` is standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretSource {
    /// `None` when none was named.
    fn read(&self) -> anyhow::Result<Option<String>> {
        let text = match (&self.secret_env, &self.secret_file) {
            (Some(name), _) => {
                std::env::var(name).ok().with_context(|| format!("the variable {name} is not set"))?
            }
            (None, Some(path)) => read_file(path)?,
            (None, None) => return Ok(None),
        };
        let text = text.trim();
        if text.is_empty() {
            bail!("the secret is empty");
        }
        Ok(Some(text.to_owned()))
    }
}

fn read_file(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(MAX_SECRET_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_SECRET_BYTES).read_to_string(&mut text))
    };
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(text)
}

impl Entity for Credential {
    const KIND: &'static str = "credential";
    const NOUN: &'static str = "credentials";
    const COLUMNS: &'static [Column] = &[
        Column::text("NAME"),
        Column::text("PROVIDER"),
        Column::text("SECRET"),
        Column::whole("ID"),
        Column::whole("UPDATED"),
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
            self.provider.as_str().into(),
            format!("…{}", self.hint).into(),
            self.id.as_str().into(),
            rfc3339(self.updated_at).into(),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Credentials) -> anyhow::Result<()> {
    match command {
        Credentials::Create { name, provider, secret, owner, write } => {
            let secret = secret.read()?.context("name the secret with --secret-env or --secret-file")?;
            let session = Session::writing(&write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let request = CreateCredentialRequest { org_id, name, provider, secret, ..Default::default() };
            let mut client = session.client.providers();
            session.put("created", client.create_credential(session.write(request))).await
        }
        Credentials::List { owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            session.out.list(&all(&session.client, &org_id).await?)
        }
        Credentials::Get { credential, owner, target } => {
            let session = Session::reading(&target)?;
            session.out.one(&find_in(&session, &owner, &credential).await?)
        }
        Credentials::Update { credential, name, secret, owner, write } => {
            let secret = secret.read()?;
            let session = Session::writing(&write)?;
            let Credential { id, org_id, .. } = find_in(&session, &owner, &credential).await?;
            let request = UpdateCredentialRequest { org_id, id, name, secret, ..Default::default() };
            let mut client = session.client.providers();
            session.put("updated", client.update_credential(session.write(request))).await
        }
        Credentials::Delete { credential, owner, options } => {
            let session = Session::writing(&options.write)?;
            let credential = find_in(&session, &owner, &credential).await?;
            confirm(&credential, &options)?;
            let (org_id, id) = (credential.org_id.clone(), credential.id.clone());
            let request = DeleteCredentialRequest { org_id, id, ..Default::default() };
            let mut client = session.client.providers();
            session.delete(&credential, client.delete_credential(session.write(request))).await
        }
    }
}

async fn all(client: &AdminClient, org_id: &str) -> anyhow::Result<Vec<Credential>> {
    list!(client.providers().list_credentials -> credentials, ListCredentialsRequest { org_id })
}

/// The credential that is meant by a name or an id.
///
/// # Errors
/// When there is none.
pub(super) async fn find(client: &AdminClient, org_id: &str, wanted: &str) -> anyhow::Result<Credential> {
    choose(all(client, org_id).await?, wanted)
}

async fn find_in(session: &Session, owner: &Owner, wanted: &str) -> anyhow::Result<Credential> {
    let org_id = session.client.owner(owner.org.as_deref()).await?;
    find(&session.client, &org_id, wanted).await
}
