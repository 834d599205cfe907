//! Every cell of the table of roles, over REST and gRPC, against a running control plane [R000-16].
//!
//! The table is `docs/roles.md`, which a test of the control plane compares with its code. For each method there is one
//! well-formed request below, mostly about things that don't exist: whoever may is told so, whoever may not is not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf as _, BufMut as _};
use nemo_proto::admin as pb;
use nemo_tests::{
    admin::{Admin, text},
    control::ControlPlane,
    eventually,
    oidc::Issuer,
};
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};

const AUDIENCE: &str = "nemo-admin";
/// Roles in an organization.
const ROLES: [&str; 4] = ["owner", "admin", "member", "viewer"];

/// How one method is called. In `message`, `$org`, `$id` and `$name` stand for the organization, an id of nothing, and a
/// name that is not taken.
struct Method {
    /// `Service.Method`
    name: &'static str,
    verb: &'static str,
    /// With members of the message in braces.
    path: &'static str,
    message: Value,
    encode: fn(Value) -> Vec<u8>,
}

macro_rules! methods {
    ($($service:ident . $method:ident ($request:ident) $verb:ident $path:literal $message:tt)*) => {
        vec![$(Method {
            name: concat!(stringify!($service), ".", stringify!($method)),
            verb: stringify!($verb),
            path: $path,
            message: json!($message),
            encode: |message| serde_json::from_value::<pb::$request>(message).unwrap().encode_to_vec(),
        }),*]
    };
}

