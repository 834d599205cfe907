//! Which role may do what, as one table [R000-16], and which action each method of the admin API is.
//!
//! [`TABLE`] is asked by [`super::Caller::check`] for every operation. [`METHODS`] is what the tests go through, cell by
//! cell, over REST and gRPC; `docs/roles.md` is made of both.

use std::{fmt, str::FromStr};

/// Whom the table has a column for. The operator's column is for the whole installation, the others are roles in one
/// organization, of a member or of an admin token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Member,
    Admin,
    Owner,
    Operator,
}

/// What an operation does, as far as roles are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look at the organization and what it has. No secret can be read by anyone.
    Read,
    /// Look at the request log and at usage.
    ReadRequests,
    /// Look at the catalog of models, which is the installation's.
    ReadCatalog,
    /// Make a new virtual key.
    IssueKeys,
    /// Change what the organization has: teams, keys, budgets, credentials, deployments, model groups, settings.
    Write,
    /// Look at who changed what.
    ReadAudit,
    /// See and change who may use the admin API: members and admin tokens.
    ManageAccess,
    /// Give credit and take it back.
    ManageCredits,
    /// Make, switch off and delete organizations.
    ManageOrganizations,
    /// Change the catalog of models.
    WriteCatalog,
    /// See to the installation: its nodes, the wholeness of its audit log, replays of what was decided.
    Operate,
}

const YES: bool = true;
const NO_: bool = false;

/// The table: one row per action; columns are operator, owner, admin, member, viewer.
pub const TABLE: [(Action, [bool; 5]); 11] = [
    (Action::Read, [YES, YES, YES, YES, YES]),
    (Action::ReadRequests, [YES, YES, YES, YES, YES]),
    (Action::ReadCatalog, [YES, YES, YES, YES, YES]),
    (Action::IssueKeys, [YES, YES, YES, YES, NO_]),
    (Action::Write, [YES, YES, YES, NO_, NO_]),
    (Action::ReadAudit, [YES, YES, YES, NO_, NO_]),
    (Action::ManageAccess, [YES, YES, NO_, NO_, NO_]),
    (Action::ManageOrganizations, [YES, NO_, NO_, NO_, NO_]),
    (Action::ManageCredits, [YES, NO_, NO_, NO_, NO_]),
    (Action::WriteCatalog, [YES, NO_, NO_, NO_, NO_]),
    (Action::Operate, [YES, NO_, NO_, NO_, NO_]),
];

