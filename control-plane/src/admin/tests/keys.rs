//! The life of a virtual key. Covers R000-3.

use nemo_proto::{Timestamp, admin as pb};
use nemo_types::{ApiKey, TokenHash};
use time::{Duration, OffsetDateTime};

use super::{World, kind, world, wrong_member};
use crate::admin::{ErrorKind, Written, validate};

/// What is stored about a key: hash, previous hash, until when that one works.
async fn stored(world: &World, id: &str) -> (TokenHash, Option<TokenHash>, Option<OffsetDateTime>) {
    let id: uuid::Uuid = id.parse().unwrap();
    let sql = "SELECT secret_hash, previous_secret_hash, previous_valid_until FROM api_keys WHERE id = $1";
    let (hash, previous, until): (Vec<u8>, Option<Vec<u8>>, Option<OffsetDateTime>) =
        sqlx::query_as(sql).bind(id).fetch_one(&mut world.store.superuser().await).await.unwrap();
    (TokenHash::from_bytes(&hash).unwrap(), previous.map(|hash| TokenHash::from_bytes(&hash).unwrap()), until)
}

async fn issue(world: &World) -> (String, pb::Key, String) {
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let request =
        pb::IssueKeyRequest { org_id: org_id.clone(), team_id, name: "ci".into(), ..Default::default() };
    let answer = world.admin.issue_key(&world.operator, request).await.unwrap().into_answer();
    (org_id, answer.key.unwrap(), answer.secret)
}

#[tokio::test]
async fn a_secret_is_shown_once_and_only_its_hash_is_stored() {
    let world = world().await;
    let (org_id, key, secret) = issue(&world).await;
    let body = secret.strip_prefix("sk-nemo-").unwrap();
    assert!(body.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_eq!((key.state.as_str(), &body[..16]), ("active", key.public_id.as_str()));
    assert_eq!(stored(&world, &key.id).await, (ApiKey::parse(&secret).unwrap().hash(), None, None));
    let get = pb::GetKeyRequest { org_id, id: key.id.clone() };
    assert_eq!(world.admin.get_key(&world.operator, get).await.unwrap(), key);
    let dump: String = sqlx::query_scalar("SELECT string_agg(k::text, ' ') FROM api_keys k")
        .fetch_one(&mut world.store.superuser().await)
        .await
        .unwrap();
    assert!(!dump.contains(&body[16..]), "{dump}");
}

#[tokio::test]
async fn a_rotated_key_keeps_its_identity_and_the_old_secret_works_for_the_overlap() {
    let world = world().await;
    let (org_id, key, first) = issue(&world).await;
    let rotate = |overlap_seconds| pb::RotateKeyRequest {
        org_id: org_id.clone(),
        id: key.id.clone(),
        overlap_seconds,
    };
    let answer = world.admin.rotate_key(&world.operator, rotate(3600)).await.unwrap().into_answer();
    let rotated = answer.key.unwrap();
    assert_eq!((&rotated.id, &rotated.public_id), (&key.id, &key.public_id));
    assert!(rotated.rotated_at.is_some());
    let (hash, previous, until) = stored(&world, &key.id).await;
    assert_eq!(hash, ApiKey::parse(&answer.secret).unwrap().hash());
    assert_eq!(previous, Some(ApiKey::parse(&first).unwrap().hash()));
    let left = until.unwrap() - validate::now();
    assert!(left > Duration::minutes(59) && left <= Duration::HOUR, "{left}");

    // Without overlap the old secret is gone at once, the older one too.
    let last = world.admin.rotate_key(&world.operator, rotate(0)).await.unwrap();
    assert_eq!(stored(&world, &key.id).await, (ApiKey::parse(&last.secret).unwrap().hash(), None, None));
    let too_long = world.admin.rotate_key(&world.operator, rotate(7 * 24 * 3600 + 1)).await;
    assert_eq!(wrong_member(too_long), "overlap_seconds");
}

#[tokio::test]
async fn a_key_can_be_disabled_enabled_renamed_and_restricted() {
    let world = world().await;
    let (org_id, key, _) = issue(&world).await;
    let update = async |change: pb::UpdateKeyRequest| {
        let request = pb::UpdateKeyRequest { org_id: org_id.clone(), id: key.id.clone(), ..change };
        world.admin.update_key(&world.operator, request).await.map(Written::into_answer)
    };
    let disabled = update(pb::UpdateKeyRequest { disabled: Some(true), ..Default::default() }).await.unwrap();
    assert_eq!(disabled.state, "disabled");
    let enabled = update(pb::UpdateKeyRequest { disabled: Some(false), ..Default::default() }).await.unwrap();
    assert_eq!(enabled, key, "everything else is as before");

    let allowed =
        |names: &[&str]| Some(pb::AllowedModels { names: names.iter().map(|&name| name.into()).collect() });
    let change = pb::UpdateKeyRequest {
        name: Some("new".into()),
        allowed_models: allowed(&["gpt-5.2", "openai/*"]),
        ..Default::default()
    };
    let changed = update(change).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.allowed_models.len()), ("new", 2));
    let same = update(pb::UpdateKeyRequest::default()).await.unwrap();
    assert_eq!(same, changed);
    let opened =
        update(pb::UpdateKeyRequest { allowed_models: allowed(&[]), ..Default::default() }).await.unwrap();
    assert!(opened.allowed_models.is_empty());
    let wrong = update(pb::UpdateKeyRequest { allowed_models: allowed(&["*"]), ..Default::default() }).await;
    assert_eq!(wrong_member(wrong), "allowed_models.names[0]");
}

