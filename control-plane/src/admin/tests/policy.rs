//! What routing decides by, as it is written: chains that are proved, required tags, loads, settings with their
//! ceilings, keys' default tags. Covers the bad input of routing: refused with the member, and nothing is written.

use nemo_proto::admin as pb;

use super::{World, kind, model, world, wrong_member};
use crate::admin::{AdminError, Call, ErrorKind, Written};

/// A model of the catalog with one deployment of the operator; the deployment's id.
async fn serve(world: &World, id: &str, tags: &[&str], endpoints: &[&str], context_window: u64) -> String {
    put(world, id, tags, endpoints, context_window).await.unwrap();
    world.deployment("", id).await.id
}

async fn put(
    world: &World,
    id: &str,
    tags: &[&str],
    endpoints: &[&str],
    context_window: u64,
) -> Result<Written<pb::Model>, AdminError> {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (tags, endpoints) = (own(tags), own(endpoints));
    let model = pb::Model { tags, endpoints, context_window, ..model(id, 1) };
    world
        .admin
        .put_model(&world.operator, pb::PutModelRequest { model: Some(model), confirm_unusual_price: true })
        .await
}

fn links(chain: &[&str]) -> Vec<pb::Link> {
    let member = |id: &str| pb::LinkDeployment { deployment_id: id.into(), weight: 1 };
    chain.iter().map(|id| pb::Link { deployments: vec![member(id)] }).collect()
}

