//! Rate limits of organizations, teams and keys: requests, tokens and concurrency over the whole fleet.

use nemo_proto::admin::{
    CreateRateLimitRequest, DeleteRateLimitRequest, DeleteRateLimitResponse, GetRateLimitRequest,
    ListRateLimitsRequest, ListRateLimitsResponse, RateLimit, UpdateRateLimitRequest,
};
use nemo_types::RateLimitId;

use super::list_filter;
use crate::{
    admin::{
        Action, Admin, AdminError, Call, ErrorKind, Written, key_policy, limited::On, page_token, validate,
    },
    store::rate_limits::{self, NewRateLimit, RateLimitRow, Rates},
};

/// A million requests, or a trillion tokens, per minute is nobody's limit but a typing error.
pub(in crate::admin) const MOST_PER_MINUTE: u64 = 1_000_000_000_000;
pub(in crate::admin) const MOST_CONCURRENT: u32 = 1_000_000_000;

impl Admin {
    pub async fn create_rate_limit(
        &self,
        call: &Call,
        request: CreateRateLimitRequest,
    ) -> Result<Written<RateLimit>, AdminError> {
        validate::name("name", &request.name)?;
        let on = On::read(&request.team_id, &request.key_id)?;
        pattern(&request.model)?;
        let rates = Rates {
            requests_per_minute: per_minute("requests_per_minute", request.requests_per_minute)?,
            tokens_per_minute: per_minute("tokens_per_minute", request.tokens_per_minute)?,
            concurrent: concurrent(request.concurrent)?,
        };
        limits_something(rates)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "rate_limit.create").await?;
        if let Some(answer) = write.replay(&request).await? {
            return Ok(answer);
        }
        on.check(&mut write.tx).await?;
        on.room(rate_limits::beside(&mut write.tx, on.team, on.key).await?, "rate limits")?;
        let new = NewRateLimit {
            id: RateLimitId::generate().0,
            team_id: on.team,
            key_id: on.key,
            name: &request.name,
            model: &request.model,
            rates,
        };
        let row = rate_limits::insert(&mut write.tx, new).await?;
        write.done(row.into()).await
    }

    pub async fn get_rate_limit(
        &self,
        call: &Call,
        request: GetRateLimitRequest,
    ) -> Result<RateLimit, AdminError> {
        let id: RateLimitId = validate::id("id", &request.id)?;
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let row = rate_limits::get(&mut tx, id.0).await?;
        row.map(Into::into).ok_or_else(|| AdminError::not_found("rate limit", id))
    }

    pub async fn list_rate_limits(
        &self,
        call: &Call,
        request: ListRateLimitsRequest,
    ) -> Result<ListRateLimitsResponse, AdminError> {
        let page = page_token::page(request.page_size, &request.page_token)?;
        let on = On::filter(&request.team_id, &request.key_id)?;
        let filter = list_filter!(request);
        let mut tx = self.tenant(call, Action::Read, &request.org_id).await?;
        let listed = rate_limits::list(&mut tx, on.team, on.key, page, &filter).await?;
        Ok(ListRateLimitsResponse {
            rate_limits: listed.rows.into_iter().map(Into::into).collect(),
            next_page_token: page_token::next(listed.next),
        })
    }

    /// A rate of 0 is not limited any more; one of the three must stay.
    pub async fn update_rate_limit(
        &self,
        call: &Call,
        request: UpdateRateLimitRequest,
    ) -> Result<Written<RateLimit>, AdminError> {
        let id: RateLimitId = validate::id("id", &request.id)?;
        if let Some(name) = &request.name {
            validate::name("name", name)?;
        }
        if let Some(model) = &request.model {
            pattern(model)?;
        }
        let requests = changed(request.requests_per_minute, |it| per_minute("requests_per_minute", it))?;
        let tokens = changed(request.tokens_per_minute, |it| per_minute("tokens_per_minute", it))?;
        let concurrency = changed(request.concurrent, concurrent)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "rate_limit.update").await?;
        let before = rate_limits::get(&mut write.tx, id.0).await?;
        let held = before.clone();
        write.found::<RateLimit>(before, id)?;
        let held = held.ok_or_else(|| AdminError::not_found("rate limit", id))?;
        refuse_tier(&held)?;
        let rates = Rates {
            requests_per_minute: requests.unwrap_or(held.rates.requests_per_minute),
            tokens_per_minute: tokens.unwrap_or(held.rates.tokens_per_minute),
            concurrent: concurrency.unwrap_or(held.rates.concurrent),
        };
        limits_something(rates)?;
        let (name, model) = (request.name.as_deref(), request.model.as_deref());
        let row = rate_limits::update(&mut write.tx, id.0, name, model, rates).await?;
        write.done(row.ok_or_else(|| AdminError::not_found("rate limit", id))?.into()).await
    }

    pub async fn delete_rate_limit(
        &self,
        call: &Call,
        request: DeleteRateLimitRequest,
    ) -> Result<Written<DeleteRateLimitResponse>, AdminError> {
        let id: RateLimitId = validate::id("id", &request.id)?;
        let mut write = self.write_tenant(call, Action::Write, &request.org_id, "rate_limit.delete").await?;
        let before = rate_limits::get(&mut write.tx, id.0).await?;
        let held = before.clone();
        write.found::<RateLimit>(before, id)?;
        held.as_ref().map_or(Ok(()), refuse_tier)?;
        rate_limits::delete(&mut write.tx, id.0).await?;
        write.deleted().await
    }
}

