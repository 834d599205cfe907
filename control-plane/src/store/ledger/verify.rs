//! Adds the ledger up again and compares it with every running total. Called by [`crate::ledger::verify`].
//!
//! All statements see one snapshot of the database, so this can run while money moves: a transaction that changes a
//! total books its entries, and is in the snapshot with both or with neither.

use sqlx::FromRow;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

use crate::store::{Store, StoreError};

/// Differences that are told one by one; more are counted.
pub const MAX_DIFFERENCES: i64 = 1000;
/// Long enough for a year of a large installation.
const PATIENCE: &str = "SELECT set_config('statement_timeout', '30min', true)";

/// Entries of one kind.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct KindSum {
    pub kind: String,
    pub entries: i64,
    /// Decimal number: sums of all organizations can be larger than an amount.
    pub nanos: String,
}

/// What was compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, FromRow)]
pub struct Compared {
    pub windows: i64,
    pub leases: i64,
    /// Requests in the log that are charged to something, and their charges.
    pub requests: i64,
    pub charges: i64,
    /// Requests that were settled without a row in the log.
    pub unlogged: i64,
    /// Entries about budgets that were deleted: there is nothing to compare them with.
    pub deleted: i64,
    /// Sums over the windows, as decimal numbers.
    pub settled: String,
    pub overrun: String,
    pub outstanding: String,
    /// Sum over the charges of the log, as a decimal number.
    pub charged: String,
    /// First day whose requests are all there; NULL: all that ever were.
    pub log_from: Option<Date>,
}

/// A total that is not what the entries say.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct DifferenceRow {
    /// Name of [`crate::ledger::verify::What`].
    pub what: String,
    pub org_id: Uuid,
    pub budget_id: Option<Uuid>,
    pub window_start: Option<OffsetDateTime>,
    pub lease_id: Option<Uuid>,
    /// What the entries add up to.
    pub expected: String,
    pub found: String,
    /// Of this kind in all, told or not.
    pub of_kind: i64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Verification {
    pub kinds: Vec<KindSum>,
    pub compared: Compared,
    pub differences: Vec<DifferenceRow>,
}

/// Running totals of windows against entries, leases and slots. A window without entries has zeros; entries without a
/// window count only while their budget exists.
const WINDOWS: &str = "
    sums AS (
        SELECT budget_id, window_start,
            coalesce(sum(nanos) FILTER (WHERE kind IN ('settle', 'forfeit', 'release', 'adjust')), 0) AS settled,
            coalesce(sum(nanos) FILTER (WHERE kind = 'overrun'), 0) AS overrun,
            coalesce(sum(nanos) FILTER (WHERE kind IN ('purchase', 'grant', 'refund')), 0) AS credited,
            coalesce(sum(nanos) FILTER (WHERE kind IN ('settle', 'overrun')), 0) AS charged
        FROM ledger_entries WHERE budget_id IS NOT NULL GROUP BY budget_id, window_start),
    held AS (
        SELECT budget_id, window_start,
            sum(granted_nanos::numeric - returned_nanos - spent_nanos - forfeited_nanos) AS outstanding
        FROM budget_leases GROUP BY budget_id, window_start),
    hours AS (
        SELECT budget_id, sum(settled_nanos) AS settled, sum(overrun_nanos) AS overrun
        FROM budget_slots GROUP BY budget_id),
    windows AS (
        SELECT b.org_id, b.kind, b.id AS budget_id, coalesce(w.window_start, s.window_start) AS window_start,
            w.budget_id IS NULL AS missing, w.rolling_hours IS NOT NULL AS rolling, w.limit_nanos, w.outstanding_nanos,
            w.settled_nanos, w.overrun_nanos,
            w.settled_nanos::numeric + w.aged_nanos AS settled_total,
            w.overrun_nanos::numeric + w.aged_overrun_nanos AS overrun_total,
            coalesce(s.settled, 0) AS settled, coalesce(s.overrun, 0) AS overrun, coalesce(s.credited, 0) AS credited
        FROM budget_windows w
            FULL JOIN (SELECT * FROM sums WHERE window_start IS NOT NULL) s USING (budget_id, window_start)
            JOIN budgets b ON b.id = budget_id)";

