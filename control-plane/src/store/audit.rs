//! The audit log. The database numbers, dates and chains the entries (migration 0009); here they are appended, listed,
//! and the chain is checked by computing every hash again.
//!
//! Called by the one write path of the admin operations and by `ops/audit.rs`.

use nemo_types::OrgId;
use ring::digest::{SHA256, digest};
use sqlx::FromRow;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, StoreError, SystemTx, tx::WriteTx};

macro_rules! columns {
    () => {
        "seq, org_id, at, actor_kind, actor_id, actor_name, remote_addr, action, target_kind, target_id, before, \
         after, prev_hash, hash"
    };
}

/// Rows that are checked per query.
const BATCH: i64 = 1000;
/// What the first entry is chained to.
const GENESIS: [u8; 32] = [0; 32];
const DOMAIN: &[u8] = b"nemo-audit-v1";

/// An entry as it is appended.
#[derive(Clone, Debug)]
pub struct NewEntry<'a> {
    /// `None`: the installation's.
    pub org_id: Option<Uuid>,
    pub actor_kind: &'a str,
    pub actor_id: &'a str,
    pub actor_name: &'a str,
    pub remote_addr: &'a str,
    pub action: &'a str,
    pub target_kind: &'a str,
    pub target_id: &'a str,
    /// Canonical JSON without secrets.
    pub before: Option<&'a str>,
    pub after: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct AuditRow {
    pub seq: i64,
    pub org_id: Option<Uuid>,
    pub at: OffsetDateTime,
    pub actor_kind: String,
    pub actor_id: String,
    pub actor_name: String,
    pub remote_addr: String,
    pub action: String,
    pub target_kind: String,
    pub target_id: String,
    pub before: Option<String>,
    pub after: Option<String>,
    pub prev_hash: Vec<u8>,
    pub hash: Vec<u8>,
}

impl AuditRow {
    /// As `nemo_audit_hash` of migration 0009: every field with its length before it, in the order of the columns.
    pub fn computed_hash(&self) -> [u8; 32] {
        let mut text = Vec::with_capacity(512);
        let mut put = |field: Option<&[u8]>| match field {
            None => text.extend([0xff; 8]),
            Some(field) => {
                text.extend(u64::try_from(field.len()).unwrap_or_default().to_be_bytes());
                text.extend(field);
            }
        };
        let micros = i64::try_from(self.at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
        put(Some(DOMAIN));
        put(Some(&self.prev_hash));
        put(Some(&self.seq.to_be_bytes()));
        put(self.org_id.as_ref().map(|id| id.as_bytes().as_slice()));
        put(Some(&micros.to_be_bytes()));
        for field in [
            &self.actor_kind,
            &self.actor_id,
            &self.actor_name,
            &self.remote_addr,
            &self.action,
            &self.target_kind,
            &self.target_id,
        ] {
            put(Some(field.as_bytes()));
        }
        put(self.before.as_deref().map(str::as_bytes));
        put(self.after.as_deref().map(str::as_bytes));
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &text).as_ref());
        hash
    }
}

/// Appends an entry. From here until commit no other transaction can append one.
pub async fn append<T: WriteTx>(tx: &mut T, new: &NewEntry<'_>) -> Result<(), StoreError> {
    // Numbers, times and hashes are the trigger's.
    let sql = "INSERT INTO audit_log (seq, org_id, at, actor_kind, actor_id, actor_name, remote_addr, action, \
               target_kind, target_id, before, after, prev_hash, hash) \
               VALUES (0, $1, now(), $2, $3, $4, $5, $6, $7, $8, $9, $10, '', '')";
    sqlx::query(sql)
        .bind(new.org_id)
        .bind(new.actor_kind)
        .bind(new.actor_id)
        .bind(new.actor_name)
        .bind(new.remote_addr)
        .bind(new.action)
        .bind(new.target_kind)
        .bind(new.target_id)
        .bind(new.before)
        .bind(new.after)
        .execute(tx.connection(super::tx::Inside(())))
        .await?;
    Ok(())
}

/// `None` is not restricted.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Id or name of who did it.
    pub actor: Option<String>,
    /// Such as `team.update`, or `team.` for everything about teams.
    pub action: Option<String>,
    pub target_kind: Option<String>,
    pub target_id: Option<String>,
    /// Then or later.
    pub after: Option<OffsetDateTime>,
    /// Earlier than then.
    pub before: Option<OffsetDateTime>,
}

