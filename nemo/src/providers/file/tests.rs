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
    assert_eq!(file.counts(), [2, 1, 1, 1]);
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
