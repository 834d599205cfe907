//! The attempt loop: a request goes to one candidate of its decision after the other until one answers, within its
//! deadline (decisions B2 to B4, B6, B7). Called by [`super::early`] and [`super::multipart`].
//!
//! One attempt that succeeds is the hot path: it runs through [`run`] once, and everything else is behind a box.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response};
use nemo_llm::{Endpoint, ErrorDialect};
use nemo_runtime::trace_context::SpanId;
use nemo_snapshot::Deployment;
use nemo_types::{Nanos, OrgId};
use serde_json::json;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::{
    body::Body,
    context::RequestContext,
    crossing::fetch,
    dispatch::{self, Cold, Outgoing, Payload, Reply},
    error::{GatewayError, Kind},
    failure::Failure,
    headers,
    original::Original,
    reserve, respond,
    retry::{Limits, Next, Plan},
    timeouts::Deadline,
};
use crate::{
    app::State,
    config::Live,
    health::FailureClass,
    routing::{Decision, Pick, Reason},
    upstream::classify,
};

/// One try against one candidate, as the request log knows it.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    pub deployment: Arc<Deployment>,
    /// Index of the candidate's link in the chain.
    pub link: u8,
    /// Of the upstream's answer; 0: none came.
    pub status: u16,
    /// What went wrong; `None` while it goes well.
    pub error: Option<&'static str>,
    /// Microseconds since the request came.
    pub started_us: u32,
    /// Until its end, or until it was given up.
    pub took_us: u32,
    /// Before it, between two attempts: for a hint, or the backoff.
    pub waited_us: u32,
    /// What the upstream billed for it although it failed.
    pub cost: Option<Nanos>,
    /// Of one that failed, where the request is traced.
    pub span: Option<SpanId>,
}

/// Mostly there is one; there are never more than a decision has picks, once again per pick for a hint, and the retries.
pub type Attempts = SmallVec<[AttemptRecord; 1]>;

impl AttemptRecord {
    /// The status where that says it all, else what went wrong.
    fn result(&self) -> (Option<u16>, &'static str) {
        match self.error {
            Some(error) if self.status < 300 => (None, error),
            _ => (Some(self.status), ""),
        }
    }

    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us.into())
    }

    fn millis(&self) -> u32 {
        self.took_us / 1000
    }
}

/// Microseconds, as far as they fit.
pub fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// What all attempts of a request share.
pub struct Chain<'a> {
    pub state: &'a State,
    pub live: &'a Live,
    pub decision: &'a Decision,
    pub original: &'a Original,
    /// The client's.
    pub headers: &'a HeaderMap,
    pub endpoint: Endpoint,
    pub dialect: ErrorDialect,
    pub clock: Clock,
    /// Instead of the organization's number of retries.
    pub retries: Option<u8>,
}

/// When the request began, and how long the client wants to wait for its end.
pub type Clock = (Instant, Option<Duration>);

/// The next attempt.
struct Due {
    pick: usize,
    outgoing: Outgoing,
    deadline: Deadline,
    waited: Duration,
}

/// What is known after the first failure.
struct Recovery {
    plan: Plan,
    rng: fastrand::Rng,
    /// Only models with a larger context window than this are worth asking.
    larger_than: Option<u64>,
    /// When the first of those who limit the rate, or cool down, may be asked again.
    soonest: Option<Instant>,
}

fn gone() -> GatewayError {
    GatewayError::new(Kind::Internal, "The request lost its context.")
}

/// Sends the request to the first candidate, `outgoing` and `deadline` are for it, and to others as long as that fails.
/// The context is taken out of `slot` when the answer carries it on.
///
/// # Errors
/// When no candidate has answered; the context says what was tried.
pub async fn run(
    chain: &Chain<'_>,
    outgoing: Outgoing,
    deadline: Deadline,
    slot: &mut Option<Box<RequestContext>>,
) -> Result<Response<Body>, GatewayError> {
    slot.as_mut().ok_or_else(gone)?.opening()?;
    let mut due = Due { pick: 0, outgoing, deadline, waited: Duration::ZERO };
    let (mut recovery, mut fetched) = (None, None);
    loop {
        let at = due.pick;
        let pick = chain.decision.picks.get(at).ok_or_else(gone)?;
        if let Some(Cold::Wanting(links)) = &due.outgoing.cold {
            let context = slot.as_mut().ok_or_else(gone)?;
            let kept = (&mut fetched, &mut **context);
            let made = Box::pin(fetch::run(chain, at, links, due.deadline.at, kept)).await;
            due.outgoing = made.ok_or_else(gone)?;
        }
        let call = dispatch::Call {
            pick,
            endpoint: chain.endpoint,
            outgoing: due.outgoing,
            deadline: due.deadline,
            waited: due.waited,
        };
        let context = slot.as_mut().ok_or_else(gone)?;
        let failure = match dispatch::run(chain.state, chain.live, call, chain.headers, context).await {
            Ok(reply) => match chain.too_long(at, recovery.as_deref(), &reply) {
                Some(failure) => failure,
                None => {
                    let context = slot.take().ok_or_else(gone)?;
                    match respond::run(reply, chain.live, chain.dialect, context, slot).await {
                        Ok(response) => return Ok(response),
                        Err(failure) => failure,
                    }
                }
            },
            Err(failure) => failure,
        };
        let context = slot.as_mut().ok_or_else(gone)?;
        due = Box::pin(chain.recover(&mut recovery, at, failure, context)).await?;
    }
}

