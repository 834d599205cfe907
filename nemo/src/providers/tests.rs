//! Covers: applying a desired state is idempotent, follows changes, and leaves alone what it did not make. Against a
//! real control plane on a real PostgreSQL.

use std::sync::Arc;

use nemo_control_plane::{
    admin::{Admin, Call, ErrorKind},
    store::{PoolSizes, Store},
};
use nemo_proto::admin::{
    CreateDeploymentRequest, CreateModelGroupRequest, Deployment, GetDeploymentRequest, Link, LinkDeployment,
    ListCredentialsRequest, ListModelGroupsRequest,
};
use nemo_types::Keyring;

use super::{
    apply::{Applied, Applier},
    *,
};
use crate::{
    bootstrap,
    data_dir::DataDir,
    embedded_postgres::{EmbeddedPostgres, Options, discover::Places},
};

struct World {
    postgres: EmbeddedPostgres,
    admin: Admin,
    store: Store,
    dir: DataDir,
    org_id: String,
    seal_key_id: String,
    _temporary: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let (dir, _) = DataDir::open(temporary.path()).unwrap();
        let options = Options { dir: dir.path().to_owned(), user: None, places: Places::of_this_process() };
        let (_trigger, drain) = nemo_runtime::drain::channel();
        let postgres = EmbeddedPostgres::start(&options, &drain).await.unwrap().unwrap();
        let url = Secret::new(postgres.url());
        let store =
            Store::open(&url, PoolSizes::default(), std::time::Duration::from_secs(30)).await.unwrap();
        let keyring = bootstrap::keyring(&dir).unwrap();
        let seal_key_id = keyring.key_ids().remove(0);
        let admin = Admin::new(store.clone(), Arc::new(keyring));
        let mut world =
            Self { postgres, admin, store, dir, org_id: String::new(), seal_key_id, _temporary: temporary };
        world.org_id = world.bootstrap().await.org_id;
        world
    }

    fn applier(&self) -> Applier<'_> {
        Applier::new(&self.admin, self.seal_key_id.clone(), self.dir.file("managed.json"))
    }

    async fn bootstrap(&self) -> bootstrap::Bootstrapped {
        bootstrap::run(&self.admin, &self.applier(), &self.dir).await.unwrap()
    }

    async fn apply(&self, desired: &Desired) -> Applied {
        self.applier().apply(desired, &self.org_id).await.unwrap()
    }

    async fn deployments(&self) -> Vec<Deployment> {
        let mut deployments = self.applier().deployments().await.unwrap();
        deployments.sort_by(|a, b| a.name.cmp(&b.name));
        deployments
    }

    async fn names(&self) -> Vec<String> {
        self.deployments().await.into_iter().map(|deployment| deployment.name).collect()
    }

    async fn credentials(&self) -> Vec<nemo_proto::admin::Credential> {
        let page =
            self.admin.list_credentials(&Call::local_operator(), ListCredentialsRequest::default()).await;
        page.unwrap().credentials
    }

    async fn end(mut self) {
        self.store.close().await;
        self.postgres.stop().await;
    }
}

fn catalog() -> Vec<Model> {
    let model = |id: &str, provider: &str| Model { source: "bundled".into(), ..bare_model(id, provider, id) };
    vec![model("gpt-a", "openai"), model("gpt-b", "openai"), model("llama", "groq")]
}

async fn from_environment(variables: &[(&str, &str)]) -> Desired {
    let variable = |name: &str| variables.iter().find(|(k, _)| *k == name).map(|(_, v)| (*v).to_owned());
    let mut desired = environment::desired(&environment::find(variable).unwrap(), &catalog()).await;
    // The control plane under test has no bundled catalog.
    desired.models.extend(catalog());
    desired
}

fn counts(applied: &Applied) -> (usize, usize, usize) {
    (applied.created, applied.changed, applied.removed)
}

