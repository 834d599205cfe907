//! The admin API as a client: of the `nemo standalone` whose data directory one owns, or of a control plane
//! elsewhere. Called by [`crate::commands`].

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, bail};
use nemo_proto::admin::{
    ListOrganizationsRequest, Organization, catalog_service_client::CatalogServiceClient,
    key_service_client::KeyServiceClient, provider_service_client::ProviderServiceClient,
    request_log_service_client::RequestLogServiceClient, tenancy_service_client::TenancyServiceClient,
};
use nemo_runtime::grpc;
use nemo_types::Secret;
use serde::{Deserialize, Serialize};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{
    bootstrap::ADMIN_TOKEN,
    cli::Target,
    data_dir::{self, DataDir},
};

const RUNNING: &str = "standalone.json";

/// What a running `nemo standalone` tells its owner's other processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    pub pid: u32,
    pub listen: SocketAddr,
    pub admin_listen: SocketAddr,
    pub grpc_listen: SocketAddr,
}

impl Running {
    /// # Errors
    /// When the data directory cannot be written.
    pub fn announce(&self, dir: &DataDir) -> anyhow::Result<()> {
        data_dir::write_file(&dir.file(RUNNING), &serde_json::to_vec_pretty(self)?, 0o644)
    }

    /// Takes the announcement back. What is left behind by a crash is told apart by the lock.
    pub fn withdraw(dir: &DataDir) {
        let _ = std::fs::remove_file(dir.file(RUNNING));
    }

    fn find(dir: &DataDir) -> anyhow::Result<Self> {
        let path = dir.path().display();
        let not_running = || {
            let option = default_dir_option(dir.path());
            format!("nemo is not running on {path}; start it with `nemo standalone{option}`")
        };
        if !dir.in_use() {
            bail!(not_running());
        }
        let text = match std::fs::read(dir.file(RUNNING)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("nemo on {path} is still starting, or stopping; try again in a moment")
            }
            Err(error) => return Err(error).with_context(|| format!("{path}/{RUNNING} cannot be read")),
        };
        serde_json::from_slice(&text).with_context(|| format!("{path}/{RUNNING} is damaged; restart nemo"))
    }
}

/// ` --data-dir …` unless the directory is the default.
pub fn default_dir_option(dir: &Path) -> String {
    match data_dir::default_path() {
        Ok(default) if default == dir || default.canonicalize().is_ok_and(|default| default == dir) => {
            String::new()
        }
        _ => format!(" --data-dir {}", dir.display()),
    }
}

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

impl AdminClient {
    /// # Errors
    /// When there is nothing to connect to, or one is not its owner.
    pub fn open(target: &Target) -> anyhow::Result<Self> {
        match (&target.admin_url, &target.admin_token) {
            (Some(url), Some(token)) => Self::new(url, &Secret::new(token)),
            (Some(_), None) => bail!("--admin-url needs a token: set NEMO_ADMIN_TOKEN"),
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
        Self::new(&format!("http://{}", reachable(running.grpc_listen)), &Secret::new(token))
    }

    fn new(url: &str, token: &Secret) -> anyhow::Result<Self> {
        let header = format!("Bearer {}", token.expose()).parse();
        let mut header: MetadataValue<Ascii> =
            header.map_err(|_| anyhow::anyhow!("the admin token is malformed"))?;
        header.set_sensitive(true);
        Ok(Self { channel: InterceptedService::new(grpc::channel(url, None)?, Token(header)) })
    }

    pub fn keys(&self) -> KeyServiceClient<Authorized> {
        KeyServiceClient::new(self.channel.clone())
    }

    pub fn tenancy(&self) -> TenancyServiceClient<Authorized> {
        TenancyServiceClient::new(self.channel.clone())
    }

    pub fn catalog(&self) -> CatalogServiceClient<Authorized> {
        CatalogServiceClient::new(self.channel.clone()).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
    }

    pub fn providers(&self) -> ProviderServiceClient<Authorized> {
        ProviderServiceClient::new(self.channel.clone()).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
    }

    pub fn requests(&self) -> RequestLogServiceClient<Authorized> {
        RequestLogServiceClient::new(self.channel.clone()).max_decoding_message_size(grpc::MAX_MESSAGE_BYTES)
    }

    /// Id of the organization that a command is about.
    ///
    /// # Errors
    /// When there is none by that name or id.
    pub async fn organization(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        let mut organizations: Vec<Organization> = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListOrganizationsRequest { page_size: 1000, page_token };
            let page = self.tenancy().list_organizations(request).await.map_err(explain)?.into_inner();
            organizations.extend(page.organizations);
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        choose(&organizations, wanted)
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
        None => "there is no organization yet".to_owned(),
    })
}

/// An address to connect to, for one that was listened on: `0.0.0.0` is everywhere, so also here.
pub fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v6.port()))
        }
        other => other,
    }
}

/// What the control plane says, in words for the terminal.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn explain(status: Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::Unavailable => {
            anyhow::anyhow!("the control plane does not answer: {}", status.message())
        }
        _ => anyhow::anyhow!("{}", status.message()),
    }
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
    fn commands_say_when_nothing_runs() {
        let dir = tempfile::tempdir().unwrap();
        let (data, lock) = DataDir::open(dir.path()).unwrap();
        let starting = Running::find(&data).unwrap_err().to_string();
        assert!(starting.contains("still starting"), "{starting}");
        let addr = SocketAddr::from(([0, 0, 0, 0], 1));
        let running = Running { pid: 1, listen: addr, admin_listen: addr, grpc_listen: addr };
        running.announce(&data).unwrap();
        assert_eq!(Running::find(&data).unwrap(), running);
        // A crash leaves the announcement behind, but not the lock.
        drop(lock);
        let error = Running::find(&data).unwrap_err().to_string();
        assert!(
            error.contains("nemo is not running") && error.contains("nemo standalone --data-dir"),
            "{error}"
        );
    }

    #[test]
    fn everywhere_is_also_here() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }
}