/// What the log says that was charged to each budget, as far back as it goes. Charges name windows and leases that may
/// be gone when they come, and are booked where they belong then; the budget stays the same.
const CHARGES: &str = "
    kept AS (SELECT nullif(request_log_from, '1970-01-01') AS log_from FROM usage_retention),
    logged AS (
        SELECT charges::jsonb AS charges FROM request_log, kept
            WHERE charges IS NOT NULL AND event_day >= coalesce(log_from, '-infinity')
                -- Taken at last, after the money was settled without it.
                AND NOT EXISTS (SELECT FROM usage_unlogged u WHERE u.request_id = request_log.request_id)
        UNION ALL SELECT charges::jsonb FROM usage_unlogged WHERE charges IS NOT NULL AND reason <> 'unsettled'),
    charges AS (
        SELECT (charge->>'budget')::uuid AS budget_id, sum((charge->>'nanos')::numeric) AS charged, count(*) AS charges
        FROM logged, jsonb_array_elements(charges) charge GROUP BY 1)";

/// Each line: a name of `What`, where it is taken from, what is expected, what is found.
const OF_WINDOWS: &[(&str, &str, &str, &str)] = &[
    ("window_missing", "windows WHERE missing AND (settled <> 0 OR overrun <> 0)", "settled + overrun", "0"),
    ("window_settled", "windows WHERE NOT missing", "settled", "settled_total"),
    ("window_overrun", "windows WHERE NOT missing", "overrun", "overrun_total"),
    (
        "window_outstanding",
        "windows LEFT JOIN held USING (budget_id, window_start) WHERE NOT missing",
        "coalesce(held.outstanding, 0)",
        "outstanding_nanos",
    ),
    ("credit_limit", "windows WHERE kind = 'credit' AND NOT missing", "credited", "limit_nanos"),
    (
        "rolling_settled",
        "windows LEFT JOIN hours USING (budget_id) WHERE rolling",
        "coalesce(hours.settled, 0)",
        "settled_nanos",
    ),
    (
        "rolling_overrun",
        "windows LEFT JOIN hours USING (budget_id) WHERE rolling",
        "coalesce(hours.overrun, 0)",
        "overrun_nanos",
    ),
];

/// Entries of leases whose budget was deleted, or that were forgotten after they were closed, have no row to compare.
const LEASES: &str = "
    of_leases AS (
        SELECT l.org_id, l.budget_id, l.window_start, l.lease_id, l.spent_nanos, l.overrun_nanos, l.forfeited_nanos,
            coalesce(sum(e.nanos) FILTER (WHERE e.kind = 'settle'), 0) AS spent,
            coalesce(sum(e.nanos) FILTER (WHERE e.kind = 'overrun'), 0) AS overrun,
            coalesce(sum(e.nanos) FILTER (WHERE e.kind IN ('forfeit', 'adjust', 'release')), 0) AS forfeited
        FROM budget_leases l LEFT JOIN ledger_entries e ON e.lease_id = l.lease_id
        GROUP BY l.lease_id)";

const OF_LEASES: &[(&str, &str, &str, &str)] = &[
    ("lease_spent", "of_leases WHERE true", "spent", "spent_nanos"),
    ("lease_overrun", "of_leases WHERE true", "overrun", "overrun_nanos"),
    ("lease_forfeited", "of_leases WHERE true", "forfeited", "forfeited_nanos"),
];

/// A budget that is older than the log may have been charged by requests that are gone: then the log may only have less
/// than the ledger.
const LOG: &str = "
    booked AS (
        SELECT budget_id, sum(nanos) AS charged, min(org_id::text)::uuid AS org_id
        FROM ledger_entries WHERE kind IN ('settle', 'overrun') AND source LIKE 'usage:%' GROUP BY 1),
    of_log AS (
        SELECT coalesce(b.org_id, budgets.org_id, '00000000-0000-0000-0000-000000000000') AS org_id, budget_id,
            NULL::timestamptz AS window_start, coalesce(c.charged, 0) AS charged, coalesce(b.charged, 0) AS booked,
            kept.log_from IS NULL OR coalesce(budgets.created_at >= kept.log_from + interval '1 day', false) AS whole
        FROM charges c FULL JOIN booked b USING (budget_id)
            LEFT JOIN budgets ON budgets.id = budget_id CROSS JOIN kept)";

