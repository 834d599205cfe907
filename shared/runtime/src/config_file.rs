//! Settings of a process: embedded defaults, then a TOML file, then the environment. Later layers win, table by
//! table; arrays are replaced whole.
//!
//! Called once by each binary. All problems are reported at once, each with the file and line (or variable) it
//! comes from. Variables are `<prefix>SECTION__FIELD=value`, for example `NEMO_POSTGRES__URL`. A variable whose
//! first segment is no section or field of the defaults is left alone: the prefix is shared with variables that
//! are no settings (`NEMO_LOG`, and what Kubernetes injects for services called `nemo-…`).

mod layers;
#[cfg(test)]
mod tests;

use std::{fmt, path::Path};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeTable, Deserializer},
};

use self::layers::{Layers, Repair, merge, one_line, repair};

/// More problems than this in one go are not worth reading.
const MAX_PROBLEMS: usize = 32;

/// Everything that is wrong with the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `nemo.toml:12`, or the name of a variable.
    pub origin: String,
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let line = if at == 0 { "" } else { "\n" };
            write!(f, "{line}{}: {}", problem.origin, problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads the settings `T` from `defaults` (TOML text), `file` and the process's environment.
///
/// # Errors
/// When the file cannot be read, or anything in it or in the environment is unknown, mistyped or missing.
pub fn load<T: DeserializeOwned>(
    defaults: &str,
    file: Option<&Path>,
    env_prefix: &str,
) -> Result<T, ConfigError> {
    let text = match file {
        None => None,
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => Some((path.display().to_string(), text)),
            Err(error) => {
                let message = format!("cannot be read: {error}");
                return Err(ConfigError {
                    problems: vec![Problem { origin: path.display().to_string(), message }],
                });
            }
        },
    };
    let file = text.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    load_from(defaults, file, std::env::vars_os().filter_map(utf8), env_prefix)
}

fn utf8((name, value): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    Some((name.into_string().ok()?, value.into_string().ok()?))
}

/// Like [`load`], from given layers. `file` is its name and text.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: DeserializeOwned>(
    defaults: &str,
    file: Option<(&str, &str)>,
    env: impl IntoIterator<Item = (String, String)>,
    env_prefix: &str,
) -> Result<T, ConfigError> {
    let mut layers = Layers::default();
    layers.add("built-in defaults", defaults);
    if let Some((name, text)) = file {
        layers.add(name, text);
    }
    match DeTable::parse(defaults) {
        Ok(defaults) => layers.add_variables(env, env_prefix, defaults.get_ref()),
        Err(error) => {
            let problem =
                Problem { origin: "built-in defaults".to_owned(), message: one_line(error.message()) };
            return Err(ConfigError { problems: vec![problem] });
        }
    }
    let texts = layers.padded();
    let mut problems = Vec::new();
    let mut tables = texts.iter().filter_map(|text| layers.parse(text).map_err(|p| problems.push(p)).ok());
    let defaults = tables.next().unwrap_or_else(|| Spanned::new(0..0, DeTable::new()));
    let mut settings = defaults.clone();
    for layer in tables {
        merge(settings.get_mut(), layer.into_inner());
    }
    deserialize(&layers, defaults.get_ref(), settings, problems)
}

/// Tries, notes the problem, repairs its place, and tries again, until nothing new is wrong.
fn deserialize<'t, T: DeserializeOwned>(
    layers: &Layers,
    defaults: &DeTable<'t>,
    mut settings: Spanned<DeTable<'t>>,
    mut problems: Vec<Problem>,
) -> Result<T, ConfigError> {
    // Problems of variables that may go away when they are read as text: by place.
    let mut doubts: Vec<(usize, String)> = Vec::new();
    // Fields that were taken out and will be found missing.
    let mut taken: Vec<String> = Vec::new();
    loop {
        let error = match T::deserialize(Deserializer::from(settings.clone())) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => return Err(ConfigError { problems }),
            Err(error) => error,
        };
        let message = one_line(error.message());
        let Some(span) = error.span().filter(|span| !span.is_empty()) else {
            // Something is missing. After other problems that may only be what was taken out.
            if problems.is_empty() {
                problems.push(Problem { origin: "settings".to_owned(), message });
            }
            return Err(ConfigError { problems });
        };
        let doubt = doubts.iter().find(|(at, _)| *at == span.start).map(|(_, message)| message.clone());
        if let (Some(text), None) = (layers.variable_at(span.start), &doubt)
            && !message.starts_with("unknown field")
        {
            doubts.push((span.start, message));
            repair(settings.get_mut(), Some(defaults), &span, &Repair::Text(text.to_owned()));
            continue;
        }
        let path = repair(settings.get_mut(), Some(defaults), &span, &Repair::Remove);
        let message = doubt.unwrap_or(message);
        let missing = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
        if let (Some(field), Some(path)) = (missing, &path)
            && let Some(at) = taken.iter().position(|taken| *taken == format!("{path}.{field}"))
        {
            taken.remove(at);
            continue;
        }
        taken.extend(path.clone());
        let message = path.as_ref().map_or(message.clone(), |path| format!("{path}: {message}"));
        let problem = Problem { origin: layers.origin(span.start), message };
        if path.is_none() || problems.contains(&problem) || problems.len() >= MAX_PROBLEMS {
            if problems.is_empty() {
                problems.push(problem);
            }
            return Err(ConfigError { problems });
        }
        problems.push(problem);
    }
}
