//! What was used, by time and by org, team, key, model, provider or endpoint. Answers come from rollups; the request
//! log is not looked at.

use nemo_proto::admin::{Latency, QueryUsageRequest, QueryUsageResponse, UsageRow as Answer};
use nemo_types::{KeyId, Nanos, TeamId};
use time::{Duration, OffsetDateTime};

use crate::{
    admin::{Action, Admin, AdminError, Call, page_token, validate},
    store::{
        retention,
        usage_query::{self, Dimension, Interval, Order, Query, UsageRow},
        usage_rollup::{day, histogram::Histogram, hour},
    },
};

/// Up to this long, a sum without interval is exact to the hour; beyond, to the day.
const HOURLY_SUM: Duration = Duration::days(7);

impl Admin {
    /// An organization's usage, or with an empty `org_id` everybody's, for the operator.
    pub async fn query_usage(
        &self,
        call: &Call,
        request: QueryUsageRequest,
    ) -> Result<QueryUsageResponse, AdminError> {
        let mut query = parse(&request)?;
        let (kept, rows) = if request.org_id.is_empty() {
            call.check_operator().map_err(|error| AdminError {
                expected: Some("the id of the token's organization in org_id".to_owned()),
                ..error
            })?;
            let mut tx = self.store.system().await?;
            let kept = retention::kept_from_for_all(&mut tx).await?;
            fit(&mut query, kept.hourly());
            (kept, usage_query::of_all(&mut tx, &query).await?)
        } else {
            let mut tx = self.tenant(call, Action::ReadRequests, &request.org_id).await?;
            let kept = retention::kept_from(&mut tx).await?;
            fit(&mut query, kept.hourly());
            (kept, usage_query::of_organization(&mut tx, &query).await?)
        };
        let hourly = matches!(query.interval, Interval::Hour | Interval::Whole { hourly: true });
        let kept = if hourly { kept.hourly() } else { kept.daily() };
        Ok(answer(rows, &query, kept))
    }
}

fn parse(request: &QueryUsageRequest) -> Result<Query, AdminError> {
    let interval = match request.interval.as_str() {
        "hour" => Interval::Hour,
        "day" => Interval::Day,
        "month" => Interval::Month,
        "" | "none" => Interval::Whole { hourly: false },
        other => {
            let message = format!("{other:?} is not an interval");
            return Err(AdminError::invalid("interval", message, "one of: hour, day, month, none"));
        }
    };
    let (from, to) = times(request, interval)?;
    let size = validate::page_size(request.page_size)?;
    Ok(Query {
        from,
        to,
        interval,
        group_by: dimensions(&request.group_by)?,
        order: order(&request.order_by)?,
        team: id::<TeamId>("team_id", &request.team_id)?.map(|id| id.0),
        key: id::<KeyId>("key_id", &request.key_id)?.map(|id| id.0),
        model: validate::filter("model", request.model.clone())?,
        provider: validate::filter("provider", request.provider.clone())?,
        endpoint: validate::filter("endpoint", request.endpoint.clone())?,
        after: page_token::to_usage_position(&request.page_token)?,
        // One more tells whether there is a next page.
        limit: i64::from(size) + 1,
    })
}

/// As they were asked for.
fn times(
    request: &QueryUsageRequest,
    interval: Interval,
) -> Result<(OffsetDateTime, OffsetDateTime), AdminError> {
    let to = validate::time("to", request.to)?.unwrap_or_else(validate::now);
    let span = match interval {
        Interval::Hour => Duration::DAY,
        Interval::Day | Interval::Whole { .. } => Duration::days(30),
        Interval::Month => Duration::days(365),
    };
    let from = validate::time("from", request.from)?.unwrap_or(to - span);
    if from >= to {
        return Err(AdminError::invalid(
            "from",
            "not before `to`",
            "a time before `to`, which is now unless given",
        ));
    }
    Ok((from, to))
}

fn id<T: std::str::FromStr>(field: &str, text: &str) -> Result<Option<T>, AdminError> {
    if text.is_empty() { Ok(None) } else { validate::id(field, text).map(Some) }
}

