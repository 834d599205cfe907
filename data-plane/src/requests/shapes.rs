//! A usage event as clients see it: our own object, and OpenRouter's generation. Pure. Called by [`super`].
//!
//! What is the operator's stays there: node, addresses, credentials, leases. Amounts are exact: decimal text, and where
//! other APIs have a JSON number, a number with the same digits.

use std::sync::Arc;

use nemo_proto::{
    common::Usage,
    usage::{CostSource, Decision, DecisionAttempt, EliminationReason, Outcome, UsageEvent},
};
use nemo_snapshot::Deployment;
use nemo_types::{BudgetId, DeploymentId, Nanos, RequestId};
use prost::Message as _;
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Ours: everything that the log shows.
pub fn request(event: &UsageEvent, known: &[Arc<Deployment>]) -> Value {
    let decision = Decision::decode(&*event.decision).ok().filter(|_| !event.decision.is_empty());
    json!({
        "id": id(event),
        "object": "request",
        "created": event.started_unix_us.div_euclid(1_000_000),
        "client_request_id": text(&event.client_request_id),
        "endpoint": event.endpoint,
        "requested_model": event.requested_model,
        "model": text(&event.model),
        "provider": text(&event.provider),
        "upstream_model": text(&event.upstream_model),
        "stream": event.stream,
        "outcome": outcome(event),
        "http_status": event.http_status,
        "error_code": text(&event.error_code),
        "finish_reason": text(&event.finish_reason),
        "service_tier": text(&event.service_tier),
        "usage": event.usage.as_ref().map(|usage| self::usage(usage, event)),
        "units": event.units.iter().map(|it| json!({
            "unit": it.unit, "quantity": it.quantity, "quality": text(&it.quality), "size": text(&it.size),
        })).collect::<Vec<_>>(),
        "cost_usd": event.cost_nanos.map(|nanos| Nanos(nanos).to_string()),
        "cost_source": source(event),
        "price_id": text(&event.price_id),
        "charges": event.charges.iter().map(|it| json!({
            "budget_id": BudgetId::from_bytes(&it.budget_id).map(|id| id.to_string()),
            "usd": Nanos(it.nanos).to_string(),
        })).collect::<Vec<_>>(),
        "strategy": text(&event.strategy),
        "attempts": event.attempts,
        "attempted": decision.as_ref().map(|it| attempted(it, known)),
        "decision": decision.as_ref().map(|it| summary(it, known)),
        "timings": {
            "total_ms": millis(event.total_us),
            "upstream_ms": millis(event.upstream_us),
            "first_byte_ms": event.first_byte_us.map(millis),
            "overhead_ms": millis(event.overhead_us),
        },
        "request_bytes": event.request_bytes,
        "response_bytes": event.response_bytes,
        "config_version": event.config_revision,
        "metadata": serde_json::from_str::<Map<String, Value>>(&event.metadata).ok(),
    })
}

/// OpenRouter's. What has no counterpart here is null.
pub fn generation(event: &UsageEvent, known: &[Arc<Deployment>]) -> Value {
    let decision = Decision::decode(&*event.decision).unwrap_or_default();
    let usage = event.usage.unwrap_or_default();
    let cost = event.cost_nanos.map_or(Value::Null, usd);
    let generation_us = event.total_us.saturating_sub(event.first_byte_us.unwrap_or(event.total_us));
    json!({ "data": {
        "id": id(event),
        "upstream_id": null,
        "created_at": created_at(event),
        "model": text(&event.model),
        "provider_name": text(&event.provider),
        "app_id": null,
        "external_user": null,
        "origin": "",
        "api_type": api_type(&event.endpoint),
        "router": null,
        "streamed": event.stream,
        "cancelled": event.outcome() == Outcome::Cancelled,
        "finish_reason": text(&event.finish_reason),
        "native_finish_reason": text(&event.finish_reason),
        // Whole milliseconds: until the first content, and from there to the end.
        "latency": event.first_byte_us.unwrap_or(event.total_us) / 1000,
        "generation_time": generation_us / 1000,
        "moderation_latency": null,
        "tokens_prompt": usage.input_tokens,
        "tokens_completion": usage.output_tokens,
        "native_tokens_prompt": usage.input_tokens,
        "native_tokens_completion": usage.output_tokens,
        "native_tokens_reasoning": usage.reasoning_tokens,
        "native_tokens_cached": usage.cache_read_tokens,
        "native_tokens_completion_images": units(event, "image_output_tokens"),
        "num_media_prompt": null,
        "num_media_completion": units(event, "images"),
        "num_search_results": units(event, "search_units"),
        "total_cost": cost,
        "usage": cost,
        "upstream_inference_cost": null,
        "cache_discount": null,
        "is_byok": false,
        "provider_responses": attempted(&decision, known).into_iter().map(|it| json!({
            "provider_name": it["provider"], "status": it["status"], "latency": it["took_ms"],
        })).collect::<Vec<_>>(),
    }})
}

