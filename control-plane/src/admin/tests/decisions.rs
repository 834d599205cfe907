//! Decisions and the configuration that they were made with, through the operations.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nemo_proto::{
    config::{Resource, resource},
    usage::{Decision, DecisionElimination, EliminationReason, RoutingStrategy},
};
use nemo_types::DeploymentId;
use prost::Message as _;

use super::*;
use crate::{
    publish::{Publisher, metrics::PublishMetrics},
    store::{
        testing::{now, usage_row},
        usage_ingest::{KnownDays, Row},
    },
};

/// A deployment of the operator; returns its id.
async fn deployment(world: &World, name: &str) -> String {
    let model = pb::Model {
        id: "m".into(),
        display_name: "M".into(),
        owned_by: "tests".into(),
        ..Default::default()
    };
    let put = pb::PutModelRequest { model: Some(model), confirm_unusual_price: true };
    world.admin.put_model(&world.operator, put).await.unwrap();
    let request = pb::CreateDeploymentRequest {
        name: name.into(),
        provider: "custom".into(),
        base_url: "http://127.0.0.1:1/v1".into(),
        model: "m".into(),
        upstream_model: "m".into(),
        ..Default::default()
    };
    world.admin.create_deployment(&world.operator, request).await.unwrap().answer.id
}

fn record(picked: &str) -> Vec<u8> {
    let id: DeploymentId = picked.parse().unwrap();
    Decision {
        version: 1,
        deployments: id.as_bytes().to_vec().into(),
        seed: 7,
        strategy: RoutingStrategy::CostBased.into(),
        names: vec!["m".into()],
        picks: vec![0],
        eliminated: vec![DecisionElimination {
            reason: EliminationReason::TagsMissing.into(),
            tags: vec!["vision".into()],
            ..Default::default()
        }],
        ..Default::default()
    }
    .encode_to_vec()
}

async fn ingest(world: &World, rows: Vec<Row>) {
    world.store.ingest_usage(&testing::journal(), rows, &KnownDays::default()).await.unwrap();
}

fn one(org: OrgId, row: &Row) -> pb::GetRequestRequest {
    pb::GetRequestRequest { org_id: org.to_string(), id: row.request_id.to_string() }
}

/// R004-28: with the names that deployments had at the revision, although they are gone since; lists stay light.
#[tokio::test]
async fn a_request_shows_why_it_went_where_it_went() {
    let world = world().await;
    let org: OrgId = world.org().await.parse().unwrap();
    let id = deployment(&world, "east").await;
    let publisher = Publisher::new(PublishMetrics::default());
    publisher.refresh(&world.store).await.unwrap();
    let revision = i64::try_from(publisher.database_revision()).unwrap();
    let delete = pb::DeleteDeploymentRequest { org_id: String::new(), id: id.clone() };
    world.admin.delete_deployment(&world.operator, delete).await.unwrap();
    publisher.refresh(&world.store).await.unwrap();

    let decided = Row { decision: Some(record(&id)), config_revision: revision, ..usage_row(org, now()) };
    let (refused, damaged) =
        (usage_row(org, now()), Row { decision: Some(b"\x08".to_vec()), ..usage_row(org, now()) });
    ingest(&world, vec![decided.clone(), refused.clone(), damaged.clone()]).await;
    let shown = world.admin.get_request(&world.operator, one(org, &decided)).await.unwrap();
    let decision = shown.decision.unwrap();
    assert_eq!((&*decision.strategy, &*decision.seed), ("cost-based", "7"));
    assert_eq!((&*decision.candidates[0].deployment, &*decision.candidates[0].deployment_id), ("east", &*id));
    assert_eq!(
        (&*decision.eliminated[0].reason, &decision.eliminated[0].tags[..]),
        ("tags_missing", &["vision".to_owned()][..])
    );

    assert!(world.admin.get_request(&world.operator, one(org, &refused)).await.unwrap().decision.is_none());
    let shown = world.admin.get_request(&world.operator, one(org, &damaged)).await.unwrap();
    assert!(shown.decision.unwrap().unreadable.contains("damaged"));
    let request = pb::ListRequestsRequest { org_id: org.to_string(), ..Default::default() };
    let listed = world.admin.list_requests(&world.operator, request).await.unwrap().requests;
    assert!(listed.len() == 3 && listed.iter().all(|it| it.decision.is_none()), "{listed:?}");
}

