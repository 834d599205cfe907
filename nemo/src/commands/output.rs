//! What a command prints of the things that it listed, read, wrote or deleted: a table or lines, JSON, or ids alone.

use nemo_proto::Timestamp;
use serde::Serialize;

use super::table::{Cell, Column, Table};
use crate::{cli::Target, console};

/// A thing of the admin API, as commands show it.
pub(super) trait Entity: Serialize {
    /// In a sentence: `team`.
    const KIND: &'static str;
    /// The noun of the command line: `teams`.
    const NOUN: &'static str;
    const COLUMNS: &'static [Column];

    fn id(&self) -> &str;
    /// What a person calls it.
    fn name(&self) -> &str;
    fn cells(&self) -> Vec<Cell>;

    /// What the control plane said besides, in the answer to a write.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Output {
    pub(super) fn new(target: &Target) -> Self {
        Self { json: target.json, quiet: target.quiet }
    }

    pub(super) fn list<T: Entity>(self, items: &[T]) -> anyhow::Result<()> {
        if self.json {
            return json(items);
        }
        if self.quiet {
            items.iter().for_each(|item| console::result(item.id()));
            return Ok(());
        }
        if items.is_empty() {
            console::note(format_args!("no {} yet", T::NOUN));
            return Ok(());
        }
        let mut table = Table::new(T::COLUMNS);
        items.iter().for_each(|item| table.row(item.cells()));
        table.print();
        Ok(())
    }

    /// Every field that has a value, one a line.
    pub(super) fn one<T: Entity>(self, item: &T) -> anyhow::Result<()> {
        if self.quiet {
            console::result(item.id());
            return Ok(());
        }
        self.fields(item)
    }

    /// [`Self::one`] for what has no id.
    pub(super) fn fields(self, item: &impl Serialize) -> anyhow::Result<()> {
        if self.json {
            return json(item);
        }
        lines(item)?.into_iter().for_each(console::result);
        Ok(())
    }

    /// After a write: what was done to what.
    pub(super) fn written<T: Entity>(self, verb: &str, item: &T) -> anyhow::Result<()> {
        if self.json {
            return json(item);
        }
        if self.quiet {
            console::result(item.id());
        } else {
            console::result(format_args!("{verb} {} {}  {}", T::KIND, item.name(), item.id()));
        }
        Ok(())
    }

    /// A secret that is shown once: alone on standard output, so that `KEY=$(nemo keys create)` works.
    pub(super) fn secret(self, issued: &impl Serialize, name: &str, secret: &str) -> anyhow::Result<()> {
        if self.json {
            return json(issued);
        }
        if !self.quiet {
            console::note(format_args!("{name}: shown once, keep it"));
        }
        console::result(secret);
        Ok(())
    }
}

/// Prints `value` as JSON.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    console::result(serde_json::to_string_pretty(value)?);
    Ok(())
}

fn lines(item: &impl Serialize) -> anyhow::Result<Vec<String>> {
    let serde_json::Value::Object(fields) = serde_json::to_value(item)? else { return Ok(Vec::new()) };
    let shown: Vec<(String, String)> =
        fields.into_iter().filter_map(|(name, value)| Some((name, words(&value)?))).collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    Ok(shown.into_iter().map(|(name, text)| format!("{name:width$}  {text}")).collect())
}

/// A value in a line; `None` for what is not there.
fn words(value: &serde_json::Value) -> Option<String> {
    use serde_json::Value;
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let items: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            Some(items.join(", ")).filter(|text| !text.is_empty())
        }
        other => Some(other.to_string()),
    }
}

/// A moment in seconds, RFC 3339.
pub(super) fn rfc3339(at: Option<Timestamp>) -> String {
    let text = at.and_then(|at| serde_json::to_value(Timestamp { nanos: 0, ..at }).ok());
    text.and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The moment when something ends.
pub(super) fn expiry(at: Option<Timestamp>) -> Cell {
    match at {
        Some(at) => rfc3339(Some(at)).into(),
        None => Cell::styled("never", console::Style::Dim),
    }
}

/// Names in one cell; `all` for an empty list that allows everything.
pub(super) fn allowed(names: &[String]) -> Cell {
    if names.is_empty() { Cell::styled("all", console::Style::Dim) } else { names.join(",").into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_a_value_are_not_shown() {
        let item = serde_json::json!({
            "id": "1", "name": "", "models": ["a", "b"], "none": null, "empty": [], "disabled": false,
        });
        let mut shown = lines(&item).unwrap();
        shown.sort();
        assert_eq!(shown, ["disabled  false", "id        1", "models    a, b"]);
    }
}
