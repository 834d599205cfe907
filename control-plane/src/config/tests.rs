use std::io::Write as _;

use super::*;

fn settings(env: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Ok(config_file::load_from(DEFAULTS, None, env, ENV_PREFIX)?)
}

const DATABASE: (&str, &str) = ("NEMO_POSTGRES_URL", "postgres://nemo:canary@db/nemo");

#[test]
fn defaults_listen_on_loopback_only() {
    let config = settings(&[DATABASE]).unwrap().into_config().unwrap();
    for (addr, port) in [(config.rest_addr, 8081), (config.grpc_addr, 8082), (config.metrics_addr, 9081)] {
        assert!(addr.ip().is_loopback() && addr.port() == port, "{addr}");
    }
}

#[test]
fn nodes_from_elsewhere_need_a_token() {
    let open = ("NEMO_GRPC_ADDR", "0.0.0.0:8082");
    let error = settings(&[DATABASE, open]).unwrap().into_config().unwrap_err().to_string();
    assert!(error.contains("0.0.0.0:8082") && error.contains("NEMO_NODE_TOKEN"), "{error}");
    let token = ("NEMO_NODE_TOKEN", "0123456789abcdef");
    let error = settings(&[DATABASE, open, token]).unwrap().into_config().unwrap_err().to_string();
    assert!(error.contains("--tls-cert") && error.contains("--allow-plaintext"), "{error}");
    let plain = ("NEMO_ALLOW_PLAINTEXT", "true");
    let authority = ("NEMO_NODE_CA", "/etc/nemo/ca.pem");
    let error = settings(&[DATABASE, authority]).unwrap().into_config().unwrap_err().to_string();
    assert!(error.contains("--node-ca") && error.contains("--tls-cert"), "{error}");
    assert!(settings(&[DATABASE, open, token, plain]).unwrap().into_config().unwrap().node_token.is_some());
}

#[test]
fn what_is_missing_is_named_with_a_way_out() {
    let error = settings(&[]).unwrap().into_config().unwrap_err().to_string();
    assert!(error.contains("--postgres-url"), "{error}");
    let error = settings(&[DATABASE]).unwrap().keyring().unwrap_err().to_string();
    assert!(error.contains("NEMO_SEAL_KEY") && error.contains("openssl rand -hex 32"), "{error}");
}

#[test]
fn malformed_secrets_are_named_by_their_origin_and_not_shown() {
    let error = settings(&[("NEMO_SEAL_KEY", "canary")]).unwrap().keyring().unwrap_err().to_string();
    assert!(error.contains("NEMO_SEAL_KEY") && !error.contains("canary"), "{error}");
    let error =
        settings(&[DATABASE, ("NEMO_NODE_TOKEN", "canary")]).unwrap().into_config().unwrap_err().to_string();
    assert!(error.contains("NEMO_NODE_TOKEN") && !error.contains("canary"), "{error}");
}

#[test]
fn secrets_can_come_from_files_which_win() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let key = Keyring::generate_key().unwrap();
    writeln!(file, "{}", key.expose()).unwrap();
    let path = file.path().to_str().unwrap();
    let settings = settings(&[("NEMO_SEAL_KEY_FILE", path), ("NEMO_SEAL_KEY", "malformed")]).unwrap();
    assert_eq!(settings.keyring().unwrap().key_ids(), Keyring::parse(key.expose()).unwrap().key_ids());
    let missing = Settings { seal_key_file: "/nonexistent/key".into(), ..settings };
    assert!(missing.keyring().unwrap_err().to_string().contains("/nonexistent/key"));
}

#[test]
fn secrets_never_show_in_debug_output() {
    let settings = settings(&[DATABASE, ("NEMO_SEAL_KEY", "canary"), ("NEMO_NODE_TOKEN", "canary")]).unwrap();
    assert!(!format!("{settings:?}").contains("canary"));
    let config = Config::local(Secret::new("postgres://canary"));
    assert!(!format!("{config:?}").contains("canary"));
}

#[test]
fn unusable_pool_sizes_are_refused() {
    let error = settings(&[DATABASE, ("NEMO_SYSTEM_CONNECTIONS", "0")]).unwrap().into_config().unwrap_err();
    assert!(error.to_string().contains("system_connections"), "{error}");
}

#[test]
fn etcd_settings_are_checked_by_name() {
    let config = |env: &[(&str, &str)]| settings(&[&[DATABASE], env].concat()).unwrap().into_config();
    assert!(config(&[]).unwrap().etcd.endpoints.is_empty(), "one replica needs none");
    let given = ("NEMO_ETCD_ENDPOINTS", "http://a:2379, https://b:2379,");
    assert_eq!(config(&[given]).unwrap().etcd.endpoints, ["http://a:2379", "https://b:2379"]);
    for malformed in ["a:2379", "http://a", "ftp://a:2379", "http://a:2379 http://b:2379"] {
        let error = config(&[("NEMO_ETCD_ENDPOINTS", malformed)]).unwrap_err().to_string();
        assert!(
            error.contains("etcd_endpoints") && error.contains("http://host:port"),
            "{malformed}: {error}"
        );
    }
    let (user, password) = (("NEMO_ETCD_USER", "nemo"), ("NEMO_ETCD_PASSWORD", "canary"));
    for half in [user, password] {
        let error = config(&[half]).unwrap_err().to_string();
        assert!(error.contains("etcd_user and etcd_password") && !error.contains("canary"), "{error}");
    }
    let error = config(&[given, user, password]).unwrap_err().to_string();
    assert!(error.contains("http://a:2379") && error.contains("https://"), "{error}");
    for (endpoint, plain) in
        [("http://127.0.0.1:2379", "false"), ("http://[::1]:2379", "false"), ("http://a:2379", "true")]
    {
        let plain = ("NEMO_ALLOW_PLAINTEXT", plain);
        let config = config(&[("NEMO_ETCD_ENDPOINTS", endpoint), plain, user, password]).unwrap();
        assert!(config.etcd.user.is_some_and(|(user, _)| user == "nemo"));
    }
}