impl Chain<'_> {
    /// B3: a refusal because of the request's length goes on to a model with a larger context window, if one is left.
    fn too_long(&self, at: usize, recovery: Option<&Recovery>, reply: &Reply) -> Option<Box<Failure>> {
        let Payload::Refusal(refusal) = &reply.payload else { return None };
        let untried = recovery.map_or(1..self.decision.picks.len(), |recovery| recovery.plan.untried());
        if untried.is_empty() || !self.original.is_replayable() {
            return None;
        }
        let status = reply.head.status.as_u16();
        let window = self.window(at)?;
        let larger = |at: usize| self.window(at).is_some_and(|other| other > window);
        let may = untried.into_iter().any(larger) && classify::is_too_long(status, &refusal.said);
        may.then(|| Failure::too_long(status, window))
    }

    /// Tokens; `None`: unknown.
    fn window(&self, at: usize) -> Option<u64> {
        let pick = self.decision.picks.get(at)?;
        Some(pick.deployment.model.context_window).filter(|window| *window > 0)
    }

    fn deadline(&self, org: OrgId, pick: &Pick) -> Deadline {
        let routing = &self.live.snapshot.routing;
        Deadline::new(&self.state.settings, routing, org, &pick.deployment, self.clock)
            .for_clients_of(self.endpoint)
    }

    /// Records the failure, tells health of it, and waits until the next attempt is due.
    ///
    /// # Errors
    /// When there is none.
    async fn recover(
        &self,
        recovery: &mut Option<Box<Recovery>>,
        at: usize,
        mut failure: Box<Failure>,
        context: &mut RequestContext,
    ) -> Result<Due, GatewayError> {
        let org = context.key.as_ref().map(|key| key.org_id).ok_or_else(gone)?;
        let policy = self.live.snapshot.routing.policy(org);
        let recovery = recovery.get_or_insert_with(|| {
            let plan = Plan::new(Limits::new(policy, self.retries), self.decision.picks.len());
            Box::new(Recovery { plan, rng: fastrand::Rng::new(), larger_than: None, soonest: None })
        });
        let mut attempt = context.attempt_failed(&failure);
        let failed = self.decision.picks.get(at).ok_or_else(gone)?;
        // What the upstream saw break off; what was wrong with it is the client's to know.
        if let Some(own) = context.upload.as_ref().and_then(|upload| upload.take_failure()) {
            return Err(own);
        }
        let now = Instant::now();
        let limited = failure.class == Some(FailureClass::RateLimited);
        let sendable = self.original.is_replayable() || failure.unsent.is_some();
        let left = |pick: &Pick| self.deadline(org, pick).at.saturating_duration_since(now);
        let hinted = (limited && sendable)
            .then(|| recovery.plan.wait_for_hint(at, failure.hint, left(failed), &mut recovery.rng));
        let next = match hinted.flatten() {
            // Not told to health: in a moment it takes requests again.
            Some(wait) => Some(Next { pick: at, wait }),
            None => {
                if let (Some(attempt), Some(class)) = (attempt.as_mut(), failure.class) {
                    attempt.failed(class, failure.hint);
                }
                drop(attempt);
                recovery.learn(&failure, now, Duration::from_millis(policy.cooldown_ms.into()));
                let eligible = |at: usize| {
                    let pick = self.decision.picks.get(at)?;
                    let large = recovery.larger_than.is_none_or(|than| self.window(at) > Some(than));
                    let closed = || self.state.health.remaining(org, pick.deployment.id).is_none();
                    (large && closed()).then(|| left(pick))
                };
                let again = failure.again.then(|| failure.hint.unwrap_or_default());
                let next = sendable.then(|| recovery.plan.next((at, again), eligible, &mut recovery.rng));
                next.flatten()
            }
        };
        let unsent = failure.unsent.take();
        let prepared = next.and_then(|next| Some((next, self.prepare(next.pick, org, unsent, context)?)));
        let Some((Next { pick, wait }, (outgoing, deadline))) = prepared else {
            let soonest = recovery.soonest.map(|at| at.saturating_duration_since(now));
            return Err(self.exhausted(context, *failure, sendable, soonest));
        };
        tracing::debug!(
            request_id = %context.id,
            deployment = &*failed.deployment.name,
            result = failure.error(),
            status = failure.status,
            wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            "an attempt failed; the next is due"
        );
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        if let Err(refused) = reserve::further(context, pick).await {
            return Err(unpaid(refused, &context.attempts));
        }
        Ok(Due { pick, outgoing, deadline, waited: wait })
    }

    fn prepare(
        &self,
        at: usize,
        org: OrgId,
        unsent: Option<crate::upstream::SegmentBody>,
        context: &RequestContext,
    ) -> Option<(Outgoing, Deadline)> {
        let pick = self.decision.picks.get(at)?;
        let upstream = self.live.upstreams.get(pick.deployment.slot)?;
        let called = (upstream, &*pick.deployment);
        let outgoing = self.original.outgoing(self.endpoint, called, unsent, context.cap(), context)?;
        Some((outgoing, self.deadline(org, pick)))
    }

    /// What the client is told when nobody answered: 429 when every candidate limits the rate (B2), the failure itself
    /// when there was one candidate or no time left, else 502 (B4).
    fn exhausted(
        &self,
        context: &RequestContext,
        failure: Failure,
        sendable: bool,
        soonest: Option<Duration>,
    ) -> GatewayError {
        let records = &context.attempts;
        let name = records.last().map_or_else(Arc::default, |last| last.deployment.name.clone());
        let mut error = failure.into_error(&name);
        let ends = |label: &[&str]| {
            let last_of = |record: &&AttemptRecord| {
                let id = record.deployment.id;
                records
                    .iter()
                    .rev()
                    .find(|it| it.deployment.id == id)
                    .is_some_and(|it| std::ptr::eq(it, *record))
            };
            records.iter().filter(last_of).all(|it| it.error.is_some_and(|error| label.contains(&error)))
        };
        let several = records.iter().any(|it| it.deployment.id != records[0].deployment.id);
        let limited = ends(&["rate_limited", "cooling"]);
        if ends(&["unsupported", "overloaded"]) {
            // Nobody was asked: the request itself is told what is wrong with it.
        } else if limited {
            let cooling = self.decision.eliminated.iter().filter_map(|it| match it.reason {
                Reason::Cooling { remaining_ms, .. } => Some(Duration::from_millis(remaining_ms.into())),
                _ => None,
            });
            let wait = soonest.into_iter().chain(cooling).min().unwrap_or_default();
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            error.retry_after_secs = Some(seconds.max(1));
            (error.kind, error.code) = match ends(&["cooling"]) {
                true => (Kind::NoHealthyDeployment, Some(ALL_COOLING)),
                false => (Kind::UpstreamRateLimited, None),
            };
        } else if several && error.code != Some("total_timeout") {
            (error.kind, error.code) = (Kind::UpstreamUnavailable, None);
        }
        if records.len() > 1 {
            let begin = format!("{} attempts have failed, the last one so: ", records.len());
            error.unquoted = error.unquoted.map(|text| format!("{begin}{text}").into());
            error.message = format!("{begin}{}", error.message).into();
        }
        if !sendable {
            let end = " A form that was sent in part can't be sent to another upstream; send it again.";
            error.unquoted = error.unquoted.map(|text| format!("{text}{end}").into());
            error.message = format!("{}{end}", error.message).into();
        }
        GatewayError { metadata: Some(Box::new(json!({ "attempts": list(records) }))), ..error }
    }
}

