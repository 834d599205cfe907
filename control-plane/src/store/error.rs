//! What can go wrong in the store, as far as callers act on it. Made from `sqlx::Error` only here.

use sqlx::{error::ErrorKind, migrate::MigrateError};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique constraint: what was to be written exists.
    #[error("already exists ({constraint})")]
    Conflict { constraint: String },
    /// A foreign key: what was referred to does not exist, or what was to be deleted is still referred to.
    #[error("reference violated ({constraint})")]
    Reference { constraint: String },
    /// The database can't be reached, is overloaded, or gave this transaction up. Trying again may help.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A fault of ours: SQL, types, a constraint that the operations should have checked.
    #[error("database error: {0}")]
    Internal(#[source] sqlx::Error),
    #[error("migration failed: {0}")]
    Migrate(#[from] MigrateError),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed
                | sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_) => Self::Unavailable(error),
                _ => Self::Internal(error),
            };
        };
        let constraint = || database.constraint().unwrap_or_default().to_owned();
        match database.kind() {
            ErrorKind::UniqueViolation => Self::Conflict { constraint: constraint() },
            ErrorKind::ForeignKeyViolation => Self::Reference { constraint: constraint() },
            _ if database.code().is_some_and(|code| is_transient(&code)) => Self::Unavailable(error),
            _ => Self::Internal(error),
        }
    }
}

/// SQLSTATEs of a server that is away, full, stopping or read-only, or that chose this transaction as a victim.
fn is_transient(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "08" | "53" | "57" | "58")
        || matches!(code, "40001" | "40P01" | "55P03" | "25P03" | "25006")
}
