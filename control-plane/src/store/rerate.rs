//! Re-rating in SQL: logged requests in pages, the histories of their prices, and the booking of what they have cost
//! after all. Called by `admin/ops/rerate.rs`.
//!
//! A page is booked in one transaction: the corrections of its requests, one adjusting entry for each window of a budget,
//! and the windows' totals. The next run finds the corrections, so nothing is booked twice.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map};

use nemo_types::{BudgetId, Measure, Nanos, OrgId, PriceSheet, Unit, Usage};
use sqlx::{FromRow, PgConnection};
use time::{Date, Duration, OffsetDateTime};
use uuid::Uuid;

use super::{StoreError, SystemTx, leases, ledger, prices::Amounts, units};
use crate::{
    ledger::{Charge, Entry, Kind, charge},
    publish::builder::price_sheet,
    quota::desk::Terms,
    rerate::{Book, Dated, Rated},
};

/// Requests of one page.
pub const PAGE: i64 = 2_000;
/// Seconds.
const HOUR: i64 = 3600;

/// Which requests.
#[derive(Clone, Debug)]
pub struct Which {
    /// Included.
    pub from: OffsetDateTime,
    /// Excluded.
    pub to: OffsetDateTime,
    pub model: String,
    pub org: Option<OrgId>,
}

/// After the last request of a page.
pub type Position = (Date, Uuid);

#[derive(FromRow)]
struct Row {
    event_day: Date,
    request_id: Uuid,
    org_id: Uuid,
    started_at: OffsetDateTime,
    catalog_model: String,
    catalog_provider: String,
    deployment_id: Option<Uuid>,
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cache_read_tokens: Option<i64>,
    cache_write_tokens: Option<i64>,
    cache_write_1h_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    audio_input_tokens: Option<i64>,
    audio_output_tokens: Option<i64>,
    cost_nanos: Option<i64>,
    cost_source: String,
    price_id: String,
    units: Option<String>,
    service_tier: String,
    charges: Option<String>,
    corrected_nanos: Option<i64>,
    corrected_price: Option<String>,
}

/// A logged request.
#[derive(Clone, Debug)]
pub struct Logged {
    pub day: Date,
    pub request_id: Uuid,
    pub org: Uuid,
    pub started_at: OffsetDateTime,
    pub model: String,
    pub provider: String,
    pub deployment: Option<Uuid>,
    /// At which it was last billed; empty: at none.
    pub price_id: String,
    pub rated: Rated,
}

impl From<Row> for Logged {
    fn from(row: Row) -> Self {
        let count = |column: Option<i64>| column.and_then(|count| u64::try_from(count).ok());
        let usage = Usage {
            input: count(row.input_tokens),
            output: count(row.output_tokens),
            cache_read: count(row.cache_read_tokens),
            cache_write: count(row.cache_write_tokens),
            cache_write_1h: count(row.cache_write_1h_tokens),
            reasoning: count(row.reasoning_tokens),
            audio_input: count(row.audio_input_tokens),
            audio_output: count(row.audio_output_tokens),
        };
        let measures = units::measures(row.units.as_deref()).into_iter().filter_map(|it| {
            Some(Measure {
                quality: it.quality.into(),
                size: it.size.into(),
                ..Measure::new(Unit::from_name(&it.unit)?, it.quantity)
            })
        });
        let rated = Rated {
            usage: Some(usage).filter(|usage| !usage.is_unknown()),
            measures: measures.collect(),
            service_tier: row.service_tier,
            booked: row.corrected_nanos.or(row.cost_nanos).map(Nanos),
            by_provider: row.cost_source == "provider",
            charges: charge::from_column(row.charges.as_deref()),
            corrected: row.corrected_nanos.is_some(),
        };
        Self {
            day: row.event_day,
            request_id: row.request_id,
            org: row.org_id,
            started_at: row.started_at,
            model: row.catalog_model,
            provider: row.catalog_provider,
            deployment: row.deployment_id,
            price_id: row.corrected_price.unwrap_or(row.price_id),
            rated,
        }
    }
}

