//! Budgets and rate limits: what differs, and the calls that change it. Called by [`super::plan`] and
//! [`super::execute`].
//!
//! What a limit is on, and the window of a budget, are fixed: a file that says otherwise takes the old one away and makes
//! a new one, whose spend begins anew.

use anyhow::Context as _;
use nemo_proto::admin::{
    Budget, CreateBudgetRequest, CreateRateLimitRequest, DeleteBudgetRequest, DeleteRateLimitRequest,
    RateLimit, Thresholds, UpdateBudgetRequest, UpdateRateLimitRequest,
};
use nemo_types::Nanos;

use super::{
    backend::{Backend, Refused},
    difference::{changed, created},
    plan::Field,
    state::State,
};
use crate::providers::limits::{DesiredBudget, DesiredLimit, On};

/// What is done about one of them.
#[derive(Clone, Debug)]
pub(super) enum Limited {
    CreateBudget(Box<DesiredBudget>),
    UpdateBudget { organization: String, request: Box<UpdateBudgetRequest> },
    DeleteBudget { organization: String, id: String },
    CreateLimit(Box<DesiredLimit>),
    UpdateLimit { organization: String, request: Box<UpdateRateLimitRequest> },
    DeleteLimit { organization: String, id: String },
}

fn rate(value: Option<u64>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn percents(percent: &[u32]) -> String {
    percent.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn window(kind: &str, hours: u32, zone: &str) -> String {
    let hours = if hours == 0 { String::new() } else { format!(" {hours} h") };
    let zone = if zone == "UTC" { String::new() } else { format!(" in {zone}") };
    format!("{kind}{hours}{zone}")
}

pub(super) fn new_budget(wanted: &DesiredBudget) -> Vec<Field> {
    // What is usual is not worth a word.
    let unusual = |word: &str, usual: &str| if word == usual { String::new() } else { word.to_owned() };
    created(&[
        ("organization", &wanted.organization),
        ("on", &wanted.on.words()),
        ("limit", &Nanos(wanted.limit_nanos).to_string()),
        ("window", &window(&wanted.window, wanted.window_hours, &wanted.time_zone)),
        ("over_budget", &unusual(&wanted.over_budget, "cap")),
        ("no_lease", &unusual(&wanted.no_lease, "deny")),
        ("lost_lease", &unusual(&wanted.lost_lease, "charge")),
        ("reservation", &unusual(&wanted.reservation, "strict")),
        ("thresholds", &percents(&wanted.thresholds)),
    ])
}

/// Whether the one that is there can become what is wanted.
pub(super) fn same_budget(found: &Budget, wanted: &DesiredBudget, state: &State) -> bool {
    let ids = state.ids_of(&wanted.organization, &wanted.on);
    ids == Some((found.team_id.as_str(), found.key_id.as_str()))
        && (found.window.as_str(), found.window_hours) == (wanted.window.as_str(), wanted.window_hours)
        && found.time_zone == wanted.time_zone
}

/// The change that makes `found` what is wanted; `None` when it is.
pub(super) fn budget(found: &Budget, wanted: &DesiredBudget) -> Option<(UpdateBudgetRequest, Vec<Field>)> {
    let text = |found: &str, wanted: &str| (found != wanted).then(|| wanted.to_owned());
    let limit = Nanos(wanted.limit_nanos).to_string();
    let same_thresholds = found.thresholds == wanted.thresholds;
    let request = UpdateBudgetRequest {
        id: found.id.clone(),
        limit_usd: text(&found.limit_usd, &limit),
        over_budget: text(&found.over_budget, &wanted.over_budget),
        no_lease: text(&found.no_lease, &wanted.no_lease),
        lost_lease: text(&found.lost_lease, &wanted.lost_lease),
        reservation: text(&found.reservation, &wanted.reservation),
        thresholds: (!same_thresholds).then(|| Thresholds { percent: wanted.thresholds.clone() }),
        disabled: found.disabled.then_some(false),
        ..Default::default()
    };
    let mut fields = changed("limit", &found.limit_usd, &limit);
    fields.extend(changed("over_budget", &found.over_budget, &wanted.over_budget));
    fields.extend(changed("no_lease", &found.no_lease, &wanted.no_lease));
    fields.extend(changed("lost_lease", &found.lost_lease, &wanted.lost_lease));
    fields.extend(changed("reservation", &found.reservation, &wanted.reservation));
    fields.extend(changed("thresholds", &percents(&found.thresholds), &percents(&wanted.thresholds)));
    fields.extend(changed("disabled", &found.disabled.to_string(), "false"));
    (!fields.is_empty()).then_some((request, fields))
}

pub(super) fn new_limit(wanted: &DesiredLimit) -> Vec<Field> {
    created(&[
        ("organization", &wanted.organization),
        ("on", &wanted.on.words()),
        ("model", &wanted.model),
        ("requests_per_minute", &rate(wanted.requests_per_minute)),
        ("tokens_per_minute", &rate(wanted.tokens_per_minute)),
        ("concurrent", &rate(wanted.concurrent.map(u64::from))),
    ])
}

/// Whether the one that is there can become what is wanted.
pub(super) fn same_limit(found: &RateLimit, wanted: &DesiredLimit, state: &State) -> bool {
    let ids = state.ids_of(&wanted.organization, &wanted.on);
    ids == Some((found.team_id.as_str(), found.key_id.as_str()))
}

/// The change that makes `found` what is wanted; `None` when it is.
pub(super) fn limit(
    found: &RateLimit,
    wanted: &DesiredLimit,
) -> Option<(UpdateRateLimitRequest, Vec<Field>)> {
    // 0 takes a limit away.
    fn differs<T: Copy + Default + PartialEq>(found: Option<T>, wanted: Option<T>) -> Option<T> {
        (found != wanted).then(|| wanted.unwrap_or_default())
    }
    let request = UpdateRateLimitRequest {
        id: found.id.clone(),
        model: (found.model != wanted.model).then(|| wanted.model.clone()),
        requests_per_minute: differs(found.requests_per_minute, wanted.requests_per_minute),
        tokens_per_minute: differs(found.tokens_per_minute, wanted.tokens_per_minute),
        concurrent: differs(found.concurrent, wanted.concurrent),
        ..Default::default()
    };
    let mut fields = changed("model", &found.model, &wanted.model);
    let rates = [
        ("requests_per_minute", found.requests_per_minute, wanted.requests_per_minute),
        ("tokens_per_minute", found.tokens_per_minute, wanted.tokens_per_minute),
        ("concurrent", found.concurrent.map(u64::from), wanted.concurrent.map(u64::from)),
    ];
    for (name, found, wanted) in rates {
        fields.extend(changed(name, &rate(found), &rate(wanted)));
    }
    (!fields.is_empty()).then_some((request, fields))
}

/// Names of what was made by now, with their ids.
pub(super) trait Ids {
    fn organization(&self, name: &str) -> anyhow::Result<String>;
    fn team(&self, organization: &str, name: &str) -> Option<String>;
    fn key(&self, organization: &str, team: &str, name: &str) -> Option<String>;
}

fn subject(ids: &impl Ids, organization: &str, on: &On) -> anyhow::Result<(String, String)> {
    match on {
        On::Organization => Ok((String::new(), String::new())),
        On::Team(team) => {
            let id = ids.team(organization, team);
            Ok((id.with_context(|| format!("there is no team {team}"))?, String::new()))
        }
        On::Key { team, key } => {
            let id = ids.key(organization, team, key);
            Ok((String::new(), id.with_context(|| format!("there is no key {key} in the team {team}"))?))
        }
    }
}

/// Does it. False: it was done already.
pub(super) async fn make<B: Backend>(backend: &B, ids: &impl Ids, change: &Limited) -> anyhow::Result<bool> {
    match change {
        Limited::CreateBudget(wanted) => {
            let (team_id, key_id) = subject(ids, &wanted.organization, &wanted.on)?;
            let org_id = ids.organization(&wanted.organization)?;
            backend.create_budget(create_budget(wanted, org_id, team_id, key_id)).await?;
        }
        Limited::UpdateBudget { organization, request } => {
            let org_id = ids.organization(organization)?;
            backend.update_budget(UpdateBudgetRequest { org_id, ..(**request).clone() }).await?;
        }
        Limited::DeleteBudget { organization, id } => {
            let (org_id, id) = (ids.organization(organization)?, id.clone());
            return gone(
                backend.delete_budget(DeleteBudgetRequest { org_id, id, ..Default::default() }).await,
            );
        }
        Limited::CreateLimit(wanted) => {
            let (team_id, key_id) = subject(ids, &wanted.organization, &wanted.on)?;
            let request = CreateRateLimitRequest {
                org_id: ids.organization(&wanted.organization)?,
                team_id,
                key_id,
                name: wanted.name.clone(),
                model: wanted.model.clone(),
                requests_per_minute: wanted.requests_per_minute,
                tokens_per_minute: wanted.tokens_per_minute,
                concurrent: wanted.concurrent,
                ..Default::default()
            };
            backend.create_rate_limit(request).await?;
        }
        Limited::UpdateLimit { organization, request } => {
            let org_id = ids.organization(organization)?;
            backend.update_rate_limit(UpdateRateLimitRequest { org_id, ..(**request).clone() }).await?;
        }
        Limited::DeleteLimit { organization, id } => {
            let (org_id, id) = (ids.organization(organization)?, id.clone());
            let request = DeleteRateLimitRequest { org_id, id, ..Default::default() };
            return gone(backend.delete_rate_limit(request).await);
        }
    }
    Ok(true)
}

fn create_budget(
    wanted: &DesiredBudget,
    org_id: String,
    team_id: String,
    key_id: String,
) -> CreateBudgetRequest {
    CreateBudgetRequest {
        org_id,
        team_id,
        key_id,
        name: wanted.name.clone(),
        limit_usd: Nanos(wanted.limit_nanos).to_string(),
        window: wanted.window.clone(),
        window_hours: wanted.window_hours,
        time_zone: wanted.time_zone.clone(),
        over_budget: wanted.over_budget.clone(),
        no_lease: wanted.no_lease.clone(),
        lost_lease: wanted.lost_lease.clone(),
        reservation: wanted.reservation.clone(),
        thresholds: wanted.thresholds.clone(),
        ..Default::default()
    }
}

/// With its team or key it may have gone before.
fn gone<T>(answer: Result<T, Refused>) -> anyhow::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(refused) if refused.not_found => Ok(false),
        Err(refused) => Err(refused.into()),
    }
}
