//! The admin API as a client: of the `nemo standalone` whose data directory one owns, or of a control plane
//! elsewhere. The only module that speaks to it over the network. Called by [`crate::commands`].

mod refusal;
mod running;

use std::path::Path;

use anyhow::{Context as _, bail};
use nemo_proto::admin::{
    ListOrganizationsRequest, Organization, audit_service_client::AuditServiceClient,
    budget_service_client::BudgetServiceClient, catalog_service_client::CatalogServiceClient,
    cooldown_admin_service_client::CooldownAdminServiceClient, credit_service_client::CreditServiceClient,
    fleet_admin_service_client::FleetAdminServiceClient, key_service_client::KeyServiceClient,
    ledger_service_client::LedgerServiceClient, model_group_service_client::ModelGroupServiceClient,
    provider_service_client::ProviderServiceClient, rate_limit_service_client::RateLimitServiceClient,
    request_log_service_client::RequestLogServiceClient, setting_service_client::SettingServiceClient,
    tenancy_service_client::TenancyServiceClient, usage_query_service_client::UsageQueryServiceClient,
    webhook_service_client::WebhookServiceClient,
};
use nemo_runtime::{
    grpc,
    tls::{ClientTls, Identity},
};
use nemo_types::Secret;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

pub use self::{
    refusal::explain,
    running::{Running, default_dir_option, reachable},
};
use crate::{
    bootstrap::ADMIN_TOKEN,
    cli::Target,
    data_dir::{self, DataDir},
};

/// Largest page that the admin API gives.
pub const PAGE: u32 = 1000;

/// Puts the admin token into every call.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Authorized = InterceptedService<Channel, Token>;

/// Clients of the admin services.
#[derive(Clone)]
pub struct AdminClient {
    channel: Authorized,
}

/// One accessor for each service.
macro_rules! services {
    ($($name:ident: $client:ident),* $(,)?) => {
        $(pub fn $name(&self) -> $client<Authorized> {
            $client::new(self.channel.clone()).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
        })*
    };
}

impl AdminClient {
    services! {
        tenancy: TenancyServiceClient,
        keys: KeyServiceClient,
        providers: ProviderServiceClient,
        budgets: BudgetServiceClient,
        rate_limits: RateLimitServiceClient,
        catalog: CatalogServiceClient,
        model_groups: ModelGroupServiceClient,
        settings: SettingServiceClient,
        cooldowns: CooldownAdminServiceClient,
        requests: RequestLogServiceClient,
        fleet: FleetAdminServiceClient,
        usage: UsageQueryServiceClient,
        ledger: LedgerServiceClient,
        audit: AuditServiceClient,
        credits: CreditServiceClient,
        webhooks: WebhookServiceClient,
    }

    /// # Errors
    /// When there is nothing to connect to, or one is not its owner.
    pub fn open(target: &Target) -> anyhow::Result<Self> {
        match (&target.url, &target.token) {
            (Some(url), Some(token)) => {
                let ca = target.ca.clone();
                let trust = ca.map(|ca| ClientTls::load(ca, &Identity::default())).transpose()?;
                Self::new(url, &Secret::new(token), trust)
            }
            (Some(_), None) => bail!("--url needs a token: set NEMO_ADMIN_TOKEN"),
            (None, _) => Self::of_data_dir(target.data_dir.as_deref()),
        }
    }

    fn of_data_dir(path: Option<&Path>) -> anyhow::Result<Self> {
        let path = path.map_or_else(data_dir::default_path, |path| Ok(path.to_owned()))?;
        let dir = DataDir::existing(&path)?;
        let running = Running::find(&dir)?;
        let token = data_dir::read_secret(&dir.file(ADMIN_TOKEN))?;
        let token =
            token.with_context(|| format!("{}/{ADMIN_TOKEN} is missing; restart nemo", path.display()))?;
        let trust = running.admin_cert.map(ClientTls::pinned).transpose()?;
        let scheme = if trust.is_some() { "https" } else { "http" };
        Self::new(&format!("{scheme}://{}", reachable(running.grpc_listen)), &Secret::new(token), trust)
    }

    fn new(url: &str, token: &Secret, trust: Option<ClientTls>) -> anyhow::Result<Self> {
        let header = format!("Bearer {}", token.expose()).parse();
        let mut header: MetadataValue<Ascii> =
            header.map_err(|_| anyhow::anyhow!("the admin token is malformed; it begins with adm-nemo-"))?;
        header.set_sensitive(true);
        let channel = grpc::channel_with(url, trust).map_err(|error| match error {
            grpc::ChannelError::NoAuthority { .. } => anyhow::anyhow!("{error}; name it with --ca FILE"),
            error => error.into(),
        })?;
        Ok(Self { channel: InterceptedService::new(channel, Token(header)) })
    }

