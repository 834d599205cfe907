//! The three kinds of transaction, and what the write path needs of all of them. Dropping one without [`commit`](TenantTx::commit) rolls it back.

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

    /// From here on locks are waited for as long as a statement may take: for work at start, which nobody sits and waits
    /// for, and of which a replica that starts beside this one does all or nothing.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn wait_long(&mut self) -> Result<(), StoreError> {
        sqlx::query("SELECT set_config('lock_timeout', '0', true)").execute(self.conn()).await?;
        Ok(())
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

/// Only the store can make one, so only the store gets at connections.
pub struct Inside(pub(in crate::store) ());

/// What the one write path needs of a transaction, whichever kind it is.
pub trait WriteTx: Send + Sized {
    /// For the store only.
    fn connection(&mut self, inside: Inside) -> &mut PgConnection;

    /// Value of an `org_id` column for rows of this transaction's owner; `None` is the operator.
    fn org_column(&self) -> Option<Uuid>;

    /// The same as the value of a generated `owner` column.
    fn owner_column(&self) -> Uuid {
        self.org_column().unwrap_or(Uuid::nil())
    }

    /// Waits until no other transaction writes configuration: what is read from here on stays true until commit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when that takes longer than the lock timeout.
    fn lock_config(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send {
        async { serialize_config(self.connection(Inside(()))).await }
    }

    /// The revision that this transaction leaves the configuration at, if it holds the lock.
    ///
    /// # Errors
    /// When the database can't be reached.
    fn written_revision(&mut self) -> impl Future<Output = Result<u64, StoreError>> + Send {
        async {
            let revision: i64 = sqlx::query_scalar("SELECT nemo_written_revision()")
                .fetch_one(self.connection(Inside(())))
                .await?;
            Ok(revision.unsigned_abs())
        }
    }

    /// # Errors
    /// [`StoreError::Unavailable`] when the connection broke; then it is unknown whether the commit happened.
    fn finish(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

macro_rules! write_tx {
    ($($tx:ident: $org_id:expr;)*) => {$(
        impl WriteTx for $tx {
            fn connection(&mut self, _inside: Inside) -> &mut PgConnection {
                self.conn()
            }

            fn org_column(&self) -> Option<Uuid> {
                $org_id(self)
            }

            async fn finish(self) -> Result<(), StoreError> {
                self.commit().await
            }
        }
    )*};
}

write_tx! {
    TenantTx: |tx: &TenantTx| Some(tx.org().0);
    SystemTx: |_: &SystemTx| None;
    OwnerTx: OwnerTx::org_id;
}

async fn serialize_config(connection: &mut PgConnection) -> Result<(), StoreError> {
    sqlx::query("SELECT nemo_serialize_config()").execute(connection).await?;
    Ok(())
}
