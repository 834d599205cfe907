//! Covers: what a chain can't do is found before a request needs it. R004-22.

use bytes::Bytes;
use nemo_proto::config::{Deployment, Link, LinkDeployment, Model, ModelGroup, Resource, resource};
use nemo_types::ModelGroupId;

use super::*;
use crate::{Delta, compile::compile_routing};

#[derive(Default)]
struct World {
    set: ResourceSet,
}

impl World {
    fn put(&mut self, kind: resource::Kind) {
        let mut delta = Delta::default();
        delta.upsert(Resource { kind: Some(kind) }).unwrap();
        self.set.apply(&delta);
    }

    /// A model with one deployment.
    fn model(&mut self, id: &str, tags: &[&str], endpoints: &[&str], context_window: u64) -> Bytes {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let (tags, endpoints) = (own(tags), own(endpoints));
        let it = Model { id: id.into(), tags, endpoints, context_window, ..Model::default() };
        self.put(resource::Kind::Model(it));
        self.deployment(id, false)
    }

    fn deployment(&mut self, model: &str, disabled: bool) -> Bytes {
        let id = Bytes::copy_from_slice(DeploymentId::generate().as_bytes());
        self.put(resource::Kind::Deployment(Deployment {
            id: id.clone(),
            name: format!("p/{model}"),
            provider: "p".into(),
            base_url: "http://127.0.0.1:1".into(),
            model: model.into(),
            upstream_model: model.into(),
            weight: 1,
            disabled,
            ..Deployment::default()
        }));
        id
    }

    fn group(&mut self, required: &[&str], links: &[&[&Bytes]]) {
        let member = |id: &&Bytes| LinkDeployment { deployment_id: (*id).clone(), weight: 1 };
        let link = |members: &&[&Bytes]| Link { deployments: members.iter().map(member).collect() };
        self.put(resource::Kind::ModelGroup(ModelGroup {
            id: Bytes::copy_from_slice(ModelGroupId::generate().as_bytes()),
            name: format!("g{}", self.set.count(Kind::ModelGroup)),
            required_tags: required.iter().map(|tag| (*tag).to_owned()).collect(),
            links: links.iter().map(link).collect(),
            ..ModelGroup::default()
        }));
    }

    fn findings(&self) -> Vec<(Severity, String, String)> {
        let routing = compile_routing(&self.set).unwrap();
        let found = prove(&self.set, &routing);
        found.into_iter().map(|it| (it.severity, it.field, it.message)).collect()
    }

    #[track_caller]
    fn finds(&self, expected: &[(Severity, &str, &str)]) {
        let found = self.findings();
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for ((severity, field, part), (is, at, message)) in expected.iter().zip(&found) {
            assert!((severity, *field) == (is, at.as_str()) && message.contains(part), "{found:#?}");
        }
    }
}

use Severity::{Unfit, Warning};

const CHAT: &[&str] = &["chat.completions"];

#[test]
fn a_chain_whose_links_do_the_same_has_no_findings() {
    let mut world = World::default();
    let a = world.model("a", &["vision", "code"], CHAT, 1000);
    let b = world.model("b", &["vision", "code", "fast"], &["chat.completions", "responses"], 2000);
    // Nothing is known of it, so nothing speaks against it but its tags.
    let c = world.model("c", &["vision", "code"], &[], 0);
    world.group(&["vision"], &[&[&a], &[&b], &[&c]]);
    world.finds(&[]);
}

#[test]
fn a_link_without_a_required_tag_is_unfit_and_a_member_without_it_is_told() {
    let mut world = World::default();
    let sees = world.model("a", &["vision"], CHAT, 0);
    let blind = world.model("b", &["vision-ish"], CHAT, 0);
    world.group(&["vision"], &[&[&sees, &blind], &[&blind]]);
    world.finds(&[
        (Unfit, "links[1]", "required tags: vision"),
        (Warning, "links[0].deployments[1]", "p/b is never used"),
        (Warning, "links[1]", "need the tags vision"),
    ]);
}

#[test]
fn a_required_tag_that_no_model_has_is_unfit_although_requests_may_imply_it() {
    let mut world = World::default();
    let a = world.model("a", &["code"], CHAT, 0);
    world.group(&["code", "vision"], &[&[&a]]);
    world.finds(&[(Unfit, "links[0]", "vision"), (Unfit, "required_tags[1]", "\"vision\"")]);
}

#[test]
fn a_link_for_other_endpoints_is_unfit_and_one_for_fewer_is_a_warning() {
    let mut world = World::default();
    let both = world.model("a", &[], &["chat.completions", "responses"], 0);
    let chat = world.model("b", &[], CHAT, 0);
    let vectors = world.model("c", &[], &["embeddings"], 0);
    world.group(&[], &[&[&both], &[&chat], &[&vectors], &[&vectors, &both]]);
    world.finds(&[
        (
            Unfit,
            "links[2]",
            "none of the endpoints of the first link (chat.completions, responses), but embeddings",
        ),
        (Warning, "links[1]", "no fallback for responses"),
    ]);
}

#[test]
fn a_smaller_context_window_and_a_pool_that_is_off_are_warnings() {
    let mut world = World::default();
    let large = world.model("a", &[], CHAT, 1_000_000);
    let small = world.model("b", &[], CHAT, 8_000);
    let off = world.deployment("a", true);
    world.group(&[], &[&[&large], &[&small, &small.clone()][..1], &[&off]]);
    world.finds(&[
        (Warning, "links[1]", "8000 tokens of context, the first link 1000000"),
        (Warning, "links[2]", "switched off"),
    ]);
}

#[test]
fn groups_are_found_by_what_they_are_made_of() {
    let mut world = World::default();
    let (a, b) = (world.model("a", &[], CHAT, 0), world.model("b", &[], CHAT, 0));
    world.group(&[], &[&[&a], &[&b]]);
    world.group(&[], &[&[&a]]);
    let routing = compile_routing(&world.set).unwrap();
    let prover = Prover::new(&world.set, &routing);
    let with = |model: &str| prover.groups_with(&world.set, |it| *it.model.id == *model).len();
    assert_eq!((with("a"), with("b"), with("c")), (2, 1, 0));
}
