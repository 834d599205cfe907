//! Which key is meant: by name, by id, or by the beginning of its secret. Used by `nemo keys` and `nemo requests`.

use anyhow::{Context as _, bail};
use nemo_proto::admin::{GetKeyRequest, Key};
use nemo_types::ApiKey;

use crate::admin_client::{AdminClient, explain, is_id};

/// # Errors
/// When there is none, or more than one.
pub(in crate::commands) async fn find(
    client: &AdminClient,
    org_id: &str,
    wanted: &str,
) -> anyhow::Result<Key> {
    if is_id(wanted) {
        // There may be many keys; by its id one is found without listing them.
        let (org_id, id) = (org_id.to_owned(), wanted.to_owned());
        let request = GetKeyRequest { org_id, id, ..Default::default() };
        return Ok(client.keys().get_key(request).await.map_err(explain)?.into_inner());
    }
    // There may be many keys: a name is looked up, only the beginning of a secret needs them all.
    let name = if wanted.starts_with(ApiKey::PREFIX) { "" } else { wanted };
    choose(super::all(client, org_id, name).await?, wanted)
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
