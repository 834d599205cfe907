use bytes::Bytes;
use nemo_proto::config::{
    ApiKey, Organization, Resource, Team, WithdrawnSecret, resource, revocation::Target,
};
use nemo_snapshot::{Delta, ResourceSet, compile, tenancy::Disabled};
use nemo_types::{ApiKey as Token, KeyId, Keyring, OrgId, PublicId, TeamId, TokenHash};

use super::*;
use crate::upstream::UpstreamClient;

struct Node {
    handle: SnapshotHandle,
    set: ResourceSet,
    org: OrgId,
    team: TeamId,
    key: PublicId,
    hash: TokenHash,
}

impl Node {
    fn new() -> Self {
        let (org, team, minted) = (OrgId::generate(), TeamId::generate(), Token::mint().unwrap());
        let bytes = |id: &[u8; 16]| Bytes::copy_from_slice(id);
        let kinds = [
            resource::Kind::Organization(Organization {
                id: bytes(org.as_bytes()),
                ..Organization::default()
            }),
            resource::Kind::Team(Team {
                id: bytes(team.as_bytes()),
                org_id: bytes(org.as_bytes()),
                ..Team::default()
            }),
            resource::Kind::ApiKey(ApiKey {
                id: bytes(KeyId::generate().as_bytes()),
                team_id: bytes(team.as_bytes()),
                public_id: minted.public_id.to_string(),
                secret_hash: Bytes::copy_from_slice(minted.hash.as_bytes()),
                ..ApiKey::default()
            }),
        ];
        let mut delta = Delta::default();
        kinds.into_iter().for_each(|kind| delta.upsert(Resource { kind: Some(kind) }).unwrap());
        let mut set = ResourceSet::new();
        set.apply(&delta);
        Self { handle: SnapshotHandle::default(), set, org, team, key: minted.public_id, hash: minted.hash }
    }

    fn serve(&self, revision: u64) {
        let keyring = Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap();
        let client = UpstreamClient::new(None).unwrap();
        let snapshot = compile(&self.set, revision).unwrap();
        self.handle.store(Live::prepare(snapshot, None, &keyring, &client).unwrap());
    }

    fn disabled(&self) -> Option<Disabled> {
        let live = self.handle.load().unwrap();
        live.disabled(live.snapshot.tenancy.key(&self.key).unwrap())
    }

    /// Whether the secret opens the key.
    fn opens(&self) -> bool {
        let live = self.handle.load().unwrap();
        live.snapshot.tenancy.key(&self.key).unwrap().verify(&self.hash, 0)
    }

    fn revoke(&self, revision: u64, target: Target) -> usize {
        self.handle.revoke(&[Revocation { revision, target: Some(target) }])
    }
}

#[tokio::test]
async fn a_revocation_is_in_force_until_a_snapshot_that_knows_of_it() {
    let node = Node::new();
    let bytes = |id: &[u8; 16]| Bytes::copy_from_slice(id);
    let targets = [
        (Target::PublicId(node.key.to_string()), Disabled::Key),
        (Target::TeamId(bytes(node.team.as_bytes())), Disabled::Team),
        (Target::OrgId(bytes(node.org.as_bytes())), Disabled::Organization),
    ];
    for (at, (target, disabled)) in targets.into_iter().enumerate() {
        let base = 10 * (at as u64 + 1);
        node.serve(base);
        assert_eq!(node.disabled(), None);
        assert_eq!(node.revoke(base, target.clone()), 0, "the snapshot is as new as that");
        assert_eq!((node.revoke(base + 3, target.clone()), node.disabled()), (1, Some(disabled)));
        assert_eq!(node.revoke(base + 3, target), 0, "told twice");
        node.serve(base + 2);
        assert_eq!(node.disabled(), Some(disabled), "an older push does not bring it back");
        node.serve(base + 3);
        assert_eq!(node.disabled(), None, "the snapshot decides again");
    }
}

#[tokio::test]
async fn a_withdrawn_secret_opens_its_key_no_more_until_a_snapshot_that_knows_of_it() {
    let node = Node::new();
    let secret = |hash: &TokenHash| {
        let secret_hash = Bytes::copy_from_slice(hash.as_bytes());
        Target::Secret(WithdrawnSecret { public_id: node.key.to_string(), secret_hash })
    };
    node.serve(10);
    let other = Token::mint().unwrap().hash;
    assert_eq!((node.revoke(11, secret(&other)), node.opens()), (1, true), "another secret of the key");
    assert_eq!((node.revoke(13, secret(&node.hash)), node.opens()), (1, false));
    assert_eq!(node.disabled(), None, "the key itself is on");
    node.serve(12);
    assert!(!node.opens(), "an older push does not bring it back");
    node.serve(13);
    assert!(node.opens(), "the snapshot decides again");
}

#[tokio::test]
async fn a_revocation_before_the_first_snapshot_is_kept_for_it() {
    let node = Node::new();
    assert_eq!(node.revoke(7, Target::PublicId(node.key.to_string())), 1);
    node.serve(6);
    assert_eq!(node.disabled(), Some(Disabled::Key));
}

#[tokio::test]
async fn revocations_of_a_database_that_was_set_back_are_forgotten() {
    let node = Node::new();
    node.serve(100);
    node.revoke(101, Target::PublicId(node.key.to_string()));
    node.serve(50);
    assert_eq!(node.disabled(), None);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_revision_ends_with_it_or_with_its_patience() {
    let node = Node::new();
    node.serve(5);
    let patience = Duration::from_secs(1);
    node.handle.reach(5, patience).await;
    let begun = tokio::time::Instant::now();
    node.handle.reach(6, patience).await;
    assert_eq!(begun.elapsed(), patience);
    let handle = node.handle.clone();
    let later = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        node.serve(8);
    };
    let begun = tokio::time::Instant::now();
    tokio::join!(handle.reach(7, patience), later);
    assert!(begun.elapsed() < patience);
}
