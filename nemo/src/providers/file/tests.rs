//! Covers: a file becomes what it says, and every mistake in it names its line.

use super::{reader::nanos_per_million, *};

const GOOD: &str = r#"
[[providers]]
id = "openai"
api_key = "env:OPENAI_API_KEY"
models = ["gpt-x"]

[[providers]]
id = "gpu-box"
provider = "custom"
base_url = "http://127.0.0.1:9/v1/"
models = ["qwen"]

[[deployments]]
name = "cheap"
provider = "openai"
model = "gpt-x"
weight = 3
price = { input = "0.25", output = "2" }

[[model_groups]]
name = "smart"
strategy = "simple-shuffle"
links = [["gpu-box/qwen", { deployment = "cheap", weight = 2 }], ["openai/gpt-x"]]

[[keys]]
name = "ci"
models = ["smart"]
"#;

fn variable(name: &str) -> Option<String> {
    (name == "OPENAI_API_KEY").then(|| "sk-canary".to_owned())
}

fn problems(text: &str) -> Vec<String> {
    let error = parse("nemo.toml", text, variable).unwrap_err();
    error.to_string().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_file_becomes_what_it_says() {
    let file = parse("nemo.toml", GOOD, variable).unwrap();
    assert_eq!(file.counts(), [2, 1, 1, 1, 0, 0]);
    let catalog = vec![Model {
        aliases: vec!["gpt-x".to_owned()],
        source: "bundled".to_owned(),
        ..bare_model("gpt-x-2026", "openai", "gpt-x-upstream")
    }];
    let desired = file.desired(&catalog).await.unwrap();
    assert_eq!(desired.credentials.len(), 1);
    assert_eq!(desired.credentials[0].secret.expose(), "sk-canary");
    let named = |name: &str| desired.deployments.iter().find(|d| d.name == name).unwrap().clone();
    let cheap = named("file:cheap");
    assert_eq!((cheap.model.as_str(), cheap.upstream_model.as_str()), ("gpt-x-2026", "gpt-x-upstream"));
    assert_eq!((cheap.weight, cheap.price.unwrap().input), (3, Some(250_000_000)));
    assert_eq!(cheap.credential.as_deref(), Some("file:openai"));
    let own = named("file:gpu-box/qwen");
    assert_eq!((own.base_url.as_str(), own.credential), ("http://127.0.0.1:9/v1", None));
    // The catalog knows one of the two models.
    assert_eq!(desired.models.iter().map(|model| model.id.as_str()).collect::<Vec<_>>(), ["qwen"]);
    let group = &desired.model_groups[0];
    assert_eq!(group.links[0], [("file:gpu-box/qwen".to_owned(), 1), ("file:cheap".to_owned(), 2)]);
    assert_eq!(desired.keys[0].team, "default");
    assert!(!format!("{desired:?} {file:?}").contains("canary"));
}

/// As Google's own libraries read the variable.
#[tokio::test]
async fn a_service_accounts_key_is_read_from_the_file_that_the_variable_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.json");
    let named = path.to_str().unwrap().to_owned();
    let text = r#"
[[providers]]
id = "google-vertex"
base_url = "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1"
api_key = "env:GOOGLE_APPLICATION_CREDENTIALS"
models = ["gemini-x"]
"#;
    let read = || parse("nemo.toml", text, |_| Some(named.clone()));
    let missing = read().unwrap_err().to_string();
    assert!(missing.contains("nemo.toml:5") && missing.contains(&named), "{missing}");
    std::fs::write(&path, "{\n \"type\": \"service_account\"\n}\n").unwrap();
    let desired = read().unwrap().desired(&[]).await.unwrap();
    assert_eq!(desired.credentials[0].secret.expose(), "{\n \"type\": \"service_account\"\n}");
}

#[test]
fn every_mistake_names_its_line() {
    let text = r#"
[[providers]]
id = "openai"
api_key = "env:MISSING_KEY"

[[providers]]
id = "opnai"

[[providers]]
id = "groq"
api_key = "gsk_canary"

[[providers]]
id = "mistral"

[[deployments]]
name = "a"
provider = "nowhere"
model = "x"
price = { input = "cheap" }

[[deployments]]
name = "a"
provider = "groq"
model = "x"
"#;
    let problems = problems(text);
    for expected in [
        "nemo.toml:4: the variable MISSING_KEY is not set",
        "nemo.toml:7: \"opnai\" is no provider",
        "nemo.toml:11: api_key must name a variable",
        "nemo.toml:14: provider \"mistral\" needs a key; expected api_key = \"env:MISTRAL_API_KEY\"",
        "nemo.toml:18: there is no \"nowhere\" in [[providers]]",
        "nemo.toml:20: \"cheap\" is no price",
        "nemo.toml:23: deployment \"a\" is declared twice",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 7, "{problems:#?}");
    assert!(!problems.concat().contains("canary"));
}