#[tokio::test]
async fn decisions_are_listed_oldest_first_in_pages_of_all_or_one_organization() {
    let world = world().await;
    let [org, other]: [OrgId; 2] = [world.org().await.parse().unwrap(), world.org().await.parse().unwrap()];
    let minutes = |ago: i64| now() - time::Duration::minutes(ago);
    // Around midnight too: rows of two days.
    let mut rows: Vec<Row> = (0..20)
        .map(|at| usage_row(if at % 4 == 0 { other } else { org }, minutes(60 * 20 - at * 60)))
        .collect();
    rows[3].decision = Some(vec![1, 2, 3]);
    let ids: Vec<String> = rows.iter().map(|row| row.request_id.to_string()).collect();
    ingest(&world, rows).await;
    let mut request = pb::ListDecisionsRequest {
        after: Some(minutes(60 * 18 + 30).into()),
        page_size: 7,
        ..Default::default()
    };
    let (mut seen, mut totals) = (Vec::new(), Vec::new());
    loop {
        let page = world.admin.list_decisions(&world.operator, request.clone()).await.unwrap();
        totals.extend(page.total);
        seen.extend(page.decisions);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.iter().map(|it| &*it.request_id).collect::<Vec<_>>(), ids[2..]);
    assert_eq!(totals, [18]);
    assert_eq!(seen[1].record, BASE64_STANDARD.encode([1, 2, 3]));
    assert!(seen[0].record.is_empty());
    let of_one = pb::ListDecisionsRequest { org_id: other.to_string(), ..Default::default() };
    let listed = world.admin.list_decisions(&world.operator, of_one).await.unwrap();
    assert_eq!((listed.decisions.len(), listed.total), (5, Some(5)));
    let wrong = pb::ListDecisionsRequest { org_id: "x".into(), ..Default::default() };
    let error = world.admin.list_decisions(&world.operator, wrong).await.unwrap_err();
    assert_eq!(error.field.as_deref(), Some("org_id"));
}

/// Every published revision, without credentials; what leads from one to another; and nothing that was not published.
#[tokio::test]
async fn the_configuration_of_a_revision_is_what_was_published_then() {
    let world = world().await;
    world.org().await;
    let publisher = Publisher::new(PublishMetrics::default());
    let east = deployment(&world, "east").await;
    publisher.refresh(&world.store).await.unwrap();
    let first = publisher.database_revision();
    let west = deployment(&world, "west").await;
    let update = pb::UpdateDeploymentRequest { id: east.clone(), weight: Some(9), ..Default::default() };
    world.admin.update_deployment(&world.operator, update).await.unwrap();
    publisher.refresh(&world.store).await.unwrap();
    let second = publisher.database_revision();
    // Another replica, which starts now, records nothing twice.
    let other = Publisher::new(PublishMetrics::default());
    other.refresh(&world.store).await.unwrap();

    let list = async |revision, since_revision| {
        let request =
            pb::ListRoutingConfigRequest { revision, since_revision, page_size: 2, ..Default::default() };
        let (mut request, mut found) = (request, Vec::new());
        loop {
            let page = world.admin.list_routing_config(&world.operator, request.clone()).await?;
            found.extend(page.resources.into_iter().map(|it| (it.kind.clone(), it.id.clone(), it)));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return Ok::<_, AdminError>((page.since_revision, found));
            }
        }
    };
    let deployments = |listed: &[(String, String, pb::RoutingResource)]| -> Vec<(String, u32)> {
        let weight = |it: &pb::RoutingResource| {
            let bytes = BASE64_STANDARD.decode(&it.resource).unwrap();
            match Resource::decode(&*bytes).unwrap().kind {
                Some(resource::Kind::Deployment(it)) => it.weight,
                other => panic!("{other:?}"),
            }
        };
        let mut all: Vec<_> = listed
            .iter()
            .filter(|(kind, ..)| kind == "deployment")
            .map(|(_, id, it)| (id.clone(), weight(it)))
            .collect();
        all.sort();
        all
    };
    let (since, listed) = list(first, 0).await.unwrap();
    assert_eq!((since, deployments(&listed)), (0, vec![(east.clone(), 1)]));
    let kinds: std::collections::BTreeSet<_> = listed.iter().map(|(kind, ..)| &**kind).collect();
    assert_eq!(kinds, ["deployment", "model", "organization"].into());
    let (since, changed) = list(second, first).await.unwrap();
    assert_eq!(since, first);
    let mut expected = vec![(east, 9), (west, 1)];
    expected.sort();
    assert_eq!(deployments(&changed), expected);
    assert_eq!(changed.iter().filter(|(kind, ..)| kind != "deployment" && kind != "model").count(), 0);
    let error = list(second + 1, 0).await.unwrap_err();
    assert_eq!((error.kind, error.field.as_deref()), (ErrorKind::NotFound, Some("revision")));
}
