//! Against a real database, through the publisher: what is read, and that steps lead to the same as a full load.

use nemo_types::OrgId;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use super::*;
use crate::{
    publish::{Publisher, metrics::PublishMetrics},
    store::{settings, teams, testing},
};

/// One row of every kind, the operator's where that is possible. Written as superuser: triggers fire all the same.
async fn fill(superuser: &mut PgConnection, org: OrgId, sealed: &[u8]) {
    let sealed: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    let sql = format!(
        "INSERT INTO teams (id, org_id, name) VALUES ('{TEAM}', '{org}', 'team');
         INSERT INTO api_keys (id, org_id, team_id, name, public_id, secret_hash, allowed_models, expires_at)
             VALUES ('{KEY}', '{org}', '{TEAM}', 'key', 'abcdefghijklmnop', sha256('x'), '{{gpt-5.2}}', '2030-01-01Z');
         INSERT INTO credentials (id, name, provider, sealed, hint) VALUES ('{CREDENTIAL}', 'c', 'openai', '\\x{sealed}', '');
         INSERT INTO models (id, display_name, owned_by, created_unix, context_window, max_output_tokens, tags, source)
             VALUES ('gpt-5.2', 'GPT', 'openai', 1, 1000, 100, '{{vision,code}}', 'custom');
         INSERT INTO model_prices (id, provider, model_id, input, output) VALUES ('p1', 'openai', 'gpt-5.2', 5, 6);
         INSERT INTO model_offerings (model_id, provider, position, upstream_model, price_id)
             VALUES ('gpt-5.2', 'zeta', 0, 'z', NULL), ('gpt-5.2', 'openai', 1, 'gpt-5.2', 'p1');
         INSERT INTO deployment_prices (id, deployment_id, input) VALUES ('own', '{DEPLOYMENT}', 3);
         INSERT INTO deployments (id, name, provider, base_url, credential_id, model_id, upstream_model, weight, price_id)
             VALUES ('{DEPLOYMENT}', 'd', 'openai', 'https://api.openai.com/v1', '{CREDENTIAL}', 'gpt-5.2', 'gpt-5.2', 7, 'own'),
                    ('{SECOND}', 'e', 'openai', 'https://api.openai.com/v1', NULL, 'gpt-5.2', 'gpt-5.2', 1, NULL);
         INSERT INTO model_groups (id, org_id, name, strategy) VALUES ('{GROUP}', '{org}', 'fast', '');
         INSERT INTO group_links (group_id, position, org_id) VALUES ('{GROUP}', 0, '{org}'), ('{GROUP}', 1, '{org}');
         INSERT INTO link_deployments (group_id, position, deployment_id, org_id, deployment_owner, ordinal, weight)
             VALUES ('{GROUP}', 0, '{SECOND}', '{org}', '{OPERATOR}', 0, 9),
                    ('{GROUP}', 0, '{DEPLOYMENT}', '{org}', '{OPERATOR}', 1, 8),
                    ('{GROUP}', 1, '{DEPLOYMENT}', '{org}', '{OPERATOR}', 0, 1);
         INSERT INTO settings (id, org_id, key, value) VALUES ('{SETTING}', '{org}', 'routing.strategy', '\"simple-shuffle\"');"
    );
    superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

const OPERATOR: Uuid = Uuid::nil();
const TEAM: Uuid = Uuid::from_u128(2);
const KEY: Uuid = Uuid::from_u128(3);
const CREDENTIAL: Uuid = Uuid::from_u128(4);
const DEPLOYMENT: Uuid = Uuid::from_u128(5);
const SECOND: Uuid = Uuid::from_u128(6);
const GROUP: Uuid = Uuid::from_u128(7);
const SETTING: Uuid = Uuid::from_u128(8);

fn sealed() -> Vec<u8> {
    let keyring = nemo_types::Keyring::parse(nemo_types::Keyring::generate_key().unwrap().expose()).unwrap();
    keyring.seal(CREDENTIAL.as_bytes(), b"secret").unwrap().as_bytes().to_vec()
}

fn get(delta: &Delta, kind: Kind, id: Uuid) -> resource::Kind {
    delta.upserts[&ResourceKey { kind, id: bytes(id) }].decode().kind.unwrap()
}

#[tokio::test]
async fn a_full_load_reads_every_kind_whole() {
    let store = testing::store().await;
    let org = store.org().await;
    fill(&mut store.superuser().await, org, &sealed()).await;
    let build = build(&store, 0).await.unwrap();
    assert_eq!((build.base_revision, build.delta.upserts.len(), build.delta.removals.len()), (0, 9, 0));
    assert!(build.revision > 0);

    let resource::Kind::ApiKey(key) = get(&build.delta, Kind::ApiKey, KEY) else { panic!() };
    assert_eq!((key.team_id, key.expires_at_unix_ms), (bytes(TEAM), Some(1_893_456_000_000)));
    assert_eq!(
        (key.secret_hash.len(), key.allowed_models, key.previous_valid_until_unix_ms),
        (32, vec!["gpt-5.2".into()], None)
    );
    let resource::Kind::Deployment(deployment) = get(&build.delta, Kind::Deployment, DEPLOYMENT) else {
        panic!()
    };
    let own = PriceSheet { id: "own".into(), input: Some(3), ..PriceSheet::default() };
    assert_eq!((deployment.org_id.len(), deployment.weight, deployment.price), (0, 7, Some(own)));
    assert_eq!(deployment.credential_id, bytes(CREDENTIAL));
    let resource::Kind::ModelGroup(group) = get(&build.delta, Kind::ModelGroup, GROUP) else { panic!() };
    let link = |members: &[(Uuid, u32)]| Link {
        deployments: members
            .iter()
            .map(|(id, weight)| LinkDeployment { deployment_id: bytes(*id), weight: *weight })
            .collect(),
    };
    assert_eq!(group.links, [link(&[(SECOND, 9), (DEPLOYMENT, 8)]), link(&[(DEPLOYMENT, 1)])]);
    let model = &build.delta.upserts[&ResourceKey::model("gpt-5.2").unwrap()];
    let Some(resource::Kind::Model(model)) = model.decode().kind else { panic!() };
    let providers: Vec<_> =
        model.offerings.iter().map(|it| (it.provider.as_str(), it.price.clone().map(|it| it.id))).collect();
    assert_eq!(providers, [("zeta", None), ("openai", Some("p1".to_owned()))]);
    let resource::Kind::Setting(setting) = get(&build.delta, Kind::Setting, SETTING) else { panic!() };
    assert_eq!((setting.value.as_str(), setting.org_id), ("\"simple-shuffle\"", bytes(org.0)));
}

#[tokio::test]
async fn only_what_changed_is_read_and_what_is_gone_is_removed() {
    let store = testing::store().await;
    let org = store.org().await;
    fill(&mut store.superuser().await, org, &sealed()).await;
    let base = build(&store, 0).await.unwrap().revision;
    let mut tx = store.tenant(org).await.unwrap();
    teams::update(&mut tx, TEAM, None, Some(true)).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.owner(Some(org)).await.unwrap();
    settings::delete(&mut tx, "routing.strategy").await.unwrap();
    tx.commit().await.unwrap();
    let mut superuser = store.superuser().await;
    superuser.execute("DELETE FROM model_offerings WHERE provider = 'zeta'").await.unwrap();

    let Build { revision, base_revision, delta } = build(&store, base).await.unwrap();
    assert_eq!((base_revision, revision), (base, base + 3));
    let changed: Vec<_> = delta.upserts.keys().map(|key| key.kind).collect();
    assert_eq!(changed, [Kind::Team, Kind::Model]);
    let removed: Vec<_> = delta.removals.iter().map(|key| key.kind).collect();
    assert_eq!(removed, [Kind::Setting]);
}

#[tokio::test]
async fn steps_lead_to_the_same_set_as_a_full_load() {
    let store = testing::store().await;
    let stepwise = Publisher::new(PublishMetrics::default());
    stepwise.refresh(&store).await.unwrap();
    let org = store.org().await;
    stepwise.refresh(&store).await.unwrap();
    let mut superuser = store.superuser().await;
    fill(&mut superuser, org, &sealed()).await;
    stepwise.refresh(&store).await.unwrap();
    for change in [
        "UPDATE link_deployments SET weight = 5",
        "DELETE FROM group_links WHERE position = 1",
        "UPDATE models SET tags = '{}'",
        "DELETE FROM api_keys",
        "DELETE FROM model_groups",
        "DELETE FROM deployments",
        "DELETE FROM models",
        "DELETE FROM organizations",
    ] {
        superuser.execute(change).await.unwrap();
        stepwise.refresh(&store).await.unwrap();
        let whole = Publisher::new(PublishMetrics::default());
        whole.refresh(&store).await.unwrap();
        let (stepwise, whole) = (stepwise.subscribe().borrow().clone(), whole.subscribe().borrow().clone());
        assert_eq!(
            (stepwise.revision, stepwise.checksum),
            (whole.revision, whole.checksum),
            "after {change}"
        );
    }
    assert_eq!(stepwise.subscribe().borrow().set.len(), 1, "the operator's credential");
}

#[tokio::test]
async fn a_revision_broken_by_hand_keeps_the_one_before_until_it_is_mended() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    fill(&mut superuser, org, &sealed()).await;
    let publisher = Publisher::new(PublishMetrics::default());
    publisher.refresh(&store).await.unwrap();
    let good = publisher.subscribe().borrow().revision;
    superuser.execute("UPDATE deployments SET base_url = 'nonsense'").await.unwrap();
    let error = publisher.refresh(&store).await.unwrap_err().to_string();
    assert!(error.contains("base_url"), "{error}");
    assert_eq!(publisher.subscribe().borrow().revision, good);
    assert_eq!(publisher.database_revision(), good + 1);
    // Not tried again before something changes.
    publisher.refresh(&store).await.unwrap();
    superuser.execute("UPDATE deployments SET base_url = 'http://localhost/v1'").await.unwrap();
    publisher.refresh(&store).await.unwrap();
    assert_eq!(publisher.subscribe().borrow().revision, good + 2);
}

