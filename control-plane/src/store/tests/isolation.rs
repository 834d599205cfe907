//! Tenant isolation as PostgreSQL sees it, without the store's functions in between. Covers R000-16, I9, I15.

use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::fill;
use crate::store::{
    PoolSizes, Store, credentials,
    testing::{self, TestStore},
};

/// Tables with an `org_id`, partitions and all.
const TENANT_TABLES: &str = "SELECT c.oid::regclass::text FROM pg_class c \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped \
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace ORDER BY 1";

/// Among them (and `organizations`) those that lack something.
const UNPROTECTED: &str = "SELECT c.oid::regclass::text FROM pg_class c \
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace \
    AND (c.relname = 'organizations' OR EXISTS (SELECT FROM pg_attribute a \
         WHERE a.attrelid = c.oid AND a.attname = 'org_id' AND NOT a.attisdropped)) \
    AND NOT (c.relrowsecurity AND c.relforcerowsecurity \
        AND c.relowner = 'nemo_owner'::regrole \
        AND EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = c.relname \
            AND p.policyname = 'tenant' AND p.permissive = 'PERMISSIVE' AND p.roles = '{nemo_app}' AND p.cmd = 'ALL' \
            AND p.qual ~ '^\\((org_id|id) = nemo_current_org\\(\\)\\)$' AND p.with_check = p.qual) \
        AND EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = c.relname \
            AND p.policyname = 'system' AND p.roles = '{nemo_system}') \
        AND NOT EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = c.relname \
            AND p.policyname NOT IN ('tenant', 'system') AND p.roles <> '{nemo_owner}')) \
    ORDER BY 1";

/// Tables with partitions, which carry their name and more.
const PARTITIONED: [&str; 3] = ["request_log", "usage_hourly", "usage_daily"];

struct World {
    store: TestStore,
    superuser: PgConnection,
    own: OrgId,
    other: OrgId,
    tables: Vec<String>,
}

/// Rows of two organizations and of the operator in every table.
async fn world() -> World {
    let store = testing::store().await;
    let mut superuser = store.superuser().await;
    // A partition of today, so that partitions are among the tables.
    superuser.execute("SELECT nemo_ensure_request_log_day((now() AT TIME ZONE 'UTC')::date)").await.unwrap();
    let (own, other) = (OrgId::generate(), OrgId::generate());
    fill(&mut superuser, Some(own), 1).await;
    fill(&mut superuser, Some(other), 2).await;
    fill(&mut superuser, None, 3).await;
    let mut tables: Vec<String> = sqlx::query_scalar(TENANT_TABLES).fetch_all(&mut superuser).await.unwrap();
    // Reached through the parent only; see `partitions_are_reached_through_their_parent_only`.
    tables.retain(|table| !PARTITIONED.iter().any(|parent| table.starts_with(&format!("{parent}_"))));
    World { store, superuser, own, other, tables }
}

impl World {
    /// A session as `role`, bound to `org`.
    async fn session(&self, role: &str, org: Option<OrgId>) -> PgConnection {
        let mut session = PgConnection::connect(self.store.database.url()).await.unwrap();
        session.execute(sqlx::raw_sql(AssertSqlSafe(format!("SET ROLE {role}")))).await.unwrap();
        if let Some(org) = org {
            let sql = format!("SELECT set_config('nemo.org_id', '{org}', false)");
            session.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        }
        session
    }
}

async fn count(session: &mut PgConnection, sql: String) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(session).await.unwrap()
}

