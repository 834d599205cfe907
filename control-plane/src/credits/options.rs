//! The options of payments and webhooks, the same for `nemo-control-plane` and `nemo standalone`.

use std::{fmt, path::PathBuf};

use nemo_types::Secret;

/// What the options stand under in `--help`.
const HEADING: &str = "Payments and webhooks";

#[derive(Clone, Default, clap::Args)]
pub struct BillingOptions {
    /// Signing secret of the payment provider's webhook, which sends to /webhooks/payments; several while they are being
    /// exchanged, separated by spaces; better as the variable
    #[arg(
        long,
        value_name = "SECRET",
        env = "NEMO_PAYMENTS_WEBHOOK_SECRET",
        hide_env_values = true,
        global = true, help_heading = HEADING
    )]
    pub payments_webhook_secret: Option<String>,
    /// File with that secret
    #[arg(long, value_name = "FILE", env = "NEMO_PAYMENTS_WEBHOOK_SECRET_FILE", global = true, help_heading = HEADING)]
    pub payments_webhook_secret_file: Option<PathBuf>,
    /// Let webhooks of organizations go to private networks and without TLS; only where all organizations are trusted
    #[arg(
        long,
        value_name = "BOOL",
        env = "NEMO_WEBHOOKS_ALLOW_PRIVATE",
        num_args = 0..=1,
        default_missing_value = "true",
        global = true, help_heading = HEADING
    )]
    pub webhooks_allow_private: Option<bool>,
}

/// Without the secret.
impl fmt::Debug for BillingOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BillingOptions")
            .field("payments_webhook_secret_file", &self.payments_webhook_secret_file)
            .field("webhooks_allow_private", &self.webhooks_allow_private)
            .finish_non_exhaustive()
    }
}

impl BillingOptions {
    /// The secret itself; empty when there is none.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn secret(&self) -> std::io::Result<Secret> {
        match &self.payments_webhook_secret_file {
            Some(path) => Ok(Secret::new(std::fs::read_to_string(path)?.trim())),
            None => Ok(Secret::new(self.payments_webhook_secret.clone().unwrap_or_default())),
        }
    }
}
