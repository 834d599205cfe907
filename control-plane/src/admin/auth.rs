//! Who is calling: an admin token, or a token of the OIDC issuer, becomes a [`Caller`]; and a caller is asked what it may
//! do.
//!
//! An admin token is found by its public part and compared in constant time by hash. Nothing tells an unknown token from
//! a wrong or expired one. A person is whom the issuer says: a member by subject or verified address, with the roles of
//! its groups on top. Called by `grpc/admin.rs` and `rest/`.

use std::sync::Arc;

use nemo_types::{AdminToken, AdminTokenId, OrgId, TokenHash};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{Action, Admin, AdminError, ErrorKind, Role, oidc::Oidc, validate};
use crate::store::{StoreError, admin_tokens, members, organizations};

/// Whoever asked for an operation, and what it may do.
#[derive(Clone, Debug)]
pub struct Caller {
    actor: Actor,
    name: String,
    grants: Grants,
}

/// Who stands behind a caller, as the audit log names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The owner of this process or of its data directory, who needs no token.
    Local,
    /// Whoever holds this admin token.
    Token(AdminTokenId),
    /// A person or workload that the OIDC issuer vouches for.
    Person { issuer: Arc<str>, subject: String },
}

impl Actor {
    /// `local`, `admin_token` or `person`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Token(_) => "admin_token",
            Self::Person { .. } => "person",
        }
    }

    /// Id of the token, or the subject at the issuer; empty for [`Actor::Local`].
    pub fn id(&self) -> String {
        match self {
            Self::Local => String::new(),
            Self::Token(id) => id.to_string(),
            Self::Person { subject, .. } => subject.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Grants {
    /// Runs the installation: everything.
    Operator,
    /// A role in each of these organizations, once per organization.
    Organizations(Vec<Membership>),
}

/// One organization that a caller belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    pub org: OrgId,
    pub role: Role,
    /// The organization is switched off: nothing can be done in it.
    pub disabled: bool,
}

impl Caller {
    /// The owner of this process or data directory, who needs no token.
    pub fn local_operator() -> Self {
        Self { actor: Actor::Local, name: "local operator".to_owned(), grants: Grants::Operator }
    }

    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// For people: name of the token, address or subject of the person.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_operator(&self) -> bool {
        self.grants == Grants::Operator
    }

    /// Its role in that organization; [`Role::Operator`] in all of them.
    pub fn role_in(&self, org: OrgId) -> Option<Role> {
        match &self.grants {
            Grants::Operator => Some(Role::Operator),
            Grants::Organizations(grants) => {
                grants.iter().find(|grant| grant.org == org).map(|grant| grant.role)
            }
        }
    }

    /// The organizations that it may know of; `None`: all.
    pub fn organizations(&self) -> Option<Vec<OrgId>> {
        match &self.grants {
            Grants::Operator => None,
            Grants::Organizations(grants) => Some(grants.iter().map(|grant| grant.org).collect()),
        }
    }

    /// # Errors
    /// [`ErrorKind::PermissionDenied`] unless this caller may do that in that organization. The answer does not depend
    /// on whether another organization exists.
    pub fn check(&self, action: Action, org: OrgId) -> Result<(), AdminError> {
        let denied = |message: String| Err(AdminError::new(ErrorKind::PermissionDenied, message));
        let grants = match &self.grants {
            Grants::Operator if Role::Operator.may(action) => return Ok(()),
            Grants::Operator => return denied(format!("role {} may not {action}", Role::Operator)),
            Grants::Organizations(grants) => grants,
        };
        match grants.iter().find(|grant| grant.org == org) {
            Some(grant) if grant.disabled => denied("the organization is disabled".to_owned()),
            Some(grant) if grant.role.may(action) => Ok(()),
            Some(grant) => denied(format!("role {} may not {action}", grant.role)),
            None => match (&self.actor, grants.as_slice()) {
                (Actor::Token(_), [own]) => {
                    denied(format!("this token is for organization {} only", own.org))
                }
                _ => denied(format!("{} is no member of organization {org}", self.name)),
            },
        }
    }

    /// # Errors
    /// [`ErrorKind::PermissionDenied`] unless this is the operator.
    pub fn check_operator(&self) -> Result<(), AdminError> {
        if self.is_operator() {
            return Ok(());
        }
        Err(AdminError::new(ErrorKind::PermissionDenied, "only the operator may do this"))
    }

    #[cfg(test)]
    pub(crate) fn for_test(org: OrgId, role: Role) -> Self {
        let grants = Grants::Organizations(vec![Membership { org, role, disabled: false }]);
        Self { actor: Actor::Token(AdminTokenId::generate()), name: role.to_string(), grants }
    }
}

/// How old the noted last use of a token may be: it costs a write, so not every request updates it.
const LAST_USED_EVERY: Duration = Duration::minutes(5);

impl Admin {
    /// Verifies the value of an `authorization` header or metadata entry: an admin token, or a token of the OIDC issuer.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] without a valid token, [`ErrorKind::PermissionDenied`] when its organization is
    /// disabled or nobody knows the person, [`ErrorKind::Unavailable`] when that can't be found out.
    pub async fn authenticate(&self, authorization: Option<&str>) -> Result<Caller, AdminError> {
        let value = authorization.ok_or_else(|| refused("no token was sent"))?;
        let (scheme, token) = value.split_once(' ').ok_or_else(|| refused("not a bearer token"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused("not a bearer token"));
        }
        let token = token.trim();
        match &self.oidc {
            // A signed token has dots, an admin token never.
            Some(oidc) if token.contains('.') => self.person(oidc, token).await,
            _ => self.admin_token(token).await,
        }
    }

