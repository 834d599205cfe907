//! Reading the ledger and checking that it adds up.

use nemo_proto::admin::{
    LedgerDifference, LedgerEntry, LedgerKind, ListLedgerRequest, ListLedgerResponse, VerifyLedgerRequest,
    VerifyLedgerResponse,
};
use nemo_types::{BudgetId, LeaseId, Nanos};

use crate::{
    admin::{Action, Admin, AdminError, Call, validate},
    ledger::{
        Kind,
        verify::{self, Difference, Report},
    },
    store::ledger::{self, EntryRow, Filter},
};

impl Admin {
    /// An organization's entries, or with an empty `org_id` everybody's, newest first.
    pub async fn list_ledger(
        &self,
        call: &Call,
        request: ListLedgerRequest,
    ) -> Result<ListLedgerResponse, AdminError> {
        let size = validate::page_size(request.page_size)?;
        let below = page_token(&request.page_token)?;
        let filter = filter(&request)?;
        let limit = i64::from(size) + 1;
        let mut rows = if request.org_id.is_empty() {
            call.check_operator().map_err(|error| AdminError {
                expected: Some("the id of the token's organization in org_id".to_owned()),
                ..error
            })?;
            let mut tx = self.store.system().await?;
            ledger::of_all(&mut tx, &filter, below, limit).await?
        } else {
            let mut tx = self.tenant(call, Action::ReadRequests, &request.org_id).await?;
            ledger::of_organization(&mut tx, &filter, below, limit).await?
        };
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| format!("{:016x}", row.id));
        Ok(ListLedgerResponse {
            entries: rows.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// Reads everything that has to do with money, in one snapshot.
    pub async fn verify_ledger(
        &self,
        call: &Call,
        _request: VerifyLedgerRequest,
    ) -> Result<VerifyLedgerResponse, AdminError> {
        call.check_operator()?;
        let report = verify::verify(&self.store).await?;
        for difference in report.differences.iter().take(20) {
            tracing::error!(%difference, "a total is not the sum of its ledger entries");
        }
        Ok(report.into())
    }
}

fn filter(request: &ListLedgerRequest) -> Result<Filter, AdminError> {
    let kind = match request.kind.as_str() {
        "" => None,
        text => Some(text.parse::<Kind>().map_err(|_| {
            let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
            let expected = format!("one of: {}", names.join(", "));
            AdminError::invalid("kind", format!("{text:?} is no kind of entry"), expected)
        })?),
    };
    Ok(Filter {
        kind,
        budget: id::<BudgetId>("budget_id", &request.budget_id)?.map(|id| id.0),
        lease: id::<LeaseId>("lease_id", &request.lease_id)?.map(|id| id.0),
        source: validate::filter("source", request.source.clone())?,
        after: validate::time("after", request.after)?,
        before: validate::time("before", request.before)?,
    })
}

fn id<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>, AdminError> {
    if text.is_empty() { Ok(None) } else { validate::id(field, text).map(Some) }
}

fn page_token(token: &str) -> Result<Option<i64>, AdminError> {
    if token.is_empty() {
        return Ok(None);
    }
    let id = i64::from_str_radix(token, 16).ok().filter(|id| *id > 0);
    id.map(Some).ok_or_else(|| {
        let expected = "the next_page_token of the page before";
        AdminError::invalid("page_token", "not a page token of this list", expected)
    })
}

impl From<EntryRow> for LedgerEntry {
    fn from(row: EntryRow) -> Self {
        let text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
        Self {
            id: row.id.unsigned_abs(),
            at: Some(row.at.into()),
            kind: row.kind,
            org_id: row.org_id.to_string(),
            budget_id: text(row.budget_id),
            window_start: row.window_start.map(Into::into),
            lease_id: text(row.lease_id),
            nanos: row.nanos,
            usd: Nanos(row.nanos).to_string(),
            source: row.source,
            details: row.details.unwrap_or_default(),
        }
    }
}

impl From<Report> for VerifyLedgerResponse {
    fn from(report: Report) -> Self {
        Self {
            ok: report.is_fine(),
            entries: report.entries(),
            kinds: report
                .kinds
                .into_iter()
                .map(|it| LedgerKind {
                    kind: it.kind,
                    entries: it.entries,
                    nanos: it.nanos.0,
                    usd: it.nanos.to_string(),
                })
                .collect(),
            windows: report.windows,
            leases: report.leases,
            requests: report.requests,
            charges: report.charges,
            unlogged: report.unlogged,
            deleted: report.deleted,
            settled_nanos: report.settled.0,
            settled_usd: report.settled.to_string(),
            overrun_nanos: report.overrun.0,
            overrun_usd: report.overrun.to_string(),
            outstanding_nanos: report.outstanding.0,
            outstanding_usd: report.outstanding.to_string(),
            charged_nanos: report.charged.0,
            charged_usd: report.charged.to_string(),
            log_from: report.log_from.map(|day| day.midnight().assume_utc().into()),
            differences: report.differences.into_iter().map(Into::into).collect(),
            more: report.more,
        }
    }
}

impl From<Difference> for LedgerDifference {
    fn from(difference: Difference) -> Self {
        Self {
            what: difference.what.name().to_owned(),
            org_id: difference.org_id.to_string(),
            budget_id: difference.budget_id.map(|id| id.to_string()).unwrap_or_default(),
            window_start: difference.window_start.map(Into::into),
            lease_id: difference.lease_id.map(|id| id.to_string()).unwrap_or_default(),
            expected_nanos: difference.expected.0,
            expected_usd: difference.expected.to_string(),
            found_nanos: difference.found.0,
            found_usd: difference.found.to_string(),
            message: difference.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_asked_is_refused_by_name() {
        let ask = ListLedgerRequest::default;
        for (request, field) in [
            (ListLedgerRequest { kind: "gift".into(), ..ask() }, "kind"),
            (ListLedgerRequest { budget_id: "x".into(), ..ask() }, "budget_id"),
            (ListLedgerRequest { lease_id: "x".into(), ..ask() }, "lease_id"),
            (ListLedgerRequest { source: "a\0".into(), ..ask() }, "source"),
        ] {
            assert_eq!(filter(&request).unwrap_err().field.as_deref(), Some(field));
        }
        assert_eq!(page_token("0").unwrap_err().field.as_deref(), Some("page_token"));
        assert_eq!(page_token("00ff").unwrap(), Some(255));
        assert_eq!(
            filter(&ListLedgerRequest { kind: "settle".into(), ..ask() }).unwrap().kind,
            Some(Kind::Settle)
        );
    }
}