/// SQLSTATE of a statement that must fail.
async fn refusal(session: &mut PgConnection, sql: &str) -> String {
    let done = session.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
    let error = done.expect_err(sql);
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

/// "permission denied" as well as "violates row-level security policy".
const INSUFFICIENT_PRIVILEGE: &str = "42501";

#[tokio::test]
async fn i9_every_table_with_org_id_forces_row_level_security() {
    let mut world = world().await;
    let unprotected: Vec<String> =
        sqlx::query_scalar(UNPROTECTED).fetch_all(&mut world.superuser).await.unwrap();
    assert_eq!(unprotected, Vec::<String>::new());
    let tables: Vec<String> =
        sqlx::query_scalar(TENANT_TABLES).fetch_all(&mut world.superuser).await.unwrap();
    for table in
        ["teams", "members", "admin_tokens", "api_keys", "credentials", "deployments", "model_groups"]
    {
        assert!(tables.iter().any(|found| found == table), "{table} is not in {tables:?}");
    }
    for parent in PARTITIONED {
        assert!(
            tables.iter().filter(|table| table.starts_with(&format!("{parent}_"))).count() >= 2,
            "{tables:?}"
        );
    }
}

#[tokio::test]
async fn the_check_for_row_level_security_sees_what_is_missing() {
    let mut world = world().await;
    for (change, table) in [
        ("CREATE TABLE fresh (org_id uuid)", "fresh"),
        ("ALTER TABLE teams NO FORCE ROW LEVEL SECURITY", "teams"),
        ("DROP POLICY tenant ON members", "members"),
        ("CREATE POLICY more ON credentials TO nemo_app USING (true)", "credentials"),
        ("ALTER POLICY tenant ON settings USING (true)", "settings"),
        ("ALTER TABLE request_log_default DISABLE ROW LEVEL SECURITY", "request_log_default"),
    ] {
        world.superuser.execute(change).await.unwrap();
        let found: Vec<String> =
            sqlx::query_scalar(UNPROTECTED).fetch_all(&mut world.superuser).await.unwrap();
        assert!(found.iter().any(|found| found == table), "{change}: {found:?}");
    }
}

#[tokio::test]
async fn no_role_of_ours_can_log_in_or_bypass_row_level_security() {
    let mut world = world().await;
    let roles: Vec<(String, bool)> = sqlx::query_as(
        "SELECT rolname::text, rolsuper OR rolbypassrls OR rolcanlogin OR rolcreaterole OR rolreplication \
         FROM pg_roles WHERE rolname IN ('nemo_owner', 'nemo_app', 'nemo_system') ORDER BY 1",
    )
    .fetch_all(&mut world.superuser)
    .await
    .unwrap();
    let expected = ["nemo_app", "nemo_owner", "nemo_system"].map(|name| (name.to_owned(), false));
    assert_eq!(roles, expected);
    // Nor is one of them a member of anything, through which it could become more.
    let memberships = "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member \
                       WHERE r.rolname IN ('nemo_owner', 'nemo_app', 'nemo_system')";
    assert_eq!(count(&mut world.superuser, memberships.to_owned()).await, 0);
}

#[tokio::test]
async fn i9_without_a_tenant_the_app_role_sees_no_row_of_any_table() {
    let world = world().await;
    let mut session = world.session("nemo_app", None).await;
    for table in &world.tables {
        assert_eq!(count(&mut session, format!("SELECT count(*) FROM {table}")).await, 0, "{table}");
    }
    assert_eq!(count(&mut session, "SELECT count(*) FROM organizations".into()).await, 0);
}

#[tokio::test]
async fn the_app_role_sees_its_own_rows_and_no_others() {
    let world = world().await;
    let mut session = world.session("nemo_app", Some(world.own)).await;
    for table in &world.tables {
        let (all, own) = (
            count(&mut session, format!("SELECT count(*) FROM {table}")).await,
            count(&mut session, format!("SELECT count(*) FROM {table} WHERE org_id = '{}'", world.own)).await,
        );
        assert_eq!((all, own), (1, 1), "{table}");
    }
    assert_eq!(count(&mut session, "SELECT count(*) FROM organizations".into()).await, 1);
}

#[tokio::test]
async fn the_system_role_sees_all_rows_by_policy() {
    let world = world().await;
    let mut session = world.session("nemo_system", None).await;
    for table in &world.tables {
        let owners = format!("SELECT count(DISTINCT coalesce(org_id, '{}')) FROM {table}", uuid::Uuid::nil());
        assert!(count(&mut session, owners).await >= 2, "{table}");
    }
}

#[tokio::test]
async fn even_the_owner_of_the_tables_sees_only_what_a_function_needs() {
    let world = world().await;
    let mut session = world.session("nemo_owner", Some(world.own)).await;
    for table in &world.tables {
        let expected = match table.as_str() {
            // The operator's, for nemo_operator_deployments().
            "deployments" => 1,
            // Everybody's, for nemo_drop_leases(), which deletes those whose window is gone.
            "budget_leases" => 2,
            _ => 0,
        };
        assert_eq!(count(&mut session, format!("SELECT count(*) FROM {table}")).await, expected, "{table}");
    }
}

#[tokio::test]
async fn the_app_role_can_change_no_row_of_another_organization_or_of_the_operator() {
    let mut world = world().await;
    let mut session = world.session("nemo_app", Some(world.own)).await;
    for table in &world.tables {
        for verb in [format!("UPDATE {table} SET org_id = org_id"), format!("DELETE FROM {table}")] {
            let sql = format!("{verb} WHERE org_id IS DISTINCT FROM '{}'", world.own);
            match session.execute(sqlx::raw_sql(AssertSqlSafe(sql.clone()))).await {
                Ok(done) => assert_eq!(done.rows_affected(), 0, "{sql}"),
                // Append-only tables: not even own rows.
                Err(error) => {
                    assert_eq!(
                        error.as_database_error().unwrap().code().unwrap(),
                        INSUFFICIENT_PRIVILEGE,
                        "{sql}"
                    );
                }
            }
        }
        // Own rows can't be given away, which would plant them in another organization.
        let given_away =
            format!("UPDATE {table} SET org_id = '{}' WHERE org_id = '{}'", world.other, world.own);
        assert_eq!(refusal(&mut session, &given_away).await, INSUFFICIENT_PRIVILEGE, "{given_away}");
    }
    for table in &world.tables {
        let others = format!("SELECT count(*) FROM {table} WHERE org_id IS DISTINCT FROM '{}'", world.own);
        assert!(count(&mut world.superuser, others).await >= 1, "{table}");
    }
}

#[tokio::test]
async fn the_app_role_can_insert_into_no_other_organization() {
    let mut world = world().await;
    let mut session = world.session("nemo_app", Some(world.own)).await;
    for table in &world.tables {
        let columns: String = sqlx::query_scalar(
            "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) \
             FROM information_schema.columns WHERE table_name = $1 AND is_generated = 'NEVER'",
        )
        .bind(table)
        .fetch_one(&mut world.superuser)
        .await
        .unwrap();
        for owner in [format!("= '{}'", world.other), "IS NULL".to_owned()] {
            // A row that exists: whatever else is wrong with a copy, the policy has to refuse it first.
            let row = format!("SELECT to_jsonb(t)::text FROM {table} t WHERE org_id {owner} LIMIT 1");
            let row: Option<String> =
                sqlx::query_scalar(AssertSqlSafe(row)).fetch_optional(&mut world.superuser).await.unwrap();
            let Some(row) = row else { continue };
            let copy = format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table}, $nemo${row}$nemo$)"
            );
            assert_eq!(refusal(&mut session, &copy).await, INSUFFICIENT_PRIVILEGE, "{table} {owner}");
        }
    }
}

