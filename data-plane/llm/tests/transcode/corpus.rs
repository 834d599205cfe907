//! The files of the corpus, and the comparison with them. Used by every test of this binary.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use nemo_llm::{Destination, Dialect, Echo, Inbound, provider};
use serde_json::Value;

/// Who asks.
pub const CLIENTS: [Dialect; 5] =
    [Dialect::Chat, Dialect::Completions, Dialect::Responses, Dialect::Messages, Dialect::GenerateContent];
/// Who answers.
pub const UPSTREAMS: [Dialect; 6] = [
    Dialect::Chat,
    Dialect::Responses,
    Dialect::Messages,
    Dialect::GenerateContent,
    Dialect::Converse,
    Dialect::Cohere,
];

pub fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transcode")
}

/// One folder.
pub struct Case {
    folder: PathBuf,
    settings: Value,
    /// Files that something was done with.
    visited: RefCell<BTreeSet<String>>,
}

impl Case {
    pub fn all(kind: &str) -> Vec<Self> {
        let mut folders: Vec<_> =
            fs::read_dir(root().join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        folders.into_iter().map(Self::open).collect()
    }

    fn open(folder: PathBuf) -> Self {
        let case = Self { folder, settings: Value::Null, visited: RefCell::default() };
        let settings = case.input("case.json").map(|text| serde_json::from_slice(&text).unwrap());
        Self { settings: settings.unwrap_or_default(), ..case }
    }

    /// `request/tools`
    pub fn name(&self) -> String {
        self.folder.strip_prefix(root()).unwrap().display().to_string()
    }

    pub fn input(&self, file: &str) -> Option<Vec<u8>> {
        let content = fs::read(self.folder.join(file)).ok()?;
        self.visited.borrow_mut().insert(file.to_owned());
        Some(content)
    }

    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn by_dialect(&self, setting: &str, dialect: Dialect) -> Option<&str> {
        self.settings[setting][dialect.name()].as_str()
    }

    pub fn inbound(&self) -> Inbound<'_> {
        Inbound { model: "asked-model", stream: self.settings["stream"].as_bool().unwrap_or(false) }
    }

    pub fn destination(&self, to: Dialect) -> Destination<'_> {
        let id = self.by_dialect("provider", to).unwrap_or(match to {
            Dialect::Messages => "anthropic",
            Dialect::GenerateContent => "google-ai-studio",
            Dialect::Cohere => "cohere",
            Dialect::Converse => "custom",
            _ => "openai",
        });
        Destination {
            provider: provider(id).unwrap_or_else(|| panic!("no provider {id}")),
            model: self.by_dialect("model", to).unwrap_or("target-model"),
            most_output: self.settings["most_output"].as_u64().unwrap_or(8192),
            cap: self.settings["cap"].as_u64(),
            hosted: self.settings["hosted"].as_bool().unwrap_or(false),
        }
    }

    pub fn echo(&self) -> Echo {
        let request = self.settings.get("echo_request").map(ToString::to_string).unwrap_or_default();
        Echo {
            id: "0a1b2c3d".into(),
            created: 1_700_000_000,
            model: "asked-model".into(),
            include_usage: true,
            forced_tool: false,
            request: Bytes::from(request),
            affinity: self.settings["affinity"].as_str().unwrap_or_default().into(),
        }
    }

    pub fn status(&self) -> u16 {
        self.settings["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(400)
    }
}

/// What was compared, and what differed.
pub struct Matrix {
    kind: &'static str,
    only: Option<String>,
    update: bool,
    /// By pair: all, and those of them that are refusals.
    pairs: BTreeMap<(&'static str, &'static str), (usize, usize)>,
    visited: BTreeMap<PathBuf, BTreeSet<String>>,
    failures: Vec<String>,
}

impl Matrix {
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            only: std::env::var("GOLDEN_ONLY").ok(),
            update: std::env::var_os("UPDATE_GOLDEN").is_some(),
            pairs: BTreeMap::new(),
            visited: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    /// Compares with the expectation, or writes it.
    pub fn compare(
        &mut self,
        case: &Case,
        file: &str,
        actual: &[u8],
        pair: (Dialect, Dialect),
        refused: bool,
    ) {
        let visited = self.visited.entry(case.folder.clone()).or_default();
        visited.insert(file.to_owned());
        visited.extend(case.visited.borrow().iter().cloned());
        let count = self.pairs.entry((pair.0.name(), pair.1.name())).or_default();
        *count = (count.0 + 1, count.1 + usize::from(refused));
        let (path, name) = (case.folder.join(file), format!("{}/{file}", case.name()));
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        if self.update {
            return fs::write(path, actual).unwrap();
        }
        let text = String::from_utf8_lossy;
        match fs::read(&path) {
            Err(error) => self.failures.push(format!("{name}: {error}")),
            Ok(expected) if expected != actual => self.failures.push(format!(
                "{name}\n--- expected\n{}\n--- got\n{}",
                text(&expected),
                text(actual)
            )),
            Ok(_) => {}
        }
    }

    /// Prints the counts, and fails with what differed. Every file of every case has had its part in it.
    pub fn finish(mut self) {
        for case in Case::all(self.kind) {
            let visited = self.visited.get(&case.folder);
            for file in case.files() {
                if file != "case.json" && !visited.is_some_and(|visited| visited.contains(&file)) {
                    self.failures.push(format!("{}/{file}: no test reads it", case.name()));
                }
            }
            let inputs = case.files().iter().filter(|file| file.contains(".in.")).count();
            if inputs == 0 {
                self.failures.push(format!("{}: a case without input", case.name()));
            }
        }
        let mut table = format!("{:<34}{:>8}{:>10}\n", self.kind, "cases", "refused");
        let mut sum = 0;
        for ((from, to), (cases, refused)) in &self.pairs {
            sum += cases;
            let _ = writeln!(table, "{:<34}{cases:>8}{refused:>10}", format!("{from} to {to}"));
        }
        println!("{table}{:<34}{sum:>8}", "in all");
        assert!(
            self.failures.is_empty(),
            "{} of {sum} differ:\n{}",
            self.failures.len(),
            self.failures.join("\n\n")
        );
    }
}
