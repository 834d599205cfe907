//! The sums of a re-rating, by organization, model and provider. Pure.

use std::{cmp::Reverse, collections::BTreeMap};

use nemo_proto::admin::RerateRow;
use nemo_types::Nanos;
use uuid::Uuid;

use super::Verdict;

/// Most rows of an answer; what does not fit is in the total.
pub const MAX_ROWS: usize = 1000;

/// Requests of which nothing is known but what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    requests: u64,
    changed: u64,
    unpriced: u64,
    skipped: u64,
    booked: i128,
    rerated: i128,
}

impl Sums {
    fn add(&mut self, verdict: Verdict) {
        self.requests += 1;
        match verdict {
            Verdict::Skipped => self.skipped += 1,
            Verdict::Same(Nanos(nanos)) => {
                self.booked += i128::from(nanos);
                self.rerated += i128::from(nanos);
            }
            Verdict::Changed { before, after } => {
                self.changed += 1;
                self.unpriced += u64::from(before.is_none());
                self.booked += i128::from(before.unwrap_or(Nanos::ZERO).0);
                self.rerated += i128::from(after.0);
            }
        }
    }

    fn row(self) -> RerateRow {
        let amount =
            |sum: i128| Nanos(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }));
        let (booked, rerated) = (amount(self.booked), amount(self.rerated));
        let difference = amount(self.rerated - self.booked);
        RerateRow {
            requests: self.requests,
            changed: self.changed,
            unpriced: self.unpriced,
            skipped: self.skipped,
            booked_nanos: booked.0,
            booked_usd: booked.to_string(),
            rerated_nanos: rerated.0,
            rerated_usd: rerated.to_string(),
            difference_nanos: difference.0,
            difference_usd: difference.to_string(),
            ..RerateRow::default()
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Report {
    by: BTreeMap<(Uuid, String, String), Sums>,
    total: Sums,
}

impl Report {
    pub fn add(&mut self, (org, model, provider): (Uuid, &str, &str), verdict: Verdict) {
        self.total.add(verdict);
        self.by.entry((org, model.to_owned(), provider.to_owned())).or_default().add(verdict);
    }

    pub fn total(&self) -> RerateRow {
        self.total.row()
    }

    /// The largest differences first.
    pub fn rows(&self) -> Vec<RerateRow> {
        let rows = self.by.iter().map(|((org, model, provider), sums)| RerateRow {
            org_id: org.to_string(),
            model: model.clone(),
            provider: provider.clone(),
            ..sums.row()
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by_key(|row| Reverse(row.difference_nanos.unsigned_abs()));
        rows.truncate(MAX_ROWS);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_rows() {
        let mut report = Report::default();
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        report.add((a, "m", "p"), Verdict::Changed { before: Some(Nanos(500)), after: Nanos(700) });
        report.add((a, "m", "p"), Verdict::Same(Nanos(5)));
        report.add((b, "m", "p"), Verdict::Changed { before: None, after: Nanos(1_000) });
        report.add((b, "m", "p"), Verdict::Skipped);
        let rows = report.rows();
        assert_eq!((rows[0].org_id.as_str(), rows[0].difference_nanos), (b.to_string().as_str(), 1_000));
        assert_eq!((rows[0].requests, rows[0].changed, rows[0].unpriced, rows[0].skipped), (2, 1, 1, 1));
        assert_eq!((rows[1].booked_nanos, rows[1].rerated_nanos), (505, 705));
        let total = report.total();
        assert_eq!((total.requests, total.difference_nanos), (4, 1_200));
        assert_eq!(total.difference_usd, "0.0000012");
    }
}
