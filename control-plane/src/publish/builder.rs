//! Rows become resources. Reads what changed since the published revision, in one read-only transaction.
//!
//! Called by the publisher. Which row a resource comes from is the store's business; which field goes where is here.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use nemo_proto::{
    common::PriceSheet,
    config::{
        self, ApiKey, Budget, BudgetKind, Credential, Deployment, Link, LinkDeployment, Model, ModelGroup,
        NoLeasePolicy, Offering, Organization, OverBudgetPolicy, RateLimit, ReservationBound, Setting, Team,
        resource,
    },
};
use nemo_snapshot::{Delta, Kind, Rejection, Resource, ResourceKey};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::store::{
    Store, StoreError,
    changes::{Change, Changes, ConfigRead},
    config_rows::{self as rows, Ids, PriceRow},
    deployments::Timeouts,
    prices::Amounts,
    units,
};

/// What leads from `base_revision` to `revision`.
#[derive(Clone, Debug)]
pub struct Build {
    pub revision: u64,
    /// Zero: the delta is everything there is.
    pub base_revision: u64,
    pub delta: Delta,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a row that is no resource: {0}")]
    Row(#[from] Rejection),
}

/// Reads what changed after `base_revision`, or everything when the change feed does not say.
///
/// # Errors
/// When the database can't be read, or holds a kind of row that this build does not know.
pub async fn build(store: &Store, base_revision: u64) -> Result<Build, BuildError> {
    let mut tx = store.config_snapshot().await?;
    let revision = tx.revision().await?;
    let changes = tx.changes_after(base_revision).await?;
    let (base_revision, wanted) = match &changes {
        Changes::Unknown => (0, Wanted::everything()),
        Changes::Some(changes) => (base_revision, Wanted::of(changes)),
    };
    let mut delta = Delta::default();
    // What is named and no longer there has been deleted.
    wanted.removals().for_each(|key| delta.remove(key));
    if let Some(ids) = asked(wanted.uuids(Kind::ApiKey)) {
        rows::keys(&mut tx, ids, |row| {
            delta.upsert(Resource { kind: Some(api_key(row)) }).map_err(BuildError::from)
        })
        .await?;
    }
    for resource in read(&mut tx, &wanted).await? {
        delta.upsert(resource)?;
    }
    Ok(Build { revision, base_revision, delta })
}

/// As [`build`], but only what routing reads, in the view of a transaction. Keys and teams are left out.
///
/// # Errors
/// As [`build`].
pub async fn build_routing(tx: &mut impl ConfigRead, base_revision: u64) -> Result<Build, BuildError> {
    let revision = tx.revision().await?;
    let changes = tx.changes_after(base_revision).await?;
    let (base_revision, mut wanted) = match &changes {
        Changes::Unknown => (0, Wanted::everything()),
        Changes::Some(changes) => (base_revision, Wanted::of(changes)),
    };
    wanted.without_tenants();
    let mut delta = Delta::default();
    wanted.removals().for_each(|key| delta.remove(key));
    for resource in read(tx, &wanted).await? {
        delta.upsert(resource)?;
    }
    Ok(Build { revision, base_revision, delta })
}

/// Ids by kind; `None` for all rows of the kind.
#[derive(Default)]
struct Wanted {
    everything: bool,
    /// Kinds that are not read.
    without: &'static [Kind],
    ids: BTreeMap<Kind, Vec<Uuid>>,
    models: Vec<String>,
}

impl Wanted {
    fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    fn of(changes: &[Change]) -> Self {
        let mut wanted = Self::default();
        for change in changes {
            match Kind::try_from(i32::from(change.kind)) {
                Ok(Kind::Model) => wanted.models.extend(String::from_utf8(change.id.clone()).ok()),
                Ok(kind) => wanted.ids.entry(kind).or_default().extend(Uuid::from_slice(&change.id).ok()),
                // Written by a newer release; a resource of that kind is nothing that this one could publish.
                Err(_) => {}
            }
        }
        wanted
    }

    /// Leaves out those kinds of which there may be a million.
    fn without_tenants(&mut self) {
        const TENANTS: [Kind; 4] = [Kind::Team, Kind::ApiKey, Kind::Budget, Kind::RateLimit];
        self.without = &TENANTS;
        self.ids.retain(|kind, _| !TENANTS.contains(kind));
    }

    fn uuids(&self, kind: Kind) -> Ids<'_, Uuid> {
        if self.without.contains(&kind) {
            return Some(&[]);
        }
        if self.everything { None } else { Some(self.ids.get(&kind).map_or(&[], Vec::as_slice)) }
    }

    fn models(&self) -> Ids<'_, String> {
        if self.everything { None } else { Some(&self.models) }
    }

    fn removals(&self) -> impl Iterator<Item = ResourceKey> {
        let uuids = self
            .ids
            .iter()
            .flat_map(|(kind, ids)| ids.iter().map(|id| ResourceKey { kind: *kind, id: bytes(*id) }));
        uuids.chain(self.models.iter().filter_map(|id| ResourceKey::model(id)))
    }
}

