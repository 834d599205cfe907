//! Which sources are asked, and how often. Read by [`crate::config`].

use std::{str::FromStr, time::Duration};

/// What a source speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The JSON of models.dev: providers with their models, limits and prices.
    ModelsDev,
    /// OpenRouter's `/api/v1/models`.
    OpenRouter,
    /// Each provider's own list of models, asked with the operator's credentials.
    Providers,
}

impl SourceKind {
    const ALL: [Self; 3] = [Self::ModelsDev, Self::OpenRouter, Self::Providers];

    pub fn name(self) -> &'static str {
        match self {
            Self::ModelsDev => "models.dev",
            Self::OpenRouter => "openrouter",
            Self::Providers => "providers",
        }
    }

    fn default_url(self) -> &'static str {
        match self {
            Self::ModelsDev => "https://models.dev/api.json",
            Self::OpenRouter => "https://openrouter.ai/api/v1/models",
            Self::Providers => "",
        }
    }
}

/// One source: `models.dev`, or `models.dev=https://mirror.example/api.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    pub kind: SourceKind,
    pub url: String,
}

/// What is wrong with a source in the settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    #[error(
        "{0:?} is no source: expected models.dev, openrouter or providers, the first two with =URL if it is a mirror"
    )]
    Unknown(String),
    #[error("{0:?} is no URL: expected https://…")]
    Url(String),
    #[error("providers takes no URL: each provider is asked where its deployments go")]
    NoUrl,
    #[error("{0} is named twice")]
    Twice(&'static str),
}

impl FromStr for SourceSettings {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let (name, url) = text.split_once('=').map_or((text, None), |(name, url)| (name, Some(url)));
        let kind = SourceKind::ALL.into_iter().find(|kind| kind.name() == name.trim());
        let kind = kind.ok_or_else(|| BadSource::Unknown(text.to_owned()))?;
        let Some(url) = url.map(str::trim) else {
            return Ok(Self { kind, url: kind.default_url().to_owned() });
        };
        if kind == SourceKind::Providers {
            return Err(BadSource::NoUrl);
        }
        let parsed: Option<http::Uri> = url.parse().ok();
        let good = parsed
            .is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        if good { Ok(Self { kind, url: url.to_owned() }) } else { Err(BadSource::Url(url.to_owned())) }
    }
}

/// How the catalog is kept current.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncSettings {
    /// In the order in which they are believed. Empty: only the bundled catalog and what operators write.
    pub sources: Vec<SourceSettings>,
    /// Between two runs.
    pub every: Duration,
    /// New offerings of a provider that the operator has a credential for get a deployment.
    pub deploy: bool,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self { sources: Vec::new(), every: Duration::from_secs(Self::HOURS as u64 * 3600), deploy: true }
    }
}

impl SyncSettings {
    /// Between two runs, by default.
    pub const HOURS: u32 = 6;

    /// Of a list that is separated by commas.
    ///
    /// # Errors
    /// The first source that makes no sense.
    pub fn parse(sources: &str, hours: u32, deploy: bool) -> Result<Self, BadSource> {
        let mut parsed: Vec<SourceSettings> = Vec::new();
        for text in sources.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let source: SourceSettings = text.parse()?;
            if parsed.iter().any(|known| known.kind == source.kind) {
                return Err(BadSource::Twice(source.kind.name()));
            }
            parsed.push(source);
        }
        Ok(Self { sources: parsed, every: Duration::from_secs(u64::from(hours.max(1)) * 3600), deploy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_with_or_without_a_mirror() {
        let read =
            SyncSettings::parse("providers, models.dev=http://127.0.0.1:9/api.json,openrouter", 2, false);
        let read = read.unwrap();
        let kinds: Vec<_> = read.sources.iter().map(|source| (source.kind, source.url.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (SourceKind::Providers, ""),
                (SourceKind::ModelsDev, "http://127.0.0.1:9/api.json"),
                (SourceKind::OpenRouter, "https://openrouter.ai/api/v1/models"),
            ]
        );
        assert_eq!((read.every, read.deploy), (Duration::from_secs(7200), false));
        assert_eq!(SyncSettings::parse("", 6, true).unwrap(), SyncSettings::default());
        for (text, error) in [
            ("litellm", BadSource::Unknown("litellm".into())),
            ("models.dev=ftp://x/y", BadSource::Url("ftp://x/y".into())),
            ("providers=https://x.example", BadSource::NoUrl),
            ("openrouter,openrouter=https://x.example", BadSource::Twice("openrouter")),
        ] {
            assert_eq!(SyncSettings::parse(text, 6, true), Err(error), "{text}");
        }
    }
}
