//! The catalog sync from the outside: run it, see what it did and what it holds, decide. The operator's alone.

use nemo_proto::admin::{
    CatalogChange, CatalogRun, CatalogSource, DecideCatalogChangeRequest, ListCatalogChangesRequest,
    ListCatalogChangesResponse, ListCatalogRunsRequest, ListCatalogRunsResponse, ModelLimits,
    SyncCatalogRequest, SyncCatalogResponse,
};
use uuid::Uuid;

use crate::{
    admin::{Admin, AdminError, Call, ErrorKind, Written, page_token, validate},
    catalog::sync::{CatalogSync, Change, Limits, Proposal, SourceReport},
    store::catalog_sync::{self, ChangeRow, RunRow},
};

/// Changes of a run that its answer shows.
const SHOWN: usize = 1000;
const RUNS: i64 = 50;

impl Admin {
    fn catalog_sync(&self) -> Result<&CatalogSync, AdminError> {
        let sync = self.catalog_sync.as_ref().filter(|sync| !sync.settings.sources.is_empty());
        sync.ok_or_else(|| AdminError {
            expected: Some(
                "the setting catalog_sources of the control plane, such as models.dev,providers".to_owned(),
            ),
            ..AdminError::new(ErrorKind::InUse, "the catalog has no sources to be brought in step with")
        })
    }

    pub async fn sync_catalog(
        &self,
        call: &Call,
        request: SyncCatalogRequest,
    ) -> Result<Written<SyncCatalogResponse>, AdminError> {
        call.check_operator()?;
        let dry_run = request.dry_run || call.validate_only;
        // Boxed: it holds the answers of all sources.
        let report = Box::pin(self.catalog_sync()?.run_once(dry_run)).await?;
        let shown = report.proposals.iter().take(SHOWN);
        let answer = SyncCatalogResponse {
            run_id: report.id.map(|id| id.to_string()).unwrap_or_default(),
            sources: report.sources.iter().map(Into::into).collect(),
            changes: shown.map(proposed).collect(),
            applied: report.applied,
            held: report.held,
        };
        let Some(id) = report.id else {
            return Ok(Written { answer, config_version: None, replayed: false });
        };
        // What was found is written already; this is who asked for it.
        let run = CatalogRun {
            id: id.to_string(),
            started_at: None,
            sources: answer.sources.clone(),
            applied: report.applied,
            held: report.held,
        };
        let write = self.write_system(call, "catalog.sync").await?;
        write.done_with(&run, answer).await
    }

    pub async fn list_catalog_changes(
        &self,
        call: &Call,
        request: ListCatalogChangesRequest,
    ) -> Result<ListCatalogChangesResponse, AdminError> {
        call.check_operator()?;
        let state = validate::filter("state", request.state)?;
        let states = ["applied", "held", "approved", "rejected", "superseded"];
        if state.as_deref().is_some_and(|state| !states.contains(&state)) {
            return Err(AdminError::invalid("state", "no such state", states.join(", ")));
        }
        let model = validate::filter("model", request.model)?;
        let page = page_token::page(request.page_size, &request.page_token)?;
        let mut tx = self.store.system().await?;
        let limit = i64::from(page.size);
        let mut rows =
            catalog_sync::changes(&mut tx, state.as_deref(), model.as_deref(), page.after, limit + 1).await?;
        let size = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| row.id);
        Ok(ListCatalogChangesResponse {
            changes: rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(next),
        })
    }

    pub async fn decide_catalog_change(
        &self,
        call: &Call,
        request: DecideCatalogChangeRequest,
    ) -> Result<Written<CatalogChange>, AdminError> {
        let id: Uuid = request.id.parse().map_err(|_| {
            AdminError::invalid("id", "is no id of a change", "an id as the list of changes has them")
        })?;
        let action = if request.approve { "catalog_change.approve" } else { "catalog_change.reject" };
        let mut write = self.write_system(call, action).await?;
        let row = catalog_sync::held(&mut write.tx, id).await?;
        let row = row.ok_or_else(|| AdminError::not_found("catalog change", id))?;
        let before: CatalogChange = write.found(Some(row.clone()), id)?;
        if row.state != "held" {
            let message = format!("the change is {}: only one that is held can be decided", row.state);
            return Err(AdminError::new(ErrorKind::InUse, message).with_field("id"));
        }
        let change: Change = serde_json::from_str(&row.change)
            .map_err(|_| AdminError::new(ErrorKind::Internal, "the change was written by another version"))?;
        if request.approve {
            let sync = self.catalog_sync.as_ref();
            let sync = sync.ok_or_else(|| AdminError::new(ErrorKind::Internal, "no catalog sync"))?;
            sync.make(&mut write.tx, &before.model, &before.provider, &change).await?;
        } else if let Change::OfferingVanished { .. } = change {
            // The operator wants it to stay: it is not asked about again until a source lists it again.
            catalog_sync::forget_listing(&mut write.tx, &before.model, &before.provider).await?;
        }
        let actor = call.caller.actor();
        let by = format!("{}:{}", actor.kind(), actor.id());
        let state = if request.approve { "approved" } else { "rejected" };
        let decided = catalog_sync::decide(&mut write.tx, id, state, &by).await?;
        write.done(decided.into()).await
    }

    pub async fn list_catalog_runs(
        &self,
        call: &Call,
        _request: ListCatalogRunsRequest,
    ) -> Result<ListCatalogRunsResponse, AdminError> {
        call.check_operator()?;
        let mut tx = self.store.system().await?;
        let runs = catalog_sync::runs(&mut tx, RUNS).await?;
        Ok(ListCatalogRunsResponse { runs: runs.into_iter().map(Into::into).collect() })
    }
}

