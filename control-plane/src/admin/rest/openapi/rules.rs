//! What the checks of `admin/validate.rs` want of a member, as JSON schema. A schema that said less would send callers
//! into refusals; schemathesis finds one that says more.

use nemo_snapshot::Strategy;
use nemo_types::{Unit, endpoint::LABELS};
use serde_json::{Value, json};

use super::schema::Direction;
use crate::{
    admin::{
        ops::settings,
        validate::{MAX_PAGE, MAX_WEIGHT},
    },
    webhooks::event_types,
};

const NAME: &str = r#"{"minLength": 1, "maxLength": 128, "examples": ["Acme"],
    "pattern": "^[^\\s\\x00-\\x1f\\x7f-\\x9f]([^\\x00-\\x1f\\x7f-\\x9f]*[^\\s\\x00-\\x1f\\x7f-\\x9f])?$"}"#;
const SLUG: &str = r#"{"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$", "minLength": 1, "maxLength": 64}"#;
const PROVIDER: &str = r#"{"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$", "minLength": 1, "maxLength": 64,
    "examples": ["openai"]}"#;
const MODEL: &str = r#"{"pattern": "^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,255}$", "minLength": 1, "maxLength": 256,
    "examples": ["openai/gpt-5.2"]}"#;
const ALIAS: &str = r#"{"pattern": "^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,255}$", "minLength": 1, "maxLength": 256,
    "examples": ["gpt-latest"]}"#;
const ALLOWED_MODEL: &str = r#"{"pattern": "^[._:/@*-]*[A-Za-z0-9][A-Za-z0-9._:/@*-]*$", "minLength": 1,
    "maxLength": 256, "examples": ["openai/*"]}"#;
const NETWORK: &str = r#"{"examples": ["10.0.0.0/8"], "pattern": "^(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(/(3[0-2]|[12]?[0-9]))?|([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?|([0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,5})?::(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$"}"#;
const METADATA: &str = r#"{"maxLength": 4096, "contentMediaType": "application/json",
    "examples": ["{\"cost_center\": \"42\"}"]}"#;
const EMAIL: &str = r#"{"maxLength": 254, "examples": ["ada@example.com"],
    "pattern": "^[^@\\s\\x00-\\x1f\\x7f-\\x9f<>(),;:\"\\\\\\[\\]]{1,64}@[^@.\\s\\x00-\\x1f\\x7f-\\x9f<>(),;:\"\\\\\\[\\]]([^@\\s\\x00-\\x1f\\x7f-\\x9f<>(),;:\"\\\\\\[\\]]*[^@.\\s\\x00-\\x1f\\x7f-\\x9f<>(),;:\"\\\\\\[\\]])?$"}"#;
const ROLE: &str = r#"{"enum": ["owner", "admin", "member", "viewer"]}"#;
const SECRET: &str = r#"{"minLength": 1, "maxLength": 8192, "pattern": "^[!-~]([ -~]*[!-~])?$", "writeOnly": true,
    "examples": ["sk-proj-1234567890"]}"#;
const BASE_URL: &str = r#"{"format": "uri", "maxLength": 2048,
    "pattern": "^https?://(((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|([A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?\\.){0,5}[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(:[0-9]{1,4})?(/[A-Za-z0-9._~/-]*)?$",
    "examples": ["https://api.openai.com/v1"]}"#;
const WEBHOOK_URL: &str = r#"{"format": "uri", "maxLength": 2048,
    "pattern": "^https://[a-z][a-z0-9]{0,50}\\.example\\.com(:[0-9]{1,4})?(/[A-Za-z0-9._~/-]*)?$",
    "examples": ["https://hooks.example.com/nemo"]}"#;
const UPSTREAM_MODEL: &str = r#"{"minLength": 1, "maxLength": 256, "pattern": "^[!-~]{1,256}$"}"#;
const UUID: &str = r#"{"format": "uuid", "examples": ["019acb51-7d3e-7c40-9d0a-3c1f2b4a5d6e"]}"#;
const UUID_OR_NONE: &str =
    r#"{"pattern": "^([0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})?$"}"#;