fn methods() -> Vec<Method> {
    let mut all = tenancy();
    all.extend(methods! {
        KeyService.IssueKey(IssueKeyRequest) POST "/organizations/{org_id}/keys"
            { "org_id": "$org", "team_id": "$id", "name": "k" }
        KeyService.GetKey(GetKeyRequest) GET "/organizations/{org_id}/keys/{id}" { "org_id": "$org", "id": "$id" }
        KeyService.ListKeys(ListKeysRequest) GET "/organizations/{org_id}/keys" { "org_id": "$org" }
        KeyService.UpdateKey(UpdateKeyRequest) PATCH "/organizations/{org_id}/keys/{id}"
            { "org_id": "$org", "id": "$id", "disabled": true }
        KeyService.RotateKey(RotateKeyRequest) POST "/organizations/{org_id}/keys/{id}/rotate"
            { "org_id": "$org", "id": "$id" }
        KeyService.DeleteKey(DeleteKeyRequest) DELETE "/organizations/{org_id}/keys/{id}"
            { "org_id": "$org", "id": "$id" }
        BudgetService.CreateBudget(CreateBudgetRequest) POST "/organizations/{org_id}/budgets"
            { "org_id": "$org", "name": "$name", "limit_usd": "1", "window": "day" }
        BudgetService.GetBudget(GetBudgetRequest) GET "/organizations/{org_id}/budgets/{id}"
            { "org_id": "$org", "id": "$id" }
        BudgetService.ListBudgets(ListBudgetsRequest) GET "/organizations/{org_id}/budgets" { "org_id": "$org" }
        BudgetService.UpdateBudget(UpdateBudgetRequest) PATCH "/organizations/{org_id}/budgets/{id}"
            { "org_id": "$org", "id": "$id", "disabled": true }
        BudgetService.DeleteBudget(DeleteBudgetRequest) DELETE "/organizations/{org_id}/budgets/{id}"
            { "org_id": "$org", "id": "$id" }
        BudgetService.ListBudgetLeases(ListBudgetLeasesRequest) GET "/organizations/{org_id}/budgets/{id}/leases"
            { "org_id": "$org", "id": "$id" }
        BudgetService.ReleaseLease(ReleaseLeaseRequest)
            POST "/organizations/{org_id}/budgets/{budget_id}/leases/{lease_id}/release"
            { "org_id": "$org", "budget_id": "$id", "lease_id": "$id" }
        RateLimitService.CreateRateLimit(CreateRateLimitRequest) POST "/organizations/{org_id}/rate-limits"
            { "org_id": "$org", "name": "$name", "concurrent": 1 }
        RateLimitService.GetRateLimit(GetRateLimitRequest) GET "/organizations/{org_id}/rate-limits/{id}"
            { "org_id": "$org", "id": "$id" }
        RateLimitService.ListRateLimits(ListRateLimitsRequest) GET "/organizations/{org_id}/rate-limits"
            { "org_id": "$org" }
        RateLimitService.UpdateRateLimit(UpdateRateLimitRequest) PATCH "/organizations/{org_id}/rate-limits/{id}"
            { "org_id": "$org", "id": "$id", "concurrent": 2 }
        RateLimitService.DeleteRateLimit(DeleteRateLimitRequest) DELETE "/organizations/{org_id}/rate-limits/{id}"
            { "org_id": "$org", "id": "$id" }
        RequestLogService.GetRequest(GetRequestRequest) GET "/organizations/{org_id}/requests/{id}"
            { "org_id": "$org", "id": "$id" }
        RequestLogService.ListRequests(ListRequestsRequest) GET "/organizations/{org_id}/requests"
            { "org_id": "$org" }
        RequestLogService.ListDecisions(ListDecisionsRequest) GET "/decisions" {}
        RequestLogService.ListRoutingConfig(ListRoutingConfigRequest) GET "/routing-config" {}
        CreditService.GetCredits(GetCreditsRequest) GET "/organizations/{org_id}/credits" { "org_id": "$org" }
        CreditService.CreateCreditMovement(CreateCreditMovementRequest) POST "/organizations/{org_id}/credits/movements"
            { "org_id": "$org", "kind": "grant", "amount_usd": "1" }
        CreditService.GetCreditMovement(GetCreditMovementRequest) GET "/organizations/{org_id}/credits/movements/{id}"
            { "org_id": "$org", "id": "$id" }
        CreditService.ListCreditMovements(ListCreditMovementsRequest) GET "/organizations/{org_id}/credits/movements"
            { "org_id": "$org" }
        CreditService.QuotePurchase(QuotePurchaseRequest) GET "/organizations/{org_id}/credits/quote?credit_usd={credit_usd}"
            { "org_id": "$org", "credit_usd": "100" }
        CreditService.ListPaymentEvents(ListPaymentEventsRequest) GET "/payment-events" {}
        WebhookService.CreateWebhook(CreateWebhookRequest) POST "/organizations/{org_id}/webhooks"
            { "org_id": "$org", "name": "$name", "url": "https://hooks.example.com/" }
        WebhookService.GetWebhook(GetWebhookRequest) GET "/organizations/{org_id}/webhooks/{id}"
            { "org_id": "$org", "id": "$id" }
        WebhookService.ListWebhooks(ListWebhooksRequest) GET "/organizations/{org_id}/webhooks" { "org_id": "$org" }
        WebhookService.UpdateWebhook(UpdateWebhookRequest) PATCH "/organizations/{org_id}/webhooks/{id}"
            { "org_id": "$org", "id": "$id", "disabled": true }
        WebhookService.RotateWebhook(RotateWebhookRequest) POST "/organizations/{org_id}/webhooks/{id}/rotate"
            { "org_id": "$org", "id": "$id" }
        WebhookService.DeleteWebhook(DeleteWebhookRequest) DELETE "/organizations/{org_id}/webhooks/{id}"
            { "org_id": "$org", "id": "$id" }
        WebhookService.TestWebhook(TestWebhookRequest) POST "/organizations/{org_id}/webhooks/{id}/test"
            { "org_id": "$org", "id": "$id" }
        WebhookService.ListWebhookDeliveries(ListWebhookDeliveriesRequest)
            GET "/organizations/{org_id}/webhook-deliveries" { "org_id": "$org" }
        WebhookService.GetWebhookDelivery(GetWebhookDeliveryRequest)
            GET "/organizations/{org_id}/webhook-deliveries/{id}" { "org_id": "$org", "id": "$id" }
        WebhookService.RedeliverWebhook(RedeliverWebhookRequest)
            POST "/organizations/{org_id}/webhook-deliveries/{id}/redeliver" { "org_id": "$org", "id": "$id" }
        AuditService.VerifyAudit(VerifyAuditRequest) GET "/audit/verification" {}
        LedgerService.VerifyLedger(VerifyLedgerRequest) GET "/ledger/verification" {}
        CatalogService.PutModel(PutModelRequest) PUT "/models/vendor/role-test" { "model": { "id": "vendor/role-test" } }
        CatalogService.GetModel(GetModelRequest) GET "/models/{id}" { "id": "vendor/nothing" }
        CatalogService.ListModels(ListModelsRequest) GET "/models" {}
        CatalogService.DeleteModel(DeleteModelRequest) DELETE "/models/{id}" { "id": "vendor/nothing" }
        CatalogService.CreatePrice(CreatePriceRequest) POST "/prices"
            { "model": "vendor/nothing", "provider": "custom", "price": { "input": 1_000_000_000 } }
        CatalogService.GetPrice(GetPriceRequest) GET "/prices/{id}" { "id": "custom/nothing@2026-11-21" }
        CatalogService.ListPrices(ListPricesRequest) GET "/prices" {}
        CatalogService.DeletePrice(DeletePriceRequest) DELETE "/prices/{id}" { "id": "custom/nothing@2026-11-21" }
        CatalogService.Rerate(RerateRequest) POST "/rerate"
            { "from": "2026-11-20T00:00:00Z", "to": "2026-11-20T01:00:00Z", "model": "vendor/nothing" }
        CatalogService.SyncCatalog(SyncCatalogRequest) POST "/catalog/sync" {}
        CatalogService.ListCatalogChanges(ListCatalogChangesRequest) GET "/catalog/changes" {}
        CatalogService.DecideCatalogChange(DecideCatalogChangeRequest) POST "/catalog/changes/{id}/decision"
            { "id": "019a2f6e-4c1b-7d30-9a52-6f1f0c1b2a3d" }
        CatalogService.ListCatalogRuns(ListCatalogRunsRequest) GET "/catalog/runs" {}
        FleetAdminService.ListNodes(ListNodesRequest) GET "/nodes" {}
    });
    all.extend(owned());
    all
}

