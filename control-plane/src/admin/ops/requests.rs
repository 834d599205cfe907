//! Reading and searching the request log.

use nemo_proto::admin::{GetRequestRequest, ListRequestsRequest, ListRequestsResponse, RequestRecord};
use nemo_types::{DeploymentId, KeyId, RequestId, TeamId};

use crate::{
    admin::{Action, Admin, AdminError, Call, page_token, validate},
    store::request_log::{self, Filter, Position, Statuses},
};

const OUTCOMES: [&str; 5] = ["ok", "error", "cancelled", "interrupted", "lost"];

impl Admin {
    pub async fn get_request(
        &self,
        call: &Call,
        request: GetRequestRequest,
    ) -> Result<RequestRecord, AdminError> {
        let id: RequestId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::ReadRequests, &request.org_id).await?;
        let row = request_log::get(&mut tx, id).await?;
        let row = row.ok_or_else(|| AdminError::not_found("request", id))?;
        let decision = match request_log::decision(&mut tx, id).await? {
            Some(record) => Some(self.explain(&row, &record).await?),
            None => None,
        };
        Ok(RequestRecord { decision, ..row.into() })
    }

    /// Newest first, from `after` (included) to `before` (excluded).
    pub async fn list_requests(
        &self,
        call: &Call,
        request: ListRequestsRequest,
    ) -> Result<ListRequestsResponse, AdminError> {
        let size = validate::page_size(request.page_size)?;
        let position = page_token::to_position(&request.page_token)?;
        let (org_id, filter) = filter(request)?;
        let mut tx = self.tenant(call, Action::ReadRequests, &org_id).await?;
        let mut rows = request_log::list(&mut tx, &filter, position, i64::from(size) + 1).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| {
            page_token::from_position(Position { started_at: row.started_at, request_id: row.request_id })
        });
        Ok(ListRequestsResponse {
            requests: rows.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }
}

/// The organization, and what is looked for in it.
fn filter(request: ListRequestsRequest) -> Result<(String, Filter), AdminError> {
    let outcome = Some(request.outcome).filter(|outcome| !outcome.is_empty());
    if let Some(outcome) = outcome.as_ref().filter(|outcome| !OUTCOMES.contains(&outcome.as_str())) {
        let expected = format!("one of: {}", OUTCOMES.join(", "));
        return Err(AdminError::invalid("outcome", format!("{outcome:?} is not an outcome"), expected));
    }
    if request.min_cost_nanos < 0 {
        let message = format!("{} is negative", request.min_cost_nanos);
        return Err(AdminError::invalid("min_cost_nanos", message, "nano-USD; one cent is 10000000"));
    }
    let min_total_us = i64::try_from(request.min_total_us).map_err(|_| {
        let message = format!("{} is too large", request.min_total_us);
        AdminError::invalid("min_total_us", message, "microseconds; one second is 1000000")
    })?;
    let filter = Filter {
        id: id("id", &request.id)?,
        team: id::<TeamId>("team_id", &request.team_id)?.map(|id| id.0),
        key: id::<KeyId>("key_id", &request.key_id)?.map(|id| id.0),
        deployment: id::<DeploymentId>("deployment_id", &request.deployment_id)?.map(|id| id.0),
        model: validate::filter("model", request.model)?,
        provider: validate::filter("provider", request.provider)?,
        endpoint: validate::filter("endpoint", request.endpoint)?,
        outcome,
        error_code: validate::filter("error_code", request.error_code)?,
        client_request_id: validate::filter("client_request_id", request.client_request_id)?,
        status: statuses(&request.status)?,
        min_cost_nanos: Some(request.min_cost_nanos).filter(|least| *least > 0),
        min_total_us: Some(min_total_us).filter(|least| *least > 0),
        after: validate::time("after", request.after)?,
        before: validate::time("before", request.before)?,
    };
    Ok((request.org_id, filter))
}

fn id<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>, AdminError> {
    if text.is_empty() { Ok(None) } else { validate::id(field, text).map(Some) }
}

/// `429` is one status, `4xx` a hundred of them.
fn statuses(text: &str) -> Result<Option<Statuses>, AdminError> {
    if text.is_empty() {
        return Ok(None);
    }
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<i32>().ok());
    let found = match (class, text.parse::<i32>()) {
        (Some(class @ 1..=5), _) => Some(Statuses { first: class * 100, last: class * 100 + 99 }),
        (_, Ok(status @ 100..=599)) => Some(Statuses { first: status, last: status }),
        _ => None,
    };
    found.map(Some).ok_or_else(|| {
        let expected = "a status such as 429, or a class of them such as 4xx";
        AdminError::invalid("status", format!("{text:?} is no HTTP status"), expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_or_a_class() {
        let found = |text| statuses(text).unwrap().map(|it| (it.first, it.last));
        assert_eq!(found(""), None);
        assert_eq!(found("429"), Some((429, 429)));
        assert_eq!(found("4xx"), Some((400, 499)));
        for text in ["4x", "xx", "6xx", "99", "600", "-4xx", "4XX", " 429"] {
            assert_eq!(statuses(text).unwrap_err().field.as_deref(), Some("status"), "{text}");
        }
    }

    #[test]
    fn a_search_that_means_nothing_is_refused_by_name() {
        let ask = ListRequestsRequest::default;
        for (request, field) in [
            (ListRequestsRequest { outcome: "fine".into(), ..ask() }, "outcome"),
            (ListRequestsRequest { team_id: "x".into(), ..ask() }, "team_id"),
            (ListRequestsRequest { deployment_id: "x".into(), ..ask() }, "deployment_id"),
            (ListRequestsRequest { id: "x".into(), ..ask() }, "id"),
            (ListRequestsRequest { client_request_id: "a\0".into(), ..ask() }, "client_request_id"),
            (ListRequestsRequest { min_cost_nanos: -1, ..ask() }, "min_cost_nanos"),
            (ListRequestsRequest { min_total_us: u64::MAX, ..ask() }, "min_total_us"),
        ] {
            let error = filter(request).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field), "{error:?}");
        }
    }
}
