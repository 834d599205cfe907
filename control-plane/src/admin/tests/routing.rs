//! Credentials, deployments, model groups, settings and the catalog. Covers I10 for credentials.

use nemo_proto::admin as pb;
use nemo_types::{CredentialId, DeploymentId, Sealed};

use super::{kind, model, world, wrong_member};
use crate::admin::{Call, ErrorKind, Role, Written};

const CANARY: &str = "sk-canary-0123456789";

#[tokio::test]
async fn a_credential_is_sealed_before_it_reaches_the_database() {
    let world = world().await;
    let org_id = world.org().await;
    let credential = world.credential(&org_id, CANARY).await;
    assert_eq!(credential.hint, "6789");
    let id: CredentialId = credential.id.parse().unwrap();
    let mut superuser = world.store.superuser().await;
    let sealed = async |superuser: &mut sqlx::PgConnection| {
        let sealed: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM credentials WHERE id = $1")
            .bind(id.0)
            .fetch_one(superuser)
            .await
            .unwrap();
        Sealed::from_bytes(sealed)
    };
    let first = sealed(&mut superuser).await;
    assert_eq!(world.keyring.open(id.as_bytes(), &first).unwrap(), CANARY.as_bytes());
    let holds = "SELECT count(*) FROM credentials WHERE position($1 IN sealed) > 0 OR name LIKE '%canary%'";
    let plain: i64 =
        sqlx::query_scalar(holds).bind(CANARY.as_bytes()).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(plain, 0);

    // A new secret under the same id; without one the old stays.
    let update = |name: Option<&str>, secret: Option<&str>| pb::UpdateCredentialRequest {
        org_id: org_id.clone(),
        id: credential.id.clone(),
        name: name.map(Into::into),
        secret: secret.map(Into::into),
    };
    let changed = world.admin.update_credential(&world.operator, update(None, Some("short"))).await.unwrap();
    assert_eq!(changed.hint, "");
    let second = sealed(&mut superuser).await;
    assert_eq!(world.keyring.open(id.as_bytes(), &second).unwrap(), b"short");
    world.admin.update_credential(&world.operator, update(Some("renamed"), None)).await.unwrap();
    assert_eq!(sealed(&mut superuser).await, second);
}

#[tokio::test]
async fn a_deployment_gets_its_defaults_from_provider_and_catalog() {
    let world = world().await;
    world.model("m").await;
    let first = world.deployment("", "m").await;
    assert_eq!(first.name, "openai/m");
    assert_eq!((first.base_url.as_str(), first.weight), ("https://api.openai.com/v1", 1));
    assert_eq!((first.upstream_model.as_str(), first.price), ("m-2026", None));
    assert_eq!(world.deployment("", "m").await.name, "openai/m#2");
    assert_eq!(world.deployment("", "m").await.name, "openai/m#3");

    let request = pb::CreateDeploymentRequest {
        provider: "vllm".into(),
        base_url: "http://10.0.0.7:8000/v1/".into(),
        model: "m".into(),
        weight: Some(0),
        ..Default::default()
    };
    let elsewhere = world.admin.create_deployment(&world.operator, request.clone()).await.unwrap();
    assert_eq!(
        (elsewhere.base_url.as_str(), elsewhere.upstream_model.as_str()),
        ("http://10.0.0.7:8000/v1", "m")
    );
    assert_eq!(elsewhere.weight, 0);
    let nowhere =
        pb::CreateDeploymentRequest { provider: "custom".into(), base_url: String::new(), ..request };
    assert_eq!(wrong_member(world.admin.create_deployment(&world.operator, nowhere).await), "base_url");
}

#[tokio::test]
async fn a_deployment_needs_a_model_of_the_catalog() {
    let world = world().await;
    let request =
        pb::CreateDeploymentRequest { provider: "openai".into(), model: "m".into(), ..Default::default() };
    assert_eq!(wrong_member(world.admin.create_deployment(&world.operator, request).await), "model");
}