fn id(event: &UsageEvent) -> Option<String> {
    RequestId::from_bytes(&event.request_id).map(|id| id.to_string())
}

/// `null` says that there is none.
fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn outcome(event: &UsageEvent) -> &'static str {
    match event.outcome() {
        Outcome::Ok => "ok",
        Outcome::Error | Outcome::Unspecified => "error",
        Outcome::Cancelled => "cancelled",
        Outcome::Interrupted => "interrupted",
        Outcome::Lost => "lost",
    }
}

fn source(event: &UsageEvent) -> Option<&'static str> {
    match event.cost_source() {
        CostSource::Unspecified => None,
        CostSource::Provider => Some("provider"),
        CostSource::Priced => Some("priced"),
        CostSource::Estimated => Some("estimated"),
    }
}

/// In OpenAI's words, with what they have none for beside them.
fn usage(usage: &Usage, event: &UsageEvent) -> Value {
    let total =
        usage.input_tokens.zip(usage.output_tokens).map(|(input, output)| input.saturating_add(output));
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens,
            "audio_tokens": usage.audio_input_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.audio_output_tokens,
        },
        "estimated": event.usage_estimated,
    })
}

fn units(event: &UsageEvent, unit: &str) -> Option<u64> {
    let of_unit: Vec<u64> = event.units.iter().filter(|it| it.unit == unit).map(|it| it.quantity).collect();
    (!of_unit.is_empty()).then(|| of_unit.into_iter().fold(0, u64::saturating_add))
}

/// The digits of the amount as a JSON number.
fn usd(nanos: i64) -> Value {
    serde_json::from_str(&Nanos(nanos).to_string()).unwrap_or_default()
}

/// With three decimals.
fn millis(micros: u64) -> Value {
    serde_json::from_str(&format!("{}.{:03}", micros / 1000, micros % 1000)).unwrap_or_default()
}

fn created_at(event: &UsageEvent) -> Option<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.started_unix_us) * 1000).ok()?;
    at.format(&Rfc3339).ok()
}

fn api_type(endpoint: &str) -> &str {
    match endpoint {
        "chat.completions" | "completions" => "completions",
        other => other,
    }
}

/// The deployment at that place of the record, unless it is gone since.
fn deployment<'a>(
    decision: &Decision,
    position: u32,
    known: &'a [Arc<Deployment>],
) -> Option<&'a Arc<Deployment>> {
    let at = usize::try_from(position).ok()?;
    let id = DeploymentId::from_bytes(decision.deployments.chunks_exact(16).nth(at)?)?;
    known.iter().find(|it| it.id == id)
}

fn named(decision: &Decision, position: u32, known: &[Arc<Deployment>]) -> Map<String, Value> {
    let deployment = deployment(decision, position, known);
    Map::from_iter([
        ("provider".to_owned(), json!(deployment.map(|it| &*it.provider))),
        ("model".to_owned(), json!(deployment.map(|it| &*it.model.id))),
    ])
}

fn attempted(decision: &Decision, known: &[Arc<Deployment>]) -> Vec<Value> {
    let one = |attempt: &DecisionAttempt| {
        let mut it = named(decision, attempt.deployment, known);
        it.insert("link".into(), json!(attempt.link));
        it.insert("status".into(), json!(Some(attempt.status).filter(|status| *status > 0)));
        it.insert("error".into(), json!(text(&attempt.error)));
        it.insert("started_ms".into(), millis(attempt.started_us));
        it.insert("took_ms".into(), millis(attempt.took_us));
        Value::Object(it)
    };
    decision.attempts.iter().map(one).collect()
}