fn dimensions(text: &str) -> Result<Vec<Dimension>, AdminError> {
    let mut dimensions = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let dimension = Dimension::ALL.into_iter().find(|dimension| dimension.name() == name);
        let dimension = dimension.ok_or_else(|| {
            let names: Vec<_> = Dimension::ALL.iter().map(|dimension| dimension.name()).collect();
            let expected = format!("any of {}, separated by commas", names.join(", "));
            AdminError::invalid("group_by", format!("can't group by {name:?}"), expected)
        })?;
        if !dimensions.contains(&dimension) {
            dimensions.push(dimension);
        }
    }
    Ok(dimensions)
}

fn order(text: &str) -> Result<Order, AdminError> {
    if text.is_empty() {
        return Ok(Order::Time);
    }
    Order::ALL.into_iter().find(|order| order.name() == text).ok_or_else(|| {
        let names: Vec<_> = Order::ALL.iter().map(|order| order.name()).collect();
        AdminError::invalid(
            "order_by",
            format!("can't order by {text:?}"),
            format!("one of: {}", names.join(", ")),
        )
    })
}

/// Widens the times to what the rollup can tell apart. `hourly_from`: where the hourly one begins, if it was cut.
fn fit(query: &mut Query, hourly_from: Option<OffsetDateTime>) {
    let (from, to) = (query.from, query.to);
    if let Interval::Whole { hourly } = &mut query.interval {
        let whole_days = from == day(from) && to == day(to);
        let kept = hourly_from.is_none_or(|begin| hour(from) >= begin);
        *hourly = !whole_days && kept && to - from <= HOURLY_SUM;
    }
    let floor = match query.interval {
        Interval::Hour | Interval::Whole { hourly: true } => hour,
        Interval::Day | Interval::Whole { hourly: false } => day,
        Interval::Month => month,
    };
    query.from = floor(from);
    // The begin of the next one, unless it is a begin already.
    query.to = if floor(to) == to {
        to
    } else {
        match query.interval {
            Interval::Hour | Interval::Whole { hourly: true } => hour(to) + Duration::HOUR,
            Interval::Day | Interval::Whole { hourly: false } => day(to) + Duration::DAY,
            // No month is longer, and none but the next begins that soon.
            Interval::Month => month(month(to) + Duration::days(31)),
        }
    };
}

/// Begin of the month (UTC).
fn month(at: OffsetDateTime) -> OffsetDateTime {
    let day = day(at);
    day - Duration::days(i64::from(day.day()) - 1)
}

fn answer(mut rows: Vec<UsageRow>, query: &Query, kept: Option<OffsetDateTime>) -> QueryUsageResponse {
    let size = usize::try_from(query.limit - 1).unwrap_or(usize::MAX);
    let more = rows.len() > size;
    rows.truncate(size);
    let next = rows.last().filter(|_| more).map(|row| page_token::from_usage_position(&row.position()));
    QueryUsageResponse {
        rows: rows.into_iter().map(Into::into).collect(),
        next_page_token: next.unwrap_or_default(),
        from: Some(query.from.into()),
        to: Some(query.to.into()),
        kept_since: kept.map(Into::into),
    }
}

impl From<UsageRow> for Answer {
    fn from(row: UsageRow) -> Self {
        let sum = |value: i64| u64::try_from(value).unwrap_or_default();
        let [org_id, team_id, key_id, model, provider, endpoint] = row.group;
        let of = row.measures;
        Self {
            start: Some(row.start.into()),
            org_id,
            team_id,
            key_id,
            model,
            provider,
            endpoint,
            requests: sum(of.requests),
            errors: sum(of.errors),
            cancelled: sum(of.cancelled),
            interrupted: sum(of.interrupted),
            streams: sum(of.streams),
            estimated: sum(of.estimated),
            unpriced: sum(of.unpriced),
            input_tokens: sum(of.input_tokens),
            output_tokens: sum(of.output_tokens),
            cache_read_tokens: sum(of.cache_read_tokens),
            cache_write_tokens: sum(of.cache_write_tokens),
            reasoning_tokens: sum(of.reasoning_tokens),
            audio_input_tokens: sum(of.audio_input_tokens),
            audio_output_tokens: sum(of.audio_output_tokens),
            cost_nanos: of.cost_nanos,
            cost_usd: Nanos(of.cost_nanos).to_string(),
            request_bytes: sum(of.request_bytes),
            response_bytes: sum(of.response_bytes),
            total: latency(of.total_us, &row.total),
            first_byte: latency(of.first_byte_us, &row.first_byte),
            lost: sum(of.lost),
            cache_write_1h_tokens: sum(of.cache_write_1h_tokens),
        }
    }
}