    async fn admin_token(&self, token: &str) -> Result<Caller, AdminError> {
        // Malformed tokens never reach the database.
        let presented = AdminToken::parse(token).map_err(|_| refused("not an admin token"))?;
        let mut tx = self.store.system().await?;
        let stored = admin_tokens::find(&mut tx, presented.public_id.as_str()).await?;
        tx.commit().await?;

        let now = validate::now();
        let stored = stored
            .filter(|stored| TokenHash::from_bytes(&stored.secret_hash) == Some(presented.hash()))
            .filter(|stored| stored.expires_at.is_none_or(|at| now < at))
            .ok_or_else(|| refused("the token is unknown or expired"))?;
        if stored.last_used_at.is_none_or(|at| at < now - LAST_USED_EVERY)
            && let Err(error) = self.touch(stored.id, now).await
        {
            tracing::warn!(%error, "can't note that an admin token was used");
        }
        let grants = match stored.org_id {
            None => Grants::Operator,
            Some(_) if stored.org_disabled => {
                return Err(AdminError::new(ErrorKind::PermissionDenied, "the organization is disabled"));
            }
            Some(org) => {
                let role = stored.role.parse().map_err(|_| refused("the token has no role"))?;
                Grants::Organizations(vec![Membership { org: OrgId(org), role, disabled: false }])
            }
        };
        Ok(Caller { actor: Actor::Token(AdminTokenId(stored.id)), name: stored.name, grants })
    }

    async fn touch(&self, token: Uuid, now: OffsetDateTime) -> Result<(), StoreError> {
        let mut tx = self.store.system().await?;
        admin_tokens::touch(&mut tx, token, now, now - LAST_USED_EVERY).await?;
        tx.commit().await
    }

    /// Whom the issuer vouches for, with what its memberships and groups allow together.
    async fn person(&self, oidc: &Oidc, token: &str) -> Result<Caller, AdminError> {
        let identity = oidc.identify(token).await?;
        let settings = oidc.settings();
        let issuer = settings.issuer.as_str();
        let name = identity.email.as_ref().unwrap_or(&identity.subject).clone();
        let actor = Actor::Person { issuer: issuer.into(), subject: identity.subject.clone() };
        let of_groups = || settings.group_roles.iter().filter(|entry| identity.groups.contains(&entry.group));
        if of_groups().any(|entry| entry.role == Role::Operator) {
            return Ok(Caller { actor, name, grants: Grants::Operator });
        }

        let person = members::Person { issuer, subject: &identity.subject, email: identity.email.as_deref() };
        let group_orgs: Vec<Uuid> = of_groups().filter_map(|entry| entry.org.map(|org| org.0)).collect();
        let mut tx = self.store.system().await?;
        let memberships = members::of_person(&mut tx, person).await?;
        let existing = organizations::disabled(&mut tx, &group_orgs).await?;
        tx.commit().await?;

        let mut grants = Vec::new();
        for member in &memberships {
            let Ok(role) = member.role.parse() else { continue };
            add(&mut grants, Membership { org: OrgId(member.org_id), role, disabled: member.org_disabled });
        }
        for entry in of_groups() {
            let org = existing.iter().find(|(id, _)| entry.org == Some(OrgId(*id)));
            if let Some((id, disabled)) = org {
                add(&mut grants, Membership { org: OrgId(*id), role: entry.role, disabled: *disabled });
            }
        }
        if grants.is_empty() {
            return Err(AdminError {
                expected: Some(format!(
                    "a member with the subject {:?} or its verified address",
                    identity.subject
                )),
                ..AdminError::new(ErrorKind::PermissionDenied, format!("{name} is in no organization here"))
            });
        }
        self.remember(&memberships, person).await;
        Ok(Caller { actor, name, grants: Grants::Organizations(grants) })
    }

    /// Members that were found by address are from now on known by subject.
    async fn remember(&self, memberships: &[members::PersonsMember], person: members::Person<'_>) {
        let new: Vec<Uuid> =
            memberships.iter().filter(|member| member.by_email).map(|member| member.id).collect();
        if new.is_empty() {
            return;
        }
        let bound = async {
            let mut tx = self.store.system().await?;
            let bound = members::bind(&mut tx, &new, person).await?;
            tx.commit().await?;
            Ok::<_, StoreError>(bound)
        };
        match bound.await {
            Ok(0) => {}
            Ok(members) => {
                tracing::info!(members, subject = person.subject, "members are known by subject now")
            }
            // The address will do until the next time.
            Err(error) => tracing::warn!(%error, "can't note who a member is"),
        }
    }
}

/// One entry per organization: the higher role counts.
fn add(grants: &mut Vec<Membership>, new: Membership) {
    match grants.iter_mut().find(|grant| grant.org == new.org) {
        Some(grant) => grant.role = grant.role.max(new.role),
        None => grants.push(new),
    }
}

fn refused(message: &str) -> AdminError {
    AdminError {
        expected: Some("the header \"authorization: Bearer adm-nemo-…\"".to_owned()),
        ..AdminError::new(ErrorKind::Unauthenticated, message)
    }
}
