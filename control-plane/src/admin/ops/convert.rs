//! Rows of the store as messages of the admin API. Secrets and hashes are not in the rows, so they can't slip through.

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use nemo_proto::{Timestamp, admin as pb};
use nemo_types::Nanos;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    admin::limited::shown,
    ledger::{Charge, charge},
    store::{
        admin_tokens::AdminTokenRow,
        api_keys::ApiKeyRow,
        budgets::{BudgetRow, CrossingRow, WindowRow, leases::LeaseRow},
        catalog::{Amounts, StoredModel},
        credentials::CredentialRow,
        decisions::DecisionRow,
        deployments::{DeploymentRow, Timeouts},
        members::MemberRow,
        model_groups::ModelGroupRow,
        organizations::OrganizationRow,
        rate_limits::RateLimitRow,
        request_log::RequestRow,
        settings::SettingRow,
        teams::TeamRow,
        units,
    },
};

fn at(time: OffsetDateTime) -> Option<Timestamp> {
    Some(time.into())
}

/// The operator's rows have an empty `org_id`.
fn text(id: Option<Uuid>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

/// Columns that are never negative by constraint or by who writes them.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

fn narrow(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}

impl From<OrganizationRow> for pb::Organization {
    fn from(row: OrganizationRow) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name,
            disabled: row.disabled,
            created_at: at(row.created_at),
        }
    }
}

impl From<TeamRow> for pb::Team {
    fn from(row: TeamRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            name: row.name,
            disabled: row.disabled,
            created_at: at(row.created_at),
        }
    }
}

impl From<MemberRow> for pb::Member {
    fn from(row: MemberRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            email: row.email,
            subject: row.subject,
            role: row.role,
            created_at: at(row.created_at),
        }
    }
}

impl From<AdminTokenRow> for pb::AdminToken {
    fn from(row: AdminTokenRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: text(row.org_id),
            name: row.name,
            role: row.role,
            public_id: row.public_id,
            created_at: at(row.created_at),
            expires_at: row.expires_at.and_then(at),
            last_used_at: row.last_used_at.and_then(at),
        }
    }
}

/// A key and the moment for which its state is told.
pub(super) fn key(row: ApiKeyRow, now: OffsetDateTime) -> pb::Key {
    let state = match (row.disabled, row.expires_at) {
        (true, _) => "disabled",
        (false, Some(expires_at)) if expires_at <= now => "expired",
        _ => "active",
    };
    pb::Key {
        id: row.id.to_string(),
        org_id: row.org_id.to_string(),
        team_id: row.team_id.to_string(),
        name: row.name,
        public_id: row.public_id,
        state: state.to_owned(),
        allowed_models: row.allowed_models,
        created_at: at(row.created_at),
        expires_at: row.expires_at.and_then(at),
        rotated_at: row.rotated_at.and_then(at),
        allowed_endpoints: row.allowed_endpoints,
        allowed_cidrs: row.allowed_cidrs,
        default_tags: row.default_tags,
        metadata: row.metadata,
        previous_valid_until: row.previous_valid_until.and_then(at),
    }
}

impl From<BudgetRow> for pb::Budget {
    /// Without its window.
    fn from(row: BudgetRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            team_id: text(row.team_id),
            key_id: text(row.key_id),
            name: row.name,
            kind: row.kind,
            limit_usd: Nanos(row.limit_nanos).to_string(),
            limit_nanos: row.limit_nanos,
            window: row.window_kind,
            window_hours: row.window_hours.map_or(0, i32::unsigned_abs),
            time_zone: row.time_zone,
            over_budget: row.over_budget,
            no_lease: row.no_lease,
            lost_lease: row.lost_lease,
            reservation: row.reservation,
            thresholds: row.thresholds.into_iter().map(i32::unsigned_abs).collect(),
            disabled: row.disabled,
            created_at: at(row.created_at),
            current: None,
        }
    }
}

/// How a budget stands at `now`.
pub(super) fn budget_window(
    row: &WindowRow,
    reserved_nanos: i64,
    crossings: Vec<CrossingRow>,
    now: OffsetDateTime,
) -> pb::BudgetWindow {
    let taken = row.spent() + i128::from(row.outstanding_nanos);
    pb::BudgetWindow {
        start: at(row.window_start),
        end: row.window_end.and_then(at),
        limit: shown(row.limit_nanos.into()),
        settled: shown(row.settled_nanos.into()),
        overrun: shown(row.overrun_nanos.into()),
        outstanding: shown(row.outstanding_nanos.into()),
        reserved: shown(reserved_nanos.into()),
        remaining: shown((i128::from(row.limit_nanos) - taken).max(0)),
        exhausted: row.is_exhausted(now),
        crossings: crossings.into_iter().map(Into::into).collect(),
    }
}