fn tenancy() -> Vec<Method> {
    methods! {
        TenancyService.CreateOrganization(CreateOrganizationRequest) POST "/organizations" { "name": "new" }
        TenancyService.GetOrganization(GetOrganizationRequest) GET "/organizations/{id}" { "id": "$org" }
        TenancyService.ListOrganizations(ListOrganizationsRequest) GET "/organizations" {}
        TenancyService.UpdateOrganization(UpdateOrganizationRequest) PATCH "/organizations/{id}"
            { "id": "$org", "name": "renamed" }
        TenancyService.DeleteOrganization(DeleteOrganizationRequest) DELETE "/organizations/{id}" { "id": "$id" }
        TenancyService.CreateTeam(CreateTeamRequest) POST "/organizations/{org_id}/teams"
            { "org_id": "$org", "name": "$name" }
        TenancyService.GetTeam(GetTeamRequest) GET "/organizations/{org_id}/teams/{id}"
            { "org_id": "$org", "id": "$id" }
        TenancyService.ListTeams(ListTeamsRequest) GET "/organizations/{org_id}/teams" { "org_id": "$org" }
        TenancyService.UpdateTeam(UpdateTeamRequest) PATCH "/organizations/{org_id}/teams/{id}"
            { "org_id": "$org", "id": "$id", "name": "x" }
        TenancyService.DeleteTeam(DeleteTeamRequest) DELETE "/organizations/{org_id}/teams/{id}"
            { "org_id": "$org", "id": "$id" }
        TenancyService.CreateMember(CreateMemberRequest) POST "/organizations/{org_id}/members"
            { "org_id": "$org", "subject": "$name", "role": "viewer" }
        TenancyService.GetMember(GetMemberRequest) GET "/organizations/{org_id}/members/{id}"
            { "org_id": "$org", "id": "$id" }
        TenancyService.ListMembers(ListMembersRequest) GET "/organizations/{org_id}/members" { "org_id": "$org" }
        TenancyService.UpdateMember(UpdateMemberRequest) PATCH "/organizations/{org_id}/members/{id}"
            { "org_id": "$org", "id": "$id", "role": "viewer" }
        TenancyService.DeleteMember(DeleteMemberRequest) DELETE "/organizations/{org_id}/members/{id}"
            { "org_id": "$org", "id": "$id" }
    }
}