/// Which way it went: what could be tried, in which order, and how many were passed over for which reason.
fn summary(decision: &Decision, known: &[Arc<Deployment>]) -> Value {
    let word = |name: &str, family: &str| name.trim_start_matches(family).to_ascii_lowercase();
    let candidates = (0..).zip(&decision.picks).map(|(position, link)| {
        let mut it = named(decision, position, known);
        it.insert("link".into(), json!(link));
        Value::Object(it)
    });
    let mut eliminated = Map::new();
    for it in &decision.eliminated {
        let reason = match it.reason() {
            EliminationReason::Unspecified => "other".to_owned(),
            reason => word(reason.as_str_name(), "ELIMINATION_REASON_"),
        };
        let count = eliminated.get(&reason).and_then(Value::as_u64).unwrap_or_default();
        eliminated.insert(reason, json!(count + 1));
    }
    json!({
        "strategy": word(decision.strategy().as_str_name(), "ROUTING_STRATEGY_").replace('_', "-"),
        "names": decision.names,
        "tags": decision.tags,
        "candidates": candidates.collect::<Vec<_>>(),
        "eliminated": eliminated,
        "refusal": decision.refusal.as_ref().map(|it| word(it.reason().as_str_name(), "REFUSAL_REASON_")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_times_keep_their_digits() {
        for nanos in [0, 1, 1_500_000, 999_999_999, 12_345_678_900, 9_007_199_254_740_993] {
            let written: f64 = usd(nanos).to_string().parse().unwrap();
            assert_eq!(written, Nanos(nanos).to_string().parse::<f64>().unwrap(), "{nanos}");
        }
        assert_eq!(
            (millis(1_234_567).to_string(), millis(7).to_string()),
            ("1234.567".into(), "0.007".into())
        );
    }

    #[test]
    fn attempts_name_provider_and_model_as_long_as_the_deployment_is_there() {
        let deployment = crate::testing::deployment("openai", "gpt-5.2");
        let gone = DeploymentId::generate();
        let decision = Decision {
            deployments: [deployment.id.as_bytes().as_slice(), gone.as_bytes()].concat().into(),
            picks: vec![0, 1],
            attempts: vec![
                DecisionAttempt { deployment: 0, status: 503, took_us: 1500, ..DecisionAttempt::default() },
                DecisionAttempt { deployment: 1, link: 1, ..DecisionAttempt::default() },
            ],
            ..Decision::default()
        };
        let event = UsageEvent { decision: decision.encode_to_vec().into(), ..UsageEvent::default() };
        let known = [deployment];
        let ours = request(&event, &known);
        let of = |at: usize| (&ours["attempted"][at]["provider"], &ours["attempted"][at]["status"]);
        assert_eq!(of(0), (&json!("openai"), &json!(503)));
        assert_eq!(of(1), (&Value::Null, &Value::Null));
        assert_eq!(ours["decision"]["candidates"][0]["model"], "gpt-5.2");
        let theirs = generation(&event, &known);
        assert_eq!(theirs["data"]["provider_responses"][0]["latency"].to_string(), "1.5");
    }

    #[test]
    fn what_is_unknown_is_null_and_not_zero() {
        let event = UsageEvent { usage: Some(Usage::default()), ..UsageEvent::default() };
        let (ours, theirs) = (request(&event, &[]), generation(&event, &[]));
        assert_eq!((&ours["cost_usd"], &ours["usage"]["prompt_tokens"]), (&Value::Null, &Value::Null));
        assert_eq!(
            (&theirs["data"]["total_cost"], &theirs["data"]["tokens_prompt"]),
            (&Value::Null, &Value::Null)
        );
        let known = Usage { input_tokens: Some(0), output_tokens: Some(2), ..Usage::default() };
        let event = UsageEvent { usage: Some(known), cost_nanos: Some(0), ..event };
        let ours = request(&event, &[]);
        assert_eq!((&ours["cost_usd"], &ours["usage"]["total_tokens"]), (&json!("0"), &json!(2)));
    }
}