/// Until the transaction ends, nobody else books corrections: what is read is what they are made from.
pub async fn lock(tx: &mut SystemTx) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('nemo.rerate', 0))")
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The requests after `after`, at most [`PAGE`].
pub async fn page(
    tx: &mut SystemTx,
    which: &Which,
    after: Option<Position>,
) -> Result<Vec<Logged>, StoreError> {
    // The day is that of the request's id, which may be a moment off when it started; it spares all other partitions.
    let sql = "SELECT r.event_day, r.request_id, r.org_id, r.started_at, coalesce(d.model_id, r.model) AS catalog_model, \
               coalesce(d.provider, r.provider) AS catalog_provider, r.deployment_id, r.input_tokens, r.output_tokens, \
               r.cache_read_tokens, r.cache_write_tokens, r.cache_write_1h_tokens, r.reasoning_tokens, \
               r.audio_input_tokens, r.audio_output_tokens, r.cost_nanos, r.cost_source, r.price_id, r.units, \
               r.service_tier, r.charges, c.cost_nanos AS corrected_nanos, c.price_id AS corrected_price \
               FROM request_log r LEFT JOIN deployments d ON d.id = r.deployment_id \
               LEFT JOIN LATERAL (SELECT c.cost_nanos, c.price_id FROM cost_corrections c \
                 WHERE c.event_day = r.event_day AND c.request_id = r.request_id ORDER BY c.id DESC LIMIT 1) c ON true \
               WHERE r.event_day BETWEEN $1 AND $2 AND r.started_at >= $3 AND r.started_at < $4 \
               AND (r.model = $5 OR r.requested_model = $5 OR d.model_id = $5) \
               AND ($6::uuid IS NULL OR r.org_id = $6) \
               AND ($7::date IS NULL OR (r.event_day, r.request_id) > ($7, $8)) \
               ORDER BY r.event_day, r.request_id LIMIT $9";
    let (day, id) = after.unzip();
    let rows: Vec<Row> = sqlx::query_as(sql)
        .bind(which.from.date().saturating_sub(Duration::days(1)))
        .bind(which.to.date().saturating_add(Duration::days(1)))
        .bind(which.from)
        .bind(which.to)
        .bind(&which.model)
        .bind(which.org.map(|org| org.0))
        .bind(day)
        .bind(id)
        .bind(PAGE)
        .fetch_all(tx.conn())
        .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

#[derive(FromRow)]
struct PriceRow {
    id: String,
    effective_from: OffsetDateTime,
    created_at: OffsetDateTime,
    #[sqlx(flatten)]
    amounts: Amounts,
    provider: String,
    model_id: String,
    deployment_id: Option<Uuid>,
}

impl PriceRow {
    fn sheet(&self) -> PriceSheet {
        PriceSheet::from(&price_sheet(self.id.clone(), self.amounts.clone()))
    }
}

macro_rules! of_models {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.effective_from, p.created_at, ",
            super::prices::amounts!(),
            ", p.provider, p.model_id, NULL::uuid AS deployment_id FROM model_prices p \
             WHERE NOT EXISTS (SELECT FROM withdrawn_prices w WHERE w.price_id = p.id) AND ",
            $rest
        )
    };
}
macro_rules! of_deployments {
    ($rest:literal) => {
        concat!(
            "SELECT p.id, p.effective_from, p.created_at, ",
            super::prices::amounts!(),
            ", '' AS provider, '' AS model_id, p.deployment_id FROM deployment_prices p WHERE ",
            $rest
        )
    };
}

/// Reads the histories that a page needs and the book does not have.
pub async fn complete(tx: &mut SystemTx, book: &mut Book, page: &[Logged]) -> Result<(), StoreError> {
    let (mut providers, mut models, mut deployments) = (Vec::new(), Vec::new(), Vec::new());
    for request in page {
        let key = (request.provider.clone(), request.model.clone());
        if let hash_map::Entry::Vacant(place) = book.catalog.entry(key) {
            providers.push(place.key().0.clone());
            models.push(place.key().1.clone());
            place.insert(Vec::new());
        }
        if let Some(id) = request.deployment.filter(|id| !book.deployments.contains_key(id)) {
            deployments.push(id);
            book.deployments.insert(id, Vec::new());
        }
    }
    let sql = of_models!("(p.provider, p.model_id) IN (SELECT * FROM UNNEST ($1::text[], $2::text[]))");
    let mut rows: Vec<PriceRow> =
        sqlx::query_as(sql).bind(providers).bind(models).fetch_all(tx.conn()).await?;
    let sql = of_deployments!("p.deployment_id = ANY ($1)");
    let own: Vec<PriceRow> = sqlx::query_as(sql).bind(deployments).fetch_all(tx.conn()).await?;
    rows.extend(own);
    for row in rows {
        let sheet = row.sheet();
        book.by_id.insert(row.id.clone(), sheet.clone());
        let dated = Dated { effective_from: row.effective_from, created_at: row.created_at, sheet };
        match row.deployment_id {
            Some(id) => book.deployments.entry(id).or_default().push(dated),
            None => book.catalog.entry((row.provider, row.model_id)).or_default().push(dated),
        }
    }
    let unknown: HashSet<&str> = page
        .iter()
        .map(|request| request.price_id.as_str())
        .filter(|id| !id.is_empty() && !book.by_id.contains_key(*id))
        .collect();
    let missing: Vec<String> = unknown.into_iter().map(str::to_owned).collect();
    for id in missing {
        if let Some(price) = price(tx, &id).await? {
            book.by_id.insert(id, price.sheet);
        }
    }
    Ok(())
}