/// What both organizations and the operator have, or can ask for: without organization it is the operator's alone.
fn owned() -> Vec<Method> {
    methods! {
        CatalogService.ListDeploymentPrices(ListDeploymentPricesRequest) GET
            "/organizations/{org_id}/deployments/{id}/prices" { "org_id": "$org", "id": "$id" }
        TenancyService.CreateAdminToken(CreateAdminTokenRequest) POST "/organizations/{org_id}/admin-tokens"
            { "org_id": "$org", "name": "$name", "role": "viewer" }
        TenancyService.GetAdminToken(GetAdminTokenRequest) GET "/organizations/{org_id}/admin-tokens/{id}"
            { "org_id": "$org", "id": "$id" }
        TenancyService.ListAdminTokens(ListAdminTokensRequest) GET "/organizations/{org_id}/admin-tokens"
            { "org_id": "$org" }
        TenancyService.UpdateAdminToken(UpdateAdminTokenRequest) PATCH "/organizations/{org_id}/admin-tokens/{id}"
            { "org_id": "$org", "id": "$id", "name": "x" }
        TenancyService.DeleteAdminToken(DeleteAdminTokenRequest) DELETE "/organizations/{org_id}/admin-tokens/{id}"
            { "org_id": "$org", "id": "$id" }
        ProviderService.CreateCredential(CreateCredentialRequest) POST "/organizations/{org_id}/credentials"
            { "org_id": "$org", "name": "$name", "provider": "openai", "secret": "sk-role-test" }
        ProviderService.GetCredential(GetCredentialRequest) GET "/organizations/{org_id}/credentials/{id}"
            { "org_id": "$org", "id": "$id" }
        ProviderService.ListCredentials(ListCredentialsRequest) GET "/organizations/{org_id}/credentials"
            { "org_id": "$org" }
        ProviderService.UpdateCredential(UpdateCredentialRequest) PATCH "/organizations/{org_id}/credentials/{id}"
            { "org_id": "$org", "id": "$id", "name": "x" }
        ProviderService.DeleteCredential(DeleteCredentialRequest) DELETE "/organizations/{org_id}/credentials/{id}"
            { "org_id": "$org", "id": "$id" }
        ProviderService.CreateDeployment(CreateDeploymentRequest) POST "/organizations/{org_id}/deployments"
            { "org_id": "$org", "name": "$name", "provider": "custom", "base_url": "http://127.0.0.1:1",
              "model": "vendor/role-test" }
        ProviderService.GetDeployment(GetDeploymentRequest) GET "/organizations/{org_id}/deployments/{id}"
            { "org_id": "$org", "id": "$id" }
        ProviderService.ListDeployments(ListDeploymentsRequest) GET "/organizations/{org_id}/deployments"
            { "org_id": "$org" }
        ProviderService.UpdateDeployment(UpdateDeploymentRequest) PATCH "/organizations/{org_id}/deployments/{id}"
            { "org_id": "$org", "id": "$id", "disabled": true }
        ProviderService.DeleteDeployment(DeleteDeploymentRequest) DELETE "/organizations/{org_id}/deployments/{id}"
            { "org_id": "$org", "id": "$id" }
        ModelGroupService.CreateModelGroup(CreateModelGroupRequest) POST "/organizations/{org_id}/model-groups"
            { "org_id": "$org", "name": "$name", "links": [{ "deployments": [{ "deployment_id": "$id", "weight": 1 }] }] }
        ModelGroupService.GetModelGroup(GetModelGroupRequest) GET "/organizations/{org_id}/model-groups/{id}"
            { "org_id": "$org", "id": "$id" }
        ModelGroupService.ListModelGroups(ListModelGroupsRequest) GET "/organizations/{org_id}/model-groups"
            { "org_id": "$org" }
        ModelGroupService.UpdateModelGroup(UpdateModelGroupRequest) PATCH "/organizations/{org_id}/model-groups/{id}"
            { "org_id": "$org", "id": "$id", "name": "x" }
        ModelGroupService.DeleteModelGroup(DeleteModelGroupRequest) DELETE "/organizations/{org_id}/model-groups/{id}"
            { "org_id": "$org", "id": "$id" }
        SettingService.PutSetting(PutSettingRequest) PUT "/organizations/{org_id}/settings/{key}"
            { "org_id": "$org", "key": "routing.strategy", "value": "\"simple-shuffle\"" }
        SettingService.GetSetting(GetSettingRequest) GET "/organizations/{org_id}/settings/{key}"
            { "org_id": "$org", "key": "routing.strategy" }
        SettingService.ListSettings(ListSettingsRequest) GET "/organizations/{org_id}/settings" { "org_id": "$org" }
        SettingService.DeleteSetting(DeleteSettingRequest) DELETE "/organizations/{org_id}/settings/{key}"
            { "org_id": "$org", "key": "routing.strategy" }
        CooldownAdminService.SetCooldown(SetCooldownRequest) PUT "/organizations/{org_id}/cooldowns/{deployment_id}"
            { "org_id": "$org", "deployment_id": "$id", "duration_ms": 1000 }
        CooldownAdminService.ListCooldowns(ListCooldownsRequest) GET "/organizations/{org_id}/cooldowns"
            { "org_id": "$org" }
        CooldownAdminService.ClearCooldown(ClearCooldownRequest)
            DELETE "/organizations/{org_id}/cooldowns/{deployment_id}" { "org_id": "$org", "deployment_id": "$id" }
        UsageQueryService.QueryUsage(QueryUsageRequest) GET "/organizations/{org_id}/usage" { "org_id": "$org" }
        AuditService.ListAudit(ListAuditRequest) GET "/organizations/{org_id}/audit" { "org_id": "$org" }
        LedgerService.ListLedger(ListLedgerRequest) GET "/organizations/{org_id}/ledger" { "org_id": "$org" }
    }
}

