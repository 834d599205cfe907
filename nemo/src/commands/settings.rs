//! `nemo settings …`

use clap::Subcommand;
use nemo_proto::admin::{
    DeleteSettingRequest, GetSettingRequest, ListSettingsRequest, PutSettingRequest, Setting,
};

use super::{
    output::Entity,
    session::{Session, choose, confirm},
    table::{Cell, Column},
};
use crate::{
    admin_client::{AdminClient, explain},
    cli::{Delete, Owner, Target, Write},
};

#[derive(Debug, Subcommand)]
pub enum Settings {
    /// List the settings that are set
    #[command(after_help = "Examples:\n  nemo settings list\n  nemo settings list --org acme --json")]
    List {
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Show one setting
    #[command(
        after_help = "Examples:\n  nemo settings get routing.strategy\n  nemo settings get routing.strategy --org acme --json"
    )]
    Get {
        /// Such as routing.strategy
        key: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Set a setting
    #[command(after_help = "\
Examples:
  nemo settings put routing.strategy latency-based
  nemo settings put routing.retries 3 --org acme
  nemo settings put cooldown.window_ms 10000")]
    Put {
        /// Such as routing.strategy
        key: String,
        /// JSON, or plain text
        value: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        write: Write,
    },
    /// Unset a setting
    #[command(after_help = "Examples:\n  nemo settings delete routing.strategy")]
    Delete {
        /// Such as routing.strategy
        key: String,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        options: Delete,
    },
}

impl Entity for Setting {
    const KIND: &'static str = "setting";
    const NOUN: &'static str = "settings";
    const COLUMNS: &'static [Column] = &[Column::whole("KEY"), Column::text("VALUE")];

    fn id(&self) -> &str {
        &self.key
    }

    fn name(&self) -> &str {
        &self.key
    }

    fn cells(&self) -> Vec<Cell> {
        vec![self.key.as_str().into(), self.value.as_str().into()]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Settings) -> anyhow::Result<()> {
    match command {
        Settings::List { owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            session.out.list(&all(&session.client, org_id).await?)
        }
        Settings::Get { key, owner, target } => {
            let session = Session::reading(&target)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let request = GetSettingRequest { org_id, key, ..Default::default() };
            let setting = session.client.settings().get_setting(request).await.map_err(explain)?;
            session.out.fields(&setting.into_inner())
        }
        Settings::Put { key, value, owner, write } => {
            let session = Session::writing(&write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let request = PutSettingRequest { org_id, key, value: as_json(value), ..Default::default() };
            let mut client = session.client.settings();
            session.put("set", client.put_setting(session.write(request))).await
        }
        Settings::Delete { key, owner, options } => {
            let session = Session::writing(&options.write)?;
            let org_id = session.client.owner(owner.org.as_deref()).await?;
            let setting = choose(all(&session.client, org_id.clone()).await?, &key)?;
            confirm(&setting, &options)?;
            let request = DeleteSettingRequest { org_id, key, ..Default::default() };
            let mut client = session.client.settings();
            session.delete(&setting, client.delete_setting(session.write(request))).await
        }
    }
}

/// What is JSON stays so; anything else is text.
fn as_json(value: String) -> String {
    match serde_json::from_str::<serde_json::Value>(&value) {
        Ok(_) => value,
        Err(_) => serde_json::Value::String(value).to_string(),
    }
}

async fn all(client: &AdminClient, org_id: String) -> anyhow::Result<Vec<Setting>> {
    let request = ListSettingsRequest { org_id, ..Default::default() };
    Ok(client.settings().list_settings(request).await.map_err(explain)?.into_inner().settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_becomes_json() {
        assert_eq!(as_json("simple-shuffle".into()), "\"simple-shuffle\"");
        assert_eq!(as_json("\"x\"".into()), "\"x\"");
        assert_eq!(as_json("30".into()), "30");
    }
}