    /// Every organization; the operator's to see.
    ///
    /// # Errors
    /// When the control plane refuses.
    pub async fn organizations(&self) -> anyhow::Result<Vec<Organization>> {
        pages(async |page_token| {
            let request = ListOrganizationsRequest { page_size: PAGE, page_token, ..Default::default() };
            let page = self.tenancy().list_organizations(request).await?.into_inner();
            Ok((page.organizations, page.next_page_token))
        })
        .await
        .map_err(|error| match error.downcast_ref::<Status>() {
            Some(status) if status.code() == Code::PermissionDenied => {
                anyhow::anyhow!("this token belongs to one organization; name it by its id with --org")
            }
            _ => explained(error),
        })
    }

    /// Id of the organization that a command is about.
    ///
    /// # Errors
    /// When there is none by that name or id.
    pub async fn organization(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        match wanted {
            // A token of one organization may not list them, but knows its own.
            Some(id) if is_id(id) => Ok(id.to_owned()),
            wanted => choose(&self.organizations().await?, wanted),
        }
    }

    /// Id of the organization, or the empty one that stands for the operator.
    ///
    /// # Errors
    /// As [`Self::organization`].
    pub async fn owner(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        match wanted {
            Some(wanted) => self.organization(Some(wanted)).await,
            None => Ok(String::new()),
        }
    }
}

/// True for what has the form of an id.
pub fn is_id(text: &str) -> bool {
    let group = |group: &str, len: usize| group.len() == len && group.bytes().all(|b| b.is_ascii_hexdigit());
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5 && groups.iter().zip([8, 4, 4, 4, 12]).all(|(text, len)| group(text, len))
}

/// Every page of a list.
///
/// # Errors
/// When a page cannot be had, in words for the terminal.
pub async fn all<T>(
    fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
) -> anyhow::Result<Vec<T>> {
    pages(fetch).await.map_err(explained)
}

async fn pages<T>(
    mut fetch: impl AsyncFnMut(String) -> Result<(Vec<T>, String), Status>,
) -> anyhow::Result<Vec<T>> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = fetch(token).await?;
        items.extend(page);
        if next.is_empty() {
            return Ok(items);
        }
        token = next;
    }
}

fn explained(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Status>() {
        Ok(status) => explain(status),
        Err(error) => error,
    }
}

fn choose(organizations: &[Organization], wanted: Option<&str>) -> anyhow::Result<String> {
    let by_name = |name: &str| organizations.iter().find(|org| org.name == name || org.id == name);
    let found = match wanted {
        Some(wanted) => by_name(wanted),
        None => by_name("default").or_else(|| organizations.iter().min_by_key(|org| org.created_at)),
    };
    found.map(|org| org.id.clone()).with_context(|| match wanted {
        Some(wanted) => {
            let names: Vec<_> = organizations.iter().map(|org| org.name.as_str()).collect();
            format!("there is no organization {wanted:?}; there are: {}", names.join(", "))
        }
        None => "there is no organization yet; make one with `nemo orgs create NAME`".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(id: &str, name: &str, seconds: i64) -> Organization {
        let created_at = Some(nemo_proto::Timestamp { seconds, nanos: 0 });
        Organization { id: id.into(), name: name.into(), created_at, ..Organization::default() }
    }

    #[test]
    fn the_default_organization_is_the_one_called_so_else_the_oldest() {
        let two = [organization("2", "b", 20), organization("1", "a", 10)];
        assert_eq!(choose(&two, None).unwrap(), "1");
        let three = [two[0].clone(), two[1].clone(), organization("3", "default", 30)];
        assert_eq!(choose(&three, None).unwrap(), "3");
        assert_eq!(choose(&three, Some("b")).unwrap(), "2");
        assert_eq!(choose(&three, Some("1")).unwrap(), "1");
        assert!(choose(&three, Some("x")).unwrap_err().to_string().contains("b, a, default"));
    }

    #[test]
    fn ids_are_told_from_names() {
        assert!(is_id("0198f3c2-1111-7abc-8def-0123456789ab"));
        for name in ["", "ci", "0198f3c2", "0198f3c2-1111-7abc-8def-0123456789ag", "a-b-c-d-e"] {
            assert!(!is_id(name), "{name}");
        }
    }
}