/// Newest first, at most `limit` entries below number `below`: an organization's, or everybody's.
pub async fn list(
    store: &Store,
    org: Option<OrgId>,
    filter: &AuditFilter,
    below: Option<i64>,
    limit: i64,
) -> Result<Vec<AuditRow>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM audit_log WHERE ($1::bigint IS NULL OR seq < $1) AND ($2::uuid IS NULL OR org_id = $2) \
         AND ($3::text IS NULL OR actor_id = $3 OR actor_name = $3) \
         AND ($4::text IS NULL OR action = $4 OR (right($4, 1) = '.' AND starts_with(action, $4))) \
         AND ($5::text IS NULL OR target_kind = $5) AND ($6::text IS NULL OR target_id = $6) \
         AND ($7::timestamptz IS NULL OR at >= $7) AND ($8::timestamptz IS NULL OR at < $8) \
         ORDER BY seq DESC LIMIT $9"
    );
    let mut tx = store.owner(org).await?;
    Ok(sqlx::query_as(sql)
        .bind(below)
        .bind(org.map(|org| org.0))
        .bind(filter.actor.as_deref())
        .bind(filter.action.as_deref())
        .bind(filter.target_kind.as_deref())
        .bind(filter.target_id.as_deref())
        .bind(filter.after)
        .bind(filter.before)
        .bind(limit)
        .fetch_all(tx.conn())
        .await?)
}

/// What a check of the chain found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Entries that were checked, the faulty one included.
    pub entries: u64,
    /// Number and hash of the last entry, as the database says.
    pub head_seq: i64,
    pub head_hash: Vec<u8>,
    /// The first thing that is wrong; `None`: the log is whole.
    pub fault: Option<Fault>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("entry {0} is missing")]
    Missing(i64),
    #[error("entry {0} was changed: its content does not have its hash")]
    Changed(i64),
    #[error("entry {0} does not follow entry {before}: one of the two was replaced", before = .0 - 1)]
    Unchained(i64),
    #[error("the log ends at entry {end}, but entry {head} was written")]
    Truncated { end: i64, head: i64 },
    #[error("entry {0} is not the one that was written last")]
    OtherHead(i64),
    #[error("entry {0} has another hash than the one that was noted")]
    OtherThanNoted(i64),
}

impl Fault {
    /// The entry that it is about.
    pub fn seq(&self) -> i64 {
        match self {
            Self::Missing(seq)
            | Self::Changed(seq)
            | Self::Unchained(seq)
            | Self::OtherHead(seq)
            | Self::OtherThanNoted(seq) => *seq,
            Self::Truncated { end, .. } => end + 1,
        }
    }
}

/// Checks every entry and the end of the log. `noted` is the number and hash of an entry that was noted elsewhere: it
/// is what finds out somebody who rewrote log, hashes and head.
///
/// # Errors
/// When the database can't be read.
pub async fn verify(store: &Store, noted: Option<(i64, Vec<u8>)>) -> Result<Verified, StoreError> {
    let mut tx = store.system().await?;
    sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(tx.conn()).await?;
    let (head_seq, head_hash): (i64, Vec<u8>) =
        sqlx::query_as("SELECT seq, hash FROM audit_head").fetch_one(tx.conn()).await?;
    let (mut seq, mut hash, mut entries) = (0, GENESIS.to_vec(), 0);
    let mut fault = None;
    'log: loop {
        let rows = batch(&mut tx, seq).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            entries += 1;
            fault = check(&row, seq, &hash, noted.as_ref());
            if fault.is_some() {
                break 'log;
            }
            (seq, hash) = (row.seq, row.hash);
        }
    }
    let fault = fault.or_else(|| match &noted {
        _ if seq < head_seq => Some(Fault::Truncated { end: seq, head: head_seq }),
        _ if (seq, &hash) != (head_seq, &head_hash) => Some(Fault::OtherHead(seq)),
        Some((noted, _)) if *noted > seq => Some(Fault::Truncated { end: seq, head: *noted }),
        _ => None,
    });
    Ok(Verified { entries, head_seq, head_hash, fault })
}

async fn batch(tx: &mut SystemTx, after: i64) -> Result<Vec<AuditRow>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2");
    Ok(sqlx::query_as(sql).bind(after).bind(BATCH).fetch_all(tx.conn()).await?)
}

/// What is wrong with the entry that stands after entry `seq` with that hash.
fn check(row: &AuditRow, seq: i64, hash: &[u8], noted: Option<&(i64, Vec<u8>)>) -> Option<Fault> {
    if row.seq != seq + 1 {
        return Some(Fault::Missing(seq + 1));
    }
    if row.hash != row.computed_hash() {
        return Some(Fault::Changed(row.seq));
    }
    if row.prev_hash != hash {
        return Some(Fault::Unchained(row.seq));
    }
    match noted {
        Some((noted, hash)) if *noted == row.seq && *hash != row.hash => Some(Fault::OtherThanNoted(row.seq)),
        _ => None,
    }
}
