//! The prices that were in effect at a time, from the rows of the price book. Pure: the same rule by which the price
//! clock and the admin operations decide what holds now.

use std::collections::HashMap;

use nemo_types::PriceSheet;
use time::OffsetDateTime;
use uuid::Uuid;

/// One price of a history.
#[derive(Clone, Debug)]
pub struct Dated {
    pub effective_from: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub sheet: PriceSheet,
}

/// What was in effect at `at`: of what had begun, the one that began last, and of those the one that was written last.
/// Who enters a price for the past replaces what was in effect since then, up to when it was entered.
pub fn effective(history: &[Dated], at: OffsetDateTime) -> Option<&PriceSheet> {
    let replaced = |row: &Dated| {
        history.iter().any(|later| {
            later.created_at > row.created_at
                && later.effective_from <= row.effective_from
                && row.effective_from <= later.created_at
        })
    };
    let begun = history.iter().filter(|row| row.effective_from <= at && !replaced(row));
    begun.max_by_key(|row| (row.effective_from, row.created_at)).map(|row| &row.sheet)
}

/// Histories by what they are of.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// By provider and model.
    pub catalog: HashMap<(String, String), Vec<Dated>>,
    pub deployments: HashMap<Uuid, Vec<Dated>>,
    /// By id, for what requests were billed at.
    pub by_id: HashMap<String, PriceSheet>,
}

/// Begins the ids of prices that deployments have of their own.
pub const OF_DEPLOYMENT: &str = "deployment/";

impl Book {
    /// The price of a request that started at `at`.
    pub fn at(
        &self,
        (provider, model): (&str, &str),
        deployment: Option<Uuid>,
        billed_at: &str,
        at: OffsetDateTime,
    ) -> Option<&PriceSheet> {
        let of_catalog = || {
            let history = self.catalog.get(&(provider.to_owned(), model.to_owned()))?;
            effective(history, at)
        };
        let of_deployment = || effective(self.deployments.get(&deployment?)?, at);
        match billed_at {
            // It had none: whatever was found for it since.
            "" => of_deployment().or_else(of_catalog),
            id if id.starts_with(OF_DEPLOYMENT) => of_deployment(),
            _ => of_catalog(),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    fn at(hours: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::hours(hours)
    }

    fn price(id: &str, from: i64, written: i64) -> Dated {
        Dated {
            effective_from: at(from),
            created_at: at(written),
            sheet: PriceSheet { id: id.into(), ..PriceSheet::default() },
        }
    }

    fn holds(history: &[Dated], hours: i64) -> Option<&str> {
        effective(history, at(hours)).map(|sheet| &*sheet.id)
    }

    #[test]
    fn a_price_holds_until_the_next_one() {
        let history = [price("a", 10, 10), price("b", 20, 20)];
        assert_eq!(holds(&history, 9), None);
        assert_eq!((holds(&history, 10), holds(&history, 19)), (Some("a"), Some("a")));
        assert_eq!((holds(&history, 20), holds(&history, 99)), (Some("b"), Some("b")));
    }

    #[test]
    fn a_price_for_the_past_replaces_what_held_since_then() {
        // b was wrong; c, entered at 30, says what held from 15 on.
        let history = [price("a", 10, 10), price("b", 20, 20), price("c", 15, 30)];
        assert_eq!((holds(&history, 14), holds(&history, 15)), (Some("a"), Some("c")));
        assert_eq!((holds(&history, 25), holds(&history, 99)), (Some("c"), Some("c")));
        // For the very same time.
        let history = [price("a", 10, 10), price("b", 10, 11)];
        assert_eq!(holds(&history, 10), Some("b"));
    }

    #[test]
    fn what_is_scheduled_still_comes() {
        // s was scheduled at 10 for 50; what was set at 20, and corrected at 30, does not undo that.
        let history = [price("a", 5, 5), price("s", 50, 10), price("b", 20, 20), price("c", 15, 30)];
        assert_eq!((holds(&history, 40), holds(&history, 50)), (Some("c"), Some("s")));
        // Corrected after it began.
        let history = [price("s", 50, 10), price("c", 45, 60)];
        assert_eq!((holds(&history, 44), holds(&history, 55)), (None, Some("c")));
    }

    #[test]
    fn a_deployments_own_price_is_for_requests_that_it_billed() {
        let id = Uuid::from_u128(1);
        let book = Book {
            catalog: [(("p".to_owned(), "m".to_owned()), vec![price("catalog", 0, 0)])].into(),
            deployments: [(id, vec![price("own", 5, 5)])].into(),
            by_id: HashMap::new(),
        };
        let of = |billed_at, hours| {
            book.at(("p", "m"), Some(id), billed_at, at(hours)).map(|sheet| sheet.id.to_string())
        };
        assert_eq!(of("deployment/1@x", 6).as_deref(), Some("own"));
        assert_eq!(of("p/m@x", 6).as_deref(), Some("catalog"));
        assert_eq!((of("", 6).as_deref(), of("", 4).as_deref()), (Some("own"), Some("catalog")));
    }
}