#[tokio::test]
async fn a_restored_database_is_published_although_its_revision_is_lower() {
    let store = testing::store().await;
    store.org().await;
    store.org().await;
    let publisher = Publisher::new(PublishMetrics::default());
    publisher.refresh(&store).await.unwrap();
    let mut superuser = store.superuser().await;
    let restore =
        "DELETE FROM organizations; DELETE FROM config_changes; UPDATE config_revision SET revision = 1";
    superuser.execute(restore).await.unwrap();
    publisher.refresh(&store).await.unwrap();
    assert_eq!((publisher.subscribe().borrow().revision, publisher.subscribe().borrow().set.len()), (1, 0));
}

#[tokio::test]
async fn the_task_publishes_what_is_written_and_ends_on_drain() {
    let store = testing::store().await;
    let publisher = std::sync::Arc::new(Publisher::new(PublishMetrics::default()));
    let (trigger, drain) = nemo_runtime::drain::channel();
    let tasks = nemo_runtime::TaskGroup::new();
    tasks.spawn("publisher", publisher.clone().run(store.store.clone(), drain));
    let mut published = publisher.subscribe();
    for organizations in 1..4 {
        store.org().await;
        let wait = published.wait_for(|published| published.set.len() == organizations);
        tokio::time::timeout(nemo_tests::eventually::patience(), wait).await.unwrap().unwrap();
    }
    publisher.caught_up().await;
    trigger.start();
    assert!(tasks.join(std::time::Duration::from_secs(10)).await.is_empty());
}

