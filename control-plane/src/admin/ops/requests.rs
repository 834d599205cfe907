//! Reading the request log.

use nemo_proto::admin::{GetRequestRequest, ListRequestsRequest, ListRequestsResponse, RequestRecord};
use nemo_types::{KeyId, RequestId};

use crate::{
    admin::{Action, Admin, AdminError, Caller, page_token, validate},
    store::request_log::{self, Filter, Position},
};

const OUTCOMES: [&str; 4] = ["ok", "error", "cancelled", "interrupted"];

impl Admin {
    pub async fn get_request(
        &self,
        caller: &Caller,
        request: GetRequestRequest,
    ) -> Result<RequestRecord, AdminError> {
        let id: RequestId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
        let row = request_log::get(&mut tx, id).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("request", id))
    }

    /// Newest first, from `after` (included) to `before` (excluded).
    pub async fn list_requests(
        &self,
        caller: &Caller,
        request: ListRequestsRequest,
    ) -> Result<ListRequestsResponse, AdminError> {
        let size = validate::page_size(request.page_size)?;
        let position = page_token::to_position(&request.page_token)?;
        let outcome = Some(request.outcome).filter(|outcome| !outcome.is_empty());
        if let Some(outcome) = outcome.as_ref().filter(|outcome| !OUTCOMES.contains(&outcome.as_str())) {
            let expected = format!("one of: {}", OUTCOMES.join(", "));
            return Err(AdminError::invalid("outcome", format!("{outcome:?} is not an outcome"), expected));
        }
        let key = match request.key_id.as_str() {
            "" => None,
            text => Some(validate::id::<KeyId>("key_id", text)?.0),
        };
        let filter = Filter {
            key,
            model: validate::filter("model", request.model)?,
            outcome,
            after: validate::time("after", request.after)?,
            before: validate::time("before", request.before)?,
        };
        let mut tx = self.tenant(caller, Action::Read, &request.org_id).await?;
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
