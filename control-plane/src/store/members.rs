//! People of an organization and their roles, and who they are at an OIDC issuer. Not published to the nodes.

use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, Page, StoreError, SystemTx, TenantTx,
    page::{page_of, page_query},
};

/// More organizations than one person is in.
const MOST_MEMBERSHIPS: i64 = 1000;

macro_rules! columns {
    () => {
        "id, org_id, coalesce(email, '') AS email, coalesce(oidc_subject, '') AS subject, role, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct MemberRow {
    pub id: Uuid,
    pub org_id: Uuid,
    /// Lower case; empty for a member that is known by subject alone.
    pub email: String,
    /// At the issuer; empty until the member has used the API, unless an administrator wrote it.
    pub subject: String,
    pub role: String,
    pub created_at: OffsetDateTime,
}

/// Whom a member is looked for by: at least one of both.
#[derive(Clone, Copy, Debug)]
pub struct KnownBy<'a> {
    pub email: Option<&'a str>,
    pub subject: Option<&'a str>,
}

pub async fn insert(
    tx: &mut TenantTx,
    id: Uuid,
    known_by: KnownBy<'_>,
    role: &str,
) -> Result<MemberRow, StoreError> {
    let sql = concat!(
        "INSERT INTO members (id, org_id, email, oidc_subject, role) VALUES ($1, $2, $3, $4, $5) RETURNING ",
        columns!()
    );
    let inserted = sqlx::query_as(sql)
        .bind(id)
        .bind(tx.org().0)
        .bind(known_by.email)
        .bind(known_by.subject)
        .bind(role)
        .fetch_one(tx.conn());
    Ok(inserted.await?)
}

pub async fn get(tx: &mut TenantTx, id: Uuid) -> Result<Option<MemberRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM members WHERE id = $1");
    Ok(sqlx::query_as(sql).bind(id).fetch_optional(tx.conn()).await?)
}

pub async fn list(
    tx: &mut TenantTx,
    role: Option<&str>,
    page: Page,
    filter: &Filter,
) -> Result<Listed<MemberRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM members",
        page_of!("", "email", "org_id = $7 AND ($8::text IS NULL OR role = $8)")
    );
    let org = tx.org().0;
    let rows = page_query(sql, page, filter).bind(org).bind(role).fetch_all(tx.conn()).await?;
    Ok(Listed::new(rows, page, |row: &MemberRow| row.id))
}

pub async fn set_role(tx: &mut TenantTx, id: Uuid, role: &str) -> Result<Option<MemberRow>, StoreError> {
    let sql = concat!("UPDATE members SET role = $2 WHERE id = $1 RETURNING ", columns!());
    Ok(sqlx::query_as(sql).bind(id).bind(role).fetch_optional(tx.conn()).await?)
}

/// False: there was none.
pub async fn delete(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let done = sqlx::query("DELETE FROM members WHERE id = $1").bind(id).execute(tx.conn()).await?;
    Ok(done.rows_affected() > 0)
}

/// Whether this member is the organization's only owner. Stays true until commit in a transaction that writes: writers
/// take turns, so two owners can't remove each other.
pub async fn is_last_owner(tx: &mut TenantTx, id: Uuid) -> Result<bool, StoreError> {
    let org = tx.org().0;
    let sql = "SELECT id FROM members WHERE org_id = $1 AND role = 'owner' LIMIT 2";
    let owners: Vec<Uuid> = sqlx::query_scalar(sql).bind(org).fetch_all(tx.conn()).await?;
    Ok(owners == [id])
}

/// A person as the issuer's token tells.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    pub issuer: &'a str,
    pub subject: &'a str,
    /// Verified, lower case.
    pub email: Option<&'a str>,
}

/// One organization that a person is a member of.
#[derive(Clone, Debug, FromRow)]
pub struct PersonsMember {
    pub id: Uuid,
    pub org_id: Uuid,
    pub role: String,
    pub org_disabled: bool,
    /// Found by the address: the subject is not known yet, or only at another issuer.
    pub by_email: bool,
}

/// The memberships of a person in all organizations. Once a member is known by subject, the address counts no more:
/// addresses are given to other people.
pub async fn of_person(tx: &mut SystemTx, person: Person<'_>) -> Result<Vec<PersonsMember>, StoreError> {
    let sql = "SELECT m.id, m.org_id, m.role, o.disabled AS org_disabled, \
               m.oidc_subject IS DISTINCT FROM $1 AS by_email \
               FROM members m JOIN organizations o ON o.id = m.org_id \
               WHERE (m.oidc_subject = $1 AND (m.oidc_issuer IS NULL OR m.oidc_issuer = $2)) \
                  OR (m.email = $3 AND (m.oidc_subject IS NULL OR m.oidc_issuer <> $2)) \
               ORDER BY m.id LIMIT $4";
    Ok(sqlx::query_as(sql)
        .bind(person.subject)
        .bind(person.issuer)
        .bind(person.email)
        .bind(MOST_MEMBERSHIPS)
        .fetch_all(tx.conn())
        .await?)
}

/// From now on these members are this person, whatever its address becomes.
pub async fn bind(tx: &mut SystemTx, members: &[Uuid], person: Person<'_>) -> Result<u64, StoreError> {
    let sql = "UPDATE members AS m SET oidc_subject = $2, oidc_issuer = $3 WHERE m.id = ANY ($1) AND NOT EXISTS \
               (SELECT 1 FROM members AS taken WHERE taken.org_id = m.org_id AND taken.oidc_subject = $2)";
    let done = sqlx::query(sql).bind(members).bind(person.subject).bind(person.issuer);
    Ok(done.execute(tx.conn()).await?.rows_affected())
}