#[tokio::test]
async fn an_organization_can_not_send_a_credential_that_is_not_its_own() {
    let world = world().await;
    world.model("m").await;
    let (own, other) = (world.org().await, world.org().await);
    let owner = Call::for_test(own.parse().unwrap(), Role::Owner);
    let mine = world.credential(&own, CANARY).await;
    let request = |credential_id: String| pb::CreateDeploymentRequest {
        org_id: own.clone(),
        provider: "openai".into(),
        base_url: "http://evil.example".into(),
        credential_id,
        model: "m".into(),
        ..Default::default()
    };
    let deployment = world.admin.create_deployment(&owner, request(mine.id)).await.unwrap();
    for foreign in [world.credential("", CANARY).await, world.credential(&other, CANARY).await] {
        let created = world.admin.create_deployment(&owner, request(foreign.id.clone())).await.unwrap_err();
        assert_eq!((created.kind, created.field.as_deref()), (ErrorKind::NotFound, Some("credential_id")));
        let update = pb::UpdateDeploymentRequest {
            org_id: own.clone(),
            id: deployment.id.clone(),
            credential_id: Some(foreign.id),
            ..Default::default()
        };
        assert_eq!(kind(world.admin.update_deployment(&owner, update).await), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_credential_goes_to_its_own_provider_only_and_stays_while_it_is_used() {
    let world = world().await;
    world.model("m").await;
    let credential = world.credential("", CANARY).await;
    let request = |provider: &str| pb::CreateDeploymentRequest {
        provider: provider.into(),
        base_url: "https://x.example/v1".into(),
        credential_id: credential.id.clone(),
        model: "m".into(),
        ..Default::default()
    };
    let wrong = world.admin.create_deployment(&world.operator, request("groq")).await;
    assert_eq!(wrong_member(wrong), "credential_id");
    let deployment = world.admin.create_deployment(&world.operator, request("openai")).await.unwrap();
    let delete = pb::DeleteCredentialRequest { org_id: String::new(), id: credential.id };
    assert_eq!(kind(world.admin.delete_credential(&world.operator, delete.clone()).await), ErrorKind::InUse);
    let update = pb::UpdateDeploymentRequest {
        id: deployment.id.clone(),
        credential_id: Some(String::new()),
        ..Default::default()
    };
    let changed = world.admin.update_deployment(&world.operator, update).await.unwrap();
    assert_eq!(changed.credential_id, "");
    world.admin.delete_credential(&world.operator, delete).await.unwrap();
}

#[tokio::test]
async fn a_deployment_changes_in_what_is_named_and_keeps_old_prices() {
    let world = world().await;
    world.model("m").await;
    let deployment = world.deployment("", "m").await;
    let update = async |change: pb::UpdateDeploymentRequest| {
        let request = pb::UpdateDeploymentRequest { id: deployment.id.clone(), ..change };
        world.admin.update_deployment(&world.operator, request).await.map(Written::into_answer)
    };
    let price = |input| Some(pb::Price { input: Some(input), ..Default::default() });
    let set =
        |price| pb::UpdateDeploymentRequest { price, confirm_unusual_price: true, ..Default::default() };
    let priced = update(set(price(5))).await.unwrap();
    assert_eq!(priced, pb::Deployment { price: price(5), ..deployment.clone() });
    update(set(price(6))).await.unwrap();
    let cleared = pb::UpdateDeploymentRequest { price: Some(pb::Price::default()), ..Default::default() };
    assert_eq!(update(cleared).await.unwrap(), deployment);
    let prices: Vec<i64> = sqlx::query_scalar("SELECT input FROM deployment_prices ORDER BY input")
        .fetch_all(&mut world.store.superuser().await)
        .await
        .unwrap();
    assert_eq!(prices, [5, 6]);

    let change = pb::UpdateDeploymentRequest {
        name: Some("d".into()),
        weight: Some(7),
        disabled: Some(true),
        ..Default::default()
    };
    let changed = update(change).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.weight, changed.disabled), ("d", 7, true));
    let moved = pb::UpdateDeploymentRequest {
        base_url: Some("http://10.0.0.7:8000/v1".into()),
        upstream_model: Some("other".into()),
        ..Default::default()
    };
    let moved = update(moved).await.unwrap();
    assert_eq!(
        (moved.base_url.as_str(), moved.upstream_model.as_str()),
        ("http://10.0.0.7:8000/v1", "other")
    );
    // Cleared is back to the default; absent is untouched.
    let cleared = pb::UpdateDeploymentRequest {
        base_url: Some(String::new()),
        upstream_model: Some(String::new()),
        ..Default::default()
    };
    let cleared = update(cleared).await.unwrap();
    assert_eq!(
        (&cleared.base_url, &cleared.upstream_model),
        (&deployment.base_url, &deployment.upstream_model)
    );
    assert_eq!((cleared.name.as_str(), cleared.weight, cleared.disabled), ("d", 7, true));
    let per_token = pb::UpdateDeploymentRequest { price: price(10_000_000_000_001), ..Default::default() };
    assert_eq!(wrong_member(update(per_token).await), "price.input");
    let heavy = pb::UpdateDeploymentRequest { weight: Some(1_000_001), ..Default::default() };
    assert_eq!(wrong_member(update(heavy).await), "weight");
}

fn links(pools: &[&[(&str, u32)]]) -> Vec<pb::Link> {
    let member =
        |(id, weight): &(&str, u32)| pb::LinkDeployment { deployment_id: (*id).into(), weight: *weight };
    pools.iter().map(|pool| pb::Link { deployments: pool.iter().map(member).collect() }).collect()
}

#[tokio::test]
async fn a_model_group_keeps_the_order_of_its_chain_and_pools() {
    let world = world().await;
    world.model("m").await;
    let org_id = world.org().await;
    let (mine, shared) = (world.deployment(&org_id, "m").await.id, world.deployment("", "m").await.id);
    let wanted = links(&[&[(&shared, 3), (&mine, 1)], &[(&mine, 1)]]);
    let request = pb::CreateModelGroupRequest {
        org_id: org_id.clone(),
        name: "smart".into(),
        strategy: "simple-shuffle".into(),
        links: wanted.clone(),
        required_tags: Vec::new(),
    };
    let group = world.admin.create_model_group(&world.operator, request.clone()).await.unwrap().into_answer();
    assert_eq!(group.links, wanted);
    let again = world.admin.create_model_group(&world.operator, request).await.unwrap_err();
    assert_eq!((again.kind, again.field.as_deref()), (ErrorKind::AlreadyExists, Some("name")));

    let update = async |change: pb::UpdateModelGroupRequest| {
        let request = pb::UpdateModelGroupRequest { org_id: org_id.clone(), id: group.id.clone(), ..change };
        world.admin.update_model_group(&world.operator, request).await.map(Written::into_answer)
    };
    let renamed = update(pb::UpdateModelGroupRequest { name: Some("wise".into()), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(renamed, pb::ModelGroup { name: "wise".into(), ..group.clone() });
    let shorter = links(&[&[(&mine, 5)]]);
    let change = pb::UpdateModelGroupRequest {
        links: Some(pb::Links { links: shorter.clone() }),
        ..Default::default()
    };
    assert_eq!(update(change).await.unwrap().links, shorter);

    let delete = pb::DeleteDeploymentRequest { org_id: org_id.clone(), id: mine };
    assert_eq!(kind(world.admin.delete_deployment(&world.operator, delete.clone()).await), ErrorKind::InUse);
    let group = pb::DeleteModelGroupRequest { org_id: org_id.clone(), id: group.id.clone() };
    world.admin.delete_model_group(&world.operator, group).await.unwrap();
    world.admin.delete_deployment(&world.operator, delete).await.unwrap();
}

#[tokio::test]
async fn a_model_group_refuses_what_can_not_be_routed_and_says_where() {
    let world = world().await;
    world.model("m").await;
    let (own, other) = (world.org().await, world.org().await);
    let (mine, theirs) = (world.deployment(&own, "m").await.id, world.deployment(&other, "m").await.id);
    let create = async |org_id: &str, links: Vec<pb::Link>, strategy: &str| {
        let request = pb::CreateModelGroupRequest {
            org_id: org_id.into(),
            name: "g".into(),
            strategy: strategy.into(),
            links,
            required_tags: Vec::new(),
        };
        world.admin.create_model_group(&world.operator, request).await
    };
    let missing = DeploymentId::generate().to_string();
    for foreign in [&theirs, &missing] {
        let error = create(&own, links(&[&[(&mine, 1)], &[(&mine, 1), (foreign, 1)]]), "").await.unwrap_err();
        let field = Some("links[1].deployments[1].deployment_id");
        assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::NotFound, field));
    }
    // The operator's group serves everybody, so it can't be made of one organization's deployments.
    assert_eq!(kind(create("", links(&[&[(&mine, 1)]]), "").await), ErrorKind::NotFound);
    assert_eq!(wrong_member(create(&own, links(&[]), "").await), "links");
    assert_eq!(wrong_member(create(&own, links(&[&[]]), "").await), "links[0].deployments");
    assert_eq!(wrong_member(create(&own, links(&[&[(&mine, 0)]]), "").await), "links[0].deployments");
    let twice = links(&[&[(&mine, 1), (&mine, 1)]]);
    assert_eq!(wrong_member(create(&own, twice, "").await), "links[0].deployments[1].deployment_id");
    let heavy = links(&[&[(&mine, 1_000_001)]]);
    assert_eq!(wrong_member(create(&own, heavy, "").await), "links[0].deployments[0].weight");
    assert_eq!(
        wrong_member(create(&own, links(&[&[("x", 1)]]), "").await),
        "links[0].deployments[0].deployment_id"
    );
    assert_eq!(wrong_member(create(&own, links(&[&[(&mine, 1)]]), "fastest").await), "strategy");
    create(&own, links(&[&[(&mine, 1)]]), "").await.unwrap();
}

#[tokio::test]
async fn settings_are_known_ones_only_and_belong_to_one_owner() {
    let world = world().await;
    let org_id = world.org().await;
    let put = async |org_id: &str, key: &str, value: &str| {
        let request = pb::PutSettingRequest { org_id: org_id.into(), key: key.into(), value: value.into() };
        world.admin.put_setting(&world.operator, request).await
    };
    let (key, value) = ("routing.strategy", "\"simple-shuffle\"");
    for org_id in [&*org_id, ""] {
        let setting = put(org_id, key, value).await.unwrap();
        assert_eq!((setting.org_id.as_str(), setting.value.as_str()), (org_id, value));
        put(org_id, key, value).await.unwrap();
    }
    let error = put(&org_id, "routing.strategi", value).await.unwrap_err();
    assert!(error.expected.as_deref().unwrap().contains(key), "{error}");
    assert_eq!(error.field.as_deref(), Some("key"));
    for wrong in ["simple-shuffle", "1", "\"fastest\"", "\"\"", ""] {
        assert_eq!(wrong_member(put(&org_id, key, wrong).await), "value", "{wrong}");
    }
    let list = pb::ListSettingsRequest { org_id: org_id.clone() };
    assert_eq!(world.admin.list_settings(&world.operator, list.clone()).await.unwrap().settings.len(), 1);
    let delete = pb::DeleteSettingRequest { org_id, key: key.into() };
    world.admin.delete_setting(&world.operator, delete.clone()).await.unwrap();
    assert!(world.admin.list_settings(&world.operator, list).await.unwrap().settings.is_empty());
    assert_eq!(kind(world.admin.delete_setting(&world.operator, delete).await), ErrorKind::NotFound);
    let operators = world.admin.list_settings(&world.operator, Default::default()).await.unwrap();
    assert_eq!(operators.settings.len(), 1);
}

#[tokio::test]
async fn a_model_is_put_whole_and_checked_member_by_member() {
    let world = world().await;
    let stored = world.model("openai/gpt-x").await;
    assert_eq!((stored.display_name.as_str(), stored.source.as_str()), ("openai/gpt-x", "custom"));
    let put = async |change: &dyn Fn(&mut pb::Model)| {
        let mut model = model("n", 1);
        change(&mut model);
        world
            .admin
            .put_model(
                &world.operator,
                pb::PutModelRequest { model: Some(model), confirm_unusual_price: true },
            )
            .await
    };
    for (field, change) in [
        ("model.id", &(|m: &mut pb::Model| m.id = "a b".into()) as &dyn Fn(&mut pb::Model)),
        ("model.aliases[0]", &|m| m.aliases = vec!["ä".into()]),
        ("model.aliases", &|m| m.aliases = vec!["n".into()]),
        ("model.tags[1]", &|m| m.tags = vec!["vision".into(), "Tool Use".into()]),
        ("model.created_unix", &|m| m.created_unix = -1),
        ("model.context_window", &|m| m.context_window = u64::MAX),
        ("model.offerings[0].provider", &|m| m.offerings[0].provider = String::new()),
        ("model.offerings[1].provider", &|m| m.offerings.push(m.offerings[0].clone())),
        ("model.offerings[0].upstream_model", &|m| m.offerings[0].upstream_model = "a\n".into()),
        ("model.offerings[0].price.input", &|m| m.offerings[0].price.as_mut().unwrap().input = Some(-1)),
    ] {
        assert_eq!(wrong_member(put(change).await), field);
    }
    let taken = put(&|m| m.aliases = vec!["openai/gpt-x".into()]).await;
    assert_eq!(kind(taken), ErrorKind::AlreadyExists);
    put(&|m| m.aliases = vec!["n-latest".into()]).await.unwrap();
    let empty = world
        .admin
        .put_model(&world.operator, pb::PutModelRequest { model: None, confirm_unusual_price: true })
        .await;
    assert_eq!(wrong_member(empty), "model");

    // The catalog in pages, by provider, by tag.
    let list = async |request: pb::ListModelsRequest| {
        world.admin.list_models(&world.operator, request).await.unwrap()
    };
    let first = list(pb::ListModelsRequest { page_size: 1, ..Default::default() }).await;
    assert_eq!(first.models[0].id, "n");
    let request =
        pb::ListModelsRequest { page_size: 1, page_token: first.next_page_token, ..Default::default() };
    let second = list(request).await;
    assert_eq!((second.models[0].id.as_str(), second.next_page_token.as_str()), ("openai/gpt-x", ""));
    let by = |provider: &str, tag: &str| pb::ListModelsRequest {
        provider: provider.into(),
        tag: tag.into(),
        ..Default::default()
    };
    assert_eq!(list(by("openai", "")).await.models.len(), 2);
    assert_eq!(list(by("groq", "")).await.models.len() + list(by("", "vision")).await.models.len(), 0);

    world.deployment("", "n").await;
    let delete = |id: &str| pb::DeleteModelRequest { id: id.into() };
    assert_eq!(kind(world.admin.delete_model(&world.operator, delete("n")).await), ErrorKind::InUse);
    world.admin.delete_model(&world.operator, delete("openai/gpt-x")).await.unwrap();
    assert_eq!(
        kind(world.admin.delete_model(&world.operator, delete("openai/gpt-x")).await),
        ErrorKind::NotFound
    );
}
