//! The store against a real PostgreSQL.
//!
//! - [`migrations`]: anybody with `CREATEROLE` can migrate, several at once
//! - [`isolation`]: tenant isolation and append-only tables, tried as every role
//! - [`audit`]: what was done to the audit log is found out
//! - [`revisions`]: the change feed is totally ordered
//! - [`catalog`], [`config_history`], [`request_log`]: what their functions promise

mod audit;
mod catalog;
mod config_history;
mod isolation;
mod migrations;
mod request_log;
mod revisions;

use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::store::usage_rollup;

/// Two organizations (or the operator, `None`) own a row in every table.
///
/// Written as superuser: what the roles may do is what the tests are about.
async fn fill(superuser: &mut PgConnection, org: Option<OrgId>, number: u8) {
    let org_id = org.map_or("NULL".to_owned(), |org| format!("'{org}'"));
    let owner = org.map_or_else(|| uuid::Uuid::nil().to_string(), |org| org.to_string());
    let id = |kind: u8| format!("'00000000-0000-7000-8000-0000000{number:02}{kind:03}'");
    let (team, member, token, key, credential) = (id(1), id(2), id(3), id(4), id(5));
    let (deployment, group, setting, request) = (id(6), id(7), id(8), id(9));
    let hash = "decode(repeat('ab', 32), 'hex')";
    let role = if org.is_some() { "owner" } else { "operator" };
    let owned = format!(
        "INSERT INTO models (id, display_name, owned_by, created_unix, context_window, max_output_tokens, source)
             VALUES ('m', 'M', 'x', 0, 1, 1, 'custom') ON CONFLICT DO NOTHING;
         INSERT INTO admin_tokens (id, org_id, name, role, public_id, secret_hash)
             VALUES ({token}, {org_id}, 't', '{role}', 'token{number}', {hash});
         INSERT INTO credentials (id, org_id, name, provider, sealed, hint)
             VALUES ({credential}, {org_id}, 'c', 'openai', 'sealed', '');
         INSERT INTO deployment_prices (id, org_id, deployment_id, input) VALUES ('p{number}', {org_id}, {deployment}, 1);
         INSERT INTO deployments (id, org_id, name, provider, base_url, credential_id, model_id, upstream_model, weight,
                                  price_id)
             VALUES ({deployment}, {org_id}, 'd', 'openai', 'http://x', {credential}, 'm', 'm', 1, 'p{number}');
         INSERT INTO model_groups (id, org_id, name, strategy) VALUES ({group}, {org_id}, 'g', '');
         INSERT INTO group_links (group_id, position, org_id) VALUES ({group}, 0, {org_id});
         INSERT INTO link_deployments (group_id, position, org_id, deployment_id, deployment_owner, ordinal, weight)
             VALUES ({group}, 0, {org_id}, {deployment}, '{owner}', 0, 1);
         INSERT INTO settings (id, org_id, key, value) VALUES ({setting}, {org_id}, 'k', '1');
         INSERT INTO audit_log (seq, org_id, at, actor_kind, actor_id, actor_name, remote_addr, action, target_kind,
                                target_id, prev_hash, hash)
             VALUES (0, {org_id}, now(), 'local', '', '', '', 'team.create', 'team', '', '', '');
         INSERT INTO idempotency_keys (org_id, actor, key, sealed, expires_at)
             VALUES ({org_id}, 'local', 'k', 'sealed', now() + interval '1 h');"
    );
    let tenant = format!(
        "INSERT INTO organizations (id, name) VALUES ({org_id}, 'o');
         INSERT INTO teams (id, org_id, name) VALUES ({team}, {org_id}, 't');
         INSERT INTO members (id, org_id, email, role) VALUES ({member}, {org_id}, 'a@b.c', 'viewer');
         INSERT INTO api_keys (id, org_id, team_id, name, public_id, secret_hash)
             VALUES ({key}, {org_id}, {team}, 'k', 'key{number}', {hash});
         INSERT INTO request_log
             (event_day, request_id, org_id, team_id, key_id, started_at, endpoint, requested_model, model, provider,
              upstream_model, stream, outcome, http_status, error_code, finish_reason, usage_estimated, cost_source,
              price_id, attempts, strategy, config_revision, total_us, upstream_us, overhead_us, request_bytes,
              response_bytes, client_request_id, metadata, node_id)
             VALUES (now()::date, {request}, {org_id}, {team}, {key}, now(), '', '', '', '', '', false, 'ok', 200, '',
                     '', false, '', '', 1, '', 1, 1, 1, 1, 1, 1, '', '', 'n');
         INSERT INTO ledger_entries (kind, org_id, nanos, source) VALUES ('grant', {org_id}, 1, 'test {number}');
         INSERT INTO usage_unlogged (request_id, org_id, reason) VALUES ({request}, {org_id}, 'expired');"
    );
    let money = format!(
        "INSERT INTO credit_movements (id, org_id, kind, nanos, source) VALUES ({setting}, {org_id}, 'grant', 1, 's');
         INSERT INTO payments (id, org_id, paid_nanos, credit_nanos, fee_nanos, tier)
             VALUES ('pi_{number}', {org_id}, 1, 1, 0, '');
         INSERT INTO payment_events (id, org_id, event_type, payment_id, outcome, reason)
             VALUES ('evt_{number}', {org_id}, 'x', '', 'ignored', '');
         INSERT INTO credit_alerts (org_id, low) VALUES ({org_id}, false);
         INSERT INTO webhooks (id, org_id, name, url, sealed) VALUES ({setting}, {org_id}, 'w', 'https://x', 'sealed');
         INSERT INTO webhook_events (id, org_id, event_type, dedupe_key, body)
             VALUES ({setting}, {org_id}, 'x', 'x', '{{}}');
         INSERT INTO webhook_deliveries (id, org_id, webhook_id, event_id)
             VALUES ({setting}, {org_id}, {setting}, {setting});"
    );
    let tenant = tenant + &money;
    let limits = format!(
        "INSERT INTO budgets (id, org_id, key_id, name, limit_nanos, window_kind)
             VALUES ({request}, {org_id}, {key}, 'b', 1, 'total');
         INSERT INTO rate_limits (id, org_id, team_id, name, concurrent) VALUES ({request}, {org_id}, {team}, 'l', 1);
         INSERT INTO budget_crossings (budget_id, org_id, window_start, percent, limit_nanos, spent_nanos)
             VALUES ({request}, {org_id}, 'epoch', 80, 1, 1);
         INSERT INTO budget_windows (budget_id, org_id, window_start, limit_nanos)
             VALUES ({request}, {org_id}, 'epoch', 1);
         INSERT INTO budget_leases (lease_id, budget_id, org_id, window_start, session_id, node_id, epoch,
                                    granted_nanos, ttl_ms)
             VALUES ({request}, {request}, {org_id}, 'epoch', 1, 'n', 1, 1, 1);
         INSERT INTO budget_slots (budget_id, org_id, hour) VALUES ({request}, {org_id}, 0);
         INSERT INTO cost_corrections (event_day, request_id, org_id, rerate_id, price_id, cost_nanos)
             VALUES (now()::date, {request}, {org_id}, {request}, 'p', 1);"
    );
    let tenant = tenant + &limits;
    let sums = ["usage_hourly", "usage_daily"].map(|table| {
        let (names, zeros) = (usage_rollup::Measures::NAMES.join(", "), "0, ".repeat(usage_rollup::Measures::NAMES.len()));
        format!(
            "INSERT INTO {table} (org_id, bucket, team_id, key_id, model, provider, endpoint, {names}, total_histogram,
                                  first_byte_histogram)
                 VALUES ({org_id}, date_trunc('day', now(), 'UTC'), {team}, {key}, '', '', '', {zeros} '{{}}', '{{}}');"
        )
    });
    let tenant = tenant + &sums.concat();
    let sql = if org.is_some() { tenant + &owned } else { owned };
    superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}
