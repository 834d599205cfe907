//! The audit log's chain: whatever somebody with all rights does to it, the check names the entry. Covers R000-16, I15.

use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::store::{
    TenantTx,
    audit::{self, AuditFilter, AuditRow, Fault, NewEntry, Verified},
    testing::{self, TestStore},
};

struct Log {
    store: TestStore,
    /// Does what nobody may do: no trigger stops it.
    tamperer: PgConnection,
}

fn entry<'a>(org: Option<OrgId>, id: &'a str) -> NewEntry<'a> {
    NewEntry {
        org_id: org.map(|org| org.0),
        actor_kind: "admin_token",
        actor_id: "0190",
        actor_name: "Ann é",
        remote_addr: "192.0.2.7",
        action: "team.update",
        target_kind: "team",
        target_id: id,
        before: None,
        after: Some("{\"name\":\"\\u0000\"}"),
    }
}

async fn append(tx: &mut TenantTx, id: &str) {
    let org = tx.org();
    audit::append(tx, &entry(Some(org), id)).await.unwrap();
}

/// Six entries: of two organizations, two in one transaction, and of the installation.
async fn log() -> Log {
    let store = testing::store().await;
    let (one, two) = (store.org().await, store.org().await);
    for (org, ids) in [(one, &["1"][..]), (two, &["2", "3"]), (one, &["4"])] {
        let mut tx = store.tenant(org).await.unwrap();
        for id in ids {
            append(&mut tx, id).await;
        }
        tx.commit().await.unwrap();
    }
    for id in ["5", "6"] {
        let mut tx = store.system().await.unwrap();
        audit::append(&mut tx, &entry(None, id)).await.unwrap();
        tx.commit().await.unwrap();
    }
    let mut tamperer = store.superuser().await;
    tamperer.execute("SET session_replication_role = replica").await.unwrap();
    Log { store, tamperer }
}

impl Log {
    async fn tamper(&mut self, sql: &str) {
        let done = self.tamperer.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await.unwrap();
        assert!(done.rows_affected() > 0, "{sql}");
    }

    async fn verify(&self) -> Verified {
        audit::verify(&self.store, None).await.unwrap()
    }

    async fn rows(&self) -> Vec<AuditRow> {
        audit::list(&self.store, None, &AuditFilter::default(), None, 100).await.unwrap()
    }
}

#[tokio::test]
async fn an_untouched_log_is_whole_and_its_hashes_are_the_same_in_rust_and_sql() {
    let log = log().await;
    let verified = log.verify().await;
    assert_eq!((verified.entries, verified.head_seq, verified.fault), (6, 6, None));
    let rows = log.rows().await;
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    for row in &rows {
        assert_eq!(row.hash, row.computed_hash(), "{row:?}");
    }
    assert_eq!(rows[0].hash, verified.head_hash);
    let empty = testing::store().await;
    assert_eq!(audit::verify(&empty, None).await.unwrap().fault, None);
}

#[tokio::test]
async fn a_changed_entry_is_named_whichever_column_was_changed() {
    for change in [
        "org_id = NULL",
        "at = at + interval '1 microsecond'",
        "actor_kind = 'local'",
        "actor_id = ''",
        "actor_name = 'Bob'",
        "remote_addr = ''",
        "action = 'team.create'",
        "target_kind = 'key'",
        "target_id = '33'",
        "before = ''",
        "after = NULL",
        "after = after || ' '",
        // Moved from one field to its neighbour: the same text in sum.
        "actor_id = actor_id || 'A', actor_name = substr(actor_name, 2)",
        "prev_hash = hash",
        "hash = prev_hash",
    ] {
        let mut log = log().await;
        log.tamper(&format!("UPDATE audit_log SET {change} WHERE seq = 3")).await;
        assert_eq!(log.verify().await.fault, Some(Fault::Changed(3)), "{change}");
    }
}

#[tokio::test]
async fn a_missing_entry_is_named_at_the_start_in_the_middle_and_at_the_end() {
    for (gone, fault) in [
        ("seq = 1", Fault::Missing(1)),
        ("seq = 3", Fault::Missing(3)),
        ("seq IN (3, 4)", Fault::Missing(3)),
        ("seq = 6", Fault::Truncated { end: 5, head: 6 }),
        ("true", Fault::Truncated { end: 0, head: 6 }),
    ] {
        let mut log = log().await;
        log.tamper(&format!("DELETE FROM audit_log WHERE {gone}")).await;
        assert_eq!(log.verify().await.fault, Some(fault), "{gone}");
    }
}

