//! Windows of budgets: when one begins, when it ends, and which comes next. Pure. Called by the bank, and by the admin
//! operations to check what is set.
//!
//! Days, weeks (from Monday) and months begin at the first moment of their first date in a time zone, whatever the
//! clocks there do: windows follow each other without gap and without overlap, also where midnight is skipped or comes
//! twice. Rolling and total windows are one for ever, which starts in 1970.

use std::fmt;

use jiff::{Span as JiffSpan, Timestamp, ToSpan as _, civil::Date, tz::TimeZone};

/// Where windows start that have no beginning.
pub const EVER: i64 = 0;
/// Most hours of a rolling window: 31 days.
pub const MAX_ROLLING_HOURS: u16 = 744;

/// How long the money of a budget has to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Day,
    Week,
    Month,
    /// The last so many hours, and what else was spent in the hour that they begin in.
    Rolling(u16),
    Total,
}

/// The windows of one budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    length: Length,
    zone: TimeZone,
}

/// One window, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: i64,
    /// Its first second that is not in it; `None`: it never ends.
    pub end: Option<i64>,
}

/// What can't be a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WindowError {
    Kind(String),
    HoursMissing,
    Hours(i64),
    HoursUnasked,
    Zone(String),
}

impl WindowError {
    /// The setting that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Kind(_) => "window_kind",
            Self::HoursMissing | Self::Hours(_) | Self::HoursUnasked => "window_hours",
            Self::Zone(_) => "time_zone",
        }
    }
}

impl std::error::Error for WindowError {}

impl fmt::Display for WindowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "expected day, week, month, rolling or total, got {kind:?}"),
            Self::HoursMissing => write!(f, "required for rolling windows: 1 to {MAX_ROLLING_HOURS}"),
            Self::Hours(hours) => write!(f, "expected 1 to {MAX_ROLLING_HOURS} hours, got {hours}"),
            Self::HoursUnasked => write!(f, "only rolling windows are counted in hours"),
            Self::Zone(zone) => {
                write!(f, "expected the name of an IANA time zone such as Europe/Berlin or UTC, got {zone:?}")
            }
        }
    }
}

impl Window {
    /// From the columns of a budget. `zone` is an IANA name; an empty one is UTC.
    ///
    /// # Errors
    /// [`WindowError`] names the column that is wrong and what was expected.
    pub fn parse(kind: &str, hours: Option<i64>, zone: &str) -> Result<Self, WindowError> {
        let length = match (kind, hours) {
            ("rolling", None) => return Err(WindowError::HoursMissing),
            ("rolling", Some(hours)) => {
                let fits = u16::try_from(hours).ok().filter(|hours| (1..=MAX_ROLLING_HOURS).contains(hours));
                Length::Rolling(fits.ok_or(WindowError::Hours(hours))?)
            }
            ("day", None) => Length::Day,
            ("week", None) => Length::Week,
            ("month", None) => Length::Month,
            ("total", None) => Length::Total,
            ("day" | "week" | "month" | "total", Some(_)) => return Err(WindowError::HoursUnasked),
            _ => return Err(WindowError::Kind(kind.to_owned())),
        };
        Ok(Self { length, zone: zone_of(zone)? })
    }

    pub fn length(&self) -> Length {
        self.length
    }

    /// Hours of a rolling window.
    pub fn rolling_hours(&self) -> Option<u16> {
        match self.length {
            Length::Rolling(hours) => Some(hours),
            _ => None,
        }
    }

    /// The window that `now` is in, in seconds since 1970.
    pub fn span(&self, now: i64) -> Span {
        if matches!(self.length, Length::Rolling(_) | Length::Total) {
            return Span { start: EVER, end: None };
        }
        // Times that no calendar has (before year -9999) have no windows either.
        self.dated(now).unwrap_or(Span { start: EVER, end: None })
    }

    /// The one after `span`; `None`: it never ends.
    pub fn next(&self, span: Span) -> Option<Span> {
        span.end.map(|end| self.span(end))
    }

    fn dated(&self, now: i64) -> Option<Span> {
        let date = Timestamp::from_second(now).ok()?.to_zoned(self.zone.clone()).date();
        let mut first = self.first_date(date)?;
        let (mut start, mut end) = (self.begins(first)?, self.begins(self.after(first)?)?);
        // Where a date comes twice because clocks go back over midnight, the second time belongs to the next window.
        while now >= end {
            first = self.after(first)?;
            (start, end) = (end, self.begins(self.after(first)?)?);
        }
        while now < start {
            first = self.first_date(first.yesterday().ok()?)?;
            (start, end) = (self.begins(first)?, start);
        }
        Some(Span { start, end: Some(end) })
    }

    fn first_date(&self, date: Date) -> Option<Date> {
        match self.length {
            Length::Week => date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok(),
            Length::Month => Some(date.first_of_month()),
            _ => Some(date),
        }
    }

    fn after(&self, first: Date) -> Option<Date> {
        let step: JiffSpan = match self.length {
            Length::Week => 1.week(),
            Length::Month => 1.month(),
            _ => 1.day(),
        };
        first.checked_add(step).ok()
    }

    /// The first moment of a date. Where midnight is skipped, that is when the clocks go on.
    fn begins(&self, date: Date) -> Option<i64> {
        let midnight = self.zone.to_ambiguous_zoned(date.at(0, 0, 0, 0)).compatible().ok()?;
        Some(midnight.timestamp().as_second())
    }
}

fn zone_of(name: &str) -> Result<TimeZone, WindowError> {
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    let unknown = || WindowError::Zone(name.chars().take(64).collect());
    let zone = jiff::tz::db().get(name).map_err(|_| unknown())?;
    // Exactly as it is listed: the same zone is spelled one way in all that is stored.
    if zone.iana_name() == Some(name) { Ok(zone) } else { Err(unknown()) }
}

#[cfg(test)]
mod tests;
