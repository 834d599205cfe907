//! How an organization's requests are routed, retried and kept off what fails: the settings `routing.*` and
//! `cooldown.*`, merged when a snapshot is compiled.
//!
//! [`SETTINGS`] is the one table of them: key, form, range and default. The admin API checks by it, the compiler reads
//! by it, and the documentation lists it.

use nemo_types::Nanos;

use crate::Strategy;

/// What holds for one organization. Made by [`RoutingPolicy::merge`]; every value is in its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingPolicy {
    /// Of model groups and requests that name none.
    pub strategy: Strategy,
    /// Attempts beyond one per candidate, when the request does not say; never more than `max_retries`.
    pub retries: u8,
    /// The most that a request may ask for.
    pub max_retries: u8,
    /// Longest wait before the first retry; doubled for each further one.
    pub backoff_base_ms: u32,
    pub backoff_max_ms: u32,
    /// Up to this a provider's own hint is waited for; for a longer one the next deployment is tried.
    pub hint_wait_ms: u32,
    /// How long a deployment is left alone after it failed; doubled every time in a row.
    pub cooldown_ms: u32,
    pub cooldown_max_ms: u32,
    /// Failures in a row that open a node's breaker.
    pub failure_threshold: u32,
    /// Attempts of the whole fleet, within `cluster_window_ms`, below which no share of failures counts.
    pub cluster_min_attempts: u32,
    pub cluster_error_percent: u8,
    pub cluster_window_ms: u32,
    /// The most that a request may cost, and may ask for; `None`: no bound.
    pub max_cost: Option<Nanos>,
    /// Requests that don't say it themselves are refused where the target can't express all of their parameters.
    pub refuse_unsupported: bool,
    /// Images and documents that a request names by URL are fetched for targets that want the bytes.
    pub fetch_image_urls: bool,
}

impl Default for RoutingPolicy {
    fn default() -> Self {
        Self::merge(&Overrides::default(), None)
    }
}

/// One of [`SETTINGS`].
#[derive(Clone, Copy, Debug)]
pub struct PolicySetting {
    pub key: &'static str,
    pub form: Form,
    default: i64,
}

/// What a setting's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The name of a [`Strategy`].
    Strategy,
    /// A whole number within these bounds.
    Whole { min: u32, max: u32 },
    /// An amount of USD above zero, with up to nine decimals.
    Usd,
    /// One of these; the default is the first.
    Word(&'static [&'static str]),
}

/// A day.
const DAY_MS: u32 = 24 * 60 * 60 * 1000;
const HOUR_MS: u32 = 60 * 60 * 1000;
/// More attempts than these help nobody: the deadline comes first.
const MAX_RETRIES: u32 = 10;
const NO_COST: i64 = i64::MAX;

const fn whole(key: &'static str, min: u32, max: u32, default: i64) -> PolicySetting {
    PolicySetting { key, form: Form::Whole { min, max }, default }
}

/// Positions in [`SETTINGS`].
mod at {
    pub const STRATEGY: usize = 0;
    pub const RETRIES: usize = 1;
    pub const MAX_RETRIES: usize = 2;
    pub const BACKOFF: usize = 3;
    pub const BACKOFF_MAX: usize = 4;
    pub const HINT_WAIT: usize = 5;
    pub const MAX_COST: usize = 6;
    pub const WINDOW: usize = 7;
    pub const WINDOW_MAX: usize = 8;
    pub const FAILURES: usize = 9;
    pub const MIN_ATTEMPTS: usize = 10;
    pub const ERROR_PERCENT: usize = 11;
    pub const CLUSTER_WINDOW: usize = 12;
    pub const UNSUPPORTED: usize = 13;
    pub const FETCH_IMAGE_URLS: usize = 14;
    pub const COUNT: usize = 15;
}

