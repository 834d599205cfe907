//! `Rerate`: what logged requests cost at other prices, shown, and if wanted booked. The operator's alone.

use nemo_proto::admin::{RerateRequest, RerateResponse};
use nemo_types::{OrgId, PriceSheet};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{
    admin::{Admin, AdminError, Call, Written, validate},
    rerate::{Book, Report, Verdict},
    store::rerate::{self as rows, Correction, Logged, One, Which},
};

/// Longest time that is looked at: no request log is kept longer by default.
const MOST: Duration = Duration::days(400);

impl Admin {
    pub async fn rerate(
        &self,
        call: &Call,
        request: RerateRequest,
    ) -> Result<Written<RerateResponse>, AdminError> {
        call.check_operator()?;
        let which = which(&request)?;
        let fixed = self.fixed_price(&request.price_id).await?;
        let booking = (request.book && !call.validate_only).then(Uuid::now_v7);
        let (report, entries) = self.rate(&which, fixed.as_ref(), booking).await?;
        let answer = RerateResponse {
            rerate_id: booking.map(|id| id.to_string()).unwrap_or_default(),
            rows: report.rows(),
            total: Some(report.total()),
            entries,
        };
        if booking.is_none() {
            return Ok(Written { answer, config_version: None, replayed: false });
        }
        // What was booked is in the ledger already, page by page; this is who asked for it.
        let write = self.write_system(call, "rerate").await?;
        write.done_with(&answer.clone(), answer).await
    }

    async fn fixed_price(&self, id: &str) -> Result<Option<One>, AdminError> {
        if id.is_empty() {
            return Ok(None);
        }
        let mut tx = self.store.system().await?;
        let price = rows::price(&mut tx, id).await?;
        price
            .map(Some)
            .ok_or_else(|| AdminError::not_found("price", format!("{id:?}")).with_field("price_id"))
    }

    /// Page by page, each in a transaction of its own: the log may have millions of rows.
    async fn rate(
        &self,
        which: &Which,
        fixed: Option<&One>,
        booking: Option<Uuid>,
    ) -> Result<(Report, u64), AdminError> {
        let (mut report, mut book) = (Report::default(), Book::default());
        let (mut after, mut entries) = (None, 0);
        for number in 0.. {
            let mut tx = self.store.system().await?;
            if booking.is_some() {
                rows::lock(&mut tx).await?;
            }
            let page = rows::page(&mut tx, which, after).await?;
            let Some(last) = page.last() else { break };
            after = Some((last.day, last.request_id));
            rows::complete(&mut tx, &mut book, &page).await?;
            let mut corrections = Vec::new();
            for request in &page {
                let new = price_of(request, fixed, &book);
                let verdict = request.rated.at(book.by_id.get(&request.price_id), new);
                report.add((request.org, &request.model, &request.provider), verdict);
                if let (Verdict::Changed { after, .. }, Some(new)) = (verdict, new) {
                    corrections.push(Correction { request, price_id: &new.id, after });
                }
            }
            if let Some(id) = booking.filter(|_| !corrections.is_empty()) {
                entries += rows::book(&mut tx, id, number, &corrections).await?;
                tx.commit().await?;
            }
        }
        Ok((report, entries))
    }
}

/// The given price, for requests that it is a price of; else what was in effect.
fn price_of<'a>(request: &Logged, fixed: Option<&'a One>, book: &'a Book) -> Option<&'a PriceSheet> {
    let Some(one) = fixed else {
        let offering = (request.provider.as_str(), request.model.as_str());
        return book.at(offering, request.deployment, &request.price_id, request.started_at);
    };
    let meant = match one.deployment {
        Some(deployment) => request.deployment == Some(deployment),
        None => request.provider == one.provider,
    };
    meant.then_some(&one.sheet)
}

fn which(request: &RerateRequest) -> Result<Which, AdminError> {
    let expected = "the first moment of the requests that are to be looked at";
    let from = validate::time("from", request.from)?
        .ok_or_else(|| AdminError::invalid("from", "missing", expected))?;
    let now = validate::now();
    let to = validate::time("to", request.to)?.unwrap_or(now);
    if to <= from {
        return Err(AdminError::invalid("to", "not later than from", "a later moment"));
    }
    if to - from > MOST || from < OffsetDateTime::UNIX_EPOCH {
        return Err(AdminError::invalid("from", "too long ago", "at most 400 days before to"));
    }
    let model = validate::filter("model", request.model.clone())?;
    let model = model.ok_or_else(|| AdminError::invalid("model", "missing", "the name of a model"))?;
    let org = match request.org_id.as_str() {
        "" => None,
        id => Some(validate::id::<OrgId>("org_id", id)?),
    };
    Ok(Which { from, to, model, org })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_rated_is_bounded() {
        let at = |days: i64| Some((validate::now() + Duration::days(days)).into());
        let ask = || RerateRequest { from: at(-1), model: "m".into(), ..RerateRequest::default() };
        assert_eq!(which(&ask()).unwrap().model, "m");
        for (request, field) in [
            (RerateRequest { from: None, ..ask() }, "from"),
            (RerateRequest { from: at(-500), ..ask() }, "from"),
            (RerateRequest { to: at(-2), ..ask() }, "to"),
            (RerateRequest { model: String::new(), ..ask() }, "model"),
            (RerateRequest { org_id: "x".into(), ..ask() }, "org_id"),
        ] {
            assert_eq!(which(&request).unwrap_err().field.as_deref(), Some(field));
        }
    }
}