/// A catalog that changes below a group must not keep everything else from the nodes.
#[tokio::test]
async fn a_group_that_becomes_unfit_below_the_api_is_published_and_counted() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    fill(&mut superuser, org, &sealed()).await;
    superuser.execute("UPDATE model_groups SET required_tags = '{vision}'").await.unwrap();
    let metrics = PublishMetrics::default();
    let publisher = Publisher::new(metrics.clone());
    publisher.refresh(&store).await.unwrap();
    assert_eq!(metrics.unfit_and_doubtful(), (0, 0));
    superuser.execute("UPDATE models SET tags = '{code}'").await.unwrap();
    publisher.refresh(&store).await.unwrap();
    let newest = build(&store, 0).await.unwrap().revision;
    assert_eq!(publisher.subscribe().borrow().revision, newest);
    // Both links, and the tag that nobody has.
    assert_eq!(metrics.unfit_and_doubtful(), (3, 0));
    superuser.execute("UPDATE model_groups SET required_tags = '{}'").await.unwrap();
    publisher.refresh(&store).await.unwrap();
    assert_eq!(metrics.unfit_and_doubtful(), (0, 0));
}

/// Budgets and rate limits come and go as resources; one that is switched off is none.
#[tokio::test]
async fn limits_are_published_and_taken_back_with_what_they_are_on() {
    let store = testing::store().await;
    let org = store.org().await;
    let mut superuser = store.superuser().await;
    fill(&mut superuser, org, &sealed()).await;
    let (budget, rate) = (Uuid::from_u128(20), Uuid::from_u128(21));
    let sql = format!(
        "INSERT INTO budgets (id, org_id, key_id, name, limit_nanos, window_kind, over_budget, reservation)
             VALUES ('{budget}', '{org}', '{KEY}', 'b', 5, 'day', 'reject', 'estimated');
         INSERT INTO rate_limits (id, org_id, team_id, name, model, tokens_per_minute)
             VALUES ('{rate}', '{org}', '{TEAM}', 'r', 'gpt-*', 1000)"
    );
    let before = build(&store, 0).await.unwrap().revision;
    superuser.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    let step = build(&store, before).await.unwrap();
    let resource::Kind::Budget(it) = get(&step.delta, Kind::Budget, budget) else { panic!() };
    assert_eq!((it.org_id.len(), it.team_id.len(), it.key_id.clone()), (16, 0, bytes(KEY)));
    let policies = (OverBudgetPolicy::Reject, NoLeasePolicy::Deny, ReservationBound::Estimated);
    assert_eq!((it.over_budget(), it.no_lease(), it.reservation_bound()), policies);
    let resource::Kind::RateLimit(it) = get(&step.delta, Kind::RateLimit, rate) else { panic!() };
    assert_eq!((it.team_id, it.model.as_str()), (bytes(TEAM), "gpt-*"));
    assert_eq!((it.requests_per_minute, it.tokens_per_minute, it.concurrent), (None, Some(1000), None));

    let key = |kind, id| ResourceKey { kind, id: bytes(id) };
    superuser.execute("UPDATE budgets SET disabled = true").await.unwrap();
    let off = build(&store, step.revision).await.unwrap();
    assert_eq!(off.delta.removals.iter().collect::<Vec<_>>(), [&key(Kind::Budget, budget)]);
    superuser.execute("UPDATE budgets SET disabled = false").await.unwrap();
    // With the team go its keys, and what limited them.
    superuser.execute("DELETE FROM teams").await.unwrap();
    let gone = build(&store, off.revision).await.unwrap();
    assert!(gone.delta.upserts.is_empty());
    for key in [key(Kind::Budget, budget), key(Kind::RateLimit, rate), key(Kind::ApiKey, KEY)] {
        assert!(gone.delta.removals.contains(&key), "{key:?}");
    }
    let publisher = Publisher::new(PublishMetrics::default());
    publisher.refresh(&store).await.unwrap();
    assert_eq!(publisher.subscribe().borrow().revision, gone.revision, "it is fit to be published");
}
