//! Budgets and rate limits that there shall be. Read from `nemo.toml` by [`super::file`], made by [`super::apply`].

/// What a limit is on, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum On {
    Organization,
    Team(String),
    Key { team: String, key: String },
}

impl On {
    /// In words: `team build`.
    pub fn words(&self) -> String {
        match self {
            Self::Organization => "organization".to_owned(),
            Self::Team(team) => format!("team {team}"),
            Self::Key { team, key } => format!("key {key} of team {team}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredBudget {
    pub name: String,
    /// Empty: the default one.
    pub organization: String,
    pub on: On,
    pub limit_nanos: i64,
    pub window: String,
    pub window_hours: u32,
    pub time_zone: String,
    pub over_budget: String,
    pub no_lease: String,
    pub lost_lease: String,
    pub reservation: String,
    /// Ascending.
    pub thresholds: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredLimit {
    pub name: String,
    /// Empty: the default one.
    pub organization: String,
    pub on: On,
    pub model: String,
    pub requests_per_minute: Option<u64>,
    pub tokens_per_minute: Option<u64>,
    pub concurrent: Option<u32>,
}
