//! `nemo keys …`

use anyhow::{Context as _, bail};
use nemo_proto::{
    Timestamp,
    admin::{
        CreateTeamRequest, DeleteKeyRequest, IssueKeyRequest, IssueKeyResponse, Key, ListKeysRequest,
        ListTeamsRequest, RotateKeyRequest, UpdateKeyRequest,
    },
};
use nemo_runtime::clock;
use nemo_types::ApiKey;

use super::{json, table::Table};
use crate::{
    admin_client::{AdminClient, explain},
    cli::{Keys, Seconds, Target},
    console,
};

const PAGE: u32 = 1000;

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Keys) -> anyhow::Result<()> {
    match command {
        Keys::Create { name, team, models, expires, target } => {
            create(name, &team, models, expires, &target).await
        }
        Keys::List { target } => list(&target).await,
        Keys::Rotate { key, overlap, target } => {
            let (client, org_id, key) = find_in(&target, &key).await?;
            let overlap_seconds = overlap.map_or(0, |Seconds(seconds)| seconds);
            let request = RotateKeyRequest { org_id, id: key.id, overlap_seconds };
            let rotated = client.keys().rotate_key(request).await.map_err(explain)?.into_inner();
            show_secret(&rotated, &target)
        }
        Keys::Disable { key, target } => switch(&key, true, &target).await,
        Keys::Enable { key, target } => switch(&key, false, &target).await,
        Keys::Delete { key, target } => {
            let (client, org_id, key) = find_in(&target, &key).await?;
            client
                .keys()
                .delete_key(DeleteKeyRequest { org_id, id: key.id.clone() })
                .await
                .map_err(explain)?;
            if target.json { json(&key) } else { told(format_args!("deleted {}", key.name)) }
        }
    }
}

fn told(line: impl std::fmt::Display) -> anyhow::Result<()> {
    console::note(line);
    Ok(())
}

async fn create(
    name: Option<String>,
    team: &str,
    allowed_models: Vec<String>,
    expires: Option<Seconds>,
    target: &Target,
) -> anyhow::Result<()> {
    let client = AdminClient::open(target)?;
    let org_id = client.organization(target.org.as_deref()).await?;
    let team_id = team_id(&client, &org_id, team).await?;
    let now = i64::try_from(clock::unix_ms() / 1000)?;
    let at = |seconds: i64| Timestamp { seconds, nanos: 0 };
    let name = match name {
        Some(name) => name,
        None => format!("key {}", rfc3339(Some(at(now)))),
    };
    let expires_at = expires.map(|Seconds(seconds)| at(now + i64::from(seconds)));
    let request = IssueKeyRequest { org_id, team_id, name, allowed_models, expires_at };
    let issued = client.keys().issue_key(request).await.map_err(explain)?.into_inner();
    show_secret(&issued, target)
}

/// The secret alone on standard output, so that `KEY=$(nemo keys create)` works.
fn show_secret(issued: &IssueKeyResponse, target: &Target) -> anyhow::Result<()> {
    if target.json {
        return json(issued);
    }
    let name = issued.key.as_ref().map(|key| key.name.as_str()).unwrap_or_default();
    console::note(format_args!("{name}: shown once, keep it"));
    console::result(&issued.secret);
    Ok(())
}

