use bytes::Bytes;
use nemo_proto::config::{Deployment, Model, Organization, Resource, resource};
use nemo_types::OrgId;

use super::*;

fn keyring() -> Arc<Keyring> {
    Arc::new(Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap())
}

fn client() -> UpstreamClient {
    UpstreamClient::new(None).unwrap()
}

fn organization(id: OrgId, name: &str) -> Resource {
    let id = Bytes::copy_from_slice(id.as_bytes());
    Resource {
        kind: Some(resource::Kind::Organization(Organization { id, name: name.into(), disabled: false })),
    }
}

/// A deployment of a model that does not exist: does not compile.
fn broken() -> Resource {
    let id = Bytes::copy_from_slice(nemo_types::DeploymentId::generate().as_bytes());
    let it = Deployment { id, base_url: "http://h".into(), model: "nope".into(), ..Deployment::default() };
    Resource { kind: Some(resource::Kind::Deployment(it)) }
}

fn applied(set: &ResourceSet, upserts: &[Resource]) -> ResourceSet {
    let mut delta = Delta::default();
    upserts.iter().for_each(|resource| delta.upsert(resource.clone()).unwrap());
    let mut set = set.clone();
    set.apply(&delta);
    set
}

fn push(base: u64, revision: u64, upserts: Vec<Resource>, result: &ResourceSet) -> Push {
    Push {
        nonce: revision,
        base_revision: base,
        revision,
        upserts,
        checksum: Bytes::copy_from_slice(&result.checksum().to_bytes()),
        ..Push::default()
    }
}

#[test]
fn a_full_push_then_a_delta_are_applied_and_acknowledged() {
    let handle = SnapshotHandle::default();
    let mut applier = Applier::new(handle.clone(), keyring(), client());
    let (a, b) = (organization(OrgId::generate(), "a"), organization(OrgId::generate(), "b"));
    let first = applied(&ResourceSet::new(), std::slice::from_ref(&a));
    assert_eq!(applier.push(push(0, 5, vec![a], &first)), Ok(true));
    let second = applied(&first, std::slice::from_ref(&b));
    assert_eq!(applier.push(push(5, 9, vec![b], &second)), Ok(true));
    assert_eq!(applier.held(), (9, second.checksum()));
    assert_eq!(handle.load().unwrap().snapshot.revision, 9);
}

#[test]
fn chunks_are_applied_with_the_last_one_and_not_before() {
    let handle = SnapshotHandle::default();
    let mut applier = Applier::new(handle.clone(), keyring(), client());
    let (a, b) = (organization(OrgId::generate(), "a"), organization(OrgId::generate(), "b"));
    let set = applied(&ResourceSet::new(), &[a.clone(), b.clone()]);
    assert_eq!(applier.push(Push { more: true, ..push(0, 3, vec![a], &set) }), Ok(false));
    assert!(handle.load().is_none());
    assert_eq!(applier.push(push(0, 3, vec![b], &set)), Ok(true));
    assert_eq!(applier.held().0, 3);
}

/// I5: a revision is applied whole or not at all, and a refused one is not recorded as held.
#[test]
fn i5_a_refused_push_changes_nothing() {
    let handle = SnapshotHandle::default();
    let mut applier = Applier::new(handle.clone(), keyring(), client());
    let a = organization(OrgId::generate(), "a");
    let first = applied(&ResourceSet::new(), std::slice::from_ref(&a));
    applier.push(push(0, 5, vec![a], &first)).unwrap();
    let before = handle.load().unwrap();

    let bad = applied(&first, &[broken()]);
    let resource = bad.items(nemo_snapshot::Kind::Deployment).next().unwrap().decode();
    let refused = [
        push(5, 6, vec![resource], &bad),
        push(5, 6, vec![organization(OrgId::generate(), "b")], &first),
        push(4, 6, vec![], &first),
        Push { min_schema_version: u32::MAX, ..push(5, 6, vec![], &first) },
        Push { checksum: Bytes::new(), ..push(5, 6, vec![], &first) },
    ];
    for push in refused {
        assert!(applier.push(push.clone()).is_err(), "{push:?}");
        assert_eq!(applier.held(), (5, first.checksum()));
        assert!(Arc::ptr_eq(&before, &handle.load().unwrap()));
    }
}

#[test]
fn a_credential_that_does_not_open_refuses_the_revision() {
    use nemo_proto::config::Credential;
    let sealed_elsewhere = keyring().seal(b"x", b"sk").unwrap();
    let id = nemo_types::CredentialId::generate();
    let credential = Credential {
        id: Bytes::copy_from_slice(id.as_bytes()),
        sealed: Bytes::copy_from_slice(sealed_elsewhere.as_bytes()),
        ..Credential::default()
    };
    let model = Model { id: "m".into(), ..Model::default() };
    let deployment = Deployment {
        id: Bytes::copy_from_slice(nemo_types::DeploymentId::generate().as_bytes()),
        base_url: "http://h".into(),
        model: "m".into(),
        credential_id: credential.id.clone(),
        ..Deployment::default()
    };
    let resources = [
        resource::Kind::Credential(credential),
        resource::Kind::Model(model),
        resource::Kind::Deployment(deployment),
    ]
    .map(|kind| Resource { kind: Some(kind) });
    let set = applied(&ResourceSet::new(), &resources);
    let mut applier = Applier::new(SnapshotHandle::default(), keyring(), client());
    let rejections = applier.push(push(0, 2, resources.to_vec(), &set)).unwrap_err();
    assert!(rejections[0].message.contains("not in the keyring"), "{rejections:?}");
    assert_eq!(applier.held().0, 0);
}