#[test]
fn unknown_fields_name_file_and_line() {
    let found = problems("[[providers]]\nid = \"openai\"\napikey = \"x\"\n\n[[keyz]]\nname = \"a\"\n");
    assert!(
        found.iter().any(|p| p.starts_with("nemo.toml:3: ") && p.contains("unknown field `apikey`")),
        "{found:?}"
    );
    assert!(
        found.iter().any(|p| p.starts_with("nemo.toml:5: ") && p.contains("unknown field `keyz`")),
        "{found:?}"
    );
}

#[tokio::test]
async fn groups_of_unknown_deployments_name_the_line() {
    let text =
        format!("{GOOD}\n[[model_groups]]\nname = \"b\"\nlinks = [\n  [\"cheap\"],\n  [\"ghost\"],\n]\n");
    let file = parse("nemo.toml", &text, variable).unwrap();
    let error = file.desired(&[]).await.unwrap_err().to_string();
    let line = text.lines().position(|line| line.contains("ghost")).unwrap() + 1;
    assert_eq!(error, format!("nemo.toml:{line}: model group \"b\": there is no deployment \"ghost\""));
}

#[test]
fn prices_are_exact() {
    for (text, nanos) in
        [("2.50", Some(2_500_000_000)), ("0.000000001", Some(1)), ("15", Some(15_000_000_000))]
    {
        assert_eq!(nanos_per_million(text), nanos, "{text}");
    }
    for text in ["", ".5", "-1", "1e3", "1,5", "0.0000000001", "99999999999999999999"] {
        assert_eq!(nanos_per_million(text), None, "{text}");
    }
}

#[tokio::test]
async fn links_are_lists_or_tables_and_members_of_both_keep_their_line() {
    let tables = GOOD.replace(
        "links = [[\"gpu-box/qwen\", { deployment = \"cheap\", weight = 2 }], [\"openai/gpt-x\"]]",
        "required_tags = [\"vision\"]\n[[model_groups.links]]\ndeployments = [\"gpu-box/qwen\", { deployment = \"cheap\", weight = 2 }]\n\
         [[model_groups.links]]\ndeployments = [\n  \"openai/gpt-x\",\n]",
    );
    let desired = async |text: &str| parse("nemo.toml", text, variable).unwrap().desired(&[]).await;
    let (lists, tabled) = (desired(GOOD).await.unwrap(), desired(&tables).await.unwrap());
    assert_eq!(lists.model_groups[0].links, tabled.model_groups[0].links);
    assert_eq!((tabled.model_groups[0].links.len(), tabled.model_groups[0].required_tags.len()), (2, 1));

    let ghost = tables.replace("\"openai/gpt-x\",", "\"ghost\",");
    let line = ghost.lines().position(|line| line.contains("ghost")).unwrap() + 1;
    let error = desired(&ghost).await.unwrap_err().to_string();
    assert_eq!(error, format!("nemo.toml:{line}: model group \"smart\": there is no deployment \"ghost\""));
}

#[tokio::test]
async fn settings_of_routing_belong_to_the_installation_or_to_a_declared_organization() {
    let text = r#"
[routing]
strategy = "least-busy"
retries = 3
max_cost_usd = "0.50"
unsupported = "refuse"

[cooldown]
window_ms = 5000

[[organizations]]
name = "acme"
routing = { strategy = "cost-based" }
"#;
    let desired = parse("nemo.toml", text, variable).unwrap().desired(&[]).await.unwrap();
    let settings: Vec<_> = desired
        .settings
        .iter()
        .map(|it| (it.organization.as_deref(), it.key.as_str(), it.value.as_str()))
        .collect();
    assert_eq!(
        settings,
        [
            (None, "routing.max_cost_usd", "\"0.50\""),
            (None, "routing.retries", "3"),
            (None, "routing.strategy", "\"least-busy\""),
            (None, "routing.unsupported", "\"refuse\""),
            (None, "cooldown.window_ms", "5000"),
            (Some("acme"), "routing.strategy", "\"cost-based\""),
        ]
    );
}

