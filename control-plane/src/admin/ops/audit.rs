//! Reading the audit log and checking its chain. Entries are written by [`super::write`] alone.

use nemo_proto::admin::{
    AuditEntry, ListAuditRequest, ListAuditResponse, VerifyAuditRequest, VerifyAuditResponse,
};
use nemo_types::OrgId;

use crate::{
    admin::{Action, Admin, AdminError, Call, entity::hex, validate},
    store::audit::{self, AuditFilter, AuditRow},
};

impl Admin {
    /// An organization's entries, or with an empty `org_id` everybody's, newest first.
    pub async fn list_audit(
        &self,
        call: &Call,
        request: ListAuditRequest,
    ) -> Result<ListAuditResponse, AdminError> {
        let size = validate::page_size(request.page_size)?;
        let below = page_token(&request.page_token)?;
        let org = match request.org_id.as_str() {
            "" => {
                call.check_operator().map_err(|error| AdminError {
                    expected: Some("the id of the caller's organization in org_id".to_owned()),
                    ..error
                })?;
                None
            }
            // Entries outlive their organization, so whether it exists does not matter.
            text => {
                let org: OrgId = validate::id("org_id", text)?;
                call.check(Action::ReadAudit, org)?;
                Some(org)
            }
        };
        let filter = AuditFilter {
            actor: validate::filter("actor", request.actor)?,
            action: validate::filter("action", request.action)?,
            target_kind: validate::filter("target_kind", request.target_kind)?,
            target_id: validate::filter("target_id", request.target_id)?,
            after: validate::time("after", request.after)?,
            before: validate::time("before", request.before)?,
        };
        // One more than asked for tells whether there is a next page.
        let mut rows = audit::list(&self.store, org, &filter, below, i64::from(size) + 1).await?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let more = rows.len() > size;
        rows.truncate(size);
        let next = rows.last().filter(|_| more).map(|row| format!("{:016x}", row.seq));
        Ok(ListAuditResponse {
            entries: rows.into_iter().map(Into::into).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// Reads the whole log, in batches.
    pub async fn verify_audit(
        &self,
        call: &Call,
        request: VerifyAuditRequest,
    ) -> Result<VerifyAuditResponse, AdminError> {
        call.check_operator()?;
        let noted = noted(&request)?;
        let verified = audit::verify(&self.store, noted).await?;
        if let Some(fault) = &verified.fault {
            tracing::error!(%fault, "the audit log is not as it was written");
        }
        Ok(VerifyAuditResponse {
            ok: verified.fault.is_none(),
            entries: verified.entries,
            head_seq: verified.head_seq.unsigned_abs(),
            head_hash: hex(&verified.head_hash),
            fault_seq: verified.fault.as_ref().map_or(0, |fault| fault.seq().unsigned_abs()),
            fault: verified.fault.map(|fault| fault.to_string()).unwrap_or_default(),
        })
    }
}

fn page_token(token: &str) -> Result<Option<i64>, AdminError> {
    if token.is_empty() {
        return Ok(None);
    }
    let seq = i64::from_str_radix(token, 16).ok().filter(|seq| *seq > 0);
    seq.map(Some).ok_or_else(|| {
        AdminError::invalid(
            "page_token",
            "not a page token of this list",
            "the next_page_token of the page before",
        )
    })
}

/// The entry that was noted elsewhere.
fn noted(request: &VerifyAuditRequest) -> Result<Option<(i64, Vec<u8>)>, AdminError> {
    if request.noted_seq == 0 && request.noted_hash.is_empty() {
        return Ok(None);
    }
    let seq = i64::try_from(request.noted_seq).ok().filter(|seq| *seq > 0).ok_or_else(|| {
        AdminError::invalid("noted_seq", "not a number of an entry", "head_seq of an earlier check")
    })?;
    let text = request.noted_hash.as_bytes();
    let bytes: Option<Vec<u8>> = text
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect();
    match bytes.filter(|bytes| bytes.len() == 32 && text.len() == 64) {
        Some(hash) => Ok(Some((seq, hash))),
        None => Err(AdminError::invalid(
            "noted_hash",
            "not a hash",
            "64 hexadecimal digits: head_hash of an earlier check",
        )),
    }
}

impl From<AuditRow> for AuditEntry {
    fn from(row: AuditRow) -> Self {
        Self {
            seq: row.seq.unsigned_abs(),
            org_id: row.org_id.map(|id| id.to_string()).unwrap_or_default(),
            at: Some(row.at.into()),
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            actor_name: row.actor_name,
            remote_addr: row.remote_addr,
            action: row.action,
            target_kind: row.target_kind,
            target_id: row.target_id,
            before: row.before.unwrap_or_default(),
            after: row.after.unwrap_or_default(),
            prev_hash: hex(&row.prev_hash),
            hash: hex(&row.hash),
        }
    }
}