/// Every setting of the two families.
pub const SETTINGS: [PolicySetting; at::COUNT] = [
    PolicySetting { key: "routing.strategy", form: Form::Strategy, default: 0 },
    whole("routing.retries", 0, MAX_RETRIES, 2),
    whole("routing.max_retries", 0, MAX_RETRIES, 5),
    whole("routing.backoff_ms", 1, 60_000, 250),
    whole("routing.backoff_max_ms", 1, HOUR_MS, 8_000),
    whole("routing.hint_wait_ms", 0, HOUR_MS, 2_000),
    PolicySetting { key: "routing.max_cost_usd", form: Form::Usd, default: NO_COST },
    whole("cooldown.window_ms", 1, DAY_MS, 5_000),
    whole("cooldown.max_ms", 1, DAY_MS, 300_000),
    whole("cooldown.failures", 1, 1_000, 3),
    whole("cooldown.cluster_min_attempts", 1, 1_000_000, 20),
    whole("cooldown.cluster_error_percent", 1, 100, 50),
    whole("cooldown.cluster_window_ms", 1_000, HOUR_MS, 30_000),
    PolicySetting { key: "routing.unsupported", form: Form::Word(&["drop", "refuse"]), default: 0 },
    PolicySetting { key: "routing.fetch_image_urls", form: Form::Word(&["off", "on"]), default: 0 },
];

/// Settings that bound another one of the same scope: the bounded, then its ceiling.
const CEILINGS: [(usize, usize); 3] =
    [(at::RETRIES, at::MAX_RETRIES), (at::BACKOFF, at::BACKOFF_MAX), (at::WINDOW, at::WINDOW_MAX)];

/// By key; `None` for keys of other families.
pub fn setting(key: &str) -> Option<&'static PolicySetting> {
    position(key).map(|at| &SETTINGS[at])
}

fn position(key: &str) -> Option<usize> {
    SETTINGS.iter().position(|setting| setting.key == key)
}

impl PolicySetting {
    /// In words: `a whole number from 0 to 10`.
    pub fn expected(&self) -> String {
        match self.form {
            Form::Strategy => format!("one of: {}", Strategy::names()),
            Form::Whole { min, max } if self.key.ends_with("_ms") => {
                format!("a whole number of milliseconds from {min} to {max}")
            }
            Form::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Form::Usd => "an amount of USD above 0 with at most 9 decimals, such as \"0.25\"".to_owned(),
            Form::Word(words) => format!("one of: {}", words.join(", ")),
        }
    }

    /// Reads a value: JSON text, the quotes of strings being optional. `None` when it has another form.
    fn parse(&self, value: &str) -> Option<i64> {
        let text = value.trim();
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        match self.form {
            Form::Strategy => {
                let position = Strategy::ALL.iter().position(|strategy| strategy.name() == text)?;
                i64::try_from(position).ok()
            }
            Form::Whole { min, max } => {
                text.parse::<u32>().ok().filter(|value| (min..=max).contains(value)).map(i64::from)
            }
            Form::Word(words) => {
                let position = words.iter().position(|word| *word == text)?;
                i64::try_from(position).ok()
            }
            Form::Usd => Nanos::from_decimal(text).map(|nanos| nanos.0).filter(|nanos| *nanos > 0),
        }
    }
}

/// The settings that one scope, an organization or the installation, has set itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides([Option<i64>; at::COUNT]);

/// A setting that is above the one that bounds it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} would be {value}, above {ceiling}, which is {most}")]
pub struct AboveCeiling {
    pub key: &'static str,
    pub value: i64,
    pub ceiling: &'static str,
    pub most: i64,
}

