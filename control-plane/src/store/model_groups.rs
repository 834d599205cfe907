//! Model groups with their pools: the first link is the primary pool, the others are the fallback chain.

use std::collections::HashMap;

use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Filter, Listed, OwnerTx, Page, StoreError,
    page::{page_of, page_query},
};

macro_rules! columns {
    () => {
        "id, org_id, name, strategy, required_tags, created_at"
    };
}

#[derive(Clone, Debug, FromRow)]
pub struct ModelGroupRow {
    pub id: Uuid,
    /// `None`: the operator's.
    pub org_id: Option<Uuid>,
    pub name: String,
    /// Empty: the organization's default.
    pub strategy: String,
    pub required_tags: Vec<String>,
    pub created_at: OffsetDateTime,
    #[sqlx(skip)]
    pub links: Vec<Vec<LinkDeployment>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkDeployment {
    pub deployment_id: Uuid,
    pub weight: i64,
}

#[derive(FromRow)]
struct LinkRow {
    group_id: Uuid,
    position: i32,
    deployment_id: Option<Uuid>,
    weight: Option<i64>,
}

/// A pool member as it is written; `owner` as [`super::deployments::usable`] told.
#[derive(Clone, Copy, Debug)]
pub struct NewLinkDeployment {
    pub deployment_id: Uuid,
    pub owner: Uuid,
    pub weight: i64,
}

pub async fn insert(
    tx: &mut OwnerTx,
    id: Uuid,
    name: &str,
    strategy: &str,
    required_tags: &[String],
) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO model_groups (id, org_id, name, strategy, required_tags) VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(sql)
        .bind(id)
        .bind(tx.org_id())
        .bind(name)
        .bind(strategy)
        .bind(required_tags)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Replaces all links. The group must be this owner's and written in this transaction before, which serialises it
/// with other writers.
pub async fn put_links(
    tx: &mut OwnerTx,
    id: Uuid,
    links: &[Vec<NewLinkDeployment>],
) -> Result<(), StoreError> {
    let (owner, org_id) = (tx.owner(), tx.org_id());
    let delete = "DELETE FROM group_links WHERE group_id = $1 AND owner = $2";
    sqlx::query(delete).bind(id).bind(owner).execute(tx.conn()).await?;
    let insert_link = "INSERT INTO group_links (group_id, position, org_id) VALUES ($1, $2, $3)";
    let insert_deployment = "INSERT INTO link_deployments (group_id, position, org_id, deployment_id, \
                             deployment_owner, ordinal, weight) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    for (position, link) in (0_i32..).zip(links) {
        sqlx::query(insert_link).bind(id).bind(position).bind(org_id).execute(tx.conn()).await?;
        for (ordinal, deployment) in (0_i32..).zip(link) {
            sqlx::query(insert_deployment)
                .bind(id)
                .bind(position)
                .bind(org_id)
                .bind(deployment.deployment_id)
                .bind(deployment.owner)
                .bind(ordinal)
                .bind(deployment.weight)
                .execute(tx.conn())
                .await?;
        }
    }
    Ok(())
}

pub async fn get(tx: &mut OwnerTx, id: Uuid) -> Result<Option<ModelGroupRow>, StoreError> {
    let owner = tx.owner();
    let sql = concat!("SELECT ", columns!(), " FROM model_groups WHERE id = $1 AND owner = $2");
    let rows = sqlx::query_as(sql).bind(id).bind(owner).fetch_all(tx.conn()).await?;
    Ok(with_links(tx.conn(), rows).await?.pop())
}

pub async fn list(
    tx: &mut OwnerTx,
    page: Page,
    filter: &Filter,
) -> Result<Listed<ModelGroupRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM model_groups", page_of!("", "name", "owner = $7"));
    let owner = tx.owner();
    let rows = page_query(sql, page, filter).bind(owner).fetch_all(tx.conn()).await?;
    let mut listed = Listed::new(rows, page, |row: &ModelGroupRow| row.id);
    listed.rows = with_links(tx.conn(), listed.rows).await?;
    Ok(listed)
}

async fn with_links(
    connection: &mut PgConnection,
    mut groups: Vec<ModelGroupRow>,
) -> Result<Vec<ModelGroupRow>, StoreError> {
    let ids: Vec<Uuid> = groups.iter().map(|group| group.id).collect();
    let sql = "SELECT l.group_id, l.position, d.deployment_id, d.weight FROM group_links l \
               LEFT JOIN link_deployments d ON d.group_id = l.group_id AND d.position = l.position \
               WHERE l.group_id = ANY ($1) ORDER BY l.group_id, l.position, d.ordinal";
    let rows: Vec<LinkRow> = sqlx::query_as(sql).bind(ids).fetch_all(connection).await?;
    let mut by_group: HashMap<Uuid, Vec<(i32, Vec<LinkDeployment>)>> = HashMap::new();
    for row in rows {
        let links = by_group.entry(row.group_id).or_default();
        if links.last().is_none_or(|(position, _)| *position != row.position) {
            links.push((row.position, Vec::new()));
        }
        if let (Some(deployment_id), Some(weight), Some((_, link))) =
            (row.deployment_id, row.weight, links.last_mut())
        {
            link.push(LinkDeployment { deployment_id, weight });
        }
    }
    for group in &mut groups {
        let links = by_group.remove(&group.id).unwrap_or_default();
        group.links = links.into_iter().map(|(_, link)| link).collect();
    }
    Ok(groups)
}

/// Changes what is `Some`. False: there is none.
pub async fn update(
    tx: &mut OwnerTx,
    id: Uuid,
    name: Option<&str>,
    strategy: Option<&str>,
    required_tags: Option<&[String]>,
) -> Result<bool, StoreError> {
    let sql = "UPDATE model_groups SET name = coalesce($3, name), strategy = coalesce($4, strategy), \
               required_tags = coalesce($5, required_tags) WHERE id = $1 AND owner = $2";
    let owner = tx.owner();
    let done = sqlx::query(sql)
        .bind(id)
        .bind(owner)
        .bind(name)
        .bind(strategy)
        .bind(required_tags)
        .execute(tx.conn())
        .await?;
    Ok(done.rows_affected() > 0)
}

/// False: there was none.
pub async fn delete(tx: &mut OwnerTx, id: Uuid) -> Result<bool, StoreError> {
    let owner = tx.owner();
    let sql = "DELETE FROM model_groups WHERE id = $1 AND owner = $2";
    Ok(sqlx::query(sql).bind(id).bind(owner).execute(tx.conn()).await?.rows_affected() > 0)
}
