//! Logged decisions, oldest first, a page at a time. Called by [`super::Replay`].

use nemo_proto::{
    Timestamp,
    admin::{ListDecisionsRequest, LoggedDecision},
};

use crate::admin_client::{AdminClient, PAGE, explain};

/// Which decisions, and how far reading has come.
pub struct Log<'a> {
    pub(super) client: &'a AdminClient,
    request: ListDecisionsRequest,
    /// How many may still come.
    left: u64,
    total: u64,
    more: bool,
}

impl<'a> Log<'a> {
    /// Of one organization or, with an empty id, of all; at most `limit`.
    pub fn new(
        client: &'a AdminClient,
        org_id: String,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
        limit: Option<u64>,
    ) -> Self {
        let request = ListDecisionsRequest { org_id, after, before, ..Default::default() };
        Self { client, request, left: limit.unwrap_or(u64::MAX), total: 0, more: true }
    }

    /// How many there are, at least; known after the first page.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The next page; `None` behind the last.
    ///
    /// # Errors
    /// When the control plane can't be read.
    pub(super) async fn next(&mut self) -> anyhow::Result<Option<Vec<LoggedDecision>>> {
        if !self.more || self.left == 0 {
            return Ok(None);
        }
        self.request.page_size = PAGE.min(u32::try_from(self.left).unwrap_or(PAGE));
        let answer = self.client.requests().list_decisions(self.request.clone()).await;
        let page = answer.map_err(explain)?.into_inner();
        self.total = page.total.map_or(self.total, |total| total.min(self.left));
        self.left = self.left.saturating_sub(page.decisions.len() as u64);
        self.more = !page.next_page_token.is_empty();
        self.request.page_token = page.next_page_token;
        Ok(Some(page.decisions))
    }
}