#[tokio::test]
async fn an_expiry_can_be_set_and_removed_and_shows_in_the_state() {
    let world = world().await;
    let (org_id, key, _) = issue(&world).await;
    let update = async |change: pb::UpdateKeyRequest| {
        let request = pb::UpdateKeyRequest { org_id: org_id.clone(), id: key.id.clone(), ..change };
        world.admin.update_key(&world.operator, request).await.map(Written::into_answer)
    };
    let at = |ahead| Some(Timestamp::from(validate::now() + ahead));
    let limited =
        update(pb::UpdateKeyRequest { expires_at: at(Duration::HOUR), ..Default::default() }).await.unwrap();
    assert!(limited.expires_at.is_some() && limited.state == "active");
    let past = update(pb::UpdateKeyRequest { expires_at: at(-Duration::HOUR), ..Default::default() }).await;
    assert_eq!(wrong_member(past), "expires_at");
    let both =
        pb::UpdateKeyRequest { expires_at: at(Duration::HOUR), never_expires: true, ..Default::default() };
    assert_eq!(wrong_member(update(both).await), "never_expires");

    sqlx::query("UPDATE api_keys SET expires_at = now() - interval '1 s'")
        .execute(&mut world.store.superuser().await)
        .await
        .unwrap();
    assert_eq!(update(pb::UpdateKeyRequest::default()).await.unwrap().state, "expired");
    let endless = update(pb::UpdateKeyRequest { never_expires: true, ..Default::default() }).await.unwrap();
    assert!(endless.expires_at.is_none() && endless.state == "active");
}

#[tokio::test]
async fn a_deleted_key_is_gone_and_so_are_the_keys_of_a_deleted_team() {
    let world = world().await;
    let (org_id, key, _) = issue(&world).await;
    let second = pb::IssueKeyRequest {
        org_id: org_id.clone(),
        team_id: key.team_id.clone(),
        name: "second".into(),
        ..Default::default()
    };
    world.admin.issue_key(&world.operator, second).await.unwrap();
    let delete = pb::DeleteKeyRequest { org_id: org_id.clone(), id: key.id.clone() };
    world.admin.delete_key(&world.operator, delete.clone()).await.unwrap();
    assert_eq!(kind(world.admin.delete_key(&world.operator, delete).await), ErrorKind::NotFound);

    let list = pb::ListKeysRequest { org_id: org_id.clone(), ..Default::default() };
    assert_eq!(world.admin.list_keys(&world.operator, list.clone()).await.unwrap().keys.len(), 1);
    let delete = pb::DeleteTeamRequest { org_id, id: key.team_id };
    world.admin.delete_team(&world.operator, delete).await.unwrap();
    assert!(world.admin.list_keys(&world.operator, list).await.unwrap().keys.is_empty());
}

