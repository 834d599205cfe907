//! Which issuer is trusted, for whom its tokens must be, and what its claims mean. Filled by options, environment or
//! file; checked before anything starts.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use nemo_types::OrgId;

use crate::admin::Role;

/// What the options stand under in `--help`.
const HEADING: &str = "OpenID Connect";
/// Longest name of a claim, an audience, a group.
const LONGEST: usize = 512;

/// The settings as they are written, the same options for `nemo-control-plane` and `nemo standalone`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct OidcOptions {
    /// Issuer whose tokens the admin API accepts beside admin tokens, for example https://login.example.com/realms/main
    #[arg(id = "oidc_issuer", long = "oidc-issuer", value_name = "URL", env = "NEMO_OIDC_ISSUER", global = true, help_heading = HEADING)]
    pub issuer: Option<String>,
    /// Whom a token must be for (`aud`); several with commas
    #[arg(id = "oidc_audience", long = "oidc-audience", value_name = "NAME", env = "NEMO_OIDC_AUDIENCE", global = true, help_heading = HEADING)]
    pub audience: Option<String>,
    /// Claim that identifies a person for good [default: sub]
    #[arg(
        id = "oidc_subject_claim",
        long = "oidc-subject-claim",
        value_name = "CLAIM",
        env = "NEMO_OIDC_SUBJECT_CLAIM",
        global = true, help_heading = HEADING
    )]
    pub subject_claim: Option<String>,
    /// Claim with the address that members are found by [default: email]
    #[arg(
        id = "oidc_email_claim",
        long = "oidc-email-claim",
        value_name = "CLAIM",
        env = "NEMO_OIDC_EMAIL_CLAIM",
        global = true, help_heading = HEADING
    )]
    pub email_claim: Option<String>,
    /// Believe addresses without `email_verified`; only where people can't choose their address at the issuer
    #[arg(
        id = "oidc_trust_email",
        long = "oidc-trust-email",
        value_name = "BOOL",
        env = "NEMO_OIDC_TRUST_EMAIL",
        num_args = 0..=1,
        default_missing_value = "true",
        global = true, help_heading = HEADING
    )]
    pub trust_email: Option<bool>,
    /// Claim with the groups of a person; a path with dots reaches into objects [default: groups]
    #[arg(
        id = "oidc_groups_claim",
        long = "oidc-groups-claim",
        value_name = "CLAIM",
        env = "NEMO_OIDC_GROUPS_CLAIM",
        global = true, help_heading = HEADING
    )]
    pub groups_claim: Option<String>,
    /// Roles of groups: GROUP=operator, or GROUP=ROLE@ORGANIZATION-ID; several with semicolons
    #[arg(id = "oidc_roles", long = "oidc-roles", value_name = "LIST", env = "NEMO_OIDC_ROLES", global = true, help_heading = HEADING)]
    pub roles: Option<String>,
    /// Certificate authorities of the issuer (PEM), instead of the public ones
    #[arg(id = "oidc_ca_file", long = "oidc-ca-file", value_name = "FILE", env = "NEMO_OIDC_CA_FILE", global = true, help_heading = HEADING)]
    pub ca_file: Option<PathBuf>,
}

/// The settings, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcSettings {
    /// Exactly as tokens and the discovery document name it.
    pub issuer: String,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    pub subject_claim: String,
    pub email_claim: String,
    /// Also without `email_verified`.
    pub trust_email: bool,
    pub groups_claim: String,
    pub group_roles: Vec<GroupRole>,
    pub ca_file: Option<PathBuf>,
}

/// What the people of one group may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRole {
    pub group: String,
    pub role: Role,
    /// `None` for [`Role::Operator`] and for nobody else.
    pub org: Option<OrgId>,
}

#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("{name}: {message} (expected {expected})")]
    Invalid { name: &'static str, message: String, expected: &'static str },
    #[error("oidc_ca_file {path}: {message}", path = path.display())]
    Authorities { path: PathBuf, message: String },
    #[error("TLS can't be set up: {0}")]
    Tls(String),
}

