//! The layers of the settings as TOML tables whose byte ranges say which layer, line and field a value is from.
//!
//! Each layer is parsed behind as many blanks as there are bytes in the layers before it, so that the ranges of
//! all layers are distinct and survive merging. That is how a problem found in the merged settings is traced back.

use std::{borrow::Cow, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Problem;

struct Layer {
    name: String,
    text: String,
    /// Where the text starts in the sequence of all layers.
    start: usize,
    /// The value as it was written, when the layer is a variable.
    variable: Option<String>,
}

#[derive(Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
}

impl Layers {
    pub(super) fn add(&mut self, name: &str, text: &str) {
        self.push(name, text.to_owned(), None);
    }

    fn push(&mut self, name: &str, text: String, variable: Option<String>) {
        // One byte apart, so that no range touches the next layer; an empty layer takes no room.
        let after = |layer: &Layer| layer.start + layer.text.len() + usize::from(!layer.text.is_empty());
        let start = self.layers.last().map_or(0, after);
        self.layers.push(Layer { name: name.to_owned(), text, start, variable });
    }

    /// Adds a layer per variable that names a known section or field.
    pub(super) fn add_variables(
        &mut self,
        env: impl IntoIterator<Item = (String, String)>,
        prefix: &str,
        defaults: &DeTable<'_>,
    ) {
        let mut variables: Vec<_> = env.into_iter().collect();
        variables.sort();
        for (name, value) in variables {
            let Some(path) = name.strip_prefix(prefix).map(str::to_ascii_lowercase) else { continue };
            let segments: Vec<&str> = path.split("__").collect();
            let known = segments.first().is_some_and(|first| defaults.get(*first).is_some());
            if known && segments.iter().all(|segment| is_bare_key(segment)) {
                let text =
                    format!("{} = {}", segments.join("."), toml_value(&value, at_path(defaults, &segments)));
                self.push(&name, text, Some(value));
            }
        }
    }

    /// The text of each layer behind its blanks, to be parsed by [`Layers::parse`].
    pub(super) fn padded(&self) -> Vec<String> {
        self.layers.iter().map(|layer| format!("{}{}", " ".repeat(layer.start), layer.text)).collect()
    }

    pub(super) fn parse<'t>(&self, padded: &'t str) -> Result<Spanned<DeTable<'t>>, Problem> {
        DeTable::parse(padded).map_err(|error| {
            let at = error.span().map_or_else(|| padded.len() - padded.trim_start().len(), |span| span.start);
            Problem { origin: self.origin(at), message: one_line(error.message()) }
        })
    }

    fn layer_at(&self, at: usize) -> Option<&Layer> {
        self.layers.iter().rev().find(|layer| layer.start <= at)
    }

    /// `file:line`, or the variable.
    pub(super) fn origin(&self, at: usize) -> String {
        match self.layer_at(at) {
            Some(layer) if layer.variable.is_none() => {
                let before = layer.text.get(..at - layer.start).unwrap_or(&layer.text);
                format!("{}:{}", layer.name, before.matches('\n').count() + 1)
            }
            Some(layer) => layer.name.clone(),
            None => "settings".to_owned(),
        }
    }

    /// What the variable at this place was set to; `None` when the place is in a file.
    pub(super) fn variable_at(&self, at: usize) -> Option<&str> {
        self.layer_at(at)?.variable.as_deref()
    }
}

pub(super) fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}

fn is_bare_key(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn at_path<'t>(table: &'t DeTable<'_>, path: &[&str]) -> Option<&'t DeValue<'t>> {
    let (first, rest) = path.split_first()?;
    let value = table.get(*first)?.get_ref();
    if rest.is_empty() { Some(value) } else { at_path(value.as_table()?, rest) }
}

/// A variable's value as TOML: text where the default is text, else whatever it looks like.
fn toml_value(value: &str, default: Option<&DeValue<'_>>) -> String {
    let is_text = default.is_some_and(DeValue::is_str);
    // A value with a line break could smuggle in further settings.
    if !is_text && !value.contains('\n') && DeValue::parse(value).is_ok() {
        return value.to_owned();
    }
    quoted(value)
}

fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

/// Puts `over` on top of `base`.
pub(super) fn merge<'t>(base: &mut DeTable<'t>, over: DeTable<'t>) {
    for (key, value) in over {
        if let Some(existing) = base.get_mut(key.get_ref().as_ref())
            && let (DeValue::Table(existing), DeValue::Table(over)) = (existing.get_mut(), value.get_ref())
        {
            merge(existing, over.clone());
            continue;
        }
        // Not `insert` alone: that keeps the old key and with it the old place.
        base.remove(key.get_ref().as_ref());
        base.insert(key, value);
    }
}

/// What to do with the value at a place.
pub(super) enum Repair {
    /// Take it out: the default comes back if there is one.
    Remove,
    /// Read it as text.
    Text(String),
}

/// Repairs the innermost field or array element that lies at `span`; returns its path, `None` if nothing does.
/// Array elements are not numbered: the line says which one is meant.
pub(super) fn repair<'t>(
    table: &mut DeTable<'t>,
    defaults: Option<&DeTable<'t>>,
    span: &Range<usize>,
    repair: &Repair,
) -> Option<String> {
    let hit = table.iter().find(|(key, value)| contains(&key.span(), span) || contains_deep(value, span));
    let name = hit?.0.get_ref().clone();
    let at_key = table.iter().any(|(key, _)| key.get_ref() == &name && contains(&key.span(), span));
    let default = defaults.and_then(|defaults| defaults.get(name.as_ref()));
    if !at_key && let Some(value) = table.get_mut(name.as_ref()) {
        let inner_defaults = default.and_then(|default| default.get_ref().as_table());
        if let Some(rest) = repair_inside(value.get_mut(), inner_defaults, span, repair) {
            return Some(if rest.is_empty() { name.into_owned() } else { format!("{name}.{rest}") });
        }
    }
    match (repair, default) {
        (Repair::Text(text), _) => {
            let value = table.get_mut(name.as_ref())?;
            *value.get_mut() = DeValue::String(Cow::Owned(text.clone()));
        }
        (Repair::Remove, Some(default)) => {
            *table.get_mut(name.as_ref())? = default.clone();
        }
        (Repair::Remove, None) => {
            table.remove(name.as_ref());
        }
    }
    Some(name.into_owned())
}

fn repair_inside<'t>(
    value: &mut DeValue<'t>,
    defaults: Option<&DeTable<'t>>,
    span: &Range<usize>,
    how: &Repair,
) -> Option<String> {
    match value {
        DeValue::Table(table) => repair(table, defaults, span, how),
        DeValue::Array(array) => {
            let at = array.iter().position(|item| contains_deep(item, span))?;
            let item = array.get_mut(at)?;
            if let Some(rest) = repair_inside(item.get_mut(), None, span, how) {
                return Some(rest);
            }
            let items = std::mem::replace(array, std::iter::empty().collect());
            *array = items
                .into_iter()
                .enumerate()
                .filter(|(index, _)| *index != at)
                .map(|(_, item)| item)
                .collect();
            Some(String::new())
        }
        _ => None,
    }
}

fn contains(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Tables from `[headers]` span their header only, so their content has to be asked as well.
fn contains_deep(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> bool {
    contains(&value.span(), span)
        || match value.get_ref() {
            DeValue::Table(table) => {
                table.iter().any(|(key, value)| contains(&key.span(), span) || contains_deep(value, span))
            }
            DeValue::Array(array) => array.iter().any(|item| contains_deep(item, span)),
            _ => false,
        }
}
