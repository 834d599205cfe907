//! What budgets and rate limits are on, and the amounts and names that they are given. Called by `ops/budgets.rs` and
//! `ops/rate_limits.rs`.

use nemo_proto::admin::Amount;
use nemo_types::{KeyId, Nanos, TeamId};
use uuid::Uuid;

use super::{AdminError, ErrorKind, validate};
use crate::store::{TenantTx, api_keys, teams};

/// Most budgets, and most rate limits, on one organization, team or key: every request passes them all.
pub(super) const MOST: i64 = 100;
/// Most thresholds of a budget, and the highest.
pub(super) const MAX_THRESHOLDS: usize = 20;
pub(super) const MAX_PERCENT: u32 = 1000;

/// The team or key that something is on, at most one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct On {
    pub(super) team: Option<Uuid>,
    pub(super) key: Option<Uuid>,
}

impl On {
    /// # Errors
    /// When one is no id, or both are named.
    pub(super) fn read(team_id: &str, key_id: &str) -> Result<Self, AdminError> {
        let on = Self::filter(team_id, key_id)?;
        if on.team.is_some() && on.key.is_some() {
            let expected = "one of team_id and key_id, or none for the whole organization";
            return Err(AdminError::invalid("key_id", "contradicts team_id", expected));
        }
        Ok(on)
    }

    /// As a list is restricted: to a team, to a key, or to neither.
    ///
    /// # Errors
    /// When one is no id.
    pub(super) fn filter(team_id: &str, key_id: &str) -> Result<Self, AdminError> {
        let team = match team_id {
            "" => None,
            text => Some(validate::id::<TeamId>("team_id", text)?.0),
        };
        let key = match key_id {
            "" => None,
            text => Some(validate::id::<KeyId>("key_id", text)?.0),
        };
        Ok(Self { team, key })
    }

    /// That it exists in the organization.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the member.
    pub(super) async fn check(self, tx: &mut TenantTx) -> Result<(), AdminError> {
        if let Some(team) = self.team
            && teams::get(tx, team).await?.is_none()
        {
            return Err(AdminError::not_found("team", team).with_field("team_id"));
        }
        if let Some(key) = self.key
            && api_keys::get(tx, key).await?.is_none()
        {
            return Err(AdminError::not_found("key", key).with_field("key_id"));
        }
        Ok(())
    }

    /// That there is room for one more beside the `held` ones.
    ///
    /// # Errors
    /// [`ErrorKind::InUse`] when there are as many as there can be.
    pub(super) fn room(self, held: i64, what: &str) -> Result<(), AdminError> {
        if held < MOST {
            return Ok(());
        }
        let on = match self {
            Self { team: Some(_), .. } => "team",
            Self { key: Some(_), .. } => "key",
            _ => "organization",
        };
        Err(AdminError::new(
            ErrorKind::InUse,
            format!("the {on} has {held} {what} already, the most there can be"),
        ))
    }
}

/// Decimal USD, exact to the nano-dollar.
///
/// # Errors
/// For anything that is negative, too large, too fine, or no number.
pub(super) fn amount(field: &str, text: &str) -> Result<Nanos, AdminError> {
    Nanos::from_decimal(text).ok_or_else(|| {
        let message = if text.is_empty() { "missing".to_owned() } else { format!("{text:?} is no amount") };
        let expected =
            "decimal USD from 0 to 9223372036.854775807 with at most nine decimals, as in \"25\" or \"0.5\"";
        AdminError::invalid(field, message, expected)
    })
}

/// The same for an answer. Sums of what is stored may be beyond what an amount can be.
pub(super) fn shown(nanos: i128) -> Option<Amount> {
    let nanos = i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
    Some(Amount { usd: Nanos(nanos).to_string(), nanos })
}

/// One word of a list; the first when nothing is said.
///
/// # Errors
/// For another word.
pub(super) fn word(field: &str, text: &str, words: &[&'static str]) -> Result<&'static str, AdminError> {
    if text.is_empty()
        && let Some(first) = words.first()
    {
        return Ok(first);
    }
    words.iter().find(|word| **word == text).copied().ok_or_else(|| {
        AdminError::invalid(field, format!("{text:?} is unknown"), format!("one of: {}", words.join(", ")))
    })
}

/// Percent of a limit, ascending and each once.
///
/// # Errors
/// With the entry that can't be one.
pub(super) fn thresholds(field: &str, percent: &[u32]) -> Result<Vec<i32>, AdminError> {
    validate::at_most(field, percent.len(), MAX_THRESHOLDS)?;
    let mut sorted = Vec::with_capacity(percent.len());
    for (at, percent) in percent.iter().enumerate() {
        if !(1..=MAX_PERCENT).contains(percent) {
            let message = format!("{percent} is no percentage of a limit");
            let expected = format!("1 to {MAX_PERCENT}");
            return Err(AdminError::invalid(format!("{field}[{at}]"), message, expected));
        }
        sorted.push(i32::try_from(*percent).unwrap_or_default());
    }
    sorted.sort_unstable();
    sorted.dedup();
    Ok(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_or_refused_with_the_member() {
        assert_eq!(amount("limit_usd", "0.000000001").unwrap(), Nanos(1));
        for wrong in
            ["", "-1", "1e3", "0.0000000001", "9223372036.854775808", "99999999999999999999", "ten", " 1"]
        {
            let error = amount("limit_usd", wrong).unwrap_err();
            assert_eq!(
                (error.kind, error.field.as_deref()),
                (ErrorKind::InvalidArgument, Some("limit_usd")),
                "{wrong}"
            );
        }
    }

    #[test]
    fn thresholds_come_sorted_and_once() {
        assert_eq!(thresholds("thresholds", &[100, 50, 100, 80]).unwrap(), [50, 80, 100]);
        assert_eq!(thresholds("thresholds", &[50, 0]).unwrap_err().field.as_deref(), Some("thresholds[1]"));
        assert_eq!(thresholds("thresholds", &[1001]).unwrap_err().field.as_deref(), Some("thresholds[0]"));
        assert!(thresholds("thresholds", &[1; 21]).is_err());
    }

    #[test]
    fn what_is_shown_never_wraps() {
        assert_eq!(shown(i128::from(i64::MAX) + 1).unwrap().nanos, i64::MAX);
        assert_eq!(shown(500_000_000).unwrap().usd, "0.5");
    }
}