const PRICE: &str = r#"{"minimum": 0, "maximum": 10000000000000, "examples": [2500000000]}"#;
const PRICE_ID: &str = r#"{"pattern": "^[!-~]{1,400}$", "minLength": 1, "maxLength": 400,
    "examples": ["openai/gpt-5.2@2026-11-21T08:00:00Z"]}"#;
const MILLIS: &str = r#"{"minimum": 1, "maximum": 86400000, "examples": [30000]}"#;
const EXPIRY: &str = r#"{"examples": ["2099-12-31T23:59:59Z"]}"#;
const FILTER: &str = r#"{"minLength": 1, "maxLength": 256, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$"}"#;
const KEY_STATE: &str = r#"{"enum": ["active", "disabled", "expired"]}"#;
const USD: &str = r#"{"pattern": "^[0-9]{1,9}([.][0-9]{1,9})?$", "examples": ["25", "0.5"]}"#;
const PER_MINUTE: &str = r#"{"minimum": 1, "maximum": 1000000000000, "examples": [600]}"#;
const PER_MINUTE_OR_NONE: &str = r#"{"maximum": 1000000000000, "examples": [600]}"#;
const RATE_MODEL: &str = r#"{"pattern": "^([._:/@*-]*[A-Za-z0-9][A-Za-z0-9._:/@*-]*)?$", "maxLength": 256,
    "examples": ["openai/*"]}"#;
const GROUP_BY: &str = r#"{"pattern": "^(org|team|key|model|provider|endpoint)(,(org|team|key|model|provider|endpoint))*$",
    "examples": ["team,model"]}"#;

