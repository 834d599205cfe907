//! The rows that become resources, all of a kind or the named ones. Called by `publish/builder.rs`.

use futures_util::TryStreamExt as _;
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    StoreError,
    changes::ConfigRead,
    deployments::{Load, Timeouts},
    prices::Amounts,
    tx::Inside,
};

#[derive(FromRow)]
pub struct OrganizationRow {
    pub id: Uuid,
    pub name: String,
    pub disabled: bool,
}

#[derive(FromRow)]
pub struct TeamRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub name: String,
    pub disabled: bool,
}

#[derive(FromRow)]
pub struct KeyRow {
    pub id: Uuid,
    pub team_id: Uuid,
    pub name: String,
    pub public_id: String,
    pub secret_hash: Vec<u8>,
    pub previous_secret_hash: Option<Vec<u8>>,
    pub previous_valid_until: Option<OffsetDateTime>,
    pub disabled: bool,
    pub expires_at: Option<OffsetDateTime>,
    pub allowed_models: Vec<String>,
    pub allowed_endpoints: Vec<String>,
    pub allowed_cidrs: Vec<String>,
    pub default_tags: Vec<String>,
    pub metadata: String,
}

#[derive(FromRow)]
pub struct CredentialRow {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub provider: String,
    pub sealed: Vec<u8>,
}

/// A price row, as joined to what refers to it. All `None` when there is none.
#[derive(FromRow)]
pub struct PriceRow {
    pub price_id: Option<String>,
    #[sqlx(flatten)]
    pub amounts: Amounts,
}

#[derive(FromRow)]
pub struct DeploymentRow {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub name: String,
    pub provider: String,
    pub base_url: String,
    pub credential_id: Option<Uuid>,
    pub model_id: String,
    pub upstream_model: String,
    pub weight: i64,
    pub disabled: bool,
    #[sqlx(flatten)]
    pub price: PriceRow,
    #[sqlx(flatten)]
    pub timeouts: Timeouts,
    #[sqlx(flatten)]
    pub load: Load,
}

#[derive(FromRow)]
pub struct ModelRow {
    pub id: String,
    pub display_name: String,
    pub owned_by: String,
    pub created_unix: i64,
    pub context_window: i64,
    pub max_output_tokens: i64,
    pub tags: Vec<String>,
    pub aliases: Vec<String>,
    pub input_modalities: Vec<String>,
    pub output_modalities: Vec<String>,
    pub endpoints: Vec<String>,
}

#[derive(FromRow)]
pub struct OfferingRow {
    pub model_id: String,
    pub provider: String,
    pub upstream_model: String,
    #[sqlx(flatten)]
    pub price: PriceRow,
}

#[derive(FromRow)]
pub struct GroupRow {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub name: String,
    pub strategy: String,
    pub required_tags: Vec<String>,
}

/// One deployment of one link, or a link without any.
#[derive(FromRow)]
pub struct LinkRow {
    pub group_id: Uuid,
    pub position: i32,
    pub deployment_id: Option<Uuid>,
    pub weight: Option<i64>,
}

#[derive(FromRow)]
pub struct SettingRow {
    pub id: Uuid,
    pub org_id: Option<Uuid>,
    pub key: String,
    pub value: String,
}

#[derive(FromRow)]
pub struct BudgetRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: String,
    pub kind: String,
    pub over_budget: String,
    pub no_lease: String,
    pub reservation: String,
}

#[derive(FromRow)]
pub struct RateLimitRow {
    pub id: Uuid,
    pub org_id: Uuid,
    pub team_id: Option<Uuid>,
    pub key_id: Option<Uuid>,
    pub name: String,
    pub model: String,
    pub requests_per_minute: Option<i64>,
    pub tokens_per_minute: Option<i64>,
    pub concurrent: Option<i32>,
}

/// `None`: every row.
pub type Ids<'a, T> = Option<&'a [T]>;

