//! The options of the catalog sync, the same for `nemo-control-plane` and `nemo standalone`.

use super::{BadSource, SyncSettings};

/// What the options stand under in `--help`.
const HEADING: &str = "Catalog";

#[derive(Clone, Debug, Default, clap::Args)]
pub struct SyncOptions {
    /// Where the catalog is kept current from: models.dev, openrouter, providers; several with commas, the first two with
    /// =URL for a mirror
    #[arg(long, value_name = "SOURCES", env = "NEMO_CATALOG_SOURCES", global = true, help_heading = HEADING)]
    pub catalog_sources: Option<String>,
    /// Hours between two runs of the catalog sync
    #[arg(long, value_name = "HOURS", env = "NEMO_CATALOG_SYNC_HOURS", global = true, help_heading = HEADING)]
    pub catalog_sync_hours: Option<u32>,
    /// Whether models that a provider offers newly get a deployment, where the operator has others of that provider
    #[arg(
        long,
        value_name = "BOOL",
        env = "NEMO_CATALOG_DEPLOY_NEW",
        num_args = 0..=1,
        default_missing_value = "true",
        global = true, help_heading = HEADING
    )]
    pub catalog_deploy_new: Option<bool>,
}

impl SyncOptions {
    /// Over the defaults.
    ///
    /// # Errors
    /// A source that makes no sense.
    pub fn settings(&self) -> Result<SyncSettings, BadSource> {
        SyncSettings::parse(
            self.catalog_sources.as_deref().unwrap_or_default(),
            self.catalog_sync_hours.unwrap_or(SyncSettings::HOURS),
            self.catalog_deploy_new.unwrap_or(true),
        )
    }
}