impl Recovery {
    fn learn(&mut self, failure: &Failure, now: Instant, cooldown: Duration) {
        self.larger_than = self.larger_than.max(failure.larger_than);
        let limited = failure.class == Some(FailureClass::RateLimited);
        if limited || failure.kind == Kind::NoHealthyDeployment {
            let at = now + failure.hint.unwrap_or(cooldown);
            self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
        }
    }
}

/// The budgets do not pay for another attempt, so this is the end.
fn unpaid(mut refused: GatewayError, records: &[AttemptRecord]) -> GatewayError {
    let metadata = refused.metadata.get_or_insert_with(|| Box::new(json!({})));
    metadata["attempts"] = list(records).into();
    let begin = format!("{} attempts have failed, and another one is not paid for: ", records.len());
    refused.message = format!("{begin}{}", refused.message).into();
    refused
}

/// All attempts, for `error.metadata.attempts`.
fn list(records: &[AttemptRecord]) -> Vec<serde_json::Value> {
    let attempt = |record: &AttemptRecord| {
        let (status, error) = record.result();
        json!({
            "deployment": &*record.deployment.name,
            "provider": &*record.deployment.provider,
            "model": &*record.deployment.upstream_model,
            "link": record.link,
            "result": status.map_or_else(|| error.to_owned(), |status| status.to_string()),
            "error": record.error,
            "latency_ms": record.millis(),
            "waited_ms": record.waited_us / 1000,
        })
    };
    records.iter().map(attempt).collect()
}

