//! The three kinds of transaction. Dropping one without [`commit`](TenantTx::commit) rolls it back.

use nemo_types::OrgId;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::StoreError;

/// Bound to one organization by row-level security.
pub struct TenantTx {
    tx: Transaction<'static, Postgres>,
    org: OrgId,
}

impl TenantTx {
    pub(super) async fn begin(pool: &PgPool, org: OrgId) -> Result<Self, StoreError> {
        let mut tx = pool.begin().await?;
        // Local to the transaction, so the connection goes back to the pool without a tenant.
        sqlx::query("SELECT set_config('nemo.org_id', $1, true)")
            .bind(org.to_string())
            .execute(&mut *tx)
            .await?;
        Ok(Self { tx, org })
    }

    pub fn org(&self) -> OrgId {
        self.org
    }

    pub(in crate::store) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when the connection broke; then it is unknown whether the commit happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

/// Sees all rows.
pub struct SystemTx {
    tx: Transaction<'static, Postgres>,
}

impl SystemTx {
    pub(super) async fn begin(pool: &PgPool) -> Result<Self, StoreError> {
        Ok(Self { tx: pool.begin().await? })
    }

    pub(in crate::store) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Waits until no other transaction writes configuration: what is read from here on stays true until commit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that takes longer than the lock timeout.
    pub async fn serialize_config(&mut self) -> Result<(), StoreError> {
        serialize_config(self.conn()).await
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when the connection broke; then it is unknown whether the commit happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        Ok(self.tx.commit().await?)
    }
}

/// Over the rows of one owner: what an organization and the operator can both have.
///
/// The operator's variant could see other rows too; the functions that take an `OwnerTx` all say
/// `owner = $owner` in their SQL.
pub enum OwnerTx {
    Tenant(TenantTx),
    Operator(SystemTx),
}

impl OwnerTx {
    /// Value of the `org_id` column.
    pub fn org_id(&self) -> Option<Uuid> {
        match self {
            Self::Tenant(tx) => Some(tx.org().0),
            Self::Operator(_) => None,
        }
    }

    /// Value of the generated `owner` column: the zero id is the operator.
    pub(in crate::store) fn owner(&self) -> Uuid {
        self.org_id().unwrap_or(Uuid::nil())
    }

    pub(in crate::store) fn conn(&mut self) -> &mut PgConnection {
        match self {
            Self::Tenant(tx) => tx.conn(),
            Self::Operator(tx) => tx.conn(),
        }
    }

    /// Waits until no other transaction writes configuration: what is read from here on stays true until commit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that takes longer than the lock timeout.
    pub async fn serialize_config(&mut self) -> Result<(), StoreError> {
        serialize_config(self.conn()).await
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when the connection broke; then it is unknown whether the commit happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Tenant(tx) => tx.commit().await,
            Self::Operator(tx) => tx.commit().await,
        }
    }
}

async fn serialize_config(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT nemo_serialize_config()").execute(connection).await?;
    Ok(())
}