#[test]
fn mistakes_in_routing_name_their_line_and_what_is_expected() {
    let text = r#"
[routing]
strategy = "fastest"
retry = 3
retries = "3"
max_cost_usd = 0.5

[cooldown]
window_ms = 0

[[model_groups]]
name = "a"
strategy = "quickest"
links = [["x"]]

[[organizations]]
name = "acme"
cooldown = { window = 5 }
"#;
    let problems = problems(text);
    for (line, part) in [
        (3, "balanced"),
        (4, "unknown field `retry`, expected one of: strategy, retries"),
        (5, "expected a whole number from 0 to 10"),
        (6, "expected an amount of USD"),
        (9, "milliseconds from 1"),
        (13, "quickest"),
        (18, "unknown field `window`, expected one of: window_ms"),
    ] {
        let origin = format!("nemo.toml:{line}: ");
        assert!(
            problems.iter().any(|p| p.starts_with(&origin) && p.contains(part)),
            "{line} {part}\n{problems:#?}"
        );
    }
    assert_eq!(problems.len(), 7, "{problems:#?}");
    let field = "[[model_groups]]\nname = \"a\"\n[[model_groups.links]]\ndeployment = [\"x\"]\n";
    let found = self::problems(field);
    assert!(
        found[0].starts_with("nemo.toml:") && found[0].contains("unknown field `deployment`"),
        "{found:?}"
    );
    let field = "[[deployments]]\nname = \"a\"\nprovider = \"p\"\nmodel = \"m\"\nrps = 3\n";
    let found = self::problems(field);
    assert!(found[0].starts_with("nemo.toml:5: ") && found[0].contains("unknown field `rps`"), "{found:?}");
}

#[tokio::test]
async fn budgets_and_limits_become_what_the_file_says() {
    use crate::providers::limits::On;
    let text = r#"
[[budgets]]
name = "monthly"
limit = "500.00"
window = "month"
time_zone = "Europe/Berlin"
thresholds = [100, 50, 50]

[[budgets]]
name = "ci"
key = "ci"
limit = "0.000000001"
window = "rolling"
hours = 6
over_budget = "reject"

[[limits]]
name = "build"
team = "build"
organization = "acme"
model = "gpt-*"
concurrent = 4
"#;
    let file = parse("nemo.toml", text, variable).unwrap();
    assert_eq!(file.counts(), [0, 0, 0, 0, 2, 1]);
    let desired = file.desired(&[]).await.unwrap();
    let [monthly, ci] = &desired.budgets[..] else { panic!("{desired:?}") };
    assert_eq!((monthly.name.as_str(), monthly.limit_nanos), ("file:monthly", 500_000_000_000));
    assert_eq!((&monthly.on, &monthly.thresholds[..]), (&On::Organization, &[50, 100][..]));
    let policies = [&monthly.over_budget, &monthly.no_lease, &monthly.lost_lease, &monthly.reservation];
    assert_eq!(policies.map(String::as_str), ["cap", "deny", "charge", "strict"]);
    assert_eq!(ci.on, On::Key { team: "default".to_owned(), key: "ci".to_owned() });
    assert_eq!((ci.limit_nanos, ci.window_hours, ci.over_budget.as_str()), (1, 6, "reject"));
    assert_eq!(desired.limits[0].on, On::Team("build".to_owned()));
    assert_eq!((desired.limits[0].concurrent, desired.limits[0].model.as_str()), (Some(4), "gpt-*"));
}

#[test]
fn what_can_not_be_a_budget_or_a_limit_names_its_line() {
    let text = r#"
[[budgets]]
name = "a"
limit = "-1"
window = "year"

[[budgets]]
name = "a"
limit = "1"
window = "rolling"
thresholds = [0]
no_lease = "maybe"

[[budgets]]
name = "b"
limit = "1"
window = "day"
hours = 3

[[limits]]
name = "nothing"

[[limits]]
name = "zero"
concurrent = 0
"#;
    let problems = problems(text);
    for expected in [
        "nemo.toml:4: \"-1\" is no amount",
        "nemo.toml:5: \"year\" is no window; expected day, week, month, rolling, total",
        "nemo.toml:8: budget \"a\" is declared twice",
        "nemo.toml:10: a rolling window needs hours",
        "nemo.toml:11: 0 is no percentage",
        "nemo.toml:12: \"maybe\" is no no_lease; expected deny, allow",
        "nemo.toml:18: only a rolling window has hours",
        "nemo.toml:21: nothing is limited",
        "nemo.toml:24: a limit of 0 would refuse everything",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}\n{problems:#?}");
    }
    assert_eq!(problems.len(), 9, "{problems:#?}");
}

/// What is in the repository for others to copy is fine.
#[test]
fn the_example_of_budgets_is_fine() {
    let text = include_str!("../../../../docs/examples/budgets.toml");
    let file = parse("budgets.toml", text, variable).unwrap();
    assert_eq!(file.counts(), [1, 0, 0, 1, 3, 2]);
}