impl From<CrossingRow> for pb::BudgetCrossing {
    fn from(row: CrossingRow) -> Self {
        Self {
            percent: row.percent.unsigned_abs(),
            at: at(row.crossed_at),
            spent: shown(row.spent_nanos.into()),
            limit: shown(row.limit_nanos.into()),
        }
    }
}

impl From<LeaseRow> for pb::BudgetLease {
    fn from(row: LeaseRow) -> Self {
        let gone = [row.returned_nanos, row.spent_nanos, row.forfeited_nanos].map(i128::from);
        let outstanding = i128::from(row.granted_nanos) - gone.into_iter().sum::<i128>();
        Self {
            id: row.lease_id.to_string(),
            org_id: row.org_id.to_string(),
            budget_id: row.budget_id.to_string(),
            node_id: row.node_id,
            epoch: unsigned(row.epoch),
            window_start: at(row.window_start),
            state: row.state,
            granted: shown(row.granted_nanos.into()),
            returned: shown(row.returned_nanos.into()),
            spent: shown(row.spent_nanos.into()),
            overrun: shown(row.overrun_nanos.into()),
            forfeited: shown(row.forfeited_nanos.into()),
            reserved: shown(row.reserved_nanos.into()),
            outstanding: shown(outstanding),
        }
    }
}

impl From<RateLimitRow> for pb::RateLimit {
    fn from(row: RateLimitRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: row.org_id.to_string(),
            team_id: text(row.team_id),
            key_id: text(row.key_id),
            name: row.name,
            model: row.model,
            requests_per_minute: row.rates.requests_per_minute.map(i64::unsigned_abs),
            tokens_per_minute: row.rates.tokens_per_minute.map(i64::unsigned_abs),
            concurrent: row.rates.concurrent.map(i32::unsigned_abs),
            created_at: at(row.created_at),
            from_tier: row.from_tier,
        }
    }
}

impl From<CredentialRow> for pb::Credential {
    fn from(row: CredentialRow) -> Self {
        Self {
            id: row.id.to_string(),
            org_id: text(row.org_id),
            name: row.name,
            provider: row.provider,
            hint: row.hint,
            created_at: at(row.created_at),
            updated_at: at(row.updated_at),
        }
    }
}

impl From<Amounts> for pb::Price {
    fn from(amounts: Amounts) -> Self {
        let Amounts { input, output, cache_read, cache_write, cache_write_1h, reasoning, units, steps } =
            amounts;
        let (units, steps) = (units::prices(units.as_deref()), units::steps(steps.as_deref()));
        Self { input, output, cache_read, cache_write, units, cache_write_1h, reasoning, steps }
    }
}

impl From<DeploymentRow> for pb::Deployment {
    fn from(row: DeploymentRow) -> Self {
        let price = row.price_id.is_some().then(|| row.amounts.into());
        Self {
            id: row.id.to_string(),
            org_id: text(row.org_id),
            name: row.name,
            provider: row.provider,
            base_url: row.base_url,
            credential_id: text(row.credential_id),
            model: row.model_id,
            upstream_model: row.upstream_model,
            weight: narrow(row.weight),
            disabled: row.disabled,
            price,
            created_at: at(row.created_at),
            timeouts: timeouts(row.timeouts),
            rpm: row.load.rpm.map(i32::unsigned_abs),
            tpm: row.load.tpm.map(i32::unsigned_abs),
            warnings: Vec::new(),
        }
    }
}

/// Absent when none is set.
fn timeouts(row: Timeouts) -> Option<pb::Timeouts> {
    let millis = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let Timeouts { connect_ms, first_byte_ms, idle_ms, total_ms } = row;
    let all = [connect_ms, first_byte_ms, idle_ms, total_ms].map(millis);
    let [connect_ms, first_byte_ms, idle_ms, total_ms] = all;
    all.iter().any(Option::is_some).then_some(pb::Timeouts { connect_ms, first_byte_ms, idle_ms, total_ms })
}

impl From<ModelGroupRow> for pb::ModelGroup {
    fn from(row: ModelGroupRow) -> Self {
        let links = row.links.into_iter().map(|link| {
            let deployments = link.into_iter().map(|member| pb::LinkDeployment {
                deployment_id: member.deployment_id.to_string(),
                weight: narrow(member.weight),
            });
            pb::Link { deployments: deployments.collect() }
        });
        Self {
            id: row.id.to_string(),
            org_id: text(row.org_id),
            name: row.name,
            strategy: row.strategy,
            links: links.collect(),
            created_at: at(row.created_at),
            required_tags: row.required_tags,
            warnings: Vec::new(),
        }
    }
}

