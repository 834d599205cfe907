//! Compiles keys with the state of their team and organization. Called by [`super::compile`].

use nemo_proto::config::{ApiKey, Kind};
use nemo_types::{KeyId, PublicId, TeamId, TokenHash};

use super::Compiler;
use crate::tenancy::{AllowedModels, Disabled, KeyRecord, Tenancy};

pub(super) fn compile(compiler: &mut Compiler<'_>) -> Tenancy {
    let mut tenancy = Tenancy::default();
    for (id, team) in compiler.teams.clone() {
        // A team without organization is wrong even while it has no keys.
        let _ = compiler.owner(Kind::Team, id.as_bytes(), &team.org_id);
        if team.org_id.is_empty() {
            compiler.reject(Kind::Team, id.as_bytes(), "org_id", "a team belongs to an organization");
        }
    }
    for key in std::mem::take(&mut compiler.keys) {
        match record(compiler, key) {
            Ok(record) => {
                if !tenancy.insert(record) {
                    compiler.reject(Kind::ApiKey, &key.id, "public_id", "another key has the same public id");
                }
            }
            Err((field, message)) => compiler.reject(Kind::ApiKey, &key.id, field, message),
        }
    }
    tenancy
}

fn record(compiler: &Compiler<'_>, key: &ApiKey) -> Result<KeyRecord, (&'static str, &'static str)> {
    let team_id = TeamId::from_bytes(&key.team_id).ok_or(("team_id", "not an id"))?;
    let team = compiler.teams.get(&team_id).ok_or(("team_id", "no such team"))?;
    let org_id =
        nemo_types::OrgId::from_bytes(&team.org_id).ok_or(("team_id", "the team has no organization"))?;
    let org = compiler.organizations.get(&org_id).ok_or(("team_id", "the team's organization is missing"))?;
    let public_id: PublicId =
        key.public_id.parse().map_err(|_| ("public_id", "not 16 letters and digits"))?;
    let hash = TokenHash::from_bytes(&key.secret_hash).ok_or(("secret_hash", "not 32 bytes"))?;
    let previous = match (key.previous_secret_hash.is_empty(), key.previous_valid_until_unix_ms) {
        (true, _) | (_, None) => None,
        (false, Some(until)) => {
            let hash = TokenHash::from_bytes(&key.previous_secret_hash);
            Some((hash.ok_or(("previous_secret_hash", "not 32 bytes"))?, until))
        }
    };
    let disabled = match (key.disabled, team.disabled, org.disabled) {
        (true, _, _) => Some(Disabled::Key),
        (_, true, _) => Some(Disabled::Team),
        (_, _, true) => Some(Disabled::Organization),
        _ => None,
    };
    Ok(KeyRecord {
        id: KeyId::from_bytes(&key.id).ok_or(("id", "not an id"))?,
        public_id,
        org_id,
        team_id,
        name: key.name.as_str().into(),
        hash,
        previous,
        disabled,
        expires_at_ms: key.expires_at_unix_ms,
        allowed_models: AllowedModels::new(&key.allowed_models),
    })
}
