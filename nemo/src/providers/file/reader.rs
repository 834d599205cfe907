//! Checks what serde cannot: references between entries, variables, prices. Every problem names its line.

use std::collections::HashSet;

use nemo_data_plane::nemo_llm::{self, AuthScheme, provider};
use nemo_proto::admin::Price;
use nemo_runtime::config_file::Problem;
use nemo_snapshot::{
    Strategy,
    routing_policy::{self, Form, Overrides, PolicySetting},
};
use nemo_types::Secret;
use toml::Spanned;

use super::{
    Declared, Source,
    document::{Document, KeyEntry, Member, PriceEntry, ProviderEntry, SettingsTable, TeamEntry},
};
use crate::providers::{DesiredDeployment, DesiredGroup, DesiredKey, DesiredSetting, DesiredTeam};

/// Reads one document and notes what is wrong with it.
pub(super) struct Reader<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
    pub(super) problems: Vec<Problem>,
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
}

impl Reader<'_> {
    pub(super) fn problem<T>(&mut self, at: &Spanned<T>, message: String) {
        let before = self.text.get(..at.span().start).unwrap_or(self.text);
        let origin = format!("{}:{}", self.name, before.matches('\n').count() + 1);
        self.problems.push(Problem { origin, message });
    }

    fn unique<'n>(&mut self, kind: &str, names: impl Iterator<Item = &'n Spanned<String>>) {
        let mut seen = HashSet::new();
        for name in names {
            if !seen.insert(name.get_ref().as_str()) {
                self.problem(name, format!("{kind} {:?} is declared twice", name.get_ref()));
            }
        }
    }

    pub(super) fn providers(&mut self, document: &Document) -> Vec<Source> {
        self.unique("provider", document.providers.iter().map(|entry| &entry.id));
        document.providers.iter().filter_map(|entry| self.provider(entry)).collect()
    }

    fn provider(&mut self, entry: &ProviderEntry) -> Option<Source> {
        let named = entry.provider.as_ref().unwrap_or(&entry.id);
        let Some(known) = provider(named.get_ref()) else {
            let ids: Vec<_> = nemo_llm::providers().iter().map(|provider| provider.id).collect();
            let message = format!(
                "{:?} is no provider; for a server of your own say provider = \"custom\"; known: {}",
                named.get_ref(),
                ids.join(", ")
            );
            self.problem(named, message);
            return None;
        };
        let own = entry.base_url.as_deref().map(|url| url.trim_end_matches('/').to_owned());
        if own.is_none() && known.base_url.is_empty() {
            self.problem(&entry.id, format!("provider {:?} needs a base_url", entry.id.get_ref()));
        }
        let secret = entry.api_key.as_ref().and_then(|reference| self.secret(reference, known.auth));
        if entry.api_key.is_none() && known.auth != AuthScheme::None && own.is_none() {
            let variable = known.env.first().copied().unwrap_or("API_KEY");
            let message = format!(
                "provider {:?} needs a key; expected api_key = \"env:{variable}\"",
                entry.id.get_ref()
            );
            self.problem(&entry.id, message);
        }
        Some(Source {
            id: entry.id.get_ref().clone(),
            provider: known.id,
            elsewhere: own.is_some() || known.base_url_env.is_some(),
            base_url: own.unwrap_or_else(|| known.base_url.to_owned()),
            secret,
            models: entry.models.clone(),
        })
    }

    fn secret(&mut self, reference: &Spanned<String>, auth: AuthScheme) -> Option<Secret> {
        let Some(variable) = reference.get_ref().strip_prefix("env:") else {
            // Without repeating it: it may be the key itself.
            let message = "api_key must name a variable, as in \"env:OPENAI_API_KEY\"; keys do not belong into this file";
            self.problem(reference, message.to_owned());
            return None;
        };
        match (self.variable)(variable).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        {
            // GOOGLE_APPLICATION_CREDENTIALS names the file that the key is in.
            Some(file) if auth == AuthScheme::GcpToken && file.ends_with(".json") => {
                let text = std::fs::read_to_string(&file);
                text.map(|text| Secret::new(text.trim()))
                    .map_err(|error| {
                        self.problem(
                            reference,
                            format!("{variable} names {file}, which can't be read: {error}"),
                        );
                    })
                    .ok()
            }
            Some(value) => Some(Secret::new(value)),
            None => {
                self.problem(reference, format!("the variable {variable} is not set"));
                None
            }
        }
    }

    pub(super) fn deployments(&mut self, document: &Document, sources: &[Source]) -> Vec<Declared> {
        self.unique("deployment", document.deployments.iter().map(|entry| &entry.name));
        let mut declared = Vec::new();
        for entry in &document.deployments {
            let price = entry.price.as_ref().map(|price| self.price(price));
            let Some(source) = sources.iter().position(|source| source.id == *entry.provider.get_ref())
            else {
                // A provider that is declared but wrong was reported already.
                if !document
                    .providers
                    .iter()
                    .any(|provider| provider.id.get_ref() == entry.provider.get_ref())
                {
                    let message = format!("there is no {:?} in [[providers]]", entry.provider.get_ref());
                    self.problem(&entry.provider, message);
                }
                continue;
            };
            let base_url = entry
                .base_url
                .as_deref()
                .map_or(&sources[source].base_url[..], |url| url.trim_end_matches('/'));
            let deployment = DesiredDeployment {
                name: format!("file:{}", entry.name.get_ref()),
                provider: sources[source].provider.to_owned(),
                base_url: base_url.to_owned(),
                credential: sources[source].credential(),
                model: entry.model.clone(),
                upstream_model: String::new(),
                weight: entry.weight.unwrap_or(1),
                price,
                rpm: entry.rpm,
                tpm: entry.tpm,
            };
            declared.push(Declared { deployment, source, upstream_model: entry.upstream_model.clone() });
        }
        declared
    }

    pub(super) fn price(&mut self, entry: &PriceEntry) -> Price {
        let mut amount = |text: &Option<Spanned<String>>| {
            let text = text.as_ref()?;
            let amount = nanos_per_million(text.get_ref());
            if amount.is_none() {
                let message = format!(
                    "{:?} is no price; expected USD per million tokens, as in \"2.50\"",
                    text.get_ref()
                );
                self.problem(text, message);
            }
            amount
        };
        Price {
            input: amount(&entry.input),
            output: amount(&entry.output),
            cache_read: amount(&entry.cache_read),
            cache_write: amount(&entry.cache_write),
            ..Price::default()
        }
    }

    /// Groups, with the line of each for what can only be checked later.
    pub(super) fn groups(&mut self, document: &Document) -> Vec<(DesiredGroup, Vec<u32>)> {
        self.unique("model group", document.model_groups.iter().map(|entry| &entry.name));
        let mut groups = Vec::new();
        for entry in &document.model_groups {
            if entry.links.is_empty() || entry.links.iter().any(|link| link.0.is_empty()) {
                let message = format!("model group {:?} has an empty link", entry.name.get_ref());
                self.problem(&entry.name, message);
            }
            let mut lines = Vec::new();
            let mut links = Vec::new();
            for link in &entry.links {
                links.push(
                    link.0
                        .iter()
                        .map(|member| {
                            let (name, weight) = member.get_ref().parts();
                            (format!("file:{name}"), weight)
                        })
                        .collect(),
                );
                let line = |member: &Spanned<Member>| {
                    let before = self.text.get(..member.span().start).unwrap_or(self.text);
                    u32::try_from(before.matches('\n').count() + 1).unwrap_or(u32::MAX)
                };
                lines.extend(link.0.iter().map(line));
            }
            if let Some(strategy) = &entry.strategy
                && let Err(error) = strategy.get_ref().parse::<Strategy>()
            {
                self.problem(strategy, error.to_string());
            }
            let strategy = entry.strategy.as_ref().map(|it| it.get_ref().clone()).unwrap_or_default();
            let (name, required_tags) = (entry.name.get_ref().clone(), entry.required_tags.clone());
            groups.push((DesiredGroup { name, strategy, required_tags, links }, lines));
        }
        groups
    }

    /// Of the installation, and of organizations that are declared with some.
    pub(super) fn settings(&mut self, document: &Document) -> Vec<DesiredSetting> {
        let mut settings = Vec::new();
        let installation = [("routing", &document.routing), ("cooldown", &document.cooldown)];
        for (family, table) in installation {
            self.settings_of(None, family, table, &mut settings);
        }
        for entry in &document.organizations {
            let name = Some(entry.name.get_ref().as_str());
            for (family, table) in [("routing", &entry.routing), ("cooldown", &entry.cooldown)] {
                self.settings_of(name, family, table, &mut settings);
            }
        }
        settings
    }

    fn settings_of(
        &mut self,
        organization: Option<&str>,
        family: &str,
        table: &SettingsTable,
        settings: &mut Vec<DesiredSetting>,
    ) {
        for (field, value) in table {
            let key = format!("{family}.{}", field.get_ref());
            let Some(known) = routing_policy::setting(&key) else {
                let all = routing_policy::SETTINGS.iter().filter_map(|setting| {
                    setting.key.split_once('.').filter(|(of, _)| *of == family).map(|(_, name)| name)
                });
                let all: Vec<_> = all.collect();
                let message =
                    format!("unknown field `{}`, expected one of: {}", field.get_ref(), all.join(", "));
                self.problem(field, message);
                continue;
            };
            match setting_value(known, value.get_ref()) {
                Some(value) => {
                    let organization = organization.map(str::to_owned);
                    settings.push(DesiredSetting { organization, key, value });
                }
                None => {
                    let message =
                        format!("{} is no value of {key}, expected {}", value.get_ref(), known.expected());
                    self.problem(value, message);
                }
            }
        }
    }

    /// Names of the declared organizations.
    pub(super) fn organizations(&mut self, document: &Document) -> Vec<String> {
        self.unique("organization", document.organizations.iter().map(|entry| &entry.name));
        document.organizations.iter().map(|entry| entry.name.get_ref().clone()).collect()
    }

    pub(super) fn teams(&mut self, document: &Document) -> Vec<DesiredTeam> {
        let mut seen = HashSet::new();
        for entry in &document.teams {
            if !seen.insert((&entry.organization, entry.name.get_ref())) {
                self.problem(&entry.name, format!("team {:?} is declared twice", entry.name.get_ref()));
            }
        }
        let team = |entry: &TeamEntry| DesiredTeam {
            organization: entry.organization.clone(),
            name: entry.name.get_ref().clone(),
        };
        document.teams.iter().map(team).collect()
    }

    pub(super) fn keys(&mut self, document: &Document) -> Vec<DesiredKey> {
        let mut seen = HashSet::new();
        for entry in &document.keys {
            if !seen.insert((&entry.organization, &entry.team, entry.name.get_ref())) {
                self.problem(&entry.name, format!("key {:?} is declared twice", entry.name.get_ref()));
            }
        }
        let key = |entry: &KeyEntry| DesiredKey {
            name: entry.name.get_ref().clone(),
            organization: entry.organization.clone(),
            team: entry.team.clone(),
            allowed_models: entry.models.clone(),
            allowed_endpoints: entry.endpoints.clone(),
            allowed_cidrs: entry.cidrs.clone(),
            default_tags: entry.tags.clone(),
        };
        document.keys.iter().map(key).collect()
    }
}

/// As JSON; `None` when it is not what the setting can be. Money is text: it is no float.
fn setting_value(setting: &PolicySetting, value: &toml::Value) -> Option<String> {
    let json = match (setting.form, value) {
        (Form::Strategy | Form::Usd | Form::Word(_), toml::Value::String(text)) => serde_json::json!(text),
        (Form::Whole { .. }, toml::Value::Integer(number)) => serde_json::json!(number),
        _ => return None,
    };
    let json = json.to_string();
    Overrides::default().set(setting.key, &json).ok().map(|_| json)
}

/// `2.50` USD per million tokens is 2 500 000 000 nano-USD.
pub fn nanos_per_million(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)
}