fn proposed(proposal: &Proposal) -> CatalogChange {
    let state = if proposal.hold.is_some() { "held" } else { "applied" };
    let reason = proposal.hold.clone().unwrap_or_default();
    let begun = CatalogChange {
        model: proposal.model.clone(),
        provider: proposal.provider.clone(),
        source: proposal.source.clone(),
        state: state.to_owned(),
        reason,
        ..CatalogChange::default()
    };
    told(begun, &proposal.change)
}

/// Completes `begun` with what the change is.
fn told(begun: CatalogChange, change: &Change) -> CatalogChange {
    let begun = CatalogChange { kind: change.kind().to_owned(), ..begun };
    match change {
        Change::ModelAdded { fact } | Change::OfferingAdded { fact } => CatalogChange {
            price_after: fact.amounts.clone().map(Into::into),
            upstream_model: fact.upstream_model.clone(),
            ..begun
        },
        Change::PriceChanged { before, after } => CatalogChange {
            price_before: Some(before.clone().into()),
            price_after: Some(after.clone().into()),
            ..begun
        },
        Change::LimitsChanged { before, after } => CatalogChange {
            limits_before: Some(limits(*before)),
            limits_after: Some(limits(*after)),
            ..begun
        },
        Change::OfferingVanished { upstream_model } => {
            CatalogChange { upstream_model: upstream_model.clone(), ..begun }
        }
    }
}

fn limits(limits: Limits) -> ModelLimits {
    ModelLimits {
        context_window: limits.context_window.unsigned_abs(),
        max_output_tokens: limits.max_output_tokens.unsigned_abs(),
    }
}

impl From<ChangeRow> for CatalogChange {
    fn from(row: ChangeRow) -> Self {
        let begun = Self {
            id: row.id.to_string(),
            model: row.model_id,
            provider: row.provider,
            kind: row.kind,
            source: row.source,
            reason: row.reason,
            state: row.state,
            created_at: Some(row.created_at.into()),
            decided_at: row.decided_at.map(Into::into),
            decided_by: row.decided_by.unwrap_or_default(),
            ..Self::default()
        };
        match serde_json::from_str::<Change>(&row.change) {
            Ok(change) => told(begun, &change),
            // Of another version: what the columns say is shown still.
            Err(_) => begun,
        }
    }
}

impl From<&SourceReport> for CatalogSource {
    fn from(report: &SourceReport) -> Self {
        Self { name: report.name.clone(), models: report.models as u64, error: report.error.clone() }
    }
}

impl From<RunRow> for CatalogRun {
    fn from(row: RunRow) -> Self {
        let sources: Vec<SourceReport> = serde_json::from_str(&row.sources).unwrap_or_default();
        Self {
            id: row.id.to_string(),
            started_at: Some(row.started_at.into()),
            sources: sources.iter().map(Into::into).collect(),
            applied: row.applied.unsigned_abs(),
            held: row.held.unsigned_abs(),
        }
    }
}