async fn team_id(client: &AdminClient, org_id: &str, name: &str) -> anyhow::Result<String> {
    let mut page_token = String::new();
    loop {
        let request = ListTeamsRequest { org_id: org_id.to_owned(), page_size: PAGE, page_token };
        let page = client.tenancy().list_teams(request).await.map_err(explain)?.into_inner();
        if let Some(team) = page.teams.into_iter().find(|team| team.name == name || team.id == name) {
            return Ok(team.id);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    let request = CreateTeamRequest { org_id: org_id.to_owned(), name: name.to_owned() };
    let team = client.tenancy().create_team(request).await.map_err(explain)?.into_inner();
    console::note(format_args!("made the team {name}"));
    Ok(team.id)
}

async fn all_keys(client: &AdminClient, org_id: &str) -> anyhow::Result<Vec<Key>> {
    let (mut keys, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListKeysRequest {
            org_id: org_id.to_owned(),
            page_size: PAGE,
            page_token,
            ..ListKeysRequest::default()
        };
        let page = client.keys().list_keys(request).await.map_err(explain)?.into_inner();
        keys.extend(page.keys);
        if page.next_page_token.is_empty() {
            return Ok(keys);
        }
        page_token = page.next_page_token;
    }
}

async fn list(target: &Target) -> anyhow::Result<()> {
    let client = AdminClient::open(target)?;
    let org_id = client.organization(target.org.as_deref()).await?;
    let keys = all_keys(&client, &org_id).await?;
    if target.json {
        return json(&keys);
    }
    let mut table = Table::new(["NAME", "KEY", "STATE", "MODELS", "CREATED", "EXPIRES"]);
    for key in &keys {
        let models =
            if key.allowed_models.is_empty() { "all".to_owned() } else { key.allowed_models.join(",") };
        let expires = key.expires_at.map_or_else(|| "never".to_owned(), |at| rfc3339(Some(at)));
        let secret = format!("{}{}…", ApiKey::PREFIX, key.public_id);
        table.row([key.name.clone(), secret, key.state.clone(), models, rfc3339(key.created_at), expires]);
    }
    table.print();
    Ok(())
}

async fn switch(key: &str, disabled: bool, target: &Target) -> anyhow::Result<()> {
    let (client, org_id, key) = find_in(target, key).await?;
    let request =
        UpdateKeyRequest { org_id, id: key.id, disabled: Some(disabled), ..UpdateKeyRequest::default() };
    let key = client.keys().update_key(request).await.map_err(explain)?.into_inner();
    if target.json { json(&key) } else { told(format_args!("{} is {}", key.name, key.state)) }
}

async fn find_in(target: &Target, wanted: &str) -> anyhow::Result<(AdminClient, String, Key)> {
    let client = AdminClient::open(target)?;
    let org_id = client.organization(target.org.as_deref()).await?;
    let key = find(&client, &org_id, wanted).await?;
    Ok((client, org_id, key))
}

/// The key that is meant by a name, an id, or the beginning of a secret.
///
/// # Errors
/// When there is none, or more than one.
pub(super) async fn find(client: &AdminClient, org_id: &str, wanted: &str) -> anyhow::Result<Key> {
    choose(all_keys(client, org_id).await?, wanted)
}

fn choose(keys: Vec<Key>, wanted: &str) -> anyhow::Result<Key> {
    // Of a pasted secret only the public part is looked at.
    let public_part =
        wanted.strip_prefix(ApiKey::PREFIX).map(|rest| rest.chars().take(16).collect::<String>());
    let meant = |key: &Key| {
        key.id == wanted
            || key.name == wanted
            || public_part.as_ref().is_some_and(|part| !part.is_empty() && key.public_id.starts_with(part))
    };
    let mut found: Vec<Key> = keys.into_iter().filter(meant).collect();
    let shown = if public_part.is_some() { "that secret" } else { wanted };
    match found.len() {
        0 => bail!("there is no key {shown:?}; `nemo keys list` shows them"),
        1 => found.pop().context("one key"),
        more => bail!("{shown:?} stands for {more} keys; use the id from `nemo keys list --json`"),
    }
}

pub(super) fn rfc3339(at: Option<Timestamp>) -> String {
    let text = at.and_then(|at| serde_json::to_value(Timestamp { nanos: 0, ..at }).ok());
    text.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, name: &str, public_id: &str) -> Key {
        Key { id: id.into(), name: name.into(), public_id: public_id.into(), ..Key::default() }
    }

    #[test]
    fn keys_are_found_by_name_id_and_secret() {
        let keys = || {
            vec![
                key("1", "ci", "abcdefgh12345678"),
                key("2", "dev", "abcxefgh12345678"),
                key("3", "dev", "zzz"),
            ]
        };
        let id = |wanted: &str| choose(keys(), wanted).map(|key| key.id);
        assert_eq!(id("ci").unwrap(), "1");
        assert_eq!(id("2").unwrap(), "2");
        assert_eq!(id(&format!("sk-nemo-abcdefgh12345678{}", "S".repeat(43))).unwrap(), "1");
        assert_eq!(id("sk-nemo-abcx").unwrap(), "2");
        assert!(id("dev").unwrap_err().to_string().contains("2 keys"));
        assert!(id("sk-nemo-").is_err());
        let error = id("sk-nemo-canary").unwrap_err().to_string();
        assert!(!error.contains("canary"), "{error}");
    }
}