const OF_LOG: &[(&str, &str, &str, &str)] = &[
    ("request_log", "of_log WHERE whole", "booked", "charged"),
    ("request_log", "of_log WHERE NOT whole AND charged > booked", "booked", "charged"),
];

/// What can't be a difference: the sum of the charges, from the one time that they are read.
const CHARGED: &str = " UNION ALL SELECT '' AS what, '00000000-0000-0000-0000-000000000000'::uuid, NULL::uuid, \
     NULL::timestamptz, NULL::uuid, coalesce(sum(charged), 0)::text, '', coalesce(sum(charges), 0)::bigint FROM charges";

/// Requests whose charges the bank refused: nothing can be compared, but the money is nowhere.
const UNSETTLED: &str = "SELECT 'unsettled' AS what, org_id, NULL::uuid AS budget_id, \
     NULL::timestamptz AS window_start, NULL::uuid AS lease_id, coalesce(sum(cost_nanos), 0)::text AS expected, \
     '0' AS found, count(*) AS of_kind \
     FROM usage_unlogged WHERE reason = 'unsettled' GROUP BY org_id ORDER BY org_id LIMIT $1";

impl Store {
    /// Compares everything, in one snapshot.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn verify_ledger(&self) -> Result<Verification, StoreError> {
        let mut tx = self.system().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(tx.conn()).await?;
        sqlx::query(PATIENCE).execute(tx.conn()).await?;
        let sql = "SELECT kind, count(*) AS entries, sum(nanos)::text AS nanos FROM ledger_entries \
                   GROUP BY kind ORDER BY kind";
        let kinds = sqlx::query_as(sql).fetch_all(tx.conn()).await?;
        let mut compared: Compared = sqlx::query_as(COMPARED).fetch_one(tx.conn()).await?;
        let mut differences = Vec::new();
        for sql in [
            format!("WITH {WINDOWS} {}", union(OF_WINDOWS, "NULL::uuid AS lease_id")),
            format!("WITH {LEASES} {}", union(OF_LEASES, "lease_id")),
            format!("WITH {CHARGES}, {LOG} {}{CHARGED}", union(OF_LOG, "NULL::uuid AS lease_id")),
            UNSETTLED.to_owned(),
        ] {
            // Made of the fixed words above.
            let sql = sqlx::AssertSqlSafe(sql);
            let found: Vec<DifferenceRow> =
                sqlx::query_as(sql).bind(MAX_DIFFERENCES).fetch_all(tx.conn()).await?;
            differences.extend(found);
        }
        if let Some(at) = differences.iter().position(|it| it.what.is_empty()) {
            let charged = differences.swap_remove(at);
            (compared.charges, compared.charged) = (charged.of_kind, charged.expected);
        }
        Ok(Verification { kinds, compared, differences })
    }
}

const COMPARED: &str = "SELECT
    (SELECT count(*) FROM budget_windows) AS windows,
    (SELECT count(*) FROM budget_leases) AS leases,
    (SELECT count(*) FROM request_log WHERE charges IS NOT NULL) AS requests,
    0::bigint AS charges,
    (SELECT count(*) FROM usage_unlogged) AS unlogged,
    (SELECT count(*) FROM ledger_entries e WHERE budget_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM budgets b WHERE b.id = e.budget_id)) AS deleted,
    (SELECT coalesce(sum(settled_nanos), 0)::text FROM budget_windows) AS settled,
    (SELECT coalesce(sum(overrun_nanos), 0)::text FROM budget_windows) AS overrun,
    (SELECT coalesce(sum(outstanding_nanos), 0)::text FROM budget_windows) AS outstanding,
    '0' AS charged,
    (SELECT nullif(request_log_from, '1970-01-01') FROM usage_retention) AS log_from";

/// All lines as one list of differences, each kind with its number.
fn union(lines: &[(&str, &str, &str, &str)], lease: &str) -> String {
    let selects: Vec<_> = lines
        .iter()
        .map(|(what, from, expected, found)| {
            format!(
                "(SELECT '{what}' AS what, org_id, budget_id, window_start, {lease}, ({expected})::text AS expected, \
                 ({found})::text AS found, count(*) OVER () AS of_kind FROM {from} \
                 AND ({expected}) IS DISTINCT FROM ({found})::numeric \
                 ORDER BY budget_id, window_start LIMIT $1)"
            )
        })
        .collect();
    selects.join(" UNION ALL ")
}