/// `None` when no request had one.
fn latency(sum_us: i64, histogram: &Histogram) -> Option<Latency> {
    let mean = sum_us.checked_div(histogram.count())?;
    Some(Latency {
        mean_us: u64::try_from(mean).unwrap_or_default(),
        p50_us: histogram.quantile(500)?,
        p95_us: histogram.quantile(950)?,
        p99_us: histogram.quantile(990)?,
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn query(interval: &str, from: OffsetDateTime, to: OffsetDateTime) -> Query {
        let request = QueryUsageRequest {
            interval: interval.into(),
            from: Some(from.into()),
            to: Some(to.into()),
            ..Default::default()
        };
        parse(&request).unwrap()
    }

    #[test]
    fn times_are_widened_to_what_the_rollups_can_tell_apart() {
        let (from, to) = (datetime!(2026-01-31 10:20 UTC), datetime!(2026-02-03 10:00 +01:00));
        for (interval, expected) in [
            ("hour", (datetime!(2026-01-31 10:00 UTC), datetime!(2026-02-03 09:00 UTC))),
            ("day", (datetime!(2026-01-31 00:00 UTC), datetime!(2026-02-04 00:00 UTC))),
            ("month", (datetime!(2026-01-01 00:00 UTC), datetime!(2026-03-01 00:00 UTC))),
            ("none", (datetime!(2026-01-31 10:00 UTC), datetime!(2026-02-03 09:00 UTC))),
        ] {
            let mut query = query(interval, from, to);
            fit(&mut query, None);
            assert_eq!((query.from, query.to), expected, "{interval}");
        }
    }

    #[test]
    fn a_sum_without_interval_comes_from_the_rollup_that_has_it() {
        let at = datetime!(2026-03-10 10:30 UTC);
        for (from, to, kept, hourly) in [
            (at, at + Duration::DAY, None, true),
            (at, at + Duration::DAY, Some(datetime!(2026-03-01 0:00 UTC)), true),
            (at, at + Duration::DAY, Some(datetime!(2026-04-01 0:00 UTC)), false),
            (at, at + Duration::days(8), None, false),
            (day(at), day(at) + Duration::DAY, None, false),
        ] {
            let mut query = query("", from, to);
            fit(&mut query, kept);
            assert_eq!(query.interval, Interval::Whole { hourly }, "{from} {to} {kept:?}");
        }
    }

    #[test]
    fn what_can_not_be_asked_is_refused_by_name() {
        let refused = |request: QueryUsageRequest| parse(&request).unwrap_err();
        let ask = QueryUsageRequest::default;
        let later = Some(datetime!(2999-01-01 0:00 UTC).into());
        for (request, field) in [
            (QueryUsageRequest { interval: "week".into(), ..ask() }, "interval"),
            (QueryUsageRequest { group_by: "key,color".into(), ..ask() }, "group_by"),
            (QueryUsageRequest { order_by: "name".into(), ..ask() }, "order_by"),
            (QueryUsageRequest { key_id: "x".into(), ..ask() }, "key_id"),
            (QueryUsageRequest { from: Some(datetime!(2900-01-01 0:00 UTC).into()), ..ask() }, "from"),
            (QueryUsageRequest { to: Some(datetime!(1960-01-01 0:00 UTC).into()), ..ask() }, "to"),
            (QueryUsageRequest { page_token: "zz".into(), ..ask() }, "page_token"),
        ] {
            let error = refused(request);
            assert_eq!(error.field.as_deref(), Some(field), "{error:?}");
            assert!(error.expected.is_some(), "{error:?}");
        }
        assert!(parse(&QueryUsageRequest { to: later, ..ask() }).is_err(), "after the last year of a filter");
        let both = QueryUsageRequest { group_by: "model, key,model".into(), ..ask() };
        assert_eq!(parse(&both).unwrap().group_by, [Dimension::Model, Dimension::Key]);
    }
}