/// One price, and what it is for.
#[derive(Clone, Debug)]
pub struct One {
    pub sheet: PriceSheet,
    /// Empty for a deployment's own.
    pub provider: String,
    pub deployment: Option<Uuid>,
}

/// A price of the book or of a deployment.
pub async fn price(tx: &mut SystemTx, id: &str) -> Result<Option<One>, StoreError> {
    for sql in [of_models!("p.id = $1"), of_deployments!("p.id = $1")] {
        let row: Option<PriceRow> = sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?;
        if let Some(row) = row {
            return Ok(Some(One {
                sheet: row.sheet(),
                provider: row.provider,
                deployment: row.deployment_id,
            }));
        }
    }
    Ok(None)
}

/// A request that has cost something else.
pub struct Correction<'a> {
    pub request: &'a Logged,
    pub price_id: &'a str,
    pub after: Nanos,
}

/// Books one page of a re-rating; returns how many ledger entries that made.
pub async fn book(
    tx: &mut SystemTx,
    rerate: Uuid,
    page: usize,
    corrections: &[Correction<'_>],
) -> Result<u64, StoreError> {
    note(tx.conn(), rerate, corrections).await?;
    let terms = bare_terms(tx.conn(), corrections).await?;
    let mut moves: BTreeMap<(Uuid, OffsetDateTime), Move> = BTreeMap::new();
    for Correction { request, after, .. } in corrections {
        let mut differences: BTreeMap<(Uuid, OffsetDateTime), i64> = BTreeMap::new();
        for (charge, difference) in request.rated.differences(*after) {
            let sum = differences.entry(settled_in(charge, request.started_at, &terms)).or_default();
            *sum = sum.saturating_add(difference.0);
        }
        for (window, difference) in differences {
            let entry = moves.entry(window).or_default();
            entry.nanos = entry.nanos.saturating_add(difference);
            entry.requests += 1;
            let hour = request.started_at.unix_timestamp().div_euclid(HOUR);
            let slot = entry.hours.entry(hour).or_default();
            *slot = slot.saturating_add(difference);
        }
    }
    let windows = lock_windows(tx.conn(), moves.keys()).await?;
    let mut entries = Vec::new();
    for window in &windows {
        let key = (window.budget_id, window.window_start);
        let Some(moved) = moves.get(&key).filter(|moved| moved.nanos != 0) else { continue };
        apply(tx.conn(), window, moved).await?;
        let (budget, org) = (BudgetId(window.budget_id), OrgId(window.org_id));
        let entry =
            Entry::of_window(Kind::Adjust, org, (budget, window.window_start), None, Nanos(moved.nanos));
        let details = serde_json::json!({ "rerate": rerate.to_string(), "requests": moved.requests });
        entries.push(Entry { details: Some(details), ..entry });
    }
    ledger::book(tx.conn(), &format!("rerate:{rerate}:{page}"), &entries).await
}

/// What the budgets are that were charged without a lease.
async fn bare_terms(
    connection: &mut PgConnection,
    corrections: &[Correction<'_>],
) -> Result<HashMap<BudgetId, Terms>, StoreError> {
    let charges = corrections.iter().flat_map(|it| &it.request.rated.charges);
    let bare: BTreeSet<BudgetId> =
        charges.filter(|it| it.lease_id.is_none()).map(|it| it.budget_id).collect();
    let bare: Vec<BudgetId> = bare.into_iter().collect();
    Ok(leases::terms(connection, &bare).await?.into_iter().map(|it| (it.budget, it)).collect())
}

/// The window that a charge was settled in. Without a lease that is the one that its request began in: the node may have
/// known of none, and then the charge says 1970.
fn settled_in(
    charge: &Charge,
    started_at: OffsetDateTime,
    terms: &HashMap<BudgetId, Terms>,
) -> (Uuid, OffsetDateTime) {
    let terms = terms.get(&charge.budget_id).filter(|_| charge.lease_id.is_none());
    let start = terms.map(|terms| terms.window.span(started_at.unix_timestamp()).start);
    let start = start.and_then(|start| OffsetDateTime::from_unix_timestamp(start).ok());
    (charge.budget_id.0, start.unwrap_or(charge.window_start))
}

/// What a window is moved by.
#[derive(Default)]
struct Move {
    nanos: i64,
    requests: u64,
    /// By hour since 1970, for rolling windows.
    hours: BTreeMap<i64, i64>,
}

async fn note(
    connection: &mut PgConnection,
    rerate: Uuid,
    corrections: &[Correction<'_>],
) -> Result<(), StoreError> {
    let days: Vec<Date> = corrections.iter().map(|it| it.request.day).collect();
    let ids: Vec<Uuid> = corrections.iter().map(|it| it.request.request_id).collect();
    let orgs: Vec<Uuid> = corrections.iter().map(|it| it.request.org).collect();
    let prices: Vec<&str> = corrections.iter().map(|it| it.price_id).collect();
    let before: Vec<Option<i64>> =
        corrections.iter().map(|it| it.request.rated.booked.map(|nanos| nanos.0)).collect();
    let after: Vec<i64> = corrections.iter().map(|it| it.after.0).collect();
    let sql = "INSERT INTO cost_corrections (event_day, request_id, org_id, rerate_id, price_id, before_nanos, \
               cost_nanos) SELECT day, id, org, $7, price, before, after \
               FROM UNNEST ($1::date[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[]) \
               AS new (day, id, org, price, before, after)";
    sqlx::query(sql)
        .bind(days)
        .bind(ids)
        .bind(orgs)
        .bind(prices)
        .bind(before)
        .bind(after)
        .bind(rerate)
        .execute(connection)
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct Window {
    budget_id: Uuid,
    org_id: Uuid,
    window_start: OffsetDateTime,
    rolling_hours: Option<i32>,
}

/// In the order in which everybody locks them. Windows of budgets that are gone are not there.
async fn lock_windows(
    connection: &mut PgConnection,
    keys: impl Iterator<Item = &(Uuid, OffsetDateTime)>,
) -> Result<Vec<Window>, StoreError> {
    let (budgets, starts): (Vec<Uuid>, Vec<OffsetDateTime>) = keys.copied().unzip();
    let sql = "SELECT w.budget_id, w.org_id, w.window_start, w.rolling_hours FROM budget_windows w \
               WHERE (w.budget_id, w.window_start) IN (SELECT * FROM UNNEST ($1::uuid[], $2::timestamptz[])) \
               ORDER BY w.budget_id, w.window_start FOR UPDATE";
    Ok(sqlx::query_as(sql).bind(budgets).bind(starts).fetch_all(connection).await?)
}

/// Moves the total. Of a rolling window, what belongs to hours that have left it has left with them.
async fn apply(connection: &mut PgConnection, window: &Window, moved: &Move) -> Result<(), StoreError> {
    let (mut settled, mut aged) = (moved.nanos, 0_i64);
    if let Some(hours) = window.rolling_hours {
        let oldest = nemo_runtime::clock::unix_us().div_euclid(HOUR * 1_000_000) - i64::from(hours);
        let (gone, kept): (Vec<_>, Vec<_>) = moved.hours.iter().partition(|(hour, _)| **hour < oldest);
        aged = gone.iter().fold(0, |sum, (_, nanos)| sum.saturating_add(**nanos));
        settled = moved.nanos.saturating_sub(aged);
        let (hours, nanos): (Vec<i64>, Vec<i64>) =
            kept.into_iter().map(|(hour, nanos)| (*hour, *nanos)).unzip();
        let sql = "INSERT INTO budget_slots AS s (budget_id, org_id, hour, settled_nanos) \
                   SELECT $1, $2, moved.hour, moved.nanos FROM UNNEST ($3::bigint[], $4::bigint[]) AS moved (hour, nanos) \
                   ON CONFLICT (budget_id, hour) DO UPDATE SET settled_nanos = s.settled_nanos + EXCLUDED.settled_nanos";
        sqlx::query(sql)
            .bind(window.budget_id)
            .bind(window.org_id)
            .bind(hours)
            .bind(nanos)
            .execute(&mut *connection)
            .await?;
    }
    let sql = "UPDATE budget_windows SET settled_nanos = settled_nanos + $3, aged_nanos = aged_nanos + $4 \
               WHERE budget_id = $1 AND window_start = $2";
    sqlx::query(sql)
        .bind(window.budget_id)
        .bind(window.window_start)
        .bind(settled)
        .bind(aged)
        .execute(connection)
        .await?;
    Ok(())
}