/// Message and member, whether it must be there, and the keywords for it (for each entry of a list). `*` stands for
/// every request, `List*` for those of lists; the first row that fits counts.
const RULES: &[(&str, &str, bool, &str)] = &[
    (
        "CreateAdminTokenRequest",
        "role",
        false,
        r#"{"enum": ["owner", "admin", "member", "viewer", "operator", ""]}"#,
    ),
    ("CreateCredentialRequest", "provider", true, PROVIDER),
    ("CreateCredentialRequest", "secret", true, SECRET),
    ("CreateDeploymentRequest", "base_url", false, BASE_URL),
    ("CreateDeploymentRequest", "credential_id", false, UUID_OR_NONE),
    ("CreateDeploymentRequest", "model", true, MODEL),
    ("CreateDeploymentRequest", "name", false, NAME),
    ("CreateDeploymentRequest", "provider", true, PROVIDER),
    ("CreateDeploymentRequest", "upstream_model", false, UPSTREAM_MODEL),
    ("CreateMemberRequest", "email", false, EMAIL),
    (
        "CreateMemberRequest",
        "subject",
        false,
        r#"{"minLength": 1, "maxLength": 255, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]+$"}"#,
    ),
    ("CreateBudgetRequest", "name", true, NAME),
    ("CreateBudgetRequest", "limit_usd", true, USD),
    ("CreateBudgetRequest", "window", true, r#"{"enum": ["day", "week", "month", "rolling", "total"]}"#),
    ("CreateBudgetRequest", "window_hours", false, r#"{"maximum": 744, "examples": [24]}"#),
    (
        "CreateBudgetRequest",
        "time_zone",
        false,
        r#"{"enum": ["", "UTC", "Europe/Berlin", "America/New_York"]}"#,
    ),
    ("CreateBudgetRequest", "over_budget", false, r#"{"enum": ["", "cap", "reject"]}"#),
    ("CreateBudgetRequest", "no_lease", false, r#"{"enum": ["", "deny", "allow"]}"#),
    ("CreateBudgetRequest", "lost_lease", false, r#"{"enum": ["", "charge", "release"]}"#),
    ("CreateBudgetRequest", "reservation", false, r#"{"enum": ["", "strict", "estimated"]}"#),
    ("CreateBudgetRequest", "thresholds", false, r#"{"minimum": 1, "maximum": 1000, "examples": [80]}"#),
    ("CreateBudgetRequest", "team_id", false, UUID_OR_NONE),
    ("CreateBudgetRequest", "key_id", false, UUID_OR_NONE),
    ("UpdateBudgetRequest", "limit_usd", false, USD),
    ("UpdateBudgetRequest", "over_budget", false, r#"{"enum": ["cap", "reject"]}"#),
    ("UpdateBudgetRequest", "no_lease", false, r#"{"enum": ["deny", "allow"]}"#),
    ("UpdateBudgetRequest", "lost_lease", false, r#"{"enum": ["charge", "release"]}"#),
    ("UpdateBudgetRequest", "reservation", false, r#"{"enum": ["strict", "estimated"]}"#),
    ("Thresholds", "percent", false, r#"{"minimum": 1, "maximum": 1000, "examples": [80]}"#),
    ("ListBudgetLeasesRequest", "state", false, r#"{"enum": ["active", "done", "held", "closed"]}"#),
    ("CreateRateLimitRequest", "name", true, NAME),
    ("CreateRateLimitRequest", "model", false, RATE_MODEL),
    ("CreateRateLimitRequest", "team_id", false, UUID_OR_NONE),
    ("CreateRateLimitRequest", "key_id", false, UUID_OR_NONE),
    ("CreateRateLimitRequest", "requests_per_minute", false, PER_MINUTE),
    ("CreateRateLimitRequest", "tokens_per_minute", false, PER_MINUTE),
    (
        "CreateRateLimitRequest",
        "concurrent",
        false,
        r#"{"minimum": 1, "maximum": 1000000000, "examples": [8]}"#,
    ),
    ("UpdateRateLimitRequest", "model", false, RATE_MODEL),
    ("UpdateRateLimitRequest", "requests_per_minute", false, PER_MINUTE_OR_NONE),
    ("UpdateRateLimitRequest", "tokens_per_minute", false, PER_MINUTE_OR_NONE),
    ("UpdateRateLimitRequest", "concurrent", false, r#"{"maximum": 1000000000, "examples": [8]}"#),
    ("CreateModelGroupRequest", "links", true, "{}"),
    ("CreateModelGroupRequest", "name", true, MODEL),
    ("CreateModelGroupRequest", "required_tags", false, SLUG),
    ("RequiredTags", "names", false, SLUG),
    ("CreateDeploymentRequest", "rpm", false, r#"{"minimum": 1, "maximum": 2000000000, "examples": [500]}"#),
    (
        "CreateDeploymentRequest",
        "tpm",
        false,
        r#"{"minimum": 1, "maximum": 2000000000, "examples": [200000]}"#,
    ),
    ("UpdateDeploymentRequest", "rpm", false, r#"{"maximum": 2000000000, "examples": [500]}"#),
    ("UpdateDeploymentRequest", "tpm", false, r#"{"maximum": 2000000000, "examples": [200000]}"#),
    ("CreateAdminTokenRequest", "name", true, NAME),
    ("CreateCredentialRequest", "name", true, NAME),
    ("CreateOrganizationRequest", "name", true, NAME),
    ("CreateTeamRequest", "name", true, NAME),
    ("IssueKeyRequest", "name", true, NAME),
    ("IssueKeyRequest", "team_id", true, UUID),
    ("IssueKeyRequest", "allowed_models", false, ALLOWED_MODEL),
    ("IssueKeyRequest", "allowed_cidrs", false, NETWORK),
    ("IssueKeyRequest", "default_tags", false, SLUG),
    ("IssueKeyRequest", "metadata", false, METADATA),
    ("UpdateKeyRequest", "metadata", false, METADATA),
    ("AllowedModels", "names", false, ALLOWED_MODEL),
    ("AllowedCidrs", "networks", false, NETWORK),
    ("DefaultTags", "names", false, SLUG),
    ("ListKeysRequest", "state", false, KEY_STATE),
    ("ListMembersRequest", "role", false, ROLE),
    (
        "ListRequestsRequest",
        "status",
        false,
        r#"{"pattern": "^([1-5]xx|[1-5][0-9][0-9])$", "examples": ["4xx"]}"#,
    ),
    ("ListRequestsRequest", "min_cost_nanos", false, r#"{"minimum": 0}"#),
    ("ListRequestsRequest", "min_total_us", false, r#"{"maximum": 9223372036854775807}"#),
    ("QueryUsageRequest", "interval", false, r#"{"enum": ["hour", "day", "month", "none"]}"#),
    ("QueryUsageRequest", "group_by", false, GROUP_BY),
    ("QueryUsageRequest", "order_by", false, r#"{"enum": ["time", "cost", "requests", "tokens", "errors"]}"#),
    ("QueryUsageRequest", "endpoint", false, FILTER),
    (
        "ListLedgerRequest",
        "kind",
        false,
        r#"{"enum": ["settle", "overrun", "forfeit", "release", "adjust", "purchase", "grant", "refund", "fee"]}"#,
    ),
    ("ListLedgerRequest", "source", false, FILTER),
    ("VerifyAuditRequest", "noted_seq", false, r#"{"maximum": 9223372036854775807}"#),
    ("VerifyAuditRequest", "noted_hash", false, r#"{"pattern": "^[0-9a-f]{64}$"}"#),
    ("Timeouts", "connect_ms", false, MILLIS),
    ("Timeouts", "first_byte_ms", false, MILLIS),
    ("Timeouts", "idle_ms", false, MILLIS),
    ("Timeouts", "total_ms", false, MILLIS),
    ("UnitPrice", "unit", true, "{}"),
    ("UnitPrice", "quality", false, r#"{"maxLength": 32, "pattern": "^[ -~]*$"}"#),
    ("UnitPrice", "size", false, r#"{"maxLength": 32, "pattern": "^[ -~]*$"}"#),
    ("UnitPrice", "price", false, r#"{"minimum": 0, "maximum": 100000000000000000}"#),
    ("CreateCreditMovementRequest", "kind", true, r#"{"enum": ["grant", "refund"]}"#),
    (
        "CreateCreditMovementRequest",
        "amount_usd",
        true,
        r#"{"pattern": "^(0|[1-9][0-9]{0,6})\\.[0-9]{0,8}[1-9]$", "examples": ["5.01"]}"#,
    ),
    (
        "CreateCreditMovementRequest",
        "reason",
        false,
        r#"{"maxLength": 256, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$"}"#,
    ),
    (
        "CreateCreditMovementRequest",
        "source",
        false,
        r#"{"maxLength": 128, "pattern": "^(invoice-[!-~]*)?$", "examples": ["invoice-42"]}"#,
    ),
    (
        "QuotePurchaseRequest",
        "credit_usd",
        true,
        r#"{"maxLength": 32, "examples": ["100.00"],
            "pattern": "^0*([1-9][0-9]{0,5}(\\.[0-9]{1,2}0*)?|1000000(\\.0+)?|0\\.(0[1-9]|[1-9][0-9]?)0*)$"}"#,
    ),
    ("ListCreditMovementsRequest", "kind", false, r#"{"enum": ["purchase", "grant", "refund"]}"#),
    (
        "ListPaymentEventsRequest",
        "outcome",
        false,
        r#"{"enum": ["booked", "duplicate", "ignored", "refused"]}"#,
    ),
    ("ListPaymentEventsRequest", "payment_id", false, FILTER),
    ("CreateWebhookRequest", "name", true, NAME),
    ("CreateWebhookRequest", "url", true, WEBHOOK_URL),
    ("UpdateWebhookRequest", "url", false, WEBHOOK_URL),
    ("ListWebhookDeliveriesRequest", "webhook_id", false, UUID),
    ("ListWebhookDeliveriesRequest", "state", false, r#"{"enum": ["pending", "delivered", "failed"]}"#),
    ("List*", "name", false, FILTER),
    ("List*", "name_prefix", false, FILTER),
    ("List*", "email", false, FILTER),
    ("List*", "email_prefix", false, FILTER),
    ("List*", "role", false, r#"{"enum": ["owner", "admin", "member", "viewer", "operator"]}"#),
    ("List*", "actor", false, FILTER),
    ("List*", "action", false, FILTER),
    ("List*", "target_kind", false, FILTER),
    ("List*", "target_id", false, FILTER),
    ("List*", "endpoint", false, FILTER),
    ("List*", "error_code", false, FILTER),
    ("List*", "client_request_id", false, FILTER),
    ("*", "credential_id", false, UUID),
    (
        "SetCooldownRequest",
        "duration_ms",
        true,
        r#"{"minimum": 1, "maximum": 604800000, "examples": [600000]}"#,
    ),
    (
        "SetCooldownRequest",
        "reason",
        false,
        r#"{"maxLength": 256, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$"}"#,
    ),
    ("PutSettingRequest", "value", true, r#"{"minLength": 1, "examples": ["\"simple-shuffle\""]}"#),
    ("PutModelRequest", "model", true, "{}"),
    ("RotateKeyRequest", "overlap_seconds", false, r#"{"maximum": 604800}"#),
    ("UpdateCredentialRequest", "secret", false, SECRET),
    ("UpdateDeploymentRequest", "credential_id", false, UUID_OR_NONE),
    ("UpdateDeploymentRequest", "base_url", false, BASE_URL),
    ("UpdateDeploymentRequest", "upstream_model", false, UPSTREAM_MODEL),
    ("UpdateMemberRequest", "role", true, ROLE),
    ("CreateMemberRequest", "role", true, ROLE),
    ("UpdateModelGroupRequest", "name", false, MODEL),
    (
        "ListRequestsRequest",
        "outcome",
        false,
        r#"{"enum": ["ok", "error", "cancelled", "interrupted", "lost"]}"#,
    ),
    ("Links", "links", true, "{}"),
    ("Link", "deployments", true, "{}"),
    ("LinkDeployment", "deployment_id", true, UUID),
    ("Model", "aliases", false, ALIAS),
    ("Model", "tags", false, SLUG),
    ("Model", "input_modalities", false, SLUG),
    ("Model", "output_modalities", false, SLUG),
    ("Model", "endpoints", false, SLUG),
    ("Model", "owned_by", false, SLUG),
    ("Model", "display_name", false, NAME),
    ("Model", "created_unix", false, r#"{"minimum": 0}"#),
    ("Model", "context_window", false, r#"{"maximum": 9223372036854775807}"#),
    ("Model", "max_output_tokens", false, r#"{"maximum": 9223372036854775807}"#),
    ("Offering", "provider", true, PROVIDER),
    ("Offering", "upstream_model", false, UPSTREAM_MODEL),
    ("Price", "input", false, PRICE),
    ("Price", "output", false, PRICE),
    ("Price", "cache_read", false, PRICE),
    ("Price", "cache_write", false, PRICE),
    ("Price", "cache_write_1h", false, PRICE),
    ("Price", "reasoning", false, PRICE),
    ("PriceStep", "above_input_tokens", false, r#"{"maximum": 1000000000, "examples": [200000]}"#),
    (
        "PriceStep",
        "service_tier",
        false,
        r#"{"pattern": "^[A-Za-z0-9_.-]{0,23}$", "maxLength": 23, "examples": ["flex"]}"#,
    ),
    ("PriceStep", "input", false, PRICE),
    ("PriceStep", "output", false, PRICE),
    ("PriceStep", "cache_read", false, PRICE),
    ("PriceStep", "cache_write", false, PRICE),
    ("PriceStep", "cache_write_1h", false, PRICE),
    ("PriceStep", "reasoning", false, PRICE),
    ("CreatePriceRequest", "model", true, MODEL),
    ("CreatePriceRequest", "provider", true, PROVIDER),
    ("CreatePriceRequest", "price", true, "{}"),
    ("GetPriceRequest", "id", false, PRICE_ID),
    ("DeletePriceRequest", "id", false, PRICE_ID),
    (
        "ListCatalogChangesRequest",
        "state",
        false,
        r#"{"enum": ["applied", "held", "approved", "rejected", "superseded"]}"#,
    ),
    ("RerateRequest", "model", true, FILTER),
    ("RerateRequest", "from", true, r#"{"examples": ["2026-11-01T00:00:00Z"]}"#),
    ("RerateRequest", "org_id", false, UUID_OR_NONE),
    ("*", "name", false, NAME),
    ("*", "id", false, UUID),
    ("*", "org_id", false, UUID),
    ("*", "team_id", false, UUID),
    ("*", "key_id", false, UUID),
    ("*", "budget_id", false, UUID),
    ("*", "lease_id", false, UUID),
    ("*", "deployment_id", false, UUID),
    ("*", "expires_at", false, EXPIRY),
    ("*", "model", false, FILTER),
    ("*", "provider", false, FILTER),
    ("*", "tag", false, FILTER),
    ("*", "page_token", false, r#"{"minLength": 1, "pattern": "^[0-9a-f]+$"}"#),
];

/// Message and member of lists, and the keywords for the list itself.
const LISTS: &[(&str, &str, &str)] = &[
    ("CreateModelGroupRequest", "links", r#"{"minItems": 1, "maxItems": 16}"#),
    ("Links", "links", r#"{"minItems": 1, "maxItems": 16}"#),
    ("Link", "deployments", r#"{"minItems": 1, "maxItems": 64}"#),
    ("CreateModelGroupRequest", "required_tags", r#"{"maxItems": 32, "uniqueItems": true}"#),
    ("RequiredTags", "names", r#"{"maxItems": 32, "uniqueItems": true}"#),
    ("CreateBudgetRequest", "thresholds", r#"{"maxItems": 20}"#),
    ("Thresholds", "percent", r#"{"maxItems": 20}"#),
    ("IssueKeyRequest", "allowed_models", r#"{"maxItems": 1000}"#),
    ("IssueKeyRequest", "allowed_endpoints", r#"{"maxItems": 1000}"#),
    ("IssueKeyRequest", "allowed_cidrs", r#"{"maxItems": 100}"#),
    ("IssueKeyRequest", "default_tags", r#"{"maxItems": 32, "uniqueItems": true}"#),
    ("CreateWebhookRequest", "event_types", r#"{"maxItems": 7}"#),
    ("EventTypes", "names", r#"{"maxItems": 7}"#),
    ("AllowedModels", "names", r#"{"maxItems": 1000}"#),
    ("AllowedEndpoints", "names", r#"{"maxItems": 1000}"#),
    ("AllowedCidrs", "networks", r#"{"maxItems": 100}"#),
    ("DefaultTags", "names", r#"{"maxItems": 32, "uniqueItems": true}"#),
    ("Price", "units", r#"{"maxItems": 64}"#),
    ("Price", "steps", r#"{"maxItems": 32}"#),
    ("Model", "aliases", r#"{"maxItems": 64}"#),
    ("Model", "tags", r#"{"maxItems": 64}"#),
    ("Model", "input_modalities", r#"{"maxItems": 64}"#),
    ("Model", "output_modalities", r#"{"maxItems": 64}"#),
    ("Model", "endpoints", r#"{"maxItems": 64}"#),
    ("Model", "offerings", r#"{"maxItems": 64}"#),
];

/// Members that only answers have. The path gives the id of a model.
const OUTPUT_ONLY: &[(&str, &str)] =
    &[("Model", "id"), ("Model", "source"), ("Model", "etag"), ("Model", "warnings")];

pub(super) fn is_output_only(message: &str, field: &str) -> bool {
    OUTPUT_ONLY.contains(&(message, field))
}

pub(super) fn is_required(message: &str, field: &str) -> bool {
    row(message, field).is_some_and(|row| row.2)
}

pub(super) fn model_name() -> Value {
    let mut schema = keywords(MODEL);
    schema["type"] = json!("string");
    schema
}

/// Keywords for one value of a member.
pub(super) fn find(message: &str, field: &str, direction: Direction) -> Option<Value> {
    if direction == Direction::Response {
        return None;
    }
    match field {
        "strategy" => {
            let names = Strategy::ALL.iter().map(|strategy| strategy.name());
            Some(json!({ "enum": names.chain([""]).collect::<Vec<_>>() }))
        }
        "unit" => Some(json!({ "enum": Unit::ALL.iter().map(|unit| unit.name()).collect::<Vec<_>>() })),
        // Patterns that match no endpoint are refused, so the useful ones are listed.
        "allowed_endpoints" => Some(json!({ "enum": endpoints() })),
        "event_types" if message == "CreateWebhookRequest" => Some(json!({ "enum": event_types::ALL })),
        "event_type" if message == "ListWebhookDeliveriesRequest" => {
            Some(json!({ "enum": event_types::ALL }))
        }
        "names" if message == "EventTypes" => Some(json!({ "enum": event_types::ALL })),
        "names" if message == "AllowedEndpoints" => Some(json!({ "enum": endpoints() })),
        "key" if message.ends_with("SettingRequest") => Some(json!({ "enum": settings::names() })),
        "page_size" => Some(json!({ "maximum": MAX_PAGE })),
        "weight" => Some(json!({ "maximum": MAX_WEIGHT })),
        _ => row(message, field).map(|row| keywords(row.3)),
    }
}

fn endpoints() -> Vec<String> {
    let families = ["*", "images.*", "audio.*"];
    LABELS.iter().chain(&families).map(|label| (*label).to_owned()).collect()
}

/// Keywords for a request as a whole.
pub(super) fn whole(message: &str) -> Option<Value> {
    let any_of = |members: &[&str]| {
        let members: Vec<_> = members.iter().map(|member| json!({ "required": [member] })).collect();
        Some(json!({ "anyOf": members }))
    };
    match message {
        // Whoever joins is known by one or the other.
        "CreateMemberRequest" => any_of(&["email", "subject"]),
        // A limit limits something.
        "CreateRateLimitRequest" => any_of(&["requests_per_minute", "tokens_per_minute", "concurrent"]),
        _ => None,
    }
}

/// Keywords for a list as a whole.
pub(super) fn list(message: &str, field: &str, direction: Direction) -> Option<Value> {
    let row = LISTS.iter().find(|row| (row.0, row.1) == (message, field));
    row.filter(|_| direction == Direction::Request).map(|row| keywords(row.2))
}

fn row(message: &str, field: &str) -> Option<&'static (&'static str, &'static str, bool, &'static str)> {
    let fits = |of: &str| match of {
        "*" => message.ends_with("Request"),
        "List*" => message.starts_with("List") && message.ends_with("Request"),
        of => of == message,
    };
    RULES.iter().find(|row| row.1 == field && fits(row.0))
}

/// That the text is JSON is tested.
fn keywords(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::rest::api::API;

    /// A member that was renamed would silently lose its rule.
    #[test]
    fn every_rule_is_json_for_a_member_that_exists() {
        let pairs = RULES.iter().map(|row| (row.0, row.1, row.3)).chain(LISTS.iter().copied());
        for (message, field, text) in pairs {
            assert!(
                serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object()),
                "{message}.{field}"
            );
            let known =
                |name: &str| API.message(name).is_some_and(|of| of.fields.iter().any(|of| of.name == field));
            let used = match message {
                "*" => API.messages().keys().any(|name| name.ends_with("Request") && known(name)),
                "List*" => API.messages().keys().any(|name| name.starts_with("List") && known(name)),
                name => known(name),
            };
            assert!(used, "there is no {message}.{field}");
        }
    }
}