/// Everything but keys, of which there are too many.
async fn read(tx: &mut impl ConfigRead, wanted: &Wanted) -> Result<Vec<Resource>, StoreError> {
    let mut kinds: Vec<resource::Kind> = Vec::new();
    if let Some(ids) = asked(wanted.uuids(Kind::Organization)) {
        kinds.extend(rows::organizations(tx, ids).await?.into_iter().map(organization));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::Team)) {
        kinds.extend(rows::teams(tx, ids).await?.into_iter().map(team));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::Credential)) {
        kinds.extend(rows::credentials(tx, ids).await?.into_iter().map(credential));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::Deployment)) {
        kinds.extend(rows::deployments(tx, ids).await?.into_iter().map(deployment));
    }
    if let Some(ids) = asked(wanted.models()) {
        let mut offerings: HashMap<String, Vec<Offering>> = HashMap::new();
        for row in rows::offerings(tx, ids).await? {
            offerings.entry(row.model_id.clone()).or_default().push(offering(row));
        }
        let models = rows::models(tx, ids).await?.into_iter();
        kinds.extend(models.map(|row| model(offerings.remove(&row.id).unwrap_or_default(), row)));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::ModelGroup)) {
        let mut chains = chains(rows::links(tx, ids).await?);
        let groups = rows::groups(tx, ids).await?.into_iter();
        kinds.extend(groups.map(|row| model_group(chains.remove(&row.id).unwrap_or_default(), row)));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::Setting)) {
        kinds.extend(rows::settings(tx, ids).await?.into_iter().map(setting));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::Budget)) {
        kinds.extend(rows::budgets(tx, ids).await?.into_iter().map(budget));
    }
    if let Some(ids) = asked(wanted.uuids(Kind::RateLimit)) {
        kinds.extend(rows::rate_limits(tx, ids).await?.into_iter().map(rate_limit));
    }
    Ok(kinds.into_iter().map(|kind| Resource { kind: Some(kind) }).collect())
}