#[tokio::test]
async fn keys_can_be_listed_by_team() {
    let world = world().await;
    let (org_id, key, _) = issue(&world).await;
    let other = world.team(&org_id).await;
    for (team_id, expected) in [(key.team_id, 1), (other, 0), (String::new(), 1)] {
        let request = pb::ListKeysRequest { org_id: org_id.clone(), team_id, ..Default::default() };
        assert_eq!(world.admin.list_keys(&world.operator, request).await.unwrap().keys.len(), expected);
    }
}

/// What a key is limited to can be given at once, changed one by one, and taken away.
#[tokio::test]
async fn a_keys_policy_is_kept_and_changed_member_by_member() {
    let world = world().await;
    let seeing = pb::Model { tags: vec!["vision".into()], ..super::model("m", 1) };
    world
        .admin
        .put_model(&world.operator, pb::PutModelRequest { model: Some(seeing), confirm_unusual_price: true })
        .await
        .unwrap();
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    let list = |entries: &[&str]| entries.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
    let request = pb::IssueKeyRequest {
        org_id: org_id.clone(),
        team_id,
        name: "limited".into(),
        allowed_models: list(&["gpt-*"]),
        allowed_endpoints: list(&["chat.completions", "images.*"]),
        allowed_cidrs: list(&["10.1.2.3/8", "2001:db8::1"]),
        default_tags: list(&["vision"]),
        metadata: r#"{"b":1,"a":2}"#.into(),
        ..Default::default()
    };
    let issued = world.admin.issue_key(&world.operator, request.clone()).await.unwrap().into_answer();
    let key = issued.key.unwrap();
    assert_eq!(key.allowed_cidrs, ["10.0.0.0/8", "2001:db8::1/128"]);
    assert_eq!((key.allowed_endpoints.len(), key.default_tags.len()), (2, 1));
    assert_eq!(key.metadata, r#"{"b":1,"a":2}"#, "as it was given");

    let update = async |change: pb::UpdateKeyRequest| {
        let request = pb::UpdateKeyRequest { org_id: org_id.clone(), id: key.id.clone(), ..change };
        world.admin.update_key(&world.operator, request).await.map(Written::into_answer)
    };
    let endpoints = pb::AllowedEndpoints { names: list(&["embeddings"]) };
    let change = pb::UpdateKeyRequest { allowed_endpoints: Some(endpoints), ..Default::default() };
    let changed = update(change).await.unwrap();
    assert_eq!(
        changed,
        pb::Key { allowed_endpoints: list(&["embeddings"]), ..key.clone() },
        "and nothing else"
    );
    let change = pb::UpdateKeyRequest {
        allowed_cidrs: Some(pb::AllowedCidrs::default()),
        default_tags: Some(pb::DefaultTags::default()),
        metadata: Some(String::new()),
        ..Default::default()
    };
    let opened = update(change).await.unwrap();
    assert!(opened.allowed_cidrs.is_empty() && opened.default_tags.is_empty() && opened.metadata.is_empty());

    let networks = pb::AllowedCidrs { networks: list(&["10.0.0.0/8", "everywhere"]) };
    let wrong = pb::UpdateKeyRequest { allowed_cidrs: Some(networks), ..Default::default() };
    assert_eq!(wrong_member(update(wrong).await), "allowed_cidrs.networks[1]");
    let wrong = pb::UpdateKeyRequest { metadata: Some("[1]".into()), ..Default::default() };
    assert_eq!(wrong_member(update(wrong).await), "metadata");
    for (wrong, member) in [
        (pb::IssueKeyRequest { allowed_models: list(&["*"]), ..request.clone() }, "allowed_models[0]"),
        (
            pb::IssueKeyRequest { allowed_endpoints: list(&["chat"]), ..request.clone() },
            "allowed_endpoints[0]",
        ),
        (pb::IssueKeyRequest { default_tags: list(&["a", "A"]), ..request.clone() }, "default_tags[1]"),
        (pb::IssueKeyRequest { metadata: "{".into(), ..request.clone() }, "metadata"),
    ] {
        assert_eq!(wrong_member(world.admin.issue_key(&world.operator, wrong).await), member);
    }
}
