//! Who is calling: an admin token becomes a [`Caller`], and a caller is asked what it may do.
//!
//! A token is found by its public part and compared in constant time by hash. Nothing tells an unknown token from a
//! wrong or expired one. Called by `grpc/admin.rs` and `rest/`.

use nemo_types::{AdminToken, AdminTokenId, OrgId, TokenHash};

use super::{Action, Admin, AdminError, ErrorKind, Role, validate};
use crate::store::admin_tokens;

/// Whoever asked for an operation.
#[derive(Clone, Debug)]
pub struct Caller {
    kind: CallerKind,
    name: String,
    token: Option<AdminTokenId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// Runs the installation: everything.
    Operator,
    /// A token of one organization.
    OrgToken { org: OrgId, role: Role },
}

impl Caller {
    /// The owner of this process or data directory, who needs no token.
    pub fn local_operator() -> Self {
        Self { kind: CallerKind::Operator, name: "local operator".to_owned(), token: None }
    }

    pub fn kind(&self) -> CallerKind {
        self.kind
    }

    /// For logs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The token that was presented; `None` for callers in this process.
    pub fn token(&self) -> Option<AdminTokenId> {
        self.token
    }

    /// # Errors
    /// [`ErrorKind::PermissionDenied`] unless this caller may do that in that organization. The answer does not depend
    /// on whether another organization exists.
    pub fn check(&self, action: Action, org: OrgId) -> Result<(), AdminError> {
        match self.kind {
            CallerKind::Operator => Ok(()),
            CallerKind::OrgToken { org: own, .. } if own != org => Err(AdminError::new(
                ErrorKind::PermissionDenied,
                format!("this token is for organization {own} only"),
            )),
            CallerKind::OrgToken { role, .. } if role.may(action) => Ok(()),
            CallerKind::OrgToken { role, .. } => {
                Err(AdminError::new(ErrorKind::PermissionDenied, format!("role {role} may not {action}")))
            }
        }
    }

    /// # Errors
    /// [`ErrorKind::PermissionDenied`] unless this is the operator.
    pub fn check_operator(&self) -> Result<(), AdminError> {
        match self.kind {
            CallerKind::Operator => Ok(()),
            CallerKind::OrgToken { .. } => {
                Err(AdminError::new(ErrorKind::PermissionDenied, "only the operator's token may do this"))
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn for_test(org: OrgId, role: Role) -> Self {
        Self { kind: CallerKind::OrgToken { org, role }, name: role.to_string(), token: None }
    }
}

impl Admin {
    /// Verifies the value of an `authorization` header or metadata entry.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] without a valid token, [`ErrorKind::PermissionDenied`] when its organization is
    /// disabled, [`ErrorKind::Unavailable`] when that can't be found out.
    pub async fn authenticate(&self, authorization: Option<&str>) -> Result<Caller, AdminError> {
        let refused = |message| AdminError {
            expected: Some("the header \"authorization: Bearer adm-nemo-…\"".to_owned()),
            ..AdminError::new(ErrorKind::Unauthenticated, message)
        };
        let value = authorization.ok_or_else(|| refused("no token was sent"))?;
        let (scheme, token) = value.split_once(' ').ok_or_else(|| refused("not a bearer token"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(refused("not a bearer token"));
        }
        // Malformed tokens never reach the database.
        let presented = AdminToken::parse(token.trim()).map_err(|_| refused("not an admin token"))?;
        let mut tx = self.store.system().await?;
        let stored = admin_tokens::find(&mut tx, presented.public_id.as_str()).await?;
        tx.commit().await?;

        let now = validate::now();
        let stored = stored
            .filter(|stored| TokenHash::from_bytes(&stored.secret_hash) == Some(presented.hash))
            .filter(|stored| stored.expires_at.is_none_or(|at| now < at))
            .ok_or_else(|| refused("the token is unknown or expired"))?;
        let kind = match stored.org_id {
            None => CallerKind::Operator,
            Some(_) if stored.org_disabled => {
                return Err(AdminError::new(ErrorKind::PermissionDenied, "the organization is disabled"));
            }
            Some(org) => CallerKind::OrgToken {
                org: OrgId(org),
                role: stored.role.parse().map_err(|_| refused("the token has no role"))?,
            },
        };
        Ok(Caller { kind, name: stored.name, token: Some(AdminTokenId(stored.id)) })
    }
}
