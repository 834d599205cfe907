//! What `nemo replay` reads: decisions as they were logged, and the configuration that they were made with. Operator
//! only.

use base64::{Engine as _, prelude::BASE64_STANDARD as BASE64};
use nemo_proto::{
    admin::{
        ListDecisionsRequest, ListDecisionsResponse, ListRoutingConfigRequest, ListRoutingConfigResponse,
        RoutingResource,
    },
    config::{Kind, Resource, resource},
};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    admin::{Admin, AdminError, Call, ErrorKind, page_token, validate},
    store::{
        config_history::{self, HistoryRow},
        decisions::{self, Span},
    },
};

/// Bytes of records or resources in a page, about: far below what a gRPC client takes.
const PAGE_BYTES: usize = 1024 * 1024;

impl Admin {
    /// Oldest first, from `after` (included) to `before` (excluded).
    pub async fn list_decisions(
        &self,
        call: &Call,
        request: ListDecisionsRequest,
    ) -> Result<ListDecisionsResponse, AdminError> {
        call.check_operator()?;
        let size = validate::page_size(request.page_size)?;
        let position = page_token::page(request.page_size, &request.page_token)?.after;
        let org = match request.org_id.as_str() {
            "" => None,
            org_id => Some(validate::id("org_id", org_id)?),
        };
        let (after, before) =
            (validate::time("after", request.after)?, validate::time("before", request.before)?);
        let span = Span { org, after, before };
        let mut tx = self.store.system().await?;
        let total = match position {
            None => Some(decisions::count(&mut tx, span).await?),
            Some(_) => None,
        };
        let mut rows = decisions::list(&mut tx, span, position, i64::from(size) + 1).await?;
        let sizes = rows.iter().map(|row| row.decision.as_ref().map_or(0, Vec::len));
        let fits = fitting(sizes).min(usize::try_from(size).unwrap_or(usize::MAX));
        let more = rows.len() > fits;
        rows.truncate(fits);
        let next = rows.last().filter(|_| more).map(|row| row.request_id);
        Ok(ListDecisionsResponse {
            decisions: rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(next),
            total,
        })
    }

    /// By kind and id; whole, or what differs from `since_revision` where the history reaches back so far.
    pub async fn list_routing_config(
        &self,
        call: &Call,
        request: ListRoutingConfigRequest,
    ) -> Result<ListRoutingConfigResponse, AdminError> {
        call.check_operator()?;
        let size = validate::page_size(request.page_size)?;
        let position = position(&request.page_token)?;
        let mut tx = self.store.system().await?;
        let range = config_history::range(&mut tx, request.revision, request.since_revision).await?;
        let range = range.ok_or_else(|| {
            let message = format!("revision {} is not in the history", request.revision);
            AdminError { field: Some("revision".to_owned()), ..AdminError::new(ErrorKind::NotFound, message) }
        })?;
        let mut rows = config_history::rows(&mut tx, range, position, i64::from(size) + 1).await?;
        let sizes = rows.iter().map(|row| row.resource.as_ref().map_or(0, Vec::len));
        let fits = fitting(sizes).min(usize::try_from(size).unwrap_or(usize::MAX));
        let more = rows.len() > fits;
        rows.truncate(fits);
        let next = rows.last().filter(|_| more).map(token);
        Ok(ListRoutingConfigResponse {
            resources: rows.into_iter().map(resource).collect(),
            next_page_token: next.unwrap_or_default(),
            since_revision: range.since(),
        })
    }
}

/// How many rows of these sizes make a page that is not too large; at least one.
fn fitting(sizes: impl ExactSizeIterator<Item = usize>) -> usize {
    let (all, mut bytes) = (sizes.len(), 0);
    let full = { sizes }.position(|size| {
        bytes += size;
        bytes > PAGE_BYTES
    });
    full.unwrap_or(all).max(1)
}

fn resource(row: HistoryRow) -> RoutingResource {
    let decoded = row.resource.as_deref().and_then(|bytes| Resource::decode(bytes).ok());
    let name = match decoded.and_then(|resource| resource.kind) {
        Some(resource::Kind::Organization(it)) => it.name,
        Some(resource::Kind::Deployment(it)) => it.name,
        Some(resource::Kind::Model(it)) => it.display_name,
        Some(resource::Kind::ModelGroup(it)) => it.name,
        Some(resource::Kind::Setting(it)) => it.key,
        _ => String::new(),
    };
    let kind = Kind::try_from(i32::from(row.kind)).unwrap_or(Kind::Unspecified);
    let id = match Uuid::from_slice(&row.id) {
        Ok(id) if kind != Kind::Model => id.to_string(),
        _ => String::from_utf8_lossy(&row.id).into_owned(),
    };
    let kind = kind.as_str_name().trim_start_matches("KIND_").to_ascii_lowercase();
    RoutingResource {
        kind,
        id,
        name,
        resource: row.resource.map(|bytes| BASE64.encode(bytes)).unwrap_or_default(),
    }
}

/// Kind and id of a row, as base64 has them after the kind's number.
fn token(row: &HistoryRow) -> String {
    page_token::from_text(&format!("{} {}", row.kind, BASE64.encode(&row.id)))
}

fn position(token: &str) -> Result<Option<(i16, Vec<u8>)>, AdminError> {
    if token.is_empty() {
        return Ok(None);
    }
    let text = page_token::to_text(token)?;
    let parts =
        text.split_once(' ').and_then(|(kind, id)| Some((kind.parse().ok()?, BASE64.decode(id).ok()?)));
    parts.map(Some).ok_or_else(|| {
        let expected = "the next_page_token of the page before";
        AdminError::invalid("page_token", "not a page token of this list", expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_others_are_refused() {
        let row = HistoryRow { kind: 6, id: b"openai/gpt".to_vec(), resource: None };
        assert_eq!(position(&token(&row)).unwrap(), Some((6, row.id)));
        for text in ["x", &page_token::from_text("6"), &page_token::from_text("a b")] {
            assert_eq!(position(text).unwrap_err().field.as_deref(), Some("page_token"), "{text}");
        }
    }

    #[test]
    fn a_page_is_cut_before_it_is_too_large_but_never_empty() {
        let fitting = |sizes: [usize; 2]| super::fitting(sizes.into_iter());
        assert_eq!(fitting([10, 10]), 2);
        assert_eq!(fitting([PAGE_BYTES, 10]), 1);
        assert_eq!(fitting([PAGE_BYTES + 1, 10]), 1);
    }
}