impl Overrides {
    /// Whether `key` is of these families.
    ///
    /// # Errors
    /// What is expected instead of `value`.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        let Some(at) = position(key) else { return Ok(false) };
        let parsed = SETTINGS[at].parse(value);
        self.0[at] = Some(parsed.ok_or_else(|| {
            format!("{value} is not what {key} can be, expected {}", SETTINGS[at].expected())
        })?);
        Ok(true)
    }

    /// Whether this setting holds as it is set. The merged policy is within its ceilings anyway; this is for whoever
    /// writes a setting and means it.
    ///
    /// # Errors
    /// When it is above its ceiling.
    pub fn check(key: &str, installation: &Self, own: Option<&Self>) -> Result<(), AboveCeiling> {
        let value = |at| Self::effective(installation, own, at);
        let above = |(bounded, ceiling): &&(usize, usize)| {
            SETTINGS[*bounded].key == key && value(*bounded) > value(*ceiling)
        };
        match CEILINGS.iter().find(above) {
            None => Ok(()),
            Some((bounded, ceiling)) => Err(AboveCeiling {
                key: SETTINGS[*bounded].key,
                value: value(*bounded),
                ceiling: SETTINGS[*ceiling].key,
                most: value(*ceiling),
            }),
        }
    }

    fn effective(installation: &Self, own: Option<&Self>, at: usize) -> i64 {
        own.and_then(|own| own.0[at]).or(installation.0[at]).unwrap_or(SETTINGS[at].default)
    }
}