/// Skips the query when no row of the kind is wanted. The outer option says whether to read, the inner one what.
fn asked<T>(ids: Ids<'_, T>) -> Option<Ids<'_, T>> {
    match ids {
        Some([]) => None,
        ids => Some(ids),
    }
}

fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

/// Empty: the operator's, or none.
fn optional(id: Option<Uuid>) -> Bytes {
    id.map(bytes).unwrap_or_default()
}

fn unix_ms(at: OffsetDateTime) -> i64 {
    // Within the years that Postgres and `time` share this always fits.
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// A price as it is published; re-rating reads it in the same way.
pub(crate) fn price_sheet(id: String, amounts: Amounts) -> PriceSheet {
    let Amounts { input, output, cache_read, cache_write, cache_write_1h, reasoning, units, steps } = amounts;
    let (units, steps) =
        (units::published_prices(units.as_deref()), units::published_steps(steps.as_deref()));
    PriceSheet { id, input, output, cache_read, cache_write, units, cache_write_1h, reasoning, steps }
}

fn price(row: PriceRow) -> Option<PriceSheet> {
    Some(price_sheet(row.price_id?, row.amounts))
}

fn organization(row: rows::OrganizationRow) -> resource::Kind {
    resource::Kind::Organization(Organization { id: bytes(row.id), name: row.name, disabled: row.disabled })
}

fn team(row: rows::TeamRow) -> resource::Kind {
    let (id, org_id) = (bytes(row.id), bytes(row.org_id));
    resource::Kind::Team(Team { id, org_id, name: row.name, disabled: row.disabled })
}

fn api_key(row: rows::KeyRow) -> resource::Kind {
    resource::Kind::ApiKey(ApiKey {
        id: bytes(row.id),
        team_id: bytes(row.team_id),
        name: row.name,
        public_id: row.public_id,
        secret_hash: row.secret_hash.into(),
        disabled: row.disabled,
        expires_at_unix_ms: row.expires_at.map(unix_ms),
        allowed_models: row.allowed_models,
        previous_secret_hash: row.previous_secret_hash.unwrap_or_default().into(),
        previous_valid_until_unix_ms: row.previous_valid_until.map(unix_ms),
        allowed_endpoints: row.allowed_endpoints,
        allowed_cidrs: row.allowed_cidrs,
        default_tags: row.default_tags,
        metadata: row.metadata,
    })
}

fn credential(row: rows::CredentialRow) -> resource::Kind {
    let (id, org_id) = (bytes(row.id), optional(row.org_id));
    resource::Kind::Credential(Credential { id, org_id, provider: row.provider, sealed: row.sealed.into() })
}

fn timeouts(row: Timeouts) -> Option<config::Timeouts> {
    let millis = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let timeouts = config::Timeouts {
        connect_ms: millis(row.connect_ms),
        first_byte_ms: millis(row.first_byte_ms),
        idle_ms: millis(row.idle_ms),
        total_ms: millis(row.total_ms),
    };
    (timeouts != config::Timeouts::default()).then_some(timeouts)
}

fn deployment(row: rows::DeploymentRow) -> resource::Kind {
    resource::Kind::Deployment(Deployment {
        id: bytes(row.id),
        org_id: optional(row.org_id),
        name: row.name,
        provider: row.provider,
        base_url: row.base_url,
        credential_id: optional(row.credential_id),
        model: row.model_id,
        upstream_model: row.upstream_model,
        weight: u32::try_from(row.weight).unwrap_or_default(),
        disabled: row.disabled,
        price: price(row.price),
        timeouts: timeouts(row.timeouts),
        rpm: row.load.rpm.map(i32::unsigned_abs),
        tpm: row.load.tpm.map(i32::unsigned_abs),
    })
}

fn offering(row: rows::OfferingRow) -> Offering {
    Offering { provider: row.provider, upstream_model: row.upstream_model, price: price(row.price) }
}

fn model(offerings: Vec<Offering>, row: rows::ModelRow) -> resource::Kind {
    resource::Kind::Model(Model {
        id: row.id,
        display_name: row.display_name,
        owned_by: row.owned_by,
        created_unix: row.created_unix,
        context_window: u64::try_from(row.context_window).unwrap_or_default(),
        max_output_tokens: u64::try_from(row.max_output_tokens).unwrap_or_default(),
        tags: row.tags,
        aliases: row.aliases,
        input_modalities: row.input_modalities,
        output_modalities: row.output_modalities,
        endpoints: row.endpoints,
        offerings,
    })
}

/// Links by group. Rows come in order; a new position opens a new link.
fn chains(rows: Vec<rows::LinkRow>) -> HashMap<Uuid, Vec<Link>> {
    let mut chains: HashMap<Uuid, BTreeMap<i32, Link>> = HashMap::new();
    for row in rows {
        let link = chains.entry(row.group_id).or_default().entry(row.position).or_default();
        if let (Some(id), Some(weight)) = (row.deployment_id, row.weight) {
            let weight = u32::try_from(weight).unwrap_or_default();
            link.deployments.push(LinkDeployment { deployment_id: bytes(id), weight });
        }
    }
    chains.into_iter().map(|(id, links)| (id, links.into_values().collect())).collect()
}

fn model_group(links: Vec<Link>, row: rows::GroupRow) -> resource::Kind {
    let (id, org_id) = (bytes(row.id), optional(row.org_id));
    resource::Kind::ModelGroup(ModelGroup {
        id,
        org_id,
        name: row.name,
        strategy: row.strategy,
        links,
        required_tags: row.required_tags,
    })
}

fn setting(row: rows::SettingRow) -> resource::Kind {
    let (id, org_id) = (bytes(row.id), optional(row.org_id));
    resource::Kind::Setting(Setting { id, org_id, key: row.key, value: row.value })
}

/// The limit itself stays here: nodes know what they have leased.
fn budget(row: rows::BudgetRow) -> resource::Kind {
    // Columns are checked by the database; whatever else stood there would be taken for the stricter policy.
    let kind = if row.kind == "credit" { BudgetKind::Credit } else { BudgetKind::Limit };
    let over_budget = match row.over_budget.as_str() {
        "cap" => OverBudgetPolicy::Cap,
        _ => OverBudgetPolicy::Reject,
    };
    let no_lease = match row.no_lease.as_str() {
        "allow" => NoLeasePolicy::Allow,
        _ => NoLeasePolicy::Deny,
    };
    let bound = match row.reservation.as_str() {
        "estimated" => ReservationBound::Estimated,
        _ => ReservationBound::Strict,
    };
    resource::Kind::Budget(Budget {
        id: bytes(row.id),
        org_id: bytes(row.org_id),
        team_id: optional(row.team_id),
        key_id: optional(row.key_id),
        name: row.name,
        budget_kind: kind.into(),
        over_budget: over_budget.into(),
        no_lease: no_lease.into(),
        reservation_bound: bound.into(),
    })
}

fn rate_limit(row: rows::RateLimitRow) -> resource::Kind {
    resource::Kind::RateLimit(RateLimit {
        id: bytes(row.id),
        org_id: bytes(row.org_id),
        team_id: optional(row.team_id),
        key_id: optional(row.key_id),
        name: row.name,
        model: row.model,
        requests_per_minute: row.requests_per_minute.map(i64::unsigned_abs),
        tokens_per_minute: row.tokens_per_minute.map(i64::unsigned_abs),
        concurrent: row.concurrent.map(i32::unsigned_abs),
    })
}

#[cfg(test)]
mod tests;