#[tokio::test]
async fn references_can_not_cross_organizations_whatever_the_application_does() {
    let world = world().await;
    let mut session = world.session("nemo_app", Some(world.own)).await;
    let own = world.own;
    let theirs = |kind: u8| format!("00000000-0000-7000-8000-000000002{kind:03}");
    let operators = |kind: u8| format!("00000000-0000-7000-8000-000000003{kind:03}");
    let fresh = uuid::Uuid::now_v7();
    let hash = "decode(repeat('ab', 32), 'hex')";
    let key = format!(
        "INSERT INTO api_keys (id, org_id, team_id, name, public_id, secret_hash) \
         VALUES ('{fresh}', '{own}', '{}', 'k', 'x', {hash})",
        theirs(1)
    );
    let deployment = |credential: String| {
        format!(
            "INSERT INTO deployments (id, org_id, name, provider, base_url, credential_id, model_id, upstream_model, \
             weight) VALUES ('{fresh}', '{own}', 'x', 'openai', 'http://evil', '{credential}', 'm', 'm', 1)"
        )
    };
    let link =
        format!("INSERT INTO group_links (group_id, position, org_id) VALUES ('{}', 1, '{own}')", theirs(7));
    let limit = |table: &str, column: &str, id: String| {
        let rest = if table == "budgets" { "limit_nanos, window_kind" } else { "concurrent, model" };
        format!(
            "INSERT INTO {table} (id, org_id, name, {column}, {rest}) VALUES ('{fresh}', '{own}', 'x', '{id}', 1, 'day')"
        )
    };
    let limits = ["budgets", "rate_limits"]
        .map(|it| [limit(it, "team_id", theirs(1)), limit(it, "key_id", theirs(4))]);
    for sql in [&key, &deployment(theirs(5)), &deployment(operators(5)), &link]
        .into_iter()
        .chain(limits.iter().flatten())
    {
        assert_eq!(refusal(&mut session, sql).await, "23503", "{sql}");
    }
    // A pool takes own deployments and the operator's; the column that says whose it is can't lie about that.
    let member = |deployment: String, owner: String| {
        format!(
            "INSERT INTO link_deployments (group_id, position, org_id, deployment_id, deployment_owner, ordinal, weight) \
             VALUES ('00000000-0000-7000-8000-000000001007', 0, '{own}', '{deployment}', '{owner}', 1, 1)"
        )
    };
    let nil = uuid::Uuid::nil().to_string();
    assert_eq!(refusal(&mut session, &member(theirs(6), world.other.to_string())).await, "23514");
    assert_eq!(refusal(&mut session, &member(theirs(6), nil.clone())).await, "23503");
    assert_eq!(refusal(&mut session, &member(theirs(6), own.to_string())).await, "23503");
    session.execute(sqlx::raw_sql(AssertSqlSafe(member(operators(6), nil)))).await.unwrap();
}