fn tags(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const CHAT: &[&str] = &["chat.completions"];

fn group(name: &str, required: &[&str], chain: &[&str]) -> pb::CreateModelGroupRequest {
    let (name, required_tags, links) = (name.into(), tags(required), links(chain));
    pb::CreateModelGroupRequest { name, required_tags, links, ..Default::default() }
}

fn dry() -> Call {
    Call { validate_only: true, ..Call::local_operator() }
}

#[tokio::test]
async fn a_group_that_can_not_work_is_refused_with_the_member_and_leaves_no_trace() {
    let world = world().await;
    let sees = serve(&world, "sees", &["vision", "code"], CHAT, 0).await;
    let blind = serve(&world, "blind", &["code"], CHAT, 0).await;
    let vectors = serve(&world, "vectors", &["vision"], &["embeddings"], 0).await;
    let before = world.store.config_snapshot().await.unwrap().revision().await.unwrap();
    for (request, member, says) in [
        (group("g", &["vision"], &[&sees, &blind]), "links[1]", "vision"),
        (group("g", &["vision", "nope"], &[&sees]), "required_tags[1]", "\"nope\""),
        (group("g", &["Vision!"], &[&sees]), "required_tags[0]", "form"),
        (group("g", &["code", "code"], &[&sees]), "required_tags[1]", "twice"),
        (group("g", &[], &[&sees, &vectors]), "links[1]", "none of the endpoints"),
    ] {
        for call in [&world.operator, &dry()] {
            let error = world.admin.create_model_group(call, request.clone()).await.unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert_eq!(wrong_member::<()>(Err(error)), member);
        }
    }
    let listed = world.admin.list_model_groups(&world.operator, Default::default()).await.unwrap();
    assert!(listed.model_groups.is_empty());
    assert_eq!(world.store.config_snapshot().await.unwrap().revision().await.unwrap(), before);

    // Updates call their lists by other names.
    let fine =
        world.admin.create_model_group(&world.operator, group("g", &["vision"], &[&sees])).await.unwrap();
    assert_eq!(fine.required_tags, ["vision"]);
    let update = async |change: pb::UpdateModelGroupRequest| {
        let request = pb::UpdateModelGroupRequest { id: fine.id.clone(), ..change };
        world.admin.update_model_group(&world.operator, request).await.map(Written::into_answer)
    };
    let chain = pb::UpdateModelGroupRequest {
        links: Some(pb::Links { links: links(&[&sees, &blind]) }),
        ..Default::default()
    };
    assert_eq!(wrong_member(update(chain.clone()).await), "links.links[1]");
    let require = |names: &[&str]| pb::UpdateModelGroupRequest {
        required_tags: Some(pb::RequiredTags { names: tags(names) }),
        ..Default::default()
    };
    assert_eq!(wrong_member(update(require(&["vision", "nope"])).await), "required_tags.names[1]");
    assert!(update(require(&[])).await.unwrap().required_tags.is_empty());
    // Now nothing speaks against the blind one but that it does less.
    let warned = update(chain).await.unwrap();
    assert_eq!(warned.warnings.len(), 1, "{:?}", warned.warnings);
    assert!(warned.warnings[0].starts_with("links[1]: ") && warned.warnings[0].contains("vision"));
    assert_eq!(update(Default::default()).await.unwrap().links.len(), 2);
}

#[tokio::test]
async fn what_a_fallback_can_not_do_is_told_in_the_answer_and_is_no_part_of_the_group() {
    let world = world().await;
    let large = serve(&world, "large", &["vision"], &["chat.completions", "responses"], 1_000_000).await;
    let small = serve(&world, "small", &[], CHAT, 8_000).await;
    let request = group("g", &[], &[&large, &small]);
    let valid = world.admin.create_model_group(&dry(), request.clone()).await.unwrap();
    let made = world.admin.create_model_group(&world.operator, request).await.unwrap().into_answer();
    assert_eq!((made.warnings.len(), &made.warnings), (3, &valid.warnings), "{:?}", made.warnings);
    for part in ["responses", "vision", "8000 tokens"] {
        assert!(made.warnings.iter().any(|text| text.contains(part)), "{part}: {:?}", made.warnings);
    }
    let get = pb::GetModelGroupRequest { id: made.id.clone(), ..Default::default() };
    let read = world.admin.get_model_group(&world.operator, get).await.unwrap();
    assert_eq!(read, pb::ModelGroup { warnings: Vec::new(), ..made.clone() });
    use crate::admin::entity::Entity as _;
    assert_eq!(read.etag(), made.etag(), "if-match with the etag of the answer must work");
    // The operator's deployment is told about the group, too.
    let off = pb::UpdateDeploymentRequest { id: small, disabled: Some(true), ..Default::default() };
    let warnings = world.admin.update_deployment(&world.operator, off).await.unwrap().into_answer().warnings;
    assert!(
        warnings.iter().any(|text| text.contains("\"g\"") && text.contains("switched off")),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn a_model_keeps_what_the_groups_that_it_is_in_need() {
    let world = world().await;
    let sees = serve(&world, "sees", &["vision", "code"], CHAT, 0).await;
    let too = serve(&world, "too", &["vision"], CHAT, 0).await;
    let org_id = world.org().await;
    // Somebody else's group, which the operator does not think of.
    let request = pb::CreateModelGroupRequest { org_id, ..group("g", &["vision"], &[&sees, &too]) };
    world.admin.create_model_group(&world.operator, request).await.unwrap();
    assert_eq!(wrong_member(put(&world, "too", &["code"], CHAT, 0).await), "model.tags");
    assert_eq!(wrong_member(put(&world, "too", &["vision"], &["embeddings"], 0).await), "model.endpoints");
    let fine = put(&world, "too", &["vision", "fast"], CHAT, 0).await.unwrap();
    assert!(fine.warnings.is_empty() || fine.warnings[0].contains("code"), "{:?}", fine.warnings);

    // Made unfit below the API, it is no reason to refuse what does not make it worse.
    use sqlx::Executor as _;
    let mut superuser = world.store.superuser().await;
    superuser.execute("UPDATE models SET tags = '{code}' WHERE id = 'too'").await.unwrap();
    put(&world, "too", &["code", "fast"], CHAT, 0).await.unwrap();
}

#[tokio::test]
async fn more_tags_than_can_be_told_apart_are_refused_before_they_are_published() {
    let world = world().await;
    let named = |from: usize| (from..from + 60).map(|n| format!("t{n:03}")).collect::<Vec<_>>();
    let put = async |id: &str, from| {
        let tags = named(from);
        put(&world, id, &tags.iter().map(String::as_str).collect::<Vec<_>>(), CHAT, 0).await
    };
    put("a", 0).await.unwrap();
    let error = put("b", 60).await.unwrap_err();
    assert!(error.to_string().contains("at most 128"), "{error}");
    assert_eq!(wrong_member::<()>(Err(error)), "model.tags");
    put("b", 30).await.unwrap();
}

#[tokio::test]
async fn what_was_broken_before_can_be_mended_step_by_step() {
    use sqlx::Executor as _;
    let world = world().await;
    let (a, b) = (serve(&world, "a", &[], CHAT, 0).await, serve(&world, "b", &[], CHAT, 0).await);
    let fine = serve(&world, "fine", &[], CHAT, 0).await;
    world.admin.create_model_group(&world.operator, group("both", &[], &[&a, &b])).await.unwrap();
    let mut superuser = world.store.superuser().await;
    superuser.execute("UPDATE deployments SET base_url = 'nonsense' WHERE model_id <> 'fine'").await.unwrap();
    // That is not this write's fault, but this is.
    world.admin.create_model_group(&world.operator, group("g", &[], &[&fine])).await.unwrap();
    let on_top = world.admin.create_model_group(&world.operator, group("h", &[], &[&fine, &a])).await;
    assert_eq!(wrong_member(on_top), "links[1].deployments");
    for id in [a, b] {
        let mend =
            pb::UpdateDeploymentRequest { id, base_url: Some("http://h/v1".into()), ..Default::default() };
        world.admin.update_deployment(&world.operator, mend).await.unwrap();
    }
    let publisher = crate::publish::Publisher::new(Default::default());
    publisher.refresh(&world.store).await.unwrap();
}

/// The same on top of what is published, of which only the changes are read.
#[tokio::test]
async fn writes_are_proved_on_top_of_what_is_published_and_of_what_came_after() {
    let world = world().await;
    let sees = serve(&world, "sees", &["vision"], CHAT, 0).await;
    let publisher = crate::publish::Publisher::new(Default::default());
    publisher.refresh(&world.store).await.unwrap();
    let admin = (*world.admin).clone().with_published(publisher.subscribe());
    // Written after the last publication, and by another replica.
    let blind = serve(&world, "blind", &[], CHAT, 0).await;
    let refused = admin.create_model_group(&world.operator, group("g", &["vision"], &[&sees, &blind])).await;
    assert_eq!(wrong_member(refused), "links[1]");
    let org_id = world.org().await;
    let own = pb::CreateModelGroupRequest { org_id: org_id.clone(), ..group("g", &["vision"], &[&sees]) };
    let made = admin.create_model_group(&world.operator, own).await.unwrap();
    assert!(made.warnings.is_empty() && made.config_version.is_some());
    // The transaction went back to what a tenant may see: the entry of the audit log is the organization's.
    let audit = pb::ListAuditRequest { org_id, target_kind: "model_group".into(), ..Default::default() };
    assert_eq!(admin.list_audit(&world.operator, audit).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn loads_are_positive_and_can_be_forgotten() {
    let world = world().await;
    world.model("m").await;
    let create = async |rpm, tpm| {
        let (provider, model) = ("openai".into(), "m".into());
        let request = pb::CreateDeploymentRequest { provider, model, rpm, tpm, ..Default::default() };
        world.admin.create_deployment(&world.operator, request).await.map(Written::into_answer)
    };
    assert_eq!(wrong_member(create(Some(0), None).await), "rpm");
    assert_eq!(wrong_member(create(None, Some(2_000_000_001)).await), "tpm");
    let made = create(Some(500), Some(200_000)).await.unwrap();
    assert_eq!((made.rpm, made.tpm), (Some(500), Some(200_000)));
    let update = async |rpm, tpm| {
        let request = pb::UpdateDeploymentRequest { id: made.id.clone(), rpm, tpm, ..Default::default() };
        let it = world.admin.update_deployment(&world.operator, request).await.unwrap();
        (it.rpm, it.tpm)
    };
    assert_eq!(update(None, Some(7)).await, (Some(500), Some(7)));
    assert_eq!(update(Some(0), None).await, (None, Some(7)));
    let build = crate::publish::builder::build(&world.store, 0).await.unwrap();
    let published = build.delta.upserts.values().find_map(|item| match item.decode().kind? {
        nemo_proto::config::resource::Kind::Deployment(it) => Some((it.rpm, it.tpm)),
        _ => None,
    });
    assert_eq!(published, Some((None, Some(7))));
}

/// R004-13, R004-14: every setting of routing and cooldown, in its range and within what bounds it.
#[tokio::test]
async fn settings_are_in_their_range_and_within_their_ceiling() {
    let world = world().await;
    let org_id = world.org().await;
    let put = async |org_id: &str, key: &str, value: &str| {
        let request = pb::PutSettingRequest { org_id: org_id.into(), key: key.into(), value: value.into() };
        world.admin.put_setting(&world.operator, request).await
    };
    for (key, value) in [
        ("routing.strategy", "\"balanced\""),
        ("routing.retries", "0"),
        ("routing.backoff_ms", "1"),
        ("routing.max_cost_usd", "\"0.05\""),
        ("cooldown.window_ms", "5000"),
        ("cooldown.cluster_error_percent", "100"),
    ] {
        put(&org_id, key, value).await.unwrap();
    }
    for (key, value) in [
        ("routing.strategy", "\"fastest\""),
        ("routing.retries", "11"),
        ("routing.retries", "\"1\""),
        ("routing.retries", "1.5"),
        ("routing.backoff_ms", "0"),
        ("routing.max_cost_usd", "0.05"),
        ("routing.max_cost_usd", "\"0\""),
        ("cooldown.window_ms", "-1"),
        ("cooldown.cluster_error_percent", "101"),
    ] {
        assert_eq!(wrong_member(put(&org_id, key, value).await), "value", "{key} {value}");
    }
    for key in ["routing.retry", "cooldown.", "routing", "catalog.edition"] {
        assert_eq!(wrong_member(put(&org_id, key, "1").await), "key", "{key}");
    }
    // The ceiling is the organization's own, else the installation's.
    put("", "routing.max_retries", "3").await.unwrap();
    let error = put(&org_id, "routing.retries", "4").await.unwrap_err();
    assert!(error.to_string().contains("routing.max_retries"), "{error}");
    assert_eq!(wrong_member::<()>(Err(error)), "value");
    put(&org_id, "routing.max_retries", "4").await.unwrap();
    put(&org_id, "routing.retries", "4").await.unwrap();
    // Who lowers a ceiling means what is below it, too.
    put(&org_id, "routing.max_retries", "1").await.unwrap();
}

#[tokio::test]
async fn default_tags_of_keys_are_tags_of_the_catalog() {
    let world = world().await;
    let org_id = world.org().await;
    let team_id = world.team(&org_id).await;
    put(&world, "m", &["vision", "code"], CHAT, 0).await.unwrap();
    let issue = async |names: &[&str]| {
        let request = pb::IssueKeyRequest {
            org_id: org_id.clone(),
            team_id: team_id.clone(),
            name: "k".into(),
            default_tags: tags(names),
            ..Default::default()
        };
        world.admin.issue_key(&world.operator, request).await
    };
    let error = issue(&["vision", "long-context"]).await.unwrap_err();
    assert!(error.expected.as_deref().unwrap().contains("code, vision"), "{error}");
    assert_eq!(error.field.as_deref(), Some("default_tags[1]"));
    let key = issue(&["vision"]).await.unwrap().into_answer().key.unwrap();
    let update = async |names: &[&str]| {
        let request = pb::UpdateKeyRequest {
            org_id: org_id.clone(),
            id: key.id.clone(),
            default_tags: Some(pb::DefaultTags { names: tags(names) }),
            ..Default::default()
        };
        world.admin.update_key(&world.operator, request).await.map(Written::into_answer)
    };
    assert_eq!(wrong_member(update(&["nope"]).await), "default_tags.names[0]");
    assert_eq!(update(&["code"]).await.unwrap().default_tags, ["code"]);
    assert!(update(&[]).await.unwrap().default_tags.is_empty());
    assert_eq!(kind(issue(&["nope"]).await), ErrorKind::InvalidArgument);
}
