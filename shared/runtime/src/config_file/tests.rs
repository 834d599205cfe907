//! Covers: every problem is named with its place, and layers win in order.

use serde::Deserialize;

use super::*;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Settings {
    listen: std::net::SocketAddr,
    workers: u16,
    token: Option<String>,
    postgres: Postgres,
    #[serde(default)]
    peers: Vec<Peer>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Postgres {
    url: String,
    pool: u32,
    verbose: bool,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Peer {
    name: String,
    port: u16,
}

const DEFAULTS: &str = r#"
# The defaults.
listen = "127.0.0.1:8080"
workers = 2
[postgres]
url = "postgres://localhost"
pool = 10
verbose = false
"#;

fn settings(file: &str, env: &[(&str, &str)]) -> Result<Settings, Vec<String>> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    load_from(DEFAULTS, Some(("nemo.toml", file)), env, "NEMO_")
        .map_err(|error: ConfigError| error.to_string().lines().map(str::to_owned).collect())
}

#[test]
fn later_layers_win_table_by_table() {
    let found = settings(
        "workers = 4\n[postgres]\npool = 20\nurl = \"postgres://file\"\n[[peers]]\nname = \"a\"\nport = 1",
        &[("NEMO_POSTGRES__POOL", "30"), ("NEMO_LISTEN", "0.0.0.0:1"), ("NEMO_POSTGRES__VERBOSE", "true")],
    )
    .unwrap();
    assert_eq!((found.workers, found.listen.port()), (4, 1));
    assert_eq!(found.postgres, Postgres { url: "postgres://file".into(), pool: 30, verbose: true });
    assert_eq!(found.peers, [Peer { name: "a".into(), port: 1 }]);
    assert_eq!(settings("", &[]).unwrap().workers, 2);
}

#[test]
fn all_problems_are_reported_with_their_lines() {
    let problems = settings(
        "workers = \"many\"\ncolour = 1\n\n[postgres]\npool = 20\nurll = \"x\"\n\n[[peers]]\nname = \"a\"\nport = 70000\n\n[[peers]]\nport = 1\n",
        &[("NEMO_POSTGRES__VERBOSE", "perhaps"), ("NEMO_POSTGRES__SIZE", "1")],
    )
    .unwrap_err();
    let expect = [
        ("nemo.toml:1: workers: ", "invalid type: string \"many\", expected u16"),
        ("nemo.toml:2: colour: ", "unknown field `colour`"),
        ("nemo.toml:6: postgres.urll: ", "unknown field `urll`"),
        ("nemo.toml:10: peers.port: ", "70000"),
        ("nemo.toml:12: peers: ", "missing field `name`"),
        ("NEMO_POSTGRES__VERBOSE: postgres.verbose: ", "expected a boolean"),
        ("NEMO_POSTGRES__SIZE: postgres.size: ", "unknown field `size`"),
    ];
    for (start, part) in expect {
        assert!(
            problems.iter().any(|p| p.starts_with(start) && p.contains(part)),
            "{start}{part}\n{problems:#?}"
        );
    }
    assert_eq!(problems.len(), expect.len(), "{problems:#?}");
}

#[test]
fn syntax_errors_name_the_line() {
    let problems = settings("workers = 4\n[postgres\n", &[]).unwrap_err();
    assert!(problems[0].starts_with("nemo.toml:2: "), "{problems:?}");
}

#[test]
fn a_value_of_the_wrong_form_names_its_line_not_that_of_the_default() {
    let problems = settings("\n\nlisten = \"somewhere\"\n", &[]).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("nemo.toml:3: listen: "), "{problems:?}");
}

#[test]
fn text_stays_text_whatever_it_looks_like() {
    let found = settings("", &[("NEMO_POSTGRES__URL", "12345"), ("NEMO_TOKEN", "67890")])
        .map(|s| (s.postgres.url, s.token));
    // `token` has no default, so its variable is unknown to the loader and left alone.
    assert_eq!(found.unwrap(), ("12345".to_owned(), None));
    let found = settings("token = \"x\"", &[("NEMO_TOKEN", "67890")]).unwrap();
    assert_eq!(found.token.as_deref(), Some("x"));
    // Optional text inside a known section is found out by trying.
    #[derive(Debug, Deserialize)]
    struct Outer {
        section: Section,
    }
    #[derive(Debug, Deserialize)]
    struct Section {
        note: Option<String>,
    }
    let env = [("NEMO_SECTION__NOTE".to_owned(), "123".to_owned())];
    let outer: Outer = load_from("[section]\n", None, env, "NEMO_").unwrap();
    assert_eq!(outer.section.note.as_deref(), Some("123"));
}

#[test]
fn a_variable_cannot_smuggle_in_other_settings() {
    let found =
        settings("", &[("NEMO_POSTGRES__URL", "x\"\nworkers = 9"), ("NEMO_WORKERS", "3\nlisten = 1")]);
    let problems = found.unwrap_err();
    assert!(problems.iter().all(|p| p.starts_with("NEMO_WORKERS: workers: ")), "{problems:?}");
}

#[test]
fn variables_of_others_are_left_alone() {
    let others = [
        ("NEMO_LOG", "debug"),
        ("NEMO_ROUTER_SERVICE_HOST", "10.0.0.1"),
        ("NEMOWORKERS", "9"),
        ("NEMO_", ""),
    ];
    assert_eq!(settings("", &others).unwrap().workers, 2);
}

#[test]
fn an_unreadable_file_is_named() {
    let error = load::<Settings>(DEFAULTS, Some(Path::new("/nonexistent/nemo.toml")), "NEMO_").unwrap_err();
    assert!(error.to_string().starts_with("/nonexistent/nemo.toml: cannot be read: "), "{error}");
}

#[test]
fn missing_settings_are_named() {
    let error = load_from::<Settings>("workers = 1", None, [], "NEMO_").unwrap_err();
    assert!(error.to_string().contains("missing field `listen`"), "{error}");
}