/// What the document says: method → roles that may.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let document = super::docs::read(&super::docs::root().join("docs/roles.md"));
    let rows = document.lines().filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    let rows: Vec<Vec<&str>> =
        rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    let roles = rows[0][1..].to_vec();
    let mut actions = BTreeMap::new();
    let mut methods = BTreeMap::new();
    for row in &rows[1..] {
        if row.len() == roles.len() + 1 {
            let may = roles.iter().zip(&row[1..]).filter(|(_, cell)| **cell == "yes");
            actions.insert(row[0], may.map(|(role, _)| (*role).to_owned()).collect::<BTreeSet<_>>());
        } else if row[0] != "method" {
            methods.insert(row[0].trim_matches('`').to_owned(), actions[row[1]].clone());
        }
    }
    assert!(methods.len() > 50, "only {} methods in the table", methods.len());
    methods
}

/// How a request ended, as far as roles are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Denied,
    /// Also when there is nothing of that id.
    Allowed,
    /// The request of this test is not as it should be, or the control plane has a fault.
    Broken,
}

struct Caller {
    rest: Admin,
    grpc: Grpc<Channel>,
}

impl Caller {
    async fn new(control: &ControlPlane, token: &str) -> Self {
        let uri = format!("http://{}", control.grpc_addr());
        let channel = Endpoint::from_shared(uri).unwrap().connect().await.unwrap();
        Self { rest: control.with_token(token), grpc: Grpc::new(channel) }
    }