macro_rules! rows {
    ($($(#[$doc:meta])* $name:ident($id:ty) -> $row:ty = $sql:literal;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// When the database can't be read.
        pub async fn $name(tx: &mut impl ConfigRead, ids: Ids<'_, $id>) -> Result<Vec<$row>, StoreError> {
            Ok(sqlx::query_as($sql).bind(ids).fetch_all(tx.connection(Inside(()))).await?)
        }
    )*};
}

/// Keys, one after the other and in no order: there may be a million, and they are never held all at once as rows.
///
/// # Errors
/// When the database can't be read, or with the first error of `each`.
pub async fn keys<E: From<StoreError>>(
    tx: &mut impl ConfigRead,
    ids: Ids<'_, Uuid>,
    mut each: impl FnMut(KeyRow) -> Result<(), E>,
) -> Result<(), E> {
    let sql = "SELECT id, team_id, name, public_id, secret_hash, previous_secret_hash, previous_valid_until, \
                      disabled, expires_at, allowed_models, allowed_endpoints, allowed_cidrs, default_tags, metadata \
               FROM api_keys WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
    let mut rows = sqlx::query_as(sql).bind(ids).fetch(tx.connection(Inside(())));
    while let Some(row) = rows.try_next().await.map_err(StoreError::from)? {
        each(row)?;
    }
    Ok(())
}

rows! {
    /// In no order.
    organizations(Uuid) -> OrganizationRow =
        "SELECT id, name, disabled FROM organizations WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
    /// In no order.
    teams(Uuid) -> TeamRow =
        "SELECT id, org_id, name, disabled FROM teams WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
    /// In no order.
    credentials(Uuid) -> CredentialRow =
        "SELECT id, org_id, provider, sealed FROM credentials WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
    /// In no order.
    deployments(Uuid) -> DeploymentRow =
        "SELECT d.id, d.org_id, d.name, d.provider, d.base_url, d.credential_id, d.model_id, d.upstream_model, \
                d.weight, d.disabled, p.id AS price_id, p.input, p.output, p.cache_read, p.cache_write, \
                p.cache_write_1h, p.reasoning, p.units, p.steps, d.timeout_connect_ms, d.timeout_first_byte_ms, d.timeout_idle_ms, d.timeout_total_ms, \
                d.rpm, d.tpm \
         FROM deployments d LEFT JOIN deployment_prices p ON p.id = d.price_id AND p.owner = d.owner \
         WHERE $1::uuid[] IS NULL OR d.id = ANY ($1)";
    /// In no order.
    models(String) -> ModelRow =
        "SELECT id, display_name, owned_by, created_unix, context_window, max_output_tokens, tags, aliases, \
                input_modalities, output_modalities, endpoints \
         FROM models WHERE $1::text[] IS NULL OR id = ANY ($1)";
    /// By model, in the order in which the offerings were given.
    offerings(String) -> OfferingRow =
        "SELECT o.model_id, o.provider, o.upstream_model, p.id AS price_id, p.input, p.output, p.cache_read, p.cache_write, \
                p.cache_write_1h, p.reasoning, p.units, p.steps \
         FROM model_offerings o LEFT JOIN model_prices p ON p.id = o.price_id \
         WHERE $1::text[] IS NULL OR o.model_id = ANY ($1) ORDER BY o.model_id, o.position, o.provider";
    /// In no order.
    groups(Uuid) -> GroupRow =
        "SELECT id, org_id, name, strategy, required_tags FROM model_groups WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
    /// By group, in the order of the chain and of each pool.
    links(Uuid) -> LinkRow =
        "SELECT l.group_id, l.position, d.deployment_id, d.weight \
         FROM group_links l LEFT JOIN link_deployments d ON d.group_id = l.group_id AND d.position = l.position \
         WHERE $1::uuid[] IS NULL OR l.group_id = ANY ($1) ORDER BY l.group_id, l.position, d.ordinal";
    /// In no order.
    settings(Uuid) -> SettingRow =
        "SELECT id, org_id, key, value::text AS value FROM settings WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
    /// In no order; those that are switched off are not published.
    budgets(Uuid) -> BudgetRow =
        "SELECT id, org_id, team_id, key_id, name, kind, over_budget, no_lease, reservation \
         FROM budgets WHERE NOT disabled AND ($1::uuid[] IS NULL OR id = ANY ($1))";
    /// In no order.
    rate_limits(Uuid) -> RateLimitRow =
        "SELECT id, org_id, team_id, key_id, name, model, requests_per_minute, tokens_per_minute, concurrent \
         FROM rate_limits WHERE $1::uuid[] IS NULL OR id = ANY ($1)";
}
