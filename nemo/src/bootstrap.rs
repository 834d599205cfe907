//! The first start: sealing key, organization, team, operator's token and virtual key. Every step looks first, so
//! that an interrupted start is finished by the next one.

use std::path::Path;

use anyhow::Context as _;
use nemo_control_plane::admin::{Admin, AdminError, Call, ErrorKind};
use nemo_proto::admin::{
    CreateAdminTokenRequest, CreateOrganizationRequest, IssueKeyRequest, ListKeysRequest,
    ListOrganizationsRequest, Organization,
};
use nemo_types::{Keyring, Secret};

use crate::{
    data_dir::{self, DataDir},
    providers::apply::{Applier, backend::all},
};

const SEALING_KEY: &str = "sealing.key";
pub const ADMIN_TOKEN: &str = "admin-token";
/// Name of the first organization, team and key.
const DEFAULT: &str = "default";

/// What exists after a start.
#[derive(Debug)]
pub struct Bootstrapped {
    pub org_id: String,
    /// The operator's token, as kept in the data directory.
    pub admin_token: Secret,
    /// True when the token was made now.
    pub new_token: bool,
    /// The first virtual key, when it was issued now: it cannot be shown again.
    pub new_key: Option<Secret>,
}

/// The sealing key of this data directory, made when there is none.
///
/// # Errors
/// When it cannot be read or written, or is malformed.
pub fn keyring(dir: &DataDir) -> anyhow::Result<Keyring> {
    let path = dir.file(SEALING_KEY);
    let text = match data_dir::read_secret(&path)? {
        Some(text) => Secret::new(text),
        None => {
            let key = Keyring::generate_key()?;
            data_dir::write_file(&path, format!("{}\n", key.expose()).as_bytes(), 0o600)?;
            key
        }
    };
    Keyring::parse(text.expose()).with_context(|| format!("{} is damaged", path.display()))
}

/// Makes what a first request needs.
///
/// # Errors
/// When the control plane or the data directory fails.
pub async fn run(admin: &Admin, applier: &Applier<'_>, dir: &DataDir) -> anyhow::Result<Bootstrapped> {
    let call = Call::local_operator();
    let org = organization(admin, &call).await?;
    let team_id = applier.team(&org.id, DEFAULT).await?;
    let new_key = first_key(admin, &call, &org.id, team_id).await?;
    let (admin_token, new_token) = admin_token(admin, &call, &dir.file(ADMIN_TOKEN)).await?;
    Ok(Bootstrapped { org_id: org.id, admin_token, new_token, new_key })
}

/// The organization called `default`, else the oldest, else a new one.
async fn organization(admin: &Admin, call: &Call) -> anyhow::Result<Organization> {
    let organizations = all(async |page_token| {
        let page = admin
            .list_organizations(
                call,
                ListOrganizationsRequest { page_size: 1000, page_token, ..Default::default() },
            )
            .await?;
        Ok::<_, AdminError>((page.organizations, page.next_page_token))
    })
    .await?;
    let named = organizations.iter().find(|org| org.name == DEFAULT);
    let oldest = || organizations.iter().min_by_key(|org| org.created_at);
    if let Some(org) = named.or_else(oldest) {
        return Ok(org.clone());
    }
    let request = CreateOrganizationRequest { name: DEFAULT.to_owned() };
    let created = admin.create_organization(call, request).await;
    Ok(created.context("the first organization cannot be created")?.into_answer())
}

/// Issues a key when the organization has none.
async fn first_key(
    admin: &Admin,
    call: &Call,
    org_id: &str,
    team_id: String,
) -> anyhow::Result<Option<Secret>> {
    let org_id = org_id.to_owned();
    let request = ListKeysRequest { org_id: org_id.clone(), page_size: 1, ..ListKeysRequest::default() };
    if !admin.list_keys(call, request).await?.keys.is_empty() {
        return Ok(None);
    }
    let request = IssueKeyRequest { org_id, team_id, name: DEFAULT.to_owned(), ..IssueKeyRequest::default() };
    let issued = admin.issue_key(call, request).await.context("the first key cannot be issued")?;
    Ok(Some(Secret::new(issued.into_answer().secret)))
}

/// The token in `path` if it works, else a new one that is kept there.
async fn admin_token(admin: &Admin, call: &Call, path: &Path) -> anyhow::Result<(Secret, bool)> {
    if let Some(token) = data_dir::read_secret(path)? {
        match admin.authenticate(Some(&format!("Bearer {token}"))).await {
            Ok(_) => return Ok((Secret::new(token), false)),
            // Another database than the one it was made for.
            Err(error) if error.kind == ErrorKind::Unauthenticated => {}
            Err(error) => return Err(error.into()),
        }
    }
    let request =
        CreateAdminTokenRequest { name: "standalone".to_owned(), ..CreateAdminTokenRequest::default() };
    let created =
        admin.create_admin_token(call, request).await.context("the admin token cannot be created")?;
    data_dir::write_file(path, format!("{}\n", created.token).as_bytes(), 0o600)?;
    Ok((Secret::new(created.into_answer().token), true))
}
