//! Settings of billing as they hold for an organization, and the rate limit that its tier guarantees. Called by the
//! operations on settings and organizations, and by the payments.

use serde_json::Value;
use uuid::Uuid;

use super::{StoreError, SystemTx, settings::SettingRow};
use crate::credits::{Tier, Tiers, settings as keys};

/// Name of the rate limit, unless the organization gave it to one of its own.
const TIER_LIMIT: &str = "tier";

/// A setting of exactly this owner; `None` is the installation.
pub async fn get(tx: &mut SystemTx, org: Option<Uuid>, key: &str) -> Result<Option<SettingRow>, StoreError> {
    let sql = "SELECT org_id, key, value::text AS value FROM settings WHERE key = $1 AND org_id IS NOT DISTINCT FROM $2";
    Ok(sqlx::query_as(sql).bind(key).bind(org).fetch_optional(tx.conn()).await?)
}

/// Creates or replaces; `id` is used when it is new. `value` must be JSON.
pub async fn put(
    tx: &mut SystemTx,
    id: Uuid,
    org: Option<Uuid>,
    key: &str,
    value: &str,
) -> Result<SettingRow, StoreError> {
    let sql = "INSERT INTO settings (id, org_id, key, value) VALUES ($1, $2, $3, $4::jsonb) \
               ON CONFLICT ON CONSTRAINT settings_key_taken DO UPDATE SET value = EXCLUDED.value \
               RETURNING org_id, key, value::text AS value";
    Ok(sqlx::query_as(sql).bind(id).bind(org).bind(key).bind(value).fetch_one(tx.conn()).await?)
}

/// False: there was none.
pub async fn delete(tx: &mut SystemTx, org: Option<Uuid>, key: &str) -> Result<bool, StoreError> {
    let sql = "DELETE FROM settings WHERE key = $1 AND org_id IS NOT DISTINCT FROM $2";
    Ok(sqlx::query(sql).bind(key).bind(org).execute(tx.conn()).await?.rows_affected() > 0)
}

/// The value that holds: the organization's own, else the installation's. `Value::Null`: there is neither.
pub async fn effective(tx: &mut SystemTx, org: Option<Uuid>, key: &str) -> Result<Value, StoreError> {
    let sql = "SELECT value FROM settings WHERE key = $1 AND (org_id IS NULL OR org_id = $2) \
               ORDER BY org_id NULLS LAST LIMIT 1";
    let found: Option<Value> = sqlx::query_scalar(sql).bind(key).bind(org).fetch_optional(tx.conn()).await?;
    Ok(found.unwrap_or_default())
}

/// The tiers of the installation. What can't be read is as if it were not set: it is checked when it is written.
pub async fn tiers(tx: &mut SystemTx) -> Result<Tiers, StoreError> {
    Ok(Tiers::parse(&effective(tx, None, keys::TIERS).await?).unwrap_or_default())
}

/// The tier that an organization is in.
pub async fn tier(tx: &mut SystemTx, org: Uuid) -> Result<Tier, StoreError> {
    let name = effective(tx, Some(org), keys::TIER).await?;
    Ok(tiers(tx).await?.of(name.as_str()))
}

/// Names of tiers that the installation or an organization has set.
pub async fn named_tiers(tx: &mut SystemTx) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT DISTINCT value #>> '{}' FROM settings WHERE key = 'billing.tier'";
    let found: Vec<Option<String>> = sqlx::query_scalar(sql).fetch_all(tx.conn()).await?;
    Ok(found.into_iter().flatten().collect())
}

/// Puts the rates that tiers guarantee in place as rate limits of organizations: of one, or with `None` of all. Only
/// what differs is written, so only that is published.
pub async fn guarantee(tx: &mut SystemTx, org: Option<Uuid>) -> Result<(), StoreError> {
    let tiers = tiers(tx).await?;
    let default = effective(tx, None, keys::TIER).await?;
    let sql = "SELECT o.id, own.value #>> '{}' FROM organizations o \
               LEFT JOIN settings own ON own.org_id = o.id AND own.key = 'billing.tier' \
               WHERE $1::uuid IS NULL OR o.id = $1 ORDER BY o.id";
    let organizations: Vec<(Uuid, Option<String>)> =
        sqlx::query_as(sql).bind(org).fetch_all(tx.conn()).await?;
    let (mut limited, mut requests, mut tokens, mut free) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let rate = |rate: Option<u64>| rate.and_then(|rate| i64::try_from(rate).ok());
    for (org, own) in organizations {
        let tier = tiers.of(own.as_deref().or(default.as_str()));
        let rates = (rate(tier.requests_per_minute), rate(tier.tokens_per_minute));
        if rates == (None, None) {
            free.push(org);
            continue;
        }
        limited.push(org);
        requests.push(rates.0);
        tokens.push(rates.1);
    }
    let gone = "DELETE FROM rate_limits WHERE from_tier AND org_id = ANY ($1)";
    sqlx::query(gone).bind(free).execute(tx.conn()).await?;
    // A rate limit of the organization's own may have the name already.
    let put = "INSERT INTO rate_limits AS old (id, org_id, name, requests_per_minute, tokens_per_minute, from_tier) \
               SELECT id, org_id, CASE WHEN EXISTS (SELECT FROM rate_limits o WHERE o.org_id = new.org_id \
                          AND o.name = $5 AND NOT o.from_tier) THEN $5 || ' ' || id ELSE $5 END, \
                      requests, tokens, true \
               FROM UNNEST ($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) AS new (id, org_id, requests, tokens) \
               ON CONFLICT (org_id) WHERE from_tier DO UPDATE \
               SET requests_per_minute = EXCLUDED.requests_per_minute, tokens_per_minute = EXCLUDED.tokens_per_minute \
               WHERE (old.requests_per_minute, old.tokens_per_minute) \
                   IS DISTINCT FROM (EXCLUDED.requests_per_minute, EXCLUDED.tokens_per_minute)";
    let ids: Vec<Uuid> = limited.iter().map(|_| nemo_types::RateLimitId::generate().0).collect();
    sqlx::query(put)
        .bind(ids)
        .bind(limited)
        .bind(requests)
        .bind(tokens)
        .bind(TIER_LIMIT)
        .execute(tx.conn())
        .await?;
    Ok(())
}