impl From<SettingRow> for pb::Setting {
    fn from(row: SettingRow) -> Self {
        Self { org_id: text(row.org_id), key: row.key, value: row.value }
    }
}

impl From<StoredModel> for pb::Model {
    fn from(StoredModel { row, offerings }: StoredModel) -> Self {
        let offerings = offerings.into_iter().map(|offering| pb::Offering {
            provider: offering.provider,
            upstream_model: offering.upstream_model,
            price: offering.price_id.map(|_| offering.amounts.into()),
        });
        Self {
            id: row.id,
            display_name: row.display_name,
            owned_by: row.owned_by,
            created_unix: row.created_unix,
            context_window: unsigned(row.context_window),
            max_output_tokens: unsigned(row.max_output_tokens),
            tags: row.tags,
            aliases: row.aliases,
            input_modalities: row.input_modalities,
            output_modalities: row.output_modalities,
            endpoints: row.endpoints,
            offerings: offerings.collect(),
            source: row.source,
            warnings: Vec::new(),
            provenance: Vec::new(),
        }
    }
}

impl From<RequestRow> for pb::RequestRecord {
    fn from(row: RequestRow) -> Self {
        Self {
            id: row.request_id.to_string(),
            org_id: row.org_id.to_string(),
            team_id: row.team_id.to_string(),
            key_id: row.key_id.to_string(),
            deployment_id: text(row.deployment_id),
            started_at: at(row.started_at),
            endpoint: row.endpoint,
            requested_model: row.requested_model,
            model: row.model,
            provider: row.provider,
            upstream_model: row.upstream_model,
            stream: row.stream,
            outcome: row.outcome,
            http_status: narrow(row.http_status.into()),
            error_code: row.error_code,
            finish_reason: row.finish_reason,
            input_tokens: row.input_tokens.map(unsigned),
            output_tokens: row.output_tokens.map(unsigned),
            cache_read_tokens: row.cache_read_tokens.map(unsigned),
            cache_write_tokens: row.cache_write_tokens.map(unsigned),
            reasoning_tokens: row.reasoning_tokens.map(unsigned),
            usage_estimated: row.usage_estimated,
            cost_nanos: row.cost_nanos,
            cost_usd: row.cost_nanos.map(|nanos| Nanos(nanos).to_string()).unwrap_or_default(),
            cost_source: row.cost_source,
            price_id: row.price_id,
            attempts: narrow(row.attempts.into()),
            strategy: row.strategy,
            config_revision: unsigned(row.config_revision),
            total_us: unsigned(row.total_us),
            upstream_us: unsigned(row.upstream_us),
            first_byte_us: row.first_byte_us.map(unsigned),
            overhead_us: unsigned(row.overhead_us),
            request_bytes: unsigned(row.request_bytes),
            response_bytes: unsigned(row.response_bytes),
            client_request_id: row.client_request_id,
            metadata: row.metadata,
            node_id: row.node_id,
            units: units::measures(row.units.as_deref()),
            decision: None,
            charges: charge::from_column(row.charges.as_deref()).into_iter().map(Into::into).collect(),
            service_tier: row.service_tier,
            cache_write_1h_tokens: row.cache_write_1h_tokens.map(unsigned),
        }
    }
}

impl From<Charge> for pb::RequestCharge {
    fn from(charge: Charge) -> Self {
        Self {
            budget_id: charge.budget_id.to_string(),
            window_start: at(charge.window_start),
            lease_id: charge.lease_id.map(|id| id.to_string()).unwrap_or_default(),
            nanos: charge.nanos.0,
        }
    }
}

impl From<DecisionRow> for pb::LoggedDecision {
    fn from(row: DecisionRow) -> Self {
        Self {
            request_id: row.request_id.to_string(),
            org_id: row.org_id.to_string(),
            started_at: at(row.started_at),
            config_revision: unsigned(row.config_revision),
            endpoint: row.endpoint,
            requested_model: row.requested_model,
            outcome: row.outcome,
            http_status: narrow(row.http_status.into()),
            error_code: row.error_code,
            deployment_id: text(row.deployment_id),
            input_tokens: row.input_tokens.map(unsigned),
            output_tokens: row.output_tokens.map(unsigned),
            cache_read_tokens: row.cache_read_tokens.map(unsigned),
            cache_write_tokens: row.cache_write_tokens.map(unsigned),
            cost_nanos: row.cost_nanos,
            cost_source: row.cost_source,
            units: units::measures(row.units.as_deref()),
            record: row.decision.map(|record| BASE64.encode(record)).unwrap_or_default(),
        }
    }
}