    async fn over_rest(&self, method: &Method, org: &str) -> (Verdict, String) {
        let Value::Object(mut members) = filled(&method.message, org) else { panic!("{}", method.name) };
        let mut path = method.path.to_owned();
        if org.is_empty() {
            path = path.replace("/organizations/{org_id}", "");
            members.remove("org_id");
        }
        members.retain(|name, value| {
            let place = format!("{{{name}}}");
            let in_path = path.contains(&place);
            if in_path {
                path = path.replace(&place, value.as_str().unwrap());
            }
            !in_path
        });
        let body = (!matches!(method.verb, "GET" | "DELETE")).then_some(Value::Object(members));
        let response = self.rest.call(method.verb, &path, body.as_ref()).await.unwrap();
        let verdict = match response.status {
            403 => Verdict::Denied,
            200..300 | 404 | 409 | 412 => Verdict::Allowed,
            _ => Verdict::Broken,
        };
        (verdict, format!("{} {path}: {} {}", method.verb, response.status, response.text()))
    }

    async fn over_grpc(&mut self, method: &Method, org: &str) -> (Verdict, String) {
        let message = (method.encode)(filled(&method.message, org));
        let mut request = Request::new(message);
        let token = format!("Bearer {}", self.rest.token());
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        self.grpc.ready().await.unwrap();
        let path = format!("/nemo.admin.v1.{}", method.name.replace('.', "/")).parse().unwrap();
        let code = match self.grpc.unary(request, path, Raw).await {
            Ok(_) => return (Verdict::Allowed, "ok".to_owned()),
            Err(status) => status,
        };
        let verdict = match code.code() {
            Code::PermissionDenied => Verdict::Denied,
            Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition => Verdict::Allowed,
            _ => Verdict::Broken,
        };
        (verdict, code.to_string())
    }

    /// Both verdicts must be the same one.
    async fn expect(&mut self, method: &Method, org: &str, allowed: bool, who: &str) -> Result<(), String> {
        let expected = if allowed { Verdict::Allowed } else { Verdict::Denied };
        for (verdict, answer) in [self.over_rest(method, org).await, self.over_grpc(method, org).await] {
            if verdict != expected {
                return Err(format!("{who} {}: {verdict:?}, not {expected:?}: {answer}", method.name));
            }
        }
        Ok(())
    }
}

/// The message with its placeholders filled in. Without organization: nothing that only organizations have.
fn filled(message: &Value, org: &str) -> Value {
    let mut message = placed(message, org);
    if org.is_empty()
        && let Some(members) = message.as_object_mut()
    {
        members.remove("role");
    }
    message
}

fn placed(message: &Value, org: &str) -> Value {
    match message {
        Value::String(text) => match text.as_str() {
            "$org" => json!(org),
            "$id" => json!(uuid::Uuid::now_v7()),
            "$name" => json!(format!("n{}", uuid::Uuid::now_v7())),
            _ => message.clone(),
        },
        Value::Array(items) => items.iter().map(|item| placed(item, org)).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), placed(value, org))).collect()
        }
        other => other.clone(),
    }
}

/// Messages as bytes: the method is chosen at run time.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Also makes the model that the requests name.
async fn new_organization(control: &ControlPlane) -> String {
    let model = json!({ "model": { "id": "vendor/role-test" } });
    control.admin.put("/models/vendor/role-test", model).await.unwrap();
    let org = control.admin.post("/organizations", json!({ "name": "acme" })).await.unwrap();
    text(&org, "id").unwrap()
}

async fn token_of(control: &ControlPlane, org: &str, role: &str) -> String {
    let path = format!("/organizations/{org}/admin-tokens");
    let made = control.admin.post(&path, json!({ "name": role, "role": role })).await.unwrap();
    text(&made, "token").unwrap()
}