#[tokio::test]
async fn providers_of_the_environment_come_change_and_go_and_repetition_changes_nothing() {
    let world = World::new().await;
    let both = from_environment(&[("OPENAI_API_KEY", "sk-one"), ("GROQ_API_KEY", "gsk-one")]).await;
    world.apply(&both).await;
    assert_eq!(world.names().await, ["env:groq/llama", "env:openai/gpt-a", "env:openai/gpt-b"]);
    let before = (world.deployments().await, world.credentials().await);
    assert_eq!(counts(&world.apply(&both).await), (0, 0, 0));
    assert_eq!((world.deployments().await, world.credentials().await), before);

    // Another secret is sealed again, even one that ends alike, and ids stay.
    let changed = from_environment(&[("OPENAI_API_KEY", "sk-tone"), ("GROQ_API_KEY", "gsk-one")]).await;
    assert_eq!(counts(&world.apply(&changed).await), (0, 1, 0));
    assert_eq!(world.deployments().await, before.0);
    assert_eq!(counts(&world.apply(&changed).await), (0, 0, 0));

    let gone = from_environment(&[("GROQ_API_KEY", "gsk-one")]).await;
    assert_eq!(counts(&world.apply(&gone).await), (0, 0, 3));
    assert_eq!(world.names().await, ["env:groq/llama"]);
    assert_eq!(world.credentials().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn what_somebody_else_made_is_left_alone_and_what_they_use_is_disabled_instead_of_removed() {
    let world = World::new().await;
    let operator = Call::local_operator();
    world.apply(&from_environment(&[("OPENAI_API_KEY", "sk-one")]).await).await;
    let used = world.deployments().await.remove(0);
    let own = CreateDeploymentRequest {
        name: "by hand".into(),
        provider: "openai".into(),
        base_url: "http://127.0.0.1:1/v1".into(),
        model: "gpt-a".into(),
        ..CreateDeploymentRequest::default()
    };
    world.admin.create_deployment(&operator, own).await.unwrap();
    let group = CreateModelGroupRequest {
        name: "mine".into(),
        links: vec![Link { deployments: vec![LinkDeployment { deployment_id: used.id.clone(), weight: 1 }] }],
        ..CreateModelGroupRequest::default()
    };
    world.admin.create_model_group(&operator, group).await.unwrap();

    let nothing = Desired::default();
    world.apply(&nothing).await;
    assert_eq!(world.names().await, ["by hand", "env:openai/gpt-a"]);
    let request = GetDeploymentRequest { id: used.id.clone(), ..GetDeploymentRequest::default() };
    assert!(world.admin.get_deployment(&operator, request.clone()).await.unwrap().disabled);
    assert_eq!(counts(&world.apply(&nothing).await), (0, 0, 0));

    world.apply(&from_environment(&[("OPENAI_API_KEY", "sk-one")]).await).await;
    assert!(!world.admin.get_deployment(&operator, request).await.unwrap().disabled);
    world.end().await;
}

#[tokio::test]
async fn a_file_is_followed_also_when_a_deployment_changes_its_model() {
    let world = World::new().await;
    let deployment = |model: &str| DesiredDeployment {
        name: "file:main".into(),
        provider: "custom".into(),
        base_url: "http://127.0.0.1:1/v1".into(),
        credential: None,
        model: model.into(),
        upstream_model: model.into(),
        weight: 1,
        price: Some(Price { input: Some(5_000_000_000), ..Price::default() }),
        rpm: Some(500),
        tpm: None,
    };
    let desired = |model: &str, weight| Desired {
        models: vec![bare_model("a", "custom", "a"), bare_model("b", "custom", "b")],
        deployments: vec![DesiredDeployment { weight, ..deployment(model) }],
        model_groups: vec![DesiredGroup {
            name: "smart".into(),
            strategy: String::new(),
            required_tags: Vec::new(),
            links: vec![vec![("file:main".into(), 1)]],
        }],
        keys: vec![DesiredKey {
            name: "ci".into(),
            team: "build".into(),
            allowed_models: Some(vec!["smart".into()]),
            ..DesiredKey::default()
        }],
        ..Desired::default()
    };
    let first = world.apply(&desired("a", 1)).await;
    assert_eq!(first.keys.len(), 1);
    assert!(first.keys[0].1.starts_with("sk-nemo-"));
    let again = world.apply(&desired("a", 1)).await;
    assert_eq!((counts(&again), again.keys.len()), ((0, 0, 0), 0));
    assert_eq!(counts(&world.apply(&desired("a", 7)).await), (0, 1, 0));

    // The group moves to the new deployment, then the old one goes.
    assert_eq!(counts(&world.apply(&desired("b", 7)).await), (1, 1, 1));
    let deployments = world.deployments().await;
    assert_eq!((deployments.len(), deployments[0].model.as_str()), (1, "b"));
    assert_eq!(counts(&world.apply(&desired("b", 7)).await), (0, 0, 0));

    let groups = async || {
        let request = ListModelGroupsRequest::default();
        world.admin.list_model_groups(&Call::local_operator(), request).await.unwrap().model_groups.len()
    };
    assert_eq!(groups().await, 1);
    world.apply(&Desired::default()).await;
    assert_eq!((groups().await, world.deployments().await.len()), (0, 0));
    world.end().await;
}

#[tokio::test]
async fn the_demo_moves_with_its_port_and_disappears_when_a_real_provider_comes() {
    let world = World::new().await;
    world.apply(&demo("http://127.0.0.1:1/v1")).await;
    let names = world.names().await;
    assert!(names.len() == 7 && names.contains(&"demo:demo-chat".to_owned()), "{names:?}");
    assert_eq!(counts(&world.apply(&demo("http://127.0.0.1:1/v1")).await), (0, 0, 0));
    assert_eq!(counts(&world.apply(&demo("http://127.0.0.1:2/v1")).await), (0, 7, 0));
    assert!(world.deployments().await.iter().all(|d| d.base_url == "http://127.0.0.1:2/v1"));
    world.apply(&from_environment(&[("GROQ_API_KEY", "gsk-one")]).await).await;
    assert_eq!(world.names().await, ["env:groq/llama"]);
    let models = world.applier().catalog().await.unwrap();
    assert!(models.iter().all(|model| !model.id.starts_with("demo-")), "{models:?}");
    world.end().await;
}

#[tokio::test]
async fn a_first_start_makes_secrets_once_and_keeps_the_token_owner_only() {
    let world = World::new().await;
    // The first was in `World::new`.
    let second = world.bootstrap().await;
    assert_eq!(second.org_id, world.org_id);
    assert!(second.new_key.is_none() && !second.new_token);
    let path = world.dir.file(bootstrap::ADMIN_TOKEN);
    assert!(crate::data_dir::read_secret(&path).unwrap().unwrap().starts_with("adm-nemo-"));
    let bearer = format!("Bearer {}", second.admin_token.expose());
    assert!(world.admin.authenticate(Some(&bearer)).await.unwrap().check_operator().is_ok());

    // A token of another database is replaced, a key is not.
    std::fs::remove_file(&path).unwrap();
    crate::data_dir::write_file(&path, format!("adm-nemo-{}", "A".repeat(59)).as_bytes(), 0o600).unwrap();
    let error =
        world.admin.authenticate(Some(&format!("Bearer adm-nemo-{}", "A".repeat(59)))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    let third = world.bootstrap().await;
    assert!(third.new_token && third.new_key.is_none());
    assert_ne!(third.admin_token, second.admin_token);
    world.end().await;
}

#[test]
fn the_sealing_key_is_made_once() {
    let temporary = tempfile::tempdir().unwrap();
    let (dir, _lock) = DataDir::open(temporary.path()).unwrap();
    let ids = |keyring: Keyring| keyring.key_ids();
    assert_eq!(ids(bootstrap::keyring(&dir).unwrap()), ids(bootstrap::keyring(&dir).unwrap()));
    std::fs::write(dir.file("sealing.key"), "short").unwrap();
    assert!(bootstrap::keyring(&dir).unwrap_err().to_string().contains("sealing.key is damaged"));
}

#[test]
fn variables_that_cannot_be_used_are_named_without_their_secret() {
    let find = |name: &'static str, value: &'static str| {
        environment::find(|asked| (asked == name).then(|| value.to_owned()))
    };
    assert!(find("OPENAI_API_KEY", "  ").unwrap().is_empty());
    let error = find("OPENAI_API_KEY", "canary with blanks").unwrap_err().to_string();
    assert!(error.contains("OPENAI_API_KEY") && !error.contains("canary"), "{error}");
    let error = find("OLLAMA_HOST", "unix:///x").unwrap_err().to_string();
    assert!(error.contains("OLLAMA_HOST") && error.contains("expected host:port"), "{error}");
    assert_eq!(find("OLLAMA_HOST", "gpu:1").unwrap()[0].base_url.as_deref(), Some("http://gpu:1/v1"));
}

#[tokio::test]
async fn a_server_of_ones_own_is_asked_for_its_models_and_its_absence_is_a_note() {
    let (_trigger, drain) = nemo_runtime::drain::channel();
    let tasks = nemo_runtime::TaskGroup::new();
    let addr = crate::demo::start(&tasks, drain, std::time::Duration::ZERO, None).unwrap();
    let found = environment::find(|name| (name == "OLLAMA_HOST").then(|| addr.to_string())).unwrap();
    let desired = environment::desired(&found, &catalog()).await;
    let names: Vec<_> = desired.deployments.iter().map(|deployment| deployment.name.as_str()).collect();
    assert_eq!(names[..2], ["env:ollama/demo-chat", "env:ollama/demo-embedding"]);
    assert_eq!((names.len(), desired.models.len()), (7, 7));
    assert!(desired.notes.is_empty() && desired.credentials.is_empty());

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let found = environment::find(|name| (name == "OLLAMA_HOST").then(|| closed.clone())).unwrap();
    let desired = environment::desired(&found, &catalog()).await;
    assert!(desired.deployments.is_empty());
    assert!(
        desired.notes[0].contains("OLLAMA_HOST") && desired.notes[0].contains("cannot be reached"),
        "{desired:?}"
    );
}

/// Settings of a file go with their line; what somebody set by hand stays.
#[tokio::test]
async fn settings_follow_the_file_and_ceilings_come_before_what_they_bound() {
    use crate::providers::DesiredSetting;
    let world = World::new().await;
    let operator = Call::local_operator();
    let setting = |organization: Option<&str>, key: &str, value: &str| DesiredSetting {
        organization: organization.map(str::to_owned),
        key: key.into(),
        value: value.into(),
    };
    let by_hand = nemo_proto::admin::PutSettingRequest {
        key: "cooldown.failures".into(),
        value: "9".into(),
        ..Default::default()
    };
    world.admin.put_setting(&operator, by_hand).await.unwrap();
    // Above the default of its ceiling, which comes along.
    let full = Desired {
        organizations: vec!["acme".into()],
        settings: vec![
            setting(None, "routing.retries", "8"),
            setting(None, "routing.max_retries", "9"),
            setting(Some("acme"), "routing.strategy", "\"balanced\""),
        ],
        ..Desired::default()
    };
    assert_eq!(counts(&world.apply(&full).await), (4, 0, 0));
    assert_eq!(counts(&world.apply(&full).await), (0, 0, 0));
    let less = Desired { settings: vec![setting(None, "routing.max_retries", "7")], ..full.clone() };
    assert_eq!(counts(&world.apply(&less).await), (0, 1, 2));
    let left = world.admin.list_settings(&operator, Default::default()).await.unwrap().settings;
    let left: Vec<_> = left.iter().map(|it| (it.key.as_str(), it.value.as_str())).collect();
    assert_eq!(left, [("cooldown.failures", "9"), ("routing.max_retries", "7")]);
    world.end().await;
}