#[tokio::test]
async fn entries_in_another_order_are_found() {
    let mut log = log().await;
    log.tamper("UPDATE audit_log SET seq = CASE seq WHEN 2 THEN -3 ELSE -2 END WHERE seq IN (2, 3)").await;
    log.tamper("UPDATE audit_log SET seq = -seq WHERE seq < 0").await;
    assert_eq!(log.verify().await.fault, Some(Fault::Changed(2)));
}

#[tokio::test]
async fn an_entry_that_was_replaced_together_with_its_hash_breaks_the_chain() {
    let mut log = log().await;
    log.tamper("UPDATE audit_log SET actor_name = 'Bob' WHERE seq = 3").await;
    log.tamper("UPDATE audit_log AS a SET hash = nemo_audit_hash(a) WHERE seq = 3").await;
    assert_eq!(log.verify().await.fault, Some(Fault::Unchained(4)));
    // The same with the last one: only the head knows.
    let mut log = self::log().await;
    log.tamper("UPDATE audit_log SET actor_name = 'Bob' WHERE seq = 6").await;
    log.tamper("UPDATE audit_log AS a SET hash = nemo_audit_hash(a) WHERE seq = 6").await;
    assert_eq!(log.verify().await.fault, Some(Fault::OtherHead(6)));
}

#[tokio::test]
async fn whoever_rewrites_log_and_head_is_found_by_what_was_noted_elsewhere() {
    let mut log = log().await;
    let noted = log.verify().await;
    let noted = Some((noted.head_seq, noted.head_hash));
    assert_eq!(audit::verify(&log.store, noted.clone()).await.unwrap().fault, None);
    log.tamper("DELETE FROM audit_log WHERE seq = 6").await;
    log.tamper("UPDATE audit_head SET seq = 5, hash = (SELECT hash FROM audit_log WHERE seq = 5)").await;
    assert_eq!(log.verify().await.fault, None, "alone it can't be seen");
    let fault = audit::verify(&log.store, noted.clone()).await.unwrap().fault;
    assert_eq!(fault, Some(Fault::Truncated { end: 5, head: 6 }));
    // Another entry in its place.
    let mut tx = log.store.system().await.unwrap();
    audit::append(&mut tx, &entry(None, "forged")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(log.verify().await.fault, None);
    assert_eq!(audit::verify(&log.store, noted).await.unwrap().fault, Some(Fault::OtherThanNoted(6)));
}

#[tokio::test]
async fn writers_at_the_same_time_and_rollbacks_leave_one_chain_without_gaps() {
    let store = testing::store().await;
    let org = store.org().await;
    let writers = (0..20).map(|number| {
        let store = store.store.clone();
        async move {
            let mut tx = store.tenant(org).await.unwrap();
            append(&mut tx, &number.to_string()).await;
            // Every third one does not commit.
            if number % 3 != 0 {
                tx.commit().await.unwrap();
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let verified = audit::verify(&store, None).await.unwrap();
    assert_eq!((verified.entries, verified.head_seq, verified.fault), (13, 13, None));
}

#[tokio::test]
async fn i15_the_audit_log_is_append_only_for_everybody() {
    let log = log().await;
    for role in ["nemo_app", "nemo_system", "nemo_owner", ""] {
        let mut session = log.store.superuser().await;
        if !role.is_empty() {
            session.execute(sqlx::raw_sql(AssertSqlSafe(format!("SET ROLE {role}")))).await.unwrap();
        }
        for sql in ["UPDATE audit_log SET actor_name = ''", "DELETE FROM audit_log", "TRUNCATE audit_log"] {
            let error = session.execute(sql).await.expect_err(sql);
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "42501", "{role:?}: {sql}");
        }
        let head = session.execute("UPDATE audit_head SET seq = 0").await;
        assert_eq!(head.is_ok(), matches!(role, "" | "nemo_owner"), "{role:?}");
    }
}

#[tokio::test]
async fn what_a_writer_says_about_number_time_and_hash_does_not_count() {
    let log = log().await;
    let mut session = log.store.superuser().await;
    session.execute("SET ROLE nemo_system").await.unwrap();
    session
        .execute(
            "INSERT INTO audit_log (seq, org_id, at, actor_kind, actor_id, actor_name, remote_addr, action, \
             target_kind, target_id, prev_hash, hash) \
             VALUES (1, NULL, '2000-01-01', 'local', '', '', '', 'x', 'x', 'x', 'forged', 'forged')",
        )
        .await
        .unwrap();
    let verified = log.verify().await;
    assert_eq!((verified.head_seq, verified.fault), (7, None));
    assert!(log.rows().await[0].at.year() > 2000);
}
