//! The plan of `nemo apply` and what became of it, for people and for programs.

use serde_json::{Value, json};

use crate::{
    commands::output,
    console::{self, Style, paint},
    providers::apply::{
        Applied,
        plan::{Change, Field, Sign},
        shown,
    },
};

pub(super) struct Report<'a> {
    changes: &'a [Change],
    applied: Option<Applied>,
}

impl<'a> Report<'a> {
    pub(super) fn new(changes: &'a [Change]) -> Self {
        Self { changes, applied: None }
    }

    pub(super) fn done(&mut self, applied: Applied) {
        self.applied = Some(applied);
    }

    pub(super) fn print_changes(&self) {
        for change in self.changes {
            lines(change).into_iter().for_each(|(text, style)| console::result(paint(&text, style)));
        }
        if self.changes.is_empty() {
            console::result("no changes");
            return;
        }
        let count = |sign| self.changes.iter().filter(|change| change.sign == sign).count();
        let (create, change, remove) = (count(Sign::Create), count(Sign::Change), count(Sign::Remove));
        console::result(format_args!("\n{create} to create, {change} to change, {remove} to remove"));
    }

    /// Secrets of keys that were issued are shown here and nowhere else.
    pub(super) fn print_end(&self, quiet: bool) {
        let Some(applied) = &self.applied else { return };
        for (name, secret) in &applied.keys {
            if !quiet {
                console::note(format_args!("key {name}: shown once, keep it"));
            }
            console::result(secret);
        }
        if !quiet {
            console::result(format_args!(
                "{} created, {} changed, {} removed",
                applied.created, applied.changed, applied.removed
            ));
        }
    }

    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        output::json(&self.json())
    }

    fn json(&self) -> Value {
        let changes: Vec<_> = self
            .changes
            .iter()
            .map(|change| {
                json!({
                    "action": action(change.sign), "kind": change.kind, "name": shown(&change.name),
                    "fields": change.fields.iter().map(field).collect::<Vec<_>>(),
                })
            })
            .collect();
        let applied = self.applied.as_ref().map(|applied| {
            let key = |(name, secret): &(String, String)| json!({ "name": name, "secret": secret });
            json!({
                "created": applied.created, "changed": applied.changed, "removed": applied.removed,
                "keys": applied.keys.iter().map(key).collect::<Vec<_>>(),
                "warnings": applied.warnings,
            })
        });
        json!({ "changes": changes, "applied": applied })
    }
}

fn action(sign: Sign) -> &'static str {
    match sign {
        Sign::Create => "create",
        Sign::Change => "change",
        Sign::Remove => "remove",
    }
}

fn field(field: &Field) -> Value {
    json!({ "name": field.name, "before": field.before, "after": field.after })
}

fn lines(change: &Change) -> Vec<(String, Style)> {
    let (sign, style) = match change.sign {
        Sign::Create => ('+', Style::Good),
        Sign::Change => ('~', Style::Change),
        Sign::Remove => ('-', Style::Bad),
    };
    let mut lines = vec![(format!("{sign} {} {}", change.kind, shown(&change.name)), style)];
    for field in &change.fields {
        let after = field.after.as_deref().map_or("none", shown_value);
        let text = match (&field.before, change.sign) {
            (None, Sign::Create) => format!("    {}: {after}", field.name),
            (before, _) => {
                let before = before.as_deref().map_or("none", shown_value);
                format!("    {}: {before} → {after}", field.name)
            }
        };
        lines.push((text, Style::Plain));
    }
    lines
}

fn shown_value(text: &str) -> &str {
    match text {
        "" => "none",
        text => shown(text),
    }
}

#[cfg(test)]
mod tests {
    use nemo_proto::admin::Deployment;

    use super::*;
    use crate::providers::{
        Desired, DesiredCredential, DesiredDeployment,
        apply::{
            plan::{Rules, plan},
            state::State,
        },
    };

    #[test]
    fn a_plan_is_readable_and_has_no_secret_in_it() {
        let deployment = |name: &str, weight| DesiredDeployment {
            name: name.into(),
            provider: "custom".into(),
            base_url: "http://gpu/v1".into(),
            credential: Some("file:gpu".into()),
            model: "m".into(),
            upstream_model: "m".into(),
            weight,
            price: None,
            rpm: None,
            tpm: None,
        };
        let desired = Desired {
            credentials: vec![DesiredCredential {
                name: "file:gpu".into(),
                provider: "custom".into(),
                secret: nemo_types::Secret::new("sk-canary-0123456789-wxyz"),
            }],
            deployments: vec![deployment("file:a", 3), deployment("file:new", 1)],
            ..Desired::default()
        };
        let found = |id: &str, name: &str| Deployment {
            id: id.into(),
            name: name.into(),
            provider: "custom".into(),
            base_url: "http://gpu/v1".into(),
            model: "m".into(),
            upstream_model: "m".into(),
            weight: 1,
            ..Deployment::default()
        };
        let deployments = vec![found("1", "file:a"), found("2", "file:old"), found("3", "by hand")];
        let state = State { deployments, ..State::default() };
        let rules = Rules {
            same_secret: &|_, _| true,
            removes: &|name| name.starts_with("file:"),
            removes_group: &|_| false,
            removes_setting: &|_, _| false,
            removes_demo: false,
        };
        let changes = plan(&desired, &state, &rules);
        let text: Vec<String> = changes.iter().flat_map(lines).map(|(line, _)| line).collect();
        assert_eq!(
            text,
            [
                "+ credential gpu",
                "    provider: custom",
                "    secret: …wxyz",
                "~ deployment a",
                "    weight: 1 → 3",
                "    credential: none → gpu",
                "+ deployment new",
                "    provider: custom",
                "    model: m",
                "    base_url: http://gpu/v1",
                "    credential: gpu",
                "- deployment old",
            ]
        );
        let json = Report::new(&changes).json().to_string();
        assert!(json.contains(r#""action":"remove""#) && !json.contains("canary"), "{json}");
    }
}