/// Every method of `nemo.admin.v1`, by service and name, and the one action that it is.
pub const METHODS: &[(&str, &str, Action)] = &[
    ("TenancyService", "CreateOrganization", Action::ManageOrganizations),
    ("TenancyService", "GetOrganization", Action::Read),
    ("TenancyService", "ListOrganizations", Action::Read),
    ("TenancyService", "UpdateOrganization", Action::Write),
    ("TenancyService", "DeleteOrganization", Action::ManageOrganizations),
    ("TenancyService", "CreateTeam", Action::Write),
    ("TenancyService", "GetTeam", Action::Read),
    ("TenancyService", "ListTeams", Action::Read),
    ("TenancyService", "UpdateTeam", Action::Write),
    ("TenancyService", "DeleteTeam", Action::Write),
    ("TenancyService", "CreateMember", Action::ManageAccess),
    ("TenancyService", "GetMember", Action::Read),
    ("TenancyService", "ListMembers", Action::Read),
    ("TenancyService", "UpdateMember", Action::ManageAccess),
    ("TenancyService", "DeleteMember", Action::ManageAccess),
    ("TenancyService", "CreateAdminToken", Action::ManageAccess),
    ("TenancyService", "GetAdminToken", Action::ManageAccess),
    ("TenancyService", "ListAdminTokens", Action::ManageAccess),
    ("TenancyService", "UpdateAdminToken", Action::ManageAccess),
    ("TenancyService", "DeleteAdminToken", Action::ManageAccess),
    ("KeyService", "IssueKey", Action::IssueKeys),
    ("KeyService", "GetKey", Action::Read),
    ("KeyService", "ListKeys", Action::Read),
    ("KeyService", "UpdateKey", Action::Write),
    ("KeyService", "RotateKey", Action::Write),
    ("KeyService", "DeleteKey", Action::Write),
    ("ProviderService", "CreateCredential", Action::Write),
    ("ProviderService", "GetCredential", Action::Read),
    ("ProviderService", "ListCredentials", Action::Read),
    ("ProviderService", "UpdateCredential", Action::Write),
    ("ProviderService", "DeleteCredential", Action::Write),
    ("ProviderService", "CreateDeployment", Action::Write),
    ("ProviderService", "GetDeployment", Action::Read),
    ("ProviderService", "ListDeployments", Action::Read),
    ("ProviderService", "UpdateDeployment", Action::Write),
    ("ProviderService", "DeleteDeployment", Action::Write),
    ("ModelGroupService", "CreateModelGroup", Action::Write),
    ("ModelGroupService", "GetModelGroup", Action::Read),
    ("ModelGroupService", "ListModelGroups", Action::Read),
    ("ModelGroupService", "UpdateModelGroup", Action::Write),
    ("ModelGroupService", "DeleteModelGroup", Action::Write),
    ("BudgetService", "CreateBudget", Action::Write),
    ("BudgetService", "GetBudget", Action::Read),
    ("BudgetService", "ListBudgets", Action::Read),
    ("BudgetService", "UpdateBudget", Action::Write),
    ("BudgetService", "DeleteBudget", Action::Write),
    ("BudgetService", "ListBudgetLeases", Action::Read),
    ("BudgetService", "ReleaseLease", Action::Write),
    ("RateLimitService", "CreateRateLimit", Action::Write),
    ("RateLimitService", "GetRateLimit", Action::Read),
    ("RateLimitService", "ListRateLimits", Action::Read),
    ("RateLimitService", "UpdateRateLimit", Action::Write),
    ("RateLimitService", "DeleteRateLimit", Action::Write),
    ("CatalogService", "PutModel", Action::WriteCatalog),
    ("CatalogService", "GetModel", Action::ReadCatalog),
    ("CatalogService", "ListModels", Action::ReadCatalog),
    ("CatalogService", "DeleteModel", Action::WriteCatalog),
    ("CatalogService", "CreatePrice", Action::WriteCatalog),
    ("CatalogService", "GetPrice", Action::ReadCatalog),
    ("CatalogService", "ListPrices", Action::ReadCatalog),
    ("CatalogService", "DeletePrice", Action::WriteCatalog),
    ("CatalogService", "ListDeploymentPrices", Action::Read),
    ("CatalogService", "Rerate", Action::Operate),
    ("CatalogService", "SyncCatalog", Action::WriteCatalog),
    ("CatalogService", "ListCatalogChanges", Action::Operate),
    ("CatalogService", "DecideCatalogChange", Action::WriteCatalog),
    ("CatalogService", "ListCatalogRuns", Action::Operate),
    ("SettingService", "PutSetting", Action::Write),
    ("SettingService", "GetSetting", Action::Read),
    ("SettingService", "ListSettings", Action::Read),
    ("SettingService", "DeleteSetting", Action::Write),
    ("CooldownAdminService", "SetCooldown", Action::Write),
    ("CooldownAdminService", "ListCooldowns", Action::Read),
    ("CooldownAdminService", "ClearCooldown", Action::Write),
    ("RequestLogService", "GetRequest", Action::ReadRequests),
    ("RequestLogService", "ListRequests", Action::ReadRequests),
    ("RequestLogService", "ListDecisions", Action::Operate),
    ("RequestLogService", "ListRoutingConfig", Action::Operate),
    ("UsageQueryService", "QueryUsage", Action::ReadRequests),
    ("LedgerService", "ListLedger", Action::ReadRequests),
    ("LedgerService", "VerifyLedger", Action::Operate),
    ("CreditService", "GetCredits", Action::ReadRequests),
    ("CreditService", "CreateCreditMovement", Action::ManageCredits),
    ("CreditService", "GetCreditMovement", Action::ReadRequests),
    ("CreditService", "ListCreditMovements", Action::ReadRequests),
    ("CreditService", "QuotePurchase", Action::ReadRequests),
    ("CreditService", "ListPaymentEvents", Action::Operate),
    ("WebhookService", "CreateWebhook", Action::Write),
    ("WebhookService", "GetWebhook", Action::Read),
    ("WebhookService", "ListWebhooks", Action::Read),
    ("WebhookService", "UpdateWebhook", Action::Write),
    ("WebhookService", "RotateWebhook", Action::Write),
    ("WebhookService", "DeleteWebhook", Action::Write),
    ("WebhookService", "TestWebhook", Action::Write),
    ("WebhookService", "ListWebhookDeliveries", Action::Read),
    ("WebhookService", "GetWebhookDelivery", Action::Read),
    ("WebhookService", "RedeliverWebhook", Action::Write),
    ("AuditService", "ListAudit", Action::ReadAudit),
    ("AuditService", "VerifyAudit", Action::Operate),
    ("FleetAdminService", "ListNodes", Action::Operate),
];

impl Role {
    /// As the table's columns.
    pub const ALL: [Self; 5] = [Self::Operator, Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// What the table says.
    pub fn may(self, action: Action) -> bool {
        let row = TABLE.iter().find(|(of, _)| *of == action);
        row.is_some_and(|(_, cells)| {
            Self::ALL.into_iter().zip(cells).any(|(role, allowed)| role == self && *allowed)
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No organization has such a role to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: owner, admin, member, viewer")]
pub struct UnknownRole;

/// A role in an organization. The operator's is none: nobody can be given it there.
impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let role = Self::ALL.into_iter().find(|role| role.name() == name);
        role.filter(|role| *role != Self::Operator).ok_or(UnknownRole)
    }
}

impl Action {
    /// Verb first, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::ReadRequests => "read requests and usage",
            Self::ReadCatalog => "read the catalog",
            Self::IssueKeys => "issue keys",
            Self::Write => "change configuration",
            Self::ReadAudit => "read the audit log",
            Self::ManageAccess => "manage members and admin tokens",
            Self::ManageOrganizations => "manage organizations",
            Self::ManageCredits => "manage credits",
            Self::WriteCatalog => "change the catalog",
            Self::Operate => "operate the installation",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
