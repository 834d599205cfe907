//! The documents say what is there: links resolve, named tests exist, reference tables agree with the code.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "INVARIANTS.md", "CONTRIBUTING.md"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every `.rs` file below a folder, with its text.
pub(crate) fn rust_sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            let skipped = ["target", "node_modules"].iter().any(|skipped| name == *skipped)
                || name.to_string_lossy().starts_with('.');
            if !skipped {
                found.extend(rust_sources(&path));
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), read(&path)));
        }
    }
    found
}

/// What stands between two marks, wherever both are on one line.
fn between<'t>(text: &'t str, open: &str, close: &str) -> Vec<&'t str> {
    let after = text.lines().flat_map(|line| line.split(open).skip(1));
    after.filter_map(|rest| rest.split_once(close)).map(|(inside, _)| inside).collect()
}

/// Outside of fenced blocks, where nothing is a link or a heading.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push(line);
        }
    }
    assert!(!fenced, "a fenced block without end");
    lines.join("\n")
}

/// The anchors of a document's headings, as they are made of their text.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let title = line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#'))?;
        let kept = title.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        Some(kept.collect::<String>().replace(' ', "-"))
    };
    prose(text).lines().filter_map(heading).collect()
}

#[test]
fn every_relative_link_resolves() {
    let mut checked = 0;
    for document in DOCUMENTS {
        let text = read(&root().join(document));
        for target in between(&prose(&text), "](", ")") {
            if target.contains("://") {
                continue;
            }
            checked += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = root().join(if file.is_empty() { document } else { file });
            assert!(path.exists(), "{document} links to {target}, which does not exist");
            if !anchor.is_empty() {
                assert!(
                    anchors(&read(&path)).contains(anchor),
                    "{document}: there is no heading for {target}"
                );
            }
        }
    }
    assert!(checked > 60, "only {checked} links found");
}

/// No placeholder is in what others read.
#[test]
fn documents_are_finished() {
    for document in DOCUMENTS {
        let text = read(&root().join(document));
        for word in ["TODO", "TBD", "FIXME", "<!--"] {
            assert!(!text.contains(word), "{word} in {document}");
        }
    }
}

/// Names of tests as INVARIANTS.md writes them: code, lower case, several words.
fn named_tests(text: &str) -> BTreeSet<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let test = |word: &&str| {
        word.matches('_').count() >= 2
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    words.filter(test).collect()
}

#[test]
fn every_test_that_proves_an_invariant_exists_and_is_listed() {
    let invariants = read(&root().join("INVARIANTS.md"));
    let listed = named_tests(&invariants);
    let mut written = BTreeSet::new();
    for (_, text) in rust_sources(&root()) {
        let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split_once('('));
        written.extend(functions.map(|(name, _)| name.to_owned()));
    }
    for test in &listed {
        assert!(written.contains(*test), "INVARIANTS.md names {test}, which does not exist");
    }
    let numbered = |name: &&String| {
        let number = name.strip_prefix('i').and_then(|rest| rest.split_once('_')?.0.parse().ok());
        number.is_some_and(|number| (1..=15).contains(&number))
    };
    for test in written.iter().filter(numbered) {
        assert!(listed.contains(test.as_str()), "INVARIANTS.md does not name {test}");
    }
    for number in 1..=15 {
        assert!(invariants.contains(&format!("| I{number} |")), "INVARIANTS.md has no row for I{number}");
    }
}

/// Fails with what the README lacks.
fn expect_in_readme<'s>(what: &str, least: usize, expected: impl IntoIterator<Item = &'s str>) {
    let readme = read(&root().join("README.md"));
    let mut found = 0;
    for text in expected {
        found += 1;
        assert!(readme.contains(&format!("`{text}`")), "README.md does not mention the {what} {text}");
    }
    assert!(found >= least, "only {found} of {what} found in the code");
}