#[tokio::test]
async fn only_the_operators_deployments_can_be_found_out_about() {
    let world = world().await;
    let mut session = world.session("nemo_app", Some(world.own)).await;
    let found: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT nemo_operator_deployments(array_agg(id)) FROM \
        unnest(ARRAY['00000000-0000-7000-8000-000000002006', '00000000-0000-7000-8000-000000003006']::uuid[]) AS id")
        .fetch_all(&mut session)
        .await
        .unwrap();
    let operators: uuid::Uuid = "00000000-0000-7000-8000-000000003006".parse().unwrap();
    assert_eq!(found, [operators]);
}

#[tokio::test]
async fn i15_usage_and_prices_are_append_only_for_both_roles() {
    let world = world().await;
    for role in ["nemo_app", "nemo_system"] {
        let mut session = world.session(role, Some(world.own)).await;
        for (table, column) in [
            ("request_log", "cost_nanos"),
            ("ledger_entries", "nanos"),
            ("usage_unlogged", "cost_nanos"),
            ("model_prices", "input"),
            ("deployment_prices", "input"),
        ] {
            for sql in [
                format!("UPDATE {table} SET {column} = 0"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
            ] {
                assert_eq!(refusal(&mut session, &sql).await, INSUFFICIENT_PRIVILEGE, "{role}: {sql}");
            }
        }
    }
}

#[tokio::test]
async fn partitions_are_reached_through_their_parent_only() {
    let mut world = world().await;
    let partitions = "SELECT inhrelid::regclass::text FROM pg_inherits JOIN pg_class p ON p.oid = inhparent \
                      WHERE p.relname = ANY ($1) AND p.relkind = 'p'";
    let partitions: Vec<String> =
        sqlx::query_scalar(partitions).bind(PARTITIONED).fetch_all(&mut world.superuser).await.unwrap();
    assert!(partitions.len() >= 6, "{partitions:?}");
    for role in ["nemo_app", "nemo_system"] {
        let mut session = world.session(role, Some(world.own)).await;
        for partition in &partitions {
            for verb in ["SELECT FROM", "DELETE FROM", "TRUNCATE"] {
                let sql = format!("{verb} {partition}");
                assert_eq!(refusal(&mut session, &sql).await, INSUFFICIENT_PRIVILEGE, "{role}: {sql}");
            }
        }
    }
}

#[tokio::test]
async fn the_app_role_can_neither_read_nor_forge_the_change_feed() {
    let world = world().await;
    let mut session = world.session("nemo_app", Some(world.own)).await;
    for sql in [
        "SELECT * FROM config_changes",
        "SELECT * FROM config_revision",
        "UPDATE config_revision SET revision = 0",
        "INSERT INTO config_changes VALUES (1, 1, 'x', 'upsert')",
        "SELECT nemo_protect('teams')",
        "SELECT nemo_publish('teams', 1, 'id', 'own')",
        "SELECT nemo_ensure_request_log_day('2026-01-01')",
        "SELECT nemo_ensure_partition('teams', 'mine', '2026-01-01', '2026-01-02', '')",
        "SELECT nemo_drop_expired('request_log', '2026-01-01')",
        "SELECT nemo_sum_up_request_log()",
        "UPDATE usage_retention SET hourly_from = '2026-01-01'",
        "UPDATE usage_hourly SET cost_nanos = 0",
        "DELETE FROM usage_daily",
        "CREATE TABLE mine (x int)",
        "ALTER TABLE teams DISABLE TRIGGER USER",
        "SET ROLE nemo_system; SELECT * FROM teams; RESET ROLE; SELECT 1 / 0",
    ] {
        let code = refusal(&mut session, sql).await;
        // The last one: a session may change roles because its login may; what keeps tenants apart from it is that
        // nobody but the store writes SQL. It fails by its own end.
        let expected = if sql.starts_with("SET ROLE") { "22012" } else { INSUFFICIENT_PRIVILEGE };
        assert_eq!(code, expected, "{sql}");
    }
}

#[tokio::test]
async fn a_connection_goes_back_to_the_pool_without_its_tenant() {
    let world = world().await;
    let options = world.store.database.url().parse().unwrap();
    let store = Store::connect(options, PoolSizes { app: 1, system: 1 }).await.unwrap();
    for org in [world.own, world.other] {
        // Both ends of a transaction: commit and drop.
        for commit in [true, false] {
            let mut tx = store.tenant(org).await.unwrap();
            let orgs: Vec<uuid::Uuid> =
                sqlx::query_scalar("SELECT id FROM organizations").fetch_all(tx.conn()).await.unwrap();
            assert_eq!(orgs, [org.0]);
            if commit {
                tx.commit().await.unwrap();
            } else {
                drop(tx);
            }
            let mut bare = store.app.acquire().await.unwrap();
            let seen: i64 =
                sqlx::query_scalar("SELECT count(*) FROM organizations").fetch_one(&mut *bare).await.unwrap();
            assert_eq!(seen, 0);
        }
    }
}

#[tokio::test]
async fn the_operators_transaction_does_not_touch_rows_of_organizations() {
    let world = world().await;
    let mut tx = world.store.owner(None).await.unwrap();
    let theirs = "00000000-0000-7000-8000-000000002005".parse().unwrap();
    assert!(credentials::get(&mut tx, theirs).await.unwrap().is_none());
    assert!(!credentials::delete(&mut tx, theirs).await.unwrap());
    let page = crate::store::Page { after: None, size: 10 };
    let listed = credentials::list(&mut tx, None, page, &Default::default()).await.unwrap();
    assert_eq!(listed.rows.iter().map(|row| row.org_id).collect::<Vec<_>>(), [None]);
}