/// `error.code` when candidates have begun to cool down since the decision was made.
const ALL_COOLING: &str = super::route::ALL_COOLING;

/// Longest value of `x-nemo-chain` (B6).
const MAX_CHAIN: usize = 2048;
const MORE: &str = ", ...";

/// Puts what was tried into the headers of an answer: the number always, the list when something failed.
pub fn describe(records: &[AttemptRecord], own: &mut HeaderMap) {
    if let Some(count) = count(records) {
        own.insert(headers::ATTEMPTS, count);
    }
    list_failed(records, own);
}

/// How many there were, if there was one.
pub fn count(records: &[AttemptRecord]) -> Option<HeaderValue> {
    match records.len() {
        0 => None,
        1 => Some(HeaderValue::from_static("1")),
        several => Some(HeaderValue::from(several)),
    }
}

/// Puts what was tried into the headers, when something failed.
pub fn list_failed(records: &[AttemptRecord], own: &mut HeaderMap) {
    match records {
        [] => {}
        [only] if only.error.is_none() => {}
        tried => _ = own.insert(headers::CHAIN, value(tried)),
    }
}

/// `provider/model;result;12ms` for each attempt, separated by commas.
fn value(records: &[AttemptRecord]) -> HeaderValue {
    let mut text = String::new();
    for record in records {
        let begin = text.len();
        let separator = if begin == 0 { "" } else { ", " };
        let (provider, model) =
            (clean(&record.deployment.provider), clean(&record.deployment.upstream_model));
        let written = match record.result() {
            (Some(status), _) => write!(text, "{separator}{provider}/{model};{status};{}ms", record.millis()),
            (None, error) => write!(text, "{separator}{provider}/{model};{error};{}ms", record.millis()),
        };
        if written.is_err() || text.len() > MAX_CHAIN - MORE.len() {
            text.truncate(begin);
            text.push_str(MORE);
            break;
        }
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("?"))
}

/// A name without what has a meaning in the list, or none in a header.
fn clean(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, ',' | ';') { c } else { '_' };
    name.chars().take(MAX_CHAIN / 4).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn record(provider: &str, model: &str, status: u16, error: Option<&'static str>) -> AttemptRecord {
        AttemptRecord {
            deployment: testing::deployment(provider, model),
            link: 0,
            status,
            error,
            started_us: 0,
            took_us: 812_345,
            waited_us: 0,
            cost: None,
            span: None,
        }
    }

    fn headers(records: &[AttemptRecord]) -> (String, String) {
        let mut own = HeaderMap::new();
        describe(records, &mut own);
        let text = |name| own.get(name).map_or("", |value: &HeaderValue| value.to_str().unwrap()).to_owned();
        (text(headers::ATTEMPTS), text(headers::CHAIN))
    }

    #[test]
    fn the_chain_lists_what_failed_and_who_answered() {
        let good = record("openai", "gpt-5.2", 200, None);
        let failed = record("vertex", "gemini-2.5-flash", 503, Some("failed"));
        let silent = record("anthropic", "claude", 0, Some("timeout"));
        let cut = record("x", "y", 200, Some("truncated"));
        assert_eq!(headers(&[]), (String::new(), String::new()));
        assert_eq!(headers(std::slice::from_ref(&good)), ("1".into(), String::new()));
        assert_eq!(
            headers(&[failed, silent, cut, good]),
            (
                "4".into(),
                "vertex/gemini-2.5-flash;503;812ms, anthropic/claude;timeout;812ms, x/y;truncated;812ms, \
                 openai/gpt-5.2;200;812ms"
                    .into()
            )
        );
    }

    /// B6: names are the operator's, and may hold anything.
    #[test]
    fn the_chain_is_clean_and_bounded() {
        let odd = record("a,b;c", "ü\r\nx: y", 0, Some("connect"));
        assert_eq!(headers(&[odd]).1, "a_b_c/___x:_y;connect;812ms");
        let long = record("provider", &"m".repeat(300), 503, Some("failed"));
        let (count, chain) = headers(&vec![long; 20]);
        assert_eq!(count, "20");
        assert!(chain.len() <= MAX_CHAIN && chain.len() > MAX_CHAIN - 350, "{}", chain.len());
        assert!(chain.ends_with("ms, ..."), "{chain}");
        let huge = record("provider", &"m".repeat(9000), 503, Some("failed"));
        assert!(headers(&[huge]).1.len() <= MAX_CHAIN);
    }
}