impl OidcOptions {
    /// `None` when no issuer is set.
    ///
    /// # Errors
    /// When a setting is missing or malformed, or settings are there without an issuer.
    pub fn check(&self) -> Result<Option<OidcSettings>, OidcError> {
        let issuer = text(self.issuer.as_deref());
        let Some(issuer) = issuer else {
            let lonely = [
                ("oidc_audience", text(self.audience.as_deref())),
                ("oidc_roles", text(self.roles.as_deref())),
            ];
            if let Some((name, _)) = lonely.iter().find(|(_, value)| value.is_some()) {
                return invalid(name, "there is no oidc_issuer", "oidc_issuer too");
            }
            return Ok(None);
        };
        if !is_safe(issuer) || issuer.contains(['?', '#']) {
            return invalid(
                "oidc_issuer",
                format!("{issuer:?} can't be an issuer"),
                "https://host[:port][/path]; http only for this machine",
            );
        }
        let audiences: Vec<String> = list(self.audience.as_deref(), ',').map(str::to_owned).collect();
        if audiences.is_empty() {
            let expected = "the name by which the issuer knows this API";
            return invalid("oidc_audience", "missing: the issuer's tokens for others would do", expected);
        }
        let claim = |name, value: Option<&str>, default: &str| match text(value).unwrap_or(default) {
            claim if claim.len() <= LONGEST => Ok(claim.to_owned()),
            _ => invalid(name, "too long", "at most 512 characters"),
        };
        Ok(Some(OidcSettings {
            issuer: issuer.to_owned(),
            audiences,
            subject_claim: claim("oidc_subject_claim", self.subject_claim.as_deref(), "sub")?,
            email_claim: claim("oidc_email_claim", self.email_claim.as_deref(), "email")?,
            trust_email: self.trust_email.unwrap_or(false),
            groups_claim: claim("oidc_groups_claim", self.groups_claim.as_deref(), "groups")?,
            group_roles: list(self.roles.as_deref(), ';').map(group_role).collect::<Result<_, _>>()?,
            ca_file: self.ca_file.clone().filter(|path| !path.as_os_str().is_empty()),
        }))
    }

    /// These, and where something is not set, `other`'s.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            issuer: self.issuer.or(other.issuer),
            audience: self.audience.or(other.audience),
            subject_claim: self.subject_claim.or(other.subject_claim),
            email_claim: self.email_claim.or(other.email_claim),
            trust_email: self.trust_email.or(other.trust_email),
            groups_claim: self.groups_claim.or(other.groups_claim),
            roles: self.roles.or(other.roles),
            ca_file: self.ca_file.or(other.ca_file),
        }
    }
}

fn invalid<T>(
    name: &'static str,
    message: impl Into<String>,
    expected: &'static str,
) -> Result<T, OidcError> {
    Err(OidcError::Invalid { name, message: message.into(), expected })
}

fn text(value: Option<&str>) -> Option<&str> {
    value.map(str::trim).filter(|value| !value.is_empty())
}

fn list(value: Option<&str>, separator: char) -> impl Iterator<Item = &str> {
    value.unwrap_or_default().split(separator).map(str::trim).filter(|item| !item.is_empty())
}

/// `GROUP=operator` or `GROUP=ROLE@ORG`. Names of groups may hold `=` and `,` as those of directories do.
fn group_role(entry: &str) -> Result<GroupRole, OidcError> {
    let expected = "GROUP=operator, or GROUP=ROLE@ORGANIZATION-ID with owner, admin, member or viewer";
    let Some((group, role)) = entry.rsplit_once('=').map(|(group, role)| (group.trim(), role.trim())) else {
        return invalid("oidc_roles", format!("{entry:?} has no ="), expected);
    };
    if group.is_empty() || group.len() > LONGEST {
        return invalid("oidc_roles", format!("{entry:?} names no group"), expected);
    }
    if role == Role::Operator.name() {
        return Ok(GroupRole { group: group.to_owned(), role: Role::Operator, org: None });
    }
    let parsed = role.split_once('@').and_then(|(role, org)| Some((role.parse().ok()?, org.parse().ok()?)));
    match parsed {
        Some((role, org)) => Ok(GroupRole { group: group.to_owned(), role, org: Some(org) }),
        None => invalid("oidc_roles", format!("{role:?} is not understood"), expected),
    }
}

/// Whether what is fetched from there can be believed: TLS, or no network in between.
pub(super) fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return false;
    }
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => {
            let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
            host == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
        _ => false,
    }
}

/// The certificates of a file.
pub(super) fn authorities(path: &Path) -> Result<rustls::RootCertStore, OidcError> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    let unusable = |message: String| OidcError::Authorities { path: path.to_owned(), message };
    let mut store = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        store.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(unusable("there is no certificate in it".to_owned()));
    }
    Ok(store)
}