#[test]
fn the_readme_has_every_error_code() {
    let table = read(&root().join("data-plane/src/pipeline/error.rs"));
    let rows: Vec<_> = table.lines().filter(|line| line.contains("row(Kind::")).collect();
    let codes = rows.iter().filter_map(|row| row.rsplit('"').nth(1));
    expect_in_readme("error code", 22, codes);
    let readme = read(&root().join("README.md"));
    for row in rows {
        let (status, code) = (row.split(", ").nth(1).unwrap(), row.rsplit('"').nth(1).unwrap());
        let line = readme.lines().find(|line| line.contains(&format!("`{code}`"))).unwrap();
        assert!(line.starts_with(&format!("| {status} ")), "{code} is {status}: {line}");
        assert_eq!(line.contains('†'), row.contains("no_retry("), "{line}");
    }
}

#[test]
fn the_readme_has_every_provider_and_its_variables() {
    let tables = ["compatible.rs", "compatible/hosts.rs", "providers/rows.rs"];
    let rows = tables.map(|table| read(&root().join("data-plane/llm/src").join(table))).concat();
    let ids = between(&rows, " id: \"", "\"")
        .into_iter()
        .filter(|id| !matches!(*id, "" | "demo" | "openai-compatible"));
    expect_in_readme("provider", 60, ids);
    let lists = between(&rows, " env: &[", "]");
    let variables = lists.iter().flat_map(|list| list.split('"').skip(1).step_by(2));
    expect_in_readme("variable", 60, variables.chain(between(&rows, "base_url_env: Some(\"", "\"")));
}

#[test]
fn the_readme_has_every_setting_with_its_default() {
    let readme = read(&root().join("README.md"));
    for plane in ["data-plane", "control-plane"] {
        let defaults = read(&root().join(plane).join("src/config.default.toml"));
        let mut table = String::new();
        for line in defaults.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                table = format!("{name}.");
                continue;
            }
            let (name, value) = line.split_once(" = ").unwrap();
            let (setting, value) = (format!("`{table}{name}`"), value.trim_matches('"'));
            let rows: Vec<_> =
                readme.lines().filter(|row| row.starts_with('|') && row.contains(&setting)).collect();
            let shown = if value.is_empty() { "none".to_owned() } else { format!("`{value}`") };
            assert!(rows.iter().any(|row| row.contains(&shown)), "{plane}: {setting} is {shown}: {rows:?}");
        }
    }
}

#[test]
fn the_readme_has_every_metric() {
    let mut names = Vec::new();
    for (file, mark) in [
        ("data-plane/src/pipeline/metrics.rs", "registry.register(\""),
        ("data-plane/src/control/metrics.rs", "registry.register(\""),
        ("data-plane/src/health/metrics.rs", "registry.register(\""),
        ("control-plane/src/coordination/metrics.rs", "r.register(\""),
        ("control-plane/src/publish/metrics.rs", "r.register(\""),
        ("control-plane/src/grpc/metrics.rs", "r.register(\""),
        ("control-plane/src/retention.rs", "r.register(\""),
        ("control-plane/src/fleet/metrics.rs", "(\"fleet_"),
    ] {
        // A call may be broken into several lines.
        let text =
            read(&root().join(file)).split_whitespace().collect::<Vec<_>>().join(" ").replace("( \"", "(\"");
        let prefix = if mark.ends_with("fleet_") { "fleet_" } else { "" };
        let found: Vec<_> =
            between(&text, mark, "\"").iter().map(|name| format!("nemo_{prefix}{name}")).collect();
        assert!(!found.is_empty(), "no metric in {file}");
        names.extend(found);
    }
    expect_in_readme("metric", 28, names.iter().map(String::as_str));
}

#[test]
fn the_licence_is_the_whole_text() {
    let licence = read(&root().join("LICENSE"));
    for part in [
        "Version 2.0, January 2004",
        "TERMS AND CONDITIONS",
        "APPENDIX: How to apply",
        "limitations under the License.",
    ] {
        assert!(licence.contains(part), "LICENSE lacks {part:?}");
    }
}