/// An organization may store what it likes: what nothing can be signed with is that deployment's trouble alone.
#[test]
fn a_credential_that_proves_nothing_does_not_refuse_the_revision() {
    use nemo_proto::config::Credential;
    let keyring = keyring();
    for (provider, secret) in [
        ("bedrock", r#"{"access_key_id":"a"}"#),
        ("bedrock", r#"{"access_key_id":"a","secret_access_key":"b"}"#),
        ("google-vertex", r#"{"type":"authorized_user"}"#),
    ] {
        let id = nemo_types::CredentialId::generate();
        let sealed = keyring.seal(id.as_bytes(), secret.as_bytes()).unwrap();
        let credential = Credential {
            id: Bytes::copy_from_slice(id.as_bytes()),
            sealed: Bytes::copy_from_slice(sealed.as_bytes()),
            ..Credential::default()
        };
        let deployment = Deployment {
            id: Bytes::copy_from_slice(nemo_types::DeploymentId::generate().as_bytes()),
            provider: provider.into(),
            base_url: "http://h".into(),
            model: "m".into(),
            credential_id: credential.id.clone(),
            ..Deployment::default()
        };
        let resources = [
            resource::Kind::Credential(credential),
            resource::Kind::Model(Model { id: "m".into(), ..Model::default() }),
            resource::Kind::Deployment(deployment),
        ]
        .map(|kind| Resource { kind: Some(kind) });
        let set = applied(&ResourceSet::new(), &resources);
        let handle = SnapshotHandle::default();
        let mut applier = Applier::new(handle.clone(), keyring.clone(), client());
        assert_eq!(applier.push(push(0, 2, resources.to_vec(), &set)), Ok(true), "{provider} {secret}");
        let signer = &handle.load().unwrap().upstreams[0].signer;
        assert!(matches!(signer, Some(crate::upstream::Signer::Unusable)), "{signer:?}");
    }
}

/// Neither must a deployment that no request can be made for: it answers nothing, and the others go on.
#[test]
fn a_deployment_that_cannot_be_called_does_not_refuse_the_revision() {
    use nemo_proto::config::Credential;
    let keyring = keyring();
    let id = nemo_types::CredentialId::generate();
    let sealed = keyring.seal(id.as_bytes(), b"sk\nx").unwrap();
    let credential = Credential {
        id: Bytes::copy_from_slice(id.as_bytes()),
        sealed: Bytes::copy_from_slice(sealed.as_bytes()),
        ..Credential::default()
    };
    let deployment = |id: u8, upstream_model: &str, credential_id: Bytes| Deployment {
        id: Bytes::copy_from_slice(&[id; 16]),
        base_url: "http://h".into(),
        model: "m".into(),
        upstream_model: upstream_model.into(),
        credential_id,
        ..Deployment::default()
    };
    let resources = [
        resource::Kind::Model(Model { id: "m".into(), ..Model::default() }),
        resource::Kind::Deployment(deployment(1, "m", Bytes::new())),
        resource::Kind::Deployment(deployment(2, "m\n", Bytes::new())),
        resource::Kind::Deployment(deployment(3, "m", credential.id.clone())),
        resource::Kind::Credential(credential),
    ]
    .map(|kind| Resource { kind: Some(kind) });
    let set = applied(&ResourceSet::new(), &resources);
    let handle = SnapshotHandle::default();
    let mut applier = Applier::new(handle.clone(), keyring, client());
    assert_eq!(applier.push(push(0, 2, resources.to_vec(), &set)), Ok(true));
    let live = handle.load().unwrap();
    let mut callable = 0;
    for deployment in live.snapshot.routing.deployments() {
        let upstream = &live.upstreams[deployment.slot];
        let serves = |it| upstream.uri(it, false).is_some() || upstream.plan(it).is_some();
        let any = nemo_llm::Endpoint::ALL.into_iter().any(serves);
        let first = deployment.id.as_bytes() == &[1; 16];
        assert_eq!((any, matches!(upstream.route, crate::upstream::Route::Nowhere)), (first, !first));
        callable += usize::from(any);
    }
    assert_eq!((live.upstreams.len(), callable, applier.held().0), (3, 1, 2));
}

/// A change that concerns no route opens no credential and builds no URL again.
#[test]
fn what_a_change_does_not_concern_is_shared_with_the_snapshot_before() {
    let handle = SnapshotHandle::default();
    let mut applier = Applier::new(handle.clone(), keyring(), client());
    let model = Resource { kind: Some(resource::Kind::Model(Model { id: "m".into(), ..Model::default() })) };
    let deployment = |weight| {
        let id = Bytes::from_static(&[7; 16]);
        let it = Deployment {
            id,
            base_url: "http://h".into(),
            model: "m".into(),
            weight,
            ..Deployment::default()
        };
        Resource { kind: Some(resource::Kind::Deployment(it)) }
    };
    let first = applied(&ResourceSet::new(), &[model.clone(), deployment(1)]);
    applier.push(push(0, 5, vec![model, deployment(1)], &first)).unwrap();
    let before = handle.load().unwrap();
    let org = organization(OrgId::generate(), "a");
    let second = applied(&first, std::slice::from_ref(&org));
    applier.push(push(5, 6, vec![org], &second)).unwrap();
    let after = handle.load().unwrap();
    assert!(Arc::ptr_eq(&before.upstreams, &after.upstreams) && after.snapshot.revision == 6);
    let third = applied(&second, &[deployment(2)]);
    applier.push(push(6, 7, vec![deployment(2)], &third)).unwrap();
    assert!(!Arc::ptr_eq(&before.upstreams, &handle.load().unwrap().upstreams));
}
