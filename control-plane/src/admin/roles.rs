//! Which role may do what, as one table [R000-16]. The operator stands above it.

use std::{fmt, str::FromStr};

/// A role in an organization, of a member or of an admin token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Owner,
    Admin,
    Member,
    Viewer,
}

/// What an operation does, as far as roles are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Look at the organization and everything in it. No secret can be read by anyone.
    Read,
    /// Make a new virtual key.
    IssueKeys,
    /// Change what the organization has: teams, keys, credentials, deployments, model groups, settings.
    Write,
    /// Change who may use the admin API: members and admin tokens.
    ManageAccess,
}

/// The table. Tested cell by cell against the operations.
const ALLOWED: [(Role, &[Action]); 4] = [
    (Role::Owner, &[Action::Read, Action::IssueKeys, Action::Write, Action::ManageAccess]),
    (Role::Admin, &[Action::Read, Action::IssueKeys, Action::Write]),
    (Role::Member, &[Action::Read, Action::IssueKeys]),
    (Role::Viewer, &[Action::Read]),
];

impl Role {
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    pub fn may(self, action: Action) -> bool {
        ALLOWED.iter().any(|(role, actions)| *role == self && actions.contains(&action))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No role has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected one of: owner, admin, member, viewer")]
pub struct UnknownRole;

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or(UnknownRole)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::IssueKeys => "issue keys",
            Self::Write => "change configuration",
            Self::ManageAccess => "manage members and admin tokens",
        })
    }
}
