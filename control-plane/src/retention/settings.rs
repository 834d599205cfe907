//! How long usage is kept: the settings, and the same as options of `nemo-control-plane` and `nemo standalone`.

use serde::Deserialize;
use time::Date;

use crate::store::retention::Kept;

/// How long what is kept, in days; 0 keeps it for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    pub request_log_days: u16,
    pub usage_hourly_days: u16,
    pub usage_daily_days: u16,
}

impl Default for Retention {
    fn default() -> Self {
        Self { request_log_days: 30, usage_hourly_days: 90, usage_daily_days: 800 }
    }
}

/// A rollup must outlast every event that can still arrive: nodes send what is up to 30 days old.
const LEAST_ROLLUP_DAYS: u16 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "retention.{name}: expected 0 (for ever) or at least {LEAST_ROLLUP_DAYS} days, because usage can arrive 30 days \
     late; got {days}"
)]
pub struct TooShort {
    name: &'static str,
    days: u16,
}

impl Retention {
    /// # Errors
    /// When late usage would find its rollup gone.
    pub fn check(&self) -> Result<(), TooShort> {
        let rollups =
            [("usage_hourly_days", self.usage_hourly_days), ("usage_daily_days", self.usage_daily_days)];
        for (name, days) in rollups {
            if (1..LEAST_ROLLUP_DAYS).contains(&days) {
                return Err(TooShort { name, days });
            }
        }
        Ok(())
    }

    /// What is before this day goes; `None`: nothing.
    pub(super) fn before(&self, kept: Kept, today: Date) -> Option<Date> {
        let days = match kept {
            Kept::RequestLog => self.request_log_days,
            Kept::UsageHourly => self.usage_hourly_days,
            Kept::UsageDaily => self.usage_daily_days,
        };
        let before = today.checked_sub(time::Duration::days(days.into())).filter(|_| days > 0)?;
        // Rollups have partitions by month; a month that has begun to expire stays whole.
        if kept == Kept::RequestLog { Some(before) } else { before.replace_day(1).ok() }
    }
}

const HEADING: &str = "Retention";

/// What was given on the command line or in the environment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct RetentionOptions {
    /// Days that the request log is kept; 0: for ever [default: 30]
    #[arg(
        long = "request-log-days",
        value_name = "DAYS",
        env = "NEMO_RETENTION__REQUEST_LOG_DAYS",
        global = true,
        help_heading = HEADING
    )]
    pub request_log_days: Option<u16>,
    /// Days that hourly sums of usage are kept; 0: for ever, else at least 32 [default: 90]
    #[arg(
        long = "usage-hourly-days",
        value_name = "DAYS",
        env = "NEMO_RETENTION__USAGE_HOURLY_DAYS",
        global = true,
        help_heading = HEADING
    )]
    pub usage_hourly_days: Option<u16>,
    /// Days that daily sums of usage are kept; 0: for ever, else at least 32 [default: 800]
    #[arg(
        long = "usage-daily-days",
        value_name = "DAYS",
        env = "NEMO_RETENTION__USAGE_DAILY_DAYS",
        global = true,
        help_heading = HEADING
    )]
    pub usage_daily_days: Option<u16>,
}

impl RetentionOptions {
    /// The settings with what was given instead of what they say.
    #[must_use]
    pub fn over(self, settings: Retention) -> Retention {
        Retention {
            request_log_days: self.request_log_days.unwrap_or(settings.request_log_days),
            usage_hourly_days: self.usage_hourly_days.unwrap_or(settings.usage_hourly_days),
            usage_daily_days: self.usage_daily_days.unwrap_or(settings.usage_daily_days),
        }
    }
}