/// What a tier guarantees comes and goes with the tier.
fn refuse_tier(row: &RateLimitRow) -> Result<(), AdminError> {
    if !row.from_tier {
        return Ok(());
    }
    Err(AdminError {
        expected: Some("another tier".to_owned()),
        ..AdminError::new(ErrorKind::InUse, "this limit is of the organization's tier")
    })
}

/// Empty: all models together.
fn pattern(model: &str) -> Result<(), AdminError> {
    if model.is_empty() {
        return Ok(());
    }
    key_policy::models("model", std::slice::from_ref(&model.to_owned()))
        .map_err(|error| AdminError { field: Some("model".to_owned()), ..error })
}

fn per_minute(field: &str, value: Option<u64>) -> Result<Option<i64>, AdminError> {
    let Some(value) = value else { return Ok(None) };
    if !(1..=MOST_PER_MINUTE).contains(&value) {
        let expected =
            format!("1 to {MOST_PER_MINUTE}, or nothing for no limit; to refuse everything disable the key");
        return Err(AdminError::invalid(field, format!("{value} can't be a limit"), expected));
    }
    Ok(i64::try_from(value).ok())
}

fn concurrent(value: Option<u32>) -> Result<Option<i32>, AdminError> {
    let Some(value) = value else { return Ok(None) };
    if !(1..=MOST_CONCURRENT).contains(&value) {
        let expected =
            format!("1 to {MOST_CONCURRENT}, or nothing for no limit; to refuse everything disable the key");
        return Err(AdminError::invalid("concurrent", format!("{value} can't be a limit"), expected));
    }
    Ok(i32::try_from(value).ok())
}

/// The outer option: whether it changes; 0 takes the limit away.
#[expect(clippy::option_option, reason = "two different absences: unchanged, and without a limit")]
fn changed<T: Default + PartialEq, R>(
    value: Option<T>,
    check: impl FnOnce(Option<T>) -> Result<Option<R>, AdminError>,
) -> Result<Option<Option<R>>, AdminError> {
    match value {
        None => Ok(None),
        Some(zero) if zero == T::default() => Ok(Some(None)),
        value => check(value).map(Some),
    }
}

fn limits_something(rates: Rates) -> Result<(), AdminError> {
    if rates != Rates::default() {
        return Ok(());
    }
    let expected = "at least one of requests_per_minute, tokens_per_minute and concurrent";
    Err(AdminError::invalid("requests_per_minute", "nothing is limited", expected))
}