#[track_caller]
fn none_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} cells:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_method_of_the_table_has_a_request_here() {
    let here: Vec<_> = methods().iter().map(|method| method.name.to_owned()).collect();
    let unique: BTreeSet<_> = here.iter().cloned().collect();
    assert_eq!(unique.len(), here.len(), "a method is listed twice");
    assert_eq!(unique, table().into_keys().collect());
}

/// Covers R000-16: each role may do what the table says and nothing else, whatever the door; and nothing at all in
/// another organization, or with what belongs to the operator.
#[tokio::test]
async fn each_cell_of_the_table_holds_for_admin_tokens() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let (own, other) = (new_organization(&control).await, new_organization(&control).await);
    let (table, methods, mut wrong) = (table(), methods(), Vec::new());
    let mut operator = Caller::new(&control, control.admin.token()).await;
    for method in &methods {
        let allowed = table[method.name].contains("operator");
        wrong.extend(operator.expect(method, &own, allowed, "operator").await.err());
    }
    for role in ROLES {
        let mut caller = Caller::new(&control, &token_of(&control, &own, role).await).await;
        for method in &methods {
            let allowed = table[method.name].contains(role);
            wrong.extend(caller.expect(method, &own, allowed, role).await.err());
            if method.message.to_string().contains("$org") {
                let who = format!("{role} elsewhere");
                wrong.extend(caller.expect(method, &other, false, &who).await.err());
            }
        }
        for method in owned() {
            let who = format!("{role} at the operator's");
            wrong.extend(caller.expect(&method, "", false, &who).await.err());
        }
    }
    none_wrong(&wrong);
}

/// The same cells for people of an OIDC issuer: the role is the member's, not the kind of token's.
#[tokio::test]
async fn each_cell_of_the_table_holds_for_members() {
    let people = ROLES
        .map(|role| (role.to_owned(), json!({})))
        .into_iter()
        .chain([("operator".to_owned(), json!({ "groups": ["operators"] }))]);
    let mut issuer = Issuer::new(&Value::Object(people.collect())).unwrap();
    issuer.start().await.unwrap();
    let options =
        ["--oidc-issuer", issuer.url(), "--oidc-audience", AUDIENCE, "--oidc-roles", "operators=operator"];
    let control = ControlPlane::start(&options).await.unwrap();
    let own = new_organization(&control).await;
    let operator = control.with_token(&issuer.token("operator", AUDIENCE, "ES256").await.unwrap());
    eventually("the issuer's keys", async || operator.get("/organizations").await).await.unwrap();
    let (table, methods, mut wrong) = (table(), methods(), Vec::new());
    for role in ROLES.into_iter().chain(["operator"]) {
        if role != "operator" {
            let path = format!("/organizations/{own}/members");
            control.admin.post(&path, json!({ "subject": role, "role": role })).await.unwrap();
        }
        let token = issuer.token(role, AUDIENCE, "ES256").await.unwrap();
        let mut caller = Caller::new(&control, &token).await;
        for method in &methods {
            let allowed = table[method.name].contains(role);
            wrong.extend(caller.expect(method, &own, allowed, role).await.err());
        }
    }
    none_wrong(&wrong);
}

/// Whoever has no token may do nothing, and is not told that it may not.
#[tokio::test]
async fn without_a_token_every_method_is_closed() {
    let control = ControlPlane::start(&[]).await.unwrap();
    let org = new_organization(&control).await;
    let mut nobody = Caller::new(&control, "adm-nemo-nobody").await;
    for method in methods() {
        let (_, rest) = nobody.over_rest(&method, &org).await;
        let (_, grpc) = nobody.over_grpc(&method, &org).await;
        assert!(rest.contains(": 401 "), "{rest}");
        assert!(grpc.to_lowercase().contains("authenticat"), "{}: {grpc}", method.name);
    }
}