impl RoutingPolicy {
    /// An organization's own settings before the installation's before the defaults.
    pub fn merge(installation: &Overrides, own: Option<&Overrides>) -> Self {
        let value = |at| Overrides::effective(installation, own, at);
        let bounded = |at| {
            let ceiling = CEILINGS.iter().find(|(bounded, _)| *bounded == at);
            ceiling.map_or(value(at), |(_, ceiling)| value(at).min(value(*ceiling)))
        };
        // Every value is within the bounds of its setting, which fit.
        let wide = |at| u32::try_from(bounded(at)).unwrap_or(u32::MAX);
        let narrow = |at| u8::try_from(bounded(at)).unwrap_or(u8::MAX);
        let strategy = usize::try_from(value(at::STRATEGY)).ok().and_then(|at| Strategy::ALL.get(at));
        Self {
            strategy: strategy.copied().unwrap_or_default(),
            retries: narrow(at::RETRIES),
            max_retries: narrow(at::MAX_RETRIES),
            backoff_base_ms: wide(at::BACKOFF),
            backoff_max_ms: wide(at::BACKOFF_MAX),
            hint_wait_ms: wide(at::HINT_WAIT),
            cooldown_ms: wide(at::WINDOW),
            cooldown_max_ms: wide(at::WINDOW_MAX),
            failure_threshold: wide(at::FAILURES),
            cluster_min_attempts: wide(at::MIN_ATTEMPTS),
            cluster_error_percent: narrow(at::ERROR_PERCENT),
            cluster_window_ms: wide(at::CLUSTER_WINDOW),
            max_cost: Some(value(at::MAX_COST)).filter(|nanos| *nanos != NO_COST).map(Nanos),
            refuse_unsupported: value(at::UNSUPPORTED) == 1,
            fetch_image_urls: value(at::FETCH_IMAGE_URLS) == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        let mut overrides = Overrides::default();
        for (key, value) in pairs {
            assert_eq!(overrides.set(key, value), Ok(true), "{key} {value}");
        }
        overrides
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let policy = RoutingPolicy::default();
        assert_eq!((policy.strategy, policy.retries, policy.max_retries), (Strategy::SimpleShuffle, 2, 5));
        assert_eq!((policy.backoff_base_ms, policy.backoff_max_ms, policy.hint_wait_ms), (250, 8_000, 2_000));
        assert_eq!(
            (policy.cooldown_ms, policy.cooldown_max_ms, policy.failure_threshold),
            (5_000, 300_000, 3)
        );
        let cluster = (policy.cluster_min_attempts, policy.cluster_error_percent, policy.cluster_window_ms);
        assert_eq!((cluster, policy.max_cost), ((20, 50, 30_000), None));
        assert!(!policy.refuse_unsupported && !policy.fetch_image_urls);
    }

    /// R004-6, R004-13.
    #[test]
    fn an_organizations_setting_wins_over_the_installations_and_that_over_the_default() {
        let installation = overrides(&[("routing.retries", "4"), ("cooldown.window_ms", "9000")]);
        let own = overrides(&[
            ("routing.strategy", "\"cost-based\""),
            ("routing.retries", "1"),
            ("routing.max_cost_usd", "\"0.25\""),
            ("routing.unsupported", "\"refuse\""),
        ]);
        let merged = RoutingPolicy::merge(&installation, Some(&own));
        assert_eq!((merged.strategy, merged.retries, merged.cooldown_ms), (Strategy::CostBased, 1, 9000));
        assert_eq!((merged.max_cost, merged.refuse_unsupported), (Some(Nanos(250_000_000)), true));
        let others = RoutingPolicy::merge(&installation, None);
        assert_eq!((others.strategy, others.retries, others.max_cost), (Strategy::SimpleShuffle, 4, None));
        assert!(!others.refuse_unsupported);
        let strict = overrides(&[("routing.unsupported", "\"refuse\"")]);
        let lenient = overrides(&[("routing.unsupported", "drop")]);
        assert!(RoutingPolicy::merge(&strict, None).refuse_unsupported);
        assert!(!RoutingPolicy::merge(&strict, Some(&lenient)).refuse_unsupported);
    }

    /// Off unless somebody says otherwise, and an organization's word counts.
    #[test]
    fn images_are_fetched_where_that_is_switched_on() {
        let (on, off) = ("\"on\"", "\"off\"");
        let of = |value| overrides(&[("routing.fetch_image_urls", value)]);
        assert!(RoutingPolicy::merge(&of(off), Some(&of(on))).fetch_image_urls);
        assert!(RoutingPolicy::merge(&of(on), None).fetch_image_urls);
        assert!(!RoutingPolicy::merge(&of(on), Some(&of(off))).fetch_image_urls);
        assert!(Overrides::default().set("routing.fetch_image_urls", "true").is_err());
    }

    #[test]
    fn values_outside_their_range_are_refused_with_what_is_expected() {
        for (key, value, expected) in [
            ("routing.strategy", "\"fastest\"", "balanced"),
            ("routing.retries", "11", "from 0 to 10"),
            ("routing.retries", "-1", "from 0 to 10"),
            ("routing.retries", "1.5", "a whole number"),
            ("routing.backoff_ms", "0", "milliseconds from 1"),
            ("cooldown.failures", "0", "from 1 to 1000"),
            ("cooldown.cluster_error_percent", "101", "to 100"),
            ("routing.unsupported", "\"ignore\"", "one of: drop, refuse"),
            ("routing.unsupported", "true", "one of: drop, refuse"),
            ("routing.max_cost_usd", "0", "above 0"),
            ("routing.max_cost_usd", "\"1e3\"", "USD"),
        ] {
            let error = Overrides::default().set(key, value).unwrap_err();
            assert!(error.contains(expected), "{key} {value}: {error}");
        }
        assert_eq!(Overrides::default().set("routing.tricks", "1"), Ok(false));
        assert!(setting("cooldown.max_ms").is_some() && setting("timeouts.total_ms").is_none());
    }

    #[test]
    fn nothing_holds_above_its_ceiling_and_who_sets_it_is_told() {
        let installation = overrides(&[("routing.max_retries", "3")]);
        let own = overrides(&[("routing.retries", "4")]);
        assert_eq!(RoutingPolicy::merge(&installation, Some(&own)).retries, 3);
        let check = |installation, own| Overrides::check("routing.retries", installation, own);
        let error = check(&installation, Some(&own)).unwrap_err();
        assert_eq!((error.key, error.ceiling, error.most), ("routing.retries", "routing.max_retries", 3));
        let raised = overrides(&[("routing.retries", "4"), ("routing.max_retries", "4")]);
        assert_eq!(check(&installation, Some(&raised)), Ok(()));
        let low = overrides(&[("cooldown.max_ms", "1000")]);
        assert_eq!(RoutingPolicy::merge(&low, None).cooldown_ms, 1000);
        assert!(Overrides::check("cooldown.window_ms", &low, None).is_err());
        assert!(Overrides::check("cooldown.max_ms", &low, None).is_ok(), "lowering a ceiling is no mistake");
    }
}
