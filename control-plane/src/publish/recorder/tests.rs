use std::collections::BTreeSet;

use nemo_proto::config::{Credential, Deployment, Organization, Setting, Team};

use super::*;
use crate::store::{PoolSizes, testing};

fn put(delta: &mut Delta, kind: resource::Kind) {
    delta.upsert(Resource { kind: Some(kind) }).unwrap();
}

fn id(number: u8) -> bytes::Bytes {
    vec![number; 16].into()
}

fn setting(number: u8, key: &str) -> resource::Kind {
    let (id, value) = (id(number), "\"secret-canary\"".to_owned());
    resource::Kind::Setting(Setting { id, key: key.to_owned(), value, ..Setting::default() })
}

fn everything_there_is() -> Delta {
    let mut delta = Delta::default();
    put(&mut delta, resource::Kind::Organization(Organization { id: id(1), ..Organization::default() }));
    put(&mut delta, resource::Kind::Team(Team { id: id(2), org_id: id(1), ..Team::default() }));
    let sealed = b"sealed-canary".to_vec().into();
    put(&mut delta, resource::Kind::Credential(Credential { id: id(3), sealed, ..Credential::default() }));
    let deployment =
        Deployment { id: id(4), credential_id: id(3), name: "east".into(), ..Deployment::default() };
    put(&mut delta, resource::Kind::Deployment(deployment));
    put(&mut delta, setting(5, "oidc.client_secret"));
    put(
        &mut delta,
        resource::Kind::Setting(Setting {
            id: id(6),
            key: "routing.retries".into(),
            value: "1".into(),
            ..Setting::default()
        }),
    );
    delta
}

/// No credential, no key, no setting of others: neither sealed nor named.
#[test]
fn no_secret_gets_into_the_history() {
    let delta = everything_there_is();
    let mut set = ResourceSet::new();
    set.apply(&delta);
    for rows in [changed(&delta), everything(&set)] {
        let kinds: BTreeSet<i16> = rows.iter().map(|row| row.kind).collect();
        assert_eq!(kinds, BTreeSet::from([1, 5, 8]));
        assert_eq!(rows.len(), 3, "{rows:?}");
        for row in &rows {
            let resource = row.resource.as_ref().unwrap();
            let text = String::from_utf8_lossy(resource);
            assert!(!text.contains("canary"), "{text}");
            assert!(!resource.windows(16).any(|bytes| bytes == [3; 16]), "a credential is named");
        }
    }
}

#[test]
fn what_is_removed_is_recorded_as_gone() {
    let mut delta = Delta::default();
    delta.remove(ResourceKey { kind: Kind::Deployment, id: id(4) });
    delta.remove(ResourceKey { kind: Kind::ApiKey, id: id(7) });
    assert_eq!(changed(&delta), [HistoryRow { kind: 5, id: vec![4; 16], resource: None }]);
}

/// What a revision lacks in the history is made up for by the next one, which is recorded whole; nothing is held up.
#[tokio::test]
async fn after_a_gap_a_revision_is_recorded_whole() {
    let store = testing::store().await;
    let delta = everything_there_is();
    let mut set = ResourceSet::new();
    set.apply(&delta);
    let recorder = Recorder::default();
    recorder.record(&store.store, 1, Some(&delta), &set).await;
    recorder.record(&store.store, 2, Some(&Delta::default()), &set).await;
    let options: sqlx::postgres::PgConnectOptions = store.database.url().parse().unwrap();
    let away = Store::connect(options, PoolSizes { app: 1, system: 1 }).await.unwrap();
    away.close().await;
    recorder.record(&away, 3, Some(&delta), &set).await;
    recorder.record(&store.store, 4, Some(&Delta::default()), &set).await;
    let bases: Vec<i64> = sqlx::query_scalar("SELECT revision FROM config_history_bases ORDER BY 1")
        .fetch_all(&mut store.superuser().await)
        .await
        .unwrap();
    assert_eq!(bases, [1, 4]);
    let recorded = async |revision| store.is_recorded(revision).await.unwrap();
    assert!(recorded(2).await && !recorded(3).await && recorded(4).await);
}
