//! What a budget or a rate limit is on, as it is typed: a team, a key, or nothing for the whole organization.

use clap::Args;

use super::{keys, teams};
use crate::admin_client::AdminClient;

#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Subject {
    /// Of this team (name or id)
    #[arg(long, conflicts_with = "key")]
    pub team: Option<String>,
    /// Of this key (name, id, or the beginning of its secret)
    #[arg(long)]
    pub key: Option<String>,
}

impl Subject {
    /// The ids of team and key; empty for what was not named.
    ///
    /// # Errors
    /// When there is no such team or key.
    pub(super) async fn ids(&self, client: &AdminClient, org_id: &str) -> anyhow::Result<(String, String)> {
        let team_id = match &self.team {
            Some(team) => teams::find(client, org_id, team).await?.id,
            None => String::new(),
        };
        let key_id = match &self.key {
            Some(key) => keys::find(client, org_id, key).await?.id,
            None => String::new(),
        };
        Ok((team_id, key_id))
    }
}
